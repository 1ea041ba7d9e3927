/* SPDX-License-Identifier: Apache-2.0 */
/* CPU kernels: plain C, compiled once per instruction set (see ISAS in the Makefile); an intrinsic,
 * where one pays, stands beside a portable twin under #if.  A kernel is single-threaded and works
 * on a range of rows; operators split the rows among threads in fixed chunks, so that results do
 * not depend on the number of threads.
 *
 * Activations are f32 or bf16 (`dtype`); statistics, gradients of parameters and sums are f32. */
#ifndef TESSERA_TENSOR_KERNELS_H
#define TESSERA_TENSOR_KERNELS_H

#include "tessera/tensor.h"

typedef struct tess_attention_args {
    tess_dtype dtype;
    const void *q, *k, *v;                /* first row of the segment, first element of the head */
    int64_t q_stride, k_stride, v_stride; /* elements between rows */
    int64_t n_q, n_k, head_dim;
    bool causal; /* query i sees keys 0..i */
    float scale;
    void *y;          /* n_q rows, head's first element; forward only */
    int64_t y_stride; /* of y and dy */
    float *lse;       /* n_q */
    float *scratch;
    /* backward only */
    const void *dy;
    void *dq, *dk, *dv; /* strides as q, k, v */
} tess_attention_args;

#define TESS_PANEL 64 /* columns of packed weights that lie together; see tensor/packed.h */

/* y (rows, cols <= TESS_PANEL) = act(a b + bias) + residual for one panel b. */
typedef struct tess_packed_args {
    tess_dtype kind;       /* of the weights: f32, bf16, i8 */
    tess_dtype dtype;      /* of y and residual */
    const void *a;         /* rows of 32-bit groups along k, a_row groups apart */
    const float *a_scale;  /* (rows), i8 only, as the next three: x = a_scale (a - a_zero) */
    const int32_t *a_zero; /* (rows) */
    const float *b_scale;  /* (TESS_PANEL) */
    const int32_t *b_sum;  /* (TESS_PANEL), of a column's integers */
    const void *b;         /* the panel */
    const void *next;      /* to be fetched meanwhile, next_bytes of it, or NULL */
    int64_t next_bytes;
    const float *bias;    /* (cols) or NULL */
    const void *residual; /* rows y_row elements apart, or NULL */
    void *y;              /* rows y_row elements apart */
    int64_t rows, cols, groups, a_row, y_row;
    tess_unary_kind act;
    void (*unary)(tess_unary_kind k, tess_dtype t, void *y, const void *x, int64_t n); /* or NULL */
} tess_packed_args;

/* c (rows,n) = act(a (rows,k) B + bias (n)) + residual (rows,n), all of bf16 but bias, rows without
 * gaps; k even, n a multiple of 16. */
typedef struct tess_rows_args {
    const void *a, *residual; /* residual may be NULL */
    const float *panels;      /* of B, by rows_pack */
    const float *bias;        /* or NULL */
    void *c;
    int64_t rows, k, n;
    bool relu;
} tess_rows_args;

typedef struct tess_outer_args {
    const void *a, *b; /* bf16: rows of m, and of n, which is a multiple of 16 */
    int64_t a_stride, b_stride, rows, m, n;
    float *c; /* (m,n) */
    int64_t c_stride;
    float *scratch;
} tess_outer_args;

/* Rows shorter than this are scaled as if they had this length, and get no gradient. */
#define TESS_L2_EPS 1e-12f

typedef struct tess_kernels {
    void (*convert)(tess_dtype to, void *out, tess_dtype from, const void *in, int64_t n);
    void (*add)(tess_dtype t, void *out, const void *a, const void *b, int64_t n);
    void (*add_f32)(tess_dtype t, void *out, const void *x, const float *b, int64_t n);
    void (*axpy)(tess_dtype t, float *y, const void *x, float a, int64_t n); /* y += a x */
    void (*scale)(tess_dtype t, void *out, const void *x, float a, int64_t n);
    /* sum (width) += the rows of x */
    void (*column_sum)(tess_dtype t, float *sum, const void *x, int64_t rows, int64_t width);
    /* dx = dy where y > 0, else 0; sum (width) += the rows of dx */
    void (*relu_grad)(tess_dtype t, void *dx, float *sum, const void *y, const void *dy,
                      int64_t rows, int64_t width);
    void (*patchify)(tess_dtype t, void *out, const uint8_t *picture, int64_t size, int64_t patch,
                     const float mean[3], const float std[3]); /* one picture */
    void (*unary)(tess_unary_kind k, tess_dtype t, void *y, const void *x, int64_t n);
    /* The same within 4e-5, for what is rounded to bf16 next. */
    void (*unary_rough)(tess_unary_kind k, tess_dtype t, void *y, const void *x, int64_t n);
    void (*unary_grad)(tess_unary_kind k, tess_dtype t, void *dx, const void *x, const void *dy,
                       int64_t n);
    /* rows x width */
    void (*layernorm)(tess_dtype t, void *y, float *mean, float *rstd, const void *x,
                      const float *weight, const float *bias, float eps, int64_t rows,
                      int64_t width);
    /* dx, with skip (or NULL) added; dweight and dbias (width) are added to. */
    void (*layernorm_grad)(tess_dtype t, void *dx, float *dweight, float *dbias, const void *x,
                           const float *weight, const float *mean, const float *rstd,
                           const void *dy, const void *skip, int64_t rows, int64_t width);
    void (*l2norm)(tess_dtype t, float *y, float *norm, const void *x, int64_t rows, int64_t width);
    void (*l2norm_grad)(tess_dtype t, void *dx, const float *y, const float *norm, const float *dy,
                        int64_t rows, int64_t width);
    /* floats of scratch for one (segment, head) of up to n_q x n_k, forward or backward */
    int64_t (*attention_scratch)(int64_t n_q, int64_t n_k, int64_t head_dim);
    void (*attention)(const tess_attention_args *a);
    void (*attention_grad)(const tess_attention_args *a);
    /* Lays out one panel, TESS_PANEL columns, of B (k,n), or (n,k) with b_trans; a panel is k/2 *
     * TESS_PANEL floats.  Both are NULL where the processor does not multiply pairs of bf16. */
    void (*rows_pack)(float *panels, const void *b, int64_t k, int64_t n, bool b_trans,
                      int64_t panel);
    void (*rows_product)(const tess_rows_args *a);
    /* c = a^T b, and floats of scratch; NULL where the processor does not multiply pairs of bf16 */
    int64_t (*outer_scratch)(int64_t m, int64_t n);
    void (*outer)(const tess_outer_args *a);
    /* max and sum of exp(x*scale - max) of a row, merged into the running pair, which starts at
     * (-infinity, 0) */
    void (*row_lse)(const float *x, int64_t n, float scale, float *running_max, float *running_sum);
    /* the same for n columns of `rows` rows, `stride` apart */
    void (*column_lse)(const float *x, int64_t rows, int64_t stride, int64_t n, float scale,
                       float *running_max, float *running_sum);
    /* A row of dots becomes its gradient in place: with z = x*scale,
     * g = factor * (exp(z - row) + exp(z - column[j]) - 2 at the diagonal), x = g*scale; returns
     * the sum of g*z, the gradient of the logarithm of scale.  A diagonal outside of 0..n-1, here
     * and below: the row has none. */
    double (*softmax_pair_grad)(float *x, int64_t n, float scale, float row, const float *column,
                                int64_t diagonal, float factor);
    /* Sum of softplus(z) off and softplus(-z) on the diagonal, z = x*scale + bias. */
    double (*sigmoid_loss)(const float *x, int64_t n, float scale, float bias, int64_t diagonal);
    /* x becomes factor * scale * d loss / d z; adds to the gradients of log scale and bias. */
    void (*sigmoid_grad)(float *x, int64_t n, float scale, float bias, int64_t diagonal,
                         float factor, double *dlog_scale, double *dbias);
    void (*packed_panel)(const tess_packed_args *a);
    /* Each row of x (rows, width) to bytes q, q_row apart: x = scale (q - zero) within scale / 2,
     * scale = (max - min) / 255 over the row and 0.  Bytes behind the width stand for 0. */
    void (*quantise)(tess_dtype t, uint8_t *q, int64_t q_row, float *scale, int32_t *zero,
                     const void *x, int64_t rows, int64_t width);
    double (*sumsq)(const float *x, int64_t n);
    /* One AdamW pass; grad is zeroed.  lr, bias corrections and the gradient's factor are final. */
    void (*adamw)(float *p, float *g, float *m, float *v, int64_t n, float lr, float beta1,
                  float beta2, float eps, float decay, float correct1, float correct2,
                  float grad_factor);
    /* y[i] = x[i] in bf16, up with the probability of its distance from below: 16 bits of
     * tess_philox(seed, step, element / 4) are added to those that are cut off, bits 16 to 31 of
     * word element % 4, where element = first + i.  NaN and infinity are rounded to nearest. */
    void (*round_stochastic)(uint16_t *y, const float *x, int64_t n, int64_t first, uint64_t seed,
                             uint64_t step);
} tess_kernels;

/* The table for tess_isa_get(). */
const tess_kernels *tess__kernels(void);

/* Inside the kernels folder: TESS_K(name) gives name its instruction set's suffix. */
#define TESS_K_PASTE(name, isa)  tess__##name##_##isa
#define TESS_K_EXPAND(name, isa) TESS_K_PASTE(name, isa)
#define TESS_K(name)             TESS_K_EXPAND(name, TESS_ISA)

#endif
