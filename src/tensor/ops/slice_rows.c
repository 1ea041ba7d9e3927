/* SPDX-License-Identifier: Apache-2.0 */
/* slice_rows: some consecutive rows of a matrix.
 *
 *   x (N,C), y (n,C): y = x[begin .. begin+n).  Gradient: dy in its place, zeros elsewhere.
 *   f32 or bf16; no aliasing; deterministic; copies |y| elements (the gradient writes |x|). */
#include "tensor/kernels.h"
#include "tensor/onnx.h"
#include "tensor/op.h"
#include "tensor/ops/slice_rows.h"

#include <string.h>

static const tess_op grad_op;

tess_value tess_slice_rows(tess_graph *g, tess_value x, int64_t begin, int64_t n)
{
    slice_attrs a = {.begin = begin, .n = n};
    return TESS_NODE(g, &tess__op_slice_rows, &a, x);
}

static tess_status infer(tess_infer *c)
{
    const slice_attrs *a = c->attrs;
    const tess_operand *x = &c->in[0];
    if (x->shape.rank != 2 || a->begin < 0 || a->n < 0 || a->begin > x->shape.dim[0] - a->n) {
        return TESS_FAIL(TESS_INVALID, "rows %lld..%lld are not inside x", (long long)a->begin,
                         (long long)(a->begin + a->n));
    }
    c->out[0] = (tess_operand){.dtype = x->dtype, .shape = TESS_SHAPE_OF(a->n, x->shape.dim[1])};
    return TESS_OK;
}

static void vjp(tess_vjp *c)
{
    const slice_attrs *a = c->attrs;
    tess_shape x = tess_value_shape(c->g, c->in[0]);
    slice_grad_attrs ga = {.begin = a->begin, .n_rows = x.dim[0]};
    c->din[0] = TESS_NODE(c->g, &grad_op, &ga, c->dout[0]);
}

static tess_status cpu(const tess_exec *e)
{
    const slice_attrs *a = e->attrs;
    size_t row = (size_t)tess__last(&e->in[0].shape) * tess_dtype_bytes(e->in[0].dtype);
    memcpy(e->out[0].data, (const uint8_t *)e->in[0].data + (size_t)a->begin * row,
           (size_t)a->n * row);
    return TESS_OK;
}

static tess_status grad_infer(tess_infer *c)
{
    const slice_grad_attrs *a = c->attrs;
    c->out[0] = (tess_operand){.dtype = c->in[0].dtype,
                               .shape = TESS_SHAPE_OF(a->n_rows, c->in[0].shape.dim[1])};
    return TESS_OK;
}

static tess_status grad_cpu(const tess_exec *e)
{
    const slice_grad_attrs *a = e->attrs;
    size_t row = (size_t)tess__last(&e->in[0].shape) * tess_dtype_bytes(e->in[0].dtype);
    size_t before = (size_t)a->begin * row, n = (size_t)e->in[0].shape.dim[0] * row;
    uint8_t *dx = e->out[0].data;
    memset(dx, 0, before);
    memcpy(dx + before, e->in[0].data, n);
    memset(dx + before + n, 0, (size_t)a->n_rows * row - before - n);
    return TESS_OK;
}

static void print(const void *attrs, tess_buf *out)
{
    const slice_attrs *a = attrs;
    tess_buf_addf(out, "%lld+%lld", (long long)a->begin, (long long)a->n);
}

static const char *onnx(const tess_onnx_emit *c)
{
    const slice_attrs *a = c->attrs;
    if (tess__onnx_is_packed(&c->in[0].shape)) {
        return tess__onnx_refuse(c, "rows cut out of packed texts have no ONNX form");
    }
    return TESS_ONNX(c->to, "Slice", tess__onnx_in(c, 0), TESS_ONNX_LIST(c->to, a->begin),
                     TESS_ONNX_LIST(c->to, a->begin + a->n), TESS_ONNX_LIST(c->to, 0));
}

static tess_value build_middle(tess_graph *g, const tess_value *in)
{
    return tess_slice_rows(g, in[0], 3, 4);
}

static tess_value build_all(tess_graph *g, const tess_value *in)
{
    return tess_slice_rows(g, in[0], 0, 5);
}

static const tess_case cases[] = {
    {.name = "middle",
     .n_in = 1,
     .in = {{TESS_F32, {2, {9, 7}}, TESS_FILL_NORMAL, 0, false}},
     .build = build_middle},
    {.name = "all_bf16",
     .n_in = 1,
     .in = {{TESS_BF16, {2, {5, 3}}, TESS_FILL_NORMAL, 0, false}},
     .build = build_all},
    {.name = "packs",
     .n_in = 1,
     .in = {{TESS_BF16, {2, {9, 8}}, TESS_FILL_NORMAL, 0, false}},
     .build = build_middle},
};

static const tess_op grad_op = {
    .name = "slice_rows_grad",
    .n_in_min = 1,
    .n_in_max = 1,
    .n_out = 1,
    .attrs_bytes = sizeof(slice_grad_attrs),
    .infer = grad_infer,
    .cpu = grad_cpu,
    .ref = grad_cpu,
};
static const tess_op *const extra[] = {&grad_op, NULL};

const tess_op tess__op_slice_rows = {
    .name = "slice_rows",
    .n_in_min = 1,
    .n_in_max = 1,
    .n_out = 1,
    .attrs_bytes = sizeof(slice_attrs),
    .infer = infer,
    .vjp = vjp,
    .cpu = cpu,
    .ref = cpu,
    .print = print,
    .onnx = onnx,
    .extra = extra,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
