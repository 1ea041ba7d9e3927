/* SPDX-License-Identifier: Apache-2.0 */
/* The resizer's kernels for AVX2.
 *
 * A coefficient has 23 bits and a sign; the fast multiplier (vpmaddwd) takes 16.  So each is split
 * as k = high * 2^15 + low with 0 <= low < 2^15, the two halves are summed apart, and joined at the
 * end.  All sums wrap at 32 bits, so the joined total is exact.  One vpmaddwd does two taps of 8
 * channels: half the multiplications of 32-bit arithmetic, and no widening to 32 bits.
 *
 * Along x, 4 pixels (12 of 16 loaded bytes) are spread to r0 r1 g0 g1 b0 b1 - - | r2 r3 g2 g3 b2 b3
 * - -, and 4 rows share the coefficients.  Along y, two rows are interleaved.
 */
#if defined(__x86_64__)
#include "vision/resize.h"

#include <immintrin.h>
#include <string.h>

#define AVX2 __attribute__((target("avx2")))

AVX2 static inline __m256i join(__m256i low, __m256i high)
{
    return _mm256_add_epi32(low, _mm256_slli_epi32(high, 15));
}

/* ---- along x ------------------------------------------------------------------------------ */

#define PAIR(a, b) (a), -1, (b), -1 /* two bytes, zero-extended to 16 bits */
#define NONE       -1, -1, -1, -1

/* The lanes of a and of b added: a's sum in the first lane, b's in the second. */
AVX2 static inline __m256i add_lanes(__m256i a, __m256i b)
{
    return _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20),
                            _mm256_permute2x128_si256(a, b, 0x31));
}

/* One pixel of each of 4 rows from its sums: r, g, b and one byte of slack. */
AVX2 static inline void store_pixels(const __m256i *low, const __m256i *high, uint8_t *const *out,
                                     size_t at)
{
    __m256i rows_01 = add_lanes(join(low[0], high[0]), join(low[1], high[1]));
    __m256i rows_23 = add_lanes(join(low[2], high[2]), join(low[3], high[3]));
    rows_01 = _mm256_srai_epi32(rows_01, TESS__TAP_BITS);
    rows_23 = _mm256_srai_epi32(rows_23, TESS__TAP_BITS);
    __m256i v = _mm256_packs_epi32(rows_01, rows_23);
    v = _mm256_packus_epi16(v, v);
    int64_t rows_02 = _mm256_extract_epi64(v, 0), rows_13 = _mm256_extract_epi64(v, 2);
    memcpy(out[0] + at, &rows_02, 4);
    memcpy(out[1] + at, &rows_13, 4);
    rows_02 >>= 32;
    rows_13 >>= 32;
    memcpy(out[2] + at, &rows_02, 4);
    memcpy(out[3] + at, &rows_13, 4);
}

AVX2 static void resize_rows(const tess__taps *t, const uint8_t *const *in, uint8_t *const *out,
                             int32_t n_rows)
{
    enum { R = TESS__ROWS_AT_ONCE };
    const __m256i spread = _mm256_setr_epi8(PAIR(0, 3), PAIR(1, 4), PAIR(2, 5), NONE, PAIR(6, 9),
                                            PAIR(7, 10), PAIR(8, 11), NONE);
    const __m256i lows = _mm256_setr_epi8(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, NONE, 4, 5, 6, 7, 4,
                                          5, 6, 7, 4, 5, 6, 7, NONE);
    const __m256i highs = _mm256_setr_epi8(8, 9, 10, 11, 8, 9, 10, 11, 8, 9, 10, 11, NONE, 12, 13,
                                           14, 15, 12, 13, 14, 15, 12, 13, 14, 15, NONE);
    /* half a unit, in the low lane only: the lanes are added */
    const __m256i half = _mm256_zextsi128_si256(_mm_set1_epi32(1 << (TESS__TAP_BITS - 1)));
    const int16_t *packed = t->packed;
    const uint8_t *from[R];
    uint8_t *to[R];
    for (int32_t r = 0; r < R; r++) {
        from[r] = in[r < n_rows ? r : n_rows - 1];
        to[r] = out[r < n_rows ? r : n_rows - 1];
    }
    for (int32_t i = 0; i < t->n_out; i++, packed += 2 * t->stride) {
        size_t at = 3 * (size_t)t->first[i];
        __m256i low[R] = {half, half, half, half}, high[R] = {{0}, {0}, {0}, {0}};
        for (int32_t tap = 0; tap < t->count[i]; tap += 4, at += 12) {
            __m256i k =
                _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(packed + 2 * tap)));
            __m256i k_low = _mm256_shuffle_epi8(k, lows);
            __m256i k_high = _mm256_shuffle_epi8(k, highs);
#pragma GCC unroll 4
            for (int32_t r = 0; r < R; r++) {
                __m128i bytes = _mm_loadu_si128((const __m128i *)(from[r] + at));
                __m256i p = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(bytes), spread);
                low[r] = _mm256_add_epi32(low[r], _mm256_madd_epi16(p, k_low));
                high[r] = _mm256_add_epi32(high[r], _mm256_madd_epi16(p, k_high));
            }
        }
        store_pixels(low, high, to, 3 * (size_t)i);
    }
}

/* ---- along y ------------------------------------------------------------------------------ */

/* 32 bytes of a row from two interleaved rows at a time. */
AVX2 static inline void resize_block(const int32_t *k, int32_t n_taps, const uint8_t *in,
                                     size_t stride, uint8_t *out)
{
    const __m256i zero = _mm256_setzero_si256();
    const __m256i half = _mm256_set1_epi32(1 << (TESS__TAP_BITS - 1));
    __m256i low[4] = {half, half, half, half}, high[4] = {{0}, {0}, {0}, {0}};
    for (int32_t t = 0; t < n_taps; t += 2) {
        bool pair = t + 1 < n_taps;
        uint32_t k0 = (uint32_t)k[t], k1 = pair ? (uint32_t)k[t + 1] : 0;
        __m256i k_low = _mm256_set1_epi32((int32_t)((k0 & 0x7fff) | (k1 & 0x7fff) << 16));
        __m256i k_high =
            _mm256_set1_epi32((int32_t)((k0 >> 15 & 0xffff) | (uint32_t)((int32_t)k1 >> 15) << 16));
        const uint8_t *p = in + (size_t)t * stride;
        __m256i a = _mm256_loadu_si256((const __m256i *)p);
        __m256i b = pair ? _mm256_loadu_si256((const __m256i *)(p + stride)) : zero;
        __m256i ab[2] = {_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b)};
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            __m256i v = i % 2 ? _mm256_unpackhi_epi8(ab[i / 2], zero)
                              : _mm256_unpacklo_epi8(ab[i / 2], zero);
            low[i] = _mm256_add_epi32(low[i], _mm256_madd_epi16(v, k_low));
            high[i] = _mm256_add_epi32(high[i], _mm256_madd_epi16(v, k_high));
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        low[i] = _mm256_srai_epi32(join(low[i], high[i]), TESS__TAP_BITS);
    }
    __m256i bytes =
        _mm256_packus_epi16(_mm256_packs_epi32(low[0], low[1]), _mm256_packs_epi32(low[2], low[3]));
    _mm256_storeu_si256((__m256i *)out, bytes);
}

AVX2 static void resize_column(const int32_t *k, int32_t n_taps, const uint8_t *in, size_t stride,
                               size_t n_bytes, uint8_t *out)
{
    enum { BLOCK = 32 };
    if (n_bytes < BLOCK) {
        tess__resize_base.column(k, n_taps, in, stride, n_bytes, out);
        return;
    }
    for (size_t x = 0; x < n_bytes; x += BLOCK) {
        /* the last block overlaps the one before it */
        size_t at = n_bytes - x < BLOCK ? n_bytes - BLOCK : x;
        resize_block(k, n_taps, in + at, stride, out + at);
    }
}

const tess__resize_kernels tess__resize_avx2 = {resize_rows, resize_column};
#endif
