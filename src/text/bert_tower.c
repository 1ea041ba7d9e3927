/* SPDX-License-Identifier: Apache-2.0 */
/* BERT and XLM-RoBERTa as a function that appends to a graph.
 *
 * Post-norm blocks: the sum with what went in is normalised, not what goes in.  Captions are packed
 * end to end and attend inside their segment; the published models mask padding out of attention
 * and of the mean, so leaving it out gives the same numbers.  Query, key and value are one matrix
 * here; the checkpoints keep three, which the layouts of fusion join. */
#include "text/bert_tower.h"

#include "tensor/block.h"

#include <string.h>

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
    tess_value words = tess__table(g, "weight", TESS_SHAPE_OF(c->vocab_size, c->width), dtype);
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

/* ---- the config ---------------------------------------------------------------------------- */

static const tess_field fields[] = {
    {"hidden", TESS_FIELD_INT, offsetof(tess_bert_config, hidden), 1, 1048576},
    {"n_types", TESS_FIELD_INT, offsetof(tess_bert_config, n_types), 0, 1024},
    {"n_positions", TESS_FIELD_INT, offsetof(tess_bert_config, n_positions), 1, 1048576},
    {"first_position", TESS_FIELD_INT, offsetof(tess_bert_config, first_position), 0, 1048576},
};

static const tess_field head_fields[] = {
    {"width", TESS_FIELD_INT, offsetof(tess_bert_head, width), 1, 1048576},
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

typedef struct read_part {
    tess_bert_config bert;
    const tess_json *heads;
} read_part;

static tess_status read_heads(const tess_json *heads, const char *name, tess_arena *arena,
                              tess_bert_config *c)
{
    const size_t n = tess_json_count(heads);
    if (heads && (tess_json_kind_of(heads) != TESS_JSON_ARRAY || n > TESS_BERT_HEADS)) {
        return TESS_FAIL(TESS_INVALID, "%s.heads: expected an array of at most %d layers", name,
                         TESS_BERT_HEADS);
    }
    for (size_t i = 0; i < n; i++) {
        const char *where = tess_arena_format(arena, "%s.heads[%zu]", name, i);
        const tess_json *item = tess_json_at(heads, i);
        TESS_TRY(where ? TESS_OK : TESS_NOMEM);
        if (tess_json_kind_of(item) != TESS_JSON_OBJECT) {
            return TESS_FAIL(TESS_INVALID, "%s: expected an object", where);
        }
        TESS_TRY(tess_json_read_fields(item, where, head_fields, TESS_COUNT(head_fields), arena,
                                       &c->heads[i]));
    }
    c->n_heads = (int64_t)n;
    return TESS_OK;
}

tess_status tess__bert_object_read(const tess_json *obj, const char *name, tess_arena *arena,
                                   const tess_bert_config **out)
{
    read_part part = {.heads = NULL};
    tess_field all[TESS_COUNT(fields) + 1];
    tess_bert_config *bert = tess_arena_alloc(arena, sizeof *bert);
    const char *path = tess_arena_format(arena, "%s.bert", name);
    TESS_TRY(bert && path ? TESS_OK : TESS_NOMEM);
    memcpy(all, fields, sizeof fields);
    all[TESS_COUNT(all) - 1] =
        (tess_field){"heads", TESS_FIELD_VALUE, offsetof(read_part, heads), 0, 0};
    TESS_TRY(tess_json_read_fields(obj, path, all, TESS_COUNT(all), arena, &part));
    TESS_TRY(read_heads(part.heads, path, arena, &part.bert));
    *bert = part.bert;
    *out = bert;
    return TESS_OK;
}

tess_status tess__bert_config_check(const tess_text_config *c, const char *name)
{
    const tess_bert_config *b = c->bert;
    tess_unary_kind act;
    if (b->hidden < 1 || c->context_length > b->n_positions - b->first_position) {
        return TESS_FAIL(TESS_INVALID,
                         "%s.bert: expected hidden of at least 1 and n_positions for "
                         "context_length %lld behind first_position, found %lld, %lld and %lld",
                         name, (long long)c->context_length, (long long)b->hidden,
                         (long long)b->n_positions, (long long)b->first_position);
    }
    for (int64_t i = 0; i < b->n_heads; i++) {
        if (b->heads[i].width < 1) {
            return TESS_FAIL(TESS_INVALID, "%s.bert.heads[%lld]: width is missing", name,
                             (long long)i);
        }
        TESS_TRY(b->heads[i].act ? tess__unary_find(b->heads[i].act, name, &act) : TESS_OK);
    }
    return TESS_OK;
}
