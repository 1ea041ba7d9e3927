/* SPDX-License-Identifier: Apache-2.0 */
/* Muon beyond its operator cases: the singular values that it leaves, what a gradient that is not
 * finite leaves, matrices that do not mix, and the store's leading entries. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <omp.h>
#include <string.h>

#include "tessera/tensor.h"

enum { MAX_SIDE = 96 };

/* ---- one update ---------------------------------------------------------------------------- */

typedef struct world {
    tess_store *store;
    float *param, *grad, *m;
    int64_t n;
} world;

static world make_world(int64_t n)
{
    static const char *const groups[] = {"param", "grad", "m"};
    world w = {.store = tess_store_new(), .n = n};
    float **data[] = {&w.param, &w.grad, &w.m};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tess_store_add(w.store, groups[i], "x", TESS_SHAPE_OF(n)), TESS_OK);
    }
    assert_int_equal(tess_store_allocate(w.store), TESS_OK);
    for (int i = 0; i < 3; i++) {
        int64_t ignored;
        *data[i] = tess_store_group(w.store, groups[i], &ignored);
    }
    return w;
}

static void fill_normal(float *x, int64_t n, uint64_t seed)
{
    tess_rng r = tess_rng_at(seed, 1);
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)tess_rng_normal(&r);
    }
}

static tess_status build(const world *w, const tess_muon_options *o, tess_graph *g)
{
    const tess_shape s = TESS_SHAPE_OF(w->n);
    tess_value hyper = tess_input(g, "hyper", TESS_F32, TESS_SHAPE_OF(5));
    tess_value sumsq = tess_input(g, "sumsq", TESS_F32, TESS_SHAPE_OF(1));
    tess_muon(g, tess_state(g, "param", "x", TESS_F32, s), tess_state(g, "grad", "x", TESS_F32, s),
              tess_state(g, "m", "x", TESS_F32, s), hyper, sumsq, o);
    return tess_graph_check(g);
}

/* With a learning rate of 1. */
static void update(const world *w, const tess_muon_options *o, float sumsq)
{
    const float hyper[5] = {1, 1, 1, 1, 1};
    tess_graph *g = tess_graph_new();
    tess_workspace *space = tess_workspace_new();
    tess_plan *p = NULL;
    assert_int_equal(build(w, o, g), TESS_OK);
    assert_int_equal(tess_plan_build(g, NULL, 0, tess_device_cpu(), w->store, space, &p), TESS_OK);
    assert_int_equal(tess_plan_bind(p, "hyper", hyper), TESS_OK);
    assert_int_equal(tess_plan_bind(p, "sumsq", &sumsq), TESS_OK);
    assert_int_equal(tess_plan_run(p), TESS_OK);
    tess_plan_free(p);
    tess_workspace_free(space);
    tess_graph_free(g);
}

/* ---- singular values ----------------------------------------------------------------------- */

/* One sweep of Jacobi's rotations over the symmetric a (n,n); the sum of squares it met off the
 * diagonal. */
static double sweep(double *a, int64_t n)
{
    double off = 0;
    for (int64_t p = 0; p < n; p++) {
        for (int64_t q = p + 1; q < n; q++) {
            const double apq = a[p * n + q];
            off += apq * apq;
            const double angle = 0.5 * atan2(2 * apq, a[q * n + q] - a[p * n + p]);
            const double c = cos(angle), s = sin(angle);
            for (int64_t k = 0; k < n; k++) {
                const double x = a[k * n + p], y = a[k * n + q];
                a[k * n + p] = c * x - s * y;
                a[k * n + q] = s * x + c * y;
            }
            for (int64_t k = 0; k < n; k++) {
                const double x = a[p * n + k], y = a[q * n + k];
                a[p * n + k] = c * x - s * y;
                a[q * n + k] = s * x + c * y;
            }
        }
    }
    return off;
}

static void find_range(const float *x, int64_t rows, int64_t cols, double *least, double *most)
{
    static double gram[MAX_SIDE * MAX_SIDE];
    const bool tall = rows > cols;
    const int64_t n = tall ? cols : rows, k = tall ? rows : cols;
    for (int64_t i = 0; i < n * n; i++) {
        gram[i] = 0;
        for (int64_t j = 0; j < k; j++) {
            const float a = tall ? x[j * cols + i / n] : x[i / n * cols + j];
            const float b = tall ? x[j * cols + i % n] : x[i % n * cols + j];
            gram[i] += (double)a * (double)b;
        }
    }
    for (int i = 0; i < 30 && sweep(gram, n) > 1e-18; i++) {
    }
    *least = INFINITY;
    *most = 0;
    for (int64_t i = 0; i < n; i++) {
        const double s = sqrt(fmax(gram[i * n + i], 0));
        *least = fmin(*least, s);
        *most = fmax(*most, s);
    }
}

/* An iteration sends a singular value s to f(s) = a s + b s^3 + c s^5, and f's extrema bound what
 * the last one leaves: f(0.5545) = 1.2024 above, f(1.0501) = 0.6815 below. */
static void test_singular_values(void **state)
{
    (void)state;
    static const int64_t shapes[][2] = {{48, 80}, {80, 48}, {96, 64}, {1, 40}};
    for (int i = 0; i < 2 * TESS_COUNT(shapes); i++) {
        const int64_t rows = shapes[i / 2][0], cols = shapes[i / 2][1];
        const tess_muon_options o = {.momentum = 0.95f,
                                     .lr_factor = 1,
                                     .dtype = i % 2 ? TESS_BF16 : TESS_F32,
                                     .n_matrices = 1,
                                     .matrix = {{0, rows, cols}}};
        world w = make_world(rows * cols);
        double least, most;
        fill_normal(w.grad, w.n, (uint64_t)i);
        update(&w, &o, 1);
        for (int64_t k = 0; k < w.n; k++) {
            w.param[k] /= -0.2f * sqrtf((float)(rows > cols ? rows : cols));
            assert_true(w.grad[k] == 0);
        }
        find_range(w.param, rows, cols, &least, &most);
        if (!(least > 0.68 && most < 1.21)) {
            fail_msg("(%d,%d): singular values %g to %g", (int)rows, (int)cols, least, most);
        }
        tess_store_free(w.store);
    }
}

/* ---- what is left alone -------------------------------------------------------------------- */

static void test_not_finite(void **state)
{
    (void)state;
    const tess_muon_options o = {.momentum = 0.95f,
                                 .lr_factor = 1,
                                 .weight_decay = 0.1f,
                                 .dtype = TESS_BF16,
                                 .n_matrices = 1,
                                 .matrix = {{10, 16, 20}}};
    world w = make_world(400);
    float param[400], m[400];
    fill_normal(w.param, w.n, 1);
    fill_normal(w.m, w.n, 2);
    fill_normal(w.grad, w.n, 3);
    memcpy(param, w.param, sizeof param);
    memcpy(m, w.m, sizeof m);
    w.grad[100] = NAN;
    update(&w, &o, NAN);
    assert_memory_equal(param, w.param, sizeof param);
    assert_memory_equal(m, w.m, sizeof m);
    for (int64_t i = 0; i < w.n; i++) {
        assert_true((w.grad[i] == 0) == (i >= 10 && i < 330));
    }
    tess_store_free(w.store);
}

/* A gradient of zeros moves nothing but by decay. */
static void test_no_gradient(void **state)
{
    (void)state;
    const tess_muon_options o = {.momentum = 0.95f,
                                 .lr_factor = 0.5f,
                                 .weight_decay = 0.5f,
                                 .dtype = TESS_F32,
                                 .n_matrices = 1,
                                 .matrix = {{0, 8, 8}}};
    world w = make_world(64);
    for (int64_t i = 0; i < w.n; i++) {
        w.param[i] = 1;
    }
    update(&w, &o, 0);
    for (int64_t i = 0; i < w.n; i++) {
        assert_true(w.param[i] == 0.75f);
    }
    tess_store_free(w.store);
}

static void test_matrices_do_not_mix(void **state)
{
    (void)state;
    tess_muon_options o = {.momentum = 0.9f,
                           .lr_factor = 1,
                           .dtype = TESS_BF16,
                           .n_matrices = 3,
                           .matrix = {{0, 32, 32}, {1024, 32, 32}, {2048, 64, 32}}};
    world together = make_world(4096), alone = make_world(4096);
    fill_normal(together.grad, together.n, 5);
    memcpy(alone.grad, together.grad, 4096 * sizeof(float));
    update(&together, &o, 1);
    for (int i = 2; i >= 0; i--) {
        tess_muon_options one = o;
        one.n_matrices = 1;
        one.matrix[0] = o.matrix[i];
        update(&alone, &one, 1);
    }
    assert_memory_equal(together.param, alone.param, 4096 * sizeof(float));
    assert_memory_equal(together.m, alone.m, 4096 * sizeof(float));
    tess_store_free(together.store);
    tess_store_free(alone.store);
}

/* Long sums in f32 are what the library would split among threads. */
static void test_threads_change_nothing(void **state)
{
    (void)state;
    const tess_muon_options o = {.momentum = 0.9f,
                                 .lr_factor = 1,
                                 .dtype = TESS_F32,
                                 .n_matrices = 2,
                                 .matrix = {{0, 24, 6000}, {144000, 6000, 24}}};
    const int before = omp_get_max_threads();
    world first = make_world(288000);
    fill_normal(first.grad, first.n, 6);
    omp_set_num_threads(1);
    update(&first, &o, 1);
    for (int threads = 2; threads < 5; threads++) {
        world w = make_world(first.n);
        fill_normal(w.grad, w.n, 6);
        omp_set_num_threads(threads);
        update(&w, &o, 1);
        assert_memory_equal(w.param, first.param, (size_t)w.n * sizeof(float));
        tess_store_free(w.store);
    }
    omp_set_num_threads(before);
    tess_store_free(first.store);
}

/* ---- refusals, layout ---------------------------------------------------------------------- */

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        int64_t n_matrices, begin, rows, cols;
        tess_dtype dtype;
        const char *says;
    } bad[] = {
        {0, 0, 4, 4, TESS_F32, "expected 1 to"},
        {TESS_MUON_MATRICES + 1, 0, 4, 4, TESS_F32, "expected 1 to"},
        {1, -1, 4, 4, TESS_F32, "is not in"},
        {1, 0, 0, 4, TESS_F32, "is not in"},
        {1, 90, 4, 4, TESS_F32, "is not in"},
        {1, 0, INT64_MAX, 2, TESS_F32, "is not in"},
        {1, 0, 4, 4, TESS_F16, "f32 or bf16"},
    };
    world w = make_world(100);
    for (int64_t i = 0; i < TESS_COUNT(bad); i++) {
        tess_muon_options o = {.dtype = bad[i].dtype,
                               .n_matrices = bad[i].n_matrices,
                               .matrix = {{bad[i].begin, bad[i].rows, bad[i].cols}}};
        tess_graph *g = tess_graph_new();
        assert_int_equal(build(&w, &o, g), TESS_INVALID);
        assert_non_null(strstr(tess_error(), bad[i].says));
        tess_graph_free(g);
    }
    tess_store_free(w.store);
}

static bool leads(const char *name)
{
    return name[0] == 'h';
}

static void test_leading_entries(void **state)
{
    (void)state;
    tess_store *s = tess_store_new();
    int64_t n;
    assert_int_equal(tess_store_add(s, "param", "a", TESS_SHAPE_OF(4, 4)), TESS_OK);
    assert_int_equal(tess_store_add(s, "param", "h.bias", TESS_SHAPE_OF(4)), TESS_OK);
    assert_int_equal(tess_store_add(s, "param", "h1", TESS_SHAPE_OF(5, 4)), TESS_OK);
    assert_int_equal(tess_store_add(s, "param", "h2", TESS_SHAPE_OF(4, 4)), TESS_OK);
    tess_store_lead(s, leads);
    assert_int_equal(tess_store_allocate(s), TESS_OK);
    assert_int_equal(tess_store_mirror(s, "m", "param"), TESS_OK);
    const float *base = tess_store_group(s, "param", &n);
    assert_int_equal(n, 32 + 16 + 16 + 16);
    assert_int_equal(tess_store_n_leading(s, "param"), 48);
    assert_int_equal(tess_store_n_decayed(s, "param"), 64);
    assert_int_equal(tess_store_find(s, "param", "h1", NULL) - base, 0);
    assert_int_equal(tess_store_find(s, "param", "h2", NULL) - base, 32);
    assert_int_equal(tess_store_find(s, "param", "a", NULL) - base, 48);
    assert_int_equal(tess_store_find(s, "param", "h.bias", NULL) - base, 64);
    base = tess_store_group(s, "m", &n);
    assert_int_equal(tess_store_find(s, "m", "a", NULL) - base, 48);
    tess_store_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_singular_values),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_no_gradient),
        cmocka_unit_test(test_matrices_do_not_mix),
        cmocka_unit_test(test_threads_change_nothing),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_leading_entries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
