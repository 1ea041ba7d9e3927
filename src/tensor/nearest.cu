/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels of the exact search.  Scores never reach memory but for those that pass: a tile's
 * products are compared in registers with what the query asks for, and after the first pass nearly
 * none of them is written.  The order in which they are written is open; what is kept of them is
 * not. */
#include "tensor/contrast.cuh"

extern "C" {
#include "tensor/nearest.h"
}

using contrast::accumulator;
using contrast::matrix;

static constexpr int TILE = TESS__NEAR_TILE, WARPS = 8, THREADS = 32 * WARPS;
static constexpr float LARGEST = 3.402823466e38f;
static_assert(TILE == contrast::TILE && THREADS == contrast::THREADS, "multiply_tile's");

__device__ __forceinline__ int lane_of()
{
    return static_cast<int>(threadIdx.x) % 32;
}

__device__ __forceinline__ int warp_of()
{
    return static_cast<int>(threadIdx.x) / 32;
}

/* ---- keys ------------------------------------------------------------------------------------ */

/* Unsigned numbers in the order of floats; equal floats are equal (-0 and 0). */
__device__ __forceinline__ uint64_t ordered(float x)
{
    const unsigned u = __float_as_uint(x + 0.0f);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

__device__ __forceinline__ uint64_t key_of(float score, int64_t row)
{
    return ordered(score) << 32 | (0xffffffffu - static_cast<uint64_t>(row));
}

__device__ __forceinline__ float score_of(uint64_t key)
{
    const unsigned u = static_cast<unsigned>(key >> 32);
    return __uint_as_float(u & 0x80000000u ? u & 0x7fffffffu : ~u);
}

__device__ __forceinline__ int64_t row_of(uint64_t key)
{
    return static_cast<int64_t>(0xffffffffu - (key & 0xffffffffu));
}

/* ---- rounding -------------------------------------------------------------------------------- */

struct lengths {
    float x, lost; /* of the row; of what rounding took from it */
    bool finite;
};

/* A warp rounds x (dim) to y (row).  Squares below f32's range vanish: 1e-16 is no less than they
 * add, sqrt(65,536 x 2^-126). */
__device__ __forceinline__ lengths round_row(bf16 *y, const float *x, int64_t dim, int64_t row)
{
    float sum = 0, lost = 0, nothing = 0;
    for (int64_t j = lane_of(); j < row; j += 32) {
        const float v = j < dim ? x[j] : 0.0f;
        from_float(v, &y[j]);
        const float d = v - to_float(y[j]);
        sum = fmaf(v, v, sum);
        lost = fmaf(d, d, lost);
        nothing += v * 0.0f;
    }
    sum = sqrtf(warp_sum(sum)) + 1e-16f;
    lost = sqrtf(warp_sum(lost)) + 1e-16f;
    return {sum, lost, warp_sum(nothing) == 0.0f};
}

/* Of numbers that are not negative. */
__device__ __forceinline__ void extend(float *at, float x)
{
    atomicMax(reinterpret_cast<int *>(at), static_cast<int>(__float_as_uint(x)));
}

__global__ void __launch_bounds__(THREADS) round_kernel(tess__near s, int64_t first, int64_t n)
{
    const int64_t i = static_cast<int64_t>(blockIdx.x) * WARPS + warp_of();
    if (i < n) {
        const int64_t at = first + i;
        const lengths l = round_row(static_cast<bf16 *>(s.rounded) + at * s.row,
                                    s.rows + at * s.dim, s.dim, s.row);
        if (lane_of() == 0 && l.finite) {
            extend(&s.extent[0], l.x);
            extend(&s.extent[1], l.lost);
        }
    }
}

/* For rounded q + dq and x + dx: |(q + dq)(x + dx) - q x| <= |dq| |x + dx| + |q| |dx|.  A sum of Z
 * products, on tensor cores that cut where they add, is off by less than (Z + 64) 2^-21 of the
 * lengths' product, and so is the f32 score, together; 1.001 is for the lengths' own sums. */
__global__ void __launch_bounds__(THREADS) begin_kernel(tess__near s, bool exact)
{
    const int64_t i = static_cast<int64_t>(blockIdx.x) * WARPS + warp_of();
    if (i < s.n_queries) {
        const lengths q = round_row(static_cast<bf16 *>(s.rounded_queries) + i * s.row,
                                    s.queries + i * s.dim, s.dim, s.row);
        const float lost = s.extent[1], x = s.extent[0] + lost;
        const float sums = static_cast<float>(s.dim + 64) * 0x1p-21f * (q.x + q.lost) * x;
        const float margin = 2.002f * (q.lost * x + q.x * lost + sums);
        const bool known = exact || margin <= LARGEST;
        if (lane_of() == 0) {
            s.margin[i] = margin;
            s.least[i] = known ? -LARGEST : INFINITY;
            s.count[i] = known ? 0 : static_cast<int32_t>(s.capacity + 1);
        }
    }
}

/* ---- scanning -------------------------------------------------------------------------------- */

struct look {
    int64_t order, row; /* of the tile, and where its rows begin */
    bool placed;        /* rows have places */
};

__device__ __forceinline__ look look_at(const tess__near &s, int64_t first, int64_t tile)
{
    const int64_t order = first + tile;
    return {order, order * s.tile_step % s.n_tiles * TILE, first == 0};
}

/* Row i of the tile for a query whose scores must reach `least`. */
__device__ __forceinline__ void offer(const tess__near &s, const look &t, int64_t query,
                                      float least, int i, float score)
{
    const bool passes = t.row + i < s.n_rows && score >= least && score <= LARGEST;
    uint64_t *found = s.found + query * s.capacity;
    if (t.placed) {
        found[t.order * TILE + i] = passes ? key_of(score, t.row + i) : 0;
    } else if (passes) {
        const int at = atomicAdd(&s.count[query], 1);
        if (at < s.capacity) {
            found[at] = key_of(score, t.row + i);
        }
    }
}

/* A block takes a tile of rows and 128 queries; those of one tile of rows follow each other, so
 * that the card's cache has it. */
__global__ void __launch_bounds__(THREADS) tiles_kernel(tess__near s, int64_t first)
{
    TESS_SHARED_DYNAMIC(bf16, shared);
    const int64_t query_tiles = (s.n_queries + TILE - 1) / TILE;
    const look t = look_at(s, first, blockIdx.x / query_tiles);
    const int64_t query = blockIdx.x % query_tiles * TILE;
    const matrix q = {static_cast<bf16 *>(s.rounded_queries), 0, s.row, s.n_queries};
    const matrix x = {static_cast<bf16 *>(s.rounded), 0, s.row, s.n_rows};
    accumulator y;
    contrast::multiply_tile<1, false, false>(
        &y, shared, q, x, {query, t.row, s.n_queries - query, s.n_rows - t.row}, s.row);
    TESS_UNROLL
    for (int half = 0; half < 4; half++) { /* the four queries that a thread has scores of */
        const int m = half / 2, e = half % 2 * 2;
        const int64_t i = query + contrast::row_at(m, e);
        if (i < s.n_queries) {
            const float least = s.least[i];
            TESS_UNROLL
            for (int n = 0; n < 8; n++) {
                offer(s, t, i, least, contrast::column_at(n, e), y.c[m][n].x[e]);
                offer(s, t, i, least, contrast::column_at(n, e + 1), y.c[m][n].x[e + 1]);
            }
        }
    }
}

/* At most Q queries, which are in shared memory: a warp takes ROWS rows at a time, and their bytes
 * are what it waits for. */
static constexpr int ROWS = 4;

template <int Q>
__device__ __forceinline__ void multiply_rows(float (*sum)[Q], const tess__near &s,
                                              const float *queries, int64_t row)
{
    const bf16 *x = static_cast<const bf16 *>(s.rounded);
    for (int64_t j = lane_of() * 8; j < s.row; j += 256) {
        pack<bf16> p[ROWS];
        TESS_UNROLL
        for (int r = 0; r < ROWS; r++) {
            const int64_t at = row + r < s.n_rows ? row + r : 0;
            p[r] = load_pack(x + at * s.row + j);
        }
        TESS_UNROLL
        for (int q = 0; q < Q; q++) {
            const run<float, 8> v(queries + q * s.row, j);
            TESS_UNROLL
            for (int i = 0; i < ROWS * 8; i++) {
                sum[i / 8][q] = fmaf(to_float(p[i / 8].x[i % 8]), v.x[i % 8], sum[i / 8][q]);
            }
        }
    }
}

template <int Q> __global__ void __launch_bounds__(THREADS) few_kernel(tess__near s, int64_t first)
{
    TESS_SHARED_DYNAMIC(float, queries);
    const look t = look_at(s, first, blockIdx.x);
    const bf16 *from = static_cast<const bf16 *>(s.rounded_queries);
    for (int64_t i = threadIdx.x; i < Q * s.row; i += THREADS) {
        queries[i] = i < s.n_queries * s.row ? to_float(from[i]) : 0.0f;
    }
    __syncthreads();
    const int lane = lane_of(), r = lane / Q, q = lane % Q; /* the score that a lane offers */
    for (int i = warp_of() * ROWS; i < TILE; i += WARPS * ROWS) {
        float sum[ROWS][Q] = {}, mine = 0;
        multiply_rows<Q>(sum, s, queries, t.row + i);
        TESS_UNROLL
        for (int k = 0; k < ROWS * Q; k++) {
            const float whole = warp_sum(sum[k / Q][k % Q]);
            mine = lane == k ? whole : mine;
        }
        if (lane < ROWS * Q && q < s.n_queries) {
            offer(s, t, q, s.least[q], i + r, mine);
        }
    }
}

/* The f32 score, to every lane of the warp. */
__device__ __forceinline__ float exact_score(const tess__near &s, int64_t query, int64_t row)
{
    const float *q = s.queries + query * s.dim, *x = s.rows + row * s.dim;
    float sum = 0;
    for (int64_t j = lane_of(); j < s.dim; j += 32) {
        sum = fmaf(q[j], x[j], sum);
    }
    return warp_sum(sum);
}

static constexpr int PARTS = 4; /* blocks of a tile */

__global__ void __launch_bounds__(THREADS) exact_kernel(tess__near s, int64_t first)
{
    const look t = look_at(s, first, blockIdx.x / PARTS);
    const int begin = static_cast<int>(blockIdx.x % PARTS) * (TILE / PARTS);
    for (int i = begin + warp_of(); i < begin + TILE / PARTS; i += WARPS) {
        for (int64_t q = 0; q < s.n_queries; q++) {
            const float score = exact_score(s, q, t.row + i < s.n_rows ? t.row + i : 0);
            if (lane_of() == 0) {
                offer(s, t, q, s.least[q], i, score);
            }
        }
    }
}

/* ---- keeping --------------------------------------------------------------------------------- */

/* The k-th largest of n keys but for the bits below `last`, which are 0; 0 where there is none.
 * Eight bits at a time, from the top: how many keys have each digit below what is known. */
__device__ __forceinline__ uint64_t kth_largest(const uint64_t *keys, int64_t n, int64_t k,
                                                int last)
{
    TESS_SHARED(int, counts, THREADS);
    uint64_t known = 0;
    int64_t left = k;
    for (int shift = 56; shift >= last; shift -= 8) {
        counts[threadIdx.x] = 0;
        __syncthreads();
        for (int64_t i = threadIdx.x; i < n; i += THREADS) {
            if (((keys[i] ^ known) >> shift) < 256) {
                atomicAdd(&counts[keys[i] >> shift & 255], 1);
            }
        }
        __syncthreads();
        int digit = 255;
        while (digit > 0 && counts[digit] < left) {
            left -= counts[digit];
            digit--;
        }
        known |= static_cast<uint64_t>(digit) << shift;
        __syncthreads();
    }
    return known;
}

/* Moves the keys that are no less than `least` to the front; how many.  A step's keys are read
 * before any of them is written, and none is written behind where it was. */
__device__ __forceinline__ int keep(uint64_t *keys, int64_t n, uint64_t least)
{
    TESS_SHARED(int, kept, WARPS);
    int before = 0;
    for (int64_t begin = 0; begin < n; begin += THREADS) {
        const int64_t i = begin + threadIdx.x;
        const uint64_t key = i < n ? keys[i] : 0;
        const bool stays = key > 0 && key >= least;
        const unsigned lanes = __ballot_sync(0xffffffffu, stays);
        if (lane_of() == 0) {
            kept[warp_of()] = __popc(lanes);
        }
        __syncthreads();
        int at = before + __popc(lanes & ((1u << lane_of()) - 1));
        for (int w = 0; w < WARPS; w++) {
            at += w < warp_of() ? kept[w] : 0;
            before += kept[w];
        }
        if (stays) {
            keys[at] = key;
        }
        __syncthreads();
    }
    return before;
}

template <bool EXACT>
__global__ void __launch_bounds__(THREADS) select_kernel(tess__near s, int64_t n_places)
{
    const int64_t q = blockIdx.x;
    if (s.count[q] > s.capacity) {
        if (threadIdx.x == 0) {
            s.least[q] = INFINITY; /* no more of it */
        }
        return;
    }
    uint64_t *keys = s.found + q * s.capacity;
    const int64_t n = n_places > 0 ? n_places : s.count[q];
    const uint64_t kth = kth_largest(keys, n, s.k, EXACT ? 0 : 32);
    float least = -LARGEST;
    if (kth > 0) {
        least = EXACT ? score_of(kth) : fmaxf(score_of(kth) - s.margin[q], -LARGEST);
    }
    const int n_kept = keep(keys, n, EXACT ? kth : ordered(least) << 32);
    if (threadIdx.x == 0) {
        s.least[q] = least;
        s.count[q] = n_kept;
    }
}

__global__ void __launch_bounds__(THREADS) score_kernel(tess__near s, int64_t n_slices)
{
    const int64_t q = blockIdx.x / n_slices, slice = blockIdx.x % n_slices;
    const int64_t n = s.count[q] > s.capacity ? 0 : s.count[q];
    for (int64_t i = slice * WARPS + warp_of(); i < n; i += n_slices * WARPS) {
        uint64_t *key = &s.found[q * s.capacity + i];
        const int64_t row = row_of(*key);
        const float score = exact_score(s, q, row);
        __syncwarp();
        if (lane_of() == 0) {
            *key = fabsf(score) <= LARGEST ? key_of(score, row) : 0;
        }
    }
}

/* A key's place is how many are larger; no two are equal. */
__global__ void __launch_bounds__(THREADS) rank_kernel(tess__near s)
{
    const int64_t q = blockIdx.x, n = s.count[q];
    const uint64_t *keys = s.found + q * s.capacity;
    for (int64_t i = threadIdx.x; i < n && n <= s.k; i += THREADS) {
        int64_t place = 0;
        for (int64_t j = 0; j < n; j++) {
            place += keys[j] > keys[i] ? 1 : 0;
        }
        s.best[q * s.k + place] = keys[i];
    }
}

/* ---- launchers ------------------------------------------------------------------------------- */

extern "C" void tess__near_round(const tess__near *s, int64_t first, int64_t n, void *stream)
{
    TESS_LAUNCH(round_kernel, blocks_for(n, WARPS), THREADS, 0, stream, *s, first, n);
}

extern "C" void tess__near_begin(const tess__near *s, bool exact, void *stream)
{
    TESS_LAUNCH(begin_kernel, blocks_for(s->n_queries, WARPS), THREADS, 0, stream, *s, exact);
}

static constexpr int FEW = 8; /* queries that are multiplied without tensor cores */

extern "C" void tess__near_scan(const tess__near *s, int64_t first, int64_t n_tiles, bool exact,
                                void *stream)
{
    const int few = s->n_queries == 1 ? 1 : FEW;
    const size_t few_bytes = static_cast<size_t>(few * s->row) * sizeof(float);
    const size_t bytes = contrast::sizes<1>::BYTES;
    if (exact) {
        TESS_LAUNCH(exact_kernel, static_cast<unsigned>(n_tiles * PARTS), THREADS, 0, stream, *s,
                    first);
    } else if (s->n_queries > few || few_bytes > 48 << 10) {
        const int64_t query_tiles = (s->n_queries + TILE - 1) / TILE;
        TESS_ALLOW_SHARED(tiles_kernel, bytes);
        TESS_LAUNCH(tiles_kernel, static_cast<unsigned>(n_tiles * query_tiles), THREADS, bytes,
                    stream, *s, first);
    } else if (few == 1) {
        TESS_LAUNCH(few_kernel<1>, static_cast<unsigned>(n_tiles), THREADS, few_bytes, stream, *s,
                    first);
    } else {
        TESS_LAUNCH(few_kernel<FEW>, static_cast<unsigned>(n_tiles), THREADS, few_bytes, stream, *s,
                    first);
    }
}

extern "C" void tess__near_select(const tess__near *s, int64_t n_places, bool exact, void *stream)
{
    const unsigned blocks = static_cast<unsigned>(s->n_queries);
    if (exact) {
        TESS_LAUNCH(select_kernel<true>, blocks, THREADS, 0, stream, *s, n_places);
    } else {
        TESS_LAUNCH(select_kernel<false>, blocks, THREADS, 0, stream, *s, n_places);
    }
}

/* Slices: about four rows a warp where as many are left as are asked for. */
extern "C" void tess__near_score(const tess__near *s, void *stream)
{
    const int64_t wanted = (s->k + 4 * WARPS - 1) / (4 * WARPS), most = 64;
    const int64_t n_slices = wanted < most ? wanted : most;
    TESS_LAUNCH(score_kernel, static_cast<unsigned>(s->n_queries * n_slices), THREADS, 0, stream,
                *s, n_slices);
}

extern "C" void tess__near_rank(const tess__near *s, void *stream)
{
    TESS_LAUNCH(rank_kernel, static_cast<unsigned>(s->n_queries), THREADS, 0, stream, *s);
}
