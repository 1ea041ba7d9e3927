/* SPDX-License-Identifier: Apache-2.0 */
/* The gradients beside a product's, on a CUDA device: bias_grad reads dy once, relu_grad and
 * activation_grad also y or z, and write dz; so memory bounds them: 2, 6 and 6 bytes an item of
 * bf16 (unary_grad and bias_grad apart would move 8).
 *
 * A block takes a band of columns, a pack a thread, and a chunk of rows: sums by column are in
 * registers, first over a thread's rows, then over the block's, then tess__cuda_sum_rows adds the
 * chunks, all in a fixed order. */
#include "tensor/ops/unary.cuh"

static constexpr int LANES = 32, ROWS = 8, THREADS = LANES * ROWS;
static constexpr int64_t CHUNKS = 128; /* of rows: with a band of 256 columns enough for all SMs */

template <class T> struct sums_args {
    T *dz; /* NULL: bias_grad */
    float *partial;
    const T *y, *dy;
    int64_t rows, width, rows_per_chunk;
};

template <class T, int N, tess_unary_kind KIND>
__global__ void __launch_bounds__(THREADS) column_sums_kernel(sums_args<T> a)
{
    TESS_SHARED(float, shared, THREADS *N);
    const int lane = static_cast<int>(threadIdx.x) % LANES;
    const int row = static_cast<int>(threadIdx.x) / LANES;
    const int64_t column = (static_cast<int64_t>(blockIdx.x) * LANES + lane) * N;
    const int64_t begin = blockIdx.y * a.rows_per_chunk;
    const int64_t limit = begin + a.rows_per_chunk, end = limit < a.rows ? limit : a.rows;
    float sum[N];
    for (int k = 0; k < N; k++) {
        sum[k] = 0;
    }
    for (int64_t r = begin + row; column < a.width && r < end; r += ROWS) {
        run<T, N> dy(a.dy + r * a.width, column);
        if (a.dz) {
            const run<T, N> y(a.y + r * a.width, column);
            for (int k = 0; k < N; k++) {
                if constexpr (KIND == TESS_RELU) {
                    dy.x[k] = y.x[k] > 0 ? dy.x[k] : 0; /* also of what is infinite */
                } else {
                    dy.x[k] *= slope_of<KIND>(y.x[k]);
                }
            }
            dy.store(a.dz + r * a.width, column);
        }
        for (int k = 0; k < N; k++) {
            sum[k] += dy.x[k];
        }
    }
    for (int k = 0; k < N; k++) {
        shared[threadIdx.x * N + k] = sum[k];
    }
    __syncthreads();
    if (row == 0 && column < a.width) {
        for (int k = 0; k < N; k++) {
            float s = sum[k];
            for (int r = 1; r < ROWS; r++) {
                s += shared[(r * LANES + lane) * N + k];
            }
            a.partial[blockIdx.y * a.width + column + k] = s;
        }
    }
}

static int64_t chunks_of(int64_t rows)
{
    const int64_t chunks = (rows + ROWS - 1) / ROWS;
    return chunks < 1 ? 1 : chunks < CHUNKS ? chunks : CHUNKS;
}

template <tess_unary_kind KIND, class T>
static void sum_columns(const tess_exec *e, sums_args<T> a, float *sum)
{
    const int64_t chunks = chunks_of(a.rows);
    a.rows_per_chunk = (a.rows + chunks - 1) / chunks;
    a.partial = static_cast<float *>(e->scratch);
    const unsigned y = static_cast<unsigned>(chunks);
    if (a.width % pack<T>::N == 0) {
        TESS_LAUNCH((column_sums_kernel<T, pack<T>::N, KIND>),
                    dim3(blocks_for(a.width, LANES * pack<T>::N), y), THREADS, 0, e->stream, a);
    } else {
        TESS_LAUNCH((column_sums_kernel<T, 1, KIND>), dim3(blocks_for(a.width, LANES), y), THREADS,
                    0, e->stream, a);
    }
    tess__cuda_sum_rows(sum, a.partial, chunks, a.width, e->stream);
}

static size_t sums_scratch(const tess_prepare *c)
{
    const int64_t chunks = chunks_of(tess__rows(&c->in[0].shape));
    return static_cast<size_t>(chunks * tess__last(&c->in[0].shape)) * sizeof(float);
}

extern "C" size_t tess__cuda_relu_grad_scratch(const tess_prepare *c)
{
    return sums_scratch(c);
}

extern "C" size_t tess__cuda_bias_grad_scratch(const tess_prepare *c)
{
    return sums_scratch(c);
}

/* dz = f'(y) dy; relu's slope at y is that before it. */
template <tess_unary_kind KIND> static void mask_and_sum(const tess_exec *e)
{
    TESS_FOR_FLOAT(e->in[0].dtype, T, {
        sums_args<T> a = {};
        a.dz = static_cast<T *>(e->out[0].data);
        a.y = static_cast<const T *>(e->in[0].data);
        a.dy = static_cast<const T *>(e->in[1].data);
        a.rows = tess__rows(&e->in[0].shape);
        a.width = tess__last(&e->in[0].shape);
        sum_columns<KIND>(e, a, static_cast<float *>(e->out[1].data));
    });
}
#define MASK_AND_SUM(kind) mask_and_sum<kind>(e)

extern "C" tess_status tess__cuda_relu_grad(const tess_exec *e)
{
    mask_and_sum<TESS_RELU>(e);
    return tess__cuda_launched("relu_grad");
}

extern "C" size_t tess__cuda_activation_grad_scratch(const tess_prepare *c)
{
    return sums_scratch(c);
}

extern "C" tess_status tess__cuda_activation_grad(const tess_exec *e)
{
    FOR_KIND(static_cast<const unary_attrs *>(e->attrs)->kind, MASK_AND_SUM)
    return tess__cuda_launched("activation_grad");
}

extern "C" tess_status tess__cuda_bias_grad(const tess_exec *e)
{
    TESS_FOR_FLOAT(e->in[0].dtype, T, {
        sums_args<T> a = {};
        a.dy = static_cast<const T *>(e->in[0].data);
        a.rows = tess__rows(&e->in[0].shape);
        a.width = tess__last(&e->in[0].shape);
        sum_columns<TESS_RELU>(e, a, static_cast<float *>(e->out[0].data));
    });
    return tess__cuda_launched("bias_grad");
}
