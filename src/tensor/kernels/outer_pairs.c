/* SPDX-License-Identifier: Apache-2.0 */
/* c (m,n) = a^T b over many rows of bf16: the gradient of a weight.
 *
 * Runs of 128 rows: both operands are laid together two rows at a time, b in panels of 64 columns,
 * and every tile of c is brought forward by 64 pairs.  Rows are read once, in their order, while
 * the run's pairs and c stay in L2.  A library's product reads the same rows as columns of a
 * transposed matrix and copies them block by block. */
#include "tensor/kernels/vec.h"

#if defined(__AVX512BF16__)
#include "tensor/kernels/product.h"

#define RUN   256          /* rows */
#define PANEL (NR * LANES) /* columns of b */
#define BAND  (4 * MR)     /* columns of a between two prefetches */

/* Rows of a's pairs are a whole number of lines apart, odd, so that a tile's column of them is
 * spread over all sets of L1. */
INLINE int64_t pair_stride(int64_t m)
{
    return padded(m) | LANES;
}

static int64_t outer_scratch(int64_t m, int64_t n)
{
    return RUN / 2 * (pair_stride(m) + (n + PANEL - 1) / PANEL * PANEL);
}

typedef uint16_t v32 __attribute__((vector_size(64), aligned(2), may_alias));

/* Elements j .. j+31 of two rows as pairs; b NULL is a row of zeros. */
INLINE void pair_block(float *out, const uint16_t *a, const uint16_t *b, int64_t j)
{
    const v32 x = *(const v32 *)(a + j), y = b ? *(const v32 *)(b + j) : (v32){0};
    *(v32 *)out =
        __builtin_shufflevector(x, y, 0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39, 8, 40,
                                9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47);
    *(v32 *)(out + LANES) =
        __builtin_shufflevector(x, y, 16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23,
                                55, 24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63);
}

/* Two rows as pairs: columns in panels of `panel` that are `apart` from each other. */
INLINE void pack_pair(float *out, const uint16_t *a, const uint16_t *b, int64_t n, int64_t panel,
                      int64_t apart)
{
    int64_t j = 0;
    for (; j + 2 * LANES <= n; j += 2 * LANES) {
        pair_block(out + j / panel * apart + j % panel, a, b, j);
    }
    for (; j < n; j += LANES) {
        *(vu *)(out + j / panel * apart + j % panel) = load_pair(a, b, j, n - j);
    }
}

static void pack_a(float *out, const uint16_t *a, int64_t stride, int64_t rows, int64_t m)
{
    for (int64_t r = 0; r < rows; r += 2) {
        const uint16_t *x = a + r * stride, *y = r + 1 < rows ? x + stride : NULL;
        pack_pair(out + r / 2 * pair_stride(m), x, y, m, INT64_MAX, 0);
    }
}

static void pack_b(float *out, const uint16_t *b, int64_t stride, int64_t rows, int64_t n)
{
    for (int64_t r = 0; r < rows; r += 2) {
        const uint16_t *x = b + r * stride, *y = r + 1 < rows ? x + stride : NULL;
        pack_pair(out + r / 2 * PANEL, x, y, n, PANEL, RUN / 2 * PANEL);
    }
}

static void fetch_rows(const uint16_t *x, int64_t stride, int64_t begin, int64_t end, int64_t width)
{
    for (int64_t r = begin; r < end; r++) {
        for (int64_t j = 0; j < width; j += 32) {
            __builtin_prefetch(x + r * stride + j, 0, 2);
        }
    }
}

/* The tiles of one run; between them, the rows of the next are asked for, evenly. */
static void run_tiles(const tess_outer_args *o, product p, const float *b, int64_t next)
{
    const int64_t bands = (o->m + BAND - 1) / BAND, panels = (o->n + PANEL - 1) / PANEL;
    const int64_t rows = o->rows - next < RUN ? o->rows - next : RUN;
    const product whole = p;
    int64_t done = 0, piece = 0;
    for (int64_t j = 0; j < panels; j++) {
        for (int64_t i = 0; i < bands; i++) {
            const int64_t m = o->m - i * BAND, n = o->n - j * PANEL;
            const int64_t upto = ++piece * rows / (bands * panels);
            fetch_rows(o->a, o->a_stride, next + done, next + upto, o->m);
            fetch_rows(o->b, o->b_stride, next + done, next + upto, o->n);
            done = upto;
            p.a = whole.a + i * BAND;
            p.b = b + j * (RUN / 2 * PANEL);
            p.c = whole.c + i * BAND * o->c_stride + j * PANEL;
            multiply(p, m < BAND ? m : BAND, n < PANEL ? n : PANEL);
        }
    }
}

static void outer(const tess_outer_args *o)
{
    float *a = o->scratch, *b = a + RUN / 2 * pair_stride(o->m);
    product p = {.a_row = 1, .a_col = pair_stride(o->m), .b_row = PANEL, .c_row = o->c_stride};
    p.a = a;
    p.c = o->c;
    p.pairs = true;
    for (int64_t r = 0; r < o->rows; r += RUN) {
        const int64_t rows = o->rows - r < RUN ? o->rows - r : RUN;
        pack_a(a, (const uint16_t *)o->a + r * o->a_stride, o->a_stride, rows, o->m);
        pack_b(b, (const uint16_t *)o->b + r * o->b_stride, o->b_stride, rows, o->n);
        p.k = (rows + 1) / 2;
        p.accumulate = r > 0;
        run_tiles(o, p, b, r + rows);
    }
}
#endif

void TESS_K(fill_outer)(tess_kernels *k)
{
#if defined(__AVX512BF16__)
    k->outer_scratch = outer_scratch;
    k->outer = outer;
#else
    (void)k;
#endif
}
