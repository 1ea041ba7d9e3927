/* SPDX-License-Identifier: Apache-2.0 */
/* tokenizer.json, vocab.txt, CLIP's vocabularies and model directories that are wrong: each is one
 * clear refusal, whatever opens encodes, and memory running out is survived. */
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

static const char *const files[] = {
    HF "bert_uncased/tokenizer.json", HF "clip/tokenizer.json",
    HF "xlmr/tokenizer.json",         HF "siglip2/tokenizer.json",
    HF "bert_cased/vocab.txt",        HF "clip_gz/bpe_simple_vocab_16e6.txt.gz",
};
static const char caption[] = "A red panda's &amp; 猫 e\u0301 <mask> [SEP] <|endoftext|> \xff 12";

static tess_buf load(const char *path)
{
    uint8_t *bytes;
    size_t n_bytes;
    tess_buf out = {0};
    assert_int_equal(tess_file_read(path, 1 << 26, &bytes, &n_bytes), TESS_OK);
    tess_buf_add(&out, bytes, n_bytes);
    tess_free(bytes);
    return out;
}

static void refuse_bytes(const void *data, size_t n, tess_status want, const char *message)
{
    tess_tokenizer *t = NULL;
    tess_status st = tess_tokenizer_open_bytes(data, n, "the-file", &t);
    if (st != want || strstr(tess_error(), message) == NULL ||
        strstr(tess_error(), "the-file") == NULL) {
        fail_msg("%s: \"%s\" does not say \"%s\"", tess_status_name(st), tess_error(), message);
    }
    assert_null(t);
}

static void refuse(const char *json, tess_status want, const char *message)
{
    refuse_bytes(json, strlen(json), want, message);
}

#define WORDS(vocab)                                                                               \
    "{\"model\": {\"type\": \"WordPiece\", \"unk_token\": \"u\", \"vocab\": " vocab "}}"
#define MERGES(merges)                                                                             \
    "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}, "                 \
    "\"merges\": " merges "}}"
#define UNIGRAM(vocab) "{\"model\": {\"type\": \"Unigram\", \"unk_id\": 0, \"vocab\": " vocab "}}"
#define WITH(part)                                                                                 \
    "{" part ", \"model\": {\"type\": \"WordPiece\", \"unk_token\": \"u\", "                       \
    "\"vocab\": {\"u\": 0, \"v\": 2}}}"
#define NORMAL(type) WITH("\"normalizer\": {\"type\": " type "}")
#define SPLIT(type)  WITH("\"pre_tokenizer\": {\"type\": " type "}")
#define POST(type)   WITH("\"post_processor\": {\"type\": " type "}")

typedef struct bad {
    const char *json;
    tess_status want;
    const char *message;
} bad;
static const bad bads[] = {
    {"{", TESS_FORMAT, "bad JSON"},
    {"{}", TESS_FORMAT, "no tokenizer.json"},
    {"{\"model\": 3}", TESS_FORMAT, "no tokenizer.json"},
    {"{\"model\": {\"type\": \"WordLevel\"}}", TESS_UNSUPPORTED, "model WordLevel is not known"},
    {"{\"model\": {}}", TESS_UNSUPPORTED, "model (no type) is not known"},
    {"{\"model\": {\"type\": \"BPE\", \"dropout\": 0.1}}", TESS_UNSUPPORTED, "dropout"},
    {WORDS("[1]"), TESS_FORMAT, "vocab: expected an object"},
    {WORDS("{}"), TESS_FORMAT, "vocabulary is empty"},
    {WORDS("{\"a\": 0}"), TESS_FORMAT, "unknown token \"u\""},
    {WORDS("{\"u\": 0, \"a\": 0}"), TESS_FORMAT, "id 0 belongs to"},
    {WORDS("{\"u\": 0, \"u\": 1}"), TESS_FORMAT, "duplicate"},
    {WORDS("{\"u\": 0, \"\": 1}"), TESS_FORMAT, "0 bytes"},
    {WORDS("{\"u\": -1}"), TESS_FORMAT, "expected 0 to"},
    {WORDS("{\"u\": 99999999999}"), TESS_FORMAT, "expected 0 to"},
    {WORDS("{\"u\": 9999999}"), TESS_FORMAT, "in a vocabulary of 1 pieces"},
    {WORDS("{\"u\": 1.5}"), TESS_FORMAT, "whole number"},
    {WORDS("{\"u\": \"x\"}"), TESS_FORMAT, "whole number"},
    {MERGES("{}"), TESS_FORMAT, "merges: expected a list"},
    {MERGES("[\"ab\"]"), TESS_FORMAT, "merges[0]"},
    {MERGES("[\"a b\", \"a c\"]"), TESS_FORMAT, "merges[1]: \"c\" is not in the vocabulary"},
    {MERGES("[\"b a\"]"), TESS_FORMAT, "\"ba\" is not in the vocabulary"},
    {MERGES("[[\"a\"]]"), TESS_FORMAT, "merges[0]"},
    {MERGES("[[\"a\", \"b\", \"a\"]]"), TESS_FORMAT, "merges[0]"},
    {MERGES("[7]"), TESS_FORMAT, "merges[0]"},
    {UNIGRAM("{}"), TESS_FORMAT, "expected a list"},
    {UNIGRAM("[[\"a\"]]"), TESS_FORMAT, "vocab[0]"},
    {UNIGRAM("[[\"a\", \"b\"]]"), TESS_FORMAT, "vocab[0]"},
    {UNIGRAM("[[\"a\", 0], [\"a\", 1]]"), TESS_FORMAT, "are the same"},
    {"{\"model\": {\"type\": \"Unigram\", \"vocab\": [[\"a\", 0]]}}", TESS_FORMAT, "unk_id"},
    {NORMAL("\"Nmt\""), TESS_UNSUPPORTED, "normalizer Nmt is not known"},
    {NORMAL("7"), TESS_UNSUPPORTED, "normalizer (no type) is not known"},
    {NORMAL("\"Sequence\""), TESS_FORMAT, "normalizer Sequence"},
    {NORMAL("\"BertNormalizer\", \"lowercase\": 1"), TESS_FORMAT, "lowercase: expected true"},
    {NORMAL("\"Prepend\""), TESS_FORMAT, "prepend: expected a string"},
    {NORMAL("\"Replace\", \"pattern\": {\"Regex\": \"a|b\"}, \"content\": \"\""), TESS_UNSUPPORTED,
     "expression a|b is not known"},
    {NORMAL("\"Replace\", \"pattern\": {\"String\": \"\"}, \"content\": \"\""), TESS_FORMAT,
     "empty"},
    {NORMAL("\"Precompiled\", \"precompiled_charsmap\": \"%%\""), TESS_FORMAT, "base64"},
    {NORMAL("\"Precompiled\", \"precompiled_charsmap\": \"AAAA\""), TESS_FORMAT, "rules"},
    {SPLIT("\"Digits\""), TESS_UNSUPPORTED, "pre_tokenizer Digits is not known"},
    {SPLIT("\"Metaspace\""), TESS_FORMAT, "replacement"},
    {SPLIT("\"Metaspace\", \"replacement\": \"_\", \"prepend_scheme\": \"often\""),
     TESS_UNSUPPORTED, "prepend_scheme often"},
    {SPLIT("\"Split\", \"pattern\": {\"Regex\": \"x\"}, \"behavior\": \"Isolated\""),
     TESS_UNSUPPORTED, "expression x is not known"},
    {SPLIT("\"Split\", \"pattern\": {\"String\": \"x\"}, \"behavior\": \"Isolated\""),
     TESS_UNSUPPORTED, "behavior Isolated"},
    {POST("\"Odd\""), TESS_UNSUPPORTED, "post_processor Odd is not known"},
    {POST("\"TemplateProcessing\""), TESS_FORMAT, "no Sequence"},
    {POST("\"RobertaProcessing\", \"cls\": [\"u\", 0], \"sep\": [\"v\", 77]"), TESS_FORMAT,
     "template's id 77"},
    {WITH("\"added_tokens\": 7"), TESS_FORMAT, "added_tokens: expected a list"},
    {WITH("\"added_tokens\": [{\"id\": 0}]"), TESS_FORMAT, "added_tokens[0]"},
    {WITH("\"added_tokens\": [{\"id\": 0, \"content\": \"\"}]"), TESS_FORMAT, "added_tokens[0]"},
    {WITH("\"added_tokens\": [{\"id\": 2, \"content\": \"u\"}]"), TESS_FORMAT, "vocabulary gives"},
    {WITH("\"added_tokens\": [{\"id\": 2, \"content\": \"w\"}]"), TESS_FORMAT, "vocabulary gives"},
    {WITH("\"added_tokens\": [{\"id\": 5, \"content\": \"w\"}, {\"id\": 6, \"content\": \"w\"}]"),
     TESS_FORMAT, "are the same"},
    {"[UNK]\n[CLS]\na\n", TESS_FORMAT, "no [SEP]"},
    {"[PAD]\na\n", TESS_FORMAT, "unknown token \"[UNK]\""},
    {"[UNK]\na\na\n", TESS_FORMAT, "are the same"},
    {"[UNK]\n\xff\n", TESS_FORMAT, "UTF-8"},
    {"\"bpe_simple_vocab_16e6.txt#version: 0.2\na b\na bc d\n", TESS_FORMAT, "line 3"},
    {"\"bpe_simple_vocab_16e6.txt#version: 0.2\na b\nab \n", TESS_FORMAT, "line 3"},
    {"\"bpe_simple_vocab_16e6.txt#version: 0.2\na b\nxy z\n", TESS_FORMAT, "\"xy\" is not in"},
    {"\"bpe_simple_vocab_16e6.txt#version: 0.2\na b\na b\n", TESS_FORMAT, "are the same"},
};

static void bad_files(void **state)
{
    (void)state;
    for (int64_t i = 0; i < TESS_COUNT(bads); i++) {
        refuse(bads[i].json, bads[i].want, bads[i].message);
    }
}

/* A vocabulary with holes is one; what stands in a hole has no piece. */
static void holes(void **state)
{
    (void)state;
    static const char json[] = WITH("\"added_tokens\": [{\"id\": 9, \"content\": \"<x>\"}]");
    tess_tokenizer *t;
    tess_ids ids = {0};
    tess_buf text = {0};
    assert_int_equal(tess_tokenizer_open_bytes(json, sizeof(json) - 1, "m", &t), TESS_OK);
    assert_int_equal(tess_tokenizer_n_vocab(t), 10);
    assert_null(tess_tokenizer_piece(t, 1).data);
    assert_int_equal(tess_tokenizer_find(t, "<x>", 3), 9);
    assert_int_equal(tess_tokenizer_encode(t, &ids, "v<x>w", 5, NULL), TESS_OK);
    assert_int_equal(ids.n_ids, 3);
    assert_int_equal(ids.ids[1], 9);
    for (int32_t id = 0; id < 10; id++) {
        assert_int_equal(tess_tokenizer_decode(t, &text, &id, 1), TESS_OK);
    }
    tess_ids_deinit(&ids);
    tess_buf_deinit(&text);
    tess_tokenizer_close(t);
}

static int try_open(const void *data, size_t n)
{
    tess_tokenizer *t;
    tess_status st = tess_tokenizer_open_bytes(data, n, "m", &t);
    if (st != TESS_OK) {
        assert_true(st == TESS_FORMAT || st == TESS_UNSUPPORTED);
        assert_true(strlen(tess_error()) > 10);
        return 0;
    }
    tess_encode_options o = {.add_special = true};
    tess_ids ids = {0};
    tess_buf text = {0};
    assert_int_equal(tess_tokenizer_encode(t, &ids, caption, sizeof(caption) - 1, &o), TESS_OK);
    assert_int_equal(tess_tokenizer_decode(t, &text, ids.ids, ids.n_ids), TESS_OK);
    tess_ids_deinit(&ids);
    tess_buf_deinit(&text);
    tess_tokenizer_close(t);
    return 1;
}

static void cut_and_flipped(void **state)
{
    (void)state;
    tess_rng rng = tess_rng_at(9, 0);
    for (int64_t f = 0; f < TESS_COUNT(files); f++) {
        tess_buf file = load(files[f]);
        for (size_t i = 0; i < 12; i++) {
            try_open(file.data, file.n_bytes * i / 12);
        }
        bool json = strstr(files[f], ".json") != NULL || strstr(files[f], ".gz") != NULL;
        assert_true(!json || !try_open(file.data, file.n_bytes - 3));
        for (int i = 0; i < 25; i++) {
            /* Half of them at the start, where the steps of a JSON lie. */
            size_t span = i % 2 == 0 && file.n_bytes > 2000 ? 2000 : file.n_bytes;
            size_t at = tess_rng_below(&rng, (uint32_t)span);
            char old = file.data[at];
            file.data[at] = (char)(old ^ (1 << tess_rng_below(&rng, 8)));
            try_open(file.data, file.n_bytes);
            file.data[at] = old;
        }
        assert_int_equal(try_open(file.data, file.n_bytes), 1);
        tess_buf_deinit(&file);
    }
}

/* Every few allocations one fails: TESS_NOMEM, and nothing is lost. */
static void allocation_fails(void **state)
{
    (void)state;
    for (int64_t f = 0; f < TESS_COUNT(files); f++) {
        tess_buf file = load(files[f]);
        bool done = false;
        for (int64_t nth = 1; !done; nth += nth < 20 ? 1 : nth / 6) {
            tess_tokenizer *t = NULL;
            tess_ids ids = {0};
            tess_fault_set(TESS_FAULT_ALLOC, nth, false);
            tess_status st = tess_tokenizer_open_bytes(file.data, file.n_bytes, "m", &t);
            if (st == TESS_OK) {
                st = tess_tokenizer_encode(t, &ids, caption, sizeof(caption) - 1, NULL);
            }
            done = tess_fault_count(TESS_FAULT_ALLOC) < nth;
            tess_fault_set(TESS_FAULT_ALLOC, 0, false);
            if (st != (done ? TESS_OK : TESS_NOMEM)) {
                fail_msg("%s: %s", files[f], tess_error());
            }
            tess_ids_deinit(&ids);
            tess_tokenizer_close(t);
        }
        tess_buf_deinit(&file);
    }
}

/* Once warm, a scratch makes encoding free of allocation. */
static void scratch_settles(void **state)
{
    (void)state;
    static const char plain[] = "A red panda's caf\u00e9 &amp; 猫 12";
    for (int64_t f = 0; f < TESS_COUNT(files); f++) {
        tess_tokenizer *t;
        assert_int_equal(tess_tokenizer_open(files[f], &t), TESS_OK);
        tess_encode_options o = {.scratch = tess_tokenizer_scratch_new()};
        tess_ids ids = {0};
        int64_t before = 0;
        for (int i = 0; i < 8; i++) {
            ids.n_ids = 0;
            before = tess_fault_count(TESS_FAULT_ALLOC);
            assert_int_equal(tess_tokenizer_encode(t, &ids, plain, sizeof(plain) - 1, &o), TESS_OK);
        }
        if (tess_fault_count(TESS_FAULT_ALLOC) != before) {
            fail_msg("%s: encoding allocated", files[f]);
        }
        tess_ids_deinit(&ids);
        tess_tokenizer_scratch_free(o.scratch);
        tess_tokenizer_close(t);
    }
}

/* A quarter of a megabyte of what is worst for someone; beyond the limit a refusal. */
static void long_texts(void **state)
{
    (void)state;
    static const char *const units[] = {"a",      "! ",           "\xe7\x8c\xab", "\xff",
                                        "\t",     "\u0301\u0323", "&amp",         "\u03a3\u0301",
                                        "<mask>", "</s"};
    for (int64_t f = 0; f < TESS_COUNT(files); f++) {
        tess_tokenizer *t;
        assert_int_equal(tess_tokenizer_open(files[f], &t), TESS_OK);
        for (int64_t u = 0; u < TESS_COUNT(units); u++) {
            tess_buf text = {0};
            while (text.n_bytes < 1 << 18) {
                tess_buf_adds(&text, units[u]);
            }
            tess_ids all = {0}, cut = {0};
            tess_encode_options o = {.add_special = true, .max_ids = 77};
            assert_int_equal(tess_tokenizer_encode(t, &all, text.data, text.n_bytes, NULL),
                             TESS_OK);
            assert_int_equal(tess_tokenizer_encode(t, &cut, text.data, text.n_bytes, &o), TESS_OK);
            assert_true(cut.n_ids <= 77);
            tess_ids_deinit(&all);
            tess_ids_deinit(&cut);
            tess_buf_deinit(&text);
        }
        tess_ids ids = {0};
        assert_int_equal(tess_tokenizer_encode(t, &ids, caption, (size_t)100 << 20, NULL),
                         TESS_INVALID);
        assert_non_null(strstr(tess_error(), "limit"));
        tess_encode_options none = {.add_special = true, .max_ids = 1},
                            both = {.add_special = true};
        both.add_bos = true;
        assert_int_equal(tess_tokenizer_encode(t, &ids, "a", 1, &both), TESS_INVALID);
        if (tess_tokenizer_n_special(t) > 1) {
            assert_int_equal(tess_tokenizer_encode(t, &ids, "a", 1, &none), TESS_INVALID);
        }
        tess_tokenizer_close(t);
    }
}

/* ---- directories ------------------------------------------------------------------------- */

static void put(const char *dir, const char *name, const char *text)
{
    char *path = tess_format("%s/%s", dir, name);
    assert_int_equal(tess_file_write(path, text, strlen(text)), TESS_OK);
    tess_free(path);
}

static void directories(void **state)
{
    (void)state;
    char dir[] = "/tmp/tessera_dir_XXXXXX";
    assert_non_null(mkdtemp(dir));
    tess_tokenizer *t = NULL;
    assert_int_equal(tess_tokenizer_open_dir(dir, NULL, &t), TESS_IO);
    assert_non_null(strstr(tess_error(), "looked for tokenizer.json"));
    put(dir, "vocab.txt",
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ncafe\ncaf\u00e9\nCaf\u00e9\n<end>\n");
    if (tess_tokenizer_open(dir, &t) != TESS_OK) {
        fail_msg("%s", tess_error());
    }
    tess_ids ids = {0};
    tess_encode_options o = {.add_special = true};
    assert_int_equal(tess_tokenizer_encode(t, &ids, "Caf\u00e9", 5, &o), TESS_OK);
    assert_int_equal(ids.n_ids, 3);
    assert_int_equal(ids.ids[0], 2);
    assert_int_equal(ids.ids[1], 5); /* lower case, no accents */
    assert_int_equal(ids.ids[2], 3);
    assert_int_equal(tess_tokenizer_pad_id(t), 0);
    assert_int_equal(tess_tokenizer_mask_id(t), 4);
    tess_tokenizer_close(t);
    put(dir, "tokenizer_config.json", "{\"do_lower_case\": false, \"sep_token\": \"<end>\"}");
    put(dir, "special_tokens_map.json", "{\"pad_token\": {\"content\": \"[MASK]\"}}");
    assert_int_equal(tess_tokenizer_open_dir(dir, NULL, &t), TESS_OK);
    ids.n_ids = 0;
    assert_int_equal(tess_tokenizer_encode(t, &ids, "Caf\u00e9", 5, &o), TESS_OK);
    assert_int_equal(ids.ids[1], 7);
    assert_int_equal(ids.ids[2], 8);
    assert_int_equal(tess_tokenizer_pad_id(t), 4);
    assert_string_equal(tess_tokenizer_file(t, 1), "tokenizer_config.json");
    assert_null(tess_tokenizer_file(t, 3));
    tess_tokenizer_close(t);
    put(dir, "tokenizer_config.json", "{\"tokenizer_class\": \"EsmTokenizer\"}");
    assert_int_equal(tess_tokenizer_open_dir(dir, NULL, &t), TESS_UNSUPPORTED);
    assert_non_null(strstr(tess_error(), "EsmTokenizer"));
    put(dir, "tokenizer_config.json", "[]");
    assert_int_equal(tess_tokenizer_open_dir(dir, NULL, &t), TESS_FORMAT);
    assert_null(t);
    tess_ids_deinit(&ids);
    assert_int_equal(tess_dir_remove(dir), TESS_OK);
    tess_clip_clean clean;
    assert_int_equal(tess_clip_clean_find("upper", &clean), TESS_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_files),       cmocka_unit_test(holes),
        cmocka_unit_test(cut_and_flipped), cmocka_unit_test(allocation_fails),
        cmocka_unit_test(scratch_settles), cmocka_unit_test(long_texts),
        cmocka_unit_test(directories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
