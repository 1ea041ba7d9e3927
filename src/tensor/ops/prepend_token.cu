/* SPDX-License-Identifier: Apache-2.0 */
/* prepend_token and its gradient on a CUDA device: bound by memory, 2 B P C items moved either way;
 * the token's gradient is a sum of B rows. */
#include "tensor/pointwise.cuh"

namespace
{

/* rows: of an entry of y, the token's among them. */
template <class T> struct prepended {
    T *y;
    const T *x;
    const float *token;
    int64_t rows, width;
    struct place {
        T *y;
        const T *x; /* NULL: the token */
        const float *token;
        template <int N> __device__ void put(int64_t j) const
        {
            if (x) {
                run<T, N>(x, j).store(y, j);
            } else {
                run<float, N>(token, j).store_as(y, j);
            }
        }
    };
    __device__ place row(int64_t r) const
    {
        const int64_t entry = r / rows;
        return {y + r * width, r == entry * rows ? nullptr : x + (r - entry - 1) * width, token};
    }
};

/* rows: of an entry of dx. */
template <class T> struct without_first {
    T *dx;
    const T *dy;
    int64_t rows, width;
    struct place {
        T *dx;
        const T *dy;
        template <int N> __device__ void put(int64_t j) const
        {
            run<T, N>(dy, j).store(dx, j);
        }
    };
    __device__ place row(int64_t r) const
    {
        return {dx + r * width, dy + (r + r / rows + 1) * width};
    }
};

} // namespace

extern "C" tess_status tess__cuda_prepend_token(const tess_exec *e)
{
    const tess_shape *s = &e->out[0].shape;
    TESS_FOR_FLOAT(e->in[0].dtype, T, {
        const prepended<T> f = {static_cast<T *>(e->out[0].data),
                                static_cast<const T *>(e->in[0].data),
                                static_cast<const float *>(e->in[1].data), s->dim[1], s->dim[2]};
        launch_rows<pack<T>::N>(f, tess__rows(s), s->dim[2], e->stream);
    });
    return tess__cuda_launched("prepend_token");
}

extern "C" size_t tess__cuda_prepend_token_grad_scratch(const tess_prepare *c)
{
    return tess__cuda_column_sum_scratch(c->in[0].shape.dim[0], c->in[0].shape.dim[2]);
}

extern "C" tess_status tess__cuda_prepend_token_grad(const tess_exec *e)
{
    const tess_shape *s = &e->in[0].shape, *dx = &e->out[0].shape;
    TESS_FOR_FLOAT(e->in[0].dtype, T, {
        const without_first<T> f = {static_cast<T *>(e->out[0].data),
                                    static_cast<const T *>(e->in[0].data), dx->dim[1], dx->dim[2]};
        launch_rows<pack<T>::N>(f, tess__rows(dx), dx->dim[2], e->stream);
    });
    tess__cuda_column_sum(static_cast<float *>(e->out[1].data), e->in[0].dtype, e->in[0].data,
                          s->dim[0], s->dim[2], s->dim[1] * s->dim[2],
                          static_cast<float *>(e->scratch), e->stream);
    return tess__cuda_launched("prepend_token_grad");
}
