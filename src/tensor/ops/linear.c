/* SPDX-License-Identifier: Apache-2.0 */
/* linear: y = act(x w^T + bias) + residual, act relu or nothing.
 *
 *   x (...,K), w (M,K), bias (M) f32 or absent, residual (...,M) or absent -> y (...,M), all of x's
 *   type but bias; f32 accumulation, y rounded once.  relu and residual exclude each other, so that
 *   the mask of relu can be read from y.
 *   Gradient: dx = dz w (project), dw = dz^T x (outer), dresidual = dy, where dz is dy, or with
 * relu dy masked by y > 0, made together with dbias in one pass (relu_grad); dbias else: bias_grad.
 *   No aliasing.  Deterministic.  2 N M K FLOPs. */
#include "tensor/adapter.h"
#include "tensor/matmul.h"
#include "tensor/onnx.h"
#include "tensor/parallel.h"
#include "tensor/products.h"

typedef struct linear_attrs {
    bool relu;
} linear_attrs;

static const tess_op relu_grad_op, bias_grad_op;

tess_value tess_linear(tess_graph *g, tess_value x, tess_value w, tess_linear_options o)
{
    const tess_adapted *adapted = tess__adapted_find(g, w);
    const bool apart = adapted && o.relu; /* relu acts on the sum */
    const linear_attrs a = {.relu = o.relu && !apart};
    if (adapted) {
        o.residual = tess__adapted_sum(g, adapted, x, w, o.residual);
    }
    if (tess__linear_is_fp8(g, x, w)) {
        tess_value y = tess__linear_fp8(g, x, w, o.bias, o.residual);
        return o.relu ? tess_unary(g, y, TESS_RELU) : y;
    }
    tess_value y = TESS_NODE(g, &tess__op_linear, &a, x, w, o.bias, o.residual);
    return apart ? tess_unary(g, y, TESS_RELU) : y;
}

tess_value tess__bias_grad(tess_graph *g, tess_value dy)
{
    return TESS_NODE(g, &bias_grad_op, NULL, dy);
}

bool tess__linear_relu(const void *attrs)
{
    return ((const linear_attrs *)attrs)->relu;
}

static tess_status infer(tess_infer *c)
{
    const linear_attrs *a = c->attrs;
    const tess_operand *x = &c->in[0], *w = &c->in[1];
    TESS_TRY(tess__expect("w", w, x->dtype, 2));
    if (x->shape.rank < 1 || tess__last(&x->shape) != w->shape.dim[1]) {
        tess_buf b = {0};
        tess_shape_print(&x->shape, &b);
        tess_status st = TESS_FAIL(TESS_INVALID, "linear: expected x (...,%lld), found %s",
                                   (long long)w->shape.dim[1], b.data ? b.data : "?");
        tess_buf_deinit(&b);
        return st;
    }
    tess_operand y = *x;
    y.shape.dim[y.shape.rank - 1] = w->shape.dim[0];
    if (c->in[2].shape.rank >= 0) {
        const tess_operand bias = {.dtype = TESS_F32, .shape = TESS_SHAPE_OF(w->shape.dim[0])};
        TESS_TRY(tess__expect_like("bias", &c->in[2], &bias));
    }
    if (c->in[3].shape.rank >= 0) {
        TESS_TRY(tess__expect_like("residual", &c->in[3], &y));
        if (a->relu) {
            return TESS_FAIL(TESS_INVALID, "linear: relu and a residual exclude each other");
        }
    }
    c->out[0] = y;
    return TESS_OK;
}

static void vjp(tess_vjp *c)
{
    const linear_attrs *a = c->attrs;
    tess_value dz = c->dout[0], dbias = 0;
    if (a->relu) {
        dz = TESS_NODE(c->g, &relu_grad_op, NULL, c->out[0], c->dout[0]);
        dbias = dz ? dz + 1 : 0;
    } else if (c->need[2]) {
        dbias = tess__bias_grad(c->g, dz);
    }
    if (c->need[0]) {
        tess_value w = c->need[1] ? c->in[1] : tess__cast_again(c->g, c->in[1]);
        c->din[0] = tess_project(c->g, dz, w);
    }
    if (c->need[1]) {
        c->din[1] = tess__outer(c->g, dz, c->in[0]);
    }
    c->din[2] = dbias;
    c->din[3] = c->dout[0];
}

tess_matmul_spec tess__linear_spec(const tess_operand *in, const void *attrs)
{
    const tess_operand *x = &in[0], *w = &in[1];
    return (tess_matmul_spec){
        .m = tess__rows(&x->shape),
        .n = w->shape.dim[0],
        .k = w->shape.dim[1],
        .in = x->dtype,
        .out = x->dtype,
        .b_trans = true,
        .pack = true,
        .bias = in[2].shape.rank >= 0,
        .relu = ((const linear_attrs *)attrs)->relu,
        .residual = in[3].shape.rank >= 0,
    };
}

static tess_status prepare(tess_prepare *c)
{
    const tess_matmul_spec spec = tess__linear_spec(c->in, c->attrs);
    tess_matmul *m = NULL;
    TESS_TRY(tess__matmul_new(&spec, &m));
    c->prepared = m;
    c->scratch_bytes = tess__matmul_scratch(m);
    return TESS_OK;
}

static tess_status cpu(const tess_exec *e)
{
    return tess__matmul_run(e->prepared, &(tess_matmul_args){.a = e->in[0].data,
                                                             .b = e->in[1].data,
                                                             .bias = e->in[2].data,
                                                             .residual = e->in[3].data,
                                                             .c = e->out[0].data,
                                                             .scratch = e->scratch});
}

static tess_status ref(const tess_exec *e)
{
    const int64_t rows = tess__rows(&e->in[0].shape);
    const int64_t n = e->in[1].shape.dim[0], depth = e->in[1].shape.dim[1];
    const float *x = e->in[0].data, *w = e->in[1].data, *bias = e->in[2].data;
    const float *residual = e->in[3].data;
    float *y = e->out[0].data;
    for (int64_t i = 0; i < rows * n; i++) {
        double sum = bias ? (double)bias[i % n] : 0;
        for (int64_t k = 0; k < depth; k++) {
            sum += (double)x[i / n * depth + k] * (double)w[i % n * depth + k];
        }
        sum = ((const linear_attrs *)e->attrs)->relu && sum < 0 ? 0 : sum;
        y[i] = (float)(residual ? sum + (double)residual[i] : sum);
    }
    return TESS_OK;
}

static double flops(const tess_operand *in, const tess_operand *out, const void *attrs)
{
    (void)attrs;
    return 2.0 * (double)tess_shape_count(&out[0].shape) * (double)tess__last(&in[0].shape);
}

static void print(const void *attrs, tess_buf *out)
{
    tess_buf_adds(out, ((const linear_attrs *)attrs)->relu ? "relu" : "");
}

/* ---- relu_grad: y, dy (...,M) -> dz like y, dbias (M) f32 ---------------------------------- */

static tess_status relu_grad_infer(tess_infer *c)
{
    TESS_TRY(tess__expect_like("dy", &c->in[1], &c->in[0]));
    c->out[0] = c->in[0];
    c->out[1] =
        (tess_operand){.dtype = TESS_F32, .shape = TESS_SHAPE_OF(tess__last(&c->in[0].shape))};
    return TESS_OK;
}

/* Both gradients need one row of partial sums per chunk. */
static tess_status sums_prepare(tess_prepare *c)
{
    const int64_t width = tess__last(&c->in[0].shape);
    const tess_chunks k = tess__chunks(tess__rows(&c->in[0].shape), width);
    c->scratch_bytes = (size_t)(k.n * width) * sizeof(float);
    return TESS_OK;
}

static tess_status relu_grad_cpu(const tess_exec *e)
{
    const tess_kernels *k = tess__kernels();
    const tess_dtype t = e->in[0].dtype;
    const int64_t width = tess__last(&e->in[0].shape);
    const tess_chunks c = tess__chunks(tess__rows(&e->in[0].shape), width);
    float *partial = e->scratch;
#pragma omp parallel for schedule(static) if (c.n > 1)
    for (int64_t i = 0; i < c.n; i++) {
        const tess_range r = tess__chunk(&c, i);
        const int64_t first = r.begin * width;
        tess__zero(partial + i * width, width);
        k->relu_grad(t, tess__at_mut(e->out[0].data, t, first), partial + i * width,
                     tess__at(e->in[0].data, t, first), tess__at(e->in[1].data, t, first), r.n,
                     width);
    }
    tess__sum_partials(e->out[1].data, partial, c.n, width);
    return TESS_OK;
}

static tess_status relu_grad_ref(const tess_exec *e)
{
    const int64_t n = tess_shape_count(&e->in[0].shape), width = tess__last(&e->in[0].shape);
    const float *y = e->in[0].data, *dy = e->in[1].data;
    float *dz = e->out[0].data, *dbias = e->out[1].data;
    for (int64_t j = 0; j < width; j++) {
        double sum = 0;
        for (int64_t i = j; i < n; i += width) {
            dz[i] = y[i] > 0 ? dy[i] : 0;
            sum += (double)dz[i];
        }
        dbias[j] = (float)sum;
    }
    return TESS_OK;
}

/* ---- bias_grad: dy (...,M) -> (M) f32 ------------------------------------------------------ */

static tess_status bias_grad_infer(tess_infer *c)
{
    c->out[0] =
        (tess_operand){.dtype = TESS_F32, .shape = TESS_SHAPE_OF(tess__last(&c->in[0].shape))};
    return TESS_OK;
}

static tess_status bias_grad_cpu(const tess_exec *e)
{
    const tess_kernels *k = tess__kernels();
    const tess_dtype t = e->in[0].dtype;
    const int64_t width = tess__last(&e->in[0].shape);
    const tess_chunks c = tess__chunks(tess__rows(&e->in[0].shape), width);
    float *partial = e->scratch;
#pragma omp parallel for schedule(static) if (c.n > 1)
    for (int64_t i = 0; i < c.n; i++) {
        const tess_range r = tess__chunk(&c, i);
        tess__zero(partial + i * width, width);
        k->column_sum(t, partial + i * width, tess__at(e->in[0].data, t, r.begin * width), r.n,
                      width);
    }
    tess__sum_partials(e->out[0].data, partial, c.n, width);
    return TESS_OK;
}

static tess_status bias_grad_ref(const tess_exec *e)
{
    const int64_t n = tess_shape_count(&e->in[0].shape), width = tess__last(&e->in[0].shape);
    const float *dy = e->in[0].data;
    for (int64_t j = 0; j < width; j++) {
        double sum = 0;
        for (int64_t i = j; i < n; i += width) {
            sum += (double)dy[i];
        }
        ((float *)e->out[0].data)[j] = (float)sum;
    }
    return TESS_OK;
}

static const char *onnx(const tess_onnx_emit *c)
{
    const linear_attrs *a = c->attrs;
    const char *bias = tess__onnx_in(c, 2), *residual = tess__onnx_in(c, 3);
    const char *y = TESS_ONNX(c->to, "MatMul", tess__onnx_in(c, 0), tess__onnx_in_transposed(c, 1));
    y = bias[0] ? TESS_ONNX(c->to, "Add", y, bias) : y;
    y = a->relu ? TESS_ONNX(c->to, "Relu", y) : y;
    return residual[0] ? TESS_ONNX(c->to, "Add", y, residual) : y;
}

/* ---- cases --------------------------------------------------------------------------------- */

static tess_value build_plain(tess_graph *g, const tess_value *in)
{
    return tess_linear(g, in[0], in[1], (tess_linear_options){0});
}

static tess_value build_relu(tess_graph *g, const tess_value *in)
{
    return tess_linear(g, in[0], in[1], (tess_linear_options){.bias = in[2], .relu = true});
}

static tess_value build_full(tess_graph *g, const tess_value *in)
{
    return tess_linear(g, in[0], in[1], (tess_linear_options){.bias = in[2], .residual = in[3]});
}

static const tess_case cases[] = {
    {.name = "one_row",
     .n_in = 2,
     .in = {{TESS_F32, {2, {1, 5}}}, {TESS_F32, {2, {3, 5}}}},
     .build = build_plain,
     .reduction = 5},
    {.name = "relu",
     .n_in = 3,
     .in = {{TESS_F32, {3, {3, 11, 24}}}, {TESS_F32, {2, {17, 24}}}, {TESS_F32, {1, {17}}}},
     .build = build_relu,
     .reduction = 33},
    {.name = "residual",
     .n_in = 4,
     .in = {{TESS_F32, {2, {45, 31}}},
            {TESS_F32, {2, {20, 31}}},
            {TESS_F32, {1, {20}}},
            {TESS_F32, {2, {45, 20}}}},
     .build = build_full,
     .reduction = 45},
    {.name = "bf16_relu",
     .n_in = 3,
     .in = {{TESS_BF16, {2, {70, 64}}}, {TESS_BF16, {2, {48, 64}}}, {TESS_F32, {1, {48}}}},
     .build = build_relu,
     .reduction = 70},
    {.name = "bf16_residual",
     .n_in = 4,
     .in = {{TESS_BF16, {3, {5, 9, 33}}},
            {TESS_BF16, {2, {21, 33}}},
            {TESS_F32, {1, {21}}},
            {TESS_BF16, {3, {5, 9, 21}}}},
     .build = build_full,
     .reduction = 45},
    {.name = "bf16_panels",
     .n_in = 4,
     .in = {{TESS_BF16, {2, {111, 46}}},
            {TESS_BF16, {2, {144, 46}}},
            {TESS_F32, {1, {144}}},
            {TESS_BF16, {2, {111, 144}}}},
     .build = build_full,
     .reduction = 144},
};

static const tess_op relu_grad_op = {
    .name = "relu_grad",
    .n_in_min = 2,
    .n_in_max = 2,
    .n_out = 2,
    .alias_mask = 3,
    .infer = relu_grad_infer,
    .prepare = sums_prepare,
    .cpu = relu_grad_cpu,
    .ref = relu_grad_ref,
};
static const tess_op bias_grad_op = {
    .name = "bias_grad",
    .n_in_min = 1,
    .n_in_max = 1,
    .n_out = 1,
    .infer = bias_grad_infer,
    .prepare = sums_prepare,
    .cpu = bias_grad_cpu,
    .ref = bias_grad_ref,
};
static const tess_op *const extra[] = {&relu_grad_op, &bias_grad_op, NULL};

const tess_op tess__op_linear = {
    .name = "linear",
    .n_in_min = 2,
    .n_in_max = 4,
    .n_out = 1,
    .attrs_bytes = sizeof(linear_attrs),
    .infer = infer,
    .vjp = vjp,
    .prepare = prepare,
    .unprepare = tess__matmul_free,
    .cpu = cpu,
    .ref = ref,
    .flops = flops,
    .print = print,
    .onnx = onnx,
    .extra = extra,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
