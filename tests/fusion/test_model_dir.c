/* SPDX-License-Identifier: Apache-2.0 */
/* The model directory: what is written reads back, what is wrong is refused with its name, a save
 * is whole or absent whatever fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fusion_fixture.h"

static const char *const cases[] = {"tok_last", "avg_mean", "map_last", "tok_mean_sigmoid",
                                    "avg_first"};

static char *read_text(const char *path)
{
    uint8_t *text;
    size_t n;
    ok(tess_file_read(path, 1 << 26, &text, &n));
    return (char *)text;
}

static void write_text(const char *path, const char *text)
{
    ok(tess_file_write(path, text, strlen(text)));
}

static void copy_file(const char *from, const char *to)
{
    uint8_t *data;
    size_t n;
    ok(tess_file_read(from, 1 << 26, &data, &n));
    ok(tess_file_write(to, data, n));
    tess_free(data);
}

/* Writes `to` where `from` stands first. */
static void replace_in(const char *path, const char *from, const char *to)
{
    char *text = read_text(path), *at = strstr(text, from);
    if (!at) {
        fail_msg("no \"%s\" in %s", from, path);
    }
    char *changed = tess_format("%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    write_text(path, changed);
    tess_free(changed);
    tess_free(text);
}

/* ---- config -------------------------------------------------------------------------------- */

static void test_config_reads_back(void **state)
{
    (void)state;
    copy_file(FIXTURE "tiny.model", fixture_at("tiny.model"));
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        tess_model *m = fixture_model(cases[i], TESS_PRECISION_F32), *again = NULL;
        tess_buf first = {0}, second = {0};
        tess_model_write_config(m, &first);
        write_text(fixture_at("config.json"), first.data);
        ok(tess_model_new(fixture_at("config.json"), NULL, 1, TESS_PRECISION_F32, &again));
        tess_model_write_config(again, &second);
        assert_string_equal(first.data, second.data);
        tess_objectives a = tess_model_objectives(m), b = tess_model_objectives(again);
        assert_int_equal(a.image_text.kind, b.image_text.kind);
        assert_true(a.image_text.weight == b.image_text.weight);
        assert_true(a.text_text.weight == b.text_text.weight);
        tess_buf_deinit(&first);
        tess_buf_deinit(&second);
        tess_model_free(again);
        tess_model_free(m);
    }
}

static const struct {
    const char *from, *to;
    tess_status status;
    const char *message;
} bad_configs[] = {
    {"\"patch_size\"", "\"patch_sizes\"", TESS_INVALID,
     "config.json: model_cfg.vision_cfg.patch_sizes: expected one of {"},
    {"\"context_length\"", "\"context\"", TESS_INVALID,
     "config.json: model_cfg.text_cfg.context: expected one of {"},
    {"\"embed_dim\"", "\"embed_dims\"", TESS_INVALID, "config.json: model_cfg.embed_dims: "},
    {"\"weight\"", "\"weights\"", TESS_INVALID, "config.json: tessera.image_text.weights: "},
    {"\"text_text\"", "\"text_txt\"", TESS_INVALID, "config.json: tessera.text_txt: "},
    {"\"mean\"", "\"means\"", TESS_INVALID, "config.json: preprocess_cfg.means: "},
    {"\"tessera\"", "\"tesera\"", TESS_INVALID, "config.json: tesera: "},
    {"\"softmax\"", "\"hinge\"", TESS_UNSUPPORTED,
     "tessera.image_text: kind: expected softmax or sigmoid, found \"hinge\""},
    {"\"tok\"", "\"cls\"", TESS_UNSUPPORTED,
     "vision_cfg: pool_type: expected tok, avg, map or probe"},
    {"\"last\"", "\"median\"", TESS_UNSUPPORTED, "text_cfg: pool_type: expected argmax"},
    {"\"gelu\"", "\"gello\"", TESS_UNSUPPORTED, "vision_cfg: act: expected relu"},
    {"\"image_size\": 16", "\"image_size\": 4", TESS_INVALID,
     "image_size 4 is less than patch_size 8"},
    {"\"size\": 16", "\"size\": 32", TESS_INVALID,
     "preprocess_cfg.size is 32 x 32, but vision_cfg.image_size is 16"},
    {"\"width\": 32", "\"width\": 33", TESS_INVALID, "width 33 is no multiple of head_width 16"},
    {"\"heads\": 2", "\"heads\": 3", TESS_INVALID, "width 32 is no multiple of heads 3"},
    {"\"mlp_ratio\": 2.0", "\"mlp_ratio\": 0.01", TESS_INVALID, "no hidden unit"},
    {"\"layers\": 2", "\"layers\": 0", TESS_INVALID, "vision_cfg.layers: expected 1 to 1024"},
    {"\"layers\": 2", "\"layers\": \"2\"", TESS_INVALID, "layers: expected an integer"},
    {"\"vocab_size\": 64", "\"vocab_size\": 65", TESS_INVALID,
     "64 pieces, but text_cfg.vocab_size is 65"},
    {"\"eos_id\": 2", "\"eos_id\": 1", TESS_INVALID, "its end id is 2, but text_cfg.eos_id is 1"},
    {"\"tiny.model\"", "\"../tiny.model\"", TESS_INVALID, "tokenizer: expected the name of a file"},
    {"\"tiny.model\"", "\"other.model\"", TESS_IO, "other.model"},
    {"\"embed_dim\": 16", "\"embed_dim\": 0", TESS_INVALID, "embed_dim: expected 1 to"},
    {"\"embed_dim\": 16", "\"custom_text\": true", TESS_UNSUPPORTED, "custom_text"},
    {"\"vision_cfg\"", "\"quick_gelu\": true, \"vision_cfg\": null, \"v\"", TESS_INVALID,
     "model_cfg"},
    {"{", "[", TESS_FORMAT, "config.json"},
};

static void test_bad_configs_are_named(void **state)
{
    (void)state;
    const char *path = fixture_at("config.json");
    copy_file(FIXTURE "tiny.model", fixture_at("tiny.model"));
    for (int64_t i = 0; i < TESS_COUNT(bad_configs); i++) {
        tess_model *m = (tess_model *)&m;
        copy_file(FIXTURE "tok_last.json", path);
        replace_in(path, bad_configs[i].from, bad_configs[i].to);
        assert_fails(tess_model_new(path, NULL, 1, TESS_PRECISION_F32, &m), bad_configs[i].status,
                     bad_configs[i].message);
        assert_null(m);
    }
    tess_model *m;
    write_text(path, "[]");
    assert_int_equal(tess_model_new(path, NULL, 1, TESS_PRECISION_F32, &m), TESS_INVALID);
    write_text(path, "{}");
    assert_fails(tess_model_new(path, NULL, 1, TESS_PRECISION_F32, &m), TESS_INVALID, "model_cfg");
}

/* Every matrix has a spread of its own, every norm starts as the identity. */
static void test_initial_parameters(void **state)
{
    (void)state;
    for (int64_t k = 0; k < TESS_COUNT(cases); k++) {
        tess_model *m = NULL, *other = NULL;
        char *path = tess_format(FIXTURE "%s.json", cases[k]);
        ok(tess_model_new(path, NULL, 7, TESS_PRECISION_F32, &m));
        ok(tess_model_new(path, NULL, 8, TESS_PRECISION_F32, &other));
        for (int64_t i = 0; i < tess_store_n_entries(tess_model_store(m), "param"); i++) {
            float *x, *y;
            tess_shape s;
            const char *name = tess_store_entry(tess_model_store(m), "param", i, &x, &s);
            tess_store_entry(tess_model_store(other), "param", i, &y, &s);
            int64_t n = tess_shape_count(&s);
            double sum = 0;
            for (int64_t j = 0; j < n; j++) {
                sum += (double)x[j] * (double)x[j];
            }
            double rms = sqrt(sum / (double)n);
            if (s.rank > 1 && (rms < 0.005 || rms > 0.4 || x[0] == y[0])) {
                fail_msg("%s: %s starts at a root mean square of %g", cases[k], name, rms);
            }
        }
        tess_free(path);
        tess_model_free(m);
        tess_model_free(other);
    }
}

/* ---- save and open ------------------------------------------------------------------------- */

static void test_save_and_open(void **state)
{
    (void)state;
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        char a[33], b[33], prefixed[300];
        tess_model *m = fixture_model(cases[i], TESS_PRECISION_F32), *again = NULL;
        snprintf(prefixed, sizeof prefixed, "local-dir:%s", fixture_at("model"));
        ok(tess_model_save(m, fixture_at("model/")));
        ok(tess_model_open(prefixed, TESS_PRECISION_F32, &again));
        ok(tess_model_fingerprint(m, a));
        ok(tess_model_fingerprint(again, b));
        assert_string_equal(a, b);
        int64_t n, n_again;
        const float *x = tess_store_group(tess_model_store(m), "param", &n);
        const float *y = tess_store_group(tess_model_store(again), "param", &n_again);
        assert_int_equal(n, n_again);
        assert_memory_equal(x, y, (size_t)n * sizeof *x);
        assert_int_equal(tess_model_n_params(m), tess_model_n_params(again));
        assert_false(tess_path_exists(fixture_at("model.saving")));
        tess_model_free(again);
        tess_model_free(m);
    }
}

static void test_save_replaces_models_only(void **state)
{
    (void)state;
    tess_model *m = fixture_model("tok_last", TESS_PRECISION_F32);
    ok(tess_dir_make(fixture_at("photos")));
    write_text(fixture_at("photos/holiday.jpg"), "dear to somebody");
    assert_fails(tess_model_save(m, fixture_at("photos")), TESS_INVALID, "no model directory");
    char *text = read_text(fixture_at("photos/holiday.jpg"));
    assert_string_equal(text, "dear to somebody");
    tess_free(text);
    write_text(fixture_at("plain"), "a file");
    assert_int_not_equal(tess_model_save(m, fixture_at("plain")), TESS_OK);
    text = read_text(fixture_at("plain"));
    assert_string_equal(text, "a file");
    tess_free(text);
    ok(tess_dir_make(fixture_at("empty")));
    ok(tess_model_save(m, fixture_at("empty")));
    tess_model_free(m);
}

static void fingerprint_of(const char *config, const char *tokenizer, char out[33])
{
    tess_model *m = NULL;
    ok(tess_model_new(config, tokenizer, 1, TESS_PRECISION_F32, &m));
    ok(tess_model_fingerprint(m, out));
    tess_model_free(m);
}

/* A tokenizer of as many pieces that is not the same. */
static void write_other_tokenizer(const char *path)
{
    uint8_t *data;
    size_t n;
    char hash[33];
    tess_tokenizer *t = NULL;
    ok(tess_file_read(FIXTURE "tiny.model", 1 << 20, &data, &n));
    ok(tess_tokenizer_open(FIXTURE "tiny.model", &t));
    snprintf(hash, sizeof hash, "%s", tess_tokenizer_hash(t));
    tess_tokenizer_close(t);
    for (size_t i = 0; i < n; i++) {
        data[i] ^= 1;
        if (tess_tokenizer_open_bytes(data, n, "changed", &t) == TESS_OK) {
            bool other = tess_tokenizer_n_vocab(t) == 64 && tess_tokenizer_eos_id(t) == 2 &&
                         strcmp(tess_tokenizer_hash(t), hash) != 0;
            tess_tokenizer_close(t);
            if (other) {
                ok(tess_file_write(path, data, n));
                tess_free(data);
                return;
            }
        }
        data[i] ^= 1;
    }
    fail_msg("no byte of the tokenizer matters");
}

static void test_fingerprint_covers_everything(void **state)
{
    (void)state;
    static const char *const changes[][2] = {
        {"\"head_width\": 16", "\"head_width\": 8"},
        {"\"act\": \"gelu\"", "\"act\": \"silu\""},
        {"\"no_causal_mask\": false", "\"no_causal_mask\": true"},
        {"\"pool_type\": \"last\"", "\"pool_type\": \"mean\""},
        {"0.48145466", "0.5"},
    };
    char base[33], other[33];
    const char *path = fixture_at("config.json");
    fingerprint_of(FIXTURE "tok_last.json", NULL, base);
    for (int64_t i = 0; i < TESS_COUNT(changes); i++) {
        copy_file(FIXTURE "tok_last.json", path);
        replace_in(path, changes[i][0], changes[i][1]);
        fingerprint_of(path, FIXTURE "tiny.model", other);
        assert_string_not_equal(base, other);
    }
    copy_file(FIXTURE "tok_last.json", path); /* the same, from elsewhere */
    fingerprint_of(path, FIXTURE "tiny.model", other);
    assert_string_equal(base, other);
    write_other_tokenizer(fixture_at("other.model"));
    fingerprint_of(path, fixture_at("other.model"), other);
    assert_string_not_equal(base, other);
}

static void test_fingerprint_covers_every_weight(void **state)
{
    (void)state;
    char base[33], other[33];
    tess_model *m = fixture_model("tok_last", TESS_PRECISION_F32);
    tess_store *s = tess_model_store(m);
    ok(tess_model_fingerprint(m, base));
    for (int64_t i = 0; i < tess_store_n_entries(s, "param"); i++) {
        float *x;
        tess_shape shape;
        tess_store_entry(s, "param", i, &x, &shape);
        float *last = x + tess_shape_count(&shape) - 1, was = *last;
        *last = nextafterf(was, 100);
        ok(tess_model_fingerprint(m, other));
        assert_string_not_equal(base, other);
        *last = was;
    }
    ok(tess_model_fingerprint(m, other));
    assert_string_equal(base, other);
    tess_model_free(m);
}

static void save_fresh(const char *name)
{
    tess_model *m = fixture_model("tok_last", TESS_PRECISION_F32);
    ok(tess_model_save(m, fixture_at(name)));
    tess_model_free(m);
}

static void assert_open_fails(tess_status status, const char *message)
{
    tess_model *m = (tess_model *)&m;
    assert_fails(tess_model_open(fixture_at("model"), TESS_PRECISION_F32, &m), status, message);
    assert_null(m);
}

static void flip_byte(const char *path, double where)
{
    uint8_t *data;
    size_t n;
    ok(tess_file_read(path, 1 << 26, &data, &n));
    data[(size_t)((double)(n - 1) * where)] ^= 1;
    ok(tess_file_write(path, data, n));
    tess_free(data);
}

static void test_tampering_is_seen(void **state)
{
    (void)state;
    const char *config = fixture_at("model/open_clip_config.json");
    const char *weights = fixture_at("model/open_clip_model.safetensors");
    const char *summary = fixture_at("model/tessera.json");
    for (int i = 1; i <= 3; i++) {
        save_fresh("model");
        flip_byte(weights, 1 - 0.3 * (i - 1));
        assert_open_fails(TESS_FORMAT, "a file was changed");
    }
    save_fresh("model");
    replace_in(config, "\"heads\": 2", "\"heads\": 4");
    assert_open_fails(TESS_FORMAT, "a file was changed");
    save_fresh("model");
    write_other_tokenizer(fixture_at("model/tiny.model"));
    assert_open_fails(TESS_FORMAT, "a file was changed");
    tess_model *m = NULL;
    ok(tess_path_rename(summary, fixture_at("model/kept")));
    ok(tess_model_open(fixture_at("model"), TESS_PRECISION_F32, &m)); /* as the message says */
    tess_model_free(m);
    save_fresh("model");
    replace_in(summary, "\"format\": 1", "\"format\": 2");
    assert_open_fails(TESS_UNSUPPORTED, "expected format 1, found 2");
    write_text(summary, "{");
    assert_open_fails(TESS_FORMAT, "tessera.json");
}

static void test_parts_are_missing(void **state)
{
    (void)state;
    static const char *const parts[] = {"open_clip_config.json", "open_clip_model.safetensors",
                                        "tiny.model"};
    assert_open_fails(TESS_IO, "open_clip_config.json");
    for (int64_t i = 0; i < TESS_COUNT(parts); i++) {
        char name[64];
        snprintf(name, sizeof name, "model/%s", parts[i]);
        save_fresh("model");
        assert_int_equal(unlink(fixture_at(name)), 0);
        assert_open_fails(TESS_IO, parts[i]);
        save_fresh("whole");
        ok(tess_dir_remove(fixture_at("model")));
    }
}

/* The weights of `m` with a name left out, one added, one of another shape. */
static void save_misfits(tess_model *m, const char *path)
{
    tess_tensor tensors[128] = {0};
    int64_t n = 0;
    static const uint8_t zeros[64];
    for (int64_t i = 0; i < tess_store_n_entries(tess_model_store(m), "param"); i++) {
        tess_tensor t = {.dtype = "F32"};
        float *x;
        t.name = tess_store_entry(tess_model_store(m), "param", i, &x, &t.shape);
        t.data = (const uint8_t *)x;
        t.n_bytes = (size_t)tess_shape_count(&t.shape) * sizeof *x;
        if (strcmp(t.name, "ln_final.bias") == 0) {
            t.name = "ln_finale.bias";
        } else if (strcmp(t.name, "visual.proj") == 0) {
            t.shape = TESS_SHAPE_OF(16, 32);
        } else if (strcmp(t.name, "logit_scale") == 0) {
            t = (tess_tensor){"logit_scale", "I64", {0}, zeros, 8};
        }
        tensors[n++] = t;
    }
    ok(tess_tensors_save(path, tensors, n, NULL, 0));
}

static void test_weights_that_do_not_fit(void **state)
{
    (void)state;
    tess_model *m = fixture_model("tok_last", TESS_PRECISION_F32);
    ok(tess_model_save(m, fixture_at("model")));
    save_misfits(m, fixture_at("model/open_clip_model.safetensors"));
    tess_model_free(m);
    assert_open_fails(TESS_FORMAT, "missing ln_final.bias");
    assert_open_fails(TESS_FORMAT, "unexpected ln_finale.bias");
    assert_open_fails(TESS_FORMAT, "transposed visual.proj (expected (32,16), found (16,32))");
    assert_open_fails(TESS_FORMAT, "no float type in logit_scale");
    assert_open_fails(TESS_FORMAT, "open_clip_model.safetensors: weights do not fit the model");
}

/* ---- faults -------------------------------------------------------------------------------- */

static bool open_has(const char *name, const char *fingerprint)
{
    char have[33];
    tess_model *m = NULL;
    ok(tess_model_open(fixture_at(name), TESS_PRECISION_F32, &m));
    ok(tess_model_fingerprint(m, have));
    tess_model_free(m);
    return strcmp(have, fingerprint) == 0;
}

/* Saves `m` over a directory that holds `old`, with each call of one kind failing in turn. */
static void save_with_faults(tess_model *m, tess_model *old, tess_fault kind, bool persistent)
{
    char fresh[33], stale[33];
    ok(tess_model_fingerprint(m, fresh));
    ok(tess_model_fingerprint(old, stale));
    ok(tess_model_save(old, fixture_at("model")));
    tess_status st = TESS_NOMEM;
    int64_t nth = 1;
    for (; st; nth++) {
        tess_fault_set(kind, nth, persistent);
        st = tess_model_save(m, fixture_at("model"));
        tess_fault_set(kind, 0, false);
        bool is_fresh = open_has("model", fresh);
        assert_true(is_fresh || (st && open_has("model", stale)));
        assert_true(st == TESS_OK || tess_error()[0]);
        if (is_fresh && st) { /* only the directory's fsync came too late */
            assert_true(kind != TESS_FAULT_WRITE);
            ok(tess_model_save(old, fixture_at("model")));
        } else if (st && !persistent) {
            assert_false(tess_path_exists(fixture_at("model.saving")));
        }
    }
    assert_true(nth > 3 || kind == TESS_FAULT_RENAME);
    print_message("fault %d%s: %lld failed saves\n", (int)kind, persistent ? "+" : "",
                  (long long)nth - 2);
}

static void test_save_is_whole_or_absent(void **state)
{
    (void)state;
    tess_model *old = fixture_model("tok_last", TESS_PRECISION_F32);
    tess_model *m = fixture_model("map_last", TESS_PRECISION_F32);
    for (int kind = 0; kind < TESS_FAULT_KINDS; kind++) {
        save_with_faults(m, old, (tess_fault)kind, false);
        save_with_faults(m, old, (tess_fault)kind, true);
    }
    tess_model_free(m);
    tess_model_free(old);
}

static void test_first_save_is_whole_or_absent(void **state)
{
    (void)state;
    tess_model *m = fixture_model("tok_last", TESS_PRECISION_F32);
    char fresh[33];
    ok(tess_model_fingerprint(m, fresh));
    for (int kind = TESS_FAULT_WRITE; kind < TESS_FAULT_KINDS; kind++) {
        tess_status st = TESS_NOMEM;
        for (int64_t nth = 1; st; nth++) {
            tess_fault_set((tess_fault)kind, nth, false);
            st = tess_model_save(m, fixture_at("model"));
            tess_fault_set((tess_fault)kind, 0, false);
            if (st == TESS_OK || tess_path_exists(fixture_at("model"))) {
                assert_true(open_has("model", fresh));
            }
            ok(tess_dir_remove(fixture_at("model")));
        }
    }
    tess_model_free(m);
}

static void test_open_survives_failed_allocations(void **state)
{
    (void)state;
    save_fresh("model");
    tess_status st = TESS_NOMEM;
    int64_t nth = 1;
    for (; st; nth++) {
        tess_model *m = NULL;
        tess_fault_set(TESS_FAULT_ALLOC, nth, false);
        st = tess_model_open(fixture_at("model"), TESS_PRECISION_F32, &m);
        tess_fault_set(TESS_FAULT_ALLOC, 0, false);
        assert_true(st ? m == NULL && tess_error()[0] : m != NULL);
        tess_model_free(m);
    }
    assert_true(nth > 100);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_make_root, fixture_remove_root)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_config_reads_back),
        TEST(test_bad_configs_are_named),
        TEST(test_initial_parameters),
        TEST(test_save_and_open),
        TEST(test_save_replaces_models_only),
        TEST(test_fingerprint_covers_everything),
        TEST(test_fingerprint_covers_every_weight),
        TEST(test_tampering_is_seen),
        TEST(test_parts_are_missing),
        TEST(test_weights_that_do_not_fit),
        TEST(test_save_is_whole_or_absent),
        TEST(test_first_save_is_whole_or_absent),
        TEST(test_open_survives_failed_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
