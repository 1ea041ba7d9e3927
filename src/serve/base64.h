/* SPDX-License-Identifier: Apache-2.0 */
/* Base64 (RFC 4648, section 4). */
#ifndef TESSERA_SERVE_BASE64_H
#define TESSERA_SERVE_BASE64_H

#include "tessera/base.h"

/* Decodes n characters into `arena`.  Line breaks are skipped, padding is needed, anything else is
 * TESS_FORMAT. */
TESS_MUST_USE tess_status tess__base64_decode(const char *s, size_t n, tess_arena *arena,
                                              tess_bytes *out);

#endif
