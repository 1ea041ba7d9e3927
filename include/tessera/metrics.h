/* SPDX-License-Identifier: Apache-2.0 */
/* metrics: what a training run writes down, and the page that shows it.
 *
 * A run directory has OpenCLIP's layout:
 *
 *     logs/<name>/out.log                     lines for people
 *                 params.txt                  "name: value", sorted
 *                 metrics.jsonl               one object per logged step: step, epoch, time,
 * scalars checkpoints/results.jsonl   one object per evaluation tensorboard/events.out...   the
 * same scalars as TensorBoard event files report.html                 curves, self-contained
 *
 * Scalars are named as OpenCLIP names them: "train/loss", "val/text_to_image_R@1".  A value for one
 * language ends in its tag: "val/text_to_image_R@10/de".
 *
 * The cursor of all files is the training step, not a byte offset: a checkpoint already holds it,
 * its bytes do not depend on how many digits a rate had, and a file that lost its tail in a power
 * cut is no special case.
 */
#ifndef TESSERA_METRICS_H
#define TESSERA_METRICS_H

#include "tessera/base.h"

typedef struct tess_scalar {
    const char *name;
    double value; /* not finite: null in JSON, NaN in event files, a gap in curves */
} tess_scalar;

typedef struct tess_metrics_options {
    const char *dir;     /* logs/<name>; made when absent */
    bool resume;         /* go on with the files that are there */
    int64_t resume_step; /* records of later steps are cut off; the step of the checkpoint */
    bool no_tensorboard;
} tess_metrics_options;

typedef struct tess_metrics tess_metrics;

/* Without `resume` the directory may not hold metrics yet: TESS_INVALID. */
TESS_MUST_USE tess_status tess_metrics_open(const tess_metrics_options *options,
                                            tess_metrics **out);
void tess_metrics_close(tess_metrics *m);

/* One logged step of training. */
typedef struct tess_train_point {
    int64_t step;  /* optimizer steps done, never less than the point before */
    int64_t epoch; /* from 0 */
    int64_t n_samples, samples_per_epoch; /* done in this epoch, and all of it */
    int n_devices;                        /* ranks; 0: 1 */
    double loss, mean_loss;               /* of this step; since the epoch began */
    double lr, logit_scale;
    double data_time, batch_time; /* seconds a step: waiting for data; altogether */
    double samples_per_second;    /* of all ranks */
} tess_train_point;

/* Writes train/loss, train/lr, train/logit_scale, train/data_time, train/batch_time,
 * train/samples_per_second, train/samples_per_second_per_gpu and the `more` to metrics.jsonl and
 * the event file, and OpenCLIP's line to out.log (and to tess_log at level DEBUG). */
TESS_MUST_USE tess_status tess_metrics_add_train(tess_metrics *m, const tess_train_point *p,
                                                 const tess_scalar *more, size_t n_more);
/* One evaluation after `step`: results.jsonl and the event file. */
TESS_MUST_USE tess_status tess_metrics_add_result(tess_metrics *m, int64_t step, int64_t epoch,
                                                  const tess_scalar *scalars, size_t n);
/* A line for out.log, "2026-11-20,09:00:00 | INFO | ...", also given to tess_log. */
TESS_MUST_USE tess_status tess_metrics_log(tess_metrics *m, tess_log_level level, const char *fmt,
                                           ...) TESS_PRINTF(3, 4);
/* params.txt from the members of a JSON object. */
TESS_MUST_USE tess_status tess_metrics_write_params(tess_metrics *m, const tess_json *params);
/* Makes what was written durable; before a checkpoint's manifest. */
TESS_MUST_USE tess_status tess_metrics_sync(tess_metrics *m);

/* Writes <dir>/report.html from the JSONL files and params.txt of a run directory; those that are
 * absent are left out, lines that cannot be read are counted on the page. */
TESS_MUST_USE tess_status tess_report_write(const char *dir);

#endif
