/* SPDX-License-Identifier: Apache-2.0 */
/* add_rows and its gradient on a CUDA device: bound by memory, 2 B T C items moved (the table stays
 * in L2), B T C FLOPs; the gradient reads B T C and writes T C floats. */
#include "tensor/pointwise.cuh"

namespace
{

template <class T> struct added_rows {
    T *y;
    const T *x;
    const float *table;
    int64_t period, width;
    struct place {
        T *y;
        const T *x;
        const float *table;
        template <int N> __device__ void put(int64_t j) const
        {
            run<T, N> v(x, j);
            const run<float, N> t(table, j);
            for (int k = 0; k < N; k++) {
                v.x[k] += t.x[k];
            }
            v.store(y, j);
        }
    };
    __device__ place row(int64_t r) const
    {
        return {y + r * width, x + r * width, table + r % period * width};
    }
};

} // namespace

extern "C" tess_status tess__cuda_add_rows(const tess_exec *e)
{
    const tess_shape *s = &e->in[0].shape;
    TESS_FOR_FLOAT(e->in[0].dtype, T, {
        const added_rows<T> f = {static_cast<T *>(e->out[0].data),
                                 static_cast<const T *>(e->in[0].data),
                                 static_cast<const float *>(e->in[1].data), s->dim[1], s->dim[2]};
        launch_rows<pack<T>::N>(f, tess__rows(s), s->dim[2], e->stream);
    });
    return tess__cuda_launched("add_rows");
}

extern "C" size_t tess__cuda_add_rows_grad_scratch(const tess_prepare *c)
{
    const tess_shape *s = &c->in[0].shape;
    return tess__cuda_column_sum_scratch(s->dim[0], s->dim[1] * s->dim[2]);
}

extern "C" tess_status tess__cuda_add_rows_grad(const tess_exec *e)
{
    const tess_shape *s = &e->in[0].shape;
    const int64_t width = s->dim[1] * s->dim[2];
    tess__cuda_column_sum(static_cast<float *>(e->out[0].data), e->in[0].dtype, e->in[0].data,
                          s->dim[0], width, width, static_cast<float *>(e->scratch), e->stream);
    return tess__cuda_launched("add_rows_grad");
}
