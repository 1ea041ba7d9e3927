/* SPDX-License-Identifier: Apache-2.0 */
/* The pre-norm transformer block (Vaswani et al. 2017; pre-norm as in ViT and CLIP):
 *
 *   x = x + out_proj(attention(in_proj(ln_1 x)))
 *   x = x + c_proj(act(c_fc(ln_2 x)))
 *
 * in_proj is one matrix with rows [q;k;v]; both residual sums are epilogues of the product before
 * them, and relu one of c_fc. */
#include "tensor/block.h"

#include "tensor/graph.h"

#include <string.h>

tess_status tess__unary_find(const char *name, const char *where, tess_unary_kind *out)
{
    for (int k = 0; k < TESS_UNARY_COUNT; k++) {
        if (strcmp(tess_unary_name((tess_unary_kind)k), name) == 0) {
            *out = (tess_unary_kind)k;
            return TESS_OK;
        }
    }
    return TESS_FAIL(
        TESS_UNSUPPORTED,
        "%s: act: expected relu, gelu, gelu_tanh, quick_gelu, silu or tanh, found \"%s\"", where,
        name);
}

/* The leaf, or of one that ranks hold in parts, all of it; its gradient is what they hold. */
static tess_value leaf(tess_graph *g, const char *group, const char *name, tess_shape shape,
                       tess_dtype dtype)
{
    const tess__sharding *s = &g->sharding;
    const char *path =
        tess_arena_format(&g->arena, "%s%s%s", g->scope, g->scope[0] ? "." : "", name);
    if (!path) {
        tess__graph_fail(g, TESS_NOMEM);
        return 0;
    }
    if (!s->scatters || !s->splits(path, &shape)) {
        return tess_state(g, group, name, dtype, shape);
    }
    if (!s->gathers) {
        return tess__shard_whole(g, s->comm, tess_state(g, group, name, dtype, shape), s->wire);
    }
    const int64_t n = tess_shape_count(&shape);
    const int rank = tess_comm_rank(s->comm), ranks = tess_comm_size(s->comm);
    const int64_t held = tess_shard_begin(n, rank + 1, ranks) - tess_shard_begin(n, rank, ranks);
    return tess__shard_gather(g, s->comm, tess_state(g, group, name, dtype, TESS_SHAPE_OF(held)),
                              shape, s->wire);
}

tess_value tess__weight(tess_graph *g, const char *name, tess_shape shape, tess_dtype dtype)
{
    if (g->narrow && dtype == TESS_BF16) {
        return leaf(g, "half", name, shape, TESS_BF16);
    }
    tess_value w = leaf(g, "param", name, shape, TESS_F32);
    return dtype == TESS_F32 ? w : tess_cast(g, w, dtype);
}

tess_value tess__table(tess_graph *g, const char *name, tess_shape shape, tess_dtype dtype)
{
    const bool as_matrix = g->sharding.comm && g->narrow && dtype == TESS_BF16;
    return as_matrix ? leaf(g, "half", name, shape, TESS_BF16)
                     : leaf(g, "param", name, shape, TESS_F32);
}

tess_value tess__layernorm(tess_graph *g, const char *name, tess_value x, float eps)
{
    tess_shape s = tess_value_shape(g, x);
    tess_shape c = TESS_SHAPE_OF(s.rank > 0 ? s.dim[s.rank - 1] : 0);
    tess_scope_push(g, "%s", name);
    tess_value weight = tess_state(g, "param", "weight", TESS_F32, c);
    tess_value bias = tess_state(g, "param", "bias", TESS_F32, c);
    tess_value y = tess_layernorm(g, x, weight, bias, eps);
    tess_scope_pop(g);
    return y;
}

tess_value tess__linear(tess_graph *g, const char *name, tess_value x, int64_t out_width,
                        tess_linear_options o)
{
    tess_shape s = tess_value_shape(g, x);
    int64_t in_width = s.rank > 0 ? s.dim[s.rank - 1] : 0;
    tess_scope_push(g, "%s", name);
    tess_value w =
        tess__weight(g, "weight", TESS_SHAPE_OF(out_width, in_width), tess_value_dtype(g, x));
    o.bias = tess_state(g, "param", "bias", TESS_F32, TESS_SHAPE_OF(out_width));
    tess_value y = tess_linear(g, x, w, o);
    tess_scope_pop(g);
    return y;
}

static tess_value attention(tess_graph *g, const tess_block_config *c, tess_value x)
{
    tess_value h = tess__layernorm(g, "ln_1", x, c->eps);
    tess_scope_push(g, "attn");
    tess_value w =
        tess__weight(g, "in_proj_weight", TESS_SHAPE_OF(3 * c->width, c->width), c->dtype);
    tess_value b = tess_state(g, "param", "in_proj_bias", TESS_F32, TESS_SHAPE_OF(3 * c->width));
    h = tess_linear(g, h, w, (tess_linear_options){.bias = b}); /* (...,3C) */
    h = tess_sdpa(g, h,
                  (tess_sdpa_options){.heads = c->heads,
                                      .causal = c->causal,
                                      .offsets = c->offsets,
                                      .max_segment = c->max_segment}); /* (...,C) */
    x = tess__linear(g, "out_proj", h, c->width, (tess_linear_options){.residual = x});
    tess_scope_pop(g);
    return x;
}

static tess_value mlp(tess_graph *g, const tess_block_config *c, tess_value x)
{
    tess_value h = tess__layernorm(g, "ln_2", x, c->eps);
    bool relu = c->act == TESS_RELU;
    tess_scope_push(g, "mlp");
    h = tess__linear(g, "c_fc", h, c->hidden, (tess_linear_options){.relu = relu}); /* (...,F) */
    h = relu ? h : tess_unary(g, h, c->act);
    x = tess__linear(g, "c_proj", h, c->width, (tess_linear_options){.residual = x});
    tess_scope_pop(g);
    return x;
}

tess_value tess__transformer(tess_graph *g, const tess_block_config *c, int64_t layers,
                             tess_value x)
{
    for (int64_t i = 0; i < layers; i++) {
        tess_scope_push(g, "resblocks.%lld", (long long)i);
        if (c->recompute) {
            tess_scope_recompute(g);
        }
        x = mlp(g, c, attention(g, c, x));
        tess_scope_pop(g);
    }
    return x;
}
