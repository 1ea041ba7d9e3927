/* SPDX-License-Identifier: Apache-2.0 */
/* An index on disk whose vectors are searched on the card. */
#include "index/index_fixture.h"

#include <math.h>

#include "tessera/fusion.h"

enum { N = 300, DIM = 24, Q = 3, K = 5 };

typedef struct world {
    char *dir, *path;
    float *x, *q;
    tess_index *ix;
} world;

static void begin(world *w, const char *factory, int64_t n)
{
    w->dir = temp_dir();
    w->path = tess_format("%s/ix", w->dir);
    w->x = random_vectors(n, DIM, 1);
    w->q = random_vectors(Q, DIM, 2);
    assert_ok(build_index(w->path, w->x, n, DIM, factory, false));
    assert_ok(tess_index_open(w->path, FINGERPRINT, &w->ix));
}

static void end(world *w)
{
    tess_index_close(w->ix);
    tess_free(w->x);
    tess_free(w->q);
    tess_free(w->path);
    remove_temp(w->dir);
}

static const tess_device *card(void)
{
    const tess_device *d;
    assert_ok(tess_device_cuda(&d));
    return d;
}

static void test_card_answers_as_the_processor(void **state)
{
    (void)state;
    world w;
    tess_hit hits[Q * K], theirs[Q * K];
    int64_t n_hits[Q], n_theirs[Q];
    begin(&w, "Flat", N);
    assert_ok(tess_index_search(w.ix, w.q, Q, K, theirs, n_theirs));
    assert_ok(tess_index_use(w.ix, card()));
    assert_ok(tess_index_search(w.ix, w.q, Q, K, hits, n_hits));
    for (int i = 0; i < Q * K; i++) {
        assert_int_equal(n_hits[i / K], K);
        assert_int_equal(hits[i].row, theirs[i].row);
        assert_true(fabsf(hits[i].score - theirs[i].score) <= 4 * 6e-8f * sqrtf(DIM));
    }
    tess_hit all[2 * N];
    assert_ok(tess_index_search(w.ix, w.q, 1, 2 * N, all, n_hits));
    assert_int_equal(n_hits[0], N);
    assert_refused(tess_index_search(w.ix, w.q, 1, 0, hits, n_hits), TESS_INVALID, "k is 0");
    assert_ok(tess_index_use(w.ix, tess_device_cpu()));
    assert_ok(tess_index_search(w.ix, w.q, Q, K, hits, n_hits));
    for (int i = 0; i < Q * K; i++) {
        assert_true(hits[i].row == theirs[i].row && hits[i].score == theirs[i].score);
    }
    end(&w);
}

static void test_vectors_come_back(void **state)
{
    (void)state;
    world w;
    float out[3 * DIM];
    begin(&w, "Flat", N);
    assert_true(tess_index_is_flat(w.ix));
    assert_ok(tess_index_vectors(w.ix, N - 3, 3, out));
    for (int64_t i = 0; i < 3; i++) {
        const float *x = w.x + (N - 3 + i) * DIM;
        for (int64_t j = 0; j < DIM; j++) {
            assert_true(fabsf(out[i * DIM + j] / x[j] - out[i * DIM] / x[0]) < 1e-5f);
        }
    }
    assert_refused(tess_index_vectors(w.ix, N - 2, 3, out), TESS_INVALID, "no rows 298 .. 300");
    assert_refused(tess_index_vectors(w.ix, -1, 1, out), TESS_INVALID, "no rows -1");
    end(&w);
}

static void test_other_kinds_stay_with_the_processor(void **state)
{
    (void)state;
    world w;
    tess_hit hits[K];
    int64_t n_hits;
    begin(&w, "HNSW8,Flat", N);
    assert_false(tess_index_is_flat(w.ix));
    assert_refused(tess_index_use(w.ix, card()), TESS_UNSUPPORTED, "an index of kind Flat alone");
    assert_ok(tess_index_search(w.ix, w.q, 1, K, hits, &n_hits));
    assert_int_equal(n_hits, K);
    end(&w);
}

/* ---- a searcher that gives up -----------------------------------------------------------------
 */

static int n_asked, n_freed;

static tess_status give_up(void *ctx, const float *queries, int64_t n_queries, int64_t k,
                           tess_hit *out_hits, int64_t *out_n_hits)
{
    (void)queries, (void)n_queries, (void)k, (void)out_hits, (void)out_n_hits;
    n_asked++;
    return TESS_FAIL(*(tess_status *)ctx, "a full card");
}

static void count_free(void *ctx)
{
    (void)ctx;
    n_freed++;
}

static void test_processor_takes_over(void **state)
{
    (void)state;
    world w;
    tess_hit hits[K];
    int64_t n_hits = 0;
    tess_status why = TESS_NOMEM;
    const tess_index_searcher s = {.search = give_up, .free = count_free, .ctx = &why};
    begin(&w, "Flat", N);
    tess_index_set_searcher(w.ix, &s);
    assert_ok(tess_index_search(w.ix, w.q, 1, K, hits, &n_hits));
    assert_int_equal(n_hits, K);
    why = TESS_DEVICE;
    assert_refused(tess_index_search(w.ix, w.q, 1, K, hits, &n_hits), TESS_DEVICE, "a full card");
    assert_int_equal(n_asked, 2);
    tess_index_set_searcher(w.ix, &s);
    assert_int_equal(n_freed, 1);
    end(&w);
    assert_int_equal(n_freed, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_card_answers_as_the_processor),
        cmocka_unit_test(test_vectors_come_back),
        cmocka_unit_test(test_other_kinds_stay_with_the_processor),
        cmocka_unit_test(test_processor_takes_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
