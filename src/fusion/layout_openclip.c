/* SPDX-License-Identifier: Apache-2.0 */
/* OpenCLIP's layouts.  The native towers' names are ours, but for the prefix that custom_text puts
 * before the text tower's; a timm trunk has timm's. */
#include "fusion/layout.h"

#define SAME   TESS_LAYOUT_SAME, 0, 0, 0
#define LAYER  "transformer.resblocks.#."
#define THEIRS "blocks.#."
#define PAIR(ours, theirs)                                                                         \
    {ours ".weight", theirs ".weight", SAME},                                                      \
    {                                                                                              \
        ours ".bias", theirs ".bias", SAME                                                         \
    }

static const tess_layout_rule native[] = {
    {"visual.*", "visual.*", SAME},
};

static const tess_layout_rule scalars[] = {
    {"logit_scale", "logit_scale", SAME},
    {"logit_bias", "logit_bias", SAME},
    {"logit_scale_text", "logit_scale_text", SAME},
};

static const tess_layout_rule text[] = {
    {"*", "*", SAME},
};

/* timm's VisionTransformer with AttentionPoolLatent: the trunk of the SigLIP models. */
static const tess_layout_rule trunk[] = {
    PAIR("conv1", "patch_embed.proj"),
    {"positional_embedding", "pos_embed", TESS_LAYOUT_LEADING, 0, 1, 0},
    PAIR(LAYER "ln_1", THEIRS "norm1"),
    {LAYER "attn.in_proj_weight", THEIRS "attn.qkv.weight", SAME},
    {LAYER "attn.in_proj_bias", THEIRS "attn.qkv.bias", SAME},
    PAIR(LAYER "attn.out_proj", THEIRS "attn.proj"),
    PAIR(LAYER "ln_2", THEIRS "norm2"),
    PAIR(LAYER "mlp.c_fc", THEIRS "mlp.fc1"),
    PAIR(LAYER "mlp.c_proj", THEIRS "mlp.fc2"),
    PAIR("ln_post", "norm"),
    {"attn_pool.query", "attn_pool.latent", TESS_LAYOUT_LEADING, 0, 1, 0},
    {"attn_pool.attn.q_proj_weight", "attn_pool.q.weight", SAME},
    {"attn_pool.attn.q_proj_bias", "attn_pool.q.bias", SAME},
    {"attn_pool.attn.kv_proj_weight", "attn_pool.kv.weight", SAME},
    {"attn_pool.attn.kv_proj_bias", "attn_pool.kv.bias", SAME},
    PAIR("attn_pool.attn.out_proj", "attn_pool.proj"),
    PAIR("attn_pool.ln", "attn_pool.norm"),
    PAIR("attn_pool.mlp.c_fc", "attn_pool.mlp.fc1"),
    PAIR("attn_pool.mlp.c_proj", "attn_pool.mlp.fc2"),
};

tess_layout tess__layout_openclip_image(bool timm)
{
    tess_layout l = {.name = "OpenCLIP's layout"};
    if (timm) {
        l.name = "OpenCLIP's layout with a timm trunk";
        TESS_LAYOUT_ADD(&l, trunk, "visual.", "visual.trunk.");
    } else {
        TESS_LAYOUT_ADD(&l, native, "", "");
    }
    TESS_LAYOUT_ADD(&l, scalars, "", "");
    return l;
}

tess_layout tess__layout_openclip(bool custom_text)
{
    tess_layout l = tess__layout_openclip_image(false);
    TESS_LAYOUT_ADD(&l, text, "", custom_text ? "text." : "");
    return l;
}

tess_layout tess__layout_openclip_timm(void)
{
    tess_layout l = tess__layout_openclip_image(true);
    TESS_LAYOUT_ADD(&l, text, "", "text.");
    return l;
}
