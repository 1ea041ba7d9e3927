/* SPDX-License-Identifier: Apache-2.0 */
/* What the optimizers' kernels share: optimizer.h's factor, read on the device. */
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

#endif
