/* SPDX-License-Identifier: Apache-2.0 */
/* all_gather: the rows of all ranks, on every rank.
 *
 *   x (K*B,Z) f32, this rank's B rows of each of K slots -> y (K*R*B,Z): slot k is the rows of rank
 *   0, 1, .. R-1 in slot k.  Gradient: reduce_scatter, the sum over ranks of dy for this rank's
 *   rows.  All ranks run it, in the same order.  Deterministic; no aliasing; (R-1)/R |y| elements
 *   over the wire, each way. */
#include "tensor/op.h"

#include <string.h>

typedef struct gather_attrs {
    tess_comm *comm;
    int64_t slots;
} gather_attrs;

static const tess_op grad_op;

static tess_value gather(tess_graph *g, tess_comm *comm, tess_value x, int64_t slots)
{
    const gather_attrs a = {.comm = comm, .slots = slots};
    return TESS_NODE(g, &tess__op_all_gather, &a, x);
}

tess_value tess_all_gather(tess_graph *g, tess_comm *comm, tess_value x, int64_t slots)
{
    return !comm || tess_comm_size(comm) == 1 ? x : gather(g, comm, x, slots);
}

static tess_status infer(tess_infer *c)
{
    const gather_attrs *a = c->attrs;
    tess_operand y = c->in[0];
    TESS_TRY(tess__expect("x", &y, TESS_F32, 2));
    if (a->slots < 1 || y.shape.dim[0] % a->slots != 0) {
        return TESS_FAIL(TESS_INVALID, "%lld rows are not %lld slots", (long long)y.shape.dim[0],
                         (long long)a->slots);
    }
    y.shape.dim[0] *= tess_comm_size(a->comm);
    c->out[0] = y;
    return TESS_OK;
}

static void vjp(tess_vjp *c)
{
    c->din[0] = TESS_NODE(c->g, &grad_op, c->attrs, c->dout[0]);
}

/* Counts of all ranks, then their parts one after the other: of the larger of the two operands. */
static tess_status prepare(tess_prepare *c)
{
    const gather_attrs *a = c->attrs;
    const size_t in = (size_t)tess_shape_count(&c->in[0].shape);
    const size_t out = (size_t)tess_shape_count(&c->out[0].shape);
    c->scratch_bytes =
        (size_t)tess_comm_size(a->comm) * sizeof(int64_t) + (in > out ? in : out) * sizeof(float);
    return TESS_OK;
}

/* n for every rank; returns where the parts are. */
static float *fill_counts(const tess_exec *e, int64_t n)
{
    const gather_attrs *a = e->attrs;
    int64_t *counts = e->scratch;
    const int ranks = tess_comm_size(a->comm);
    for (int r = 0; r < ranks; r++) {
        counts[r] = n;
    }
    return (float *)(counts + ranks);
}

/* Row i of rank r in slot k is (r,k,i) by ranks and (k,r,i) by slots. */
static void permute(const gather_attrs *a, float *by_ranks, float *by_slots, size_t n,
                    bool to_slots)
{
    const size_t ranks = (size_t)tess_comm_size(a->comm), slots = (size_t)a->slots;
    const size_t part = n / ranks / slots;
    for (size_t r = 0; r < ranks; r++) {
        for (size_t k = 0; k < slots; k++) {
            float *x = by_ranks + (r * slots + k) * part, *y = by_slots + (k * ranks + r) * part;
            memcpy(to_slots ? y : x, to_slots ? x : y, part * sizeof *x);
        }
    }
}

static tess_status cpu(const tess_exec *e)
{
    const gather_attrs *a = e->attrs;
    const int64_t n = tess_shape_count(&e->in[0].shape);
    float *parts = fill_counts(e, n * (int64_t)sizeof(float));
    TESS_TRY(tess_comm_all_gather(a->comm, e->in[0].data, e->scratch, parts));
    permute(a, parts, e->out[0].data, (size_t)(n * tess_comm_size(a->comm)), true);
    return TESS_OK;
}

static tess_status grad_infer(tess_infer *c)
{
    const gather_attrs *a = c->attrs;
    c->out[0] = c->in[0];
    c->out[0].shape.dim[0] /= tess_comm_size(a->comm);
    return TESS_OK;
}

static tess_status grad_cpu(const tess_exec *e)
{
    const gather_attrs *a = e->attrs;
    const int64_t n = tess_shape_count(&e->out[0].shape);
    float *parts = fill_counts(e, n);
    permute(a, parts, e->in[0].data, (size_t)(n * tess_comm_size(a->comm)), false);
    return tess_comm_reduce_scatter(a->comm, parts, TESS_F32, e->scratch, e->out[0].data);
}

static tess_status ref(const tess_exec *e)
{
    memcpy(e->out[0].data, e->in[0].data,
           (size_t)tess_shape_count(&e->out[0].shape) * sizeof(float));
    return TESS_OK;
}

static void print(const void *attrs, tess_buf *out)
{
    const gather_attrs *a = attrs;
    tess_buf_addf(out, "%d ranks, %lld slots", tess_comm_size(a->comm), (long long)a->slots);
}

/* Alone; several ranks are tests/cli/test_ranks.py. */
static tess_value build_alone(tess_graph *g, const tess_value *in)
{
    static tess_comm *alone;
    if (!alone && tess_comm_open(NULL, &alone) != TESS_OK) {
        return 0;
    }
    return gather(g, alone, in[0], 3);
}

static const tess_case cases[] = {
    {.name = "alone", .n_in = 1, .in = {{TESS_F32, {2, {6, 5}}}}, .build = build_alone},
};

static const tess_op grad_op = {
    .name = "all_gather_grad",
    .n_in_min = 1,
    .n_in_max = 1,
    .n_out = 1,
    .attrs_bytes = sizeof(gather_attrs),
    .flags = TESS_OP_MEETS,
    .infer = grad_infer,
    .prepare = prepare,
    .cpu = grad_cpu,
    .ref = ref,
    .print = print,
};
static const tess_op *const extra[] = {&grad_op, NULL};

const tess_op tess__op_all_gather = {
    .name = "all_gather",
    .n_in_min = 1,
    .n_in_max = 1,
    .n_out = 1,
    .attrs_bytes = sizeof(gather_attrs),
    .flags = TESS_OP_MEETS,
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
