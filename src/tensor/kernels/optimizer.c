/* SPDX-License-Identifier: Apache-2.0 */
/* The update over flat memory: sum of squares; AdamW in one pass, four streams of 4 bytes read and
 * written in place; and its weights rounded to bf16 by chance, with Philox4x32-10 (base/rng.c) for
 * LANES blocks at a time. */
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

enum {
    ADAMW_RUN = 32,   /* elements between prefetches: two cache lines of each stream */
    ADAMW_AHEAD = 256 /* 1 KB: the processor's own prefetchers stop at every page, and beside it
                       * one core carries a sixth more */
};

typedef struct adamw_rates {
    float beta1, rest1, beta2, rest2, eps, keep, lr, correct1, correct2, grad_factor;
} adamw_rates;

/* n is a multiple of ADAMW_RUN.  Not inlined: every element is computed by the same instructions,
 * however a run is cut. */
static __attribute__((noinline)) void adamw_runs(float *p, float *g, float *m, float *v, int64_t n,
                                                 const adamw_rates *rates)
{
    const adamw_rates r = *rates;
    for (int64_t i = 0; i < n; i += ADAMW_RUN) {
        for (int64_t k = i + ADAMW_AHEAD; k < i + ADAMW_AHEAD + ADAMW_RUN; k += 16) {
            __builtin_prefetch(p + k, 1);
            __builtin_prefetch(g + k, 1);
            __builtin_prefetch(m + k, 1);
            __builtin_prefetch(v + k, 1);
        }
#pragma omp simd
        for (int64_t j = i; j < i + ADAMW_RUN; j++) {
            const float d = g[j] * r.grad_factor;
            const float first = r.beta1 * m[j] + r.rest1 * d;
            const float second = r.beta2 * v[j] + r.rest2 * d * d;
            p[j] =
                p[j] * r.keep - r.lr * (first * r.correct1) / (sqrtf(second * r.correct2) + r.eps);
            m[j] = first;
            v[j] = second;
            g[j] = 0.0f;
        }
    }
}

static void adamw(float *p, float *g, float *m, float *v, int64_t n, float lr, float beta1,
                  float beta2, float eps, float decay, float correct1, float correct2,
                  float grad_factor)
{
    const adamw_rates r = {beta1, 1.0f - beta1, beta2,    1.0f - beta2, eps, 1.0f - lr * decay,
                           lr,    correct1,     correct2, grad_factor};
    const int64_t whole = n / ADAMW_RUN * ADAMW_RUN, left = n - whole;
    adamw_runs(p, g, m, v, whole, &r);
    if (left > 0) {
        float *const from[4] = {p + whole, g + whole, m + whole, v + whole};
        float x[4][ADAMW_RUN] = {{0}};
        for (int k = 0; k < 4; k++) {
            memcpy(x[k], from[k], (size_t)left * sizeof(float));
        }
        adamw_runs(x[0], x[1], x[2], x[3], ADAMW_RUN, &r);
        for (int k = 0; k < 4; k++) {
            memcpy(from[k], x[k], (size_t)left * sizeof(float));
        }
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
