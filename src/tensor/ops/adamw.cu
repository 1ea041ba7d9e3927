/* SPDX-License-Identifier: Apache-2.0 */
/* adamw on a CUDA device: bound by memory, 16 bytes read and 16 written an element (param, grad, m,
 * v), and 2 for its bf16 copy; some 15 FLOPs, and 16 integer operations more where the copy is
 * rounded by chance.  All tensors in one pass and one launch: a thread finds the part of its four
 * elements among the few that there are.  What changes from step to step, and whether the gradient
 * is finite, is read by every thread from device memory, so that the launch can be replayed. */
#include "tensor/optimizer.cuh"

namespace
{

constexpr int THREADS = 256, N = 4;
enum { PARAM, GRAD, M, V, HYPER, SUMSQ, NARROW };

struct adamw_args {
    float *param, *grad, *m, *v;
    bf16 *narrow; /* NULL: none */
    const float *hyper, *sumsq;
    int64_t n;
    tess_adamw_options o;
};

/* What element i of grad is ahead by in param, and the element of grad where that ends. */
__device__ __forceinline__ int64_t shift_of(const adamw_args &a, int64_t i, int64_t *end)
{
    int64_t shift = 0;
    *end = a.n;
    for (int64_t k = 0; k < a.o.n_parts; k++) {
        if (a.o.part[k].grad > i) {
            *end = a.o.part[k].grad;
            break;
        }
        shift = a.o.part[k].param - a.o.part[k].grad;
    }
    return shift;
}

/* bf16 copies of the elements at, at + 1, ... of param; L = 1, or L = N where `at` is a multiple.
 */
template <int L>
__device__ __forceinline__ void narrow(const adamw_args &a, const run<float, L> &p, int64_t at)
{
    if (!a.o.stochastic) {
        p.store_as(a.narrow, at);
        return;
    }
    const uint64_t step = static_cast<uint64_t>(a.hyper[TESS_HYPER_STEP]);
    const philox_words noise = philox(a.o.seed, step, static_cast<uint64_t>(at) / 4);
    access<bf16, L> out;
    for (int k = 0; k < L; k++) {
        out.x[k] = round_stochastic(p.x[k], noise.v[(at + k) % 4]);
    }
    *reinterpret_cast<access<bf16, L> *>(a.narrow + at) = out;
}

/* Elements i, i + 1, ... of grad, which are at, at + 1, ... of param. */
template <int L> __device__ __forceinline__ void update(const adamw_args &a, int64_t i, int64_t at)
{
    const run<float, L> zero;
    if (update_counts(a.sumsq)) {
        const float lr = a.hyper[TESS_HYPER_LR], factor = grad_factor(a.hyper, a.sumsq, a.o.clip);
        const float fix1 = a.hyper[TESS_HYPER_FIX1], fix2 = a.hyper[TESS_HYPER_FIX2];
        run<float, L> p(a.param, at), g(a.grad, i), m(a.m, i), v(a.v, i);
        for (int k = 0; k < L; k++) {
            const float d = g.x[k] * factor;
            const float decay = i + k < a.o.n_decayed ? a.o.weight_decay : 0.0f;
            m.x[k] = a.o.beta1 * m.x[k] + (1.0f - a.o.beta1) * d;
            v.x[k] = a.o.beta2 * v.x[k] + (1.0f - a.o.beta2) * d * d;
            p.x[k] = p.x[k] * (1.0f - lr * decay) -
                     lr * (m.x[k] * fix1) / (sqrtf(v.x[k] * fix2) + a.o.eps);
        }
        p.store(a.param, at);
        m.store(a.m, i);
        v.store(a.v, i);
        if (a.narrow) {
            narrow<L>(a, p, at);
        }
    }
    zero.store(a.grad, i);
}

__global__ void __launch_bounds__(THREADS) adamw_kernel(adamw_args a)
{
    const int64_t first = a.o.begin / N; /* the pack in which `begin` lies */
    int64_t i = (first + static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x) * N, end;
    const int64_t last = i + N < a.n ? i + N : a.n, shift = shift_of(a, i, &end);
    if (i >= a.o.begin && i + N <= end && shift % N == 0) {
        update<N>(a, i, i + shift);
        return;
    }
    for (i = i < a.o.begin ? a.o.begin : i; i < last; i++) {
        update<1>(a, i, i + shift_of(a, i, &end));
    }
}

} // namespace

extern "C" tess_status tess__cuda_adamw(const tess_exec *e)
{
    const adamw_args a = {static_cast<float *>(e->in[PARAM].data),
                          static_cast<float *>(e->in[GRAD].data),
                          static_cast<float *>(e->in[M].data),
                          static_cast<float *>(e->in[V].data),
                          static_cast<bf16 *>(e->in[NARROW].data),
                          static_cast<const float *>(e->in[HYPER].data),
                          static_cast<const float *>(e->in[SUMSQ].data),
                          e->in[GRAD].shape.dim[0],
                          *static_cast<const tess_adamw_options *>(e->attrs)};
    TESS_LAUNCH(adamw_kernel, blocks_for(a.n - a.o.begin / N * N, N * THREADS), THREADS, 0,
                e->stream, a);
    return tess__cuda_launched("adamw");
}
