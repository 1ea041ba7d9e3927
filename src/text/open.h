/* SPDX-License-Identifier: Apache-2.0 */
/* The ways to open a tokenizer.  Each reads t->files[0] (and its companions, by name) and fills the
 * rest of t. */
#ifndef TESS_TEXT_OPEN_H
#define TESS_TEXT_OPEN_H

#include "text/tokenizer.h"

/* What a model directory's configuration says; zero where it is silent. */
typedef struct tess__open_options {
    tess_tokenizer_options user;
    const tess_json *config, *special_map; /* tokenizer_config.json, special_tokens_map.json */
} tess__open_options;
typedef tess_status tess__open_fn(tess_tokenizer *t, const tess__open_options *o);

tess__open_fn tess__plain_open;     /* a .model by itself */
tess__open_fn tess__pipe_json_open; /* tokenizer.json */
tess__open_fn tess__bert_open;      /* vocab.txt */
tess__open_fn tess__clip_open;      /* bpe_simple_vocab_16e6.txt.gz; vocab.json, merges.txt */
tess__open_fn tess__xlmr_open;      /* sentencepiece.bpe.model */
tess__open_fn tess__siglip_open;    /* spiece.model */

/* What opens a file with these bytes. */
tess__open_fn *tess__tokenizer_detect(const uint8_t *data, size_t n_bytes);
TESS_MUST_USE tess_status tess__tokenizer_begin(tess_tokenizer **out);
/* Reads a file into t->files. */
TESS_MUST_USE tess_status tess__tokenizer_load(tess_tokenizer *t, const char *path);

/* The content of a special token ("cls_token") in the configuration, NULL when it says nothing. */
const char *tess__config_token(const tess__open_options *o, const char *key);
/* Fills t->special by the configuration's names, else by those that the known families use. */
void tess__fill_special(tess_tokenizer *t, const tess__open_options *o,
                        int32_t (*find)(const void *self, const char *piece, size_t n_bytes),
                        const void *self);

#endif
