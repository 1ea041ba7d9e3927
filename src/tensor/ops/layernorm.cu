/* SPDX-License-Identifier: Apache-2.0 */
/* layernorm on a CUDA device: a warp takes a row.  It reads it three times (mean, variance, y), the
 * last two from L1, so that what bounds it is one read and one write of memory.
 *
 * Gradients of weight and bias are sums over rows: each block adds its rows up by column, tile by
 * tile, and tess__cuda_sum_rows adds the blocks in order, so a run repeats bit for bit. */
#include "tensor/kernel.cuh"
#include "tensor/ops/layernorm.h"

static constexpr int WARPS = 8, THREADS = 32 * WARPS;
static constexpr int TILE = 32;             /* rows whose x and dy stay in L1 while read again */
static constexpr int64_t GRAD_BLOCKS = 264; /* two for each SM of an H100 */

template <class T, int N>
__global__ void __launch_bounds__(THREADS)
    layernorm_kernel(T *y, float *mean_out, float *rstd_out, const T *x, const float *weight,
                     const float *bias, float eps, int64_t rows, int64_t width)
{
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int64_t row = static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / 32;
    if (row >= rows) {
        return;
    }
    const T *from = x + row * width;
    float sum = 0, squares = 0;
    for (int64_t j = lane * N; j < width; j += 32 * N) {
        const run<T, N> v(from, j);
        for (int k = 0; k < N; k++) {
            sum += v.x[k];
        }
    }
    const float mean = warp_sum(sum) / static_cast<float>(width);
    for (int64_t j = lane * N; j < width; j += 32 * N) {
        const run<T, N> v(from, j);
        for (int k = 0; k < N; k++) {
            squares += (v.x[k] - mean) * (v.x[k] - mean);
        }
    }
    const float rstd = rsqrtf(warp_sum(squares) / static_cast<float>(width) + eps);
    for (int64_t j = lane * N; j < width; j += 32 * N) {
        run<T, N> v(from, j);
        for (int k = 0; k < N; k++) {
            v.x[k] = (v.x[k] - mean) * rstd * weight[j + k] + bias[j + k];
        }
        v.store(y + row * width, j);
    }
    if (lane == 0) {
        mean_out[row] = mean;
        rstd_out[row] = rstd;
    }
}

/* ---- gradient ------------------------------------------------------------------------------- */

template <class T> struct grad_args {
    T *dx;
    float *dweight, *dbias; /* (GRAD_BLOCKS,C) */
    const T *x, *dy;
    const float *weight, *mean, *rstd;
    int64_t rows, width, rows_per_block;
};

/* c1 = mean(dy w), c2 = mean(dy w hat) of one row, to every lane. */
template <class T, int N>
__device__ __forceinline__ void row_means(const grad_args<T> &a, int64_t row, int lane, float *c1,
                                          float *c2)
{
    const float mean = a.mean[row], rstd = a.rstd[row];
    float s1 = 0, s2 = 0;
    for (int64_t j = lane * N; j < a.width; j += 32 * N) {
        const run<T, N> x(a.x + row * a.width, j), dy(a.dy + row * a.width, j);
        for (int k = 0; k < N; k++) {
            const float g = dy.x[k] * a.weight[j + k];
            s1 += g;
            s2 += g * (x.x[k] - mean) * rstd;
        }
    }
    *c1 = warp_sum(s1) / static_cast<float>(a.width);
    *c2 = warp_sum(s2) / static_cast<float>(a.width);
}

template <class T, int N>
__device__ __forceinline__ void row_dx(const grad_args<T> &a, int64_t row, int lane, float c1,
                                       float c2)
{
    const float mean = a.mean[row], rstd = a.rstd[row];
    for (int64_t j = lane * N; j < a.width; j += 32 * N) {
        const run<T, N> x(a.x + row * a.width, j);
        run<T, N> dy(a.dy + row * a.width, j);
        for (int k = 0; k < N; k++) {
            const float hat = (x.x[k] - mean) * rstd;
            dy.x[k] = rstd * (dy.x[k] * a.weight[j + k] - c1 - hat * c2);
        }
        dy.store(a.dx + row * a.width, j);
    }
}

/* A thread's columns over the rows begin..end, added to the block's sums. */
template <class T>
__device__ __forceinline__ void add_columns(const grad_args<T> &a, int64_t begin, int64_t end)
{
    float *dweight = a.dweight + blockIdx.x * a.width, *dbias = a.dbias + blockIdx.x * a.width;
    for (int64_t j = threadIdx.x; j < a.width; j += THREADS) {
        float w = 0, b = 0;
        for (int64_t r = begin; r < end; r++) {
            const float dy = to_float(a.dy[r * a.width + j]);
            w += dy * (to_float(a.x[r * a.width + j]) - a.mean[r]) * a.rstd[r];
            b += dy;
        }
        dweight[j] += w;
        dbias[j] += b;
    }
}

/* dx may be dy's memory, so a tile's columns are added before its dx is written. */
template <class T, int N>
__global__ void __launch_bounds__(THREADS) layernorm_grad_kernel(grad_args<T> a)
{
    TESS_SHARED(float, means, 2 * TILE);
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int64_t begin = blockIdx.x * a.rows_per_block;
    const int64_t limit = begin + a.rows_per_block, end = limit < a.rows ? limit : a.rows;
    for (int64_t j = threadIdx.x; j < a.width; j += THREADS) {
        a.dweight[blockIdx.x * a.width + j] = 0;
        a.dbias[blockIdx.x * a.width + j] = 0;
    }
    for (int64_t first = begin; first < end; first += TILE) {
        const int64_t last = first + TILE < end ? first + TILE : end;
        for (int64_t r = first + warp; r < last; r += WARPS) {
            float c1, c2;
            row_means<T, N>(a, r, lane, &c1, &c2);
            if (lane == 0) {
                means[2 * (r - first)] = c1;
                means[2 * (r - first) + 1] = c2;
            }
        }
        add_columns(a, first, last);
        __syncthreads();
        for (int64_t r = first + warp; r < last; r += WARPS) {
            row_dx<T, N>(a, r, lane, means[2 * (r - first)], means[2 * (r - first) + 1]);
        }
        __syncthreads();
    }
}

/* ---- launchers ------------------------------------------------------------------------------- */

template <class T, int N> static void launch(const tess_exec *e, int64_t rows, int64_t width)
{
    TESS_LAUNCH((layernorm_kernel<T, N>), blocks_for(rows, WARPS), THREADS, 0, e->stream,
                static_cast<T *>(e->out[0].data), static_cast<float *>(e->out[1].data),
                static_cast<float *>(e->out[2].data), static_cast<const T *>(e->in[0].data),
                static_cast<const float *>(e->in[1].data),
                static_cast<const float *>(e->in[2].data),
                static_cast<const layernorm_attrs *>(e->attrs)->eps, rows, width);
}

extern "C" tess_status tess__cuda_layernorm(const tess_exec *e)
{
    const int64_t rows = tess__rows(&e->in[0].shape), width = tess__last(&e->in[0].shape);
    TESS_FOR_FLOAT(e->in[0].dtype, T, {
        if (width % pack<T>::N == 0) {
            launch<T, pack<T>::N>(e, rows, width);
        } else {
            launch<T, 1>(e, rows, width);
        }
    });
    return tess__cuda_launched("layernorm");
}

extern "C" size_t tess__cuda_layernorm_grad_scratch(const tess_prepare *c)
{
    return 2 * GRAD_BLOCKS * static_cast<size_t>(tess__last(&c->in[0].shape)) * sizeof(float);
}

template <class T> static grad_args<T> grad_args_of(const tess_exec *e, int64_t blocks)
{
    grad_args<T> a;
    a.rows = tess__rows(&e->in[0].shape);
    a.width = tess__last(&e->in[0].shape);
    a.rows_per_block = (a.rows + blocks - 1) / blocks;
    a.dx = static_cast<T *>(e->out[0].data);
    a.dweight = static_cast<float *>(e->scratch);
    a.dbias = a.dweight + blocks * a.width;
    a.x = static_cast<const T *>(e->in[0].data);
    a.weight = static_cast<const float *>(e->in[1].data);
    a.mean = static_cast<const float *>(e->in[2].data);
    a.rstd = static_cast<const float *>(e->in[3].data);
    a.dy = static_cast<const T *>(e->in[4].data);
    return a;
}

extern "C" tess_status tess__cuda_layernorm_grad(const tess_exec *e)
{
    const int64_t rows = tess__rows(&e->in[0].shape), width = tess__last(&e->in[0].shape);
    const int64_t blocks = rows < GRAD_BLOCKS ? rows : GRAD_BLOCKS;
    TESS_FOR_FLOAT(e->in[0].dtype, T, {
        const grad_args<T> a = grad_args_of<T>(e, blocks);
        if (width % pack<T>::N == 0) {
            TESS_LAUNCH((layernorm_grad_kernel<T, pack<T>::N>), static_cast<unsigned>(blocks),
                        THREADS, 0, e->stream, a);
        } else {
            TESS_LAUNCH((layernorm_grad_kernel<T, 1>), static_cast<unsigned>(blocks), THREADS, 0,
                        e->stream, a);
        }
        tess__cuda_sum_rows(static_cast<float *>(e->out[1].data), a.dweight, blocks, width,
                            e->stream);
        tess__cuda_sum_rows(static_cast<float *>(e->out[2].data), a.dbias, blocks, width,
                            e->stream);
    });
    return tess__cuda_launched("layernorm_grad");
}
