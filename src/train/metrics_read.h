/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a JSONL file of records that have a "step". */
#ifndef TRAIN_METRICS_READ_H
#define TRAIN_METRICS_READ_H

#include "tessera/base.h"

/* A record and the byte at which its line begins; false stops the walk. */
typedef bool tess__metrics_visit(void *ctx, const tess_json *record, int64_t step, int64_t offset);

typedef struct tess__metrics_walk {
    int64_t n_records, n_bad; /* bad: not a JSON object, or without a step */
    int64_t whole_bytes;      /* up to the end of the last good line before the first bad one */
} tess__metrics_walk;

/* Visits the records in order, skipping bad lines; an absent file has none. */
TESS_MUST_USE tess_status tess__metrics_read(const char *path, tess__metrics_visit *visit,
                                             void *ctx, tess__metrics_walk *out);
/* How many bytes to keep so that no record of a step beyond `step`, and nothing torn, remains. */
TESS_MUST_USE tess_status tess__metrics_keep_bytes(const char *path, int64_t step, int64_t *out);

#endif
