/* SPDX-License-Identifier: Apache-2.0 */
/* Philox against its published vectors, the streams' distributions, and the permutation. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "tessera/base.h"

/* The known answers that Random123 publishes for philox4x32-10. */
static void test_philox_vectors(void **state)
{
    (void)state;
    static const struct {
        uint64_t key, hi, lo;
        uint32_t v[4];
    } cases[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822,
         0x0370734413198a2e,
         0x85a308d3243f6a88,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        tess_u32x4 out = tess_philox(cases[i].key, cases[i].hi, cases[i].lo);
        assert_memory_equal(out.v, cases[i].v, sizeof out.v);
    }
}

static void test_stream_is_philox_in_order(void **state)
{
    (void)state;
    tess_rng r = tess_rng_at(5, 9);
    for (uint64_t block = 0; block < 10; block++) {
        tess_u32x4 expected = tess_philox(5, 9, block);
        for (int i = 0; i < 4; i++) {
            assert_int_equal(tess_rng_u32(&r), expected.v[i]);
        }
    }
}

static void test_streams_differ(void **state)
{
    (void)state;
    tess_rng a = tess_rng_at(1, 0), b = tess_rng_at(1, 1), c = tess_rng_at(2, 0);
    uint32_t x = tess_rng_u32(&a), y = tess_rng_u32(&b), z = tess_rng_u32(&c);
    assert_true(x != y && y != z && x != z);
}

/* Mean of n draws within five standard errors of what it should be. */
static void test_moments(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    tess_rng r = tess_rng_at(3, 4);
    double unit = 0, normal = 0, square = 0;
    for (int i = 0; i < N; i++) {
        double u = tess_rng_unit(&r), z = tess_rng_normal(&r);
        assert_true(u >= 0 && u < 1);
        unit += u;
        normal += z;
        square += z * z;
    }
    double error = 5 / sqrt(N);
    assert_true(fabs(unit / N - 0.5) < error * sqrt(1.0 / 12));
    assert_true(fabs(normal / N) < error);
    assert_true(fabs(square / N - 1) < error * sqrt(2));
}

static void test_below_is_even(void **state)
{
    (void)state;
    enum { N = 70000, SIDES = 7 };
    int64_t counts[SIDES] = {0};
    tess_rng r = tess_rng_at(6, 0);
    for (int i = 0; i < N; i++) {
        uint32_t v = tess_rng_below(&r, SIDES);
        assert_true(v < SIDES);
        counts[v]++;
    }
    double chi = 0, expected = (double)N / SIDES;
    for (int i = 0; i < SIDES; i++) {
        chi += ((double)counts[i] - expected) * ((double)counts[i] - expected) / expected;
    }
    assert_true(chi < 27.9); /* 6 degrees of freedom, one in ten thousand */
    assert_int_equal(tess_rng_below(&r, 1), 0);
    /* Two thirds of 2^32: without rejection even values would come twice as often as odd ones. */
    int64_t n_even = 0;
    for (int i = 0; i < N; i++) {
        n_even += tess_rng_below(&r, 2863311531u) % 2 == 0;
    }
    assert_true(fabs((double)n_even / N - 0.5) < 5 * 0.5 / sqrt(N));
}

static void test_permutation_is_a_bijection(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {1, 2, 3, 4, 5, 7, 16, 17, 63, 64, 65, 1000, 4096, 4097, 10007};
    static uint8_t seen[10007];
    for (int64_t k = 0; k < TESS_COUNT(sizes); k++) {
        for (uint64_t seed = 0; seed < 5; seed++) {
            memset(seen, 0, sizeof seen);
            for (uint64_t i = 0; i < sizes[k]; i++) {
                uint64_t p = tess_permute(seed, sizes[k], i);
                assert_true(p < sizes[k]);
                assert_int_equal(seen[p]++, 0);
            }
        }
    }
}

static void test_permutation_of_many(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {UINT64_MAX, 1ull << 63, (1ull << 62) + 1, 5000000000ull};
    for (int64_t k = 0; k < TESS_COUNT(sizes); k++) {
        uint64_t a = tess_permute(1, sizes[k], 0), b = tess_permute(1, sizes[k], sizes[k] - 1);
        assert_true(a < sizes[k] && b < sizes[k] && a != b);
    }
}

/* Where item 0 of 10 lands over many seeds: every place about as often, and few items stay. */
static void test_permutation_mixes(void **state)
{
    (void)state;
    enum { N = 10, SEEDS = 20000 };
    int64_t counts[N] = {0}, n_fixed = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        counts[tess_permute(seed, N, 0)]++;
        for (uint64_t i = 0; i < N; i++) {
            n_fixed += tess_permute(seed, N, i) == i;
        }
    }
    double chi = 0, expected = (double)SEEDS / N;
    for (int i = 0; i < N; i++) {
        chi += ((double)counts[i] - expected) * ((double)counts[i] - expected) / expected;
    }
    assert_true(chi < 33.7); /* 9 degrees of freedom, one in ten thousand */
    assert_true(fabs((double)n_fixed / SEEDS - 1) < 0.05);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox_vectors),
        cmocka_unit_test(test_stream_is_philox_in_order),
        cmocka_unit_test(test_streams_differ),
        cmocka_unit_test(test_moments),
        cmocka_unit_test(test_below_is_even),
        cmocka_unit_test(test_permutation_is_a_bijection),
        cmocka_unit_test(test_permutation_of_many),
        cmocka_unit_test(test_permutation_mixes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
