/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels that only move memory: element by element, and row by row.  What they do is a functor F,
 * which an operator's file keeps in an unnamed namespace, so that two files' do not meet.
 *
 * Element by element: f.load<N>(i) gives what is read for the elements i..i+N-1, f.store<N>(i, x)
 * writes what comes of it.  A thread loads two runs before it stores either, since an H200 must
 * have some 25 kB in flight in each of its SMs to keep its memory busy.
 *
 * Row by row: a warp takes a row; f.row(r) says once where its memory is, and put<N>(j) of that
 * makes columns j..j+N-1. */
#ifndef TESSERA_TENSOR_POINTWISE_CUH
#define TESSERA_TENSOR_POINTWISE_CUH

#include "tensor/kernel.cuh"

namespace
{

constexpr int POINTWISE_THREADS = 256, ROW_WARPS = 8;

template <int N, class F>
__global__ void __launch_bounds__(POINTWISE_THREADS) pointwise_kernel(F f, int64_t n)
{
    constexpr int64_t STRIDE = POINTWISE_THREADS * N;
    const int64_t i = static_cast<int64_t>(blockIdx.x) * 2 * STRIDE + threadIdx.x * N;
    if (i + STRIDE + N <= n) {
        const auto a = f.template load<N>(i), b = f.template load<N>(i + STRIDE);
        f.template store<N>(i, a);
        f.template store<N>(i + STRIDE, b);
        return;
    }
    for (int64_t k = i; k <= i + STRIDE; k += STRIDE) {
        if (k + N <= n) {
            f.template store<N>(k, f.template load<N>(k));
        } else {
            for (int64_t one = k; one < n; one++) {
                f.template store<1>(one, f.template load<1>(one));
            }
        }
    }
}

template <int N, class F> inline void launch_pointwise(F f, int64_t n, void *stream)
{
    TESS_LAUNCH((pointwise_kernel<N, F>), blocks_for(n, 2 * POINTWISE_THREADS * N),
                POINTWISE_THREADS, 0, stream, f, n);
}

template <int N, class F>
__global__ void __launch_bounds__(32 * ROW_WARPS) rows_kernel(F f, int64_t rows, int64_t width)
{
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int64_t r = static_cast<int64_t>(blockIdx.x) * ROW_WARPS + threadIdx.x / 32;
    if (r >= rows) {
        return;
    }
    const auto row = f.row(r);
    for (int64_t j = lane * N; j < width; j += 32 * N) {
        row.template put<N>(j);
    }
}

/* N at a time where all rows are whole runs of N. */
template <int N, class F> inline void launch_rows(F f, int64_t rows, int64_t width, void *stream)
{
    if (width % N == 0) {
        TESS_LAUNCH((rows_kernel<N, F>), blocks_for(rows, ROW_WARPS), 32 * ROW_WARPS, 0, stream, f,
                    rows, width);
    } else {
        TESS_LAUNCH((rows_kernel<1, F>), blocks_for(rows, ROW_WARPS), 32 * ROW_WARPS, 0, stream, f,
                    rows, width);
    }
}

} // namespace

#endif
