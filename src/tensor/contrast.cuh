/* SPDX-License-Identifier: Apache-2.0 */
/* Tiles of 128 x 128 dots for the contrastive objectives on a CUDA device, and the products that
 * their gradients are.
 *
 * f32 on tensor cores of bf16: x = x1 + x2 (+ x3), each a bf16 of what the ones before leave, and
 * of a product those terms i, j are taken where i + j <= PARTS + 1.  Two parts carry 16 bits (3
 * terms, an error of some 2^-17 of a factor), three 24 bits (6 terms), as f32 does; one part would
 * be the plain bf16 product.  Small terms are added first.
 *
 * Gradients: a square of at most SIDE x SIDE of d loss / d dots is in scratch at a time, in parts;
 * da and db take their products with it in a fixed order.  Memory is linear in the batch. */
#ifndef TESSERA_TENSOR_CONTRAST_CUH
#define TESSERA_TENSOR_CONTRAST_CUH

#include "tensor/mma.cuh"

namespace contrast
{

static constexpr int SIDE = 4096, TILE = 128, THREADS = 256;
static constexpr int64_t SMALL = 256; /* batches below take three parts: sums are short there */
static constexpr float LOG_SCALE_MAX = 4.605170186f, LOG2_E = 1.4426950408889634f;

static inline int64_t up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

__device__ __forceinline__ float scale_of(const float *log_scale)
{
    return expf(fminf(*log_scale, LOG_SCALE_MAX));
}

__device__ __forceinline__ float exponential(float x)
{
    return power_of_two(x * LOG2_E);
}

/* ---- parts ------------------------------------------------------------------------------------
 */

/* A matrix in parts: (PARTS,rows,row) bf16, rows of a multiple of 32 filled up with zeros. */
struct matrix {
    bf16 *x;
    int64_t part, row, rows;
};

template <int PARTS>
__device__ __forceinline__ void store_parts(const matrix &m, int64_t at, float x)
{
    TESS_UNROLL
    for (int p = 0; p < PARTS; p++) {
        bf16 *to = &m.x[p * m.part + at];
        from_float(x, to);
        x -= to_float(*to);
    }
}

/* x (rows,width) f32 */
template <int PARTS>
__global__ void __launch_bounds__(THREADS) split_kernel(matrix m, const float *x, int64_t width)
{
    const int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
    if (i < m.rows * m.row) {
        const int64_t column = i % m.row;
        store_parts<PARTS>(m, i, column < width ? x[i / m.row * width + column] : 0.0f);
    }
}

template <int PARTS> struct sizes {
    static constexpr int K = PARTS > 2 ? 16 : 32;          /* of a tile */
    static constexpr int ALONG = K + 8, ACROSS = TILE + 8; /* a row's length in shared memory */
    static constexpr int OPERAND = TILE * ALONG > K *ACROSS ? TILE *ALONG : K *ACROSS;
    static constexpr int STAGE = 2 * PARTS * OPERAND;
    static constexpr size_t BYTES = 2 * STAGE * sizeof(bf16);
};

/* A block's place in a product: rows of the left and columns of the right operand, and how many
 * exist from there on. */
struct place {
    int64_t row, column, n_rows, n_columns;
};

/* The left operand's rows, or the right one's columns, lie along rows of m (across: along its
 * columns). */
template <int PARTS, bool ACROSS>
__device__ __forceinline__ void fetch(bf16 *to, const matrix &m, int64_t first, int64_t k)
{
    typedef sizes<PARTS> S;
    constexpr int ROWS = ACROSS ? S::K : TILE, PACKS = (ACROSS ? TILE : S::K) / 8;
    const int64_t row = ACROSS ? k : first, column = ACROSS ? first : k;
    for (int i = static_cast<int>(threadIdx.x); i < PARTS * ROWS * PACKS; i += THREADS) {
        const int p = i / (ROWS * PACKS), r = i / PACKS % ROWS, c = i % PACKS * 8;
        const bool there = row + r < m.rows && column + c < m.row;
        copy_16(to + p * S::OPERAND + r * (ACROSS ? S::ACROSS : S::ALONG) + c,
                there ? m.x + p * m.part + (row + r) * m.row + column + c : m.x, there ? 16 : 0);
    }
}

/* A warp's 32 x 64 of the block's tile: rows 32 (warp / 2), columns 64 (warp % 2). */
struct accumulator {
    c_tile c[2][8];
};

template <int PARTS, bool LEFT, bool RIGHT>
__device__ __forceinline__ void multiply_step(accumulator *y, const bf16 *left, const bf16 *right,
                                              int k, int n_rows, int n_columns)
{
    typedef sizes<PARTS> S;
    constexpr int L = LEFT ? S::ACROSS : S::ALONG, R = RIGHT ? S::ACROSS : S::ALONG;
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const int row = warp / 2 * 32, column = warp % 2 * 64;
    a_tile a[PARTS][2];
    TESS_UNROLL
    for (int p = 0; p < PARTS; p++) {
        TESS_UNROLL
        for (int m = 0; m < 2; m++) {
            const bf16 *at = left + p * S::OPERAND;
            const int r = row + 16 * m;
            a[p][m] = LEFT ? load_a_transposed(at + k * L + r, L) : load_a(at + r * L + k, L);
        }
    }
    TESS_UNROLL
    for (int n = 0; n < 4; n++) {
        const int c = column + 16 * n;
        if (c >= n_columns || row >= n_rows) {
            continue;
        }
        b_tile b[PARTS][2];
        TESS_UNROLL
        for (int p = 0; p < PARTS; p++) {
            const bf16 *at = right + p * S::OPERAND;
            if (RIGHT) {
                load_b(b[p], at + k * R + c, R);
            } else {
                load_b_transposed(b[p], at + c * R + k, R);
            }
        }
        TESS_UNROLL
        for (int sum = PARTS - 1; sum >= 0; sum--) {
            TESS_UNROLL
            for (int p = 0; p <= sum; p++) {
                TESS_UNROLL
                for (int m = 0; m < 2; m++) {
                    multiply(&y->c[m][2 * n], a[p][m], b[sum - p][0]);
                    multiply(&y->c[m][2 * n + 1], a[p][m], b[sum - p][1]);
                }
            }
        }
    }
}

/* y = left right over k of 0..n_k-1; LEFT, RIGHT: which lie across.  Ends with a barrier. */
template <int PARTS, bool LEFT, bool RIGHT>
__device__ __forceinline__ void multiply_tile(accumulator *y, bf16 *shared, const matrix &left,
                                              const matrix &right, const place &at, int64_t n_k)
{
    typedef sizes<PARTS> S;
    const int n_rows = static_cast<int>(at.n_rows < TILE ? at.n_rows : TILE);
    const int n_columns = static_cast<int>(at.n_columns < TILE ? at.n_columns : TILE);
    TESS_UNROLL
    for (int i = 0; i < 16; i++) {
        y->c[i / 8][i % 8] = c_tile{{0, 0, 0, 0}};
    }
    fetch<PARTS, LEFT>(shared, left, at.row, 0);
    fetch<PARTS, RIGHT>(shared + PARTS * S::OPERAND, right, at.column, 0);
    copies_commit();
    for (int64_t k = 0; k < n_k; k += S::K) {
        const bf16 *stage = shared + k / S::K % 2 * S::STAGE;
        bf16 *next = shared + (k / S::K + 1) % 2 * S::STAGE;
        if (k + S::K < n_k) {
            fetch<PARTS, LEFT>(next, left, at.row, k + S::K);
            fetch<PARTS, RIGHT>(next + PARTS * S::OPERAND, right, at.column, k + S::K);
        }
        copies_commit();
        copies_wait<1>();
        __syncthreads();
        for (int i = 0; i < S::K; i += 16) {
            multiply_step<PARTS, LEFT, RIGHT>(y, stage, stage + PARTS * S::OPERAND, i, n_rows,
                                              n_columns);
        }
        __syncthreads();
    }
}

/* Row and column, within the block's tile, of element e (0..3) of y.c[m][n]. */
__device__ __forceinline__ int row_at(int m, int e)
{
    return static_cast<int>(threadIdx.x) / 64 * 32 + 16 * m + lane_group() + 8 * (e / 2);
}

__device__ __forceinline__ int column_at(int n, int e)
{
    return static_cast<int>(threadIdx.x) / 32 % 2 * 64 + 8 * n + 2 * lane_pair() + e % 2;
}

/* ---- one square of the gradient ----------------------------------------------------------------
 */

/* What a slot's dots are made of, and where a square of them begins. */
struct square {
    matrix a, b; /* b: the slot's rows */
    int64_t batch, row, column, n_rows, n_columns;
};

__device__ __forceinline__ place place_in(const square &s, int64_t tiles)
{
    const int64_t r = static_cast<int64_t>(blockIdx.x) / tiles * TILE;
    const int64_t c = static_cast<int64_t>(blockIdx.x) % tiles * TILE;
    return {s.row + r, s.column + c, s.n_rows - r, s.n_columns - c};
}

/* sums[tile of the slot's dots] = sum of sum_k; two sums a tile. */
__device__ __forceinline__ void store_sums(float *sums, const square &s, const place &at, float x,
                                           float y)
{
    TESS_SHARED(float, partial, THREADS / 32);
    const int64_t tiles = (s.batch + TILE - 1) / TILE;
    const int64_t i = at.row / TILE * tiles + at.column / TILE;
    x = block_sum(x, partial);
    y = block_sum(y, partial);
    if (threadIdx.x == 0) {
        sums[2 * i] = x;
        sums[2 * i + 1] = y;
    }
}

/* g (n_rows,n_columns) = d loss / d dots in parts, its rows filled up; sums: of g z and g, by tile.
 * F gives d loss / d z at a scaled dot. */
template <int PARTS, class F>
__global__ void __launch_bounds__(THREADS)
    gradient_kernel(matrix g, float *sums, square s, F f, const float *log_scale)
{
    TESS_SHARED_DYNAMIC(bf16, shared);
    const place at = place_in(s, (s.n_columns + TILE - 1) / TILE);
    const float scale = scale_of(log_scale);
    accumulator y;
    multiply_tile<PARTS, false, false>(&y, shared, s.a, s.b, at, s.a.row);
    f.begin();
    float sum_z = 0, sum = 0;
    TESS_UNROLL
    for (int i = 0; i < 64; i++) {
        const int r = row_at(i / 32, i % 4), c = column_at(i / 4 % 8, i % 4);
        const int64_t row = at.row - s.row + r, column = at.column - s.column + c;
        const float z = scale * y.c[i / 32][i / 4 % 8].x[i % 4];
        const bool there = r < at.n_rows && c < at.n_columns;
        const float d = there ? f(z, at.row + r, at.column + c) : 0.0f;
        sum_z += there ? d * z : 0.0f;
        sum += d;
        if (r < at.n_rows && column < g.row) {
            store_parts<PARTS>(g, row * g.row + column, d * scale);
        }
    }
    store_sums(sums, s, at, sum_z, sum);
}

/* y (rows,width) f32 (+)= left right; a block a tile. */
template <int PARTS, bool LEFT>
__global__ void __launch_bounds__(THREADS)
    product_kernel(float *y, int64_t rows, int64_t width, matrix left, matrix right, int64_t n_k,
                   bool add)
{
    TESS_SHARED_DYNAMIC(bf16, shared);
    const int64_t tiles = (width + TILE - 1) / TILE;
    const int64_t first = static_cast<int64_t>(blockIdx.x) / tiles * TILE;
    const int64_t column = static_cast<int64_t>(blockIdx.x) % tiles * TILE;
    const place at = {first, column, rows - first, width - column};
    accumulator sum;
    multiply_tile<PARTS, LEFT, true>(&sum, shared, left, right, at, n_k);
    TESS_UNROLL
    for (int i = 0; i < 64; i++) {
        const int r = row_at(i / 32, i % 4), c = column_at(i / 4 % 8, i % 4);
        if (r < at.n_rows && c < at.n_columns) {
            float *to = &y[(first + r) * width + column + c];
            *to = (add ? *to : 0.0f) + sum.c[i / 32][i / 4 % 8].x[i % 4];
        }
    }
}

/* ---- sums of what tiles left ------------------------------------------------------------------
 */

/* Of every second number of x, to thread 0 of the one block, in a fixed order. */
__device__ __forceinline__ double sum_every_second(const float *x, int64_t n)
{
    TESS_SHARED(double, partial, THREADS);
    double sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += THREADS) {
        sum += static_cast<double>(x[2 * i]);
    }
    __syncthreads();
    partial[threadIdx.x] = sum;
    __syncthreads();
    sum = 0;
    for (int i = 0; threadIdx.x == 0 && i < THREADS; i++) {
        sum += partial[i];
    }
    return sum;
}

/* log_scale NULL: out = sum / n.  Else gradients of log_scale, which at its cap may only lead away,
 * and of bias, unless NULL. */
template <int UNUSED>
__global__ void __launch_bounds__(THREADS)
    sums_kernel(float *out, float *dbias, const float *sums, int64_t n_sums, double n,
                const float *log_scale)
{
    const double d = sum_every_second(sums, n_sums);
    const double second = dbias ? sum_every_second(sums + 1, n_sums) : 0.0;
    if (threadIdx.x == 0) {
        const bool held = log_scale && *log_scale >= LOG_SCALE_MAX && d < 0;
        *out = held ? 0.0f : static_cast<float>(d / n);
        if (dbias) {
            *dbias = static_cast<float>(second);
        }
    }
}

/* ---- launchers: what both objectives share ----------------------------------------------------
 */

struct layout {
    int64_t batch, slots, width, row, side; /* row: width filled up */
    int64_t tiles;                          /* along the batch */
    int parts;
};

static inline layout layout_of(const tess_operand *in)
{
    layout l;
    l.batch = in[0].shape.dim[0];
    l.slots = in[1].shape.dim[0] / l.batch;
    l.width = in[0].shape.dim[1];
    l.row = up(l.width, 32);
    l.side = l.batch < SIDE ? l.batch : SIDE;
    l.tiles = (l.batch + TILE - 1) / TILE;
    l.parts = l.batch < SMALL ? 3 : 2;
    return l;
}

/* Scratch in order: a, b and (backward) g in parts, then floats. */
static inline size_t parts_bytes(const layout &l, bool backward)
{
    const int64_t g = backward ? l.side * up(l.side, 32) : 0;
    const int64_t n = (l.batch * (1 + l.slots) * l.row + g) * l.parts;
    return static_cast<size_t>(up(n * static_cast<int64_t>(sizeof(bf16)), 256));
}

static inline size_t sums_bytes(const layout &l)
{
    return static_cast<size_t>(2 * l.slots * l.tiles * l.tiles) * sizeof(float);
}

struct operands {
    matrix a, b, g;
    float *floats;
};

/* a and b in parts. */
template <int PARTS> static operands split(const tess_exec *e, const layout &l, bool backward)
{
    bf16 *x = static_cast<bf16 *>(e->scratch);
    operands o;
    o.a = {x, l.batch * l.row, l.row, l.batch};
    o.b = {x + PARTS * o.a.part, l.slots * l.batch * l.row, l.row, l.slots * l.batch};
    o.g = {o.b.x + PARTS * o.b.part, l.side * up(l.side, 32), up(l.side, 32), l.side};
    o.floats =
        reinterpret_cast<float *>(static_cast<char *>(e->scratch) + parts_bytes(l, backward));
    TESS_LAUNCH(split_kernel<PARTS>, blocks_for(o.a.part, THREADS), THREADS, 0, e->stream, o.a,
                static_cast<const float *>(e->in[0].data), l.width);
    TESS_LAUNCH(split_kernel<PARTS>, blocks_for(o.b.part, THREADS), THREADS, 0, e->stream, o.b,
                static_cast<const float *>(e->in[1].data), l.width);
    return o;
}

static inline matrix rows_of(matrix m, int64_t first, int64_t n)
{
    m.x += first * m.row;
    m.rows = n;
    return m;
}

/* One square: g, then what it adds to da and db.  sums: the slot's. */
template <int PARTS, class F>
static void run_square(const tess_exec *e, const layout &l, const operands &o, const square &s,
                       const F &f, float *sums)
{
    const size_t bytes = sizes<PARTS>::BYTES;
    float *da = static_cast<float *>(e->out[0].data) + s.row * l.width;
    float *db = static_cast<float *>(e->out[1].data) + (f.slot * l.batch + s.column) * l.width;
    const int64_t rows = (s.n_rows + TILE - 1) / TILE, columns = (s.n_columns + TILE - 1) / TILE;
    const int64_t across = (l.width + TILE - 1) / TILE;
    matrix g = o.g;
    g.row = up(s.n_columns, 32);
    g.rows = s.n_rows;
    TESS_ALLOW_SHARED((gradient_kernel<PARTS, F>), bytes);
    TESS_LAUNCH((gradient_kernel<PARTS, F>), static_cast<unsigned>(rows * columns), THREADS, bytes,
                e->stream, g, sums, s, f, static_cast<const float *>(e->in[2].data));
    TESS_ALLOW_SHARED((product_kernel<PARTS, false>), bytes);
    TESS_LAUNCH((product_kernel<PARTS, false>), static_cast<unsigned>(rows * across), THREADS,
                bytes, e->stream, da, s.n_rows, l.width, g, rows_of(s.b, s.column, s.n_columns),
                s.n_columns, s.column > 0 || f.slot > 0);
    TESS_ALLOW_SHARED((product_kernel<PARTS, true>), bytes);
    TESS_LAUNCH((product_kernel<PARTS, true>), static_cast<unsigned>(columns * across), THREADS,
                bytes, e->stream, db, s.n_columns, l.width, g, rows_of(s.a, s.row, s.n_rows),
                s.n_rows, s.row > 0);
}

/* All squares of all slots; F has its slot.  dbias NULL: there is none. */
template <int PARTS, class F>
static void run_gradient(const tess_exec *e, const layout &l, F f, float *dbias)
{
    const operands o = split<PARTS>(e, l, true);
    for (f.slot = 0; f.slot < l.slots; f.slot++) {
        square s = {o.a, rows_of(o.b, f.slot * l.batch, l.batch), l.batch, 0, 0, 0, 0};
        for (s.row = 0; s.row < l.batch; s.row += l.side) {
            for (s.column = 0; s.column < l.batch; s.column += l.side) {
                s.n_rows = l.batch - s.row < l.side ? l.batch - s.row : l.side;
                s.n_columns = l.batch - s.column < l.side ? l.batch - s.column : l.side;
                run_square<PARTS>(e, l, o, s, f, o.floats + 2 * f.slot * l.tiles * l.tiles);
            }
        }
    }
    TESS_LAUNCH(sums_kernel<0>, 1, THREADS, 0, e->stream, static_cast<float *>(e->out[2].data),
                dbias, o.floats, l.slots * l.tiles * l.tiles, 1.0,
                static_cast<const float *>(e->in[2].data));
}

} // namespace contrast

#endif
