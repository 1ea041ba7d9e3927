/* SPDX-License-Identifier: Apache-2.0 */
/* Strips of dots, what both contrastive objectives are made of. */
#include "tensor/contrast.h"

#include <math.h>
#include <string.h>

#include "tensor/matmul.h"

#define LOG_SCALE_MAX 4.605170186f /* ln 100: Radford et al. 2021 */

enum { DOTS, DA, DB, N_PRODUCTS };

struct tess_strips {
    tess_contrast_dims d;
    int64_t rows;
    tess_matmul *product[2][N_PRODUCTS]; /* whole strips; the last, shorter one */
    size_t product_bytes;
};

static tess_status add_products(tess_strips *s, int which, int64_t rows, bool backward)
{
    const int64_t b = s->d.batch, z = s->d.width;
    const tess_matmul_spec specs[N_PRODUCTS] = {
        [DOTS] = {.m = rows, .n = b, .k = z, .b_trans = true},
        [DA] = {.m = rows, .n = z, .k = b, .accumulate = true},
        [DB] = {.m = b, .n = z, .k = rows, .a_trans = true, .accumulate = true},
    };
    for (int i = 0; rows > 0 && i < (backward ? N_PRODUCTS : 1); i++) {
        TESS_TRY(tess__matmul_new(&specs[i], &s->product[which][i]));
        const size_t bytes = tess__matmul_scratch(s->product[which][i]);
        s->product_bytes = bytes > s->product_bytes ? bytes : s->product_bytes;
    }
    return TESS_OK;
}

tess_status tess__strips_new(const tess_contrast_dims *d, bool backward, tess_strips **out)
{
    tess_strips *s = tess_alloc(sizeof *s);
    if (!s) {
        return TESS_NOMEM;
    }
    s->d = *d;
    s->rows = d->n < TESS_STRIP_ROWS ? d->n : TESS_STRIP_ROWS;
    tess_status st = add_products(s, 0, s->rows, backward);
    if (st == TESS_OK && s->rows > 0) {
        st = add_products(s, 1, d->n % s->rows, backward);
    }
    if (st != TESS_OK) {
        tess__strips_free(s);
        return st;
    }
    *out = s;
    return TESS_OK;
}

void tess__strips_free(void *strips)
{
    tess_strips *s = strips;
    for (int i = 0; s && i < 2 * N_PRODUCTS; i++) {
        tess__matmul_free(s->product[i / N_PRODUCTS][i % N_PRODUCTS]);
    }
    tess_free(s);
}

static size_t dots_bytes(const tess_strips *s)
{
    return ((size_t)(s->rows * s->d.batch) * sizeof(float) + 63) / 64 * 64;
}

size_t tess__strips_scratch(const tess_strips *s)
{
    return dots_bytes(s) + (s->product_bytes + 63) / 64 * 64;
}

static tess_status run_strip(tess_strips *s, const tess_strips_args *args, tess_strip *strip,
                             tess_strip_visit *visit, void *ctx)
{
    tess_matmul **product = s->product[strip->n_rows == s->rows ? 0 : 1];
    const float *a = args->a + strip->row * s->d.width;
    const float *b = args->b + strip->slot * s->d.batch * s->d.width;
    tess_matmul_args m = {
        .a = a, .b = b, .c = strip->dots, .scratch = (char *)args->scratch + dots_bytes(s)};
    TESS_TRY(tess__matmul_run(product[DOTS], &m));
    visit(ctx, strip);
    if (!args->da) {
        return TESS_OK;
    }
    m.a = strip->dots;
    m.c = args->da + strip->row * s->d.width;
    TESS_TRY(tess__matmul_run(product[DA], &m));
    m.b = a;
    m.c = args->db + strip->slot * s->d.batch * s->d.width;
    return tess__matmul_run(product[DB], &m);
}

tess_status tess__strips_run(tess_strips *s, const tess_strips_args *args, tess_strip_visit *visit,
                             void *ctx)
{
    const tess_contrast_dims *d = &s->d;
    if (args->da) {
        memset(args->da, 0, (size_t)(d->n * d->width) * sizeof(float));
        memset(args->db, 0, (size_t)(d->slots * d->batch * d->width) * sizeof(float));
    }
    for (int64_t k = 0; k < d->slots; k++) {
        for (int64_t row = 0; row < d->n; row += s->rows) {
            const int64_t left = d->n - row;
            tess_strip strip = {.slot = k,
                                .row = row,
                                .n_rows = left < s->rows ? left : s->rows,
                                .batch = d->batch,
                                .match = row - d->first,
                                .is_first = row == 0,
                                .is_last = left <= s->rows,
                                .dots = args->scratch};
            TESS_TRY(run_strip(s, args, &strip, visit, ctx));
        }
    }
    return TESS_OK;
}

tess_contrast_dims tess__contrast_dims(const tess_operand *in, const void *attrs)
{
    const tess_contrast_attrs *a = attrs;
    const int64_t n = in[0].shape.dim[0], rows = in[1].shape.dim[0];
    tess_contrast_dims d = {.n = n, .width = in[0].shape.dim[1], .first = a->first};
    d.comm = a->comm && tess_comm_size(a->comm) > 1 ? a->comm : NULL;
    d.slots = a->slots > 0 ? a->slots : n > 0 ? rows / n : 0;
    d.batch = d.slots > 0 ? rows / d.slots : 0;
    return d;
}

tess_contrast_attrs tess__contrast_over(tess_graph *g, tess_comm *comm, tess_value a, tess_value b)
{
    tess_contrast_attrs at = {.comm = comm};
    if (comm && tess_graph_check(g) == TESS_OK) {
        const int64_t batch = tess_value_shape(g, a).dim[0] / tess_comm_size(comm);
        at.slots = batch > 0 ? tess_value_shape(g, b).dim[0] / batch : 0;
        at.first = batch * tess_comm_rank(comm);
    }
    return at;
}

void tess__contrast_print(const void *attrs, tess_buf *out)
{
    const tess_contrast_attrs *a = attrs;
    if (a->slots > 0) {
        tess_buf_addf(out, "%lld slots, rows from %lld on", (long long)a->slots,
                      (long long)a->first);
    }
}

tess_status tess__contrast_check(const tess_operand *in, const void *attrs)
{
    TESS_TRY(tess__expect("a", &in[0], TESS_F32, 2));
    TESS_TRY(tess__expect("b", &in[1], TESS_F32, 2));
    const tess_contrast_dims d = tess__contrast_dims(in, attrs);
    const int64_t ranks = d.comm ? tess_comm_size(d.comm) : 1;
    const bool fits = d.n > 0 && d.slots > 0 && d.batch > 0 && d.first >= 0 &&
                      d.slots * d.batch == in[1].shape.dim[0] && d.first + d.batch <= d.n &&
                      (ranks == 1 || ranks * d.batch == d.n);
    if (!fits || d.width != in[1].shape.dim[1]) {
        return TESS_FAIL(TESS_INVALID, "contrast: expected b (K*%lld,%lld), found (%lld,%lld)",
                         (long long)(d.n / ranks), (long long)d.width,
                         (long long)in[1].shape.dim[0], (long long)in[1].shape.dim[1]);
    }
    for (int i = 2; in[i].shape.rank >= 0 && i < 4; i++) {
        if (in[i].dtype != TESS_F32 || tess_shape_count(&in[i].shape) != 1) {
            return TESS_FAIL(TESS_INVALID, "contrast: expected scalars f32 for scale and bias");
        }
    }
    return TESS_OK;
}

float tess__contrast_scale(float log_scale)
{
    return expf(log_scale < LOG_SCALE_MAX ? log_scale : LOG_SCALE_MAX);
}

float tess__contrast_scale_grad(float log_scale, double d)
{
    return log_scale >= LOG_SCALE_MAX && d < 0 ? 0.0f : (float)d;
}

/* ---- ranks --------------------------------------------------------------------------------- */

#define SOFTER 8.0f

tess_status tess__contrast_join(tess_comm *comm, float *lse, int64_t n, float *scratch)
{
    for (int64_t i = 0; i < n; i++) {
        scratch[i] = expf(lse[i] / SOFTER);
    }
    TESS_TRY(tess_comm_all_reduce(comm, scratch, TESS_F32, n));
    for (int64_t i = 0; i < n; i++) {
        scratch[i] = SOFTER * logf(scratch[i]);
        lse[i] = expf(lse[i] - scratch[i]);
    }
    TESS_TRY(tess_comm_all_reduce(comm, lse, TESS_F32, n));
    for (int64_t i = 0; i < n; i++) {
        lse[i] = scratch[i] + logf(lse[i]);
    }
    return TESS_OK;
}

tess_status tess__contrast_sum(tess_comm *comm, double part, float *out)
{
    *out = (float)part;
    return comm ? tess_comm_all_reduce(comm, out, TESS_F32, 1) : TESS_OK;
}

/* ---- what both operators have -------------------------------------------------------------- */

tess_strips_args tess__strips_args_of(const tess_exec *e, bool backward)
{
    return (tess_strips_args){.a = e->in[0].data,
                              .b = e->in[1].data,
                              .da = backward ? e->out[0].data : NULL,
                              .db = backward ? e->out[1].data : NULL,
                              .scratch = e->scratch};
}

tess_status tess__contrast_prepare(tess_prepare *c, bool backward, size_t extra)
{
    const tess_contrast_dims d = tess__contrast_dims(c->in, c->attrs);
    tess_strips *s = NULL;
    TESS_TRY(tess__strips_new(&d, backward, &s));
    c->prepared = s;
    c->scratch_bytes = tess__strips_scratch(s) + extra;
    return TESS_OK;
}

double tess__contrast_flops(const tess_operand *in, const tess_operand *out, const void *attrs)
{
    (void)out, (void)attrs;
    return 2.0 * (double)tess_shape_count(&in[1].shape) * (double)in[0].shape.dim[0];
}

double tess__contrast_grad_flops(const tess_operand *in, const tess_operand *out, const void *attrs)
{
    return 3.0 * tess__contrast_flops(in, out, attrs);
}

double tess__contrast_logit(const tess_exec *e, int64_t i, int64_t j)
{
    const int64_t width = e->in[0].shape.dim[1];
    const float *a = (const float *)e->in[0].data + i * width;
    const float *b = (const float *)e->in[1].data + j * width;
    double sum = 0;
    for (int64_t d = 0; d < width; d++) {
        sum += (double)a[d] * (double)b[d];
    }
    return sum * (double)tess__contrast_scale(*(const float *)e->in[2].data);
}

double tess__contrast_ref_grad(const tess_exec *e, tess_contrast_slope *slope)
{
    const tess_contrast_dims dims = tess__contrast_dims(e->in, e->attrs);
    const int64_t n = dims.n, n_b = e->in[1].shape.dim[0], width = dims.width;
    const float *a = e->in[0].data, *b = e->in[1].data;
    const double scale = (double)tess__contrast_scale(*(const float *)e->in[2].data);
    float *da = e->out[0].data, *db = e->out[1].data;
    double sum = 0, dlog_scale = 0;
    memset(da, 0, (size_t)(n * width) * sizeof *da);
    memset(db, 0, (size_t)(n_b * width) * sizeof *db);
    for (int64_t p = 0; p < n_b * n; p++) {
        const int64_t i = p % n, j = p / n;
        const double logit = tess__contrast_logit(e, i, j), g = slope(e, i, j, logit);
        sum += g;
        dlog_scale += g * logit;
        for (int64_t d = 0; d < width; d++) {
            da[i * width + d] += (float)(g * scale * (double)b[j * width + d]);
            db[j * width + d] += (float)(g * scale * (double)a[i * width + d]);
        }
    }
    *(float *)e->out[2].data = (float)dlog_scale;
    return sum;
}
