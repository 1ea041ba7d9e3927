/* SPDX-License-Identifier: Apache-2.0 */
/* unary and its gradient on a CUDA device: bound by memory, 2 n items moved (3 n by the gradient).
 * An activation costs 10 to 30 instructions, and 24 an element are free beside 32 bytes a pack of
 * bf16, so nothing slower than erff and expf is used: x (1 + erf) / 2 is exact to 1e-7 of x, which
 * for x below -4 is less than what erfc would give, and less than bf16 shows. */
#include "tensor/pointwise.cuh"
#include "tensor/ops/unary.cuh"

namespace
{

template <class T, tess_unary_kind KIND> struct activated {
    T *y;
    const T *x;
    template <int N> __device__ run<T, N> load(int64_t i) const
    {
        return run<T, N>(x, i);
    }
    template <int N> __device__ void store(int64_t i, run<T, N> v) const
    {
        for (int k = 0; k < N; k++) {
            v.x[k] = value_of<KIND>(v.x[k]);
        }
        v.store(y, i);
    }
};

template <class T, tess_unary_kind KIND> struct sloped {
    T *dx;
    const T *x, *dy;
    template <int N> struct pair {
        run<T, N> x, dy;
    };
    template <int N> __device__ pair<N> load(int64_t i) const
    {
        return {run<T, N>(x, i), run<T, N>(dy, i)};
    }
    template <int N> __device__ void store(int64_t i, pair<N> v) const
    {
        for (int k = 0; k < N; k++) {
            v.x.x[k] = slope_of<KIND>(v.x.x[k]) * v.dy.x[k];
        }
        v.x.store(dx, i);
    }
};

template <tess_unary_kind KIND> void forward(const tess_exec *e)
{
    const int64_t n = tess_shape_count(&e->out[0].shape);
    TESS_FOR_FLOAT(e->out[0].dtype, T, {
        const activated<T, KIND> f = {static_cast<T *>(e->out[0].data),
                                      static_cast<const T *>(e->in[0].data)};
        launch_pointwise<pack<T>::N>(f, n, e->stream);
    });
}

template <tess_unary_kind KIND> void backward(const tess_exec *e)
{
    const int64_t n = tess_shape_count(&e->out[0].shape);
    TESS_FOR_FLOAT(e->out[0].dtype, T, {
        const sloped<T, KIND> f = {static_cast<T *>(e->out[0].data),
                                   static_cast<const T *>(e->in[0].data),
                                   static_cast<const T *>(e->in[1].data)};
        launch_pointwise<pack<T>::N>(f, n, e->stream);
    });
}

} // namespace

#define FORWARD(kind)  forward<kind>(e)
#define BACKWARD(kind) backward<kind>(e)

extern "C" tess_status tess__cuda_unary(const tess_exec *e)
{
    FOR_KIND(static_cast<const unary_attrs *>(e->attrs)->kind, FORWARD)
    return tess__cuda_launched("unary");
}

extern "C" tess_status tess__cuda_unary_grad(const tess_exec *e)
{
    FOR_KIND(static_cast<const unary_attrs *>(e->attrs)->kind, BACKWARD)
    return tess__cuda_launched("unary_grad");
}
