/* SPDX-License-Identifier: Apache-2.0 */
/* TensorBoard event files: scalars, written natively. */
#ifndef TRAIN_TFEVENTS_H
#define TRAIN_TFEVENTS_H

#include "tessera/metrics.h"

/* Appends framed records to `out`.  The first record of a file is the version. */
void tess__tfevents_add_version(tess_buf *out, double wall_s);
void tess__tfevents_add_scalars(tess_buf *out, double wall_s, int64_t step,
                                const tess_scalar *scalars, size_t n);

/* The bytes of the whole and undamaged records at the start of a file whose steps do not exceed
 * `step`; n_records counts them. */
size_t tess__tfevents_keep_bytes(const void *data, size_t n_bytes, int64_t step,
                                 int64_t *n_records);

/* The event file of a directory: with `resume` the newest one there is cut back to `step` and gone
 * on with; otherwise, or when there is none, a new one begins. */
TESS_MUST_USE tess_status tess__tfevents_open(const char *dir, bool resume, int64_t step,
                                              tess_appender **out);

#endif
