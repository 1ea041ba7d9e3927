/* SPDX-License-Identifier: Apache-2.0 */
/* blocks on a CUDA device: bound by its launch; M R items, a low-rank adapter's B, are at most some
 * hundred kB. */
#include "tensor/pointwise.cuh"

namespace
{

struct blocked {
    float *y;
    const float *w;
    int64_t width;
    tess_blocks_options o;
    struct place {
        const blocked *f;
        int64_t row;
        template <int N> __device__ void put(int64_t j) const
        {
            run<float, N> v(f->w + row * f->width, j);
            for (int k = 0; k < N; k++) {
                v.x[k] = f->inside(row, j + k) ? v.x[k] * f->o.scale : 0.0f;
            }
            v.store(f->y + row * f->width, j);
        }
    };
    __device__ bool inside(int64_t row, int64_t col) const
    {
        bool found = false;
        for (int64_t b = 0; b < o.n_blocks; b++) {
            const int64_t r = row - o.block[b].row, c = col - o.block[b].col;
            found |= r >= 0 && r < o.block[b].n_rows && c >= 0 && c < o.block[b].n_cols;
        }
        return found;
    }
    __device__ place row(int64_t r) const
    {
        return {this, r};
    }
};

} // namespace

extern "C" tess_status tess__cuda_blocks(const tess_exec *e)
{
    const blocked f = {static_cast<float *>(e->out[0].data),
                       static_cast<const float *>(e->in[0].data), e->in[0].shape.dim[1],
                       *static_cast<const tess_blocks_options *>(e->attrs)};
    launch_rows<1>(f, e->in[0].shape.dim[0], f.width, e->stream);
    return tess__cuda_launched("blocks");
}
