/* SPDX-License-Identifier: Apache-2.0 */
/* linear_fp8 on a CUDA device: kernels that round, and cuBLASLt's FP8 products.
 *
 * Those want both operands with the summed dimension last, so what the gradient multiplies is
 * rounded transposed: w for dx, dy and x for dw.  A tensor is read twice, for its largest number
 * and to be rounded, where one read makes both forms of dy; the sums over rows are filled with
 * zeros to a multiple of 16.  Memory bounds all of it, so scales stay on the card.
 *
 * A block of the rounding kernel takes a tile of 64 x 64: packs of 16 bytes come in by rows, codes
 * go out by rows from registers and by columns through shared memory. */
#include "tensor/kernel.cuh"

extern "C" {
#include "tensor/cuda_matmul.h"
#include "tensor/ops/linear_fp8.h"
}
#include "tensor/fp8.h"

namespace
{

constexpr int THREADS = 256, WARPS = THREADS / 32, TILE = 64;
constexpr int COLUMN = TILE + 16; /* bytes from column to column of a tile, in packs */
constexpr int64_t BLOCKS = 528;   /* four for each SM of an H200 */
constexpr int E4M3 = 3, E5M2 = 2; /* bits of the mantissa */

/* ---- the scale ------------------------------------------------------------------------------- */

__device__ __forceinline__ float block_max(float x, float *partial)
{
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    x = warp_max(x);
    if (lane == 0) {
        partial[warp] = x;
    }
    __syncthreads();
    return warp_max(lane < WARPS ? partial[lane] : 0.0f);
}

/* NaN is passed over, and stays in the codes. */
__global__ void __launch_bounds__(THREADS) amax_kernel(float *block_amax, const bf16 *x, int64_t n)
{
    TESS_SHARED(float, partial, WARPS);
    const int64_t stride = static_cast<int64_t>(gridDim.x) * THREADS * 8;
    float most = 0;
    for (int64_t i = (static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x) * 8; i < n;
         i += stride) {
        const run<bf16, 8> v(x, i);
        for (int k = 0; k < 8; k++) {
            most = fmaxf(most, fabsf(v.x[k]));
        }
    }
    most = block_max(most, partial);
    if (threadIdx.x == 0) {
        block_amax[blockIdx.x] = most;
    }
}

__global__ void __launch_bounds__(THREADS)
    scale_kernel(float *scale, const float *block_amax, int n, uint32_t bits)
{
    TESS_SHARED(float, partial, WARPS);
    float most = 0;
    for (int i = static_cast<int>(threadIdx.x); i < n; i += THREADS) {
        most = fmaxf(most, block_amax[i]);
    }
    most = block_max(most, partial);
    if (threadIdx.x == 0) {
        *scale = tess__f8_scale(most, bits);
    }
}

/* ---- rounding -------------------------------------------------------------------------------- */

template <int BITS> __device__ __forceinline__ uint8_t round_f8(float x)
{
#if defined __CUDA_ARCH__ && __CUDA_ARCH__ >= 890
    unsigned short two;
    if (BITS == E4M3) {
        asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(two) : "f"(0.0f), "f"(x));
    } else {
        asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(two) : "f"(0.0f), "f"(x));
    }
    return static_cast<uint8_t>(two);
#else
    return tess__f8_round(x, BITS);
#endif
}

struct round_args {
    uint8_t *rows;    /* (n_rows,width), or NULL */
    uint8_t *columns; /* (width,n_columns), or NULL */
    const bf16 *x;    /* (n_rows,width); width a multiple of 16 */
    const float *scale;
    int64_t n_rows, width;
    int64_t n_columns; /* n_rows in multiples of 16; what is beyond them is 0 */
};

template <int BITS> __global__ void __launch_bounds__(THREADS) round_kernel(round_args a)
{
    TESS_SHARED(uint8_t, tile, TILE * COLUMN);
    const int64_t row = static_cast<int64_t>(blockIdx.x) * TILE;
    const int64_t column = static_cast<int64_t>(blockIdx.y) * TILE;
    const float inverse = 1 / *a.scale;
    for (int i = static_cast<int>(threadIdx.x); i < TILE * TILE / 8; i += THREADS) {
        const int r = i / (TILE / 8), j = i % (TILE / 8) * 8;
        const bool inside = row + r < a.n_rows && column + j < a.width;
        access<uint8_t, 8> codes = {};
        if (inside) {
            const run<bf16, 8> v(a.x + (row + r) * a.width, column + j);
            for (int k = 0; k < 8; k++) {
                codes.x[k] = round_f8<BITS>(v.x[k] * inverse);
            }
        }
        if (inside && a.rows) {
            *reinterpret_cast<access<uint8_t, 8> *>(a.rows + (row + r) * a.width + column + j) =
                codes;
        }
        for (int k = 0; a.columns && k < 8; k++) {
            tile[(j + k) * COLUMN + r] = codes.x[k];
        }
    }
    if (!a.columns) {
        return;
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < TILE * TILE / 16; i += THREADS) {
        const int j = i / (TILE / 16), r = i % (TILE / 16) * 16;
        if (column + j < a.width && row + r < a.n_columns) {
            store_pack(a.columns + (column + j) * a.n_columns + row + r,
                       load_pack(tile + j * COLUMN + r));
        }
    }
}

/* ---- scratch: packs of bytes, one after the other -------------------------------------------- */

int64_t in_packs(int64_t n)
{
    return (n + 15) / 16 * 16;
}

int64_t amax_blocks(int64_t n)
{
    const int64_t wanted = blocks_for(n, THREADS * 8);
    return wanted < BLOCKS ? wanted : BLOCKS;
}

/* x's scale to *scale, in the stream's order. */
void find_scale(float *scale, const tess_operand *x, int bits, float *block_amax, void *stream)
{
    const int64_t n = tess_shape_count(&x->shape), blocks = amax_blocks(n);
    TESS_LAUNCH(amax_kernel, static_cast<unsigned>(blocks), THREADS, 0, stream, block_amax,
                static_cast<const bf16 *>(x->data), n);
    TESS_LAUNCH(scale_kernel, 1, THREADS, 0, stream, scale, static_cast<const float *>(block_amax),
                static_cast<int>(blocks), static_cast<uint32_t>(bits));
}

void round_operand(const tess_operand *x, const float *scale, int bits, void *rows, void *columns,
                   void *stream)
{
    round_args a = {};
    a.rows = static_cast<uint8_t *>(rows);
    a.columns = static_cast<uint8_t *>(columns);
    a.x = static_cast<const bf16 *>(x->data);
    a.scale = scale;
    a.n_rows = tess__rows(&x->shape);
    a.width = tess__last(&x->shape);
    a.n_columns = in_packs(a.n_rows);
    const dim3 grid(blocks_for(a.n_rows, TILE), blocks_for(a.width, TILE));
    if (bits == E4M3) {
        TESS_LAUNCH(round_kernel<E4M3>, grid, THREADS, 0, stream, a);
    } else {
        TESS_LAUNCH(round_kernel<E5M2>, grid, THREADS, 0, stream, a);
    }
}

tess_cuda_product product(int64_t m, int64_t n, int64_t k, tess_dtype out)
{
    tess_cuda_product p = {};
    p.matmul.m = m;
    p.matmul.n = n;
    p.matmul.k = k;
    p.matmul.in = TESS_F8E4M3;
    p.matmul.out = out;
    p.matmul.b_trans = true;
    return p;
}

constexpr int64_t SUMS_BYTES = (BLOCKS + 4) * sizeof(float); /* block_amax, dy's scale */

} // namespace

extern "C" size_t tess__cuda_linear_fp8_scratch(const tess_prepare *c)
{
    return static_cast<size_t>(SUMS_BYTES + tess_shape_count(&c->in[0].shape) +
                               tess_shape_count(&c->in[1].shape));
}

extern "C" tess_status tess__cuda_linear_fp8(const tess_exec *e)
{
    const tess_operand *x = &e->in[0], *w = &e->in[1];
    const int64_t rows = tess__rows(&x->shape), m = w->shape.dim[0], k = w->shape.dim[1];
    float *block_amax = static_cast<float *>(e->scratch);
    float *scales = static_cast<float *>(e->out[1].data);
    uint8_t *x_codes = static_cast<uint8_t *>(e->scratch) + SUMS_BYTES;
    uint8_t *w_codes = x_codes + rows * k;
    find_scale(&scales[0], x, E4M3, block_amax, e->stream);
    find_scale(&scales[1], w, E4M3, block_amax, e->stream);
    if (rows == 0) {
        return tess__cuda_launched("linear_fp8");
    }
    round_operand(x, &scales[0], E4M3, x_codes, NULL, e->stream);
    round_operand(w, &scales[1], E4M3, w_codes, NULL, e->stream);
    TESS_TRY(tess__cuda_launched("linear_fp8"));
    tess_cuda_product p = product(rows, m, k, TESS_BF16);
    p.matmul.bias = e->in[2].data != NULL;
    p.matmul.residual = e->in[3].data != NULL;
    tess_cuda_args a = {};
    a.matmul.a = x_codes;
    a.matmul.b = w_codes;
    a.matmul.bias = static_cast<const float *>(e->in[2].data);
    a.matmul.residual = e->in[3].data;
    a.matmul.c = e->out[0].data;
    a.a_scale = &scales[0];
    a.b_scale = &scales[1];
    return tess__cuda_product(&p, &a, e->stream);
}

extern "C" size_t tess__cuda_linear_fp8_grad_scratch(const tess_prepare *c)
{
    const linear_fp8_grad_attrs *a = static_cast<const linear_fp8_grad_attrs *>(c->attrs);
    const int64_t rows = tess__rows(&c->in[0].shape), m = c->in[1].shape.dim[0];
    const int64_t k = c->in[1].shape.dim[1];
    return static_cast<size_t>(SUMS_BYTES + (a->dx ? rows * m + m * k : 0) +
                               (a->dw ? in_packs(rows) * (m + k) : 0));
}

/* dx (n_rows,K) = dy (n_rows,M) times w transposed to (K,M). */
static tess_status multiply_dx(const tess_exec *e, uint8_t *dy, const float *dy_scale)
{
    const int64_t rows = tess__rows(&e->in[0].shape), m = e->in[1].shape.dim[0];
    uint8_t *w = dy + rows * m;
    const float *scales = static_cast<const float *>(e->in[3].data);
    round_operand(&e->in[1], &scales[1], E4M3, NULL, w, e->stream);
    tess_cuda_product p = product(rows, e->in[1].shape.dim[1], m, TESS_BF16);
    p.a_e5m2 = true;
    tess_cuda_args a = {};
    a.matmul.a = dy;
    a.matmul.b = w;
    a.matmul.c = e->out[0].data;
    a.a_scale = dy_scale;
    a.b_scale = &scales[1];
    return tess__cuda_product(&p, &a, e->stream);
}

/* dw (M,K) = dy transposed to (M,n_rows) times x transposed to (K,n_rows). */
static tess_status multiply_dw(const tess_exec *e, uint8_t *dy, const float *dy_scale)
{
    const int64_t rows = in_packs(tess__rows(&e->in[0].shape)), m = e->in[1].shape.dim[0];
    uint8_t *x = dy + rows * m;
    const float *scales = static_cast<const float *>(e->in[3].data);
    round_operand(&e->in[0], &scales[0], E4M3, NULL, x, e->stream);
    tess_cuda_product p = product(m, e->in[1].shape.dim[1], rows, TESS_F32);
    p.a_e5m2 = true;
    tess_cuda_args a = {};
    a.matmul.a = dy;
    a.matmul.b = x;
    a.matmul.c = e->out[1].data;
    a.a_scale = dy_scale;
    a.b_scale = &scales[0];
    return tess__cuda_product(&p, &a, e->stream);
}

extern "C" tess_status tess__cuda_linear_fp8_grad(const tess_exec *e)
{
    const linear_fp8_grad_attrs *a = static_cast<const linear_fp8_grad_attrs *>(e->attrs);
    const int64_t rows = tess__rows(&e->in[0].shape), m = e->in[1].shape.dim[0];
    const int64_t k = e->in[1].shape.dim[1];
    float *block_amax = static_cast<float *>(e->scratch), *dy_scale = block_amax + BLOCKS;
    uint8_t *codes = static_cast<uint8_t *>(e->scratch) + SUMS_BYTES;
    uint8_t *columns = codes + (a->dx ? rows * m + m * k : 0);
    if (rows == 0) {
        const size_t n_bytes = static_cast<size_t>(tess_shape_count(&e->out[1].shape));
        return tess__cuda_zero(e->out[1].data, n_bytes * sizeof(float), e->stream);
    }
    find_scale(dy_scale, &e->in[2], E5M2, block_amax, e->stream);
    round_operand(&e->in[2], dy_scale, E5M2, a->dx ? codes : NULL, a->dw ? columns : NULL,
                  e->stream);
    TESS_TRY(tess__cuda_launched("linear_fp8_grad"));
    if (a->dx) {
        TESS_TRY(multiply_dx(e, codes, dy_scale));
    }
    return a->dw ? multiply_dw(e, columns, dy_scale) : TESS_OK;
}
