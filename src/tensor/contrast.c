/* SPDX-License-Identifier: Apache-2.0 */
/* Strips of dots, what both contrastive objectives are made of. */
#include "tensor/contrast.h"

#include <math.h>
#include <string.h>

#include "tensor/matmul.h"

#define LOG_SCALE_MAX 4.605170186f /* ln 100: Radford et al. 2021 */

enum { DOTS, DA, DB, N_PRODUCTS };

struct tess_strips {
    int64_t batch, width, rows;
    tess_matmul *product[2][N_PRODUCTS]; /* whole strips; the last, shorter one */
    size_t product_bytes;
};

static tess_status add_products(tess_strips *s, int which, int64_t rows, bool backward)
{
    const int64_t b = s->batch, z = s->width;
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

tess_status tess__strips_new(int64_t batch, int64_t width, bool backward, tess_strips **out)
{
    tess_strips *s = tess_alloc(sizeof *s);
    if (!s) {
        return TESS_NOMEM;
    }
    s->batch = batch;
    s->width = width;
    s->rows = batch < TESS_STRIP_ROWS ? batch : TESS_STRIP_ROWS;
    tess_status st = add_products(s, 0, s->rows, backward);
    if (st == TESS_OK && s->rows > 0) {
        st = add_products(s, 1, batch % s->rows, backward);
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
    return ((size_t)(s->rows * s->batch) * sizeof(float) + 63) / 64 * 64;
}

size_t tess__strips_scratch(const tess_strips *s)
{
    return dots_bytes(s) + (s->product_bytes + 63) / 64 * 64;
}

static tess_status run_strip(tess_strips *s, const tess_strips_args *args, tess_strip *strip,
                             tess_strip_visit *visit, void *ctx)
{
    tess_matmul **product = s->product[strip->n_rows == s->rows ? 0 : 1];
    const float *a = args->a + strip->row * s->width;
    const float *b = args->b + strip->slot * s->batch * s->width;
    tess_matmul_args m = {
        .a = a, .b = b, .c = strip->dots, .scratch = (char *)args->scratch + dots_bytes(s)};
    TESS_TRY(tess__matmul_run(product[DOTS], &m));
    visit(ctx, strip);
    if (!args->da) {
        return TESS_OK;
    }
    m.a = strip->dots;
    m.c = args->da + strip->row * s->width;
    TESS_TRY(tess__matmul_run(product[DA], &m));
    m.b = a;
    m.c = args->db + strip->slot * s->batch * s->width;
    return tess__matmul_run(product[DB], &m);
}

tess_status tess__strips_run(tess_strips *s, const tess_strips_args *args, tess_strip_visit *visit,
                             void *ctx)
{
    const size_t a_bytes = (size_t)(s->batch * s->width) * sizeof(float);
    if (args->da) {
        memset(args->da, 0, a_bytes);
        memset(args->db, 0, a_bytes * (size_t)args->n_slots);
    }
    for (int64_t k = 0; k < args->n_slots; k++) {
        for (int64_t row = 0; row < s->batch; row += s->rows) {
            const int64_t left = s->batch - row;
            tess_strip strip = {.slot = k,
                                .row = row,
                                .n_rows = left < s->rows ? left : s->rows,
                                .batch = s->batch,
                                .dots = args->scratch};
            TESS_TRY(run_strip(s, args, &strip, visit, ctx));
        }
    }
    return TESS_OK;
}

tess_status tess__contrast_check(const tess_operand *in, int64_t *out_slots)
{
    TESS_TRY(tess__expect("a", &in[0], TESS_F32, 2));
    TESS_TRY(tess__expect("b", &in[1], TESS_F32, 2));
    const int64_t batch = in[0].shape.dim[0], rows = in[1].shape.dim[0];
    if (batch < 1 || rows < batch || rows % batch != 0 ||
        in[0].shape.dim[1] != in[1].shape.dim[1]) {
        return TESS_FAIL(TESS_INVALID, "contrast: expected b (K*%lld,%lld), found (%lld,%lld)",
                         (long long)batch, (long long)in[0].shape.dim[1], (long long)rows,
                         (long long)in[1].shape.dim[1]);
    }
    *out_slots = rows / batch;
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

/* ---- what both operators have -------------------------------------------------------------- */

tess_strips_args tess__strips_args_of(const tess_exec *e, bool backward)
{
    return (tess_strips_args){.a = e->in[0].data,
                              .b = e->in[1].data,
                              .n_slots = e->in[1].shape.dim[0] / e->in[0].shape.dim[0],
                              .da = backward ? e->out[0].data : NULL,
                              .db = backward ? e->out[1].data : NULL,
                              .scratch = e->scratch};
}

tess_status tess__contrast_prepare(tess_prepare *c, bool backward, size_t extra)
{
    tess_strips *s = NULL;
    TESS_TRY(tess__strips_new(c->in[0].shape.dim[0], c->in[0].shape.dim[1], backward, &s));
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
    const int64_t batch = e->in[0].shape.dim[0], n = e->in[1].shape.dim[0];
    const int64_t width = e->in[0].shape.dim[1];
    const float *a = e->in[0].data, *b = e->in[1].data;
    const double scale = (double)tess__contrast_scale(*(const float *)e->in[2].data);
    float *da = e->out[0].data, *db = e->out[1].data;
    double sum = 0, dlog_scale = 0;
    memset(da, 0, (size_t)(batch * width) * sizeof *da);
    memset(db, 0, (size_t)(n * width) * sizeof *db);
    for (int64_t p = 0; p < n * batch; p++) {
        const int64_t i = p % batch, j = p / batch;
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
