/* SPDX-License-Identifier: Apache-2.0 */
/* FP8 numbers (OCP 8-bit floating point, revision 1.0) and their scale, for processors and cards.
 * Numbers are as cuda_fp8.h makes them with __NV_SATFINITE.
 *
 * A scale is a power of two, so dividing by it is exact and every device gets the same codes. */
#ifndef TESSERA_TENSOR_FP8_H
#define TESSERA_TENSOR_FP8_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined __cplusplus
#define TESS_FP8 __device__ __forceinline__
#else
#define TESS_FP8 static inline
#endif

TESS_FP8 uint32_t tess__bits_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

TESS_FP8 float tess__f32_of(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* With a mantissa of 3 bits E4M3, of 2 bits E5M2. */
TESS_FP8 uint8_t tess__f8_round(float x, uint32_t bits)
{
    const uint32_t bias = bits == 3 ? 7 : 15, most = bits == 3 ? 0x7e : 0x7b, shift = 23 - bits;
    const uint32_t u = tess__bits_of(x), sign = u >> 24 & 0x80, a = u & 0x7fffffff;
    uint32_t code;
    if (a > 0x7f800000) {
        return 0x7f;
    }
    if (a >> 23 < 128 - bias) { /* below the normal numbers: a multiple of their last place */
        const float magic = tess__f32_of((151 - bias - bits) << 23);
        code = tess__bits_of(tess__f32_of(a) + magic) - tess__bits_of(magic);
    } else {
        const uint32_t half = (1u << (shift - 1)) - 1 + (a >> shift & 1);
        code = ((a + half) >> shift) - ((127 - bias) << bits);
    }
    return (uint8_t)(sign | (code < most ? code : most));
}

/* The least power of two s with amax <= s times the type's largest number, but no subnormal one;
 * infinite for an infinite amax, which makes NaN of what was infinite and 0 of the rest. */
TESS_FP8 float tess__f8_scale(float amax, uint32_t bits)
{
    const uint32_t u = tess__bits_of(amax / (bits == 3 ? 448.0f : 57344.0f));
    const uint32_t up = (u + 0x7fffff) & 0x7f800000;
    return tess__f32_of(up < 0x800000 ? 0x800000 : up);
}

#endif
