/* SPDX-License-Identifier: Apache-2.0 */
/* The update over flat memory: sum of squares, and AdamW in one pass (7 streams of 4 bytes). */
#include "tensor/kernels/vec.h"

#include <math.h>

static double sumsq(const float *x, int64_t n)
{
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    return sum;
}

static void adamw(float *p, float *g, float *m, float *v, int64_t n, float lr, float beta1,
                  float beta2, float eps, float decay, float correct1, float correct2,
                  float grad_factor)
{
    const float keep = 1.0f - lr * decay;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        const float d = g[i] * grad_factor;
        const float first = beta1 * m[i] + (1.0f - beta1) * d;
        const float second = beta2 * v[i] + (1.0f - beta2) * d * d;
        p[i] = p[i] * keep - lr * (first * correct1) / (sqrtf(second * correct2) + eps);
        m[i] = first;
        v[i] = second;
        g[i] = 0.0f;
    }
}

void TESS_K(fill_optimizer)(tess_kernels *k)
{
    k->sumsq = sumsq;
    k->adamw = adamw;
}
