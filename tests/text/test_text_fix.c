/* SPDX-License-Identifier: Apache-2.0 */
/* OpenCLIP's cleaning of texts that ftfy changes, against what OpenCLIP and ftfy 6.3 make of them
 * (tests/fixtures/text/make_ftfy.py); and that no text keeps it busy. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "text/fixture.h"
#include "text/pipe.h"

static void clean(tess__pipe_scratch *s, const char *text, size_t n)
{
    s->in.n_bytes = 0;
    assert_int_equal(tess__span_put(&s->in, text, n), TESS_OK);
    assert_int_equal(tess__clip_clean_run(TESS_CLIP_CLEAN_WHITESPACE, s), TESS_OK);
}

static void as_ftfy(void **state)
{
    (void)state;
    fixture_lines lines = fixture_read_lines("ftfy.txt");
    tess__pipe_scratch s = {0};
    int n_bad = 0;
    assert_true(lines.n >= 900 && lines.n % 2 == 0);
    for (size_t i = 0; i < lines.n; i += 2) {
        const tess_buf *in = &lines.lines[i], *want = &lines.lines[i + 1];
        clean(&s, in->n_bytes > 0 ? in->data : "", in->n_bytes);
        if (s.in.n_bytes != want->n_bytes ||
            (want->n_bytes > 0 && memcmp(s.in.data, want->data, want->n_bytes) != 0)) {
            print_error("line %zu: \"%.*s\" instead of \"%s\"\n", i + 1, (int)s.in.n_bytes,
                        s.in.data, want->n_bytes > 0 ? want->data : "");
            n_bad++;
        }
    }
    assert_int_equal(n_bad, 0);
    tess__pipe_scratch_deinit(&s);
    fixture_free_lines(&lines);
}

/* A reference in a reference in a reference ..., each of which would take a round. */
static void bounded(void **state)
{
    (void)state;
    enum { DEPTH = 200000 };
    tess__pipe_scratch s = {0};
    tess_buf text = {0};
    tess_buf_adds(&text, "&");
    for (int i = 0; i < DEPTH; i++) {
        tess_buf_adds(&text, "amp;");
    }
    double begin = tess_seconds();
    clean(&s, text.data, text.n_bytes);
    assert_true(s.in.n_bytes > DEPTH);
    assert_true(tess_seconds() - begin < 5);
    tess_buf_deinit(&text);
    tess__pipe_scratch_deinit(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_ftfy), cmocka_unit_test(bounded)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
