/* SPDX-License-Identifier: Apache-2.0 */
/* The page's files, inside the program. */
#ifndef TESSERA_SERVE_ASSETS_H
#define TESSERA_SERVE_ASSETS_H

#include "tessera/base.h"

typedef struct tess__asset {
    const char *type; /* media type */
    tess_bytes data;
} tess__asset;

/* False when no asset has this path. */
bool tess__asset_find(const char *path, tess__asset *out);

#endif
