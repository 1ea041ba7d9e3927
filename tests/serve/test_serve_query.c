/* SPDX-License-Identifier: Apache-2.0 */
/* What the readers of a request take and refuse: multipart, base64, JSON, limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "serve/base64.h"
#include "serve/multipart.h"
#include "serve/search_query.h"

#define FORM "multipart/form-data; boundary=xyz"
#define PART(name, data)                                                                           \
    "--xyz\r\nContent-Disposition: form-data; name=\"" name "\"\r\n\r\n" data "\r\n"
#define END "--xyz--\r\n"

static tess_bytes bytes_of(const char *s)
{
    return (tess_bytes){.data = (const uint8_t *)s, .n_bytes = strlen(s)};
}

static void test_multipart(void **state)
{
    (void)state;
    tess__parts parts;
    const char *body =
        "--xyz\r\n"
        "content-disposition: FORM-DATA; filename=\"../../etc/passwd\"; name=\"image\"\r\n"
        "Content-Type: image/png\r\n\r\n"
        "\x89PNG\r\n--xy\r\n\r\n"
        "--xyz\r\nContent-Disposition: form-data; name=text; filename=\"a\\\"b;name=evil\"\r\n\r\n"
        "猫\r\n" PART("k", "") "--xyz--";
    assert_int_equal(tess__multipart_parse(FORM, bytes_of(body), &parts), TESS_OK);
    assert_int_equal(parts.n, 3);
    assert_string_equal(parts.parts[0].name, "image");
    assert_int_equal(parts.parts[0].data.n_bytes, 12);
    assert_memory_equal(parts.parts[0].data.data, "\x89PNG\r\n--xy\r\n", 12);
    assert_string_equal(parts.parts[1].name, "text");
    assert_int_equal(parts.parts[1].data.n_bytes, 3);
    assert_int_equal(parts.parts[2].data.n_bytes, 0);
    assert_int_equal(
        tess__multipart_parse("Multipart/Form-Data ;charset=x; boundary=\"x y\"",
                              bytes_of("--x y\r\nContent-Disposition: form-data; name=a\r\n\r\n"
                                       "\r\n--x y--"),
                              &parts),
        TESS_OK);
    assert_int_equal(parts.n, 1);
}

static void test_multipart_refuses(void **state)
{
    (void)state;
    static const struct {
        const char *type, *body;
    } cases[] = {
        {"multipart/form-data", PART("a", "1") END},
        {"multipart/form-data; boundary=", PART("a", "1") END},
        {"multipart/form-data; boundary", PART("a", "1") END},
        {"multipart/form-data; boundary=xyz; boundary=xyz", PART("a", "1") END},
        {"multipart/form-data; boundary=\"xyz", PART("a", "1") END},
        {"multipart/form-data; boundary=1234567890123456789012345678901234567890123456789012345678"
         "9012345678901234567890",
         PART("a", "1") END},
        {FORM, ""},
        {FORM, "--xyz"},
        {FORM, "--xyz\r\n"},
        {FORM, "--xy\r\n"},
        {FORM, "preamble\r\n" PART("a", "1") END},
        {FORM, PART("a", "1") "--xyz\n"},
        {FORM, PART("a", "1")},
        {FORM, "--xyz\r\nContent-Disposition: form-data; name=a\r\n\r\n1"},
        {FORM, "--xyz\r\nContent-Disposition: form-data; name=a\r\n"},
        {FORM, "--xyz\r\nContent-Disposition: form-data\r\n\r\n1\r\n" END},
        {FORM, "--xyz\r\nContent-Disposition: form-data; name=\"\"\r\n\r\n1\r\n" END},
        {FORM, "--xyz\r\nContent-Disposition: attachment; name=a\r\n\r\n1\r\n" END},
        {FORM, "--xyz\r\nContent-Disposition: form-data; name=\"a\r\n\r\n1\r\n" END},
        {FORM, "--xyz\r\nContent-Disposition: form-data; name=a; name=b\r\n\r\n1\r\n" END},
        {FORM, "--xyz\r\nContent-Disposition: form-data; =a\r\n\r\n1\r\n" END},
        {FORM, "--xyz\r\nX: 1\r\n\r\n1\r\n" END},
        {FORM, PART("a", "") PART("b", "") PART("c", "") PART("d", "") PART("e", "") PART("f", "")
                   PART("g", "") PART("h", "") PART("i", "") END},
    };
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        tess__parts parts;
        if (tess__multipart_parse(cases[i].type, bytes_of(cases[i].body), &parts) != TESS_FORMAT) {
            fail_msg("case %lld was taken", (long long)i);
        }
    }
    /* Cut anywhere, a form is refused, never half taken. */
    const char *whole = PART("text", "hello") PART("image", "\r\n\r\n--xyy") "--xyz--";
    for (size_t n = 0; n < strlen(whole); n++) {
        tess__parts parts;
        tess_bytes cut = {.data = (const uint8_t *)whole, .n_bytes = n};
        assert_int_equal(tess__multipart_parse(FORM, cut, &parts), TESS_FORMAT);
    }
}

static void test_base64(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out; /* out NULL: refused */
    } cases[] = {
        {"", ""},
        {"Zg==", "f"},
        {"Zm8=", "fo"},
        {"Zm9v", "foo"},
        {"Zm9v\r\nYmFy", "foobar"},
        {"+/+/", "\xfb\xff\xbf"},
        {"Zg=", NULL},
        {"Zg", NULL},
        {"Z===", NULL},
        {"====", NULL},
        {"Zm9v=", NULL},
        {"Zg==Zg==", NULL},
        {"Zm 9v", NULL},
        {"Zm-_", NULL},
        {"Zm9\xc3", NULL},
    };
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        tess_arena arena = {0};
        tess_bytes out = {0};
        tess_status st = tess__base64_decode(cases[i].in, strlen(cases[i].in), &arena, &out);
        assert_int_equal(st, cases[i].out ? TESS_OK : TESS_FORMAT);
        if (cases[i].out) {
            assert_int_equal(out.n_bytes, strlen(cases[i].out));
            assert_memory_equal(out.data, cases[i].out, out.n_bytes);
        }
        tess_arena_deinit(&arena);
    }
}

static tess_status read_query(const char *type, const char *body, tess_arena *arena,
                              tess__query *out)
{
    tess__request request = {.content_type = type, .body = bytes_of(body)};
    tess__query_limits limits = {.max_text_bytes = 20, .max_k = 50};
    return tess__query_read(&request, &limits, arena, out);
}

static void test_queries(void **state)
{
    (void)state;
    tess_arena arena = {0};
    tess__query q;
    assert_int_equal(
        read_query("application/json; charset=utf-8", "{\"text\":\"a cat\"}", &arena, &q), TESS_OK);
    assert_string_equal(q.text, "a cat");
    assert_int_equal(q.k, 10);
    assert_null(q.picture.data);
    assert_int_equal(read_query("application/json",
                                "{\"text\":\"c\",\"image\":\"data:image/png;base64,Zm9v\",\"k\":50,"
                                "\"weights\":{\"text\":-0.5,\"image\":2}}",
                                &arena, &q),
                     TESS_OK);
    assert_int_equal(q.picture.n_bytes, 3);
    assert_true(q.text_weight == -0.5 && q.picture_weight == 2);
    assert_int_equal(read_query(FORM,
                                PART("text", "קו") PART("k", "7") PART("image", "xx")
                                    PART("text_weight", "0.25") PART("image_weight", "1") END,
                                &arena, &q),
                     TESS_OK);
    assert_int_equal(q.k, 7);
    assert_int_equal(q.text_bytes, 4);
    assert_true(q.text_weight == 0.25);
    assert_int_equal(read_query(FORM, PART("text", "x") PART("image", "") END, &arena, &q),
                     TESS_OK);
    assert_null(q.picture.data);
    tess_arena_deinit(&arena);
}

static void test_queries_refused(void **state)
{
    (void)state;
    static const char json[] = "application/json";
    static const struct {
        const char *type, *body, *part;
    } cases[] = {
        {NULL, "{}", "Content-Type"},
        {"text/plain", "cat", "Content-Type"},
        {"application/jsonx", "{\"text\":\"a\"}", "Content-Type"},
        {json, "", "request"},
        {json, "[1]", "expected a JSON object"},
        {json, "{\"text\":\"a\"", "request"},
        {json, "{}", "nothing to search for"},
        {json, "{\"text\":\"\"}", "nothing to search for"},
        {json, "{\"text\":5}", "text"},
        {json, "{\"text\":\"a\",\"query\":1}", "query"},
        {json, "{\"text\":\"a\",\"text\":\"b\"}", "request"},
        {json, "{\"text\":\"a\\u0000b\"}", "request"},
        {json, "{\"text\":\"\xff\"}", "request"},
        {json, "{\"text\":\"a\",\"k\":0}", "k"},
        {json, "{\"text\":\"a\",\"k\":51}", "1 to 50"},
        {json, "{\"text\":\"a\",\"k\":-9223372036854775808}", "k"},
        {json, "{\"text\":\"a\",\"k\":1.5}", "k"},
        {json, "{\"text\":\"a\",\"k\":1e99}", "k"},
        {json, "{\"text\":\"a\",\"weights\":{\"text\":1e9}}", "weights"},
        {json, "{\"text\":\"a\",\"weights\":{\"x\":1}}", "weights"},
        {json, "{\"text\":\"a\",\"weights\":[1]}", "weights"},
        {json, "{\"image\":\"not base64!\"}", "base64"},
        {json, "{\"image\":\"data:image/png,abc\"}", "base64"},
        {json, "{\"text\":\"123456789012345678901\"}", "21 bytes"},
        {FORM, PART("text", "a\xff") END, "UTF-8"},
        {FORM, PART("text", "a") PART("text", "b") END, "twice"},
        {FORM, PART("text", "a") PART("file", "b") END, "unknown field"},
        {FORM, PART("text", "a") PART("k", "ten") END, "k: expected"},
        {FORM, PART("text", "a") PART("k", "") END, "k: expected"},
        {FORM, PART("text", "a") PART("k", "2.5") END, "whole"},
        {FORM, PART("text", "a") PART("text_weight", "nan") END, "text_weight"},
        {FORM, PART("text", "a") PART("image_weight", "1e999") END, "image_weight"},
        {FORM, END, "nothing to search for"},
        {FORM, "--xyz", "cut off"},
    };
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        tess_arena arena = {0};
        tess__query q;
        tess_status st = read_query(cases[i].type, cases[i].body, &arena, &q);
        if (st == TESS_OK || !strstr(tess_error(), cases[i].part)) {
            fail_msg("case %lld: status %d, \"%s\"", (long long)i, st, tess_error());
        }
        tess_arena_deinit(&arena);
    }
    /* Deep nesting is refused by a limit, not by the stack. */
    static char deep[200001];
    memset(deep, '[', sizeof(deep) - 1);
    tess_arena arena = {0};
    tess__query q;
    assert_int_not_equal(read_query(json, deep, &arena, &q), TESS_OK);
    tess_arena_deinit(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_multipart),       cmocka_unit_test(test_multipart_refuses),
        cmocka_unit_test(test_base64),          cmocka_unit_test(test_queries),
        cmocka_unit_test(test_queries_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
