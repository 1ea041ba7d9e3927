/* SPDX-License-Identifier: Apache-2.0 */
/* Reverse-mode differentiation: one walk from the last node to the first over the operators' rules.
 *
 * A node takes part when one of its outputs has a cotangent and one of its inputs leads back to a
 * wanted leaf; so a frozen tower costs nothing.  Contributions to one value are summed with
 * ordinary add nodes, or by the rule that makes the next one. */
#include "tensor/graph.h"

#include <string.h>

typedef struct walk {
    tess_graph *g;
    bool *need;            /* by value: leads back to a wrt */
    tess_value *cotangent; /* by value */
    size_t n_values;       /* values that existed before the walk */
} walk;

static void mark_needed(walk *w, const tess_value *wrt, int64_t n_wrt)
{
    for (int64_t i = 0; i < n_wrt; i++) {
        w->need[wrt[i]] = true;
    }
    for (size_t i = 0; i < w->g->n_nodes; i++) {
        const tess_node *n = &w->g->nodes[i];
        bool any = false;
        for (int k = 0; k < n->n_in; k++) {
            any |= n->in[k] && w->need[n->in[k]];
        }
        for (int k = 0; any && k < n->op->n_out; k++) {
            w->need[n->out + k] = true;
        }
    }
}

static void contribute(walk *w, tess_value to, tess_value d)
{
    if (d && w->cotangent[to]) {
        d = tess_add(w->g, w->cotangent[to], d);
    }
    if (d) {
        w->cotangent[to] = d;
    }
}

static tess_status differentiate(walk *w, const tess_node *n)
{
    bool need[TESS_MAX_IN] = {0}, any_need = false, any_cotangent = false;
    tess_value dout[TESS_MAX_OUT] = {0}, out[TESS_MAX_OUT] = {0}, din[TESS_MAX_IN] = {0};
    tess_value sum[TESS_MAX_IN] = {0};
    for (int k = 0; k < n->n_in; k++) {
        need[k] = n->in[k] && w->need[n->in[k]];
        any_need |= need[k];
        sum[k] = need[k] ? w->cotangent[n->in[k]] : 0;
    }
    for (int k = 0; k < n->op->n_out; k++) {
        out[k] = n->out + k;
        dout[k] = w->cotangent[out[k]];
        any_cotangent |= dout[k] != 0;
    }
    if (!any_need || !any_cotangent) {
        return TESS_OK;
    }
    if (!n->op->vjp) {
        return TESS_FAIL(TESS_UNSUPPORTED, "%s: operator %s has no gradient", n->scope,
                         n->op->name);
    }
    /* The rule may grow the node array: n is a copy, see tess_graph_grad. */
    w->g->scope = n->scope;
    n->op->vjp(&(tess_vjp){.g = w->g,
                           .in = n->in,
                           .out = out,
                           .dout = dout,
                           .need = need,
                           .n_in = n->n_in,
                           .attrs = n->attrs,
                           .din = din,
                           .sum = sum});
    for (int k = 0; k < n->n_in; k++) {
        if (need[k] && !sum[k]) {
            w->cotangent[n->in[k]] = 0;
        }
    }
    for (int k = 0; k < n->n_in; k++) {
        if (need[k]) {
            contribute(w, n->in[k], din[k]);
        }
    }
    return tess_graph_check(w->g);
}

static tess_status seed(walk *w, const tess_value *y, const tess_value *dy, int64_t n_y)
{
    for (int64_t i = 0; i < n_y; i++) {
        const tess_operand value = tess__operand(w->g, y[i]);
        tess_value d = dy ? dy[i] : 0;
        if (d) {
            const tess_operand given = tess__operand(w->g, d);
            TESS_TRY(tess__expect_like("cotangent", &given, &value));
        } else if (tess_shape_count(&value.shape) != 1) {
            return TESS_FAIL(TESS_INVALID, "gradient of %s: it is no scalar, so give a cotangent",
                             tess_value_name(w->g, y[i]));
        }
        contribute(w, y[i], d ? d : tess__fill(w->g, value.dtype, value.shape, 1.0f));
    }
    return tess_graph_check(w->g);
}

static tess_status walk_back(walk *w, size_t n_nodes)
{
    for (size_t i = n_nodes; i-- > 0;) {
        tess_node n = w->g->nodes[i];
        TESS_TRY(differentiate(w, &n));
    }
    return TESS_OK;
}

static tess_status check_values(const tess_graph *g, const char *what, const tess_value *v,
                                int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (v[i] <= 0 || (size_t)v[i] >= g->n_values) {
            return TESS_FAIL(TESS_INVALID, "gradient: %s %lld is no value of the graph", what,
                             (long long)i);
        }
    }
    return TESS_OK;
}

tess_status tess_graph_grad(tess_graph *g, const tess_value *y, const tess_value *dy, int64_t n_y,
                            const tess_value *wrt, int64_t n_wrt, tess_value *out)
{
    TESS_TRY(tess_graph_check(g));
    TESS_TRY(check_values(g, "y", y, n_y));
    TESS_TRY(check_values(g, "wrt", wrt, n_wrt));
    size_t n_nodes = g->n_nodes;
    walk w = {.g = g, .n_values = g->n_values};
    w.need = tess_alloc_array(w.n_values, sizeof *w.need);
    w.cotangent = tess_alloc_array(w.n_values, sizeof *w.cotangent);
    tess_status st = w.need && w.cotangent ? TESS_OK : TESS_NOMEM;
    const char *scope = g->scope;
    if (st == TESS_OK) {
        g->in_backward = true;
        mark_needed(&w, wrt, n_wrt);
        st = seed(&w, y, dy, n_y);
        st = st ? st : walk_back(&w, n_nodes);
        g->in_backward = false;
        g->scope = scope;
    }
    for (int64_t i = 0; st == TESS_OK && i < n_wrt; i++) {
        out[i] = w.cotangent[wrt[i]];
    }
    tess_free(w.need);
    tess_free(w.cotangent);
    return st;
}
