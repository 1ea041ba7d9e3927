/* SPDX-License-Identifier: Apache-2.0 */
/* The planner: sharing, order of effects, placement; and its check, which every kind of damage to a
 * plan must turn red. */
#include "graph_fixture.h"

static tess_plan *plan_on(const tess_device *d, const tess_graph *g, tess_store *s,
                          tess_workspace *w, const tess_value *outputs, int64_t n)
{
    tess_plan *p = NULL;
    ok(tess_plan_build(g, outputs, n, d, s, w, &p));
    return p;
}

static int64_t find_step(const tess_plan *p, const char *op, int64_t from)
{
    for (int64_t s = from; s < p->n_steps; s++) {
        if (strcmp(p->steps[s].op->name, op) == 0) {
            return s;
        }
    }
    return -1;
}

static const tess_buffer *out_of(const tess_plan *p, int64_t s)
{
    return &p->buffers[p->steps[s].out_buffer[0]];
}

/* ---- sharing ------------------------------------------------------------------------------- */

static void test_in_place(void **state)
{
    (void)state;
    tess_graph *g = tess_graph_new();
    tess_value x = tess_input(g, "x", TESS_F32, TESS_SHAPE_OF(64));
    tess_value a = tess_scale(g, x, 2), b = tess_unary(g, a, TESS_RELU);
    tess_value c = tess_add(g, b, a), d = tess_add(g, c, c);
    tess_plan *p = plan_on(tess_device_null(), g, NULL, NULL, &d, 1);
    const int32_t *of = p->buffer_of;
    assert_int_not_equal(of[a], of[x]); /* an input is never written */
    assert_int_not_equal(of[b], of[a]); /* a is read again */
    assert_true(of[c] == of[a] || of[c] == of[b]);
    assert_int_not_equal(of[d], of[c]); /* twice the same input: not in place */
    assert_int_equal(p->stats.live_bytes, 2 * 256);
    assert_int_equal(p->stats.arena_bytes, 2 * 256);
    tess_plan_free(p);
    tess_graph_free(g);
}

static void test_views_share(void **state)
{
    (void)state;
    tess_graph *g = tess_graph_new();
    tess_value x = tess_input(g, "x", TESS_F32, TESS_SHAPE_OF(64));
    tess_value a = tess_scale(g, x, 2);
    tess_value v = tess_reshape(g, a, TESS_SHAPE_OF(8, 8)),
               w = tess_reshape(g, a, TESS_SHAPE_OF(4, 16));
    tess_value b = tess_scale(g, v, 3); /* not in place: w still needs the bytes */
    tess_value c = tess_scale(g, w, 4);
    tess_value d = tess_add(g, b, tess_reshape(g, c, TESS_SHAPE_OF(8, 8)));
    tess_value outputs[] = {d, tess_reshape(g, x, TESS_SHAPE_OF(2, 32))};
    tess_plan *p = plan_on(tess_device_null(), g, NULL, NULL, outputs, 2);
    const int32_t *of = p->buffer_of;
    assert_true(of[v] == of[a] && of[w] == of[a] && of[outputs[1]] == of[x]);
    assert_int_not_equal(of[b], of[a]);
    assert_int_equal(of[c], of[a]); /* the last of the views may */
    tess_plan_free(p);
    tess_graph_free(g);
}

/* A view that is an output keeps its source. */
static void test_outputs_survive(void **state)
{
    (void)state;
    static float x[64];
    for (int i = 0; i < 64; i++) {
        x[i] = (float)i;
    }
    tess_graph *g = tess_graph_new();
    tess_value in = tess_input(g, "x", TESS_F32, TESS_SHAPE_OF(64));
    tess_value a = tess_scale(g, in, 2), v = tess_reshape(g, a, TESS_SHAPE_OF(8, 8));
    tess_value b = tess_scale(g, a, 3), outputs[] = {b, v, in};
    tess_workspace *w = tess_workspace_new();
    tess_plan *p = plan_on(tess_device_cpu(), g, NULL, w, outputs, 3);
    ok(tess_plan_bind(p, "x", x));
    ok(tess_plan_run_debug(p));
    for (int i = 0; i < 64; i++) {
        assert_true(((const float *)tess_plan_output(p, v))[i] == 2 * x[i]);
        assert_true(((const float *)tess_plan_output(p, b))[i] == 6 * x[i]);
    }
    assert_ptr_equal(tess_plan_output(p, in), x);
    assert_null(tess_plan_output(p, 0));
    tess_plan_free(p);
    tess_workspace_free(w);
    tess_graph_free(g);
}

static void test_only_what_is_wanted(void **state)
{
    (void)state;
    tess_graph *g = tess_graph_new();
    tess_value x = tess_input(g, "x", TESS_F32, TESS_SHAPE_OF(4));
    tess_value unused = tess_input(g, "unused", TESS_F32, TESS_SHAPE_OF(4));
    tess_value a = tess_scale(g, x, 2);
    tess_scale(g, unused, 2);
    tess_plan *p = plan_on(tess_device_null(), g, NULL, NULL, &a, 1);
    assert_int_equal(p->n_steps, 1);
    assert_int_equal(tess_plan_bind(p, "unused", &a), TESS_INVALID);
    assert_says("no input is called unused");
    tess_plan_free(p);
    assert_int_equal(tess_plan_build(g, (tess_value[]){99}, 1, tess_device_null(), NULL, NULL, &p),
                     TESS_INVALID);
    assert_null(p);
    tess_graph_free(g);
}

/* ---- effects ------------------------------------------------------------------------------- */

static void test_effects_run_early(void **state)
{
    (void)state;
    mlp_graph m = mlp_make(4, true);
    tess_store *s = store_for(m.g);
    tess_plan *p = plan_on(tess_device_null(), m.g, s, NULL, NULL, 0);
    int64_t first = find_step(p, "accumulate", 0);
    assert_string_equal(p->steps[first - 1].op->name, "bias_grad");
    assert_true(first < find_step(p, "unary_grad", 0)); /* though last in the graph */
    int64_t n = 0;
    for (int64_t i = 0; i < p->n_steps; i++) {
        n += strcmp(p->steps[i].op->name, "accumulate") == 0;
    }
    assert_int_equal(n, 4);
    tess_plan_free(p);
    tess_store_free(s);
    tess_graph_free(m.g);
}

/* Effects and readers of one state keep their order, through views and the whole group's name. */
static void test_effects_keep_their_order(void **state)
{
    (void)state;
    static const float x[16] = {1, 1, 1, 1};
    tess_graph *g = tess_graph_new();
    tess_value in = tess_input(g, "x", TESS_F32, TESS_SHAPE_OF(16));
    tess_value a = tess_state(g, "param", "a", TESS_F32, TESS_SHAPE_OF(16));
    tess_value b = tess_state(g, "grad", "b", TESS_F32, TESS_SHAPE_OF(16));
    tess_value all = tess_state(g, "param", "", TESS_F32, TESS_SHAPE_OF(16));
    tess_value view = tess_reshape(g, a, TESS_SHAPE_OF(4, 4));
    tess_value before = tess_sumsq(g, all);
    tess_value through = tess_scale(g, view, 1);
    tess_accumulate(g, a, in); /* a = x; after both reads */
    tess_accumulate(g, b, a);  /* b = x */
    tess_value after = tess_sumsq(g, all);
    tess_accumulate(g, view, in); /* a = 2x */
    tess_accumulate(g, b, a);     /* b = 3x */
    tess_value outputs[] = {before, through, after, tess_sumsq(g, a), tess_sumsq(g, b)};
    static const float want[] = {0, 0, 4, 16, 36};
    tess_store *s = tess_store_new();
    ok(tess_store_add_graph(s, g, "param"));
    ok(tess_store_add_graph(s, g, "grad"));
    ok(tess_store_allocate(s));
    tess_workspace *w = tess_workspace_new();
    tess_plan *p = plan_on(tess_device_cpu(), g, s, w, outputs, 5);
    ok(tess_plan_bind(p, "x", x));
    ok(tess_plan_run_debug(p));
    for (int i = 0; i < 5; i++) {
        assert_true(*(const float *)tess_plan_output(p, outputs[i]) == want[i]);
    }
    tess_plan_free(p);
    tess_workspace_free(w);
    tess_store_free(s);
    tess_graph_free(g);
}

/* ---- placement ----------------------------------------------------------------------------- */

static mlp_graph transformer(int64_t layers)
{
    mlp_graph m = {.g = tess_graph_new()};
    tess_block_config c = {.width = 64, .heads = 2, .hidden = 256, .act = TESS_GELU, .eps = 1e-5f};
    m.x = tess_input(m.g, "x", TESS_F32, TESS_SHAPE_OF(4, 16, 64));
    m.dy = tess_input(m.g, "dy", TESS_F32, TESS_SHAPE_OF(4, 16, 64));
    m.y = tess__transformer(m.g, &c, layers, m.x);
    tess_value wrt[256], grad[256];
    int64_t n = tess_graph_states(m.g, "param", wrt, 256);
    ok(tess_graph_grad(m.g, &m.y, &m.dy, 1, wrt, n, grad));
    for (int64_t i = 0; i < n; i++) {
        tess_accumulate(m.g,
                        tess_state(m.g, "grad", tess_value_name(m.g, wrt[i]), TESS_F32,
                                   tess_value_shape(m.g, wrt[i])),
                        grad[i]);
    }
    ok(tess_graph_check(m.g));
    return m;
}

static void test_placement_is_tight(void **state)
{
    (void)state;
    for (int64_t layers = 1; layers <= 12; layers *= 2) {
        mlp_graph m = transformer(layers);
        tess_store *s = store_for(m.g);
        double start = tess_seconds();
        tess_plan *p = plan_on(tess_device_null(), m.g, s, NULL, &m.y, 1);
        tess_plan_stats t = tess_plan_get_stats(p);
        double ratio = (double)t.arena_bytes / (double)t.live_bytes;
        print_message("%2lld layers: %4lld steps, arena / live = %.4f, planned in %.1f ms\n",
                      (long long)layers, (long long)t.n_steps, ratio,
                      1e3 * (tess_seconds() - start));
        assert_true(ratio >= 1 && ratio < 1.1);
        tess_plan_free(p);
        tess_store_free(s);
        tess_graph_free(m.g);
    }
}

/* Any lifetimes: what lives at one time never overlaps, every offset is aligned. */
static void test_placement_of_random_lifetimes(void **state)
{
    (void)state;
    enum { N = 200 };
    static tess_buffer b[N];
    tess_rng r = tess_rng_at(1, 2);
    for (int round = 0; round < 20; round++) {
        memset(b, 0, sizeof b);
        for (int i = 0; i < N; i++) {
            b[i].n_bytes = tess_rng_below(&r, 8) ? tess_rng_below(&r, 5000) : 0;
            b[i].first = tess_rng_below(&r, 100);
            b[i].last = b[i].first + tess_rng_below(&r, 20);
        }
        tess_status st;
        size_t end = tess__plan_place(b, N, &st);
        ok(st);
        for (int i = 0; i < N; i++) {
            assert_true(b[i].offset % 64 == 0 && b[i].offset + b[i].n_bytes <= end);
            for (int k = 0; k < i; k++) {
                bool together = b[i].first <= b[k].last && b[k].first <= b[i].last;
                bool overlap = b[i].offset < b[k].offset + b[k].n_bytes &&
                               b[k].offset < b[i].offset + b[i].n_bytes;
                assert_false(together && overlap && b[i].n_bytes && b[k].n_bytes);
            }
        }
    }
}

/* ---- the check ----------------------------------------------------------------------------- */

static void assert_caught(const tess_plan *p, const char *text)
{
    assert_int_equal(tess__plan_check(p), TESS_INVALID);
    assert_says(text);
}

static void test_check_sees_every_moved_buffer(void **state)
{
    (void)state;
    mlp_graph m = transformer(2);
    tess_store *s = store_for(m.g);
    tess_plan *p = plan_on(tess_device_null(), m.g, s, NULL, &m.y, 1);
    ok(tess__plan_check(p));
    int64_t caught = 0, moved = 0;
    for (int64_t i = 0; i < p->n_buffers; i++) {
        tess_buffer *b = &p->buffers[i];
        /* Moved onto a neighbour that lives at the same time. */
        for (int64_t k = 0; k < p->n_buffers && b->place == TESS_PLACE_ARENA; k++) {
            const tess_buffer *o = &p->buffers[k];
            bool together = o->place == TESS_PLACE_ARENA && k != i && o->first < b->last &&
                            b->first < o->last && o->offset + b->n_bytes <= p->stats.arena_bytes;
            if (together) {
                size_t was = b->offset;
                b->offset = o->offset;
                caught += tess__plan_check(p) == TESS_INVALID;
                moved++;
                b->offset = was;
            }
        }
    }
    assert_int_equal(caught, moved);
    assert_true(moved > 100);
    ok(tess__plan_check(p));
    tess_plan_free(p);
    tess_store_free(s);
    tess_graph_free(m.g);
}

static void test_check_sees_damage(void **state)
{
    (void)state;
    mlp_graph m = mlp_make(64, true);
    tess_store *s = store_for(m.g);
    tess_plan *p = plan_on(tess_device_null(), m.g, s, NULL, &m.y, 1);
    tess_buffer *pre = &p->buffers[p->buffer_of[4]], kept = *pre; /* read by unary_grad */
    assert_true(pre->last > pre->first + 1);
    pre->offset += 8;
    assert_caught(p, "beside the arena");
    pre->offset = p->stats.arena_bytes;
    assert_caught(p, "beside the arena");
    *pre = kept;
    pre->n_bytes -= 4;
    assert_caught(p, "too small");
    *pre = kept;
    pre->last = pre->first + 1; /* freed too early */
    assert_caught(p, "uses released memory");
    *pre = kept;
    p->buffers[p->buffer_of[m.y]].last = p->n_steps - 1;
    assert_caught(p, "does not survive");
    p->buffers[p->buffer_of[m.y]].last = INT64_MAX;
    int64_t unary = find_step(p, "unary", 0);
    int32_t was = p->steps[unary].out_buffer[0];
    p->steps[unary].out_buffer[0] = p->steps[unary].in_buffer[0]; /* its input is read later */
    assert_caught(p, "overwrites what is read later");
    p->steps[unary].out_buffer[0] = was;
    int64_t reader = find_step(p, "unary_grad", 0);
    was = p->steps[reader].in_buffer[0];
    p->steps[reader].in_buffer[0] = p->steps[reader].in_buffer[1];
    assert_caught(p, "reads bytes that are no longer its input's");
    p->steps[reader].in_buffer[0] = was;
    int64_t project = find_step(p, "project", 0), grad = find_step(p, "unary_grad", 0);
    size_t at = p->buffers[p->steps[grad].in_buffer[1]].offset;
    assert_int_equal(p->steps[project].out_buffer[0], p->steps[grad].in_buffer[1]);
    p->buffers[p->steps[grad].in_buffer[1]].offset = out_of(p, unary)->offset;
    assert_int_equal(tess__plan_check(p), TESS_INVALID);
    p->buffers[p->steps[grad].in_buffer[1]].offset = at;
    ok(tess__plan_check(p));
    tess_plan_free(p);
    tess_store_free(s);
    tess_graph_free(m.g);
}

static void test_check_sees_illegal_aliases(void **state)
{
    (void)state;
    tess_graph *g = tess_graph_new();
    tess_value x = tess_input(g, "x", TESS_F32, TESS_SHAPE_OF(16, 16));
    tess_value w = tess_state(g, "param", "w", TESS_F32, TESS_SHAPE_OF(16));
    tess_value a = tess_scale(g, x, 2);
    tess_value n = tess_layernorm(g, a, w, w, 1e-5f),
               y = tess_linear(g, n, a, (tess_linear_options){0});
    tess_value v = tess_reshape(g, y, TESS_SHAPE_OF(256)), z = tess_scale(g, v, 1);
    tess_store *s = store_for(g);
    tess_plan *p = plan_on(tess_device_null(), g, s, NULL, &z, 1);
    int64_t linear = find_step(p, "linear", 0), norm = find_step(p, "layernorm", 0);
    int64_t view = find_step(p, "reshape", 0);
    int32_t *out = p->steps[linear].out_buffer, was = out[0];
    out[0] = p->steps[linear].in_buffer[0]; /* dies here, but a product may not work in place */
    assert_caught(p, "writes an output over its own input");
    out[0] = was;
    out = p->steps[norm].out_buffer;
    was = out[2];
    out[2] = out[1];
    assert_caught(p, "writes one output over another");
    out[2] = was;
    out = p->steps[view].out_buffer;
    was = out[0];
    out[0] = p->steps[linear].in_buffer[0];
    assert_int_equal(tess__plan_check(p), TESS_INVALID);
    out[0] = was;
    ok(tess__plan_check(p));
    tess_plan_free(p);
    tess_store_free(s);
    tess_graph_free(g);
}

/* Two views of one source, both alive: no false alarm (they once looked like a clash). */
static void test_no_false_alarms(void **state)
{
    (void)state;
    for (int64_t layers = 1; layers < 4; layers++) {
        mlp_graph m = transformer(layers);
        tess_store *s = store_for(m.g);
        tess_plan *p = plan_on(tess_device_null(), m.g, s, NULL, &m.y, 1);
        tess_plan_free(p);
        tess_store_free(s);
        tess_graph_free(m.g);
    }
}

static void test_failed_allocations(void **state)
{
    (void)state;
    mlp_graph m = mlp_make(4, true);
    tess_store *s = store_for(m.g);
    tess_workspace *w = tess_workspace_new();
    tess_status st = TESS_NOMEM;
    for (int64_t nth = 1; st; nth++) {
        tess_plan *p = NULL;
        tess_fault_set(TESS_FAULT_ALLOC, nth, false);
        st = tess_plan_build(m.g, &m.y, 1, tess_device_cpu(), s, w, &p);
        tess_fault_set(TESS_FAULT_ALLOC, 0, false);
        assert_true(!st == (p != NULL));
        tess_plan_free(p);
    }
    tess_workspace_free(w);
    tess_store_free(s);
    tess_graph_free(m.g);
}

static void test_states_must_be_there(void **state)
{
    (void)state;
    mlp_graph m = mlp_make(4, false);
    tess_store *s = tess_store_new();
    tess_plan *p;
    ok(tess_store_add(s, "param", "mlp.c_fc.weight", TESS_SHAPE_OF(6, 8)));
    ok(tess_store_allocate(s));
    assert_int_equal(tess_plan_build(m.g, &m.y, 1, tess_device_null(), s, NULL, &p), TESS_INVALID);
    assert_says("mlp.c_fc.weight: expected f32 (8,6), found f32 (6,8)");
    tess_store_free(s);
    s = tess_store_new();
    ok(tess_store_allocate(s));
    assert_int_equal(tess_plan_build(m.g, &m.y, 1, tess_device_null(), s, NULL, &p), TESS_INVALID);
    assert_says("the store has no state param:mlp.c_fc.weight");
    tess_store_free(s);
    tess_graph_free(m.g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_place),
        cmocka_unit_test(test_views_share),
        cmocka_unit_test(test_outputs_survive),
        cmocka_unit_test(test_only_what_is_wanted),
        cmocka_unit_test(test_effects_run_early),
        cmocka_unit_test(test_effects_keep_their_order),
        cmocka_unit_test(test_placement_is_tight),
        cmocka_unit_test(test_placement_of_random_lifetimes),
        cmocka_unit_test(test_check_sees_every_moved_buffer),
        cmocka_unit_test(test_check_sees_damage),
        cmocka_unit_test(test_check_sees_illegal_aliases),
        cmocka_unit_test(test_no_false_alarms),
        cmocka_unit_test(test_failed_allocations),
        cmocka_unit_test(test_states_must_be_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
