/* SPDX-License-Identifier: Apache-2.0 */
/* Every fixture sentence under every fixture model: the ids and the decoded text are
 * SentencePiece's own (tests/fixtures/text/make.py).  The decoded text is compared by length and
 * CRC-32C. */
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(parity)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
