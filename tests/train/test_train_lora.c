/* SPDX-License-Identifier: Apache-2.0 */
/* Training a low-rank adapter: the base stays as it is, checkpoints hold the adapter, a stopped run
 * goes on to the bytes of the undisturbed one, and what is written opens on the base. */
#include "train/tiny_run.h"

#include <math.h>

static tess_train_options lora_options(const char *name)
{
    static char base[512];
    tess_train_options o = tiny_options(name);
    snprintf(base, sizeof base, "%s/base/model", run_dir);
    o.model = base;
    o.lora = (tess_lora_options){.rank = 3, .alpha = 4, .target = "q_proj,v_proj,fc1,out_proj"};
    o.accum_freq = 2;
    o.batch_size = 4;
    o.grad_clip_norm = 1;
    o.workers = 1;
    return o;
}

static int make_base(void **state)
{
    if (tiny_make(state) != 0) {
        return -1;
    }
    tess_train_options o = tiny_options("base");
    assert_trains(&o);
    return 0;
}

static void assert_same(const char *a, const char *b)
{
    static const char *const below[] = {"checkpoints/step_00000004", "checkpoints/step_00000012",
                                        "adapter", "model"};
    for (int64_t i = 0; i < TESS_COUNT(below); i++) {
        if (tree_hash(a, below[i]) != tree_hash(b, below[i])) {
            fail_msg("%s differs between %s and %s", below[i], a, b);
        }
    }
}

static void test_resume_is_the_straight_run(void **state)
{
    (void)state;
    uint64_t base = tree_hash("base", "model");
    tess_train_options o = lora_options("straight");
    assert_trains(&o);
    for (int64_t step = 1; step <= 12; step += step < 4 ? 1 : 4) {
        char name[32];
        snprintf(name, sizeof name, "stopped%lld", (long long)step);
        o = lora_options(name);
        if (step < 12) {
            train_until(o, step);
        } else {
            assert_trains(&o);
        }
        o.resume = "latest";
        o.workers = 0;
        assert_trains(&o);
        assert_same("straight", name);
    }
    assert_true(tree_hash("base", "model") == base);
}

static void test_checkpoints_hold_the_adapter(void **state)
{
    (void)state;
    static const char *const files[] = {"adapter_config.json", "adapter_model.safetensors",
                                        "optimizer.safetensors", "state.json"};
    tess_names names = {0};
    assert_int_equal(tess_dir_list(run_path("straight/checkpoints/step_00000012"), true, &names),
                     TESS_OK);
    assert_int_equal(names.n_names, TESS_COUNT(files));
    for (size_t i = 0; i < names.n_names; i++) {
        assert_string_equal(names.names[i], files[i]);
    }
    tess_names_deinit(&names);
}

/* The vector of one text. */
static void embed(tess_model *m, float *out)
{
    if (tess_model_embed_text(m, "a picture", 9, out) != TESS_OK) {
        fail_msg("%s", tess_error());
    }
}

static void test_adapter_on_base_is_the_model(void **state)
{
    (void)state;
    tess_model *m[3] = {NULL};
    static const char *const dirs[] = {"base/model", "straight/model", "base/model"};
    const char *adapter = run_path("straight/adapter");
    float x[3][256];
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tess_model_open(run_path(dirs[i]), TESS_PRECISION_F32, &m[i]), TESS_OK);
        assert_int_equal(i == 2 ? tess_model_adapt(m[i], &adapter, 1) : TESS_OK, TESS_OK);
        assert_true(tess_model_embed_dim(m[i]) <= 256);
        embed(m[i], x[i]);
    }
    float moved = 0, apart = 0;
    for (int64_t i = 0; i < tess_model_embed_dim(m[0]); i++) {
        moved = fmaxf(moved, fabsf(x[0][i] - x[2][i]));
        apart = fmaxf(apart, fabsf(x[1][i] - x[2][i]));
    }
    print_message("the adapter moves a vector by %.3f; merged and applied differ by %.1e\n",
                  (double)moved, (double)apart);
    assert_true(moved > 1e-3f && apart < 1e-5f);
    for (int i = 0; i < 3; i++) {
        tess_model_free(m[i]);
    }
}

static void assert_refused(const tess_train_options *o, const char *why)
{
    if (tess_train(o) == TESS_OK || !strstr(tess_error(), why)) {
        fail_msg("expected a refusal with \"%s\", found: %s", why, tess_error());
    }
}

static void test_refusals(void **state)
{
    (void)state;
    tess_train_options o = lora_options("straight");
    o.resume = "latest";
    o.lora.rank = 4;
    assert_refused(&o, "self_attn.q_proj: expected rank 4, found 3");
    o = lora_options("straight");
    o.resume = "latest";
    o.lora.alpha = 5;
    assert_refused(&o, "other options");
    o = lora_options("straight");
    o.resume = "latest";
    o.model = run_path("straight/model"); /* another base */
    assert_refused(&o, "other options");
    o = lora_options("no");
    o.model = run_path("model.json");
    assert_refused(&o, "an adapter belongs to weights that exist");
    o = lora_options("no");
    o.lock_image = true;
    assert_refused(&o, "LoRA freezes both towers");
    o = lora_options("no");
    o.optimizer = "muon";
    assert_refused(&o, "AdamW");
    o = lora_options("no");
    o.lora.target = "nothing.of_the_kind";
    assert_refused(&o, "matches no linear layer");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resume_is_the_straight_run),
        cmocka_unit_test(test_checkpoints_hold_the_adapter),
        cmocka_unit_test(test_adapter_on_base_is_the_model),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, make_base, run_dir_remove);
}
