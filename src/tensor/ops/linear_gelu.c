/* SPDX-License-Identifier: Apache-2.0 */
/* linear_gelu: z = x w^T + bias, y = gelu_tanh(z), and the same backwards.  The fusing of linear
 * and unary, and of project and unary_grad, where a library does both in one pass.
 *
 *   x (...,K), w (M,K) of one type, bias (M) f32 or absent -> y (...,M), z like y, or without
 *   elements where it is not kept.
 *   project_gelu_grad: dy (...,K), w (K,M), z (...,M) -> dz like z = (dy w) gelu_tanh'(z).
 *   Not differentiable.  No aliasing.  Deterministic.  2 N M K FLOPs. */
#include "tensor/fuse.h"
#include "tensor/parallel.h"
#include "tensor/products.h"
#include "tensor/ops/linear_gelu.h"

static const tess_op grad_op;

tess_value tess__linear_gelu(tess_graph *g, tess_value x, tess_value w, tess_value bias, bool keeps)
{
    const linear_gelu_attrs a = {.keeps = keeps};
    return TESS_NODE(g, &tess__op_linear_gelu, &a, x, w, bias);
}

tess_value tess__project_gelu_grad(tess_graph *g, tess_value dy, tess_value w, tess_value z)
{
    return TESS_NODE(g, &grad_op, NULL, dy, w, z);
}

static tess_status infer(tess_infer *c)
{
    const tess_operand *x = &c->in[0], *w = &c->in[1];
    TESS_TRY(tess__expect("w", w, x->dtype, 2));
    if (x->shape.rank < 1 || tess__last(&x->shape) != w->shape.dim[1]) {
        return TESS_FAIL(TESS_INVALID, "linear_gelu: expected rows of %lld",
                         (long long)w->shape.dim[1]);
    }
    tess_operand y = *x;
    y.shape.dim[y.shape.rank - 1] = w->shape.dim[0];
    const tess_operand bias = {.dtype = TESS_F32, .shape = TESS_SHAPE_OF(w->shape.dim[0])};
    if (c->in[2].shape.rank >= 0) {
        TESS_TRY(tess__expect_like("bias", &c->in[2], &bias));
    }
    c->out[0] = c->out[1] = y;
    if (!((const linear_gelu_attrs *)c->attrs)->keeps) {
        c->out[1].shape = TESS_SHAPE_OF(0);
    }
    return TESS_OK;
}

tess_matmul_spec tess__linear_gelu_spec(const tess_operand *in)
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
    };
}

static tess_status prepare_product(tess_prepare *c, const tess_matmul_spec *spec)
{
    tess_matmul *m = NULL;
    TESS_TRY(tess__matmul_new(spec, &m));
    c->prepared = m;
    c->scratch_bytes = tess__matmul_scratch(m);
    return TESS_OK;
}

static tess_status prepare(tess_prepare *c)
{
    const tess_matmul_spec spec = tess__linear_gelu_spec(c->in);
    return prepare_product(c, &spec);
}

static tess_status cpu(const tess_exec *e)
{
    const bool keeps = ((const linear_gelu_attrs *)e->attrs)->keeps;
    void *y = e->out[0].data, *z = keeps ? e->out[1].data : y;
    TESS_TRY(tess__matmul_run(e->prepared, &(tess_matmul_args){.a = e->in[0].data,
                                                               .b = e->in[1].data,
                                                               .bias = e->in[2].data,
                                                               .c = z,
                                                               .scratch = e->scratch}));
    tess__kernels()->unary(TESS_GELU_TANH, e->out[0].dtype, y, z,
                           tess_shape_count(&e->out[0].shape));
    return TESS_OK;
}

static tess_status ref(const tess_exec *e)
{
    const int64_t rows = tess__rows(&e->in[0].shape);
    const int64_t n = e->in[1].shape.dim[0], depth = e->in[1].shape.dim[1];
    const float *x = e->in[0].data, *w = e->in[1].data, *bias = e->in[2].data;
    for (int64_t i = 0; i < rows * n; i++) {
        double z = bias ? (double)bias[i % n] : 0;
        for (int64_t k = 0; k < depth; k++) {
            z += (double)x[i / n * depth + k] * (double)w[i % n * depth + k];
        }
        ((float *)e->out[0].data)[i] = (float)tess__unary_value(TESS_GELU_TANH, z);
        if (((const linear_gelu_attrs *)e->attrs)->keeps) {
            ((float *)e->out[1].data)[i] = (float)z;
        }
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
    tess_buf_adds(out, ((const linear_gelu_attrs *)attrs)->keeps ? "keeps" : "");
}

/* ---- backwards ----------------------------------------------------------------------------- */

static tess_status grad_infer(tess_infer *c)
{
    const tess_operand *dy = &c->in[0], *w = &c->in[1], *z = &c->in[2];
    TESS_TRY(tess__expect("w", w, dy->dtype, 2));
    if (dy->shape.rank < 1 || tess__last(&dy->shape) != w->shape.dim[0]) {
        return TESS_FAIL(TESS_INVALID, "project_gelu_grad: expected rows of %lld",
                         (long long)w->shape.dim[0]);
    }
    c->out[0] = *dy;
    c->out[0].shape.dim[dy->shape.rank - 1] = w->shape.dim[1];
    return tess__expect_like("z", z, &c->out[0]);
}

static tess_status grad_prepare(tess_prepare *c)
{
    const tess_matmul_spec spec = tess__project_spec(c->in);
    return prepare_product(c, &spec);
}

static tess_status grad_cpu(const tess_exec *e)
{
    void *dz = e->out[0].data;
    TESS_TRY(tess__matmul_run(
        e->prepared, &(tess_matmul_args){
                         .a = e->in[0].data, .b = e->in[1].data, .c = dz, .scratch = e->scratch}));
    tess__kernels()->unary_grad(TESS_GELU_TANH, e->out[0].dtype, dz, e->in[2].data, dz,
                                tess_shape_count(&e->out[0].shape));
    return TESS_OK;
}

static tess_status grad_ref(const tess_exec *e)
{
    const int64_t rows = tess__rows(&e->in[0].shape);
    const int64_t depth = e->in[1].shape.dim[0], n = e->in[1].shape.dim[1];
    const float *dy = e->in[0].data, *w = e->in[1].data;
    for (int64_t i = 0; i < rows * n; i++) {
        const double z = (double)((const float *)e->in[2].data)[i], h = 1e-5;
        double sum = 0;
        for (int64_t k = 0; k < depth; k++) {
            sum += (double)dy[i / n * depth + k] * (double)w[k * n + i % n];
        }
        ((float *)e->out[0].data)[i] = (float)(sum *
                                               (tess__unary_value(TESS_GELU_TANH, z + h) -
                                                tess__unary_value(TESS_GELU_TANH, z - h)) /
                                               (2 * h));
    }
    return TESS_OK;
}

/* ---- cases --------------------------------------------------------------------------------- */

static tess_value build(tess_graph *g, const tess_value *in)
{
    return tess__linear_gelu(g, in[0], in[1], in[2], true);
}

static tess_value build_alone(tess_graph *g, const tess_value *in)
{
    return tess__linear_gelu(g, in[0], in[1], 0, false);
}

static tess_value build_grad(tess_graph *g, const tess_value *in)
{
    return tess__project_gelu_grad(g, in[0], in[1], in[2]);
}

static const tess_case cases[] = {
    {.name = "f32",
     .n_in = 3,
     .in = {{TESS_F32, {2, {11, 24}}}, {TESS_F32, {2, {17, 24}}}, {TESS_F32, {1, {17}}}},
     .build = build,
     .reduction = 25},
    {.name = "bf16",
     .n_in = 3,
     .in = {{TESS_BF16, {3, {2, 9, 40}}}, {TESS_BF16, {2, {24, 40}}}, {TESS_F32, {1, {24}}}},
     .build = build,
     .reduction = 41},
    {.name = "bf16_odd",
     .n_in = 3,
     .in = {{TESS_BF16, {2, {9, 40}}}, {TESS_BF16, {2, {21, 40}}}, {TESS_F32, {1, {21}}}},
     .build = build,
     .reduction = 41},
    {.name = "bf16_alone",
     .n_in = 2,
     .in = {{TESS_BF16, {2, {18, 40}}}, {TESS_BF16, {2, {24, 40}}}},
     .build = build_alone,
     .reduction = 40},
    {.name = "f32_grad",
     .n_in = 3,
     .in = {{TESS_F32, {2, {11, 24}}}, {TESS_F32, {2, {24, 17}}}, {TESS_F32, {2, {11, 17}}}},
     .build = build_grad,
     .reduction = 24},
    {.name = "bf16_grad",
     .n_in = 3,
     .in = {{TESS_BF16, {2, {18, 40}}}, {TESS_BF16, {2, {40, 24}}}, {TESS_BF16, {2, {18, 24}}}},
     .build = build_grad,
     .reduction = 40},
};

static const tess_op grad_op = {
    .name = "project_gelu_grad",
    .n_in_min = 3,
    .n_in_max = 3,
    .n_out = 1,
    .flags = TESS_OP_ROUNDS,
    .infer = grad_infer,
    .prepare = grad_prepare,
    .unprepare = tess__matmul_free,
    .cpu = grad_cpu,
    .ref = grad_ref,
    .flops = flops,
};
static const tess_op *const extra[] = {&grad_op, NULL};

const tess_op tess__op_linear_gelu = {
    .name = "linear_gelu",
    .n_in_min = 2,
    .n_in_max = 3,
    .n_out = 2,
    .attrs_bytes = sizeof(linear_gelu_attrs),
    .flags = TESS_OP_ROUNDS,
    .infer = infer,
    .prepare = prepare,
    .unprepare = tess__matmul_free,
    .cpu = cpu,
    .ref = ref,
    .flops = flops,
    .print = print,
    .extra = extra,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
