/* SPDX-License-Identifier: Apache-2.0 */
/* BERT and XLM-RoBERTa as transformers names them: query, key and value apart, and in old files the
 * weight and bias of a LayerNorm called gamma and beta.  What pre-training added is ignored. */
#include "fusion/layout.h"

#include <string.h>

#define LAYER   "transformer.resblocks.#."
#define THEIRS  "encoder.layer.#."
#define SAME    TESS_LAYOUT_SAME, 0, 0
#define PART(i) TESS_LAYOUT_ROWS, i, 3
#define LINEAR(ours, theirs)                                                                       \
    {LAYER ours ".weight", THEIRS theirs ".weight", SAME},                                         \
    {                                                                                              \
        LAYER ours ".bias", THEIRS theirs ".bias", SAME                                            \
    }
#define JOINED(kind)                                                                               \
    {LAYER "attn.in_proj_" kind, THEIRS "attention.self.query." kind, PART(0)},                    \
        {LAYER "attn.in_proj_" kind, THEIRS "attention.self.key." kind, PART(1)},                  \
    {                                                                                              \
        LAYER "attn.in_proj_" kind, THEIRS "attention.self.value." kind, PART(2)                   \
    }
#define NORMS(weight, bias)                                                                        \
    {"ln_pre.weight", "embeddings.LayerNorm." weight, SAME},                                       \
        {"ln_pre.bias", "embeddings.LayerNorm." bias, SAME},                                       \
        {LAYER "ln_1.weight", THEIRS "attention.output.LayerNorm." weight, SAME},                  \
        {LAYER "ln_1.bias", THEIRS "attention.output.LayerNorm." bias, SAME},                      \
        {LAYER "ln_2.weight", THEIRS "output.LayerNorm." weight, SAME},                            \
    {                                                                                              \
        LAYER "ln_2.bias", THEIRS "output.LayerNorm." bias, SAME                                   \
    }

static const tess_layout_rule encoder[] = {
    {"token_embedding.weight", "embeddings.word_embeddings.weight", SAME},
    {"positional_embedding", "embeddings.position_embeddings.weight", SAME},
    {"token_type_embedding", "embeddings.token_type_embeddings.weight", SAME},
    JOINED("weight"),
    JOINED("bias"),
    LINEAR("attn.out_proj", "attention.output.dense"),
    LINEAR("mlp.c_fc", "intermediate.dense"),
    LINEAR("mlp.c_proj", "output.dense"),
    {NULL, "embeddings.position_ids", TESS_LAYOUT_IGNORED, 0, 0},
    {NULL, "pooler.*", TESS_LAYOUT_IGNORED, 0, 0},
};
static const tess_layout_rule norms[] = {NORMS("weight", "bias")};
static const tess_layout_rule old_norms[] = {NORMS("gamma", "beta")};
static const tess_layout_rule pretraining[] = {
    {NULL, "cls.*", TESS_LAYOUT_IGNORED, 0, 0},
    {NULL, "lm_head.*", TESS_LAYOUT_IGNORED, 0, 0},
};

static void add_encoder(tess_layout *l, const char *our_prefix, const char *their_prefix, bool old)
{
    TESS_LAYOUT_ADD(l, encoder, our_prefix, their_prefix);
    if (old) {
        TESS_LAYOUT_ADD(l, old_norms, our_prefix, their_prefix);
    } else {
        TESS_LAYOUT_ADD(l, norms, our_prefix, their_prefix);
    }
}

void tess__layout_add_bert(tess_layout *l, const char *our_prefix, const char *their_prefix)
{
    add_encoder(l, our_prefix, their_prefix, false);
}

tess_layout tess__layout_bert(const char *our_prefix, const char *their_prefix, bool old)
{
    tess_layout l = {.name = "the layout of transformers"};
    add_encoder(&l, our_prefix, their_prefix, old);
    TESS_LAYOUT_ADD(&l, pretraining, "", "");
    return l;
}
