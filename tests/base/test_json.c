/* SPDX-License-Identifier: Apache-2.0 */
/* JSON: what is refused and how, reading, the field table, writing and its way back. */
#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tessera/base.h"

static int switch_faults_off(void **state)
{
    (void)state;
    tess_fault_set(TESS_FAULT_ALLOC, 0, false);
    return 0;
}

static tess_json_doc *parse(const char *text)
{
    tess_json_doc *doc = NULL;
    assert_int_equal(tess_json_parse(text, strlen(text), "t.json", &doc), TESS_OK);
    return doc;
}

static void assert_refused(const char *text, size_t n, const char *message)
{
    tess_json_doc *doc = NULL;
    assert_int_equal(tess_json_parse(text, n, "t.json", &doc), TESS_FORMAT);
    assert_null(doc);
    assert_memory_equal(tess_error(), "t.json:", 7);
    if (strstr(tess_error(), message) == NULL) {
        fail_msg("expected \"%s\" in \"%s\"", message, tess_error());
    }
}

static void test_refusals(void **state)
{
    (void)state;
#define REFUSE(text, message) assert_refused(text, sizeof(text) - 1, message)
    REFUSE("", "bad JSON");
    REFUSE("{", "bad JSON");
    REFUSE("{\"a\":1,}", "bad JSON");
    REFUSE("[1] x", "bad JSON");
    REFUSE("{\"a\":1,\n\"a\":2}", "t.json:2:3: bad JSON: duplicate object key");
    REFUSE("\"\xC3\"", "bad JSON: unable to decode byte");
    REFUSE("\"\xC0\x80\"", "bad JSON: unable to decode byte");
    REFUSE("\"\xED\xA0\x80\"", "bad JSON: unable to decode byte");
    REFUSE("\"\xF4\x90\x80\x80\"", "bad JSON: unable to decode byte");
    REFUSE("{\"\xFF\":1}", "bad JSON: unable to decode byte");
    REFUSE("\"\\ud800\"", "bad JSON");
    REFUSE("\"a\\u0000b\"", "bad JSON");
    REFUSE("\"a\0b\"", "bad JSON");
    REFUSE("\"a\nb\"", "bad JSON");
    REFUSE("9223372036854775808", "too big");
    REFUSE("1e999", "overflow");
    REFUSE("NaN", "bad JSON");
    REFUSE("01", "bad JSON");
    REFUSE("\xEF\xBB\xBF{}", "bad JSON");
}

static void test_depth_is_limited(void **state)
{
    (void)state;
    enum { N = 100000 };
    char *text = tess_alloc(N);
    memset(text, '[', N);
    assert_refused(text, N, "depth");
    memset(text + 1000, ']', 1000);
    tess_json_doc *doc = NULL;
    assert_int_equal(tess_json_parse(text, 2000, "t.json", &doc), TESS_OK);
    tess_json_free(doc);
    tess_free(text);
}

static void test_reading(void **state)
{
    (void)state;
    tess_json_doc *doc = parse("{\"s\":\"\\u00e4\\ud83d\\ude00\",\"i\":-7,\"r\":2.5,\"t\":true,"
                               "\"n\":null,\"a\":[1,2,3],\"o\":{\"x\":{\"y\":1}}}");
    const tess_json *root = tess_json_root(doc);
    assert_int_equal(tess_json_kind_of(root), TESS_JSON_OBJECT);
    assert_int_equal(tess_json_count(root), 7);
    assert_string_equal(tess_json_string(tess_json_get(root, "s"), ""), "\u00e4\U0001F600");
    assert_int_equal(tess_json_int(tess_json_get(root, "i"), 0), -7);
    assert_int_equal(tess_json_int(tess_json_get(root, "r"), 9), 9);
    assert_true(tess_json_real(tess_json_get(root, "r"), 0) == 2.5);
    assert_true(tess_json_real(tess_json_get(root, "i"), 0) == -7.0);
    assert_true(tess_json_bool(tess_json_get(root, "t"), false));
    assert_true(tess_json_bool(tess_json_get(root, "i"), true));
    assert_string_equal(tess_json_string(tess_json_get(root, "i"), "f"), "f");
    assert_int_equal(tess_json_kind_of(tess_json_get(root, "n")), TESS_JSON_NULL);
    assert_null(tess_json_get(root, "absent"));
    const tess_json *a = tess_json_get(root, "a");
    assert_int_equal(tess_json_count(a), 3);
    assert_int_equal(tess_json_int(tess_json_at(a, 2), 0), 3);
    assert_null(tess_json_at(a, 3));
    assert_null(tess_json_at(root, 0));
    assert_null(tess_json_get(a, "x"));
    const tess_json *x = tess_json_get(tess_json_get(root, "o"), "x");
    assert_int_equal(tess_json_int(tess_json_get(x, "y"), 0), 1);
    tess_json_free(doc);
}

static void test_nothing_is_null(void **state)
{
    (void)state;
    const char *key = NULL;
    assert_int_equal(tess_json_kind_of(NULL), TESS_JSON_NULL);
    assert_null(tess_json_get(NULL, "x"));
    assert_int_equal(tess_json_count(NULL), 0);
    assert_null(tess_json_at(NULL, 0));
    assert_null(tess_json_member(NULL, 0, &key));
    assert_null(tess_json_root(NULL));
    assert_int_equal(tess_json_int(NULL, 5), 5);
    tess_json_free(NULL);
}

/* A big object inside a big one, walked together, forwards, backwards, and in a second document
 * that may lie at the first one's addresses. */
static void test_members_in_order(void **state)
{
    (void)state;
    for (int round = 0; round < 3; round++) {
        tess_buf b = {0};
        tess_json_writer w = {.buf = &b};
        tess_json_begin_object(&w);
        for (int i = 0; i < 300; i++) {
            char key[16];
            snprintf(key, sizeof key, "k%d", (i * 7919 + round) % 1000);
            tess_json_key(&w, key);
            tess_json_begin_object(&w);
            for (int k = 0; k < 20; k++) {
                snprintf(key, sizeof key, "%d", k);
                tess_json_key(&w, key);
                tess_json_add_int(&w, i * 20 + k);
            }
            tess_json_end_object(&w);
        }
        tess_json_end_object(&w);
        assert_int_equal(tess_buf_check(&b), TESS_OK);
        tess_json_doc *doc = parse(b.data);
        const tess_json *root = tess_json_root(doc);
        const char *key = NULL;
        for (size_t i = 0; i < 300; i++) {
            const tess_json *inner = tess_json_member(root, i, &key);
            assert_int_equal(atoi(key + 1), ((int)i * 7919 + round) % 1000);
            for (size_t k = 0; k < 20; k++) {
                assert_int_equal(tess_json_int(tess_json_member(inner, k, &key), -1), i * 20 + k);
            }
        }
        for (size_t i = 300; i-- > 0;) {
            const tess_json *first = tess_json_member(tess_json_member(root, i, &key), 0, &key);
            assert_int_equal(tess_json_int(first, -1), i * 20);
        }
        assert_null(tess_json_member(root, 300, &key));
        tess_json_free(doc);
        tess_buf_deinit(&b);
    }
}

/* A document may come to lie where a freed one lay; places in the old one must not be believed. */
static void test_members_after_free(void **state)
{
    (void)state;
    for (int round = 0; round < 20; round++) {
        tess_buf b = {0};
        tess_json_writer w = {.buf = &b};
        tess_json_begin_object(&w);
        for (int i = 0; i < 40; i++) {
            char key[64];
            snprintf(key, sizeof key, "%0*d", 1 + (i * 13 + round * 7) % 40, i + 100);
            tess_json_key(&w, key);
            tess_json_add_int(&w, i);
        }
        tess_json_end_object(&w);
        tess_json_doc *doc = parse(b.data);
        const char *key = NULL;
        size_t i = 10 + (size_t)round;
        assert_int_equal(tess_json_int(tess_json_member(tess_json_root(doc), i, &key), -1), i);
        assert_int_equal(atoi(key), i + 100);
        tess_json_free(doc);
        tess_buf_deinit(&b);
    }
}

static void test_load(void **state)
{
    (void)state;
    tess_json_doc *doc = NULL;
    assert_int_equal(tess_json_load("tests/fixtures/base/none.json", &doc), TESS_IO);
    assert_non_null(strstr(tess_error(), "tests/fixtures/base/none.json"));
    assert_int_equal(tess_json_load("tests/fixtures/base/config.json", &doc), TESS_OK);
    assert_int_equal(tess_json_count(tess_json_root(doc)), 2);
    tess_json_free(doc);
}

/* ---- the field table ---- */

typedef struct config {
    int64_t width;
    double ratio;
    bool causal;
    char *pool;
    double mean[3];
    const tess_json *nested, *size;
} config;

static const tess_field fields[] = {
    {"width", TESS_FIELD_INT, offsetof(config, width), 1, 4096},
    {"ratio", TESS_FIELD_REAL, offsetof(config, ratio), 0, 0},
    {"causal", TESS_FIELD_BOOL, offsetof(config, causal), 0, 0},
    {"pool", TESS_FIELD_STRING, offsetof(config, pool), 0, 0},
    {"mean", TESS_FIELD_REALS3, offsetof(config, mean), -1, 1},
    {"nested", TESS_FIELD_OBJECT, offsetof(config, nested), 0, 0},
    {"size", TESS_FIELD_VALUE, offsetof(config, size), 0, 0},
};

static tess_status read_config(const char *text, const char *name, tess_arena *arena, config *out)
{
    tess_json_doc *doc = parse(text);
    tess_status st = tess_json_read_fields(tess_json_root(doc), name, fields,
                                           (size_t)TESS_COUNT(fields), arena, out);
    tess_json_free(doc);
    return st;
}

static void test_fields_are_read(void **state)
{
    (void)state;
    tess_arena arena = {0};
    config c = {.width = 1, .ratio = 4};
    assert_int_equal(read_config("{\"width\":512,\"ratio\":3,\"causal\":true,\"pool\":\"tok\","
                                 "\"mean\":[0.5,0,-1],\"nested\":{}}",
                                 "c.json", &arena, &c),
                     TESS_OK);
    assert_int_equal(c.width, 512);
    assert_true(c.ratio == 3.0);
    assert_true(c.causal);
    assert_string_equal(c.pool, "tok");
    assert_true(c.mean[0] == 0.5 && c.mean[1] == 0 && c.mean[2] == -1);
    assert_non_null(c.nested);
    assert_int_equal(read_config("{\"width\":null,\"mean\":0.25}", "c.json", &arena, &c), TESS_OK);
    assert_int_equal(c.width, 512);
    assert_true(c.mean[0] == 0.25 && c.mean[2] == 0.25);
    assert_int_equal(read_config("null", "c.json", &arena, &c), TESS_OK);
    tess_arena_deinit(&arena);
}

/* Of another program's object only what the table names is looked at, and that as closely. */
static void test_fields_are_picked(void **state)
{
    (void)state;
    static const char *const texts[] = {"{\"width\": 7, \"novel\": {\"width\": 8}}",
                                        "{\"novel\": 1, \"width\": \"7\"}"};
    tess_arena arena = {0};
    for (int i = 0; i < 2; i++) {
        tess_json_doc *doc = NULL;
        config c = {0};
        assert_int_equal(tess_json_parse(texts[i], strlen(texts[i]), "c.json", &doc), TESS_OK);
        tess_status st = tess_json_pick_fields(tess_json_root(doc), "c.json", fields,
                                               (size_t)TESS_COUNT(fields), &arena, &c);
        assert_int_equal(st, i ? TESS_INVALID : TESS_OK);
        assert_int_equal(c.width, i ? 0 : 7);
        tess_json_free(doc);
    }
    tess_arena_deinit(&arena);
}

static void test_fields_of_any_kind_and_back(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{\"size\":224}", "{\"width\":0,\"ratio\":0.0,\"causal\":false,\"mean\":[0.0,0.0,0.0],"
                           "\"size\":224}"},
        {"{\"pool\":\"tok\",\"size\":[1,2],\"nested\":{\"a\":1},\"mean\":0.5}",
         "{\"width\":0,\"ratio\":0.0,\"causal\":false,\"pool\":\"tok\",\"mean\":[0.5,0.5,0.5],"
         "\"nested\":{\"a\":1},\"size\":[1,2]}"},
    };
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        tess_json_doc *doc = parse(cases[i][0]);
        tess_arena arena = {0};
        config c = {0};
        assert_int_equal(tess_json_read_fields(tess_json_root(doc), "c.json", fields,
                                               (size_t)TESS_COUNT(fields), &arena, &c),
                         TESS_OK);
        tess_buf b = {0};
        tess_json_writer w = {.buf = &b};
        tess_json_begin_object(&w);
        tess_json_add_fields(&w, fields, (size_t)TESS_COUNT(fields), &c);
        tess_json_end_object(&w);
        assert_int_equal(tess_buf_check(&b), TESS_OK);
        assert_string_equal(b.data, cases[i][1]);
        tess_buf_deinit(&b);
        tess_arena_deinit(&arena);
        tess_json_free(doc);
    }
}

static void test_fields_are_refused(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{\"widht\":1}", "c.json: widht: expected one of {width, ratio, causal, pool, mean, "
                          "nested, size}, found an unknown key"},
        {"{\"width\":\"1\"}", "c.json: width: expected an integer, found a string"},
        {"{\"width\":1.5}", "c.json: width: expected an integer, found a number"},
        {"{\"width\":0}", "c.json: width: expected 1 to 4096, found 0"},
        {"{\"width\":4097}", "c.json: width: expected 1 to 4096, found 4097"},
        {"{\"ratio\":true}", "c.json: ratio: expected a number, found a boolean"},
        {"{\"causal\":0}", "c.json: causal: expected true or false, found an integer"},
        {"{\"pool\":[]}", "c.json: pool: expected a string, found an array"},
        {"{\"mean\":[1,2]}", "c.json: mean: expected 3 numbers, found 2 items"},
        {"{\"mean\":[0,0,\"x\"]}", "c.json: mean: expected 3 numbers or one, found a string"},
        {"{\"mean\":[0,0,2]}", "c.json: mean: expected -1 to 1, found 2"},
        {"{\"nested\":[]}", "c.json: nested: expected an object, found an array"},
        {"[]", "c.json: expected an object, found an array"},
    };
    tess_arena arena = {0};
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        config c = {0};
        assert_int_equal(read_config(cases[i][0], "c.json", &arena, &c), TESS_INVALID);
        assert_string_equal(tess_error(), cases[i][1]);
    }
    config c = {0};
    assert_int_equal(read_config("{\"width\":0}", "c.json: model_cfg.vision_cfg", &arena, &c),
                     TESS_INVALID);
    assert_string_equal(tess_error(),
                        "c.json: model_cfg.vision_cfg.width: expected 1 to 4096, found 0");
    tess_arena_deinit(&arena);
}

/* ---- writing ---- */

static void assert_wrote(tess_buf *b, const char *text)
{
    assert_int_equal(tess_buf_check(b), TESS_OK);
    assert_string_equal(b->data, text);
    tess_buf_deinit(b);
}

static void write_sample(tess_json_writer *w)
{
    tess_json_begin_object(w);
    tess_json_key(w, "a");
    tess_json_begin_array(w);
    tess_json_add_int(w, INT64_MIN);
    tess_json_add_null(w);
    tess_json_add_bool(w, true);
    tess_json_begin_object(w);
    tess_json_end_object(w);
    tess_json_begin_array(w);
    tess_json_end_array(w);
    tess_json_end_array(w);
    tess_json_key(w, "s");
    tess_json_add_string(w, "x");
    tess_json_key(w, "none");
    tess_json_add_string(w, NULL);
    tess_json_end_object(w);
}

static void test_write_compact_and_pretty(void **state)
{
    (void)state;
    tess_buf b = {0};
    tess_json_writer w = {.buf = &b};
    write_sample(&w);
    assert_wrote(&b, "{\"a\":[-9223372036854775808,null,true,{},[]],\"s\":\"x\",\"none\":null}");
    w = (tess_json_writer){.buf = &b, .pretty = true};
    write_sample(&w);
    assert_wrote(&b, "{\n  \"a\": [\n    -9223372036854775808,\n    null,\n    true,\n    {},\n"
                     "    []\n  ],\n  \"s\": \"x\",\n  \"none\": null\n}");
}

static void test_write_strings(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"", "\"\""},
        {"\"\\/\b\f\n\r\t\x01\x1f\x7f", "\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\""},
        {"</script><!-- <b>", "\"\\u003c/script>\\u003c!-- <b>\""},
        {"\u00e4\u20ac\U0001F600", "\"\u00e4\u20ac\U0001F600\""},
        {"a\xFFz", "\"a\uFFFDz\""},
        {"\xED\xA0\x80", "\"\uFFFD\uFFFD\uFFFD\""},
        {"\xF0\x9F\x98", "\"\uFFFD\""},
        {"\xE2\x82x", "\"\uFFFDx\""},
    };
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        tess_buf b = {0};
        tess_json_writer w = {.buf = &b};
        tess_json_add_string(&w, cases[i][0]);
        assert_wrote(&b, cases[i][1]);
    }
}

static void assert_real(double v, const char *text)
{
    tess_buf b = {0};
    tess_json_writer w = {.buf = &b};
    tess_json_add_real(&w, v);
    assert_wrote(&b, text);
}

static void test_write_reals(void **state)
{
    (void)state;
    assert_real(0, "0.0");
    assert_real(-0.0, "-0.0");
    assert_real(1, "1.0");
    assert_real(0.1, "0.1");
    assert_real(1.0 / 3, "0.3333333333333333");
    assert_real(5e-324, "4.94065645841247e-324");
    assert_real(1.7976931348623157e308, "1.7976931348623157e+308");
    assert_real(1e300, "1e+300");
    assert_real(NAN, "null");
    assert_real(-INFINITY, "null");
    tess_rng r = tess_rng_at(1, 2);
    for (int i = 0; i < 2000; i++) {
        uint64_t bits = (uint64_t)tess_rng_u32(&r) << 32 | tess_rng_u32(&r);
        double v = 0;
        memcpy(&v, &bits, sizeof v);
        tess_buf b = {0};
        tess_json_writer w = {.buf = &b};
        tess_json_add_real(&w, v);
        if (isfinite(v)) {
            tess_json_doc *doc = parse(b.data);
            assert_int_equal(tess_json_kind_of(tess_json_root(doc)), TESS_JSON_REAL);
            assert_true(tess_json_real(tess_json_root(doc), 0) == v);
            tess_json_free(doc);
        }
        tess_buf_deinit(&b);
    }
}

static void test_reals_ignore_the_locale(void **state)
{
    (void)state;
    static const char *const with_comma[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "de_DE", "fr_FR"};
    const char *chosen = NULL;
    for (int64_t i = 0; i < TESS_COUNT(with_comma) && chosen == NULL; i++) {
        chosen = setlocale(LC_NUMERIC, with_comma[i]);
    }
    if (chosen == NULL) {
        skip();
    }
    assert_real(0.5, "0.5");
    assert_real(1.5e300, "1.5e+300");
    setlocale(LC_NUMERIC, "C");
}

static void test_value_goes_round(void **state)
{
    (void)state;
    static const char text[] = "{\"b\":[1,2.5,\"x\\ny\",null,false],\"a\":{\"c\":{}}}";
    tess_json_doc *doc = parse(text);
    tess_buf b = {0};
    tess_json_writer w = {.buf = &b};
    tess_json_add_value(&w, tess_json_root(doc));
    assert_wrote(&b, text);
    tess_json_free(doc);
}

/* Strings, escapes, arrays and tables that grow, nested: whatever grows meets every failure. */
static void test_parse_under_allocation_faults(void **state)
{
    (void)state;
    tess_buf text = {0};
    tess_buf_adds(&text, "[");
    for (int i = 0; i < 400; i++) {
        tess_buf_addf(&text, "{\"a\\u00e9%d\":[%d,2.5,null],\"long\":\"", i, i);
        for (int k = 0; k < i; k++) {
            tess_buf_adds(&text, "\\n\\ud83d\\ude00x");
        }
        tess_buf_adds(&text, "\",\"d\":{\"e\":[[]]}},");
    }
    tess_buf_adds(&text, "{}]");
    for (int64_t nth = 1;; nth++) {
        tess_json_doc *doc = NULL;
        tess_fault_set(TESS_FAULT_ALLOC, nth, nth % 2);
        tess_status st = tess_json_parse(text.data, text.n_bytes, "t.json", &doc);
        bool reached = tess_fault_count(TESS_FAULT_ALLOC) >= nth;
        tess_fault_set(TESS_FAULT_ALLOC, 0, false);
        tess_json_free(doc);
        if (!reached) {
            assert_int_equal(st, TESS_OK);
            assert_true(nth > 100);
            break;
        }
        assert_int_equal(st, TESS_NOMEM);
    }
    tess_buf_deinit(&text);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_teardown(f, switch_faults_off)
    const struct CMUnitTest tests[] = {
        TEST(test_refusals),
        TEST(test_depth_is_limited),
        TEST(test_reading),
        TEST(test_nothing_is_null),
        TEST(test_members_in_order),
        TEST(test_members_after_free),
        TEST(test_load),
        TEST(test_fields_are_read),
        TEST(test_fields_are_picked),
        TEST(test_fields_of_any_kind_and_back),
        TEST(test_fields_are_refused),
        TEST(test_write_compact_and_pretty),
        TEST(test_write_strings),
        TEST(test_write_reals),
        TEST(test_reals_ignore_the_locale),
        TEST(test_value_goes_round),
        TEST(test_parse_under_allocation_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
