/* SPDX-License-Identifier: Apache-2.0 */
/* A trainer of a fixture's model on the fixture's batch, on any device; for cmocka tests. */
#ifndef TESSERA_TESTS_TRAINER_FIXTURE_H
#define TESSERA_TESTS_TRAINER_FIXTURE_H

#include "fusion/fusion_fixture.h"

static fixture_batch batch;

static inline int open_batch(void **state)
{
    (void)state;
    fixture_open(&batch);
    return 0;
}

static inline int close_batch(void **state)
{
    (void)state;
    tess_tensors_free(batch.file);
    return 0;
}

typedef struct run {
    tess_model *m;
    tess_trainer *t;
    float loss, norm;
} run;

/* device NULL: the processor. */
static inline run run_start(const char *name, const tess_trainer_options *o,
                            tess_precision precision, const tess_device *device)
{
    run r = {.m = fixture_model(name, precision)};
    tess_model_use(r.m, device);
    ok(tess_trainer_new(r.m, o, &r.t));
    return r;
}

static inline void run_stop(run *r)
{
    tess_trainer_free(r->t);
    tess_model_free(r->m);
}

static inline float *run_group(const run *r, const char *name, int64_t *out_n)
{
    return tess_store_group(tess_model_store(r->m), name, out_n);
}

/* Weights and moments are the same bytes. */
static inline void assert_same_states(const run *a, const run *b)
{
    static const char *const groups[] = {"param", "m", "v"};
    for (int64_t i = 0; i < TESS_COUNT(groups); i++) {
        int64_t n, n_b;
        const float *x = run_group(a, groups[i], &n), *y = run_group(b, groups[i], &n_b);
        assert_int_equal(n, n_b);
        assert_memory_equal(x, y, (size_t)n * sizeof *x);
    }
}

/* One update; with `spoilt`, of a gradient that is not finite. */
static inline void run_update(run *r, int64_t step, bool spoilt)
{
    tess_micro_batch b = fixture_micro_batch(&batch);
    int64_t n;
    b.counter = (step - 1) * PICTURES;
    ok(tess_trainer_micro_step(r->t, &b, &r->loss));
    if (spoilt) {
        run_group(r, "grad", &n)[0] = NAN;
        ok(tess_store_upload(tess_model_store(r->m), "grad", ""));
    }
    ok(tess_trainer_update(r->t, 1e-3, step, &r->norm));
    assert_int_equal(isfinite(r->norm), !spoilt);
}

/* A skipped update is as one that never was: Adam's time stands still. */
static inline void check_skipping(const tess_device *device)
{
    const tess_trainer_options o = fixture_options();
    run with = run_start("tok_last", &o, TESS_PRECISION_F32, device);
    run without = run_start("tok_last", &o, TESS_PRECISION_F32, device);
    for (int64_t step = 1; step <= 4; step++) {
        run_update(&with, step, step == 2);
    }
    for (int64_t step = 1; step <= 3; step++) {
        run_update(&without, step, false);
    }
    ok(tess_model_fetch(with.m));
    ok(tess_model_fetch(without.m));
    assert_same_states(&with, &without);
    run_stop(&with);
    run_stop(&without);
}

/* As if so many steps had come before, all alike. */
static inline void run_pretend(run *r, int count, float loss, float norm)
{
    int64_t n;
    float *recent = run_group(r, "recent", &n);
    assert_true(n >= TESS_RECENT_SIZE);
    recent[0] = (float)count;
    for (int i = 0; i < count; i++) {
        recent[2 + i] = loss;
        recent[2 + 128 + i] = norm;
    }
    ok(tess_store_upload(tess_model_store(r->m), "recent", ""));
}

static inline tess_skip run_result(run *r)
{
    tess_step_result s;
    ok(tess_trainer_read(r->t, true, &s));
    assert_true(s.step > 0);
    return s.why;
}

/* One update whose loss and gradient are multiplied by so much, and why it was skipped. */
static inline tess_skip run_spoilt(run *r, int64_t step, float loss, float gradient)
{
    const tess_micro_batch b = fixture_micro_batch(&batch);
    tess_store *s = tess_model_store(r->m);
    int64_t n;
    ok(tess_trainer_micro_step(r->t, &b, NULL));
    ok(tess_store_download(s, "loss", ""));
    ok(tess_store_download(s, "grad", ""));
    *run_group(r, "loss", &n) *= loss;
    float *grad = run_group(r, "grad", &n);
    for (int64_t i = 0; i < n; i++) {
        grad[i] *= gradient;
    }
    ok(tess_store_upload(s, "loss", ""));
    ok(tess_store_upload(s, "grad", ""));
    ok(tess_trainer_update(r->t, 1e-3, step, NULL));
    return run_result(r);
}

/* Outliers are skipped, by loss and by norm, and leave weights, moments and Adam's time alone. */
static inline void check_outliers(const tess_device *device)
{
    static const float planted[][2] = {{1e6f, 1}, {1, 1e6f}, {NAN, 1}, {1, NAN}, {INFINITY, 1}};
    static const tess_skip why[] = {TESS_SKIP_HIGH_LOSS, TESS_SKIP_HIGH_NORM, TESS_SKIP_LOSS,
                                    TESS_SKIP_GRADIENT, TESS_SKIP_LOSS};
    tess_trainer_options o = fixture_options();
    run without = run_start("tok_last", &o, TESS_PRECISION_F32, device);
    o.skip_outliers = 6;
    run with = run_start("tok_last", &o, TESS_PRECISION_F32, device);
    run_update(&without, 1, false);
    run_update(&with, 1, false);
    run_pretend(&with, 40, with.loss, with.norm);
    for (int64_t i = 0; i < TESS_COUNT(why); i++) {
        assert_int_equal(run_spoilt(&with, 2 + i, planted[i][0], planted[i][1]), why[i]);
    }
    assert_int_equal(run_spoilt(&without, 2, 1, 1), TESS_SKIP_NOT);
    assert_int_equal(run_spoilt(&with, 2 + TESS_COUNT(why), 1, 1), TESS_SKIP_NOT);
    ok(tess_model_fetch(with.m));
    ok(tess_model_fetch(without.m));
    assert_same_states(&with, &without);
    run_stop(&with);
    run_stop(&without);
}

#endif
