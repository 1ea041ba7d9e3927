/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels of the current instruction set at the edges that operator cases do not reach: rounding of
 * bf16, extreme arguments of the exponential behind softmax and GELU, empty segments, and every
 * short length (tails of vectors). test_ops runs the same kernels in the lower sets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "tensor/kernels.h"

static void bf16_rounds_to_even(void **state)
{
    (void)state;
    float x[4096];
    uint16_t y[4096];
    tess_rng r = tess_rng_at(1, 2);
    for (int i = 0; i < 4096; i++) {
        uint32_t bits = tess_rng_u32(&r);
        bits = i % 3 == 0 ? bits & 0xffff8000u : bits; /* ties */
        memcpy(&x[i], &bits, sizeof bits);
    }
    x[0] = INFINITY;
    x[1] = -INFINITY;
    x[2] = 3.4e38f;
    x[3] = -0.0f;
    tess__kernels()->convert(TESS_BF16, y, TESS_F32, x, 4096);
    for (int i = 0; i < 4096; i++) {
        assert_int_equal(y[i], tess_bf16_from_f32(x[i]));
    }
}

static void nan_survives_rounding(void **state)
{
    (void)state;
    const uint32_t bits[] = {0x7fc00000u, 0x7f800001u, 0xffffffffu};
    for (int i = 0; i < 3; i++) {
        float x;
        uint16_t y;
        memcpy(&x, &bits[i], sizeof x);
        tess__kernels()->convert(TESS_BF16, &y, TESS_F32, &x, 1);
        assert_true(isnan(tess_f32_from_bf16(y)));
    }
}

/* silu(x) / x is the sigmoid, so it shows the exponential over its whole range. */
static void exponential_is_accurate(void **state)
{
    (void)state;
    double worst = 0;
    for (int i = -900; i <= 900; i++) {
        const float x = (float)i * 0.0971f;
        float y;
        tess__kernels()->unary(TESS_SILU, TESS_F32, &y, &x, 1);
        const double want = (double)x / (1 + exp(-(double)x));
        assert_true(isfinite(y));
        if (want != 0 && fabs(want) > 1e-35) {
            worst = fmax(worst, fabs((double)y - want) / fabs(want));
        }
    }
    assert_true(worst < 1e-6);
}

static void gelu_is_accurate(void **state)
{
    (void)state;
    for (int i = -2000; i <= 2000; i++) {
        const float x = (float)i * 0.01f;
        float y;
        tess__kernels()->unary(TESS_GELU, TESS_F32, &y, &x, 1);
        const double want = (double)x * 0.5 * erfc(-(double)x / sqrt(2));
        assert_true(fabs((double)y - want) < 1e-6);
    }
}

static void activations_pass_nan_on(void **state)
{
    (void)state;
    for (int k = TESS_GELU; k < TESS_UNARY_COUNT; k++) {
        const float x[] = {NAN, 1.0f};
        float y[2];
        tess__kernels()->unary((tess_unary_kind)k, TESS_F32, y, x, 2);
        assert_true(isnan(y[0]) && isfinite(y[1]));
    }
}

/* One head of width 8 over n rows of f32. */
static void attend(int64_t n, const float *qkv, float *y, float *lse, bool causal)
{
    const tess_kernels *k = tess__kernels();
    float *scratch = tess_alloc((size_t)k->attention_scratch(n, n, 8) * sizeof(float));
    k->attention(&(tess_attention_args){.dtype = TESS_F32,
                                        .q = qkv,
                                        .k = qkv + 8,
                                        .v = qkv + 16,
                                        .q_stride = 24,
                                        .k_stride = 24,
                                        .v_stride = 24,
                                        .n_q = n,
                                        .n_k = n,
                                        .head_dim = 8,
                                        .causal = causal,
                                        .scale = 1,
                                        .y = y,
                                        .y_stride = 8,
                                        .lse = lse,
                                        .scratch = scratch});
    tess_free(scratch);
}

/* With all keys alike, y is the mean of the rows of v that are seen. */
static void attention_of_every_length(void **state)
{
    (void)state;
    for (int64_t n = 1; n <= 70; n++) {
        float qkv[70 * 24], y[70 * 8], lse[70];
        for (int64_t i = 0; i < n * 24; i++) {
            qkv[i] = i % 24 < 16 ? 0.5f : (float)(i / 24);
        }
        attend(n, qkv, y, lse, false);
        for (int64_t i = 0; i < n * 8; i++) {
            assert_true(fabsf(y[i] - (float)(n - 1) / 2) < 1e-4f);
        }
        attend(n, qkv, y, lse, true);
        for (int64_t i = 0; i < n * 8; i++) {
            assert_true(fabsf(y[i] - (float)(i / 8) / 2) < 1e-4f);
            assert_true(fabsf(lse[i / 8] - 2 - logf((float)(i / 8 + 1))) < 1e-5f);
        }
    }
}

/* Scores of +-20000: no overflow, one winner. */
static void attention_with_extreme_scores(void **state)
{
    (void)state;
    float qkv[2 * 24], y[2 * 8], lse[2];
    for (int i = 0; i < 48; i++) {
        qkv[i] = i % 24 < 16 ? (i < 24 ? 50.0f : -50.0f) : (float)(i / 24);
    }
    attend(2, qkv, y, lse, false);
    for (int i = 0; i < 16; i++) {
        assert_true(y[i] == (float)(i / 8));
    }
    assert_true(isfinite(lse[0]) && isfinite(lse[1]));
}

static void attention_without_keys_gives_zeros(void **state)
{
    (void)state;
    const tess_kernels *k = tess__kernels();
    float q[16], y[16], dq[16], lse[2], scratch[4096];
    memset(y, 0xff, sizeof y);
    memset(dq, 0xff, sizeof dq);
    tess_attention_args a = {.dtype = TESS_F32,
                             .q = q,
                             .q_stride = 8,
                             .n_q = 2,
                             .head_dim = 8,
                             .scale = 1,
                             .y = y,
                             .y_stride = 8,
                             .lse = lse,
                             .dy = y,
                             .dq = dq,
                             .scratch = scratch};
    k->attention(&a);
    k->attention_grad(&a);
    for (int i = 0; i < 16; i++) {
        assert_true(y[i] == 0 && dq[i] == 0);
    }
    assert_true(lse[0] == 0);
}

/* Running log-sum-exp over pieces, by rows and by columns, equals the whole. */
static void lse_merges(void **state)
{
    (void)state;
    float x[6 * 70], top = -INFINITY, sum = 0, tops[70], sums[70] = {0};
    tess_rng r = tess_rng_at(5, 6);
    for (int i = 0; i < 420; i++) {
        x[i] = (float)(tess_rng_normal(&r) * 30);
    }
    for (int i = 0; i < 70; i++) {
        tops[i] = -INFINITY;
    }
    const tess_kernels *k = tess__kernels();
    for (int i = 0; i < 420; i += 35) {
        k->row_lse(x + i, 35, 0.5f, &top, &sum);
    }
    k->column_lse(x, 2, 70, 70, 0.5f, tops, sums);
    k->column_lse(x + 140, 4, 70, 70, 0.5f, tops, sums);
    double all = 0;
    for (int j = 0; j < 70; j++) {
        double column = 0;
        for (int i = 0; i < 6; i++) {
            column += exp((double)x[i * 70 + j] * 0.5);
        }
        all += column;
        assert_true(fabs((double)(tops[j] + logf(sums[j])) - log(column)) < 1e-4);
    }
    assert_true(fabs((double)(top + logf(sum)) - log(all)) < 1e-4);
}

/* A large mean must not eat the variance. */
static void layernorm_of_far_values(void **state)
{
    (void)state;
    float x[40], y[40], weight[40], bias[40] = {0}, mean, rstd;
    for (int i = 0; i < 40; i++) {
        x[i] = 30000.0f + (float)(i % 2);
        weight[i] = 1;
    }
    tess__kernels()->layernorm(TESS_F32, y, &mean, &rstd, x, weight, bias, 0, 1, 40);
    for (int i = 0; i < 40; i++) {
        assert_true(fabsf(y[i] - (i % 2 ? 1.0f : -1.0f)) < 1e-2f);
    }
}

static void zero_rows_have_no_direction(void **state)
{
    (void)state;
    const float x[3] = {0}, dy[3] = {1, 2, 3};
    float y[3], dx[3], norm;
    tess__kernels()->l2norm(TESS_F32, y, &norm, x, 1, 3);
    tess__kernels()->l2norm_grad(TESS_F32, dx, y, &norm, dy, 1, 3);
    for (int i = 0; i < 3; i++) {
        assert_true(y[i] == 0 && dx[i] == 0);
    }
}

/* The noise is Philox's, wherever a run begins; half of what lies in the middle goes up. */
static void stochastic_rounding(void **state)
{
    (void)state;
    enum { N = 1000 };
    static float x[N];
    static uint16_t y[N], again[N];
    double sum = 0;
    for (int i = 0; i < N; i++) {
        x[i] = (i % 2 ? -1.0f : 1.0f) * (1.0f + (float)i * 0x1p-20f);
    }
    tess__kernels()->round_stochastic(y, x, N, 3, 5, 1ull << 33);
    tess__kernels()->round_stochastic(again, x + 13, N - 13, 16, 5, 1ull << 33);
    assert_memory_equal(again, y + 13, (N - 13) * sizeof *y);
    for (int i = 0; i < N; i++) {
        uint32_t u;
        memcpy(&u, &x[i], 4);
        const uint32_t noise =
            tess_philox(5, 1ull << 33, (uint64_t)(i + 3) / 4).v[(i + 3) % 4] >> 16;
        assert_int_equal(y[i], (u + noise) >> 16);
    }
    for (int i = 0; i < N; i++) {
        x[i] = 1.0f + 0x1p-8f;
    }
    tess__kernels()->round_stochastic(y, x, N, 17ll << 30, 5, 6);
    for (int i = 0; i < N; i++) {
        sum += (double)tess_f32_from_bf16(y[i]);
    }
    /* A fair coin of 2^-7: four standard deviations of a mean. */
    assert_true(fabs(sum / N - (double)x[0]) < 4 * 0x1p-8 / sqrt(N));
    x[0] = INFINITY;
    x[1] = NAN;
    x[2] = -INFINITY;
    tess__kernels()->round_stochastic(y, x, 3, 0, 5, 6);
    assert_true(tess_f32_from_bf16(y[0]) == INFINITY && tess_f32_from_bf16(y[2]) == -INFINITY);
    assert_true(isnan(tess_f32_from_bf16(y[1])));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bf16_rounds_to_even),
        cmocka_unit_test(nan_survives_rounding),
        cmocka_unit_test(exponential_is_accurate),
        cmocka_unit_test(gelu_is_accurate),
        cmocka_unit_test(activations_pass_nan_on),
        cmocka_unit_test(attention_of_every_length),
        cmocka_unit_test(attention_with_extreme_scores),
        cmocka_unit_test(attention_without_keys_gives_zeros),
        cmocka_unit_test(lse_merges),
        cmocka_unit_test(layernorm_of_far_values),
        cmocka_unit_test(zero_rows_have_no_direction),
        cmocka_unit_test(stochastic_rounding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
