/* SPDX-License-Identifier: Apache-2.0 */
/* One step through UTF-8 that may be ill-formed. */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include "tessera/base.h"

/* Length of the sequence that begins at s (n_bytes > 0 remain).  When it is ill-formed *out_valid
 * is false and the length is that of its maximal subpart (Unicode 15, 3.9, U+FFFD substitution). */
size_t tess__utf8_step(const uint8_t *s, size_t n_bytes, bool *out_valid);

#endif
