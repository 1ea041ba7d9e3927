/* SPDX-License-Identifier: Apache-2.0 */
/* Files that are filled by ranges: from threads and through two writers, with memory and places of
 * any alignment; their sums; and what fails. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "tessera/base.h"

enum { N_BYTES = (5 << 20) + 777, N_WRITERS = 2, N_THREADS = 3, N_CUTS = 40 };

static char root[64];
static uint8_t *content;

/* On a disk where there is one: what goes past the page cache is tested there. */
static int set_up(void **state)
{
    (void)state;
    strcpy(root, access("build", W_OK) == 0 ? "build/ranges-XXXXXX" : "/tmp/ranges-XXXXXX");
    content = calloc(N_BYTES + 1, 1);
    for (size_t i = 0; i < N_BYTES; i++) {
        content[i] = (uint8_t)tess_philox(1, 2, i).v[0];
    }
    return content && mkdtemp(root) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    for (int kind = 0; kind < TESS_FAULT_KINDS; kind++) {
        tess_fault_set((tess_fault)kind, 0, false);
    }
    free(content);
    return tess_dir_remove(root) == TESS_OK ? 0 : -1;
}

static const char *path(void)
{
    static char text[80];
    snprintf(text, sizeof text, "%s/file", root);
    return text;
}

/* ---- sums ---------------------------------------------------------------------------------- */

static void test_crc64_vectors(void **state)
{
    (void)state;
    for (int isa = TESS_ISA_BASE; isa <= TESS_ISA_AVX2; isa++) {
        tess_isa_cap((tess_isa)isa);
        assert_true(tess_crc64(0, "", 0) == 0);
        assert_true(tess_crc64(0, "123456789", 9) == 0xae8b14860a799888); /* the catalogue's */
        assert_true(tess_crc64(tess_crc64(0, "1234", 4), "56789", 5) == 0xae8b14860a799888);
    }
    for (size_t n = 4000; n < 4400; n += 7) {
        tess_isa_cap(TESS_ISA_BASE);
        const uint64_t plain = tess_crc64(n, content + n % 5, n);
        tess_isa_cap(TESS_ISA_AVX2);
        assert_true(tess_crc64(n, content + n % 5, n) == plain);
    }
    tess_isa_cap(TESS_ISA_COUNT - 1);
}

static void test_crc64_joins(void **state)
{
    (void)state;
    const uint64_t whole = tess_crc64(0, content, N_BYTES);
    static const size_t cuts[] = {0, 1, 4095, 1 << 20, N_BYTES};
    for (int64_t i = 0; i < TESS_COUNT(cuts); i++) {
        const size_t n = cuts[i];
        assert_true(tess_crc64_join(tess_crc64(0, content, n),
                                    tess_crc64(0, content + n, N_BYTES - n), N_BYTES - n) == whole);
    }
}

static void test_what_is_missing_or_twice(void **state)
{
    (void)state;
    uint64_t crc;
    tess_range_sum hole[] = {{0, 10, 1}, {20, 10, 2}}, twice[] = {{0, 10, 1}, {0, 10, 1}};
    tess_range_sum late[] = {{5, 5, 1}}, over[] = {{0, 10, 1}, {5, 5, 2}, {10, 5, 3}};
    assert_int_equal(tess_range_sums_whole(hole, 2, 30, &crc), TESS_INVALID);
    assert_int_equal(tess_range_sums_whole(twice, 2, 10, &crc), TESS_INVALID);
    assert_int_equal(tess_range_sums_whole(late, 1, 10, &crc), TESS_INVALID);
    assert_int_equal(tess_range_sums_whole(over, 3, 15, &crc), TESS_INVALID);
    assert_int_equal(tess_range_sums_whole(NULL, 0, 10, &crc), TESS_INVALID);
}

/* ---- writing ------------------------------------------------------------------------------- */

typedef struct job {
    tess_range_writer *w[N_WRITERS];
    const size_t *cuts;
    int first, misplaced;
} job;

/* Every N_THREADS-th range, from memory that lies `misplaced` bytes behind a page's beginning. */
static void *write_ranges(void *ctx)
{
    const job *j = ctx;
    uint8_t *memory = NULL;
    assert_int_equal(posix_memalign((void **)&memory, 4096, N_BYTES + 8192), 0);
    for (int i = j->first; i < N_CUTS; i += N_THREADS) {
        const size_t begin = j->cuts[i], n = j->cuts[i + 1] - begin;
        uint8_t *at = memory + begin % 4096 + (size_t)j->misplaced;
        memcpy(at, content + begin, n);
        if (tess_range_writer_write(j->w[i % N_WRITERS], (int64_t)begin, at, n) != TESS_OK) {
            fail_msg("%s", tess_error());
        }
    }
    free(memory);
    return NULL;
}

static int by_value(const void *a, const void *b)
{
    const size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return x < y ? -1 : x > y;
}

static void fill_by_threads(const size_t *cuts, int misplaced)
{
    job jobs[N_THREADS];
    pthread_t threads[N_THREADS];
    tess_range_writer *w[N_WRITERS];
    tess_range_sum *sums[N_WRITERS], all[2 * N_CUTS];
    size_t n[N_WRITERS], n_all = 0;
    for (int i = 0; i < N_WRITERS; i++) {
        assert_int_equal(tess_range_writer_open(path(), N_BYTES, i == 0, &w[i]), TESS_OK);
    }
    for (int i = 0; i < N_THREADS; i++) {
        jobs[i] = (job){.w = {w[0], w[1]}, .cuts = cuts, .first = i, .misplaced = misplaced};
        assert_int_equal(pthread_create(&threads[i], NULL, write_ranges, &jobs[i]), 0);
    }
    for (int i = 0; i < N_THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    for (int i = 0; i < N_WRITERS; i++) {
        assert_int_equal(tess_range_writer_close(w[i], &sums[i], &n[i]), TESS_OK);
        memcpy(all + n_all, sums[i], n[i] * sizeof *all);
        n_all += n[i];
        tess_free(sums[i]);
    }
    uint64_t crc;
    tess_bytes map;
    assert_int_equal(tess_range_sums_whole(all, n_all, N_BYTES, &crc), TESS_OK);
    assert_true(crc == tess_crc64(0, content, N_BYTES));
    assert_int_equal(tess_file_map(path(), &map), TESS_OK);
    assert_int_equal(map.n_bytes, N_BYTES);
    assert_memory_equal(map.data, content, N_BYTES);
    tess_file_unmap(&map);
}

static void test_any_ranges(void **state)
{
    (void)state;
    static const int misplaced[] = {0, 512, 64, 1};
    for (uint32_t round = 0; round < 8; round++) {
        size_t cuts[N_CUTS + 1] = {0};
        const size_t unit = round < 4 ? 4096 : 1;
        for (int i = 1; i < N_CUTS; i++) {
            cuts[i] = tess_philox(round, 0, (uint64_t)i).v[0] % N_BYTES / unit * unit;
        }
        cuts[N_CUTS] = N_BYTES;
        qsort(cuts, N_CUTS + 1, sizeof *cuts, by_value);
        fill_by_threads(cuts, misplaced[round % 4]);
    }
}

static void test_ranges_outside(void **state)
{
    (void)state;
    tess_range_writer *w;
    assert_int_equal(tess_range_writer_open(path(), 100, true, &w), TESS_OK);
    assert_int_equal(tess_range_writer_write(w, 1, content, 100), TESS_INVALID);
    assert_int_equal(tess_range_writer_write(w, -1, content, 1), TESS_INVALID);
    assert_int_equal(tess_range_writer_write(w, 101, content, 0), TESS_INVALID);
    assert_int_equal(tess_range_writer_write(w, 100, content, 0), TESS_OK);
    tess_range_writer_abort(w);
    assert_int_equal(tess_range_writer_open("/nowhere/file", 100, true, &w), TESS_IO);
    assert_null(w);
}

static tess_status write_once(const uint8_t *data)
{
    tess_range_writer *w;
    tess_range_sum *sums = NULL;
    size_t n;
    TESS_TRY(tess_range_writer_open(path(), N_BYTES, true, &w));
    tess_status st = tess_range_writer_write(w, 0, data, N_BYTES);
    if (st) {
        tess_range_writer_abort(w);
        return st;
    }
    st = tess_range_writer_close(w, &sums, &n);
    tess_free(sums);
    return st;
}

static void test_faults(void **state)
{
    (void)state;
    static const tess_fault kinds[] = {TESS_FAULT_ALLOC, TESS_FAULT_WRITE, TESS_FAULT_FSYNC};
    for (int64_t k = 0; k < TESS_COUNT(kinds); k++) {
        int64_t n = 0;
        tess_status st = TESS_OK;
        do {
            tess_fault_set(kinds[k], ++n, false);
            st = write_once(content + 1);
            assert_int_equal(st, st == TESS_OK                  ? TESS_OK
                                 : kinds[k] == TESS_FAULT_ALLOC ? TESS_NOMEM
                                                                : TESS_IO);
        } while (st);
        assert_true(n > (kinds[k] == TESS_FAULT_FSYNC ? 1 : 3));
        tess_fault_set(kinds[k], 0, false);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc64_vectors),
        cmocka_unit_test(test_crc64_joins),
        cmocka_unit_test(test_what_is_missing_or_twice),
        cmocka_unit_test(test_any_ranges),
        cmocka_unit_test(test_ranges_outside),
        cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
