/* SPDX-License-Identifier: Apache-2.0 */
/* What a client searches for, out of JSON or a form. */
#ifndef TESSERA_SERVE_SEARCH_QUERY_H
#define TESSERA_SERVE_SEARCH_QUERY_H

#include "serve/http.h"
#include "tessera/index.h"

typedef struct tess__query {
    const char *text; /* NULL: none; UTF-8 without NULs */
    size_t text_bytes;
    tess_bytes picture; /* encoded; data NULL: none */
    double text_weight, picture_weight;
    int64_t k;
} tess__query;

typedef struct tess__query_limits {
    size_t max_text_bytes;
    int64_t max_k;
} tess__query_limits;

/* Reads POST /v1/search.  Strings are borrowed from the request or live in `arena`.  TESS_INVALID
 * and TESS_FORMAT: the client's fault, with a message for it; TESS_UNSUPPORTED: another content
 * type. */
TESS_MUST_USE tess_status tess__query_read(const tess__request *request,
                                           const tess__query_limits *limits, tess_arena *arena,
                                           tess__query *out);

#endif
