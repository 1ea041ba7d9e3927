/* SPDX-License-Identifier: Apache-2.0 */
/* The text transformer as a function that appends to a graph.
 *
 * Captions are packed end to end and attention works inside segments, so a padded token never
 * exists: exact for masked bidirectional towers and for causal ones read at the end-of-text token,
 * which is the last of its segment here.  Towers that attend to their padding (SigLIP's) get it as
 * part of the segment. */
#include "text/text_tower.h"

#include "tensor/block.h"
#include "text/bert_tower.h"

#include <string.h>

static const struct {
    const char *name;
    tess_pool_kind kind;
} pools[] = {
    {"argmax", TESS_POOL_LAST}, {"last", TESS_POOL_LAST}, {"eos", TESS_POOL_LAST},
    {"first", TESS_POOL_FIRST}, {"mean", TESS_POOL_MEAN}, {"mean_sqrt_len", TESS_POOL_MEAN_SQRT},
};

tess_text_config tess__text_default(void)
{
    return (tess_text_config){.context_length = 77,
                              .vocab_size = 49408,
                              .width = 512,
                              .heads = 8,
                              .layers = 12,
                              .mlp_ratio = 4.0,
                              .pool_type = "argmax",
                              .act = "gelu",
                              .pad_id = 0,
                              .eos_id = 2,
                              .tokenizer = "tokenizer.model",
                              .eps = 1e-5,
                              .text_mode = "clean",
                              .proj_type = "linear"};
}

static const tess_field fields[] = {
    {"context_length", TESS_FIELD_INT, offsetof(tess_text_config, context_length), 2, 65536},
    {"vocab_size", TESS_FIELD_INT, offsetof(tess_text_config, vocab_size), 1, 16777216},
    {"width", TESS_FIELD_INT, offsetof(tess_text_config, width), 1, 65536},
    {"heads", TESS_FIELD_INT, offsetof(tess_text_config, heads), 1, 1024},
    {"layers", TESS_FIELD_INT, offsetof(tess_text_config, layers), 0, 1024},
    {"mlp_ratio", TESS_FIELD_REAL, offsetof(tess_text_config, mlp_ratio), 0.01, 64},
    {"pool_type", TESS_FIELD_STRING, offsetof(tess_text_config, pool_type), 0, 0},
    {"act", TESS_FIELD_STRING, offsetof(tess_text_config, act), 0, 0},
    {"no_causal_mask", TESS_FIELD_BOOL, offsetof(tess_text_config, no_causal_mask), 0, 0},
    {"pad_id", TESS_FIELD_INT, offsetof(tess_text_config, pad_id), 0, 16777216},
    {"eos_id", TESS_FIELD_INT, offsetof(tess_text_config, eos_id), 0, 16777216},
    {"tokenizer", TESS_FIELD_STRING, offsetof(tess_text_config, tokenizer), 0, 0},
    {"eps", TESS_FIELD_REAL, offsetof(tess_text_config, eps), 1e-14, 1},
};

/* Written only where they are not the default, so that older models keep their fingerprints. */
static const tess_field more_fields[] = {
    {"pad_to_context", TESS_FIELD_BOOL, offsetof(tess_text_config, pad_to_context), 0, 0},
    {"text_mode", TESS_FIELD_STRING, offsetof(tess_text_config, text_mode), 0, 0},
    {"proj_bias", TESS_FIELD_BOOL, offsetof(tess_text_config, proj_bias), 0, 0},
    {"proj_type", TESS_FIELD_STRING, offsetof(tess_text_config, proj_type), 0, 0},
    {"hidden", TESS_FIELD_INT, offsetof(tess_text_config, hidden), 0, 1048576},
};

static const char *const modes[] = {"clean",      "raw",   "open_clip",
                                    "whitespace", "lower", "canonicalize"};

bool tess__text_is_clean(const tess_text_config *c)
{
    return !c->text_mode || strcmp(c->text_mode, "clean") == 0;
}

static tess_status check_mode(const tess_text_config *c, const char *name)
{
    bool known = !c->text_mode;
    for (int64_t i = 0; !known && i < TESS_COUNT(modes); i++) {
        known = strcmp(c->text_mode, modes[i]) == 0;
    }
    return known ? TESS_OK
                 : TESS_FAIL(TESS_UNSUPPORTED,
                             "%s: text_mode: expected clean, raw, open_clip, whitespace, lower or "
                             "canonicalize, found \"%s\"",
                             name, c->text_mode);
}

static bool has_proj(const tess_text_config *c)
{
    return !c->proj_type || strcmp(c->proj_type, "none") != 0;
}

static int64_t hidden_width(const tess_text_config *c)
{
    return c->hidden > 0 ? c->hidden : (int64_t)((double)c->width * c->mlp_ratio);
}

static tess_status find_pool(const char *name, const char *where, tess_pool_kind *out)
{
    for (int64_t i = 0; i < TESS_COUNT(pools); i++) {
        if (strcmp(pools[i].name, name) == 0) {
            *out = pools[i].kind;
            return TESS_OK;
        }
    }
    return TESS_FAIL(TESS_UNSUPPORTED,
                     "%s: pool_type: expected argmax, last, first or mean, found \"%s\"", where,
                     name);
}

tess_status tess__text_config_check(const tess_text_config *c, const char *name)
{
    tess_unary_kind act;
    tess_pool_kind pool;
    TESS_TRY(tess__unary_find(c->act, name, &act));
    TESS_TRY(find_pool(c->pool_type, name, &pool));
    TESS_TRY(check_mode(c, name));
    if (has_proj(c) && c->proj_type && strcmp(c->proj_type, "linear") != 0) {
        return TESS_FAIL(TESS_UNSUPPORTED, "%s: proj_type: expected linear or none, found \"%s\"",
                         name, c->proj_type);
    }
    if (hidden_width(c) < 1) {
        return TESS_FAIL(TESS_INVALID, "%s: mlp_ratio %g leaves width %lld no hidden unit", name,
                         c->mlp_ratio, (long long)c->width);
    }
    if (c->width % c->heads != 0) {
        return TESS_FAIL(TESS_INVALID, "%s: width %lld is no multiple of heads %lld", name,
                         (long long)c->width, (long long)c->heads);
    }
    if (c->bert) {
        TESS_TRY(tess__bert_config_check(c, name));
    }
    if (!tess__text_is_clean(c)) {
        return TESS_OK; /* the tokenizer's files have the names that their program gives them */
    }
    if (!c->tokenizer[0] || strchr(c->tokenizer, '/') || c->tokenizer[0] == '.') {
        return TESS_FAIL(TESS_INVALID,
                         "%s: tokenizer: expected the name of a file in the model directory, found "
                         "\"%s\"",
                         name, c->tokenizer);
    }
    return TESS_OK;
}

/* The object "bert" beside the keys of every text tower. */
typedef struct read_part {
    tess_text_config text;
    const tess_json *bert;
} read_part;

tess_status tess__text_config_read(const tess_json *obj, const char *name, tess_arena *arena,
                                   tess_text_config *out)
{
    read_part part = {.text = *out};
    tess_field all[TESS_COUNT(fields) + TESS_COUNT(more_fields) + 1];
    memcpy(all, fields, sizeof fields);
    memcpy(all + TESS_COUNT(fields), more_fields, sizeof more_fields);
    all[TESS_COUNT(all) - 1] =
        (tess_field){"bert", TESS_FIELD_OBJECT, offsetof(read_part, bert), 0, 0};
    TESS_TRY(tess_json_read_fields(obj, name, all, TESS_COUNT(all), arena, &part));
    *out = part.text;
    if (part.bert) {
        TESS_TRY(tess__bert_object_read(part.bert, name, arena, &out->bert));
    }
    return tess__text_config_check(out, name);
}

void tess__text_config_write(const tess_text_config *c, tess_json_writer *w)
{
    const bool more[] = {c->pad_to_context, !tess__text_is_clean(c), c->proj_bias, !has_proj(c),
                         c->hidden > 0};
    _Static_assert(sizeof more == TESS_COUNT(more_fields), "a condition for each field");
    tess_json_begin_object(w);
    tess_json_add_fields(w, fields, TESS_COUNT(fields), c);
    for (int64_t i = 0; i < TESS_COUNT(more_fields); i++) {
        tess_json_add_fields(w, &more_fields[i], more[i] ? 1 : 0, c);
    }
    if (c->bert) {
        tess_json_key(w, "bert");
        tess__bert_config_write(c->bert, w);
    }
    tess_json_end_object(w);
}

static tess_value embed(tess_graph *g, const tess_text_config *c, tess_text_input in,
                        tess_dtype dtype)
{
    tess_scope_push(g, "token_embedding");
    tess_value table = tess__table(g, "weight", TESS_SHAPE_OF(c->vocab_size, c->width), dtype);
    tess_value x = tess_embedding(g, table, in.tokens, dtype); /* (N,C) */
    tess_scope_pop(g);
    tess_value places = tess_state(g, "param", "positional_embedding", TESS_F32,
                                   TESS_SHAPE_OF(c->context_length, c->width));
    return tess_add(g, x, tess_embedding(g, places, in.positions, dtype));
}

tess_value tess__text_tower(tess_graph *g, const tess_text_config *c, tess_text_input in,
                            int64_t embed_dim, tess_dtype dtype, bool recompute)
{
    tess_unary_kind act = TESS_GELU;
    tess_pool_kind pool = TESS_POOL_LAST;
    tess_status st = tess__unary_find(c->act, "text_cfg", &act);
    st = st ? st : find_pool(c->pool_type, "text_cfg", &pool);
    if (st) {
        tess__graph_fail(g, st);
        return 0;
    }
    if (c->bert) {
        return tess__bert_tower(g, c, in, act, pool, dtype, recompute);
    }
    tess_value x = embed(g, c, in, dtype);
    tess_block_config block = {.width = c->width,
                               .heads = c->heads,
                               .hidden = hidden_width(c),
                               .act = act,
                               .causal = !c->no_causal_mask,
                               .eps = (float)c->eps,
                               .dtype = dtype,
                               .offsets = in.offsets,
                               .max_segment = c->context_length,
                               .recompute = recompute};
    tess_scope_push(g, "transformer");
    x = tess__transformer(g, &block, c->layers, x);
    tess_scope_pop(g);
    x = tess__layernorm(g, "ln_final", tess_pool(g, x, in.offsets, pool), (float)c->eps);
    if (!has_proj(c)) {
        return x;
    }
    if (c->proj_bias) {
        return tess__linear(g, "text_projection", x, embed_dim, (tess_linear_options){0});
    }
    return tess_project(
        g, x, tess__weight(g, "text_projection", TESS_SHAPE_OF(c->width, embed_dim), dtype));
}
