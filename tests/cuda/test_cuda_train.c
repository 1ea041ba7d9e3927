/* SPDX-License-Identifier: Apache-2.0 */
/* Whole training runs on a CUDA device, from files: pictures go there as they were decoded, and the
 * run is to the byte that on finished pictures, which colour jitter makes necessary. */
#include "train/tiny_run.h"

#include "train/eval_pictures.h"

static const tess_device *card(void)
{
    const tess_device *d;
    if (tess_device_cuda(&d) != TESS_OK) {
        fail_msg("%s", tess_error());
    }
    return d;
}

static tess_train_options card_options(const char *name)
{
    tess_train_options o = tiny_options(name);
    o.device = card();
    o.steps = 3;
    o.precision = TESS_PRECISION_F32;
    o.augment = (tess_augment){.scale_min = 0.3, .scale_max = 1, .flip = true, .shift = 3};
    return o;
}

static void find_operator(void *ctx, tess_log_level level, const char *line)
{
    (void)level;
    *(bool *)ctx |= strstr(line, "resize_patches") != NULL;
}

/* Whether the run's profile has the operator that resizes. */
static bool resizes(tess_train_options o)
{
    bool found = false;
    o.steps = 1;
    o.profile = true;
    tess_log_set_sink(find_operator, &found, TESS_LOG_INFO);
    assert_trains(&o);
    tess_log_set_sink(NULL, NULL, TESS_LOG_WARN);
    return found;
}

/* Brightness that moves no value, but might. */
static tess_train_options finished_options(const char *name)
{
    tess_train_options o = card_options(name);
    o.augment.brightness = 1e-12;
    return o;
}

static void check_runs(void **state)
{
    (void)state;
    tess_train_options raw = card_options("raw"), finished = finished_options("finished");
    raw.workers = 2;
    assert_trains(&raw);
    assert_trains(&finished);
    assert_true(tree_hash("raw", "model") == tree_hash("finished", "model"));
    assert_true(resizes(card_options("which_raw")));
    assert_false(resizes(finished_options("which_finished")));
}

/* Views of pictures that the loader keeps are views of decoded pictures as well. */
static void check_kept(void **state)
{
    (void)state;
    tess_train_options raw = card_options("raw_kept"), finished = finished_options("finished_kept");
    raw.steps = finished.steps = 2;
    raw.cache_size = finished.cache_size = 24;
    assert_trains(&raw);
    assert_trains(&finished);
    assert_true(tree_hash("raw_kept", "model") == tree_hash("finished_kept", "model"));
}

static tess_model *open_f32(const char *path)
{
    tess_model *m = NULL;
    if (tess_model_open(run_path(path), TESS_PRECISION_F32, &m) != TESS_OK) {
        fail_msg("%s", tess_error());
    }
    return m;
}

static void embed(tess_model *m, const char *data, float *out, bool *out_ok)
{
    tess_pipeline p = tess_model_pipeline(m);
    const tess_hooks hooks = tess_pipeline_hooks(&p);
    const tess_dataset_options d = {.captions_optional = true, .hooks = &hooks};
    tess_dataset *ds = NULL;
    assert_int_equal(tess_dataset_open(data, &d, &ds), TESS_OK);
    if (tess__eval_pictures(m, ds, &hooks, 2, NULL, NULL, out, out_ok, NULL) != TESS_OK) {
        fail_msg("%s", tess_error());
    }
    tess_dataset_close(ds);
}

/* A folder of pictures of many sizes and a file that is none, on the card and on the processor. */
static void check_evaluation(void **state)
{
    (void)state;
    enum { Z_MOST = 64, N_MOST = 128 };
    static float far[N_MOST * Z_MOST], near[N_MOST * Z_MOST];
    static bool far_ok[N_MOST], near_ok[N_MOST];
    int n_good = 0;
    tess_model *m = open_f32("raw/model");
    const int64_t dim = tess_model_embed_dim(m);
    assert_true(dim <= Z_MOST);
    embed(m, "tests/fixtures/vision", near, near_ok);
    tess_model_free(m);
    m = open_f32("raw/model");
    tess_model_use(m, card());
    embed(m, "tests/fixtures/vision", far, far_ok);
    tess_model_free(m);
    for (int64_t i = 0; i < N_MOST; i++) {
        assert_int_equal(far_ok[i], near_ok[i]);
        n_good += near_ok[i];
        for (int64_t k = 0; near_ok[i] && k < dim; k++) {
            const float difference = far[i * dim + k] - near[i * dim + k];
            assert_true(difference < 1e-4f && difference > -1e-4f);
        }
    }
    assert_true(n_good > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_runs),
        cmocka_unit_test(check_kept),
        cmocka_unit_test(check_evaluation),
    };
    return cmocka_run_group_tests(tests, tiny_make, run_dir_remove);
}
