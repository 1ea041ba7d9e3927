/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernels of attention on a CUDA device share: which rows a block takes, zeros for rows
 * without a segment; and the plain kernels, a warp a row, for rows that the tensor cores do not
 * take. */
#ifndef TESSERA_TENSOR_ATTENTION_CUH
#define TESSERA_TENSOR_ATTENTION_CUH

#include "tensor/kernel.cuh"
extern "C" {
#include "tensor/ops/sdpa.h"
}

/* What all kernels are told. */
template <class T> struct task {
    const T *q, *k, *v, *dy;
    T *y, *dq, *dk, *dv;
    float *lse, *delta; /* (H,n_q) */
    const int32_t *offsets;
    int64_t heads, head_dim, q_row, kv_row, y_row;
    int64_t n_q, n_k, max_q, max_k, blocks; /* a segment and head's */
    float scale;
    bool causal, cross;
};

/* A block's part: its segment, head and first row. */
struct piece {
    int64_t q, n_q, k, n_k, head, first;
};

__device__ __forceinline__ int64_t clamped(int64_t x, int64_t low, int64_t high)
{
    return x < low ? low : x > high ? high : x;
}

template <class T>
__device__ __forceinline__ piece find_piece(const task<T> &s, int64_t rows_per_block)
{
    const int64_t i = static_cast<int64_t>(blockIdx.x) / s.blocks;
    const int64_t segment = i / s.heads;
    piece p;
    p.head = i % s.heads;
    p.first = (static_cast<int64_t>(blockIdx.x) - i * s.blocks) * rows_per_block;
    p.k = segment * s.max_k;
    p.n_k = s.max_k;
    if (s.offsets) {
        p.k = clamped(s.offsets[segment], 0, s.n_k);
        p.n_k =
            clamped(s.offsets[segment + 1] - p.k, 0, s.max_k < s.n_k - p.k ? s.max_k : s.n_k - p.k);
    }
    p.q = s.cross ? segment * s.max_q : p.k;
    p.n_q = s.cross ? s.max_q : p.n_k;
    return p;
}

/* ---- rows that belong to no segment ---------------------------------------------------------- */

static constexpr int ZERO_THREADS = 256, ZERO_BLOCKS = 264;

/* x (rows,width), lse (heads,rows) or NULL; without offsets all rows. */
template <class T>
__global__ void __launch_bounds__(ZERO_THREADS)
    zero_outside_kernel(T *x, float *lse, int64_t rows, int64_t width, int64_t heads,
                        const int32_t *offsets, int64_t n_segments)
{
    const int64_t begin = offsets && n_segments > 0 ? clamped(offsets[0], 0, rows) : 0;
    const int64_t end = offsets ? clamped(offsets[n_segments], begin, rows) : 0;
    for (int64_t i = blockIdx.x; i < begin + rows - end; i += gridDim.x) {
        const int64_t row = i < begin ? i : end + i - begin;
        for (int64_t j = threadIdx.x; j < width; j += ZERO_THREADS) {
            from_float(0.0f, &x[row * width + j]);
        }
        for (int64_t h = threadIdx.x; lse && h < heads; h += ZERO_THREADS) {
            lse[h * rows + row] = 0;
        }
    }
}

/* ---- plain kernels: a warp a row ---------------------------------------------------------------
 */

static constexpr int PLAIN_WARPS = 4;

template <class T> __device__ __forceinline__ float dot_rows(const T *a, const T *b, int64_t n)
{
    float sum = 0;
    for (int64_t d = 0; d < n; d++) {
        sum += to_float(a[d]) * to_float(b[d]);
    }
    return sum;
}

/* y (D) = shrink y + sum over the lanes' rows of weight * row; y in shared memory, lane by lane. */
template <class T>
__device__ __forceinline__ void add_lanes(float *y, float shrink, float weight, const T *rows,
                                          int64_t row, int64_t n_rows, int64_t width)
{
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int n = n_rows < 32 ? static_cast<int>(n_rows) : 32;
    for (int64_t d = lane; d < width; d += 32) {
        y[d] *= shrink;
    }
    for (int i = 0; i < n; i++) {
        const float w = __shfl_sync(0xffffffffu, weight, i);
        for (int64_t d = lane; d < width; d += 32) {
            y[d] += w * to_float(rows[i * row + d]);
        }
    }
}

template <class T>
__device__ __forceinline__ void store_plain(T *to, const float *y, float factor, int64_t width)
{
    for (int64_t d = static_cast<int>(threadIdx.x) % 32; d < width; d += 32) {
        from_float(y[d] * factor, &to[d]);
    }
}

__device__ __forceinline__ void clear_plain(float *y, int64_t width)
{
    for (int64_t d = static_cast<int>(threadIdx.x) % 32; d < width; d += 32) {
        y[d] = 0;
    }
}

template <class T> __global__ void __launch_bounds__(32 * PLAIN_WARPS) sdpa_plain_kernel(task<T> s)
{
    TESS_SHARED_DYNAMIC(float, shared);
    const piece p = find_piece(s, PLAIN_WARPS);
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int64_t i = p.first + warp, column = p.head * s.head_dim;
    if (i >= p.n_q) {
        return;
    }
    float *y = shared + warp * s.head_dim;
    const T *q = s.q + (p.q + i) * s.q_row + column;
    const T *k = s.k + p.k * s.kv_row + column, *v = s.v + p.k * s.kv_row + column;
    const int64_t n = s.causal ? i + 1 : p.n_k;
    float top = -INFINITY, sum = 0;
    clear_plain(y, s.head_dim);
    for (int64_t j = 0; j < n; j += 32) {
        const float score =
            j + lane < n ? s.scale * dot_rows(q, k + (j + lane) * s.kv_row, s.head_dim) : -INFINITY;
        const float higher = fmaxf(top, warp_max(score));
        const float e = expf(score - higher), shrink = expf(top - higher);
        sum = sum * shrink + warp_sum(e);
        top = higher;
        add_lanes(y, shrink, e, v + j * s.kv_row, s.kv_row, n - j, s.head_dim);
    }
    store_plain(s.y + (p.q + i) * s.y_row + column, y, n > 0 ? 1.0f / sum : 0.0f, s.head_dim);
    if (lane == 0) {
        s.lse[p.head * s.n_q + p.q + i] = n > 0 ? top + logf(sum) : 0.0f;
    }
}

/* P and dP of query i and key j; 0 beyond the mask. */
template <class T>
__device__ __forceinline__ void plain_pair(const task<T> &s, const piece &p, int64_t i, int64_t j,
                                           float *prob, float *dprob)
{
    const int64_t column = p.head * s.head_dim;
    *prob = *dprob = 0;
    if (i < p.n_q && j < p.n_k && (!s.causal || j <= i)) {
        const T *q = s.q + (p.q + i) * s.q_row + column, *k = s.k + (p.k + j) * s.kv_row + column;
        const T *v = s.v + (p.k + j) * s.kv_row + column, *dy = s.dy + (p.q + i) * s.y_row + column;
        *prob = expf(s.scale * dot_rows(q, k, s.head_dim) - s.lse[p.head * s.n_q + p.q + i]);
        *dprob = dot_rows(dy, v, s.head_dim);
    }
}

template <class T>
__global__ void __launch_bounds__(32 * PLAIN_WARPS) sdpa_grad_q_plain_kernel(task<T> s)
{
    TESS_SHARED_DYNAMIC(float, shared);
    const piece p = find_piece(s, PLAIN_WARPS);
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int64_t i = p.first + warp, column = p.head * s.head_dim;
    if (i >= p.n_q) {
        return;
    }
    float *dq = shared + warp * s.head_dim, delta = 0, prob, dprob;
    const int64_t n = s.causal ? i + 1 : p.n_k;
    for (int64_t j = 0; j < n; j += 32) {
        plain_pair(s, p, i, j + lane, &prob, &dprob);
        delta += warp_sum(prob * dprob);
    }
    clear_plain(dq, s.head_dim);
    for (int64_t j = 0; j < n; j += 32) {
        plain_pair(s, p, i, j + lane, &prob, &dprob);
        add_lanes(dq, 1.0f, prob * (dprob - delta), s.k + (p.k + j) * s.kv_row + column, s.kv_row,
                  n - j, s.head_dim);
    }
    store_plain(s.dq + (p.q + i) * s.q_row + column, dq, s.scale, s.head_dim);
    if (lane == 0) {
        s.delta[p.head * s.n_q + p.q + i] = delta;
    }
}

template <class T>
__global__ void __launch_bounds__(32 * PLAIN_WARPS) sdpa_grad_kv_plain_kernel(task<T> s)
{
    TESS_SHARED_DYNAMIC(float, shared);
    const piece p = find_piece(s, PLAIN_WARPS);
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int64_t j = p.first + warp, column = p.head * s.head_dim;
    if (j >= p.n_k) {
        return;
    }
    float *dk = shared + 2 * warp * s.head_dim, *dv = dk + s.head_dim;
    clear_plain(dk, s.head_dim);
    clear_plain(dv, s.head_dim);
    for (int64_t i = 0; i < p.n_q; i += 32) {
        float prob, dprob;
        plain_pair(s, p, i + lane, j, &prob, &dprob);
        const float delta = i + lane < p.n_q ? s.delta[p.head * s.n_q + p.q + i + lane] : 0.0f;
        add_lanes(dv, 1.0f, prob, s.dy + (p.q + i) * s.y_row + column, s.y_row, p.n_q - i,
                  s.head_dim);
        add_lanes(dk, 1.0f, prob * (dprob - delta), s.q + (p.q + i) * s.q_row + column, s.q_row,
                  p.n_q - i, s.head_dim);
    }
    store_plain(s.dk + (p.k + j) * s.kv_row + column, dk, s.scale, s.head_dim);
    store_plain(s.dv + (p.k + j) * s.kv_row + column, dv, 1.0f, s.head_dim);
}

#endif
