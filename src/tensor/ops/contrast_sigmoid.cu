/* SPDX-License-Identifier: Apache-2.0 */
/* contrast_sigmoid on a CUDA device: forward a tile of dots becomes one number; gradients as
 * tensor/contrast.cuh says. */
#include "tensor/contrast.cuh"

using namespace contrast;

/* sums: of softplus(z), with -z for a pair, by tile. */
template <int PARTS>
__global__ void __launch_bounds__(THREADS)
    sigmoid_loss_kernel(float *sums, square s, const float *log_scale, const float *bias)
{
    TESS_SHARED_DYNAMIC(bf16, shared);
    const place at = place_in(s, (s.n_columns + TILE - 1) / TILE);
    const float scale = scale_of(log_scale), shift = *bias;
    accumulator y;
    multiply_tile<PARTS, false, false>(&y, shared, s.a, s.b, at, s.a.row);
    float sum = 0;
    TESS_UNROLL
    for (int i = 0; i < 64; i++) {
        const int r = row_at(i / 32, i % 4), c = column_at(i / 4 % 8, i % 4);
        const float z = scale * y.c[i / 32][i / 4 % 8].x[i % 4] + shift;
        const float x = at.row + r == at.column + c ? -z : z;
        sum += r < at.n_rows && c < at.n_columns ? fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))) : 0.0f;
    }
    store_sums(sums, s, at, sum, 0.0f);
}

/* d loss / d z */
struct sigmoid_slope {
    const float *bias, *dloss;
    float n;
    int64_t slot;
    float factor, shift;
    __device__ __forceinline__ void begin()
    {
        factor = *dloss / n;
        shift = *bias;
    }
    __device__ __forceinline__ float operator()(float z, int64_t row, int64_t column) const
    {
        const float x = row == column ? -(z + shift) : z + shift;
        const float p = 1.0f / (1.0f + expf(-x));
        return row == column ? -factor * p : factor * p;
    }
};

template <int PARTS> static void forward(const tess_exec *e, const layout &l)
{
    const operands o = split<PARTS>(e, l, false);
    const int64_t per_slot = l.tiles * l.tiles;
    for (int64_t k = 0; k < l.slots; k++) {
        const square s = {o.a, rows_of(o.b, k * l.batch, l.batch), l.batch, 0, 0, l.batch, l.batch};
        TESS_ALLOW_SHARED(sigmoid_loss_kernel<PARTS>, sizes<PARTS>::BYTES);
        TESS_LAUNCH(sigmoid_loss_kernel<PARTS>, static_cast<unsigned>(per_slot), THREADS,
                    sizes<PARTS>::BYTES, e->stream, o.floats + 2 * k * per_slot, s,
                    static_cast<const float *>(e->in[2].data),
                    static_cast<const float *>(e->in[3].data));
    }
    TESS_LAUNCH(sums_kernel<0>, 1, THREADS, 0, e->stream, static_cast<float *>(e->out[0].data),
                nullptr, o.floats, l.slots * per_slot,
                static_cast<double>(l.slots) * static_cast<double>(l.batch), nullptr);
}

extern "C" size_t tess__cuda_contrast_sigmoid_scratch(const tess_prepare *c)
{
    const layout l = layout_of(c->in);
    return parts_bytes(l, false) + sums_bytes(l);
}

extern "C" tess_status tess__cuda_contrast_sigmoid(const tess_exec *e)
{
    const layout l = layout_of(e->in);
    l.parts == 3 ? forward<3>(e, l) : forward<2>(e, l);
    return tess__cuda_launched("contrast_sigmoid");
}

extern "C" size_t tess__cuda_contrast_sigmoid_grad_scratch(const tess_prepare *c)
{
    const layout l = layout_of(c->in);
    return parts_bytes(l, true) + sums_bytes(l);
}

extern "C" tess_status tess__cuda_contrast_sigmoid_grad(const tess_exec *e)
{
    const layout l = layout_of(e->in);
    const sigmoid_slope f = {static_cast<const float *>(e->in[3].data),
                             static_cast<const float *>(e->in[4].data),
                             static_cast<float>(l.slots * l.batch),
                             0,
                             0,
                             0};
    float *dbias = static_cast<float *>(e->out[3].data);
    l.parts == 3 ? run_gradient<3>(e, l, f, dbias) : run_gradient<2>(e, l, f, dbias);
    return tess__cuda_launched("contrast_sigmoid_grad");
}
