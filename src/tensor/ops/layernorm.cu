/* SPDX-License-Identifier: Apache-2.0 */
/* layernorm on a CUDA device: a warp takes a row, and holds it in registers, so that memory is read
 * once and written once.  A lane has K packs of 16 bytes, which lie 32 packs apart; rows that are
 * not whole packs, or longer than 6 of them a lane, are read again from L1 (*_long_kernel).
 *
 * Gradients of weight and bias are sums over rows: a lane adds up its own columns over the rows of
 * its warp, a block adds its warps in order and join_kernel the blocks, so a run repeats bit for
 * bit. */
#include "tensor/kernel.cuh"
#include "tensor/ops/layernorm.h"

namespace
{

constexpr int WARPS = 8, THREADS = 32 * WARPS;
constexpr int GRAD_WARPS = 4, GRAD_THREADS = 32 * GRAD_WARPS;
constexpr int64_t SMS = 132; /* an H200's, whatever the card */

/* Blocks of the gradient that an SM holds at a time: a lane has some six registers a column. */
constexpr int resident(int columns)
{
    return columns <= 16 ? 4 : columns <= 24 ? 3 : 2;
}

struct norm_args {
    void *y;
    float *mean, *rstd;
    const void *x;
    const float *weight, *bias;
    float eps;
    int64_t rows, width;
};

__device__ __forceinline__ int lane_id()
{
    return static_cast<int>(threadIdx.x) % 32;
}

__device__ __forceinline__ int64_t row_id()
{
    return static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / 32;
}

/* The column of a lane's pack k. */
template <class T> __device__ __forceinline__ int64_t column(int k)
{
    return (lane_id() + 32 * k) * pack<T>::N;
}

template <class T, int K>
__device__ __forceinline__ void load_row(pack<T> (&x)[K], const void *from, int64_t row,
                                         int64_t width)
{
    for (int k = 0; k < K; k++) {
        const int64_t j = column<T>(k);
        x[k] = j < width ? load_pack(static_cast<const T *>(from) + row * width + j) : pack<T>{};
    }
}

template <class T, int K> __global__ void __launch_bounds__(THREADS) layernorm_kernel(norm_args a)
{
    constexpr int N = pack<T>::N;
    const int64_t row = row_id();
    if (row >= a.rows) {
        return;
    }
    pack<T> x[K];
    load_row(x, a.x, row, a.width);
    float sum = 0, squares = 0;
    for (int k = 0; k < K; k++) {
        for (int i = 0; i < N; i++) {
            sum += to_float(x[k].x[i]); /* zeros behind the row */
        }
    }
    const float mean = warp_sum(sum) / static_cast<float>(a.width);
    for (int k = 0; k < K; k++) {
        for (int i = 0; i < N; i++) {
            const float d = column<T>(k) < a.width ? to_float(x[k].x[i]) - mean : 0.0f;
            squares += d * d;
        }
    }
    const float rstd = rsqrtf(warp_sum(squares) / static_cast<float>(a.width) + a.eps);
    for (int k = 0; k < K; k++) {
        const int64_t j = column<T>(k);
        if (j < a.width) {
            const run<float, N> weight(a.weight, j), bias(a.bias, j);
            for (int i = 0; i < N; i++) {
                const float hat = (to_float(x[k].x[i]) - mean) * rstd;
                from_float(hat * weight.x[i] + bias.x[i], &x[k].x[i]);
            }
            store_pack(static_cast<T *>(a.y) + row * a.width + j, x[k]);
        }
    }
    if (lane_id() == 0) {
        a.mean[row] = mean;
        a.rstd[row] = rstd;
    }
}

template <class T> __global__ void __launch_bounds__(THREADS) layernorm_long_kernel(norm_args a)
{
    const int64_t row = row_id();
    if (row >= a.rows) {
        return;
    }
    const T *x = static_cast<const T *>(a.x) + row * a.width;
    float sum = 0, squares = 0;
    for (int64_t j = lane_id(); j < a.width; j += 32) {
        sum += to_float(x[j]);
    }
    const float mean = warp_sum(sum) / static_cast<float>(a.width);
    for (int64_t j = lane_id(); j < a.width; j += 32) {
        squares += (to_float(x[j]) - mean) * (to_float(x[j]) - mean);
    }
    const float rstd = rsqrtf(warp_sum(squares) / static_cast<float>(a.width) + a.eps);
    for (int64_t j = lane_id(); j < a.width; j += 32) {
        const float y = (to_float(x[j]) - mean) * rstd * a.weight[j] + a.bias[j];
        from_float(y, static_cast<T *>(a.y) + row * a.width + j);
    }
    if (lane_id() == 0) {
        a.mean[row] = mean;
        a.rstd[row] = rstd;
    }
}

/* ---- gradient ------------------------------------------------------------------------------- */

struct grad_args {
    void *dx;
    float *sums; /* (blocks,2C): dweight and dbias of each block */
    const void *x, *dy, *skip;
    const float *weight, *mean, *rstd;
    int64_t rows, width;
};

/* dx of a row from its x, dy and, not NULL, skip; its share of dweight and dbias is added. */
template <class T, int K>
__device__ __forceinline__ void grad_row(const grad_args &a, int64_t row,
                                         float (&dweight)[K][pack<T>::N],
                                         float (&dbias)[K][pack<T>::N])
{
    constexpr int N = pack<T>::N;
    pack<T> x[K], dy[K], skip[K];
    load_row(x, a.x, row, a.width);
    load_row(dy, a.dy, row, a.width);
    if (a.skip) {
        load_row(skip, a.skip, row, a.width);
    }
    const float mean = a.mean[row], rstd = a.rstd[row];
    float c1 = 0, c2 = 0;
    for (int k = 0; k < K; k++) {
        const int64_t j = column<T>(k);
        const run<float, N> weight = j < a.width ? run<float, N>(a.weight, j) : run<float, N>();
        for (int i = 0; i < N; i++) {
            const float g = to_float(dy[k].x[i]), hat = (to_float(x[k].x[i]) - mean) * rstd;
            c1 += g * weight.x[i];
            c2 += g * weight.x[i] * hat;
            dweight[k][i] += g * hat;
            dbias[k][i] += g;
        }
    }
    c1 = warp_sum(c1) / static_cast<float>(a.width);
    c2 = warp_sum(c2) / static_cast<float>(a.width);
    for (int k = 0; k < K; k++) {
        const int64_t j = column<T>(k);
        if (j < a.width) {
            const run<float, N> weight(a.weight, j);
            for (int i = 0; i < N; i++) {
                const float hat = (to_float(x[k].x[i]) - mean) * rstd;
                const float d = rstd * (to_float(dy[k].x[i]) * weight.x[i] - c1 - hat * c2);
                from_float(a.skip ? to_float(skip[k].x[i]) + d : d, &dy[k].x[i]);
            }
            store_pack(static_cast<T *>(a.dx) + row * a.width + j, dy[k]);
        }
    }
}

/* A block's sums, its warps added in order. */
template <class T, int K>
__device__ __forceinline__ void join_warps(float *sums, int64_t width,
                                           const float (&part)[K][pack<T>::N], float *shared)
{
    const int warp = static_cast<int>(threadIdx.x) / 32;
    for (int w = 0; w < GRAD_WARPS; w++) {
        for (int k = 0; w == warp && k < K; k++) {
            for (int i = 0; i < pack<T>::N; i++) {
                float *at = &shared[column<T>(k) + i];
                *at = w == 0 ? part[k][i] : *at + part[k][i];
            }
        }
        __syncthreads();
    }
    for (int64_t j = threadIdx.x; j < width; j += GRAD_THREADS) {
        sums[j] = shared[j];
    }
    __syncthreads();
}

template <class T, int K>
__global__ void __launch_bounds__(GRAD_THREADS, resident(K *pack<T>::N))
    layernorm_grad_kernel(grad_args a)
{
    constexpr int N = pack<T>::N;
    TESS_SHARED(float, shared, 32 * K * N);
    float dweight[K][N], dbias[K][N];
    for (int k = 0; k < K; k++) {
        for (int i = 0; i < N; i++) {
            dweight[k][i] = dbias[k][i] = 0;
        }
    }
    const int64_t first = static_cast<int64_t>(blockIdx.x) * GRAD_WARPS + threadIdx.x / 32;
    for (int64_t row = first; row < a.rows; row += static_cast<int64_t>(gridDim.x) * GRAD_WARPS) {
        grad_row<T, K>(a, row, dweight, dbias);
    }
    float *sums = a.sums + blockIdx.x * 2 * a.width;
    join_warps<T, K>(sums, a.width, dweight, shared);
    join_warps<T, K>(sums + a.width, a.width, dbias, shared);
}

/* A row at a time.  dx may be dy's memory or skip's, so a row's columns are added before its dx is
 * written. */
template <class T>
__global__ void __launch_bounds__(GRAD_THREADS) layernorm_grad_long_kernel(grad_args a)
{
    TESS_SHARED(float, partial, GRAD_WARPS);
    float *dweight = a.sums + blockIdx.x * 2 * a.width, *dbias = dweight + a.width;
    for (int64_t j = threadIdx.x; j < a.width; j += GRAD_THREADS) {
        dweight[j] = dbias[j] = 0;
    }
    for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
        const T *x = static_cast<const T *>(a.x) + row * a.width;
        const T *dy = static_cast<const T *>(a.dy) + row * a.width;
        const T *skip = static_cast<const T *>(a.skip) + (a.skip ? row * a.width : 0);
        T *dx = static_cast<T *>(a.dx) + row * a.width;
        const float mean = a.mean[row], rstd = a.rstd[row];
        float c1 = 0, c2 = 0;
        for (int64_t j = threadIdx.x; j < a.width; j += GRAD_THREADS) {
            const float g = to_float(dy[j]), hat = (to_float(x[j]) - mean) * rstd;
            c1 += g * a.weight[j];
            c2 += g * a.weight[j] * hat;
            dweight[j] += g * hat;
            dbias[j] += g;
        }
        c1 = block_sum(c1, partial) / static_cast<float>(a.width);
        c2 = block_sum(c2, partial) / static_cast<float>(a.width);
        for (int64_t j = threadIdx.x; j < a.width; j += GRAD_THREADS) {
            const float hat = (to_float(x[j]) - mean) * rstd;
            const float d = rstd * (to_float(dy[j]) * a.weight[j] - c1 - hat * c2);
            from_float(a.skip ? to_float(skip[j]) + d : d, &dx[j]);
        }
    }
}

/* dweight and dbias, the blocks' sums added: a block takes 32 columns of both in one, each warp
 * every eighth row, and the warps are added in order. */
__global__ void __launch_bounds__(THREADS)
    join_kernel(float *dweight, float *dbias, const float *sums, int64_t n, int64_t width)
{
    TESS_SHARED(float, partial, THREADS);
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const int64_t j = static_cast<int64_t>(blockIdx.x) * 32 + lane_id();
    float s = 0;
    for (int64_t r = warp; j < 2 * width && r < n; r += WARPS) {
        s += sums[r * 2 * width + j];
    }
    partial[threadIdx.x] = s;
    __syncthreads();
    if (warp == 0 && j < 2 * width) {
        for (int w = 1; w < WARPS; w++) {
            s += partial[w * 32 + lane_id()];
        }
        *(j < width ? dweight + j : dbias + j - width) = s;
    }
}

/* ---- launchers ------------------------------------------------------------------------------- */

/* One statement with K, the packs of a lane: 2, 3, 4 or 6, or else 0. */
#define FOR_PACKS(T, width, K, ...)                                                                \
    do {                                                                                           \
        const int64_t packs = (width) % pack<T>::N ? 9 : ((width) / pack<T>::N + 31) / 32;         \
        if (packs <= 2) {                                                                          \
            constexpr int K = 2;                                                                   \
            __VA_ARGS__;                                                                           \
        } else if (packs == 3) {                                                                   \
            constexpr int K = 3;                                                                   \
            __VA_ARGS__;                                                                           \
        } else if (packs == 4) {                                                                   \
            constexpr int K = 4;                                                                   \
            __VA_ARGS__;                                                                           \
        } else if (packs <= 6) {                                                                   \
            constexpr int K = 6;                                                                   \
            __VA_ARGS__;                                                                           \
        } else {                                                                                   \
            constexpr int K = 0;                                                                   \
            __VA_ARGS__;                                                                           \
        }                                                                                          \
    } while (0)

template <class T, int K> void launch(const norm_args &a, void *stream)
{
    if constexpr (K > 0) {
        TESS_LAUNCH((layernorm_kernel<T, K>), blocks_for(a.rows, WARPS), THREADS, 0, stream, a);
    } else {
        TESS_LAUNCH((layernorm_long_kernel<T>), blocks_for(a.rows, WARPS), THREADS, 0, stream, a);
    }
}

int64_t grad_blocks(int64_t rows, int64_t most)
{
    const int64_t blocks = (rows + GRAD_WARPS - 1) / GRAD_WARPS;
    return blocks < 1 ? 1 : blocks < most ? blocks : most;
}

/* The number of blocks. */
template <class T, int K> int64_t launch_grad(const grad_args &a, void *stream)
{
    const int64_t blocks = grad_blocks(a.rows, SMS * resident(K * pack<T>::N));
    const unsigned n = static_cast<unsigned>(blocks);
    if constexpr (K > 0) {
        TESS_LAUNCH((layernorm_grad_kernel<T, K>), n, GRAD_THREADS, 0, stream, a);
    } else {
        TESS_LAUNCH((layernorm_grad_long_kernel<T>), n, GRAD_THREADS, 0, stream, a);
    }
    return blocks;
}

} // namespace

extern "C" tess_status tess__cuda_layernorm(const tess_exec *e)
{
    const norm_args a = {e->out[0].data,
                         static_cast<float *>(e->out[1].data),
                         static_cast<float *>(e->out[2].data),
                         e->in[0].data,
                         static_cast<const float *>(e->in[1].data),
                         static_cast<const float *>(e->in[2].data),
                         static_cast<const layernorm_attrs *>(e->attrs)->eps,
                         tess__rows(&e->in[0].shape),
                         tess__last(&e->in[0].shape)};
    TESS_FOR_FLOAT(e->in[0].dtype, T, FOR_PACKS(T, a.width, K, (launch<T, K>(a, e->stream))));
    return tess__cuda_launched("layernorm");
}

extern "C" size_t tess__cuda_layernorm_grad_scratch(const tess_prepare *c)
{
    const int64_t blocks = grad_blocks(tess__rows(&c->in[0].shape), SMS * resident(0));
    return static_cast<size_t>(2 * blocks * tess__last(&c->in[0].shape)) * sizeof(float);
}

extern "C" tess_status tess__cuda_layernorm_grad(const tess_exec *e)
{
    const grad_args a = {e->out[0].data,
                         static_cast<float *>(e->scratch),
                         e->in[0].data,
                         e->in[4].data,
                         e->in[5].data,
                         static_cast<const float *>(e->in[1].data),
                         static_cast<const float *>(e->in[2].data),
                         static_cast<const float *>(e->in[3].data),
                         tess__rows(&e->in[0].shape),
                         tess__last(&e->in[0].shape)};
    int64_t blocks = 0;
    TESS_FOR_FLOAT(e->in[0].dtype, T,
                   FOR_PACKS(T, a.width, K, (blocks = launch_grad<T, K>(a, e->stream))));
    TESS_LAUNCH(join_kernel, blocks_for(2 * a.width, 32), THREADS, 0, e->stream,
                static_cast<float *>(e->out[1].data), static_cast<float *>(e->out[2].data),
                static_cast<const float *>(a.sums), blocks, a.width);
    return tess__cuda_launched("layernorm_grad");
}
