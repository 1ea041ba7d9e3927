/* SPDX-License-Identifier: Apache-2.0 */
/* add_rows: y = x + table, the table repeated over the batch (positions).
 *
 *   x (B,T,C), table (T,C) f32 -> y like x.  Gradient: dx = dy, dtable = sum of dy over the batch
 * in its order, f32.  y may take x's memory.  Deterministic; one pass each. */
#include "tensor/onnx.h"
#include "tensor/parallel.h"

static const tess_op grad_op;

tess_value tess_add_rows(tess_graph *g, tess_value x, tess_value table)
{
    return TESS_NODE(g, &tess__op_add_rows, NULL, x, table);
}

static tess_status infer(tess_infer *c)
{
    const tess_operand *x = &c->in[0];
    TESS_TRY(tess__expect("x", x, x->dtype, 3));
    const tess_operand table = {.dtype = TESS_F32,
                                .shape = TESS_SHAPE_OF(x->shape.dim[1], x->shape.dim[2])};
    TESS_TRY(tess__expect_like("table", &c->in[1], &table));
    c->out[0] = *x;
    return TESS_OK;
}

static tess_status grad_infer(tess_infer *c)
{
    const tess_shape *x = &c->in[0].shape;
    TESS_TRY(tess__expect("dy", &c->in[0], c->in[0].dtype, 3));
    c->out[0] = (tess_operand){.dtype = TESS_F32, .shape = TESS_SHAPE_OF(x->dim[1], x->dim[2])};
    return TESS_OK;
}

static void vjp(tess_vjp *c)
{
    c->din[0] = c->dout[0];
    if (c->need[1]) {
        c->din[1] = TESS_NODE(c->g, &grad_op, NULL, c->dout[0]);
    }
}

static tess_status cpu(const tess_exec *e)
{
    const tess_kernels *k = tess__kernels();
    const tess_dtype t = e->in[0].dtype;
    const int64_t width = tess__last(&e->in[0].shape), period = e->in[0].shape.dim[1];
    const tess_chunks c = tess__chunks(tess__rows(&e->in[0].shape), width);
#pragma omp parallel for schedule(static) if (c.n > 1)
    for (int64_t i = 0; i < c.n; i++) {
        const tess_range r = tess__chunk(&c, i);
        for (int64_t j = r.begin; j < r.begin + r.n; j++) {
            k->add_f32(t, tess__at_mut(e->out[0].data, t, j * width),
                       tess__at(e->in[0].data, t, j * width),
                       (const float *)e->in[1].data + j % period * width, width);
        }
    }
    return TESS_OK;
}

static tess_status grad_cpu(const tess_exec *e)
{
    const tess_kernels *k = tess__kernels();
    const tess_dtype t = e->in[0].dtype;
    const tess_shape *x = &e->in[0].shape;
    const int64_t row = x->dim[1] * x->dim[2], piece = 256;
    float *dtable = e->out[0].data;
#pragma omp parallel for schedule(static)
    for (int64_t j = 0; j < row; j += piece) {
        const int64_t n = row - j < piece ? row - j : piece;
        tess__zero(dtable + j, n);
        for (int64_t b = 0; b < x->dim[0]; b++) {
            k->axpy(t, dtable + j, tess__at(e->in[0].data, t, b * row + j), 1.0f, n);
        }
    }
    return TESS_OK;
}

static tess_status ref(const tess_exec *e)
{
    const int64_t row = e->in[0].shape.dim[1] * e->in[0].shape.dim[2];
    for (int64_t i = 0; i < tess_shape_count(&e->in[0].shape); i++) {
        ((float *)e->out[0].data)[i] =
            ((const float *)e->in[0].data)[i] + ((const float *)e->in[1].data)[i % row];
    }
    return TESS_OK;
}

static tess_status grad_ref(const tess_exec *e)
{
    const int64_t row = e->in[0].shape.dim[1] * e->in[0].shape.dim[2];
    for (int64_t j = 0; j < row; j++) {
        double sum = 0;
        for (int64_t b = 0; b < e->in[0].shape.dim[0]; b++) {
            sum += (double)((const float *)e->in[0].data)[b * row + j];
        }
        ((float *)e->out[0].data)[j] = (float)sum;
    }
    return TESS_OK;
}

static const char *onnx(const tess_onnx_emit *c)
{
    return TESS_ONNX(c->to, "Add", tess__onnx_in(c, 0), tess__onnx_in(c, 1));
}

static tess_value build(tess_graph *g, const tess_value *in)
{
    return tess_add_rows(g, in[0], in[1]);
}

static const tess_case cases[] = {
    {.name = "f32",
     .n_in = 2,
     .in = {{TESS_F32, {3, {5, 9, 33}}}, {TESS_F32, {2, {9, 33}}}},
     .build = build,
     .reduction = 5},
    {.name = "bf16",
     .n_in = 2,
     .in = {{TESS_BF16, {3, {40, 7, 130}}}, {TESS_F32, {2, {7, 130}}}},
     .build = build,
     .reduction = 40},
    {.name = "packs",
     .n_in = 2,
     .in = {{TESS_BF16, {3, {3, 5, 40}}}, {TESS_F32, {2, {5, 40}}}},
     .build = build,
     .reduction = 3},
};

static const tess_op grad_op = {
    .name = "add_rows_grad",
    .n_in_min = 1,
    .n_in_max = 1,
    .n_out = 1,
    .infer = grad_infer,
    .cpu = grad_cpu,
    .ref = grad_ref,
};
static const tess_op *const extra[] = {&grad_op, NULL};

const tess_op tess__op_add_rows = {
    .name = "add_rows",
    .n_in_min = 2,
    .n_in_max = 2,
    .n_out = 1,
    .alias_mask = 1,
    .infer = infer,
    .vjp = vjp,
    .cpu = cpu,
    .ref = ref,
    .onnx = onnx,
    .extra = extra,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
