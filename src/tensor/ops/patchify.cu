/* SPDX-License-Identifier: Apache-2.0 */
/* patchify on a CUDA device: bound by memory, 3 B S S bytes read and as many items written.  A warp
 * takes a patch; a lane takes N neighbouring pixels, 3 N bytes that lie together, and writes N
 * items to each of the three channels, so that both sides are read and written in whole sectors. */
#include "tensor/patches.cuh"

namespace
{

constexpr int WARPS = 8, THREADS = 32 * WARPS;

struct patchify_args {
    const uint8_t *pictures;
    int64_t rows, size, side; /* patches in all; pixels and patches in a line */
    int patch;
    pixel_scale scale;
};

template <class T, int N>
__global__ void __launch_bounds__(THREADS) patchify_kernel(T *y, patchify_args a)
{
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int64_t row = static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / 32;
    if (row >= a.rows) {
        return;
    }
    const int64_t line = row / a.side; /* of patches, in all pictures */
    const int64_t picture = line / a.side, top = line % a.side * a.patch;
    const int64_t left = (row - line * a.side) * a.patch;
    const uint8_t *from = a.pictures + ((picture * a.size + top) * a.size + left) * 3;
    const int area = a.patch * a.patch;
    T *to = y + row * 3 * area;
    for (int i = lane * N; i < area; i += 32 * N) {
        const int line_in = i / a.patch;
        const uint8_t *at = from + (line_in * a.size + (i - line_in * a.patch)) * 3;
        uint8_t bytes[3 * N];
        for (int k = 0; k < 3; k++) {
            const auto part = reinterpret_cast<const access<uint8_t, N> *>(at)[k];
            for (int b = 0; b < N; b++) {
                bytes[k * N + b] = part.x[b];
            }
        }
        for (int c = 0; c < 3; c++) {
            run<T, N> v;
            for (int k = 0; k < N; k++) {
                v.x[k] = a.scale.at(c, bytes[3 * k + c]);
            }
            v.store(to + c * area, i);
        }
    }
}

template <class T, int N> void launch(const tess_exec *e, const patchify_args &a)
{
    TESS_LAUNCH((patchify_kernel<T, N>), blocks_for(a.rows, WARPS), THREADS, 0, e->stream,
                static_cast<T *>(e->out[0].data), a);
}

} // namespace

/* N divides a patch's line, so that N pixels stay in it, and a picture's, so that every line begins
 * at a multiple of N bytes. */
extern "C" tess_status tess__cuda_patchify(const tess_exec *e)
{
    const tess_patchify_options *o = static_cast<const tess_patchify_options *>(e->attrs);
    patchify_args a = {};
    a.pictures = static_cast<const uint8_t *>(e->in[0].data);
    a.rows = e->out[0].shape.dim[0];
    a.size = e->in[0].shape.dim[1];
    a.patch = static_cast<int>(o->patch);
    a.side = a.size / o->patch;
    a.scale = pixel_scale_of(o->mean, o->std);
    TESS_FOR_FLOAT(o->dtype, T, {
        if (o->patch % 8 == 0 && a.size % 8 == 0) {
            launch<T, 8>(e, a);
        } else if (o->patch % 2 == 0 && a.size % 2 == 0) {
            launch<T, 2>(e, a);
        } else {
            launch<T, 1>(e, a);
        }
    });
    return tess__cuda_launched("patchify");
}
