/* SPDX-License-Identifier: Apache-2.0 */
/* The planner: which nodes run, in which order, and where every value lives.
 *
 *   1. mark    what the outputs and the effects need;
 *   2. order   the graph's own order, except that an effect (a gradient's accumulation) runs as
 *              soon as what it reads is ready, so that its inputs do not live to the end;
 *   3. share   views take their source's buffer; an operator that may work in place takes the
 *              buffer of an input that dies in this step;
 *   4. place   see plan_place.c;
 *   5. check   see plan_check.c.
 * No allocation happens after this. */
#include "tensor/plan.h"

#include <limits.h>
#include <string.h>

typedef struct builder {
    const tess_graph *g;
    tess_plan *p;
    tess_store *store;
    bool *wanted;   /* by node */
    int64_t *order; /* node ids */
    int64_t n_order;
    int64_t *last_use; /* by buffer-less value: step of its last use; INT64_MAX for outputs */
} builder;

/* ---- 1. mark ------------------------------------------------------------------------------- */

static void mark(builder *b, const tess_value *outputs, int64_t n_outputs)
{
    const tess_graph *g = b->g;
    for (int64_t i = 0; i < n_outputs; i++) {
        b->wanted[g->values[outputs[i]].node] = true;
    }
    for (size_t i = g->n_nodes; i-- > 0;) {
        const tess_node *n = &g->nodes[i];
        b->wanted[i] |= (n->op->flags & TESS_OP_EFFECT) != 0;
        for (int k = 0; b->wanted[i] && k < n->n_in; k++) {
            if (n->in[k]) {
                b->wanted[g->values[n->in[k]].node] = true;
            }
        }
    }
}

/* ---- 2. order ------------------------------------------------------------------------------ */

static tess_value view_root(const tess_graph *g, tess_value v)
{
    while (v && tess__value_node(g, v)->op->flags & TESS_OP_VIEW) {
        v = tess__value_node(g, v)->in[0];
    }
    return v;
}

static const tess_leaf_attrs *state_of(const tess_graph *g, tess_value v)
{
    v = view_root(g, v);
    const tess_node *n = v ? tess__value_node(g, v) : NULL;
    return n && n->op == &tess__op_state ? n->attrs : NULL;
}

/* True when both are in the same memory of the store; the empty name is the whole group. */
static bool share_state(const tess_leaf_attrs *a, const tess_leaf_attrs *b)
{
    return strcmp(a->group, b->group) == 0 &&
           (!a->name[0] || !b->name[0] || strcmp(a->name, b->name) == 0);
}

/* `writer` writes a state that `other` reads or writes. */
static bool writes_what(const tess_graph *g, const tess_node *writer, const tess_node *other)
{
    for (int j = 0; j < writer->n_in; j++) {
        const tess_leaf_attrs *w =
            writer->op->state_mask >> j & 1 ? state_of(g, writer->in[j]) : NULL;
        for (int k = 0; w && k < other->n_in; k++) {
            const tess_leaf_attrs *o = state_of(g, other->in[k]);
            if (o && share_state(w, o)) {
                return true;
            }
        }
    }
    return false;
}

/* The last wanted node before `effect` that makes an input or must not change places with it. */
static int64_t ready_after(const builder *b, int64_t effect)
{
    const tess_graph *g = b->g;
    const tess_node *e = &g->nodes[effect];
    int64_t after = 0;
    for (int k = 0; k < e->n_in; k++) {
        /* A leaf is there from the start, however late the graph names it. */
        bool computed = e->in[k] && !(tess__value_node(g, e->in[k])->op->flags & TESS_OP_LEAF);
        int64_t made = computed ? g->values[e->in[k]].node : 0;
        after = made > after ? made : after;
    }
    for (int64_t i = after + 1; i < effect; i++) {
        const tess_node *n = &g->nodes[i];
        if (b->wanted[i] && (writes_what(g, e, n) || writes_what(g, n, e))) {
            after = i;
        }
    }
    return after;
}

static tess_status order(builder *b)
{
    const tess_graph *g = b->g;
    int64_t *after = tess_alloc_array(g->n_nodes + 1, sizeof *after);
    if (!after) {
        return TESS_NOMEM;
    }
    for (size_t i = 0; i < g->n_nodes; i++) {
        bool effect = g->nodes[i].op->flags & TESS_OP_EFFECT;
        after[i] = effect ? ready_after(b, (int64_t)i) : (int64_t)i - 1;
    }
    for (size_t i = 0; i < g->n_nodes; i++) {
        if (b->wanted[i] && !(g->nodes[i].op->flags & (TESS_OP_LEAF | TESS_OP_EFFECT))) {
            b->order[b->n_order++] = (int64_t)i;
        }
        /* Effects that waited for node i, in the graph's order. */
        for (size_t e = i + 1; e < g->n_nodes; e++) {
            if (g->nodes[e].op->flags & TESS_OP_EFFECT && after[e] == (int64_t)i) {
                b->order[b->n_order++] = (int64_t)e;
            }
        }
    }
    tess_free(after);
    return TESS_OK;
}

/* ---- 3. share ------------------------------------------------------------------------------ */

static size_t operand_bytes(const tess_operand *x)
{
    return (size_t)tess_shape_count(&x->shape) * tess_dtype_bytes(x->dtype);
}

static int32_t new_buffer(builder *b, tess_place place, size_t n_bytes, int64_t step)
{
    tess_plan *p = b->p;
    p->buffers[p->n_buffers] =
        (tess_buffer){.place = place, .n_bytes = n_bytes, .first = step, .last = step};
    return (int32_t)p->n_buffers++;
}

static tess_status leaf_buffer(builder *b, const tess_node *n)
{
    tess_plan *p = b->p;
    const tess_leaf_attrs *a = n->attrs;
    tess_operand x = tess__operand(b->g, n->out);
    int32_t id =
        new_buffer(b, a->group ? TESS_PLACE_STATE : TESS_PLACE_INPUT, operand_bytes(&x), -1);
    tess_buffer *buffer = &p->buffers[id];
    buffer->last = INT64_MAX;
    p->buffer_of[n->out] = id;
    if (!a->group) {
        buffer->name = tess_arena_strndup(&p->arena, a->name, strlen(a->name));
        return buffer->name ? TESS_OK : TESS_NOMEM;
    }
    tess_shape shape = {.rank = 1};
    buffer->data = a->name[0] ? tess__store_leaf(b->store, a->group, a->name, &shape)
                              : tess_store_group(b->store, a->group, &shape.dim[0]);
    if (!buffer->data) {
        return TESS_FAIL(TESS_INVALID, "plan: the store has no state %s:%s", a->group, a->name);
    }
    tess_operand have = {.dtype = tess_store_dtype(b->store, a->group), .shape = shape};
    return tess__expect_like(a->name[0] ? a->name : a->group, &have, &x);
}

static void find_last_uses(builder *b, const tess_value *outputs, int64_t n_outputs)
{
    for (size_t v = 0; v < b->g->n_values; v++) {
        b->last_use[v] = -1;
    }
    for (int64_t s = 0; s < b->n_order; s++) {
        const tess_node *n = &b->g->nodes[b->order[s]];
        for (int k = 0; k < n->n_in; k++) {
            b->last_use[n->in[k]] = s;
        }
    }
    for (int64_t i = 0; i < n_outputs; i++) {
        b->last_use[outputs[i]] = INT64_MAX;
    }
}

/* The buffer of an input that this step may overwrite with output 0, or -1.  The buffer's own last
 * use counts, since views share it: it is extended when a view is made, and no step before that one
 * was the last to read the source. */
static int32_t reusable(const builder *b, const tess_node *n, int64_t s, size_t n_bytes)
{
    const tess_plan *p = b->p;
    for (int k = 0; k < n->n_in; k++) {
        if (!(n->op->alias_mask >> k & 1) || !n->in[k]) {
            continue;
        }
        int32_t id = p->buffer_of[n->in[k]];
        const tess_buffer *buffer = &p->buffers[id];
        bool twice = false;
        for (int j = 0; j < n->n_in; j++) {
            twice |= j != k && n->in[j] && p->buffer_of[n->in[j]] == id;
        }
        if (buffer->place == TESS_PLACE_ARENA && buffer->last == s && buffer->n_bytes == n_bytes &&
            !twice) {
            return id;
        }
    }
    return -1;
}

static void assign_outputs(builder *b, const tess_node *n, int64_t s)
{
    tess_plan *p = b->p;
    for (int k = 0; k < n->op->n_out; k++) {
        tess_value v = n->out + k;
        tess_operand x = tess__operand(b->g, v);
        int32_t id = -1;
        if (k == 0 && n->op->flags & TESS_OP_VIEW) {
            id = p->buffer_of[n->in[0]];
        } else if (k == 0) {
            id = reusable(b, n, s, operand_bytes(&x));
        }
        if (id < 0) {
            id = new_buffer(b, TESS_PLACE_ARENA, operand_bytes(&x), s);
        }
        p->buffer_of[v] = id;
        int64_t last = b->last_use[v] < s ? s : b->last_use[v];
        if (p->buffers[id].last < last) {
            p->buffers[id].last = last;
        }
    }
}

static tess_status assign_buffers(builder *b)
{
    const tess_graph *g = b->g;
    for (size_t i = 0; i < g->n_nodes; i++) {
        if (b->wanted[i] && g->nodes[i].op->flags & TESS_OP_LEAF) {
            TESS_TRY(leaf_buffer(b, &g->nodes[i]));
        }
    }
    for (int64_t s = 0; s < b->n_order; s++) {
        assign_outputs(b, &g->nodes[b->order[s]], s);
    }
    return TESS_OK;
}

/* ---- steps --------------------------------------------------------------------------------- */

/* The same of a card that need not be there: of attention that is what only the card can say, whose
 * kernels are chosen by trying them; what no kernel does yet has no scratch. */
static tess_status describe_remote(tess_step *st)
{
    const bool asks = strncmp(st->op->name, "sdpa", 4) == 0;
    const tess_cuda_op *op = asks ? NULL : tess__cuda_find(st->op);
    const tess_prepare c = {.in = st->in, .out = st->out, .n_in = st->n_in, .attrs = st->attrs};
    st->scratch_bytes = op && op->scratch ? op->scratch(&c) : 0;
    return TESS_OK;
}

static tess_status prepare(tess_step *st)
{
    if (!st->op->prepare) {
        return TESS_OK;
    }
    tess_prepare c = {.in = st->in, .out = st->out, .n_in = st->n_in, .attrs = st->attrs};
    tess_status code = st->op->prepare(&c);
    st->prepared = c.prepared;
    st->scratch_bytes = c.scratch_bytes;
    return code ? tess_error_prefix(code, "%s: %s", st->scope, st->op->name) : TESS_OK;
}

/* What the step's operator needs on a device that runs its own kernels. */
static tess_status prepare_remote(tess_step *st)
{
    const tess_cuda_op *op = tess__cuda_find(st->op);
    if (!op && st->op->flags & TESS_OP_MEETS) {
        return prepare(st);
    }
    if (!op && !(st->op->flags & TESS_OP_VIEW)) {
        return TESS_FAIL(TESS_UNSUPPORTED, "%s: no %s on a CUDA device yet: use --device cpu",
                         st->scope, st->op->name);
    }
    const tess_prepare c = {.in = st->in, .out = st->out, .n_in = st->n_in, .attrs = st->attrs};
    st->cuda = op;
    st->scratch_bytes = op && op->scratch ? op->scratch(&c) : 0;
    return TESS_OK;
}

static tess_status make_step(builder *b, const tess_node *n, tess_step *st)
{
    tess_plan *p = b->p;
    *st = (tess_step){.op = n->op, .n_in = n->n_in};
    st->scope = tess_arena_strndup(&p->arena, n->scope, strlen(n->scope));
    void *attrs = n->op->attrs_bytes ? tess_arena_alloc(&p->arena, n->op->attrs_bytes) : NULL;
    if (!st->scope || (n->op->attrs_bytes && !attrs)) {
        return TESS_NOMEM;
    }
    if (attrs) {
        memcpy(attrs, n->attrs, n->op->attrs_bytes);
    }
    st->attrs = attrs;
    for (int k = 0; k < n->n_in; k++) {
        st->in_value[k] = n->in[k];
        st->in[k] = tess__operand(b->g, n->in[k]);
        st->in_buffer[k] = n->in[k] ? p->buffer_of[n->in[k]] : -1;
    }
    for (int k = 0; k < n->op->n_out; k++) {
        st->out_value[k] = n->out + k;
        st->out[k] = tess__operand(b->g, n->out + k);
        st->out_buffer[k] = p->buffer_of[n->out + k];
    }
    st->flops = n->op->flops ? n->op->flops(st->in, st->out, st->attrs) : 0;
    return p->device->remote     ? prepare_remote(st)
           : p->device->fuses    ? describe_remote(st)
           : p->device->prepares ? prepare(st)
                                 : TESS_OK;
}

static void count_bytes(tess_plan *p)
{
    for (int64_t i = 0; i < p->n_buffers; i++) {
        const tess_buffer *x = &p->buffers[i];
        p->stats.input_bytes += x->place == TESS_PLACE_INPUT ? x->n_bytes : 0;
    }
    for (int64_t s = 0; s < p->n_steps; s++) {
        size_t live = 0;
        for (int64_t i = 0; i < p->n_buffers; i++) {
            const tess_buffer *x = &p->buffers[i];
            live += x->place == TESS_PLACE_ARENA && x->first <= s && s <= x->last ? x->n_bytes : 0;
        }
        p->stats.live_bytes = live > p->stats.live_bytes ? live : p->stats.live_bytes;
        const bool hosts = p->device->remote && p->steps[s].op->flags & TESS_OP_MEETS;
        if (!hosts && p->steps[s].scratch_bytes > p->stats.scratch_bytes) {
            p->stats.scratch_bytes = p->steps[s].scratch_bytes;
        }
        p->stats.flops += p->steps[s].flops;
    }
    p->stats.n_steps = p->n_steps;
}

static tess_status fill_plan(builder *b, const tess_value *outputs, int64_t n_outputs)
{
    tess_plan *p = b->p;
    mark(b, outputs, n_outputs);
    TESS_TRY(order(b));
    find_last_uses(b, outputs, n_outputs);
    TESS_TRY(assign_buffers(b));
    p->steps = tess_alloc_array((size_t)b->n_order + 1, sizeof *p->steps);
    if (!p->steps) {
        return TESS_NOMEM;
    }
    for (int64_t s = 0; s < b->n_order; s++) {
        p->n_steps = s + 1;
        TESS_TRY(make_step(b, &b->g->nodes[b->order[s]], &p->steps[s]));
    }
    tess_status st;
    p->stats.arena_bytes = tess__plan_place(p->buffers, p->n_buffers, &st);
    TESS_TRY(st);
    count_bytes(p);
    TESS_TRY(tess__plan_find_windows(p));
    for (int64_t i = 0; i < n_outputs; i++) {
        p->outputs[p->n_outputs++] = outputs[i];
    }
    return tess__plan_check(p);
}

static tess_status build(builder *b, const tess_value *outputs, int64_t n_outputs)
{
    const tess_graph *g = b->g;
    tess_plan *p = b->p;
    p->n_values = (int64_t)g->n_values;
    p->buffers = tess_alloc_array(g->n_values + 1, sizeof *p->buffers);
    p->buffer_of = tess_alloc_array(g->n_values, sizeof *p->buffer_of);
    p->outputs = tess_alloc_array((size_t)n_outputs + 1, sizeof *p->outputs);
    b->wanted = tess_alloc_array(g->n_nodes + 1, sizeof *b->wanted);
    b->order = tess_alloc_array(g->n_nodes + 1, sizeof *b->order);
    b->last_use = tess_alloc_array(g->n_values, sizeof *b->last_use);
    if (!p->buffers || !p->buffer_of || !p->outputs || !b->wanted || !b->order || !b->last_use) {
        return TESS_NOMEM;
    }
    for (size_t v = 0; v < g->n_values; v++) {
        p->buffer_of[v] = -1;
    }
    TESS_TRY(fill_plan(b, outputs, n_outputs));
    if (p->device->remote) {
        TESS_TRY(tess__remote_build(p, b->store, b->g));
    }
    return p->device->computes
               ? tess__workspace_reserve(p->workspace, p->device->remote, tess__plan_bytes(p))
               : TESS_OK;
}

tess_status tess_plan_build(const tess_graph *g, const tess_value *outputs, int64_t n_outputs,
                            const tess_device *device, tess_store *store, tess_workspace *workspace,
                            tess_plan **out)
{
    *out = NULL;
    TESS_TRY(tess_graph_check(g));
    for (int64_t i = 0; i < n_outputs; i++) {
        if (outputs[i] <= 0 || (size_t)outputs[i] >= g->n_values) {
            return TESS_FAIL(TESS_INVALID, "plan: output %lld is no value of the graph",
                             (long long)i);
        }
    }
    tess_plan *p = tess_alloc(sizeof *p);
    if (!p) {
        return TESS_NOMEM;
    }
    p->device = device;
    p->workspace = workspace;
    p->pager = tess_store_pager(store);
    builder b = {.g = g, .p = p, .store = store};
    tess_status st = build(&b, outputs, n_outputs);
    tess_free(b.wanted);
    tess_free(b.order);
    tess_free(b.last_use);
    if (st) {
        tess_plan_free(p);
        return st;
    }
    *out = p;
    return TESS_OK;
}

void tess_plan_free(tess_plan *p)
{
    if (!p) {
        return;
    }
    for (int64_t s = 0; s < p->n_steps; s++) {
        if (p->steps[s].prepared && p->steps[s].op->unprepare) {
            p->steps[s].op->unprepare(p->steps[s].prepared);
        }
    }
    if (p->device->remote) {
        tess__remote_free(p);
    }
    tess_arena_deinit(&p->arena);
    tess_free(p->windows);
    tess_free(p->steps);
    tess_free(p->buffers);
    tess_free(p->buffer_of);
    tess_free(p->outputs);
    tess_free(p);
}

tess_plan_stats tess_plan_get_stats(const tess_plan *p)
{
    return p->stats;
}
