/* SPDX-License-Identifier: Apache-2.0 */
/* Data sets of every kind: names, samples, captions, and what is left out and counted. */
#include "train/data_fakes.h"

#include "train/source.h"

/* ---- names -------------------------------------------------------------------------------- */

static void test_braces(void **state)
{
    static const char *const cases[][2] = {
        {"a.tar", "a.tar"},
        {"a{0..2}", "a0 a1 a2"},
        {"a{08..11}.tar", "a08.tar a09.tar a10.tar a11.tar"},
        {"{000..001}{a,b}", "000a 000b 001a 001b"},
        {"{2..0}", "2 1 0"},
        {"x{a,b{1..2},}y", "xay xb1y xb2y xy"},
        {"a::b{1,2}::c", "a b1 b2 c"},
        {"{only}", "{only}"},
        {"{x{1..2}}", "{x1} {x2}"},
        {"open{1..2", "open{1..2"},
        {"{1..x}", "{1..x}"},
        {"{0..10..2}", "{0..10..2}"},
        {"::", ""},
    };
    (void)state;
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        tess_names names = {0};
        tess_buf have = {0};
        assert_int_equal(tess__source_expand(cases[i][0], &names), TESS_OK);
        tess_buf_adds(&have, "");
        for (size_t k = 0; k < names.n_names; k++) {
            tess_buf_addf(&have, "%s%s", k > 0 ? " " : "", names.names[k]);
        }
        assert_string_equal(have.data ? have.data : "", cases[i][1]);
        tess_names_deinit(&names);
        tess_buf_deinit(&have);
    }
}

static void test_too_many_names_are_refused(void **state)
{
    tess_names names = {0};
    (void)state;
    assert_int_equal(tess__source_expand("{0..99999999}{0..99999999}", &names), TESS_INVALID);
    tess_names_deinit(&names);
}

/* ---- samples ------------------------------------------------------------------------------ */

/* "key=picture[lang:text|...]" of every sample, one a line. */
static void list_samples(const tess_dataset *ds, tess_buf *out)
{
    tess_sample s = {0};
    for (int64_t i = 0; i < tess_dataset_size(ds); i++) {
        assert_int_equal(tess_dataset_read(ds, i, TESS_READ_ALL, &s), TESS_OK);
        tess_buf_addf(out, "%s=%.*s[", s.key, (int)s.picture.n_bytes,
                      s.picture.data ? (const char *)s.picture.data : "");
        for (int64_t k = 0; k < s.n_captions; k++) {
            assert_int_equal(strlen(s.captions[k].text), s.captions[k].n_bytes);
            tess_buf_addf(out, "%s%s:%s", k > 0 ? "|" : "",
                          tess_dataset_language(ds, s.captions[k].language), s.captions[k].text);
        }
        tess_buf_addf(out, "]%s%s\n", s.bad != TESS_BAD_NONE ? " " : "",
                      s.bad != TESS_BAD_NONE ? tess_bad_name(s.bad) : "");
        assert_int_equal(s.id, tess_dataset_id(ds, i));
    }
    tess_sample_deinit(&s);
}

static void check_samples(const char *path, tess_dataset_options o, const char *want)
{
    tess_dataset *ds = open_data(path, o);
    tess_buf have = {0};
    list_samples(ds, &have);
    assert_string_equal(have.data, want);
    tess_buf_deinit(&have);
    tess_dataset_close(ds);
}

static void check_bad(const char *path, tess_dataset_options o, const char *want)
{
    tess_dataset *ds = open_data(path, o);
    const tess_bad_list *bad = tess_dataset_bad(ds);
    tess_buf have = {0};
    for (int r = 0; r < TESS_BAD_COUNT; r++) {
        if (bad->counts[r] > 0) {
            assert_non_null(bad->names[r][0]);
            tess_buf_addf(&have, "%lld %s;", (long long)bad->counts[r], tess_bad_name((tess_bad)r));
        }
    }
    assert_string_equal(have.data ? have.data : "", want);
    tess_buf_deinit(&have);
    tess_dataset_close(ds);
}

static void write_shard(const char *name)
{
    tess_buf tar = {0};
    tar_adds(&tar, "d/1.png", "PIC 1");
    tar_adds(&tar, "d/1.JPG", "PIC 11");
    tar_adds(&tar, "d/1.seg.png", "PIC 99");
    tar_adds(&tar, "d/1.txt", " one \r\n");
    tar_adds(&tar, "__meta__", "{}");
    tar_adds(&tar, "d/__len__.txt", "5");
    tar_adds(&tar, "noext", "x");
    tar_adds(&tar, ".hidden.txt", "x");
    tar_adds(&tar, "d.x/2.webp", "PIC 2");
    tar_adds(&tar, "d.x/2.json",
             "{\"key\":\"2\",\"captions\":{\"de\":[\"zwei\",\"Paar\"],\"en\":\"two\"},"
             "\"captions_test\":{\"fr\":\"deux\"}}");
    tar_adds(&tar, "3.jpg", "PIC 3");
    tar_adds(&tar, "3.txt", "three");
    tar_adds(&tar, "3.json", "{\"caption\":\"not this one\",\"width\":3}");
    tar_adds(&tar, "4.jpg", "PIC 4");
    tar_adds(&tar, "4.json", "{\"caption\":\"four\"}");
    tar_adds(&tar, "5.jpg", "PIC 5");
    tar_adds(&tar, "5.txt", "five");
    tar_adds(&tar, "5.txt", "again"); /* begins another 5, without a picture */
    tar_adds(&tar, "6.jpg", "PIC 6");
    tar_write(&tar, name);
}

static void test_webdataset(void **state)
{
    (void)state;
    write_shard("s-0.tar");
    check_samples(run_path("s-{0..0}.tar"), (tess_dataset_options){0},
                  "d/1=PIC 11[und:one]\n"
                  "d.x/2=PIC 2[de:zwei|de:Paar|en:two]\n"
                  "3=PIC 3[und:three]\n"
                  "4=PIC 4[und:four]\n"
                  "5=PIC 5[und:five]\n");
    check_bad(run_path("s-0.tar"), (tess_dataset_options){0}, "1 no_picture;1 no_caption;");
    check_samples(
        run_path("s-0.tar"),
        (tess_dataset_options){.caption_key = "captions_test", .captions_optional = true},
        "d/1=PIC 11[]\nd.x/2=PIC 2[fr:deux]\n3=PIC 3[]\n4=PIC 4[]\n5=PIC 5[]\n6=PIC 6[]\n");
    check_samples(
        run_path("s-0.tar"),
        (tess_dataset_options){.caption_key = "caption|txt", .image_suffixes = "png;webp"},
        "d/1=PIC 1[und:one]\nd.x/2=PIC 2[] no_caption\n");
}

static void test_cut_shard(void **state)
{
    uint8_t *data;
    size_t n;
    (void)state;
    write_shard("whole.tar");
    assert_int_equal(tess_file_read(run_path("whole.tar"), 1 << 20, &data, &n), TESS_OK);
    /* In the text of sample 3, which has its picture: sample 3 is not whole. */
    const uint8_t *at = memmem(data, n, "three", 5);
    assert_int_equal(tess_file_write(run_path("cut.tar"), data, (size_t)(at - data) + 2), TESS_OK);
    check_samples(run_path("cut.tar"), (tess_dataset_options){0},
                  "d/1=PIC 11[und:one]\nd.x/2=PIC 2[de:zwei|de:Paar|en:two]\n");
    check_bad(run_path("cut.tar"), (tess_dataset_options){0}, "1 truncated;");
    /* Cleanly between members, the end marker missing: all samples, and the count. */
    assert_int_equal(tess_file_write(run_path("clean.tar"), data, n - 1024), TESS_OK);
    check_bad(run_path("clean.tar"), (tess_dataset_options){0},
              "1 no_picture;1 no_caption;1 truncated;");
    tess_free(data);
}

static void test_tables(void **state)
{
    (void)state;
    assert_int_equal(tess_dir_make(run_path("pics")), TESS_OK);
    write_text("pics/a.jpg", "PIC 1");
    write_text("pics/b,c.jpg", "PIC 2");
    write_text("t.tsv", "\xEF\xBB\xBFid\tfilepath\ttitle\n1\tpics/a.jpg\tfirst\n"
                        "2\t\"pics/b,c.jpg\"\t\"a \"\"second\"\"\"\n"
                        "3\tpics/none.jpg\tthird\n4\thttps://x/y.jpg\tfourth\n5\ttoo few\n"
                        "6\t\tno path\n7\tpics/a.jpg\t  \n");
    check_samples(run_path("t.tsv"), (tess_dataset_options){0},
                  "pics/a.jpg=PIC 1[und:first]\npics/b,c.jpg=PIC 2[und:a \"second\"]\n"
                  "pics/none.jpg=[und:third] unreadable\n"
                  "https://x/y.jpg=[und:fourth] unreadable\n"
                  "pics/a.jpg=[] no_caption\n");
    check_bad(run_path("t.tsv"), (tess_dataset_options){0}, "1 no_picture;1 record;");
    write_text("u.csv", "image;text\nb,c.jpg;hello\n");
    check_samples(run_path("u.csv"),
                  (tess_dataset_options){.csv_separator = ";",
                                         .csv_image_key = "image",
                                         .csv_caption_key = "text",
                                         .caption_key = "captions",
                                         .image_root = run_path("pics")},
                  "b,c.jpg=PIC 2[und:hello]\n");
    tess_dataset *ds;
    assert_int_equal(tess_dataset_open(run_path("u.csv"), NULL, &ds), TESS_INVALID);
    assert_non_null(strstr(tess_error(), "--csv-img-key"));
}

static void test_jsonl(void **state)
{
    (void)state;
    assert_int_equal(tess_dir_make(run_path("pics")), TESS_OK);
    write_text("pics/a.jpg", "PIC 1");
    write_text("j.jsonl",
               "{\"image\":\"pics/a.jpg\",\"captions\":{\"en\":\"x\",\"sr_Latn\":[\"y\",\"z\"]}}\n"
               "\n"
               "{\"key\":\"k\",\"url\":\"pics/a.jpg\",\"text\":[\"t\",\"u\"]}\r\n"
               "not json\n[1]\n{\"text\":\"no picture\"}\n"
               "{\"image\":\"pics/a.jpg\",\"title\":7}\n"
               "{\"image\":\"pics/a.jpg\",\"image\":\"twice\"}\n"
               "{\"filepath\":\"pics/a.jpg\",\"title\":\"last\"}");
    check_samples(run_path("j.jsonl"), (tess_dataset_options){0},
                  "pics/a.jpg=PIC 1[en:x|sr_Latn:y|sr_Latn:z]\nk=PIC 1[und:t|und:u]\n"
                  "pics/a.jpg=[] no_caption\npics/a.jpg=PIC 1[und:last]\n");
    check_bad(run_path("j.jsonl"), (tess_dataset_options){0}, "1 no_picture;3 record;");
    tess_dataset *ds = open_data(run_path("j.jsonl"), (tess_dataset_options){0});
    assert_int_equal(tess_dataset_n_languages(ds), 3);
    assert_int_equal(tess_dataset_find_language(ds, "sr_Latn"), 1);
    assert_int_equal(tess_dataset_language_count(ds, 1), 2);
    assert_int_equal(tess_dataset_language_count(ds, 2), 3);
    assert_int_equal(tess_dataset_find_language(ds, "xx"), -1);
    tess_dataset_close(ds);
}

static void test_folder(void **state)
{
    (void)state;
    assert_int_equal(tess_dir_make(run_path("f/sub")), TESS_OK);
    write_text("f/b.JPG", "PIC 2");
    write_text("f/b.txt", "b");
    write_text("f/a.b.png", "PIC 1");
    write_text("f/a.b.json", "{\"captions\":{\"pl\":\"a\"}}");
    write_text("f/sub/c.webp", "PIC 3");
    write_text("f/sub/c.jpg", "PIC 33");
    write_text("f/sub/c.txt", "c");
    write_text("f/sub/d.jpg", "PIC 4");
    write_text("f/e.txt", "alone");
    write_text("f/data.bin", "x");
    check_samples(run_path("f"), (tess_dataset_options){0},
                  "a.b=PIC 1[pl:a]\nb=PIC 2[und:b]\nsub/c=PIC 33[und:c]\n");
    check_bad(run_path("f"), (tess_dataset_options){0}, "1 no_picture;1 no_caption;");
    /* A directory with shards is a WebDataset. */
    assert_int_equal(tess_dir_make(run_path("w")), TESS_OK);
    write_shard("w/1.tar");
    write_shard("w/0.tar");
    tess_dataset *ds = open_data(run_path("w"), (tess_dataset_options){0});
    assert_int_equal(tess_dataset_size(ds), 10);
    tess_dataset_close(ds);
    char *both = tess_format("%s::%s", run_path("f"), run_path("w/{0,1}.tar"));
    ds = open_data(both, (tess_dataset_options){0});
    assert_int_equal(tess_dataset_size(ds), 13);
    tess_dataset_close(ds);
    tess_free(both);
}

/* ---- captions ----------------------------------------------------------------------------- */

static void test_captions_left_out(void **state)
{
    tess_buf tar = {0}, text = {0};
    tess_sample s = {0};
    (void)state;
    tar_adds(&tar, "a.jpg", "PIC 1");
    tess_buf_adds(&text, "{\"captions\":{\"en\":[\"good\",\"\",\" \\n\",7,null,\"mojibake\",\"");
    for (int i = 0; i < 70000; i++) {
        tess_buf_adds(&text, "x");
    }
    tess_buf_adds(&text, "\"],\"de\":[");
    for (int i = 0; i < 5000; i++) {
        tess_buf_addf(&text, "%s\"c%d\"", i > 0 ? "," : "", i);
    }
    tess_buf_adds(&text, "]}}");
    tar_adds(&tar, "a.json", text.data);
    tar_adds(&tar, "b.jpg", "PIC 2");
    tar_adds(&tar, "b.txt", "bad \xC0\xAF bytes");
    tar_adds(&tar, "c.jpg", "PIC 3");
    tar_add(&tar, "c.txt", "nul\0inside", 10);
    tar_adds(&tar, "d.jpg", "PIC 4");
    tar_adds(&tar, "d.json", "{\"captions\":{\"en\":\"cut");
    tar_adds(&tar, "e.jpg", "PIC 5");
    tar_adds(&tar, "e.txt", "\xEF\xBB\xBFmark");
    tar_write(&tar, "c.tar");
    tess_dataset *ds = open_data(run_path("c.tar"), (tess_dataset_options){0});
    assert_int_equal(tess_dataset_read(ds, 0, TESS_READ_ALL, &s), TESS_OK);
    assert_int_equal(s.n_captions, 4096);
    assert_int_equal(s.n_dropped[TESS_BAD_CAPTION_EMPTY], 4);
    assert_int_equal(s.n_dropped[TESS_BAD_CAPTION_MOJIBAKE], 1);
    assert_int_equal(s.n_dropped[TESS_BAD_CAPTION_LONG], 1);
    assert_int_equal(s.n_dropped[TESS_BAD_CAPTION_MANY], 905);
    for (int64_t i = 1; i <= 2; i++) {
        assert_int_equal(tess_dataset_read(ds, i, TESS_READ_ALL, &s), TESS_OK);
        assert_int_equal(s.bad, TESS_BAD_NO_CAPTION);
        assert_int_equal(s.n_dropped[TESS_BAD_CAPTION_UTF8], 1);
    }
    assert_int_equal(tess_dataset_read(ds, 3, TESS_READ_ALL, &s), TESS_OK);
    assert_int_equal(s.bad, TESS_BAD_JSON);
    assert_int_equal(tess_dataset_read(ds, 4, TESS_READ_ALL, &s), TESS_OK);
    assert_string_equal(s.captions[0].text, "mark");
    assert_int_equal(tess_dataset_read(ds, 5, TESS_READ_ALL, &s), TESS_INVALID);
    tess_sample_deinit(&s);

    tess_data_report r;
    tess_buf out = {0};
    assert_int_equal(tess_dataset_check(ds, &fake_hooks, &r), TESS_OK);
    assert_int_equal(r.n_samples, 5);
    assert_int_equal(r.n_good, 2);
    assert_int_equal(r.n_captions, 4097);
    assert_int_equal(r.bad.counts[TESS_BAD_CAPTION_UTF8], 2);
    assert_int_equal(r.bad.counts[TESS_BAD_NO_CAPTION], 2);
    assert_int_equal(r.formats[3], 5);
    tess_data_report_write_text(&r, ds, &out);
    assert_non_null(strstr(out.data, "left out: 2 no_caption"));
    tess_buf_clear(&out);
    tess_data_report_write_json(&r, ds, &(tess_json_writer){.buf = &out});
    tess_json_doc *doc;
    assert_int_equal(tess_json_parse(out.data, out.n_bytes, "report", &doc), TESS_OK);
    const tess_json *bad = tess_json_get(tess_json_root(doc), "left_out");
    assert_int_equal(tess_json_int(tess_json_get(tess_json_get(bad, "json"), "count"), 0), 1);
    tess_json_free(doc);
    tess_buf_deinit(&out);
    tess_buf_deinit(&text);
    tess_data_report_deinit(&r);
    tess_dataset_close(ds);
}

static void test_evaluation_captions(void **state)
{
    tess_captions c;
    (void)state;
    write_shard("e.tar");
    tess_dataset *ds =
        open_data(run_path("e.tar"), (tess_dataset_options){.captions_optional = true});
    assert_int_equal(tess_captions_load(ds, &fake_hooks, 4, true, &c), TESS_OK);
    assert_int_equal(c.n_captions, 7);
    assert_int_equal(c.samples[3], 1);
    assert_string_equal(c.texts[3], "two");
    assert_string_equal(tess_dataset_language(ds, c.languages[3]), "en");
    assert_int_equal(c.offsets[4] - c.offsets[3], 3);
    assert_int_equal(c.tokens[c.offsets[3]], 't');
    assert_int_equal(c.offsets[7], c.n_tokens);
    assert_int_equal(c.offsets[5] - c.offsets[4], 4); /* "three", cut to 4 */
    tess_captions_deinit(&c);
    tess_dataset_close(ds);
}

/* ---- refusals ----------------------------------------------------------------------------- */

static void test_refusals(void **state)
{
    static const struct {
        const char *path, *type;
        tess_status want;
        const char *says;
    } cases[] = {
        {"none-{0..1}.tar", NULL, TESS_IO, "none-0.tar"},
        {"x.unknown", NULL, TESS_INVALID, "--dataset-type"},
        {"html.tar", NULL, TESS_FORMAT, "tar_header"},
        {"empty", NULL, TESS_FORMAT, "empty"},
        {"html.tar", "parquet", TESS_INVALID, "parquet"},
        {"html.tar", "folder", TESS_INVALID, "directory"},
        {"empty", "csv", TESS_INVALID, "csv"},
        {"nothing.csv", NULL, TESS_FORMAT, "header row"},
    };
    (void)state;
    assert_int_equal(tess_dir_make(run_path("empty")), TESS_OK);
    write_text("x.unknown", "x");
    write_text("html.tar", "<!DOCTYPE html>");
    write_text("nothing.csv", "\n\n");
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        tess_dataset *ds;
        tess_dataset_options o = {.type = cases[i].type};
        const char *says =
            strcmp(cases[i].path, "html.tar") == 0 && !cases[i].type ? "truncated" : cases[i].says;
        assert_int_equal(tess_dataset_open(run_path(cases[i].path), &o, &ds), cases[i].want);
        assert_null(ds);
        if (!strstr(tess_error(), says)) {
            fail_msg("'%s' does not say %s", tess_error(), says);
        }
    }
}

/* The n-th allocation fails: an error each time, nothing leaked, and in the end success. */
static void test_memory_gives_out(void **state)
{
    (void)state;
    write_shard("m.tar");
    assert_int_equal(tess_dir_make(run_path("one")), TESS_OK);
    write_text("one/a.jpg", "PIC 1");
    write_text("m.tsv", "filepath\ttitle\none/a.jpg\tfirst\n");
    write_text("m.jsonl", "{\"image\":\"one/a.jpg\",\"text\":\"x\"}\n");
    char *path = tess_format("%s::%s::%s::%s", run_path("m.tar"), run_path("m.tsv"),
                             run_path("m.jsonl"), run_path("one"));
    for (int64_t nth = 1;; nth++) {
        tess_dataset *ds = NULL;
        tess_dataset_options o = {.captions_optional = true};
        tess_fault_set(TESS_FAULT_ALLOC, nth, false);
        tess_status st = tess_dataset_open(path, &o, &ds);
        bool was_reached = tess_fault_count(TESS_FAULT_ALLOC) >= nth;
        tess_fault_set(TESS_FAULT_ALLOC, 0, false);
        if (st == TESS_OK) {
            assert_int_equal(tess_dataset_size(ds), 9);
        }
        tess_dataset_close(ds);
        if (!was_reached) {
            assert_int_equal(st, TESS_OK);
            assert_true(nth > 20);
            break;
        }
        assert_int_equal(st, TESS_NOMEM);
    }
    tess_free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_braces),
        cmocka_unit_test(test_too_many_names_are_refused),
        cmocka_unit_test(test_webdataset),
        cmocka_unit_test(test_cut_shard),
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_jsonl),
        cmocka_unit_test(test_folder),
        cmocka_unit_test(test_captions_left_out),
        cmocka_unit_test(test_evaluation_captions),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_memory_gives_out),
    };
    return cmocka_run_group_tests(tests, run_dir_make, run_dir_remove);
}
