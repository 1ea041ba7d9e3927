/* SPDX-License-Identifier: Apache-2.0 */
/* scale on a CUDA device: bound by memory, 2 n items moved, n FLOPs. */
#include "tensor/pointwise.cuh"
#include "tensor/ops/scale.h"

namespace
{

template <class T> struct scaled {
    T *y;
    const T *x;
    float factor;
    template <int N> __device__ run<T, N> load(int64_t i) const
    {
        return run<T, N>(x, i);
    }
    template <int N> __device__ void store(int64_t i, run<T, N> v) const
    {
        for (int k = 0; k < N; k++) {
            v.x[k] *= factor;
        }
        v.store(y, i);
    }
};

} // namespace

extern "C" tess_status tess__cuda_scale(const tess_exec *e)
{
    const int64_t n = tess_shape_count(&e->out[0].shape);
    const float factor = static_cast<const scale_attrs *>(e->attrs)->factor;
    TESS_FOR_FLOAT(e->out[0].dtype, T, {
        const scaled<T> f = {static_cast<T *>(e->out[0].data),
                             static_cast<const T *>(e->in[0].data), factor};
        launch_pointwise<pack<T>::N>(f, n, e->stream);
    });
    return tess__cuda_launched("scale");
}
