/* SPDX-License-Identifier: Apache-2.0 */
/* Products with packed weights (tensor/packed.h): one panel of 64 columns against some rows.
 *
 * Every kind of weights is a run of 32-bit groups along k (one f32, two bf16, four bytes), so one
 * register tile serves all three: broadcast a group of a row, multiply it into LANES columns.  The
 * tile runs over the whole of k and its sums never leave the registers before the epilogue, which
 * is where a general library must store, scale and read again.  The result does not depend on how
 * rows and panels are shared among threads.
 *
 * Where the processor does not multiply pairs or bytes, bf16 is widened and bytes are split into
 * even and odd 16-bit halves: slower, but the integer sums are the same. */
#include "tensor/kernels/vec.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define MR    6
#define PANEL TESS_PANEL

enum { ONES, PAIRS, BYTES, N_KINDS };

typedef int16_t vs __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef uint8_t vb __attribute__((vector_size(LANES), aligned(1), may_alias));

/* ---- one group ---------------------------------------------------------------------------- */

INLINE vf add_pairs(vf acc, uint32_t a, vu b)
{
#if defined(__AVX512BF16__)
    return (vf)_mm512_dpbf16_ps((__m512)acc, (__m512bh)_mm512_set1_epi32((int32_t)a), (__m512bh)b);
#else
    acc += float_of(a << 16) * (vf)(b << 16);
    return acc + float_of(a & 0xffff0000u) * (vf)(b & 0xffff0000u);
#endif
}

/* a: bytes 0..255, b: -127..127. */
INLINE vi add_bytes(vi acc, uint32_t a, vu b)
{
#if defined(__AVX512VNNI__)
    return (vi)_mm512_dpbusd_epi32((__m512i)acc, _mm512_set1_epi32((int32_t)a), (__m512i)b);
#elif defined(__SSE2__)
    const vs even = ((vs)b << 8) >> 8, odd = (vs)b >> 8;
    const int32_t a_even = (int32_t)(a & 0x00ff00ffu), a_odd = (int32_t)(a >> 8 & 0x00ff00ffu);
#if LANES == 16
    return acc + (vi)_mm512_madd_epi16((__m512i)even, _mm512_set1_epi32(a_even)) +
           (vi)_mm512_madd_epi16((__m512i)odd, _mm512_set1_epi32(a_odd));
#elif LANES == 8
    return acc + (vi)_mm256_madd_epi16((__m256i)even, _mm256_set1_epi32(a_even)) +
           (vi)_mm256_madd_epi16((__m256i)odd, _mm256_set1_epi32(a_odd));
#else
    return acc + (vi)_mm_madd_epi16((__m128i)even, _mm_set1_epi32(a_even)) +
           (vi)_mm_madd_epi16((__m128i)odd, _mm_set1_epi32(a_odd));
#endif
#else
    for (int k = 0; k < 32; k += 8) {
        acc += (int32_t)(a >> k & 0xffu) * ((vi)(b << (24 - k)) >> 24);
    }
    return acc;
#endif
}

INLINE vf add_group(vf acc, uint32_t a, vu b, const int kind)
{
    if (kind == BYTES) {
        return (vf)add_bytes((vi)acc, a, b);
    }
    if (kind == PAIRS) {
        return add_pairs(acc, a, b);
    }
    return acc + float_of(a) * (vf)b;
}

/* ---- a tile of mr rows and NR vectors ------------------------------------------------------ */

typedef struct tile {
    const uint32_t *a, *b;
    float *sums; /* rows of PANEL */
    int64_t a_row, groups;
    const char *next; /* to be fetched meanwhile, */
    uint64_t lines;   /* cache lines for each group, times 2^32 */
} tile;

INLINE void tile_body(const tile *t, const int mr, const int kind)
{
    vf acc[MR][NR];
#pragma GCC unroll 6
    for (int i = 0; i < mr; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < NR; j++) {
            acc[i][j] = (vf){0};
        }
    }
    const uint32_t *a = t->a, *b = t->b;
    const char *next = t->next;
    uint64_t due = 0;
    for (int64_t g = 0; g < t->groups; g++) {
        vu row[NR];
#pragma GCC unroll 4
        for (int j = 0; j < NR; j++) {
            row[j] = *(const vu *)(b + j * LANES);
        }
#pragma GCC unroll 6
        for (int i = 0; i < mr; i++) {
#pragma GCC unroll 4
            for (int j = 0; j < NR; j++) {
                acc[i][j] = add_group(acc[i][j], a[i * t->a_row], row[j], kind);
            }
        }
        for (due += t->lines; due >> 32; due -= 1ull << 32, next += 64) {
            __builtin_prefetch(next, 0, 2);
        }
        a++;
        b += PANEL;
    }
#pragma GCC unroll 6
    for (int i = 0; i < mr; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < NR; j++) {
            *(vf *)(t->sums + i * PANEL + j * LANES) = acc[i][j];
        }
    }
}

#define TILE(m)                                                                                    \
    static void ones_##m(const tile *t)                                                            \
    {                                                                                              \
        tile_body(t, m, ONES);                                                                     \
    }                                                                                              \
    static void pairs_##m(const tile *t)                                                           \
    {                                                                                              \
        tile_body(t, m, PAIRS);                                                                    \
    }                                                                                              \
    static void bytes_##m(const tile *t)                                                           \
    {                                                                                              \
        tile_body(t, m, BYTES);                                                                    \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)
#define TILES(f)                                                                                   \
    {                                                                                              \
        f##_1, f##_2, f##_3, f##_4, f##_5, f##_6                                                   \
    }
static void (*const tiles[N_KINDS][MR])(const tile *) = {TILES(ones), TILES(pairs), TILES(bytes)};

/* ---- the epilogue -------------------------------------------------------------------------- */

/* Rounded to bf16, where the processor does it flushing numbers below 2^-126 to zero. */
INLINE void store_vec(void *y, int64_t j, vf x, bool bf16)
{
    if (!bf16) {
        *(vf *)((float *)y + j) = x;
        return;
    }
#if defined(__AVX512BF16__)
    *(vh *)((uint16_t *)y + j) = (vh)_mm512_cvtneps_pbh((__m512)x);
#else
    const vu u = (vu)x, nan = (vu)(x != x);
    const vu r = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    *(vh *)((uint16_t *)y + j) =
        __builtin_convertvector((r & ~nan) | (((u >> 16) | 0x40u) & nan), vh);
#endif
}

INLINE vf load_vec(const void *x, int64_t j, bool bf16)
{
    if (bf16) {
        const vh h = *(const vh *)((const uint16_t *)x + j);
        return (vf)(__builtin_convertvector(h, vu) << 16);
    }
    return *(const vf *)((const float *)x + j);
}

/* Sums become numbers: those of bytes are of rows shifted by `zero`, in units of both scales. */
INLINE vf number(const tess_packed_args *p, const float *x, int64_t row, int64_t j,
                 const float *bias, const bool bytes)
{
    vf v = *(const vf *)(x + j);
    if (bytes) {
        /* Unsigned, since b_sum may be a file's: any number. */
        const vi sum = (vi)((vu)v - (uint32_t)p->a_zero[row] * *(const vu *)(p->b_sum + j));
        v = __builtin_convertvector(sum, vf) * (p->a_scale[row] * *(const vf *)(p->b_scale + j));
    }
    return v + *(const vf *)(bias + j);
}

INLINE void store_row(const tess_packed_args *p, const float *x, int64_t row, bool bf16)
{
    void *y = at_mut(p->y, row * p->y_row, bf16);
    const void *r = p->residual ? at(p->residual, row * p->y_row, bf16) : NULL;
    int64_t j = 0;
    for (; j + LANES <= p->cols; j += LANES) {
        vf v = *(const vf *)(x + j);
        if (r) {
            v += load_vec(r, j, bf16);
        }
        store_vec(y, j, v, bf16);
    }
    for (; j < p->cols; j++) {
        store1(y, j, r ? x[j] + load1(r, j, bf16) : x[j], bf16);
    }
}

INLINE void finish_body(const tess_packed_args *p, float *sums, int64_t row, int64_t mr,
                        const float *bias, const bool bytes)
{
    for (int64_t i = 0; i < mr; i++) {
        float *x = sums + i * PANEL;
#pragma GCC unroll 4
        for (int64_t j = 0; j < PANEL; j += LANES) {
            *(vf *)(x + j) = number(p, x, row + i, j, bias, bytes);
        }
    }
    if (p->unary) {
        p->unary(p->act, TESS_F32, sums, sums, mr * PANEL);
    }
    for (int64_t i = 0; i < mr; i++) {
        BY_DTYPE(p->dtype, store_row, p, sums + i * PANEL, row + i);
    }
}

static void finish(const tess_packed_args *p, float *sums, int64_t row, int64_t mr,
                   const float *bias)
{
    if (p->kind == TESS_I8) {
        finish_body(p, sums, row, mr, bias, true);
    } else {
        finish_body(p, sums, row, mr, bias, false);
    }
}

/* Rows of the residual, which come from another core's cache, are asked for before the sums of
 * their tile are made. */
static void fetch_residual(const tess_packed_args *p, int64_t row, int64_t mr)
{
    const int64_t item = p->dtype == TESS_BF16 ? 2 : 4;
    for (int64_t i = 0; i < mr; i++) {
        const char *r = (const char *)p->residual + (row + i) * p->y_row * item;
        for (int64_t b = 0; b < p->cols * item; b += 64) {
            __builtin_prefetch(r + b, 0, 3);
        }
    }
}

/* Tile n of n_tiles fetches its share of the next weights.  Spread over all of them, since a core
 * waits for a few lines only at a time, and this tile's operands are among them. */
static void fetch_share(const tess_packed_args *p, int64_t n, int64_t n_tiles, tile *t)
{
    const int64_t lines = (p->next_bytes + 63) / 64;
    const int64_t begin = lines * n / n_tiles, end = lines * (n + 1) / n_tiles;
    t->next = (const char *)p->next + begin * 64;
    t->lines = (((uint64_t)(end - begin) << 32) + (uint64_t)p->groups - 1) / (uint64_t)p->groups;
}

static void packed_panel(const tess_packed_args *p)
{
    const int kind = p->kind == TESS_I8 ? BYTES : p->kind == TESS_BF16 ? PAIRS : ONES;
    /* Split bytes take more registers than AVX2 and SSE have for six rows. */
    const int64_t most = LANES == 16 || kind == ONES ? MR : 4;
    const int64_t n_tiles = (p->rows + most - 1) / most;
    float sums[MR * PANEL] __attribute__((aligned(64)));
    float bias[PANEL] __attribute__((aligned(64))) = {0};
    if (p->bias) {
        memcpy(bias, p->bias, (size_t)p->cols * sizeof *bias);
    }
    for (int64_t row = 0, n = 0; row < p->rows; row += most, n++) {
        const int64_t mr = p->rows - row < most ? p->rows - row : most;
        if (p->residual) {
            fetch_residual(p, row, mr);
        }
        for (int64_t j = 0; j < p->cols; j += NR * LANES) {
            tile t = {.a = (const uint32_t *)p->a + row * p->a_row,
                      .b = (const uint32_t *)p->b + j,
                      .sums = sums + j,
                      .a_row = p->a_row,
                      .groups = p->groups};
            if (p->next && j == 0) {
                fetch_share(p, n, n_tiles, &t);
            }
            tiles[kind][mr - 1](&t);
        }
        finish(p, sums, row, mr, bias);
    }
}

/* ---- activations to bytes ------------------------------------------------------------------ */

/* To the nearest integer, ties to even: as lrintf. */
INLINE vi round_vec(vf x)
{
#if LANES == 16
    return (vi)_mm512_cvtps_epi32((__m512)x);
#elif LANES == 8
    return (vi)_mm256_cvtps_epi32((__m256)x);
#elif defined(__SSE2__)
    return (vi)_mm_cvtps_epi32((__m128)x);
#else
    vi r;
    for (int l = 0; l < LANES; l++) {
        r[l] = (int32_t)__builtin_rintf(x[l]);
    }
    return r;
#endif
}

INLINE vf less_of(vf a, vf b)
{
#if LANES == 16
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#else
    const vi less = a < b;
    return (vf)((less & (vi)a) | (~less & (vi)b));
#endif
}

INLINE vf more_of(vf a, vf b)
{
#if LANES == 16
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#else
    const vi more = a > b;
    return (vf)((more & (vi)a) | (~more & (vi)b));
#endif
}

/* The least and the greatest of a row and 0. */
INLINE void row_range(const void *x, int64_t width, bool bf16, float *out_low, float *out_high)
{
    vf low = {0}, high = {0}, low2 = {0}, high2 = {0};
    int64_t j = 0;
    for (; j + 2 * LANES <= width; j += 2 * LANES) {
        const vf v = load_vec(x, j, bf16), w = load_vec(x, j + LANES, bf16);
        __builtin_prefetch(at(x, j + width, bf16), 0, 3); /* the next row, perhaps another core's */
        low = less_of(v, low);
        high = more_of(v, high);
        low2 = less_of(w, low2);
        high2 = more_of(w, high2);
    }
    low = less_of(low, low2);
    high = more_of(high, high2);
    float lo = 0.0f, hi = 0.0f;
    for (int l = 0; l < LANES; l++) {
        lo = low[l] < lo ? low[l] : lo;
        hi = high[l] > hi ? high[l] : hi;
    }
    for (; j < width; j++) {
        const float v = load1(x, j, bf16);
        lo = v < lo ? v : lo;
        hi = v > hi ? v : hi;
    }
    *out_low = lo;
    *out_high = hi;
}

/* Never below 0, since rounding is monotonous and odd; 256 is possible.  What is no number becomes
 * some byte. */
INLINE vb bytes_of(vf x, float inverse, int32_t zero)
{
    const vi q = round_vec(x * inverse) + zero;
#if LANES == 16
    return (vb)_mm512_cvtusepi32_epi8((__m512i)q);
#else
    const vi high = (vi)((vu)q > 255u);
    return __builtin_convertvector((high & 255) | (~high & q), vb);
#endif
}

INLINE void quantise_body(uint8_t *q, int64_t q_row, float *scale, int32_t *zero, const void *x,
                          int64_t rows, int64_t width, bool bf16)
{
    for (int64_t r = 0; r < rows; r++) {
        const void *xr = at(x, r * width, bf16);
        uint8_t *qr = q + r * q_row;
        float low, high;
        row_range(xr, width, bf16, &low, &high);
        scale[r] = (high - low) / 255.0f;
        const float inverse = high - low > 0.0f ? 255.0f / (high - low) : 0.0f;
        const vi z = round_vec((vf){0} - low * inverse);
        zero[r] = z[0];
        int64_t j = 0;
        for (; j + LANES <= width; j += LANES) {
            *(vb *)(qr + j) = bytes_of(load_vec(xr, j, bf16), inverse, zero[r]);
        }
        float rest[LANES] = {0};
        for (int64_t l = 0; j + l < width; l++) {
            rest[l] = load1(xr, j + l, bf16);
        }
        const vb last = bytes_of(*(const vf *)rest, inverse, zero[r]);
        for (int64_t l = 0; j + l < q_row; l++) {
            qr[j + l] = last[l];
        }
    }
}

static void quantise(tess_dtype t, uint8_t *q, int64_t q_row, float *scale, int32_t *zero,
                     const void *x, int64_t rows, int64_t width)
{
    BY_DTYPE(t, quantise_body, q, q_row, scale, zero, x, rows, width);
}

void TESS_K(fill_panel)(tess_kernels *k)
{
    k->packed_panel = packed_panel;
    k->quantise = quantise;
}
