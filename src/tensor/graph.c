/* SPDX-License-Identifier: Apache-2.0 */
/* The graph: an append-only list of nodes, so its order is topological by construction.
 *
 * The first error is latched: builders then return 0 and a node with an input 0 that is not
 * optional is never looked at again.  Values are ids into one table; outputs of a node are
 * consecutive. */
#include "tensor/graph.h"

#include <string.h>

/* ---- leaves -------------------------------------------------------------------------------- */

static void leaf_print(const void *attrs, tess_buf *out)
{
    const tess_leaf_attrs *a = attrs;
    if (a->group) {
        tess_buf_addf(out, "%s:", a->group);
    }
    tess_buf_adds(out, a->name);
}

const tess_op tess__op_input = {
    .name = "input",
    .n_out = 1,
    .attrs_bytes = sizeof(tess_leaf_attrs),
    .flags = TESS_OP_LEAF,
    .print = leaf_print,
};

const tess_op tess__op_state = {
    .name = "state",
    .n_out = 1,
    .attrs_bytes = sizeof(tess_leaf_attrs),
    .flags = TESS_OP_LEAF,
    .print = leaf_print,
};

/* ---- life ---------------------------------------------------------------------------------- */

tess_graph *tess_graph_new(void)
{
    tess_graph *g = tess_alloc(sizeof *g);
    if (!g) {
        return NULL;
    }
    g->scope = "";
    g->n_values = 1;
    if (tess_grow(&g->values, &g->cap_values, 64, sizeof *g->values) != TESS_OK) {
        tess_free(g);
        return NULL;
    }
    return g;
}

void tess_graph_free(tess_graph *g)
{
    if (!g) {
        return;
    }
    tess_arena_deinit(&g->arena);
    tess_free(g->nodes);
    tess_free(g->values);
    tess_free(g->scopes);
    tess_free(g->scope_recompute);
    tess_free(g->message);
    tess_free(g);
}

tess_status tess_graph_check(const tess_graph *g)
{
    if (!g) {
        return TESS_FAIL(TESS_NOMEM, "graph: out of memory");
    }
    return g->status ? TESS_FAIL(g->status, "%s", g->message ? g->message : "out of memory")
                     : TESS_OK;
}

void tess__graph_fail(tess_graph *g, tess_status code)
{
    if (g->status) {
        return;
    }
    g->status = code;
    g->message = tess_format("%s: %s", g->scope[0] ? g->scope : "graph", tess_error());
}

/* ---- scopes -------------------------------------------------------------------------------- */

void tess_scope_push(tess_graph *g, const char *fmt, ...)
{
    char name[256];
    va_list va;
    va_start(va, fmt);
    vsnprintf(name, sizeof name, fmt, va);
    va_end(va);
    if (tess_grow(&g->scopes, &g->cap_scopes, g->n_scopes + 1, sizeof *g->scopes) ||
        tess_grow(&g->scope_recompute, &g->cap_recompute, g->n_scopes + 1, sizeof(bool))) {
        tess__graph_fail(g, TESS_NOMEM);
        return;
    }
    g->scopes[g->n_scopes] = g->scope;
    g->scope_recompute[g->n_scopes++] = false;
    const char *joined =
        tess_arena_format(&g->arena, "%s%s%s", g->scope, g->scope[0] && name[0] ? "." : "", name);
    if (joined) {
        g->scope = joined;
    } else {
        tess__graph_fail(g, TESS_NOMEM);
    }
}

void tess_scope_pop(tess_graph *g)
{
    if (g->n_scopes == 0) {
        return;
    }
    g->n_scopes--;
    g->scope = g->scopes[g->n_scopes];
    g->n_recompute -= g->scope_recompute[g->n_scopes];
}

void tess_scope_recompute(tess_graph *g)
{
    if (g->n_scopes > 0 && !g->scope_recompute[g->n_scopes - 1]) {
        g->scope_recompute[g->n_scopes - 1] = true;
        g->recompute_scope += g->n_recompute == 0;
        g->n_recompute++;
    }
}

/* ---- values -------------------------------------------------------------------------------- */

tess_operand tess__operand(const tess_graph *g, tess_value v)
{
    if (v <= 0 || (size_t)v >= g->n_values) {
        return (tess_operand){.shape = {.rank = -1}};
    }
    return (tess_operand){.dtype = g->values[v].dtype, .shape = g->values[v].shape};
}

tess_dtype tess_value_dtype(const tess_graph *g, tess_value v)
{
    return tess__operand(g, v).dtype;
}

tess_shape tess_value_shape(const tess_graph *g, tess_value v)
{
    return tess__operand(g, v).shape;
}

int64_t tess_graph_n_values(const tess_graph *g)
{
    return (int64_t)g->n_values;
}

const char *tess_value_name(const tess_graph *g, tess_value v)
{
    if (v <= 0 || (size_t)v >= g->n_values) {
        return "no value";
    }
    const tess_node *n = tess__value_node(g, v);
    return n->op->flags & TESS_OP_LEAF ? ((const tess_leaf_attrs *)n->attrs)->name : n->scope;
}

void tess_shape_require(tess_graph *g, tess_value v, tess_shape shape)
{
    if (g->status) {
        return;
    }
    tess_operand have = tess__operand(g, v);
    tess_operand want = {.dtype = have.dtype, .shape = shape};
    tess_status st = tess__expect_like(tess_value_name(g, v), &have, &want);
    if (st) {
        tess__graph_fail(g, st);
    }
}

/* ---- nodes --------------------------------------------------------------------------------- */

/* Room for one node and its outputs; 0 output ids when the graph has failed. */
static tess_node *append(tess_graph *g, const tess_op *op, const void *attrs, const char *scope)
{
    void *copy = NULL;
    if (tess_grow(&g->nodes, &g->cap_nodes, g->n_nodes + 1, sizeof *g->nodes) ||
        tess_grow(&g->values, &g->cap_values, g->n_values + TESS_MAX_OUT, sizeof *g->values) ||
        (op->attrs_bytes && !(copy = tess_arena_alloc(&g->arena, op->attrs_bytes)))) {
        tess__graph_fail(g, TESS_NOMEM);
        return NULL;
    }
    if (copy) {
        memcpy(copy, attrs, op->attrs_bytes);
    }
    tess_node *n = &g->nodes[g->n_nodes];
    *n = (tess_node){.op = op,
                     .attrs = copy,
                     .scope = scope,
                     .out = op->n_out ? (tess_value)g->n_values : 0,
                     .backward = g->in_backward,
                     .recompute = g->n_recompute > 0 && !g->in_backward ? g->recompute_scope : 0};
    return n;
}

static void finish(tess_graph *g, tess_node *n, const tess_operand *out)
{
    for (int k = 0; k < n->op->n_out; k++) {
        g->values[g->n_values++] = (tess_value_info){
            .node = (int64_t)g->n_nodes, .slot = k, .dtype = out[k].dtype, .shape = out[k].shape};
    }
    g->n_nodes++;
}

static tess_status infer(const tess_graph *g, const tess_op *op, const void *attrs,
                         const tess_value *in, int n_in, tess_operand *out)
{
    tess_operand operands[TESS_MAX_IN];
    if (n_in < op->n_in_min || n_in > op->n_in_max) {
        return TESS_FAIL(TESS_INVALID, "%s: expected %d to %d inputs, found %d", op->name,
                         op->n_in_min, op->n_in_max, n_in);
    }
    for (int i = 0; i < n_in; i++) {
        operands[i] = tess__operand(g, in[i]);
        if (operands[i].shape.rank < 0 && (i < op->n_in_min || in[i])) {
            return TESS_FAIL(TESS_INVALID, "%s: input %d is missing", op->name, i);
        }
    }
    tess_infer c = {.in = operands, .n_in = n_in, .attrs = attrs, .out = out};
    tess_status st = op->infer(&c);
    return st ? tess_error_prefix(st, "%s", op->name) : TESS_OK;
}

tess_value tess__node_add(tess_graph *g, const tess_op *op, const void *attrs, const tess_value *in,
                          int n_in)
{
    if (g->status) {
        return 0;
    }
    tess_operand out[TESS_MAX_OUT] = {0};
    tess_status st = infer(g, op, attrs, in, n_in, out);
    if (st) {
        tess__graph_fail(g, st);
        return 0;
    }
    tess_node *n = append(g, op, attrs, g->scope);
    if (!n) {
        return 0;
    }
    n->n_in = n_in;
    for (int i = 0; i < n_in; i++) {
        n->in[i] = in[i];
    }
    tess_value first = n->out;
    finish(g, n, out);
    return first;
}

tess_value tess__node_copy(tess_graph *g, const tess_node *like, const tess_value *in)
{
    const char *scope = g->scope;
    char *copy = tess_arena_strndup(&g->arena, like->scope, strlen(like->scope));
    if (!copy) {
        tess__graph_fail(g, TESS_NOMEM);
        return 0;
    }
    g->scope = copy;
    tess_value v = tess__node_add(g, like->op, like->attrs, in, like->n_in);
    g->scope = scope;
    return v;
}

static tess_value leaf(tess_graph *g, const tess_op *op, const char *group, const char *name,
                       tess_dtype dtype, tess_shape shape)
{
    if (g->status) {
        return 0;
    }
    const char *dot = g->scope[0] && name[0] ? "." : "";
    tess_leaf_attrs a = {
        .group = group ? tess_arena_strndup(&g->arena, group, strlen(group)) : NULL,
        .name =
            tess_arena_format(&g->arena, "%s%s%s", group ? g->scope : "", group ? dot : "", name),
    };
    tess_node *n = a.name ? append(g, op, &a, g->scope) : NULL;
    if (!n) {
        tess__graph_fail(g, TESS_NOMEM);
        return 0;
    }
    tess_value v = n->out;
    n->recompute = 0;
    finish(g, n, &(tess_operand){.dtype = dtype, .shape = shape});
    return v;
}

tess_value tess_input(tess_graph *g, const char *name, tess_dtype dtype, tess_shape shape)
{
    return leaf(g, &tess__op_input, NULL, name, dtype, shape);
}

/* The leaf of this group and path when there is one: a state is one value, however often it is
 * asked for. */
static tess_value find_state(const tess_graph *g, const char *group, const char *name)
{
    const char *scope = g->scope, *dot = scope[0] && name[0] ? "." : "";
    size_t n_scope = strlen(scope), n_dot = strlen(dot);
    for (size_t i = 0; i < g->n_nodes; i++) {
        const tess_node *n = &g->nodes[i];
        const tess_leaf_attrs *a = n->op == &tess__op_state ? n->attrs : NULL;
        if (a && strcmp(a->group, group) == 0 && strncmp(a->name, scope, n_scope) == 0 &&
            strncmp(a->name + n_scope, dot, n_dot) == 0 &&
            strcmp(a->name + n_scope + n_dot, name) == 0) {
            return n->out;
        }
    }
    return 0;
}

tess_value tess_state(tess_graph *g, const char *group, const char *name, tess_dtype dtype,
                      tess_shape shape)
{
    tess_value old = g->status ? 0 : find_state(g, group, name);
    if (old) {
        tess_operand have = tess__operand(g, old), want = {.dtype = dtype, .shape = shape};
        tess_status st = tess__expect_like(tess_value_name(g, old), &want, &have);
        if (st) {
            tess__graph_fail(g, st);
            return 0;
        }
        return old;
    }
    return leaf(g, &tess__op_state, group, name, dtype, shape);
}

/* ---- looking ------------------------------------------------------------------------------- */

tess_value tess_graph_find(const tess_graph *g, const char *name)
{
    for (size_t i = 0; i < g->n_nodes; i++) {
        const tess_node *n = &g->nodes[i];
        if (n->op->flags & TESS_OP_LEAF &&
            strcmp(((const tess_leaf_attrs *)n->attrs)->name, name) == 0) {
            return n->out;
        }
    }
    return 0;
}

int64_t tess_graph_states(const tess_graph *g, const char *group, tess_value *out, int64_t max)
{
    int64_t found = 0;
    for (size_t i = 0; i < g->n_nodes; i++) {
        const tess_node *n = &g->nodes[i];
        if (n->op == &tess__op_state &&
            strcmp(((const tess_leaf_attrs *)n->attrs)->group, group) == 0) {
            if (found < max) {
                out[found] = n->out;
            }
            found++;
        }
    }
    return found;
}

static void print_node(const tess_graph *g, const tess_node *n, tess_buf *out)
{
    if (n->out) {
        tess_buf_addf(out, "%%%d = ", n->out);
    }
    tess_buf_adds(out, n->op->name);
    for (int i = 0; i < n->n_in; i++) {
        tess_buf_addf(out, n->in[i] ? "%s%%%d" : "%s-", i ? ", " : " ", n->in[i]);
    }
    if (n->op->print) {
        tess_buf_adds(out, " {");
        n->op->print(n->attrs, out);
        tess_buf_adds(out, "}");
    }
    for (int k = 0; k < n->op->n_out; k++) {
        const tess_value_info *v = &g->values[n->out + k];
        tess_buf_addf(out, "%s%s ", k ? ", " : " -> ", tess_dtype_name(v->dtype));
        tess_shape_print(&v->shape, out);
    }
    tess_buf_addf(out, "%s%s%s%s\n", n->scope[0] ? " @" : "", n->scope,
                  n->backward ? " backward" : "", n->recompute ? " recompute" : "");
}

void tess_graph_print(const tess_graph *g, tess_buf *out)
{
    for (size_t i = 0; i < g->n_nodes; i++) {
        print_node(g, &g->nodes[i], out);
    }
}
