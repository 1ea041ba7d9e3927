/* SPDX-License-Identifier: Apache-2.0 */
/* Directories of text-only models that are not as they should be: one clear message each, and
 * prompts, which change what is embedded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fusion_fixture.h"

#define SENTENCE "tests/fixtures/sentence/"

static void copy_file(const char *from, const char *to)
{
    uint8_t *data;
    size_t n;
    ok(tess_file_read(from, (size_t)1 << 24, &data, &n));
    ok(tess_file_write(to, data, n));
    tess_free(data);
}

/* A copy of a fixture's directory; its path lives until the next call. */
static const char *copy_dir(const char *name)
{
    static char dir[256];
    tess_names names = {0};
    char from[512], to[512];
    snprintf(dir, sizeof dir, "%s", fixture_at(name));
    ok(tess_dir_remove(dir));
    ok(tess_dir_make(dir));
    snprintf(from, sizeof from, SENTENCE "%s", name);
    ok(tess_dir_list(from, true, &names));
    for (size_t i = 0; i < names.n_names; i++) {
        snprintf(from, sizeof from, SENTENCE "%s/%s", name, names.names[i]);
        snprintf(to, sizeof to, "%s/%s", dir, names.names[i]);
        char *slash = strrchr(to, '/');
        *slash = 0;
        ok(tess_dir_make(to));
        *slash = '/';
        copy_file(from, to);
    }
    tess_names_deinit(&names);
    return dir;
}

/* Replaces the first `old` in a file of the directory. */
static void edit(const char *dir, const char *file, const char *old, const char *new)
{
    char path[512];
    uint8_t *data;
    size_t n;
    tess_buf b = {0};
    snprintf(path, sizeof path, "%s/%s", dir, file);
    ok(tess_file_read(path, (size_t)1 << 24, &data, &n));
    const char *at = strstr((const char *)data, old);
    if (!at) {
        fail_msg("%s: no %s", file, old);
    }
    tess_buf_add(&b, data, (size_t)(at - (const char *)data));
    tess_buf_adds(&b, new);
    tess_buf_adds(&b, at + strlen(old));
    ok(tess_file_write(path, b.data, b.n_bytes));
    tess_buf_deinit(&b);
    tess_free(data);
}

static const struct {
    const char *dir, *file, *old, *new;
    tess_status status;
    const char *message;
} cases[] = {
    {"st_mean", "modules.json", "1_Pooling", "1_Nowhere", TESS_IO, "module 1 (Pooling)"},
    {"st_mean", "modules.json", "1_Pooling", "../1_Pooling", TESS_INVALID,
     "leads out of the directory"},
    {"st_mean", "modules.json", "models.Normalize", "models.LSTM", TESS_UNSUPPORTED,
     "module 2: expected Transformer, Pooling, Dense or Normalize, found "},
    {"st_mean", "modules.json", "models.Pooling", "models.Normalize", TESS_UNSUPPORTED,
     "in this order"},
    {"st_mean", "1_Pooling/config.json", "pooling_mode_cls_token\": false",
     "pooling_mode_cls_token\": true", TESS_UNSUPPORTED, "two poolings at once, "},
    {"st_mean", "1_Pooling/config.json", "pooling_mode_mean_tokens\": true",
     "pooling_mode_mean_tokens\": false", TESS_INVALID, "expected a pooling_mode, found none"},
    {"st_mean", "1_Pooling/config.json", "pooling_mode_max_tokens\": false",
     "pooling_mode_max_tokens\": true", TESS_UNSUPPORTED, "found \"max_tokens\""},
    {"st_mean", "1_Pooling/config.json", "32", "31", TESS_INVALID,
     "word_embedding_dimension is 31, but what comes in is 32 wide"},
    {"st_cls", "1_Pooling/config.json", "\"cls\"", "[\"cls\", \"mean\"]", TESS_UNSUPPORTED,
     "two poolings at once, cls and mean"},
    {"st_cls", "1_Pooling/config.json", "\"cls\"", "\"stella\"", TESS_UNSUPPORTED,
     "found \"stella\""},
    {"st_mean", "sentence_bert_config.json", "\"do_lower_case\": false", "\"do_lower_case\": true",
     TESS_UNSUPPORTED, "do_lower_case"},
    {"st_mean", "config_sentence_transformers.json", "\"default_prompt_name\": null",
     "\"default_prompt_name\": \"poem\"", TESS_INVALID, "\"poem\" is none of the prompts"},
    {"bert", "config.json", "\"hidden_act\": \"gelu\"", "\"hidden_act\": \"xielu\"",
     TESS_UNSUPPORTED,
     "hidden_act: expected gelu, gelu_new, relu, silu, tanh or quick_gelu, found "
     "\"xielu\""},
    {"bert", "config.json", "\"hidden_size\"",
     "\"position_embedding_type\": \"relative_key\", \"hidden_size\"", TESS_UNSUPPORTED,
     "position_embedding_type: expected absolute, found \"relative_key\""},
    {"bert", "config.json", "\"is_decoder\": false", "\"is_decoder\": true", TESS_UNSUPPORTED,
     "is_decoder: expected an encoder"},
    {"bert", "config.json", "\"hidden_size\": 32", "\"hidden_size\": 30", TESS_INVALID,
     "hidden_size 30 is no multiple of num_attention_heads 4"},
    {"bert", "config.json", "\"intermediate_size\": 48", "\"intermediate_size\": 47", TESS_FORMAT,
     "encoder.layer.0.intermediate.dense.weight"},
    {"bert", "config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1", TESS_FORMAT,
     "encoder.layer.1."},
    {"bert", "config.json", "\"num_hidden_layers\": 2", "\"layers\": 2", TESS_INVALID,
     "num_hidden_layers: missing"},
    {"bert", "config.json", "\"vocab_size\": 85", "\"vocab_size\": 80", TESS_INVALID,
     "they belong to different models"},
};

static void test_each_is_refused(void **state)
{
    (void)state;
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        const char *dir = copy_dir(cases[i].dir);
        tess_model *m = NULL;
        edit(dir, cases[i].file, cases[i].old, cases[i].new);
        tess_status st = tess_model_open(dir, TESS_PRECISION_F32, &m);
        if (st != cases[i].status || !strstr(tess_error(), cases[i].message)) {
            fail_msg("case %lld: expected %s: \"%s\", found %s: \"%s\"", (long long)i,
                     tess_status_name(cases[i].status), cases[i].message, tess_status_name(st),
                     tess_error());
        }
        assert_null(m);
    }
}

static void test_pickles_are_refused(void **state)
{
    (void)state;
    tess_model *m = NULL;
    const char *dir = copy_dir("bert");
    char from[512], to[512];
    snprintf(from, sizeof from, "%s/model.safetensors", dir);
    snprintf(to, sizeof to, "%s/pytorch_model.bin", dir);
    ok(tess_path_rename(from, to));
    assert_fails(tess_model_open(dir, TESS_PRECISION_F32, &m), TESS_UNSUPPORTED, "pickle");
}

static void test_pictures_are_refused(void **state)
{
    (void)state;
    tess_model *m = NULL;
    tess_bytes png;
    float out[32];
    ok(tess_model_open(SENTENCE "st_mean", TESS_PRECISION_F32, &m));
    assert_false(tess_model_has_image(m));
    assert_int_equal(tess_model_image_size(m), 0);
    ok(tess_file_map("tests/fixtures/vision/png_rgb.png", &png));
    assert_fails(tess_model_embed_picture(m, png, out), TESS_UNSUPPORTED, "a text tower alone");
    assert_fails(tess_model_embed_text(m, " \n", 2, out), TESS_INVALID, "nothing to search for");
    assert_fails(tess_model_embed_text(m, "a\xff", 2, out), TESS_FORMAT, "not UTF-8");
    tess_file_unmap(&png);
    tess_model_free(m);
}

static void test_prompts(void **state)
{
    (void)state;
    static const char *const texts[] = {"red cat", "a black dog sits"};
    tess_model *m = NULL;
    tess_tensors *t = NULL;
    float out[32];
    char plain[33], again[33];
    ok(tess_model_open(SENTENCE "st_mean", TESS_PRECISION_F32, &m));
    ok(tess_tensors_open(SENTENCE "expected.safetensors", &t));
    const float *theirs = (const float *)tess_tensors_find(t, "st_mean/query")->data;
    assert_true(tess_model_has_prompt(m, "query") && !tess_model_has_prompt(m, "passage"));
    assert_fails(tess_model_set_prompt(m, "passage"), TESS_INVALID, "query");
    ok(tess_model_fingerprint(m, plain));
    ok(tess_model_set_prompt(m, "query"));
    for (int i = 0; i < 2; i++) {
        ok(tess_model_embed_text(m, texts[i], strlen(texts[i]), out));
        for (int k = 0; k < 32; k++) {
            assert_true(fabsf(out[k] - theirs[32 * i + k]) < 2e-5f);
        }
    }
    ok(tess_model_fingerprint(m, again));
    assert_string_equal(plain, again); /* prompts are the query's, not the model's */
    ok(tess_model_set_prompt(m, NULL));
    ok(tess_model_embed_text(m, texts[0], strlen(texts[0]), out));
    assert_true(fabsf(out[0] - theirs[0]) > 1e-4f);
    tess_tensors_free(t);
    tess_model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_is_refused),
        cmocka_unit_test(test_pickles_are_refused),
        cmocka_unit_test(test_pictures_are_refused),
        cmocka_unit_test(test_prompts),
    };
    return cmocka_run_group_tests(tests, fixture_make_root, fixture_remove_root);
}
