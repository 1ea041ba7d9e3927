/* SPDX-License-Identifier: Apache-2.0 */
/* task: what the evaluation tasks share. */
#ifndef TESSERA_TRAIN_TASK_H
#define TESSERA_TRAIN_TASK_H

#include "train/probe.h"

#include "tessera/train.h"

/* Where the pictures of one split are. */
typedef struct tess__task_layout {
    bool is_wds;     /* CLIP_benchmark's shards */
    bool is_folders; /* a folder for each class */
    char *sources;   /* for tess_dataset_open */
    const char *type;
} tess__task_layout;
/* Finds it, and checks nshards.txt and dataset_type.txt against what is there; `labels`: for a task
 * that needs classes; `split` NULL: test where there is one, else the
 * directory itself. */
TESS_MUST_USE tess_status tess__task_layout_find(const tess_task_options *o, const char *split,
                                                 bool labels, tess__task_layout *out);
void tess__task_layout_deinit(tess__task_layout *l);
/* The file that was asked for, else <data>/<name> where there is one; *out NULL: neither.  The
 * caller frees. */
TESS_MUST_USE tess_status tess__task_layout_beside(const tess_task_options *o, const char *asked,
                                                   const char *name, char **out);

typedef struct tess__task {
    tess_model *model;
    const tess_task_options *o;
    tess_task_result *out;
    tess_pipeline pipeline;
    tess_hooks hooks;
    int64_t dim;
    /* Classes: their names, and with folders the folders', in the same order. */
    tess_names classes, folders;
    int64_t n_classes; /* 0: not known before the labels are read */
} tess__task;

/* Pictures with labels.  With `bias` a row has Z+1 columns, the last of them 1. */
typedef struct tess__split {
    tess__task_layout layout;
    tess_dataset *data;
    tess__features features;
} tess__split;
/* Finds and opens the split and, for the first one, the classes; reads no picture. */
TESS_MUST_USE tess_status tess__split_open(tess__task *t, const char *name, tess__split *out);
/* Labels and vectors of all usable pictures. */
TESS_MUST_USE tess_status tess__split_embed(tess__task *t, tess__split *s, bool bias);
void tess__split_deinit(tess__split *s);

/* A row for the result, with room for n metrics. */
TESS_MUST_USE tess_status tess__task_add_row(tess__task *t, const char *language, int64_t n,
                                             tess_task_row **out);
/* Names of metrics are the arena's or constants. */
void tess__row_add(tess_task_row *row, const char *name, double value);
const char *tess__task_language(const tess__task *t);

TESS_MUST_USE tess_status tess__task_classification(tess__task *t);
TESS_MUST_USE tess_status tess__task_retrieval(tess__task *t);
TESS_MUST_USE tess_status tess__task_probe(tess__task *t);

#endif
