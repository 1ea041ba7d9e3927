/* SPDX-License-Identifier: Apache-2.0 */
/* accumulate on a CUDA device: bound by memory, 3 n items moved, n FLOPs. */
#include "tensor/pointwise.cuh"

namespace
{

template <class T> struct accumulated {
    float *state;
    const T *x;
    template <int N> struct pair {
        run<float, N> state;
        run<T, N> x;
    };
    template <int N> __device__ pair<N> load(int64_t i) const
    {
        return {run<float, N>(state, i), run<T, N>(x, i)};
    }
    template <int N> __device__ void store(int64_t i, pair<N> v) const
    {
        for (int k = 0; k < N; k++) {
            v.state.x[k] += v.x.x[k];
        }
        v.state.store(state, i);
    }
};

} // namespace

extern "C" tess_status tess__cuda_accumulate(const tess_exec *e)
{
    const int64_t n = tess_shape_count(&e->in[0].shape);
    TESS_FOR_FLOAT(e->in[1].dtype, T, {
        const accumulated<T> f = {static_cast<float *>(e->in[0].data),
                                  static_cast<const T *>(e->in[1].data)};
        launch_pointwise<4>(f, n, e->stream);
    });
    return tess__cuda_launched("accumulate");
}
