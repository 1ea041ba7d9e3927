/* SPDX-License-Identifier: Apache-2.0 */
/* The update over flat memory: sum of squares, AdamW in one pass (7 streams of 4 bytes), and its
 * weights rounded to bf16 by chance, with Philox4x32-10 (base/rng.c) for LANES blocks at a time. */
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

enum { BLOCKS = 16, WORDS = 4 };

/* word[w][l]: word w of Philox's block `block` + l. */
INLINE void philox_blocks(uint32_t word[WORDS][BLOCKS], uint64_t seed, uint64_t step,
                          uint64_t block)
{
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (uint64_t l = 0; l < BLOCKS; l++) {
        word[0][l] = (uint32_t)(block + l);
        word[1][l] = (uint32_t)((block + l) >> 32);
        word[2][l] = (uint32_t)step;
        word[3][l] = (uint32_t)(step >> 32);
    }
    for (int round = 0; round < 10; round++) {
#pragma omp simd
        for (int l = 0; l < BLOCKS; l++) {
            const uint64_t p0 = (uint64_t)word[0][l] * 0xD2511F53u;
            const uint64_t p1 = (uint64_t)word[2][l] * 0xCD9E8D57u;
            word[0][l] = (uint32_t)(p1 >> 32) ^ word[1][l] ^ k0;
            word[1][l] = (uint32_t)p1;
            word[2][l] = (uint32_t)(p0 >> 32) ^ word[3][l] ^ k1;
            word[3][l] = (uint32_t)p0;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

static void round_stochastic(uint16_t *y, const float *x, int64_t n, int64_t first, uint64_t seed,
                             uint64_t step)
{
    uint32_t word[WORDS][BLOCKS];
    int64_t block = -1; /* of the first in `word`: from 4 * block on */
    for (int64_t i = 0; i < n; i++) {
        const int64_t e = first + i, at = e / WORDS / BLOCKS * BLOCKS;
        if (at != block) {
            block = at;
            philox_blocks(word, seed, step, (uint64_t)block);
        }
        const uint32_t u = bits_of(x[i]), noise = word[e % WORDS][e / WORDS - block] >> 16;
        const bool finite = (u & 0x7f800000u) != 0x7f800000u;
        y[i] = finite ? (uint16_t)((u + noise) >> 16) : bf16_of(x[i]);
    }
}

void TESS_K(fill_optimizer)(tess_kernels *k)
{
    k->round_stochastic = round_stochastic;
    k->sumsq = sumsq;
    k->adamw = adamw;
}
