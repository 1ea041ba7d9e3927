/* SPDX-License-Identifier: Apache-2.0 */
/* Training on a CUDA device beside the processor, whose numbers PyTorch's fixtures vouch for: the
 * same model, batch and options, three steps in f32; the losses, norms and weights agree.  Then the
 * device's own promises: two runs are equal bit for bit, recorded steps are the steps, and a model
 * that is saved, or embeds, has the trained weights. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cuda/emulate_control.h"
#include "fusion/trainer_fixture.h"
#include "tensor/kernels.h"

enum { STEPS = 3 };

typedef struct training {
    run r;
    float loss[STEPS], norm[STEPS];
} training;

static const tess_device *card(void)
{
    const tess_device *d;
    ok(tess_device_cuda(&d));
    return d;
}

static void train(training *t, const char *name, const tess_trainer_options *o,
                  tess_precision precision, bool on_card)
{
    t->r = run_start(name, o, precision, on_card ? card() : NULL);
    for (int i = 0; i < STEPS; i++) {
        run_update(&t->r, i + 1, false);
        t->loss[i] = t->r.loss;
        t->norm[i] = t->r.norm;
    }
    ok(tess_model_fetch(t->r.m));
}

static void stop(training *t)
{
    run_stop(&t->r);
}

/* The root mean square of the difference beside that of the change, by group. */
static double distance(const training *a, const training *b, const char *group)
{
    int64_t n;
    const float *x = run_group(&a->r, group, &n), *y = run_group(&b->r, group, &n);
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
        size += (double)x[i] * (double)x[i];
    }
    return sqrt(difference / (size > 0 ? size : 1));
}

static void check_beside_processor(const char *name, const tess_trainer_options *o)
{
    training here, there;
    train(&here, name, o, TESS_PRECISION_F32, false);
    train(&there, name, o, TESS_PRECISION_F32, true);
    for (int i = 0; i < STEPS; i++) {
        const float far = fabsf(here.loss[i] - there.loss[i]) / fabsf(here.loss[i]);
        const float norms = fabsf(here.norm[i] - there.norm[i]) / fabsf(here.norm[i]);
        print_message("%s step %d: loss %.6f, relative difference %.1e, of the norm %.1e\n", name,
                      i + 1, (double)here.loss[i], (double)far, (double)norms);
        assert_true(far < 2e-5f && norms < 2e-4f);
    }
    assert_true(distance(&here, &there, "param") < 1e-5);
    assert_true(distance(&here, &there, "m") < 1e-3);
    stop(&here);
    stop(&there);
}

static void check_models(void **state)
{
    (void)state;
    static const char *const names[] = {"tok_last", "avg_first", "avg_mean", "map_last",
                                        "tok_mean_sigmoid"};
    for (int64_t i = 0; i < TESS_COUNT(names); i++) {
        tess_trainer_options o = fixture_options();
        check_beside_processor(names[i], &o);
    }
}

static void check_options(void **state)
{
    (void)state;
    tess_trainer_options o = fixture_options();
    o.recompute = true;
    check_beside_processor("tok_last", &o);
    o = fixture_options();
    o.lock_image = true;
    check_beside_processor("tok_last", &o);
    o = fixture_options();
    o.patch_dropout = 0.5;
    o.seed = 5;
    check_beside_processor("tok_last", &o);
    check_beside_processor("avg_first", &o);
    o = fixture_options();
    o.muon = true;
    o.muon_momentum = 0.95f;
    o.muon_lr = 1;
    check_beside_processor("tok_last", &o);
}

/* Weights that products read in bf16 are the parameters', rounded to nearest. */
static void check_half(const run *r, tess_precision precision)
{
    int64_t n, n_half;
    tess_store *s = tess_model_store(r->m);
    ok(tess_store_download(s, "half", ""));
    const float *x = run_group(r, "param", &n);
    const uint16_t *half = (const uint16_t *)run_group(r, "half", &n_half);
    assert_true((half != NULL) == (precision == TESS_PRECISION_BF16));
    for (int64_t i = 0; half && i < n; i++) {
        assert_int_equal(half[i], tess_bf16_from_f32(x[i]));
    }
}

static void check_repeats(void **state)
{
    (void)state;
    static const tess_precision precisions[] = {TESS_PRECISION_F32, TESS_PRECISION_BF16};
    for (int64_t p = 0; p < TESS_COUNT(precisions); p++) {
        const tess_trainer_options o = fixture_options();
        training a, b;
        train(&a, "tok_last", &o, precisions[p], true);
        train(&b, "tok_last", &o, precisions[p], true);
        assert_memory_equal(a.loss, b.loss, sizeof a.loss);
        assert_same_states(&a.r, &b.r);
        check_half(&a.r, precisions[p]);
        stop(&a);
        stop(&b);
    }
}

/* Weights rounded by chance are rounded as on the processor, to the bit. */
static void check_stochastic(void **state)
{
    (void)state;
    tess_trainer_options o = fixture_options();
    o.stochastic_rounding = true;
    o.seed = 3;
    training t;
    train(&t, "tok_last", &o, TESS_PRECISION_BF16, true);
    int64_t n;
    ok(tess_store_download(tess_model_store(t.r.m), "half", ""));
    const float *x = run_group(&t.r, "param", &n);
    const uint16_t *half = (const uint16_t *)run_group(&t.r, "half", &n);
    uint16_t *want = tess_alloc_array((size_t)n, sizeof *want);
    tess__kernels()->round_stochastic(want, x, n, 0, o.seed, STEPS);
    assert_memory_equal(half, want, (size_t)n * sizeof *want);
    tess_free(want);
    stop(&t);
}

/* bf16 follows f32 as far as eight bits do. */
static void check_bf16(void **state)
{
    (void)state;
    const tess_trainer_options o = fixture_options();
    training narrow, wide;
    train(&narrow, "tok_last", &o, TESS_PRECISION_BF16, true);
    train(&wide, "tok_last", &o, TESS_PRECISION_F32, false);
    for (int i = 0; i < STEPS; i++) {
        assert_true(fabsf(narrow.loss[i] - wide.loss[i]) < 0.02f * wide.loss[i]);
    }
    stop(&narrow);
    stop(&wide);
}

/* Products in FP8 (the fixture's blocks are 32 wide): the card and the processor round the same
 * numbers to the same codes, but the activations that they round differ in bf16's last bits. */
static void check_fp8(void **state)
{
    (void)state;
    tess_trainer_options o = fixture_options();
    training far, again, near, half;
    train(&half, "tok_last", &o, TESS_PRECISION_BF16, true);
    o.fp8_width = 32;
    train(&far, "tok_last", &o, TESS_PRECISION_FP8, true);
    train(&again, "tok_last", &o, TESS_PRECISION_FP8, true);
    train(&near, "tok_last", &o, TESS_PRECISION_FP8, false);
    assert_memory_equal(far.loss, again.loss, sizeof far.loss);
    assert_same_states(&far.r, &again.r);
    assert_memory_not_equal(far.loss, half.loss, sizeof far.loss);
    for (int i = 0; i < STEPS; i++) {
        print_message("fp8 step %d: card %.6f, processor %.6f\n", i + 1, (double)far.loss[i],
                      (double)near.loss[i]);
        assert_true(fabsf(far.loss[i] - near.loss[i]) < 0.02f * near.loss[i]);
        assert_true(fabsf(far.norm[i] - near.norm[i]) < 0.1f * near.norm[i]);
    }
    stop(&half);
    stop(&far);
    stop(&again);
    stop(&near);
}

static void check_skips(void **state)
{
    (void)state;
    check_skipping(card());
    check_outliers(card());
}

/* ---- a host that does not wait ----------------------------------------------------------------
 */

enum { LATE_STEPS = 5 };

/* A batch in memory that is overwritten as soon as the call returns; no two are alike. */
static void step_on(run *r, int64_t step)
{
    static int32_t tokens[PICTURES * SLOTS * CONTEXT];
    int64_t n_pixels;
    tess_micro_batch b = fixture_micro_batch(&batch);
    const uint8_t *pixels = fixture_tensor(&batch, "pictures", &n_pixels);
    uint8_t *pictures = tess_alloc((size_t)n_pixels);
    for (int64_t i = 0; i < n_pixels; i++) {
        pictures[i] = (uint8_t)(pixels[i] + 17 * step);
    }
    for (int64_t i = 0; i < b.n_tokens; i++) {
        tokens[i] = b.tokens[(i + step) % b.n_tokens];
    }
    b.pictures = pictures;
    b.tokens = tokens;
    ok(tess_trainer_micro_step(r->t, &b, NULL));
    memset(pictures, 0, (size_t)n_pixels);
    memset(tokens, 0, sizeof tokens);
    ok(tess_trainer_update(r->t, 1e-3 * (double)step, step, NULL));
    tess_free(pictures);
}

static void take_results(run *r, bool wait, tess_step_result *results, int *n)
{
    tess_step_result s;
    for (;;) {
        ok(tess_trainer_read(r->t, wait, &s));
        if (s.step == 0) {
            return;
        }
        assert_int_equal(s.step, *n + 1);
        results[(*n)++] = s;
    }
}

static run train_late(unsigned late_lanes, tess_step_result *results)
{
    const tess_trainer_options o = fixture_options();
    run r = run_start("tok_last", &o, TESS_PRECISION_F32, card());
    int n = 0;
    emulate_set_lanes(late_lanes);
    for (int64_t step = 1; step <= LATE_STEPS; step++) {
        step_on(&r, step);
        take_results(&r, false, results, &n);
    }
    take_results(&r, true, results, &n);
    assert_int_equal(n, LATE_STEPS);
    ok(tess_model_fetch(r.m));
    emulate_set_lanes(0);
    return r;
}

/* However late a lane is, the copies wait for the work and the work for the copies: a lane that
 * did not would read the batch before, or the one after. */
static void check_lanes(void **state)
{
    (void)state;
    tess_step_result at_once[LATE_STEPS], late[LATE_STEPS];
    run r = train_late(0, at_once);
    for (unsigned lanes = 1; lanes < 4; lanes++) {
        run other = train_late(lanes, late);
        assert_memory_equal(at_once, late, sizeof late);
        assert_same_states(&r, &other);
        run_stop(&other);
    }
    run_stop(&r);
}

#ifndef TESS_REAL_CARD

/* Results come when they are there, and no earlier. */
static void check_pending(void **state)
{
    (void)state;
    const tess_trainer_options o = fixture_options();
    run r = run_start("tok_last", &o, TESS_PRECISION_F32, card());
    tess_step_result s;
    emulate_set_lanes(3);
    step_on(&r, 1);
    ok(tess_trainer_read(r.t, false, &s));
    assert_int_equal(s.step, 0);
    ok(tess_trainer_read(r.t, true, &s));
    assert_true(s.step == 1 && s.loss > 0 && s.norm > 0);
    emulate_set_lanes(0);
    run_stop(&r);
}

/* From the third step on: two graphs, and nothing else that costs. */
static void check_costs(void **state)
{
    (void)state;
    const tess_trainer_options o = fixture_options();
    run r = run_start("tok_last", &o, TESS_PRECISION_F32, card());
    tess_step_result s;
    const tess_micro_batch b = fixture_micro_batch(&batch);
    for (int64_t step = 1; step <= 6; step++) {
        const emulate_counts before = emulate_get_counts();
        tess_fault_set(TESS_FAULT_ALLOC, 0, false);
        ok(tess_trainer_micro_step(r.t, &b, NULL));
        ok(tess_trainer_update(r.t, 1e-3, step, NULL));
        ok(tess_trainer_read(r.t, false, &s));
        const emulate_counts after = emulate_get_counts();
        if (step > 2) {
            assert_int_equal(tess_fault_count(TESS_FAULT_ALLOC), 0);
            assert_int_equal(after.allocations - before.allocations, 0);
            assert_int_equal(after.waits - before.waits, 0);
            assert_int_equal(after.launches - before.launches, 0);
            assert_int_equal(after.graphs - before.graphs, 2);
        }
    }
    run_stop(&r);
}

#endif

/* What the trained model embeds with lies on the card; the processor's copy is what was fetched. */
static void check_embedding(void **state)
{
    (void)state;
    const tess_trainer_options o = fixture_options();
    training there;
    train(&there, "tok_last", &o, TESS_PRECISION_F32, true);
    const size_t n = (size_t)(PICTURES * tess_model_embed_dim(there.r.m));
    float *far = tess_alloc_array(n, sizeof *far), *near = tess_alloc_array(n, sizeof *near);
    ok(tess_model_embed_pictures(there.r.m, batch.pictures, PICTURES, far));
    tess_model *again = fixture_model("tok_last", TESS_PRECISION_F32);
    int64_t count;
    const float *trained = tess_store_group(tess_model_store(there.r.m), "param", &count);
    memcpy(tess_store_group(tess_model_store(again), "param", &count), trained,
           (size_t)count * sizeof *trained);
    ok(tess_model_embed_pictures(again, batch.pictures, PICTURES, near));
    for (size_t i = 0; i < n; i++) {
        assert_true(fabsf(far[i] - near[i]) < 1e-5f);
    }
    tess_free(far);
    tess_free(near);
    tess_model_free(again);
    stop(&there);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_models),    cmocka_unit_test(check_options),
        cmocka_unit_test(check_repeats),   cmocka_unit_test(check_bf16),
        cmocka_unit_test(check_embedding), cmocka_unit_test(check_skips),
        cmocka_unit_test(check_lanes),     cmocka_unit_test(check_stochastic),
        cmocka_unit_test(check_fp8),
#ifndef TESS_REAL_CARD
        cmocka_unit_test(check_pending),   cmocka_unit_test(check_costs),
#endif
    };
    return cmocka_run_group_tests(tests, open_batch, close_batch);
}
