/* SPDX-License-Identifier: Apache-2.0 */
/* Hugging Face's CLIPModel and SiglipModel: query, key and value apart, projections as linear
 * layers (output x input), and in SigLIP scalars of shape (1). */
#include "fusion/layout.h"

#define SAME          TESS_LAYOUT_SAME, 0, 0, 0
#define ROWS(part)    TESS_LAYOUT_ROWS, part, 3, 0
#define STACKED(i, n) TESS_LAYOUT_STACKED, i, 3, n
#define LAYER         "transformer.resblocks.#."
#define THEIRS        "encoder.layers.#."
/* The weight and the bias of one layer. */
#define PAIR(ours, theirs)                                                                         \
    {ours ".weight", theirs ".weight", SAME},                                                      \
    {                                                                                              \
        ours ".bias", theirs ".bias", SAME                                                         \
    }
#define QKV(kind)                                                                                  \
    {LAYER "attn.in_proj_" kind, THEIRS "self_attn.q_proj." kind, ROWS(0)},                        \
        {LAYER "attn.in_proj_" kind, THEIRS "self_attn.k_proj." kind, ROWS(1)},                    \
    {                                                                                              \
        LAYER "attn.in_proj_" kind, THEIRS "self_attn.v_proj." kind, ROWS(2)                       \
    }

/* Of both towers, under vision_model. and text_model. */
static const tess_layout_rule layers[] = {
    QKV("weight"),
    QKV("bias"),
    PAIR(LAYER "ln_1", THEIRS "layer_norm1"),
    PAIR(LAYER "ln_2", THEIRS "layer_norm2"),
    PAIR(LAYER "attn.out_proj", THEIRS "self_attn.out_proj"),
    PAIR(LAYER "mlp.c_fc", THEIRS "mlp.fc1"),
    PAIR(LAYER "mlp.c_proj", THEIRS "mlp.fc2"),
    {NULL, "embeddings.position_ids", TESS_LAYOUT_IGNORED, 0, 0, 0},
};

static const tess_layout_rule vision[] = {
    {"class_embedding", "embeddings.class_embedding", SAME},
    PAIR("conv1", "embeddings.patch_embedding"),
    {"positional_embedding", "embeddings.position_embedding.weight", SAME},
    PAIR("ln_pre", "pre_layrnorm"),
    PAIR("ln_post", "post_layernorm"),
    {"attn_pool.query", "head.probe", TESS_LAYOUT_LEADING, 0, 1, 0},
    {"attn_pool.attn.q_proj_weight", "head.attention.in_proj_weight", STACKED(0, 1)},
    {"attn_pool.attn.q_proj_bias", "head.attention.in_proj_bias", STACKED(0, 1)},
    {"attn_pool.attn.kv_proj_weight", "head.attention.in_proj_weight", STACKED(1, 2)},
    {"attn_pool.attn.kv_proj_bias", "head.attention.in_proj_bias", STACKED(1, 2)},
    PAIR("attn_pool.attn.out_proj", "head.attention.out_proj"),
    PAIR("attn_pool.ln", "head.layernorm"),
    PAIR("attn_pool.mlp.c_fc", "head.mlp.fc1"),
    PAIR("attn_pool.mlp.c_proj", "head.mlp.fc2"),
};

static const tess_layout_rule text[] = {
    {"token_embedding.weight", "embeddings.token_embedding.weight", SAME},
    {"positional_embedding", "embeddings.position_embedding.weight", SAME},
    PAIR("ln_final", "final_layer_norm"),
    PAIR("text_projection", "head"),
};

static const tess_layout_rule clip[] = {
    {"visual.proj", "visual_projection.weight", TESS_LAYOUT_TRANSPOSE, 0, 0, 0},
    {"text_projection", "text_projection.weight", TESS_LAYOUT_TRANSPOSE, 0, 0, 0},
    {"logit_scale", "logit_scale", SAME},
};

static const tess_layout_rule siglip[] = {
    {"logit_scale", "logit_scale", TESS_LAYOUT_LEADING, 0, 1, 0},
    {"logit_bias", "logit_bias", TESS_LAYOUT_LEADING, 0, 1, 0},
};

static void add_towers(tess_layout *l)
{
    TESS_LAYOUT_ADD(l, layers, "visual.", "vision_model.");
    TESS_LAYOUT_ADD(l, vision, "visual.", "vision_model.");
    TESS_LAYOUT_ADD(l, layers, "", "text_model.");
    TESS_LAYOUT_ADD(l, text, "", "text_model.");
}

tess_layout tess__layout_hf_clip(void)
{
    tess_layout l = {.name = "Hugging Face CLIP's layout"};
    TESS_LAYOUT_ADD(&l, clip, "", "");
    add_towers(&l);
    return l;
}

tess_layout tess__layout_hf_siglip(void)
{
    tess_layout l = {.name = "Hugging Face SigLIP's layout"};
    TESS_LAYOUT_ADD(&l, siglip, "", "");
    add_towers(&l);
    return l;
}
