/* SPDX-License-Identifier: Apache-2.0 */
/* The CSV reader against Python's csv module. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "train/csv.h"

#define FIXTURES "tests/fixtures/train/csv/"

/* All rows in the notation of rows.txt. */
static void list_rows(const char *name, tess_buf *out)
{
    char path[200];
    uint8_t *data;
    bool is_end, ok;
    tess__csv c = {.separator = strstr(name, ".tsv") ? '\t' : ','};
    snprintf(path, sizeof path, FIXTURES "%s", name);
    assert_int_equal(tess_file_read(path, 1 << 20, &data, &c.map.n_bytes), TESS_OK);
    c.map.data = data;
    tess_buf_addf(out, "%s\n", name);
    for (;;) {
        assert_int_equal(tess__csv_next(&c, &is_end, &ok), TESS_OK);
        if (is_end) {
            break;
        }
        assert_true(ok);
        tess_buf_adds(out, "  ");
        for (size_t i = 0; i < c.n_fields; i++) {
            size_t n;
            const char *field = tess__csv_field(&c, i, &n);
            tess_buf_adds(out, i > 0 ? "," : "");
            for (size_t k = 0; k < n; k++) {
                tess_buf_addf(out, "%02x", (unsigned char)field[k]);
            }
        }
        tess_buf_adds(out, "\n");
    }
    tess__csv_deinit(&c);
    tess_free(data);
}

static void test_rows_as_python_reads_them(void **state)
{
    static const char *const names[] = {"plain.csv", "quotes.csv", "ends.csv",
                                        "tabs.tsv",  "fields.csv", "bytes.csv"};
    uint8_t *want;
    size_t n_bytes;
    tess_buf have = {0};
    (void)state;
    assert_int_equal(tess_file_read(FIXTURES "rows.txt", 1 << 20, &want, &n_bytes), TESS_OK);
    for (int64_t i = 0; i < TESS_COUNT(names); i++) {
        list_rows(names[i], &have);
    }
    assert_string_equal(have.data, (const char *)want);
    tess_buf_deinit(&have);
    tess_free(want);
}

static int count_rows(const char *text, size_t n_bytes, int *out_bad)
{
    tess__csv c = {.map = {(const uint8_t *)text, n_bytes}, .separator = ','};
    bool is_end = false, ok;
    int n = 0;
    *out_bad = 0;
    while (tess__csv_next(&c, &is_end, &ok) == TESS_OK && !is_end) {
        n += ok;
        *out_bad += !ok;
    }
    assert_true(is_end);
    tess__csv_deinit(&c);
    return n;
}

static void test_open_quote_costs_one_line(void **state)
{
    static const char text[] = "a,b\nc,\"open\nd,e\nf,g\n";
    int n_bad;
    (void)state;
    assert_int_equal(count_rows(text, sizeof text - 1, &n_bad), 3);
    assert_int_equal(n_bad, 1);
}

static void test_endless_row_is_passed_over(void **state)
{
    size_t n = 3 << 20;
    char *text = tess_alloc(n + 4);
    int n_bad;
    (void)state;
    memset(text, 'x', n);
    memcpy(text + n, "\na,b", 4);
    assert_int_equal(count_rows(text, n + 4, &n_bad), 1);
    assert_int_equal(n_bad, 1);
    tess_free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_as_python_reads_them),
        cmocka_unit_test(test_open_quote_costs_one_line),
        cmocka_unit_test(test_endless_row_is_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
