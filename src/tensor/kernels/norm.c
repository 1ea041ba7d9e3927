/* SPDX-License-Identifier: Apache-2.0 */
/* Layer normalisation and unit length, forward and backward, one row at a time: a row stays in L1
 * between its two or three passes, so memory is read once and written once.
 *
 * The variance is the mean of squared deviations (two passes), not E[x^2] - E[x]^2, which loses all
 * digits when the mean is large. */
#include "tensor/kernels/vec.h"

#include <math.h>

INLINE void layernorm_body(void *y, float *mean, float *rstd, const void *x, const float *weight,
                           const float *bias, float eps, int64_t rows, int64_t width, bool bf16)
{
    for (int64_t r = 0; r < rows; r++) {
        const void *xr = at(x, r * width, bf16);
        void *yr = at_mut(y, r * width, bf16);
        float sum = 0.0f, squares = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < width; j++) {
            sum += load1(xr, j, bf16);
        }
        const float m = sum / (float)width;
#pragma omp simd reduction(+ : squares)
        for (int64_t j = 0; j < width; j++) {
            const float d = load1(xr, j, bf16) - m;
            squares += d * d;
        }
        const float s = 1.0f / sqrtf(squares / (float)width + eps);
#pragma omp simd
        for (int64_t j = 0; j < width; j++) {
            store1(yr, j, (load1(xr, j, bf16) - m) * s * weight[j] + bias[j], bf16);
        }
        mean[r] = m;
        rstd[r] = s;
    }
}

static void layernorm(tess_dtype t, void *y, float *mean, float *rstd, const void *x,
                      const float *weight, const float *bias, float eps, int64_t rows,
                      int64_t width)
{
    BY_DTYPE(t, layernorm_body, y, mean, rstd, x, weight, bias, eps, rows, width);
}

/* docs/layernorm_backward.md derives it. */
INLINE void layernorm_grad_body(void *dx, float *dweight, float *dbias, const void *x,
                                const float *weight, const float *mean, const float *rstd,
                                const void *dy, const void *skip, int64_t rows, int64_t width,
                                bool bf16)
{
    for (int64_t r = 0; r < rows; r++) {
        const void *xr = at(x, r * width, bf16), *gr = at(dy, r * width, bf16);
        const void *kr = skip ? at(skip, r * width, bf16) : NULL;
        void *dr = at_mut(dx, r * width, bf16);
        const float m = mean[r], s = rstd[r];
        float c1 = 0.0f, c2 = 0.0f;
#pragma omp simd reduction(+ : c1, c2)
        for (int64_t j = 0; j < width; j++) {
            const float hat = (load1(xr, j, bf16) - m) * s, g = load1(gr, j, bf16);
            const float gw = g * weight[j];
            c1 += gw;
            c2 += gw * hat;
            dweight[j] += g * hat;
            dbias[j] += g;
        }
        c1 /= (float)width;
        c2 /= (float)width;
#pragma omp simd
        for (int64_t j = 0; j < width; j++) {
            const float hat = (load1(xr, j, bf16) - m) * s;
            const float d = s * (load1(gr, j, bf16) * weight[j] - c1 - hat * c2);
            store1(dr, j, kr ? load1(kr, j, bf16) + d : d, bf16);
        }
    }
}

static void layernorm_grad(tess_dtype t, void *dx, float *dweight, float *dbias, const void *x,
                           const float *weight, const float *mean, const float *rstd,
                           const void *dy, const void *skip, int64_t rows, int64_t width)
{
    if (skip) {
        BY_DTYPE(t, layernorm_grad_body, dx, dweight, dbias, x, weight, mean, rstd, dy, skip, rows,
                 width);
    } else {
        BY_DTYPE(t, layernorm_grad_body, dx, dweight, dbias, x, weight, mean, rstd, dy, NULL, rows,
                 width);
    }
}

INLINE void l2norm_body(float *y, float *norm, const void *x, int64_t rows, int64_t width,
                        bool bf16)
{
    for (int64_t r = 0; r < rows; r++) {
        const void *xr = at(x, r * width, bf16);
        float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
        for (int64_t j = 0; j < width; j++) {
            const float v = load1(xr, j, bf16);
            squares += v * v;
        }
        const float length = sqrtf(squares);
        const float n = length < TESS_L2_EPS ? TESS_L2_EPS : length;
#pragma omp simd
        for (int64_t j = 0; j < width; j++) {
            y[r * width + j] = load1(xr, j, bf16) / n;
        }
        norm[r] = n;
    }
}

static void l2norm(tess_dtype t, float *y, float *norm, const void *x, int64_t rows, int64_t width)
{
    BY_DTYPE(t, l2norm_body, y, norm, x, rows, width);
}

INLINE void l2norm_grad_body(void *dx, const float *y, const float *norm, const float *dy,
                             int64_t rows, int64_t width, bool bf16)
{
    for (int64_t r = 0; r < rows; r++) {
        const float *yr = y + r * width, *gr = dy + r * width;
        void *dr = at_mut(dx, r * width, bf16);
        float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
        for (int64_t j = 0; j < width; j++) {
            dot += yr[j] * gr[j];
        }
        const float inverse = norm[r] > TESS_L2_EPS ? 1.0f / norm[r] : 0.0f;
#pragma omp simd
        for (int64_t j = 0; j < width; j++) {
            store1(dr, j, (gr[j] - yr[j] * dot) * inverse, bf16);
        }
    }
}

static void l2norm_grad(tess_dtype t, void *dx, const float *y, const float *norm, const float *dy,
                        int64_t rows, int64_t width)
{
    BY_DTYPE(t, l2norm_grad_body, dx, y, norm, dy, rows, width);
}

void TESS_K(fill_norm)(tess_kernels *k)
{
    k->layernorm = layernorm;
    k->layernorm_grad = layernorm_grad;
    k->l2norm = l2norm;
    k->l2norm_grad = l2norm_grad;
}
