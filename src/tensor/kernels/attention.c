/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax attention of one head within one segment, forward and backward.
 *
 * Segments are short (1..300 rows), so a whole head fits in L2: rows are widened to f32 scratch
 * once, K (and V, backward) is transposed there, and every product is one small register-blocked
 * matrix product with 6 x 4 vectors of accumulators.  Nothing is streamed as in flash attention:
 * the scores of a segment are smaller than the keys they come from.  Scores are kept for the
 * backward pass as their log-sum-exp only (docs/attention_backward.md).
 *
 * Where the processor multiplies pairs of bf16, every product of bf16 rows does: Q K^T and dY V^T
 * take pairs straight from memory, the others run over rows that are laid together two by two, and
 * probabilities and their gradients are rounded to bf16 first.  Sums, exponentials and the softmax
 * itself stay f32.
 *
 * Widths are padded to whole vectors with zeros, keys beyond the last (and, causal, beyond the
 * query) get probability exactly 0. */
#include "tensor/kernels/product.h"

#include <math.h>

/* ---- rows in and out ---------------------------------------------------------------------- */

INLINE void load_rows_body(float *out, const void *x, int64_t stride, int64_t n, int64_t width,
                           bool bf16)
{
    const int64_t out_width = padded(width);
    for (int64_t r = 0; r < n; r++) {
        const void *xr = at(x, r * stride, bf16);
        for (int64_t j = 0; j < width; j += LANES) {
            *(vf *)(out + r * out_width + j) = load_part(xr, j, width - j, bf16);
        }
    }
}

static void load_rows(tess_dtype t, float *out, const void *x, int64_t stride, int64_t n,
                      int64_t width)
{
    BY_DTYPE(t, load_rows_body, out, x, stride, n, width);
}

INLINE void store_rows_body(void *out, int64_t stride, const float *x, int64_t n, int64_t width,
                            float factor, bool bf16)
{
    const int64_t x_width = padded(width);
    for (int64_t r = 0; r < n; r++) {
        void *to = at_mut(out, r * stride, bf16);
        const float *xr = x + r * x_width;
        int64_t j = 0;
        for (; j + LANES <= width; j += LANES) {
            store_vec(to, j, *(const vf *)(xr + j) * factor, bf16);
        }
        for (; j < width; j++) {
            store1(to, j, xr[j] * factor, bf16);
        }
    }
}

static void store_rows(tess_dtype t, void *out, int64_t stride, const float *x, int64_t n,
                       int64_t width, float factor)
{
    BY_DTYPE(t, store_rows_body, out, stride, x, n, width, factor);
}

/* out (width, padded n) = rows (n, width) transposed, zeros behind the last row. */
INLINE void load_transposed_body(float *out, const void *x, int64_t stride, int64_t n,
                                 int64_t width, bool bf16)
{
    const int64_t out_stride = padded(n);
    for (int64_t j0 = 0; j0 < n; j0 += LANES) {
        for (int64_t d0 = 0; d0 < width; d0 += LANES) {
            vf r[LANES];
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++) {
                r[i] = j0 + i < n ? load_part(at(x, (j0 + i) * stride, bf16), d0, width - d0, bf16)
                                  : (vf){0};
            }
            transpose(r);
            for (int i = 0; i < LANES && d0 + i < width; i++) {
                *(vf *)(out + (d0 + i) * out_stride + j0) = r[i];
            }
        }
    }
}

static void load_transposed(tess_dtype t, float *out, const void *x, int64_t stride, int64_t n,
                            int64_t width)
{
    BY_DTYPE(t, load_transposed_body, out, x, stride, n, width);
}

/* ---- probabilities as pairs -------------------------------------------------------------- */

/* x (n) times factor; as n/2 pairs of neighbours in its own place when they are to be pairs.  n
 * whole vectors. */
INLINE void scale_row(float *x, int64_t n, float factor, bool pairs)
{
    for (int64_t j = 0; j < n; j += LANES) {
        store_vec(x, j, *(const vf *)(x + j) * factor, pairs);
    }
}

/* out = a in the low halves, b in the high ones. */
INLINE void pair_rows(float *out, const float *a, const float *b, int64_t n)
{
    for (int64_t j = 0; j < n; j += LANES) {
        const vu low = __builtin_convertvector(narrow(*(const vf *)(a + j)), vu);
        const vu high = __builtin_convertvector(narrow(*(const vf *)(b + j)), vu);
        *(vu *)(out + j) = low | high << 16;
    }
}

/* ---- softmax of a row --------------------------------------------------------------------- */

/* exp1 of vec.h for whole vectors; arguments are at most 0 but for rounding, or -infinity. */
INLINE vf exp_vec(vf x)
{
    const vi gone = x < -87.0f;
    const vf lo = (vf)(~gone & (vi)x);
    const vf shifted = lo * 1.44269504f + 12582912.0f;
    const vf n = shifted - 12582912.0f;
    const vf r = (lo - n * 0.693145752f) - n * 1.42860677e-6f;
    vf p = r * 1.98412698e-4f + 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 0.166666667f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const vu power = ((vu)shifted - 0x4b400000u + 127u) << 23;
    return (vf)(~gone & (vi)(p * (vf)power));
}

/* -infinity behind the first n, whose exponential is 0. */
INLINE void hide_rest(float *x, int64_t n, int64_t n_padded)
{
    for (int64_t j = n; j < n_padded; j++) {
        x[j] = -INFINITY;
    }
}

/* x = exp(x * scale - top); returns the sum. */
INLINE float exp_row(float *x, int64_t n_padded, float scale, float top)
{
    vf sum = {0};
    for (int64_t j = 0; j < n_padded; j += LANES) {
        const vf e = exp_vec(*(const vf *)(x + j) * scale - top);
        *(vf *)(x + j) = e;
        sum += e;
    }
    return sum_vec(sum);
}

INLINE int64_t n_seen(const tess_attention_args *a, int64_t query)
{
    return a->causal && query + 1 < a->n_k ? query + 1 : a->n_k;
}

/* ---- one head of one segment -------------------------------------------------------------- */

static int64_t attention_scratch(int64_t n_q, int64_t n_k, int64_t head_dim)
{
    const int64_t d = padded(head_dim), k = padded(n_k), n = n_q > n_k ? n_q : n_k;
    return (n_q + 2 * n) * d + d * k + 2 * (n_q + n_q % 2) * k + LANES;
}

static void zero_rows(tess_dtype t, void *x, int64_t stride, int64_t n, int64_t width)
{
    const size_t item = t == TESS_BF16 ? 2 : 4;
    for (int64_t r = 0; r < n; r++) {
        memset((char *)x + (size_t)(r * stride) * item, 0, (size_t)width * item);
    }
}

/* bf16 rows may be multiplied as they are, two elements at a time. */
INLINE bool in_pairs(const tess_attention_args *a)
{
#if defined(__AVX512BF16__)
    return a->dtype == TESS_BF16 && a->head_dim % 2 == 0 && a->q_stride % 2 == 0 &&
           a->k_stride % 2 == 0 && a->v_stride % 2 == 0 && a->y_stride % 2 == 0;
#else
    (void)a;
    return false;
#endif
}

/* s (n_q, padded n_k) = x keys^T, x like q and keys like k.  `wide` is x in f32, which pairs do not
 * need; `transposed` is scratch for the keys. */
static void scores(const tess_attention_args *a, float *s, const void *x, int64_t x_stride,
                   const float *wide, const void *keys, int64_t key_stride, float *transposed)
{
    const int64_t k = padded(a->n_k);
    product p = {.b = transposed, .b_row = k, .c = s, .c_row = k, .a_col = 1};
    p.pairs = in_pairs(a);
    if (p.pairs) {
        load_transposed(TESS_F32, transposed, keys, key_stride / 2, a->n_k, a->head_dim / 2);
        p.a = x;
        p.a_row = x_stride / 2;
        p.k = a->head_dim / 2;
    } else {
        load_transposed(a->dtype, transposed, keys, key_stride, a->n_k, a->head_dim);
        p.a = wide;
        p.a_row = padded(a->head_dim);
        p.k = a->head_dim;
    }
    multiply(p, a->n_q, k);
}

/* The second operand of a product over rows of x: f32 rows, or pairs of rows.  Its depth. */
static int64_t load_operand(const tess_attention_args *a, float *out, const void *x, int64_t stride,
                            int64_t n)
{
    if (in_pairs(a)) {
        load_paired(out, x, stride, n, a->head_dim);
        return (n + 1) / 2;
    }
    load_rows(a->dtype, out, x, stride, n, a->head_dim);
    return n;
}

/* Scores become probabilities. */
static void softmax_rows(const tess_attention_args *a, float *s)
{
    const int64_t k = padded(a->n_k);
    for (int64_t i = 0; i < a->n_q; i++) {
        float *row = s + i * k;
        hide_rest(row, n_seen(a, i), k);
        const float top = max_run(row, k) * a->scale;
        const float sum = exp_row(row, k, a->scale, top);
        a->lse[i] = top + logf(sum);
        scale_row(row, k, 1.0f / sum, in_pairs(a));
    }
}

static void attention(const tess_attention_args *a)
{
    const int64_t width = a->head_dim, d = padded(width), k = padded(a->n_k);
    if (a->n_k == 0) {
        zero_rows(a->dtype, a->y, a->y_stride, a->n_q, width);
        memset(a->lse, 0, (size_t)a->n_q * sizeof(float));
        return;
    }
    float *q = a->scratch, *v = q + a->n_q * d, *kt = v + a->n_k * d, *s = kt + d * k;
    float *y = s + a->n_q * k;
    if (!in_pairs(a)) {
        load_rows(a->dtype, q, a->q, a->q_stride, a->n_q, width);
    }
    scores(a, s, a->q, a->q_stride, q, a->k, a->k_stride, kt);
    softmax_rows(a, s);
    product p = {.a = s, .a_row = k, .a_col = 1, .b = v, .b_row = d, .c = y, .c_row = d};
    p.k = load_operand(a, v, a->v, a->v_stride, a->n_k);
    p.pairs = in_pairs(a);
    multiply(p, a->n_q, d);
    store_rows(a->dtype, a->y, a->y_stride, y, a->n_q, width, 1.0f);
}

/* ds = p * (dp - delta), delta = sum over keys of p * dp.  The usual delta, sum over d of y * dy,
 * is the same number but would read y again, rounded to its type. */
INLINE void score_grad(const float *p, float *dp, int64_t k)
{
    vf sum = {0};
    for (int64_t j = 0; j < k; j += LANES) {
        sum += *(const vf *)(p + j) * *(const vf *)(dp + j);
    }
    const float delta = sum_vec(sum);
    for (int64_t j = 0; j < k; j += LANES) {
        *(vf *)(dp + j) = *(const vf *)(p + j) * (*(const vf *)(dp + j) - delta);
    }
}

/* Scores p and dp become probabilities and the gradients of the scores. */
static void grad_rows(const tess_attention_args *a, float *p, float *ds)
{
    const int64_t k = padded(a->n_k);
    for (int64_t i = 0; i < a->n_q; i++) {
        hide_rest(p + i * k, n_seen(a, i), k);
        exp_row(p + i * k, k, a->scale, a->lse[i]);
        score_grad(p + i * k, ds + i * k, k);
    }
}

/* Of two rows of p and of ds: p paired goes to the first row of p, ds paired to the second, ds's
 * rows narrowed stay where they are.  The last row of an odd number is paired with zeros, for which
 * p and ds have one row more. */
static void pair_grad_rows(const tess_attention_args *a, float *p, float *ds)
{
    const int64_t k = padded(a->n_k), n = a->n_q;
    if (n % 2) {
        memset(p + n * k, 0, (size_t)k * sizeof *p);
        memset(ds + n * k, 0, (size_t)k * sizeof *ds);
    }
    for (int64_t i = 0; i < n; i += 2) {
        pair_rows(p + i * k, p + i * k, p + (i + 1) * k, k);
        pair_rows(p + (i + 1) * k, ds + i * k, ds + (i + 1) * k, k);
        scale_row(ds + i * k, k, 1.0f, true);
        scale_row(ds + (i + 1) * k, k, 1.0f, true);
    }
}

static void attention_grad(const tess_attention_args *a)
{
    const int64_t width = a->head_dim, d = padded(width), n = a->n_q, m = a->n_k, k = padded(m);
    const int64_t n_even = n + n % 2;
    const bool pairs = in_pairs(a);
    if (m == 0 || n == 0) {
        zero_rows(a->dtype, a->dq, a->q_stride, n, width);
        zero_rows(a->dtype, a->dk, a->k_stride, m, width);
        zero_rows(a->dtype, a->dv, a->v_stride, m, width);
        return;
    }
    float *x = a->scratch, *dy = x + (n > m ? n : m) * d, *t = dy + n * d;
    float *p = t + d * k, *ds = p + n_even * k, *out = ds + n_even * k;
    if (!pairs) {
        load_rows(a->dtype, x, a->q, a->q_stride, n, width);
        load_rows(a->dtype, dy, a->dy, a->y_stride, n, width);
    }
    scores(a, p, a->q, a->q_stride, x, a->k, a->k_stride, t);
    scores(a, ds, a->dy, a->y_stride, dy, a->v, a->v_stride, t);
    grad_rows(a, p, ds);
    if (pairs) {
        pair_grad_rows(a, p, ds);
    }
    product c = {.a = p, .a_row = 1, .a_col = k, .b = dy, .b_row = d, .c = out, .c_row = d};
    c.pairs = pairs;
    c.a_col = pairs ? 2 * k : k;
    c.k = load_operand(a, dy, a->dy, a->y_stride, n);
    multiply(c, m, d);
    store_rows(a->dtype, a->dv, a->v_stride, out, m, width, 1.0f);
    c.a = pairs ? p + k : ds;
    c.b = x;
    c.k = load_operand(a, x, a->q, a->q_stride, n);
    multiply(c, m, d);
    store_rows(a->dtype, a->dk, a->k_stride, out, m, width, a->scale);
    c.a = ds;
    c.a_row = k;
    c.a_col = 1;
    c.k = load_operand(a, x, a->k, a->k_stride, m);
    multiply(c, n, d);
    store_rows(a->dtype, a->dq, a->q_stride, out, n, width, a->scale);
}

void TESS_K(fill_attention)(tess_kernels *k)
{
    k->attention_scratch = attention_scratch;
    k->attention = attention;
    k->attention_grad = attention_grad;
}
