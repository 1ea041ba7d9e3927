/* SPDX-License-Identifier: Apache-2.0 */
#include "planted.h"

#include "tensor/kernel.cuh"

__global__ void planted_kernel(planted what, float *y, const float *x, long n)
{
    TESS_SHARED(float, shared, 128);
    const long i = threadIdx.x;
    if (what != PLANTED_UNSET || i != 3) {
        shared[what == PLANTED_SHARED && i == 127 ? 128 : i] = i < n ? x[i] : 0;
    }
    if (what != PLANTED_RACE && (what != PLANTED_DIVERGED || i < 64)) {
        __syncthreads();
    }
    const float other = shared[127 - i]; /* another thread's, but for nobody */
    __syncthreads();
    shared[127 - i] = other;
    __syncthreads();
    float z = shared[i];
    if (what == PLANTED_LANES && i % 32 < 16) {
        z = __shfl_sync(0xffffffffu, z, static_cast<int>(i % 32));
    }
    if (i < n + (what == PLANTED_BEYOND)) {
        y[i] = 2 * z;
    }
}

void planted_launch(planted what, float *y, const float *x, long n, void *stream)
{
    TESS_LAUNCH(planted_kernel, 1, 128, 0, stream, what, y, x, n);
}
