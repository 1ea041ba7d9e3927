/* SPDX-License-Identifier: Apache-2.0 */
/* Text-only models written back: every tensor's bytes and type, the configs and the tokenizer, and
 * what tensors there are that are no parameters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fusion_fixture.h"

#define SENTENCE "tests/fixtures/sentence/"

static const struct {
    const char *dir;
    const char *weights[2]; /* files, the second NULL where there is one */
} models[] = {
    {"bert", {"model.safetensors", NULL}},
    {"bert_prefixed", {"model.safetensors", NULL}},
    {"xlmr", {"model.safetensors", NULL}},
    {"st_mean", {"model.safetensors", NULL}},
    {"st_cls", {"model.safetensors", NULL}},
    {"st_dense", {"model.safetensors", "2_Dense/model.safetensors"}},
};

static void assert_same_tensors(const char *a, const char *b, const char *file)
{
    tess_tensors *x, *y;
    char *left = tess_format("%s/%s", a, file), *right = tess_format("%s/%s", b, file);
    ok(tess_tensors_open(left, &x));
    ok(tess_tensors_open(right, &y));
    assert_int_equal(tess_tensors_count(x), tess_tensors_count(y));
    for (int64_t i = 0; i < tess_tensors_count(x); i++) {
        const tess_tensor *p = tess_tensors_at(x, i), *q = tess_tensors_find(y, p->name);
        if (!q || strcmp(p->dtype, q->dtype) != 0 || !tess_shape_equal(&p->shape, &q->shape) ||
            memcmp(p->data, q->data, p->n_bytes) != 0) {
            fail_msg("%s: %s differs (%s, %s)", left, p->name, p->dtype, q ? q->dtype : "none");
        }
    }
    tess_tensors_free(x);
    tess_tensors_free(y);
    tess_free(left);
    tess_free(right);
}

static void assert_same_configs(const char *a, const char *b)
{
    tess_names names = {0};
    ok(tess_dir_list(a, true, &names));
    for (size_t i = 0; i < names.n_names; i++) {
        uint8_t *x, *y;
        size_t n, k;
        if (!strstr(names.names[i], ".json")) {
            continue;
        }
        char *left = tess_format("%s/%s", a, names.names[i]);
        char *right = tess_format("%s/%s", b, names.names[i]);
        ok(tess_file_read(left, 1 << 24, &x, &n));
        ok(tess_file_read(right, 1 << 24, &y, &k));
        assert_int_equal(n, k);
        assert_memory_equal(x, y, n);
        tess_free(x);
        tess_free(y);
        tess_free(left);
        tess_free(right);
    }
    tess_names_deinit(&names);
}

static void fingerprint_of(const char *dir, char out[33])
{
    tess_model *m;
    ok(tess_model_open(dir, TESS_PRECISION_F32, &m));
    ok(tess_model_fingerprint(m, out));
    tess_model_free(m);
}

static void test_round_trips(void **state)
{
    (void)state;
    for (int64_t i = 0; i < TESS_COUNT(models); i++) {
        char before[33], after[33];
        char *dir = tess_format(SENTENCE "%s", models[i].dir);
        const char *out = fixture_at(models[i].dir);
        ok(tess_model_convert(dir, "hf", out));
        assert_same_tensors(dir, out, models[i].weights[0]);
        if (models[i].weights[1]) {
            assert_same_tensors(dir, out, models[i].weights[1]);
        }
        assert_same_configs(dir, out);
        fingerprint_of(dir, before);
        fingerprint_of(out, after);
        assert_string_equal(before, after);
        tess_free(dir);
    }
}

/* What was changed is written, in its place too. */
static void test_saving(void **state)
{
    (void)state;
    tess_model *m;
    char first[33], second[33];
    const char *out = fixture_at("saved");
    ok(tess_model_open(SENTENCE "st_dense", TESS_PRECISION_F32, &m));
    tess_store_find(tess_model_store(m), "param", "head.0.dense.weight", NULL)[3] += 0.5f;
    ok(tess_model_save(m, out));
    ok(tess_model_fingerprint(m, first));
    tess_model_free(m);
    fingerprint_of(out, second);
    assert_string_equal(first, second);
    ok(tess_model_open(out, TESS_PRECISION_F32, &m));
    tess_store_find(tess_model_store(m), "param", "ln_pre.bias", NULL)[0] -= 1;
    ok(tess_model_save(m, out));
    ok(tess_model_fingerprint(m, first));
    tess_model_free(m);
    assert_string_not_equal(first, second);
    fingerprint_of(out, second);
    assert_string_equal(first, second);
}

static void test_refusals(void **state)
{
    (void)state;
    tess_model *m;
    assert_fails(tess_model_convert(SENTENCE "bert", "openclip", fixture_at("no")),
                 TESS_UNSUPPORTED, "has a text tower alone, which the layout openclip cannot say");
    assert_false(tess_path_exists(fixture_at("no")));
    ok(tess_dir_make(fixture_at("other")));
    ok(tess_file_write(fixture_at("other/letter.txt"), "dear", 4));
    ok(tess_model_open(SENTENCE "bert", TESS_PRECISION_F32, &m));
    assert_fails(tess_model_save(m, fixture_at("other")), TESS_INVALID, "is no model directory");
    tess_model_free(m);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_make_root, fixture_remove_root)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_round_trips),
        TEST(test_saving),
        TEST(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
