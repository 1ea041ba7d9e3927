/* SPDX-License-Identifier: Apache-2.0 */
/* The text transformer with OpenCLIP's config and parameter names, over packed rows. */
#ifndef TESSERA_TEXT_TEXT_TOWER_H
#define TESSERA_TEXT_TEXT_TOWER_H

#include "tessera/tensor.h"

/* What BERT has beside what every text tower has: text/bert_tower.h. */
typedef struct tess_bert_config tess_bert_config;

/* OpenCLIP's text_cfg; the keys that this build knows.  Start from tess__text_default. */
typedef struct tess_text_config {
    int64_t context_length, vocab_size, width, heads, layers;
    double mlp_ratio;
    const char
        *pool_type;  /* argmax | last (the end-of-text token) | first | mean; mean is Tessera's */
    const char *act; /* as in vision_cfg; Tessera's key */
    bool no_causal_mask;
    int64_t pad_id, eos_id;
    const char
        *tokenizer; /* file in the model directory, default "tokenizer.model"; Tessera's key */
    double eps;
    /* Tessera's keys; a model directory holds them where they are not as here said. */
    bool pad_to_context; /* every text is filled up with pad_id, and the filling attended to */
    /* What becomes of a text: "clean" (default) is Tessera's own cleaning and an end id; else the
     * tokenizer adds its own marks to the text as it is ("raw", Hugging Face), or as OpenCLIP's
     * tokenizers prepare it ("open_clip", or HFTokenizer's clean: whitespace, lower, canonicalize).
     */
    const char *text_mode;
    bool proj_bias;        /* OpenCLIP's key: text_projection is a linear layer with a bias */
    const char *proj_type; /* OpenCLIP's key: linear | none */
    int64_t hidden;        /* of the MLPs; default 0: width * mlp_ratio */
    const tess_bert_config *bert; /* the encoder of BERT instead; Tessera's key, an object */
} tess_text_config;
tess_text_config tess__text_default(void);
TESS_MUST_USE tess_status tess__text_config_read(const tess_json *obj, const char *name,
                                                 tess_arena *arena, tess_text_config *out);
bool tess__text_is_clean(const tess_text_config *c); /* text_mode is "clean" */
/* What can be asked once all is set: names that are known, sizes that divide. */
TESS_MUST_USE tess_status tess__text_config_check(const tess_text_config *c, const char *name);
void tess__text_config_write(const tess_text_config *c, tess_json_writer *w);

/* Packed captions: tokens (N) i32, positions (N) i32, offsets (S+1) i32; rows at and after
 * offsets[S] are filling -> (S,embed_dim) in dtype, not normalised.  No row is spent on padding
 * inside a caption.  Parameters appear under the current scope (the root, as OpenCLIP's native text
 * tower). */
typedef struct tess_text_input {
    tess_value tokens, positions, offsets;
} tess_text_input;
tess_value tess__text_tower(tess_graph *g, const tess_text_config *c, tess_text_input in,
                            int64_t embed_dim, tess_dtype dtype, bool recompute);

#endif
