/* SPDX-License-Identifier: Apache-2.0 */
/* The pass behind lower.h: backwards, what is needed; then forwards, a copy of it.
 *
 * A parameter that one product reads packed and something else reads as it is (tied embeddings)
 * stays a state as well. */
#include "tensor/lower.h"

#include <string.h>

#include "tensor/graph.h"
#include "tensor/products.h"

typedef struct pass {
    const tess_graph *from;
    tess_graph *to;
    const tess_packed **packed; /* by node, NULL: stays */
    bool *wanted;               /* by node */
    int32_t *n_uses;            /* by value */
    tess_value *map;            /* by value */
} pass;

static bool has_weights(const tess_node *n)
{
    return n->op == &tess__op_linear || n->op == &tess__op_project;
}

/* The parameter under casts and reshapes, or NULL. */
static const char *parameter(const tess_graph *g, tess_value v)
{
    const tess_node *n = tess__value_node(g, v);
    while (n->op == &tess__op_cast || n->op == &tess__op_reshape) {
        n = tess__value_node(g, n->in[0]);
    }
    const tess_leaf_attrs *a = n->op == &tess__op_state ? n->attrs : NULL;
    return a && strcmp(a->group, "param") == 0 && a->name[0] ? a->name : NULL;
}

static tess_status find_packed(pass *p, size_t i, tess_find_packed *find, void *ctx)
{
    const tess_node *n = &p->from->nodes[i];
    const char *name = has_weights(n) ? parameter(p->from, n->in[1]) : NULL;
    if (!name) {
        return TESS_OK;
    }
    const tess_shape *w = &p->from->values[n->in[1]].shape;
    const bool transposed = n->op == &tess__op_project;
    const tess_product product = {
        .name = name, .n = w->dim[transposed], .k = w->dim[!transposed], .transposed = transposed};
    const tess_status st = find(ctx, &product, &p->packed[i]);
    return st ? tess_error_prefix(st, "%s", name) : TESS_OK;
}

/* Marks what node i reads. */
static void want_inputs(pass *p, size_t i)
{
    const tess_node *n = &p->from->nodes[i];
    for (int k = 0; k < n->n_in; k++) {
        if (n->in[k] && !(p->packed[i] && k == 1)) {
            p->wanted[p->from->values[n->in[k]].node] = true;
            p->n_uses[n->in[k]]++;
        }
    }
}

/* The node whose packed product this activation can be a part of, or -1. */
static int64_t activated(const pass *p, const tess_node *n)
{
    if (n->op != &tess__op_unary || p->n_uses[n->in[0]] != 1) {
        return -1;
    }
    const int64_t i = p->from->values[n->in[0]].node;
    const tess_node *x = &p->from->nodes[i];
    const bool plain = x->op == &tess__op_project || (!tess__linear_relu(x->attrs) && !x->in[3]);
    return p->packed[i] && plain ? i : -1;
}

/* The packed product of node i, under its scope. */
static tess_value add_packed(pass *p, int64_t i, tess_unary_kind act)
{
    const tess_node *n = &p->from->nodes[i];
    const bool linear = n->op == &tess__op_linear;
    const bool relu = linear && tess__linear_relu(n->attrs);
    const tess_packed_options o = {.bias = linear ? p->map[n->in[2]] : 0,
                                   .residual = linear ? p->map[n->in[3]] : 0,
                                   .act = relu ? TESS_RELU : act};
    const char *scope = p->to->scope;
    p->to->scope = tess_arena_strndup(&p->to->arena, n->scope, strlen(n->scope));
    if (!p->to->scope) {
        p->to->scope = scope;
        tess__graph_fail(p->to, TESS_NOMEM);
        return 0;
    }
    const tess_value y = tess__packed_linear(p->to, p->map[n->in[0]], p->packed[i], o);
    p->to->scope = scope;
    return y;
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
    const int64_t product = activated(p, n);
    if (product >= 0) {
        p->map[n->out] = add_packed(p, product, tess__unary_kind_of(n->attrs));
        return;
    }
    if (p->packed[i]) {
        p->map[n->out] = add_packed(p, (int64_t)i, TESS_UNARY_COUNT);
        return;
    }
    tess_value in[TESS_MAX_IN] = {0};
    for (int k = 0; k < n->n_in; k++) {
        in[k] = p->map[n->in[k]];
    }
    const tess_value first = tess__node_copy(p->to, n, in);
    for (int k = 0; k < n->op->n_out; k++) {
        p->map[n->out + k] = first ? first + k : 0;
    }
}

/* A product that its activation takes along is no node of its own. */
static void drop_activated(pass *p)
{
    for (size_t i = 0; i < p->from->n_nodes; i++) {
        const int64_t product = p->wanted[i] ? activated(p, &p->from->nodes[i]) : -1;
        if (product >= 0) {
            p->wanted[product] = false;
        }
    }
}

static tess_status run(pass *p, tess_value output, tess_find_packed *find, void *ctx)
{
    p->wanted[p->from->values[output].node] = true;
    p->n_uses[output]++;
    for (size_t i = p->from->n_nodes; i-- > 0;) {
        if (p->wanted[i]) {
            TESS_TRY(find_packed(p, i, find, ctx));
            want_inputs(p, i);
        }
    }
    drop_activated(p);
    for (size_t i = 0; i < p->from->n_nodes; i++) {
        if (p->wanted[i]) {
            copy_node(p, i);
            TESS_TRY(tess_graph_check(p->to));
        }
    }
    return TESS_OK;
}

tess_status tess__graph_lower(const tess_graph *g, tess_value output, tess_find_packed *find,
                              void *ctx, tess_graph **out, tess_value *out_value)
{
    *out = NULL;
    TESS_TRY(tess_graph_check(g));
    pass p = {.from = g, .to = tess_graph_new()};
    p.packed = tess_alloc_array(g->n_nodes + 1, sizeof *p.packed);
    p.wanted = tess_alloc_array(g->n_nodes + 1, sizeof *p.wanted);
    p.n_uses = tess_alloc_array(g->n_values, sizeof *p.n_uses);
    p.map = tess_alloc_array(g->n_values, sizeof *p.map);
    tess_status st = p.to && p.packed && p.wanted && p.n_uses && p.map ? TESS_OK : TESS_NOMEM;
    st = st ? st : run(&p, output, find, ctx);
    *out_value = st ? 0 : p.map[output];
    tess_free(p.packed);
    tess_free(p.wanted);
    tess_free(p.n_uses);
    tess_free(p.map);
    if (st) {
        tess_graph_free(p.to);
    } else {
        *out = p.to;
    }
    return st;
}
