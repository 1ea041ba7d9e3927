/* SPDX-License-Identifier: Apache-2.0 */
/* adamw on a CUDA device: bound by memory, 16 bytes read and 16 written an element (param, grad, m,
 * v), some 15 FLOPs.  One pass; what changes from step to step, and whether the gradient is finite,
 * is read by every thread from device memory, so that the launch can be replayed. */
#include "tensor/kernel.cuh"
#include "tensor/optimizer.h"

namespace
{

constexpr int THREADS = 256;
enum { PARAM, GRAD, M, V, HYPER, SUMSQ };

struct adamw_args {
    float *param, *grad, *m, *v;
    const float *hyper, *sumsq;
    int64_t n;
    tess_adamw_options o;
};

/* The step's numbers. */
struct step {
    float lr, fix1, fix2, factor;
    bool finite;
};

/* As tess__grad_factor, which is the host's. */
__device__ __forceinline__ step step_of(const adamw_args &a)
{
    const float *h = a.hyper, sumsq = *a.sumsq, scale = h[TESS_HYPER_SCALE];
    const float norm = sqrtf(sumsq) * scale;
    const bool clipped = a.o.clip > 0 && norm > a.o.clip;
    return {h[TESS_HYPER_LR], h[TESS_HYPER_FIX1], h[TESS_HYPER_FIX2],
            clipped ? scale * a.o.clip / norm : scale,
            (__float_as_uint(sumsq) & 0x7f800000u) != 0x7f800000u};
}

template <int N>
__device__ __forceinline__ void update(const adamw_args &a, const step &s, int64_t i)
{
    run<float, N> zero;
    if (s.finite) {
        run<float, N> p(a.param, i), g(a.grad, i), m(a.m, i), v(a.v, i);
        for (int k = 0; k < N; k++) {
            const float d = g.x[k] * s.factor;
            const float decay = i + k < a.o.n_decayed ? a.o.weight_decay : 0.0f;
            m.x[k] = a.o.beta1 * m.x[k] + (1.0f - a.o.beta1) * d;
            v.x[k] = a.o.beta2 * v.x[k] + (1.0f - a.o.beta2) * d * d;
            p.x[k] = p.x[k] * (1.0f - s.lr * decay) -
                     s.lr * (m.x[k] * s.fix1) / (sqrtf(v.x[k] * s.fix2) + a.o.eps);
        }
        p.store(a.param, i);
        m.store(a.m, i);
        v.store(a.v, i);
    }
    zero.store(a.grad, i);
}

__global__ void __launch_bounds__(THREADS) adamw_kernel(adamw_args a)
{
    const int64_t first = a.o.begin / 4; /* the pack in which `begin` lies */
    const int64_t i = (first + static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x) * 4;
    const step s = step_of(a);
    if (i >= a.o.begin && i + 4 <= a.n) {
        update<4>(a, s, i);
        return;
    }
    for (int64_t k = i < a.o.begin ? a.o.begin : i; k < i + 4 && k < a.n; k++) {
        update<1>(a, s, k);
    }
}

} // namespace

extern "C" tess_status tess__cuda_adamw(const tess_exec *e)
{
    const adamw_args a = {static_cast<float *>(e->in[PARAM].data),
                          static_cast<float *>(e->in[GRAD].data),
                          static_cast<float *>(e->in[M].data),
                          static_cast<float *>(e->in[V].data),
                          static_cast<const float *>(e->in[HYPER].data),
                          static_cast<const float *>(e->in[SUMSQ].data),
                          e->in[PARAM].shape.dim[0],
                          *static_cast<const tess_adamw_options *>(e->attrs)};
    TESS_LAUNCH(adamw_kernel, blocks_for(a.n - a.o.begin / 4 * 4, 4 * THREADS), THREADS, 0,
                e->stream, a);
    return tess__cuda_launched("adamw");
}
