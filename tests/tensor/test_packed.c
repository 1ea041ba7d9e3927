/* SPDX-License-Identifier: Apache-2.0 */
/* Packed weights: how far 8 bits may be off, what is refused, and the pass that puts them in. */
#include <math.h>

#include "graph_fixture.h"
#include "tensor/lower.h"

/* ---- the error of 8 bits ------------------------------------------------------------------- */

enum { ROWS = 9, N = 70, K = 200 };

static void fill(float *x, int64_t n, uint64_t seed, double offset)
{
    tess_rng r = tess_rng_at(11, seed);
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)(tess_rng_normal(&r) + offset);
    }
}

static const float *run_once(tess_graph *g, tess_value y, const float *x, tess_store *store,
                             tess_workspace *w, tess_plan **plan)
{
    ok(tess_plan_build(g, &y, 1, tess_device_cpu(), store, w, plan));
    ok(tess_plan_bind(*plan, "x", x));
    ok(tess_plan_run(*plan));
    return tess_plan_output(*plan, y);
}

/* x = a + da with |da| <= s/2, w = q + dw with |dw| <= t/2:
 * |x w - a q| <= |w| s/2 + |x| t/2 + s t/4, summed over k. */
static void test_bytes_are_within_their_steps(void **state)
{
    (void)state;
    static float x[ROWS * K], w[N * K];
    fill(x, ROWS * K, 1, 0.7);
    fill(w, N * K, 2, 0);
    tess_packed p;
    ok(tess__packed_make(TESS_I8, w, N, K, false, &p));
    tess_graph *g = tess_graph_new();
    tess_workspace *ws = tess_workspace_new();
    tess_plan *plan;
    tess_value in = tess_input(g, "x", TESS_F32, TESS_SHAPE_OF(ROWS, K));
    tess_value y = tess__packed_linear(g, in, &p, (tess_packed_options){.act = TESS_UNARY_COUNT});
    const float *out = run_once(g, y, x, NULL, ws, &plan);
    double worst = 0;
    for (int r = 0; r < ROWS; r++) {
        float low = 0, high = 0;
        for (int k = 0; k < K; k++) {
            low = fminf(low, x[r * K + k]);
            high = fmaxf(high, x[r * K + k]);
        }
        const double s = (double)(high - low) / 255 * (1 + 1e-6);
        for (int n = 0; n < N; n++) {
            const double t = (double)p.scale[n] * (1 + 1e-6);
            double exact = 0, limit = 1e-4;
            for (int k = 0; k < K; k++) {
                const double a = (double)x[r * K + k], b = (double)w[n * K + k];
                exact += a * b;
                limit += fabs(b) * s / 2 + fabs(a) * t / 2 + s * t / 4;
            }
            const double off = fabs((double)out[r * N + n] - exact);
            assert_true(off <= limit);
            worst = off / limit > worst ? off / limit : worst;
        }
    }
    assert_true(worst > 1e-4); /* 8 bits were used */
    tess_plan_free(plan);
    tess_workspace_free(ws);
    tess_graph_free(g);
    tess__packed_deinit(&p);
}

static void test_transposed_is_the_same(void **state)
{
    (void)state;
    static float w[N * K], turned[N * K];
    fill(w, N * K, 3, 0);
    for (int i = 0; i < N * K; i++) {
        turned[i % K * N + i / K] = w[i];
    }
    const tess_dtype kinds[] = {TESS_F32, TESS_BF16, TESS_I8};
    for (int i = 0; i < 3; i++) {
        tess_packed a, b;
        ok(tess__packed_make(kinds[i], w, N, K, false, &a));
        ok(tess__packed_make(kinds[i], turned, N, K, true, &b));
        assert_memory_equal(a.panels, b.panels, tess__packed_panel_bytes(kinds[i], N, K));
        tess__packed_deinit(&a);
        tess__packed_deinit(&b);
    }
}

static void test_refuses_what_is_no_number(void **state)
{
    (void)state;
    static float w[N * K];
    const tess_dtype kinds[] = {TESS_F32, TESS_BF16, TESS_I8};
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 9; i++) {
        tess_packed p;
        w[N * K - 3] = bad[i / 3];
        assert_int_equal(tess__packed_make(kinds[i % 3], w, N, K, false, &p), TESS_FORMAT);
        assert_says("NaN or infinite");
        assert_null(p.owned);
    }
}

/* The inverse of the largest of them is no number of f32. */
static void test_rows_of_next_to_nothing(void **state)
{
    (void)state;
    const float w[2 * 4] = {1e-40f, 0, -1e-41f, 1e-42f, 1, 0, -1, 0.5f};
    tess_packed p;
    ok(tess__packed_make(TESS_I8, w, 2, 4, false, &p));
    assert_int_equal(p.sum[0], 0);
    assert_int_equal(p.sum[1], 64); /* of 63.5, which is halfway, to even */
    tess__packed_deinit(&p);
}

/* A row of zeros, a row of one number, one huge among small: no division by zero, no overflow. */
static void test_odd_rows(void **state)
{
    (void)state;
    static float x[3 * 8] = {0}, w[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    for (int k = 0; k < 8; k++) {
        x[8 + k] = -3;
        x[16 + k] = k ? 1e-3f : 1e30f;
    }
    tess_packed p;
    ok(tess__packed_make(TESS_I8, w, 1, 8, false, &p));
    tess_graph *g = tess_graph_new();
    tess_workspace *ws = tess_workspace_new();
    tess_plan *plan;
    tess_value in = tess_input(g, "x", TESS_F32, TESS_SHAPE_OF(3, 8));
    tess_value y = tess__packed_linear(g, in, &p, (tess_packed_options){.act = TESS_UNARY_COUNT});
    const float *out = run_once(g, y, x, NULL, ws, &plan);
    assert_true(out[0] == 0);
    assert_true(fabsf(out[1] + 24) < 1e-3f);
    assert_true(fabsf(out[2] / 1e30f - 1) < 1e-3f);
    tess_plan_free(plan);
    tess_workspace_free(ws);
    tess_graph_free(g);
    tess__packed_deinit(&p);
}

/* ---- the pass ------------------------------------------------------------------------------ */

typedef struct shelf {
    tess_store *store;
    tess_packed items[16];
    char names[16][64];
    int n;
    const char *leave; /* this one stays as it is */
} shelf;

static tess_status find(void *ctx, const tess_product *p, const tess_packed **out)
{
    shelf *s = ctx;
    if (s->leave && strcmp(s->leave, p->name) == 0) {
        return TESS_OK;
    }
    for (int i = 0; i < s->n; i++) {
        if (strcmp(s->names[i], p->name) == 0) {
            *out = &s->items[i];
            return TESS_OK;
        }
    }
    snprintf(s->names[s->n], sizeof s->names[0], "%s", p->name);
    *out = &s->items[s->n];
    const float *w = tess_store_find(s->store, "param", p->name, NULL);
    return tess__packed_make(TESS_F32, w, p->n, p->k, p->transposed, &s->items[s->n++]);
}

/* One block, a projection, and an input that nothing reads. */
static tess_value build_tower(tess_graph *g, tess_unary_kind act)
{
    tess_value x = tess_input(g, "x", TESS_F32, TESS_SHAPE_OF(3, 5, 32));
    tess_input(g, "unread", TESS_F32, TESS_SHAPE_OF(1));
    tess_block_config c = {
        .width = 32, .heads = 2, .hidden = 48, .act = act, .eps = 1e-5f, .dtype = TESS_F32};
    x = tess__transformer(g, &c, 1, x);
    x = tess_pool(g, x, 0, TESS_POOL_MEAN);
    return tess_project(g, x, tess__weight(g, "proj", TESS_SHAPE_OF(32, 10), TESS_F32));
}

static tess_store *make_store(const tess_graph *g)
{
    tess_store *s = tess_store_new();
    ok(tess_store_add_graph(s, g, "param"));
    ok(tess_store_allocate(s));
    for (int64_t i = 0; i < tess_store_n_entries(s, "param"); i++) {
        float *x;
        tess_shape shape;
        tess_store_entry(s, "param", i, &x, &shape);
        fill(x, tess_shape_count(&shape), (uint64_t)i, shape.rank == 1);
    }
    return s;
}

static void test_lowered_graph(void **state)
{
    (void)state;
    tess_graph *g = tess_graph_new(), *low;
    tess_value y = build_tower(g, TESS_GELU), y_low;
    shelf s = {.store = make_store(g), .leave = "resblocks.0.attn.out_proj.weight"};
    ok(tess__graph_lower(g, y, find, &s, &low, &y_low));
    tess_buf text = {0};
    tess_graph_print(low, &text);
    assert_golden("lowered", &text);
    tess_buf_deinit(&text);

    static float x[3 * 5 * 32];
    fill(x, TESS_COUNT(x), 99, 0);
    tess_workspace *a = tess_workspace_new(), *b = tess_workspace_new();
    tess_plan *p, *q;
    const float *want = run_once(g, y, x, s.store, a, &p);
    const float *have = run_once(low, y_low, x, s.store, b, &q);
    for (int i = 0; i < 30; i++) {
        assert_true(fabsf(want[i] - have[i]) <= 1e-4f * (1 + fabsf(want[i])));
    }
    tess_plan_free(p);
    tess_plan_free(q);
    tess_workspace_free(a);
    tess_workspace_free(b);
    for (int i = 0; i < s.n; i++) {
        tess__packed_deinit(&s.items[i]);
    }
    tess_store_free(s.store);
    tess_graph_free(low);
    tess_graph_free(g);
}

/* relu is the product's own; an activation that a second node needs too stays outside. */
static void test_activations(void **state)
{
    (void)state;
    tess_graph *g = tess_graph_new(), *low;
    tess_value x = tess_input(g, "x", TESS_F32, TESS_SHAPE_OF(4, 32)), y_low;
    tess_value h = tess_linear(g, x, tess__weight(g, "a", TESS_SHAPE_OF(32, 32), TESS_F32),
                               (tess_linear_options){.relu = true});
    h = tess_linear(g, h, tess__weight(g, "b", TESS_SHAPE_OF(32, 32), TESS_F32),
                    (tess_linear_options){0});
    tess_value y = tess_add(g, tess_unary(g, h, TESS_SILU), h);
    shelf s = {.store = make_store(g)};
    ok(tess__graph_lower(g, y, find, &s, &low, &y_low));
    tess_buf text = {0};
    tess_graph_print(low, &text);
    assert_non_null(strstr(text.data, "{f32 relu}"));
    assert_non_null(strstr(text.data, "{f32}"));
    assert_non_null(strstr(text.data, "unary"));
    tess_buf_deinit(&text);
    for (int i = 0; i < s.n; i++) {
        tess__packed_deinit(&s.items[i]);
    }
    tess_store_free(s.store);
    tess_graph_free(low);
    tess_graph_free(g);
}

/* Read at one row of each segment, a tower computes one row behind its last attention, and gives
 * the same vectors; read by the mean, it stays as it is. */
static void test_pooled_early(void **state)
{
    (void)state;
    enum { T = 9, C = 32 };
    static const int32_t offsets[4] = {0, 3, 3, 8};
    static float x[T * C];
    fill(x, T * C, 5, 0);
    const tess_pool_kind kinds[] = {TESS_POOL_FIRST, TESS_POOL_LAST, TESS_POOL_MEAN};
    for (int i = 0; i < 3; i++) {
        tess_graph *g = tess_graph_new();
        tess_value in = tess_input(g, "x", TESS_F32, TESS_SHAPE_OF(T, C));
        tess_value cuts = tess_input(g, "offsets", TESS_I32, TESS_SHAPE_OF(4));
        tess_block_config c = {.width = C,
                               .heads = 2,
                               .hidden = 48,
                               .act = TESS_GELU,
                               .eps = 1e-5f,
                               .dtype = TESS_F32,
                               .offsets = cuts,
                               .max_segment = T};
        tess_value y = tess_pool(g, tess__transformer(g, &c, 2, in), cuts, kinds[i]);
        tess_store *s = make_store(g);
        tess_workspace *a = tess_workspace_new(), *b = tess_workspace_new();
        tess_plan *p, *q;
        ok(tess_plan_build(g, &y, 1, tess_device_cpu(), s, a, &p));
        const double whole = tess_plan_get_stats(p).flops;
        ok(tess_plan_bind(p, "x", x));
        ok(tess_plan_bind(p, "offsets", offsets));
        ok(tess_plan_run(p));
        float want[3 * C];
        memcpy(want, tess_plan_output(p, y), sizeof want);
        ok(tess__graph_pool_early(&g, &y));
        ok(tess_plan_build(g, &y, 1, tess_device_cpu(), s, b, &q));
        const double less = tess_plan_get_stats(q).flops;
        assert_true(i == 2 ? less == whole : less < 0.85 * whole);
        ok(tess_plan_bind(q, "x", x));
        ok(tess_plan_bind(q, "offsets", offsets));
        ok(tess_plan_run(q));
        const float *have = tess_plan_output(q, y);
        for (int k = 0; k < 3 * C; k++) {
            const bool empty = k / C == 1; /* no text: what it gives does not matter */
            assert_true(empty || fabsf(want[k] - have[k]) <= 1e-4f * (1 + fabsf(want[k])));
        }
        tess_plan_free(p);
        tess_plan_free(q);
        tess_workspace_free(a);
        tess_workspace_free(b);
        tess_store_free(s);
        tess_graph_free(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_are_within_their_steps),
        cmocka_unit_test(test_transposed_is_the_same),
        cmocka_unit_test(test_refuses_what_is_no_number),
        cmocka_unit_test(test_rows_of_next_to_nothing),
        cmocka_unit_test(test_odd_rows),
        cmocka_unit_test(test_lowered_graph),
        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_pooled_early),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
