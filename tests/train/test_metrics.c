/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics of a run directory: what is written, and what is left after going on from a step. */
#include "run_dir.h"

#include <math.h>

/* Steps of a JSONL file as "1 2 3 ", and every line must parse. */
static const char *steps_of(const char *name)
{
    static char out[4096];
    size_t n, used = 0;
    char *text = slurp(run_path(name), &n);
    out[0] = '\0';
    for (char *line = text; line < text + n;) {
        char *end = memchr(line, '\n', (size_t)(text + n - line));
        assert_non_null(end);
        tess_json_doc *doc;
        assert_int_equal(tess_json_parse(line, (size_t)(end - line), name, &doc), TESS_OK);
        int64_t step = tess_json_int(tess_json_get(tess_json_root(doc), "step"), -1);
        used += (size_t)snprintf(out + used, sizeof(out) - used, "%lld ", (long long)step);
        tess_json_free(doc);
        line = end + 1;
    }
    tess_free(text);
    return out;
}

static void writes_records(void **state)
{
    (void)state;
    tess_metrics *m = open_metrics(false, 0);
    add_point(m, 1, 4.25);
    add_point(m, 2, NAN);
    const tess_scalar result[] = {{"val/text_to_image_R@1", 0.5},
                                  {"val/text_to_image_R@10/de", 0.75}};
    assert_int_equal(tess_metrics_add_result(m, 2, 0, result, 2), TESS_OK);
    assert_int_equal(tess_metrics_sync(m), TESS_OK);
    tess_metrics_close(m);

    char *text = slurp(run_path("metrics.jsonl"), NULL);
    assert_non_null(strstr(text, "{\"step\":1,\"epoch\":0,\"time\":"));
    assert_non_null(strstr(text, "\"train/loss\":4.25,\"train/lr\":0.0005,"));
    assert_non_null(strstr(text, "\"train/samples_per_second_per_gpu\":320"));
    assert_non_null(strstr(text, "\"train/contrastive_loss\":2.125}\n"));
    assert_non_null(strstr(text, "\"train/loss\":null"));
    tess_free(text);
    assert_string_equal(steps_of("metrics.jsonl"), "1 2 ");
    assert_string_equal(steps_of("checkpoints/results.jsonl"), "2 ");
}

static void writes_openclip_lines(void **state)
{
    (void)state;
    tess_metrics *m = open_metrics(false, 0);
    add_point(m, 150, 4.25);
    assert_int_equal(tess_metrics_log(m, TESS_LOG_WARN, "skipped %d", 3), TESS_OK);
    tess_metrics_close(m);
    char *text = slurp(run_path("out.log"), NULL);
    assert_non_null(strstr(text, " | INFO | Train Epoch: 1 [3200/6400 (50%)] Data (t): 0.002 "
                                 "Batch (t): 0.100, 640.000/s, 320.000/s/gpu LR: 0.000500 "
                                 "Logit Scale: 14.300 Loss: 4.2500 (4.3500)\n"));
    assert_non_null(strstr(text, " | WARNING | skipped 3\n"));
    tess_free(text);
}

static void refuses_a_used_directory(void **state)
{
    (void)state;
    tess_metrics *m = open_metrics(false, 0);
    tess_metrics_close(m);
    const tess_metrics_options options = {.dir = run_dir};
    assert_int_equal(tess_metrics_open(&options, &m), TESS_INVALID);
    assert_non_null(strstr(tess_error(), "--resume latest"));
    assert_null(m);
}

static void resumes_without_duplicates(void **state)
{
    (void)state;
    tess_metrics *m = open_metrics(false, 0);
    const tess_scalar result[] = {{"val/clip_val_loss", 1}};
    for (int64_t step = 1; step <= 9; step++) {
        add_point(m, step, 1);
        if (step % 3 == 0) {
            assert_int_equal(tess_metrics_add_result(m, step, 0, result, 1), TESS_OK);
        }
    }
    tess_metrics_close(m);
    m = open_metrics(true, 5);
    for (int64_t step = 6; step <= 7; step++) {
        add_point(m, step, 2);
    }
    assert_int_equal(tess_metrics_add_result(m, 7, 0, result, 1), TESS_OK);
    tess_metrics_close(m);
    assert_string_equal(steps_of("metrics.jsonl"), "1 2 3 4 5 6 7 ");
    assert_string_equal(steps_of("checkpoints/results.jsonl"), "3 7 ");

    tess_names events = {0};
    assert_int_equal(tess_dir_list(run_path("tensorboard"), false, &events), TESS_OK);
    assert_int_equal(events.n_names, 1);
    tess_names_deinit(&events);
    assert_int_equal(run_script("check_tfevents.py", run_path("tensorboard")), 0);
}

static void cuts_a_torn_tail(void **state)
{
    (void)state;
    tess_metrics *m = open_metrics(false, 0);
    add_point(m, 1, 1);
    add_point(m, 2, 1);
    tess_metrics_close(m);
    tess_appender *a;
    assert_int_equal(tess_appender_open(run_path("metrics.jsonl"), -1, &a), TESS_OK);
    assert_int_equal(tess_appender_write(a, "{\"step\":3,\"tra", 14), TESS_OK);
    tess_appender_close(a);
    m = open_metrics(true, 1000);
    add_point(m, 3, 1);
    tess_metrics_close(m);
    assert_string_equal(steps_of("metrics.jsonl"), "1 2 3 ");
}

static void resumes_from_nothing(void **state)
{
    (void)state;
    tess_metrics *m = open_metrics(true, 0);
    add_point(m, 1, 1);
    tess_metrics_close(m);
    assert_string_equal(steps_of("metrics.jsonl"), "1 ");
}

static void writes_params(void **state)
{
    (void)state;
    static const char json[] = "{\"model\":\"vit\",\"batch_size\":64,\"train_data\":[\"a\",\"b\"],"
                               "\"lr\":null}";
    tess_json_doc *doc;
    tess_metrics *m = open_metrics(false, 0);
    assert_int_equal(tess_json_parse(json, sizeof(json) - 1, "test", &doc), TESS_OK);
    assert_int_equal(tess_metrics_write_params(m, tess_json_root(doc)), TESS_OK);
    tess_json_free(doc);
    tess_metrics_close(m);
    char *text = slurp(run_path("params.txt"), NULL);
    assert_string_equal(text, "batch_size: 64\nlr: null\nmodel: vit\ntrain_data: [\"a\",\"b\"]\n");
    tess_free(text);
}

/* Every allocation and write of one short run fails in turn: an error, or a run that worked. */
static void survives_faults(void **state)
{
    (void)state;
    static const tess_fault kinds[] = {TESS_FAULT_ALLOC, TESS_FAULT_WRITE};
    for (int64_t k = 0; k < TESS_COUNT(kinds); k++) {
        bool done = false;
        for (int64_t nth = 1; nth < 500 && !done; nth++) {
            assert_int_equal(tess_dir_remove(run_dir), TESS_OK);
            tess_fault_set(kinds[k], nth, false);
            tess_metrics *m = NULL;
            const tess_metrics_options options = {.dir = run_dir};
            const tess_train_point p = {.step = 1};
            tess_status st = tess_metrics_open(&options, &m);
            st = st == TESS_OK ? tess_metrics_add_train(m, &p, NULL, 0) : st;
            tess_metrics_close(m);
            st = st == TESS_OK ? tess_report_write(run_dir) : st;
            done = tess_fault_count(kinds[k]) < nth;
            tess_fault_set(kinds[k], 0, false);
            assert_true(st != TESS_OK || done || kinds[k] == TESS_FAULT_ALLOC);
        }
        assert_true(done);
    }
    assert_int_equal(tess_dir_make(run_dir), TESS_OK);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, run_dir_make, run_dir_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(writes_records),
        TEST(writes_openclip_lines),
        TEST(refuses_a_used_directory),
        TEST(resumes_without_duplicates),
        TEST(cuts_a_torn_tail),
        TEST(resumes_from_nothing),
        TEST(writes_params),
        TEST(survives_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
