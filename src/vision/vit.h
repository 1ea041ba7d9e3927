/* SPDX-License-Identifier: Apache-2.0 */
/* The vision transformer (Dosovitskiy et al. 2021) with OpenCLIP's config and parameter names. */
#ifndef TESSERA_VISION_VIT_H
#define TESSERA_VISION_VIT_H

#include "vision/raw_pictures.h"

/* OpenCLIP's vision_cfg; the keys that this build knows.  Zeroed fields are not valid: start from
 * tess__vit_default. */
typedef struct tess_vit_config {
    int64_t image_size, patch_size, width, layers, head_width;
    double mlp_ratio;
    /* tok | avg | map (Tessera's: attention of one learned query) | probe (SigLIP's head: attention
     * of one learned query with biases, then an MLP beside it) */
    const char *pool_type;
    const char *act; /* gelu | gelu_tanh | quick_gelu | silu | relu; Tessera's key */
    bool no_ln_pre, final_ln_after_pool;
    double eps;
    /* Tessera's keys; a model directory holds them where they are not as here said. */
    bool class_token; /* a first token of its own; default: with tok only */
    bool patch_bias;  /* the patch embedding has a bias; default: none */
    bool no_proj;     /* the pooled row is the result; default: a projection to embed_dim */
    int64_t hidden;   /* of the MLPs; default 0: width * mlp_ratio */
} tess_vit_config;
tess_vit_config tess__vit_default(void);
/* Reads a vision_cfg object; strings live in the arena. */
TESS_MUST_USE tess_status tess__vit_config_read(const tess_json *obj, const char *name,
                                                tess_arena *arena, tess_vit_config *out);
/* What can be asked once all is set: names that are known, sizes that divide. */
TESS_MUST_USE tess_status tess__vit_config_check(const tess_vit_config *c, const char *name);
void tess__vit_config_write(const tess_vit_config *c, tess_json_writer *w);

/* What the tower looks at: pictures (B,S,S,3) u8, or where `finished` is 0 decoded ones, which the
 * device resizes. */
typedef struct tess_vit_pictures {
    tess_value finished;
    tess_raw_inputs raw;
    tess_value kept; /* (B,K) i32: the rows that the blocks see; 0: all (patch_dropout.h) */
} tess_vit_pictures;
/* The input "pictures" (n,size,size,3). */
tess_vit_pictures tess__finished_pictures(tess_graph *g, int64_t n, int64_t size);

/* pictures -> (B,embed_dim) in dtype, not normalised.  `image_size` may differ from the config's
 * only where the caller gives matching pictures; the positional embedding is for the config's.
 * Parameters appear under the current scope ("visual"). */
typedef struct tess_vit_options {
    int64_t embed_dim;
    float mean[3], std[3];
    uint8_t fill[3]; /* of decoded pictures, where nothing lands */
    tess_dtype dtype;
    bool recompute;
} tess_vit_options;
int64_t tess__vit_hidden(const tess_vit_config *c);
tess_value tess__vit(tess_graph *g, const tess_vit_config *c, tess_vit_pictures pictures,
                     const tess_vit_options *o);

#endif
