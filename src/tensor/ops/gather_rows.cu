/* SPDX-License-Identifier: Apache-2.0 */
/* gather_rows and its gradient on a CUDA device: bound by memory, 2 B K C items moved (the gradient
 * writes B P C and reads B K C).  For the gradient a warp looks through its entry's ids, 32 at a
 * time, so nothing is zeroed before and nothing added by two. */
#include "tensor/pointwise.cuh"

namespace
{

template <class T> struct taken {
    T *y;
    const T *x;
    const int32_t *ids;
    int64_t n_rows, k, width;
    struct place {
        T *y;
        const T *x; /* NULL: beyond the rows */
        template <int N> __device__ void put(int64_t j) const
        {
            run<T, N> v;
            if (x) {
                v = run<T, N>(x, j);
            }
            v.store(y, j);
        }
    };
    __device__ place row(int64_t r) const
    {
        const int64_t id = ids[r];
        const bool there = id >= 0 && id < n_rows;
        return {y + r * width, there ? x + (r / k * n_rows + id) * width : nullptr};
    }
};

template <class T> struct given_back {
    T *dx;
    const T *dy;
    const int32_t *ids;
    int64_t n_rows, k, width;
    struct place {
        T *dx;
        const T *dy;                    /* the entry's (K,C) */
        const int32_t *ids;             /* the entry's */
        int64_t width, id, first, last; /* between these are the rows that were taken */
        template <int N> __device__ void put(int64_t j) const
        {
            run<T, N> sum;
            for (int64_t i = first; i <= last; i++) {
                if (ids[i] == id) {
                    const run<T, N> v(dy + i * width, j);
                    for (int c = 0; c < N; c++) {
                        sum.x[c] += v.x[c];
                    }
                }
            }
            sum.store(dx, j);
        }
    };
    __device__ place row(int64_t r) const
    {
        const int lane = static_cast<int>(threadIdx.x) % 32;
        const int64_t b = r / n_rows;
        place p = {dx + r * width, dy + b * k * width, ids + b * k, width, r % n_rows, 0, -1};
        int n = 0;
        for (int64_t i = 0; i < k; i += 32) {
            const bool hit = i + lane < k && p.ids[i + lane] == p.id;
            const unsigned hits = __ballot_sync(0xffffffffu, hit);
            if (hits) {
                p.first = n == 0 ? i + __popc((hits & -hits) - 1) : p.first;
                p.last = i + 31 < k ? i + 31 : k - 1;
                n += __popc(hits);
            }
        }
        p.last = n == 1 ? p.first : p.last;
        return p;
    }
};

} // namespace

extern "C" tess_status tess__cuda_gather_rows(const tess_exec *e)
{
    const tess_shape x = e->in[0].shape;
    TESS_FOR_FLOAT(e->in[0].dtype, T, {
        const taken<T> f = {static_cast<T *>(e->out[0].data),
                            static_cast<const T *>(e->in[0].data),
                            static_cast<const int32_t *>(e->in[1].data),
                            x.dim[1],
                            e->in[1].shape.dim[1],
                            x.dim[2]};
        launch_rows<pack<T>::N>(f, tess_shape_count(&e->in[1].shape), x.dim[2], e->stream);
    });
    return tess__cuda_launched("gather_rows");
}

extern "C" tess_status tess__cuda_gather_rows_grad(const tess_exec *e)
{
    const tess_shape dx = e->out[0].shape;
    TESS_FOR_FLOAT(e->out[0].dtype, T, {
        const given_back<T> f = {static_cast<T *>(e->out[0].data),
                                 static_cast<const T *>(e->in[1].data),
                                 static_cast<const int32_t *>(e->in[0].data),
                                 dx.dim[1],
                                 e->in[0].shape.dim[1],
                                 dx.dim[2]};
        launch_rows<pack<T>::N>(f, dx.dim[0] * dx.dim[1], dx.dim[2], e->stream);
    });
    return tess__cuda_launched("gather_rows_grad");
}
