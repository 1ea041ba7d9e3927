/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernels share: loads and stores of f32 or bf16, the exponential and the error function.
 *
 * Element-wise kernels are written for one element, always inlined with `bf16` constant, and
 * vectorised by the compiler (`omp simd`), so the portable twin and the fast path are one text.
 * Matrix-like kernels (attention) use the compilers' vector types, whose width follows the
 * instruction set. */
#ifndef TESSERA_TENSOR_KERNELS_VEC_H
#define TESSERA_TENSOR_KERNELS_VEC_H

#include <string.h>

#include "tensor/kernels.h"

#define INLINE static inline __attribute__((always_inline, unused))

/* Calls f(..., bf16) with bf16 a constant, so that the body is specialised twice. */
#define BY_DTYPE(t, f, ...)                                                                        \
    do {                                                                                           \
        if ((t) == TESS_BF16) {                                                                    \
            f(__VA_ARGS__, true);                                                                  \
        } else {                                                                                   \
            f(__VA_ARGS__, false);                                                                 \
        }                                                                                          \
    } while (0)

INLINE uint32_t bits_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

INLINE float float_of(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* Round to nearest even; NaN stays NaN. */
INLINE uint16_t bf16_of(float x)
{
    const uint32_t u = bits_of(x);
    const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    return (uint16_t)(x != x ? (u >> 16) | 0x40u : rounded);
}

INLINE float load1(const void *p, int64_t i, bool bf16)
{
    return bf16 ? float_of((uint32_t)((const uint16_t *)p)[i] << 16) : ((const float *)p)[i];
}

INLINE void store1(void *p, int64_t i, float x, bool bf16)
{
    if (bf16) {
        ((uint16_t *)p)[i] = bf16_of(x);
    } else {
        ((float *)p)[i] = x;
    }
}

/* Element i of a run of f32 or bf16 values. */
INLINE const void *at(const void *p, int64_t i, bool bf16)
{
    return (const char *)p + i * (bf16 ? 2 : 4);
}

INLINE void *at_mut(void *p, int64_t i, bool bf16)
{
    return (char *)p + i * (bf16 ? 2 : 4);
}

/* exp(x), relative error below 2e-7; 0 below -87, infinity above 88.72; NaN stays NaN.
 * x = n ln 2 + r, |r| <= ln 2 / 2: the polynomial is Taylor's of degree 7 (its remainder is 8e-9),
 * n is read from the low bits of x / ln 2 + 1.5 * 2^23, where rounding has left it.  2^n is applied
 * in two steps so that n = 128 does not overflow early. */
INLINE float exp1(float x)
{
    const float hi = x > 88.73f ? 88.73f : x;
    const float lo = hi < -88.0f ? -88.0f : hi;
    const float shifted = lo * 1.44269504f + 12582912.0f;
    const float n = shifted - 12582912.0f;
    float r = lo - n * 0.693145752f;
    r = r - n * 1.42860677e-6f;
    float p = 1.98412698e-4f;
    p = p * r + 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 0.166666667f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const uint32_t k = bits_of(shifted) - 0x4b400000u; /* n as a two's complement integer */
    const uint32_t half = (uint32_t)((int32_t)k >> 1);
    const float y = p * float_of((half + 127u) << 23) * float_of((k - half + 127u) << 23);
    return x < -87.0f ? 0.0f : y;
}

INLINE float sigmoid1(float x)
{
    return 1.0f / (1.0f + exp1(-x));
}

/* Phi(x) = (1 + erf(x / sqrt 2)) / 2 and phi(x) = exp(-x^2/2) / sqrt(2 pi), which share the
 * exponential.  Abramowitz & Stegun 7.1.26: error of erf below 1.5e-7. */
INLINE float normal_cdf1(float x, float *density)
{
    const float z = (x < 0.0f ? -x : x) * 0.707106781f;
    const float e = exp1(-z * z);
    const float t = 1.0f / (1.0f + 0.3275911f * z);
    float p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    const float tail = 0.5f * p * t * e; /* 1 - Phi(|x|) */
    *density = e * 0.398942280f;
    return x < 0.0f ? tail : 1.0f - tail;
}

/* ---- vectors as wide as the registers ----------------------------------------------------- */

#if defined(__AVX512F__)
#define LANES 16
#define NR    4 /* vectors per row of a register tile: 6 x 4 of 32 registers, 6 x 2 of 16 */
#elif defined(__AVX2__)
#define LANES 8
#define NR    2
#else
#define LANES 4
#define NR    2
#endif

typedef float vf __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef uint32_t vu __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef uint16_t vh __attribute__((vector_size(LANES * 2), aligned(2), may_alias));

/* Lane l's partner at distance s. */
#define PARTNER(l, s) ((l) ^ (s))
#if LANES == 16
#define EACH_LANE(f, s)                                                                            \
    f(0, s), f(1, s), f(2, s), f(3, s), f(4, s), f(5, s), f(6, s), f(7, s), f(8, s), f(9, s),      \
        f(10, s), f(11, s), f(12, s), f(13, s), f(14, s), f(15, s)
#elif LANES == 8
#define EACH_LANE(f, s) f(0, s), f(1, s), f(2, s), f(3, s), f(4, s), f(5, s), f(6, s), f(7, s)
#else
#define EACH_LANE(f, s) f(0, s), f(1, s), f(2, s), f(3, s)
#endif
#define PARTNERS(x, s) __builtin_shufflevector(x, x, EACH_LANE(PARTNER, s))

INLINE vf max_of(vf a, vf b)
{
    const vi more = a > b;
    return (vf)((more & (vi)a) | (~more & (vi)b));
}

/* Over the lanes, as a tree: the compilers would do it one after the other. */
INLINE float sum_vec(vf x)
{
#if LANES == 16
    x += PARTNERS(x, 8);
#endif
#if LANES >= 8
    x += PARTNERS(x, 4);
#endif
    x += PARTNERS(x, 2);
    x += PARTNERS(x, 1);
    return x[0];
}

INLINE float max_vec(vf x)
{
#if LANES == 16
    x = max_of(x, PARTNERS(x, 8));
#endif
#if LANES >= 8
    x = max_of(x, PARTNERS(x, 4));
#endif
    x = max_of(x, PARTNERS(x, 2));
    x = max_of(x, PARTNERS(x, 1));
    return x[0];
}

/* Lane l of the two halves of a butterfly of distance s. */
#define LOW(l, s)  (((l) & (s)) ? LANES + (l) - (s) : (l))
#define HIGH(l, s) (((l) & (s)) ? LANES + (l) : (l) + (s))
#define BUTTERFLY(r, s)                                                                            \
    for (int i = 0; i < LANES; i++) {                                                              \
        if (!(i & (s))) {                                                                          \
            const vf a = (r)[i], b = (r)[i + (s)];                                                 \
            (r)[i] = __builtin_shufflevector(a, b, EACH_LANE(LOW, s));                             \
            (r)[i + (s)] = __builtin_shufflevector(a, b, EACH_LANE(HIGH, s));                      \
        }                                                                                          \
    }

/* LANES rows of LANES become columns. */
INLINE void transpose(vf r[LANES])
{
#if LANES == 16
    BUTTERFLY(r, 8)
#endif
#if LANES >= 8
    BUTTERFLY(r, 4)
#endif
    BUTTERFLY(r, 2)
    BUTTERFLY(r, 1)
}

/* Largest of n >= 1 values.  Spelled out, since compilers vectorise a maximum only when told that
 * there are no NaNs. */
INLINE float max_run(const float *x, int64_t n)
{
    float top = x[0];
    int64_t i = 0;
    if (n >= LANES) {
        vf tops = *(const vf *)x;
        for (i = LANES; i + LANES <= n; i += LANES) {
            tops = max_of(*(const vf *)(x + i), tops);
        }
        top = max_vec(tops);
    }
    for (; i < n; i++) {
        top = x[i] > top ? x[i] : top;
    }
    return top;
}

/* Each file of kernels puts its functions into the table of the instruction set it is built for. */
void TESS_K(fill_pointwise)(tess_kernels *k);
void TESS_K(fill_unary)(tess_kernels *k);
void TESS_K(fill_norm)(tess_kernels *k);
void TESS_K(fill_attention)(tess_kernels *k);
void TESS_K(fill_softmax)(tess_kernels *k);
void TESS_K(fill_optimizer)(tess_kernels *k);
void TESS_K(fill_outer)(tess_kernels *k);
void TESS_K(fill_rows)(tess_kernels *k);
void TESS_K(fill_panel)(tess_kernels *k);

#endif
