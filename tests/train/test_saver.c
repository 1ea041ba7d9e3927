/* SPDX-License-Identifier: Apache-2.0 */
/* The saver: files hold what the tensors were at the start, however early they change and however
 * little memory there is for copies; failures come back, once, and hold nothing up. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "train/saver.h"

enum { N_TENSORS = 7, PIECE = 16 << 10, N_FLOATS = 50000 };

static char root[64], paths[2][80];
static float *values;
static tess_tensor tensors[N_TENSORS];

static int set_up(void **state)
{
    (void)state;
    static const int64_t counts[N_TENSORS] = {16384, 8192, 1, 9000, 100, 0, 12345};
    static const char *const names[N_TENSORS] = {"a", "b", "c", "d", "e", "f", "g"};
    strcpy(root, access("build", W_OK) == 0 ? "build/saver-XXXXXX" : "/tmp/saver-XXXXXX");
    values = aligned_alloc(4096, N_FLOATS * sizeof *values / 4096 * 4096 + 4096);
    if (!values || !mkdtemp(root)) {
        return -1;
    }
    for (int i = 0, at = 0; i < N_TENSORS; at += (int)counts[i++]) {
        tensors[i] = (tess_tensor){.name = names[i],
                                   .dtype = "F32",
                                   .shape = {1, {counts[i]}},
                                   .data = (const uint8_t *)(values + at),
                                   .n_bytes = (size_t)counts[i] * sizeof *values};
    }
    snprintf(paths[0], sizeof paths[0], "%s/one", root);
    snprintf(paths[1], sizeof paths[1], "%s/two", root);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (int kind = 0; kind < TESS_FAULT_KINDS; kind++) {
        tess_fault_set((tess_fault)kind, 0, false);
    }
    free(values);
    return tess_dir_remove(root) == TESS_OK ? 0 : -1;
}

static void set_values(float first)
{
    for (int i = 0; i < N_FLOATS; i++) {
        values[i] = first + (float)i;
    }
}

/* ---- a job --------------------------------------------------------------------------------- */

typedef struct hooks {
    pthread_mutex_t gate; /* held: `before` waits */
    int n_before, n_after, n_free;
    uint64_t crc[2];
    tess_saver_file files[2];
    tess_status after;
} hooks;

static tess_status before(void *ctx)
{
    hooks *h = ctx;
    pthread_mutex_lock(&h->gate);
    h->n_before++;
    pthread_mutex_unlock(&h->gate);
    return TESS_OK;
}

static tess_status after(void *ctx)
{
    hooks *h = ctx;
    h->n_after++;
    for (int i = 0; i < 2; i++) {
        h->crc[i] = h->files[i].crc;
    }
    return h->after ? TESS_FAIL(h->after, "said so") : TESS_OK;
}

static void note_free(void *ctx)
{
    ((hooks *)ctx)->n_free++;
}

static hooks make_hooks(void)
{
    hooks h = {.files = {{.path = paths[0], .tensors = tensors, .n = N_TENSORS},
                         {.path = paths[1], .tensors = tensors, .n = 2}}};
    pthread_mutex_init(&h.gate, NULL);
    return h;
}

static tess_status start(tess_saver *s, hooks *h)
{
    return tess__saver_start(s, &(tess_saver_job){.files = h->files,
                                                  .n_files = 2,
                                                  .before = before,
                                                  .after = after,
                                                  .free = note_free,
                                                  .ctx = h});
}

static tess_saver *new_saver(size_t copy_bytes)
{
    tess_saver *s = NULL;
    assert_int_equal(
        tess__saver_new(&(tess_saver_options){.copy_bytes = copy_bytes, .piece_bytes = PIECE}, &s),
        TESS_OK);
    return s;
}

/* The files are those that tess_tensors_save writes of these values, and their sums theirs. */
static void assert_saved(const hooks *h, float first)
{
    char *plain = tess_format("%s/plain", root);
    set_values(first);
    for (int i = 0; i < 2; i++) {
        tess_bytes want, have;
        assert_int_equal(tess_tensors_save(plain, tensors, h->files[i].n, NULL, 0), TESS_OK);
        assert_int_equal(tess_file_map(plain, &want), TESS_OK);
        assert_int_equal(tess_file_map(paths[i], &have), TESS_OK);
        assert_int_equal(have.n_bytes, want.n_bytes);
        assert_memory_equal(have.data, want.data, want.n_bytes);
        assert_true(h->crc[i] == tess_crc64(0, want.data, want.n_bytes));
        tess_file_unmap(&want);
        tess_file_unmap(&have);
    }
    tess_free(plain);
}

/* ---- tests --------------------------------------------------------------------------------- */

static void test_saves(void **state)
{
    (void)state;
    tess_saver *s = new_saver(0);
    hooks h = make_hooks();
    set_values(1);
    assert_int_equal(start(s, &h), TESS_OK);
    assert_int_equal(tess__saver_end(s, true), TESS_OK);
    assert_int_equal(h.n_before + 10 * h.n_after + 100 * h.n_free, 111);
    assert_saved(&h, 1);
    assert_int_equal(tess__saver_end(s, true), TESS_OK);
    tess__saver_settle(s); /* nothing is under way */
    tess__saver_free(s);
    assert_int_equal(h.n_free, 1);
}

/* The job cannot begin before all is copied: what is written later are the copies. */
static void test_changes_before_anything_is_written(void **state)
{
    (void)state;
    tess_saver *s = new_saver(64 * PIECE);
    hooks h = make_hooks();
    set_values(2);
    pthread_mutex_lock(&h.gate);
    assert_int_equal(start(s, &h), TESS_OK);
    tess__saver_settle(s);
    set_values(-5e6f);
    tess__saver_settle(s);
    set_values(-6e6f);
    assert_int_equal(tess__saver_end(s, false), TESS_OK);
    assert_int_equal(h.n_after, 0);
    pthread_mutex_unlock(&h.gate);
    assert_int_equal(tess__saver_end(s, true), TESS_OK);
    assert_true(tess__saver_stats(s).n_copied > 15);
    assert_saved(&h, 2);
    tess__saver_free(s);
}

/* Steps of all lengths, with memory for everything, for three pieces, and for none. */
static void test_changes_at_any_time(void **state)
{
    (void)state;
    static const size_t copies[] = {64 * PIECE, 3 * PIECE, 0};
    for (int round = 0; round < 30; round++) {
        tess_saver *s = new_saver(copies[round % 3]);
        hooks h = make_hooks();
        set_values((float)round);
        assert_int_equal(start(s, &h), TESS_OK);
        for (int step = 1; step < 4; step++) {
            usleep((useconds_t)(round / 3 * 80));
            tess__saver_settle(s);
            set_values(-1e6f * (float)step);
        }
        assert_int_equal(tess__saver_end(s, true), TESS_OK);
        assert_saved(&h, (float)round);
        tess__saver_free(s);
    }
}

static void test_jobs_follow_each_other(void **state)
{
    (void)state;
    tess_saver *s = new_saver(5 * PIECE);
    hooks first = make_hooks(), second = make_hooks();
    set_values(3);
    assert_int_equal(start(s, &first), TESS_OK);
    tess__saver_settle(s);
    set_values(4);
    assert_int_equal(start(s, &second), TESS_OK);
    assert_int_equal(first.n_after + 10 * first.n_free, 11);
    tess__saver_settle(s);
    set_values(5);
    tess__saver_free(s); /* waits */
    assert_int_equal(second.n_after + 10 * second.n_free, 11);
    assert_saved(&second, 4);
}

static void test_a_failure_is_told_once(void **state)
{
    (void)state;
    tess_saver *s = new_saver(0);
    hooks h = make_hooks();
    h.after = TESS_IO;
    assert_int_equal(start(s, &h), TESS_OK);
    assert_int_equal(tess__saver_end(s, true), TESS_IO);
    assert_string_equal(tess_error(), "said so");
    assert_int_equal(tess__saver_end(s, true), TESS_OK);
    assert_int_equal(start(s, &h), TESS_OK);
    hooks other = make_hooks();
    assert_int_equal(start(s, &other), TESS_IO); /* of the one before */
    assert_int_equal(other.n_before + 10 * other.n_free, 10);
    assert_int_equal(h.n_free, 2);
    tess__saver_free(s);
}

/* Every write, fsync and allocation fails once: the job fails, settling does not wait for it, and
 * the next job is whole. */
static void test_faults(void **state)
{
    (void)state;
    static const tess_fault kinds[] = {TESS_FAULT_WRITE, TESS_FAULT_FSYNC, TESS_FAULT_ALLOC};
    for (int64_t k = 0; k < TESS_COUNT(kinds); k++) {
        tess_status st = TESS_OK;
        int64_t nth = 0;
        do {
            tess_saver *s = new_saver(2 * PIECE);
            hooks h = make_hooks();
            set_values(7);
            tess_fault_set(kinds[k], ++nth, false);
            st = start(s, &h);
            tess__saver_settle(s);
            set_values(8);
            st = st ? st : tess__saver_end(s, true);
            tess_fault_set(kinds[k], 0, false);
            assert_int_equal(h.n_free, 1);
            assert_int_equal(h.n_after, st == TESS_OK);
            hooks again = make_hooks();
            assert_int_equal(start(s, &again), TESS_OK);
            assert_int_equal(tess__saver_end(s, true), TESS_OK);
            assert_saved(&again, 8);
            tess__saver_free(s);
        } while (st != TESS_OK || (kinds[k] == TESS_FAULT_ALLOC && nth < 40));
        assert_true(nth > (kinds[k] == TESS_FAULT_FSYNC ? 2 : 10));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_saves),
        cmocka_unit_test(test_changes_before_anything_is_written),
        cmocka_unit_test(test_changes_at_any_time),
        cmocka_unit_test(test_jobs_follow_each_other),
        cmocka_unit_test(test_a_failure_is_told_once),
        cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
