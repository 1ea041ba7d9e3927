/* SPDX-License-Identifier: Apache-2.0 */
/* The insides of low-rank adapters, shared by lora.c, lora_modules.c and lora_files.c. */
#ifndef TESSERA_FUSION_LORA_H
#define TESSERA_FUSION_LORA_H

#include "fusion/model.h"

/* A linear layer as another program names it: rows row..row+n_rows of a weight of ours. */
typedef struct tess_lora_module {
    const char *path;   /* in PEFT's keys */
    const char *name;   /* what patterns match */
    const char *target; /* in adapter_config.json's target_modules */
    const char *weight; /* of group "param" */
    int64_t row, n_rows, n_in;
    int64_t their_row, n_theirs; /* the rows of their B that these are: 0 and n_rows, or a part */
    bool transposed;             /* our weight is (in,out) */
} tess_lora_module;

typedef struct tess_lora_modules {
    tess_lora_module *items;
    size_t n, cap;
} tess_lora_modules;

/* The layout whose names a naming (not TESS_LORA_AUTO) has; without tables: it has none. */
tess_layout tess__lora_layout(const tess_model *m, tess_lora_names names);
/* Appends the modules of one naming; strings are in the arena. */
TESS_MUST_USE tess_status tess__lora_list(const tess_model *m, tess_lora_names names,
                                          tess_arena *arena, tess_lora_modules *out);
/* Appends those that the target names; TESS_INVALID with the names that there are when a pattern
 * fits none. */
TESS_MUST_USE tess_status tess__lora_choose(const tess_model *m, const tess_lora_options *o,
                                            tess_arena *arena, tess_lora_modules *out);

/* One module of one adapter: a block of its site's A and B. */
typedef struct tess_lora_part {
    tess_lora_module module;
    int64_t site, col, rank;  /* rows col..col+rank of A, columns of B */
    double factor;            /* folded into B; training: 1 */
    const tess_tensor *a, *b; /* where they come from; NULL: a fresh adapter */
} tess_lora_part;

typedef struct tess_lora_parts {
    tess_lora_part *items;
    size_t n, cap;
} tess_lora_parts;

/* In memory a site is a weight with one A (R,K) and one B (M,R), leaves of group "lora", in which
 * the parts are blocks. */
struct tess_lora {
    tess_arena arena;
    tess_lora_parts parts;
    tess_adapted *sites;
    int64_t n_sites;
    bool trains;
    tess_lora_options o; /* of a fresh adapter; strings in the arena */
    char base[33];       /* fingerprint of the model without adapters */
};

/* The graph's builders adapt what this model adapts. */
void tess__lora_apply(tess_graph *g, const tess_model *m);
void tess__lora_free(tess_lora *l);
/* alpha / rank or its rank-stabilized form. */
double tess__lora_factor(double alpha, int64_t rank, bool rank_stabilized);
/* A and B of a part's site. */
void tess__lora_site(const tess_model *m, const tess_lora_part *p, float **out_a, float **out_b,
                     int64_t *out_width, int64_t *out_site_rank);

/* An adapter directory that is open.  Its parts borrow its tensors. */
typedef struct tess_lora_file {
    tess_tensors *tensors;
    char base[33]; /* what it was trained on; "": not said */
} tess_lora_file;
/* Opens, checks, and appends its parts with factor * `weight`. */
TESS_MUST_USE tess_status tess__lora_open(const tess_model *m, const char *dir, double weight,
                                          tess_arena *arena, tess_lora_parts *parts,
                                          tess_lora_file *out);
void tess__lora_close(tess_lora_file *f);
/* A (rank,in) and B (rows,rank) of an open part as f32. */
TESS_MUST_USE tess_status tess__lora_read_part(const tess_lora_part *p, float *a, float *b);

/* adapter_config.json, as far as it decides numbers. */
typedef struct tess_lora_config {
    int64_t rank;
    double alpha;
    bool rank_stabilized;
} tess_lora_config;
/* `path` is for messages.  What is not plain LoRA is refused by its key. */
TESS_MUST_USE tess_status tess__lora_config_read(const tess_json *root, const char *path,
                                                 tess_lora_config *out);

/* tess_model_gather_weights and tess_model_write_frame of an adapter. */
TESS_MUST_USE tess_status tess__lora_describe(const tess_model *m, tess_model_weights *out);
TESS_MUST_USE tess_status tess__lora_write_config(const tess_model *m, const char *dir);

#endif
