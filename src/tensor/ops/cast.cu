/* SPDX-License-Identifier: Apache-2.0 */
/* cast on a CUDA device: bound by memory; a thread takes eight numbers. */
#include "tensor/kernel.cuh"

static constexpr int THREADS = 256, ITEMS = 8;

template <class To, class From>
__global__ void __launch_bounds__(THREADS) cast_kernel(To *y, const From *x, int64_t n)
{
    const int64_t begin = (static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x) * ITEMS;
    if (begin + ITEMS <= n) {
        pack<To> out[ITEMS / pack<To>::N];
        for (int p = 0; p < ITEMS / pack<From>::N; p++) {
            const pack<From> in = load_pack(x + begin + p * pack<From>::N);
            for (int k = 0; k < pack<From>::N; k++) {
                const int at = p * pack<From>::N + k;
                from_float(to_float(in.x[k]), &out[at / pack<To>::N].x[at % pack<To>::N]);
            }
        }
        for (int p = 0; p < ITEMS / pack<To>::N; p++) {
            store_pack(y + begin + p * pack<To>::N, out[p]);
        }
        return;
    }
    for (int64_t i = begin; i < n; i++) {
        from_float(to_float(x[i]), &y[i]);
    }
}

template <class To, class From> static void launch(const tess_exec *e, int64_t n)
{
    TESS_LAUNCH((cast_kernel<To, From>), blocks_for(n, THREADS * ITEMS), THREADS, 0, e->stream,
                static_cast<To *>(e->out[0].data), static_cast<const From *>(e->in[0].data), n);
}

extern "C" tess_status tess__cuda_cast(const tess_exec *e)
{
    const int64_t n = tess_shape_count(&e->out[0].shape);
    TESS_FOR_FLOAT(e->out[0].dtype, To,
                   TESS_FOR_FLOAT(e->in[0].dtype, From, (launch<To, From>(e, n))));
    return tess__cuda_launched("cast");
}
