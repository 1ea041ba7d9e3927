/* SPDX-License-Identifier: Apache-2.0 */
/* c (rows,n) = act(a (rows,k) B + bias) + residual in pairs of bf16, for many rows and one B.
 *
 * B is laid out once in panels of 64 columns of pairs along k; rows are used as they lie.  A tile
 * of 6 rows by one panel goes through the whole of k in registers and through the epilogue to bf16,
 * and the rows after the current ones are asked for between tiles, since they are cold. */
#include "tensor/kernels/vec.h"

#if defined(__AVX512BF16__)
#include "tensor/kernels/product.h"

#define PANEL TESS_PANEL
#define BAND  (16 * MR) /* rows that meet all panels while they are in cache */

static void pack_rows(float *panel, const uint16_t *b, int64_t stride, int64_t k, int64_t n)
{
    for (int64_t r = 0; r < k; r += 2) {
        for (int64_t j = 0; j < n; j += LANES) {
            *(vu *)(panel + r / 2 * PANEL + j) =
                load_pair(b + r * stride, b + (r + 1) * stride, j, n - j);
        }
    }
}

/* b is (n,k): pairs along k are neighbours, and 16 columns of them are a transposed block. */
static void pack_columns(float *panel, const float *b, int64_t stride, int64_t pairs, int64_t n)
{
    for (int64_t j0 = 0; j0 < n; j0 += LANES) {
        for (int64_t g0 = 0; g0 < pairs; g0 += LANES) {
            vf r[LANES];
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++) {
                r[i] = load_part(b + (j0 + i) * stride, g0, pairs - g0, false);
            }
            transpose(r);
            for (int i = 0; i < LANES && g0 + i < pairs; i++) {
                *(vf *)(panel + (g0 + i) * PANEL + j0) = r[i];
            }
        }
    }
}

static void rows_pack(float *panels, const void *b, int64_t k, int64_t n, bool b_trans,
                      int64_t panel)
{
    const int64_t j = panel * PANEL, width = n - j < PANEL ? n - j : PANEL;
    float *out = panels + panel * (k / 2 * PANEL);
    if (b_trans) {
        pack_columns(out, (const float *)b + j * (k / 2), k / 2, k / 2, width);
    } else {
        pack_rows(out, (const uint16_t *)b + j, n, k, width);
    }
}

typedef struct strip {
    const float *a, *b; /* pairs: rows a_row apart, a panel */
    const float *bias;  /* or NULL */
    const uint16_t *residual;
    uint16_t *c;
    int64_t a_row, pairs, c_row;
    bool relu;
} strip;

INLINE void strip_body(const strip *s, const int mr, const int nr)
{
    vf acc[MR][NR];
#pragma GCC unroll 6
    for (int i = 0; i < mr; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < nr; j++) {
            acc[i][j] = s->bias ? *(const vf *)(s->bias + j * LANES) : (vf){0};
        }
    }
    const float *a = s->a, *b = s->b;
    int64_t k = s->pairs;
    do {
        vf row[NR];
#pragma GCC unroll 4
        for (int j = 0; j < nr; j++) {
            row[j] = *(const vf *)(b + j * LANES);
        }
#pragma GCC unroll 6
        for (int i = 0; i < mr; i++) {
#pragma GCC unroll 4
            for (int j = 0; j < nr; j++) {
                acc[i][j] = dot_pairs(acc[i][j], a + i * s->a_row, row[j]);
            }
        }
        a++;
        b += PANEL;
    } while (--k > 0);
#pragma GCC unroll 6
    for (int i = 0; i < mr; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < nr; j++) {
            const int64_t at = i * s->c_row + j * LANES;
            vf x = acc[i][j];
            if (s->relu) {
                x = max_of(x, (vf){0});
            }
            if (s->residual) {
                x += load_vec(s->residual, at, true);
            }
            store_vec(s->c, at, x, true);
        }
    }
}

#define STRIP(m, n)                                                                                \
    static void strip_##m##x##n(const strip *s)                                                    \
    {                                                                                              \
        strip_body(s, m, n);                                                                       \
    }
#define STRIPS(m) STRIP(m, 1) STRIP(m, 2) STRIP(m, 3) STRIP(m, 4)
STRIPS(1)
STRIPS(2)
STRIPS(3)
STRIPS(4)
STRIPS(5)
STRIPS(6)
static void (*const strips[MR][NR])(const strip *) = {
    {strip_1x1, strip_1x2, strip_1x3, strip_1x4}, {strip_2x1, strip_2x2, strip_2x3, strip_2x4},
    {strip_3x1, strip_3x2, strip_3x3, strip_3x4}, {strip_4x1, strip_4x2, strip_4x3, strip_4x4},
    {strip_5x1, strip_5x2, strip_5x3, strip_5x4}, {strip_6x1, strip_6x2, strip_6x3, strip_6x4},
};

INLINE void fetch(const uint16_t *x, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i += 32) {
        __builtin_prefetch(x + i, 0, 2);
    }
}

/* Rows first .. first+rows-1 against all panels; meanwhile the `ahead` rows behind them come in. */
static void band(const tess_rows_args *p, int64_t first, int64_t rows, int64_t ahead)
{
    const uint16_t *a = p->a, *residual = p->residual;
    const int64_t panels = (p->n + PANEL - 1) / PANEL, n_tiles = panels * ((rows + MR - 1) / MR);
    const int64_t a_next = (first + rows) * p->k, c_next = (first + rows) * p->n;
    int64_t done = 0;
    for (int64_t j = 0; j < p->n; j += PANEL) {
        const int64_t nr = (p->n - j < PANEL ? p->n - j : PANEL) / LANES;
        for (int64_t i = 0; i < rows; i += MR, done++) {
            const int64_t mr = rows - i < MR ? rows - i : MR, at = (first + i) * p->n + j;
            const int64_t share = ahead * done / n_tiles, upto = ahead * (done + 1) / n_tiles;
            fetch(a, a_next + share * p->k, a_next + upto * p->k);
            if (residual) {
                fetch(residual, c_next + share * p->n, c_next + upto * p->n);
            }
            strips[mr - 1][nr - 1](&(strip){
                .a = (const float *)(a + (first + i) * p->k),
                .b = p->panels + j / PANEL * (p->k / 2 * PANEL),
                .bias = p->bias ? p->bias + j : NULL,
                .residual = residual ? residual + at : NULL,
                .c = (uint16_t *)p->c + at,
                .a_row = p->k / 2,
                .pairs = p->k / 2,
                .c_row = p->n,
                .relu = p->relu,
            });
        }
    }
}

static void rows_product(const tess_rows_args *p)
{
    for (int64_t i = 0; i < p->rows; i += BAND) {
        const int64_t rows = p->rows - i < BAND ? p->rows - i : BAND, left = p->rows - i - rows;
        band(p, i, rows, left < BAND ? left : BAND);
    }
}
#endif

void TESS_K(fill_rows)(tess_kernels *k)
{
#if defined(__AVX512BF16__)
    k->rows_pack = rows_pack;
    k->rows_product = rows_product;
#else
    (void)k;
#endif
}
