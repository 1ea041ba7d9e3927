/* SPDX-License-Identifier: Apache-2.0 */
/* pool and its gradient on a CUDA device: bound by memory; a mean reads N C items, one row a
 * segment S C; the gradient writes N C.  A warp takes a band of a segment's columns (the gradient:
 * a row), and adds the rows in their order.
 *
 * Offsets that leave x or descend, which the processor's code refuses, are cut to what x has. */
#include "tensor/pointwise.cuh"
#include "tensor/ops/pool.h"

namespace
{

struct segments {
    tess_pool_kind kind;
    const int32_t *offsets; /* NULL: each has `period` rows */
    int64_t n, period, rows;
};

struct range {
    int64_t begin, n;
};

__device__ __forceinline__ range whole_segment(const segments &s, int64_t i)
{
    if (!s.offsets) {
        return {i * s.period, s.period};
    }
    const int64_t first = s.offsets[i], limit = s.offsets[i + 1];
    const int64_t begin = first < 0 ? 0 : first, end = limit < s.rows ? limit : s.rows;
    return {begin, end > begin ? end - begin : 0};
}

/* Rows of the segment that count. */
__device__ __forceinline__ range counted_rows(const segments &s, int64_t i)
{
    range r = whole_segment(s, i);
    if (r.n > 0 && (s.kind == TESS_POOL_FIRST || s.kind == TESS_POOL_LAST)) {
        r.begin += s.kind == TESS_POOL_LAST ? r.n - 1 : 0;
        r.n = 1;
    } else if (r.n > 0 && s.kind == TESS_POOL_MEAN_REST) {
        r.begin++;
        r.n--;
    }
    return r;
}

/* What a sum of n rows is multiplied by. */
__device__ __forceinline__ float weight_of(tess_pool_kind kind, int64_t n)
{
    const float x = static_cast<float>(n);
    return n > 0 ? 1.0f / (kind == TESS_POOL_MEAN_SQRT ? sqrtf(x) : x) : 0.0f;
}

template <class T, int N>
__global__ void __launch_bounds__(32 * ROW_WARPS)
    pool_kernel(T *y, const T *x, segments s, int64_t width)
{
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int64_t i = static_cast<int64_t>(blockIdx.x) * ROW_WARPS + threadIdx.x / 32;
    const int64_t stride = static_cast<int64_t>(gridDim.y) * 32 * N;
    if (i >= s.n) {
        return;
    }
    const range r = counted_rows(s, i);
    for (int64_t j = (static_cast<int64_t>(blockIdx.y) * 32 + lane) * N; j < width; j += stride) {
        run<T, N> sum;
        for (int64_t k = r.begin; k < r.begin + r.n; k++) {
            const run<T, N> v(x + k * width, j);
            for (int c = 0; c < N; c++) {
                sum.x[c] += v.x[c];
            }
        }
        for (int c = 0; c < N; c++) {
            sum.x[c] *= weight_of(s.kind, r.n);
        }
        sum.store(y + i * width, j);
    }
}

/* The segment in which row k lies, by bisection: the last that begins at or before it. */
__device__ __forceinline__ int64_t segment_of(const segments &s, int64_t k)
{
    if (!s.offsets) {
        return k / s.period;
    }
    int64_t low = 0, high = s.n; /* offsets[low] <= k, or low is 0; offsets[high] > k, or n */
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        if (s.offsets[middle] <= k) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

template <class T> struct spread {
    T *dx;
    const T *dy;
    segments s;
    int64_t width;
    struct place {
        T *dx;
        const T *dy; /* NULL: the row counts for nothing */
        float weight;
        template <int N> __device__ void put(int64_t j) const
        {
            run<T, N> v;
            if (dy) {
                v = run<T, N>(dy, j);
            }
            for (int k = 0; k < N; k++) {
                v.x[k] *= weight;
            }
            v.store(dx, j);
        }
    };
    __device__ place row(int64_t k) const
    {
        T *to = dx + k * width;
        const int64_t i = s.n > 0 ? segment_of(s, k) : 0;
        const range r = s.n > 0 ? counted_rows(s, i) : range{0, 0};
        const bool counts = k >= r.begin && k < r.begin + r.n;
        return {to, counts ? dy + i * width : nullptr, counts ? weight_of(s.kind, r.n) : 0.0f};
    }
};

template <class T, int N> void launch_pool(const tess_exec *e, const segments &s, int64_t width)
{
    const unsigned bands = blocks_for(width, 32 * N);
    TESS_LAUNCH((pool_kernel<T, N>), dim3(blocks_for(s.n, ROW_WARPS), bands < 64 ? bands : 64),
                32 * ROW_WARPS, 0, e->stream, static_cast<T *>(e->out[0].data),
                static_cast<const T *>(e->in[0].data), s, width);
}

} // namespace

extern "C" tess_status tess__cuda_pool(const tess_exec *e)
{
    const tess_shape *x = &e->in[0].shape;
    const int64_t width = tess__last(x);
    const segments s = {static_cast<const pool_attrs *>(e->attrs)->kind,
                        static_cast<const int32_t *>(e->in[1].data), e->out[0].shape.dim[0],
                        x->rank == 3 ? x->dim[1] : 0, tess__rows(x)};
    TESS_FOR_FLOAT(e->in[0].dtype, T, {
        if (width % pack<T>::N == 0) {
            launch_pool<T, pack<T>::N>(e, s, width);
        } else {
            launch_pool<T, 1>(e, s, width);
        }
    });
    return tess__cuda_launched("pool");
}

extern "C" tess_status tess__cuda_pool_grad(const tess_exec *e)
{
    const tess_shape *dx = &e->out[0].shape;
    const int64_t width = tess__last(dx);
    const segments s = {static_cast<const pool_attrs *>(e->attrs)->kind,
                        static_cast<const int32_t *>(e->in[1].data), e->in[0].shape.dim[0],
                        dx->rank == 3 ? dx->dim[1] : 0, tess__rows(dx)};
    TESS_FOR_FLOAT(e->in[0].dtype, T, {
        const spread<T> f = {static_cast<T *>(e->out[0].data),
                             static_cast<const T *>(e->in[0].data), s, width};
        launch_rows<pack<T>::N>(f, s.rows, width, e->stream);
    });
    return tess__cuda_launched("pool_grad");
}
