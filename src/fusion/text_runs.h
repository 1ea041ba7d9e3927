/* SPDX-License-Identifier: Apache-2.0 */
/* Which texts of a call are embedded together. */
#ifndef TESSERA_FUSION_TEXT_RUNS_H
#define TESSERA_FUSION_TEXT_RUNS_H

#include "tessera/base.h"

typedef struct tess__text_runs {
    const int64_t *offsets; /* (n+1), as given */
    int64_t n_left, longest;
    int64_t *first; /* by length: a text of that length that is left, or -1 */
    int64_t *after; /* by text: another one of its length, or -1 */
} tess__text_runs;

/* n texts of 1 to `longest` tokens. */
TESS_MUST_USE tess_status tess__text_runs_init(const int64_t *offsets, int64_t n, int64_t longest,
                                               tess__text_runs *out);
/* Takes the texts of the next run: at most `most`, of at most `rows` tokens in all unless it is one
 * alone; fills `texts` with their numbers.  0: none is left. */
int64_t tess__text_runs_next(tess__text_runs *r, int64_t rows, int64_t most, int64_t *texts);
void tess__text_runs_deinit(tess__text_runs *r);

#endif
