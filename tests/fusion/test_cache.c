/* SPDX-License-Identifier: Apache-2.0 */
/* An update of several micro-steps has the loss and the gradients of one batch of all their
 * pictures, whatever else the step does, and memory for one of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fusion/trainer_fixture.h"

#include <math.h>

enum { PART = 2, PARTS = PICTURES / PART };

/* Pictures first .. first+PART-1 of the fixture's, and their captions, slot by slot. */
typedef struct part {
    int32_t tokens[PART * SLOTS * CONTEXT], positions[PART * SLOTS * CONTEXT];
    int32_t offsets[PART * SLOTS + 1];
} part;

static tess_micro_batch cut(const tess_model *m, part *p, int64_t first)
{
    const int64_t side = tess_model_image_size(m);
    int32_t n = 0;
    for (int s = 0; s < SLOTS * PART; s++) {
        const int64_t caption = s / PART * PICTURES + first + s % PART;
        for (int32_t i = batch.offsets[caption]; i < batch.offsets[caption + 1]; i++, n++) {
            p->tokens[n] = batch.tokens[i];
            p->positions[n] = batch.positions[i];
        }
        p->offsets[s + 1] = n;
    }
    return (tess_micro_batch){.pictures = batch.pictures + first * side * side * 3,
                              .n_tokens = n,
                              .tokens = p->tokens,
                              .positions = p->positions,
                              .offsets = p->offsets,
                              .counter = first};
}

static void step_whole(run *r)
{
    const tess_micro_batch b = fixture_micro_batch(&batch);
    ok(tess_trainer_micro_step(r->t, &b, &r->loss));
}

/* In parts; what is handed over may change at once, and there is no loss before the last. */
static void step_parts(run *r)
{
    for (int64_t i = 0; i < PARTS; i++) {
        part p = {0};
        const tess_micro_batch b = cut(r->m, &p, i * PART);
        r->loss = -1;
        ok(tess_trainer_micro_step(r->t, &b, &r->loss));
        assert_true((r->loss == -1) == (i + 1 < PARTS));
        memset(&p, 0x7f, sizeof p);
    }
}

/* The same sums of some hundred numbers in another order, through a score of layers: 2^-24 times
 * the root of 2^8 times 2^4; of bf16 a rounding, which another order may turn. */
static float bound(const run *r)
{
    return tess_model_dtype(r->m) == TESS_BF16 ? 0x1p-6f : 0x1p-16f;
}

static float largest(const float *x, int64_t n)
{
    float most = 0;
    for (int64_t i = 0; i < n; i++) {
        most = fmaxf(most, fabsf(x[i]));
    }
    return most;
}

static void assert_close_gradients(const run *a, const run *b)
{
    tess_store *s = tess_model_store(a->m);
    for (int64_t i = 0; i < tess_store_n_entries(s, "grad"); i++) {
        float *x;
        tess_shape shape;
        const char *name = tess_store_entry(s, "grad", i, &x, &shape);
        const float *y = tess_store_find(tess_model_store(b->m), "grad", name, NULL);
        const int64_t n = tess_shape_count(&shape);
        const float limit = bound(a) * largest(x, n) + 1e-7f;
        for (int64_t k = 0; k < n; k++) {
            if (!(fabsf(x[k] - y[k]) <= limit)) {
                fail_msg("%s[%lld]: %g and %g", name, (long long)k, (double)x[k], (double)y[k]);
            }
        }
    }
}

static void check(const char *model, tess_trainer_options o, tess_precision precision)
{
    run whole = run_start(model, &o, precision, NULL);
    o.batch = PART;
    o.accumulate = PARTS;
    run parts = run_start(model, &o, precision, NULL);
    for (int64_t step = 1; step <= 2; step++) {
        step_whole(&whole);
        step_parts(&parts);
        assert_true(fabsf(whole.loss - parts.loss) <= bound(&whole) * whole.loss);
        if (step == 1) {
            assert_close_gradients(&whole, &parts);
        }
        ok(tess_trainer_update(whole.t, 1e-4, step, &whole.norm));
        ok(tess_trainer_update(parts.t, 1e-4, step, &parts.norm));
        assert_true(fabsf(whole.norm - parts.norm) <= 4 * bound(&whole) * whole.norm);
    }
    assert_true(tess_trainer_flops(parts.t) * PARTS > 1.2 * tess_trainer_flops(whole.t));
    run_stop(&whole);
    run_stop(&parts);
}

static void test_one_loss_over_all_parts(void **state)
{
    (void)state;
    const tess_trainer_options plain = fixture_options();
    check("tok_last", plain, TESS_PRECISION_F32);
    check("avg_mean", plain, TESS_PRECISION_F32);
    check("tok_last", plain, TESS_PRECISION_BF16);
    tess_trainer_options o = plain;
    o.patch_dropout = 0.5;
    o.seed = 5;
    check("tok_last", o, TESS_PRECISION_F32);
    o = plain;
    o.recompute = TESS_RECOMPUTE_FULL;
    o.lock_image = true;
    check("tok_last", o, TESS_PRECISION_F32);
    o.lock_text = true; /* the scales alone */
    check("tok_last", o, TESS_PRECISION_F32);
}

static void test_parts_repeat(void **state)
{
    (void)state;
    tess_trainer_options o = fixture_options();
    o.batch = PART;
    o.accumulate = PARTS;
    run a = run_start("tok_last", &o, TESS_PRECISION_F32, NULL);
    run b = run_start("tok_last", &o, TESS_PRECISION_F32, NULL);
    for (int64_t step = 1; step <= 2; step++) {
        step_parts(&a);
        step_parts(&b);
        ok(tess_trainer_update(a.t, 1e-3, step, &a.norm));
        ok(tess_trainer_update(b.t, 1e-3, step, NULL));
    }
    tess_step_result s = {0};
    ok(tess_trainer_read(b.t, true, &s));
    assert_true(s.step == 2 && s.norm == a.norm);
    assert_same_states(&a, &b);
    run_stop(&a);
    run_stop(&b);
}

static void test_updates_are_whole(void **state)
{
    (void)state;
    tess_trainer_options o = fixture_options();
    part p = {0};
    o.batch = PART;
    o.accumulate = PARTS;
    run r = run_start("tok_last", &o, TESS_PRECISION_F32, NULL);
    const tess_micro_batch b = cut(r.m, &p, 0);
    ok(tess_trainer_micro_step(r.t, &b, NULL));
    assert_fails(tess_trainer_update(r.t, 1e-3, 1, NULL), TESS_INVALID,
                 "an update of 3 micro-steps was asked for after 1");
    run_stop(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_loss_over_all_parts),
        cmocka_unit_test(test_parts_repeat),
        cmocka_unit_test(test_updates_are_whole),
    };
    return cmocka_run_group_tests(tests, open_batch, close_batch);
}
