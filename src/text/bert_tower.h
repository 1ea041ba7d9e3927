/* SPDX-License-Identifier: Apache-2.0 */
/* The encoder of BERT (Devlin et al. 2019) and XLM-RoBERTa (Conneau et al. 2020), over packed rows.
 */
#ifndef TESSERA_TEXT_BERT_TOWER_H
#define TESSERA_TEXT_BERT_TOWER_H

#include "text/text_tower.h"

#define TESS_BERT_HEADS 4

/* A dense layer on the pooled row: BERT's own pooler, sentence-transformers' Dense, OpenCLIP's
 * projections. */
typedef struct tess_bert_head {
    int64_t width; /* of its result */
    bool bias;
    const char *act; /* NULL: none */
} tess_bert_head;

/* What this encoder has beside tess_text_config; zero n_heads: the pooled row is the result. */
struct tess_bert_config {
    int64_t hidden;         /* F */
    int64_t n_types;        /* rows of the token type table; a text's tokens are of type 0 */
    int64_t n_positions;    /* rows of the position table */
    int64_t first_position; /* the row of a text's first token: 0, of XLM-RoBERTa pad_id + 1 */
    int64_t n_heads;
    tess_bert_head heads[TESS_BERT_HEADS];
};

/* Parameters, in the present scope: token_embedding.weight (V,C), positional_embedding,
 * token_type_embedding, ln_pre, transformer.resblocks.N with the names of the pre-norm block (ln_1
 * and ln_2 stand behind the sums here), head.K.dense. */
tess_value tess__bert_tower(tess_graph *g, const tess_text_config *c, tess_text_input in,
                            tess_unary_kind act, tess_pool_kind pool, tess_dtype dtype,
                            bool recompute);
/* The width of its result. */
int64_t tess__bert_width(const tess_text_config *c);
void tess__bert_config_write(const tess_bert_config *c, tess_json_writer *w);
/* What tess__bert_config_write wrote; *out is in the arena. */
TESS_MUST_USE tess_status tess__bert_object_read(const tess_json *obj, const char *name,
                                                 tess_arena *arena, const tess_bert_config **out);
/* Sizes that go together: positions for the context, heads that are known. */
TESS_MUST_USE tess_status tess__bert_config_check(const tess_text_config *c, const char *name);

#endif
