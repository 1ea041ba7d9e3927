/* SPDX-License-Identifier: Apache-2.0 */
/* sdpa on a CUDA device, after Dao 2023 (FlashAttention-2): scores live in registers.
 *
 * Rows of bf16 and heads of 8, 16, .. 128 go through the tensor cores: a warp takes 16 queries (or,
 * for dK and dV, 16 keys) and walks over the segment's other side in tiles that the block's warps
 * share; the next tile is copied while this one is multiplied.  Other rows take a plain kernel, a
 * warp a row.
 *
 * Departures: a segment has at most some 300 rows, so a block takes as many warps as divide them
 * best; where all keys fit one tile, the gradient's delta is the sum of P dP, as on the CPU, which
 * are in registers then, and y is not read; dQ is one kernel, dK and dV another, so nothing is
 * added by two blocks and a run repeats bit for bit.
 *
 * Offsets are in device memory, so what the CPU refuses is cut to what is safe here. */
#include "tensor/attention.cuh"
#include "tensor/mma.cuh"
extern "C" {
#include "tensor/cuda_attention.h"
}

static constexpr int ROWS = 16; /* a warp's */
static constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

/* ---- tensor cores: tiles ----------------------------------------------------------------------
 */

/* D: the head's dimension, filled up with zeros; N, below: rows of a tile of the other side. */
template <int D> struct shape {
    static constexpr int ROW = D + 8;
    static constexpr int WARPS = D <= 64 ? 8 : 4;
};
static constexpr int KEYS = 32; /* N of dK and dV, whose registers are full of sums */

/* Rows first .. first+n-1 of x, of which `limit` exist, on their way to shared memory. */
template <int D>
__device__ __forceinline__ void fetch_rows(bf16 *to, const bf16 *x, int64_t x_row, int64_t first,
                                           int64_t limit, int n, int64_t head_dim)
{
    constexpr int PACKS = D / 8;
    for (int i = static_cast<int>(threadIdx.x); i < n * PACKS; i += static_cast<int>(blockDim.x)) {
        const int row = i / PACKS, column = i % PACKS * 8;
        const bool there = first + row < limit && column < head_dim;
        copy_16(to + row * shape<D>::ROW + column, there ? x + (first + row) * x_row + column : x,
                there ? 16 : 0);
    }
}

/* Two matrices of a head, tile by tile in turn: keys and values, or queries and dy. */
template <int D, int N> struct tile_walk {
    static constexpr int TILE = N * shape<D>::ROW;
    const bf16 *x[2];
    int64_t row[2], n_rows, head_dim;
    int64_t end;  /* tiles */
    bf16 *shared; /* room for two of each: this and the next */

    __device__ __forceinline__ bf16 *at(int64_t t) const
    {
        return shared + t % 2 * 2 * TILE;
    }

    __device__ __forceinline__ void fetch(int64_t t) const
    {
        if (t < end) {
            fetch_rows<D>(at(t), x[0], row[0], t * N, n_rows, N, head_dim);
            fetch_rows<D>(at(t) + TILE, x[1], row[1], t * N, n_rows, N, head_dim);
        }
    }

    /* Tile t, which is fetched, while the next one comes; it is at() until the next barrier. */
    __device__ __forceinline__ const bf16 *step(int64_t t) const
    {
        fetch(t + 1);
        copies_commit();
        copies_wait<1>();
        __syncthreads();
        return at(t);
    }
};

/* c (16,N) = a (16,D) b (N,D)^T */
template <int D, int N>
__device__ __forceinline__ void multiply_rows(c_tile *c, const bf16 *a, const bf16 *b)
{
    constexpr int ROW = shape<D>::ROW;
    TESS_UNROLL
    for (int n = 0; n < N / 8; n++) {
        c[n] = c_tile{{0, 0, 0, 0}};
    }
    TESS_UNROLL
    for (int k = 0; k < D; k += 16) {
        const a_tile left = load_a(a + k, ROW);
        TESS_UNROLL
        for (int n = 0; n < N; n += 16) {
            b_tile right[2];
            load_b_transposed(right, b + n * ROW + k, ROW);
            multiply(&c[n / 8], left, right[0]);
            multiply(&c[n / 8 + 1], left, right[1]);
        }
    }
}

/* y (16,D) += p (16,N) x (N,D), p rounded */
template <int D, int N>
__device__ __forceinline__ void add_product(c_tile *y, const c_tile *p, const bf16 *x)
{
    constexpr int ROW = shape<D>::ROW;
    TESS_UNROLL
    for (int k = 0; k < N; k += 16) {
        const a_tile left = round_to_a(p[k / 8], p[k / 8 + 1]);
        TESS_UNROLL
        for (int d = 0; d < D; d += 16) {
            b_tile right[2];
            load_b(right, x + k * ROW + d, ROW);
            multiply(&y[d / 8], left, right[0]);
            multiply(&y[d / 8 + 1], left, right[1]);
        }
    }
}

/* Rows group and group + 8 of factor[0..1] * c to y, where they are below the limit. */
template <int D>
__device__ __forceinline__ void store_rows(bf16 *y, int64_t y_row, const c_tile *c,
                                           const float *factor, int64_t first, int64_t limit,
                                           int64_t head_dim)
{
    TESS_UNROLL
    for (int half = 0; half < 2; half++) {
        const int64_t row = first + lane_group() + 8 * half;
        TESS_UNROLL
        for (int d = 0; d < D; d += 8) {
            if (row < limit && d < head_dim) {
                const c_tile &t = c[d / 8];
                *reinterpret_cast<uint32_t *>(y + row * y_row + d + 2 * lane_pair()) =
                    pack_two(factor[half] * t.x[2 * half], factor[half] * t.x[2 * half + 1]);
            }
        }
    }
}

template <int D> __device__ __forceinline__ void clear(c_tile *c)
{
    TESS_UNROLL
    for (int d = 0; d < D / 8; d++) {
        c[d] = c_tile{{0, 0, 0, 0}};
    }
}

/* ---- tensor cores: a block of queries ----------------------------------------------------------
 */

static constexpr int QUERIES_Q = 0, QUERIES_DY = 1; /* what a block holds of its rows */

struct query_block {
    piece p;
    int64_t column, first; /* of the head; the warp's first row */
    int rows;
    bf16 *own; /* (rows,D) q, then as many of dy */
};

/* False: the block has no rows.  Its rows and the first tile of keys and values are on their way.
 */
template <int D, int N>
__device__ __forceinline__ bool begin_queries(query_block *b, tile_walk<D, N> *keys,
                                              const task<bf16> &s, bf16 *shared, int last_own)
{
    const int64_t rows = static_cast<int64_t>(blockDim.x) / 32 * ROWS;
    const piece p = find_piece(s, rows);
    b->p = p;
    b->column = p.head * s.head_dim;
    b->first = p.first + static_cast<int64_t>(threadIdx.x) / 32 * ROWS;
    b->rows = static_cast<int>(rows);
    b->own = shared;
    if (p.first >= p.n_q) {
        return false;
    }
    const int64_t seen = s.causal && p.first + rows < p.n_k ? p.first + rows : p.n_k;
    *keys = tile_walk<D, N>{{s.k + p.k * s.kv_row + b->column, s.v + p.k * s.kv_row + b->column},
                            {s.kv_row, s.kv_row},
                            p.n_k,
                            s.head_dim,
                            (seen + N - 1) / N,
                            shared + (last_own + 1) * rows * shape<D>::ROW};
    fetch_rows<D>(b->own, s.q + p.q * s.q_row + b->column, s.q_row, p.first, p.n_q, b->rows,
                  s.head_dim);
    if (last_own == QUERIES_DY) {
        fetch_rows<D>(b->own + rows * shape<D>::ROW, s.dy + p.q * s.y_row + b->column, s.y_row,
                      p.first, p.n_q, b->rows, s.head_dim);
    }
    keys->fetch(0);
    copies_commit();
    return true;
}

/* The warp's rows of what the block holds. */
template <int D> __device__ __forceinline__ const bf16 *own_rows(const query_block &b, int which)
{
    return b.own + (which * b.rows + static_cast<int>(threadIdx.x) / 32 * ROWS) * shape<D>::ROW;
}

/* How many of a tile's keys rows group and group + 8 see. */
__device__ __forceinline__ void count_keys(int *keys, const task<bf16> &s, const query_block &b,
                                           int64_t tile, int n)
{
    for (int half = 0; half < 2; half++) {
        const int64_t last = b.first + lane_group() + 8 * half + 1;
        const int64_t seen = s.causal && last < b.p.n_k ? last : b.p.n_k;
        keys[half] = static_cast<int>(clamped(seen - tile * n, 0, n));
    }
}

/* ---- tensor cores: forward --------------------------------------------------------------------
 */

/* A warp's 16 queries so far: the largest score, in powers of two, this lane's part of the sum. */
struct softmax_state {
    float top[2], sum[2];
};

/* Scores of a tile become exp(score - top); y is brought to the new top.  keys[half]: how many of
 * the tile's columns the row sees. */
template <int D, int N>
__device__ __forceinline__ void softmax_tile(softmax_state *s, c_tile *p, c_tile *y,
                                             const int *keys, float factor)
{
    TESS_UNROLL
    for (int half = 0; half < 2; half++) {
        float top = s->top[half];
        TESS_UNROLL
        for (int i = 0; i < N / 4; i++) {
            float *x = &p[i / 2].x[2 * half + i % 2];
            *x = 8 * (i / 2) + 2 * lane_pair() + i % 2 < keys[half] ? *x * factor : -INFINITY;
            top = fmaxf(top, *x);
        }
        top = row_max(top);
        const float shrink = power_of_two(s->top[half] - top);
        float sum = s->sum[half] * shrink;
        TESS_UNROLL
        for (int i = 0; i < N / 4; i++) {
            float *x = &p[i / 2].x[2 * half + i % 2];
            *x = power_of_two(*x - top);
            sum += *x;
        }
        TESS_UNROLL
        for (int d = 0; d < D / 8; d++) {
            y[d].x[2 * half] *= shrink;
            y[d].x[2 * half + 1] *= shrink;
        }
        s->top[half] = top;
        s->sum[half] = sum;
    }
}

/* y and lse of the warp's rows. */
template <int D>
__device__ __forceinline__ void softmax_end(const task<bf16> &s, const piece &p,
                                            const softmax_state &state, const c_tile *y,
                                            int64_t first)
{
    float factor[2];
    TESS_UNROLL
    for (int half = 0; half < 2; half++) {
        const float sum = row_sum(state.sum[half]);
        const int64_t row = first + lane_group() + 8 * half;
        factor[half] = p.n_k > 0 ? 1.0f / sum : 0.0f;
        if (row < p.n_q && lane_pair() == 0) {
            s.lse[p.head * s.n_q + p.q + row] =
                p.n_k > 0 ? (state.top[half] + log2f(sum)) * LN_2 : 0.0f;
        }
    }
    store_rows<D>(s.y + p.q * s.y_row + p.head * s.head_dim, s.y_row, y, factor, first, p.n_q,
                  s.head_dim);
}

template <int D, int N>
__global__ void __launch_bounds__(32 * shape<D>::WARPS) sdpa_tensor_kernel(task<bf16> s)
{
    TESS_SHARED_DYNAMIC(bf16, shared);
    query_block b;
    tile_walk<D, N> walk;
    if (!begin_queries<D, N>(&b, &walk, s, shared, QUERIES_Q)) {
        return;
    }
    softmax_state state = {{-INFINITY, -INFINITY}, {0, 0}};
    c_tile y[D / 8];
    clear<D>(y);
    for (int64_t t = 0; t < walk.end; t++) {
        const bf16 *tile = walk.step(t);
        c_tile score[N / 8];
        int keys[2];
        count_keys(keys, s, b, t, N);
        multiply_rows<D, N>(score, own_rows<D>(b, QUERIES_Q), tile);
        softmax_tile<D, N>(&state, score, y, keys, s.scale * LOG2_E);
        add_product<D, N>(y, score, tile + walk.TILE);
        __syncthreads();
    }
    softmax_end<D>(s, b.p, state, y, b.first);
}

/* ---- tensor cores: gradient --------------------------------------------------------------------
 */

/* P and dP of a warp's 16 rows and a tile of the other side. */
template <int D, int N> struct pair_tiles {
    c_tile p[N / 8], dp[N / 8];
};

/* Queries by row.  lse in powers of two. */
template <int D, int N>
__device__ __forceinline__ void make_pairs(pair_tiles<D, N> *x, const bf16 *q, const bf16 *dy,
                                           const bf16 *k, const bf16 *v, const int *keys,
                                           const float *lse, float factor)
{
    multiply_rows<D, N>(x->p, q, k);
    multiply_rows<D, N>(x->dp, dy, v);
    TESS_UNROLL
    for (int i = 0; i < N / 2; i++) {
        const int half = i / 2 % 2, n = 8 * (i / 4) + 2 * lane_pair() + i % 2;
        float *p = &x->p[i / 4].x[i % 4];
        *p = n < keys[half] ? power_of_two(*p * factor - lse[half]) : 0.0f;
    }
}

/* delta of rows group and group + 8: the sum of dy y. */
template <int D>
__device__ __forceinline__ void sum_dy_y(float *delta, const task<bf16> &s, const query_block &b)
{
    const bf16 *dy = own_rows<D>(b, QUERIES_DY);
    const bf16 *y = s.y + (b.p.q + b.first) * s.y_row + b.column;
    TESS_UNROLL
    for (int half = 0; half < 2; half++) {
        const int row = lane_group() + 8 * half;
        float sum = 0;
        TESS_UNROLL
        for (int d = 0; d < D; d += 32) {
            const int at = d + 8 * lane_pair();
            if (b.first + row < b.p.n_q && at < s.head_dim) {
                const pack<bf16> left = load_pack(dy + row * shape<D>::ROW + at);
                const pack<bf16> right = load_pack(y + row * s.y_row + at);
                for (int i = 0; i < left.N; i++) {
                    sum += to_float(left.x[i]) * to_float(right.x[i]);
                }
            }
        }
        delta[half] = row_sum(sum);
    }
}

/* delta of the same rows where one tile holds all keys: the sum of P dP, in registers already. */
template <int D, int N>
__device__ __forceinline__ void sum_p_dp(float *delta, const pair_tiles<D, N> &x)
{
    TESS_UNROLL
    for (int i = 0; i < N / 2; i++) {
        delta[i / 2 % 2] += x.p[i / 4].x[i % 4] * x.dp[i / 4].x[i % 4];
    }
    delta[0] = row_sum(delta[0]);
    delta[1] = row_sum(delta[1]);
}

template <int D, int N>
__global__ void __launch_bounds__(32 * shape<D>::WARPS) sdpa_grad_q_kernel(task<bf16> s)
{
    TESS_SHARED_DYNAMIC(bf16, shared);
    query_block b;
    tile_walk<D, N> walk;
    if (!begin_queries<D, N>(&b, &walk, s, shared, QUERIES_DY)) {
        return;
    }
    const int64_t at = b.p.head * s.n_q + b.p.q + b.first + lane_group();
    float lse[2], delta[2] = {0, 0};
    for (int half = 0; half < 2; half++) {
        lse[half] =
            b.first + lane_group() + 8 * half < b.p.n_q ? s.lse[at + 8 * half] * LOG2_E : 0.0f;
    }
    c_tile dq[D / 8];
    clear<D>(dq);
    for (int64_t t = 0; t < walk.end; t++) {
        const bf16 *tile = walk.step(t);
        pair_tiles<D, N> x;
        int keys[2];
        count_keys(keys, s, b, t, N);
        make_pairs<D, N>(&x, own_rows<D>(b, QUERIES_Q), own_rows<D>(b, QUERIES_DY), tile,
                         tile + walk.TILE, keys, lse, s.scale * LOG2_E);
        if (walk.end == 1) {
            sum_p_dp<D, N>(delta, x);
        } else if (t == 0) {
            sum_dy_y<D>(delta, s, b);
        }
        TESS_UNROLL
        for (int i = 0; i < N / 2; i++) {
            x.p[i / 4].x[i % 4] *= x.dp[i / 4].x[i % 4] - delta[i / 2 % 2];
        }
        add_product<D, N>(dq, x.p, tile);
        __syncthreads();
    }
    for (int half = 0; half < 2; half++) {
        if (b.first + lane_group() + 8 * half < b.p.n_q && lane_pair() == 0) {
            s.delta[at + 8 * half] = delta[half];
        }
    }
    const float factor[2] = {s.scale, s.scale};
    store_rows<D>(s.dq + b.p.q * s.q_row + b.column, s.q_row, dq, factor, b.first, b.p.n_q,
                  s.head_dim);
}

/* lse, in powers of two, and delta of a tile's queries. */
template <int D, int N>
__device__ __forceinline__ void fetch_stats(float *to, const task<bf16> &s, const piece &p,
                                            int64_t first)
{
    for (int i = static_cast<int>(threadIdx.x); i < N; i += static_cast<int>(blockDim.x)) {
        const bool there = first + i < p.n_q;
        const int64_t at = p.head * s.n_q + p.q + first + i;
        to[i] = there ? s.lse[at] * LOG2_E : 0.0f;
        to[N + i] = there ? s.delta[at] : 0.0f;
    }
}

/* Keys by row, queries by column. */
template <int D, int N>
__global__ void __launch_bounds__(32 * shape<D>::WARPS) sdpa_grad_kv_kernel(task<bf16> s)
{
    constexpr int ROW = shape<D>::ROW;
    TESS_SHARED_DYNAMIC(bf16, shared);
    TESS_SHARED(float, stats, 4 * N);
    const int rows = static_cast<int>(blockDim.x) / 32 * ROWS;
    const piece p = find_piece(s, rows);
    if (p.first >= p.n_k) {
        return;
    }
    const int64_t column = p.head * s.head_dim;
    bf16 *const own_k = shared, *const own_v = own_k + rows * ROW;
    const int64_t begin = s.causal ? p.first / N : 0;
    const tile_walk<D, N> walk = {{s.q + p.q * s.q_row + column, s.dy + p.q * s.y_row + column},
                                  {s.q_row, s.y_row},
                                  p.n_q,
                                  s.head_dim,
                                  (p.n_q + N - 1) / N,
                                  own_v + rows * ROW};
    fetch_rows<D>(own_k, s.k + p.k * s.kv_row + column, s.kv_row, p.first, p.n_k, rows, s.head_dim);
    fetch_rows<D>(own_v, s.v + p.k * s.kv_row + column, s.kv_row, p.first, p.n_k, rows, s.head_dim);
    walk.fetch(begin);
    fetch_stats<D, N>(stats + begin % 2 * 2 * N, s, p, begin * N);
    copies_commit();
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const int64_t first = p.first + warp * ROWS;
    c_tile dk[D / 8], dv[D / 8];
    clear<D>(dk);
    clear<D>(dv);
    for (int64_t t = begin; t < walk.end; t++) {
        const float *lse = stats + t % 2 * 2 * N, *delta = lse + N;
        fetch_stats<D, N>(stats + (t + 1) % 2 * 2 * N, s, p, (t + 1) * N);
        const bf16 *tile = walk.step(t);
        pair_tiles<D, N> x;
        const int left = static_cast<int>(clamped(p.n_q - t * N, 0, N));
        int from[2]; /* the first query that sees the key */
        for (int half = 0; half < 2; half++) {
            const int64_t key = first + lane_group() + 8 * half;
            from[half] = s.causal ? static_cast<int>(clamped(key - t * N, 0, N)) : 0;
        }
        multiply_rows<D, N>(x.p, own_k + warp * ROWS * ROW, tile);
        multiply_rows<D, N>(x.dp, own_v + warp * ROWS * ROW, tile + walk.TILE);
        TESS_UNROLL
        for (int i = 0; i < N / 2; i++) {
            const int n = 8 * (i / 4) + 2 * lane_pair() + i % 2;
            float *score = &x.p[i / 4].x[i % 4], *dp = &x.dp[i / 4].x[i % 4];
            const bool there = n >= from[i / 2 % 2] && n < left;
            *score = there ? power_of_two(*score * (s.scale * LOG2_E) - lse[n]) : 0.0f;
            *dp = *score * (*dp - delta[n]);
        }
        add_product<D, N>(dv, x.p, tile + walk.TILE);
        add_product<D, N>(dk, x.dp, tile);
        __syncthreads();
    }
    const float scale[2] = {s.scale, s.scale}, one[2] = {1, 1};
    store_rows<D>(s.dk + p.k * s.kv_row + column, s.kv_row, dk, scale, first, p.n_k, s.head_dim);
    store_rows<D>(s.dv + p.k * s.kv_row + column, s.kv_row, dv, one, first, p.n_k, s.head_dim);
}

/* ---- launchers ------------------------------------------------------------------------------- */

template <class T> static task<T> task_of(const tess_exec *e, const sdpa_geometry &g)
{
    task<T> s = {};
    s.q = static_cast<const T *>(e->in[SDPA_QKV].data);
    const T *kv = g.cross ? static_cast<const T *>(e->in[SDPA_KV].data) : s.q;
    s.k = kv + g.k_at;
    s.v = kv + g.v_at;
    s.offsets = g.packed ? static_cast<const int32_t *>(e->in[SDPA_OFFSETS].data) : NULL;
    s.heads = g.heads;
    s.head_dim = g.head_dim;
    s.q_row = g.q_row;
    s.kv_row = g.kv_row;
    s.y_row = g.width;
    s.n_q = g.n_q;
    s.n_k = g.n_k;
    s.max_q = g.max_q;
    s.max_k = g.max_k;
    s.scale = g.scale;
    s.causal = g.causal;
    s.cross = g.cross;
    return s;
}

template <class T>
static void zero_outside(const tess_exec *e, const sdpa_geometry &g, tess_operand x, float *lse)
{
    const int64_t rows = tess__rows(&x.shape);
    const int32_t *offsets =
        g.packed ? static_cast<const int32_t *>(e->in[SDPA_OFFSETS].data) : NULL;
    TESS_LAUNCH(zero_outside_kernel<T>, ZERO_BLOCKS, ZERO_THREADS, 0, e->stream,
                static_cast<T *>(x.data), lse, rows, tess__last(&x.shape), g.heads, offsets,
                g.n_segments);
}

/* A segment's rows for blocks of up to `most` warps of 16 rows: few blocks, all about full. */
static int warps_for(int64_t rows, int most)
{
    const int64_t n = (rows + ROWS - 1) / ROWS, blocks = (n + most - 1) / most;
    return blocks > 0 ? static_cast<int>((n + blocks - 1) / blocks) : 1;
}

static unsigned grid_of(const sdpa_geometry &g, int64_t blocks)
{
    return static_cast<unsigned>(g.n_segments * g.heads * blocks);
}

/* own: operands whose rows the warps hold; n: rows of a tile. */
template <int D, class K>
static void launch_tensor(K kernel, const tess_exec *e, const sdpa_geometry &g, task<bf16> s,
                          int64_t rows, int own, int n)
{
    const int warps = warps_for(rows, shape<D>::WARPS);
    s.blocks = (rows + warps * ROWS - 1) / (warps * ROWS);
    const size_t bytes =
        static_cast<size_t>((own * warps * ROWS + 4 * n) * shape<D>::ROW) * sizeof(bf16);
    if (grid_of(g, s.blocks) == 0) {
        return;
    }
    TESS_ALLOW_SHARED(kernel, bytes);
    TESS_LAUNCH(kernel, grid_of(g, s.blocks), 32 * warps, bytes, e->stream, s);
}

template <class T, class K>
static void launch_plain(K kernel, const tess_exec *e, const sdpa_geometry &g, task<T> s,
                         int64_t rows, int vectors)
{
    s.blocks = (rows + PLAIN_WARPS - 1) / PLAIN_WARPS;
    const size_t bytes = static_cast<size_t>(vectors * PLAIN_WARPS * g.head_dim) * sizeof(float);
    if (grid_of(g, s.blocks) == 0) {
        return;
    }
    TESS_ALLOW_SHARED(kernel, bytes);
    TESS_LAUNCH(kernel, grid_of(g, s.blocks), 32 * PLAIN_WARPS, bytes, e->stream, s);
}

template <int D, int N>
static void forward_in_tiles(const tess_exec *e, const sdpa_geometry &g, task<bf16> s)
{
    launch_tensor<D>(sdpa_tensor_kernel<D, N>, e, g, s, g.max_q, 1, N);
}

template <int D, int N>
static void backward_in_tiles(const tess_exec *e, const sdpa_geometry &g, task<bf16> s)
{
    launch_tensor<D>(sdpa_grad_q_kernel<D, N>, e, g, s, g.max_q, 2, N);
    launch_tensor<D>(sdpa_grad_kv_kernel<D, KEYS>, e, g, s, g.max_k, 2, KEYS);
}

/* Tiles of 80 keys fill the longest segment better than those of 64: 77 tokens, 197. */
static bool suits_80(const sdpa_geometry &g)
{
    return (g.max_k + 79) / 80 * 80 < (g.max_k + 63) / 64 * 64;
}

template <int D> static void forward(const tess_exec *e, const sdpa_geometry &g, task<bf16> s)
{
    if (D == 64 && suits_80(g)) {
        forward_in_tiles<64, 80>(e, g, s);
    } else {
        forward_in_tiles<D, (D <= 64 ? 64 : 32)>(e, g, s);
    }
}

template <int D> static void backward(const tess_exec *e, const sdpa_geometry &g, task<bf16> s)
{
    if (D == 64 && suits_80(g)) {
        backward_in_tiles<64, 80>(e, g, s);
    } else {
        backward_in_tiles<D, (D <= 64 ? 64 : 32)>(e, g, s);
    }
}

/* Rows of bf16 whose heads start at multiples of 16 bytes. */
static bool for_tensor_cores(const tess_exec *e, const sdpa_geometry &g)
{
    return e->in[SDPA_QKV].dtype == TESS_BF16 && g.head_dim % 8 == 0 && g.head_dim <= 128;
}

/* f<D> for the least D that holds the head. */
#define FOR_HEAD_DIM(f, e, g, s)                                                                   \
    ((g).head_dim <= 32   ? f<32>((e), (g), (s))                                                   \
     : (g).head_dim <= 64 ? f<64>((e), (g), (s))                                                   \
     : (g).head_dim <= 80 ? f<80>((e), (g), (s))                                                   \
     : (g).head_dim <= 96 ? f<96>((e), (g), (s))                                                   \
                          : f<128>((e), (g), (s)))

static tess_status launch_forward(const tess_exec *e)
{
    const sdpa_geometry g = tess__sdpa_describe(e->in, static_cast<const sdpa_attrs *>(e->attrs));
    float *lse = static_cast<float *>(e->out[1].data);
    TESS_FOR_FLOAT(e->in[SDPA_QKV].dtype, T, {
        if (g.packed && !g.cross) {
            zero_outside<T>(e, g, e->out[0], lse);
        }
        if (!for_tensor_cores(e, g)) {
            task<T> s = task_of<T>(e, g);
            s.y = static_cast<T *>(e->out[0].data);
            s.lse = lse;
            launch_plain(sdpa_plain_kernel<T>, e, g, s, g.max_q, 1);
        }
    });
    if (for_tensor_cores(e, g)) {
        task<bf16> s = task_of<bf16>(e, g);
        s.y = static_cast<bf16 *>(e->out[0].data);
        s.lse = lse;
        FOR_HEAD_DIM(forward, e, g, s);
    }
    return tess__cuda_launched("sdpa");
}

template <class T> static task<T> grad_task_of(const tess_exec *e, const sdpa_geometry &g)
{
    task<T> s = task_of<T>(e, g);
    T *dkv = static_cast<T *>(e->out[g.cross ? 1 : 0].data);
    s.dy = static_cast<const T *>(e->in[SDPA_DY].data);
    s.lse = static_cast<float *>(e->in[SDPA_LSE].data);
    s.delta = static_cast<float *>(e->scratch);
    s.y = static_cast<T *>(e->in[SDPA_Y].data);
    s.dq = static_cast<T *>(e->out[0].data);
    s.dk = dkv + g.k_at;
    s.dv = dkv + g.v_at;
    return s;
}

static tess_status launch_backward(const tess_exec *e)
{
    const sdpa_geometry g = tess__sdpa_describe(e->in, static_cast<const sdpa_attrs *>(e->attrs));
    TESS_FOR_FLOAT(e->in[SDPA_QKV].dtype, T, {
        if (g.packed) {
            zero_outside<T>(e, g, e->out[g.cross ? 1 : 0], NULL);
        }
        if (!g.cross) {
            sdpa_geometry all = g;
            all.packed = false;
            zero_outside<T>(e, all, e->out[1], NULL);
        }
        if (!for_tensor_cores(e, g)) {
            const task<T> s = grad_task_of<T>(e, g);
            launch_plain(sdpa_grad_q_plain_kernel<T>, e, g, s, g.max_q, 1);
            launch_plain(sdpa_grad_kv_plain_kernel<T>, e, g, s, g.max_k, 2);
        }
    });
    if (for_tensor_cores(e, g)) {
        FOR_HEAD_DIM(backward, e, g, grad_task_of<bf16>(e, g));
    }
    return tess__cuda_launched("sdpa_grad");
}

extern "C" tess_status tess__cuda_sdpa(const tess_exec *e)
{
    return tess__cuda_attention(e, false, launch_forward);
}

extern "C" size_t tess__cuda_sdpa_scratch(const tess_prepare *c)
{
    return tess__cuda_attention_scratch(c, false);
}

extern "C" tess_status tess__cuda_sdpa_grad(const tess_exec *e)
{
    return tess__cuda_attention(e, true, launch_backward);
}

extern "C" size_t tess__cuda_sdpa_grad_scratch(const tess_prepare *c)
{
    return tess__cuda_attention_scratch(c, true);
}
