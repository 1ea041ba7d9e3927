/* SPDX-License-Identifier: Apache-2.0 */
/* add: y = a + b, of one shape and type; the sum is rounded once.
 *
 *   Gradient: dy to both.  y may take a's or b's memory.  Deterministic; one pass. */
#include "tensor/onnx.h"
#include "tensor/parallel.h"

tess_value tess_add(tess_graph *g, tess_value a, tess_value b)
{
    return TESS_NODE(g, &tess__op_add, NULL, a, b);
}

static tess_status infer(tess_infer *c)
{
    TESS_TRY(tess__expect_like("b", &c->in[1], &c->in[0]));
    c->out[0] = c->in[0];
    return TESS_OK;
}

static void vjp(tess_vjp *c)
{
    c->din[0] = c->dout[0];
    c->din[1] = c->dout[0];
}

static tess_status cpu(const tess_exec *e)
{
    const tess_kernels *k = tess__kernels();
    const tess_dtype t = e->out[0].dtype;
    const tess_chunks c = tess__chunks(tess_shape_count(&e->out[0].shape), 1);
#pragma omp parallel for schedule(static) if (c.n > 1)
    for (int64_t i = 0; i < c.n; i++) {
        const tess_range r = tess__chunk(&c, i);
        k->add(t, tess__at_mut(e->out[0].data, t, r.begin), tess__at(e->in[0].data, t, r.begin),
               tess__at(e->in[1].data, t, r.begin), r.n);
    }
    return TESS_OK;
}

static tess_status ref(const tess_exec *e)
{
    const float *a = e->in[0].data, *b = e->in[1].data;
    float *y = e->out[0].data;
    for (int64_t i = 0; i < tess_shape_count(&e->out[0].shape); i++) {
        y[i] = a[i] + b[i];
    }
    return TESS_OK;
}

static double flops(const tess_operand *in, const tess_operand *out, const void *attrs)
{
    (void)in, (void)attrs;
    return (double)tess_shape_count(&out[0].shape);
}

static const char *onnx(const tess_onnx_emit *c)
{
    return TESS_ONNX(c->to, "Add", tess__onnx_in(c, 0), tess__onnx_in(c, 1));
}

static tess_value build(tess_graph *g, const tess_value *in)
{
    return tess_add(g, in[0], in[1]);
}

static const tess_case cases[] = {
    {.name = "f32",
     .n_in = 2,
     .in = {{TESS_F32, {2, {7, 19}}}, {TESS_F32, {2, {7, 19}}}},
     .build = build},
    {.name = "bf16",
     .n_in = 2,
     .in = {{TESS_BF16, {3, {9, 65, 67}}}, {TESS_BF16, {3, {9, 65, 67}}}},
     .build = build},
};

const tess_op tess__op_add = {
    .name = "add",
    .n_in_min = 2,
    .n_in_max = 2,
    .n_out = 1,
    .alias_mask = 3,
    .infer = infer,
    .vjp = vjp,
    .cpu = cpu,
    .ref = ref,
    .flops = flops,
    .onnx = onnx,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
