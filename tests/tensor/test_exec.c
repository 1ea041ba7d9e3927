/* SPDX-License-Identifier: Apache-2.0 */
/* Running plans: binding, the shared workspace, and what the debug executor names. */
#include "graph_fixture.h"

#include <math.h>

static float x[4 * 6], dy[4 * 6];

typedef struct bench {
    mlp_graph m;
    tess_store *s;
    tess_workspace *w;
    tess_plan *p;
} bench;

static bench open_bench(void)
{
    bench b = {.m = mlp_make(4, true)};
    for (int i = 0; i < 24; i++) {
        x[i] = (float)i / 24;
        dy[i] = 1 - x[i];
    }
    b.s = store_for(b.m.g);
    b.w = tess_workspace_new();
    ok(tess_plan_build(b.m.g, &b.m.y, 1, tess_device_cpu(), b.s, b.w, &b.p));
    ok(tess_plan_bind(b.p, "x", x));
    ok(tess_plan_bind(b.p, "dy", dy));
    return b;
}

static void close_bench(bench *b)
{
    tess_plan_free(b->p);
    tess_workspace_free(b->w);
    tess_store_free(b->s);
    tess_graph_free(b->m.g);
}

static void test_debug_run_equals_run(void **state)
{
    (void)state;
    bench b = open_bench();
    float plain[24];
    int64_t n;
    ok(tess_plan_run(b.p));
    memcpy(plain, tess_plan_output(b.p, b.m.y), sizeof plain);
    float *grads = tess_store_group(b.s, "grad", &n), once[256];
    assert_true(n <= 256);
    memcpy(once, grads, (size_t)n * sizeof *once);
    ok(tess_plan_run_debug(b.p));
    assert_memory_equal(plain, tess_plan_output(b.p, b.m.y), sizeof plain);
    for (int64_t i = 0; i < n; i++) { /* accumulated twice */
        assert_true(grads[i] == 2 * once[i]);
    }
    close_bench(&b);
}

static void test_first_nan_is_named(void **state)
{
    (void)state;
    bench b = open_bench();
    float *w = tess_store_find(b.s, "param", "mlp.c_proj.bias", NULL), was = w[3];
    w[3] = NAN;
    ok(tess_plan_run(b.p)); /* the plain executor does not look */
    assert_int_equal(tess_plan_run_debug(b.p), TESS_INVALID);
    assert_string_equal(tess_error(), "mlp.c_proj: linear: element 3 of output 0 is not finite");
    w[3] = was;
    dy[7] = INFINITY;
    assert_int_equal(tess_plan_run_debug(b.p), TESS_INVALID);
    assert_says("mlp.c_proj: bias_grad: element 1 of output 0 is not finite");
    dy[7] = 0;
    float *g = tess_store_find(b.s, "grad", "mlp.c_fc.bias", NULL);
    g[2] = NAN;
    assert_int_equal(tess_plan_run_debug(b.p), TESS_INVALID);
    assert_says("accumulate: element 2 of state 0 is not finite");
    close_bench(&b);
}

/* A plan that frees a buffer too early computes in silence; the debug executor reads the poison. */
static void test_released_memory_is_poisoned(void **state)
{
    (void)state;
    bench b = open_bench();
    tess_buffer *pre = &b.p->buffers[b.p->buffer_of[4]];
    assert_true(pre->last > pre->first + 1);
    pre->last = pre->first + 1;
    ok(tess_plan_run(b.p));
    assert_int_equal(tess_plan_run_debug(b.p), TESS_INVALID);
    assert_says("mlp: unary_grad: element");
    close_bench(&b);
}

static void test_inputs_must_be_bound(void **state)
{
    (void)state;
    bench b = open_bench();
    assert_int_equal(tess_plan_bind(b.p, "z", x), TESS_INVALID);
    assert_says("no input is called z");
    ok(tess_plan_bind(b.p, "dy", NULL));
    assert_int_equal(tess_plan_run(b.p), TESS_INVALID);
    assert_says("input dy is not bound");
    ok(tess_plan_bind(b.p, "dy", dy));
    ok(tess_plan_run(b.p));
    close_bench(&b);
}

/* A second, larger plan moves the workspace; the first still runs.  When it cannot grow, the first
 * gets its memory back. */
static void test_plans_share_a_workspace(void **state)
{
    (void)state;
    bench b = open_bench();
    float before[24];
    ok(tess_plan_run(b.p));
    memcpy(before, tess_plan_output(b.p, b.m.y), sizeof before);
    tess_graph *g = tess_graph_new();
    tess_value in = tess_input(g, "x", TESS_F32, TESS_SHAPE_OF(1 << 20)), y = tess_scale(g, in, 2);
    tess_plan *large = NULL;
    tess_status st = TESS_OK;
    for (int64_t nth = 1; st != TESS_NOMEM || tess_workspace_bytes(b.w) > 0; nth++) {
        tess_fault_set(TESS_FAULT_ALLOC, nth, false);
        st = tess_plan_build(g, &y, 1, tess_device_cpu(), NULL, b.w, &large);
        tess_fault_set(TESS_FAULT_ALLOC, 0, false);
        assert_int_equal(st, TESS_NOMEM);
    }
    assert_says("use a smaller batch");
    ok(tess_plan_run(b.p));
    assert_memory_equal(before, tess_plan_output(b.p, b.m.y), sizeof before);
    ok(tess_plan_build(g, &y, 1, tess_device_cpu(), NULL, b.w, &large));
    assert_true(tess_workspace_bytes(b.w) >= 4 << 20);
    ok(tess_plan_run(b.p));
    assert_memory_equal(before, tess_plan_output(b.p, b.m.y), sizeof before);
    tess_plan_free(large);
    tess_graph_free(g);
    close_bench(&b);
}

static void test_reports(void **state)
{
    (void)state;
    bench b = open_bench();
    tess_buf out = {0};
    tess_plan_profile(b.p, true);
    ok(tess_plan_run(b.p));
    tess_plan_print_profile(b.p, &out);
    assert_non_null(strstr(out.data, "accumulate                  4"));
    tess_buf_clear(&out);
    tess_plan_print(b.p, &out);
    assert_int_equal(strncmp(out.data, "cpu: 13 steps, arena ", 21), 0);
    assert_non_null(strstr(out.data, "@mlp.c_proj\n"));
    /* Three products forward and back of 4 x 6 x 8 and their like. */
    assert_true(tess_plan_get_stats(b.p).flops >= 2 * 5 * 4 * 6 * 8);
    tess_buf_deinit(&out);
    close_bench(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_debug_run_equals_run),
        cmocka_unit_test(test_first_nan_is_named),
        cmocka_unit_test(test_released_memory_is_poisoned),
        cmocka_unit_test(test_inputs_must_be_bound),
        cmocka_unit_test(test_plans_share_a_workspace),
        cmocka_unit_test(test_reports),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
