/* SPDX-License-Identifier: Apache-2.0 */
/* scale: y = factor * x.
 *
 *   Gradient: factor * dy.  y may take x's memory.  Deterministic; one pass. */
#include "tensor/onnx.h"
#include "tensor/parallel.h"
#include "tensor/ops/scale.h"

tess_value tess_scale(tess_graph *g, tess_value x, float factor)
{
    const scale_attrs a = {.factor = factor};
    return TESS_NODE(g, &tess__op_scale, &a, x);
}

static tess_status infer(tess_infer *c)
{
    c->out[0] = c->in[0];
    return TESS_OK;
}

static void vjp(tess_vjp *c)
{
    c->din[0] = tess_scale(c->g, c->dout[0], ((const scale_attrs *)c->attrs)->factor);
}

static tess_status cpu(const tess_exec *e)
{
    const tess_kernels *k = tess__kernels();
    const scale_attrs *a = e->attrs;
    const tess_dtype t = e->out[0].dtype;
    const tess_chunks c = tess__chunks(tess_shape_count(&e->out[0].shape), 1);
#pragma omp parallel for schedule(static) if (c.n > 1)
    for (int64_t i = 0; i < c.n; i++) {
        const tess_range r = tess__chunk(&c, i);
        k->scale(t, tess__at_mut(e->out[0].data, t, r.begin), tess__at(e->in[0].data, t, r.begin),
                 a->factor, r.n);
    }
    return TESS_OK;
}

static tess_status ref(const tess_exec *e)
{
    const float *x = e->in[0].data;
    float *y = e->out[0].data;
    for (int64_t i = 0; i < tess_shape_count(&e->out[0].shape); i++) {
        y[i] = x[i] * ((const scale_attrs *)e->attrs)->factor;
    }
    return TESS_OK;
}

static void print(const void *attrs, tess_buf *out)
{
    tess_buf_addf(out, "%g", (double)((const scale_attrs *)attrs)->factor);
}

static const char *onnx(const tess_onnx_emit *c)
{
    const scale_attrs *a = c->attrs;
    return TESS_ONNX(c->to, "Mul", tess__onnx_in(c, 0), tess__onnx_float(c->to, a->factor));
}

static tess_value build(tess_graph *g, const tess_value *in)
{
    return tess_scale(g, in[0], -0.375f);
}

static const tess_case cases[] = {
    {.name = "f32", .n_in = 1, .in = {{TESS_F32, {1, {41}}}}, .build = build},
    {.name = "bf16", .n_in = 1, .in = {{TESS_BF16, {2, {300, 65}}}}, .build = build},
};

const tess_op tess__op_scale = {
    .name = "scale",
    .n_in_min = 1,
    .n_in_max = 1,
    .n_out = 1,
    .attrs_bytes = sizeof(scale_attrs),
    .alias_mask = 1,
    .infer = infer,
    .vjp = vjp,
    .cpu = cpu,
    .ref = ref,
    .print = print,
    .onnx = onnx,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
