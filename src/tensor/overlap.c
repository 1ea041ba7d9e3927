/* SPDX-License-Identifier: Apache-2.0 */
/* Communication beside computation, as a pass: graph in, graph out.
 *
 * A gather of a shard becomes two nodes, a beginning and an end, and so does a reduction of a
 * gradient.  Between them a thread of the communicator's own works (comm_lane.c); the planner sees
 * a value that is made by the beginning and taken by the end, and so keeps what is sent and what
 * arrives in place.  Beginnings of gathers move up, ends of reductions down, while what is on its
 * way stays below the cap: of a block's weights the next are gathered while the one before
 * computes.  Where one tensor alone is larger, it is begun and ended at its own place.
 *
 * Kinds, order and bytes of these nodes are the same on all ranks, so the order of collectives is.
 */
#include "tensor/overlap.h"

#include <string.h>

typedef struct pass {
    const tess_graph *from;
    tess_graph *to;
    size_t cap;
    tess_value *map;     /* old value -> new */
    tess_value *begun;   /* old value -> beginning; 0: not yet */
    int64_t *gathers;    /* node ids, in order */
    int64_t *reductions; /* begun and not ended, in order */
    int64_t n_gathers, next_gather, n_reductions, next_reduction;
    size_t gather_bytes, reduction_bytes;
} pass;

static const tess_node *node_at(const pass *p, int64_t i)
{
    return &p->from->nodes[i];
}

static tess_value copy_leaf(pass *p, const tess_node *n)
{
    const tess_leaf_attrs *a = n->attrs;
    const tess_value_info *v = &p->from->values[n->out];
    return a->group ? tess_state(p->to, a->group, a->name, v->dtype, v->shape)
                    : tess_input(p->to, a->name, v->dtype, v->shape);
}

/* A leaf is there from the start, however late the graph names it. */
static tess_value input_of(pass *p, tess_value v)
{
    const tess_node *n = v ? tess__value_node(p->from, v) : NULL;
    if (n && !p->map[v] && n->op->flags & TESS_OP_LEAF) {
        p->map[v] = copy_leaf(p, n);
    }
    return p->map[v];
}

static void begin_gather(pass *p)
{
    const tess_node *n = node_at(p, p->gathers[p->next_gather++]);
    p->to->in_backward = n->backward;
    p->begun[n->out] = tess__shard_begin(p->to, n, input_of(p, n->in[0]));
    p->to->in_backward = false;
    p->gather_bytes += tess__shard_bytes(p->from, n);
}

/* As many as there is room for; those whose shard is a leaf, which is there. */
static void begin_ahead(pass *p)
{
    while (p->next_gather < p->n_gathers) {
        const tess_node *n = node_at(p, p->gathers[p->next_gather]);
        const bool leaf = tess__value_node(p->from, n->in[0])->op->flags & TESS_OP_LEAF;
        if (!leaf || p->gather_bytes + tess__shard_bytes(p->from, n) > p->cap) {
            return;
        }
        begin_gather(p);
    }
}

static void copy_gather(pass *p, const tess_node *n)
{
    while (!p->begun[n->out]) {
        begin_gather(p);
    }
    p->to->in_backward = n->backward;
    p->map[n->out] = tess__shard_end(p->to, n, input_of(p, n->in[0]), p->begun[n->out]);
    p->to->in_backward = false;
    p->gather_bytes -= tess__shard_bytes(p->from, n);
}

static void end_reduction(pass *p)
{
    const tess_node *n = node_at(p, p->reductions[p->next_reduction++]);
    p->to->in_backward = true;
    p->map[n->out] = tess__shard_end(p->to, n, p->map[n->in[0]], p->begun[n->out]);
    p->to->in_backward = false;
    p->reduction_bytes -= tess__shard_bytes(p->from, n);
}

static void copy_reduction(pass *p, int64_t i)
{
    const tess_node *n = node_at(p, i);
    p->to->in_backward = true;
    p->begun[n->out] = tess__shard_begin(p->to, n, p->map[n->in[0]]);
    p->to->in_backward = false;
    p->reductions[p->n_reductions++] = i;
    p->reduction_bytes += tess__shard_bytes(p->from, n);
    while (p->reduction_bytes > p->cap && p->next_reduction < p->n_reductions) {
        end_reduction(p);
    }
}

static void copy_plain(pass *p, const tess_node *n)
{
    tess_value in[TESS_MAX_IN] = {0};
    for (int k = 0; k < n->n_in; k++) {
        while (n->in[k] && p->begun[n->in[k]] && !p->map[n->in[k]]) {
            end_reduction(p);
        }
        in[k] = input_of(p, n->in[k]);
    }
    p->to->in_backward = n->backward;
    const tess_value first = tess__node_copy(p->to, n, in);
    p->to->in_backward = false;
    for (int k = 0; k < n->op->n_out; k++) {
        p->map[n->out + k] = first ? first + k : 0;
    }
}

static void copy_node(pass *p, int64_t i)
{
    const tess_node *n = node_at(p, i);
    if (n->op->flags & TESS_OP_LEAF) {
        input_of(p, n->out);
    } else if (tess__shard_gathers(p->from, n)) {
        copy_gather(p, n);
        begin_ahead(p);
    } else if (tess__shard_reduces(p->from, n)) {
        copy_reduction(p, i);
    } else {
        copy_plain(p, n);
    }
}

static void find_gathers(pass *p)
{
    for (size_t i = 0; i < p->from->n_nodes; i++) {
        if (tess__shard_gathers(p->from, &p->from->nodes[i])) {
            p->gathers[p->n_gathers++] = (int64_t)i;
        }
    }
}

static tess_status run(pass *p)
{
    find_gathers(p);
    begin_ahead(p);
    for (size_t i = 0; i < p->from->n_nodes; i++) {
        copy_node(p, (int64_t)i);
        TESS_TRY(tess_graph_check(p->to));
    }
    while (p->next_reduction < p->n_reductions) {
        end_reduction(p);
    }
    return tess_graph_check(p->to);
}

tess_status tess__graph_overlap(tess_graph **g, tess_value *out, int64_t n_out, size_t cap)
{
    const tess_graph *from = *g;
    TESS_TRY(tess_graph_check(from));
    pass p = {.from = from, .to = tess_graph_new(), .cap = cap};
    p.map = tess_alloc_array(from->n_values, sizeof *p.map);
    p.begun = tess_alloc_array(from->n_values, sizeof *p.begun);
    p.gathers = tess_alloc_array(from->n_nodes + 1, sizeof *p.gathers);
    p.reductions = tess_alloc_array(from->n_nodes + 1, sizeof *p.reductions);
    tess_status st = p.to && p.map && p.begun && p.gathers && p.reductions ? run(&p) : TESS_NOMEM;
    for (int64_t i = 0; st == TESS_OK && i < n_out; i++) {
        out[i] = p.map[out[i]];
    }
    tess_free(p.map);
    tess_free(p.begun);
    tess_free(p.gathers);
    tess_free(p.reductions);
    if (st) {
        tess_graph_free(p.to);
        return st;
    }
    tess_graph_free(*g);
    *g = p.to;
    return TESS_OK;
}
