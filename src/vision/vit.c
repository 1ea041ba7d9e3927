/* SPDX-License-Identifier: Apache-2.0 */
/* The vision transformer as a function that appends to a graph.
 *
 * The patch embedding is a linear layer over patches unfolded in (channel, row, column) order, so
 * that OpenCLIP's conv1.weight (C,3,p,p) is used as it is.
 *
 * Departures from OpenCLIP: only "tok" pooling has a class token, where OpenCLIP's "avg" carries
 * one along unread; and pool_type "map" is Tessera's own, one learned query over the patches.
 * OpenCLIP has attentional_pool, attn_pooler_queries and attn_pooler_heads for a pooler of several
 * queries with other parameters; those keys are refused as unknown. */
#include "vision/vit.h"

#include "tensor/block.h"

#include <string.h>

static const char *const pools[] = {"tok", "avg", "map"};

tess_vit_config tess__vit_default(void)
{
    return (tess_vit_config){.image_size = 224,
                             .patch_size = 16,
                             .width = 768,
                             .layers = 12,
                             .head_width = 64,
                             .mlp_ratio = 4.0,
                             .pool_type = "tok",
                             .act = "gelu",
                             .eps = 1e-5};
}

static const tess_field fields[] = {
    {"image_size", TESS_FIELD_INT, offsetof(tess_vit_config, image_size), 1, 4096},
    {"patch_size", TESS_FIELD_INT, offsetof(tess_vit_config, patch_size), 1, 1024},
    {"width", TESS_FIELD_INT, offsetof(tess_vit_config, width), 1, 65536},
    {"layers", TESS_FIELD_INT, offsetof(tess_vit_config, layers), 1, 1024},
    {"head_width", TESS_FIELD_INT, offsetof(tess_vit_config, head_width), 1, 1024},
    {"mlp_ratio", TESS_FIELD_REAL, offsetof(tess_vit_config, mlp_ratio), 0.01, 64},
    {"pool_type", TESS_FIELD_STRING, offsetof(tess_vit_config, pool_type), 0, 0},
    {"act", TESS_FIELD_STRING, offsetof(tess_vit_config, act), 0, 0},
    {"no_ln_pre", TESS_FIELD_BOOL, offsetof(tess_vit_config, no_ln_pre), 0, 0},
    {"final_ln_after_pool", TESS_FIELD_BOOL, offsetof(tess_vit_config, final_ln_after_pool), 0, 0},
    {"eps", TESS_FIELD_REAL, offsetof(tess_vit_config, eps), 1e-12, 1},
};

static bool pool_is(const tess_vit_config *c, const char *name)
{
    return strcmp(c->pool_type, name) == 0;
}

static tess_status check(const tess_vit_config *c, const char *name)
{
    tess_unary_kind act;
    bool known = false;
    for (int64_t i = 0; i < TESS_COUNT(pools); i++) {
        known |= pool_is(c, pools[i]);
    }
    if (!known) {
        return TESS_FAIL(TESS_UNSUPPORTED, "%s: pool_type: expected tok, avg or map, found \"%s\"",
                         name, c->pool_type);
    }
    TESS_TRY(tess__unary_find(c->act, name, &act));
    if (c->image_size % c->patch_size != 0) {
        return TESS_FAIL(TESS_INVALID, "%s: image_size %lld is no multiple of patch_size %lld",
                         name, (long long)c->image_size, (long long)c->patch_size);
    }
    if ((double)c->width * c->mlp_ratio < 1) {
        return TESS_FAIL(TESS_INVALID, "%s: mlp_ratio %g leaves width %lld no hidden unit", name,
                         c->mlp_ratio, (long long)c->width);
    }
    if (c->width % c->head_width != 0) {
        return TESS_FAIL(TESS_INVALID, "%s: width %lld is no multiple of head_width %lld", name,
                         (long long)c->width, (long long)c->head_width);
    }
    return TESS_OK;
}

tess_status tess__vit_config_read(const tess_json *obj, const char *name, tess_arena *arena,
                                  tess_vit_config *out)
{
    TESS_TRY(tess_json_read_fields(obj, name, fields, TESS_COUNT(fields), arena, out));
    return check(out, name);
}

void tess__vit_config_write(const tess_vit_config *c, tess_json_writer *w)
{
    tess_json_begin_object(w);
    tess_json_add_fields(w, fields, TESS_COUNT(fields), c);
    tess_json_end_object(w);
}

/* x (B,P,C) -> (B,C): softmax attention of one learned query over the patches. */
static tess_value attention_pool(tess_graph *g, const tess_vit_config *c, tess_value x,
                                 tess_dtype dtype)
{
    tess_shape s = tess_value_shape(g, x);
    int64_t rows = s.dim[0], width = c->width;
    tess_scope_push(g, "attn_pool");
    tess_value query = tess_state(g, "param", "query", TESS_F32, TESS_SHAPE_OF(1, width));
    query = tess_reshape(g, tess_repeat_rows(g, query, rows, dtype), TESS_SHAPE_OF(rows, width));
    tess_value q = tess__layernorm(g, "ln_q", query, (float)c->eps);
    tess_value k = tess__layernorm(g, "ln_k", x, (float)c->eps);
    tess_scope_push(g, "attn");
    tess_value wq = tess__weight(g, "q_proj_weight", TESS_SHAPE_OF(width, width), dtype);
    tess_value wkv = tess__weight(g, "kv_proj_weight", TESS_SHAPE_OF(2 * width, width), dtype);
    q = tess_linear(g, q, wq, (tess_linear_options){0});
    k = tess_reshape(g, tess_linear(g, k, wkv, (tess_linear_options){0}),
                     TESS_SHAPE_OF(rows, s.dim[1], 2 * width));
    tess_value y = tess_sdpa(g, tess_reshape(g, q, TESS_SHAPE_OF(rows, 1, width)),
                             (tess_sdpa_options){.heads = width / c->head_width, .kv = k});
    y = tess__linear(g, "out_proj", tess_reshape(g, y, TESS_SHAPE_OF(rows, width)), width,
                     (tess_linear_options){0});
    tess_scope_pop(g);
    tess_scope_pop(g);
    return y;
}

static tess_value pool(tess_graph *g, const tess_vit_config *c, tess_value x, tess_dtype dtype)
{
    if (pool_is(c, "map")) {
        return attention_pool(g, c, x, dtype);
    }
    return tess_pool(g, x, 0, pool_is(c, "tok") ? TESS_POOL_FIRST : TESS_POOL_MEAN);
}

/* pictures (B,S,S,3) u8 -> patches with positions (B,P,C), class token first where there is one. */
static tess_value embed(tess_graph *g, const tess_vit_config *c, tess_value pictures,
                        const tess_vit_options *o)
{
    int64_t side = c->image_size / c->patch_size, p = c->patch_size;
    int64_t batch = tess_value_shape(g, pictures).dim[0];
    tess_patchify_options po = {.patch = p, .dtype = o->dtype};
    memcpy(po.mean, o->mean, sizeof po.mean);
    memcpy(po.std, o->std, sizeof po.std);
    tess_value x = tess_patchify(g, pictures, po);
    tess_value w = tess__weight(g, "conv1.weight", TESS_SHAPE_OF(c->width, 3, p, p), o->dtype);
    w = tess_reshape(g, w, TESS_SHAPE_OF(c->width, 3 * p * p));
    x = tess_linear(g, x, w, (tess_linear_options){0});
    x = tess_reshape(g, x, TESS_SHAPE_OF(batch, side * side, c->width));
    int64_t tokens = side * side;
    if (pool_is(c, "tok")) {
        x = tess_prepend_token(
            g, x, tess_state(g, "param", "class_embedding", TESS_F32, TESS_SHAPE_OF(c->width)));
        tokens++;
    }
    return tess_add_rows(
        g, x,
        tess_state(g, "param", "positional_embedding", TESS_F32, TESS_SHAPE_OF(tokens, c->width)));
}

tess_value tess__vit(tess_graph *g, const tess_vit_config *c, tess_value pictures,
                     const tess_vit_options *o)
{
    tess_unary_kind act = TESS_GELU;
    tess_status st = tess__unary_find(c->act, "vision_cfg", &act);
    if (st) {
        tess__graph_fail(g, st);
        return 0;
    }
    TESS_SHAPE(g, pictures, tess_value_shape(g, pictures).dim[0], c->image_size, c->image_size, 3);
    tess_value x = embed(g, c, pictures, o);
    float eps = (float)c->eps;
    x = c->no_ln_pre ? x : tess__layernorm(g, "ln_pre", x, eps);
    tess_block_config block = {.width = c->width,
                               .heads = c->width / c->head_width,
                               .hidden = (int64_t)((double)c->width * c->mlp_ratio),
                               .act = act,
                               .eps = eps,
                               .dtype = o->dtype,
                               .recompute = o->recompute};
    tess_scope_push(g, "transformer");
    x = tess__transformer(g, &block, c->layers, x);
    tess_scope_pop(g);
    /* ln_post acts on every token before averaging, on the one pooled token otherwise. */
    bool before = pool_is(c, "avg") && !c->final_ln_after_pool;
    x = before ? tess__layernorm(g, "ln_post", x, eps) : x;
    x = pool(g, c, x, o->dtype);
    x = before ? x : tess__layernorm(g, "ln_post", x, eps);
    return tess_project(g, x,
                        tess__weight(g, "proj", TESS_SHAPE_OF(c->width, o->embed_dim), o->dtype));
}
