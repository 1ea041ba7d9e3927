/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA device without its operators: what it says where there is no card to use, copies of
 * states, plans that run, are recorded and replayed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cuda/emulate_control.h"
#include "tensor/plan.h"

/* ---- opening --------------------------------------------------------------------------------- */

#ifndef TESS_REAL_CARD

/* The card is opened once a process, so each way of having none is a child's. */
static void check_sentence(const char *driver, const char *says)
{
    const pid_t child = fork();
    if (child == 0) {
        const tess_device *d = NULL;
        setenv("EMULATE_DRIVER", driver, 1);
        const bool refused = tess_device_cuda(&d) == TESS_DEVICE && !d;
        _exit(refused && strstr(tess_error(), says) && strstr(tess_error(), "--device cpu") ? 0
                                                                                            : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void check_no_card(void **state)
{
    (void)state;
    check_sentence("missing", "no NVIDIA driver is installed");
    check_sentence("old", "serves CUDA 11.4, this program needs 13.0");
    check_sentence("none", "no NVIDIA card is visible");
    check_sentence("sm_70", "compute capability 7.0");
}

#endif

/* ---- a plan ---------------------------------------------------------------------------------- */

enum { N = 1000 };

typedef struct world {
    tess_graph *g;
    tess_store *store;
    tess_workspace *workspace;
    tess_plan *plan;
    tess_value y;
    float x[N];
} world;

/* y = (x + a) + x, and a is held between -1 and 1 afterwards. */
static void begin(world *w, const tess_device *device)
{
    w->g = tess_graph_new();
    w->store = tess_store_new();
    w->workspace = tess_workspace_new();
    const tess_shape s = TESS_SHAPE_OF(N);
    const tess_value x = tess_input(w->g, "x", TESS_F32, s);
    const tess_value a = tess_state(w->g, "param", "a", TESS_F32, s);
    w->y = tess_add(w->g, tess_add(w->g, x, a), x);
    tess_clamp(w->g, a, -1, 1);
    assert_int_equal(tess_store_add(w->store, "param", "a", s), TESS_OK);
    assert_int_equal(tess_store_allocate(w->store), TESS_OK);
    float *host = tess_store_find(w->store, "param", "a", NULL);
    for (int i = 0; i < N; i++) {
        w->x[i] = (float)i;
        host[i] = (float)(i - 500) / 100;
    }
    assert_int_equal(tess_plan_build(w->g, &w->y, 1, device, w->store, w->workspace, &w->plan),
                     TESS_OK);
    assert_int_equal(tess_plan_bind(w->plan, "x", w->x), TESS_OK);
}

static void end(world *w)
{
    tess_plan_free(w->plan);
    tess_workspace_free(w->workspace);
    tess_store_free(w->store);
    tess_graph_free(w->g);
}

static float held(float a)
{
    return a < -1 ? -1 : a > 1 ? 1 : a;
}

static const tess_device *card(void)
{
    const tess_device *d;
    assert_int_equal(tess_device_cuda(&d), TESS_OK);
    return d;
}

/* The first run is step by step, the second is recorded, the third replayed; each reads its inputs
 * anew. */
static void check_runs(void **state)
{
    (void)state;
    world w;
    begin(&w, card());
    for (int run = 0; run < 4; run++) {
        for (int i = 0; i < N; i++) {
            w.x[i] = (float)(i * (run + 1));
        }
        assert_int_equal(tess_plan_run(w.plan), TESS_OK);
        const float *y = tess_plan_output(w.plan, w.y);
        for (int i = 0; i < N; i++) {
            const float a = (float)(i - 500) / 100;
            assert_true(y[i] == w.x[i] + (run == 0 ? a : held(a)) + w.x[i]);
        }
    }
    end(&w);
}

/* Of an input that is bound in part nothing is read beyond (AddressSanitizer), on either device. */
static void check_part(void **state)
{
    (void)state;
    const tess_device *devices[] = {tess_device_cpu(), card()};
    for (int d = 0; d < 2; d++) {
        world w;
        begin(&w, devices[d]);
        const size_t n = d == 0 ? N : N / 2; /* a processor's operator reads what is bound */
        float *part = tess_alloc_array(n, sizeof *part);
        assert_int_equal(tess_plan_bind_part(w.plan, "x", part, n * sizeof *part), TESS_OK);
        assert_int_equal(tess_plan_bind_part(w.plan, "z", part, 1), TESS_INVALID);
        for (int run = 0; run < 3; run++) {
            for (size_t i = 0; i < n; i++) {
                part[i] = (float)((int)i + 7 * run);
            }
            assert_int_equal(tess_plan_run(w.plan), TESS_OK);
            const float *y = tess_plan_output(w.plan, w.y);
            for (size_t i = 0; i < n; i++) {
                const float a = (float)((int)i - 500) / 100;
                assert_true(y[i] == part[i] + (run == 0 ? a : held(a)) + part[i]);
            }
        }
        tess_free(part);
        end(&w);
    }
}

#ifndef TESS_REAL_CARD

/* What fails behind the opening: a plan's first run, or what it allocates. */
static void check_child(const char *driver, tess_status status, const char *says)
{
    const pid_t child = fork();
    if (child == 0) {
        const tess_device *d;
        tess_feed f = {0};
        uint8_t *slot;
        void *at;
        setenv("EMULATE_DRIVER", driver, 1);
        tess_status st = tess_device_cuda(&d);
        st = st ? st : tess__feed_reserve(&f, d->remote, 1000);
        st = st ? st : tess__feed_begin(&f, 1000, &slot);
        st = st ? st : d->remote->alloc(64, &at);
        if (st == TESS_OK) {
            tess__cuda_sum_rows(at, at, 1, 16, d->remote->stream());
            st = tess__cuda_launched("sum");
        }
        _exit(st == status && strstr(tess_error(), says) ? 0 : 1);
    }
    int exit_status = -1;
    assert_int_equal(waitpid(child, &exit_status, 0), child);
    assert_int_equal(exit_status, 0);
}

static void check_no_code(void **state)
{
    (void)state;
    check_child("no_image", TESS_DEVICE,
                "sum: the program has no code for a card of this generation");
    check_child("no_pinned", TESS_NOMEM, "pinned host memory were asked for");
}

#endif

/* The host's copy of a state changes when it is asked for, and only then; and the other way. */
static void check_states(void **state)
{
    (void)state;
    world w;
    begin(&w, card());
    float *host = tess_store_find(w.store, "param", "a", NULL);
    assert_int_equal(tess_plan_run(w.plan), TESS_OK);
    assert_true(host[0] == -5.0f);
    assert_int_equal(tess_store_download(w.store, "param", "a"), TESS_OK);
    for (int i = 0; i < N; i++) {
        assert_true(host[i] == held((float)(i - 500) / 100));
    }
    host[7] = 0.25f;
    assert_int_equal(tess_store_upload(w.store, "param", ""), TESS_OK);
    assert_int_equal(tess_plan_run(w.plan), TESS_OK);
    assert_true(((const float *)tess_plan_output(w.plan, w.y))[7] == 2 * w.x[7] + 0.25f);
    end(&w);
}

static void check_debug(void **state)
{
    (void)state;
    world w;
    begin(&w, card());
    assert_int_equal(tess_plan_run_debug(w.plan), TESS_OK);
    w.x[3] = NAN;
    assert_int_equal(tess_plan_run_debug(w.plan), TESS_INVALID);
    assert_non_null(strstr(tess_error(), "element 3 of output 0 is not finite"));
    end(&w);
}

/* A workspace that another plan has made larger lies elsewhere; what was recorded is not replayed.
 */
static void check_moves(void **state)
{
    (void)state;
    world w;
    begin(&w, card());
    for (int run = 0; run < 3; run++) {
        assert_int_equal(tess_plan_run(w.plan), TESS_OK);
    }
    assert_int_equal(tess__workspace_reserve(w.workspace, card()->remote, 1 << 20), TESS_OK);
    for (int run = 0; run < 3; run++) {
        assert_int_equal(tess_plan_run(w.plan), TESS_OK);
        const float *y = tess_plan_output(w.plan, w.y);
        for (int i = 0; i < N; i++) {
            assert_true(y[i] == w.x[i] + held((float)(i - 500) / 100) + w.x[i]);
        }
    }
    end(&w);
}

static void check_profile(void **state)
{
    (void)state;
    world w;
    tess_buf b = {0};
    begin(&w, card());
    tess_plan_profile(w.plan, true);
    assert_int_equal(tess_plan_run(w.plan), TESS_OK);
    tess_plan_print_profile(w.plan, &b);
    assert_non_null(strstr(b.data, "add"));
    tess_buf_deinit(&b);
    end(&w);
}

/* The host's copy of a result is the last thing to be allocated; a program goes on without. */
static void check_lost_output(void **state)
{
    (void)state;
    world w;
    begin(&w, card());
    assert_int_equal(tess_plan_run(w.plan), TESS_OK);
    tess_fault_set(TESS_FAULT_ALLOC, 1, false);
    assert_null(tess_plan_output(w.plan, w.y));
    tess_fault_set(TESS_FAULT_ALLOC, 0, false);
    assert_non_null(strstr(tess_error(), "memory"));
    assert_non_null(tess_plan_output(w.plan, w.y));
    end(&w);
}

/* Scalars take another road than batches, and more of them are on it than it has slots. */
static void check_scalars(void **state)
{
    (void)state;
    tess_graph *g = tess_graph_new();
    tess_store *store = tess_store_new();
    tess_workspace *workspace = tess_workspace_new();
    tess_readback *back;
    tess_plan *plan;
    const tess_value x = tess_input(g, "x", TESS_F32, TESS_SHAPE_OF(1));
    const tess_value y = tess_add(g, x, x);
    float in, out;
    int64_t tag;
    bool there;
    assert_int_equal(tess_plan_build(g, &y, 1, card(), store, workspace, &plan), TESS_OK);
    assert_int_equal(tess_plan_bind(plan, "x", &in), TESS_OK);
    assert_int_equal(tess_readback_new(card(), 20, &back), TESS_OK);
    for (unsigned lanes = 0; lanes < 4; lanes++) {
        emulate_set_lanes(lanes);
        for (int i = 0; i < 20; i++) {
            in = (float)i;
            assert_int_equal(tess_plan_run(plan), TESS_OK);
            assert_int_equal(tess_readback_add(back, plan, y, i), TESS_OK);
        }
        assert_int_equal(tess_readback_add(back, plan, y, 20), TESS_INVALID);
        for (int i = 0; i < 20; i++) {
            assert_int_equal(tess_readback_read(back, true, &out, &tag, &there), TESS_OK);
            assert_true(there && tag == i && out == 2 * (float)i);
        }
        assert_int_equal(tess_readback_read(back, true, &out, &tag, &there), TESS_OK);
        assert_false(there);
    }
    emulate_set_lanes(0);
    tess_readback_free(back);
    tess_plan_free(plan);
    tess_workspace_free(workspace);
    tess_store_free(store);
    tess_graph_free(g);
}

/* More than any card has: the message says how much that was, and the card goes on. */
static void check_no_memory(void **state)
{
    (void)state;
    world w;
    begin(&w, card());
    assert_int_equal(tess__workspace_reserve(w.workspace, card()->remote, (size_t)1 << 50),
                     TESS_NOMEM);
    assert_non_null(strstr(tess_error(), "1125899.91 GB were asked for on the card, where"));
    assert_non_null(strstr(tess_error(), "are free: use a smaller --batch-size"));
    assert_int_equal(tess_plan_run(w.plan), TESS_OK);
    assert_non_null(tess_plan_output(w.plan, w.y));
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#ifndef TESS_REAL_CARD
        cmocka_unit_test(check_no_card),     cmocka_unit_test(check_no_code),
#endif
        cmocka_unit_test(check_lost_output), cmocka_unit_test(check_scalars),
        cmocka_unit_test(check_no_memory),   cmocka_unit_test(check_part),
        cmocka_unit_test(check_runs),        cmocka_unit_test(check_states),
        cmocka_unit_test(check_debug),       cmocka_unit_test(check_moves),
        cmocka_unit_test(check_profile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
