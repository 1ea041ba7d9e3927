/* SPDX-License-Identifier: Apache-2.0 */
/* SentencePiece models as tokenizer.json: the same ids for every sentence of the fixture, and what
 * cannot be said is refused by its reason. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tessera/text.h"

#define FIXTURE "tests/fixtures/text/"

#define ok(expr)                                                                                   \
    do {                                                                                           \
        if ((expr) != TESS_OK) {                                                                   \
            fail_msg("%s: %s", #expr, tess_error());                                               \
        }                                                                                          \
    } while (0)

/* Where the two are known to differ: U+2581, and special tokens spelled out. */
static bool is_hostile(const tess_tokenizer *spm, const char *text)
{
    if (strstr(text, "\xe2\x96\x81")) {
        return true;
    }
    for (int32_t id = 0; id < 8; id++) {
        const tess_bytes p = tess_tokenizer_piece(spm, id);
        char name[16] = "";
        memcpy(name, p.data, p.n_bytes < sizeof name ? p.n_bytes : 0);
        if (name[0] == '<' && strstr(text, name)) {
            return true;
        }
    }
    return false;
}

static void compare_line(const tess_tokenizer *spm, const tess_tokenizer *json, const char *line,
                         size_t n, int64_t *n_differ)
{
    tess_ids a = {0}, b = {0};
    tess_buf clean = {0};
    if (tess_text_clean(line, n, TESS_CLEAN_TRUNCATE, &clean) == TESS_OK && clean.n_bytes > 0 &&
        !is_hostile(spm, clean.data)) {
        ok(tess_tokenizer_encode(spm, &a, clean.data, clean.n_bytes,
                                 &(tess_encode_options){.add_eos = true}));
        ok(tess_tokenizer_encode(json, &b, clean.data, clean.n_bytes,
                                 &(tess_encode_options){.add_special = true}));
        *n_differ += a.n_ids != b.n_ids || memcmp(a.ids, b.ids, a.n_ids * sizeof a.ids[0]) != 0;
    }
    tess_buf_deinit(&clean);
    tess_ids_deinit(&a);
    tess_ids_deinit(&b);
}

static int64_t count_differing(const tess_tokenizer *spm, const tess_tokenizer *json)
{
    uint8_t *text;
    size_t n;
    int64_t n_differ = 0, n_lines = 0;
    ok(tess_file_read(FIXTURE "texts.txt", 1 << 24, &text, &n));
    for (const char *line = (const char *)text; *line; n_lines++) {
        const char *end = strchr(line, '\n');
        const size_t length = end ? (size_t)(end - line) : strlen(line);
        compare_line(spm, json, line, length, &n_differ);
        line += length + (end != NULL);
    }
    tess_free(text);
    assert_true(n_lines > 100);
    return n_differ;
}

static void check_converted(const char *path)
{
    tess_tokenizer *spm, *json;
    tess_buf b = {0};
    ok(tess_tokenizer_open(path, &spm));
    ok(tess_tokenizer_write_json(spm, &b));
    ok(tess_tokenizer_open_bytes(b.data, b.n_bytes, "tokenizer.json", &json));
    assert_int_equal(tess_tokenizer_n_vocab(spm), tess_tokenizer_n_vocab(json));
    assert_int_equal(count_differing(spm, json), 0);
    tess_buf_deinit(&b);
    tess_tokenizer_close(spm);
    tess_tokenizer_close(json);
}

static void unigram_gives_the_same_ids(void **state)
{
    (void)state;
    check_converted(FIXTURE "unigram.model");
    check_converted("tests/fixtures/fusion/tiny.model");
}

static void what_cannot_be_said_is_refused(void **state)
{
    static const struct {
        const char *path, *why;
    } bad[] = {
        {FIXTURE "bpe.model", "no unigram model"},
        {FIXTURE "unigram_bytes.model", "byte or unused pieces"},
        {FIXTURE "unigram_spaces.model", "pieces of several words"},
        {FIXTURE "unigram_suffix.model", "another way"},
        {FIXTURE "unigram_symbols.model", "user-defined"},
        {FIXTURE "unigram_unused.model", "unused"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        tess_tokenizer *t;
        tess_buf b = {0};
        ok(tess_tokenizer_open(bad[i].path, &t));
        assert_int_equal(tess_tokenizer_write_json(t, &b), TESS_UNSUPPORTED);
        if (!strstr(tess_error(), bad[i].why)) {
            fail_msg("%s: expected \"%s\" in \"%s\"", bad[i].path, bad[i].why, tess_error());
        }
        tess_buf_deinit(&b);
        tess_tokenizer_close(t);
    }
}

static void memory_may_give_out_anywhere(void **state)
{
    (void)state;
    tess_tokenizer *t;
    ok(tess_tokenizer_open("tests/fixtures/fusion/tiny.model", &t));
    int failures = 0;
    for (int64_t nth = 1; nth < 400; nth += 7) {
        tess_buf b = {0};
        tess_fault_set(TESS_FAULT_ALLOC, nth, false);
        const tess_status st = tess_tokenizer_write_json(t, &b);
        tess_fault_set(TESS_FAULT_ALLOC, 0, false);
        assert_true(st == TESS_OK || st == TESS_NOMEM);
        failures += st != TESS_OK;
        tess_buf_deinit(&b);
    }
    assert_true(failures > 3);
    tess_tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unigram_gives_the_same_ids),
        cmocka_unit_test(what_cannot_be_said_is_refused),
        cmocka_unit_test(memory_may_give_out_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
