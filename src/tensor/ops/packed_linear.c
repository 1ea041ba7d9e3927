/* SPDX-License-Identifier: Apache-2.0 */
/* packed_linear: y = act(x W^T + bias) + residual with weights packed for inference (packed.h).
 *
 *   x (...,K), bias (N) f32 or absent, residual (...,N) or absent -> y (...,N), of x's type.
 *   f32 weights: x and products in f32.  bf16: x is rounded to bf16, sums in f32.
 *   i8: each row of x becomes bytes, x = s (a - z) with |error| <= s / 2 and
 *   s = (max - min) / 255, so y = s scale[n] (sum a q - z sum[n]) with exact integer sums.
 *   No gradient, no aliasing.  Deterministic, for any number of threads.  2 N M K FLOPs. */
#include "tensor/packed.h"

#include <math.h>
#include <string.h>

#include "tensor/parallel.h"

typedef struct packed_attrs {
    const tess_packed *w;
    int64_t act;
} packed_attrs;

/* Rows of an item: at most, and a multiple of what the kernels take at once. */
enum { ROWS_MOST = 192, ROWS_STEP = 12, ROWS_PER_CONVERSION = 16 };

tess_value tess__packed_linear(tess_graph *g, tess_value x, const tess_packed *w,
                               tess_packed_options o)
{
    const packed_attrs a = {.w = w, .act = o.act};
    return TESS_NODE(g, &tess__op_packed_linear, &a, x, o.bias, o.residual);
}

static tess_status infer(tess_infer *c)
{
    const packed_attrs *a = c->attrs;
    const tess_operand *x = &c->in[0];
    if (x->shape.rank < 1 || tess__last(&x->shape) != a->w->k || a->w->k > TESS_PACKED_MAX_K ||
        (x->dtype != TESS_F32 && x->dtype != TESS_BF16)) {
        return TESS_FAIL(TESS_INVALID,
                         "packed_linear: expected x (...,%lld) of at most %d, found last dimension "
                         "%lld of %s",
                         (long long)a->w->k, TESS_PACKED_MAX_K,
                         (long long)(x->shape.rank < 1 ? 0 : tess__last(&x->shape)),
                         tess_dtype_name(x->dtype));
    }
    tess_operand y = *x;
    y.shape.dim[y.shape.rank - 1] = a->w->n;
    if (c->in[1].shape.rank >= 0) {
        const tess_operand bias = {.dtype = TESS_F32, .shape = TESS_SHAPE_OF(a->w->n)};
        TESS_TRY(tess__expect_like("bias", &c->in[1], &bias));
    }
    if (c->in[2].shape.rank >= 0) {
        TESS_TRY(tess__expect_like("residual", &c->in[2], &y));
    }
    c->out[0] = y;
    return TESS_OK;
}

/* ---- execution ----------------------------------------------------------------------------- */

/* x as the weights want it, in scratch: rows of `row_bytes`, then scales and zero points. */
typedef struct converted {
    bool needed;
    size_t row_bytes, rows_bytes, bytes;
} converted;

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static converted convert_plan(const tess_operand *x, const tess_packed *w)
{
    const size_t rows = (size_t)tess__rows(&x->shape);
    converted c = {.row_bytes = (size_t)tess__packed_groups(w->kind, w->k) * sizeof(uint32_t)};
    c.needed = x->dtype != w->kind || c.row_bytes != (size_t)w->k * tess_dtype_bytes(x->dtype);
    c.rows_bytes = c.needed ? round_up(rows * c.row_bytes, 64) : 0;
    c.bytes = c.rows_bytes + (w->kind == TESS_I8 ? 2 * round_up(rows * sizeof(float), 64) : 0);
    return c;
}

static tess_status prepare(tess_prepare *c)
{
    c->scratch_bytes = convert_plan(&c->in[0], ((const packed_attrs *)c->attrs)->w).bytes;
    return TESS_OK;
}

typedef struct job {
    const tess_exec *e;
    const packed_attrs *attrs;
    converted conversion;
    int64_t rows, rows_per_item, n_row_items;
    char *a; /* x or scratch */
    float *scale;
    int32_t *zero;
} job;

/* How many items of a share are taken; no two in one cache line. */
typedef struct share {
    int64_t n, apart[7];
} share;
enum { SHARES = 64 };

static void convert_rows(const job *j, int64_t begin, int64_t n)
{
    const tess_kernels *k = tess__kernels();
    const tess_packed *w = j->attrs->w;
    const tess_operand *x = &j->e->in[0];
    const size_t row_bytes = j->conversion.row_bytes;
    const void *from = tess__at(x->data, x->dtype, begin * w->k);
    char *to = j->a + (size_t)begin * row_bytes;
    if (w->kind == TESS_I8) {
        k->quantise(x->dtype, (uint8_t *)to, (int64_t)row_bytes, j->scale + begin, j->zero + begin,
                    from, n, w->k);
        return;
    }
    for (int64_t r = 0; r < n; r++, to += row_bytes) {
        const size_t filled = (size_t)w->k * tess_dtype_bytes(w->kind);
        k->convert(w->kind, to, x->dtype, tess__at(from, x->dtype, r * w->k), w->k);
        memset(to + filled, 0, row_bytes - filled);
    }
}

/* Rows row .. of panel `panel`; `next` is fetched meanwhile. */
static void run_item(const job *j, int64_t panel, int64_t row, tess_bytes next)
{
    const tess_kernels *k = tess__kernels();
    const tess_packed *w = j->attrs->w;
    const tess_operand *y = &j->e->out[0];
    const int64_t col = panel * TESS_PANEL, groups = tess__packed_groups(w->kind, w->k);
    const int64_t at = row * w->n + col;
    const float *bias = j->e->in[1].data;
    const void *residual = j->e->in[2].data;
    tess_packed_args a = {
        .kind = w->kind,
        .dtype = y->dtype,
        .a = j->a + (size_t)row * j->conversion.row_bytes,
        .b = (const char *)w->panels + (size_t)(panel * groups * TESS_PANEL) * sizeof(uint32_t),
        .next = next.data,
        .next_bytes = (int64_t)next.n_bytes,
        .bias = bias ? bias + col : NULL,
        .residual = residual ? tess__at(residual, y->dtype, at) : NULL,
        .y = tess__at_mut(y->data, y->dtype, at),
        .rows = j->rows - row < j->rows_per_item ? j->rows - row : j->rows_per_item,
        .cols = w->n - col < TESS_PANEL ? w->n - col : TESS_PANEL,
        .groups = groups,
        .a_row = groups,
        .y_row = w->n,
        .act = (tess_unary_kind)j->attrs->act,
        .unary = j->attrs->act >= TESS_UNARY_COUNT ? NULL
                 : y->dtype == TESS_BF16           ? k->unary_rough
                                                   : k->unary,
    };
    if (w->kind == TESS_I8) {
        a.a_scale = j->scale + row;
        a.a_zero = j->zero + row;
        a.b_scale = w->scale + col;
        a.b_sum = w->sum + col;
    }
    k->packed_panel(&a);
}

/* Of the panel that a thread takes after this one: what item i fetches of it, when the thread has
 * items begin .. end - 1. */
static tess_bytes next_share(const job *j, int64_t i, int64_t begin, int64_t end)
{
    const tess_packed *w = j->attrs->w;
    const int64_t per = j->n_row_items, panel = i / per;
    const int64_t first = panel * per > begin ? panel * per : begin, after = (panel + 1) * per;
    if (after >= end) {
        return (tess_bytes){NULL, 0};
    }
    const int64_t bytes =
        tess__packed_groups(w->kind, w->k) * TESS_PANEL * (int64_t)sizeof(uint32_t);
    const int64_t lines = bytes / 64, n = after - first; /* a panel is whole lines */
    const int64_t from = lines * (i - first) / n, to = lines * (i + 1 - first) / n;
    const uint8_t *next = (const uint8_t *)w->panels + (panel + 1) * bytes;
    return (tess_bytes){next + from * 64, (size_t)(to - from) * 64};
}

/* Share s of n: a run of items, panel by panel, so that a panel stays in a cache.  Threads take its
 * items one by one. */
static void run_share(const job *j, share *taken, int64_t s, int64_t n_shares)
{
    const int64_t per = j->n_row_items, n = tess__packed_n_panels(j->attrs->w->n) * per;
    const int64_t begin = n * s / n_shares, end = n * (s + 1) / n_shares;
    for (;;) {
        int64_t i;
#pragma omp atomic capture
        i = taken->n++;
        i += begin;
        if (i >= end) {
            return;
        }
        run_item(j, i / per, i % per * j->rows_per_item, next_share(j, i, begin, end));
    }
}

/* A thread whose share is done helps with the others': another process may hold their core. */
static void run_shares(const job *j, share *shares)
{
    const int64_t threads = omp_get_num_threads(), n = threads < SHARES ? threads : SHARES;
    for (int64_t k = 0; k < n; k++) {
        const int64_t s = (omp_get_thread_num() + k) % n;
        run_share(j, &shares[s], s, n);
    }
}

/* Items of about the same size, so that threads end together. */
static void cut_rows(job *j)
{
    const int64_t n = (j->rows + ROWS_MOST - 1) / ROWS_MOST;
    const int64_t even = n > 0 ? (j->rows + n - 1) / n : 1;
    j->rows_per_item = (even + ROWS_STEP - 1) / ROWS_STEP * ROWS_STEP;
    j->n_row_items = (j->rows + j->rows_per_item - 1) / j->rows_per_item;
}

static tess_status cpu(const tess_exec *e)
{
    const packed_attrs *attrs = e->attrs;
    job j = {.e = e,
             .attrs = attrs,
             .conversion = convert_plan(&e->in[0], attrs->w),
             .rows = tess__rows(&e->in[0].shape),
             .a = e->in[0].data};
    share shares[SHARES] = {0};
    cut_rows(&j);
    if (j.conversion.needed) {
        j.a = e->scratch;
        j.scale = (float *)(j.a + j.conversion.rows_bytes);
        j.zero = (int32_t *)((char *)j.scale + round_up((size_t)j.rows * sizeof(float), 64));
    }
#pragma omp parallel num_threads(tess__slots())
    {
        if (j.conversion.needed) {
#pragma omp for schedule(static)
            for (int64_t r = 0; r < j.rows; r += ROWS_PER_CONVERSION) {
                const int64_t left = j.rows - r;
                convert_rows(&j, r, left < ROWS_PER_CONVERSION ? left : ROWS_PER_CONVERSION);
            }
        }
        run_shares(&j, shares);
    }
    return TESS_OK;
}

/* ---- reference ----------------------------------------------------------------------------- */

/* Element j of weight row i, as it is multiplied. */
static double weight_at(const tess_packed *w, int64_t i, int64_t j)
{
    const int64_t per = (int64_t)(sizeof(uint32_t) / tess_dtype_bytes(w->kind));
    const int64_t groups = tess__packed_groups(w->kind, w->k);
    const int64_t at =
        ((i / TESS_PANEL * groups + j / per) * TESS_PANEL + i % TESS_PANEL) * per + j % per;
    return w->kind == TESS_I8     ? (double)((const int8_t *)w->panels)[at]
           : w->kind == TESS_BF16 ? (double)tess_f32_from_bf16(((const uint16_t *)w->panels)[at])
                                  : (double)((const float *)w->panels)[at];
}

/* A row of x as it is multiplied; integers less their zero point, and their scale, for i8. */
static double round_row(const tess_packed *w, const float *x, double *out)
{
    float low = 0, high = 0;
    for (int64_t k = 0; k < w->k; k++) {
        low = x[k] < low ? x[k] : low;
        high = x[k] > high ? x[k] : high;
        out[k] =
            (double)(w->kind == TESS_BF16 ? tess_f32_from_bf16(tess_bf16_from_f32(x[k])) : x[k]);
    }
    if (w->kind != TESS_I8) {
        return 1;
    }
    const float inverse = high > low ? 255.0f / (high - low) : 0;
    const float zero = rintf(-low * inverse);
    for (int64_t k = 0; k < w->k; k++) {
        const float q = rintf(x[k] * inverse) + zero;
        out[k] = (double)((q < 0 ? 0 : q > 255 ? 255 : q) - zero);
    }
    return (double)((high - low) / 255.0f);
}

static tess_status ref(const tess_exec *e)
{
    const packed_attrs *a = e->attrs;
    const tess_packed *w = a->w;
    const float *bias = e->in[1].data, *residual = e->in[2].data;
    float *y = e->out[0].data;
    double *row = tess_alloc_array((size_t)w->k + 1, sizeof *row);
    if (!row) {
        return TESS_NOMEM;
    }
    for (int64_t r = 0; r < tess__rows(&e->in[0].shape); r++) {
        const double scale = round_row(w, (const float *)e->in[0].data + r * w->k, row);
        for (int64_t i = 0; i < w->n; i++, y++) {
            double sum = 0;
            for (int64_t k = 0; k < w->k; k++) {
                sum += row[k] * weight_at(w, i, k);
            }
            sum *= w->kind == TESS_I8 ? scale * (double)w->scale[i] : 1;
            sum += bias ? (double)bias[i] : 0;
            sum = a->act < TESS_UNARY_COUNT ? tess__unary_value((tess_unary_kind)a->act, sum) : sum;
            *y = (float)(residual ? sum + (double)residual[r * w->n + i] : sum);
        }
    }
    tess_free(row);
    return TESS_OK;
}

static double flops(const tess_operand *in, const tess_operand *out, const void *attrs)
{
    (void)attrs;
    return 2.0 * (double)tess_shape_count(&out[0].shape) * (double)tess__last(&in[0].shape);
}

static void print(const void *attrs, tess_buf *out)
{
    const packed_attrs *a = attrs;
    tess_buf_addf(out, "%s%s%s", tess_dtype_name(a->w->kind), a->act < TESS_UNARY_COUNT ? " " : "",
                  a->act < TESS_UNARY_COUNT ? tess_unary_name((tess_unary_kind)a->act) : "");
}

/* ---- cases --------------------------------------------------------------------------------- */

/* Weights of a case are made once and stay: (n, k) numbers of a fixed sequence. */
static const tess_packed *case_weights(tess_dtype kind, int64_t n, int64_t k)
{
    static tess_packed made[8];
    static int n_made;
    for (int i = 0; i < n_made; i++) {
        if (made[i].kind == kind && made[i].n == n && made[i].k == k) {
            return &made[i];
        }
    }
    float *w = tess_alloc_array((size_t)(n * k), sizeof *w);
    tess_rng r = tess_rng_at(5, (uint64_t)(n * k));
    for (int64_t i = 0; w && i < n * k; i++) {
        w[i] = (float)tess_rng_normal(&r);
    }
    tess_packed *to = &made[n_made];
    const bool ok = w && n_made < TESS_COUNT(made) &&
                    tess__packed_make(kind, w, n, k, n % 2 == 0, to) == TESS_OK;
    n_made += ok;
    tess_free(w);
    return ok ? to : NULL;
}

#define BUILD(label, kind, n, k, ...)                                                              \
    static tess_value build_##label(tess_graph *g, const tess_value *in)                           \
    {                                                                                              \
        (void)in;                                                                                  \
        return tess__packed_linear(g, in[0], case_weights(kind, n, k),                             \
                                   (tess_packed_options){__VA_ARGS__});                            \
    }
BUILD(i8_one_row, TESS_I8, 3, 5, .act = TESS_UNARY_COUNT)
BUILD(i8_gelu, TESS_I8, 70, 131, .bias = in[1], .act = TESS_GELU)
BUILD(i8_residual, TESS_I8, 128, 64, .bias = in[1], .residual = in[2], .act = TESS_UNARY_COUNT)
BUILD(bf16_quick_gelu, TESS_BF16, 65, 48, .bias = in[1], .act = TESS_QUICK_GELU)
BUILD(bf16_gelu, TESS_BF16, 64, 40, .bias = in[1], .act = TESS_GELU)
BUILD(bf16_odd, TESS_BF16, 20, 33, .residual = in[1], .act = TESS_UNARY_COUNT)
BUILD(f32_relu, TESS_F32, 100, 37, .bias = in[1], .act = TESS_RELU)

static const tess_case cases[] = {
    {.name = "i8_one_row",
     .n_in = 1,
     .in = {{TESS_F32, {2, {1, 5}}}},
     .build = build_i8_one_row,
     .reduction = 5},
    {.name = "i8_gelu",
     .n_in = 2,
     .in = {{TESS_F32, {3, {3, 7, 131}}}, {TESS_F32, {1, {70}}}},
     .build = build_i8_gelu,
     .reduction = 131},
    {.name = "i8_residual",
     .n_in = 3,
     .in = {{TESS_BF16, {2, {200, 64}}}, {TESS_F32, {1, {128}}}, {TESS_BF16, {2, {200, 128}}}},
     .build = build_i8_residual,
     .reduction = 64},
    {.name = "bf16_quick_gelu",
     .n_in = 2,
     .in = {{TESS_BF16, {2, {45, 48}}}, {TESS_F32, {1, {65}}}},
     .build = build_bf16_quick_gelu,
     .reduction = 48},
    {.name = "bf16_gelu",
     .n_in = 2,
     .in = {{TESS_BF16, {2, {30, 40}}}, {TESS_F32, {1, {64}}}},
     .build = build_bf16_gelu,
     .reduction = 40},
    {.name = "bf16_odd",
     .n_in = 2,
     .in = {{TESS_F32, {2, {9, 33}}}, {TESS_F32, {2, {9, 20}}}},
     .build = build_bf16_odd,
     .reduction = 33},
    {.name = "f32_relu",
     .n_in = 2,
     .in = {{TESS_F32, {2, {13, 37}}}, {TESS_F32, {1, {100}}}},
     .build = build_f32_relu,
     .reduction = 37},
};

const tess_op tess__op_packed_linear = {
    .name = "packed_linear",
    .n_in_min = 1,
    .n_in_max = 3,
    .n_out = 1,
    .attrs_bytes = sizeof(packed_attrs),
    .infer = infer,
    .prepare = prepare,
    .cpu = cpu,
    .ref = ref,
    .flops = flops,
    .print = print,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
