/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers as functions of (key, counter): Philox4x32-10 (Salmon, Moraes, Dror, Shaw:
 * "Parallel random numbers: as easy as 1, 2, 3", SC'11), and a stored-nowhere permutation.
 *
 * The 128-bit counter is {lo, lo>>32, hi, hi>>32} and the key {key, key>>32}, as in the paper's
 * test vectors.  Normals use one Box-Muller half each: no state beyond the counter, so a stream can
 * be entered at any place.
 */
#include "tessera/base.h"

#include <assert.h>
#include <math.h>

enum { PHILOX_ROUNDS = 10, FEISTEL_ROUNDS = 8 };

tess_u32x4 tess_philox(uint64_t key, uint64_t counter_hi, uint64_t counter_lo)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = (uint32_t)counter_lo, c1 = (uint32_t)(counter_lo >> 32);
    uint32_t c2 = (uint32_t)counter_hi, c3 = (uint32_t)(counter_hi >> 32);
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        uint64_t p0 = (uint64_t)c0 * 0xD2511F53u, p1 = (uint64_t)c2 * 0xCD9E8D57u;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (tess_u32x4){{c0, c1, c2, c3}};
}

tess_rng tess_rng_at(uint64_t seed, uint64_t stream)
{
    return (tess_rng){.key = seed, .hi = stream};
}

uint32_t tess_rng_u32(tess_rng *r)
{
    if (r->n_left == 0) {
        r->block = tess_philox(r->key, r->hi, r->lo++);
        r->n_left = 4;
    }
    return r->block.v[4 - r->n_left--];
}

double tess_rng_unit(tess_rng *r)
{
    return (double)tess_rng_u32(r) * 0x1p-32;
}

/* Lemire, "Fast random integer generation in an interval", 2019: the high half of a product, with
 * the few low halves that would favour a value drawn again. */
uint32_t tess_rng_below(tess_rng *r, uint32_t n)
{
    assert(n > 0);
    uint64_t product = (uint64_t)tess_rng_u32(r) * n;
    if ((uint32_t)product < n) {
        uint32_t threshold = (0u - n) % n;
        while ((uint32_t)product < threshold) {
            product = (uint64_t)tess_rng_u32(r) * n;
        }
    }
    return (uint32_t)(product >> 32);
}

double tess_rng_normal(tess_rng *r)
{
    double radius = sqrt(-2.0 * log(((double)tess_rng_u32(r) + 1.0) * 0x1p-32));
    return radius * cos(6.283185307179586 * tess_rng_unit(r));
}

/* A balanced Feistel network permutes 0..4^half_bits-1; that is less than 4n, so the walk over
 * values outside 0..n-1 takes under four steps on average.  Eight rounds where four are proven to
 * suffice for large halves, because data sets of ten samples have halves of two bits. */
uint64_t tess_permute(uint64_t seed, uint64_t n, uint64_t i)
{
    assert(i < n);
    if (n < 2) {
        return 0;
    }
    int bits = 64 - __builtin_clzll(n - 1);
    int half_bits = (bits + 1) / 2;
    uint64_t mask = (1ull << half_bits) - 1;
    do {
        uint64_t left = i >> half_bits, right = i & mask;
        for (uint64_t round = 0; round < FEISTEL_ROUNDS; round++) {
            uint64_t mixed = left ^ (tess_philox(seed, round, right).v[0] & mask);
            left = right;
            right = mixed;
        }
        i = left << half_bits | right;
    } while (i >= n);
    return i;
}
