/* SPDX-License-Identifier: Apache-2.0 */
/* contrast_softmax on a CUDA device: each tile of dots is made once forward, for both its rows' and
 * its columns' sums of exponentials.  A block takes a strip of rows by a strip of columns, at most
 * 16 x 16 of them, keeps (largest, sum) of each row and column of it, and a second kernel joins the
 * strips in order.  Gradients as tensor/contrast.cuh says. */
#include "tensor/contrast.cuh"

using namespace contrast;

static constexpr int MAX_STRIPS = 16;

/* log sum of exponentials so far = top + log(sum) */
struct part_sum {
    float top, sum;
};

/* exp(x - top), 0 for both minus infinity */
__device__ __forceinline__ float lowered(float x, float top)
{
    return x == -INFINITY ? 0.0f : exponential(x - top);
}

__device__ __forceinline__ part_sum joined(part_sum x, part_sum y)
{
    const float top = fmaxf(x.top, y.top);
    return {top, x.sum * lowered(x.top, top) + y.sum * lowered(y.top, top)};
}

struct strips {
    int64_t n, tiles; /* along the batch; tiles of one */
};

/* rows (strips.n,B) by strip of columns, columns (strips.n,B) by strip of rows, diagonal (B). */
struct partials {
    part_sum *rows, *columns;
    float *diagonal;
};

/* Of the tile's rows to rows (2,TILE), of its columns to columns (4,TILE), by warp. */
__device__ __forceinline__ void tile_sums(part_sum *rows, part_sum *columns, const accumulator &z)
{
    const int warp = static_cast<int>(threadIdx.x) / 32;
    TESS_UNROLL
    for (int i = 0; i < 4; i++) { /* rows */
        const int m = i / 2, e = i % 2 * 2;
        part_sum s = {-INFINITY, 0};
        TESS_UNROLL
        for (int n = 0; n < 16; n++) {
            s.top = fmaxf(s.top, z.c[m][n / 2].x[e + n % 2]);
        }
        s.top = row_max(s.top);
        TESS_UNROLL
        for (int n = 0; n < 16; n++) {
            s.sum += lowered(z.c[m][n / 2].x[e + n % 2], s.top);
        }
        s.sum = row_sum(s.sum);
        if (lane_pair() == 0) {
            rows[warp % 2 * TILE + row_at(m, e)] = s;
        }
    }
    TESS_UNROLL
    for (int i = 0; i < 16; i++) { /* columns */
        const int n = i / 2, e = i % 2;
        part_sum s = {-INFINITY, 0};
        TESS_UNROLL
        for (int r = 0; r < 4; r++) {
            s.top = fmaxf(s.top, z.c[r / 2][n].x[e + r % 2 * 2]);
        }
        TESS_UNROLL
        for (int lanes = 4; lanes < 32; lanes *= 2) {
            s.top = fmaxf(s.top, __shfl_xor_sync(0xffffffffu, s.top, lanes));
        }
        TESS_UNROLL
        for (int r = 0; r < 4; r++) {
            s.sum += lowered(z.c[r / 2][n].x[e + r % 2 * 2], s.top);
        }
        TESS_UNROLL
        for (int lanes = 4; lanes < 32; lanes *= 2) {
            s.sum += __shfl_xor_sync(0xffffffffu, s.sum, lanes);
        }
        if (lane_group() == 0) {
            columns[warp / 2 * TILE + column_at(n, e)] = s;
        }
    }
}

/* Scaled dots, minus infinity beyond the batch; the pairs' to diagonal. */
__device__ __forceinline__ void scale_tile(accumulator *z, float *diagonal, const place &at,
                                           float scale)
{
    TESS_UNROLL
    for (int i = 0; i < 64; i++) {
        const int r = row_at(i / 32, i % 4), c = column_at(i / 4 % 8, i % 4);
        float *x = &z->c[i / 32][i / 4 % 8].x[i % 4];
        const bool there = r < at.n_rows && c < at.n_columns;
        *x = there ? *x * scale : -INFINITY;
        if (there && at.row + r == at.column + c) {
            diagonal[at.row + r] = *x;
        }
    }
}

template <int PARTS>
__global__ void __launch_bounds__(THREADS)
    softmax_sums_kernel(partials out, square s, strips strip, const float *log_scale)
{
    TESS_SHARED_DYNAMIC(bf16, shared);
    TESS_SHARED(part_sum, rows, 2 * TILE);
    TESS_SHARED(part_sum, columns, 4 * TILE);
    const int64_t strip_row = static_cast<int64_t>(blockIdx.x) / strip.n;
    const int64_t strip_column = static_cast<int64_t>(blockIdx.x) % strip.n;
    const int64_t reach = strip.tiles * TILE;
    const int64_t row_end = (strip_row + 1) * reach, column_end = (strip_column + 1) * reach;
    const float scale = scale_of(log_scale);
    const int lane = static_cast<int>(threadIdx.x) % TILE;
    for (int64_t r = strip_row * reach; r < row_end && r < s.batch; r += TILE) {
        part_sum sum = {-INFINITY, 0}; /* of row r + lane, in the first 128 threads */
        for (int64_t c = strip_column * reach; c < column_end && c < s.batch; c += TILE) {
            const place at = {r, c, s.batch - r, s.batch - c};
            accumulator z;
            multiply_tile<PARTS, false, false>(&z, shared, s.a, s.b, at, s.a.row);
            scale_tile(&z, out.diagonal, at, scale);
            tile_sums(rows, columns, z);
            __syncthreads();
            if (threadIdx.x < TILE) {
                sum = joined(sum, joined(rows[lane], rows[TILE + lane]));
            } else if (lane < at.n_columns) {
                part_sum *to = &out.columns[strip_row * s.batch + c + lane];
                const part_sum none = {-INFINITY, 0};
                const part_sum mine =
                    joined(joined(columns[lane], columns[TILE + lane]),
                           joined(columns[2 * TILE + lane], columns[3 * TILE + lane]));
                *to = joined(r == strip_row * reach ? none : *to, mine);
            }
            __syncthreads();
        }
        if (threadIdx.x < TILE && r + lane < s.batch) {
            out.rows[strip_column * s.batch + r + lane] = sum;
        }
    }
}

/* lse (B) of rows and columns; sums: lse_row + lse_col - 2 z of a block's pairs. */
template <int UNUSED>
__global__ void __launch_bounds__(THREADS)
    softmax_join_kernel(float *lse_row, float *lse_column, float *sums, partials in, strips strip,
                        int64_t batch)
{
    TESS_SHARED(float, partial, THREADS / 32);
    const int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
    float loss = 0;
    if (i < batch) {
        part_sum row = in.rows[i], column = in.columns[i];
        for (int64_t k = 1; k < strip.n; k++) {
            row = joined(row, in.rows[k * batch + i]);
            column = joined(column, in.columns[k * batch + i]);
        }
        lse_row[i] = row.top + logf(row.sum);
        lse_column[i] = column.top + logf(column.sum);
        loss = (lse_row[i] - in.diagonal[i]) + (lse_column[i] - in.diagonal[i]);
    }
    loss = block_sum(loss, partial);
    if (threadIdx.x == 0) {
        sums[2 * blockIdx.x] = loss;
    }
}

/* d loss / d z */
struct softmax_slope {
    const float *lse_row, *lse_column, *dloss;
    float n;
    int64_t batch, slot;
    float factor;
    __device__ __forceinline__ void begin()
    {
        factor = *dloss / (2.0f * n);
    }
    __device__ __forceinline__ float operator()(float z, int64_t row, int64_t column) const
    {
        const float p = exponential(z - lse_row[slot * batch + row]);
        const float q = exponential(z - lse_column[slot * batch + column]);
        return row == column ? factor * ((p - 1.0f) + (q - 1.0f)) : factor * (p + q);
    }
};

static strips strips_of(const layout &l)
{
    strips s;
    s.tiles = (l.tiles + MAX_STRIPS - 1) / MAX_STRIPS;
    s.n = (l.tiles + s.tiles - 1) / s.tiles;
    return s;
}

static int64_t join_blocks(const layout &l)
{
    return (l.batch + THREADS - 1) / THREADS;
}

template <int PARTS> static void forward(const tess_exec *e, const layout &l)
{
    const operands o = split<PARTS>(e, l, false);
    const strips strip = strips_of(l);
    float *sums = o.floats;
    partials p;
    p.diagonal = sums + up(2 * l.slots * join_blocks(l), 64);
    p.rows = reinterpret_cast<part_sum *>(p.diagonal + up(l.batch, 64));
    p.columns = p.rows + strip.n * l.batch;
    for (int64_t k = 0; k < l.slots; k++) {
        const square s = {o.a, rows_of(o.b, k * l.batch, l.batch), l.batch, 0, 0, l.batch, l.batch};
        TESS_ALLOW_SHARED(softmax_sums_kernel<PARTS>, sizes<PARTS>::BYTES);
        TESS_LAUNCH(softmax_sums_kernel<PARTS>, static_cast<unsigned>(strip.n * strip.n), THREADS,
                    sizes<PARTS>::BYTES, e->stream, p, s, strip,
                    static_cast<const float *>(e->in[2].data));
        TESS_LAUNCH(softmax_join_kernel<0>, static_cast<unsigned>(join_blocks(l)), THREADS, 0,
                    e->stream, static_cast<float *>(e->out[1].data) + k * l.batch,
                    static_cast<float *>(e->out[2].data) + k * l.batch,
                    sums + 2 * k * join_blocks(l), p, strip, l.batch);
    }
    TESS_LAUNCH(sums_kernel<0>, 1, THREADS, 0, e->stream, static_cast<float *>(e->out[0].data),
                nullptr, sums, l.slots * join_blocks(l),
                2.0 * static_cast<double>(l.slots) * static_cast<double>(l.batch), nullptr);
}

extern "C" size_t tess__cuda_contrast_softmax_scratch(const tess_prepare *c)
{
    const layout l = layout_of(c->in);
    const int64_t floats = up(2 * l.slots * join_blocks(l), 64) + up(l.batch, 64);
    return parts_bytes(l, false) + static_cast<size_t>(floats) * sizeof(float) +
           static_cast<size_t>(2 * strips_of(l).n * l.batch) * sizeof(part_sum);
}

extern "C" tess_status tess__cuda_contrast_softmax(const tess_exec *e)
{
    const layout l = layout_of(e->in);
    l.parts == 3 ? forward<3>(e, l) : forward<2>(e, l);
    return tess__cuda_launched("contrast_softmax");
}

extern "C" size_t tess__cuda_contrast_softmax_grad_scratch(const tess_prepare *c)
{
    const layout l = layout_of(c->in);
    return parts_bytes(l, true) + sums_bytes(l);
}

extern "C" tess_status tess__cuda_contrast_softmax_grad(const tess_exec *e)
{
    const layout l = layout_of(e->in);
    const softmax_slope f = {static_cast<const float *>(e->in[3].data),
                             static_cast<const float *>(e->in[4].data),
                             static_cast<const float *>(e->in[5].data),
                             static_cast<float>(l.slots * l.batch),
                             l.batch,
                             0,
                             0};
    l.parts == 3 ? run_gradient<3>(e, l, f, nullptr) : run_gradient<2>(e, l, f, nullptr);
    return tess__cuda_launched("contrast_softmax_grad");
}
