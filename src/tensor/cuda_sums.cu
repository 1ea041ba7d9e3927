/* SPDX-License-Identifier: Apache-2.0 */
/* Sums that several operators end with: of partial sums that blocks have made, in a fixed order. */
#include "tensor/kernel.cuh"

static constexpr int WARPS = 8, THREADS = 32 * WARPS;

/* A block takes 32 columns; each warp adds every eighth row, then the warps are added in order. */
__global__ void __launch_bounds__(THREADS)
    sum_rows_kernel(float *sum, const float *x, int64_t n, int64_t width)
{
    TESS_SHARED(float, partial, THREADS);
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int64_t column = static_cast<int64_t>(blockIdx.x) * 32 + lane;
    float s = 0;
    for (int64_t r = warp; column < width && r < n; r += WARPS) {
        s += x[r * width + column];
    }
    partial[threadIdx.x] = s;
    __syncthreads();
    if (warp == 0 && column < width) {
        for (int w = 1; w < WARPS; w++) {
            s += partial[w * 32 + lane];
        }
        sum[column] = s;
    }
}

extern "C" void tess__cuda_sum_rows(float *sum, const float *x, int64_t n, int64_t width,
                                    void *stream)
{
    TESS_LAUNCH(sum_rows_kernel, blocks_for(width, 32), THREADS, 0, stream, sum, x, n, width);
}

/* ---- rows of any type ------------------------------------------------------------------------ */

static constexpr int64_t BLOCKS = 528;   /* four for each SM of an H200, whatever the card */
static constexpr int64_t LEAST_ROWS = 4; /* of a warp: below, a slice costs more than it saves */

/* A block takes 32 N columns of a slice of the rows. */
template <class T, int N>
__global__ void __launch_bounds__(THREADS)
    column_sum_kernel(float *sum, const T *x, int64_t n, int64_t width, int64_t stride,
                      int64_t rows_per_slice)
{
    TESS_SHARED(float, partial, THREADS *N);
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int64_t first = static_cast<int64_t>(blockIdx.x) * 32 * N, column = first + lane * N;
    const int64_t begin = blockIdx.y * rows_per_slice;
    const int64_t limit = begin + rows_per_slice, end = limit < n ? limit : n;
    run<T, N> s;
    for (int64_t r = begin + warp; column < width && r < end; r += WARPS) {
        const run<T, N> v(x + r * stride, column);
        for (int k = 0; k < N; k++) {
            s.x[k] += v.x[k];
        }
    }
    for (int k = 0; k < N; k++) {
        partial[(warp * N + k) * 32 + lane] = s.x[k];
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < 32 * N; i += THREADS) {
        const int64_t to = first + i % 32 * N + i / 32;
        float total = 0;
        for (int w = 0; w < WARPS; w++) {
            total += partial[w * 32 * N + i];
        }
        if (to < width) {
            sum[blockIdx.y * width + to] = total;
        }
    }
}

/* As if every number were bf16, so that scratch does not depend on the type. */
static int64_t slices_of(int64_t n, int64_t width)
{
    const int64_t bands = (width + 32 * pack<bf16>::N - 1) / (32 * pack<bf16>::N);
    const int64_t wanted = BLOCKS / (bands > 0 ? bands : 1), most = n / (WARPS * LEAST_ROWS);
    const int64_t slices = wanted < most ? wanted : most;
    return slices < 1 ? 1 : slices;
}

extern "C" size_t tess__cuda_column_sum_scratch(int64_t n, int64_t width)
{
    const int64_t slices = slices_of(n, width);
    return slices > 1 ? static_cast<size_t>(slices * width) * sizeof(float) : 0;
}

template <class T, int N>
static void column_sum(float *sum, const void *x, int64_t n, int64_t width, int64_t stride,
                       int64_t slices, void *stream)
{
    const dim3 grid(blocks_for(width, 32 * N), static_cast<unsigned>(slices));
    TESS_LAUNCH((column_sum_kernel<T, N>), grid, THREADS, 0, stream, sum, static_cast<const T *>(x),
                n, width, stride, (n + slices - 1) / slices);
}

extern "C" void tess__cuda_column_sum(float *sum, tess_dtype dtype, const void *x, int64_t n,
                                      int64_t width, int64_t stride, float *scratch, void *stream)
{
    const int64_t slices = slices_of(n, width);
    float *to = slices > 1 ? scratch : sum;
    TESS_FOR_FLOAT(dtype, T, {
        if (width % pack<T>::N == 0 && stride % pack<T>::N == 0) {
            column_sum<T, pack<T>::N>(to, x, n, width, stride, slices, stream);
        } else {
            column_sum<T, 1>(to, x, n, width, stride, slices, stream);
        }
    });
    if (slices > 1) {
        tess__cuda_sum_rows(sum, scratch, slices, width, stream);
    }
}
