/* SPDX-License-Identifier: Apache-2.0 */
/* l2norm: rows of unit length, y = x / max(|x|, 1e-12).
 *
 *   x (...,C) f32 or bf16 -> y (...,C) f32, norm (N) f32.
 *   Gradient: dx = (dy - y (y . dy)) / norm, and 0 (not dy / 1e-12) for a row shorter than the
 *   limit: a row of zeros is padding, and a gradient of 1e12 would end the run.
 *   No aliasing.  Deterministic; one pass. */
#include "tensor/onnx.h"
#include "tensor/parallel.h"

#include <math.h>

typedef struct grad_attrs {
    tess_dtype dtype;
} grad_attrs;

static const tess_op grad_op;

tess_value tess_l2norm(tess_graph *g, tess_value x)
{
    return TESS_NODE(g, &tess__op_l2norm, NULL, x);
}

static tess_status infer(tess_infer *c)
{
    const tess_operand *x = &c->in[0];
    if (x->shape.rank < 1 || (x->dtype != TESS_F32 && x->dtype != TESS_BF16)) {
        return TESS_FAIL(TESS_INVALID,
                         "l2norm: expected x (...,C) f32 or bf16, found %s of rank %d",
                         tess_dtype_name(x->dtype), x->shape.rank);
    }
    c->out[0] = (tess_operand){.dtype = TESS_F32, .shape = x->shape};
    c->out[1] = (tess_operand){.dtype = TESS_F32, .shape = TESS_SHAPE_OF(tess__rows(&x->shape))};
    return TESS_OK;
}

static tess_status grad_infer(tess_infer *c)
{
    TESS_TRY(tess__expect_like("dy", &c->in[2], &c->in[0]));
    c->out[0] =
        (tess_operand){.dtype = ((const grad_attrs *)c->attrs)->dtype, .shape = c->in[0].shape};
    return TESS_OK;
}

static void vjp(tess_vjp *c)
{
    const grad_attrs a = {.dtype = tess_value_dtype(c->g, c->in[0])};
    c->din[0] = TESS_NODE(c->g, &grad_op, &a, c->out[0], c->out[1], c->dout[0]);
}

static tess_status cpu(const tess_exec *e)
{
    const tess_kernels *k = tess__kernels();
    const int64_t width = tess__last(&e->in[0].shape);
    const tess_chunks c = tess__chunks(tess__rows(&e->in[0].shape), width);
#pragma omp parallel for schedule(static) if (c.n > 1)
    for (int64_t i = 0; i < c.n; i++) {
        const tess_range r = tess__chunk(&c, i);
        k->l2norm(e->in[0].dtype, (float *)e->out[0].data + r.begin * width,
                  (float *)e->out[1].data + r.begin,
                  tess__at(e->in[0].data, e->in[0].dtype, r.begin * width), r.n, width);
    }
    return TESS_OK;
}

static tess_status grad_cpu(const tess_exec *e)
{
    const tess_kernels *k = tess__kernels();
    const int64_t width = tess__last(&e->in[0].shape);
    const tess_dtype t = e->out[0].dtype;
    const tess_chunks c = tess__chunks(tess__rows(&e->in[0].shape), width);
#pragma omp parallel for schedule(static) if (c.n > 1)
    for (int64_t i = 0; i < c.n; i++) {
        const tess_range r = tess__chunk(&c, i);
        k->l2norm_grad(t, tess__at_mut(e->out[0].data, t, r.begin * width),
                       (const float *)e->in[0].data + r.begin * width,
                       (const float *)e->in[1].data + r.begin,
                       (const float *)e->in[2].data + r.begin * width, r.n, width);
    }
    return TESS_OK;
}

static tess_status ref(const tess_exec *e)
{
    const int64_t width = tess__last(&e->in[0].shape);
    for (int64_t r = 0; r < tess__rows(&e->in[0].shape); r++) {
        const float *x = (const float *)e->in[0].data + r * width;
        double squares = 0;
        for (int64_t j = 0; j < width; j++) {
            squares += (double)x[j] * (double)x[j];
        }
        const double norm = fmax(sqrt(squares), 1e-12);
        for (int64_t j = 0; j < width; j++) {
            ((float *)e->out[0].data)[r * width + j] = (float)((double)x[j] / norm);
        }
        ((float *)e->out[1].data)[r] = (float)norm;
    }
    return TESS_OK;
}

static tess_status grad_ref(const tess_exec *e)
{
    const int64_t width = tess__last(&e->in[0].shape);
    for (int64_t r = 0; r < tess__rows(&e->in[0].shape); r++) {
        const float *y = (const float *)e->in[0].data + r * width;
        const float *dy = (const float *)e->in[2].data + r * width;
        const float norm = ((const float *)e->in[1].data)[r];
        double dot = 0;
        for (int64_t j = 0; j < width; j++) {
            dot += (double)y[j] * (double)dy[j];
        }
        for (int64_t j = 0; j < width; j++) {
            const double d = ((double)dy[j] - (double)y[j] * dot) / (double)norm;
            ((float *)e->out[0].data)[r * width + j] = norm > 1e-12f ? (float)d : 0;
        }
    }
    return TESS_OK;
}

/* In f32 also where the model is f16: squares would overflow, and 1e-12 would be 0. */
static const char *onnx(const tess_onnx_emit *c)
{
    const char *x = tess__onnx_in(c, 0);
    x = tess__onnx_float_type(c->to) == TESS_ONNX_FLOAT
            ? x
            : tess__onnx_cast(c->to, x, TESS_ONNX_FLOAT);
    const char *norm = tess__onnx_add(
        c->to, (tess_onnx_node){.op = "ReduceL2", .in = {x}, .attr = {TESS_ONNX_INTS("axes", -1)}},
        NULL);
    norm = TESS_ONNX(c->to, "Max", norm, tess__onnx_float32(c->to, 1e-12f));
    return TESS_ONNX(c->to, "Div", x, norm);
}

static tess_value build(tess_graph *g, const tess_value *in)
{
    return tess_l2norm(g, in[0]);
}

static const tess_case cases[] = {
    {.name = "f32", .n_in = 1, .in = {{TESS_F32, {2, {9, 37}}}}, .build = build, .reduction = 37},
    {.name = "bf16",
     .n_in = 1,
     .in = {{TESS_BF16, {2, {130, 192}}}},
     .build = build,
     .reduction = 192},
};

static const tess_op grad_op = {
    .name = "l2norm_grad",
    .n_in_min = 3,
    .n_in_max = 3,
    .n_out = 1,
    .attrs_bytes = sizeof(grad_attrs),
    .infer = grad_infer,
    .cpu = grad_cpu,
    .ref = grad_ref,
};
static const tess_op *const extra[] = {&grad_op, NULL};

const tess_op tess__op_l2norm = {
    .name = "l2norm",
    .n_in_min = 1,
    .n_in_max = 1,
    .n_out = 2,
    .infer = infer,
    .vjp = vjp,
    .cpu = cpu,
    .ref = ref,
    .onnx = onnx,
    .extra = extra,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
