/* SPDX-License-Identifier: Apache-2.0 */
/* What was measured once, kept on disk: strings by strings, in one file for a place (a card, its
 * driver, a library's version).
 *
 * The file is in $TESSERA_CACHE (empty: no file), or $XDG_CACHE_HOME/tessera, or
 * ~/.cache/tessera.  It is replaced whole; one that is damaged, of another place or cannot be read
 * holds nothing, and one that cannot be written is not. */
#ifndef TESSERA_TENSOR_CUDA_CACHE_H
#define TESSERA_TENSOR_CUDA_CACHE_H

#include "tessera/base.h"

typedef struct tess_kept {
    char *key, *value; /* printable, without tabs */
} tess_kept;

typedef struct tess_cache {
    char *place, *path; /* path NULL: in memory alone */
    tess_kept *items;
    size_t n, cap;
} tess_cache;

/* Reads what is there.  Fails only where memory gives out. */
tess_status tess__cache_open(tess_cache *c, const char *place);
/* NULL: nothing was kept. */
const char *tess__cache_find(const tess_cache *c, const char *key);
/* Also what other processes have written in the meantime stays in the file. */
tess_status tess__cache_keep(tess_cache *c, const char *key, const char *value);
void tess__cache_close(tess_cache *c);

#endif
