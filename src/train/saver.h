/* SPDX-License-Identifier: Apache-2.0 */
/* Writing files of tensors while training goes on: the bytes are those of the moment of the start,
 * whatever the tensors become later. */
#ifndef TESSERA_TRAIN_SAVER_H
#define TESSERA_TRAIN_SAVER_H

#include "tessera/tensor.h"

/* One file of tensors.  All but the data is borrowed until tess_saver_start returns, the path and
 * the data until the job has ended; data of less than a piece is copied at the start. */
typedef struct tess_saver_file {
    const char *path; /* in a directory that `before` makes */
    const tess_tensor *tensors;
    int64_t n;
    const tess_pair *metadata;
    int64_t n_metadata;
    int64_t n_bytes; /* out, when `after` is called: of the file */
    uint64_t crc;    /* out: its tess_crc64 */
} tess_saver_file;

/* `before` the files and `after` them, on the saver's own thread; a failure ends the job.  `free`
 * (or NULL) is called on the caller's: when the job's end is asked for, or where it does not start.
 */
typedef struct tess_saver_job {
    tess_saver_file *files;
    int64_t n_files;
    tess_status (*before)(void *ctx);
    tess_status (*after)(void *ctx);
    void (*free)(void *ctx);
    void *ctx;
} tess_saver_job;

typedef struct tess_saver_options {
    size_t copy_bytes;  /* at most, of copies; 0: none, so that settling waits for the disk */
    bool hurried;       /* writers that are waited for: not behind other threads */
    size_t piece_bytes; /* 0: 4 MiB; what a thread writes at a time, and the unit of copies */
} tess_saver_options;

typedef struct tess_saver tess_saver;
TESS_MUST_USE tess_status tess__saver_new(const tess_saver_options *o, tess_saver **out);
/* Waits for the job before and returns its failure, if it had one; then starts this one. */
TESS_MUST_USE tess_status tess__saver_start(tess_saver *s, const tess_saver_job *job);
/* After it the tensors may change: each piece of them is written, or copied, or the job is over.
 * Copies while there is memory for copies, then waits for the disk. */
void tess__saver_settle(tess_saver *s);
/* The job's end: TESS_OK, or its failure, which is told once.  `wait` false: TESS_OK while it runs.
 */
TESS_MUST_USE tess_status tess__saver_end(tess_saver *s, bool wait);
/* Waits; a failure that nobody asked for is lost. */
void tess__saver_free(tess_saver *s);

/* What settling came to since the saver was made. */
typedef struct tess_saver_stats {
    bool running;                       /* a job is under way */
    int64_t n_copied;                   /* pieces */
    double settle_seconds, job_seconds; /* the latter of the last job that ended */
} tess_saver_stats;
tess_saver_stats tess__saver_stats(tess_saver *s);

#endif
