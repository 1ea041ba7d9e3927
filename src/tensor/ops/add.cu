/* SPDX-License-Identifier: Apache-2.0 */
/* add on a CUDA device: bound by memory, 3 n items moved; a thread takes a pack. */
#include "tensor/kernel.cuh"

static constexpr int THREADS = 256;

template <class T>
__global__ void __launch_bounds__(THREADS) add_kernel(T *y, const T *a, const T *b, int64_t n)
{
    constexpr int N = pack<T>::N;
    const int64_t i = (static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x) * N;
    if (i + N <= n) {
        const pack<T> pa = load_pack(a + i), pb = load_pack(b + i);
        pack<T> sum;
        for (int k = 0; k < N; k++) {
            from_float(to_float(pa.x[k]) + to_float(pb.x[k]), &sum.x[k]);
        }
        store_pack(y + i, sum);
        return;
    }
    for (int64_t k = i; k < n; k++) {
        from_float(to_float(a[k]) + to_float(b[k]), &y[k]);
    }
}

extern "C" tess_status tess__cuda_add(const tess_exec *e)
{
    const int64_t n = tess_shape_count(&e->out[0].shape);
    TESS_FOR_FLOAT(e->out[0].dtype, T, {
        TESS_LAUNCH(add_kernel<T>, blocks_for(n, THREADS * pack<T>::N), THREADS, 0, e->stream,
                    static_cast<T *>(e->out[0].data), static_cast<const T *>(e->in[0].data),
                    static_cast<const T *>(e->in[1].data), n);
    });
    return tess__cuda_launched("add");
}
