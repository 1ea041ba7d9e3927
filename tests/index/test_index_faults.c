/* SPDX-License-Identifier: Apache-2.0 */
/* An index build that fails anywhere leaves what was there before: nothing, or the older index. */
#include "index/index_fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum { ROWS = 60, DIM = 8 };

/* How many rows the index at `path` has; 0: there is none.  A broken one fails the test. */
static int64_t rows_at(const char *path)
{
    if (!tess_path_exists(path)) {
        return 0;
    }
    tess_index *ix = NULL;
    assert_ok(tess_index_open(path, FINGERPRINT, &ix));
    int64_t n = tess_index_count(ix);
    tess_index_close(ix);
    return n;
}

/* Nothing but what is named lies in `dir`. */
static void assert_no_litter(const char *dir)
{
    tess_names names = {0};
    assert_ok(tess_dir_list(dir, false, &names));
    for (size_t i = 0; i < names.n_names; i++) {
        assert_string_equal(names.names[i], "ix");
    }
    tess_names_deinit(&names);
}

/* Lets the n-th call of each kind fail, for every n there is, and looks at what is left. */
static void fail_everywhere(bool replace)
{
    static const char *const kinds[] = {"alloc", "write", "fsync", "rename"};
    char *dir = temp_dir();
    char *path = tess_format("%s/ix", dir);
    float *x = random_vectors(ROWS, DIM, 1), *older = random_vectors(5, DIM, 2);
    for (int kind = 0; kind < TESS_FAULT_KINDS; kind++) {
        int64_t n = 1, n_failed = 0;
        for (bool done = false; !done; n++) {
            assert_ok(tess_dir_remove(path));
            int64_t before = replace ? 5 : 0;
            if (replace) {
                assert_ok(build_index(path, older, 5, DIM, "Flat", false));
            }
            tess_fault_set((tess_fault)kind, n, n % 2 == 0);
            tess_status st = build_index(path, x, ROWS, DIM, "HNSW8,Flat", replace);
            done = tess_fault_count((tess_fault)kind) < n;
            tess_fault_set((tess_fault)kind, 0, false);
            int64_t found = rows_at(path);
            if (st == TESS_OK) {
                assert_true(done);
                assert_int_equal(found, ROWS);
            } else {
                n_failed++;
                assert_true(tess_error()[0] != 0);
                /* After the move only the last sync can fail, with the new index in place. */
                assert_true(found == before || (kind == TESS_FAULT_FSYNC && found == ROWS));
            }
            assert_no_litter(dir);
        }
        print_message("%s: %lld places\n", kinds[kind], (long long)n_failed);
        assert_true(n_failed > 0);
    }
    tess_free(x);
    tess_free(older);
    tess_free(path);
    remove_temp(dir);
}

static void test_nth_failure_of_a_new_index(void **state)
{
    (void)state;
    fail_everywhere(false);
}

static void test_nth_failure_of_a_replacement(void **state)
{
    (void)state;
    fail_everywhere(true);
}

/* In a child, whose files may not grow beyond `limit`: what a full disk does to every writer here,
 * SQLite's too.  True when the build said it failed. */
static bool build_on_full_disk(const char *path, const float *x, rlim_t limit)
{
    pid_t child = fork();
    if (child == 0) {
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){limit, limit});
        _exit(build_index(path, x, ROWS, DIM, "Flat", false) == TESS_OK ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status) != 0;
}

static void test_full_disk(void **state)
{
    (void)state;
    char *dir = temp_dir();
    char *path = tess_format("%s/ix", dir);
    float *x = random_vectors(ROWS, DIM, 1);
    bool failed = true;
    int n_failed = 0;
    for (rlim_t limit = 0; failed; limit += 1500, n_failed++) {
        failed = build_on_full_disk(path, x, limit);
        assert_int_equal(rows_at(path), failed ? 0 : ROWS);
        assert_no_litter(dir);
    }
    assert_true(n_failed > 5);
    tess_free(x);
    tess_free(path);
    remove_temp(dir);
}

static void test_what_is_no_index_is_never_replaced(void **state)
{
    (void)state;
    char *dir = temp_dir();
    char *path = tess_format("%s/ix", dir), *photo = tess_format("%s/ix/photo.jpg", dir);
    float *x = random_vectors(3, DIM, 1);
    assert_ok(tess_dir_make(path));
    assert_ok(tess_file_write(photo, "p", 1));
    assert_refused(build_index(path, x, 3, DIM, "Flat", true), TESS_INVALID, "is no index");
    assert_true(tess_path_exists(photo));
    assert_int_equal(remove(photo), 0);
    assert_ok(build_index(path, x, 3, DIM, "Flat", false)); /* an empty directory will do */
    assert_refused(build_index(path, x, 2, DIM, "Flat", false), TESS_INVALID, "already");
    assert_int_equal(rows_at(path), 3);
    assert_ok(build_index(path, x, 2, DIM, "Flat", true));
    assert_int_equal(rows_at(path), 2);
    assert_no_litter(dir);
    tess_free(photo);
    tess_free(x);
    tess_free(path);
    remove_temp(dir);
}

static void test_open_index_outlives_its_replacement(void **state)
{
    (void)state;
    char *dir = temp_dir();
    char *path = tess_format("%s/ix", dir);
    float *x = random_vectors(ROWS, DIM, 1);
    assert_ok(build_index(path, x, ROWS, DIM, "Flat", false));
    tess_index *ix = NULL;
    assert_ok(tess_index_open(path, NULL, &ix));
    assert_ok(build_index(path, x, 2, DIM, "Flat", true));
    tess_hit hit;
    int64_t n = 0;
    tess_row row;
    tess_arena arena = {0};
    assert_ok(tess_index_search(ix, x + 50 * DIM, 1, 1, &hit, &n));
    assert_int_equal(hit.row, 50);
    assert_ok(tess_index_row(ix, 50, &arena, &row));
    assert_string_equal(row.key, "key 50");
    tess_arena_deinit(&arena);
    tess_index_close(ix);
    tess_free(x);
    tess_free(path);
    remove_temp(dir);
}

static void test_one_builder_at_a_time(void **state)
{
    (void)state;
    char *dir = temp_dir();
    char *path = tess_format("%s/ix", dir), *litter = tess_format("%s/ix.building/old", dir);
    float *x = random_vectors(3, DIM, 1);
    tess_index_options options = {.dim = DIM, .fingerprint = FINGERPRINT};
    tess_index_builder *a = NULL, *b = NULL;
    assert_ok(tess_index_builder_open(path, &options, &a));
    assert_refused(tess_index_builder_open(path, &options, &b), TESS_INVALID, "another build");
    assert_ok(add_rows(a, x, 3));
    tess_index_builder_abort(a);
    assert_false(tess_path_exists(path));
    assert_no_litter(dir);
    /* What a killed build left is cleared. */
    assert_ok(tess_dir_make(litter));
    assert_ok(build_index(path, x, 3, DIM, "Flat", false));
    assert_no_litter(dir);
    tess_index_builder_abort(NULL);
    tess_free(litter);
    tess_free(x);
    tess_free(path);
    remove_temp(dir);
}

/* kill -9 in the middle of a build, at growing delays: the older index stays, or the new one is
 * whole; and the next build succeeds. */
static void test_killed_builds(void **state)
{
    (void)state;
    char *dir = temp_dir();
    char *path = tess_format("%s/ix", dir);
    float *x = random_vectors(ROWS, DIM, 1);
    assert_ok(build_index(path, x, 5, DIM, "Flat", false));
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        if (child == 0) {
            for (;;) {
                tess_status ignored = build_index(path, x, ROWS, DIM, "Flat", true);
                (void)ignored;
            }
        }
        usleep((useconds_t)(1000 * (1 + i)));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        int64_t n = rows_at(path);
        assert_true(n == 5 || n == ROWS);
    }
    assert_ok(build_index(path, x, 7, DIM, "Flat", true));
    assert_int_equal(rows_at(path), 7);
    assert_no_litter(dir);
    tess_free(x);
    tess_free(path);
    remove_temp(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nth_failure_of_a_new_index),
        cmocka_unit_test(test_nth_failure_of_a_replacement),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_what_is_no_index_is_never_replaced),
        cmocka_unit_test(test_open_index_outlives_its_replacement),
        cmocka_unit_test(test_one_builder_at_a_time),
        cmocka_unit_test(test_killed_builds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
