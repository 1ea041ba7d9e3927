/* SPDX-License-Identifier: Apache-2.0 */
/* Cutting many texts into runs: every text in exactly one, none too large, and hardly any room left
 * where there are short texts to fill it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fusion/text_runs.h"
#include "fusion_fixture.h"

enum { N = 1000, LONGEST = 256, ROWS = 576, MOST = 512 };

static void test_each_text_once_and_runs_full(void **state)
{
    (void)state;
    static int64_t offsets[N + 1], texts[MOST];
    static int seen[N];
    tess_rng r = tess_rng_at(3, 0);
    for (int i = 0; i < N; i++) { /* mostly short, some at the limit */
        const double u = tess_rng_unit(&r);
        offsets[i + 1] = offsets[i] + 3 + (int64_t)(u * u * (LONGEST - 3 + 0.99));
    }
    tess__text_runs runs;
    ok(tess__text_runs_init(offsets, N, LONGEST, &runs));
    int64_t n, n_runs = 0, n_texts = 0;
    while ((n = tess__text_runs_next(&runs, ROWS, MOST, texts)) > 0) {
        int64_t rows = 0;
        for (int64_t i = 0; i < n; i++) {
            assert_int_equal(seen[texts[i]]++, 0);
            rows += offsets[texts[i] + 1] - offsets[texts[i]];
        }
        assert_true(rows <= ROWS);
        n_texts += n;
        n_runs++;
    }
    tess__text_runs_deinit(&runs);
    assert_int_equal(n_texts, N);
    const int64_t least = (offsets[N] + ROWS - 1) / ROWS;
    assert_true(n_runs <= least + 1);
}

static void test_limits(void **state)
{
    (void)state;
    const int64_t offsets[] = {0, 9, 10, 11, 12}; /* one that is longer than a run */
    int64_t texts[4];
    tess__text_runs runs;
    ok(tess__text_runs_init(offsets, 4, 9, &runs));
    assert_int_equal(tess__text_runs_next(&runs, 4, 2, texts), 1);
    assert_int_equal(texts[0], 0);
    assert_int_equal(tess__text_runs_next(&runs, 4, 2, texts), 2); /* two texts at most */
    assert_int_equal(texts[0], 1);
    assert_int_equal(texts[1], 2);
    assert_int_equal(tess__text_runs_next(&runs, 4, 2, texts), 1);
    assert_int_equal(tess__text_runs_next(&runs, 4, 2, texts), 0);
    tess__text_runs_deinit(&runs);
    ok(tess__text_runs_init(offsets, 0, 9, &runs));
    assert_int_equal(tess__text_runs_next(&runs, 4, 2, texts), 0);
    tess__text_runs_deinit(&runs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_text_once_and_runs_full),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
