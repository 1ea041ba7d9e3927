/* SPDX-License-Identifier: Apache-2.0 */
/* Building and searching: what comes out is what brute force says, and rows come back whole. */
#include "index/index_fixture.h"

#include <math.h>
#include <omp.h>
#include <pthread.h>
#include <stdio.h>

#include "index/vectors.h"

/* Cosines in double precision, best first, equal ones by row. */
static void brute_force(const float *x, int64_t n, int64_t dim, const float *q, int64_t k,
                        tess_hit *out)
{
    bool *taken = tess_alloc_array((size_t)n, sizeof(*taken));
    double *scores = tess_alloc_array((size_t)n, sizeof(*scores));
    for (int64_t i = 0; i < n; i++) {
        double dot = 0, xx = 0, qq = 0;
        for (int64_t j = 0; j < dim; j++) {
            dot += (double)x[i * dim + j] * q[j];
            xx += (double)x[i * dim + j] * x[i * dim + j];
            qq += (double)q[j] * q[j];
        }
        scores[i] = dot / sqrt(xx * qq);
    }
    for (int64_t r = 0; r < k; r++) {
        int64_t best = -1;
        for (int64_t i = 0; i < n; i++) {
            best = !taken[i] && (best < 0 || scores[i] > scores[best]) ? i : best;
        }
        taken[best] = true;
        out[r] = (tess_hit){.row = best, .score = (float)scores[best]};
    }
    tess_free(taken);
    tess_free(scores);
}

/* Share of the true k nearest that an index finds; with `exact` also compares order and scores. */
static double recall(const char *factory, int64_t n, int64_t dim, int64_t n_queries, int64_t k,
                     bool exact)
{
    char *dir = temp_dir();
    char *path = tess_format("%s/ix", dir);
    float *x = random_vectors(n, dim, 1), *q = random_vectors(n_queries, dim, 2);
    assert_ok(build_index(path, x, n, dim, factory, false));
    tess_index *ix = NULL;
    assert_ok(tess_index_open(path, FINGERPRINT, &ix));
    tess_hit *hits = tess_alloc_array((size_t)(n_queries * k), sizeof(*hits));
    tess_hit *truth = tess_alloc_array((size_t)k, sizeof(*truth));
    int64_t *n_hits = tess_alloc_array((size_t)n_queries, sizeof(*n_hits));
    assert_ok(tess_index_search(ix, q, n_queries, k, hits, n_hits));
    int64_t found = 0;
    /* Z products of numbers below 1 in f32: rounding grows with the square root of Z. */
    float tolerance = 4 * 6e-8f * sqrtf((float)dim);
    for (int64_t i = 0; i < n_queries; i++) {
        assert_true(n_hits[i] <= k);
        brute_force(x, n, dim, q + i * dim, k, truth);
        for (int64_t r = 0; r < n_hits[i]; r++) {
            tess_hit hit = hits[i * k + r];
            assert_in_range(hit.row, 0, n - 1);
            for (int64_t t = 0; t < k; t++) {
                found += truth[t].row == hit.row;
            }
            if (exact) {
                assert_int_equal(hit.row, truth[r].row);
                assert_true(fabsf(hit.score - truth[r].score) <= tolerance);
            }
        }
    }
    tess_index_close(ix);
    tess_free(hits);
    tess_free(truth);
    tess_free(n_hits);
    tess_free(x);
    tess_free(q);
    tess_free(path);
    remove_temp(dir);
    return (double)found / (double)(n_queries * k);
}

static void test_flat_is_brute_force(void **state)
{
    (void)state;
    assert_true(recall("Flat", 500, 48, 40, 10, true) == 1.0);
    assert_true(recall("auto", 1500, 17, 5, 3, true) == 1.0);
    assert_true(recall("Flat", 7, 1, 3, 2, false) > 0.0); /* one dimension: all scores are +-1 */
}

static void test_compressed_and_graph_indexes_find_most(void **state)
{
    (void)state;
    assert_true(recall("HNSW16,Flat", 2000, 32, 50, 10, false) > 0.95);
    assert_true(recall("IVF32,Flat", 2000, 32, 50, 10, false) > 0.7);
    assert_true(recall("SQ8", 1000, 32, 50, 10, false) > 0.9);
}

/* FAISS 1.7.3 takes efSearch from the index alone, where it is 16 unless set: the one that the
 * manifest holds must reach it. */
static void test_ef_search_reaches_the_index(void **state)
{
    (void)state;
    const int64_t n = 4000, dim = 64, k = 10, n_queries = 40;
    double found[2];
    char *dir = temp_dir();
    float *x = random_vectors(n, dim, 3), *q = random_vectors(n_queries, dim, 4);
    for (int round = 0; round < 2; round++) {
        char *path = tess_format("%s/%d", dir, round);
        tess_index_options options = {.dim = dim,
                                      .fingerprint = FINGERPRINT,
                                      .factory = "HNSW8,Flat",
                                      .ef_search = round ? 400 : 16,
                                      .n_threads = 1};
        tess_index_builder *b = NULL;
        assert_ok(tess_index_builder_open(path, &options, &b));
        assert_ok(add_rows(b, x, n));
        assert_ok(tess_index_builder_commit(b));
        tess_index *ix = NULL;
        assert_ok(tess_index_open(path, NULL, &ix));
        tess_hit hits[10], truth[10];
        int64_t n_hits, good = 0;
        for (int64_t i = 0; i < n_queries; i++) {
            assert_ok(tess_index_search(ix, q + i * dim, 1, k, hits, &n_hits));
            brute_force(x, n, dim, q + i * dim, k, truth);
            for (int64_t r = 0; r < n_hits * k; r++) {
                good += hits[r / k].row == truth[r % k].row;
            }
        }
        found[round] = (double)good / (double)(n_queries * k);
        tess_index_close(ix);
        tess_free(path);
    }
    assert_true(found[1] > found[0] + 0.15);
    assert_true(found[1] > 0.85);
    tess_free(x);
    tess_free(q);
    remove_temp(dir);
}

static void test_k_and_queries_are_checked(void **state)
{
    (void)state;
    char *dir = temp_dir();
    char *path = tess_format("%s/ix/", dir); /* a trailing slash is the same directory */
    float *x = random_vectors(5, 4, 1);
    assert_ok(build_index(path, x, 5, 4, "HNSW8,Flat", false));
    tess_index *ix = NULL;
    assert_ok(tess_index_open(path, FINGERPRINT, &ix));
    tess_hit hits[20];
    int64_t n_hits = -7;
    assert_ok(tess_index_search(ix, x, 1, 20, hits, &n_hits));
    assert_int_equal(n_hits, 5); /* never more than there are rows, never a -1 */
    assert_int_equal(hits[0].row, 0);
    assert_true(fabsf(hits[0].score - 1) < 1e-6f);
    for (int i = 1; i < 5; i++) {
        assert_true(hits[i].score <= hits[i - 1].score);
    }
    assert_refused(tess_index_search(ix, x, 1, 0, hits, &n_hits), TESS_INVALID, "k is 0");
    assert_refused(tess_index_search(ix, x, 1, -1, hits, &n_hits), TESS_INVALID, "k is -1");
    assert_refused(tess_index_search(ix, x, 1, INT64_MAX, hits, &n_hits), TESS_INVALID, "10000");
    assert_refused(tess_index_search(ix, x, -1, 1, hits, &n_hits), TESS_INVALID, "negative");
    assert_ok(tess_index_search(ix, x, 0, 1, hits, &n_hits));
    float bad[4] = {1, NAN, 0, 0}, zero[4] = {0}, inf[4] = {INFINITY, 0, 0, 0};
    assert_refused(tess_index_search(ix, bad, 1, 1, hits, &n_hits), TESS_INVALID, "query 0");
    assert_refused(tess_index_search(ix, zero, 1, 1, hits, &n_hits), TESS_INVALID, "no length");
    assert_refused(tess_index_search(ix, inf, 1, 1, hits, &n_hits), TESS_INVALID, "not finite");
    tess_index_close(ix);
    tess_index_close(NULL);
    tess_free(x);
    tess_free(path);
    remove_temp(dir);
}

/* With one list visited FAISS cannot fill k places and pads with -1. */
static void test_padding_never_escapes(void **state)
{
    (void)state;
    enum { N = 400, K = 400 };
    char *dir = temp_dir();
    char *path = tess_format("%s/ix", dir);
    float *x = random_vectors(N, 8, 1);
    tess_index_options options = {
        .dim = 8, .fingerprint = FINGERPRINT, .factory = "IVF8,Flat", .n_probe = 1};
    tess_index_builder *b = NULL;
    assert_ok(tess_index_builder_open(path, &options, &b));
    assert_ok(add_rows(b, x, N));
    assert_ok(tess_index_builder_commit(b));
    tess_index *ix = NULL;
    assert_ok(tess_index_open(path, FINGERPRINT, &ix));
    tess_hit hits[K];
    int64_t n_hits = 0;
    assert_ok(tess_index_search(ix, x, 1, K, hits, &n_hits));
    assert_in_range(n_hits, 1, N - 1);
    for (int64_t i = 0; i < n_hits; i++) {
        assert_true(hits[i].row >= 0 && hits[i].row < N);
    }
    tess_index_close(ix);
    tess_free(x);
    tess_free(path);
    remove_temp(dir);
}

static void test_rows_come_back_whole(void **state)
{
    (void)state;
    char *dir = temp_dir();
    char *path = tess_format("%s/ix", dir), *source = tess_format("%s/shard.tar", dir);
    assert_ok(tess_file_write(source, "0123456789", 10));
    const tess_row rows[] = {
        {.key = "猫/写真 #1?.jpg",
         .path = source,
         .offset = 3,
         .n_bytes = 4,
         .width = 5,
         .height = 6,
         .captions = "{\"ja\":\"黒い猫\",\"en\":[\"a black cat\",\"it's \\\"Tom\\\"\"]}"},
        {.key = "'; DROP TABLE rows; --", .kind = TESS_ROW_TEXT, .captions = "\"قطة سوداء\""},
        {.key = "e\xcc\x81", .path = source, .offset = 8}, /* e and an accent: kept as they are */
    };
    float x[12] = {1, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, -2};
    tess_index_options options = {.dim = 4, .fingerprint = FINGERPRINT};
    tess_index_builder *b = NULL;
    assert_ok(tess_index_builder_open(path, &options, &b));
    assert_ok(tess_index_builder_add(b, x, rows, 3));
    assert_int_equal(tess_index_builder_count(b), 3);
    assert_ok(tess_index_builder_commit(b));

    tess_index *ix = NULL;
    assert_ok(tess_index_open(path, FINGERPRINT, &ix));
    assert_int_equal(tess_index_count(ix), 3);
    assert_int_equal(tess_index_dim(ix), 4);
    assert_string_equal(tess_index_fingerprint(ix), FINGERPRINT);
    tess_arena arena = {0};
    for (int64_t i = 0; i < 3; i++) {
        tess_row row;
        int64_t id = -1;
        assert_ok(tess_index_row(ix, i, &arena, &row));
        assert_int_equal(row.id, i);
        assert_string_equal(row.key, rows[i].key);
        assert_int_equal(row.kind, rows[i].kind);
        assert_true(rows[i].captions ? !strcmp(row.captions, rows[i].captions) : !row.captions);
        assert_int_equal(row.width, rows[i].width);
        assert_ok(tess_index_find(ix, rows[i].key, &id));
        assert_int_equal(id, i);
    }
    tess_row row;
    uint8_t *bytes = NULL;
    size_t n_bytes = 0;
    assert_ok(tess_index_row(ix, 0, &arena, &row));
    assert_ok(tess_row_read(&row, 100, &bytes, &n_bytes));
    assert_int_equal(n_bytes, 4);
    assert_memory_equal(bytes, "3456", 4);
    tess_free(bytes);
    assert_refused(tess_row_read(&row, 3, &bytes, &n_bytes), TESS_NOMEM, "limit of 3");
    assert_ok(tess_index_row(ix, 2, &arena, &row));
    assert_ok(tess_row_read(&row, 100, &bytes, &n_bytes));
    assert_int_equal(n_bytes, 2);
    tess_free(bytes);
    assert_ok(tess_file_write(source, "01", 2));
    assert_refused(tess_row_read(&row, 100, &bytes, &n_bytes), TESS_IO, "changed");
    assert_ok(tess_index_row(ix, 1, &arena, &row));
    assert_refused(tess_row_read(&row, 100, &bytes, &n_bytes), TESS_INVALID, "where it came from");
    assert_refused(tess_index_row(ix, 3, &arena, &row), TESS_INVALID, "no row 3");
    assert_refused(tess_index_row(ix, -1, &arena, &row), TESS_INVALID, "no row -1");
    int64_t id;
    assert_refused(tess_index_find(ix, "none", &id), TESS_INVALID, "no row none");
    tess_buf info = {0};
    assert_ok(tess_index_info(ix, &info));
    assert_non_null(strstr(info.data, "\"factory\":\"Flat\""));
    tess_buf_deinit(&info);
    tess_arena_deinit(&arena);
    tess_index_close(ix);
    tess_free(source);
    tess_free(path);
    remove_temp(dir);
}

static void test_words_match_captions(void **state)
{
    (void)state;
    char *dir = temp_dir();
    char *path = tess_format("%s/ix", dir);
    float *x = random_vectors(30, 4, 1);
    assert_ok(build_index(path, x, 30, 4, "Flat", false));
    tess_index *ix = NULL;
    assert_ok(tess_index_open(path, NULL, &ix));
    tess_hit hits[40];
    int64_t n = 0;
    assert_ok(tess_index_match(ix, "NUMMER 17", 40, hits, &n));
    assert_int_equal(n, 1);
    assert_int_equal(hits[0].row, 17);
    assert_ok(tess_index_match(ix, "zahl", 40, hits, &n));
    assert_int_equal(n, 30);
    assert_ok(tess_index_match(ix, "zahl", 3, hits, &n));
    assert_int_equal(n, 3);
    /* Nothing is an operator: each of these is a search for words. */
    const char *none[] = {"",      "  ",         "\"",        "zahl\" OR \"number",
                          "NEAR(", "text:zahl*", "zahl NOT 3"};
    for (int64_t i = 0; i < TESS_COUNT(none); i++) {
        assert_ok(tess_index_match(ix, none[i], 40, hits, &n));
        assert_int_equal(n, 0);
    }
    tess_index_close(ix);
    tess_free(x);
    tess_free(path);
    remove_temp(dir);
}

static void test_bad_rows_are_refused_by_key(void **state)
{
    (void)state;
    char *dir = temp_dir();
    char *path = tess_format("%s/ix", dir);
    tess_index_options options = {.dim = 2, .fingerprint = FINGERPRINT};
    tess_index_builder *b = NULL;
    assert_ok(tess_index_builder_open(path, &options, &b));
    char long_key[TESS_INDEX_MAX_KEY_BYTES + 2];
    memset(long_key, 'k', sizeof(long_key) - 1);
    long_key[sizeof(long_key) - 1] = 0;
    const struct {
        tess_row row;
        float x[2];
        const char *part;
    } cases[] = {
        {{.key = "nan"}, {NAN, 1}, "nan: the vector holds a number that is not finite"},
        {{.key = "inf"}, {1, -INFINITY}, "inf: the vector holds"},
        {{.key = "zero"}, {0, 0}, "zero: the vector has no length"},
        {{.key = ""}, {1, 1}, "a key is 1 to"},
        {{.key = NULL}, {1, 1}, "a key is 1 to"},
        {{.key = "bad \xff"}, {1, 1}, "a key is 1 to"},
        {{.key = long_key}, {1, 1}, "a key is 1 to"},
        {{.key = "same"}, {1, 1}, "same: this key is already in the index"},
        {{.key = "kind", .kind = (tess_row_kind)9}, {1, 1}, "kind: kind 9"},
        {{.key = "neg", .offset = -1}, {1, 1}, "neg: offset"},
        {{.key = "j1", .captions = "{"}, {1, 1}, "j1"},
        {{.key = "j2", .captions = "{\"en\":3}"}, {1, 1}, "j2: captions are"},
        {{.key = "j3", .captions = "[[\"a\"]]"}, {1, 1}, "j3: captions are"},
        {{.key = "j4", .captions = "\"\xff\""}, {1, 1}, "j4"},
    };
    const tess_row good[] = {{.key = "same"}};
    const float one[2] = {1, 2};
    assert_ok(tess_index_builder_add(b, one, good, 1));
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        /* A good row before the bad one is taken back with it. */
        const tess_row pair[] = {{.key = "fine", .captions = "\"fine\""}, cases[i].row};
        const float x[] = {1, 1, cases[i].x[0], cases[i].x[1]};
        tess_status st = tess_index_builder_add(b, x, pair, 2);
        assert_true(st == TESS_INVALID || st == TESS_FORMAT);
        if (!strstr(tess_error(), cases[i].part)) {
            fail_msg("expected \"%s\" in \"%s\"", cases[i].part, tess_error());
        }
        assert_int_equal(tess_index_builder_count(b), 1);
    }
    const tess_row last[] = {{.key = "fine", .captions = "\"fine\""}};
    assert_ok(tess_index_builder_add(b, one, last, 1));
    assert_ok(tess_index_builder_commit(b));
    tess_index *ix = NULL;
    assert_ok(tess_index_open(path, NULL, &ix));
    assert_int_equal(tess_index_count(ix), 2);
    tess_hit hits[4];
    int64_t n = 0;
    assert_ok(tess_index_match(ix, "fine", 4, hits, &n));
    assert_int_equal(n, 1);
    tess_index_close(ix);
    tess_free(path);
    remove_temp(dir);
}

static void test_bad_options_are_refused(void **state)
{
    (void)state;
    const struct {
        tess_index_options options;
        const char *part;
    } cases[] = {
        {{.dim = 0, .fingerprint = "f"}, "dimension 0"},
        {{.dim = 1 << 30, .fingerprint = "f"}, "dimension"},
        {{.dim = 4}, "fingerprint"},
        {{.dim = 4, .fingerprint = ""}, "fingerprint"},
        {{.dim = 4, .fingerprint = "f", .factory = "IDMap,Flat"}, "IDMap"},
        {{.dim = 4, .fingerprint = "f", .factory = "Fl\nat"}, "factory string"},
        {{.dim = 4, .fingerprint = "f", .ef_search = -1}, "ef_search"},
    };
    tess_index_builder *b = NULL;
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        assert_refused(tess_index_builder_open("/nonexistent/ix", &cases[i].options, &b),
                       TESS_INVALID, cases[i].part);
    }
    char *dir = temp_dir();
    char *path = tess_format("%s/ix", dir);
    float *x = random_vectors(3, 4, 1);
    assert_refused(build_index(path, x, 3, 4, "Nonsense7", false), TESS_INVALID, "Nonsense7");
    assert_false(tess_path_exists(path));
    assert_refused(build_index(path, x, 3, 4, "IVF8,Flat", false), TESS_DEVICE, "train");
    assert_refused(build_index(path, x, 0, 4, "Flat", false), TESS_INVALID, "nothing was added");
    assert_false(tess_path_exists(path));
    tess_free(x);
    tess_free(path);
    remove_temp(dir);
}

static void test_auto_follows_its_rule(void **state)
{
    (void)state;
    const int64_t gib = (int64_t)1 << 30;
    const struct {
        int64_t n, dim, memory;
        const char *factory;
    } cases[] = {
        {1, 8, gib, "Flat"},
        {999, 65536, gib, "Flat"},
        {3635, 128, gib, "Flat"},
        {9000, 768, gib, "HNSW15,Flat"},
        {100000, 512, 8 * gib, "HNSW32,Flat"},
        {100000, 512, gib * 2 / 5, "HNSW8,Flat"},
        {100000, 512, gib / 8, "IVF1024,Flat"},
        {900000, 512, gib, "IVF4096,Flat"},
        {5000000, 512, gib, "OPQ64,IVF16384_HNSW32,PQ64x8"},
        {20000000, 96, gib, "OPQ32,IVF65536_HNSW32,PQ32x8"},
        {400000000, 512, gib, "OPQ64,IVF131072_HNSW32,PQ64x8"},
    };
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        char factory[64];
        tess_index_auto(cases[i].n, cases[i].dim, cases[i].memory, factory);
        assert_string_equal(factory, cases[i].factory);
    }
}

/* ---- threads ---- */

typedef struct searcher {
    tess_index *ix;
    const float *x;
    int64_t first;
    bool failed;
} searcher;

static void *search_some(void *ctx)
{
    searcher *s = ctx;
    omp_set_num_threads(1);
    for (int64_t i = s->first; i < s->first + 50; i++) {
        tess_hit hit;
        int64_t n = 0;
        tess_row row;
        tess_arena arena = {0};
        char key[32];
        snprintf(key, sizeof(key), "key %lld", (long long)i);
        s->failed |= tess_index_search(s->ix, s->x + i * 8, 1, 1, &hit, &n) != TESS_OK || n != 1 ||
                     hit.row != i;
        s->failed |= tess_index_row(s->ix, i, &arena, &row) != TESS_OK || strcmp(row.key, key) != 0;
        tess_arena_deinit(&arena);
    }
    return NULL;
}

static void test_threads_share_an_index(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    char *dir = temp_dir();
    char *path = tess_format("%s/ix", dir);
    float *x = random_vectors(200, 8, 1);
    assert_ok(build_index(path, x, 200, 8, "HNSW16,Flat", false));
    tess_index *ix = NULL;
    assert_ok(tess_index_open(path, NULL, &ix));
    pthread_t threads[THREADS];
    searcher searchers[THREADS];
    for (int i = 0; i < THREADS; i++) {
        searchers[i] = (searcher){.ix = ix, .x = x, .first = 50 * i};
        assert_int_equal(pthread_create(&threads[i], NULL, search_some, &searchers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_false(searchers[i].failed);
    }
    tess_index_close(ix);
    tess_free(x);
    tess_free(path);
    remove_temp(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flat_is_brute_force),
        cmocka_unit_test(test_compressed_and_graph_indexes_find_most),
        cmocka_unit_test(test_ef_search_reaches_the_index),
        cmocka_unit_test(test_k_and_queries_are_checked),
        cmocka_unit_test(test_padding_never_escapes),
        cmocka_unit_test(test_rows_come_back_whole),
        cmocka_unit_test(test_words_match_captions),
        cmocka_unit_test(test_bad_rows_are_refused_by_key),
        cmocka_unit_test(test_bad_options_are_refused),
        cmocka_unit_test(test_auto_follows_its_rule),
        cmocka_unit_test(test_threads_share_an_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
