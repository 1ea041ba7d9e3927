/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8 against a decoder written from the definition, hashes against known answers, log lines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/utf8.h"

static void test_utf8_table(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        bool valid;
    } cases[] = {
        {"", 0, true},
        {"\0", 1, true},
        {"\x7F", 1, true},
        {"\x80", 1, false},
        {"\xBF", 1, false},
        {"\xC0\x80", 2, false},
        {"\xC1\xBF", 2, false},
        {"\xC2\x80", 2, true},
        {"\xDF\xBF", 2, true},
        {"\xC2", 1, false},
        {"\xC2 ", 2, false},
        {"\xE0\x9F\xBF", 3, false},
        {"\xE0\xA0\x80", 3, true},
        {"\xED\x9F\xBF", 3, true},
        {"\xED\xA0\x80", 3, false},
        {"\xED\xBF\xBF", 3, false},
        {"\xEE\x80\x80", 3, true},
        {"\xEF\xBF\xBF", 3, true},
        {"\xE2\x82", 2, false},
        {"\xF0\x8F\xBF\xBF", 4, false},
        {"\xF0\x90\x80\x80", 4, true},
        {"\xF4\x8F\xBF\xBF", 4, true},
        {"\xF4\x90\x80\x80", 4, false},
        {"\xF5\x80\x80\x80", 4, false},
        {"\xF8\x88\x80\x80\x80", 5, false},
        {"\xFE", 1, false},
        {"\xFF", 1, false},
        {"\xF0\x9F\x98\x80z", 5, true},
    };
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        assert_int_equal(tess_utf8_valid(cases[i].bytes, cases[i].n, false), cases[i].valid);
    }
    assert_false(tess_utf8_valid("a\0b", 3, true));
    assert_true(tess_utf8_valid("ab", 2, true));
}

/* Decodes by the definition: the value must lie in its length's range and be no surrogate. */
static bool is_one_scalar(const uint8_t *s, size_t n)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    static const uint8_t lead_mask[] = {0, 0x80, 0xE0, 0xF0, 0xF8};
    static const uint8_t lead_bits[] = {0, 0x00, 0xC0, 0xE0, 0xF0};
    if ((s[0] & lead_mask[n]) != lead_bits[n]) {
        return false;
    }
    uint32_t value = s[0] & (uint8_t)~lead_mask[n];
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xC0) != 0x80) {
            return false;
        }
        value = value << 6 | (s[i] & 0x3F);
    }
    return value >= least[n] && value <= 0x10FFFF && (value < 0xD800 || value > 0xDFFF);
}

static void test_utf8_against_the_definition(void **state)
{
    (void)state;
    static const uint8_t tails[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90,
                                    0x9F, 0xA0, 0xBF, 0xC0, 0xED, 0xFF};
    for (int64_t k = 0; k < 256 * 12 * 12 * 12; k++) {
        const uint8_t s[4] = {(uint8_t)(k / 1728), tails[k / 144 % 12], tails[k / 12 % 12],
                              tails[k % 12]};
        bool valid = false, expected = false;
        size_t n = tess__utf8_step(s, 4, &valid);
        for (size_t length = 1; length <= 4; length++) {
            expected = expected || is_one_scalar(s, length);
        }
        assert_int_equal(valid, expected);
        assert_true(n >= 1 && n <= 4);
        assert_true(!valid || is_one_scalar(s, n));
    }
}

static void test_crc32c_vectors(void **state)
{
    (void)state;
    /* RFC 3720, B.4, and the usual check value. */
    uint8_t bytes[32];
    for (int cap = 0; cap < 2; cap++) {
        tess_isa_cap(cap == 0 ? TESS_ISA_BASE : TESS_ISA_AVX512BF16);
        assert_int_equal(tess_crc32c(0, "123456789", 9), 0xE3069283);
        assert_int_equal(tess_crc32c(tess_crc32c(0, "1234", 4), "56789", 5), 0xE3069283);
        assert_int_equal(tess_crc32c(0, "", 0), 0);
        memset(bytes, 0, sizeof bytes);
        assert_int_equal(tess_crc32c(0, bytes, 32), 0x8A9136AA);
        memset(bytes, 0xFF, sizeof bytes);
        assert_int_equal(tess_crc32c(0, bytes, 32), 0x62A8AB43);
        for (uint8_t i = 0; i < 32; i++) {
            bytes[i] = i;
        }
        assert_int_equal(tess_crc32c(0, bytes, 32), 0x46DD794E);
    }
}

static void test_crc32c_paths_agree(void **state)
{
    (void)state;
    uint8_t bytes[200];
    tess_rng r = tess_rng_at(8, 0);
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)tess_rng_u32(&r);
    }
    for (size_t from = 0; from < 9; from++) {
        for (size_t n = 0; n + from <= sizeof bytes; n++) {
            tess_isa_cap(TESS_ISA_BASE);
            uint32_t portable = tess_crc32c(1, bytes + from, n);
            tess_isa_cap(TESS_ISA_AVX512BF16);
            assert_int_equal(tess_crc32c(1, bytes + from, n), portable);
        }
    }
}

static void test_xxh3(void **state)
{
    (void)state;
    char hex[33], pieces[33];
    assert_true(tess_hash64("", 0, 0) == 0x2D06800538D394C2ull);
    assert_true(tess_hash64("tessera", 7, 1) != tess_hash64("tessera", 7, 2));
    tess_hash128_state *s = tess_hash128_new();
    tess_hash128_finish(s, hex);
    assert_string_equal(hex, "99aa06d3014798d86001c324468d497f");
    static uint8_t big[5000];
    memset(big, 7, sizeof big);
    s = tess_hash128_new();
    tess_hash128_add(s, big, sizeof big);
    tess_hash128_finish(s, hex);
    s = tess_hash128_new();
    for (size_t i = 0; i < sizeof big; i += 100) {
        tess_hash128_add(s, big + i, 100);
    }
    tess_hash128_add(s, NULL, 0);
    tess_hash128_finish(s, pieces);
    assert_string_equal(hex, pieces);
    tess_fault_set(TESS_FAULT_ALLOC, 1, false);
    assert_null(tess_hash128_new());
    tess_fault_set(TESS_FAULT_ALLOC, 0, false);
}

typedef struct heard {
    int n;
    tess_log_level level;
    char line[5000];
} heard;

static void hear(void *ctx, tess_log_level level, const char *line)
{
    heard *h = ctx;
    h->n++;
    h->level = level;
    snprintf(h->line, sizeof h->line, "%s", line);
}

static void test_log(void **state)
{
    (void)state;
    heard h = {0};
    tess_log(TESS_LOG_ERROR, "nobody hears");
    tess_log_set_sink(hear, &h, TESS_LOG_INFO);
    tess_log(TESS_LOG_DEBUG, "too quiet");
    assert_int_equal(h.n, 0);
    tess_log(TESS_LOG_WARN, "%s: %d\n\x1b[2J\x7f\xC3\xA4", "a.tar", 3);
    assert_int_equal(h.n, 1);
    assert_int_equal(h.level, TESS_LOG_WARN);
    assert_string_equal(h.line, "a.tar: 3  [2J \xC3\xA4");
    tess_log(TESS_LOG_INFO, "%6000d", 1);
    assert_int_equal(strlen(h.line), 4095);
    tess_log_set_sink(NULL, NULL, TESS_LOG_ERROR);
    tess_log(TESS_LOG_ERROR, "gone");
    assert_int_equal(h.n, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_utf8_table),     cmocka_unit_test(test_utf8_against_the_definition),
        cmocka_unit_test(test_crc32c_vectors), cmocka_unit_test(test_crc32c_paths_agree),
        cmocka_unit_test(test_xxh3),           cmocka_unit_test(test_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
