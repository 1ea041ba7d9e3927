/* SPDX-License-Identifier: Apache-2.0 */
/* gzip data from memory. */
#ifndef BASE_GZIP_H
#define BASE_GZIP_H

#include "tessera/base.h"

/* Unpacks all members of gzip data into fresh memory (NUL appended beyond *out_bytes; caller
 * frees). TESS_FORMAT: not gzip, damaged or cut short.  TESS_NOMEM: more than max_bytes come out.
 */
TESS_MUST_USE tess_status tess__gunzip(const uint8_t *data, size_t n_bytes, size_t max_bytes,
                                       uint8_t **out, size_t *out_bytes);

#endif
