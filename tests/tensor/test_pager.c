/* SPDX-License-Identifier: Apache-2.0 */
/* States that are paged: values survive, memory stays within its budget, what is away cannot be
 * touched, plans and updates give the bits that they give in memory, and files that fail are an
 * error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tensor/op.h"
#include "tensor/pager.h"

enum { BLOCK = 4096, N = BLOCK / 4 };

static char dir[] = "/tmp/tessera_pager_XXXXXX";

static tess_pager *open_pager(size_t budget)
{
    tess_pager *p = NULL;
    assert_int_equal(tess_pager_new(&(tess_pager_options){.dir = dir, .block_bytes = BLOCK}, &p),
                     TESS_OK);
    tess_pager_set_budget(p, budget);
    return p;
}

/* ---- blocks -------------------------------------------------------------------------------- */

static void fill(float *x, int64_t n, uint64_t seed)
{
    tess_rng r = tess_rng_at(seed, 1);
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)tess_rng_normal(&r);
    }
}

/* Until no more than n_bytes are there: the lanes are done with what is on its way. */
static void drain(tess_pager *p, size_t n_bytes)
{
    while (tess_pager_get_stats(p).there_bytes > n_bytes) {
        usleep(1000);
    }
}

/* Forty blocks through room for three, in runs that begin and end within blocks. */
static void test_values_survive(void **state)
{
    (void)state;
    enum { ALL = 40 * N, RUN = 900 };
    tess_pager *p = open_pager(3 * BLOCK);
    static float want[ALL];
    void *base = NULL;
    fill(want, ALL, 1);
    assert_int_equal(tess__pager_map(p, sizeof want, &base), TESS_OK);
    float *x = base;
    for (int64_t i = 0; i < ALL; i += RUN) {
        const size_t n = (size_t)(ALL - i < RUN ? ALL - i : RUN) * sizeof *x;
        assert_int_equal(tess__pager_gather(p, x + i, n), TESS_OK);
        assert_true(x[i] == 0);
        memcpy(x + i, want + i, n);
        tess__pager_release(p, x + i, n, TESS_PAGED_WRITTEN);
    }
    drain(p, 0);
    for (int64_t i = ALL - N; i >= 0; i -= N) {
        assert_int_equal(tess__pager_gather(p, x + i, BLOCK), TESS_OK);
        assert_memory_equal(x + i, want + i, BLOCK);
        tess__pager_release(p, x + i, BLOCK, TESS_PAGED_READ);
    }
    const tess_pager_stats s = tess_pager_get_stats(p);
    assert_true(s.peak_bytes <= 3 * BLOCK);
    assert_true(s.there_bytes == 0 && s.read_bytes >= sizeof want &&
                s.written_bytes >= sizeof want);
    tess__pager_unmap(p, base);
    tess_pager_free(p);
}

/* What was zeroed is neither written nor read, and is zero. */
static void test_zeroed(void **state)
{
    (void)state;
    tess_pager *p = open_pager(8 * BLOCK);
    void *base = NULL;
    assert_int_equal(tess__pager_map(p, 2 * BLOCK, &base), TESS_OK);
    assert_int_equal(tess__pager_gather(p, base, 2 * BLOCK), TESS_OK);
    memset(base, 0xff, 2 * BLOCK);
    tess__pager_release(p, base, 2 * BLOCK, TESS_PAGED_WRITTEN);
    drain(p, 0);
    assert_int_equal(tess__pager_gather(p, base, BLOCK + 8), TESS_OK);
    assert_int_equal(tess__pager_gather(p, (char *)base + BLOCK + 8, BLOCK - 8), TESS_OK);
    const size_t written = tess_pager_get_stats(p).written_bytes;
    memset(base, 0, BLOCK + 8);
    tess__pager_release(p, base, BLOCK + 8, TESS_PAGED_ZEROED); /* one block and a bit */
    tess__pager_release(p, (char *)base + BLOCK + 8, BLOCK - 8, TESS_PAGED_READ);
    drain(p, 0);
    assert_int_equal(tess__pager_gather(p, base, 2 * BLOCK), TESS_OK);
    const uint8_t *x = base;
    assert_true(x[0] == 0 && x[BLOCK - 1] == 0 && x[BLOCK + 7] == 0 && x[BLOCK + 8] == 0xff);
    const tess_pager_stats s = tess_pager_get_stats(p);
    assert_true(s.written_bytes <= written + BLOCK);
    tess__pager_release(p, base, 2 * BLOCK, TESS_PAGED_READ);
    tess_pager_free(p);
}

/* A block that is asked for again while it is written stays; what is kept stays for good. */
static void test_kept(void **state)
{
    (void)state;
    tess_pager *p = open_pager(2 * BLOCK);
    void *base = NULL;
    size_t budget = 2 * BLOCK + 1;
    assert_int_equal(tess__pager_map(p, 4 * BLOCK, &base), TESS_OK);
    assert_int_equal(tess__pager_keep(p, base, 4 * BLOCK, &budget), TESS_OK);
    assert_int_equal(budget, 1);
    const tess_pager_stats before = tess_pager_get_stats(p);
    assert_int_equal(before.kept_bytes, 2 * BLOCK);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(tess__pager_gather(p, base, 4 * BLOCK), TESS_OK);
        assert_true(((int *)base)[0] == i && ((int *)base)[3 * N] == i);
        ((int *)base)[0]++;
        ((int *)base)[3 * N]++;
        tess__pager_release(p, base, 4 * BLOCK, TESS_PAGED_WRITTEN);
    }
    const tess_pager_stats s = tess_pager_get_stats(p);
    assert_true(s.written_bytes - before.written_bytes <= 2 * 50 * BLOCK);
    assert_true(s.peak_bytes <= 4 * BLOCK);
    drain(p, 2 * BLOCK);
    assert_int_equal(tess_pager_get_stats(p).there_bytes, 2 * BLOCK);
    assert_int_equal(((int *)base)[0], 50);
    tess_pager_free(p);
}

static void test_room(void **state)
{
    (void)state;
    tess_pager *p = open_pager(2 * BLOCK);
    void *base = NULL;
    assert_int_equal(tess__pager_map(p, 4 * BLOCK, &base), TESS_OK);
    assert_int_equal(tess__pager_gather(p, base, BLOCK), TESS_OK);
    const tess_pages more = {.at = (char *)base + BLOCK, .n_bytes = 2 * BLOCK};
    assert_false(tess__pager_try(p, &more, 1));
    assert_int_equal(tess__pager_ask(p, &more, 1), TESS_NOMEM);
    assert_non_null(strstr(tess_error(), "are needed at once"));
    tess__pager_release(p, base, BLOCK, TESS_PAGED_READ);
    assert_int_equal(tess__pager_gather(p, more.at, more.n_bytes), TESS_OK);
    tess__pager_release(p, more.at, more.n_bytes, TESS_PAGED_READ);
    tess_pager_free(p);
}

/* The child's signal, or the status with which a sanitizer ends it. */
static bool dies_reading(const volatile float *x)
{
    const pid_t child = fork();
    if (child == 0) {
        const struct rlimit none = {0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGSEGV, SIG_DFL); /* not cmocka's */
        close(2);
        _exit(x[0] == 12345.0f);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) || WEXITSTATUS(status) > 1;
}

static void test_away_cannot_be_read(void **state)
{
    (void)state;
    tess_pager *p = open_pager(BLOCK);
    void *base = NULL;
    assert_int_equal(tess__pager_map(p, BLOCK, &base), TESS_OK);
    assert_true(dies_reading(base));
    assert_int_equal(tess__pager_gather(p, base, BLOCK), TESS_OK);
    assert_false(dies_reading(base));
    tess__pager_release(p, base, BLOCK, TESS_PAGED_READ);
    assert_true(dies_reading(base));
    tess_pager_free(p);
}

static void test_write_fails(void **state)
{
    (void)state;
    tess_pager *p = open_pager(BLOCK);
    void *base = NULL;
    assert_int_equal(tess__pager_map(p, 2 * BLOCK, &base), TESS_OK);
    assert_int_equal(tess__pager_gather(p, base, BLOCK), TESS_OK);
    tess_fault_set(TESS_FAULT_WRITE, 1, true);
    tess__pager_release(p, base, BLOCK, TESS_PAGED_WRITTEN);
    assert_int_equal(tess__pager_gather(p, (char *)base + BLOCK, BLOCK), TESS_IO);
    tess_fault_set(TESS_FAULT_WRITE, 0, false);
    assert_non_null(strstr(tess_error(), dir));
    assert_non_null(strstr(tess_error(), "No space left"));
    tess_pager_free(p);
}

static void test_no_directory(void **state)
{
    (void)state;
    tess_pager *p = NULL;
    assert_int_equal(tess_pager_new(&(tess_pager_options){.dir = "/proc/none"}, &p), TESS_IO);
    assert_null(p);
    assert_int_equal(tess_pager_new(&(tess_pager_options){.dir = dir, .block_bytes = 100}, &p),
                     TESS_INVALID);
}

/* ---- plans --------------------------------------------------------------------------------- */

enum { WIDTH = 128, LAYERS = 6 };

typedef struct world {
    tess_pager *pager; /* NULL: in memory */
    tess_store *store;
    tess_workspace *workspace;
    tess_graph *step, *update;
    tess_plan *step_plan, *update_plan;
    tess_value loss, norm;
    float x[4 * WIDTH], hyper[5];
} world;

static const char *const groups[] = {"param", "grad", "m", "v", "half"};

static void add_states(world *w, bool frozen)
{
    for (int k = 0; k < 5; k++) {
        for (int i = 0; i < LAYERS; i++) {
            char name[16];
            snprintf(name, sizeof name, "w%d", i);
            const bool has = !(frozen && i == 2) || k == 0 || k == 4;
            assert_int_equal(
                has ? tess_store_add(w->store, groups[k], name, TESS_SHAPE_OF(WIDTH, WIDTH + i % 2))
                    : TESS_OK,
                TESS_OK);
        }
    }
    assert_int_equal(tess_store_set_dtype(w->store, "half", TESS_BF16), TESS_OK);
    assert_int_equal(tess_store_allocate(w->store), TESS_OK);
}

static tess_value weight(tess_graph *g, int i)
{
    char name[16];
    snprintf(name, sizeof name, "w%d", i);
    return tess_state(g, "param", name, TESS_F32, TESS_SHAPE_OF(WIDTH, WIDTH + i % 2));
}

/* x (4,W) through layers of W + i % 2 columns; the loss is the sum of squares of what comes out. */
static void build_step(world *w, bool frozen)
{
    tess_graph *g = w->step = tess_graph_new();
    tess_value y = tess_input(g, "x", TESS_F32, TESS_SHAPE_OF(4, WIDTH)), wrt[LAYERS], out[LAYERS];
    for (int i = 0; i < LAYERS; i++) {
        wrt[i] = weight(g, i);
        y = i % 2 ? tess_project(g, y, wrt[i])
                  : tess_linear(g, y, wrt[i], (tess_linear_options){0});
        y = i % 2 ? tess_linear(g, y, wrt[i], (tess_linear_options){0}) : y;
        y = tess_unary(g, y, TESS_TANH);
    }
    const tess_value a = tess_l2norm(g, y);
    const tess_value scale = tess__fill(g, TESS_F32, tess_shape_make(0, NULL), 1.0f);
    w->loss = tess_contrast_softmax(g, a, a, scale);
    assert_int_equal(tess_graph_grad(g, &w->loss, NULL, 1, wrt, LAYERS, out), TESS_OK);
    for (int i = 0; i < LAYERS; i++) {
        if (!(frozen && i == 2)) {
            tess_accumulate(g,
                            tess_state(g, "grad", tess_value_name(g, wrt[i]), TESS_F32,
                                       TESS_SHAPE_OF(WIDTH, WIDTH + i % 2)),
                            out[i]);
        }
    }
    assert_int_equal(
        tess_plan_build(g, &w->loss, 1, tess_device_cpu(), w->store, w->workspace, &w->step_plan),
        TESS_OK);
    assert_int_equal(tess_plan_bind(w->step_plan, "x", w->x), TESS_OK);
}

static tess_value whole(world *w, const char *group, tess_dtype dtype)
{
    int64_t n;
    tess_store_group(w->store, group, &n);
    return tess_state(w->update, group, "", dtype, TESS_SHAPE_OF(n));
}

static void build_update(world *w, bool frozen)
{
    tess_graph *g = w->update = tess_graph_new();
    const tess_value grad = whole(w, "grad", TESS_F32);
    tess_adamw_options o = {.beta1 = 0.9f,
                            .beta2 = 0.98f,
                            .eps = 1e-6f,
                            .weight_decay = 0.1f,
                            .clip = 0.5f,
                            .n_decayed = 4 * WIDTH * WIDTH + 32,
                            .narrow = whole(w, "half", TESS_BF16),
                            .stochastic = true,
                            .seed = 9};
    if (frozen) {
        int64_t n;
        const float *base = tess_store_group(w->store, "param", &n);
        const float *grads = tess_store_group(w->store, "grad", &n);
        o.n_parts = 2;
        o.part[1].grad = tess_store_find(w->store, "grad", "w3", NULL) - grads;
        o.part[1].param = tess_store_find(w->store, "param", "w3", NULL) - base;
    }
    w->norm = tess_sumsq(g, grad);
    tess_adamw(g, whole(w, "param", TESS_F32), grad, whole(w, "m", TESS_F32),
               whole(w, "v", TESS_F32), tess_input(g, "hyper", TESS_F32, TESS_SHAPE_OF(5)), w->norm,
               o);
    assert_int_equal(
        tess_plan_build(g, &w->norm, 1, tess_device_cpu(), w->store, w->workspace, &w->update_plan),
        TESS_OK);
    assert_int_equal(tess_plan_bind(w->update_plan, "hyper", w->hyper), TESS_OK);
}

static void open_world(world *w, bool paged, bool frozen)
{
    *w = (world){.store = tess_store_new(), .workspace = tess_workspace_new()};
    fill(w->x, TESS_COUNT(w->x), 3);
    w->pager = paged ? open_pager(SIZE_MAX) : NULL;
    tess_store_set_pager(w->store, w->pager);
    add_states(w, frozen);
    for (int64_t i = 0; i < LAYERS; i++) {
        float *x;
        tess_shape shape;
        const char *name = tess_store_entry(w->store, "param", i, &x, &shape);
        assert_int_equal(tess_store_gather(w->store, "param", name), TESS_OK);
        fill(x, tess_shape_count(&shape), 10 + (uint64_t)i);
        tess_store_release(w->store, "param", name, true);
    }
    build_step(w, frozen);
    build_update(w, frozen);
    if (paged) { /* the least that the plans can do with */
        const size_t a = tess_plan_get_stats(w->step_plan).paged_bytes;
        const size_t b = tess_plan_get_stats(w->update_plan).paged_bytes;
        tess_pager_set_budget(w->pager, a > b ? a : b);
    }
}

static void close_world(world *w)
{
    tess_plan_free(w->step_plan);
    tess_plan_free(w->update_plan);
    tess_graph_free(w->step);
    tess_graph_free(w->update);
    tess_workspace_free(w->workspace);
    tess_store_free(w->store);
    tess_pager_free(w->pager);
}

/* With an update that does not count where `skips`: its gradient is not finite. */
static void set_step(world *w, int step, bool skips)
{
    w->x[0] = skips && step == 2 ? INFINITY : 1;
    w->hyper[0] = 1e-2f;
    w->hyper[1] = 1 / (1 - powf(0.9f, (float)step));
    w->hyper[2] = 1 / (1 - powf(0.98f, (float)step));
    w->hyper[3] = 1;
    w->hyper[4] = (float)step;
}

static void compare_groups(const world *a, const world *b)
{
    for (int k = 0; k < 5; k++) {
        int64_t n;
        const void *x = tess_store_group(a->store, groups[k], &n);
        const void *y = tess_store_group(b->store, groups[k], &n);
        const size_t item = tess_dtype_bytes(tess_store_dtype(a->store, groups[k]));
        tess_pager_set_budget(b->pager, SIZE_MAX);
        assert_int_equal(tess_store_gather(b->store, groups[k], ""), TESS_OK);
        assert_memory_equal(x, y, (size_t)n * item);
        tess_store_release(b->store, groups[k], "", false);
    }
}

static void compare_training(bool frozen, bool debug)
{
    world a, b;
    open_world(&a, false, frozen);
    open_world(&b, true, frozen);
    for (int step = 1; step <= 3; step++) {
        world *const both[] = {&a, &b};
        for (int k = 0; k < 2; k++) {
            set_step(both[k], step, !debug);
            for (int micro = 0; micro < 2; micro++) {
                assert_int_equal(debug ? tess_plan_run_debug(both[k]->step_plan)
                                       : tess_plan_run(both[k]->step_plan),
                                 TESS_OK);
            }
            assert_int_equal(tess_plan_run(both[k]->update_plan), TESS_OK);
        }
        assert_memory_equal(tess_plan_output(a.update_plan, a.norm),
                            tess_plan_output(b.update_plan, b.norm), sizeof(float));
    }
    const tess_pager_stats s = tess_pager_get_stats(b.pager);
    assert_true(s.read_bytes > 0 && s.written_bytes > 0);
    int64_t n;
    tess_store_group(a.store, "param", &n);
    assert_true(s.peak_bytes < (size_t)n * 18 / 2); /* half of what there is */
    compare_groups(&a, &b);
    close_world(&a);
    close_world(&b);
}

static void test_same_bits(void **state)
{
    (void)state;
    compare_training(false, false);
}

static void test_same_bits_with_frozen(void **state)
{
    (void)state;
    compare_training(true, false);
}

static void test_same_bits_step_by_step(void **state)
{
    (void)state;
    compare_training(false, true);
}

/* A state that one step reads and the next one writes is written back. */
static void test_read_then_written(void **state)
{
    (void)state;
    const tess_shape shape = TESS_SHAPE_OF(N);
    tess_store *s = tess_store_new();
    tess_workspace *workspace = tess_workspace_new();
    tess_graph *g = tess_graph_new();
    tess_pager *p = open_pager(SIZE_MAX);
    tess_plan *plan = NULL;
    tess_store_set_pager(s, p);
    assert_int_equal(tess_store_add(s, "x", "a", shape), TESS_OK);
    assert_int_equal(tess_store_allocate(s), TESS_OK);
    float *x = tess_store_find(s, "x", "a", NULL);
    assert_int_equal(tess_store_gather(s, "x", "a"), TESS_OK);
    x[7] = 5;
    tess_store_release(s, "x", "a", true);
    drain(p, 0);
    const tess_value a = tess_state(g, "x", "a", TESS_F32, shape), y = tess_scale(g, a, 2);
    tess_clamp(g, a, -1, 1);
    assert_int_equal(tess_plan_build(g, &y, 1, tess_device_cpu(), s, workspace, &plan), TESS_OK);
    assert_int_equal(tess_plan_run(plan), TESS_OK);
    assert_true(((const float *)tess_plan_output(plan, y))[7] == 10);
    drain(p, 0);
    assert_int_equal(tess_store_gather(s, "x", "a"), TESS_OK);
    assert_true(x[7] == 1);
    tess_store_release(s, "x", "a", false);
    tess_plan_free(plan);
    tess_graph_free(g);
    tess_workspace_free(workspace);
    tess_store_free(s);
    tess_pager_free(p);
}

/* Too little is an error that names what is needed, and leaves all as it was. */
static void test_too_little(void **state)
{
    (void)state;
    world w;
    open_world(&w, true, false);
    const size_t need = tess_plan_get_stats(w.step_plan).paged_bytes;
    tess_pager_set_budget(w.pager, need - BLOCK);
    assert_int_equal(tess_plan_run(w.step_plan), TESS_NOMEM);
    tess_pager_set_budget(w.pager, need);
    assert_int_equal(tess_plan_run(w.step_plan), TESS_OK);
    close_world(&w);
}

static int open_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

/* Nothing is left behind: the directory is empty. */
static int remove_dir(void **state)
{
    (void)state;
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_survive),
        cmocka_unit_test(test_zeroed),
        cmocka_unit_test(test_kept),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_away_cannot_be_read),
        cmocka_unit_test(test_write_fails),
        cmocka_unit_test(test_no_directory),
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_same_bits_with_frozen),
        cmocka_unit_test(test_same_bits_step_by_step),
        cmocka_unit_test(test_read_then_written),
        cmocka_unit_test(test_too_little),
    };
    tess_compute_threads(1); /* results do not depend on it, and threads of small loops only wait */
    return cmocka_run_group_tests(tests, open_dir, remove_dir);
}
