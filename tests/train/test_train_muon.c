/* SPDX-License-Identifier: Apache-2.0 */
/* Training with Muon: it learns, each parameter is updated by one optimizer and one only, a frozen
 * tower stays, and a stopped run goes on to the same bytes. */
#include "train/tiny_run.h"

#include "fusion/model.h"

static tess_train_options muon_options(const char *name)
{
    tess_train_options o = tiny_options(name);
    o.optimizer = "muon";
    return o;
}

typedef struct losses {
    double first, last;
} losses;

static void keep_loss(void *ctx, const tess_train_progress *p)
{
    losses *l = ctx;
    l->first = p->step == 1 ? p->loss : l->first;
    l->last = p->loss;
}

static void test_learns(void **state)
{
    (void)state;
    losses l = {0};
    tess_train_options o = muon_options("learns");
    o.steps = 0;
    o.epochs = 60;
    o.save_every_n_steps = 0;
    o.save_frequency = 60;
    o.lr_scheduler = "cosine";
    o.on_progress = keep_loss;
    o.ctx = &l;
    assert_trains(&o);
    if (!(l.first > 1.5 && l.last < 0.3)) {
        fail_msg("loss %g to %g", l.first, l.last);
    }
    char *params = slurp(run_path("learns/params.txt"), NULL);
    assert_non_null(strstr(params, "opt: muon"));
    assert_non_null(strstr(params, "muon_momentum: 0.95"));
    tess_free(params);
}

/* ---- who updates what ---------------------------------------------------------------------- */

/* A moment that is not there counts as zero. */
static bool all_zero(const tess_tensors *t, const char *moment, const char *name)
{
    char key[256];
    snprintf(key, sizeof key, "%s/%s", moment, name);
    const tess_tensor *x = tess_tensors_find(t, key);
    for (size_t i = 0; x && i < x->n_bytes; i++) {
        if (x->data[i] != 0) {
            return false;
        }
    }
    return true;
}

/* Muon keeps m alone, AdamW m and v; what is frozen has neither. */
static void assert_moments(const char *run, bool frozen_image)
{
    char path[128];
    int64_t n_hidden = 0, n_other = 0;
    tess_tensors *t = NULL;
    snprintf(path, sizeof path, "%s/model", run);
    tess_model *m = open_model(path);
    snprintf(path, sizeof path, "%s/checkpoints/step_00000012/optimizer.safetensors", run);
    assert_int_equal(tess_tensors_open(run_path(path), &t), TESS_OK);
    for (int64_t i = 0; i < tess_store_n_entries(m->store, "param"); i++) {
        float *data;
        tess_shape shape;
        const char *name = tess_store_entry(m->store, "param", i, &data, &shape);
        const bool frozen = frozen_image && strncmp(name, "visual.", 7) == 0;
        const bool hidden = tess__is_hidden(name);
        snprintf(path, sizeof path, "v/%s", name);
        assert_true(frozen == !tess_tensors_find(t, path)); /* neither as zeros */
        if (all_zero(t, "m", name) != frozen || all_zero(t, "v", name) != (frozen || hidden)) {
            fail_msg("%s: its moments are another optimizer's", name);
        }
        n_hidden += hidden;
        n_other += !hidden;
    }
    assert_true(n_hidden >= 8 && n_other >= 8);
    tess_tensors_free(t);
    tess_model_free(m);
}

static void test_one_optimizer_each(void **state)
{
    (void)state;
    tess_train_options o = muon_options("each");
    assert_trains(&o);
    assert_moments("each", false);
    o = muon_options("frozen");
    o.lock_image = true;
    assert_trains(&o);
    assert_moments("frozen", true);
}

/* Muon leaves the rest alone: its rate tells in hidden matrices, but at the first update in no
 * others. */
static void test_rate(void **state)
{
    (void)state;
    tess_model *m[2];
    for (int k = 0; k < 2; k++) {
        tess_train_options o = muon_options(k ? "fast" : "slow");
        o.steps = 1;
        o.muon_lr = k ? 4 : 1;
        assert_trains(&o);
        m[k] = open_model(k ? "fast/model" : "slow/model");
    }
    for (int64_t i = 0; i < tess_store_n_entries(m[0]->store, "param"); i++) {
        float *a, *b;
        tess_shape shape;
        const char *name = tess_store_entry(m[0]->store, "param", i, &a, &shape);
        b = tess_store_find(m[1]->store, "param", name, NULL);
        const bool same = memcmp(a, b, (size_t)tess_shape_count(&shape) * sizeof *a) == 0;
        assert_true(same != tess__is_hidden(name));
    }
    tess_model_free(m[0]);
    tess_model_free(m[1]);
}

/* ---- resuming ------------------------------------------------------------------------------ */

static void test_resumes(void **state)
{
    (void)state;
    tess_train_options o = muon_options("straight");
    assert_trains(&o);
    o = muon_options("stopped");
    train_until(o, 7);
    o.resume = "latest";
    o.muon_momentum = 0.9;
    assert_int_equal(tess_train(&o), TESS_INVALID);
    assert_non_null(strstr(tess_error(), "other options"));
    o.muon_momentum = 0;
    o.optimizer = "adamw";
    assert_int_equal(tess_train(&o), TESS_INVALID);
    o.optimizer = "muon";
    assert_trains(&o);
    assert_same_result("straight", "stopped");
}

static void test_refusals(void **state)
{
    (void)state;
    tess_train_options o = muon_options("refused");
    o.optimizer = "lion";
    assert_int_equal(tess_train(&o), TESS_INVALID);
    assert_non_null(strstr(tess_error(), "adamw or muon"));
    assert_false(tess_path_exists(run_path("refused")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learns),   cmocka_unit_test(test_one_optimizer_each),
        cmocka_unit_test(test_rate),     cmocka_unit_test(test_resumes),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, tiny_make, run_dir_remove);
}
