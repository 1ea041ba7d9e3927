/* SPDX-License-Identifier: Apache-2.0 */
/* resize_patches on a CUDA device.  A block makes a square of 32 x 32 output pixels: it brings 32
 * source rows at a time to the square's columns, as 8-bit pixels in shared memory, and adds each to
 * the outputs that read it, whose sums stay in registers.  So neither shared memory nor scratch
 * grows with the picture, and a row is resized along x once for a square and not once for an
 * output; the rows that two squares share are resized for both, 12 % more under bicubic.
 *
 * Coefficients are read tap by tap, neighbouring columns from neighbouring addresses; pixels byte
 * by byte through the first cache, since the start of a row has no alignment. */
#include "tensor/patches.cuh"

namespace
{

constexpr int TILE = 32, WARPS = 8, THREADS = 32 * WARPS, EACH = TILE / WARPS;

struct resize_args {
    const uint8_t *bytes;
    const tess_resize_place *places;
    const int32_t *taps;
    int64_t n_bytes, n_taps;
    int size, side, tiles, patch; /* side: patches in a line; tiles: squares */
    uint8_t fill[3];
    pixel_scale scale;
};

/* An output's reading along one axis; n = 0: none, also where the table leads elsewhere. */
struct reading {
    int first, n;
    const int32_t *k;
};

__device__ __forceinline__ reading reading_of(const resize_args &a, int64_t table, int step, int in,
                                              int i)
{
    reading r = {0, 0, a.taps};
    if (table < 0 || step < 0 || table + 3 * static_cast<int64_t>(a.size) > a.n_taps) {
        return r;
    }
    const int32_t *entry = a.taps + table + 3 * i;
    const int64_t first = entry[0], n = entry[1], k = entry[2];
    if (n > 0 && first >= 0 && first + n <= in && k >= 0 && k + (n - 1) * step < a.n_taps) {
        r.first = static_cast<int>(first);
        r.n = static_cast<int>(n);
        r.k = a.taps + k;
    }
    return r;
}

/* The place, without a size where it leads out of the bytes. */
__device__ __forceinline__ tess_resize_place place_of(const resize_args &a, int64_t picture)
{
    tess_resize_place p = a.places[picture];
    const int64_t row = 3 * static_cast<int64_t>(p.width);
    const int64_t end = static_cast<int64_t>(p.at) * TESS_RESIZE_UNIT +
                        (static_cast<int64_t>(p.height) - 1) * p.stride + row;
    if (p.at < 0 || p.width <= 0 || p.height <= 0 || p.stride < row || end > a.n_bytes) {
        p.width = p.height = 0;
    }
    return p;
}

__device__ __forceinline__ uint8_t clip8(uint32_t sum)
{
    const int32_t v =
        static_cast<int32_t>(sum + (1u << (TESS_RESIZE_BITS - 1))) >> TESS_RESIZE_BITS;
    return static_cast<uint8_t>(v < 0 ? 0 : v > 255 ? 255 : v);
}

/* Rows warp, warp + 8, .. of the 32 source rows from `top` on, at this lane's column, to `mid`;
 * those from `end` on are that before it. */
__device__ __forceinline__ void resize_rows(const uint8_t *pixels, int stride, int top, int end,
                                            const reading &x, int step, int warp, uint8_t *mid)
{
    uint32_t sum[EACH][3] = {};
    const uint8_t *from[EACH];
    for (int i = 0; i < EACH; i++) {
        const int r = top + warp + i * WARPS;
        from[i] = pixels + static_cast<int64_t>(r < end ? r : end - 1) * stride + 3 * x.first;
    }
    for (int t = 0; t < x.n; t++) {
        const uint32_t k = static_cast<uint32_t>(x.k[static_cast<int64_t>(t) * step]);
        for (int i = 0; i < EACH; i++) {
            for (int c = 0; c < 3; c++) {
                sum[i][c] += k * from[i][3 * t + c];
            }
        }
    }
    for (int i = 0; i < EACH; i++) {
        for (int c = 0; c < 3; c++) {
            mid[(warp + i * WARPS) * 3 * TILE + c] = clip8(sum[i][c]);
        }
    }
}

/* Adds those of the 32 rows in `mid` that an output reads to its sums. */
__device__ __forceinline__ void add_rows(const reading &y, int step, int top, const uint8_t *mid,
                                         uint32_t *sum)
{
    const int begin = y.first > top ? y.first : top;
    const int end = y.first + y.n < top + TILE ? y.first + y.n : top + TILE;
    for (int r = begin; r < end; r++) {
        const uint32_t k = static_cast<uint32_t>(y.k[static_cast<int64_t>(r - y.first) * step]);
        for (int c = 0; c < 3; c++) {
            sum[c] += k * mid[(r - top) * 3 * TILE + c];
        }
    }
}

/* The source rows that the square's outputs read, first..end-1: a lane looks at one of them. */
__device__ __forceinline__ void rows_of(const reading &y, int *first, int *end)
{
    *first = y.n > 0 ? y.first : INT32_MAX;
    *end = y.n > 0 ? y.first + y.n : 0;
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        const int f = __shfl_xor_sync(0xffffffffu, *first, lanes);
        const int e = __shfl_xor_sync(0xffffffffu, *end, lanes);
        *first = f < *first ? f : *first;
        *end = e > *end ? e : *end;
    }
}

template <class T>
__global__ void __launch_bounds__(THREADS) resize_patches_kernel(T *out, resize_args a)
{
    TESS_SHARED(uint8_t, shared, TILE * TILE * 3);
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int squares = a.tiles * a.tiles, square = static_cast<int>(blockIdx.x) % squares;
    const int64_t picture = static_cast<int64_t>(blockIdx.x) / squares;
    const int used = a.side * a.patch; /* pixels in a line; those beyond are in no patch */
    const int top = square / a.tiles * TILE, column = square % a.tiles * TILE + lane;
    const tess_resize_place p = place_of(a, picture);
    const uint8_t *pixels = a.bytes + static_cast<int64_t>(p.at) * TESS_RESIZE_UNIT;
    const reading none = {0, 0, a.taps};
    const reading x = column < used ? reading_of(a, p.x, p.x_step, p.width, column) : none;
    uint8_t *mid = shared + 3 * lane;
    reading y[EACH];
    uint32_t sum[EACH][3] = {};
    int row, end;
    rows_of(top + lane < used ? reading_of(a, p.y, p.y_step, p.height, top + lane) : none, &row,
            &end);
    for (int i = 0; i < EACH; i++) {
        const int line = top + warp + i * WARPS;
        y[i] = line < used ? reading_of(a, p.y, p.y_step, p.height, line) : none;
    }
    for (; row < end; row += TILE) {
        resize_rows(pixels, p.stride, row, end, x, p.x_step, warp, mid);
        __syncthreads();
        for (int i = 0; i < EACH; i++) {
            add_rows(y[i], p.y_step, row, mid, sum[i]);
        }
        __syncthreads();
    }
    const int64_t area = static_cast<int64_t>(a.patch) * a.patch;
    for (int i = 0; i < EACH; i++) {
        const int line = top + warp + i * WARPS;
        if (line >= used || column >= used) {
            continue;
        }
        const int64_t patch = (picture * a.side + line / a.patch) * a.side + column / a.patch;
        T *to = out + patch * 3 * area + line % a.patch * a.patch + column % a.patch;
        const bool read = x.n > 0 && y[i].n > 0;
        for (int c = 0; c < 3; c++) {
            from_float(a.scale.at(c, read ? clip8(sum[i][c]) : a.fill[c]), to + c * area);
        }
    }
}

} // namespace

extern "C" tess_status tess__cuda_resize_patches(const tess_exec *e)
{
    const auto *o = static_cast<const tess_resize_patches_options *>(e->attrs);
    resize_args a = {};
    a.bytes = static_cast<const uint8_t *>(e->in[0].data);
    a.places = static_cast<const tess_resize_place *>(e->in[1].data);
    a.taps = static_cast<const int32_t *>(e->in[2].data);
    a.n_bytes = e->in[0].shape.dim[0];
    a.n_taps = e->in[2].shape.dim[0];
    a.size = static_cast<int>(o->size);
    a.patch = static_cast<int>(o->patch);
    a.side = a.size / a.patch;
    a.tiles = (a.side * a.patch + TILE - 1) / TILE;
    a.scale = pixel_scale_of(o->mean, o->std);
    for (int c = 0; c < 3; c++) {
        a.fill[c] = o->fill[c];
    }
    const int64_t blocks = e->in[1].shape.dim[0] * a.tiles * a.tiles;
    if (blocks > INT32_MAX) {
        return TESS_FAIL(TESS_INVALID, "resize_patches: %lld pictures of %d pixels are too many",
                         static_cast<long long>(e->in[1].shape.dim[0]), a.size);
    }
    if (blocks > 0) {
        TESS_FOR_FLOAT(o->dtype, T, {
            TESS_LAUNCH(resize_patches_kernel<T>, static_cast<unsigned>(blocks), THREADS, 0,
                        e->stream, static_cast<T *>(e->out[0].data), a);
        });
    }
    return tess__cuda_launched("resize_patches");
}
