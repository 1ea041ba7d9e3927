/* SPDX-License-Identifier: Apache-2.0 */
/* The exact search on the emulated card: the k best of all f32 scores, bit for bit, whatever way
 * they were found; and beside FAISS's flat index. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/emulate_control.h"
#include "index/vectors.h"
#include "tensor/nearest.h"

#define assert_ok(expr) assert_int_equal((expr), TESS_OK)

static const tess_device *card(void)
{
    const tess_device *d;
    assert_ok(tess_device_cuda(&d));
    return d;
}

/* ---- what must be found -----------------------------------------------------------------------
 */

/* The score that the card gives: 32 sums, then those in pairs. */
static float score_of(const float *q, const float *x, int64_t dim)
{
    float sum[32] = {0};
    for (int64_t j = 0; j < dim; j++) {
        sum[j % 32] = fmaf(q[j], x[j], sum[j % 32]);
    }
    for (int half = 16; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) {
            sum[i] += sum[i + half];
        }
    }
    return sum[0];
}

static int compare(const void *pa, const void *pb)
{
    const tess__near_hit *a = pa, *b = pb;
    if (a->score != b->score) {
        return a->score > b->score ? -1 : 1;
    }
    return (a->row > b->row) - (a->row < b->row);
}

static int64_t brute_force(const float *q, const float *x, int64_t n, int64_t dim,
                           tess__near_hit *all)
{
    int64_t found = 0;
    for (int64_t i = 0; i < n; i++) {
        const float score = score_of(q, x + i * dim, dim);
        if (isfinite(score)) {
            all[found++] = (tess__near_hit){i, score};
        }
    }
    qsort(all, (size_t)found, sizeof *all, compare);
    return found;
}

/* ---- rows -------------------------------------------------------------------------------------
 */

typedef enum kind {
    UNIT,    /* of random directions */
    COPIES,  /* each row eleven times, far from each other */
    EQUAL,   /* all rows one */
    CLOSE,   /* within bf16's rounding of one row */
    RISING,  /* the first query's scores rise with the row */
    BROKEN,  /* every third row with a NaN, every seventh with an infinity */
    ENORMOUS /* a row whose length is no f32 */
} kind;

static void scale_to_unit(float *x, int64_t dim)
{
    assert_ok(tess__unit_vector(x, dim, x));
}

static float *fill(int64_t n, int64_t dim, uint64_t seed)
{
    float *x = tess_alloc_array((size_t)(n * dim), sizeof *x);
    tess_rng rng = tess_rng_at(seed, 0);
    for (int64_t i = 0; i < n * dim; i++) {
        x[i] = (float)tess_rng_normal(&rng);
    }
    for (int64_t i = 0; i < n; i++) {
        scale_to_unit(x + i * dim, dim);
    }
    return x;
}

static void change(float *x, const float *q, int64_t n, int64_t dim, kind what)
{
    for (int64_t i = 0; i < n; i++) {
        float *row = x + i * dim;
        for (int64_t j = 0; j < dim; j++) {
            row[j] = what == COPIES   ? x[i % ((n + 10) / 11) * dim + j]
                     : what == EQUAL  ? x[j]
                     : what == CLOSE  ? q[j] + 1e-4f * row[j]
                     : what == RISING ? row[j] + (float)i / (float)n * q[j]
                                      : row[j];
        }
        if (what == RISING) {
            scale_to_unit(row, dim);
        }
        if (what == BROKEN && (i % 3 == 0 || i % 7 == 0)) {
            row[i % dim] = i % 3 == 0 ? NAN : i % 2 == 0 ? INFINITY : -INFINITY;
        }
        if (what == ENORMOUS && i == n / 2) {
            row[0] = 3.4e38f; /* rounded to bf16: infinite */
        }
    }
}

/* ---- a search ---------------------------------------------------------------------------------
 */

typedef struct search_case {
    int64_t n, dim, n_queries, k, capacity;
    kind what;
    bool is_full; /* expect that some query took the scores of all rows */
    emulate_order order;
} search_case;

static void check_hits(const tess__near_hit *hits, int64_t n_hits, const tess__near_hit *wanted,
                       int64_t n_wanted)
{
    assert_int_equal(n_hits, n_wanted);
    for (int64_t i = 0; i < n_hits; i++) {
        assert_int_equal(hits[i].row, wanted[i].row);
        assert_true(hits[i].score == wanted[i].score);
    }
}

static tess__nearest *add_all(const float *x, int64_t n, int64_t dim, int64_t capacity)
{
    tess__nearest *s;
    assert_ok(tess__nearest_new(card(), n, dim, capacity, &s));
    assert_ok(tess__nearest_add(s, x, n / 3));
    assert_ok(tess__nearest_add(s, x + n / 3 * dim, n - n / 3));
    return s;
}

static void check(const search_case *c)
{
    float *x = fill(c->n, c->dim, 1), *q = fill(c->n_queries, c->dim, 2);
    tess__near_hit *hits = tess_alloc_array((size_t)(c->n_queries * c->k), sizeof *hits);
    tess__near_hit *wanted = tess_alloc_array((size_t)c->n, sizeof *wanted);
    int64_t *n_hits = tess_alloc_array((size_t)c->n_queries, sizeof *n_hits);
    change(x, q, c->n, c->dim, c->what);
    emulate_set_order(c->order);
    tess__nearest *s = add_all(x, c->n, c->dim, c->capacity);
    assert_ok(tess__nearest_search(s, q, c->n_queries, c->k, hits, n_hits));
    emulate_set_order(EMULATE_FORWARD);
    for (int64_t i = 0; i < c->n_queries; i++) {
        const int64_t n = brute_force(q + i * c->dim, x, c->n, c->dim, wanted);
        check_hits(hits + i * c->k, n_hits[i], wanted, n < c->k ? n : c->k);
    }
    assert_int_equal(tess__nearest_n_full(s) > 0, c->is_full);
    tess__nearest_free(s);
    tess_free(x);
    tess_free(q);
    tess_free(hits);
    tess_free(wanted);
    tess_free(n_hits);
}

/* One pass and several; the kernels for one, few and many queries; k beyond N; widths and counts
 * that fill no tile. */
static void test_shapes(void **state)
{
    (void)state;
    static const search_case cases[] = {
        {.n = 1, .dim = 1, .n_queries = 1, .k = 3},
        {.n = 127, .dim = 17, .n_queries = 1, .k = 200},
        {.n = 129, .dim = 100, .n_queries = 2, .k = 1},
        {.n = 2000, .dim = 48, .n_queries = 1, .k = 10, .capacity = 256},
        {.n = 2000, .dim = 48, .n_queries = 8, .k = 10, .capacity = 384},
        {.n = 2000, .dim = 33, .n_queries = 9, .k = 5, .capacity = 384, .order = EMULATE_SHUFFLED},
        {.n = 700, .dim = 64, .n_queries = 130, .k = 3, .capacity = 256, .order = EMULATE_BACKWARD},
        {.n = 1500, .dim = 20, .n_queries = 3, .k = 300, .capacity = 1024},
        {.n = 300, .dim = 1600, .n_queries = 2, .k = 4}, /* too wide for the kernel for a few */
    };
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        check(&cases[i]);
    }
}

/* Rows that rounding cannot tell from each other, scores that are equal, numbers that are none. */
static void test_rows_that_do_not_separate(void **state)
{
    (void)state;
    static const search_case cases[] = {
        {.n = 900, .dim = 40, .n_queries = 3, .k = 25, .what = COPIES},
        {.n = 1500, .dim = 40, .n_queries = 3, .k = 5, .capacity = 256, .what = COPIES},
        {.n = 900, .dim = 24, .n_queries = 2, .k = 7, .what = EQUAL},
        {900, 24, 2, 7, 256, EQUAL, true, EMULATE_SHUFFLED},
        {900, 24, 10, 130, 256, EQUAL, true, EMULATE_FORWARD},
        {.n = 1000, .dim = 70, .n_queries = 1, .k = 12, .what = CLOSE},
        {1000, 70, 3, 12, 256, CLOSE, true, EMULATE_BACKWARD},
        {.n = 3000, .dim = 40, .n_queries = 2, .k = 4, .capacity = 512, .what = RISING},
        {.n = 1000, .dim = 40, .n_queries = 2, .k = 4, .capacity = 256, .what = BROKEN},
        {.n = 200, .dim = 40, .n_queries = 9, .k = 190, .what = BROKEN},
        {600, 40, 2, 4, 256, ENORMOUS, true, EMULATE_FORWARD},
        {600, 40, 2, 4, 0, ENORMOUS, true, EMULATE_FORWARD},
    };
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        check(&cases[i]);
    }
}

/* A query has the same answer alone, in a batch, and once more. */
static void test_batches_agree(void **state)
{
    (void)state;
    enum { N = 1000, DIM = 48, Q = 12, K = 6 };
    float *x = fill(N, DIM, 3), *q = fill(Q, DIM, 4);
    tess__near_hit all[Q * K], again[Q * K];
    int64_t n_all[Q], n_again[Q];
    tess__nearest *s = add_all(x, N, DIM, 384);
    assert_ok(tess__nearest_search(s, q, Q, K, all, n_all));
    for (int64_t i = 0; i < Q; i++) {
        assert_ok(tess__nearest_search(s, q + i * DIM, 1, K, again, n_again));
        check_hits(again, n_again[0], all + i * K, n_all[i]);
    }
    emulate_set_order(EMULATE_SHUFFLED);
    assert_ok(tess__nearest_search(s, q, Q, K, again, n_again));
    emulate_set_order(EMULATE_FORWARD);
    for (int64_t i = 0; i < Q; i++) {
        check_hits(again + i * K, n_again[i], all + i * K, n_all[i]);
    }
    tess__nearest_free(s);
    tess_free(x);
    tess_free(q);
}

/* Rounding takes 2^-8 of every number of row 5, the best, and adds to all others what it can: by
 * rounded scores it is six eighths of the margin below them. */
static void test_margin_is_needed(void **state)
{
    (void)state;
    enum { N = 600, DIM = 64 };
    float q[DIM], *x = tess_alloc_array(N * DIM, sizeof *x);
    tess__near_hit hit = {0};
    int64_t n_hits = 0;
    for (int64_t j = 0; j < DIM; j++) {
        q[j] = 0.125f;
        for (int64_t i = 0; i < N; i++) {
            x[i * DIM + j] = i == 5       ? 1 + 0x1p-8f
                             : j % 2 == 0 ? 1 + 3 * 0x1p-8f
                                          : 1 - 3 * 0x1p-9f + 0x1p-20f;
        }
    }
    tess__nearest *s = add_all(x, N, DIM, 0);
    assert_ok(tess__nearest_search(s, q, 1, 1, &hit, &n_hits));
    assert_int_equal(n_hits, 1);
    assert_int_equal(hit.row, 5);
    tess__nearest_free(s);
    tess_free(x);
}

static void test_faiss_agrees(void **state)
{
    (void)state;
    enum { N = 1500, DIM = 52, Q = 20, K = 8 };
    float *x = fill(N, DIM, 5), *q = fill(Q, DIM, 6);
    tess__near_hit hits[Q * K];
    tess_hit theirs[Q * K];
    int64_t n_hits[Q], n_theirs[Q];
    tess__vectors *v;
    tess__nearest *s = add_all(x, N, DIM, 512);
    assert_ok(tess__vectors_build("Flat", x, N, DIM, 1, &v));
    assert_ok(tess__nearest_search(s, q, Q, K, hits, n_hits));
    assert_ok(tess__vectors_search(v, q, Q, K, theirs, n_theirs));
    for (int64_t i = 0; i < Q * K; i++) {
        assert_int_equal(n_hits[i / K], n_theirs[i / K]);
        assert_int_equal(hits[i].row, theirs[i].row);
        assert_true(fabsf(hits[i].score - theirs[i].score) <= 4 * 6e-8f * sqrtf(DIM));
    }
    assert_int_equal(tess__nearest_n_full(s), 0);
    tess__vectors_free(v);
    tess__nearest_free(s);
    tess_free(x);
    tess_free(q);
}

static void test_refusals(void **state)
{
    (void)state;
    float x[8] = {1};
    tess__near_hit hit;
    int64_t n;
    tess__nearest *s;
    assert_int_equal(tess__nearest_new(tess_device_cpu(), 2, 4, 0, &s), TESS_UNSUPPORTED);
    assert_null(s);
    assert_int_equal(tess__nearest_new(card(), (int64_t)1 << 31, 4, 0, &s), TESS_UNSUPPORTED);
    assert_int_equal(tess__nearest_new(card(), (int64_t)1 << 30, 4096, 0, &s), TESS_NOMEM);
    assert_non_null(strstr(tess_error(), "no room for 1073741824 vectors of 4096 numbers"));
    emulate_reset();
    assert_ok(tess__nearest_new(card(), 2, 4, 0, &s));
    assert_ok(tess__nearest_add(s, x, 1));
    assert_int_equal(tess__nearest_search(s, x, 1, 1, &hit, &n), TESS_INVALID);
    assert_non_null(strstr(tess_error(), "2 vectors"));
    assert_int_equal(tess__nearest_add(s, x, 2), TESS_INVALID);
    assert_ok(tess__nearest_add(s, x, 1));
    assert_int_equal(tess__nearest_search(s, x, 1, 0, &hit, &n), TESS_INVALID);
    assert_int_equal(tess__nearest_search(s, x, 0, 1, &hit, &n), TESS_INVALID);
    tess__nearest_free(s);
    tess__nearest_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),        cmocka_unit_test(test_rows_that_do_not_separate),
        cmocka_unit_test(test_batches_agree), cmocka_unit_test(test_margin_is_needed),
        cmocka_unit_test(test_faiss_agrees),  cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
