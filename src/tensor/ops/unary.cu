/* SPDX-License-Identifier: Apache-2.0 */
/* unary and its gradient on a CUDA device: bound by memory, 2 n items moved (3 n by the gradient).
 * An activation costs 10 to 30 instructions, and 24 an element are free beside 32 bytes a pack of
 * bf16, so nothing slower than erff and expf is used: x (1 + erf) / 2 is exact to 1e-7 of x, which
 * for x below -4 is less than what erfc would give, and less than bf16 shows. */
#include "tensor/pointwise.cuh"
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

template <class T, tess_unary_kind KIND> struct activated {
    T *y;
    const T *x;
    template <int N> __device__ run<T, N> load(int64_t i) const
    {
        return run<T, N>(x, i);
    }
    template <int N> __device__ void store(int64_t i, run<T, N> v) const
    {
        for (int k = 0; k < N; k++) {
            v.x[k] = value_of<KIND>(v.x[k]);
        }
        v.store(y, i);
    }
};

template <class T, tess_unary_kind KIND> struct sloped {
    T *dx;
    const T *x, *dy;
    template <int N> struct pair {
        run<T, N> x, dy;
    };
    template <int N> __device__ pair<N> load(int64_t i) const
    {
        return {run<T, N>(x, i), run<T, N>(dy, i)};
    }
    template <int N> __device__ void store(int64_t i, pair<N> v) const
    {
        for (int k = 0; k < N; k++) {
            v.x.x[k] = slope_of<KIND>(v.x.x[k]) * v.dy.x[k];
        }
        v.x.store(dx, i);
    }
};

template <tess_unary_kind KIND> void forward(const tess_exec *e)
{
    const int64_t n = tess_shape_count(&e->out[0].shape);
    TESS_FOR_FLOAT(e->out[0].dtype, T, {
        const activated<T, KIND> f = {static_cast<T *>(e->out[0].data),
                                      static_cast<const T *>(e->in[0].data)};
        launch_pointwise<pack<T>::N>(f, n, e->stream);
    });
}

template <tess_unary_kind KIND> void backward(const tess_exec *e)
{
    const int64_t n = tess_shape_count(&e->out[0].shape);
    TESS_FOR_FLOAT(e->out[0].dtype, T, {
        const sloped<T, KIND> f = {static_cast<T *>(e->out[0].data),
                                   static_cast<const T *>(e->in[0].data),
                                   static_cast<const T *>(e->in[1].data)};
        launch_pointwise<pack<T>::N>(f, n, e->stream);
    });
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
#define FORWARD(kind)  forward<kind>(e)
#define BACKWARD(kind) backward<kind>(e)

extern "C" tess_status tess__cuda_unary(const tess_exec *e)
{
    FOR_KIND(static_cast<const unary_attrs *>(e->attrs)->kind, FORWARD)
    return tess__cuda_launched("unary");
}

extern "C" tess_status tess__cuda_unary_grad(const tess_exec *e)
{
    FOR_KIND(static_cast<const unary_attrs *>(e->attrs)->kind, BACKWARD)
    return tess__cuda_launched("unary_grad");
}
