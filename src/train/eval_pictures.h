/* SPDX-License-Identifier: Apache-2.0 */
/* eval_pictures: every picture of a data set as a unit vector, for evaluations. */
#ifndef TESSERA_TRAIN_EVAL_PICTURES_H
#define TESSERA_TRAIN_EVAL_PICTURES_H

#include "tessera/train.h"

/* The batch's pictures, finished or decoded -> out (B',Z) unit rows. */
TESS_MUST_USE tess_status tess__embed_batch(tess_model *m, const tess_batch *b, float *out);

/* pictures (n,Z) and ok (n): whether it was decoded; the row of one that was not means nothing.
 * `bad` gains what was wrong, by name.  `on_progress` and `bad` may be NULL. */
TESS_MUST_USE tess_status
tess__eval_pictures(tess_model *m, const tess_dataset *ds, const tess_hooks *hooks, int workers,
                    void (*on_progress)(void *ctx, int64_t n_done, int64_t n_total), void *ctx,
                    float *out_pictures, bool *out_ok, tess_bad_list *bad);

#endif
