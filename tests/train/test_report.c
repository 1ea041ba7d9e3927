/* SPDX-License-Identifier: Apache-2.0 */
/* report.html: thinning, odd input, and a page that other parsers accept. */
#include "run_dir.h"

#include "train/report_svg.h"

#include <math.h>

static void thins_a_series(void **state)
{
    (void)state;
    enum { N = 10000, BUCKETS = 100 };
    tess__series s = {
        .name = "x", .points = tess_alloc_array(N, sizeof(tess__point)), .n_points = N};
    tess__bucket out[BUCKETS];
    assert_non_null(s.points);
    for (int i = 0; i < N; i++) {
        s.points[i] = (tess__point){i, i == 5000 ? 1000 : i == 5001 ? NAN : 1};
    }
    size_t n = tess__series_decimate(&s, BUCKETS, out);
    assert_true(n >= BUCKETS - 1 && n <= BUCKETS);
    double high = 0, previous = -1;
    for (size_t i = 0; i < n; i++) {
        high = fmax(high, out[i].high);
        assert_true(isfinite(out[i].mean) && out[i].step > previous);
        previous = out[i].step;
    }
    assert_true(high == 1000); /* one spike among ten thousand survives */
    s.n_points = 3;
    assert_int_equal(tess__series_decimate(&s, BUCKETS, out), 3);
    s.n_points = 0;
    assert_int_equal(tess__series_decimate(&s, BUCKETS, out), 0);
    tess_free(s.points);
}

static void steps_that_repeat_or_go_back(void **state)
{
    (void)state;
    tess__point points[] = {{5, 1}, {5, 2}, {3, 3}, {5, 4}};
    tess__series s = {.name = "x", .points = points, .n_points = 4};
    tess__bucket out[2];
    size_t n = tess__series_decimate(&s, 2, out);
    assert_true(n >= 1 && n <= 2);
}

static void formats_numbers(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0, "0"},
                 {1234, "1234"},
                 {12345, "12\u202f345"},
                 {-1234567, "-1\u202f234\u202f567"},
                 {0.00012, "0.00012"},
                 {4.3125, "4.312"},
                 {NAN, "not finite"},
                 {1e300, "1e+300"}};
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        tess_buf out = {0};
        tess__html_add_number(&out, cases[i].value);
        assert_string_equal(out.data, cases[i].text);
        tess_buf_deinit(&out);
    }
}

static void finds_languages(void **state)
{
    (void)state;
    assert_string_equal(tess__series_language("val/text_to_image_R@1/zh-Hant"), "zh-Hant");
    assert_null(tess__series_language("val/text_to_image_R@1"));
    assert_null(tess__series_language("loss"));
    assert_null(tess__series_language("val/x/"));
}

static void whole_report(void **state)
{
    (void)state;
    static const char *const tags[] = {"de", "en", "zh-Hant", "ar", "<script>alert(1)</script>"};
    tess_metrics *m = open_metrics(false, 0);
    for (int64_t step = 1; step <= 3000; step++) {
        add_point(m, step, step == 1500 ? NAN : 6 / sqrt((double)step) + (step % 17) * 0.01);
        if (step % 1000 == 0) {
            char names[5][80];
            tess_scalar s[12] = {{"val/text_to_image_R@1", 0.1 * (double)step / 1000},
                                 {"val/text_to_image_R@10", 0.2 * (double)step / 1000}};
            for (int i = 0; i < 5; i++) {
                snprintf(names[i], sizeof(names[i]), "val/text_to_image_R@10/%s", tags[i]);
                s[2 + i] = (tess_scalar){names[i], 0.15 * (i + 1)};
            }
            assert_int_equal(tess_metrics_add_result(m, step, 0, s, 7), TESS_OK);
        }
    }
    tess_metrics_close(m);
    static const char params[] = "name: <b>&\"'\nbad: \xff\xfe\nno colon\n";
    assert_int_equal(tess_file_write(run_path("params.txt"), params, sizeof(params) - 1), TESS_OK);
    assert_int_equal(tess_report_write(run_dir), TESS_OK);
    size_t n_bytes;
    char *text = slurp(run_path("report.html"), &n_bytes);
    assert_null(strstr(text, "<script"));
    assert_null(strstr(text, "nan"));
    assert_non_null(strstr(text, "&lt;script&gt;"));
    assert_non_null(strstr(text, "Text to image recall by language"));
    assert_non_null(strstr(text, "train/contrastive_loss"));
    assert_null(strstr(text, ">-  0.")); /* no column for a metric that no language has */
    assert_true(n_bytes < 200000);
    tess_free(text);
    assert_int_equal(run_script("check_report.py", run_path("report.html")), 0);
    const char *keep = getenv("TESS_KEEP_REPORT");
    if (keep != NULL) {
        assert_int_equal(tess_path_rename(run_path("report.html"), keep), TESS_OK);
    }
}

static void report_of_little(void **state)
{
    (void)state;
    assert_int_equal(tess_report_write(run_dir), TESS_OK);
    assert_int_equal(run_script("check_report.py", run_path("report.html")), 0);
    static const char lines[] = "{\"step\":7,\"time\":1,\"train/loss\":5}\nnot json\n[]\n"
                                "{\"step\":-1}\n{\"step\":8,\"train/loss\":\"x\",\"a/b\":1e308}\n"
                                "{\"step\":9,\"a/b\":-1e308,\"c/d\":1e17}\n"
                                "{\"step\":9,\"a/b\":1e299,\"c/d\":1.00000000000000016e17}\n"
                                "{\"step\":9007199254740993,\"a/b\":-1e299}\n{\"step\":9";
    assert_int_equal(tess_file_write(run_path("metrics.jsonl"), lines, sizeof(lines) - 1), TESS_OK);
    assert_int_equal(tess_report_write(run_dir), TESS_OK);
    char *text = slurp(run_path("report.html"), NULL);
    assert_non_null(strstr(text, "5 records; 4 lines could not be read"));
    tess_free(text);
    assert_int_equal(run_script("check_report.py", run_path("report.html")), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, run_dir_make, run_dir_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(thins_a_series),  TEST(steps_that_repeat_or_go_back),
        TEST(formats_numbers), TEST(finds_languages),
        TEST(whole_report),    TEST(report_of_little),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
