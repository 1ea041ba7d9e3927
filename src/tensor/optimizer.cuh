/* SPDX-License-Identifier: Apache-2.0 */
/* What the optimizers' kernels share: optimizer.h's factor, read on the device, and rounding to
 * bf16 by chance. */
#ifndef TESSERA_TENSOR_OPTIMIZER_CUH
#define TESSERA_TENSOR_OPTIMIZER_CUH

#include "tensor/kernel.cuh"
#include "tensor/optimizer.h"

/* A sum of squares that is not finite leaves everything but the gradient as it was. */
__device__ __forceinline__ bool update_counts(const float *sumsq)
{
    return (__float_as_uint(*sumsq) & 0x7f800000u) != 0x7f800000u;
}

/* tess__grad_factor. */
__device__ __forceinline__ float grad_factor(const float *hyper, const float *sumsq, float clip)
{
    const float scale = hyper[TESS_HYPER_SCALE], norm = sqrtf(*sumsq) * scale;
    return clip > 0 && norm > clip ? scale * clip / norm : scale;
}

struct philox_words {
    unsigned v[4];
};

/* tess_philox. */
__device__ __forceinline__ philox_words philox(uint64_t key, uint64_t counter_hi,
                                               uint64_t counter_lo)
{
    unsigned k0 = static_cast<unsigned>(key), k1 = static_cast<unsigned>(key >> 32);
    unsigned c0 = static_cast<unsigned>(counter_lo), c1 = static_cast<unsigned>(counter_lo >> 32);
    unsigned c2 = static_cast<unsigned>(counter_hi), c3 = static_cast<unsigned>(counter_hi >> 32);
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = static_cast<uint64_t>(c0) * 0xD2511F53u;
        const uint64_t p1 = static_cast<uint64_t>(c2) * 0xCD9E8D57u;
        c0 = static_cast<unsigned>(p1 >> 32) ^ c1 ^ k0;
        c1 = static_cast<unsigned>(p1);
        c2 = static_cast<unsigned>(p0 >> 32) ^ c3 ^ k1;
        c3 = static_cast<unsigned>(p0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

/* As the kernel round_stochastic of kernels.h, with its word of noise. */
__device__ __forceinline__ bf16 round_stochastic(float x, unsigned noise)
{
    const unsigned u = __float_as_uint(x);
    bf16 y = {static_cast<uint16_t>((u + (noise >> 16)) >> 16)};
    if ((u & 0x7f800000u) == 0x7f800000u) {
        from_float(x, &y);
    }
    return y;
}

#endif
