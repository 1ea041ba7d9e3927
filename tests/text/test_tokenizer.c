/* SPDX-License-Identifier: Apache-2.0 */
/* The tokenizer's contract apart from parity: limits, refusals, damage, memory running out,
 * threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tessera/text.h"
#include "text/fixture.h"

static const char *const models[] = {
    "unigram",    "unigram_bytes",  "unigram_symbols+nmt_nfkc", "unigram_suffix",
    "bpe",        "bpe_bytes",      "bpe_symbols+nfkc_cf",      "bpe_unused",
    "bpe_spaces", "unigram_spaces",
};

static const char caption[] = "The red panda, Ｆｕｌｌ width, кошка и собака, 猫と犬, "
                              "<mask> a\xff\xfe \U0001f468\u200d\U0001f469 Việt Nam";

static void looks(void **state)
{
    (void)state;
    tess_tokenizer *t = fixture_open("unigram_bytes");
    assert_string_equal(tess_tokenizer_kind(t), "unigram");
    assert_int_equal(tess_tokenizer_unk_id(t), 0);
    assert_int_equal(tess_tokenizer_bos_id(t), 1);
    assert_int_equal(tess_tokenizer_eos_id(t), 2);
    assert_int_equal(tess_tokenizer_pad_id(t), 3);
    for (int32_t id = 0; id < tess_tokenizer_n_vocab(t); id++) {
        tess_bytes p = tess_tokenizer_piece(t, id);
        assert_int_equal(tess_tokenizer_find(t, (const char *)p.data, p.n_bytes), id);
    }
    assert_null(tess_tokenizer_piece(t, -1).data);
    assert_null(tess_tokenizer_piece(t, tess_tokenizer_n_vocab(t)).data);
    assert_int_equal(tess_tokenizer_find(t, "no such piece", 13), -1);
    assert_int_equal(tess_tokenizer_find(t, "", 0), -1);
    tess_tokenizer_close(t);
    tess_tokenizer_close(NULL);
}

static void save_gives_the_same_bytes(void **state)
{
    (void)state;
    char path[] = "/tmp/tessera_tokenizer_XXXXXX";
    assert_true(mkstemp(path) >= 0);
    tess_buf model = fixture_model("bpe");
    tess_tokenizer *t = fixture_open("bpe"), *again;
    assert_int_equal(tess_tokenizer_save(t, path), TESS_OK);
    uint8_t *bytes;
    size_t n_bytes;
    assert_int_equal(tess_file_read(path, 1 << 26, &bytes, &n_bytes), TESS_OK);
    assert_int_equal(n_bytes, model.n_bytes);
    assert_memory_equal(bytes, model.data, n_bytes);
    assert_int_equal(tess_tokenizer_open(path, &again), TESS_OK);
    assert_string_equal(tess_tokenizer_hash(t), tess_tokenizer_hash(again));
    tess_free(bytes);
    tess_tokenizer_close(again);
    tess_tokenizer_close(t);
    tess_buf_deinit(&model);
    remove(path);
}

static tess_tokenizer *open_with(const char *name, const char *tail, size_t n_tail,
                                 tess_status want)
{
    tess_buf model = fixture_model(name);
    tess_buf_add(&model, tail, n_tail);
    tess_tokenizer *t;
    assert_int_equal(tess_tokenizer_open_bytes(model.data, model.n_bytes, name, &t), want);
    tess_buf_deinit(&model);
    return t;
}

/* The hash sees what decides the ids and nothing else. */
static void hash(void **state)
{
    (void)state;
    char seen[TESS_COUNT(models)][33];
    for (int64_t i = 0; i < TESS_COUNT(models); i++) {
        tess_tokenizer *t = fixture_open(models[i]);
        memcpy(seen[i], tess_tokenizer_hash(t), 33);
        assert_int_equal(strlen(seen[i]), 32);
        for (int64_t k = 0; k < i; k++) {
            assert_string_not_equal(seen[i], seen[k]);
        }
        tess_tokenizer_close(t);
    }
    tess_tokenizer *t = open_with("unigram", "\x22\x00", 2, TESS_OK); /* empty self_test_data */
    assert_string_equal(tess_tokenizer_hash(t), seen[0]);
    tess_tokenizer_close(t);
    t = open_with("unigram", "\x1a\x02\x18\x00", 4, TESS_OK); /* add_dummy_prefix = false */
    assert_string_not_equal(tess_tokenizer_hash(t), seen[0]);
    tess_tokenizer_close(t);
}

static void max_ids(void **state)
{
    (void)state;
    for (int64_t m = 0; m < TESS_COUNT(models); m++) {
        tess_tokenizer *t = fixture_open(models[m]);
        tess_ids all = {0}, cut = {0};
        size_t n = sizeof(caption) - 1;
        assert_int_equal(tess_tokenizer_encode(t, &all, caption, n, NULL), TESS_OK);
        assert_true(all.n_ids > 20);
        for (size_t most = 2; most < all.n_ids + 5; most++) {
            tess_encode_options o = {.add_bos = true, .add_eos = true, .max_ids = most};
            size_t kept = most - 2 < all.n_ids ? most - 2 : all.n_ids;
            size_t before = cut.n_ids;
            assert_int_equal(tess_tokenizer_encode(t, &cut, caption, n, &o), TESS_OK);
            assert_int_equal(cut.n_ids - before, kept + 2);
            assert_int_equal(cut.ids[before], tess_tokenizer_bos_id(t));
            assert_int_equal(cut.ids[cut.n_ids - 1], tess_tokenizer_eos_id(t));
            assert_memory_equal(cut.ids + before + 1, all.ids, kept * sizeof(int32_t));
        }
        tess_encode_options none = {.add_bos = true, .add_eos = true, .max_ids = 1};
        assert_int_equal(tess_tokenizer_encode(t, &cut, caption, n, &none), TESS_INVALID);
        assert_int_equal(tess_tokenizer_encode(t, &cut, caption, ((size_t)64 << 20) + 1, NULL),
                         TESS_INVALID);
        tess_ids_deinit(&all);
        tess_ids_deinit(&cut);
        tess_tokenizer_close(t);
    }
}

static void decode_refuses_strange_ids(void **state)
{
    (void)state;
    tess_tokenizer *t = fixture_open("bpe");
    tess_buf out = {0};
    int32_t ids[2] = {5, -1};
    assert_int_equal(tess_tokenizer_decode(t, &out, ids, 2), TESS_INVALID);
    ids[1] = tess_tokenizer_n_vocab(t);
    assert_int_equal(tess_tokenizer_decode(t, &out, ids, 2), TESS_INVALID);
    assert_non_null(strstr(tess_error(), "position 1"));
    tess_buf_deinit(&out);
    tess_tokenizer_close(t);
}

/* ---- bad models ------------------------------------------------------------------------- */

static void refuse(const void *data, size_t n, tess_status want, const char *message)
{
    tess_tokenizer *t = NULL;
    tess_status st = tess_tokenizer_open_bytes(data, n, "file.model", &t);
    assert_int_equal(st, want);
    assert_null(t);
    if (strstr(tess_error(), "file.model") == NULL || strstr(tess_error(), message) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", tess_error(), message);
    }
}

static void not_models(void **state)
{
    (void)state;
    static const char png[] = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    refuse("", 0, TESS_FORMAT, "empty file");
    refuse(png, sizeof(png), TESS_FORMAT, "PNG");
    refuse("\n {\"version\": \"1.0\"}", 20, TESS_FORMAT, "JSON");
    refuse("<!DOCTYPE html>", 15, TESS_FORMAT, "HTML");
    refuse("\x1f\x8b\x08\0\0\0", 6, TESS_FORMAT, "gzip");
    refuse("version https://git-lfs.github.com/spec/v1\n", 43, TESS_FORMAT, "Git LFS");
    refuse("just some text\n", 15, TESS_FORMAT, "not a usable SentencePiece model");
    refuse("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 11, TESS_FORMAT, "64 bits");
    refuse("\x0a\xff\xff\xff\x7f", 5, TESS_FORMAT, "truncated");
    refuse("\x0a\x05\x0a\x03zzz", 7, TESS_FORMAT, "trainer_spec");
    tess_tokenizer *t;
    assert_int_equal(tess_tokenizer_open("/nonexistent/x.model", &t), TESS_IO);
    assert_null(t);
}

static void refuse_with(const char *tail, size_t n_tail, tess_status want, const char *message)
{
    tess_buf model = fixture_model("unigram");
    tess_buf_add(&model, tail, n_tail);
    refuse(model.data, model.n_bytes, want, message);
    tess_buf_deinit(&model);
}

static void refused_features(void **state)
{
    (void)state;
    refuse_with("\x12\x02\x18\x03", 4, TESS_UNSUPPORTED, "\"word\"");
    refuse_with("\x12\x02\x18\x04", 4, TESS_UNSUPPORTED, "\"char\"");
    refuse_with("\x12\x02\x18\x09", 4, TESS_FORMAT, "model type 9");
    refuse_with("\x2a\x03\x12\x01x", 5, TESS_UNSUPPORTED, "denormalisation");
    refuse_with("\x12\x03\x98\x02\x01", 5, TESS_FORMAT, "byte fallback"); /* without byte pieces */
    refuse_with("\x0a\x03\x0a\x01z\x0a\x03\x0a\x01z", 10, TESS_FORMAT, "are the same");
    refuse_with("\x0a\x05\x0a\x03<s>", 7, TESS_FORMAT, "are the same");
    refuse_with("\x0a\x00", 2, TESS_FORMAT, "empty");
    refuse_with("\x0a\x05\x0a\x01z\x18\x09", 7, TESS_FORMAT, "unknown type 9");
    refuse_with("\x0a\x05\x0a\x01z\x18\x02", 7, TESS_FORMAT, "both the unknown piece");
    refuse_with("\x0a\x05\x0a\x01z\x18\x06", 7, TESS_FORMAT, "type BYTE");
    refuse_with("\x1a\x03\x12\x01x", 5, TESS_FORMAT, "normalisation rules");
    refuse_with("\x0a\x08\x0a\x01z\x15\0\0\xc0\x7f", 10, TESS_FORMAT, "not finite");
    refuse_with("\x0b", 1, TESS_FORMAT, "wire type 3");
}

/* Whatever opens must encode; whatever does not must say why. */
static int try_model(const void *data, size_t n)
{
    tess_tokenizer *t;
    tess_status st = tess_tokenizer_open_bytes(data, n, "m", &t);
    if (st != TESS_OK) {
        assert_true(st == TESS_FORMAT || st == TESS_UNSUPPORTED);
        assert_true(strlen(tess_error()) > 10);
        return 0;
    }
    tess_ids ids = {0};
    tess_buf text = {0};
    assert_int_equal(tess_tokenizer_encode(t, &ids, caption, sizeof(caption) - 1, NULL), TESS_OK);
    for (size_t i = 0; i < ids.n_ids; i++) {
        assert_in_range(ids.ids[i], 0, tess_tokenizer_n_vocab(t) - 1);
    }
    assert_int_equal(tess_tokenizer_decode(t, &text, ids.ids, ids.n_ids), TESS_OK);
    tess_ids_deinit(&ids);
    tess_buf_deinit(&text);
    tess_tokenizer_close(t);
    return 1;
}

static void truncated(void **state)
{
    (void)state;
    for (int64_t m = 0; m < TESS_COUNT(models); m++) {
        tess_buf model = fixture_model(models[m]);
        int n_opened = 0;
        for (size_t i = 0; i < 60; i++) {
            n_opened += try_model(model.data, model.n_bytes * i / 60);
        }
        for (size_t i = 1; i < 60; i++) {
            n_opened += try_model(model.data, model.n_bytes - i);
        }
        /* Only a model cut right behind its normalizer_spec is whole. */
        assert_true(n_opened <= (strchr(models[m], '+') != NULL ? 2 : 1));
        tess_buf_deinit(&model);
    }
}

static void flipped(void **state)
{
    (void)state;
    tess_rng rng = tess_rng_at(7, 0);
    for (int64_t m = 0; m < TESS_COUNT(models); m++) {
        tess_buf model = fixture_model(models[m]);
        for (int i = 0; i < 120; i++) {
            /* Half of them among the last bytes, where the flags and rules lie. */
            uint32_t span = i % 2 == 0 && model.n_bytes > 400 ? 400 : (uint32_t)model.n_bytes;
            size_t at = model.n_bytes - 1 - tess_rng_below(&rng, span);
            char old = model.data[at];
            model.data[at] = (char)(old ^ (1 << tess_rng_below(&rng, 8)));
            try_model(model.data, model.n_bytes);
            model.data[at] = old;
        }
        tess_buf_deinit(&model);
    }
}

/* ---- resources -------------------------------------------------------------------------- */

static void allocation_fails(void **state)
{
    (void)state;
    static const char *const some[] = {"unigram_bytes", "bpe_unused"};
    for (int64_t m = 0; m < TESS_COUNT(some); m++) {
        tess_buf model = fixture_model(some[m]);
        bool done = false;
        for (int64_t nth = 1; !done; nth++) {
            tess_tokenizer *t = NULL;
            tess_ids ids = {0};
            tess_fault_set(TESS_FAULT_ALLOC, nth, false);
            tess_status st = tess_tokenizer_open_bytes(model.data, model.n_bytes, "m", &t);
            if (st == TESS_OK) {
                st = tess_tokenizer_encode(t, &ids, caption, sizeof(caption) - 1, NULL);
            }
            done = tess_fault_count(TESS_FAULT_ALLOC) < nth;
            tess_fault_set(TESS_FAULT_ALLOC, 0, false);
            assert_int_equal(st, done ? TESS_OK : TESS_NOMEM);
            assert_true(done || ids.n_ids == 0);
            tess_ids_deinit(&ids);
            tess_tokenizer_close(t);
        }
        tess_buf_deinit(&model);
    }
}

/* Once warm, a scratch makes encoding free of allocation. */
static void scratch_settles(void **state)
{
    (void)state;
    for (int64_t m = 0; m < TESS_COUNT(models); m++) {
        tess_tokenizer *t = fixture_open(models[m]);
        tess_encode_options o = {.scratch = tess_tokenizer_scratch_new()};
        tess_ids ids = {0};
        int64_t before = 0;
        for (int i = 0; i < 2; i++) {
            ids.n_ids = 0;
            before = tess_fault_count(TESS_FAULT_ALLOC);
            assert_int_equal(tess_tokenizer_encode(t, &ids, caption, sizeof(caption) - 1, &o),
                             TESS_OK);
        }
        assert_int_equal(tess_fault_count(TESS_FAULT_ALLOC), before);
        tess_ids_deinit(&ids);
        tess_tokenizer_scratch_free(o.scratch);
        tess_tokenizer_close(t);
    }
    tess_tokenizer_scratch_free(NULL);
}

/* Half a megabyte: long words, many words, nothing but unknown characters, nothing but spaces. */
static void long_texts(void **state)
{
    (void)state;
    static const char *const units[] = {"a", "red ", "\xe7\x8c\xab", "\xff", " ", "\xcc\x81"};
    for (int64_t m = 0; m < TESS_COUNT(models); m++) {
        tess_tokenizer *t = fixture_open(models[m]);
        for (int64_t u = 0; u < TESS_COUNT(units); u++) {
            tess_buf text = {0};
            while (text.n_bytes < 1 << 19) {
                tess_buf_adds(&text, units[u]);
            }
            tess_ids all = {0}, cut = {0};
            tess_encode_options o = {.add_eos = true, .max_ids = 77};
            assert_int_equal(tess_tokenizer_encode(t, &all, text.data, text.n_bytes, NULL),
                             TESS_OK);
            assert_int_equal(tess_tokenizer_encode(t, &cut, text.data, text.n_bytes, &o), TESS_OK);
            assert_true(cut.n_ids <= 77);
            assert_memory_equal(all.ids, cut.ids, (cut.n_ids - 1) * sizeof(int32_t));
            tess_ids_deinit(&all);
            tess_ids_deinit(&cut);
            tess_buf_deinit(&text);
        }
        tess_tokenizer_close(t);
    }
}

typedef struct job {
    const tess_tokenizer *t;
    const fixture_lines *lines;
    tess_ids ids;
} job;

static void *encode_all(void *ctx)
{
    job *j = ctx;
    tess_encode_options o = {.scratch = tess_tokenizer_scratch_new()};
    for (size_t i = 0; i < j->lines->n; i++) {
        if (tess_tokenizer_encode(j->t, &j->ids, j->lines->lines[i].data,
                                  j->lines->lines[i].n_bytes, &o) != TESS_OK) {
            break;
        }
    }
    tess_tokenizer_scratch_free(o.scratch);
    return NULL;
}

static void threads(void **state)
{
    (void)state;
    fixture_lines lines = fixture_read_lines("sentences.txt");
    for (int64_t m = 0; m < TESS_COUNT(models); m++) {
        tess_tokenizer *t = fixture_open(models[m]);
        pthread_t id[4];
        job jobs[4];
        for (int i = 0; i < 4; i++) {
            jobs[i] = (job){.t = t, .lines = &lines};
            assert_int_equal(pthread_create(&id[i], NULL, encode_all, &jobs[i]), 0);
        }
        for (int i = 0; i < 4; i++) {
            pthread_join(id[i], NULL);
        }
        for (int i = 0; i < 4; i++) {
            assert_int_equal(jobs[i].ids.n_ids, jobs[0].ids.n_ids);
            assert_memory_equal(jobs[i].ids.ids, jobs[0].ids.ids,
                                jobs[0].ids.n_ids * sizeof(int32_t));
        }
        for (int i = 0; i < 4; i++) {
            tess_ids_deinit(&jobs[i].ids);
        }
        tess_tokenizer_close(t);
    }
    fixture_free_lines(&lines);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(looks),
        cmocka_unit_test(save_gives_the_same_bytes),
        cmocka_unit_test(hash),
        cmocka_unit_test(max_ids),
        cmocka_unit_test(decode_refuses_strange_ids),
        cmocka_unit_test(not_models),
        cmocka_unit_test(refused_features),
        cmocka_unit_test(truncated),
        cmocka_unit_test(flipped),
        cmocka_unit_test(allocation_fails),
        cmocka_unit_test(scratch_settles),
        cmocka_unit_test(long_texts),
        cmocka_unit_test(threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
