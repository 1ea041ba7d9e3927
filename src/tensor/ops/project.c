/* SPDX-License-Identifier: Apache-2.0 */
/* project: y = x w, weights stored input x output; also linear's gradient of x.
 *
 *   x (...,K), w (K,M) -> y (...,M), one type; f32 accumulation, y rounded once.
 *   Gradient: dx = dy w^T (linear), dw = x^T dy (outer).
 *   No aliasing.  Deterministic.  2 N M K FLOPs. */
#include "tensor/adapter.h"
#include "tensor/matmul.h"
#include "tensor/onnx.h"
#include "tensor/op.h"
#include "tensor/products.h"

tess_value tess_project(tess_graph *g, tess_value x, tess_value w)
{
    const tess_adapted *adapted = tess__adapted_find(g, w);
    tess_value y = TESS_NODE(g, &tess__op_project, NULL, x, w);
    return adapted ? tess__adapted_sum(g, adapted, x, w, y) : y;
}

static tess_status infer(tess_infer *c)
{
    const tess_operand *x = &c->in[0], *w = &c->in[1];
    TESS_TRY(tess__expect("w", w, x->dtype, 2));
    if (x->shape.rank < 1 || tess__last(&x->shape) != w->shape.dim[0]) {
        return TESS_FAIL(TESS_INVALID, "project: expected x (...,%lld), found last dimension %lld",
                         (long long)w->shape.dim[0],
                         (long long)(x->shape.rank < 1 ? 0 : tess__last(&x->shape)));
    }
    c->out[0] = *x;
    c->out[0].shape.dim[x->shape.rank - 1] = w->shape.dim[1];
    return TESS_OK;
}

static void vjp(tess_vjp *c)
{
    if (c->need[0]) {
        c->din[0] = tess_linear(c->g, c->dout[0], c->in[1], (tess_linear_options){0});
    }
    if (c->need[1]) {
        c->din[1] = tess__outer(c->g, c->in[0], c->dout[0]);
    }
}

tess_matmul_spec tess__project_spec(const tess_operand *in)
{
    const tess_operand *x = &in[0], *w = &in[1];
    return (tess_matmul_spec){
        .m = tess__rows(&x->shape),
        .n = w->shape.dim[1],
        .k = w->shape.dim[0],
        .in = x->dtype,
        .out = x->dtype,
        .pack = true,
    };
}

static tess_status prepare(tess_prepare *c)
{
    const tess_matmul_spec spec = tess__project_spec(c->in);
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
                                                             .c = e->out[0].data,
                                                             .scratch = e->scratch});
}

static tess_status ref(const tess_exec *e)
{
    const int64_t rows = tess__rows(&e->in[0].shape);
    const int64_t depth = e->in[1].shape.dim[0], n = e->in[1].shape.dim[1];
    const float *x = e->in[0].data, *w = e->in[1].data;
    for (int64_t i = 0; i < rows * n; i++) {
        double sum = 0;
        for (int64_t k = 0; k < depth; k++) {
            sum += (double)x[i / n * depth + k] * (double)w[k * n + i % n];
        }
        ((float *)e->out[0].data)[i] = (float)sum;
    }
    return TESS_OK;
}

static double flops(const tess_operand *in, const tess_operand *out, const void *attrs)
{
    (void)attrs;
    return 2.0 * (double)tess_shape_count(&out[0].shape) * (double)tess__last(&in[0].shape);
}

static const char *onnx(const tess_onnx_emit *c)
{
    return TESS_ONNX(c->to, "MatMul", tess__onnx_in(c, 0), tess__onnx_in(c, 1));
}

static tess_value build(tess_graph *g, const tess_value *in)
{
    return tess_project(g, in[0], in[1]);
}

static const tess_case cases[] = {
    {.name = "f32",
     .n_in = 2,
     .in = {{TESS_F32, {2, {13, 21}}}, {TESS_F32, {2, {21, 9}}}},
     .build = build,
     .reduction = 21},
    {.name = "one_row",
     .n_in = 2,
     .in = {{TESS_F32, {2, {1, 33}}}, {TESS_F32, {2, {33, 17}}}},
     .build = build,
     .reduction = 33},
    {.name = "bf16",
     .n_in = 2,
     .in = {{TESS_BF16, {3, {3, 12, 64}}}, {TESS_BF16, {2, {64, 32}}}},
     .build = build,
     .reduction = 64},
    {.name = "bf16_panels",
     .n_in = 2,
     .in = {{TESS_BF16, {2, {203, 70}}}, {TESS_BF16, {2, {70, 80}}}},
     .build = build,
     .reduction = 203},
};

const tess_op tess__op_project = {
    .name = "project",
    .n_in_min = 2,
    .n_in_max = 2,
    .n_out = 1,
    .infer = infer,
    .vjp = vjp,
    .prepare = prepare,
    .unprepare = tess__matmul_free,
    .cpu = cpu,
    .ref = ref,
    .flops = flops,
    .onnx = onnx,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
