/* SPDX-License-Identifier: Apache-2.0 */
/* A small matrix product in registers: tiles of 6 rows by 4 vectors of f32 sums, over f32 or over
 * pairs of bf16, which AVX-512 BF16 multiplies and adds two at a time.  For kernels whose operands
 * lie in caches already, in their own layout, where a library's call and copies would cost more
 * than the product. */
#ifndef TESSERA_TENSOR_KERNELS_PRODUCT_H
#define TESSERA_TENSOR_KERNELS_PRODUCT_H

#include "tensor/kernels/vec.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#define MR 6

INLINE int64_t padded(int64_t n)
{
    return (n + LANES - 1) / LANES * LANES;
}

INLINE vf load_vec(const void *p, int64_t i, bool bf16)
{
    if (bf16) {
        const vh h = *(const vh *)((const uint16_t *)p + i);
        return (vf)(__builtin_convertvector(h, vu) << 16);
    }
    return *(const vf *)((const float *)p + i);
}

/* Elements i .. i+n-1, zeros behind. */
INLINE vf load_part(const void *p, int64_t i, int64_t n, bool bf16)
{
    if (n >= LANES) {
        return load_vec(p, i, bf16);
    }
    float tmp[LANES] = {0};
    for (int64_t j = 0; j < n; j++) {
        tmp[j] = load1(p, i + j, bf16);
    }
    return *(const vf *)tmp;
}

/* x as bf16, rounded to nearest even.  The instruction rounds what is below bf16's smallest normal
 * number (1e-38) to 0. */
INLINE vh narrow(vf x)
{
#if defined(__AVX512BF16__)
    return (vh)_mm512_cvtneps_pbh((__m512)x);
#else
    const vu u = (vu)x, nan = (vu)(x != x);
    const vu r = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    return __builtin_convertvector((r & ~nan) | (((u >> 16) | 0x40u) & nan), vh);
#endif
}

INLINE void store_vec(void *p, int64_t i, vf x, bool bf16)
{
    if (bf16) {
        *(vh *)((uint16_t *)p + i) = narrow(x);
    } else {
        *(vf *)((float *)p + i) = x;
    }
}

/* ---- the product ----------------------------------------------------------------- */

/* C (m,n) = A B: A[i,k] at a[i * a_row + k * a_col], B (k,n) and C row-major, n whole vectors,
 * k >= 1. */
typedef struct product {
    const float *a, *b;
    float *c;
    int64_t a_row, a_col, b_row, c_row, k;
    bool pairs;      /* elements of a and b are pairs of bf16 along k */
    bool accumulate; /* C += A B */
} product;

/* acc + the products of a pair of bf16, a's with each of b's, summed.  Where the processor has no
 * such instruction, rows are widened and multiplied as f32 (see in_pairs). */
INLINE vf dot_pairs(vf acc, const float *a, vf b)
{
#if defined(__AVX512BF16__)
    int32_t pair;
    memcpy(&pair, a, sizeof pair);
    return (vf)_mm512_dpbf16_ps((__m512)acc, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)b);
#else
    (void)a, (void)b;
    return acc;
#endif
}

INLINE void tile_body(const product *p, const int mr, const int nr, const bool pairs)
{
    vf acc[MR][NR];
#pragma GCC unroll 6
    for (int i = 0; i < mr; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < nr; j++) {
            const float *c = p->c + i * p->c_row + j * LANES;
            acc[i][j] = p->accumulate ? *(const vf *)c : (vf){0};
        }
    }
    const float *a = p->a, *b = p->b;
    int64_t k = p->k;
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
                if (pairs) {
                    acc[i][j] = dot_pairs(acc[i][j], a + i * p->a_row, row[j]);
                } else {
                    acc[i][j] += a[i * p->a_row] * row[j];
                }
            }
        }
        a += p->a_col;
        b += p->b_row;
    } while (--k > 0);
#pragma GCC unroll 6
    for (int i = 0; i < mr; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < nr; j++) {
            *(vf *)(p->c + i * p->c_row + j * LANES) = acc[i][j];
        }
    }
}

#define TILE(m, n)                                                                                 \
    static void tile_##m##x##n(const product *p)                                                   \
    {                                                                                              \
        tile_body(p, m, n, false);                                                                 \
    }                                                                                              \
    static void pair_##m##x##n(const product *p)                                                   \
    {                                                                                              \
        tile_body(p, m, n, true);                                                                  \
    }
#if NR == 4
#define TILES(m) TILE(m, 1) TILE(m, 2) TILE(m, 3) TILE(m, 4)
#define TILE_ROW(f, m)                                                                             \
    {                                                                                              \
        f##_##m##x1, f##_##m##x2, f##_##m##x3, f##_##m##x4                                         \
    }
#else
#define TILES(m) TILE(m, 1) TILE(m, 2)
#define TILE_ROW(f, m)                                                                             \
    {                                                                                              \
        f##_##m##x1, f##_##m##x2                                                                   \
    }
#endif
TILES(1)
TILES(2)
TILES(3)
TILES(4)
TILES(5)
TILES(6)
#define TILE_ROWS(f)                                                                               \
    {                                                                                              \
        TILE_ROW(f, 1), TILE_ROW(f, 2), TILE_ROW(f, 3), TILE_ROW(f, 4), TILE_ROW(f, 5),            \
            TILE_ROW(f, 6)                                                                         \
    }
static void (*const tiles[2][MR][NR])(const product *) = {TILE_ROWS(tile), TILE_ROWS(pair)};

__attribute__((unused)) static void multiply(product p, int64_t m, int64_t n)
{
    const product whole = p;
    for (int64_t j = 0; j < n; j += NR * LANES) {
        const int64_t nr = (n - j) / LANES < NR ? (n - j) / LANES : NR;
        for (int64_t i = 0; i < m; i += MR) {
            const int64_t mr = m - i < MR ? m - i : MR;
            p.a = whole.a + i * whole.a_row;
            p.b = whole.b + j;
            p.c = whole.c + i * whole.c_row + j;
            tiles[p.pairs][mr - 1][nr - 1](&p);
        }
    }
}

/* ---- rows as pairs ------------------------------------------------------------------------ */

/* Elements i .. i+n-1 of a row, each with its neighbour in the next row, which may be absent. */
INLINE vu load_pair(const uint16_t *a, const uint16_t *b, int64_t i, int64_t n)
{
    const vu low = (vu)load_part(a, i, n, true) >> 16;
    const vu high = b ? (vu)load_part(b, i, n, true) : (vu){0};
    return low | high;
}

/* out (n/2 rounded up, padded width): rows of bf16 laid together two by two, zeros behind. */
__attribute__((unused)) static void load_paired(float *out, const uint16_t *x, int64_t stride,
                                                int64_t n, int64_t width)
{
    const int64_t out_width = padded(width);
    for (int64_t r = 0; r < n; r += 2) {
        const uint16_t *a = x + r * stride, *b = r + 1 < n ? a + stride : NULL;
        for (int64_t j = 0; j < width; j += LANES) {
            *(vu *)(out + r / 2 * out_width + j) = load_pair(a, b, j, width - j);
        }
    }
}

#endif
