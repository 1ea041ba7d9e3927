/* SPDX-License-Identifier: Apache-2.0 */
/* contrast_softmax: the symmetric softmax objective of Radford et al. 2021, without a B x B matrix.
 *
 *   a (B,Z), b (K*B,Z) f32 unit rows; log_scale () or (1).  For slot k, z = s a b_k^T with
 *   s = exp(min(log_scale, ln 100));
 *   loss () = mean over k, i of (lse_row[k,i] + lse_col[k,i]) / 2 - z[i,i]; also both lse (K,B).
 *   Gradient: dz = dloss/(2BK) (exp(z - lse_row) + exp(z - lse_col) - 2 I); strips of dots are made
 *   again.  At the cap the gradient of log_scale may only lower it (Radford clips the parameter).
 *   Deterministic: strips in order, sums over rows in double.  2 K B^2 Z FLOPs forward, 6 backward;
 *   scratch 256 B floats. */
#include "tensor/contrast.h"
#include "tensor/parallel.h"

#include <math.h>

static const tess_op grad_op;

tess_value tess_contrast_softmax(tess_graph *g, tess_value a, tess_value b, tess_value log_scale)
{
    return TESS_NODE(g, &tess__op_contrast_softmax, NULL, a, b, log_scale);
}

static tess_status infer(tess_infer *c)
{
    int64_t slots = 0;
    const tess_operand in[4] = {c->in[0], c->in[1], c->in[2], {.shape = {.rank = -1}}};
    TESS_TRY(tess__contrast_check(in, &slots));
    const tess_operand lse = {.dtype = TESS_F32,
                              .shape = TESS_SHAPE_OF(slots, c->in[0].shape.dim[0])};
    c->out[0] = (tess_operand){.dtype = TESS_F32};
    c->out[1] = lse;
    c->out[2] = lse;
    return TESS_OK;
}

static void vjp(tess_vjp *c)
{
    tess_value d = TESS_NODE(c->g, &grad_op, NULL, c->in[0], c->in[1], c->in[2], c->out[1],
                             c->out[2], c->dout[0]);
    for (int i = 0; d && i < 3; i++) {
        c->din[i] = d + i;
    }
}

/* ---- forward ------------------------------------------------------------------------------- */

typedef struct forward {
    float scale;
    float *row_lse, *column_max, *column_sum; /* column_sum becomes the lse at the last strip */
    double loss;
} forward;

static void forward_columns(forward *f, const tess_strip *s)
{
    const tess_kernels *k = tess__kernels();
    const int64_t piece = 64;
    float *sum = f->column_sum + s->slot * s->batch;
    const bool first = s->row == 0, last = s->row + s->n_rows == s->batch;
#pragma omp parallel for schedule(static)
    for (int64_t j = 0; j < s->batch; j += piece) {
        const int64_t n = s->batch - j < piece ? s->batch - j : piece;
        for (int64_t i = j; first && i < j + n; i++) {
            f->column_max[i] = -INFINITY;
            sum[i] = 0.0f;
        }
        k->column_lse(s->dots + j, s->n_rows, s->batch, n, f->scale, f->column_max + j, sum + j);
        for (int64_t i = j; last && i < j + n; i++) {
            sum[i] = f->column_max[i] + logf(sum[i]);
        }
    }
}

static void forward_strip(void *ctx, const tess_strip *s)
{
    const tess_kernels *k = tess__kernels();
    forward *f = ctx;
    float *lse = f->row_lse + s->slot * s->batch + s->row;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < s->n_rows; i++) {
        float top = -INFINITY, sum = 0.0f;
        k->row_lse(s->dots + i * s->batch, s->batch, f->scale, &top, &sum);
        lse[i] = top + logf(sum);
    }
    for (int64_t i = 0; i < s->n_rows; i++) {
        f->loss +=
            (double)lse[i] - 2 * (double)f->scale * (double)s->dots[i * s->batch + s->row + i];
    }
    forward_columns(f, s);
    for (int64_t j = 0; s->row + s->n_rows == s->batch && j < s->batch; j++) {
        f->loss += (double)f->column_sum[s->slot * s->batch + j];
    }
}

static tess_status prepare(tess_prepare *c)
{
    return tess__contrast_prepare(c, false, (size_t)c->in[0].shape.dim[0] * sizeof(float));
}

static tess_status cpu(const tess_exec *e)
{
    const int64_t batch = e->in[0].shape.dim[0], slots = e->in[1].shape.dim[0] / batch;
    forward f = {.scale = tess__contrast_scale(*(const float *)e->in[2].data),
                 .row_lse = e->out[1].data,
                 .column_sum = e->out[2].data};
    f.column_max = (float *)((char *)e->scratch + tess__strips_scratch(e->prepared));
    const tess_strips_args args = tess__strips_args_of(e, false);
    TESS_TRY(tess__strips_run(e->prepared, &args, forward_strip, &f));
    *(float *)e->out[0].data = (float)(f.loss / (2.0 * (double)batch * (double)slots));
    return TESS_OK;
}

/* ---- gradient: a, b, log_scale, lse_row, lse_col, dloss -> da, db, dlog_scale -------------- */

typedef struct backward {
    float scale, factor;
    const float *row_lse, *column_lse;
    double *dot; /* by row of a strip */
    double dlog_scale;
} backward;

static void backward_strip(void *ctx, const tess_strip *s)
{
    const tess_kernels *k = tess__kernels();
    backward *b = ctx;
    const float *columns = b->column_lse + s->slot * s->batch;
    const float *rows = b->row_lse + s->slot * s->batch + s->row;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < s->n_rows; i++) {
        b->dot[i] = k->softmax_pair_grad(s->dots + i * s->batch, s->batch, b->scale, rows[i],
                                         columns, s->row + i, b->factor);
    }
    for (int64_t i = 0; i < s->n_rows; i++) {
        b->dlog_scale += b->dot[i];
    }
}

static tess_status grad_infer(tess_infer *c)
{
    for (int i = 0; i < 3; i++) {
        c->out[i] = c->in[i];
    }
    return TESS_OK;
}

static tess_status grad_prepare(tess_prepare *c)
{
    return tess__contrast_prepare(c, true, TESS_STRIP_ROWS * sizeof(double));
}

static tess_status grad_cpu(const tess_exec *e)
{
    const int64_t batch = e->in[0].shape.dim[0], slots = e->in[1].shape.dim[0] / batch;
    const float log_scale = *(const float *)e->in[2].data, dloss = *(const float *)e->in[5].data;
    backward b = {.scale = tess__contrast_scale(log_scale),
                  .factor = dloss / (2.0f * (float)batch * (float)slots),
                  .row_lse = e->in[3].data,
                  .column_lse = e->in[4].data};
    b.dot = (double *)((char *)e->scratch + tess__strips_scratch(e->prepared));
    const tess_strips_args args = tess__strips_args_of(e, true);
    TESS_TRY(tess__strips_run(e->prepared, &args, backward_strip, &b));
    *(float *)e->out[2].data = tess__contrast_scale_grad(log_scale, b.dlog_scale);
    return TESS_OK;
}

/* ---- reference ----------------------------------------------------------------------------- */

static tess_status ref(const tess_exec *e)
{
    const int64_t batch = e->in[0].shape.dim[0], n = e->in[1].shape.dim[0];
    double loss = 0;
    for (int64_t k = 0; k < n; k++) {
        const int64_t first = k / batch * batch, i = k % batch;
        double rows = 0, columns = 0;
        for (int64_t j = 0; j < batch; j++) {
            rows += exp(tess__contrast_logit(e, i, first + j));
            columns += exp(tess__contrast_logit(e, j, k));
        }
        ((float *)e->out[1].data)[k] = (float)log(rows);
        ((float *)e->out[2].data)[k] = (float)log(columns);
        loss += (log(rows) + log(columns)) / 2 - tess__contrast_logit(e, i, k);
    }
    *(float *)e->out[0].data = (float)(loss / (double)n);
    return TESS_OK;
}

static double slope(const tess_exec *e, int64_t i, int64_t j, double logit)
{
    const int64_t batch = e->in[0].shape.dim[0], n = e->in[1].shape.dim[0];
    const double factor = (double)*(const float *)e->in[5].data / (2 * (double)n);
    const double row = (double)((const float *)e->in[3].data)[j / batch * batch + i];
    const double column = (double)((const float *)e->in[4].data)[j];
    return factor * (exp(logit - row) + exp(logit - column) - (i == j % batch ? 2 : 0));
}

static tess_status grad_ref(const tess_exec *e)
{
    tess__contrast_ref_grad(e, slope);
    return TESS_OK;
}

static tess_value build(tess_graph *g, const tess_value *in)
{
    return tess_contrast_softmax(g, in[0], in[1], in[2]);
}

#define CASE(label, batch, slots, width)                                                           \
    {                                                                                              \
        .name = (label), .n_in = 3,                                                                \
        .in = {{TESS_F32, {2, {batch, width}}, TESS_FILL_UNIT},                                    \
               {TESS_F32, {2, {(batch) * (slots), width}}, TESS_FILL_UNIT},                        \
               {TESS_F32, {0}, TESS_FILL_POSITIVE}},                                               \
        .build = build, .reduction = (batch) * (width)                                             \
    }
static const tess_case cases[] = {
    CASE("one_pair", 1, 1, 8),
    CASE("slots", 13, 3, 20),
    CASE("two_strips", 270, 1, 24),
};

static const tess_op grad_op = {
    .name = "contrast_softmax_grad",
    .n_in_min = 6,
    .n_in_max = 6,
    .n_out = 3,
    .infer = grad_infer,
    .prepare = grad_prepare,
    .unprepare = tess__strips_free,
    .cpu = grad_cpu,
    .ref = grad_ref,
    .flops = tess__contrast_grad_flops,
};
static const tess_op *const extra[] = {&grad_op, NULL};

const tess_op tess__op_contrast_softmax = {
    .name = "contrast_softmax",
    .n_in_min = 3,
    .n_in_max = 3,
    .n_out = 3,
    .infer = infer,
    .vjp = vjp,
    .prepare = prepare,
    .unprepare = tess__strips_free,
    .cpu = cpu,
    .ref = ref,
    .flops = tess__contrast_flops,
    .extra = extra,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
