/* SPDX-License-Identifier: Apache-2.0 */
/* The progress line, log lines and durations. */
#include "cli/log_sink.h"
#include "cli/progress.h"

#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

static void formats_the_bar(void **state)
{
    (void)state;
    static const struct {
        int64_t n_done, total;
        double rate, elapsed_s;
        int width;
        const char *note, *expected;
    } cases[] = {
        {84, 200, 8.1, 10, 66, "",
         "train  42%|#########              | 84/200 [00:10<00:14, 8.1img/s]"},
        {0, 200, 0, 0, 60, "", "train   0%|                        | 0/200 [00:00<?, ?img/s]"},
        {200, 200, 1234, 60, 60, "",
         "train 100%|###############| 200/200 [01:00<00:00, 1234img/s]"},
        {84, 200, 8.1, 10, 0, "loss 2.31", "train  42% 84/200 [00:10<00:14, 8.1img/s] loss 2.31"},
        {84, 0, 0.25, 4000, 0, "", "train 84img [1:06:40, 4.0s/img]"},
        {300, 200, 8.1, 10, 40, "", "train 100% 300/200 [00:10<?, 8.1img/s]"},
        {84, 200, 8.1, 10, 20, "", "train  42% 84/200 [0"},
        {1, 2, 1, 1, 31, "\u00e4\u00e4\u00e4", "train  50% 1/2 [00:01<00:01, 1."},
    };
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        cli_progress p = {.label = "train", .unit = "img", .total = cases[i].total};
        tess_buf out = {0};
        p.n_done = cases[i].n_done;
        p.rate = cases[i].rate;
        snprintf(p.note, sizeof(p.note), "%s", cases[i].note);
        cli_progress_format(&p, cases[i].elapsed_s, cases[i].width, &out);
        if (strchr(cases[i].expected, '|') != NULL) {
            assert_true(cli_columns(out.data, out.n_bytes) <= cases[i].width);
        } else {
            assert_string_equal(out.data, cases[i].expected);
        }
        if (strcmp(out.data, cases[i].expected) != 0) {
            fail_msg("expected '%s', found '%s'", cases[i].expected, out.data);
        }
        tess_buf_deinit(&out);
    }
}

static void formats_durations(void **state)
{
    (void)state;
    char out[32];
    assert_string_equal(cli_duration(0, out), "00:00");
    assert_string_equal(cli_duration(59.6, out), "01:00");
    assert_string_equal(cli_duration(3661, out), "1:01:01");
    assert_string_equal(cli_duration(-1, out), "?");
    assert_string_equal(cli_duration(1e12, out), "?");
}

static struct {
    int n_lines;
    char last[256];
} logged;

static void count_line(void *ctx, tess_log_level level, const char *line)
{
    (void)ctx;
    (void)level;
    logged.n_lines++;
    snprintf(logged.last, sizeof(logged.last), "%s", line);
}

static void logs_without_a_terminal(void **state)
{
    (void)state;
    const cli_term no_terminal = {.width = 80};
    cli_progress p = {
        .label = "embed", .unit = "img", .total = 100, .log_every_s = 60, .term = no_terminal};
    tess_log_set_sink(count_line, NULL, TESS_LOG_INFO);
    cli_progress_end(&p);
    assert_int_equal(logged.n_lines, 0); /* it never began */
    cli_progress_begin(&p, 0);
    cli_progress_update(&p, 1, "x");
    assert_int_equal(logged.n_lines, 0);
    p.log_every_s = 0.02; /* now, so that a busy machine's delay before is no line */
    for (double end = tess_seconds() + 0.05; tess_seconds() < end;) {
        cli_progress_update(&p, 50, NULL);
    }
    assert_in_range(logged.n_lines, 1, 3);
    int before = logged.n_lines;
    p.n_done = 100;
    cli_progress_end(&p);
    assert_int_equal(logged.n_lines, before + 1);
    assert_non_null(strstr(logged.last, "embed 100% 100/100 ["));
    tess_log_set_sink(NULL, NULL, TESS_LOG_INFO);

    logged.n_lines = 0;
    p.quiet = true;
    cli_progress_begin(&p, 0);
    cli_progress_end(&p);
    assert_int_equal(logged.n_lines, 0);
}

/* A smaller count or another total is another piece of work: the one before ends with a line. */
static void test_one_piece_after_another(void **state)
{
    (void)state;
    static const int64_t calls[][3] = {/* done, total, lines so far */
                                       {1, 4, 0},
                                       {4, 4, 0},
                                       {1, 4, 1},
                                       {4, 4, 1},
                                       {5, 9, 2}};
    cli_progress p = {.label = "embed", .unit = "img", .log_every_s = 60, .term = {.width = 80}};
    logged.n_lines = 0;
    tess_log_set_sink(count_line, NULL, TESS_LOG_INFO);
    for (int64_t i = 0; i < TESS_COUNT(calls); i++) {
        cli_progress_follow(&p, calls[i][0], calls[i][1]);
        assert_int_equal(logged.n_lines, calls[i][2]);
    }
    assert_non_null(strstr(logged.last, "embed 100% 4/4 ["));
    cli_progress_end(&p);
    tess_log_set_sink(NULL, NULL, TESS_LOG_INFO);
    assert_non_null(strstr(logged.last, "5/9 ["));
}

static void formats_log_lines(void **state)
{
    (void)state;
    static const struct {
        bool json, color;
        tess_log_level level;
        const char *line, *expected;
    } cases[] = {
        {false, false, TESS_LOG_INFO, "hello", "hello\n"},
        {false, false, TESS_LOG_WARN, "hello", "warning: hello\n"},
        {false, true, TESS_LOG_WARN, "hello", "\033[33mwarning: \033[0mhello\n"},
        {false, true, TESS_LOG_DEBUG, "hello", "\033[2mhello\033[0m\n"},
        {true, true, TESS_LOG_ERROR, "a \"b\"\n",
         "{\"time\":1.5,\"level\":\"error\",\"message\":\"a \\\"b\\\"\\n\"}\n"},
    };
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        tess_buf out = {0};
        cli_log_format(&out, cases[i].json, (cli_term){.width = 80, .color = cases[i].color},
                       cases[i].level, cases[i].line, 1.5);
        assert_string_equal(out.data, cases[i].expected);
        tess_buf_deinit(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_the_bar),
        cmocka_unit_test(formats_durations),
        cmocka_unit_test(logs_without_a_terminal),
        cmocka_unit_test(formats_log_lines),
        cmocka_unit_test(test_one_piece_after_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
