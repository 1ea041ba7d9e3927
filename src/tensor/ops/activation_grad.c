/* SPDX-License-Identifier: Apache-2.0 */
/* activation_grad: dz = f'(z) dy, and the sum of its rows: an activation's gradient and that of the
 * bias before it.  The fusing of unary_grad and bias_grad: z and dy are read once.
 *
 *   z, dy (...,M) -> dz like z, dbias (M) f32, which is summed before dz is rounded.
 *   Not differentiable.  dz may take z's or dy's memory.  Deterministic; one pass. */
#include "tensor/fuse.h"
#include "tensor/parallel.h"
#include "tensor/ops/unary.h"

tess_value tess__activation_grad(tess_graph *g, tess_value z, tess_value dy, tess_unary_kind kind)
{
    const unary_attrs a = {.kind = kind};
    return TESS_NODE(g, &tess__op_activation_grad, &a, z, dy);
}

static tess_status infer(tess_infer *c)
{
    TESS_TRY(tess__expect_like("dy", &c->in[1], &c->in[0]));
    c->out[0] = c->in[0];
    c->out[1] =
        (tess_operand){.dtype = TESS_F32, .shape = TESS_SHAPE_OF(tess__last(&c->in[0].shape))};
    return TESS_OK;
}

static tess_status prepare(tess_prepare *c)
{
    c->scratch_bytes = (size_t)(2 * tess__last(&c->in[0].shape)) * sizeof(float);
    return TESS_OK;
}

static tess_status cpu(const tess_exec *e)
{
    const tess_kernels *k = tess__kernels();
    const tess_dtype t = e->in[0].dtype;
    const tess_unary_kind kind = ((const unary_attrs *)e->attrs)->kind;
    const int64_t width = tess__last(&e->in[0].shape), rows = tess__rows(&e->in[0].shape);
    float *z = e->scratch, *dz = z + width;
    tess__zero(e->out[1].data, width);
    for (int64_t r = 0; r < rows; r++) {
        k->convert(TESS_F32, z, t, tess__at(e->in[0].data, t, r * width), width);
        k->convert(TESS_F32, dz, t, tess__at(e->in[1].data, t, r * width), width);
        k->unary_grad(kind, TESS_F32, dz, z, dz, width);
        k->column_sum(TESS_F32, e->out[1].data, dz, 1, width);
        k->convert(t, tess__at_mut(e->out[0].data, t, r * width), TESS_F32, dz, width);
    }
    return TESS_OK;
}

static tess_status ref(const tess_exec *e)
{
    const tess_unary_kind kind = ((const unary_attrs *)e->attrs)->kind;
    const int64_t n = tess_shape_count(&e->in[0].shape), width = tess__last(&e->in[0].shape);
    const float *z = e->in[0].data, *dy = e->in[1].data;
    for (int64_t j = 0; j < width; j++) {
        double sum = 0;
        for (int64_t i = j; i < n; i += width) {
            const double x = (double)z[i], h = 1e-5;
            const double slope =
                kind == TESS_RELU
                    ? x > 0
                    : (tess__unary_value(kind, x + h) - tess__unary_value(kind, x - h)) / (2 * h);
            ((float *)e->out[0].data)[i] = (float)(slope * (double)dy[i]);
            sum += slope * (double)dy[i];
        }
        ((float *)e->out[1].data)[j] = (float)sum;
    }
    return TESS_OK;
}

static void print(const void *attrs, tess_buf *out)
{
    tess_buf_adds(out, tess_unary_name(((const unary_attrs *)attrs)->kind));
}

#define BUILD(kind)                                                                                \
    static tess_value build_##kind(tess_graph *g, const tess_value *in)                            \
    {                                                                                              \
        return tess__activation_grad(g, in[0], in[1], kind);                                       \
    }
BUILD(TESS_RELU)
BUILD(TESS_GELU)
BUILD(TESS_GELU_TANH)
BUILD(TESS_QUICK_GELU)
BUILD(TESS_SILU)
BUILD(TESS_TANH)

#define CASE(kind, type, rows, ...)                                                                \
    {                                                                                              \
        .name = #kind " " #type, .n_in = 2, .in = {{type, __VA_ARGS__}, {type, __VA_ARGS__}},      \
        .build = build_##kind, .reduction = rows                                                   \
    }
static const tess_case cases[] = {
    CASE(TESS_RELU, TESS_F32, 7, {2, {7, 33}}),
    CASE(TESS_GELU, TESS_F32, 70, {2, {70, 20}}),
    CASE(TESS_GELU_TANH, TESS_F32, 9, {1, {9}}),
    CASE(TESS_QUICK_GELU, TESS_F32, 15, {3, {3, 5, 7}}),
    CASE(TESS_SILU, TESS_F32, 1, {2, {1, 30}}),
    CASE(TESS_TANH, TESS_F32, 7, {2, {7, 30}}),
    CASE(TESS_RELU, TESS_BF16, 40, {2, {40, 24}}),
    CASE(TESS_GELU, TESS_BF16, 90, {3, {3, 30, 104}}),
    CASE(TESS_GELU_TANH, TESS_BF16, 50, {2, {50, 9}}),
    CASE(TESS_QUICK_GELU, TESS_BF16, 60, {2, {60, 40}}),
    CASE(TESS_SILU, TESS_BF16, 6, {2, {6, 16}}),
    CASE(TESS_TANH, TESS_BF16, 6, {2, {6, 16}}),
};

const tess_op tess__op_activation_grad = {
    .name = "activation_grad",
    .n_in_min = 2,
    .n_in_max = 2,
    .n_out = 2,
    .attrs_bytes = sizeof(unary_attrs),
    .alias_mask = 3,
    .infer = infer,
    .prepare = prepare,
    .cpu = cpu,
    .ref = ref,
    .print = print,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
