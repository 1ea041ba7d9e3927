/* SPDX-License-Identifier: Apache-2.0 */
/* contrast_sigmoid: the pairwise sigmoid objective of Zhai et al. 2023, without a B x B matrix.
 *
 *   a (B,Z), b (K*B,Z) f32 unit rows; log_scale, bias () or (1).  For slot k, z = s a b_k^T + bias
 *   with s = exp(min(log_scale, ln 100));
 *   loss () = mean over k of [sum over i,j of softplus(z) off, softplus(-z) on the diagonal] / B.
 *   Gradient: dz = dloss/(BK) (sigmoid(z) - I); strips of dots are made again; log_scale's at the
 *   cap as in contrast_softmax.  Deterministic.  Cost, scratch and the part of a rank as there; the
 *   loss alone is joined, and the bias has a part of a gradient like the scale. */
#include "tensor/contrast.h"
#include "tensor/parallel.h"

#include <math.h>

static const tess_op grad_op;

tess_value tess_contrast_sigmoid(tess_graph *g, tess_value a, tess_value b, tess_value log_scale,
                                 tess_value bias)
{
    return tess_contrast_sigmoid_over(g, NULL, a, b, log_scale, bias);
}

tess_value tess_contrast_sigmoid_over(tess_graph *g, tess_comm *comm, tess_value a, tess_value b,
                                      tess_value log_scale, tess_value bias)
{
    const tess_contrast_attrs at = tess__contrast_over(g, comm, a, b);
    return TESS_NODE(g, &tess__op_contrast_sigmoid, &at, a, b, log_scale, bias);
}

static tess_status infer(tess_infer *c)
{
    TESS_TRY(tess__contrast_check(c->in, c->attrs));
    c->out[0] = (tess_operand){.dtype = TESS_F32};
    return TESS_OK;
}

static void vjp(tess_vjp *c)
{
    tess_value d =
        TESS_NODE(c->g, &grad_op, c->attrs, c->in[0], c->in[1], c->in[2], c->in[3], c->dout[0]);
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
            k->sigmoid_loss(s->dots + i * s->batch, s->batch, p->scale, p->bias, s->match + i);
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
        k->sigmoid_grad(s->dots + i * s->batch, s->batch, p->scale, p->bias, s->match + i,
                        p->factor, &p->row[i], &p->row_bias[i]);
    }
    for (int64_t i = 0; i < s->n_rows; i++) {
        p->sum += p->row[i];
        p->sum_bias += p->row_bias[i];
    }
}

static tess_status prepare(tess_prepare *c)
{
    return tess__contrast_prepare(c, false, 2 * TESS_STRIP_ROWS * sizeof(double));
}

static tess_status grad_prepare(tess_prepare *c)
{
    return tess__contrast_prepare(c, true, 2 * TESS_STRIP_ROWS * sizeof(double));
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
    const tess_contrast_dims d = tess__contrast_dims(e->in, e->attrs);
    const tess_strips_args args = tess__strips_args_of(e, false);
    TESS_TRY(tess__strips_run(e->prepared, &args, forward_strip, &p));
    return tess__contrast_sum(d.comm, p.sum / (double)(d.n * d.slots), e->out[0].data);
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
    const tess_contrast_dims d = tess__contrast_dims(e->in, e->attrs);
    p.factor = *(const float *)e->in[4].data / (float)(d.n * d.slots);
    const tess_strips_args args = tess__strips_args_of(e, true);
    TESS_TRY(tess__strips_run(e->prepared, &args, backward_strip, &p));
    *(float *)e->out[2].data = tess__contrast_scale_grad(*(const float *)e->in[2].data, p.sum);
    *(float *)e->out[3].data = (float)p.sum_bias;
    return TESS_OK;
}

/* ---- reference ----------------------------------------------------------------------------- */

static tess_status ref(const tess_exec *e)
{
    const tess_contrast_dims d = tess__contrast_dims(e->in, e->attrs);
    const double bias = (double)*(const float *)e->in[3].data;
    double loss = 0;
    for (int64_t p = 0; p < d.slots * d.batch * d.n; p++) {
        const int64_t i = p % d.n, j = p / d.n;
        const double z = tess__contrast_logit(e, i, j) + bias;
        loss += log1p(exp(i == d.first + j % d.batch ? -z : z));
    }
    *(float *)e->out[0].data = (float)(loss / (double)(d.n * d.slots));
    return TESS_OK;
}

static double slope(const tess_exec *e, int64_t i, int64_t j, double logit)
{
    const double bias = (double)*(const float *)e->in[3].data;
    const tess_contrast_dims d = tess__contrast_dims(e->in, e->attrs);
    const double factor = (double)*(const float *)e->in[4].data / (double)(d.n * d.slots);
    return factor * (1 / (1 + exp(-logit - bias)) - (i == d.first + j % d.batch ? 1 : 0));
}

static tess_status grad_ref(const tess_exec *e)
{
    *(float *)e->out[3].data = (float)tess__contrast_ref_grad(e, slope);
    return TESS_OK;
}

static tess_value build(tess_graph *g, const tess_value *in)
{
    return tess_contrast_sigmoid(g, in[0], in[1], in[2], in[3]);
}

static tess_value build_part(tess_graph *g, const tess_value *in)
{
    const tess_contrast_attrs at = {.slots = 2, .first = 4};
    return TESS_NODE(g, &tess__op_contrast_sigmoid, &at, in[0], in[1], in[2], in[3]);
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
    {.name = "part",
     .n_in = 4,
     .in = {{TESS_F32, {2, {13, 20}}, TESS_FILL_UNIT},
            {TESS_F32, {2, {10, 20}}, TESS_FILL_UNIT},
            {TESS_F32, {0}, TESS_FILL_POSITIVE},
            {TESS_F32, {0}}},
     .build = build_part,
     .reduction = 13 * 20},
};

static const tess_op grad_op = {
    .name = "contrast_sigmoid_grad",
    .n_in_min = 5,
    .n_in_max = 5,
    .n_out = 4,
    .attrs_bytes = sizeof(tess_contrast_attrs),
    .infer = grad_infer,
    .prepare = grad_prepare,
    .unprepare = tess__strips_free,
    .cpu = grad_cpu,
    .ref = grad_ref,
    .flops = tess__contrast_grad_flops,
    .print = tess__contrast_print,
};
static const tess_op *const extra[] = {&grad_op, NULL};

const tess_op tess__op_contrast_sigmoid = {
    .name = "contrast_sigmoid",
    .n_in_min = 4,
    .n_in_max = 4,
    .n_out = 1,
    .attrs_bytes = sizeof(tess_contrast_attrs),
    .infer = infer,
    .vjp = vjp,
    .prepare = prepare,
    .unprepare = tess__strips_free,
    .cpu = cpu,
    .ref = ref,
    .flops = tess__contrast_flops,
    .print = tess__contrast_print,
    .extra = extra,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
