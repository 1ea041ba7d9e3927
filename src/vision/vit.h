/* SPDX-License-Identifier: Apache-2.0 */
/* The vision transformer (Dosovitskiy et al. 2021) with OpenCLIP's config and parameter names. */
#ifndef TESSERA_VISION_VIT_H
#define TESSERA_VISION_VIT_H

#include "tessera/tensor.h"

/* OpenCLIP's vision_cfg; the keys that this build knows.  Zeroed fields are not valid: start from
 * tess__vit_default. */
typedef struct tess_vit_config {
    int64_t image_size, patch_size, width, layers, head_width;
    double mlp_ratio;
    const char *pool_type; /* tok | avg | map (Tessera's: attention of one learned query) */
    const char *act;       /* gelu | gelu_tanh | quick_gelu | silu | relu; Tessera's key */
    bool no_ln_pre, final_ln_after_pool;
    double eps;
} tess_vit_config;
tess_vit_config tess__vit_default(void);
/* Reads a vision_cfg object; strings live in the arena. */
TESS_MUST_USE tess_status tess__vit_config_read(const tess_json *obj, const char *name,
                                                tess_arena *arena, tess_vit_config *out);
void tess__vit_config_write(const tess_vit_config *c, tess_json_writer *w);

/* pictures (B,S,S,3) u8 -> (B,embed_dim) in dtype, not normalised.  `image_size` may differ from
 * the config's only where the caller gives matching pictures; the positional embedding is for the
 * config's.  Parameters appear under the current scope ("visual"). */
typedef struct tess_vit_options {
    int64_t embed_dim;
    float mean[3], std[3];
    tess_dtype dtype;
    bool recompute;
} tess_vit_options;
tess_value tess__vit(tess_graph *g, const tess_vit_config *c, tess_value pictures,
                     const tess_vit_options *o);

#endif
