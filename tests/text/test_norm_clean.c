/* SPDX-License-Identifier: Apache-2.0 */
/* tess_text_clean: what it changes, what it refuses, that cleaning twice changes nothing, and that
 * no text makes it slow or large. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "tessera/text.h"
#include "text/fixture.h"

typedef struct clean_case {
    const char *in, *out;
    unsigned flags;
} clean_case;

static const clean_case cases[] = {
    {"", "", 0},
    {"   ", "", 0},
    {" a\t\r\n b ", "a b", 0},
    {"caf\xc3\xa9", "caf\xc3\xa9", 0},
    {"cafe\xcc\x81", "caf\xc3\xa9", 0},
    {"\xef\xac\x81sh \xef\xbc\xa1\xef\xbc\x91", "fish A1", 0},   /* ligature, fullwidth */
    {"\xef\xbd\xb6\xef\xbe\x9e", "\xe3\x82\xac", 0},             /* halfwidth ka + dakuten */
    {"\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab", "\xed\x95\x9c", 0}, /* Hangul jamo */
    {"e\xcc\xa3\xcc\x81", "\xe1\xba\xb9\xcc\x81", 0},            /* marks in order */
    {"e\xcc\x81\xcc\xa3", "\xe1\xba\xb9\xcc\x81", 0},            /* marks out of order */
    {"a\xc2\xa0\xe3\x80\x80\xe2\x80\x83z", "a z", 0},            /* spaces of every kind */
    {"a\xc2\x85\xe2\x80\xa8z", "a z", 0},                        /* NEL, line separator */
    {"\xef\xbb\xbf"
     "a\x01\x7f\xc2\x9f\xe2\x80\xae"
     "b",
     "ab", 0},                        /* BOM, controls, RLO */
    {"e\x01\xcc\x81", "\xc3\xa9", 0}, /* composes across noise */
    {"\xe2\x9d\xa4\xef\xb8\x8f\xe2\x80\x8d", "\xe2\x9d\xa4\xef\xb8\x8f\xe2\x80\x8d", 0},
    {"x\xc2\xa8", "x \xcc\x88", 0}, /* diaeresis: space, mark */
    {"STRASSE Stra\xc3\x9f"
     "e",
     "strasse strasse", TESS_CLEAN_FOLD},
    {"STRASSE", "STRASSE", 0},
    {"\xce\xa3\xcf\x82", "\xcf\x83\xcf\x83", TESS_CLEAN_FOLD},
};

static void known_cases(void **state)
{
    (void)state;
    tess_buf out = {0};
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        const clean_case *c = &cases[i];
        assert_int_equal(tess_text_clean(c->in, strlen(c->in), c->flags, &out), TESS_OK);
        assert_string_equal(out.data, c->out);
    }
    assert_int_equal(tess_text_clean("a\0b", 3, 0, &out), TESS_OK);
    assert_string_equal(out.data, "ab");
    tess_buf_deinit(&out);
}

static void bad_utf8(void **state)
{
    (void)state;
    static const char *const bad[] = {"abc\xff", "abc\xc3", "abc\xed\xa0\x80", "abc\xc0\x80",
                                      "abc\xf4\x90\x80\x80"};
    tess_buf out = {0};
    for (int64_t i = 0; i < TESS_COUNT(bad); i++) {
        assert_int_equal(tess_text_clean(bad[i], strlen(bad[i]), 0, &out), TESS_FORMAT);
        assert_non_null(strstr(tess_error(), "byte 3"));
        assert_int_equal(out.n_bytes, 0);
    }
    tess_buf_deinit(&out);
}

static void twice_is_once(const char *s, size_t n, unsigned flags, tess_buf *a, tess_buf *b)
{
    assert_int_equal(tess_text_clean(s, n, flags, a), TESS_OK);
    assert_true(tess_utf8_valid(a->data, a->n_bytes, true));
    assert_int_equal(tess_text_clean(a->data, a->n_bytes, flags, b), TESS_OK);
    assert_int_equal(a->n_bytes, b->n_bytes);
    assert_memory_equal(a->data, b->data, a->n_bytes);
}

/* Every code point between a letter and a mark, both ways of cleaning. */
static void idempotent_over_unicode(void **state)
{
    (void)state;
    tess_buf a = {0}, b = {0};
    for (uint32_t c = 1; c < 0x110000; c += c < 0x30000 ? 1 : 97) {
        char s[16] = "x";
        size_t n = 1;
        if (c >= 0xd800 && c <= 0xdfff) {
            continue;
        }
        if (c < 0x80) {
            s[n++] = (char)c;
        } else if (c < 0x800) {
            s[n++] = (char)(0xc0 | c >> 6);
        } else if (c < 0x10000) {
            s[n++] = (char)(0xe0 | c >> 12);
        } else {
            s[n++] = (char)(0xf0 | c >> 18);
            s[n++] = (char)(0x80 | (c >> 12 & 63));
        }
        if (c >= 0x800) {
            s[n++] = (char)(0x80 | (c >> 6 & 63));
        }
        if (c >= 0x80) {
            s[n++] = (char)(0x80 | (c & 63));
        }
        memcpy(s + n, "\xcc\x81", 2);
        twice_is_once(s, n + 2, 0, &a, &b);
        twice_is_once(s, n + 2, TESS_CLEAN_FOLD, &a, &b);
    }
    tess_buf_deinit(&a);
    tess_buf_deinit(&b);
}

static void idempotent_over_fixtures(void **state)
{
    (void)state;
    tess_buf a = {0}, b = {0};
    fixture_lines l = fixture_read_lines("sentences.txt");
    for (size_t i = 0; i < l.n; i++) {
        if (tess_utf8_valid(l.lines[i].data, l.lines[i].n_bytes, false)) {
            twice_is_once(l.lines[i].data, l.lines[i].n_bytes, 0, &a, &b);
            twice_is_once(l.lines[i].data, l.lines[i].n_bytes, TESS_CLEAN_FOLD, &a, &b);
        }
    }
    fixture_free_lines(&l);
    tess_buf_deinit(&a);
    tess_buf_deinit(&b);
}

static uint32_t take_varint(const uint8_t **at)
{
    uint32_t v = 0;
    for (unsigned shift = 0;; shift += 7) {
        v |= (uint32_t)(**at & 127) << shift;
        if (*(*at)++ < 128) {
            return v;
        }
    }
}

/* The fixture sentences as Python's unicodedata normalises them (make.py). */
static void as_python_does(void **state)
{
    (void)state;
    fixture_lines l = fixture_read_lines("sentences.txt");
    uint8_t *bytes;
    size_t n_bytes;
    assert_int_equal(tess_file_read(FIXTURE_DIR "clean.bin", 1 << 20, &bytes, &n_bytes), TESS_OK);
    tess_buf out = {0};
    int n_seen = 0, n_bad = 0;
    for (const uint8_t *at = bytes; at < bytes + n_bytes; n_seen++) {
        uint32_t i = take_varint(&at) - 1, want_bytes = take_varint(&at), want_crc;
        memcpy(&want_crc, at, 4);
        at += 4;
        assert_int_equal(tess_text_clean(l.lines[i].data, l.lines[i].n_bytes, 0, &out), TESS_OK);
        if (out.n_bytes != want_bytes || tess_crc32c(0, out.data, out.n_bytes) != want_crc) {
            print_error("line %u: %s (%zu bytes, expected %u)\n", i + 1, out.data, out.n_bytes,
                        want_bytes);
            n_bad++;
        }
    }
    assert_true(n_seen > 700);
    assert_int_equal(n_bad, 0);
    tess_buf_deinit(&out);
    tess_free(bytes);
    fixture_free_lines(&l);
}

static char *repeat(const char *unit, size_t n, size_t *out_bytes)
{
    size_t n_unit = strlen(unit);
    char *s = tess_alloc(n * n_unit + 1);
    for (size_t i = 0; i < n; i++) {
        memcpy(s + i * n_unit, unit, n_unit);
    }
    *out_bytes = n * n_unit;
    return s;
}

/* Floods: combining marks, the longest expansion of NFKC, plain length. */
static void floods(void **state)
{
    (void)state;
    static const struct {
        const char *unit;
        size_t n;
        bool fits;
    } flood[] = {
        {"\xcc\x81", 2000000, true},
        {"\xcc\xa3\xcc\x81", 1000000, true},
        {" ", 4000000, true},
        {"a", TESS_TEXT_CLEAN_BYTES, true},
        {"a", 4000000, false},
        {"\xef\xb7\xba", 1900, true},
        {"\xef\xb7\xba", 50000, false},
        {"e\xcc\x81", TESS_TEXT_CLEAN_BYTES / 2, true},
        {"\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab", TESS_TEXT_CLEAN_BYTES / 3, true},
    };
    tess_buf out = {0};
    for (int64_t i = 0; i < TESS_COUNT(flood); i++) {
        size_t n;
        char *s = repeat(flood[i].unit, flood[i].n, &n);
        assert_int_equal(tess_text_clean(s, n, 0, &out), flood[i].fits ? TESS_OK : TESS_INVALID);
        assert_int_equal(tess_text_clean(s, n, TESS_CLEAN_TRUNCATE, &out), TESS_OK);
        assert_true(out.n_bytes <= TESS_TEXT_CLEAN_BYTES);
        assert_true(flood[i].fits || out.n_bytes > TESS_TEXT_CLEAN_BYTES - 4);
        assert_true(tess_utf8_valid(out.data, out.n_bytes, true));
        tess_free(s);
    }
    tess_buf_deinit(&out);
}

static void allocation_fails(void **state)
{
    (void)state;
    for (int64_t nth = 1; nth <= 2; nth++) {
        tess_buf out = {0};
        tess_fault_set(TESS_FAULT_ALLOC, nth, false);
        assert_int_equal(tess_text_clean("caf\xc3\xa9", 5, 0, &out), TESS_NOMEM);
        tess_fault_set(TESS_FAULT_ALLOC, 0, false);
        tess_buf_deinit(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_cases),
        cmocka_unit_test(bad_utf8),
        cmocka_unit_test(idempotent_over_unicode),
        cmocka_unit_test(idempotent_over_fixtures),
        cmocka_unit_test(as_python_does),
        cmocka_unit_test(floods),
        cmocka_unit_test(allocation_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
