/* SPDX-License-Identifier: Apache-2.0 */
/* Small indexes for the tests: vectors that are a function of the seed, in a directory of their
 * own. */
#ifndef TESTS_INDEX_FIXTURE_H
#define TESTS_INDEX_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "tessera/index.h"

#define FINGERPRINT "tessera:0123456789abcdef0123456789abcdef"

#define assert_ok(expr)                                                                            \
    do {                                                                                           \
        tess_status st_ = (expr);                                                                  \
        if (st_ != TESS_OK) {                                                                      \
            fail_msg("%s: %s (%s)", #expr, tess_error(), tess_status_name(st_));                   \
        }                                                                                          \
    } while (0)

/* Fails with this status, and the message holds `part`. */
#define assert_refused(expr, status, part)                                                         \
    do {                                                                                           \
        assert_int_equal((expr), (status));                                                        \
        if (!strstr(tess_error(), (part))) {                                                       \
            fail_msg("expected \"%s\" in \"%s\"", (part), tess_error());                           \
        }                                                                                          \
    } while (0)

/* A directory that is gone after the test; in memory where there is such a place, since these tests
 * sync thousands of small files. */
static inline char *temp_dir(void)
{
    char in_memory[] = "/dev/shm/tess_index_XXXXXX", on_disk[] = "/tmp/tess_index_XXXXXX";
    char *name = mkdtemp(in_memory);
    return tess_strdup(name ? name : mkdtemp(on_disk));
}

static inline void remove_temp(char *dir)
{
    assert_ok(tess_dir_remove(dir));
    tess_free(dir);
}

/* x (N,Z): normal numbers. */
static inline float *random_vectors(int64_t n, int64_t dim, uint64_t seed)
{
    float *x = tess_alloc_array((size_t)(n * dim), sizeof(*x));
    assert_non_null(x);
    tess_rng rng = tess_rng_at(seed, 0);
    for (int64_t i = 0; i < n * dim; i++) {
        x[i] = (float)tess_rng_normal(&rng);
    }
    return x;
}

/* Adds rows "key 0".."key n-1" with the vectors. */
static inline tess_status add_rows(tess_index_builder *b, const float *x, int64_t n)
{
    tess_arena arena = {0};
    tess_row *rows = tess_alloc_array((size_t)n, sizeof(*rows));
    tess_status st = rows ? TESS_OK : TESS_NOMEM;
    for (int64_t i = 0; i < n && st == TESS_OK; i++) {
        rows[i].key = tess_arena_format(&arena, "key %lld", (long long)i);
        rows[i].captions = tess_arena_format(
            &arena, "{\"en\":\"number %lld\",\"de\":[\"Nummer %lld\",\"eine Zahl\"]}", (long long)i,
            (long long)i);
        rows[i].width = 640;
        rows[i].height = 480;
        st = rows[i].key && rows[i].captions ? TESS_OK : TESS_NOMEM;
    }
    if (st == TESS_OK) {
        st = tess_index_builder_add(b, x, rows, n);
    }
    tess_free(rows);
    tess_arena_deinit(&arena);
    return st;
}

/* One index, built in three batches. */
static inline tess_status build_index(const char *dir, const float *x, int64_t n, int64_t dim,
                                      const char *factory, bool replace)
{
    tess_index_options options = {.dim = dim,
                                  .fingerprint = FINGERPRINT,
                                  .factory = factory,
                                  .replace = replace,
                                  .n_threads = 1};
    tess_index_builder *b = NULL;
    TESS_TRY(tess_index_builder_open(dir, &options, &b));
    tess_status st = add_rows(b, x, n);
    if (st != TESS_OK) {
        tess_index_builder_abort(b);
        return st;
    }
    return tess_index_builder_commit(b);
}

#endif
