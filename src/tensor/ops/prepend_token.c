/* SPDX-License-Identifier: Apache-2.0 */
/* prepend_token: one learned token before the rows of each entry.
 *
 *   x (B,P,C), token (C) f32 -> y (B,P+1,C) like x, token first.  Gradient: dx = dy without the
 *   first rows, dtoken = their sum over the batch in its order, f32.  No aliasing.  Deterministic;
 *   copies |y| elements. */
#include "tensor/onnx.h"
#include "tensor/parallel.h"

#include <string.h>

static const tess_op grad_op;

tess_value tess_prepend_token(tess_graph *g, tess_value x, tess_value token)
{
    return TESS_NODE(g, &tess__op_prepend_token, NULL, x, token);
}

static tess_status infer(tess_infer *c)
{
    const tess_operand *x = &c->in[0];
    TESS_TRY(tess__expect("x", x, x->dtype, 3));
    const tess_operand token = {.dtype = TESS_F32, .shape = TESS_SHAPE_OF(x->shape.dim[2])};
    TESS_TRY(tess__expect_like("token", &c->in[1], &token));
    c->out[0] = *x;
    c->out[0].shape.dim[1]++;
    return TESS_OK;
}

static tess_status grad_infer(tess_infer *c)
{
    TESS_TRY(tess__expect("dy", &c->in[0], c->in[0].dtype, 3));
    c->out[0] = c->in[0];
    c->out[0].shape.dim[1]--;
    c->out[1] = (tess_operand){.dtype = TESS_F32, .shape = TESS_SHAPE_OF(c->in[0].shape.dim[2])};
    return TESS_OK;
}

static void vjp(tess_vjp *c)
{
    tess_value d = TESS_NODE(c->g, &grad_op, NULL, c->dout[0]);
    c->din[0] = d;
    c->din[1] = d ? d + 1 : 0;
}

static tess_status cpu(const tess_exec *e)
{
    const tess_kernels *k = tess__kernels();
    const tess_shape *s = &e->in[0].shape;
    const tess_dtype t = e->in[0].dtype;
    const int64_t rows = s->dim[1], width = s->dim[2];
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < s->dim[0]; b++) {
        const int64_t first = b * (rows + 1) * width;
        k->convert(t, tess__at_mut(e->out[0].data, t, first), TESS_F32, e->in[1].data, width);
        k->convert(t, tess__at_mut(e->out[0].data, t, first + width), t,
                   tess__at(e->in[0].data, t, b * rows * width), rows * width);
    }
    return TESS_OK;
}

static tess_status grad_cpu(const tess_exec *e)
{
    const tess_kernels *k = tess__kernels();
    const tess_shape *s = &e->in[0].shape;
    const tess_dtype t = e->in[0].dtype;
    const int64_t rows = s->dim[1] - 1, width = s->dim[2];
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < s->dim[0]; b++) {
        k->convert(t, tess__at_mut(e->out[0].data, t, b * rows * width), t,
                   tess__at(e->in[0].data, t, (b * (rows + 1) + 1) * width), rows * width);
    }
    tess__zero(e->out[1].data, width);
    for (int64_t b = 0; b < s->dim[0]; b++) {
        k->axpy(t, e->out[1].data, tess__at(e->in[0].data, t, b * (rows + 1) * width), 1.0f, width);
    }
    return TESS_OK;
}

static tess_status ref(const tess_exec *e)
{
    const int64_t rows = e->out[0].shape.dim[1], width = e->out[0].shape.dim[2];
    for (int64_t i = 0; i < tess_shape_count(&e->out[0].shape); i++) {
        const int64_t row = i / width % rows, b = i / width / rows, j = i % width;
        const float *x = e->in[0].data, *token = e->in[1].data;
        ((float *)e->out[0].data)[i] =
            row == 0 ? token[j] : x[(b * (rows - 1) + row - 1) * width + j];
    }
    return TESS_OK;
}

static tess_status grad_ref(const tess_exec *e)
{
    const int64_t rows = e->in[0].shape.dim[1], width = e->in[0].shape.dim[2];
    memset(e->out[1].data, 0, (size_t)width * sizeof(float));
    for (int64_t i = 0; i < tess_shape_count(&e->in[0].shape); i++) {
        const int64_t row = i / width % rows, b = i / width / rows, j = i % width;
        const float dy = ((const float *)e->in[0].data)[i];
        if (row == 0) {
            ((float *)e->out[1].data)[j] += dy;
        } else {
            ((float *)e->out[0].data)[(b * (rows - 1) + row - 1) * width + j] = dy;
        }
    }
    return TESS_OK;
}

static const char *onnx(const tess_onnx_emit *c)
{
    tess_shape one = c->out[0].shape;
    one.dim[1] = 1;
    const char *token = tess__onnx_expand(c->to, tess__onnx_in(c, 1), &one);
    return tess__onnx_concat(c->to, token, tess__onnx_in(c, 0), 1);
}

static tess_value build(tess_graph *g, const tess_value *in)
{
    return tess_prepend_token(g, in[0], in[1]);
}

static const tess_case cases[] = {
    {.name = "f32",
     .n_in = 2,
     .in = {{TESS_F32, {3, {4, 5, 19}}}, {TESS_F32, {1, {19}}}},
     .build = build,
     .reduction = 4},
    {.name = "bf16",
     .n_in = 2,
     .in = {{TESS_BF16, {3, {30, 2, 40}}}, {TESS_F32, {1, {40}}}},
     .build = build,
     .reduction = 30},
};

static const tess_op grad_op = {
    .name = "prepend_token_grad",
    .n_in_min = 1,
    .n_in_max = 1,
    .n_out = 2,
    .infer = grad_infer,
    .cpu = grad_cpu,
    .ref = grad_ref,
};
static const tess_op *const extra[] = {&grad_op, NULL};

const tess_op tess__op_prepend_token = {
    .name = "prepend_token",
    .n_in_min = 2,
    .n_in_max = 2,
    .n_out = 1,
    .infer = infer,
    .vjp = vjp,
    .cpu = cpu,
    .ref = ref,
    .onnx = onnx,
    .extra = extra,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
