/* SPDX-License-Identifier: Apache-2.0 */
/* A whole two-tower step against PyTorch in float64 (tests/fixtures/fusion/make.py): features,
 * logits, loss, the gradient of every parameter, the norm, and the weights after two updates; on
 * the processor (test_dual_parity.c) and on a card (tests/cuda/test_cuda_parity.c).
 *
 * The relative error of a sketch is |ours - theirs| / |theirs| over its bins.  f32 arithmetic gives
 * 2^-24 per rounding and some 30 sums of 32 to 192 terms in a row, which grow with the square root:
 * sqrt(30 * 192) * 2^-24 = 5e-6; 2e-5 is allowed.  An update of 2e-3 is the difference of weights
 * of about .25, which f32 holds to 1.5e-8, twice: 2e-5; 1e-4 is allowed. */
#ifndef TESSERA_TESTS_DUAL_PARITY_H
#define TESSERA_TESTS_DUAL_PARITY_H

#include "fusion/fusion_fixture.h"

#define F32_TOLERANCE    2e-5
#define UPDATE_TOLERANCE 1e-4

static const char *const parity_cases[] = {"tok_last", "avg_mean", "map_last", "tok_mean_sigmoid",
                                           "avg_first"};

static inline double relative_error(const double *ours, const float *theirs, int64_t n)
{
    double wrong = 0, all = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = ours[i] - (double)theirs[i];
        wrong += d * d;
        all += (double)theirs[i] * (double)theirs[i];
    }
    return sqrt(wrong / (all > 0 ? all : 1e-300));
}

static inline double compare(const fixture_batch *b, const char *name, const char *what,
                             const double *ours, int64_t n, double tolerance)
{
    int64_t n_theirs;
    char *key = tess_format("%s/%s", name, what);
    float theirs[512];
    const void *data = fixture_tensor(b, key, &n_theirs);
    assert_int_equal(n, n_theirs);
    assert_true(n <= 512);
    memcpy(theirs, data, (size_t)n * sizeof *theirs);
    double e = relative_error(ours, theirs, n);
    if (!(e <= tolerance)) {
        fail_msg("%s: relative error %g, allowed %g (first: %g, expected %g)", key, e, tolerance,
                 ours[0], (double)theirs[0]);
    }
    tess_free(key);
    return e;
}

static inline int64_t sketch(const char *name, const float *x, const float *minus, int64_t n,
                             double *out)
{
    int64_t bins = n < BINS ? n : BINS;
    memset(out, 0, BINS * sizeof *out);
    for (int64_t i = 0; i < n; i++) {
        double v = (double)x[i] - (minus ? (double)minus[i] : 0);
        out[i % bins] += fixture_mixed(name, i) & 1 ? -v : v;
    }
    return bins;
}

/* The worst relative error over all parameters. */
static inline double compare_group(const fixture_batch *b, const char *name, const tess_store *s,
                                   const char *group, const float *minus, const char *prefix,
                                   double tolerance)
{
    double worst = 0, bins[BINS];
    int64_t n_flat;
    const float *flat = tess_store_group(s, group, &n_flat);
    for (int64_t i = 0; i < tess_store_n_entries(s, group); i++) {
        float *x;
        tess_shape shape;
        const char *key = tess_store_entry(s, group, i, &x, &shape);
        int64_t n =
            sketch(key, x, minus ? minus + (x - flat) : NULL, tess_shape_count(&shape), bins);
        char *what = tess_format("%s.%s", prefix, key);
        double e = compare(b, name, what, bins, n, tolerance);
        tess_free(what);
        worst = e > worst ? e : worst;
    }
    return worst;
}

static inline double compare_floats(const fixture_batch *b, const char *name, const char *what,
                                    const float *ours, int64_t n, double tolerance)
{
    double wide[512];
    assert_true(n <= 512);
    for (int64_t i = 0; i < n; i++) {
        wide[i] = (double)ours[i];
    }
    return compare(b, name, what, wide, n, tolerance);
}

static inline double compare_features(const fixture_batch *b, const char *name, tess_model *m,
                                      double tolerance)
{
    int64_t z = tess_model_embed_dim(m), n = PICTURES * SLOTS;
    float image[PICTURES * 16], text[PICTURES * SLOTS * 16], logits[PICTURES * PICTURES * SLOTS];
    assert_int_equal(z, 16);
    ok(tess_model_embed_pictures(m, b->pictures, PICTURES, image));
    ok(tess_model_embed_tokens(m, b->tokens, b->offsets64, n, text));
    for (int64_t i = 0; i < PICTURES; i++) {
        for (int64_t j = 0; j < n; j++) {
            double dot = 0;
            for (int64_t k = 0; k < z; k++) {
                dot += (double)image[i * z + k] * (double)text[j * z + k];
            }
            logits[i * n + j] = (float)(exp(2.0) * dot);
        }
    }
    double e = compare_floats(b, name, "image", image, PICTURES * z, tolerance);
    double f = compare_floats(b, name, "text", text, n * z, tolerance);
    compare_floats(b, name, "logits", logits, PICTURES * n, 4 * tolerance);
    return e > f ? e : f;
}

/* device: NULL is the processor. */
static inline void step_case(const fixture_batch *b, const char *name, const tess_device *device)
{
    tess_model *m = fixture_model(name, TESS_PRECISION_F32);
    tess_model_use(m, device);
    tess_trainer *t = NULL;
    tess_trainer_options o = fixture_options();
    tess_micro_batch batch = fixture_micro_batch(b);
    double features = compare_features(b, name, m, F32_TOLERANCE), grads = 0;
    ok(tess_trainer_new(m, &o, &t));
    int64_t n;
    const tess_store *s = tess_model_store(m);
    const float *params = tess_store_group(s, "param", &n);
    float *start = tess_alloc_array((size_t)n, sizeof *start);
    memcpy(start, params, (size_t)n * sizeof *start);
    for (int step = 0; step < 2; step++) {
        float loss, norm;
        tess_trainer_debug(t, step == 0);
        ok(tess_trainer_micro_step(t, &batch, &loss));
        if (step == 0) {
            ok(tess_store_download(tess_model_store(m), "grad", ""));
            grads = compare_group(b, name, s, "grad", NULL, "grad", F32_TOLERANCE);
        }
        ok(tess_trainer_update(t, 1e-3, step + 1, &norm));
        compare_floats(b, name, step ? "loss_1" : "loss_0", &loss, 1, F32_TOLERANCE);
        compare_floats(b, name, step ? "norm_1" : "norm_0", &norm, 1, F32_TOLERANCE);
    }
    ok(tess_model_fetch(m));
    double updates = compare_group(b, name, s, "param", start, "update", UPDATE_TOLERANCE);
    print_message("%s: relative errors: features %.1e, gradients %.1e, updates %.1e\n", name,
                  features, grads, updates);
    tess_free(start);
    tess_trainer_free(t);
    tess_model_free(m);
}

/* Each of some 10 operators in each of 2 blocks, and 6 beside them, rounds its result to 8 bits:
 * 2^-9 / sqrt(3) each on average, independent: sqrt(26) * 2^-9 / sqrt(3) = 0.6 %; what attention
 * and activations multiply it by is within a factor of 4. */
static inline void features_case(const fixture_batch *b, const char *name,
                                 const tess_device *device)
{
    tess_model *m = fixture_model(name, TESS_PRECISION_BF16);
    tess_model_use(m, device);
    assert_int_equal(tess_model_dtype(m), TESS_BF16);
    double e = compare_features(b, name, m, 0.024);
    print_message("%s: bf16 features: relative error %.1e\n", name, e);
    assert_true(e > 1e-5); /* it is bf16 */
    tess_model_free(m);
}

#endif
