/* SPDX-License-Identifier: Apache-2.0 */
/* What kernels are written with: number types, 16-byte packs, reductions over warps and blocks, the
 * launch.  The same sources compile with nvcc and, for tests, with a host compiler under
 * tests/cuda/emulate.h; so a kernel keeps to what both have. */
#ifndef TESSERA_TENSOR_KERNEL_CUH
#define TESSERA_TENSOR_KERNEL_CUH

extern "C" {
#include "tensor/cuda.h"
}

#if defined __CUDACC__
#include <cuda_runtime.h>
#define TESS_SHARED(type, name, n) __shared__ __align__(16) type name[n]
#define TESS_SHARED_DYNAMIC(type, name)                                                            \
    extern __shared__ __align__(16) unsigned char tess_dynamic_shared[];                           \
    type *const name = reinterpret_cast<type *>(tess_dynamic_shared)
#define TESS_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                \
    kernel<<<(grid), (block), (shared_bytes), static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)
#else
#include "emulate.h"
#endif

/* ---- numbers ------------------------------------------------------------------------------- */

struct bf16 {
    uint16_t bits;
};

__device__ __forceinline__ float to_float(float x)
{
    return x;
}

__device__ __forceinline__ float to_float(bf16 x)
{
    return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}

__device__ __forceinline__ void from_float(float x, float *out)
{
    *out = x;
}

/* To nearest, ties to even; NaN stays NaN. */
__device__ __forceinline__ void from_float(float x, bf16 *out)
{
    const unsigned u = __float_as_uint(x);
    const unsigned rounded = (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
    out->bits = static_cast<uint16_t>(x == x ? rounded : u >> 16 | 0x40u);
}

/* ---- packs: 16 bytes at a time --------------------------------------------------------------- */

template <class T> struct __align__(16) pack
{
    static constexpr int N = 16 / sizeof(T);
    T x[N];
};

/* Memory that operators are given starts at a multiple of 16 bytes; a row of it does where its
 * length is a multiple of a pack's. */
template <class T> __device__ __forceinline__ pack<T> load_pack(const T *at)
{
    return *reinterpret_cast<const pack<T> *>(at);
}

template <class T> __device__ __forceinline__ void store_pack(T *at, const pack<T> &p)
{
    *reinterpret_cast<pack<T> *>(at) = p;
}

/* N numbers in one access, of at most 16 bytes. */
template <class T, int N> struct alignas(sizeof(T) * N) access {
    T x[N];
};

/* N numbers of a row from column j on, a multiple of N; N a power of two. */
template <class T, int N> struct run {
    static constexpr int STEP = N * sizeof(T) > 16 ? 16 / sizeof(T) : N;
    float x[N];
    __device__ __forceinline__ run()
    {
        for (int k = 0; k < N; k++) {
            x[k] = 0;
        }
    }
    __device__ __forceinline__ run(const T *row, int64_t j)
    {
        for (int i = 0; i < N; i += STEP) {
            const auto a = *reinterpret_cast<const access<T, STEP> *>(row + j + i);
            for (int k = 0; k < STEP; k++) {
                x[i + k] = to_float(a.x[k]);
            }
        }
    }
    __device__ __forceinline__ void store(T *row, int64_t j) const
    {
        for (int i = 0; i < N; i += STEP) {
            access<T, STEP> a;
            for (int k = 0; k < STEP; k++) {
                from_float(x[i + k], &a.x[k]);
            }
            *reinterpret_cast<access<T, STEP> *>(row + j + i) = a;
        }
    }
    /* The same numbers for a row of another type. */
    template <class U> __device__ __forceinline__ void store_as(U *row, int64_t j) const
    {
        run<U, N> other;
        for (int k = 0; k < N; k++) {
            other.x[k] = x[k];
        }
        other.store(row, j);
    }
};

/* ---- reductions: the same order whatever the grid ---------------------------------------------
 */

__device__ __forceinline__ float warp_sum(float x)
{
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        x += __shfl_xor_sync(0xffffffffu, x, lanes);
    }
    return x;
}

__device__ __forceinline__ float warp_max(float x)
{
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, lanes));
    }
    return x;
}

/* Over a one-dimensional block of whole warps, to all its threads; partial: a float a warp, in
 * shared memory, which may be used again after the next barrier. */
__device__ __forceinline__ float block_sum(float x, float *partial)
{
    const int warp = static_cast<int>(threadIdx.x) / warpSize;
    const int lane = static_cast<int>(threadIdx.x) % warpSize;
    const int n_warps = static_cast<int>(blockDim.x) / warpSize;
    x = warp_sum(x);
    if (lane == 0) {
        partial[warp] = x;
    }
    __syncthreads();
    x = warp_sum(lane < n_warps ? partial[lane] : 0.0f);
    __syncthreads();
    return x;
}

/* ---- launching ------------------------------------------------------------------------------- */

/* Blocks for n items, so many a block. */
static inline unsigned blocks_for(int64_t n, int64_t per_block)
{
    const int64_t blocks = (n + per_block - 1) / per_block;
    return static_cast<unsigned>(blocks < 1 ? 1 : blocks > 0x7fffffff ? 0x7fffffff : blocks);
}

/* One statement for T = bf16 or float. */
#define TESS_FOR_FLOAT(dtype, T, ...)                                                              \
    do {                                                                                           \
        if ((dtype) == TESS_BF16) {                                                                \
            typedef bf16 T;                                                                        \
            __VA_ARGS__;                                                                           \
        } else {                                                                                   \
            typedef float T;                                                                       \
            __VA_ARGS__;                                                                           \
        }                                                                                          \
    } while (0)

#endif
