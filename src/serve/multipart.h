/* SPDX-License-Identifier: Apache-2.0 */
/* multipart/form-data (RFC 7578) from a body in memory. */
#ifndef TESSERA_SERVE_MULTIPART_H
#define TESSERA_SERVE_MULTIPART_H

#include "tessera/base.h"

enum { TESS__MAX_PARTS = 8, TESS__MAX_PART_NAME = 64 };

typedef struct tess__part {
    char name[TESS__MAX_PART_NAME];
    tess_bytes data; /* borrowed from the body */
} tess__part;

typedef struct tess__parts {
    int n;
    tess__part parts[TESS__MAX_PARTS];
} tess__parts;

/* Splits `body` at the boundary that `content_type` names.  File names and the parts' own types are
 * read over and never used.  TESS_FORMAT: truncated, no boundary, too many parts, a header too
 * long, a part without a name. */
TESS_MUST_USE tess_status tess__multipart_parse(const char *content_type, tess_bytes body,
                                                tess__parts *out);
/* True when the header value's media type (before any ';') is `type`. */
bool tess__is_media_type(const char *content_type, const char *type);

#endif
