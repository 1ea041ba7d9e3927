/* SPDX-License-Identifier: Apache-2.0 */
/* l2norm and its gradient on a CUDA device: bound by memory, N C items read and N C floats written
 * (the gradient: 2 N C floats read, N C items written), some 4 FLOPs each; of a batch's embeddings,
 * so a few MB and mostly the launch.  A warp takes a row; its second reading is from L1. */
#include "tensor/kernel.cuh"

namespace
{

constexpr int WARPS = 8, THREADS = 32 * WARPS;

template <class T, int N>
__global__ void __launch_bounds__(THREADS)
    l2norm_kernel(float *y, float *norm_out, const T *x, int64_t rows, int64_t width)
{
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int64_t row = static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / 32;
    if (row >= rows) {
        return;
    }
    float squares = 0;
    for (int64_t j = lane * N; j < width; j += 32 * N) {
        const run<T, N> v(x + row * width, j);
        for (int k = 0; k < N; k++) {
            squares += v.x[k] * v.x[k];
        }
    }
    const float norm = fmaxf(sqrtf(warp_sum(squares)), 1e-12f);
    for (int64_t j = lane * N; j < width; j += 32 * N) {
        run<T, N> v(x + row * width, j);
        for (int k = 0; k < N; k++) {
            v.x[k] /= norm;
        }
        v.store_as(y + row * width, j);
    }
    if (lane == 0) {
        norm_out[row] = norm;
    }
}

template <class T, int N>
__global__ void __launch_bounds__(THREADS)
    l2norm_grad_kernel(T *dx, const float *y, const float *norm, const float *dy, int64_t rows,
                       int64_t width)
{
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int64_t row = static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / 32;
    if (row >= rows) {
        return;
    }
    float dot = 0;
    for (int64_t j = lane * N; j < width; j += 32 * N) {
        const run<float, N> a(y + row * width, j), b(dy + row * width, j);
        for (int k = 0; k < N; k++) {
            dot += a.x[k] * b.x[k];
        }
    }
    dot = warp_sum(dot);
    const bool counts = norm[row] > 1e-12f;
    const float inverse = counts ? 1.0f / norm[row] : 0.0f;
    for (int64_t j = lane * N; j < width; j += 32 * N) {
        const run<float, N> a(y + row * width, j);
        run<float, N> b(dy + row * width, j);
        for (int k = 0; k < N; k++) {
            b.x[k] = counts ? (b.x[k] - a.x[k] * dot) * inverse : 0.0f;
        }
        b.store_as(dx + row * width, j);
    }
}

template <class T, int N> void forward(const tess_exec *e, int64_t rows, int64_t width)
{
    TESS_LAUNCH((l2norm_kernel<T, N>), blocks_for(rows, WARPS), THREADS, 0, e->stream,
                static_cast<float *>(e->out[0].data), static_cast<float *>(e->out[1].data),
                static_cast<const T *>(e->in[0].data), rows, width);
}

template <class T, int N> void backward(const tess_exec *e, int64_t rows, int64_t width)
{
    TESS_LAUNCH((l2norm_grad_kernel<T, N>), blocks_for(rows, WARPS), THREADS, 0, e->stream,
                static_cast<T *>(e->out[0].data), static_cast<const float *>(e->in[0].data),
                static_cast<const float *>(e->in[1].data),
                static_cast<const float *>(e->in[2].data), rows, width);
}

} // namespace

extern "C" tess_status tess__cuda_l2norm(const tess_exec *e)
{
    const int64_t rows = tess__rows(&e->in[0].shape), width = tess__last(&e->in[0].shape);
    TESS_FOR_FLOAT(e->in[0].dtype, T, {
        if (width % 4 == 0) {
            forward<T, 4>(e, rows, width);
        } else {
            forward<T, 1>(e, rows, width);
        }
    });
    return tess__cuda_launched("l2norm");
}

extern "C" tess_status tess__cuda_l2norm_grad(const tess_exec *e)
{
    const int64_t rows = tess__rows(&e->in[0].shape), width = tess__last(&e->in[0].shape);
    TESS_FOR_FLOAT(e->out[0].dtype, T, {
        if (width % 4 == 0) {
            backward<T, 4>(e, rows, width);
        } else {
            backward<T, 1>(e, rows, width);
        }
    });
    return tess__cuda_launched("l2norm_grad");
}
