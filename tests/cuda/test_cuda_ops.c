/* SPDX-License-Identifier: Apache-2.0 */
/* The operators' cases through the CUDA kernels, on the emulated card; and the emulation itself, on
 * kernels with planted faults. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <unistd.h>

#include "cuda/emulate_control.h"
#include "cuda/planted.h"
#include "tensor/cuda_attention.h"
#include "tensor/op_driver.h"
#include "tensor/plan.h"

static const tess_remote *card(void)
{
    const tess_device *d;
    assert_int_equal(tess_device_cuda(&d), TESS_OK);
    return d->remote;
}

static void disturb(int how)
{
    emulate_set_order(how == 2 ? EMULATE_BACKWARD : how == 3 ? EMULATE_SHUFFLED : EMULATE_FORWARD);
}

/* Operators that no card needs: they serve packed weights on processors. */
static bool for_processors(const tess_op *op)
{
    return strcmp(op->name, "packed_linear") == 0 || strcmp(op->name, "all_gather") == 0 ||
           strcmp(op->name, "shard_gather") == 0;
}

static const char *check_case(const tess_op *op, const tess_case *c)
{
    static char fault[600];
    driver d = {.op = op, .c = c, .remote = card(), .disturb = disturb};
    const char *found = driver_check(&d);
    emulate_set_order(EMULATE_FORWARD);
    snprintf(fault, sizeof fault, "%s", found ? found : "");
    driver_free(&d);
    emulate_reset();
    return found ? fault : NULL;
}

static void check_all_cases(void **state)
{
    (void)state;
    const char *only = getenv("TESS_OP");
    tess__cuda_attention_use(TESS_ATTENTION_OURS); /* cuDNN's: test_cuda_cudnn */
    int failed = 0;
    for (int i = 0; i < tess__n_ops; i++) {
        const tess_op *op = tess__ops[i];
        if (for_processors(op) || (only && strcmp(only, op->name) != 0)) {
            continue;
        }
        for (int k = 0; k < op->n_cases; k++) {
            if (op->cases[k].on_processors || strcmp(op->cases[k].name, "part") == 0) {
                continue; /* a part is of a rank's objective: ranks train on processors */
            }
            const char *fault = check_case(op, &op->cases[k]);
            if (fault) {
                print_message("%s/%s: %s\n", op->name, op->cases[k].name, fault);
                failed++;
            }
        }
    }
    assert_int_equal(failed, 0);
}

#ifndef TESS_REAL_CARD

/* ---- planted faults ---------------------------------------------------------------------------
 */

enum { N = 100 };

/* y = 2 x through the card; NULL or the fault. */
static const char *run_planted(planted what, emulate_order order, float *y)
{
    const tess_remote *r = card();
    float x[N];
    void *dx, *dy;
    for (int i = 0; i < N; i++) {
        x[i] = (float)i;
    }
    emulate_set_order(order);
    assert_int_equal(r->alloc(sizeof x, &dx), TESS_OK);
    assert_int_equal(r->alloc(sizeof x, &dy), TESS_OK);
    assert_int_equal(r->upload(dx, x, sizeof x), TESS_OK);
    planted_launch(what, dy, dx, N, r->stream());
    const tess_status st = r->download(y, dy, sizeof x);
    static char fault[300];
    snprintf(fault, sizeof fault, "%s", emulate_fault());
    emulate_reset();
    emulate_set_order(EMULATE_FORWARD);
    r->free(dx);
    r->free(dy);
    emulate_reset();
    return st ? fault : NULL;
}

static void check_right_kernel(void **state)
{
    (void)state;
    for (int order = EMULATE_FORWARD; order <= EMULATE_SHUFFLED; order++) {
        float y[N];
        assert_null(run_planted(PLANTED_NONE, (emulate_order)order, y));
        for (int i = 0; i < N; i++) {
            assert_true(y[i] == 2 * (float)i);
        }
    }
}

static void check_planted_faults(void **state)
{
    (void)state;
    static const struct {
        planted what;
        const char *says;
    } faults[] = {
        {PLANTED_BEYOND, "beyond a block of device memory"},
        {PLANTED_SHARED, "beyond its shared memory"},
        {PLANTED_DIVERGED, "before a barrier"},
        {PLANTED_LANES, "lanes that never come"},
    };
    for (int64_t i = 0; i < TESS_COUNT(faults); i++) {
        float y[N];
        const char *fault = run_planted(faults[i].what, EMULATE_FORWARD, y);
        assert_non_null(fault);
        assert_non_null(strstr(fault, faults[i].says));
    }
    float y[N];
    assert_null(run_planted(PLANTED_UNSET, EMULATE_FORWARD, y));
    assert_true(isnan(y[3]));
}

/* ThreadSanitizer reports this one, as it should. */
static void check_planted_race(void **state)
{
    (void)state;
#if defined __SANITIZE_THREAD__
    skip();
#endif
    float forward[N], backward[N];
    assert_null(run_planted(PLANTED_RACE, EMULATE_FORWARD, forward));
    assert_null(run_planted(PLANTED_RACE, EMULATE_BACKWARD, backward));
    assert_memory_not_equal(forward, backward, sizeof forward);
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
#ifndef TESS_REAL_CARD
        cmocka_unit_test(check_right_kernel),
        cmocka_unit_test(check_planted_faults),
        cmocka_unit_test(check_planted_race),
#endif
        cmocka_unit_test(check_all_cases),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
