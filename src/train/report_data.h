/* SPDX-License-Identifier: Apache-2.0 */
/* What the report shows: the records of a run, as one series for each scalar. */
#ifndef TRAIN_REPORT_DATA_H
#define TRAIN_REPORT_DATA_H

#include "tessera/base.h"

typedef struct tess__point {
    double step, value; /* value NaN: was not finite */
} tess__point;

typedef struct tess__series {
    const char *name;
    tess__point *points;
    size_t n_points, cap;
} tess__series;

typedef struct tess__run {
    tess_arena arena;
    tess__series *series; /* in order of first appearance */
    size_t n_series, cap;
    size_t next;                /* where the next name is looked for first */
    int64_t last_step, n_train; /* n_train: records of metrics.jsonl */
    double first_s, last_s;     /* wall time of the first and last record; 0: none */
    int64_t n_bad;              /* lines that could not be read */
} tess__run;

TESS_MUST_USE tess_status tess__run_load(const char *dir, tess__run *out);
void tess__run_deinit(tess__run *run);
const tess__series *tess__run_find(const tess__run *run, const char *name);
/* The last finite value; NaN: none. */
double tess__series_last(const tess__series *s);
/* Where the language begins in "val/text_to_image_R@10/de"; NULL: no language. */
const char *tess__series_language(const char *name);

/* At most n_buckets stretches of equal length in steps, each with its mean and extremes. */
typedef struct tess__bucket {
    double step, mean, low, high;
} tess__bucket;
/* Writes the non-empty ones to `out` (n_buckets long) and returns how many; series of no more
 * points than n_buckets come out point by point.  Values that are not finite are left out. */
size_t tess__series_decimate(const tess__series *s, size_t n_buckets, tess__bucket *out);

#endif
