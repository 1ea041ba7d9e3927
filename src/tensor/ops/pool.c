/* SPDX-License-Identifier: Apache-2.0 */
/* pool: one row per segment: the mean of its rows, their sum divided by the root of
 * their number, its first, or its last.
 *
 *   x (N,C) with offsets (S+1) i32 -> (S,C), or x (B,T,C) without -> (B,C); like x.  An empty
 *   segment gives zeros.  Gradient: dy spread back, zeros in rows that no segment uses.
 *   No aliasing.  Deterministic; one pass; the mean is summed in f32 in the rows' order. */
#include "tensor/onnx.h"
#include "tensor/lower.h"
#include "tensor/parallel.h"
#include "tensor/ops/pool.h"

#include <math.h>
#include <string.h>

static const tess_op grad_op;

tess_value tess_pool(tess_graph *g, tess_value x, tess_value offsets, tess_pool_kind kind)
{
    const pool_attrs a = {.kind = kind};
    return TESS_NODE(g, &tess__op_pool, &a, x, offsets);
}

bool tess__pool_is_one_row(const void *attrs)
{
    const tess_pool_kind kind = ((const pool_attrs *)attrs)->kind;
    return kind == TESS_POOL_FIRST || kind == TESS_POOL_LAST;
}

static tess_status infer(tess_infer *c)
{
    const tess_operand *x = &c->in[0], *offsets = &c->in[1];
    const bool packed = offsets->shape.rank >= 0;
    TESS_TRY(tess__expect("x", x, x->dtype, packed ? 2 : 3));
    if (packed) {
        TESS_TRY(tess__expect("offsets", offsets, TESS_I32, 1));
    }
    if (((const pool_attrs *)c->attrs)->kind >= TESS_POOL_COUNT ||
        (packed && offsets->shape.dim[0] < 1)) {
        return TESS_FAIL(TESS_INVALID, "pool: expected a known kind and at least one offset");
    }
    const int64_t n = packed ? offsets->shape.dim[0] - 1 : x->shape.dim[0];
    c->out[0] = (tess_operand){.dtype = x->dtype, .shape = TESS_SHAPE_OF(n, tess__last(&x->shape))};
    return TESS_OK;
}

static tess_status grad_infer(tess_infer *c)
{
    c->out[0] =
        (tess_operand){.dtype = c->in[0].dtype, .shape = ((const pool_attrs *)c->attrs)->shape};
    return TESS_OK;
}

static void vjp(tess_vjp *c)
{
    pool_attrs a = *(const pool_attrs *)c->attrs;
    a.shape = tess_value_shape(c->g, c->in[0]);
    c->din[0] = TESS_NODE(c->g, &grad_op, &a, c->dout[0], c->in[1]);
}

/* Rows of segment i that count, in x of `shape`. */
static tess_range rows_of(tess_pool_kind kind, const tess_shape *shape, const int32_t *offsets,
                          int64_t i)
{
    tess_range r = {.begin = offsets ? offsets[i] : i * shape->dim[1]};
    r.n = offsets ? offsets[i + 1] - r.begin : shape->dim[1];
    if (r.n > 0 && (kind == TESS_POOL_FIRST || kind == TESS_POOL_LAST)) {
        r.begin += kind == TESS_POOL_LAST ? r.n - 1 : 0;
        r.n = 1;
    }
    if (r.n > 0 && kind == TESS_POOL_MEAN_REST) {
        r.begin++;
        r.n--;
    }
    return r;
}

/* What a sum of n rows is multiplied by. */
static float weight_of(tess_pool_kind kind, int64_t n)
{
    const double root = kind == TESS_POOL_MEAN_SQRT ? sqrt((double)n) : (double)n;
    return n > 0 ? (float)(1.0 / root) : 0.0f;
}

static tess_status check_offsets(const int32_t *offsets, int64_t n, int64_t rows)
{
    for (int64_t i = 0; offsets && i < n; i++) {
        if (offsets[i] < 0 || offsets[i + 1] < offsets[i] || offsets[i + 1] > rows) {
            return TESS_FAIL(TESS_INVALID, "pool: segment %lld is rows %d..%d of %lld",
                             (long long)i, offsets[i], offsets[i + 1], (long long)rows);
        }
    }
    return TESS_OK;
}

static tess_status prepare(tess_prepare *c)
{
    c->scratch_bytes = (size_t)(tess__last(&c->in[0].shape) * tess__slots_max()) * sizeof(float);
    return TESS_OK;
}

static tess_status cpu(const tess_exec *e)
{
    const tess_kernels *k = tess__kernels();
    const tess_pool_kind kind = ((const pool_attrs *)e->attrs)->kind;
    const tess_dtype t = e->in[0].dtype;
    const int64_t n = e->out[0].shape.dim[0], width = e->out[0].shape.dim[1];
    const int32_t *offsets = e->in[1].data;
    TESS_TRY(check_offsets(offsets, n, e->in[0].shape.dim[0]));
#pragma omp parallel for schedule(static) num_threads(tess__slots())
    for (int64_t i = 0; i < n; i++) {
        const tess_range r = rows_of(kind, &e->in[0].shape, offsets, i);
        float *sum = (float *)e->scratch + omp_get_thread_num() * width;
        tess__zero(sum, width);
        k->column_sum(t, sum, tess__at(e->in[0].data, t, r.begin * width), r.n, width);
        k->scale(TESS_F32, sum, sum, weight_of(kind, r.n), width);
        k->convert(t, tess__at_mut(e->out[0].data, t, i * width), TESS_F32, sum, width);
    }
    return TESS_OK;
}

static tess_status grad_cpu(const tess_exec *e)
{
    const tess_kernels *k = tess__kernels();
    const pool_attrs *a = e->attrs;
    const tess_dtype t = e->in[0].dtype;
    const int64_t n = e->in[0].shape.dim[0], width = e->in[0].shape.dim[1];
    const int64_t rows = tess__rows(&a->shape);
    const int32_t *offsets = e->in[1].data;
    TESS_TRY(check_offsets(offsets, n, rows));
    memset(e->out[0].data, 0, (size_t)(rows * width) * tess_dtype_bytes(t));
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const tess_range r = rows_of(a->kind, &a->shape, offsets, i);
        for (int64_t j = r.begin; j < r.begin + r.n; j++) {
            k->scale(t, tess__at_mut(e->out[0].data, t, j * width),
                     tess__at(e->in[0].data, t, i * width), weight_of(a->kind, r.n), width);
        }
    }
    return TESS_OK;
}

static tess_status ref(const tess_exec *e)
{
    const tess_pool_kind kind = ((const pool_attrs *)e->attrs)->kind;
    const int64_t width = e->out[0].shape.dim[1];
    for (int64_t i = 0; i < tess_shape_count(&e->out[0].shape); i++) {
        const tess_range r = rows_of(kind, &e->in[0].shape, e->in[1].data, i / width);
        double sum = 0;
        for (int64_t j = r.begin; j < r.begin + r.n; j++) {
            sum += (double)((const float *)e->in[0].data)[j * width + i % width];
        }
        ((float *)e->out[0].data)[i] = (float)(sum * (double)weight_of(kind, r.n));
    }
    return TESS_OK;
}

static tess_status grad_ref(const tess_exec *e)
{
    const pool_attrs *a = e->attrs;
    const int64_t width = e->in[0].shape.dim[1];
    memset(e->out[0].data, 0, (size_t)tess_shape_count(&a->shape) * sizeof(float));
    for (int64_t i = 0; i < tess_shape_count(&e->in[0].shape); i++) {
        const tess_range r = rows_of(a->kind, &a->shape, e->in[1].data, i / width);
        for (int64_t j = r.begin; j < r.begin + r.n; j++) {
            ((float *)e->out[0].data)[j * width + i % width] =
                ((const float *)e->in[0].data)[i] * weight_of(a->kind, r.n);
        }
    }
    return TESS_OK;
}

/* Packed rows are padded ones here, (B,L,C): sums are over those that count. */
static const char *onnx_packed_sum(const tess_onnx_emit *c, tess_pool_kind kind)
{
    tess_onnx *o = c->to;
    const char *weight = tess__onnx_cast(o, o->mask, tess__onnx_float_type(o)); /* (B,L) */
    const char *row = TESS_ONNX(o, "Unsqueeze", weight, TESS_ONNX_LIST(o, 1));
    const char *sum = TESS_ONNX(o, "MatMul", row, tess__onnx_in(c, 0)); /* (B,1,C) */
    const char *n = TESS_ONNX(o, "ReduceSum", weight, TESS_ONNX_LIST(o, 1));
    n = TESS_ONNX(o, "Max", n, tess__onnx_float(o, 1));
    n = kind == TESS_POOL_MEAN_SQRT ? TESS_ONNX(o, "Sqrt", n) : n;
    return TESS_ONNX(o, "Div", TESS_ONNX(o, "Squeeze", sum, TESS_ONNX_LIST(o, 1)), n);
}

static const char *onnx_row(const tess_onnx_emit *c, int64_t row)
{
    return tess__onnx_add(c->to,
                          (tess_onnx_node){.op = "Gather",
                                           .in = {tess__onnx_in(c, 0), tess__onnx_int(c->to, row)},
                                           .attr = {TESS_ONNX_I("axis", 1)}},
                          NULL);
}

static const char *onnx_last(const tess_onnx_emit *c)
{
    return tess__onnx_add(c->to,
                          (tess_onnx_node){.op = "GatherND",
                                           .in = {tess__onnx_in(c, 0), tess__onnx_last(c->to)},
                                           .attr = {TESS_ONNX_I("batch_dims", 1)}},
                          NULL);
}

static const char *onnx_mean(const tess_onnx_emit *c, const char *x)
{
    return tess__onnx_add(
        c->to,
        (tess_onnx_node){.op = "ReduceMean",
                         .in = {x},
                         .attr = {TESS_ONNX_INTS("axes", 1), TESS_ONNX_I("keepdims", 0)}},
        NULL);
}

static const char *onnx_rest(const tess_onnx_emit *c)
{
    return TESS_ONNX(c->to, "Slice", tess__onnx_in(c, 0), TESS_ONNX_LIST(c->to, 1),
                     TESS_ONNX_LIST(c->to, INT32_MAX), TESS_ONNX_LIST(c->to, 1));
}

static const char *onnx(const tess_onnx_emit *c)
{
    const tess_pool_kind kind = ((const pool_attrs *)c->attrs)->kind;
    const bool packed = c->in[0].shape.rank == 2;
    const bool masked = packed && c->to->mask && c->to->mask[0];
    if (packed && c->in_values[1] != c->to->segments) {
        return tess__onnx_refuse(c, "these segments have no ONNX form");
    }
    if (kind == TESS_POOL_FIRST) {
        return onnx_row(c, 0);
    }
    if (kind == TESS_POOL_LAST) {
        return masked ? onnx_last(c) : onnx_row(c, -1);
    }
    if (masked && kind != TESS_POOL_MEAN_REST) {
        return onnx_packed_sum(c, kind);
    }
    if (!masked && kind == TESS_POOL_MEAN) {
        return onnx_mean(c, tess__onnx_in(c, 0));
    }
    if (!packed && kind == TESS_POOL_MEAN_REST) {
        return onnx_mean(c, onnx_rest(c));
    }
    return tess__onnx_refuse(c, "this pooling of these rows has no ONNX form");
}

#define BUILD(kind)                                                                                \
    static tess_value build_##kind(tess_graph *g, const tess_value *in)                            \
    {                                                                                              \
        return tess_pool(g, in[0], in[1], TESS_POOL_##kind);                                       \
    }
BUILD(MEAN)
BUILD(FIRST)
BUILD(LAST)
BUILD(MEAN_SQRT)
BUILD(MEAN_REST)

#define OFFSETS(n, rows)                                                                           \
    {                                                                                              \
        TESS_I32, {1, {(n) + 1}}, TESS_FILL_OFFSETS, rows, true                                    \
    }
static const tess_case cases[] = {
    {.name = "mean",
     .n_in = 1,
     .in = {{TESS_F32, {3, {4, 9, 21}}}},
     .build = build_MEAN,
     .reduction = 9},
    {.name = "mean_rest",
     .n_in = 1,
     .in = {{TESS_F32, {3, {4, 9, 21}}}},
     .build = build_MEAN_REST,
     .reduction = 8},
    {.name = "first", .n_in = 1, .in = {{TESS_F32, {3, {4, 3, 21}}}}, .build = build_FIRST},
    {.name = "packed_mean",
     .n_in = 2,
     .in = {{TESS_F32, {2, {50, 19}}}, OFFSETS(8, 44)},
     .build = build_MEAN,
     .reduction = 44},
    {.name = "packed_last",
     .n_in = 2,
     .in = {{TESS_BF16, {2, {50, 19}}}, OFFSETS(8, 50)},
     .build = build_LAST},
    {.name = "packed_mean_bf16",
     .n_in = 2,
     .in = {{TESS_BF16, {2, {500, 40}}}, OFFSETS(60, 500)},
     .build = build_MEAN,
     .reduction = 50},
    {.name = "packed_mean_sqrt",
     .n_in = 2,
     .in = {{TESS_F32, {2, {50, 19}}}, OFFSETS(8, 44)},
     .build = build_MEAN_SQRT,
     .reduction = 44},
};

static const tess_op grad_op = {
    .name = "pool_grad",
    .n_in_min = 1,
    .n_in_max = 2,
    .n_out = 1,
    .attrs_bytes = sizeof(pool_attrs),
    .infer = grad_infer,
    .cpu = grad_cpu,
    .ref = grad_ref,
};
static const tess_op *const extra[] = {&grad_op, NULL};

const tess_op tess__op_pool = {
    .name = "pool",
    .n_in_min = 1,
    .n_in_max = 2,
    .n_out = 1,
    .attrs_bytes = sizeof(pool_attrs),
    .infer = infer,
    .vjp = vjp,
    .prepare = prepare,
    .cpu = cpu,
    .ref = ref,
    .onnx = onnx,
    .extra = extra,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
