/* SPDX-License-Identifier: Apache-2.0 */
/* Training: it learns, it repeats itself to the byte, and its options do what they say. */
#include "train/tiny_run.h"

#include "tensor/op.h"

#include <math.h>

/* ---- learning ------------------------------------------------------------------------------ */

typedef struct losses {
    double first, last;
} losses;

static void keep_loss(void *ctx, const tess_train_progress *p)
{
    losses *l = ctx;
    l->first = p->step == 1 ? p->loss : l->first;
    l->last = p->loss;
}

static void test_overfits(void **state)
{
    (void)state;
    losses l = {0};
    tess_train_options o = tiny_options("overfit");
    o.steps = 0;
    o.epochs = 60;
    o.save_every_n_steps = 0;
    o.save_frequency = 60;
    o.captions_per_image = 3;
    o.lr_scheduler = "cosine";
    o.warmup = 10;
    o.val_data = o.train_data;
    o.val_caption_key = "captions";
    o.on_progress = keep_loss;
    o.ctx = &l;
    assert_trains(&o);
    assert_true(l.first > 1.5 && l.last < 0.3);

    tess_model *m = open_model("overfit/model");
    tess_eval_result r = {0};
    tess_eval_options e = {.data = o.val_data, .caption_key = "captions", .min_captions = 1};
    assert_int_equal(tess_eval_retrieval(m, &e, &r), TESS_OK);
    assert_int_equal(r.n_pictures, 40);
    assert_int_equal(r.n_captions, 120);
    assert_true(r.text_to_image.at1 == 1.0 && r.image_to_text.at1 == 1.0 && r.mean.at1 == 1.0);
    tess_eval_result_deinit(&r);
    tess_model_free(m);
    assert_true(tess_path_exists(run_path("overfit/report.html")));
}

/* ---- repeating ----------------------------------------------------------------------------- */

static void test_workers_change_nothing(void **state)
{
    (void)state;
    tess_train_options o = tiny_options("w0");
    o.augment = (tess_augment){.scale_min = 0.6, .scale_max = 1, .flip = true, .brightness = 0.2};
    assert_trains(&o);
    o.workers = 1;
    o.run_dir = tiny_options("w1").run_dir;
    assert_trains(&o);
    o.workers = 4;
    o.run_dir = tiny_options("w4").run_dir;
    assert_trains(&o);
    for (int i = 0; i < 2; i++) {
        const char *other = i ? "w4" : "w1";
        assert_same_result("w0", other);
        assert_true(tree_hash("w0", "checkpoints/step_00000004") ==
                    tree_hash(other, "checkpoints/step_00000004"));
        assert_true(tree_hash("w0", "checkpoints/epoch_2") ==
                    tree_hash(other, "checkpoints/epoch_2"));
    }
    o.seed = 2;
    o.run_dir = tiny_options("seed2").run_dir;
    assert_trains(&o);
    assert_true(tree_hash("w0", "model") != tree_hash("seed2", "model"));
}

static void test_memory_and_debug_change_nothing(void **state)
{
    (void)state;
    tess_train_options o = tiny_options("plain");
    assert_trains(&o);
    o.grad_checkpointing = true;
    o.run_dir = tiny_options("recompute").run_dir;
    assert_trains(&o);
    assert_same_result("plain", "recompute");
    o.grad_checkpointing = false;
    o.recompute_activations = true;
    o.run_dir = tiny_options("selective").run_dir;
    assert_trains(&o);
    assert_same_result("plain", "selective");
    o.recompute_activations = false;
    o.debug_numerics = true;
    o.run_dir = tiny_options("debug").run_dir;
    assert_trains(&o);
    assert_same_result("plain", "debug");
}

/* ---- frozen towers ------------------------------------------------------------------------- */

static bool is_visual(const char *name)
{
    return strncmp(name, "visual.", 7) == 0;
}

static void assert_frozen(const char *run, bool visual)
{
    char path[128];
    tess_model *before = NULL;
    assert_int_equal(tess_model_new(run_path("model.json"), NULL, 1, TESS_PRECISION_AUTO, &before),
                     0);
    snprintf(path, sizeof path, "%s/model", run);
    tess_model *after = open_model(path);
    int64_t n = tess_store_n_entries(tess_model_store(before), "param"), changed = 0;
    for (int64_t i = 0; i < n; i++) {
        float *a, *b;
        tess_shape shape;
        const char *name = tess_store_entry(tess_model_store(before), "param", i, &a, &shape);
        b = tess_store_find(tess_model_store(after), "param", name, NULL);
        bool same = memcmp(a, b, (size_t)tess_shape_count(&shape) * sizeof *a) == 0;
        if (is_visual(name) == visual && strncmp(name, "logit_", 6) != 0) {
            if (!same) {
                fail_msg("%s: changed in a frozen tower", name);
            }
        } else {
            changed += !same;
        }
    }
    assert_true(changed > 5);
    tess_model_free(before);
    tess_model_free(after);
}

static void test_frozen_towers(void **state)
{
    (void)state;
    tess_train_options o = tiny_options("lock_image");
    o.lock_image = true;
    assert_trains(&o);
    assert_frozen("lock_image", true);
    o = tiny_options("lock_text");
    o.lock_text = true;
    assert_trains(&o);
    assert_frozen("lock_text", false);
}

/* ---- learning rate ------------------------------------------------------------------------- */

static void assert_near(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance)) {
        fail_msg("%.17g is not %.17g", a, b);
    }
}

static void test_learning_rate(void **state)
{
    (void)state;
    tess_train_options o = {.lr = 2, .warmup = 4, .lr_scheduler = "const"};
    const double warm[] = {0.5, 1, 1.5, 2, 2, 2};
    for (int64_t i = 0; i < TESS_COUNT(warm); i++) {
        assert_near(tess__learning_rate(&o, i, (double)i / 6), warm[i], 1e-12);
    }
    o = (tess_train_options){.lr = 2, .lr_scheduler = "cosine", .lr_min = 0.1};
    assert_near(tess__learning_rate(&o, 0, 0), 2, 1e-12);
    assert_near(tess__learning_rate(&o, 0, 0.5), 2 * 0.55, 1e-12);
    assert_near(tess__learning_rate(&o, 0, 0.25), 2 * (0.1 + 0.45 * (1 + sqrt(0.5))), 1e-9);
    assert_near(tess__learning_rate(&o, 9, 1), 0.2, 1e-12);
    o.warmup = 2;
    assert_near(tess__learning_rate(&o, 0, 0.5), 0.55, 1e-12);
}

/* ---- numbers that are not finite ----------------------------------------------------------- */

/* A token that stands in one caption only. */
static int32_t rare_token(const tess_model *m)
{
    tess_pipeline p = tess_model_pipeline(m);
    tess_hooks hooks = tess_pipeline_hooks(&p);
    tess_dataset *ds = NULL;
    tess_captions c = {0};
    tess_dataset_options d = {.hooks = &hooks};
    assert_int_equal(tess_dataset_open(run_path("tiny.tar"), &d, &ds), TESS_OK);
    assert_int_equal(tess_captions_load(ds, &hooks, tess_model_context_length(m), false, &c),
                     TESS_OK);
    int32_t found = -1;
    for (int64_t i = 0; i < c.n_tokens && found < 0; i++) {
        int64_t n = 0;
        for (int64_t k = 0; k < c.n_tokens; k++) {
            n += c.tokens[k] == c.tokens[i];
        }
        found = n == 1 ? c.tokens[i] : -1;
    }
    assert_true(found >= 0);
    tess_captions_deinit(&c);
    tess_dataset_close(ds);
    return found;
}

/* The row of the token's embedding. */
static float *embedding_row(const tess_model *m, const char *group, int32_t token, int64_t *width)
{
    tess_shape shape;
    float *data = tess_store_find(tess_model_store(m), group, "token_embedding.weight", &shape);
    assert_non_null(data);
    *width = shape.dim[1];
    return data + token * shape.dim[1];
}

static int64_t count_bad(const tess_model *m, const char *group)
{
    int64_t n, bad = 0;
    const float *x = tess_store_group(tess_model_store(m), group, &n);
    for (int64_t i = 0; i < n; i++) {
        bad += !isfinite(x[i]);
    }
    return bad;
}

/* With one token's embedding so large that its mean overflows, one batch of every epoch has a
 * gradient that is not finite. */
static void test_skips_what_is_not_finite(void **state)
{
    (void)state;
    tess_model *m = NULL;
    int64_t width;
    assert_int_equal(tess_model_new(run_path("model.json"), NULL, 1, TESS_PRECISION_AUTO, &m), 0);
    int32_t token = rare_token(m);
    float *row = embedding_row(m, "param", token, &width);
    for (int64_t i = 0; i < width; i++) {
        row[i] = 3e38f;
    }
    assert_int_equal(tess_model_save(m, run_path("poison")), TESS_OK);
    tess_model_free(m);

    char poison[512];
    tess_train_options o = tiny_options("nan");
    snprintf(poison, sizeof poison, "%s/poison", run_dir);
    o.model = poison;
    o.captions_per_image = 3; /* every caption once an epoch */
    o.steps = 20;
    assert_trains(&o);
    m = open_model("nan/model");
    tess_trainer *t = NULL;
    tess_train_state s = {0};
    tess_trainer_options to = {.batch = 8, .captions_per_image = 3, .accumulate = 1};
    assert_int_equal(tess_trainer_new(m, &to, &t), TESS_OK);
    assert_int_equal(tess_checkpoint_load(m, run_path("nan/checkpoints/step_00000020"), &s), 0);
    assert_int_equal(s.step, 20);
    assert_int_equal(s.n_skipped, 4);
    assert_int_equal(count_bad(m, "param"), 0);
    assert_int_equal(count_bad(m, "m"), 0);
    assert_int_equal(count_bad(m, "v"), 0);
    char *log = slurp(run_path("nan/out.log"), NULL);
    assert_non_null(strstr(log, "update skipped (4 so far)"));
    tess_free(log);
    tess_trainer_free(t);
    tess_model_free(m);

    o.run_dir = tiny_options("nan2").run_dir;
    train_until(o, 11);
    o.resume = "latest";
    assert_trains(&o);
    assert_true(tree_hash("nan", "checkpoints/step_00000020") ==
                tree_hash("nan2", "checkpoints/step_00000020"));

    o = tiny_options("nan_debug");
    o.model = poison;
    o.captions_per_image = 3;
    o.debug_numerics = true;
    assert_int_not_equal(tess_train(&o), TESS_OK);
    assert_non_null(strstr(tess_error(), "resblocks.0.ln_1"));
}

static void test_overflow_leaves_weights_finite(void **state)
{
    (void)state;
    tess_train_options o = tiny_options("huge");
    o.lr = 1e30;
    o.weight_decay = 0;
    assert_trains(&o);
    tess_model *m = open_model("huge/model");
    assert_int_equal(count_bad(m, "param"), 0);
    tess_model_free(m);
}

/* ---- options that make no sense ------------------------------------------------------------ */

static void test_refusals(void **state)
{
    (void)state;
    tess_train_options o = tiny_options("refused");
    o.epochs = 1;
    assert_int_equal(tess_train(&o), TESS_INVALID);
    o = tiny_options("refused");
    o.lr_scheduler = "linear";
    assert_int_equal(tess_train(&o), TESS_INVALID);
    o = tiny_options("refused");
    o.batch_size = 41;
    assert_int_equal(tess_train(&o), TESS_INVALID);
    o = tiny_options("refused");
    o.batch_size = 16;
    o.accum_freq = 3;
    assert_int_equal(tess_train(&o), TESS_INVALID);
    assert_non_null(strstr(tess_error(), "--accum-freq"));
    o = tiny_options("refused");
    o.train_data = run_path("none.tar");
    assert_int_equal(tess_train(&o), TESS_IO);
    assert_non_null(strstr(tess_error(), "none.tar"));
    assert_false(tess_path_exists(run_path("refused")));

    o = tiny_options("again");
    assert_trains(&o);
    uint64_t before = tree_hash("again", "checkpoints");
    assert_int_equal(tess_train(&o), TESS_INVALID);
    assert_non_null(strstr(tess_error(), "--resume latest"));
    assert_true(tree_hash("again", "checkpoints") == before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_overfits),
        cmocka_unit_test(test_workers_change_nothing),
        cmocka_unit_test(test_memory_and_debug_change_nothing),
        cmocka_unit_test(test_frozen_towers),
        cmocka_unit_test(test_learning_rate),
        cmocka_unit_test(test_skips_what_is_not_finite),
        cmocka_unit_test(test_overflow_leaves_weights_finite),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, tiny_make, run_dir_remove);
}
