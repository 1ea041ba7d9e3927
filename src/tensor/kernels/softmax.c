/* SPDX-License-Identifier: Apache-2.0 */
/* Rows and columns of logits for the contrastive objectives: running log-sum-exp and gradients. */
#include "tensor/kernels/vec.h"

#include <math.h>

static void row_lse(const float *x, int64_t n, float scale, float *running_max, float *running_sum)
{
    const float here = max_run(x, n) * scale;
    const float top = here > *running_max ? here : *running_max;
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n; j++) {
        sum += exp1(x[j] * scale - top);
    }
    *running_sum = *running_sum * exp1(*running_max - top) + sum;
    *running_max = top;
}

/* `running_max` starts at -infinity and is finite from the first tile on. */
static void column_lse(const float *x, int64_t rows, int64_t stride, int64_t n, float scale,
                       float *running_max, float *running_sum)
{
    enum { BLOCK = 64 };
    for (int64_t j0 = 0; j0 < n; j0 += BLOCK) {
        const int64_t width = n - j0 < BLOCK ? n - j0 : BLOCK;
        float top[BLOCK], sum[BLOCK];
        memcpy(top, running_max + j0, (size_t)width * sizeof(float));
        for (int64_t r = 0; r < rows; r++) {
            const float *xr = x + r * stride + j0;
#pragma omp simd
            for (int64_t j = 0; j < width; j++) {
                const float v = xr[j] * scale;
                top[j] = v > top[j] ? v : top[j];
            }
        }
#pragma omp simd
        for (int64_t j = 0; j < width; j++) {
            sum[j] = running_sum[j0 + j] * exp1(running_max[j0 + j] - top[j]);
        }
        for (int64_t r = 0; r < rows; r++) {
            const float *xr = x + r * stride + j0;
#pragma omp simd
            for (int64_t j = 0; j < width; j++) {
                sum[j] += exp1(xr[j] * scale - top[j]);
            }
        }
        memcpy(running_max + j0, top, (size_t)width * sizeof(float));
        memcpy(running_sum + j0, sum, (size_t)width * sizeof(float));
    }
}

static double softmax_pair_grad(float *x, int64_t n, float scale, float row, const float *column,
                                int64_t diagonal, float factor)
{
    double dot = 0.0;
    const bool pairs = diagonal >= 0 && diagonal < n;
    const float hit = pairs ? x[diagonal] : 0.0f;
#pragma omp simd reduction(+ : dot)
    for (int64_t j = 0; j < n; j++) {
        const float z = x[j] * scale;
        const float g = factor * (exp1(z - row) + exp1(z - column[j]));
        dot += (double)(g * z);
        x[j] = g * scale;
    }
    if (pairs) {
        dot -= (double)(2.0f * factor * hit * scale);
        x[diagonal] -= 2.0f * factor * scale;
    }
    return dot;
}

/* softplus(u) = max(u, 0) + log(1 + exp(-|u|)); the logarithm runs once per element in double on
 * scalars only where it matters, so it is kept in f32 log1p. */
static double sigmoid_loss(const float *x, int64_t n, float scale, float bias, int64_t diagonal)
{
    double sum = 0.0;
    for (int64_t j = 0; j < n; j++) {
        const float z = x[j] * scale + bias;
        const float u = j == diagonal ? -z : z;
        sum += (double)((u > 0.0f ? u : 0.0f) + log1pf(exp1(u > 0.0f ? -u : u)));
    }
    return sum;
}

static void sigmoid_grad(float *x, int64_t n, float scale, float bias, int64_t diagonal,
                         float factor, double *dlog_scale, double *dbias)
{
    double ds = 0.0, db = 0.0;
    const bool pairs = diagonal >= 0 && diagonal < n;
    const float hit = pairs ? x[diagonal] * scale : 0.0f;
#pragma omp simd reduction(+ : ds, db)
    for (int64_t j = 0; j < n; j++) {
        const float z = x[j] * scale;
        const float g = factor * sigmoid1(z + bias);
        ds += (double)(g * z);
        db += (double)g;
        x[j] = g * scale;
    }
    if (pairs) { /* d softplus(-z) = sigmoid(z) - 1 on the diagonal */
        x[diagonal] -= factor * scale;
        ds -= (double)(factor * hit);
        db -= (double)factor;
    }
    *dlog_scale += ds;
    *dbias += db;
}

void TESS_K(fill_softmax)(tess_kernels *k)
{
    k->row_lse = row_lse;
    k->column_lse = column_lse;
    k->softmax_pair_grad = softmax_pair_grad;
    k->sigmoid_loss = sigmoid_loss;
    k->sigmoid_grad = sigmoid_grad;
}
