/* SPDX-License-Identifier: Apache-2.0 */
/* Captions without pictures: what tables and lines of them hold, and that slot 0 of every batch is
 * a caption in the source language, with its text. */
#include "train/data_fakes.h"

#define MAX_TOKENS 40

enum { SAMPLES = 30, BATCH = 10, SLOTS = 3 };

static tess_dataset *open_texts(const char *name, const char *caption_key)
{
    tess_dataset *ds = NULL;
    const tess_dataset_options o = {
        .caption_key = caption_key, .pictures_optional = true, .hooks = &fake_hooks};
    if (tess_dataset_open(run_path(name), &o, &ds) != TESS_OK) {
        fail_msg("%s", tess_error());
    }
    return ds;
}

/* Two captions in English, one in German, of every other line one in French; every seventh has no
 * English one. */
static void write_lines(void)
{
    tess_buf b = {0};
    for (int i = 0; i < SAMPLES; i++) {
        tess_buf_addf(&b, "{\"captions\":{\"de\":\"deutsch %d\"", i);
        if (i % 2) {
            tess_buf_addf(&b, ",\"fr\":\"francais %d\"", i);
        }
        if (i % 7 != 6) {
            tess_buf_addf(&b, ",\"en\":[\"one %d\",\"other %d\"]", i, i);
        }
        tess_buf_adds(&b, "}}\n");
    }
    write_text("texts.jsonl", b.data);
    tess_buf_deinit(&b);
}

static tess_loader_options texts_only(void)
{
    return (tess_loader_options){.hooks = {.tokenize = fake_tokenize},
                                 .batch = BATCH,
                                 .captions_only = true,
                                 .captions_per_image = SLOTS,
                                 .max_tokens = MAX_TOKENS,
                                 .source_language = "en",
                                 .token_cache_bytes = 1 << 20,
                                 .max_bad_rate = 1,
                                 .seed = 5};
}

static bool tokens_are(const tess_batch *b, int64_t segment, const char *text)
{
    const int32_t begin = b->offsets[segment];
    const size_t n = (size_t)(b->offsets[segment + 1] - begin);
    bool same = n == strlen(text);
    for (size_t i = 0; same && i < n; i++) {
        same = b->tokens[begin + (int32_t)i] == (unsigned char)text[i];
    }
    return same;
}

static void check_batch(const tess_dataset *ds, const tess_batch *b, int64_t *n_other)
{
    const int64_t en = tess_dataset_find_language(ds, "en");
    assert_non_null(b->sources);
    for (int64_t i = 0; i < BATCH; i++) {
        char one[32], other[32];
        snprintf(one, sizeof one, "one %d", (int)b->samples[i]);
        snprintf(other, sizeof other, "other %d", (int)b->samples[i]);
        const bool is_other = strcmp(b->sources[i], other) == 0;
        assert_true(is_other || strcmp(b->sources[i], one) == 0);
        assert_true(tokens_are(b, i, b->sources[i]));
        assert_int_equal(b->languages[i], en);
        assert_int_not_equal(b->samples[i] % 7, 6);
        *n_other += is_other;
        const bool has_french = b->samples[i] % 2;
        assert_true(b->languages[BATCH + i] != en);
        assert_true((b->languages[2 * BATCH + i] != en) == has_french);
        assert_true(b->languages[2 * BATCH + i] != b->languages[BATCH + i]);
    }
}

static void test_source_language(void **state)
{
    (void)state;
    write_lines();
    tess_dataset *ds = open_texts("texts.jsonl", NULL);
    assert_int_equal(tess_dataset_size(ds), SAMPLES);
    assert_int_equal(tess_dataset_n_languages(ds), 3);
    for (int workers = 0; workers < 3; workers++) {
        tess_loader_options o = texts_only();
        tess_loader *l;
        const tess_batch *b;
        int64_t n_other = 0;
        o.workers = workers;
        assert_int_equal(tess_loader_new(ds, &o, &l), TESS_OK);
        for (int i = 0; i < 12; i++) {
            assert_int_equal(tess_loader_read(l, &b), TESS_OK);
            check_batch(ds, b, &n_other);
        }
        assert_true(n_other > 20 && n_other < 100); /* of 120: both are drawn */
        assert_true(tess_loader_bad(l)->counts[TESS_BAD_NO_CAPTION] > 0);
        tess_loader_free(l);
    }
    tess_dataset_close(ds);
}

static void test_no_such_language(void **state)
{
    (void)state;
    write_lines();
    tess_dataset *ds = open_texts("texts.jsonl", NULL);
    tess_loader_options o = texts_only();
    tess_loader *l;
    o.source_language = "it";
    assert_int_equal(tess_loader_new(ds, &o, &l), TESS_INVALID);
    assert_non_null(strstr(tess_error(), "it has de, en, fr"));
    tess_dataset_close(ds);
}

static void expect_row(const tess_dataset *ds, int64_t i, const char *key, const char *texts)
{
    tess_sample s = {0};
    tess_buf all = {0};
    assert_int_equal(tess_dataset_read(ds, i, TESS_READ_ALL, &s), TESS_OK);
    for (int64_t k = 0; k < s.n_captions; k++) {
        tess_buf_addf(&all, "%s=%s;", tess_dataset_language(ds, s.captions[k].language),
                      s.captions[k].text);
    }
    assert_string_equal(s.key, key);
    assert_string_equal(all.data ? all.data : "", texts);
    assert_int_equal(s.picture.n_bytes, 0);
    tess_buf_deinit(&all);
    tess_sample_deinit(&s);
}

/* A column for each language; empty fields are no captions, a picture's column none either. */
static void test_table(void **state)
{
    (void)state;
    write_text("texts.csv",
               "en,filepath,de,zh\na dog,x.jpg,\"ein, Hund\",\na cat,,eine Katze,猫\n");
    tess_dataset *ds = open_texts("texts.csv", NULL);
    assert_int_equal(tess_dataset_size(ds), 2);
    expect_row(ds, 0, "row at byte 18", "en=a dog;de=ein, Hund;");
    expect_row(ds, 1, "row at byte 43", "en=a cat;de=eine Katze;zh=猫;");
    tess_dataset_close(ds);
    ds = open_texts("texts.csv", "en|zh");
    expect_row(ds, 1, "row at byte 43", "en=a cat;zh=猫;");
    tess_dataset_close(ds);
    const tess_dataset_options o = {.caption_key = "it|es", .pictures_optional = true};
    assert_int_equal(tess_dataset_open(run_path("texts.csv"), &o, &ds), TESS_INVALID);
    assert_non_null(strstr(tess_error(), "it|es"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_source_language),
        cmocka_unit_test(test_no_such_language),
        cmocka_unit_test(test_table),
    };
    return cmocka_run_group_tests(tests, run_dir_make, run_dir_remove);
}
