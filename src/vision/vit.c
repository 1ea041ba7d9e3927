/* SPDX-License-Identifier: Apache-2.0 */
/* The vision transformer as a function that appends to a graph.
 *
 * The patch embedding is a linear layer over patches unfolded in (channel, row, column) order, so
 * that OpenCLIP's conv1.weight (C,3,p,p) is used as it is.
 *
 * What models of other programs have beside OpenCLIP's own (a class token that "avg" leaves out of
 * the mean, SigLIP's head, biases) is data in the config.  Departure from OpenCLIP: pool_type "map"
 * is Tessera's own, one learned query over the patches.
 * OpenCLIP has attentional_pool, attn_pooler_queries and attn_pooler_heads for a pooler of several
 * queries with other parameters; those keys are refused as unknown. */
#include "vision/vit.h"

#include "tensor/block.h"

#include <string.h>

static const char *const pools[] = {"tok", "avg", "map", "probe"};

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
                             .eps = 1e-5,
                             .class_token = true};
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

/* Written only where they are not the default, so that older models keep their fingerprints. */
static const tess_field more_fields[] = {
    {"class_token", TESS_FIELD_BOOL, offsetof(tess_vit_config, class_token), 0, 0},
    {"patch_bias", TESS_FIELD_BOOL, offsetof(tess_vit_config, patch_bias), 0, 0},
    {"no_proj", TESS_FIELD_BOOL, offsetof(tess_vit_config, no_proj), 0, 0},
    {"hidden", TESS_FIELD_INT, offsetof(tess_vit_config, hidden), 0, 1048576},
};

static bool pool_is(const tess_vit_config *c, const char *name)
{
    return strcmp(c->pool_type, name) == 0;
}

int64_t tess__vit_hidden(const tess_vit_config *c)
{
    return c->hidden > 0 ? c->hidden : (int64_t)((double)c->width * c->mlp_ratio);
}

tess_status tess__vit_config_check(const tess_vit_config *c, const char *name)
{
    tess_unary_kind act;
    bool known = false;
    for (int64_t i = 0; i < TESS_COUNT(pools); i++) {
        known |= pool_is(c, pools[i]);
    }
    if (!known) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "%s: pool_type: expected tok, avg, map or probe, found \"%s\"", name,
                         c->pool_type);
    }
    TESS_TRY(tess__unary_find(c->act, name, &act));
    if (c->image_size < c->patch_size) {
        return TESS_FAIL(TESS_INVALID, "%s: image_size %lld is less than patch_size %lld", name,
                         (long long)c->image_size, (long long)c->patch_size);
    }
    if (c->class_token != pool_is(c, "tok") && !pool_is(c, "avg")) {
        return TESS_FAIL(TESS_UNSUPPORTED, "%s: pool_type %s %s a class token", name, c->pool_type,
                         c->class_token ? "has no use for" : "needs");
    }
    if (tess__vit_hidden(c) < 1) {
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
    tess_field all[TESS_COUNT(fields) + TESS_COUNT(more_fields)];
    memcpy(all, fields, sizeof fields);
    memcpy(all + TESS_COUNT(fields), more_fields, sizeof more_fields);
    TESS_TRY(tess_json_read_fields(obj, name, all, TESS_COUNT(all), arena, out));
    if (!tess_json_get(obj, "class_token")) {
        out->class_token = pool_is(out, "tok");
    }
    return tess__vit_config_check(out, name);
}

void tess__vit_config_write(const tess_vit_config *c, tess_json_writer *w)
{
    const bool more[] = {c->class_token != pool_is(c, "tok"), c->patch_bias, c->no_proj,
                         c->hidden > 0};
    _Static_assert(sizeof more == TESS_COUNT(more_fields), "a condition for each field");
    tess_json_begin_object(w);
    tess_json_add_fields(w, fields, TESS_COUNT(fields), c);
    for (int64_t i = 0; i < TESS_COUNT(more_fields); i++) {
        tess_json_add_fields(w, &more_fields[i], more[i] ? 1 : 0, c);
    }
    tess_json_end_object(w);
}

/* y = x W^T (+ bias): parameters NAME_weight (rows,C), NAME_bias (rows) in the present scope. */
static tess_value project_rows(tess_graph *g, const char *name, tess_value x, int64_t rows,
                               bool bias)
{
    char weight_name[32], bias_name[32];
    snprintf(weight_name, sizeof weight_name, "%s_weight", name);
    snprintf(bias_name, sizeof bias_name, "%s_bias", name);
    tess_shape s = tess_value_shape(g, x);
    int64_t width = s.rank > 0 ? s.dim[s.rank - 1] : 0;
    tess_value w = tess__weight(g, weight_name, TESS_SHAPE_OF(rows, width), tess_value_dtype(g, x));
    tess_value b = bias ? tess_state(g, "param", bias_name, TESS_F32, TESS_SHAPE_OF(rows)) : 0;
    return tess_linear(g, x, w, (tess_linear_options){.bias = b});
}

/* SigLIP's second half: x + mlp(layernorm(x)). */
static tess_value pooled_mlp(tess_graph *g, const tess_vit_config *c, tess_value x)
{
    tess_unary_kind act = TESS_GELU;
    tess_status st = tess__unary_find(c->act, "vision_cfg", &act);
    if (st) {
        tess__graph_fail(g, st);
        return x;
    }
    tess_value h = tess__layernorm(g, "ln", x, (float)c->eps);
    tess_scope_push(g, "mlp");
    h = tess__linear(g, "c_fc", h, tess__vit_hidden(c), (tess_linear_options){0});
    x = tess__linear(g, "c_proj", tess_unary(g, h, act), c->width,
                     (tess_linear_options){.residual = x});
    tess_scope_pop(g);
    return x;
}

/* x (B,P,C) -> (B,C): softmax attention of one learned query over the patches.  Tessera's own
 * normalises query and patches before; SigLIP's has biases, and an MLP behind. */
static tess_value attention_pool(tess_graph *g, const tess_vit_config *c, tess_value x,
                                 tess_dtype dtype)
{
    tess_shape s = tess_value_shape(g, x);
    const bool probe = pool_is(c, "probe");
    int64_t rows = s.dim[0], width = c->width;
    tess_scope_push(g, "attn_pool");
    tess_value q = tess_state(g, "param", "query", TESS_F32, TESS_SHAPE_OF(1, width));
    q = tess_reshape(g, tess_repeat_rows(g, q, rows, dtype), TESS_SHAPE_OF(rows, width));
    q = probe ? q : tess__layernorm(g, "ln_q", q, (float)c->eps);
    tess_value k = probe ? x : tess__layernorm(g, "ln_k", x, (float)c->eps);
    tess_scope_push(g, "attn");
    q = project_rows(g, "q_proj", q, width, probe);
    k = tess_reshape(g, project_rows(g, "kv_proj", k, 2 * width, probe),
                     TESS_SHAPE_OF(rows, s.dim[1], 2 * width));
    tess_value y = tess_sdpa(g, tess_reshape(g, q, TESS_SHAPE_OF(rows, 1, width)),
                             (tess_sdpa_options){.heads = width / c->head_width, .kv = k});
    y = tess__linear(g, "out_proj", tess_reshape(g, y, TESS_SHAPE_OF(rows, width)), width,
                     (tess_linear_options){0});
    tess_scope_pop(g);
    y = probe ? pooled_mlp(g, c, y) : y;
    tess_scope_pop(g);
    return y;
}

static tess_value pool(tess_graph *g, const tess_vit_config *c, tess_value x, tess_dtype dtype)
{
    if (pool_is(c, "map") || pool_is(c, "probe")) {
        return attention_pool(g, c, x, dtype);
    }
    tess_pool_kind mean = c->class_token ? TESS_POOL_MEAN_REST : TESS_POOL_MEAN;
    return tess_pool(g, x, 0, pool_is(c, "tok") ? TESS_POOL_FIRST : mean);
}

tess_vit_pictures tess__finished_pictures(tess_graph *g, int64_t n, int64_t size)
{
    return (tess_vit_pictures){
        .finished = tess_input(g, "pictures", TESS_U8, TESS_SHAPE_OF(n, size, size, 3))};
}

/* Rows of normalised pixels (B*P,3*p*p), and B. */
static tess_value patches(tess_graph *g, const tess_vit_config *c, tess_vit_pictures in,
                          const tess_vit_options *o, int64_t *out_batch)
{
    const float *mean = o->mean, *std = o->std;
    if (in.finished) {
        *out_batch = tess_value_shape(g, in.finished).dim[0];
        TESS_SHAPE(g, in.finished, *out_batch, c->image_size, c->image_size, 3);
        return tess_patchify(g, in.finished,
                             (tess_patchify_options){.patch = c->patch_size,
                                                     .mean = {mean[0], mean[1], mean[2]},
                                                     .std = {std[0], std[1], std[2]},
                                                     .dtype = o->dtype});
    }
    *out_batch = tess_value_shape(g, in.raw.places).dim[0];
    return tess_resize_patches(
        g, in.raw.bytes, in.raw.places, in.raw.taps,
        (tess_resize_patches_options){.size = c->image_size,
                                      .patch = c->patch_size,
                                      .mean = {mean[0], mean[1], mean[2]},
                                      .std = {std[0], std[1], std[2]},
                                      .fill = {o->fill[0], o->fill[1], o->fill[2]},
                                      .dtype = o->dtype});
}

/* Patches with positions (B,P,C), class token first where there is one; or the rows that are kept.
 */
static tess_value embed(tess_graph *g, const tess_vit_config *c, tess_vit_pictures pictures,
                        const tess_vit_options *o)
{
    int64_t side = c->image_size / c->patch_size, p = c->patch_size, batch = 0;
    tess_value x = patches(g, c, pictures, o, &batch);
    tess_value w = tess__weight(g, "conv1.weight", TESS_SHAPE_OF(c->width, 3, p, p), o->dtype);
    w = tess_reshape(g, w, TESS_SHAPE_OF(c->width, 3 * p * p));
    tess_value bias = 0;
    if (c->patch_bias) {
        bias = tess_state(g, "param", "conv1.bias", TESS_F32, TESS_SHAPE_OF(c->width));
    }
    x = tess_linear(g, x, w, (tess_linear_options){.bias = bias});
    x = tess_reshape(g, x, TESS_SHAPE_OF(batch, side * side, c->width));
    int64_t tokens = side * side;
    if (c->class_token) {
        x = tess_prepend_token(
            g, x, tess_state(g, "param", "class_embedding", TESS_F32, TESS_SHAPE_OF(c->width)));
        tokens++;
    }
    x = tess_add_rows(
        g, x,
        tess_state(g, "param", "positional_embedding", TESS_F32, TESS_SHAPE_OF(tokens, c->width)));
    return pictures.kept ? tess_gather_rows(g, x, pictures.kept) : x;
}

tess_value tess__vit(tess_graph *g, const tess_vit_config *c, tess_vit_pictures pictures,
                     const tess_vit_options *o)
{
    tess_unary_kind act = TESS_GELU;
    tess_status st = tess__unary_find(c->act, "vision_cfg", &act);
    if (st) {
        tess__graph_fail(g, st);
        return 0;
    }
    tess_value x = embed(g, c, pictures, o);
    float eps = (float)c->eps;
    x = c->no_ln_pre ? x : tess__layernorm(g, "ln_pre", x, eps);
    tess_block_config block = {.width = c->width,
                               .heads = c->width / c->head_width,
                               .hidden = tess__vit_hidden(c),
                               .act = act,
                               .eps = eps,
                               .dtype = o->dtype,
                               .recompute = o->recompute};
    tess_scope_push(g, "transformer");
    x = tess__transformer(g, &block, c->layers, x);
    tess_scope_pop(g);
    /* ln_post acts on every token before averaging and SigLIP's head, on the one pooled token
     * otherwise. */
    bool before = pool_is(c, "probe") || (pool_is(c, "avg") && !c->final_ln_after_pool);
    x = before ? tess__layernorm(g, "ln_post", x, eps) : x;
    x = pool(g, c, x, o->dtype);
    x = before ? x : tess__layernorm(g, "ln_post", x, eps);
    if (c->no_proj) {
        return x;
    }
    return tess_project(g, x,
                        tess__weight(g, "proj", TESS_SHAPE_OF(c->width, o->embed_dim), o->dtype));
}
