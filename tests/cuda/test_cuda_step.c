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

#include "fusion/fusion_fixture.h"

enum { STEPS = 3 };

static fixture_batch batch;

static int open_batch(void **state)
{
    (void)state;
    fixture_open(&batch);
    return 0;
}

static int close_batch(void **state)
{
    (void)state;
    tess_tensors_free(batch.file);
    return 0;
}

typedef struct run {
    tess_model *m;
    tess_trainer *t;
    float loss[STEPS], norm[STEPS];
} run;

static void train(run *r, const char *name, const tess_trainer_options *o, tess_precision precision,
                  bool on_card)
{
    const tess_device *device = NULL;
    if (on_card) {
        ok(tess_device_cuda(&device));
    }
    r->m = fixture_model(name, precision);
    tess_model_use(r->m, device);
    ok(tess_trainer_new(r->m, o, &r->t));
    for (int i = 0; i < STEPS; i++) {
        tess_micro_batch b = fixture_micro_batch(&batch);
        b.counter = i * PICTURES;
        ok(tess_trainer_micro_step(r->t, &b, &r->loss[i]));
        ok(tess_trainer_update(r->t, 1e-3, i + 1, &r->norm[i]));
    }
    ok(tess_model_fetch(r->m));
}

static void stop(run *r)
{
    tess_trainer_free(r->t);
    tess_model_free(r->m);
}

/* The root mean square of the difference beside that of the change, by group. */
static double distance(const run *a, const run *b, const char *group)
{
    int64_t n;
    const float *x = tess_store_group(tess_model_store(a->m), group, &n);
    const float *y = tess_store_group(tess_model_store(b->m), group, &n);
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
        size += (double)x[i] * (double)x[i];
    }
    return sqrt(difference / (size > 0 ? size : 1));
}

static void check_beside_processor(const char *name, const tess_trainer_options *o)
{
    run here, there;
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

static void check_repeats(void **state)
{
    (void)state;
    static const tess_precision precisions[] = {TESS_PRECISION_F32, TESS_PRECISION_BF16};
    for (int64_t p = 0; p < TESS_COUNT(precisions); p++) {
        const tess_trainer_options o = fixture_options();
        run a, b;
        train(&a, "tok_last", &o, precisions[p], true);
        train(&b, "tok_last", &o, precisions[p], true);
        assert_memory_equal(a.loss, b.loss, sizeof a.loss);
        assert_true(distance(&a, &b, "param") == 0);
        assert_true(distance(&a, &b, "v") == 0);
        stop(&a);
        stop(&b);
    }
}

/* bf16 follows f32 as far as eight bits do. */
static void check_bf16(void **state)
{
    (void)state;
    const tess_trainer_options o = fixture_options();
    run narrow, wide;
    train(&narrow, "tok_last", &o, TESS_PRECISION_BF16, true);
    train(&wide, "tok_last", &o, TESS_PRECISION_F32, false);
    for (int i = 0; i < STEPS; i++) {
        assert_true(fabsf(narrow.loss[i] - wide.loss[i]) < 0.02f * wide.loss[i]);
    }
    stop(&narrow);
    stop(&wide);
}

/* The last thing that a step allocates is the host's copy of its loss: where that fails, so does
 * the step, by name. */
static void check_lost_output(void **state)
{
    (void)state;
    const tess_trainer_options o = fixture_options();
    const tess_device *device;
    int64_t n_allocations = 0;
    ok(tess_device_cuda(&device));
    for (int fails = 0; fails < 2; fails++) {
        float loss;
        tess_trainer *t;
        tess_model *m = fixture_model("tok_last", TESS_PRECISION_F32);
        tess_model_use(m, device);
        ok(tess_trainer_new(m, &o, &t));
        tess_micro_batch b = fixture_micro_batch(&batch);
        tess_fault_set(TESS_FAULT_ALLOC, n_allocations, false);
        const tess_status st = tess_trainer_micro_step(t, &b, &loss);
        n_allocations = tess_fault_count(TESS_FAULT_ALLOC);
        tess_fault_set(TESS_FAULT_ALLOC, 0, false);
        assert_int_equal(st, fails ? TESS_DEVICE : TESS_OK);
        assert_true(!fails || strstr(tess_error(), "memory"));
        tess_trainer_free(t);
        tess_model_free(m);
    }
}

/* What the trained model embeds with lies on the card; the processor's copy is what was fetched. */
static void check_embedding(void **state)
{
    (void)state;
    const tess_trainer_options o = fixture_options();
    run there;
    train(&there, "tok_last", &o, TESS_PRECISION_F32, true);
    const size_t n = (size_t)(PICTURES * tess_model_embed_dim(there.m));
    float *far = tess_alloc_array(n, sizeof *far), *near = tess_alloc_array(n, sizeof *near);
    ok(tess_model_embed_pictures(there.m, batch.pictures, PICTURES, far));
    tess_model *again = fixture_model("tok_last", TESS_PRECISION_F32);
    int64_t count;
    const float *trained = tess_store_group(tess_model_store(there.m), "param", &count);
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
        cmocka_unit_test(check_embedding), cmocka_unit_test(check_lost_output),
    };
    return cmocka_run_group_tests(tests, open_batch, close_batch);
}
