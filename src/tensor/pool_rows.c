/* SPDX-License-Identifier: Apache-2.0 */
/* The pass behind tess__graph_pool_early: a tower that is read at one row of each segment (a class
 * token, the end of a text) computes only that row behind its last attention.
 *
 * Backwards, the nodes whose every reader wants pooled rows alone; forwards, those are built on the
 * pooled rows of what they read.  Exact: such a node treats each row by itself.  In ViT-B/32 it
 * saves 3/4 of the last of twelve blocks. */
#include <string.h>

#include "tensor/graph.h"
#include "tensor/lower.h"

/* Operators that treat rows alike and alone, and which inputs are rows. */
static const struct {
    const tess_op *op;
    unsigned rows; /* bit i: input i */
} row_wise[] = {
    {&tess__op_layernorm, 1}, {&tess__op_unary, 1},  {&tess__op_scale, 1},
    {&tess__op_add, 3},       {&tess__op_linear, 9}, {&tess__op_packed_linear, 5},
    {&tess__op_project, 1},
};

typedef struct pass {
    const tess_graph *from;
    tess_graph *to;
    const tess_node *pool;
    bool *pooled;       /* by node: wanted at the pooled rows alone */
    bool *full;         /* by value: some reader wants all rows */
    tess_value *map;    /* by value */
    tess_value *picked; /* by value: its pooled rows */
} pass;

static unsigned row_inputs(const tess_node *n)
{
    for (int64_t i = 0; i < TESS_COUNT(row_wise); i++) {
        if (row_wise[i].op == n->op) {
            return row_wise[i].rows;
        }
    }
    return 0;
}

static bool wanted_in_full(const pass *p, const tess_node *n)
{
    bool full = false;
    for (int k = 0; k < n->op->n_out; k++) {
        full |= p->full[n->out + k];
    }
    return full;
}

/* Readers come after what they read, so one walk backwards decides. */
static void decide(pass *p, tess_value output)
{
    p->full[output] = true;
    for (size_t i = p->from->n_nodes; i-- > 0;) {
        const tess_node *n = &p->from->nodes[i];
        const unsigned rows = n == p->pool ? 1 : row_inputs(n);
        p->pooled[i] = n != p->pool && rows && !wanted_in_full(p, n);
        for (int k = 0; k < n->n_in; k++) {
            if (n->in[k] && !((n == p->pool || p->pooled[i]) && rows >> k & 1)) {
                p->full[n->in[k]] = true;
            }
        }
    }
}

static tess_value copy(pass *p, const tess_node *n, const tess_value *in)
{
    return tess__node_copy(p->to, n, in);
}

/* The pooled rows of v. */
static tess_value pick(pass *p, tess_value v)
{
    if (v && !p->picked[v]) {
        const tess_value in[TESS_MAX_IN] = {p->map[v], p->map[p->pool->in[1]]};
        p->picked[v] = copy(p, p->pool, in);
    }
    return p->picked[v];
}

static void copy_leaf(pass *p, const tess_node *n)
{
    const tess_leaf_attrs *a = n->attrs;
    const tess_value_info *v = &p->from->values[n->out];
    p->map[n->out] = a->group ? tess_state(p->to, a->group, a->name, v->dtype, v->shape)
                              : tess_input(p->to, a->name, v->dtype, v->shape);
}

static void copy_node(pass *p, size_t i)
{
    const tess_node *n = &p->from->nodes[i];
    if (n->op->flags & TESS_OP_LEAF) {
        copy_leaf(p, n);
        return;
    }
    if (n == p->pool) {
        p->map[n->out] = pick(p, n->in[0]);
        return;
    }
    tess_value in[TESS_MAX_IN] = {0}, *to = p->pooled[i] ? p->picked : p->map;
    for (int k = 0; k < n->n_in; k++) {
        const bool row = p->pooled[i] && row_inputs(n) >> k & 1;
        in[k] = row ? pick(p, n->in[k]) : p->map[n->in[k]];
    }
    const tess_value first = copy(p, n, in);
    for (int k = 0; k < n->op->n_out; k++) {
        to[n->out + k] = first ? first + k : 0;
    }
}

/* The only pooling to one row, or NULL. */
static const tess_node *find_pool(const tess_graph *g)
{
    const tess_node *found = NULL;
    for (size_t i = 0; i < g->n_nodes; i++) {
        const tess_node *n = &g->nodes[i];
        if (n->op == &tess__op_pool) {
            if (found || !tess__pool_is_one_row(n->attrs)) {
                return NULL;
            }
            found = n;
        }
    }
    return found;
}

static tess_status run(pass *p, tess_value output)
{
    decide(p, output);
    for (size_t i = 0; i < p->from->n_nodes; i++) {
        copy_node(p, i);
        TESS_TRY(tess_graph_check(p->to));
    }
    return TESS_OK;
}

tess_status tess__graph_pool_early(tess_graph **g, tess_value *output)
{
    const tess_graph *from = *g;
    pass p = {.from = from, .pool = find_pool(from)};
    if (!p.pool) {
        return TESS_OK;
    }
    p.to = tess_graph_new();
    p.pooled = tess_alloc_array(from->n_nodes + 1, sizeof *p.pooled);
    p.full = tess_alloc_array(from->n_values, sizeof *p.full);
    p.map = tess_alloc_array(from->n_values, sizeof *p.map);
    p.picked = tess_alloc_array(from->n_values, sizeof *p.picked);
    tess_status st = p.to && p.pooled && p.full && p.map && p.picked ? TESS_OK : TESS_NOMEM;
    st = st ? st : run(&p, *output);
    const tess_value y = st ? 0 : p.map[*output];
    tess_free(p.pooled);
    tess_free(p.full);
    tess_free(p.map);
    tess_free(p.picked);
    if (st) {
        tess_graph_free(p.to);
        return st;
    }
    tess_graph_free(*g);
    *g = p.to;
    *output = y;
    return TESS_OK;
}
