/* SPDX-License-Identifier: Apache-2.0 */
/* slice_rows and its gradient on a CUDA device: bound by memory, 2 n C items moved (the gradient
 * writes N C and reads n C), no FLOPs. */
#include "tensor/pointwise.cuh"
#include "tensor/ops/slice_rows.h"

namespace
{

template <class T> struct cut {
    T *y;
    const T *x;
    template <int N> __device__ run<T, N> load(int64_t i) const
    {
        return run<T, N>(x, i);
    }
    template <int N> __device__ void store(int64_t i, const run<T, N> &v) const
    {
        v.store(y, i);
    }
};

/* dy lies at the elements begin..end of dx. */
template <class T> struct put_back {
    T *dx;
    const T *dy;
    int64_t begin, end;
    template <int N> __device__ run<T, N> load(int64_t i) const
    {
        return i >= begin && i < end ? run<T, N>(dy, i - begin) : run<T, N>();
    }
    template <int N> __device__ void store(int64_t i, const run<T, N> &v) const
    {
        v.store(dx, i);
    }
};

} // namespace

/* In packs where what is left out is whole packs. */
extern "C" tess_status tess__cuda_slice_rows(const tess_exec *e)
{
    const int64_t n = tess_shape_count(&e->out[0].shape);
    const int64_t begin =
        static_cast<const slice_attrs *>(e->attrs)->begin * tess__last(&e->in[0].shape);
    TESS_FOR_FLOAT(e->in[0].dtype, T, {
        const cut<T> f = {static_cast<T *>(e->out[0].data),
                          static_cast<const T *>(e->in[0].data) + begin};
        if (begin % pack<T>::N == 0) {
            launch_pointwise<pack<T>::N>(f, n, e->stream);
        } else {
            launch_pointwise<1>(f, n, e->stream);
        }
    });
    return tess__cuda_launched("slice_rows");
}

extern "C" tess_status tess__cuda_slice_rows_grad(const tess_exec *e)
{
    const int64_t n = tess_shape_count(&e->out[0].shape);
    const int64_t begin =
        static_cast<const slice_grad_attrs *>(e->attrs)->begin * tess__last(&e->in[0].shape);
    const int64_t end = begin + tess_shape_count(&e->in[0].shape);
    TESS_FOR_FLOAT(e->in[0].dtype, T, {
        const put_back<T> f = {static_cast<T *>(e->out[0].data),
                               static_cast<const T *>(e->in[0].data), begin, end};
        if (begin % pack<T>::N == 0 && end % pack<T>::N == 0) {
            launch_pointwise<pack<T>::N>(f, n, e->stream);
        } else {
            launch_pointwise<1>(f, n, e->stream);
        }
    });
    return tess__cuda_launched("slice_rows_grad");
}
