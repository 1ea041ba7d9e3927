/* SPDX-License-Identifier: Apache-2.0 */
/* Every fixture sentence under every fixture model: the ids and the decoded text are
 * SentencePiece's own (tests/fixtures/text/make.py).  The decoded text is compared by length and
 * CRC-32C.  Then all of texts.txt, by a hash of the ids and that CRC (make_spm_texts.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "tessera/text.h"
#include "text/fixture.h"

typedef struct cursor {
    const uint8_t *at, *end;
} cursor;

static uint32_t take_varint(cursor *c)
{
    uint32_t v = 0;
    for (unsigned shift = 0;; shift += 7) {
        assert_true(c->at < c->end);
        v |= (uint32_t)(*c->at & 127) << shift;
        if (*c->at++ < 128) {
            return v;
        }
    }
}

static int check_sentence(const tess_tokenizer *t, tess_tokenizer_scratch *scratch, tess_buf s,
                          cursor *want, const char *name, size_t line)
{
    tess_ids ids = {0};
    tess_buf text = {0};
    tess_encode_options o = {.scratch = scratch};
    assert_int_equal(tess_tokenizer_encode(t, &ids, s.data, s.n_bytes, &o), TESS_OK);
    uint32_t n = take_varint(want);
    bool same = ids.n_ids == n;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t id = take_varint(want);
        same = same && (uint32_t)ids.ids[i] == id;
    }
    assert_int_equal(tess_tokenizer_decode(t, &text, ids.ids, ids.n_ids), TESS_OK);
    uint32_t n_text = take_varint(want), crc;
    memcpy(&crc, want->at, 4);
    want->at += 4;
    bool same_text =
        !same || (text.n_bytes == n_text && tess_crc32c(0, text.data, text.n_bytes) == crc);
    if (!same || !same_text) {
        print_error("%s, sentence %zu: %s differ (%zu ids, expected %u)\n", name, line,
                    same ? "decoded texts" : "ids", ids.n_ids, n);
    }
    tess_ids_deinit(&ids);
    tess_buf_deinit(&text);
    return !same || !same_text;
}

static void parity(void **state)
{
    (void)state;
    fixture_lines cases = fixture_read_lines("cases.txt");
    fixture_lines sentences = fixture_read_lines("sentences.txt");
    assert_true(cases.n >= 8);
    assert_true(sentences.n >= 660);
    uint8_t *bytes;
    size_t n_bytes;
    assert_int_equal(tess_file_read(FIXTURE_DIR "expected.bin", 1 << 26, &bytes, &n_bytes),
                     TESS_OK);
    cursor want = {bytes, bytes + n_bytes};
    int n_bad = 0;
    for (size_t k = 0; k < cases.n; k++) {
        tess_tokenizer *t = fixture_open(cases.lines[k].data);
        tess_tokenizer_scratch *scratch = tess_tokenizer_scratch_new();
        for (size_t i = 0; i < sentences.n; i++) {
            n_bad += check_sentence(t, scratch, sentences.lines[i], &want, cases.lines[k].data, i);
        }
        tess_tokenizer_scratch_free(scratch);
        tess_tokenizer_close(t);
    }
    assert_int_equal(n_bad, 0);
    assert_ptr_equal(want.at, want.end);
    tess_free(bytes);
    fixture_free_lines(&cases);
    fixture_free_lines(&sentences);
}

static uint32_t fnv(const tess_ids *ids)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < ids->n_ids; i++) {
        for (int k = 0; k < 32; k += 8) {
            h = (h ^ ((uint32_t)ids->ids[i] >> k & 255)) * UINT64_C(0x100000001b3);
        }
    }
    return (uint32_t)(h ^ h >> 32);
}

/* The number of texts whose ids or whose text made of them are not the expected ones. */
static int check_texts(const tess_tokenizer *t, const fixture_lines *texts, const uint8_t *want,
                       const char *name)
{
    tess_encode_options o = {.scratch = tess_tokenizer_scratch_new()};
    tess_ids ids = {0};
    tess_buf text = {0};
    int n_bad = 0;
    for (size_t i = 0; i < texts->n; i++, want += 8) {
        const tess_buf *s = &texts->lines[i];
        uint32_t expected[2];
        memcpy(expected, want, sizeof expected);
        ids.n_ids = 0;
        tess_buf_clear(&text);
        assert_int_equal(tess_tokenizer_encode(t, &ids, s->data, s->n_bytes, &o), TESS_OK);
        assert_int_equal(tess_tokenizer_decode(t, &text, ids.ids, ids.n_ids), TESS_OK);
        if (fnv(&ids) != expected[0] || tess_crc32c(0, text.data, text.n_bytes) != expected[1]) {
            print_error("%s, line %zu: \"%s\"\n", name, i + 1, s->data);
            n_bad++;
        }
    }
    tess_tokenizer_scratch_free(o.scratch);
    tess_ids_deinit(&ids);
    tess_buf_deinit(&text);
    return n_bad;
}

static void all_texts(void **state)
{
    (void)state;
    fixture_lines cases = fixture_read_lines("cases.txt");
    fixture_lines texts = fixture_read_lines("texts.txt");
    uint8_t *want;
    size_t n_bytes;
    int n_bad = 0;
    assert_true(texts.n >= 2000);
    assert_int_equal(tess_file_read(FIXTURE_DIR "expected_texts.bin", 1 << 26, &want, &n_bytes),
                     TESS_OK);
    assert_int_equal(n_bytes, cases.n * texts.n * 8);
    for (size_t k = 0; k < cases.n; k++) {
        tess_tokenizer *t = fixture_open(cases.lines[k].data);
        n_bad += check_texts(t, &texts, want + k * texts.n * 8, cases.lines[k].data);
        tess_tokenizer_close(t);
    }
    assert_int_equal(n_bad, 0);
    tess_free(want);
    fixture_free_lines(&cases);
    fixture_free_lines(&texts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(parity), cmocka_unit_test(all_texts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
