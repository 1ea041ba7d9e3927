/* SPDX-License-Identifier: Apache-2.0 */
/* sumsq on a CUDA device: bound by memory, n floats read, 2 n FLOPs in double, of which an H200 has
 * ten times as many as its memory feeds.  A fixed number of blocks, so that the order of the sum is
 * the same on every card; their sums are added by one block. */
#include "tensor/kernel.cuh"

namespace
{

constexpr int WARPS = 8, THREADS = 32 * WARPS;
constexpr int64_t BLOCKS = 1056; /* eight for each SM of an H200 */

__device__ __forceinline__ double warp_sum_double(double x)
{
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        x += __shfl_xor_sync(0xffffffffu, x, lanes);
    }
    return x;
}

/* To thread 0. */
__device__ __forceinline__ double block_sum_double(double x, double *partial)
{
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    x = warp_sum_double(x);
    if (lane == 0) {
        partial[warp] = x;
    }
    __syncthreads();
    return warp == 0 ? warp_sum_double(lane < WARPS ? partial[lane] : 0.0) : 0.0;
}

__device__ __forceinline__ double square(float x)
{
    return static_cast<double>(x) * static_cast<double>(x);
}

__global__ void __launch_bounds__(THREADS)
    sumsq_kernel(double *block_sums, const float *x, int64_t n)
{
    TESS_SHARED(double, partial, WARPS);
    const int64_t first = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
    const int64_t packs = n / 4, stride = static_cast<int64_t>(gridDim.x) * THREADS;
    double a = 0, b = 0;
    for (int64_t i = first; i < packs; i += stride) {
        const run<float, 4> v(x, 4 * i);
        a += square(v.x[0]) + square(v.x[1]);
        b += square(v.x[2]) + square(v.x[3]);
    }
    if (first < n - 4 * packs) {
        a += square(x[4 * packs + first]);
    }
    const double sum = block_sum_double(a + b, partial);
    if (threadIdx.x == 0) {
        block_sums[blockIdx.x] = sum;
    }
}

__global__ void __launch_bounds__(THREADS) sum_kernel(float *y, const double *x, int64_t n)
{
    TESS_SHARED(double, partial, WARPS);
    double sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += THREADS) {
        sum += x[i];
    }
    sum = block_sum_double(sum, partial);
    if (threadIdx.x == 0) {
        *y = static_cast<float>(sum);
    }
}

int64_t blocks_of(int64_t n)
{
    const int64_t wanted = blocks_for(n, 4 * THREADS);
    return wanted < BLOCKS ? wanted : BLOCKS;
}

} // namespace

extern "C" size_t tess__cuda_sumsq_scratch(const tess_prepare *c)
{
    return static_cast<size_t>(blocks_of(tess_shape_count(&c->in[0].shape))) * sizeof(double);
}

extern "C" tess_status tess__cuda_sumsq(const tess_exec *e)
{
    const int64_t n = tess_shape_count(&e->in[0].shape), blocks = blocks_of(n);
    double *sums = static_cast<double *>(e->scratch);
    TESS_LAUNCH(sumsq_kernel, static_cast<unsigned>(blocks), THREADS, 0, e->stream, sums,
                static_cast<const float *>(e->in[0].data), n);
    TESS_LAUNCH(sum_kernel, 1, THREADS, 0, e->stream, static_cast<float *>(e->out[0].data),
                static_cast<const double *>(sums), blocks);
    return tess__cuda_launched("sumsq");
}
