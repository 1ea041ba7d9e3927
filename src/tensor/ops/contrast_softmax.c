/* SPDX-License-Identifier: Apache-2.0 */
/* contrast_softmax: the symmetric softmax objective of Radford et al. 2021, without a B x B matrix.
 *
 *   a (B,Z), b (K*B,Z) f32 unit rows; log_scale () or (1).  For slot k, z = s a b_k^T with
 *   s = exp(min(log_scale, ln 100));
 *   loss () = mean over k, i of (lse_row[k,i] + lse_col[k,i]) / 2 - z[i,i]; also both lse (K,B).
 *   Gradient: dz = dloss/(2BK) (exp(z - lse_row) + exp(z - lse_col) - 2 I); strips of dots are made
 *   again.  At the cap the gradient of log_scale may only lower it (Radford clips the parameter).
 *   Deterministic: strips in order, sums over rows in double.  2 K B^2 Z FLOPs forward, 6 backward;
 *   scratch 256 B floats.
 *
 *   Over R ranks a (R*B,Z) has all ranks' rows and b (K*B,Z) this rank's, and the B is R*B in the
 *   above: a rank makes its columns alone, 1/R of the dots.  The ranks' sums of exponentials of the
 *   rows are joined forward (tess__contrast_join); lse_row is (K,R*B).  loss is the job's, on each
 *   rank, and the gradients are this rank's part of the job's: complete for b, to be summed over
 *   ranks for the others. */
#include "tensor/contrast.h"
#include "tensor/parallel.h"

#include <math.h>

static const tess_op grad_op;

tess_value tess_contrast_softmax(tess_graph *g, tess_value a, tess_value b, tess_value log_scale)
{
    return tess_contrast_softmax_over(g, NULL, a, b, log_scale);
}

tess_value tess_contrast_softmax_over(tess_graph *g, tess_comm *comm, tess_value a, tess_value b,
                                      tess_value log_scale)
{
    const tess_contrast_attrs at = tess__contrast_over(g, comm, a, b);
    return TESS_NODE(g, &tess__op_contrast_softmax, &at, a, b, log_scale);
}

static tess_status infer(tess_infer *c)
{
    const tess_operand in[4] = {c->in[0], c->in[1], c->in[2], {.shape = {.rank = -1}}};
    TESS_TRY(tess__contrast_check(in, c->attrs));
    const tess_contrast_dims d = tess__contrast_dims(in, c->attrs);
    c->out[0] = (tess_operand){.dtype = TESS_F32};
    c->out[1] = (tess_operand){.dtype = TESS_F32, .shape = TESS_SHAPE_OF(d.slots, d.n)};
    c->out[2] = (tess_operand){.dtype = TESS_F32, .shape = TESS_SHAPE_OF(d.slots, d.batch)};
    return TESS_OK;
}

static void vjp(tess_vjp *c)
{
    tess_value d = TESS_NODE(c->g, &grad_op, c->attrs, c->in[0], c->in[1], c->in[2], c->out[1],
                             c->out[2], c->dout[0]);
    for (int i = 0; d && i < 3; i++) {
        c->din[i] = d + i;
    }
}

/* ---- forward ------------------------------------------------------------------------------- */

typedef struct forward {
    tess_contrast_dims d;
    float scale;
    float *row_lse, *column_max, *column_sum; /* column_sum becomes the lse at the last strip */
    double pairs;                             /* the sum of z over the pairs */
} forward;

static void forward_columns(forward *f, const tess_strip *s)
{
    const tess_kernels *k = tess__kernels();
    const int64_t piece = 64;
    float *sum = f->column_sum + s->slot * s->batch;
#pragma omp parallel for schedule(static)
    for (int64_t j = 0; j < s->batch; j += piece) {
        const int64_t n = s->batch - j < piece ? s->batch - j : piece;
        for (int64_t i = j; s->is_first && i < j + n; i++) {
            f->column_max[i] = -INFINITY;
            sum[i] = 0.0f;
        }
        k->column_lse(s->dots + j, s->n_rows, s->batch, n, f->scale, f->column_max + j, sum + j);
        for (int64_t i = j; s->is_last && i < j + n; i++) {
            sum[i] = f->column_max[i] + logf(sum[i]);
        }
    }
}

static void forward_strip(void *ctx, const tess_strip *s)
{
    const tess_kernels *k = tess__kernels();
    forward *f = ctx;
    float *lse = f->row_lse + s->slot * f->d.n + s->row;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < s->n_rows; i++) {
        float top = -INFINITY, sum = 0.0f;
        k->row_lse(s->dots + i * s->batch, s->batch, f->scale, &top, &sum);
        lse[i] = top + logf(sum);
    }
    for (int64_t i = 0; i < s->n_rows; i++) {
        const int64_t match = s->match + i;
        if (match >= 0 && match < s->batch) {
            f->pairs += (double)f->scale * (double)s->dots[i * s->batch + match];
        }
    }
    forward_columns(f, s);
}

/* Column maxima while strips are made, then what joining takes. */
static tess_status prepare(tess_prepare *c)
{
    const tess_contrast_dims d = tess__contrast_dims(c->in, c->attrs);
    const int64_t n = d.comm ? d.slots * d.n : d.batch;
    return tess__contrast_prepare(c, false, (size_t)n * sizeof(float));
}

/* Of the rank's own pairs; without other ranks, of all rows. */
static double own_loss(const forward *f)
{
    const tess_contrast_dims *d = &f->d;
    const int64_t first = d->comm ? d->first : 0, n_rows = d->comm ? d->batch : d->n;
    double sum = -2 * f->pairs;
    for (int64_t k = 0; k < d->slots; k++) {
        for (int64_t i = first; i < first + n_rows; i++) {
            sum += (double)f->row_lse[k * d->n + i];
        }
        for (int64_t j = 0; j < d->batch; j++) {
            sum += (double)f->column_sum[k * d->batch + j];
        }
    }
    return sum / (2.0 * (double)d->n * (double)d->slots);
}

static tess_status cpu(const tess_exec *e)
{
    forward f = {.d = tess__contrast_dims(e->in, e->attrs),
                 .scale = tess__contrast_scale(*(const float *)e->in[2].data),
                 .row_lse = e->out[1].data,
                 .column_sum = e->out[2].data};
    f.column_max = (float *)((char *)e->scratch + tess__strips_scratch(e->prepared));
    const tess_strips_args args = tess__strips_args_of(e, false);
    TESS_TRY(tess__strips_run(e->prepared, &args, forward_strip, &f));
    if (f.d.comm) {
        TESS_TRY(tess__contrast_join(f.d.comm, f.row_lse, f.d.slots * f.d.n, f.column_max));
    }
    return tess__contrast_sum(f.d.comm, own_loss(&f), e->out[0].data);
}

/* ---- gradient: a, b, log_scale, lse_row, lse_col, dloss -> da, db, dlog_scale -------------- */

typedef struct backward {
    int64_t n;
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
    const float *rows = b->row_lse + s->slot * b->n + s->row;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < s->n_rows; i++) {
        b->dot[i] = k->softmax_pair_grad(s->dots + i * s->batch, s->batch, b->scale, rows[i],
                                         columns, s->match + i, b->factor);
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
    const tess_contrast_dims d = tess__contrast_dims(e->in, e->attrs);
    const float log_scale = *(const float *)e->in[2].data, dloss = *(const float *)e->in[5].data;
    backward b = {.n = d.n,
                  .scale = tess__contrast_scale(log_scale),
                  .factor = dloss / (2.0f * (float)d.n * (float)d.slots),
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
    const tess_contrast_dims d = tess__contrast_dims(e->in, e->attrs);
    float *lse_row = e->out[1].data, *lse_column = e->out[2].data;
    double loss = 0;
    for (int64_t p = 0; p < d.slots * d.n; p++) {
        const int64_t i = p % d.n, first = p / d.n * d.batch;
        double sum = 0;
        for (int64_t j = first; j < first + d.batch; j++) {
            sum += exp(tess__contrast_logit(e, i, j));
        }
        lse_row[p] = (float)log(sum);
        loss += log(sum);
    }
    for (int64_t j = 0; j < d.slots * d.batch; j++) {
        double sum = 0;
        for (int64_t i = 0; i < d.n; i++) {
            sum += exp(tess__contrast_logit(e, i, j));
        }
        lse_column[j] = (float)log(sum);
        loss += log(sum) - 2 * tess__contrast_logit(e, d.first + j % d.batch, j);
    }
    *(float *)e->out[0].data = (float)(loss / (2 * (double)(d.n * d.slots)));
    return TESS_OK;
}

static double slope(const tess_exec *e, int64_t i, int64_t j, double logit)
{
    const tess_contrast_dims d = tess__contrast_dims(e->in, e->attrs);
    const double factor = (double)*(const float *)e->in[5].data / (2 * (double)(d.n * d.slots));
    const double row = (double)((const float *)e->in[3].data)[j / d.batch * d.n + i];
    const double column = (double)((const float *)e->in[4].data)[j];
    return factor * (exp(logit - row) + exp(logit - column) - (i == d.first + j % d.batch ? 2 : 0));
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

/* A rank's part, as it is before ranks are joined: rows 4 .. 8 of 13 have their matches here. */
static tess_value build_part(tess_graph *g, const tess_value *in)
{
    const tess_contrast_attrs at = {.slots = 2, .first = 4};
    return TESS_NODE(g, &tess__op_contrast_softmax, &at, in[0], in[1], in[2]);
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
    {.name = "part",
     .n_in = 3,
     .in = {{TESS_F32, {2, {13, 20}}, TESS_FILL_UNIT},
            {TESS_F32, {2, {10, 20}}, TESS_FILL_UNIT},
            {TESS_F32, {0}, TESS_FILL_POSITIVE}},
     .build = build_part,
     .reduction = 13 * 20},
};

static const tess_op grad_op = {
    .name = "contrast_softmax_grad",
    .n_in_min = 6,
    .n_in_max = 6,
    .n_out = 3,
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

const tess_op tess__op_contrast_softmax = {
    .name = "contrast_softmax",
    .n_in_min = 3,
    .n_in_max = 3,
    .n_out = 3,
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
