/* SPDX-License-Identifier: Apache-2.0 */
/* fill on a CUDA device: bound by memory, n items written, no FLOPs. */
#include "tensor/pointwise.cuh"
#include "tensor/ops/fill.h"

namespace
{

template <class T> struct constant {
    T *y;
    float value;
    template <int N> __device__ run<T, N> load(int64_t) const
    {
        run<T, N> v;
        for (int k = 0; k < N; k++) {
            v.x[k] = value;
        }
        return v;
    }
    template <int N> __device__ void store(int64_t i, const run<T, N> &v) const
    {
        v.store(y, i);
    }
};

} // namespace

extern "C" tess_status tess__cuda_fill(const tess_exec *e)
{
    const int64_t n = tess_shape_count(&e->out[0].shape);
    const float value = static_cast<const fill_attrs *>(e->attrs)->value;
    TESS_FOR_FLOAT(e->out[0].dtype, T, {
        const constant<T> f = {static_cast<T *>(e->out[0].data), value};
        launch_pointwise<pack<T>::N>(f, n, e->stream);
    });
    return tess__cuda_launched("fill");
}
