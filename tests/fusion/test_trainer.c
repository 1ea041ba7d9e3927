/* SPDX-License-Identifier: Apache-2.0 */
/* The trainer beside parity: recompute, frozen towers, the bf16 copy of the weights,
 * one objective alone, gradients that are not finite, options that make no sense. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fusion/trainer_fixture.h"

static run start(const char *name, const tess_trainer_options *o)
{
    return run_start(name, o, TESS_PRECISION_F32, NULL);
}

static void step(run *r)
{
    tess_micro_batch b = fixture_micro_batch(&batch);
    tess_trainer_debug(r->t, true);
    ok(tess_trainer_micro_step(r->t, &b, &r->loss));
}

static void test_recompute_changes_nothing(void **state)
{
    (void)state;
    tess_trainer_options o = fixture_options();
    run kept = start("tok_last", &o);
    o.recompute = TESS_RECOMPUTE_FULL;
    run redone = start("tok_last", &o);
    int64_t n, n_redone;
    step(&kept);
    step(&redone);
    assert_true(kept.loss == redone.loss);
    const float *a = run_group(&kept, "grad", &n), *b = run_group(&redone, "grad", &n_redone);
    assert_int_equal(n, n_redone);
    assert_memory_equal(a, b, (size_t)n * sizeof *a);
    print_message("workspace: %zu bytes, with recompute %zu\n", tess_trainer_memory(kept.t),
                  tess_trainer_memory(redone.t));
    assert_true(tess_trainer_memory(redone.t) < tess_trainer_memory(kept.t));
    assert_true(tess_trainer_flops(redone.t) > 1.2 * tess_trainer_flops(kept.t));
    run_stop(&kept);
    run_stop(&redone);
}

static void test_selective_recompute_keeps_products(void **state)
{
    (void)state;
    tess_trainer_options o = fixture_options();
    run kept = start("tok_last", &o);
    o.recompute = TESS_RECOMPUTE_SELECTIVE;
    run redone = start("tok_last", &o);
    int64_t n;
    step(&kept);
    step(&redone);
    assert_true(kept.loss == redone.loss);
    const float *a = run_group(&kept, "grad", &n), *b = run_group(&redone, "grad", &n);
    assert_memory_equal(a, b, (size_t)n * sizeof *a);
    assert_true(tess_trainer_memory(redone.t) < tess_trainer_memory(kept.t));
    assert_true(tess_trainer_flops(redone.t) < 1.02 * tess_trainer_flops(kept.t));
    run_stop(&kept);
    run_stop(&redone);
}

/* Frozen parameters keep every bit, weight decay or not; the others move. */
static void check_locked(bool image)
{
    tess_trainer_options o = fixture_options();
    o.lock_image = image;
    o.lock_text = !image;
    run r = start("tok_last", &o);
    int64_t n;
    const float *x = run_group(&r, "param", &n), *v;
    float *before = tess_alloc_array((size_t)n, sizeof *before), *data;
    memcpy(before, x, (size_t)n * sizeof *x);
    step(&r);
    ok(tess_trainer_update(r.t, 1e-3, 1, &r.norm));
    tess_store *s = tess_model_store(r.m);
    for (int64_t i = 0; i < tess_store_n_entries(s, "param"); i++) {
        tess_shape shape;
        const char *name = tess_store_entry(s, "param", i, &data, &shape);
        bool visual = strncmp(name, "visual.", 7) == 0, scale = strncmp(name, "logit_", 6) == 0;
        bool locked = visual ? image : !image && !scale;
        bool same = memcmp(data, before + (data - x), (size_t)tess_shape_count(&shape) * 4) == 0;
        v = tess_store_find(s, "v", name, NULL);
        if (same != locked || locked != !v) { /* what is frozen has no moments */
            fail_msg("%s: locked %d, unchanged %d", name, locked, same);
        }
    }
    tess_free(before);
    run_stop(&r);
}

static void test_locked_towers(void **state)
{
    (void)state;
    check_locked(true);
    check_locked(false);
}

/* The bf16 copy that the products read is the parameters', rounded as it is said, after every
 * update, one that changes nothing among them; and made anew it is the same. */
static void check_half(bool lock_image, bool stochastic)
{
    enum { LAST = 2 }; /* the last update that changes something */
    tess_trainer_options o = fixture_options();
    o.lock_image = lock_image;
    o.stochastic_rounding = stochastic;
    o.seed = 77;
    run r = run_start("tok_last", &o, TESS_PRECISION_BF16, NULL);
    for (int64_t i = 1; i <= LAST; i++) {
        run_update(&r, i, false);
    }
    int64_t n;
    run_update(&r, LAST + 1, true);
    const float *x = run_group(&r, "param", &n);
    uint16_t *half = (uint16_t *)run_group(&r, "half", &n);
    uint16_t *before = tess_alloc_array((size_t)n, sizeof *before);
    int64_t n_other = 0;
    for (int64_t i = 0; i < n; i++) {
        const uint16_t nearest = tess_bf16_from_f32(x[i]);
        before[i] = half[i];
        n_other += half[i] != nearest;
        assert_true(stochastic ? abs(half[i] - nearest) <= 1 : half[i] == nearest);
    }
    print_message("%lld of %lld weights are not the nearest\n", (long long)n_other, (long long)n);
    assert_true(!stochastic || (n_other > n / 16 && n_other < n / 2));
    memset(half, 0, (size_t)n * sizeof *half);
    ok(tess_trainer_sync(r.t, LAST));
    for (int64_t i = 0; i < n; i++) {
        assert_int_equal(half[i], before[i]);
    }
    tess_free(before);
    run_stop(&r);
}

static void test_half_follows(void **state)
{
    (void)state;
    check_half(false, false);
    check_half(false, true);
    check_half(true, false);
    check_half(true, true);
    tess_trainer_options o = fixture_options();
    o.stochastic_rounding = true;
    tess_model *m = fixture_model("tok_last", TESS_PRECISION_F32);
    tess_trainer *t;
    assert_fails(tess_trainer_new(m, &o, &t), TESS_INVALID, "in bf16");
    tess_model_free(m);
}

/* Entry by entry or all at once, AdamW does the same to the bit. */
static void test_text_objective_alone(void **state)
{
    (void)state;
    char *path = NULL;
    fixture_make_root(NULL);
    uint8_t *text;
    size_t n_text;
    ok(tess_file_read(FIXTURE "tok_last.json", 1 << 20, &text, &n_text));
    char *at = strstr((char *)text, "\"weight\": 2.0");
    assert_non_null(at);
    memcpy(at, "\"weight\": 0.0", 13);
    path = tess_strdup(fixture_at("config.json"));
    ok(tess_file_write(path, text, n_text));
    tess_trainer_options o = fixture_options();
    run r = {0};
    ok(tess_model_new(path, FIXTURE "tiny.model", 1, TESS_PRECISION_F32, &r.m));
    fixture_init(r.m);
    ok(tess_trainer_new(r.m, &o, &r.t));
    step(&r);
    ok(tess_trainer_update(r.t, 1e-3, 1, &r.norm));
    assert_true(r.loss > 0 && r.norm > 0);
    tess_shape shape;
    const float *proj = tess_store_find(tess_model_store(r.m), "param", "visual.proj", &shape);
    assert_true(proj[5] == (float)fixture_initial("visual.proj", &shape, 5)); /* not decayed */
    run_stop(&r);
    tess_free(text);
    tess_free(path);
    fixture_remove_root(NULL);
}

static void test_gradients_that_are_not_finite(void **state)
{
    (void)state;
    tess_trainer_options o = fixture_options();
    run r = start("tok_last", &o);
    int64_t n;
    step(&r);
    float *x = run_group(&r, "param", &n), *g = run_group(&r, "grad", &n);
    float *before = tess_alloc_array((size_t)n, sizeof *before);
    memcpy(before, x, (size_t)n * sizeof *x);
    g[n / 2] = NAN;
    ok(tess_trainer_update(r.t, 1e-3, 1, &r.norm));
    assert_false(isfinite(r.norm));
    assert_memory_equal(x, before, (size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) {
        assert_true(g[i] == 0);
    }
    step(&r);
    ok(tess_trainer_update(r.t, 1e-3, 1, &r.norm));
    assert_true(isfinite(r.norm));
    tess_free(before);
    run_stop(&r);
}

static void test_skipped_updates(void **state)
{
    (void)state;
    check_skipping(NULL);
}

static void test_outliers(void **state)
{
    (void)state;
    check_outliers(NULL);
}

/* Results that are read later are those that were handed over at once. */
static void test_results_later(void **state)
{
    (void)state;
    tess_trainer_options o = fixture_options();
    o.accumulate = 2;
    run now = start("tok_last", &o), later = start("tok_last", &o);
    const tess_micro_batch b = fixture_micro_batch(&batch);
    float loss[3], norm[3];
    tess_step_result s;
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < 2; k++) {
            ok(tess_trainer_micro_step(now.t, &b, &loss[i]));
            ok(tess_trainer_micro_step(later.t, &b, NULL));
        }
        ok(tess_trainer_update(now.t, 1e-3, i + 1, &norm[i]));
        ok(tess_trainer_update(later.t, 1e-3, i + 1, NULL));
    }
    for (int i = 0; i < 3; i++) {
        ok(tess_trainer_read(later.t, false, &s));
        assert_int_equal(s.step, i + 1);
        assert_true(s.loss == loss[i] && s.norm == norm[i]);
    }
    ok(tess_trainer_read(later.t, true, &s));
    assert_int_equal(s.step, 0);
    assert_same_states(&now, &later);
    tess_status st = TESS_OK;
    int n = 0;
    for (; st == TESS_OK; n++) {
        st = tess_trainer_update(later.t, 1e-3, 4 + n, NULL);
    }
    assert_int_equal(st, TESS_INVALID);
    assert_non_null(strstr(tess_error(), "wait to be read"));
    assert_true(n > TESS_TRAINER_RESULTS);
    run_stop(&now);
    run_stop(&later);
}

static void test_scales_are_bounded(void **state)
{
    (void)state;
    tess_trainer_options o = fixture_options();
    run r = start("tok_last", &o);
    step(&r);
    float *scale = tess_store_find(tess_model_store(r.m), "param", "logit_scale", NULL);
    *scale = 9;
    ok(tess_trainer_update(r.t, 1e-3, 1, &r.norm));
    assert_true(fabs(tess_trainer_logit_scale(r.t) - 100) < 1e-3);
    run_stop(&r);
}

/* More buckets of rows than plans are kept: the same batch gives the same bits before and after. */
static void test_plans_make_room(void **state)
{
    (void)state;
    enum { ROWS = 60 * 32 };
    static int32_t tokens[ROWS], positions[ROWS], offsets[PICTURES * SLOTS + 1];
    tess_trainer_options o = fixture_options();
    run r = start("tok_last", &o);
    float first = 0, loss;
    for (int round = 0; round < 62; round++) {
        int64_t rows = round == 61 ? 32 : round < 60 ? (round + 1) * 32 : 32;
        tess_micro_batch b = fixture_micro_batch(&batch);
        memcpy(tokens, b.tokens, (size_t)b.n_tokens * sizeof *tokens);
        memset(positions, 0, sizeof positions);
        memcpy(positions, b.positions, (size_t)b.n_tokens * sizeof *positions);
        memcpy(offsets, b.offsets, sizeof offsets);
        b.tokens = tokens;
        b.positions = positions;
        b.n_tokens = b.n_tokens > rows ? b.n_tokens : rows; /* rows behind the last caption */
        ok(tess_trainer_micro_step(r.t, &b, &loss));
        first = round == 0 ? loss : first;
        assert_true(fabsf(loss - first) < 1e-5f * first);
    }
    assert_true(loss == first);
    run_stop(&r);
}

/* The fixture's blocks are 32 wide.  FP8 follows bf16 as far as four bits do: each product's terms
 * are off by 5 to 8 % at random, of which a sum over rows and layers leaves less. */
static void test_fp8(void **state)
{
    (void)state;
    enum { STEPS = 8 };
    tess_trainer_options o = fixture_options();
    run half = run_start("tok_last", &o, TESS_PRECISION_BF16, NULL);
    o.fp8_width = 32;
    run fp8 = run_start("tok_last", &o, TESS_PRECISION_FP8, NULL);
    float first = 0;
    bool differs = false;
    for (int64_t i = 1; i <= STEPS; i++) {
        run_update(&half, i, false);
        run_update(&fp8, i, false);
        first = i == 1 ? half.loss : first;
        print_message("step %d: bf16 %.5f, fp8 %.5f\n", (int)i, (double)half.loss,
                      (double)fp8.loss);
        differs |= fp8.loss != half.loss;
        assert_true(fabsf(fp8.loss - half.loss) < 0.05f * half.loss);
    }
    assert_true(differs && fp8.loss < first);
    run_update(&fp8, STEPS + 1, true);
    run_stop(&fp8);
    run_stop(&half);
}

static void test_fp8_without_use(void **state)
{
    (void)state;
    tess_trainer *t = NULL;
    tess_trainer_options o = fixture_options();
    tess_model *m = fixture_model("tok_last", TESS_PRECISION_FP8);
    o.fp8_width = TESS_FP8_WIDTH;
    assert_fails(tess_trainer_new(m, &o, &t), TESS_INVALID,
                 "blocks of width 1024 and more, and this model's are 32 (image) and 32 (text)");
    assert_null(t);
    tess_model_free(m);
    m = fixture_model("tok_last", TESS_PRECISION_F32);
    o.fp8_width = 32;
    assert_fails(tess_trainer_new(m, &o, &t), TESS_INVALID, "models in bf16");
    tess_model_free(m);
}

static void test_bad_options(void **state)
{
    (void)state;
    tess_model *m = fixture_model("tok_last", TESS_PRECISION_F32);
    tess_trainer *t = NULL;
    tess_trainer_options o = fixture_options();
    o.captions_per_image = 1;
    assert_fails(tess_trainer_new(m, &o, &t), TESS_INVALID, "--captions-per-image 2 or more");
    o = fixture_options();
    o.batch = 0;
    assert_fails(tess_trainer_new(m, &o, &t), TESS_INVALID, "start at 1");
    assert_null(t);
    o = fixture_options();
    tess_status st = TESS_NOMEM;
    for (int64_t nth = 1; st; nth++) {
        tess_fault_set(TESS_FAULT_ALLOC, nth, false);
        st = tess_trainer_new(m, &o, &t);
        tess_fault_set(TESS_FAULT_ALLOC, 0, false);
        assert_true(!st == (t != NULL));
    }
    tess_micro_batch b = fixture_micro_batch(&batch);
    float loss;
    st = TESS_NOMEM;
    for (int64_t nth = 1; st; nth += 7) {
        tess_fault_set(TESS_FAULT_ALLOC, nth, false);
        st = tess_trainer_micro_step(t, &b, &loss);
        tess_fault_set(TESS_FAULT_ALLOC, 0, false);
    }
    tess_trainer_free(t);
    tess_model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recompute_changes_nothing),
        cmocka_unit_test(test_selective_recompute_keeps_products),
        cmocka_unit_test(test_locked_towers),
        cmocka_unit_test(test_half_follows),
        cmocka_unit_test(test_text_objective_alone),
        cmocka_unit_test(test_gradients_that_are_not_finite),
        cmocka_unit_test(test_skipped_updates),
        cmocka_unit_test(test_outliers),
        cmocka_unit_test(test_results_later),
        cmocka_unit_test(test_scales_are_bounded),
        cmocka_unit_test(test_plans_make_room),
        cmocka_unit_test(test_fp8),
        cmocka_unit_test(test_fp8_without_use),
        cmocka_unit_test(test_bad_options),
    };
    return cmocka_run_group_tests(tests, open_batch, close_batch);
}
