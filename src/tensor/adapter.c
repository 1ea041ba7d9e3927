/* SPDX-License-Identifier: Apache-2.0 */
/* Low-rank adapters: y = x w + s (x A^T) B^T, built where linear and project are.
 *
 * The low-rank product comes first and enters the large one as its residual, so that the sum is
 * rounded once and costs no pass of its own.  Several adapters of a weight, and the parts of a
 * stacked one (q, k and v of in_proj), are one A with their rows below each other and one B with
 * their blocks, so a weight never costs more than two small products. */
#include "tensor/adapter.h"

#include "tensor/graph.h"

#include <string.h>

void tess_graph_adapt(tess_graph *g, const tess_adapted *table, int64_t n)
{
    g->adapted = table;
    g->n_adapted = n;
}

void tess_graph_narrow(tess_graph *g)
{
    g->narrow = true;
}

/* The leaf that w is, or is the cast of. */
static tess_value leaf_of(const tess_graph *g, tess_value w)
{
    const tess_node *n = w > 0 && (size_t)w < g->n_values ? tess__value_node(g, w) : NULL;
    w = n && n->op == &tess__op_cast ? n->in[0] : w;
    return n && tess__value_node(g, w)->op == &tess__op_state ? w : 0;
}

const tess_adapted *tess__adapted_find(const tess_graph *g, tess_value w)
{
    tess_value leaf = g->n_adapted > 0 && !g->in_backward && !g->status ? leaf_of(g, w) : 0;
    const tess_leaf_attrs *a = leaf ? tess__value_node(g, leaf)->attrs : NULL;
    if (!a || (strcmp(a->group, "param") != 0 && strcmp(a->group, "half") != 0)) {
        return NULL;
    }
    for (int64_t i = 0; i < g->n_adapted; i++) {
        if (strcmp(g->adapted[i].weight, a->name) == 0) {
            return &g->adapted[i];
        }
    }
    return NULL;
}

static tess_value low_rank_leaf(tess_graph *g, const tess_adapted *a, const char *which,
                                tess_shape shape)
{
    const char *name = tess_arena_format(&g->arena, "%s.%s", a->weight, which);
    if (!name) {
        tess__graph_fail(g, TESS_NOMEM);
        return 0;
    }
    const char *scope = g->scope;
    g->scope = ""; /* the name is a full path */
    tess_value v = tess_state(g, "lora", name, TESS_F32, shape);
    g->scope = scope;
    return v;
}

tess_value tess__adapted_sum(tess_graph *g, const tess_adapted *a, tess_value x, tess_value w,
                             tess_value residual)
{
    const tess_shape xs = tess_value_shape(g, x), ws = tess_value_shape(g, w);
    if (xs.rank < 1 || ws.rank != 2) {
        return 0; /* the product itself says what is wrong */
    }
    const int64_t in = xs.dim[xs.rank - 1], out = ws.dim[0] == in ? ws.dim[1] : ws.dim[0];
    const tess_dtype dtype = tess_value_dtype(g, x);
    tess_value down = low_rank_leaf(g, a, "lora_A", TESS_SHAPE_OF(a->rank, in));
    tess_value up = low_rank_leaf(g, a, "lora_B", TESS_SHAPE_OF(out, a->rank));
    up = a->blocks.n_blocks > 0 ? tess_blocks(g, up, &a->blocks) : up;
    tess_value h = tess_linear(g, x, tess_cast(g, down, dtype), (tess_linear_options){0});
    return tess_linear(g, h, tess_cast(g, up, dtype), (tess_linear_options){.residual = residual});
}

tess_value tess__cast_again(tess_graph *g, tess_value w)
{
    tess_value leaf = leaf_of(g, w);
    return leaf && leaf != w ? tess_cast(g, leaf, tess_value_dtype(g, w)) : w;
}
