/* SPDX-License-Identifier: Apache-2.0 */
/* What tokenizers need of utf8proc, behind its one door. */
#ifndef TESS_TEXT_NORMALIZE_H
#define TESS_TEXT_NORMALIZE_H

#include "text/pipe.h"

/* A normal form of well-formed UTF-8, without limits: linear but for marks, which are ordered in
 * O(n) a run.  Characters that `tokenizers` does not know stay as they are.  in -> *out, replaced.
 */
TESS_MUST_USE tess_status tess__normal_form(tess__pipe_scratch *s, bool compose, bool compat);
/* Lower case of one code point as Rust's and Python's char by char: at most 2; returns how many. */
int tess__lower_of(uint32_t c, uint32_t out[2]);
/* Whether an extended grapheme cluster ends between two code points.  *state: 0 at the start. */
bool tess__grapheme_breaks(uint32_t before, uint32_t after, int32_t *state);

#endif
