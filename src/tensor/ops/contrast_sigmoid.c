/* SPDX-License-Identifier: Apache-2.0 */
/* contrast_sigmoid: the pairwise sigmoid objective of Zhai et al. 2023, without a B x B matrix.
 *
 *   a (B,Z), b (K*B,Z) f32 unit rows; log_scale, bias () or (1).  For slot k, z = s a b_k^T + bias
 *   with s = exp(min(log_scale, ln 100));
 *   loss () = mean over k of [sum over i,j of softplus(z) off, softplus(-z) on the diagonal] / B.
 *   Gradient: dz = dloss/(BK) (sigmoid(z) - I); strips of dots are made again; log_scale's at the
 * cap as in contrast_softmax.  Deterministic.  Cost and scratch as there. */
#include "tensor/contrast.h"
#include "tensor/parallel.h"

#include <math.h>
#include <string.h>

static const tess_op grad_op;

tess_value tess_contrast_sigmoid(tess_graph *g, tess_value a, tess_value b, tess_value log_scale,
                                 tess_value bias)
{
    return TESS_NODE(g, &tess__op_contrast_sigmoid, NULL, a, b, log_scale, bias);
}

static tess_status infer(tess_infer *c)
{
    int64_t slots = 0;
    TESS_TRY(tess__contrast_check(c->in, &slots));
    c->out[0] = (tess_operand){.dtype = TESS_F32};
    return TESS_OK;
}

static void vjp(tess_vjp *c)
{
    tess_value d =
        TESS_NODE(c->g, &grad_op, NULL, c->in[0], c->in[1], c->in[2], c->in[3], c->dout[0]);
    for (int i = 0; d && i < 4; i++) {
        c->din[i] = d + i;
    }
}

/* By row of a strip: loss forward; gradients of log scale and bias backward. */
typedef struct pass {
    float scale, bias, factor;
    double *row, *row_bias;
    double sum, sum_bias;
} pass;

static void forward_strip(void *ctx, const tess_strip *s)
{
    const tess_kernels *k = tess__kernels();
    pass *p = ctx;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < s->n_rows; i++) {
        p->row[i] =
            k->sigmoid_loss(s->dots + i * s->batch, s->batch, p->scale, p->bias, s->row + i);
    }
    for (int64_t i = 0; i < s->n_rows; i++) {
        p->sum += p->row[i];
    }
}

static void backward_strip(void *ctx, const tess_strip *s)
{
    const tess_kernels *k = tess__kernels();
    pass *p = ctx;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < s->n_rows; i++) {
        p->row[i] = p->row_bias[i] = 0;
        k->sigmoid_grad(s->dots + i * s->batch, s->batch, p->scale, p->bias, s->row + i, p->factor,
                        &p->row[i], &p->row_bias[i]);
    }
    for (int64_t i = 0; i < s->n_rows; i++) {
        p->sum += p->row[i];
        p->sum_bias += p->row_bias[i];
    }
}

static tess_status prepare_strips(tess_prepare *c, bool backward)
{
    tess_strips *s = NULL;
    TESS_TRY(tess__strips_new(c->in[0].shape.dim[0], c->in[0].shape.dim[1], backward, &s));
    c->prepared = s;
    c->scratch_bytes = tess__strips_scratch(s) + 2 * TESS_STRIP_ROWS * sizeof(double);
    return TESS_OK;
}

static tess_status prepare(tess_prepare *c)
{
    return prepare_strips(c, false);
}

static tess_status grad_prepare(tess_prepare *c)
{
    return prepare_strips(c, true);
}

static pass begin(const tess_exec *e)
{
    pass p = {.scale = tess__contrast_scale(*(const float *)e->in[2].data),
              .bias = *(const float *)e->in[3].data};
    p.row = (double *)((char *)e->scratch + tess__strips_scratch(e->prepared));
    p.row_bias = p.row + TESS_STRIP_ROWS;
    return p;
}

static tess_status cpu(const tess_exec *e)
{
    pass p = begin(e);
    const int64_t n = e->in[1].shape.dim[0];
    const tess_strips_args args = {.a = e->in[0].data,
                                   .b = e->in[1].data,
                                   .n_slots = n / e->in[0].shape.dim[0],
                                   .scratch = e->scratch};
    TESS_TRY(tess__strips_run(e->prepared, &args, forward_strip, &p));
    *(float *)e->out[0].data = (float)(p.sum / (double)n);
    return TESS_OK;
}

/* ---- gradient: a, b, log_scale, bias, dloss -> da, db, dlog_scale, dbias ------------------- */

static tess_status grad_infer(tess_infer *c)
{
    for (int i = 0; i < 4; i++) {
        c->out[i] = c->in[i];
    }
    return TESS_OK;
}

static tess_status grad_cpu(const tess_exec *e)
{
    pass p = begin(e);
    const int64_t n = e->in[1].shape.dim[0];
    p.factor = *(const float *)e->in[4].data / (float)n;
    const tess_strips_args args = {.a = e->in[0].data,
                                   .b = e->in[1].data,
                                   .n_slots = n / e->in[0].shape.dim[0],
                                   .da = e->out[0].data,
                                   .db = e->out[1].data,
                                   .scratch = e->scratch};
    TESS_TRY(tess__strips_run(e->prepared, &args, backward_strip, &p));
    *(float *)e->out[2].data = tess__contrast_scale_grad(*(const float *)e->in[2].data, p.sum);
    *(float *)e->out[3].data = (float)p.sum_bias;
    return TESS_OK;
}

/* ---- reference ----------------------------------------------------------------------------- */

static double dot(const tess_exec *e, int64_t i, int64_t row_b)
{
    const int64_t width = e->in[0].shape.dim[1];
    double sum = 0;
    for (int64_t d = 0; d < width; d++) {
        sum += (double)((const float *)e->in[0].data)[i * width + d] *
               (double)((const float *)e->in[1].data)[row_b * width + d];
    }
    return sum;
}

static tess_status ref(const tess_exec *e)
{
    const int64_t batch = e->in[0].shape.dim[0], n = e->in[1].shape.dim[0];
    const double scale = (double)tess__contrast_scale(*(const float *)e->in[2].data);
    const double bias = (double)*(const float *)e->in[3].data;
    double loss = 0;
    for (int64_t p = 0; p < n * batch; p++) {
        const int64_t row_b = p / batch, i = p % batch;
        const double z = scale * dot(e, i, row_b) + bias;
        loss += log1p(exp(i == row_b % batch ? -z : z));
    }
    *(float *)e->out[0].data = (float)(loss / (double)n);
    return TESS_OK;
}

static tess_status grad_ref(const tess_exec *e)
{
    const int64_t batch = e->in[0].shape.dim[0], n = e->in[1].shape.dim[0];
    const int64_t width = e->in[0].shape.dim[1];
    const double scale = (double)tess__contrast_scale(*(const float *)e->in[2].data);
    const double bias = (double)*(const float *)e->in[3].data;
    const double factor = (double)*(const float *)e->in[4].data / (double)n;
    double dlog_scale = 0, dbias = 0;
    memset(e->out[0].data, 0, (size_t)(batch * width) * sizeof(float));
    memset(e->out[1].data, 0, (size_t)(n * width) * sizeof(float));
    for (int64_t p = 0; p < n * batch; p++) {
        const int64_t row_b = p / batch, i = p % batch;
        const double z = scale * dot(e, i, row_b);
        const double g = factor * (1 / (1 + exp(-z - bias)) - (i == row_b % batch ? 1 : 0));
        dlog_scale += g * z;
        dbias += g;
        for (int64_t d = 0; d < width; d++) {
            const int64_t at_a = i * width + d, at_b = row_b * width + d;
            ((float *)e->out[0].data)[at_a] +=
                (float)(g * scale * (double)((const float *)e->in[1].data)[at_b]);
            ((float *)e->out[1].data)[at_b] +=
                (float)(g * scale * (double)((const float *)e->in[0].data)[at_a]);
        }
    }
    *(float *)e->out[2].data = (float)dlog_scale;
    *(float *)e->out[3].data = (float)dbias;
    return TESS_OK;
}

static double flops(const tess_operand *in, const tess_operand *out, const void *attrs)
{
    (void)out, (void)attrs;
    return 2.0 * (double)tess_shape_count(&in[1].shape) * (double)in[0].shape.dim[0];
}

static double grad_flops(const tess_operand *in, const tess_operand *out, const void *attrs)
{
    return 3.0 * flops(in, out, attrs);
}

static tess_value build(tess_graph *g, const tess_value *in)
{
    return tess_contrast_sigmoid(g, in[0], in[1], in[2], in[3]);
}

#define CASE(label, batch, slots, width)                                                           \
    {                                                                                              \
        .name = (label), .n_in = 4,                                                                \
        .in = {{TESS_F32, {2, {batch, width}}, TESS_FILL_UNIT},                                    \
               {TESS_F32, {2, {(batch) * (slots), width}}, TESS_FILL_UNIT},                        \
               {TESS_F32, {1, {1}}, TESS_FILL_POSITIVE},                                           \
               {TESS_F32, {1, {1}}}},                                                              \
        .build = build, .reduction = (batch) * (width)                                             \
    }
static const tess_case cases[] = {
    CASE("one_pair", 1, 1, 8),
    CASE("slots", 9, 2, 20),
    CASE("two_strips", 260, 1, 16),
};

static const tess_op grad_op = {
    .name = "contrast_sigmoid_grad",
    .n_in_min = 5,
    .n_in_max = 5,
    .n_out = 4,
    .infer = grad_infer,
    .prepare = grad_prepare,
    .unprepare = tess__strips_free,
    .cpu = grad_cpu,
    .ref = grad_ref,
    .flops = grad_flops,
};
static const tess_op *const extra[] = {&grad_op, NULL};

const tess_op tess__op_contrast_sigmoid = {
    .name = "contrast_sigmoid",
    .n_in_min = 4,
    .n_in_max = 4,
    .n_out = 1,
    .infer = infer,
    .vjp = vjp,
    .prepare = prepare,
    .unprepare = tess__strips_free,
    .cpu = cpu,
    .ref = ref,
    .flops = flops,
    .extra = extra,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
