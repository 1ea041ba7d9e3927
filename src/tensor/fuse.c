/* SPDX-License-Identifier: Apache-2.0 */
/* The pass behind fuse.h: finds which nodes become one, then copies the graph.
 *
 * A fused node stands where the node does that its role is written at: forwards at the product,
 * whose inputs are its own; backwards at the later node, where all that it reads is there. */
#include "tensor/fuse.h"

#include <string.h>

#include "tensor/graph.h"
#include "tensor/plan.h"
#include "tensor/products.h"

typedef enum role {
    PLAIN,
    DROPPED,         /* another node does its work */
    LINEAR_GELU,     /* a linear; partner: the unary */
    PROJECT_GELU,    /* a unary_grad; partner: the project */
    ACTIVATION_GRAD, /* a unary_grad; partner: the bias_grad */
    OUTER_ADD,       /* an accumulate; partner: the outer */
} role;

typedef struct plan {
    role role;
    int64_t partner;
    tess_value weight, bias; /* OUTER_ADD: the states */
} plan;

typedef struct pass {
    const tess_graph *from;
    tess_graph *to;
    plan *plans;     /* by node */
    int32_t *n_uses; /* by value */
    tess_value *map; /* by value */
} pass;

static bool is(const tess_node *n, const char *op)
{
    return strcmp(n->op->name, op) == 0;
}

static const tess_node *maker(const pass *p, tess_value v)
{
    return tess__value_node(p->from, v);
}

static plan *plan_of(const pass *p, const tess_node *n)
{
    return &p->plans[n - p->from->nodes];
}

static bool is_plain(const pass *p, const tess_node *n)
{
    return plan_of(p, n)->role == PLAIN;
}

static void fuse(pass *p, const tess_node *at, role r, const tess_node *partner)
{
    *plan_of(p, at) = (plan){.role = r, .partner = partner - p->from->nodes};
    plan_of(p, partner)->role = DROPPED;
}

/* The first node of this kind that reads v as its input k, or NULL. */
static const tess_node *reader(const pass *p, tess_value v, int k, const char *op)
{
    for (size_t i = (size_t)p->from->values[v].node + 1; i < p->from->n_nodes; i++) {
        const tess_node *n = &p->from->nodes[i];
        if (k < n->n_in && n->in[k] == v && is(n, op)) {
            return n;
        }
    }
    return NULL;
}

/* ---- what fits --------------------------------------------------------------------------------
 */

/* The library's gelu is exact to what bf16 shows. */
static bool is_gelu(const pass *p, const tess_node *n)
{
    return tess__unary_kind_of(n->attrs) == TESS_GELU_TANH &&
           p->from->values[n->out].dtype == TESS_BF16;
}

static void fuse_forward(pass *p, const tess_node *n)
{
    const tess_node *x = maker(p, n->in[0]);
    if (is_gelu(p, n) && x->op == &tess__op_linear && is_plain(p, x) &&
        !tess__linear_relu(x->attrs) && (x->n_in < 4 || !x->in[3])) {
        fuse(p, x, LINEAR_GELU, n);
    }
}

static void fuse_backward(pass *p, const tess_node *n)
{
    const tess_node *dy = maker(p, n->in[1]);
    const tess_node *sum = reader(p, n->out, 0, "bias_grad");
    if (is_gelu(p, n) && dy->op == &tess__op_project && p->n_uses[n->in[1]] == 1) {
        fuse(p, n, PROJECT_GELU, dy);
    } else if (sum) {
        fuse(p, n, ACTIVATION_GRAD, sum);
    }
}

/* The value under reshapes that nothing else reads, or 0. */
static tess_value sole_root(const pass *p, tess_value v)
{
    while (p->n_uses[v] == 1 && maker(p, v)->op->flags & TESS_OP_VIEW) {
        v = maker(p, v)->in[0];
    }
    return p->n_uses[v] == 1 ? v : 0;
}

static void drop_chain(pass *p, tess_value v)
{
    for (; maker(p, v)->op->flags & TESS_OP_VIEW; v = maker(p, v)->in[0]) {
        plan_of(p, maker(p, v))->role = DROPPED;
    }
}

/* The accumulate of the sum of a's rows, if that is all that becomes of it. */
static const tess_node *bias_sum(const pass *p, tess_value a)
{
    const tess_node *sum = reader(p, a, 0, "bias_grad");
    return sum && is_plain(p, sum) && p->n_uses[sum->out] == 1
               ? reader(p, sum->out, 1, "accumulate")
               : NULL;
}

/* Whether nothing between the two could mind that one of them moves to the other. */
static bool are_neighbours(const pass *p, const tess_node *a, const tess_node *b)
{
    for (const tess_node *n = (a < b ? a : b) + 1; n < (a < b ? b : a); n++) {
        if (!is(n, "accumulate") && !(n->op->flags & (TESS_OP_LEAF | TESS_OP_VIEW))) {
            return false;
        }
    }
    (void)p;
    return true;
}

static void fuse_sum(pass *p, const tess_node *n)
{
    const tess_value root = sole_root(p, n->in[1]);
    const tess_node *outer = root ? maker(p, root) : NULL;
    const bool narrow =
        tess__operand(p->from, n->in[0]).dtype != TESS_F32; /* products add to f32 */
    if (!outer || outer->op != &tess__op_outer || narrow) {
        return;
    }
    const tess_node *bias = bias_sum(p, outer->in[0]);
    const bool both = bias && are_neighbours(p, n, bias);
    const tess_node *at = both && bias > n ? bias : n;
    drop_chain(p, n->in[1]);
    if (both) {
        plan_of(p, maker(p, bias->in[1]))->role = DROPPED;
        plan_of(p, bias)->role = DROPPED;
    }
    plan_of(p, n)->role = DROPPED;
    fuse(p, at, OUTER_ADD, outer);
    plan_of(p, at)->weight = n->in[0];
    plan_of(p, at)->bias = both ? bias->in[0] : 0;
}

static void find_all(pass *p, const tess_value *outputs, int64_t n_outputs)
{
    static const struct {
        const char *op;
        void (*fuse)(pass *p, const tess_node *n);
    } rules[] = {{"unary", fuse_forward}, {"unary_grad", fuse_backward}, {"accumulate", fuse_sum}};
    for (int64_t i = 0; i < n_outputs; i++) {
        p->n_uses[outputs[i]]++;
    }
    for (size_t i = 0; i < p->from->n_nodes; i++) {
        for (int k = 0; k < p->from->nodes[i].n_in; k++) {
            p->n_uses[p->from->nodes[i].in[k]]++;
        }
    }
    for (int64_t r = 0; r < TESS_COUNT(rules); r++) {
        for (size_t i = 0; i < p->from->n_nodes; i++) {
            const tess_node *n = &p->from->nodes[i];
            if (is(n, rules[r].op) && is_plain(p, n)) {
                rules[r].fuse(p, n);
            }
        }
    }
}

/* ---- copying ----------------------------------------------------------------------------------
 */

static void copy_plain(pass *p, const tess_node *n)
{
    tess_value in[TESS_MAX_IN] = {0};
    if (n->op->flags & TESS_OP_LEAF) {
        const tess_leaf_attrs *a = n->attrs;
        const tess_value_info *v = &p->from->values[n->out];
        p->map[n->out] = a->group ? tess_state(p->to, a->group, a->name, v->dtype, v->shape)
                                  : tess_input(p->to, a->name, v->dtype, v->shape);
        return;
    }
    for (int k = 0; k < n->n_in; k++) {
        in[k] = p->map[n->in[k]];
    }
    const tess_value first = tess__node_copy(p->to, n, in);
    for (int k = 0; k < n->op->n_out; k++) {
        p->map[n->out + k] = first ? first + k : 0;
    }
}

static void copy_fused(pass *p, const tess_node *n, const plan *f)
{
    const tess_node *other = &p->from->nodes[f->partner];
    const tess_value *map = p->map;
    tess_value v;
    switch (f->role) {
    case LINEAR_GELU:
        v = tess__linear_gelu(p->to, map[n->in[0]], map[n->in[1]], map[n->n_in > 2 ? n->in[2] : 0],
                              p->n_uses[n->out] > 1);
        p->map[other->out] = v;
        p->map[n->out] = v ? v + 1 : 0;
        break;
    case PROJECT_GELU:
        p->map[n->out] =
            tess__project_gelu_grad(p->to, map[other->in[0]], map[other->in[1]], map[n->in[0]]);
        break;
    case ACTIVATION_GRAD:
        v = tess__activation_grad(p->to, map[n->in[0]], map[n->in[1]],
                                  tess__unary_kind_of(n->attrs));
        p->map[n->out] = v;
        p->map[other->out] = v ? v + 1 : 0;
        break;
    default:
        tess__outer_add(p->to, map[f->weight], map[other->in[0]], map[other->in[1]], map[f->bias]);
    }
}

/* Under the scope and the flag of the node at which it stands. */
static tess_status copy_node(pass *p, const tess_node *n)
{
    const plan *f = plan_of(p, n);
    const char *scope = p->to->scope;
    p->to->in_backward = n->backward;
    if (f->role == PLAIN) {
        copy_plain(p, n);
    } else if (f->role != DROPPED) {
        p->to->scope = tess_arena_strndup(&p->to->arena, n->scope, strlen(n->scope));
        if (!p->to->scope) {
            p->to->scope = scope;
            return TESS_NOMEM;
        }
        copy_fused(p, n, f);
        p->to->scope = scope;
    }
    p->to->in_backward = false;
    return tess_graph_check(p->to);
}

tess_status tess__graph_fuse_all(tess_graph **g, tess_value *outputs, int64_t n_outputs)
{
    TESS_TRY(tess_graph_check(*g));
    pass p = {.from = *g, .to = tess_graph_new()};
    p.plans = tess_alloc_array((*g)->n_nodes + 1, sizeof *p.plans);
    p.n_uses = tess_alloc_array((*g)->n_values, sizeof *p.n_uses);
    p.map = tess_alloc_array((*g)->n_values, sizeof *p.map);
    tess_status st = p.to && p.plans && p.n_uses && p.map ? TESS_OK : TESS_NOMEM;
    if (st == TESS_OK) {
        find_all(&p, outputs, n_outputs);
    }
    for (size_t i = 0; i < (*g)->n_nodes && st == TESS_OK; i++) {
        st = copy_node(&p, &(*g)->nodes[i]);
    }
    for (int64_t i = 0; st == TESS_OK && i < n_outputs; i++) {
        outputs[i] = p.map[outputs[i]];
    }
    if (st == TESS_OK) {
        tess_graph_free(*g);
        *g = p.to;
    } else {
        tess_graph_free(p.to);
    }
    tess_free(p.plans);
    tess_free(p.n_uses);
    tess_free(p.map);
    return st;
}

tess_status tess__graph_fuse(tess_graph **g, tess_value *outputs, int64_t n_outputs,
                             const tess_device *device)
{
    return device && (device->remote || device->fuses) ? tess__graph_fuse_all(g, outputs, n_outputs)
                                                       : TESS_OK;
}
