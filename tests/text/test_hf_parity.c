/* SPDX-License-Identifier: Apache-2.0 */
/* Every text of texts.txt under every tokenizer of hf/, and under every normaliser and
 * pre-tokenizer by itself: the ids are those of Hugging Face's tokenizers and transformers and of
 * OpenCLIP (tests/fixtures/text/make_hf.py).  Ids are compared by a hash, and for a part in full.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "tessera/text.h"
#include "text/fixture.h"

#define HF "tests/fixtures/text/hf/"
enum { SUBSET = 40, SHOWN = 5 };

typedef struct cursor {
    uint8_t *bytes;
    const uint8_t *at, *end;
} cursor;

static cursor open_expected(const char *path)
{
    uint8_t *bytes;
    size_t n_bytes;
    assert_int_equal(tess_file_read(path, 1 << 26, &bytes, &n_bytes), TESS_OK);
    return (cursor){bytes, bytes, bytes + n_bytes};
}

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

static uint32_t take_u32(cursor *c)
{
    uint32_t v;
    assert_true(c->end - c->at >= 4);
    memcpy(&v, c->at, 4);
    c->at += 4;
    return v;
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

static bool check_full(const tess_ids *ids, cursor *want)
{
    uint32_t n = take_varint(want);
    bool same = ids->n_ids == n;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t id = take_varint(want);
        same = same && (uint32_t)ids->ids[i] == id;
    }
    return same;
}

/* The number of texts whose ids are not the expected ones. */
static int check_texts(const tess_tokenizer *t, const fixture_lines *texts, cursor *want,
                       const char *name)
{
    tess_encode_options o = {.add_special = true, .scratch = tess_tokenizer_scratch_new()};
    tess_ids ids = {0}, cut = {0};
    tess_buf back = {0};
    int n_bad = 0;
    for (size_t i = 0; i < texts->n; i++) {
        tess_buf s = texts->lines[i];
        ids.n_ids = 0;
        assert_int_equal(tess_tokenizer_encode(t, &ids, s.data, s.n_bytes, &o), TESS_OK);
        bool same = take_u32(want) == fnv(&ids);
        same = (i % SUBSET != 0 || check_full(&ids, want)) && same;
        if (!same && n_bad++ < SHOWN) {
            print_error("%s, text %zu: other ids (%zu of them): %.80s\n", name, i + 1, ids.n_ids,
                        s.data);
        }
        /* A cut sequence is the beginning, and keeps the end. */
        o.max_ids = tess_tokenizer_n_special(t) + 3;
        cut.n_ids = 0;
        assert_int_equal(tess_tokenizer_encode(t, &cut, s.data, s.n_bytes, &o), TESS_OK);
        size_t n_tail = ids.n_ids > o.max_ids ? 1 : 0;
        assert_int_equal(cut.n_ids, ids.n_ids < o.max_ids ? ids.n_ids : o.max_ids);
        assert_memory_equal(cut.ids, ids.ids, (cut.n_ids - (n_tail & (cut.n_ids > 0))) * 4);
        o.max_ids = 0;
        assert_int_equal(tess_tokenizer_decode(t, &back, ids.ids, ids.n_ids), TESS_OK);
        assert_true(tess_utf8_valid(back.data, back.n_bytes, false));
        tess_buf_clear(&back);
    }
    tess_tokenizer_scratch_free(o.scratch);
    tess_ids_deinit(&ids);
    tess_ids_deinit(&cut);
    tess_buf_deinit(&back);
    return n_bad;
}

/* ---- cases ------------------------------------------------------------------------------- */

typedef struct opened {
    tess_tokenizer *t;
    char dir[64]; /* a temporary one, or "" */
} opened;

/* A directory with the bare model and the real rules behind it. */
static void write_model(const char *file, char *dir)
{
    strcpy(dir, "/tmp/tessera_hf_XXXXXX");
    assert_non_null(mkdtemp(dir));
    tess_buf model = {0};
    fixture_append("hf/xlmr_model/sentencepiece.bpe", 31, ".model", &model);
    fixture_append("nmt_nfkc", 8, ".spec", &model);
    char *path = tess_format("%s/%s", dir, file);
    assert_int_equal(tess_file_write(path, model.data, model.n_bytes), TESS_OK);
    tess_free(path);
    tess_buf_deinit(&model);
}

static opened open_case(const char *line)
{
    opened o = {0};
    char *name = tess_strdup(line), *option = strchr(name, ' ');
    *option++ = 0;
    tess_tokenizer_options opts = {.open_clip = strcmp(option, "open_clip") == 0};
    if (strncmp(option, "clean=", 6) == 0) {
        assert_int_equal(tess_clip_clean_find(option + 6, &opts.clean), TESS_OK);
        opts.open_clip = strstr(name, "clip") != NULL;
    }
    char *dir = tess_format(HF "%s", name);
    if (strcmp(name, "xlmr_model") == 0) {
        write_model("sentencepiece.bpe.model", o.dir);
    } else if (strcmp(name, "siglip_model") == 0) {
        write_model("spiece.model", o.dir);
    }
    if (tess_tokenizer_open_dir(o.dir[0] != 0 ? o.dir : dir, &opts, &o.t) != TESS_OK) {
        fail_msg("%s", tess_error());
    }
    tess_free(dir);
    tess_free(name);
    return o;
}

static void close_case(opened *o)
{
    tess_tokenizer_close(o->t);
    if (o->dir[0] != 0) {
        assert_int_equal(tess_dir_remove(o->dir), TESS_OK);
    }
}

static void cases(void **state)
{
    (void)state;
    fixture_lines lines = fixture_read_lines("hf/cases.txt");
    fixture_lines texts = fixture_read_lines("texts.txt");
    cursor want = open_expected(HF "expected.bin");
    int n_bad = 0;
    assert_true(lines.n >= 16);
    assert_true(texts.n >= 2000);
    for (size_t k = 0; k < lines.n; k++) {
        opened o = open_case(lines.lines[k].data);
        n_bad += check_texts(o.t, &texts, &want, lines.lines[k].data);
        close_case(&o);
    }
    assert_int_equal(n_bad, 0);
    assert_ptr_equal(want.at, want.end);
    tess_free(want.bytes);
    fixture_free_lines(&lines);
    fixture_free_lines(&texts);
}

/* Different tokenizers have different hashes, and what is saved opens as the same. */
static void save_and_hash(void **state)
{
    (void)state;
    fixture_lines lines = fixture_read_lines("hf/cases.txt");
    char seen[32][33];
    for (size_t k = 0; k < lines.n; k++) {
        opened o = open_case(lines.lines[k].data), again = {0};
        char dir[] = "/tmp/tessera_save_XXXXXX";
        assert_non_null(mkdtemp(dir));
        char *path = tess_format("%s/%s", dir, tess_tokenizer_file(o.t, 0));
        assert_int_equal(tess_tokenizer_save(o.t, path), TESS_OK);
        const char *line = lines.lines[k].data;
        tess_tokenizer_options opts = {.open_clip = strstr(line, "clip ") && !strstr(line, "-")};
        opts.open_clip = opts.open_clip || strstr(line, "open_clip") != NULL;
        const char *clean = strstr(line, "clean=");
        if (clean != NULL) {
            assert_int_equal(tess_clip_clean_find(clean + 6, &opts.clean), TESS_OK);
            opts.open_clip = strstr(line, "clip") != NULL;
        }
        assert_int_equal(tess_tokenizer_open_dir(dir, &opts, &again.t), TESS_OK);
        memcpy(seen[k], tess_tokenizer_hash(o.t), 33);
        assert_string_equal(tess_tokenizer_hash(again.t), seen[k]);
        for (size_t i = 0; i < k; i++) {
            /* The same merges cleaned the same way are the same tokenizer, whatever the file. */
            bool twin = strstr(line, "open_clip") && strstr(lines.lines[i].data, "open_clip");
            twin = twin ||
                   (strstr(line, "open_clip") && strcmp(lines.lines[i].data, "clip_gz -") == 0);
            assert_true(twin == (strcmp(seen[i], seen[k]) == 0));
        }
        for (int32_t id = 0; id < tess_tokenizer_n_vocab(o.t); id++) {
            tess_bytes p = tess_tokenizer_piece(o.t, id);
            assert_int_equal(tess_tokenizer_find(o.t, (const char *)p.data, p.n_bytes), id);
        }
        tess_free(path);
        tess_tokenizer_close(again.t);
        assert_int_equal(tess_dir_remove(dir), TESS_OK);
        close_case(&o);
    }
    fixture_free_lines(&lines);
}

/* ---- steps by themselves ----------------------------------------------------------------- */

/* A tokenizer whose ids are the bytes of the words, with one step before. */
static tess_tokenizer *open_step(const char *line)
{
    const char *json = strchr(line, ' ') + 1;
    tess_buf b = {0};
    tess_buf_addf(&b, "{\"%.*s\": %s, \"model\": {\"type\": \"BPE\", \"byte_fallback\": true, ",
                  (int)(json - line - 1), line, json);
    tess_buf_adds(&b, "\"end_of_word_suffix\": \"\\n\\u007f\", \"merges\": [], \"vocab\": {");
    for (int i = 0; i < 256; i++) {
        tess_buf_addf(&b, "%s\"<0x%02X>\": %d", i > 0 ? ", " : "", i, i);
    }
    tess_buf_adds(&b, "}}}");
    tess_tokenizer *t = NULL;
    if (tess_tokenizer_open_bytes(b.data, b.n_bytes, line, &t) != TESS_OK) {
        fail_msg("%s", tess_error());
    }
    tess_buf_deinit(&b);
    return t;
}

static void steps(void **state)
{
    (void)state;
    uint8_t *bytes;
    size_t n_bytes;
    assert_int_equal(tess_file_read(HF "steps.txt", 1 << 20, &bytes, &n_bytes), TESS_OK);
    fixture_lines texts = fixture_read_lines("texts.txt");
    cursor want = open_expected(HF "steps.bin");
    int n_bad = 0, n_steps = 0;
    char *rest = NULL;
    for (char *line = strtok_r((char *)bytes, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        tess_tokenizer *t = open_step(line);
        n_bad += check_texts(t, &texts, &want, line);
        tess_tokenizer_close(t);
        n_steps++;
    }
    assert_true(n_steps >= 20);
    assert_int_equal(n_bad, 0);
    assert_ptr_equal(want.at, want.end);
    tess_free(want.bytes);
    tess_free(bytes);
    fixture_free_lines(&texts);
}

/* Of two ways with one score, the one found first: the longer piece.  The ids are those of
 * tokenizers 0.23.3 for this vocabulary, whose scores are exact. */
static void unigram_ties(void **state)
{
    (void)state;
    static const char json[] =
        "{\"version\": \"1.0\", \"added_tokens\": [], \"normalizer\": null, \"pre_tokenizer\": "
        "null, "
        "\"post_processor\": null, \"decoder\": null, \"model\": {\"type\": \"Unigram\", "
        "\"unk_id\": 0, \"byte_fallback\": false, \"vocab\": [[\"<unk>\", 0.0], [\"a\", -1.0], "
        "[\"b\", -1.0], [\"ab\", -2.0], [\"c\", -1.5], [\"bc\", -2.5], [\"abc\", -3.5]]}}";
    static const struct {
        const char *text;
        size_t n_ids;
        int32_t ids[2];
    } cases[] = {{"ab", 1, {3}}, {"bc", 1, {5}}, {"abc", 1, {6}}, {"abab", 2, {3, 3}}};
    tess_tokenizer *t;
    assert_int_equal(tess_tokenizer_open_bytes(json, sizeof(json) - 1, "ties", &t), TESS_OK);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        tess_ids ids = {0};
        assert_int_equal(tess_tokenizer_encode(t, &ids, cases[i].text, strlen(cases[i].text), NULL),
                         TESS_OK);
        assert_int_equal(ids.n_ids, cases[i].n_ids);
        assert_memory_equal(ids.ids, cases[i].ids, ids.n_ids * sizeof(*ids.ids));
        tess_ids_deinit(&ids);
    }
    tess_tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unigram_ties),
        cmocka_unit_test(cases),
        cmocka_unit_test(save_and_hash),
        cmocka_unit_test(steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
