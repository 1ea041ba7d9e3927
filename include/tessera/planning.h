/* SPDX-License-Identifier: Apache-2.0 */
/* planning: what a training will need and how long a step will take, for every ZeRO stage, with
 * every kind of recompute, before anything of it exists.  Bytes are those of the plans and stores
 * that the training itself would build; seconds are a sum over the plans' steps (docs/plan.md). */
#ifndef TESSERA_PLANNING_H
#define TESSERA_PLANNING_H

#include "tessera/fusion.h"

/* ---- clusters ------------------------------------------------------------------------------ */

/* How long a step of one operator took. */
typedef struct tess_rate {
    char op[32], dtype[8];
    double flops, bytes, seconds;
} tess_rate;

typedef struct tess_cluster {
    char name[64];
    bool cuda; /* cards; else processors */
    int64_t ranks, ranks_per_host;
    int64_t threads;      /* of a rank on processors; 0: this machine's cores shared */
    double memory;        /* bytes of a rank */
    double flops[2];      /* per second in products: f32, bf16 */
    double attention;     /* the same in attention; 0: as in products */
    double bandwidth;     /* of memory, bytes per second */
    double link, net;     /* bytes per second that a rank sends, within a host and between hosts */
    double link_s, net_s; /* seconds before a collective moves anything */
    double disk_read, disk_write; /* bytes per second of a rank */
    double overlap;               /* the part of a step's computing behind which the wire hides */
    tess_rate *rates;             /* measured; go before the figures above */
    int64_t n_rates;
    size_t cap_rates;
} tess_cluster;

/* "KINDxN", N cards of a kind that tess_cluster_kinds lists, eight to a host; or a JSON file. */
TESS_MUST_USE tess_status tess_cluster_open(const char *name, tess_cluster *out);
void tess_cluster_deinit(tess_cluster *c);
const char *tess_cluster_kinds(void); /* "a100, h100, ..." */
void tess_cluster_write(const tess_cluster *c, tess_buf *out);

/* ---- measuring ----------------------------------------------------------------------------- */

typedef struct tess_measure_options {
    tess_model_outline model;          /* sample_layers of it are trained */
    int64_t batch, captions_per_image; /* as below */
    double tokens;
    double seconds;  /* of repetitions; 0: 2 */
    const char *dir; /* where the disk is tried; NULL: it is not */
    tess_comm *comm; /* NULL: alone.  All ranks call; results are rank 0's */
} tess_measure_options;
/* The cluster that this job's ranks are: what each operator takes when towers of these widths are
 * trained with this batch, what the link and the disk move. */
TESS_MUST_USE tess_status tess_cluster_measure(const tess_measure_options *o, tess_cluster *out);

/* ---- plans --------------------------------------------------------------------------------- */

enum { TESS_ZERO_STAGES = 4, TESS_RECOMPUTES = 3 };

typedef enum tess_planned_kind {
    TESS_PLANNED_WEIGHTS,
    TESS_PLANNED_GRADIENTS,
    TESS_PLANNED_MASTERS, /* f32 weights beside bf16 ones */
    TESS_PLANNED_MOMENTS,
    TESS_PLANNED_ARENA,   /* activations, and what else lives within a step */
    TESS_PLANNED_SCRATCH, /* of the operator that needs most */
    TESS_PLANNED_WIRE,    /* buffers of collectives */
    TESS_PLANNED_INPUTS,
    TESS_PLANNED_KINDS,
} tess_planned_kind;
const char *tess_planned_kind_name(tess_planned_kind k);

typedef enum tess_bound {
    TESS_BOUND_COMPUTE,
    TESS_BOUND_MEMORY,
    TESS_BOUND_WIRE,
    TESS_BOUND_DISK,
    TESS_BOUNDS,
} tess_bound;
const char *tess_bound_name(tess_bound b);
const char *tess_recompute_name(tess_recompute r); /* off, full, selective */

/* One way to train. */
typedef struct tess_planned {
    int stage;
    tess_recompute recompute;
    bool offload;
    double bytes[TESS_PLANNED_KINDS], total; /* of a rank */
    double wire, disk;                       /* bytes that a rank sends, reads and writes a step */
    double flops;                            /* of a rank and step */
    double seconds[TESS_BOUNDS];             /* wire: what does not hide behind computing */
    double update_seconds;                   /* a part of those of compute and memory */
    double step_seconds;                     /* their sum */
    tess_bound bound;                        /* the largest */
    bool fits;
} tess_planned;

typedef struct tess_planning_options {
    tess_model_outline model;
    const tess_cluster *cluster;
    int64_t batch;              /* pictures of a rank and micro-step */
    int64_t captions_per_image; /* 0: 1, or 2 where texts are contrasted with texts */
    double tokens;              /* of a caption, on average; 0: as many as the model takes */
    int64_t accumulate;         /* micro-steps; 0: 1 */
    bool bf16_gradients;
    int stage;     /* -1: all */
    int recompute; /* a tess_recompute; -1: all */
    bool offload;  /* masters and moments lie in files and pass by once a step */
} tess_planning_options;

typedef struct tess_planning {
    int64_t n_params, captions_per_image;
    double tokens;
    tess_dtype dtype;
    tess_planned row[TESS_RECOMPUTES * TESS_ZERO_STAGES];
    int64_t n_rows;
    int64_t best; /* the fastest of those that fit; -1: none does */
} tess_planning;
/* TESS_INVALID: a model or options that cannot be trained so. */
TESS_MUST_USE tess_status tess_plan_training(const tess_planning_options *o, tess_planning *out);

/* What would fit where nothing does, each 0 where it would not: the largest batch of a rank that
 * was tried, the fewest ranks (a power of two times those there are), masters and moments in files,
 * the memory of a rank in bytes. */
typedef struct tess_planning_advice {
    int64_t batch, ranks;
    bool offload;
    double memory;
} tess_planning_advice;
TESS_MUST_USE tess_status tess_planning_advise(const tess_planning_options *o,
                                               const tess_planning *p, tess_planning_advice *out);

#endif
