/* SPDX-License-Identifier: Apache-2.0 */
/* repeat_rows and its gradient on a CUDA device: bound by memory, n C items written (read by the
 * gradient, n C FLOPs). */
#include "tensor/pointwise.cuh"

namespace
{

template <class T> struct repeated {
    T *y;
    const float *x;
    int64_t width;
    struct place {
        T *y;
        const float *x;
        template <int N> __device__ void put(int64_t j) const
        {
            run<float, N>(x, j).store_as(y, j);
        }
    };
    __device__ place row(int64_t r) const
    {
        return {y + r * width, x};
    }
};

} // namespace

extern "C" tess_status tess__cuda_repeat_rows(const tess_exec *e)
{
    const int64_t n = e->out[0].shape.dim[0], width = e->out[0].shape.dim[1];
    TESS_FOR_FLOAT(e->out[0].dtype, T, {
        const repeated<T> f = {static_cast<T *>(e->out[0].data),
                               static_cast<const float *>(e->in[0].data), width};
        launch_rows<pack<T>::N>(f, n, width, e->stream);
    });
    return tess__cuda_launched("repeat_rows");
}

extern "C" size_t tess__cuda_repeat_rows_grad_scratch(const tess_prepare *c)
{
    return tess__cuda_column_sum_scratch(c->in[0].shape.dim[0], c->in[0].shape.dim[1]);
}

extern "C" tess_status tess__cuda_repeat_rows_grad(const tess_exec *e)
{
    const int64_t n = e->in[0].shape.dim[0], width = e->in[0].shape.dim[1];
    tess__cuda_column_sum(static_cast<float *>(e->out[0].data), e->in[0].dtype, e->in[0].data, n,
                          width, width, static_cast<float *>(e->scratch), e->stream);
    return tess__cuda_launched("repeat_rows_grad");
}
