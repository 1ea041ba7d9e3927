/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernels that write patches share: from 8 bits to normalised numbers. */
#ifndef TESSERA_TENSOR_PATCHES_CUH
#define TESSERA_TENSOR_PATCHES_CUH

#include "tensor/kernel.cuh"

struct pixel_scale {
    float scale[3], shift[3]; /* y = scale x - shift */
    __device__ __forceinline__ float at(int channel, uint8_t x) const
    {
        return scale[channel] * static_cast<float>(x) - shift[channel];
    }
};

static inline pixel_scale pixel_scale_of(const float *mean, const float *std)
{
    pixel_scale s = {};
    for (int c = 0; c < 3; c++) {
        const double deviation = static_cast<double>(std[c]);
        s.scale[c] = static_cast<float>(1.0 / (255.0 * deviation));
        s.shift[c] = static_cast<float>(static_cast<double>(mean[c]) / deviation);
    }
    return s;
}

#endif
