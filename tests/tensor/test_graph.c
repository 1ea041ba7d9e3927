/* SPDX-License-Identifier: Apache-2.0 */
/* Graphs, gradients and recompute as text; builders latch their first error. */
#include "graph_fixture.h"

static void test_dumps(void **state)
{
    (void)state;
    mlp_graph m = mlp_make(4, false), d = mlp_make(4, true);
    assert_graph_is("mlp_graph", m.g);
    assert_graph_is("mlp_grad", d.g);
    tess_graph_free(m.g);
    tess_graph_free(d.g);
}

/* Three blocks of two operators under recompute: what leaves a block is kept, the rest is cloned.
 */
static tess_graph *blocks(int64_t n_blocks, bool recompute, tess_value *out_y)
{
    tess_graph *g = tess_graph_new();
    tess_value x = tess_input(g, "x", TESS_F32, TESS_SHAPE_OF(16, 8));
    for (int64_t i = 0; i < n_blocks; i++) {
        tess_scope_push(g, "block.%d", (int)i);
        if (recompute) {
            tess_scope_recompute(g);
        }
        tess_value h = tess__linear(g, "c_fc", x, 32, (tess_linear_options){0});
        h = tess_unary(g, h, TESS_GELU);
        x = tess__linear(g, "c_proj", h, 8, (tess_linear_options){.residual = x});
        tess_scope_pop(g);
    }
    tess_value dy = tess_input(g, "dy", TESS_F32, TESS_SHAPE_OF(16, 8));
    tess_value wrt[64], grad[64];
    int64_t n = tess_graph_states(g, "param", wrt, 64);
    ok(tess_graph_grad(g, &x, &dy, 1, wrt, n, grad));
    for (int64_t i = 0; i < n; i++) {
        tess_value state = tess_state(g, "grad", tess_value_name(g, wrt[i]), TESS_F32,
                                      tess_value_shape(g, wrt[i]));
        tess_accumulate(g, state, grad[i]);
    }
    ok(tess_graph_check(g));
    *out_y = x;
    return g;
}

static void test_recompute_dump(void **state)
{
    (void)state;
    tess_value y;
    tess_graph *g = blocks(2, true, &y), *redone;
    ok(tess_graph_recompute(g, TESS_RECOMPUTE_FULL, &redone, NULL));
    assert_graph_is("blocks_recompute", redone);
    tess_graph_free(redone);
    tess_graph_free(g);
}

static size_t run_blocks(tess_recompute recompute, float *out_grads, size_t cap)
{
    static float x[16 * 8], dy[16 * 8];
    tess_rng r = tess_rng_at(5, 5);
    for (int i = 0; i < 16 * 8; i++) {
        x[i] = (float)tess_rng_normal(&r);
        dy[i] = (float)tess_rng_normal(&r);
    }
    tess_value y;
    tess_graph *g = blocks(6, recompute, &y);
    tess_value *map = tess_alloc_array((size_t)tess_graph_n_values(g), sizeof *map);
    tess_store *s = store_for(g);
    if (recompute) {
        tess_graph *redone;
        ok(tess_graph_recompute(g, recompute, &redone, map));
        tess_graph_free(g);
        g = redone;
        y = map[y];
    }
    tess_workspace *w = tess_workspace_new();
    tess_plan *p;
    ok(tess_plan_build(g, &y, 1, tess_device_cpu(), s, w, &p));
    ok(tess_plan_bind(p, "x", x));
    ok(tess_plan_bind(p, "dy", dy));
    ok(tess_plan_run_debug(p));
    int64_t n;
    const float *grads = tess_store_group(s, "grad", &n);
    assert_true((size_t)n <= cap);
    memcpy(out_grads, grads, (size_t)n * sizeof *grads);
    size_t bytes = tess_plan_get_stats(p).arena_bytes;
    tess_plan_free(p);
    tess_workspace_free(w);
    tess_store_free(s);
    tess_graph_free(g);
    tess_free(map);
    return bytes;
}

static void test_recompute_is_exact_and_smaller(void **state)
{
    (void)state;
    static float kept[8192], redone[8192];
    size_t with = run_blocks(TESS_RECOMPUTE_FULL, redone, 8192);
    size_t without = run_blocks(TESS_RECOMPUTE_OFF, kept, 8192);
    assert_memory_equal(kept, redone, sizeof kept);
    assert_true(kept[0] != 0);
    size_t selective = run_blocks(TESS_RECOMPUTE_SELECTIVE, redone, 8192);
    assert_memory_equal(kept, redone, sizeof kept);
    print_message("arena: %zu bytes, with recompute %zu, of activations alone %zu\n", without, with,
                  selective);
    /* Six blocks keep two (16,32) and their (16,8), or the latter and what one block needs. */
    assert_true(without >= 6 * (2 * 2048 + 512) && with <= 6 * 512 + 8 * 2048);
    /* Selective: one of the two (16,32). */
    assert_true(selective >= 6 * (2048 + 512) && selective <= 6 * (2048 + 512) + 4 * 2048);
}

static void test_gradients_are_pruned(void **state)
{
    (void)state;
    mlp_graph m = mlp_make(4, false);
    tess_value other = tess_input(m.g, "other", TESS_F32, TESS_SHAPE_OF(2)), grads[2];
    size_t before = m.g->n_nodes;
    ok(tess_graph_grad(m.g, &m.y, &m.dy, 1, (tess_value[]){m.wrt[3], other}, 2, grads));
    assert_int_not_equal(grads[0], 0);
    assert_int_equal(grads[1], 0);                   /* does not matter to y */
    for (size_t i = before; i < m.g->n_nodes; i++) { /* nothing of c_fc is walked */
        assert_string_equal(m.g->nodes[i].scope, "mlp.c_proj");
        assert_true(m.g->nodes[i].backward);
    }
    tess_graph_free(m.g);
}

static void test_bad_gradients(void **state)
{
    (void)state;
    mlp_graph m = mlp_make(4, false);
    tess_value out[4], no = 0, far = 1000;
    assert_int_equal(tess_graph_grad(m.g, &m.y, NULL, 1, m.wrt, 4, out), TESS_INVALID);
    assert_says("gradient of mlp.c_proj: it is no scalar, so give a cotangent");
    assert_int_equal(tess_graph_grad(m.g, &m.y, &m.wrt[0], 1, m.wrt, 4, out), TESS_INVALID);
    assert_says("cotangent: expected f32 (4,6), found f32 (8,6)");
    assert_int_equal(tess_graph_grad(m.g, &m.y, &m.dy, 1, &no, 1, out), TESS_INVALID);
    assert_int_equal(tess_graph_grad(m.g, &far, NULL, 1, m.wrt, 1, out), TESS_INVALID);
    tess_value y = tess_sumsq(m.g, m.wrt[0]);
    assert_int_equal(tess_graph_grad(m.g, &y, NULL, 1, m.wrt, 1, out), TESS_UNSUPPORTED);
    assert_says("sumsq has no gradient");
    tess_graph_free(m.g);
}

/* ---- builders ------------------------------------------------------------------------------ */

static void test_first_error_is_latched(void **state)
{
    (void)state;
    tess_graph *g = tess_graph_new();
    tess_value x = tess_input(g, "x", TESS_F32, TESS_SHAPE_OF(4, 6));
    tess_value z = tess_input(g, "z", TESS_F32, TESS_SHAPE_OF(6, 4));
    tess_scope_push(g, "visual");
    tess_scope_push(g, "ln_%d", 7);
    assert_int_equal(tess_add(g, x, z), 0);
    tess_scope_pop(g);
    assert_int_equal(tess_add(g, x, x), 0); /* later calls are no-ops */
    assert_int_equal(tess_input(g, "late", TESS_F32, TESS_SHAPE_OF(1)), 0);
    TESS_SHAPE(g, x, 1, 2, 3);
    assert_int_equal(tess_graph_check(g), TESS_INVALID);
    assert_string_equal(tess_error(), "visual.ln_7: add: b: expected f32 (4,6), found f32 (6,4)");
    tess_plan *p = NULL;
    assert_int_equal(tess_plan_build(g, &x, 1, tess_device_null(), NULL, NULL, &p), TESS_INVALID);
    assert_null(p);
    tess_graph_free(g);
    assert_int_equal(tess_graph_check(NULL), TESS_NOMEM);
    tess_graph_free(NULL);
}

static void test_missing_inputs(void **state)
{
    (void)state;
    static const tess_value bad[] = {0, -1, 1 << 30};
    for (int64_t i = 0; i < TESS_COUNT(bad); i++) {
        tess_graph *g = tess_graph_new();
        tess_value x = tess_input(g, "x", TESS_F32, TESS_SHAPE_OF(4, 6));
        tess_add(g, x, bad[i]);
        assert_int_equal(tess_graph_check(g), TESS_INVALID);
        assert_says("add: input 1 is missing");
        tess_graph_free(g);
    }
    tess_graph *g = tess_graph_new();
    TESS_SHAPE(g, 0, 4, 6);
    assert_int_equal(tess_graph_check(g), TESS_INVALID);
    assert_string_equal(tess_value_name(g, 0), "no value");
    tess_graph_free(g);
}

static void test_shapes_are_required(void **state)
{
    (void)state;
    tess_graph *g = tess_graph_new();
    tess_value x = tess_input(g, "x", TESS_F32, TESS_SHAPE_OF(4, 6));
    TESS_SHAPE(g, x, 4, 6);
    ok(tess_graph_check(g));
    TESS_SHAPE(g, x, 4, 7);
    assert_int_equal(tess_graph_check(g), TESS_INVALID);
    assert_says("x: expected f32 (4,7), found f32 (4,6)");
    tess_graph_free(g);
}

static void test_a_state_is_one_value(void **state)
{
    (void)state;
    tess_graph *g = tess_graph_new();
    tess_scope_push(g, "a");
    tess_value w = tess_state(g, "param", "w", TESS_F32, TESS_SHAPE_OF(4, 6));
    tess_scope_pop(g);
    assert_int_equal(tess_state(g, "param", "a.w", TESS_F32, TESS_SHAPE_OF(4, 6)), w);
    assert_int_not_equal(tess_state(g, "grad", "a.w", TESS_F32, TESS_SHAPE_OF(4, 6)), w);
    assert_int_not_equal(tess_state(g, "param", "a.ww", TESS_F32, TESS_SHAPE_OF(4, 6)), w);
    assert_int_equal(tess_graph_find(g, "a.w"), w);
    assert_int_equal(tess_graph_find(g, "b.w"), 0);
    assert_int_equal(tess_graph_states(g, "param", NULL, 0), 2);
    tess_state(g, "param", "a.w", TESS_F32, TESS_SHAPE_OF(6, 4));
    assert_int_equal(tess_graph_check(g), TESS_INVALID);
    assert_says("a.w: expected f32 (4,6), found f32 (6,4)");
    tess_graph_free(g);
}

static void test_failed_allocations(void **state)
{
    (void)state;
    tess_status st = TESS_NOMEM;
    for (int64_t nth = 1; st; nth++) {
        tess_value y, dy, wrt[4], grad[4];
        tess_fault_set(TESS_FAULT_ALLOC, nth, false);
        tess_graph *g = tess_graph_new(), *redone = NULL;
        if (g) {
            tess_scope_push(g, "s");
            tess_scope_recompute(g);
            y = tess__linear(g, "l", tess_input(g, "x", TESS_F32, TESS_SHAPE_OF(2, 3)), 4,
                             (tess_linear_options){0});
            tess_scope_pop(g);
            dy = tess_input(g, "dy", TESS_F32, TESS_SHAPE_OF(2, 4));
            int64_t n = tess_graph_states(g, "param", wrt, 4);
            st = tess_graph_check(g);
            st = st ? st : tess_graph_grad(g, &y, &dy, 1, wrt, n, grad);
            st = st ? st : tess_graph_recompute(g, TESS_RECOMPUTE_FULL, &redone, NULL);
        }
        tess_fault_set(TESS_FAULT_ALLOC, 0, false);
        assert_true(!st == (redone != NULL));
        tess_graph_free(redone);
        tess_graph_free(g);
    }
}

static void test_unknown_activation(void **state)
{
    (void)state;
    tess_unary_kind k = TESS_RELU;
    ok(tess__unary_find("quick_gelu", "cfg", &k));
    assert_int_equal(k, TESS_QUICK_GELU);
    assert_int_equal(tess__unary_find("swish", "cfg", &k), TESS_UNSUPPORTED);
    assert_says(
        "cfg: act: expected relu, gelu, gelu_tanh, quick_gelu, silu or tanh, found \"swish\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dumps),
        cmocka_unit_test(test_recompute_dump),
        cmocka_unit_test(test_recompute_is_exact_and_smaller),
        cmocka_unit_test(test_gradients_are_pruned),
        cmocka_unit_test(test_bad_gradients),
        cmocka_unit_test(test_first_error_is_latched),
        cmocka_unit_test(test_missing_inputs),
        cmocka_unit_test(test_shapes_are_required),
        cmocka_unit_test(test_a_state_is_one_value),
        cmocka_unit_test(test_failed_allocations),
        cmocka_unit_test(test_unknown_activation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
