/* SPDX-License-Identifier: Apache-2.0 */
/* Status, allocation, growth, arenas, buffers, fault injection. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <pthread.h>
#include <unistd.h>
#include <cmocka.h>

#include "tessera/base.h"

static int switch_faults_off(void **state)
{
    (void)state;
    for (int kind = 0; kind < TESS_FAULT_KINDS; kind++) {
        tess_fault_set((tess_fault)kind, 0, false);
    }
    return 0;
}

static void test_status_names(void **state)
{
    (void)state;
    assert_string_equal(tess_status_name(TESS_OK), "ok");
    assert_string_equal(tess_status_name(TESS_INVALID), "invalid");
    assert_string_equal(tess_status_name(TESS_CANCELLED), "cancelled");
    assert_string_equal(tess_status_name((tess_status)-9), "unknown");
    assert_string_equal(tess_status_name((tess_status)1), "unknown");
}

static void test_message_and_prefix(void **state)
{
    (void)state;
    assert_int_equal(TESS_FAIL(TESS_FORMAT, "expected %d, found %d", 1, 2), TESS_FORMAT);
    assert_string_equal(tess_error(), "expected 1, found 2");
    assert_int_equal(tess_error_prefix(TESS_FORMAT, "a.tar: sample %d", 7), TESS_FORMAT);
    assert_string_equal(tess_error(), "a.tar: sample 7: expected 1, found 2");
    assert_int_equal(TESS_FAIL(TESS_IO, "again: %s", tess_error()), TESS_IO);
    assert_string_equal(tess_error(), "again: a.tar: sample 7: expected 1, found 2");
}

static void test_long_messages_are_cut(void **state)
{
    (void)state;
    char big[5000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    (void)TESS_FAIL(TESS_IO, "%s", big);
    assert_int_equal(strlen(tess_error()), 2047);
    (void)tess_error_prefix(TESS_IO, "p");
    assert_int_equal(strlen(tess_error()), 2047);
    assert_memory_equal(tess_error(), "p: xxx", 6);
    (void)tess_error_prefix(TESS_IO, "%s", big);
    assert_int_equal(strlen(tess_error()), 2047);
}

static void *fail_elsewhere(void *arg)
{
    (void)arg;
    (void)TESS_FAIL(TESS_IO, "another thread's");
    return NULL;
}

static void test_message_is_the_threads_own(void **state)
{
    (void)state;
    pthread_t thread;
    (void)TESS_FAIL(TESS_IO, "mine");
    assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, NULL), 0);
    pthread_join(thread, NULL);
    assert_string_equal(tess_error(), "mine");
}

static void test_alloc_is_zeroed_and_aligned(void **state)
{
    (void)state;
    for (size_t n = 0; n < 300; n += 7) {
        uint8_t *p = tess_alloc(n);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(p[i], 0);
        }
        memset(p, 0xFF, n);
        tess_free(p);
    }
    tess_free(NULL);
}

/* Of what the kernel gives, pages that nobody has touched are none of the process's. */
static void test_large_memory_is_not_there_until_touched(void **state)
{
    (void)state;
    enum { N = 40 << 20, STRIDE = 4093 };
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (int round = 0; round < 2; round++) {
        uint8_t *p = tess_alloc(N);
        unsigned char there[N / 4096 + 1];
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        uint8_t *begin = p + (page - (uintptr_t)p % page) % page;
        const size_t n_pages = (size_t)(p + N - begin) / page;
        assert_int_equal(mincore(begin, n_pages * page, there), 0);
        size_t n_there = 0, sum = p[N - 1];
        for (size_t i = 0; i < n_pages; i++) {
            n_there += there[i] & 1;
        }
        assert_in_range(n_there, 0, 8);
        for (size_t i = 0; i < N; i += STRIDE) {
            sum += p[i];
        }
        assert_int_equal(sum, 0);
        memset(p, 0xFF, N);
        tess_free(p);
    }
}

static void test_impossible_sizes(void **state)
{
    (void)state;
    assert_null(tess_alloc(SIZE_MAX));
    assert_null(tess_alloc_array(SIZE_MAX / 2, 3));
    assert_non_null(strstr(tess_error(), "out of memory"));
    assert_null(tess_strndup("", SIZE_MAX));
    tess_arena a = {0};
    assert_null(tess_arena_alloc(&a, SIZE_MAX));
    assert_null(tess_arena_alloc(&a, SIZE_MAX - 64));
    assert_null(tess_arena_strndup(&a, "", SIZE_MAX));
    tess_arena_deinit(&a);
    int64_t *items = NULL;
    size_t n_cap = 0;
    assert_int_equal(tess_grow(&items, &n_cap, SIZE_MAX / 4, 8), TESS_NOMEM);
    assert_null(items);
    assert_int_equal(n_cap, 0);
}

static void test_grow_keeps_and_zeroes(void **state)
{
    (void)state;
    uint32_t *items = NULL;
    size_t n_cap = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        assert_int_equal(tess_grow(&items, &n_cap, i + 1, sizeof *items), TESS_OK);
        assert_int_equal(items[i], 0);
        items[i] = i;
    }
    for (uint32_t i = 0; i < 1000; i++) {
        assert_int_equal(items[i], i);
    }
    tess_fault_set(TESS_FAULT_ALLOC, 1, false);
    uint32_t *before = items;
    assert_int_equal(tess_grow(&items, &n_cap, n_cap + 1, sizeof *items), TESS_NOMEM);
    assert_ptr_equal(items, before);
    assert_int_equal(items[999], 999);
    tess_free(items);
}

static void test_strings(void **state)
{
    (void)state;
    char *a = tess_strdup("tessera"), *b = tess_strndup("tessera", 4);
    char *c = tess_format("%s-%05d", "tile", 42);
    assert_string_equal(a, "tessera");
    assert_string_equal(b, "tess");
    assert_string_equal(c, "tile-00042");
    tess_free(a);
    tess_free(b);
    tess_free(c);
}

static void test_arena(void **state)
{
    (void)state;
    tess_arena a = {0};
    uint8_t *kept[200];
    for (size_t i = 0; i < 200; i++) {
        size_t n = i * 97 % 9000;
        kept[i] = tess_arena_alloc(&a, n);
        assert_non_null(kept[i]);
        assert_int_equal((uintptr_t)kept[i] % 16, 0);
        for (size_t k = 0; k < n; k++) {
            assert_int_equal(kept[i][k], 0);
        }
        memset(kept[i], (int)i, n);
    }
    for (size_t i = 0; i < 200; i++) {
        for (size_t k = 0; k < i * 97 % 9000; k++) {
            assert_int_equal(kept[i][k], (uint8_t)i);
        }
    }
    assert_string_equal(tess_arena_strndup(&a, "abcdef", 3), "abc");
    assert_string_equal(tess_arena_format(&a, "%d+%d", 1, 2), "1+2");
    tess_arena_deinit(&a);
    tess_arena_deinit(&a);
    tess_arena_deinit(NULL);
}

static void test_buf(void **state)
{
    (void)state;
    tess_buf b = {0};
    tess_buf_add(&b, "", 0);
    assert_string_equal(b.data, "");
    for (int i = 0; i < 500; i++) {
        tess_buf_addf(&b, "%03d,", i);
    }
    tess_buf_adds(&b, "end");
    assert_int_equal(b.n_bytes, 2003);
    assert_string_equal(b.data + 1996, "499,end");
    assert_int_equal(tess_buf_check(&b), TESS_OK);
    tess_buf_clear(&b);
    assert_string_equal(b.data, "");
    tess_buf_deinit(&b);
    tess_buf_deinit(NULL);
}

static void test_buf_latches_failure(void **state)
{
    (void)state;
    tess_buf b = {0};
    tess_buf_adds(&b, "ok");
    tess_fault_set(TESS_FAULT_ALLOC, 1, false);
    char big[100] = {0};
    tess_buf_add(&b, big, sizeof big);
    tess_buf_adds(&b, "x");
    assert_int_equal(b.n_bytes, 2);
    assert_int_equal(tess_buf_check(&b), TESS_NOMEM);
    tess_buf_deinit(&b);
}

static void test_faults_once_and_persistent(void **state)
{
    (void)state;
    tess_fault_set(TESS_FAULT_ALLOC, 2, false);
    void *p[4];
    for (int i = 0; i < 4; i++) {
        p[i] = tess_alloc(8);
        assert_int_equal(p[i] == NULL, i == 1);
    }
    assert_int_equal(tess_fault_count(TESS_FAULT_ALLOC), 4);
    for (int i = 0; i < 4; i++) {
        tess_free(p[i]);
    }
    tess_fault_set(TESS_FAULT_ALLOC, 2, true);
    for (int i = 0; i < 4; i++) {
        p[i] = tess_alloc(8);
        assert_int_equal(p[i] == NULL, i >= 1);
        tess_free(p[i]);
    }
    tess_fault_set(TESS_FAULT_ALLOC, 0, false);
    assert_int_equal(tess_fault_count(TESS_FAULT_ALLOC), 0);
}

static void *allocate_many(void *arg)
{
    int64_t *n_failed = arg;
    for (int i = 0; i < 10000; i++) {
        void *p = tess_alloc(1);
        *n_failed += p == NULL;
        tess_free(p);
    }
    return NULL;
}

static void test_faults_hit_once_among_threads(void **state)
{
    (void)state;
    enum { N = 4 };
    pthread_t threads[N];
    int64_t n_failed[N] = {0}, total = 0;
    tess_fault_set(TESS_FAULT_ALLOC, 20000, false);
    for (int i = 0; i < N; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, allocate_many, &n_failed[i]), 0);
    }
    for (int i = 0; i < N; i++) {
        pthread_join(threads[i], NULL);
        total += n_failed[i];
    }
    assert_int_equal(total, 1);
    assert_int_equal(tess_fault_count(TESS_FAULT_ALLOC), 40000);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_teardown(f, switch_faults_off)
    const struct CMUnitTest tests[] = {
        TEST(test_status_names),
        TEST(test_message_and_prefix),
        TEST(test_long_messages_are_cut),
        TEST(test_message_is_the_threads_own),
        TEST(test_alloc_is_zeroed_and_aligned),
        TEST(test_large_memory_is_not_there_until_touched),
        TEST(test_impossible_sizes),
        TEST(test_grow_keeps_and_zeroes),
        TEST(test_strings),
        TEST(test_arena),
        TEST(test_buf),
        TEST(test_buf_latches_failure),
        TEST(test_faults_once_and_persistent),
        TEST(test_faults_hit_once_among_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
