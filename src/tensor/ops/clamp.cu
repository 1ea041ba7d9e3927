/* SPDX-License-Identifier: Apache-2.0 */
/* clamp on a CUDA device: a launch's time, whatever it does. */
#include "tensor/kernel.cuh"
#include "tensor/ops/clamp.h"

static constexpr int THREADS = 256;

__global__ void __launch_bounds__(THREADS) clamp_kernel(float *state, clamp_attrs a, int64_t n)
{
    const int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
    if (i < n) {
        const float x = state[i];
        state[i] = x < a.least ? a.least : x > a.most ? a.most : x;
    }
}

extern "C" tess_status tess__cuda_clamp(const tess_exec *e)
{
    const int64_t n = tess_shape_count(&e->in[0].shape);
    TESS_LAUNCH(clamp_kernel, blocks_for(n, THREADS), THREADS, 0, e->stream,
                static_cast<float *>(e->in[0].data), *static_cast<const clamp_attrs *>(e->attrs),
                n);
    return tess__cuda_launched("clamp");
}
