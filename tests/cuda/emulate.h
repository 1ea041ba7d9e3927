/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA C that kernels are written in, for a host compiler: grids, blocks, warps, shared memory,
 * barriers and shuffles, run on one processor.
 *
 * Every thread of a block is a fiber; blocks run one after another.  A barrier, and every operation
 * of a warp, is a switch to the next fiber; what a real card leaves open (who goes first) is set by
 * EMULATE_ORDER, and a kernel's result may not depend on it.  Under ThreadSanitizer the switches
 * carry no order of their own, so that two threads of a block which touch one place without a
 * barrier between them are a reported race.
 *
 * Shared memory is guarded, and full of NaN at the start of each block.  "Device" memory
 * (cuda_runtime_api.h) can only be touched by kernels and copies: elsewhere it is a segmentation
 * fault, as it is with a card. */
#ifndef TESSERA_TESTS_EMULATE_H
#define TESSERA_TESTS_EMULATE_H

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#include "cuda_runtime_api.h"

#define __global__   static
#define __device__   inline
#define __constant__ static const
#define __forceinline__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};
extern dim3 threadIdx, blockIdx, blockDim, gridDim;
static constexpr int warpSize = 32;

namespace emulate
{

struct launch {
    const char *name;
    dim3 grid, block;
    size_t shared_bytes;
    std::function<void()> body;
};
/* A kernel with its arguments, which have their values now. */
template <class F, class... A> std::function<void()> call(F kernel, A... arguments)
{
    return [=] { kernel(arguments...); };
}
/* Runs, or keeps for the graph that is being captured. */
void run(const launch &l, cudaStream_t stream);
/* So long does the card's queue take; a launch takes a microsecond. */
void spend(double ms);
/* The block's memory of this call site. */
void *shared(const void *site, size_t bytes);
void *dynamic_shared();
void barrier();
/* Lane `from` of the warp gets a copy of `bytes` at `value`; every lane of `mask` must call. */
void exchange(unsigned mask, int from, void *value, size_t bytes);
uint32_t vote(unsigned mask, bool value);
/* all (32): what the lanes of a whole warp have at their `value`, of up to 32 bytes. */
void gather(const void *value, size_t bytes, void *all);

} // namespace emulate

#define TESS_SHARED(type, name, n)                                                                 \
    static const char name##_site = 0;                                                             \
    type *const name = static_cast<type *>(emulate::shared(&name##_site, (n) * sizeof(type)))
#define TESS_SHARED_DYNAMIC(type, name)                                                            \
    type *const name = static_cast<type *>(emulate::dynamic_shared())
#define TESS_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                \
    emulate::run(                                                                                  \
        {#kernel, dim3(grid), dim3(block), (shared_bytes), emulate::call(kernel, __VA_ARGS__)},    \
        static_cast<cudaStream_t>(stream))

static inline void __syncthreads()
{
    emulate::barrier();
}
static inline void __syncwarp(unsigned mask = 0xffffffffu)
{
    emulate::vote(mask, true);
}
static inline int lane_of_thread()
{
    return static_cast<int>((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) %
                            32);
}
template <class T> static inline T __shfl_sync(unsigned mask, T v, int lane)
{
    emulate::exchange(mask, lane & 31, &v, sizeof v);
    return v;
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T v, int lanes)
{
    return __shfl_sync(mask, v, lane_of_thread() ^ lanes);
}
template <class T> static inline T __shfl_down_sync(unsigned mask, T v, unsigned n)
{
    const int from = lane_of_thread() + static_cast<int>(n);
    return __shfl_sync(mask, v, from < 32 ? from : lane_of_thread());
}
static inline unsigned __ballot_sync(unsigned mask, bool v)
{
    return emulate::vote(mask, v);
}

static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}

template <class T> static inline T atomicAdd(T *at, T v)
{
    T old = __atomic_load_n(at, __ATOMIC_RELAXED), sum;
    do {
        sum = old + v;
    } while (!__atomic_compare_exchange(at, &old, &sum, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return old;
}
static inline int atomicMax(int *at, int v)
{
    int old = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (old < v &&
           !__atomic_compare_exchange_n(at, &old, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}
static inline void __threadfence()
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
static inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}
static inline float __uint_as_float(unsigned u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}
static inline unsigned __float_as_uint(float x)
{
    unsigned u;
    memcpy(&u, &x, sizeof u);
    return u;
}
template <class T> static inline T __ldg(const T *p)
{
    return *p;
}

#endif
