/* SPDX-License-Identifier: Apache-2.0 */
/* BERT and XLM-RoBERTa as a function that appends to a graph.
 *
 * Post-norm blocks: the sum with what went in is normalised, not what goes in.  Captions are packed
 * end to end and attend inside their segment; the published models mask padding out of attention
 * and of the mean, so leaving it out gives the same numbers.  Query, key and value are one matrix
 * here; the checkpoints keep three, which the layouts of fusion join. */
#include "text/bert_tower.h"

#include "tensor/block.h"

int64_t tess__bert_width(const tess_text_config *c)
{
    const tess_bert_config *b = c->bert;
    return b->n_heads > 0 ? b->heads[b->n_heads - 1].width : c->width;
}

/* The position table's rows from first_position on, so that position 0 is a text's first token. */
static tess_value positions(tess_graph *g, const tess_text_config *c, tess_text_input in,
                            tess_dtype dtype)
{
    const tess_bert_config *b = c->bert;
    tess_value table = tess_state(g, "param", "positional_embedding", TESS_F32,
                                  TESS_SHAPE_OF(b->n_positions, c->width));
    if (b->first_position > 0) {
        table = tess_slice_rows(g, table, b->first_position, c->context_length);
    }
    return tess_embedding(g, table, in.positions, dtype);
}

static tess_value embed(tess_graph *g, const tess_text_config *c, tess_text_input in,
                        tess_dtype dtype)
{
    tess_scope_push(g, "token_embedding");
    tess_value words =
        tess_state(g, "param", "weight", TESS_F32, TESS_SHAPE_OF(c->vocab_size, c->width));
    tess_scope_pop(g);
    tess_value x = tess_embedding(g, words, in.tokens, dtype); /* (N,C) */
    x = tess_add(g, x, positions(g, c, in, dtype));
    if (c->bert->n_types > 0) {
        tess_value types = tess_state(g, "param", "token_type_embedding", TESS_F32,
                                      TESS_SHAPE_OF(c->bert->n_types, c->width));
        const int64_t n = tess_value_shape(g, in.tokens).dim[0];
        x = tess_add(g, x, tess_repeat_rows(g, tess_slice_rows(g, types, 0, 1), n, dtype));
    }
    return tess__layernorm(g, "ln_pre", x, (float)c->eps);
}

static tess_value attention(tess_graph *g, const tess_text_config *c, tess_value offsets,
                            tess_value x)
{
    tess_scope_push(g, "attn");
    tess_value w = tess__weight(g, "in_proj_weight", TESS_SHAPE_OF(3 * c->width, c->width),
                                tess_value_dtype(g, x));
    tess_value b = tess_state(g, "param", "in_proj_bias", TESS_F32, TESS_SHAPE_OF(3 * c->width));
    tess_value h = tess_linear(g, x, w, (tess_linear_options){.bias = b}); /* (N,3C) */
    h = tess_sdpa(g, h,
                  (tess_sdpa_options){.heads = c->heads,
                                      .offsets = offsets,
                                      .max_segment = c->context_length}); /* (N,C) */
    h = tess__linear(g, "out_proj", h, c->width, (tess_linear_options){.residual = x});
    tess_scope_pop(g);
    return tess__layernorm(g, "ln_1", h, (float)c->eps);
}

static tess_value mlp(tess_graph *g, const tess_text_config *c, tess_unary_kind act, tess_value x)
{
    const bool relu = act == TESS_RELU;
    tess_scope_push(g, "mlp");
    tess_value h = tess__linear(g, "c_fc", x, c->bert->hidden,
                                (tess_linear_options){.relu = relu}); /* (N,F) */
    h = relu ? h : tess_unary(g, h, act);
    h = tess__linear(g, "c_proj", h, c->width, (tess_linear_options){.residual = x});
    tess_scope_pop(g);
    return tess__layernorm(g, "ln_2", h, (float)c->eps);
}

static tess_value blocks(tess_graph *g, const tess_text_config *c, tess_value offsets,
                         tess_unary_kind act, bool recompute, tess_value x)
{
    tess_scope_push(g, "transformer");
    for (int64_t i = 0; i < c->layers; i++) {
        tess_scope_push(g, "resblocks.%lld", (long long)i);
        if (recompute) {
            tess_scope_recompute(g);
        }
        x = mlp(g, c, act, attention(g, c, offsets, x));
        tess_scope_pop(g);
    }
    tess_scope_pop(g);
    return x;
}

static tess_value head(tess_graph *g, const tess_bert_head *h, int64_t i, tess_value x)
{
    tess_unary_kind act = TESS_GELU;
    tess_shape s = tess_value_shape(g, x);
    tess_scope_push(g, "head.%lld.dense", (long long)i);
    tess_value w = tess__weight(g, "weight", TESS_SHAPE_OF(h->width, s.rank > 0 ? s.dim[1] : 0),
                                tess_value_dtype(g, x));
    tess_value b = h->bias ? tess_state(g, "param", "bias", TESS_F32, TESS_SHAPE_OF(h->width)) : 0;
    x = tess_linear(g, x, w, (tess_linear_options){.bias = b});
    tess_scope_pop(g);
    tess_status st = h->act ? tess__unary_find(h->act, "head", &act) : TESS_OK;
    if (st) {
        tess__graph_fail(g, st);
        return 0;
    }
    return h->act ? tess_unary(g, x, act) : x;
}

tess_value tess__bert_tower(tess_graph *g, const tess_text_config *c, tess_text_input in,
                            tess_unary_kind act, tess_pool_kind pool, tess_dtype dtype,
                            bool recompute)
{
    tess_value x = embed(g, c, in, dtype);
    x = blocks(g, c, in.offsets, act, recompute, x);
    x = tess_pool(g, x, in.offsets, pool);
    for (int64_t i = 0; i < c->bert->n_heads; i++) {
        x = head(g, &c->bert->heads[i], i, x);
    }
    return x;
}

/* ---- the config, for the model's fingerprint ----------------------------------------------- */

static const tess_field fields[] = {
    {"hidden", TESS_FIELD_INT, offsetof(tess_bert_config, hidden), 0, 0},
    {"n_types", TESS_FIELD_INT, offsetof(tess_bert_config, n_types), 0, 0},
    {"n_positions", TESS_FIELD_INT, offsetof(tess_bert_config, n_positions), 0, 0},
    {"first_position", TESS_FIELD_INT, offsetof(tess_bert_config, first_position), 0, 0},
};

static const tess_field head_fields[] = {
    {"width", TESS_FIELD_INT, offsetof(tess_bert_head, width), 0, 0},
    {"bias", TESS_FIELD_BOOL, offsetof(tess_bert_head, bias), 0, 0},
    {"act", TESS_FIELD_STRING, offsetof(tess_bert_head, act), 0, 0},
};

void tess__bert_config_write(const tess_bert_config *c, tess_json_writer *w)
{
    tess_json_begin_object(w);
    tess_json_add_fields(w, fields, TESS_COUNT(fields), c);
    tess_json_key(w, "heads");
    tess_json_begin_array(w);
    for (int64_t i = 0; i < c->n_heads; i++) {
        tess_json_begin_object(w);
        tess_json_add_fields(w, head_fields, TESS_COUNT(head_fields), &c->heads[i]);
        tess_json_end_object(w);
    }
    tess_json_end_array(w);
    tess_json_end_object(w);
}
