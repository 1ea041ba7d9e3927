/* SPDX-License-Identifier: Apache-2.0 */
/* muon on a CUDA device: a matrix at a time, fifteen products through cuBLASLt and between them
 * kernels over n or `side` numbers; for the widths of real towers the products take the time.
 *
 * muon.c has the equations.  The norm is a sum over blocks in order, so a run repeats. */
#include "tensor/optimizer.cuh"

extern "C" {
#include "tensor/cuda_matmul.h"
}

static constexpr int THREADS = 256, WARPS = THREADS / 32, BLOCKS = 256, N_ITERATIONS = 5;
static constexpr double COEF_A = 3.4445, COEF_B = -4.7750, COEF_C = 2.0315;
enum { PARAM, GRAD, M, HYPER, SUMSQ };

/* ---- kernels --------------------------------------------------------------------------------- */

struct momentum_args {
    float *grad, *m, *u, *partial; /* partial (BLOCKS): sums of u's squares */
    const float *hyper, *sumsq;
    float momentum, clip;
    int64_t n;
};

__global__ void __launch_bounds__(THREADS) momentum_kernel(momentum_args a)
{
    TESS_SHARED(float, shared, WARPS);
    const bool counts = update_counts(a.sumsq);
    const float factor = grad_factor(a.hyper, a.sumsq, a.clip);
    float squares = 0;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x; i < a.n;
         i += static_cast<int64_t>(gridDim.x) * THREADS) {
        const float d = a.grad[i] * factor;
        a.grad[i] = 0;
        if (counts) {
            const float m = a.momentum * a.m[i] + d, u = d + a.momentum * m;
            a.m[i] = m;
            a.u[i] = u;
            squares += u * u;
        }
    }
    squares = block_sum(squares, shared);
    if (threadIdx.x == 0) {
        a.partial[blockIdx.x] = squares;
    }
}

/* y = u * stretch / (|u| + 1e-7), with |u| from the blocks' sums. */
template <class T>
__global__ void __launch_bounds__(THREADS) scale_kernel(T *y, const float *u, const float *partial,
                                                        int n_partial, float stretch, int64_t n)
{
    TESS_SHARED(float, shared, WARPS);
    const int t = static_cast<int>(threadIdx.x);
    const float squares = block_sum(t < n_partial ? partial[t] : 0.0f, shared);
    const float factor = stretch / (sqrtf(squares) + 1e-7f);
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + t; i < n;
         i += static_cast<int64_t>(gridDim.x) * THREADS) {
        from_float(u[i] * factor, &y[i]);
    }
}

template <class T>
__global__ void __launch_bounds__(THREADS) diagonal_kernel(T *x, int64_t side, float value)
{
    const int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
    if (i < side) {
        from_float(to_float(x[i * side + i]) + value, &x[i * side + i]);
    }
}

struct step_args {
    float *param;
    const float *hyper, *sumsq;
    float lr_factor, weight_decay, scale;
    int64_t n;
};

template <class T> __global__ void __launch_bounds__(THREADS) step_kernel(step_args a, const T *y)
{
    const float lr = a.hyper[TESS_HYPER_LR] * a.lr_factor;
    if (!update_counts(a.sumsq)) {
        return;
    }
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x; i < a.n;
         i += static_cast<int64_t>(gridDim.x) * THREADS) {
        a.param[i] = a.param[i] * (1 - lr * a.weight_decay) - lr * a.scale * to_float(y[i]);
    }
}

/* ---- launching ------------------------------------------------------------------------------- */

/* What one matrix is worked on with. */
template <class T> struct workbench {
    float *partial, *u;
    T *y, *next, *f, *b;
    size_t n_bytes;
};

static size_t carve(size_t *at, size_t n_bytes)
{
    const size_t here = *at;
    *at += (n_bytes + 255) / 256 * 256;
    return here;
}

template <class T> static workbench<T> lay_out(void *scratch, int64_t rows, int64_t cols)
{
    const size_t n = static_cast<size_t>(rows * cols);
    const size_t side = static_cast<size_t>(rows < cols ? rows : cols);
    const uintptr_t base = reinterpret_cast<uintptr_t>(scratch);
    workbench<T> w = {};
    w.partial = reinterpret_cast<float *>(base + carve(&w.n_bytes, BLOCKS * sizeof(float)));
    w.u = reinterpret_cast<float *>(base + carve(&w.n_bytes, n * sizeof(float)));
    w.y = reinterpret_cast<T *>(base + carve(&w.n_bytes, n * sizeof(T)));
    w.next = reinterpret_cast<T *>(base + carve(&w.n_bytes, n * sizeof(T)));
    w.f = reinterpret_cast<T *>(base + carve(&w.n_bytes, side * side * sizeof(T)));
    w.b = reinterpret_cast<T *>(base + carve(&w.n_bytes, side * side * sizeof(T)));
    return w;
}

extern "C" size_t tess__cuda_muon_scratch(const tess_prepare *c)
{
    const tess_muon_options *o = static_cast<const tess_muon_options *>(c->attrs);
    size_t most = 0;
    for (int64_t i = 0; i < o->n_matrices; i++) {
        const size_t n_bytes =
            lay_out<float>(nullptr, o->matrix[i].rows, o->matrix[i].cols).n_bytes;
        most = n_bytes > most ? n_bytes : most;
    }
    return most;
}

static tess_status product(const tess_exec *e, tess_matmul_spec spec, tess_dtype t, const void *a,
                           const void *b, void *c)
{
    tess_matmul_args args = {};
    spec.in = spec.out = t;
    args.a = a;
    args.b = b;
    args.c = c;
    return tess__cuda_matmul(&spec, &args, e->stream);
}

/* Y = ((Y Y^T - beta)^2 + kappa) Y, or from the right for tall matrices. */
template <class T>
static tess_status orthogonalise(const tess_exec *e, tess_dtype t, workbench<T> *w, int64_t rows,
                                 int64_t cols)
{
    const double beta = -COEF_B / (2 * sqrt(COEF_C)), kappa = COEF_A - beta * beta;
    const bool tall = rows > cols;
    const int64_t s = tall ? cols : rows, l = tall ? rows : cols;
    tess_matmul_spec gram = {}, square = {}, apply = {};
    gram.m = gram.n = square.m = square.n = square.k = apply.k = s;
    gram.k = l;
    gram.a_trans = tall;
    gram.b_trans = !tall;
    apply.m = rows;
    apply.n = cols;
    for (int i = 0; i < N_ITERATIONS; i++) {
        TESS_TRY(product(e, gram, t, w->y, w->y, w->f));
        TESS_LAUNCH(diagonal_kernel<T>, blocks_for(s, THREADS), THREADS, 0, e->stream, w->f, s,
                    static_cast<float>(-beta));
        TESS_TRY(product(e, square, t, w->f, w->f, w->b));
        TESS_LAUNCH(diagonal_kernel<T>, blocks_for(s, THREADS), THREADS, 0, e->stream, w->b, s,
                    static_cast<float>(kappa));
        const void *left = tall ? w->y : w->b, *right = tall ? w->b : w->y;
        TESS_TRY(product(e, apply, t, left, right, w->next));
        T *y = w->y;
        w->y = w->next;
        w->next = y;
    }
    return TESS_OK;
}

template <class T>
static tess_status update(const tess_exec *e, const tess_muon_options *o, int64_t begin,
                          int64_t rows, int64_t cols)
{
    const int64_t n = rows * cols, longer = rows > cols ? rows : cols;
    const unsigned all = blocks_for(n, THREADS), blocks = all < BLOCKS ? all : BLOCKS;
    const double stretch = sqrt(sqrt(COEF_C));
    workbench<T> w = lay_out<T>(e->scratch, rows, cols);
    momentum_args m = {};
    m.grad = static_cast<float *>(e->in[GRAD].data) + begin;
    m.m = static_cast<float *>(e->in[M].data) + begin;
    m.u = w.u;
    m.partial = w.partial;
    m.hyper = static_cast<const float *>(e->in[HYPER].data);
    m.sumsq = static_cast<const float *>(e->in[SUMSQ].data);
    m.momentum = o->momentum;
    m.clip = o->clip;
    m.n = n;
    step_args s = {};
    s.param = static_cast<float *>(e->in[PARAM].data) + begin;
    s.hyper = m.hyper;
    s.sumsq = m.sumsq;
    s.lr_factor = o->lr_factor;
    s.weight_decay = o->weight_decay;
    s.scale = static_cast<float>(0.2 * sqrt(static_cast<double>(longer)) / stretch);
    s.n = n;
    TESS_LAUNCH(momentum_kernel, blocks, THREADS, 0, e->stream, m);
    TESS_LAUNCH(scale_kernel<T>, blocks, THREADS, 0, e->stream, w.y, w.u, w.partial,
                static_cast<int>(blocks), static_cast<float>(stretch), n);
    TESS_TRY(orthogonalise(e, o->dtype, &w, rows, cols));
    TESS_LAUNCH(step_kernel<T>, blocks, THREADS, 0, e->stream, s, w.y);
    return tess__cuda_launched("muon");
}

extern "C" tess_status tess__cuda_muon(const tess_exec *e)
{
    const tess_muon_options *o = static_cast<const tess_muon_options *>(e->attrs);
    for (int64_t i = 0; i < o->n_matrices; i++) {
        TESS_FOR_FLOAT(
            o->dtype, T,
            TESS_TRY(update<T>(e, o, o->matrix[i].begin, o->matrix[i].rows, o->matrix[i].cols)));
    }
    return TESS_OK;
}
