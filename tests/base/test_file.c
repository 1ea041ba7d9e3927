/* SPDX-License-Identifier: Apache-2.0 */
/* Files: reading, mapping, directories, and what the writer and the appender promise when a write,
 * an fsync, a rename or an allocation fails at any place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/os.h"

static char root[64];

/* A path below this test's directory; a few live at a time. */
static const char *at(const char *name)
{
    static char paths[8][256];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", root, name);
    return path;
}

static int make_root(void **state)
{
    (void)state;
    strcpy(root, P_tmpdir "/tessera-test-XXXXXX");
    return mkdtemp(root) != NULL ? 0 : -1;
}

static int remove_root(void **state)
{
    (void)state;
    for (int kind = 0; kind < TESS_FAULT_KINDS; kind++) {
        tess_fault_set((tess_fault)kind, 0, false);
    }
    return tess_dir_remove(root) == TESS_OK ? 0 : -1;
}

static void put(const char *path, const char *text)
{
    assert_int_equal(tess_file_write(path, text, strlen(text)), TESS_OK);
}

static void assert_holds(const char *path, const char *text)
{
    uint8_t *data = NULL;
    size_t n = 0;
    assert_int_equal(tess_file_read(path, 1 << 20, &data, &n), TESS_OK);
    assert_int_equal(n, strlen(text));
    assert_string_equal((char *)data, text);
    tess_free(data);
}

static size_t count_entries(void)
{
    tess_names names = {0};
    assert_int_equal(tess_dir_list(root, false, &names), TESS_OK);
    size_t n = names.n_names;
    tess_names_deinit(&names);
    return n;
}

static void test_read_limits_and_errors(void **state)
{
    (void)state;
    uint8_t *data = NULL;
    size_t n = 0;
    put(at("a"), "12345");
    assert_int_equal(tess_file_read(at("a"), 5, &data, &n), TESS_OK);
    assert_int_equal(n, 5);
    assert_int_equal(data[5], 0);
    tess_free(data);
    assert_int_equal(tess_file_read(at("a"), 4, &data, &n), TESS_NOMEM);
    assert_null(data);
    assert_non_null(strstr(tess_error(), "/a: expected at most 4 bytes"));
    assert_int_equal(tess_file_read(at("none"), 4, &data, &n), TESS_IO);
    assert_non_null(strstr(tess_error(), "/none: No such file or directory"));
    assert_int_equal(tess_file_read(root, 4, &data, &n), TESS_IO);
    assert_non_null(strstr(tess_error(), "found a directory"));
}

static void test_read_what_has_no_size(void **state)
{
    (void)state;
    uint8_t *data = NULL;
    size_t n = 0;
    assert_int_equal(tess_file_read("/proc/self/maps", 1 << 20, &data, &n), TESS_OK);
    assert_true(n > 100);
    assert_int_equal(strlen((char *)data), n);
    tess_free(data);
    assert_int_equal(tess_file_read("/dev/zero", 100000, &data, &n), TESS_NOMEM);
}

static void test_map(void **state)
{
    (void)state;
    tess_bytes map = {0};
    put(at("a"), "mapped");
    assert_int_equal(tess_file_map(at("a"), &map), TESS_OK);
    assert_int_equal(map.n_bytes, 6);
    assert_memory_equal(map.data, "mapped", 6);
    tess_file_unmap(&map);
    assert_null(map.data);
    put(at("empty"), "");
    assert_int_equal(tess_file_map(at("empty"), &map), TESS_OK);
    assert_null(map.data);
    assert_int_equal(map.n_bytes, 0);
    tess_file_unmap(&map);
    tess_file_unmap(NULL);
    assert_int_equal(tess_file_map(at("none"), &map), TESS_IO);
    assert_int_equal(tess_file_map(root, &map), TESS_IO);
    assert_int_equal(tess_file_map("/dev/zero", &map), TESS_IO);
}

static void test_writer_is_absent_until_commit(void **state)
{
    (void)state;
    tess_writer *w = NULL;
    assert_int_equal(tess_writer_open(at("a"), &w), TESS_OK);
    assert_int_equal(tess_writer_write(w, "abc", 3), TESS_OK);
    assert_false(tess_path_exists(at("a")));
    assert_int_equal(tess_writer_write(w, "def", 3), TESS_OK);
    assert_int_equal(tess_writer_commit(w), TESS_OK);
    assert_holds(at("a"), "abcdef");
    assert_int_equal(count_entries(), 1);
    assert_int_equal(tess_writer_open(at("a"), &w), TESS_OK);
    assert_int_equal(tess_writer_write(w, "new", 3), TESS_OK);
    tess_writer_abort(w);
    tess_writer_abort(NULL);
    assert_holds(at("a"), "abcdef");
    assert_int_equal(count_entries(), 1);
}

static void test_writer_large_and_small_writes(void **state)
{
    (void)state;
    enum { N = 3 << 20 };
    uint8_t *data = tess_alloc(N), *back = NULL;
    for (uint32_t i = 0; i < N; i++) {
        data[i] = (uint8_t)(i * 2654435761u >> 24);
    }
    tess_writer *w = NULL;
    assert_int_equal(tess_writer_open(at("big"), &w), TESS_OK);
    size_t sizes[] = {1, 100000, 200000, 262144, 262145, 7, 1000000}, done = 0;
    for (size_t i = 0; done < N; i++) {
        size_t n = sizes[i % 7] < N - done ? sizes[i % 7] : N - done;
        assert_int_equal(tess_writer_write(w, data + done, n), TESS_OK);
        done += n;
    }
    assert_int_equal(tess_writer_commit(w), TESS_OK);
    size_t n_back = 0;
    assert_int_equal(tess_file_read(at("big"), N, &back, &n_back), TESS_OK);
    assert_int_equal(n_back, N);
    assert_memory_equal(data, back, N);
    tess_free(data);
    tess_free(back);
}

static void test_writer_refuses_bad_places(void **state)
{
    (void)state;
    tess_writer *w = NULL;
    assert_int_equal(tess_writer_open("", &w), TESS_INVALID);
    assert_int_equal(tess_writer_open("a/", &w), TESS_INVALID);
    assert_int_equal(tess_writer_open(at("no/where"), &w), TESS_IO);
    assert_null(w);
    assert_int_equal(tess_dir_make(at("d")), TESS_OK);
    assert_int_equal(tess_file_write(at("d"), "x", 1), TESS_IO);
    assert_int_equal(count_entries(), 1);
}

static tess_status write_in_three(const char *path, const char *big, size_t n)
{
    tess_writer *w = NULL;
    TESS_TRY(tess_writer_open(path, &w));
    for (int i = 0; i < 3; i++) {
        tess_status st = tess_writer_write(w, big, n);
        if (st != TESS_OK) {
            tess_writer_abort(w);
            return st;
        }
    }
    return tess_writer_commit(w);
}

/* Whatever fails, at whichever call: the old file or the new one, whole, and no leftovers. */
static void test_writer_whole_or_absent_under_faults(void **state)
{
    (void)state;
    enum { N = 200000 };
    char *big = tess_alloc(N);
    memset(big, 'n', N);
    int64_t n_injected = 0;
    for (int kind = 0; kind < TESS_FAULT_KINDS; kind++) {
        for (int64_t nth = 1;; nth++) {
            tess_fault_set((tess_fault)kind, 0, false);
            put(at("f"), "old");
            tess_fault_set((tess_fault)kind, nth, nth % 2 == 0);
            tess_status st = write_in_three(at("f"), big, N);
            bool reached = tess_fault_count((tess_fault)kind) >= nth;
            tess_fault_set((tess_fault)kind, 0, false);
            struct stat info;
            assert_int_equal(stat(at("f"), &info), 0);
            assert_int_equal(st != TESS_OK, reached);
            assert_true(info.st_size == 3 || info.st_size == 3 * N);
            assert_true(st != TESS_OK || info.st_size == 3 * N);
            assert_int_equal(count_entries(), 1);
            if (!reached) {
                break;
            }
            n_injected++;
        }
    }
    assert_true(n_injected >= 4 + 3 + 2 + 1);
    tess_free(big);
}

static void test_failed_rename_and_fsync_keep_the_old_file(void **state)
{
    (void)state;
    put(at("f"), "old");
    tess_fault_set(TESS_FAULT_FSYNC, 1, false);
    assert_int_equal(tess_file_write(at("f"), "new", 3), TESS_IO);
    assert_holds(at("f"), "old");
    tess_fault_set(TESS_FAULT_RENAME, 1, false);
    assert_int_equal(tess_file_write(at("f"), "new", 3), TESS_IO);
    assert_holds(at("f"), "old");
    assert_int_equal(count_entries(), 1);
}

static void test_writer_syncs_file_and_directory(void **state)
{
    (void)state;
    tess_fault_set(TESS_FAULT_FSYNC, 0, false);
    put(at("f"), "x");
    assert_int_equal(tess_fault_count(TESS_FAULT_FSYNC), 2);
    assert_int_equal(tess_fault_count(TESS_FAULT_RENAME), 1);
}

static void test_dead_writer_stays_dead(void **state)
{
    (void)state;
    static char big[300000];
    tess_writer *w = NULL;
    assert_int_equal(tess_writer_open(at("f"), &w), TESS_OK);
    tess_fault_set(TESS_FAULT_WRITE, 1, false);
    assert_int_equal(tess_writer_write(w, big, sizeof big), TESS_IO);
    assert_non_null(strstr(tess_error(), "No space left"));
    assert_int_equal(tess_writer_write(w, big, sizeof big), TESS_IO);
    assert_int_equal(tess_writer_commit(w), TESS_IO);
    assert_non_null(strstr(tess_error(), "an earlier write failed"));
    assert_int_equal(count_entries(), 0);
}

static void test_appender_goes_on_and_cuts_back(void **state)
{
    (void)state;
    tess_appender *a = NULL;
    assert_int_equal(tess_appender_open(at("log"), -1, &a), TESS_OK);
    assert_int_equal(tess_appender_write(a, "one\n", 4), TESS_OK);
    assert_holds(at("log"), "one\n");
    assert_int_equal(tess_appender_write(a, "two\n", 4), TESS_OK);
    assert_int_equal(tess_appender_bytes(a), 8);
    assert_int_equal(tess_appender_sync(a), TESS_OK);
    tess_appender_close(a);
    assert_int_equal(tess_appender_open(at("log"), -1, &a), TESS_OK);
    assert_int_equal(tess_appender_bytes(a), 8);
    tess_appender_close(a);
    assert_int_equal(tess_appender_open(at("log"), 4, &a), TESS_OK);
    assert_int_equal(tess_appender_bytes(a), 4);
    assert_int_equal(tess_appender_write(a, "new\n", 4), TESS_OK);
    tess_appender_close(a);
    tess_appender_close(NULL);
    assert_holds(at("log"), "one\nnew\n");
    assert_int_equal(tess_appender_open(at("log"), 9, &a), TESS_FORMAT);
    assert_non_null(strstr(tess_error(), "at least 9 bytes to go on from, found 8"));
    assert_int_equal(tess_appender_open(at("log"), 0, &a), TESS_OK);
    tess_appender_close(a);
    assert_holds(at("log"), "");
}

static void test_appender_torn_write_is_cut_off(void **state)
{
    (void)state;
    tess_appender *a = NULL;
    assert_int_equal(tess_appender_open(at("log"), -1, &a), TESS_OK);
    assert_int_equal(tess_appender_write(a, "one\n", 4), TESS_OK);
    tess_fault_set(TESS_FAULT_WRITE, 1, false);
    assert_int_equal(tess_appender_write(a, "two\n", 4), TESS_IO);
    assert_holds(at("log"), "one\n");
    assert_int_equal(tess_appender_write(a, "three\n", 6), TESS_OK);
    tess_appender_close(a);
    assert_holds(at("log"), "one\nthree\n");
}

static void test_appender_failed_sync_is_final(void **state)
{
    (void)state;
    tess_appender *a = NULL;
    assert_int_equal(tess_appender_open(at("log"), -1, &a), TESS_OK);
    tess_fault_set(TESS_FAULT_FSYNC, 1, false);
    assert_int_equal(tess_appender_sync(a), TESS_IO);
    assert_int_equal(tess_appender_sync(a), TESS_IO);
    assert_int_equal(tess_appender_write(a, "x", 1), TESS_IO);
    tess_appender_close(a);
}

static void test_appender_under_allocation_faults(void **state)
{
    (void)state;
    for (int64_t nth = 1; nth <= 2; nth++) {
        tess_appender *a = NULL;
        tess_fault_set(TESS_FAULT_ALLOC, nth, false);
        assert_int_equal(tess_appender_open(at("log"), -1, &a), TESS_NOMEM);
        assert_null(a);
    }
}

static void test_dirs(void **state)
{
    (void)state;
    assert_int_equal(tess_dir_make(at("a/b//c/")), TESS_OK);
    assert_int_equal(tess_dir_make(at("a/b/c")), TESS_OK);
    assert_true(tess_path_is_dir(at("a/b/c")));
    put(at("a/b/file"), "x");
    assert_int_equal(tess_dir_make(at("a/b/file")), TESS_IO);
    assert_int_equal(tess_dir_make(at("a/b/file/below")), TESS_IO);
    assert_int_equal(tess_dir_make(""), TESS_INVALID);
    assert_int_equal(tess_dir_remove(at("a/b/file")), TESS_INVALID);
    assert_int_equal(tess_path_rename(at("a/b"), at("moved")), TESS_OK);
    assert_int_equal(tess_dir_sync(root), TESS_OK);
    assert_holds(at("moved/file"), "x");
    assert_int_equal(tess_path_rename(at("none"), at("other")), TESS_IO);
    assert_int_equal(tess_dir_remove(at("moved")), TESS_OK);
    assert_int_equal(tess_dir_remove(at("moved")), TESS_OK);
    assert_false(tess_path_exists(at("moved")));
}

static void test_replace(void **state)
{
    (void)state;
    assert_int_equal(tess_dir_make(at("new")), TESS_OK);
    put(at("new/file"), "one");
    assert_int_equal(tess_dir_replace(at("new"), at("place")), TESS_OK);
    assert_holds(at("place/file"), "one");
    assert_int_equal(tess_dir_make(at("new")), TESS_OK);
    put(at("new/file"), "two");
    tess_fault_set(TESS_FAULT_RENAME, 1, false);
    assert_int_equal(tess_dir_replace(at("new"), at("place")), TESS_IO);
    assert_holds(at("place/file"), "one");
    tess_fault_set(TESS_FAULT_RENAME, 0, false);
    assert_int_equal(tess_dir_replace(at("new"), at("place")), TESS_OK);
    assert_holds(at("place/file"), "two");
    assert_false(tess_path_exists(at("new")));
    assert_int_equal(tess_dir_make(at("new")), TESS_OK);
    assert_int_equal(tess_dir_replace(at("new"), at("place/file")), TESS_INVALID);
    assert_int_equal(tess_dir_remove(at("new")), TESS_OK);
    assert_int_equal(tess_dir_remove(at("place")), TESS_OK);
}

static void test_remove_does_not_follow_links(void **state)
{
    (void)state;
    assert_int_equal(tess_dir_make(at("keep")), TESS_OK);
    assert_int_equal(tess_dir_make(at("gone")), TESS_OK);
    put(at("keep/file"), "x");
    assert_int_equal(symlink(at("keep"), at("gone/link")), 0);
    assert_int_equal(tess_dir_remove(at("gone")), TESS_OK);
    assert_holds(at("keep/file"), "x");
}

static void test_list(void **state)
{
    (void)state;
    tess_names names = {0};
    assert_int_equal(tess_dir_make(at("b/deep/er")), TESS_OK);
    put(at("z"), "");
    put(at("B"), "");
    put(at("b/2"), "");
    put(at("b/deep/er/1"), "");
    assert_int_equal(symlink(at("b"), at("loop")), 0);
    assert_int_equal(symlink(at("z"), at("y")), 0);
    assert_int_equal(symlink(at("none"), at("x")), 0);
    assert_int_equal(tess_dir_list(root, false, &names), TESS_OK);
    const char *flat[] = {"B", "b", "loop", "x", "y", "z"};
    assert_int_equal(names.n_names, 6);
    for (size_t i = 0; i < 6; i++) {
        assert_string_equal(names.names[i], flat[i]);
    }
    tess_names_deinit(&names);
    assert_int_equal(tess_dir_list(root, true, &names), TESS_OK);
    const char *deep[] = {"B", "b/2", "b/deep/er/1", "y", "z"};
    assert_int_equal(names.n_names, 5);
    for (size_t i = 0; i < 5; i++) {
        assert_string_equal(names.names[i], deep[i]);
    }
    tess_names_deinit(&names);
    assert_int_equal(tess_dir_list(at("none"), true, &names), TESS_IO);
    assert_int_equal(names.n_names, 0);
}

static void test_list_under_allocation_faults(void **state)
{
    (void)state;
    assert_int_equal(tess_dir_make(at("b/c")), TESS_OK);
    for (int i = 0; i < 20; i++) {
        char name[16];
        snprintf(name, sizeof name, "b/%d", i);
        put(at(name), "");
    }
    for (int64_t nth = 1;; nth++) {
        tess_names names = {0};
        tess_fault_set(TESS_FAULT_ALLOC, nth, false);
        tess_status st = tess_dir_list(root, true, &names);
        bool reached = tess_fault_count(TESS_FAULT_ALLOC) >= nth;
        assert_int_equal(st, reached ? TESS_NOMEM : TESS_OK);
        assert_int_equal(names.n_names, reached ? 0 : 20);
        tess_names_deinit(&names);
        if (!reached) {
            assert_true(nth > 20);
            return;
        }
    }
}

static void test_path_parent(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"a", "."},  {"a/", "."}, {"a/b", "a"}, {"a/b/", "a"},  {"a//b", "a"},
        {"/a", "/"}, {"/", "/"},  {"//a", "/"}, {"/a/b", "/a"},
    };
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        char *parent = tess__path_parent(cases[i][0]);
        assert_string_equal(parent, cases[i][1]);
        tess_free(parent);
    }
}

/* The environment's fault is read once, so it is seen in a program of its own: this one. */
static void test_fault_from_environment(void **state)
{
    (void)state;
    char program[512] = "", command[1024];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    assert_true(n > 0);
    static const struct {
        const char *spec;
        int expected;
    } cases[] = {{"rename:1", 1}, {"fsync:2", 1},  {"fsync:1+", 1}, {"write:2", 0},
                 {"alloc:1", 1},  {"nonsense", 0}, {"write:0", 0},  {"write:1x", 0}};
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        snprintf(command, sizeof command, "TESSERA_FAULT=%s '%s' write '%s'", cases[i].spec,
                 program, at("f"));
        int rc = system(command);
        assert_true(WIFEXITED(rc));
        assert_int_equal(WEXITSTATUS(rc), cases[i].expected);
    }
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "write") == 0) {
        return tess_file_write(argv[2], "x", 1) == TESS_OK ? 0 : 1;
    }
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_root, remove_root)
    const struct CMUnitTest tests[] = {
        TEST(test_read_limits_and_errors),
        TEST(test_read_what_has_no_size),
        TEST(test_map),
        TEST(test_writer_is_absent_until_commit),
        TEST(test_writer_large_and_small_writes),
        TEST(test_writer_refuses_bad_places),
        TEST(test_writer_whole_or_absent_under_faults),
        TEST(test_failed_rename_and_fsync_keep_the_old_file),
        TEST(test_writer_syncs_file_and_directory),
        TEST(test_dead_writer_stays_dead),
        TEST(test_appender_goes_on_and_cuts_back),
        TEST(test_appender_torn_write_is_cut_off),
        TEST(test_appender_failed_sync_is_final),
        TEST(test_appender_under_allocation_faults),
        TEST(test_dirs),
        TEST(test_replace),
        TEST(test_remove_does_not_follow_links),
        TEST(test_list),
        TEST(test_list_under_allocation_faults),
        TEST(test_path_parent),
        TEST(test_fault_from_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
