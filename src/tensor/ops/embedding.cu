/* SPDX-License-Identifier: Apache-2.0 */
/* embedding and its gradient on a CUDA device: bound by memory, n C floats read and n C items
 * written; the gradient writes V C zeros, reads n C items and writes the rows that are named.
 *
 * The gradient sorts (id, position) by id, stably, by its digits of 8 bits (a counting sort each:
 * counts by warp, their prefix sums, places), so that equal ids stand together in the order of
 * their positions.  A warp then adds the rows of some consecutive entries: what begins and ends
 * there it writes, what goes on elsewhere it keeps, and a last kernel joins those.  So an id that
 * stands for half of the tokens costs no more than the rest, nothing is added atomically, and a run
 * repeats bit for bit. */
#include "tensor/pointwise.cuh"

namespace
{

constexpr int WARPS = 8, THREADS = 32 * WARPS;
constexpr int DIGITS = THREADS;  /* 8 bits; one for each of a block's threads */
constexpr int64_t SORTERS = 512; /* warps that sort, at most; each takes whole rounds of 32 */
constexpr int64_t LEAST_SORTED = 256;
constexpr int64_t PIECE = 64; /* entries that one warp adds */

template <class T> struct looked_up {
    T *y;
    const float *table;
    const int32_t *ids;
    int64_t n_rows, width;
    struct place {
        T *y;
        const float *x; /* NULL: beyond the table */
        template <int N> __device__ void put(int64_t j) const
        {
            run<float, N> v;
            if (x) {
                v = run<float, N>(x, j);
            }
            v.store_as(y, j);
        }
    };
    __device__ place row(int64_t r) const
    {
        const int64_t id = ids[r];
        return {y + r * width, id < 0 || id >= n_rows ? nullptr : table + id * width};
    }
};

/* ---- the sort -------------------------------------------------------------------------------- */

/* Ids beyond the table are its number of rows, so that they stand last. */
struct entries {
    uint32_t *key, *position;
};

struct sort_args {
    const int32_t *ids; /* the first digit reads these, later ones `from` */
    entries from, to;
    uint32_t *counts; /* (DIGITS,sorters), then their prefix sums by digit */
    uint32_t *totals; /* (DIGITS) */
    int64_t n, n_rows, sorters, per_sorter;
    int shift;
    bool first;
};

__device__ __forceinline__ uint32_t key_at(const sort_args &a, int64_t i)
{
    if (!a.first) {
        return a.from.key[i];
    }
    const int64_t id = a.ids[i];
    return static_cast<uint32_t>(id < 0 || id >= a.n_rows ? a.n_rows : id);
}

/* The lanes with this lane's digit, among those that have one. */
__device__ __forceinline__ unsigned peers_of(unsigned digit, bool has)
{
    unsigned peers = __ballot_sync(0xffffffffu, has);
    for (int bit = 0; bit < 8; bit++) {
        const bool one = digit >> bit & 1u;
        const unsigned ones = __ballot_sync(0xffffffffu, one);
        peers &= one ? ones : ~ones;
    }
    return peers;
}

struct sorter {
    int lane;
    int64_t index, begin, end;
};

__device__ __forceinline__ sorter this_sorter(const sort_args &a)
{
    sorter s;
    s.lane = static_cast<int>(threadIdx.x) % 32;
    s.index = static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / 32;
    s.begin = s.index * a.per_sorter;
    s.end = s.begin + a.per_sorter < a.n ? s.begin + a.per_sorter : a.n;
    return s;
}

__global__ void __launch_bounds__(THREADS) count_kernel(sort_args a)
{
    TESS_SHARED(uint32_t, all, WARPS * DIGITS);
    const sorter s = this_sorter(a);
    uint32_t *count = all + threadIdx.x / 32 * DIGITS;
    for (int d = s.lane; d < DIGITS; d += 32) {
        count[d] = 0;
    }
    __syncwarp();
    for (int64_t i = s.begin; i < s.end; i += 32) {
        const bool has = i + s.lane < s.end;
        const unsigned digit = has ? key_at(a, i + s.lane) >> a.shift & (DIGITS - 1) : 0;
        const unsigned peers = peers_of(digit, has);
        if (has && (peers & ((1u << s.lane) - 1)) == 0) {
            count[digit] += static_cast<uint32_t>(__popc(peers));
        }
        __syncwarp();
    }
    for (int d = s.lane; d < DIGITS && s.index < a.sorters; d += 32) {
        a.counts[d * a.sorters + s.index] = count[d];
    }
}

/* The sum of x over the threads before this one; *total: over all. */
__device__ __forceinline__ uint32_t sum_before(uint32_t x, uint32_t *shared, uint32_t *total)
{
    const int t = static_cast<int>(threadIdx.x);
    shared[t] = x;
    __syncthreads();
    for (int d = 1; d < THREADS; d *= 2) {
        const uint32_t left = t >= d ? shared[t - d] : 0;
        __syncthreads();
        shared[t] += left;
        __syncthreads();
    }
    const uint32_t through = shared[t];
    *total = shared[THREADS - 1];
    __syncthreads();
    return through - x;
}

/* A block takes a digit. */
__global__ void __launch_bounds__(THREADS) prefix_kernel(sort_args a)
{
    TESS_SHARED(uint32_t, shared, THREADS);
    uint32_t *counts = a.counts + blockIdx.x * a.sorters, before = 0;
    for (int64_t i = 0; i < a.sorters; i += THREADS) {
        const int64_t at = i + threadIdx.x;
        uint32_t total;
        const uint32_t here = sum_before(at < a.sorters ? counts[at] : 0, shared, &total);
        if (at < a.sorters) {
            counts[at] = before + here;
        }
        before += total;
    }
    if (threadIdx.x == 0) {
        a.totals[blockIdx.x] = before;
    }
}

__global__ void __launch_bounds__(THREADS) place_kernel(sort_args a)
{
    TESS_SHARED(uint32_t, all, WARPS * DIGITS);
    TESS_SHARED(uint32_t, base, DIGITS);
    TESS_SHARED(uint32_t, shared, THREADS);
    const sorter s = this_sorter(a);
    uint32_t *next = all + threadIdx.x / 32 * DIGITS;
    uint32_t total;
    base[threadIdx.x] = sum_before(a.totals[threadIdx.x], shared, &total);
    __syncthreads();
    for (int d = s.lane; d < DIGITS && s.index < a.sorters; d += 32) {
        next[d] = base[d] + a.counts[d * a.sorters + s.index];
    }
    __syncwarp();
    for (int64_t i = s.begin; i < s.end; i += 32) {
        const bool has = i + s.lane < s.end;
        const uint32_t key = has ? key_at(a, i + s.lane) : 0;
        const unsigned digit = key >> a.shift & (DIGITS - 1), peers = peers_of(digit, has);
        const unsigned before = peers & ((1u << s.lane) - 1);
        if (has) {
            const uint32_t at = next[digit] + static_cast<uint32_t>(__popc(before));
            a.to.key[at] = key;
            a.to.position[at] =
                a.first ? static_cast<uint32_t>(i + s.lane) : a.from.position[i + s.lane];
        }
        __syncwarp();
        if (has && before == 0) {
            next[digit] += static_cast<uint32_t>(__popc(peers));
        }
        __syncwarp();
    }
}

/* ---- the sums -------------------------------------------------------------------------------- */

template <class T> struct sum_args {
    float *dtable;
    const T *dy;
    entries sorted;
    float *kept; /* (pieces,2,C): of a run from an earlier piece, of one into later pieces */
    int64_t n, n_rows, width, pieces;
};

/* One of a lane's runs of equal ids. */
template <class T, int N> struct one_sum {
    run<float, N> sum;
    uint32_t key;
    bool earlier; /* it began in an earlier piece */
    __device__ __forceinline__ void write(const sum_args<T> &a, int64_t piece, bool goes_on,
                                          int64_t column) const
    {
        float *to = earlier   ? a.kept + 2 * piece * a.width
                    : goes_on ? a.kept + (2 * piece + 1) * a.width
                              : a.dtable + static_cast<int64_t>(key) * a.width;
        sum.store(to, column);
    }
};

template <class T, int N>
__global__ void __launch_bounds__(THREADS) sum_pieces_kernel(sum_args<T> a)
{
    constexpr int AHEAD = 4; /* rows that are asked for before one is added */
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int64_t piece = static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / 32;
    const int64_t column = (static_cast<int64_t>(blockIdx.y) * 32 + lane) * N;
    const int64_t begin = piece * PIECE, end = begin + PIECE < a.n ? begin + PIECE : a.n;
    if (begin >= a.n || column >= a.width || a.sorted.key[begin] >= a.n_rows) {
        return;
    }
    one_sum<T, N> now;
    now.key = a.sorted.key[begin];
    now.earlier = begin > 0 && a.sorted.key[begin - 1] == now.key;
    for (int64_t i = begin; i < end; i += AHEAD) {
        uint32_t key[AHEAD];
        run<T, N> row[AHEAD];
        for (int k = 0; k < AHEAD; k++) {
            key[k] = i + k < end ? a.sorted.key[i + k] : static_cast<uint32_t>(a.n_rows);
            if (key[k] < a.n_rows) {
                row[k] = run<T, N>(a.dy + a.sorted.position[i + k] * a.width, column);
            }
        }
        for (int k = 0; k < AHEAD; k++) {
            if (i + k < end && key[k] != now.key) {
                now.write(a, piece, false, column);
                now.sum = run<float, N>();
                now.key = key[k];
                now.earlier = false;
                if (key[k] >= a.n_rows) {
                    return;
                }
            }
            for (int c = 0; c < N; c++) {
                now.sum.x[c] += row[k].x[c];
            }
        }
    }
    now.write(a, piece, end < a.n && a.sorted.key[end] == now.key, column);
}

/* A block takes a piece and a band of columns; those whose last run goes on add what later pieces
 * kept of it: each warp every eighth, then the warps in order. */
template <class T, int N>
__global__ void __launch_bounds__(THREADS) join_pieces_kernel(sum_args<T> a)
{
    TESS_SHARED(float, partial, THREADS *N);
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int64_t piece = blockIdx.x, begin = piece * PIECE, end = begin + PIECE;
    const int64_t first = static_cast<int64_t>(blockIdx.y) * 32 * N, column = first + lane * N;
    if (end >= a.n) {
        return;
    }
    const uint32_t key = a.sorted.key[end - 1];
    const bool whole = a.sorted.key[begin] == key && begin > 0 && a.sorted.key[begin - 1] == key;
    if (key >= a.n_rows || a.sorted.key[end] != key || whole) {
        return;
    }
    int64_t last = piece + 1, beyond = a.pieces; /* the last piece that begins with the id */
    while (beyond - last > 1) {
        const int64_t middle = (last + beyond) / 2;
        if (a.sorted.key[middle * PIECE] == key) {
            last = middle;
        } else {
            beyond = middle;
        }
    }
    run<float, N> sum;
    if (column < a.width) {
        for (int64_t p = piece + 1 + warp; p <= last; p += WARPS) {
            const run<float, N> v(a.kept + 2 * p * a.width, column);
            for (int c = 0; c < N; c++) {
                sum.x[c] += v.x[c];
            }
        }
    }
    for (int c = 0; c < N; c++) {
        partial[(warp * N + c) * 32 + lane] = sum.x[c];
    }
    __syncthreads();
    if (warp == 0 && column < a.width) {
        run<float, N> total(a.kept + (2 * piece + 1) * a.width, column);
        for (int w = 0; w < WARPS; w++) {
            for (int c = 0; c < N; c++) {
                total.x[c] += partial[(w * N + c) * 32 + lane];
            }
        }
        total.store(a.dtable + static_cast<int64_t>(key) * a.width, column);
    }
}

/* ---- scratch --------------------------------------------------------------------------------- */

int64_t pieces_of(int64_t n)
{
    return (n + PIECE - 1) / PIECE;
}

int64_t per_sorter_of(int64_t n)
{
    const int64_t rounds = (n + 32 * SORTERS - 1) / (32 * SORTERS);
    return 32 * rounds > LEAST_SORTED ? 32 * rounds : LEAST_SORTED;
}

int64_t sorters_of(int64_t n)
{
    return (n + per_sorter_of(n) - 1) / per_sorter_of(n);
}

/* Numbers of 4 bytes, in the order in which they lie: all at multiples of 16 bytes. */
struct layout {
    int64_t list, counts, kept;
};

layout layout_of(int64_t n, int64_t width)
{
    return {(n + 3) / 4 * 4, DIGITS * sorters_of(n), 2 * pieces_of(n) * width};
}

template <class T, int N> void add_up(const sum_args<T> &a, void *stream)
{
    const unsigned bands = blocks_for(a.width, 32 * N);
    TESS_LAUNCH((sum_pieces_kernel<T, N>), dim3(blocks_for(a.pieces, WARPS), bands), THREADS, 0,
                stream, a);
    TESS_LAUNCH((join_pieces_kernel<T, N>), dim3(blocks_for(a.pieces, 1), bands), THREADS, 0,
                stream, a);
}

} // namespace

extern "C" tess_status tess__cuda_embedding(const tess_exec *e)
{
    const int64_t n_rows = e->in[0].shape.dim[0], width = e->in[0].shape.dim[1];
    TESS_FOR_FLOAT(e->out[0].dtype, T, {
        const looked_up<T> f = {static_cast<T *>(e->out[0].data),
                                static_cast<const float *>(e->in[0].data),
                                static_cast<const int32_t *>(e->in[1].data), n_rows, width};
        launch_rows<4>(f, tess_shape_count(&e->in[1].shape), width, e->stream);
    });
    return tess__cuda_launched("embedding");
}

extern "C" size_t tess__cuda_embedding_grad_scratch(const tess_prepare *c)
{
    const layout l = layout_of(tess_shape_count(&c->in[0].shape), tess__last(&c->in[1].shape));
    return static_cast<size_t>(4 * l.list + l.counts + DIGITS + l.kept) * sizeof(uint32_t);
}

/* Sorts, and says where the sorted entries are; NULL: there are none. */
static entries sort(const tess_exec *e, int64_t n, const layout &l)
{
    uint32_t *at = static_cast<uint32_t *>(e->scratch);
    const entries lists[2] = {{at, at + l.list}, {at + 2 * l.list, at + 3 * l.list}};
    sort_args a = {};
    a.ids = static_cast<const int32_t *>(e->in[0].data);
    a.counts = at + 4 * l.list;
    a.totals = a.counts + l.counts;
    a.n = n;
    a.n_rows = e->out[0].shape.dim[0];
    a.per_sorter = per_sorter_of(n);
    a.sorters = sorters_of(n);
    a.to = lists[0];
    for (a.shift = 0; a.shift == 0 || a.n_rows >> a.shift > 0; a.shift += 8) {
        a.first = a.shift == 0;
        a.from = lists[(a.shift / 8 + 1) % 2];
        a.to = lists[a.shift / 8 % 2];
        TESS_LAUNCH(count_kernel, blocks_for(a.sorters, WARPS), THREADS, 0, e->stream, a);
        TESS_LAUNCH(prefix_kernel, DIGITS, THREADS, 0, e->stream, a);
        TESS_LAUNCH(place_kernel, blocks_for(a.sorters, WARPS), THREADS, 0, e->stream, a);
    }
    return a.to;
}

extern "C" tess_status tess__cuda_embedding_grad(const tess_exec *e)
{
    const int64_t n = tess_shape_count(&e->in[0].shape), width = e->out[0].shape.dim[1];
    const int64_t n_rows = e->out[0].shape.dim[0];
    const layout l = layout_of(n, width);
    if (n > INT32_MAX || n_rows > INT32_MAX) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "embedding_grad: expected fewer than 2^31 ids, found "
                         "%lld",
                         static_cast<long long>(n));
    }
    TESS_TRY(tess__cuda_zero(e->out[0].data, static_cast<size_t>(n_rows * width) * sizeof(float),
                             e->stream));
    if (n == 0) {
        return TESS_OK;
    }
    const entries sorted = sort(e, n, l);
    TESS_FOR_FLOAT(e->in[1].dtype, T, {
        sum_args<T> a = {};
        a.dtable = static_cast<float *>(e->out[0].data);
        a.dy = static_cast<const T *>(e->in[1].data);
        a.sorted = sorted;
        a.kept = static_cast<float *>(e->scratch) + 4 * l.list + l.counts + DIGITS;
        a.n = n;
        a.n_rows = n_rows;
        a.width = width;
        a.pieces = pieces_of(n);
        if (width % 4 == 0) {
            add_up<T, 4>(a, e->stream);
        } else {
            add_up<T, 1>(a, e->stream);
        }
    });
    return tess__cuda_launched("embedding_grad");
}
