/* SPDX-License-Identifier: Apache-2.0 */
/* layernorm: y = (x - mean) * rstd * weight + bias over the last axis (Ba et al. 2016).
 *
 *   x (...,C), weight, bias (C) f32 -> y like x, mean, rstd (N) f32; rstd = 1/sqrt(var + eps) with
 *   the population variance; statistics in f32, y rounded once.
 *   Gradient (docs/layernorm_backward.md): dx, dweight, dbias in one operator and one pass, with
 *   what reaches x beside the norm (a residual's cotangent) added to dx before it is rounded.
 *   y may take x's memory, dx that of dy or of what is added.  Deterministic: sums over rows are
 *   made per chunk of rows and added in the order of chunks. */
#include "tensor/onnx.h"
#include "tensor/ops/layernorm.h"
#include "tensor/parallel.h"

#include <math.h>

static const tess_op grad_op;

tess_value tess_layernorm(tess_graph *g, tess_value x, tess_value weight, tess_value bias,
                          float eps)
{
    const layernorm_attrs a = {.eps = eps};
    return TESS_NODE(g, &tess__op_layernorm, &a, x, weight, bias);
}

static tess_status infer(tess_infer *c)
{
    const tess_operand *x = &c->in[0];
    if (x->shape.rank < 1) {
        return TESS_FAIL(TESS_INVALID, "layernorm: expected x (...,C), found a scalar");
    }
    const tess_operand row = {.dtype = TESS_F32, .shape = TESS_SHAPE_OF(tess__last(&x->shape))};
    TESS_TRY(tess__expect_like("weight", &c->in[1], &row));
    TESS_TRY(tess__expect_like("bias", &c->in[2], &row));
    const tess_operand column = {.dtype = TESS_F32, .shape = TESS_SHAPE_OF(tess__rows(&x->shape))};
    c->out[0] = *x;
    c->out[1] = column;
    c->out[2] = column;
    return TESS_OK;
}

static void vjp(tess_vjp *c)
{
    tess_value d = TESS_NODE(c->g, &grad_op, NULL, c->in[0], c->in[1], c->out[1], c->out[2],
                             c->dout[0], c->sum[0]);
    c->sum[0] = 0;
    for (int i = 0; d && i < 3; i++) {
        c->din[i] = d + i;
    }
}

static tess_status cpu(const tess_exec *e)
{
    const tess_kernels *k = tess__kernels();
    const tess_dtype t = e->in[0].dtype;
    const int64_t width = tess__last(&e->in[0].shape);
    const tess_chunks c = tess__chunks(tess__rows(&e->in[0].shape), width);
#pragma omp parallel for schedule(static) if (c.n > 1)
    for (int64_t i = 0; i < c.n; i++) {
        const tess_range r = tess__chunk(&c, i);
        k->layernorm(t, tess__at_mut(e->out[0].data, t, r.begin * width),
                     (float *)e->out[1].data + r.begin, (float *)e->out[2].data + r.begin,
                     tess__at(e->in[0].data, t, r.begin * width), e->in[1].data, e->in[2].data,
                     ((const layernorm_attrs *)e->attrs)->eps, r.n, width);
    }
    return TESS_OK;
}

static tess_status ref(const tess_exec *e)
{
    const int64_t rows = tess__rows(&e->in[0].shape), width = tess__last(&e->in[0].shape);
    const float *weight = e->in[1].data, *bias = e->in[2].data;
    for (int64_t r = 0; r < rows; r++) {
        const float *x = (const float *)e->in[0].data + r * width;
        float *y = (float *)e->out[0].data + r * width;
        double mean = 0, squares = 0;
        for (int64_t j = 0; j < width; j++) {
            mean += (double)x[j] / (double)width;
        }
        for (int64_t j = 0; j < width; j++) {
            squares += ((double)x[j] - mean) * ((double)x[j] - mean) / (double)width;
        }
        const double rstd = 1 / sqrt(squares + (double)((const layernorm_attrs *)e->attrs)->eps);
        for (int64_t j = 0; j < width; j++) {
            y[j] = (float)(((double)x[j] - mean) * rstd * (double)weight[j] + (double)bias[j]);
        }
        ((float *)e->out[1].data)[r] = (float)mean;
        ((float *)e->out[2].data)[r] = (float)rstd;
    }
    return TESS_OK;
}

static double flops(const tess_operand *in, const tess_operand *out, const void *attrs)
{
    (void)out, (void)attrs;
    return 8.0 * (double)tess_shape_count(&in[0].shape);
}

static void print(const void *attrs, tess_buf *out)
{
    tess_buf_addf(out, "eps=%g", (double)((const layernorm_attrs *)attrs)->eps);
}

/* ---- layernorm_grad: x, weight, mean, rstd, dy, skip -> dx, dweight, dbias -----------------
 * skip, like x or absent, is added to dx. */

static tess_status grad_infer(tess_infer *c)
{
    TESS_TRY(tess__expect_like("dy", &c->in[4], &c->in[0]));
    TESS_TRY(c->in[5].shape.rank >= 0 ? tess__expect_like("skip", &c->in[5], &c->in[0]) : TESS_OK);
    c->out[0] = c->in[0];
    c->out[1] = c->in[1];
    c->out[2] = c->in[1];
    return TESS_OK;
}

static tess_status grad_prepare(tess_prepare *c)
{
    const int64_t width = tess__last(&c->in[0].shape);
    const tess_chunks k = tess__chunks(tess__rows(&c->in[0].shape), width);
    c->scratch_bytes = (size_t)(2 * k.n * width) * sizeof(float);
    return TESS_OK;
}

static tess_status grad_cpu(const tess_exec *e)
{
    const tess_kernels *k = tess__kernels();
    const tess_dtype t = e->in[0].dtype;
    const int64_t width = tess__last(&e->in[0].shape);
    const tess_chunks c = tess__chunks(tess__rows(&e->in[0].shape), width);
    float *dweight = e->scratch, *dbias = dweight + c.n * width;
#pragma omp parallel for schedule(static) if (c.n > 1)
    for (int64_t i = 0; i < c.n; i++) {
        const tess_range r = tess__chunk(&c, i);
        const int64_t first = r.begin * width;
        tess__zero(dweight + i * width, width);
        tess__zero(dbias + i * width, width);
        k->layernorm_grad(t, tess__at_mut(e->out[0].data, t, first), dweight + i * width,
                          dbias + i * width, tess__at(e->in[0].data, t, first), e->in[1].data,
                          (const float *)e->in[2].data + r.begin,
                          (const float *)e->in[3].data + r.begin, tess__at(e->in[4].data, t, first),
                          e->in[5].data ? tess__at(e->in[5].data, t, first) : NULL, r.n, width);
    }
    tess__sum_partials(e->out[1].data, dweight, c.n, width);
    tess__sum_partials(e->out[2].data, dbias, c.n, width);
    return TESS_OK;
}

static void grad_ref_row(const tess_exec *e, int64_t r, double *dweight, double *dbias)
{
    const int64_t width = tess__last(&e->in[0].shape);
    const float *x = (const float *)e->in[0].data + r * width, *weight = e->in[1].data;
    const float *dy = (const float *)e->in[4].data + r * width;
    const float *skip = e->in[5].data ? (const float *)e->in[5].data + r * width : NULL;
    const double mean = (double)((const float *)e->in[2].data)[r];
    const double rstd = (double)((const float *)e->in[3].data)[r];
    double c1 = 0, c2 = 0;
    for (int64_t j = 0; j < width; j++) {
        const double hat = ((double)x[j] - mean) * rstd, g = (double)dy[j];
        c1 += g * (double)weight[j] / (double)width;
        c2 += g * (double)weight[j] * hat / (double)width;
        dweight[j] += g * hat;
        dbias[j] += g;
    }
    for (int64_t j = 0; j < width; j++) {
        const double hat = ((double)x[j] - mean) * rstd;
        const double d = rstd * ((double)dy[j] * (double)weight[j] - c1 - hat * c2);
        ((float *)e->out[0].data)[r * width + j] = (float)(skip ? (double)skip[j] + d : d);
    }
}

static tess_status grad_ref(const tess_exec *e)
{
    const int64_t rows = tess__rows(&e->in[0].shape), width = tess__last(&e->in[0].shape);
    double *sums = tess_alloc_array((size_t)width, 2 * sizeof(double));
    if (!sums) {
        return TESS_NOMEM;
    }
    for (int64_t r = 0; r < rows; r++) {
        grad_ref_row(e, r, sums, sums + width);
    }
    for (int64_t j = 0; j < width; j++) {
        ((float *)e->out[1].data)[j] = (float)sums[j];
        ((float *)e->out[2].data)[j] = (float)sums[width + j];
    }
    tess_free(sums);
    return TESS_OK;
}

static const char *onnx(const tess_onnx_emit *c)
{
    const layernorm_attrs *a = c->attrs;
    return tess__onnx_add(c->to,
                          (tess_onnx_node){
                              .op = "LayerNormalization",
                              .in = {tess__onnx_in(c, 0), tess__onnx_in(c, 1), tess__onnx_in(c, 2)},
                              .attr = {TESS_ONNX_I("axis", -1), TESS_ONNX_F("epsilon", a->eps)},
                          },
                          NULL);
}

/* ---- cases --------------------------------------------------------------------------------- */

static tess_value build(tess_graph *g, const tess_value *in)
{
    return tess_layernorm(g, in[0], in[1], in[2], 1e-5f);
}

/* A branch beside the residual: the gradient has what is added. */
static tess_value build_skip(tess_graph *g, const tess_value *in)
{
    return tess_add(g, in[0], tess_scale(g, build(g, in), 0.5f));
}

#define CASE(label, f, type, width, ...)                                                           \
    {                                                                                              \
        .name = (label), .n_in = 3,                                                                \
        .in = {{type, __VA_ARGS__},                                                                \
               {TESS_F32, {1, {width}}, TESS_FILL_POSITIVE},                                       \
               {TESS_F32, {1, {width}}}},                                                          \
        .build = (f), .reduction = (width)                                                         \
    }
static const tess_case cases[] = {
    CASE("one_row", build, TESS_F32, 7, {2, {1, 7}}),
    CASE("odd", build, TESS_F32, 67, {3, {3, 13, 67}}),
    CASE("chunks", build, TESS_F32, 192, {2, {300, 192}}),
    CASE("bf16", build, TESS_BF16, 192, {2, {150, 192}}),
    CASE("skip_odd", build_skip, TESS_F32, 67, {3, {3, 13, 67}}),
    CASE("skip", build_skip, TESS_F32, 192, {2, {300, 192}}),
    CASE("skip_bf16", build_skip, TESS_BF16, 192, {2, {150, 192}}),
    CASE("rows", build_skip, TESS_F32, 8, {2, {2300, 8}}),
    CASE("768", build_skip, TESS_BF16, 768, {2, {20, 768}}),
    CASE("1000", build_skip, TESS_BF16, 1000, {2, {9, 1000}}),
    CASE("1200", build_skip, TESS_BF16, 1200, {2, {9, 1200}}),
    CASE("2048", build_skip, TESS_BF16, 2048, {2, {9, 2048}}),
};

static const tess_op grad_op = {
    .name = "layernorm_grad",
    .n_in_min = 5,
    .n_in_max = 6,
    .n_out = 3,
    .alias_mask = 1u << 4 | 1u << 5,
    .infer = grad_infer,
    .prepare = grad_prepare,
    .cpu = grad_cpu,
    .ref = grad_ref,
    .flops = flops,
};
static const tess_op *const extra[] = {&grad_op, NULL};

const tess_op tess__op_layernorm = {
    .name = "layernorm",
    .n_in_min = 3,
    .n_in_max = 3,
    .n_out = 3,
    .attrs_bytes = sizeof(layernorm_attrs),
    .flags = TESS_OP_CHEAP,
    .alias_mask = 1,
    .infer = infer,
    .vjp = vjp,
    .cpu = cpu,
    .ref = ref,
    .flops = flops,
    .print = print,
    .onnx = onnx,
    .extra = extra,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
