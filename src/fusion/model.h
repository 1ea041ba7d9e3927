/* SPDX-License-Identifier: Apache-2.0 */
/* The insides of a model, shared by its files. */
#ifndef TESSERA_FUSION_MODEL_H
#define TESSERA_FUSION_MODEL_H

#include "fusion/layout.h"
#include "fusion/model_config.h"

typedef struct tess_embed_plan {
    tess_graph *graph;
    tess_plan *plan;
    tess_value out;
    int64_t rows, segments; /* token rows and segments; 0 and pictures; -1 and decoded pictures */
    int64_t last_used;
} tess_embed_plan;

#define TESS_EMBED_PLANS 12

typedef struct tess_lora tess_lora;

struct tess_model {
    tess_arena arena;
    tess_model_config config;
    tess_store *store;
    tess_tokenizer *tokenizer;
    tess_dtype dtype;
    const tess_device *device; /* NULL: the processor */
    struct tess_packs *packs;  /* of a model that only embeds, or NULL */
    tess_tensors *mapped;      /* whose memory the store uses, or NULL */
    char fingerprint[33];      /* as recorded with mapped packs; "": to be computed */
    tess_workspace *workspace;
    tess_lora *lora; /* NULL: none; see lora.h */
    bool narrow;     /* see tess_model_narrow */
    /* Plans for embedding, by shape; the least recently used one makes room. */
    tess_embed_plan picture_plans[TESS_EMBED_PLANS], text_plans[TESS_EMBED_PLANS];
    int64_t clock;
    /* Buffers that the embedding plans read. */
    int32_t *tokens, *positions, *offsets;
    size_t cap_tokens, cap_positions, cap_offsets;
    uint8_t *pixels;
    size_t cap_pixels;
    tess_resizer *resizer;
    tess_picture picture;
    tess_raw_pictures *raw; /* of one place, for single pictures; NULL until the first */
    tess_ids ids;
    tess_layout_types types; /* of the file that another program's model came from */
    const char *prompt;      /* stands before every text; NULL: none */
};

/* The towers' graphs: unit rows f32. */
tess_value tess__picture_tower(tess_graph *g, const tess_model *m, tess_vit_pictures pictures,
                               bool recompute);
tess_value tess__caption_tower(tess_graph *g, const tess_model *m, tess_text_input in,
                               bool recompute);
#define TESS_WEIGHTS_FILE "open_clip_model.safetensors"
/* Against the fingerprint that the directory records, where it does. */
TESS_MUST_USE tess_status tess__model_check_summary(tess_model *m, const char *dir);
/* A directory's config and tokenizer, and a store that is not laid out. */
TESS_MUST_USE tess_status tess__model_open_config(const char *dir, tess_precision precision,
                                                  tess_model **out);
/* A model without anything in it; *out is the caller's to free, also on failure. */
TESS_MUST_USE tess_status tess__model_alloc(tess_precision precision, tess_model **out);
/* Adds the leaves of both towers and of all scales to the store. */
TESS_MUST_USE tess_status tess__model_make_store(tess_model *m);
/* Both towers for one picture and one caption, only to learn the leaves' names and shapes. */
void tess__model_leaves(tess_graph *g, const tess_model *m);
TESS_MUST_USE tess_status tess__model_init_params(tess_model *m, uint64_t seed);
void tess__model_free_plans(tess_model *m);
/* tess_model_narrow, also without adapters, for a model that computes in bf16. */
TESS_MUST_USE tess_status tess__model_narrow(tess_model *m);
const tess_device *tess__model_device(const tess_model *m);
/* How many matrices, one above the other, the hidden matrix of this name holds; 0: it is none. */
int64_t tess__hidden_blocks(const char *name);
bool tess__is_hidden(const char *name);

#endif
