/* SPDX-License-Identifier: Apache-2.0 */
/* Text-only models as Hugging Face and sentence-transformers keep them:
 *
 *   config.json                       the encoder: model_type bert, xlm-roberta, roberta, camembert
 *   modules.json                      sentence-transformers: Transformer, Pooling, Dense, Normalize
 *   1_Pooling/config.json             what becomes of the tokens' rows
 *   2_Dense/config.json               a layer on the pooled row
 *   sentence_bert_config.json, tokenizer_config.json    the greatest length
 *   config_sentence_transformers.json prompts by name
 *
 * Without modules.json the rows' mean is taken, as sentence-transformers does. */
#ifndef TESSERA_FUSION_SENTENCE_CONFIG_H
#define TESSERA_FUSION_SENTENCE_CONFIG_H

#include "text/bert_tower.h"

#define TESS_SENTENCE_PROMPTS 64

typedef struct tess_prompt {
    const char *name, *text;
} tess_prompt;

typedef struct tess_sentence_config {
    tess_text_config text; /* text.bert is &bert */
    tess_bert_config bert;
    const char *dir;                      /* where all of it lies */
    const char *encoder;                  /* the encoder's folder in the directory, "" or "0_..." */
    const char *folders[TESS_BERT_HEADS]; /* the heads' folders */
    bool include_prompt;                  /* the prompt's tokens count in pooling */
    tess_prompt prompts[TESS_SENTENCE_PROMPTS];
    int64_t n_prompts;
    const char *default_prompt; /* a prompt's name, or NULL */
} tess_sentence_config;

/* True when the directory's files say that it is such a model: modules.json, or a config.json of
 * these model types (beside open_clip_config.json it is a text tower's). */
TESS_MUST_USE tess_status tess__sentence_is_dir(const char *dir, bool *out);
/* Reads all of the files above; *out must stay where it is.  Strings live in the arena. */
TESS_MUST_USE tess_status tess__sentence_read(const char *dir, tess_arena *arena,
                                              tess_sentence_config *out);
/* The text of a prompt, NULL when there is none of this name. */
const char *tess__sentence_prompt(const tess_sentence_config *c, const char *name);

/* True for the model_type of config.json that bert_config.c reads. */
bool tess__bert_is_type(const char *model_type);

/* What decides the numbers in an encoder's config.json. */
typedef struct tess_bert_keys {
    int64_t hidden_size, layers, heads, intermediate_size, positions, types, vocab;
    int64_t pad; /* -1: the model type's own */
    double eps;
    const char *model_type, *act, *position_type;
    bool is_decoder, cross_attention;
} tess_bert_keys;
/* The encoder that they say; text->bert is `bert`. */
TESS_MUST_USE tess_status tess__bert_config_make(const tess_bert_keys *keys, const char *where,
                                                 tess_text_config *text, tess_bert_config *bert);

/* ---- the single files, for tess__sentence_read and its fuzz target ---- */

/* An encoder's config.json into text and bert; `where` is for messages. */
TESS_MUST_USE tess_status tess__bert_config_read(const tess_json *root, const char *where,
                                                 tess_arena *arena, tess_text_config *text,
                                                 tess_bert_config *bert);
TESS_MUST_USE tess_status tess__sentence_read_pooling(const tess_json *root, const char *where,
                                                      tess_sentence_config *out);
TESS_MUST_USE tess_status tess__sentence_read_dense(const tess_json *root, const char *where,
                                                    tess_arena *arena, tess_sentence_config *out);
TESS_MUST_USE tess_status tess__sentence_read_prompts(const tess_json *root, const char *where,
                                                      tess_arena *arena, tess_sentence_config *out);

#endif
