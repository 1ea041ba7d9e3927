/* SPDX-License-Identifier: Apache-2.0 */
/* The activations and their slopes, in f32, for kernels. */
#ifndef TESSERA_TENSOR_OPS_UNARY_CUH
#define TESSERA_TENSOR_OPS_UNARY_CUH

#include "tensor/kernel.cuh"
#include "tensor/ops/unary.h"

namespace
{

constexpr float TANH_A = 0.797884561f, TANH_B = 0.044715f; /* sqrt(2 / pi) */

__device__ __forceinline__ float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

__device__ __forceinline__ float normal_cdf(float x)
{
    return 0.5f + 0.5f * erff(x * 0.707106781f);
}

/* (1 + tanh u) / 2 = sigmoid(2 u) */
__device__ __forceinline__ float tanh_gate(float x)
{
    return sigmoid(2.0f * TANH_A * (x + TANH_B * x * x * x));
}

template <tess_unary_kind KIND> __device__ __forceinline__ float value_of(float x)
{
    if constexpr (KIND == TESS_RELU) {
        return x > 0.0f ? x : 0.0f;
    } else if constexpr (KIND == TESS_GELU) {
        return x * normal_cdf(x);
    } else if constexpr (KIND == TESS_GELU_TANH) {
        return x * tanh_gate(x);
    } else if constexpr (KIND == TESS_QUICK_GELU) {
        return x * sigmoid(1.702f * x);
    } else if constexpr (KIND == TESS_SILU) {
        return x * sigmoid(x);
    } else {
        return tanhf(x);
    }
}

template <tess_unary_kind KIND> __device__ __forceinline__ float slope_of(float x)
{
    if constexpr (KIND == TESS_RELU) {
        return x > 0.0f ? 1.0f : 0.0f;
    } else if constexpr (KIND == TESS_GELU) {
        return normal_cdf(x) + x * 0.398942280f * expf(-0.5f * x * x);
    } else if constexpr (KIND == TESS_GELU_TANH) {
        const float s = tanh_gate(x);
        return s + x * s * (1.0f - s) * 2.0f * TANH_A * (1.0f + 3.0f * TANH_B * x * x);
    } else if constexpr (KIND == TESS_QUICK_GELU) {
        const float s = sigmoid(1.702f * x);
        return s + 1.702f * x * s * (1.0f - s);
    } else if constexpr (KIND == TESS_SILU) {
        const float s = sigmoid(x);
        return s + x * s * (1.0f - s);
    } else {
        const float t = tanhf(x);
        return 1.0f - t * t;
    }
}

} // namespace

/* One statement for each kind. */
#define FOR_KIND(kind, call)                                                                       \
    switch (kind) {                                                                                \
    case TESS_RELU:                                                                                \
        call(TESS_RELU);                                                                           \
        break;                                                                                     \
    case TESS_GELU:                                                                                \
        call(TESS_GELU);                                                                           \
        break;                                                                                     \
    case TESS_GELU_TANH:                                                                           \
        call(TESS_GELU_TANH);                                                                      \
        break;                                                                                     \
    case TESS_QUICK_GELU:                                                                          \
        call(TESS_QUICK_GELU);                                                                     \
        break;                                                                                     \
    case TESS_SILU:                                                                                \
        call(TESS_SILU);                                                                           \
        break;                                                                                     \
    default:                                                                                       \
        call(TESS_TANH);                                                                           \
        break;                                                                                     \
    }

#endif
