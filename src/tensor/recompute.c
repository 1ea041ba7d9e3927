/* SPDX-License-Identifier: Apache-2.0 */
/* Activation recompute (Chen et al. 2016) as a pass: graph in, graph out.
 *
 * Forward values built in a recompute scope and used only there are not kept for the backward pass;
 * what leaves a scope (the output of a block) is, or one block's backward would redo all blocks
 * below it.  The new graph is a copy in which a backward node that wants a value that is not kept
 * gets a clone of its producer, placed just before that node; the clone's own inputs are cloned
 * likewise until a kept value is reached.  A clone is made once and shared by later backward uses.
 * Selective recompute keeps products as well, and clones only what one pass over memory makes.
 * What is made from a rank's shard (TESS_OP_AGAIN) is never kept, in a scope or out of one. */
#include "tensor/graph.h"

#include <string.h>

typedef struct pass {
    const tess_graph *from;
    tess_graph *to;
    tess_recompute what;
    tess_value *kept;   /* old value -> first copy */
    tess_value *redone; /* old value -> clone for the backward pass */
    bool *leaves;       /* old value: used by a forward node outside its recompute scope */
} pass;

static bool always(const tess_node *n)
{
    return (n->op->flags & TESS_OP_AGAIN) != 0;
}

static void find_leaving(pass *p)
{
    for (size_t i = 0; i < p->from->n_nodes; i++) {
        const tess_node *n = &p->from->nodes[i];
        for (int k = 0; !n->backward && k < n->n_in; k++) {
            tess_value v = n->in[k];
            p->leaves[v] |= v && tess__value_node(p->from, v)->recompute != n->recompute &&
                            !always(tess__value_node(p->from, v));
        }
    }
}

static void copy_outputs(const tess_node *n, tess_value first, tess_value *map)
{
    for (int k = 0; k < n->op->n_out; k++) {
        map[n->out + k] = first ? first + k : 0;
    }
}

static tess_value backward_input(pass *p, tess_value v);

static void redo(pass *p, const tess_node *n)
{
    tess_value in[TESS_MAX_IN] = {0};
    for (int k = 0; k < n->n_in; k++) {
        in[k] = backward_input(p, n->in[k]);
    }
    p->to->in_backward = true;
    copy_outputs(n, tess__node_copy(p->to, n, in), p->redone);
    p->to->in_backward = false;
}

static bool is_kept(const pass *p, tess_value v)
{
    const tess_node *n = tess__value_node(p->from, v);
    const bool may_go = p->what == TESS_RECOMPUTE_FULL || n->op->flags & TESS_OP_CHEAP;
    return n->backward || (!always(n) && (!n->recompute || p->leaves[v] || !may_go));
}

/* Recursion is as deep as the longest chain inside one recompute scope. */
static tess_value backward_input(pass *p, tess_value v)
{
    if (v == 0) {
        return 0;
    }
    if (is_kept(p, v)) {
        return p->kept[v];
    }
    if (!p->redone[v]) {
        redo(p, tess__value_node(p->from, v));
    }
    return p->redone[v];
}

static void copy_node(pass *p, const tess_node *n)
{
    tess_value in[TESS_MAX_IN] = {0};
    for (int k = 0; k < n->n_in; k++) {
        in[k] = n->backward ? backward_input(p, n->in[k]) : p->kept[n->in[k]];
    }
    p->to->in_backward = n->backward;
    if (n->op->flags & TESS_OP_LEAF) {
        const tess_leaf_attrs *a = n->attrs;
        const tess_value_info *v = &p->from->values[n->out];
        p->kept[n->out] = a->group ? tess_state(p->to, a->group, a->name, v->dtype, v->shape)
                                   : tess_input(p->to, a->name, v->dtype, v->shape);
    } else {
        copy_outputs(n, tess__node_copy(p->to, n, in), p->kept);
    }
    p->to->in_backward = false;
}

tess_status tess_graph_recompute(const tess_graph *g, tess_recompute what, tess_graph **out,
                                 tess_value *map)
{
    *out = NULL;
    TESS_TRY(tess_graph_check(g));
    pass p = {.from = g, .to = tess_graph_new(), .what = what};
    p.kept = tess_alloc_array(g->n_values, sizeof *p.kept);
    p.redone = tess_alloc_array(g->n_values, sizeof *p.redone);
    p.leaves = tess_alloc_array(g->n_values, sizeof *p.leaves);
    tess_status st = p.to && p.kept && p.redone && p.leaves ? TESS_OK : TESS_NOMEM;
    if (st == TESS_OK) {
        find_leaving(&p);
    }
    for (size_t i = 0; st == TESS_OK && i < g->n_nodes; i++) {
        copy_node(&p, &g->nodes[i]);
        st = tess_graph_check(p.to);
    }
    if (st == TESS_OK && map) {
        memcpy(map, p.kept, g->n_values * sizeof *map);
    }
    tess_free(p.kept);
    tess_free(p.redone);
    tess_free(p.leaves);
    if (st == TESS_OK) {
        *out = p.to;
    } else {
        tess_graph_free(p.to);
    }
    return st;
}
