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
