/* SPDX-License-Identifier: Apache-2.0 */
/* repeat_rows: one row, many times.
 *
 *   x (1,C) f32, y (n,C) f32 or bf16: y[i] = x[0].  Gradient: dx[0] = sum_i dy[i], in the order of
 * i. No aliasing; deterministic; writes n C elements. */
#include "tensor/kernels.h"
#include "tensor/onnx.h"
#include "tensor/op.h"

#include <string.h>

typedef struct repeat_attrs {
    int64_t n;
    tess_dtype dtype;
} repeat_attrs;

static const tess_op grad_op;

tess_value tess_repeat_rows(tess_graph *g, tess_value x, int64_t n, tess_dtype dtype)
{
    repeat_attrs a = {.n = n, .dtype = dtype};
    return TESS_NODE(g, &tess__op_repeat_rows, &a, x);
}

static tess_status infer(tess_infer *c)
{
    const repeat_attrs *a = c->attrs;
    TESS_TRY(tess__expect("x", &c->in[0], TESS_F32, 2));
    if (c->in[0].shape.dim[0] != 1 || a->n < 0) {
        return TESS_FAIL(TESS_INVALID, "x: expected one row, found %lld",
                         (long long)c->in[0].shape.dim[0]);
    }
    c->out[0] =
        (tess_operand){.dtype = a->dtype, .shape = TESS_SHAPE_OF(a->n, c->in[0].shape.dim[1])};
    return TESS_OK;
}

static void vjp(tess_vjp *c)
{
    c->din[0] = TESS_NODE(c->g, &grad_op, NULL, c->dout[0]);
}

static tess_status cpu(const tess_exec *e)
{
    const tess_kernels *k = tess__kernels();
    int64_t n = e->out[0].shape.dim[0], width = e->out[0].shape.dim[1];
    size_t row = (size_t)width * tess_dtype_bytes(e->out[0].dtype);
    for (int64_t i = 0; i < n; i++) {
        k->convert(e->out[0].dtype, (uint8_t *)e->out[0].data + (size_t)i * row, TESS_F32,
                   e->in[0].data, width);
    }
    return TESS_OK;
}

static tess_status grad_infer(tess_infer *c)
{
    c->out[0] = (tess_operand){.dtype = TESS_F32, .shape = TESS_SHAPE_OF(1, c->in[0].shape.dim[1])};
    return TESS_OK;
}

static tess_status grad_cpu(const tess_exec *e)
{
    int64_t n = e->in[0].shape.dim[0], width = e->in[0].shape.dim[1];
    memset(e->out[0].data, 0, (size_t)width * sizeof(float));
    tess__kernels()->column_sum(e->in[0].dtype, e->out[0].data, e->in[0].data, n, width);
    return TESS_OK;
}

static tess_status ref(const tess_exec *e)
{
    int64_t n = e->out[0].shape.dim[0], width = e->out[0].shape.dim[1];
    for (int64_t i = 0; i < n; i++) {
        memcpy((float *)e->out[0].data + i * width, e->in[0].data, (size_t)width * sizeof(float));
    }
    return TESS_OK;
}

static tess_status grad_ref(const tess_exec *e)
{
    int64_t n = e->in[0].shape.dim[0], width = e->in[0].shape.dim[1];
    for (int64_t j = 0; j < width; j++) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++) {
            sum += (double)((const float *)e->in[0].data)[i * width + j];
        }
        ((float *)e->out[0].data)[j] = (float)sum;
    }
    return TESS_OK;
}

static const char *onnx(const tess_onnx_emit *c)
{
    return tess__onnx_expand(c->to, tess__onnx_in(c, 0), &c->out[0].shape);
}

static tess_value build_f32(tess_graph *g, const tess_value *in)
{
    return tess_repeat_rows(g, in[0], 9, TESS_F32);
}

static tess_value build_bf16(tess_graph *g, const tess_value *in)
{
    return tess_repeat_rows(g, in[0], 3, TESS_BF16);
}

static const tess_case cases[] = {
    {.name = "f32",
     .n_in = 1,
     .in = {{TESS_F32, {2, {1, 33}}, TESS_FILL_NORMAL, 0, false}},
     .build = build_f32,
     .reduction = 9},
    {.name = "bf16",
     .n_in = 1,
     .in = {{TESS_F32, {2, {1, 5}}, TESS_FILL_NORMAL, 0, false}},
     .build = build_bf16,
     .reduction = 3},
    {.name = "packs_bf16",
     .n_in = 1,
     .in = {{TESS_F32, {2, {1, 40}}, TESS_FILL_NORMAL, 0, false}},
     .build = build_bf16,
     .reduction = 3},
};

static const tess_op grad_op = {
    .name = "repeat_rows_grad",
    .n_in_min = 1,
    .n_in_max = 1,
    .n_out = 1,
    .infer = grad_infer,
    .cpu = grad_cpu,
    .ref = grad_ref,
};
static const tess_op *const extra[] = {&grad_op, NULL};

const tess_op tess__op_repeat_rows = {
    .name = "repeat_rows",
    .n_in_min = 1,
    .n_in_max = 1,
    .n_out = 1,
    .attrs_bytes = sizeof(repeat_attrs),
    .infer = infer,
    .vjp = vjp,
    .cpu = cpu,
    .ref = ref,
    .onnx = onnx,
    .extra = extra,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
