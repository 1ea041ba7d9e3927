/* SPDX-License-Identifier: Apache-2.0 */
/* shard_gather: a tensor of which each rank holds one range, whole on every rank.
 *
 *   x (n_r) f32 or bf16, this rank's elements of the flattened tensor (tess_shard_begin) -> y of
 * the tensor's shape and x's type.  Gradient: shard_reduce.
 *
 * shard_whole: x itself, for a tensor that every rank holds whole and whose gradient each holds a
 *   range of: shard_reduce too.
 *
 * shard_reduce: dy of the tensor's shape, f32, of each rank -> dx (n_r), this rank's range of the
 *   sum over ranks: f32, or dy and dx rounded to bf16 and added in f32 (`wire`).
 *
 * shard_gather_ahead and shard_reduce_ahead begin the same, and wait_shard ends it:
 *   x -> y and ticket (2) i32; dy -> dx, ticket and, with a bf16 wire, dy rounded, which is sent.
 *   (y, ticket, what is sent) -> y, in place.  Between the two nobody else touches them.
 *
 * All ranks run them, in the same order.  Deterministic; no aliasing; (R-1)/R of the tensor over
 * the wire.  A gather is computed again for the backward pass: what is kept is the shard. */
#include "tensor/comm.h"
#include "tensor/overlap.h"
#include "tensor/parallel.h"

#include <string.h>

typedef struct shard_attrs {
    tess_comm *comm;
    tess_shape shape;
    tess_dtype wire; /* of the reduction */
} shard_attrs;

static const tess_op reduce_op, whole_op, gather_ahead_op, reduce_ahead_op, wait_op;

tess_value tess__shard_gather(tess_graph *g, tess_comm *comm, tess_value x, tess_shape shape,
                              tess_dtype wire)
{
    const shard_attrs a = {.comm = comm, .shape = shape, .wire = wire};
    return TESS_NODE(g, &tess__op_shard_gather, &a, x);
}

tess_value tess__shard_whole(tess_graph *g, tess_comm *comm, tess_value x, tess_dtype wire)
{
    const shard_attrs a = {.comm = comm, .shape = tess_value_shape(g, x), .wire = wire};
    return TESS_NODE(g, &whole_op, &a, x);
}

static int64_t n_of(const shard_attrs *a, int rank)
{
    const int64_t n = tess_shape_count(&a->shape);
    const int ranks = tess_comm_size(a->comm);
    return tess_shard_begin(n, rank + 1, ranks) - tess_shard_begin(n, rank, ranks);
}

static tess_shape part_shape(const shard_attrs *a)
{
    return TESS_SHAPE_OF(n_of(a, tess_comm_rank(a->comm)));
}

static tess_status infer(tess_infer *c)
{
    const shard_attrs *a = c->attrs;
    const tess_operand part = {.dtype = c->in[0].dtype == TESS_BF16 ? TESS_BF16 : TESS_F32,
                               .shape = part_shape(a)};
    TESS_TRY(tess__expect_like("x", &c->in[0], &part));
    c->out[0] = (tess_operand){.dtype = part.dtype, .shape = a->shape};
    return TESS_OK;
}

static void vjp(tess_vjp *c)
{
    c->din[0] = TESS_NODE(c->g, &reduce_op, c->attrs, c->dout[0]);
}

static size_t counts_bytes(const shard_attrs *a)
{
    const size_t n = (size_t)tess_comm_size(a->comm) * sizeof(int64_t);
    return (n + 63) / 64 * 64;
}

static tess_status prepare(tess_prepare *c)
{
    c->scratch_bytes = counts_bytes(c->attrs);
    return TESS_OK;
}

static int64_t *fill_counts(const tess_exec *e, size_t width)
{
    const shard_attrs *a = e->attrs;
    int64_t *counts = e->scratch;
    for (int r = 0; r < tess_comm_size(a->comm); r++) {
        counts[r] = n_of(a, r) * (int64_t)width;
    }
    return counts;
}

static tess_status cpu(const tess_exec *e)
{
    const shard_attrs *a = e->attrs;
    const int64_t *counts = fill_counts(e, tess_dtype_bytes(e->in[0].dtype));
    return tess_comm_all_gather(a->comm, e->in[0].data, counts, e->out[0].data);
}

static tess_status whole_infer(tess_infer *c)
{
    c->out[0] = c->in[0];
    return TESS_OK;
}

static tess_status reduce_infer(tess_infer *c)
{
    const shard_attrs *a = c->attrs;
    const tess_operand whole = {.dtype = TESS_F32, .shape = a->shape};
    TESS_TRY(tess__expect_like("dy", &c->in[0], &whole));
    c->out[0] = (tess_operand){.dtype = a->wire, .shape = part_shape(a)};
    return TESS_OK;
}

static tess_status reduce_prepare(tess_prepare *c)
{
    const shard_attrs *a = c->attrs;
    const size_t n = (size_t)tess_shape_count(&a->shape);
    c->scratch_bytes = counts_bytes(a) + (a->wire == TESS_BF16 ? n * sizeof(uint16_t) : 0);
    return TESS_OK;
}

static tess_status reduce_cpu(const tess_exec *e)
{
    const shard_attrs *a = e->attrs;
    const int64_t *counts = fill_counts(e, 1);
    const void *dy = e->in[0].data;
    if (a->wire == TESS_BF16) {
        void *rounded = (char *)e->scratch + counts_bytes(a);
        tess__convert(TESS_BF16, rounded, TESS_F32, dy, tess_shape_count(&a->shape));
        dy = rounded;
    }
    return tess_comm_reduce_scatter(a->comm, dy, a->wire, counts, e->out[0].data);
}

/* ---- ahead --------------------------------------------------------------------------------- */

enum { AHEAD_VALUE, AHEAD_TICKET, AHEAD_SENT };

bool tess__shard_gathers(const tess_graph *g, const tess_node *n)
{
    (void)g;
    return n->op == &tess__op_shard_gather;
}

bool tess__shard_reduces(const tess_graph *g, const tess_node *n)
{
    (void)g;
    return n->op == &reduce_op;
}

size_t tess__shard_bytes(const tess_graph *g, const tess_node *n)
{
    const shard_attrs *a = n->attrs;
    const bool gathers = tess__shard_gathers(g, n);
    const tess_dtype t = gathers ? g->values[n->out].dtype : a->wire;
    return (size_t)tess_shape_count(&a->shape) * tess_dtype_bytes(t);
}

static bool is_rounded(const tess_node *n)
{
    const shard_attrs *a = n->attrs;
    return n->op == &reduce_op && a->wire == TESS_BF16;
}

/* Builds under the scope of the node that it stands for. */
static tess_value add_like(tess_graph *g, const tess_node *like, const tess_op *op,
                           const tess_value *in, int n_in)
{
    tess_node n = *like;
    n.op = op;
    n.n_in = n_in;
    return tess__node_copy(g, &n, in);
}

tess_value tess__shard_begin(tess_graph *g, const tess_node *like, tess_value x)
{
    const bool gathers = like->op == &tess__op_shard_gather;
    return add_like(g, like, gathers ? &gather_ahead_op : &reduce_ahead_op, &x, 1);
}

tess_value tess__shard_end(tess_graph *g, const tess_node *like, tess_value x, tess_value begun)
{
    const tess_value sent = is_rounded(like) ? begun + AHEAD_SENT : x;
    const tess_value in[] = {begun + AHEAD_VALUE, begun + AHEAD_TICKET, sent};
    return begun ? add_like(g, like, &wait_op, in, TESS_COUNT(in)) : 0;
}

static tess_operand ticket_operand(void)
{
    return (tess_operand){.dtype = TESS_I32, .shape = TESS_SHAPE_OF(2)};
}

static tess_status gather_ahead_infer(tess_infer *c)
{
    c->out[AHEAD_TICKET] = ticket_operand();
    return infer(c);
}

static tess_status later(const tess_exec *e, const tess_call *call)
{
    const shard_attrs *a = e->attrs;
    int64_t ticket = 0;
    TESS_TRY(tess__comm_later(a->comm, call, &ticket));
    memcpy(e->out[AHEAD_TICKET].data, &ticket, sizeof ticket);
    return TESS_OK;
}

static tess_status gather_ahead_cpu(const tess_exec *e)
{
    const shard_attrs *a = e->attrs;
    const size_t width = tess_dtype_bytes(e->in[0].dtype);
    return later(e, &(tess_call){.kind = TESS_ALL_GATHER,
                                 .n = tess_shape_count(&a->shape) * (int64_t)width,
                                 .counts = fill_counts(e, width),
                                 .from = e->in[0].data,
                                 .to = e->out[AHEAD_VALUE].data});
}

static tess_status reduce_ahead_infer(tess_infer *c)
{
    const shard_attrs *a = c->attrs;
    const tess_operand nothing = {.dtype = TESS_BF16, .shape = TESS_SHAPE_OF(0)};
    c->out[AHEAD_TICKET] = ticket_operand();
    c->out[AHEAD_SENT] =
        a->wire == TESS_BF16 ? (tess_operand){.dtype = TESS_BF16, .shape = a->shape} : nothing;
    return reduce_infer(c);
}

static tess_status reduce_ahead_cpu(const tess_exec *e)
{
    const shard_attrs *a = e->attrs;
    const int64_t n = tess_shape_count(&a->shape);
    const bool rounds = a->wire == TESS_BF16;
    if (rounds) {
        tess__convert(TESS_BF16, e->out[AHEAD_SENT].data, TESS_F32, e->in[0].data, n);
    }
    return later(e, &(tess_call){.kind = TESS_REDUCE_SCATTER,
                                 .n = n,
                                 .dtype = a->wire,
                                 .counts = fill_counts(e, 1),
                                 .from = rounds ? e->out[AHEAD_SENT].data : e->in[0].data,
                                 .to = e->out[AHEAD_VALUE].data});
}

static tess_status wait_infer(tess_infer *c)
{
    const tess_operand ticket = ticket_operand();
    c->out[0] = c->in[0];
    return tess__expect_like("ticket", &c->in[1], &ticket);
}

static tess_status wait_cpu(const tess_exec *e)
{
    const shard_attrs *a = e->attrs;
    int64_t ticket;
    memcpy(&ticket, e->in[1].data, sizeof ticket);
    TESS_TRY(tess__comm_finish(a->comm, ticket));
    if (e->out[0].data != e->in[0].data) {
        memcpy(e->out[0].data, e->in[0].data,
               (size_t)tess_shape_count(&e->in[0].shape) * tess_dtype_bytes(e->in[0].dtype));
    }
    return TESS_OK;
}

/* ---- tests --------------------------------------------------------------------------------- */

static tess_status ref(const tess_exec *e)
{
    memcpy(e->out[0].data, e->in[0].data,
           (size_t)tess_shape_count(&e->out[0].shape) * sizeof(float));
    return TESS_OK;
}

static void print(const void *attrs, tess_buf *out)
{
    const shard_attrs *a = attrs;
    tess_buf_addf(out, "%d ranks", tess_comm_size(a->comm));
}

/* Alone; several ranks are tests/cli/test_zero.py. */
static tess_comm *alone(void)
{
    static tess_comm *comm;
    return comm || tess_comm_open(NULL, &comm) == TESS_OK ? comm : NULL;
}

static tess_value build(tess_graph *g, const tess_value *in)
{
    return tess__shard_gather(g, alone(), in[0], TESS_SHAPE_OF(6, 7), TESS_F32);
}

static tess_value build_reduce(tess_graph *g, const tess_value *in)
{
    const shard_attrs a = {.comm = alone(), .shape = tess_value_shape(g, in[0]), .wire = TESS_BF16};
    return TESS_NODE(g, &reduce_op, &a, in[0]);
}

static const tess_case cases[] = {
    {.name = "alone", .n_in = 1, .in = {{TESS_F32, {1, {42}}}}, .build = build},
    {.name = "reduce",
     .n_in = 1,
     .in = {{TESS_F32, {2, {5, 9}}, .no_grad = true}},
     .build = build_reduce},
};

static const tess_op reduce_op = {
    .name = "shard_reduce",
    .n_in_min = 1,
    .n_in_max = 1,
    .n_out = 1,
    .attrs_bytes = sizeof(shard_attrs),
    .flags = TESS_OP_MEETS,
    .infer = reduce_infer,
    .prepare = reduce_prepare,
    .cpu = reduce_cpu,
    .ref = ref,
    .print = print,
};
static const tess_op whole_op = {
    .name = "shard_whole",
    .n_in_min = 1,
    .n_in_max = 1,
    .n_out = 1,
    .attrs_bytes = sizeof(shard_attrs),
    .flags = TESS_OP_VIEW,
    .infer = whole_infer,
    .vjp = vjp,
    .print = print,
};
static const tess_op gather_ahead_op = {
    .name = "shard_gather_ahead",
    .n_in_min = 1,
    .n_in_max = 1,
    .n_out = 2,
    .attrs_bytes = sizeof(shard_attrs),
    .flags = TESS_OP_MEETS,
    .infer = gather_ahead_infer,
    .prepare = prepare,
    .cpu = gather_ahead_cpu,
    .print = print,
};
static const tess_op reduce_ahead_op = {
    .name = "shard_reduce_ahead",
    .n_in_min = 1,
    .n_in_max = 1,
    .n_out = 3,
    .attrs_bytes = sizeof(shard_attrs),
    .flags = TESS_OP_MEETS,
    .infer = reduce_ahead_infer,
    .prepare = prepare,
    .cpu = reduce_ahead_cpu,
    .print = print,
};
static const tess_op wait_op = {
    .name = "wait_shard",
    .n_in_min = 3,
    .n_in_max = 3,
    .n_out = 1,
    .attrs_bytes = sizeof(shard_attrs),
    .flags = TESS_OP_MEETS,
    .alias_mask = 1,
    .infer = wait_infer,
    .cpu = wait_cpu,
    .print = print,
};
static const tess_op *const extra[] = {&reduce_op,       &whole_op, &gather_ahead_op,
                                       &reduce_ahead_op, &wait_op,  NULL};

const tess_op tess__op_shard_gather = {
    .name = "shard_gather",
    .n_in_min = 1,
    .n_in_max = 1,
    .n_out = 1,
    .attrs_bytes = sizeof(shard_attrs),
    .flags = TESS_OP_AGAIN | TESS_OP_MEETS,
    .infer = infer,
    .vjp = vjp,
    .prepare = prepare,
    .cpu = cpu,
    .ref = ref,
    .print = print,
    .extra = extra,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
