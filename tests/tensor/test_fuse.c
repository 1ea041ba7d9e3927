/* SPDX-License-Identifier: Apache-2.0 */
/* Fusing: what becomes one operator, what does not, and that the gradients of an MLP stay what they
 * were; on the processor, whose code for the fused operators the operator table vouches for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "tensor/fuse.h"
#include "tensor/graph.h"

enum { B = 3, T = 7, C = 16, F = 24 };

typedef struct mlp_options {
    tess_dtype dtype;
    tess_unary_kind act;
    bool twice, frozen, outside;
    unsigned read; /* bit i: the gradient of names[i] is read twice */
} mlp_options;

typedef struct world {
    mlp_options o;
    tess_graph *g;
    tess_store *store;
    tess_value loss;
    float x[B * T * C];
} world;

static const char *const names[] = {"w1", "b1", "w2", "b2"};

static tess_shape shape_of(int i)
{
    const tess_shape shapes[] = {TESS_SHAPE_OF(F, C), TESS_SHAPE_OF(F), TESS_SHAPE_OF(2, C / 2, F),
                                 TESS_SHAPE_OF(C)};
    return shapes[i];
}

static tess_value weight(const world *w, int i, int64_t rows, int64_t cols)
{
    tess_value v = tess_state(w->g, "param", names[i], TESS_F32, shape_of(i));
    v = shape_of(i).rank == 2 ? v : tess_reshape(w->g, v, TESS_SHAPE_OF(rows, cols));
    return tess_cast(w->g, v, w->o.dtype);
}

static tess_value bias(const world *w, int i)
{
    return tess_state(w->g, "param", names[i], TESS_F32, shape_of(i));
}

static tess_value mlp(const world *w, tess_value x)
{
    tess_graph *g = w->g;
    tess_value h = tess_linear(g, x, weight(w, 0, F, C), (tess_linear_options){.bias = bias(w, 1)});
    tess_value y = tess_unary(g, h, w->o.act);
    y = w->o.outside ? tess_add(g, y, h) : y;
    return tess_linear(g, y, weight(w, 2, C, F),
                       (tess_linear_options){.bias = bias(w, 3), .residual = x});
}

static void begin(world *w, mlp_options o)
{
    tess_value wrt[4], grad[4];
    *w = (world){.o = o, .g = tess_graph_new(), .store = tess_store_new()};
    const tess_value x =
        tess_cast(w->g, tess_input(w->g, "x", TESS_F32, TESS_SHAPE_OF(B, T, C)), o.dtype);
    tess_value y = mlp(w, x);
    y = o.twice ? mlp(w, y) : y;
    y = tess_reshape(w->g, tess_pool(w->g, y, 0, TESS_POOL_MEAN), TESS_SHAPE_OF(B, C));
    tess_value one = tess_l2norm(w->g, y);
    w->loss = tess_contrast_softmax(w->g, one, one,
                                    tess_state(w->g, "param", "scale", TESS_F32, TESS_SHAPE_OF(1)));
    int n = 0;
    for (int i = o.frozen ? 1 : 0; i < 4; i++) {
        wrt[n++] = tess_state(w->g, "param", names[i], TESS_F32, shape_of(i));
    }
    assert_int_equal(tess_graph_grad(w->g, &w->loss, NULL, 1, wrt, n, grad), TESS_OK);
    for (int i = 0; i < n; i++) {
        const char *name = tess_value_name(w->g, wrt[i]);
        tess_accumulate(w->g,
                        tess_state(w->g, "grad", name, TESS_F32, tess_value_shape(w->g, wrt[i])),
                        grad[i]);
        if (o.read >> (n == 3 ? i + 1 : i) & 1) {
            tess_accumulate(
                w->g, tess_state(w->g, "again", name, TESS_F32, tess_value_shape(w->g, wrt[i])),
                grad[i]);
        }
    }
    assert_int_equal(tess_graph_check(w->g), TESS_OK);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(tess_store_add(w->store, "param", names[i], shape_of(i)), TESS_OK);
        assert_int_equal(tess_store_add(w->store, "grad", names[i], shape_of(i)), TESS_OK);
        assert_int_equal(tess_store_add(w->store, "again", names[i], shape_of(i)), TESS_OK);
    }
    assert_int_equal(tess_store_add(w->store, "param", "scale", TESS_SHAPE_OF(1)), TESS_OK);
    assert_int_equal(tess_store_allocate(w->store), TESS_OK);
}

static void end(world *w)
{
    tess_store_free(w->store);
    tess_graph_free(w->g);
}

/* Two micro-steps; the gradients' sums, and the loss. */
static float run(world *w)
{
    tess_plan *plan;
    tess_workspace *workspace = tess_workspace_new();
    tess_rng r = tess_rng_at(5, 5);
    int64_t n;
    float *p = tess_store_group(w->store, "param", &n);
    for (int64_t i = 0; i < n; i++) {
        p[i] = 0.4f * (float)tess_rng_normal(&r);
    }
    for (int64_t i = 0; i < B * T * C; i++) {
        w->x[i] = (float)tess_rng_normal(&r);
    }
    assert_int_equal(
        tess_plan_build(w->g, &w->loss, 1, tess_device_cpu(), w->store, workspace, &plan), TESS_OK);
    assert_int_equal(tess_plan_bind(plan, "x", w->x), TESS_OK);
    assert_int_equal(tess_plan_run(plan), TESS_OK);
    assert_int_equal(tess_plan_run(plan), TESS_OK);
    const float loss = *(const float *)tess_plan_output(plan, w->loss);
    tess_plan_free(plan);
    tess_workspace_free(workspace);
    return loss;
}

static int count(const world *w, const char *op)
{
    int n = 0;
    for (size_t i = 0; i < w->g->n_nodes; i++) {
        n += strcmp(w->g->nodes[i].op->name, op) == 0;
    }
    return n;
}

/* Of four gradients: the difference's size beside the gradient's. */
static void compare(const world *a, const world *b, double limit)
{
    for (int i = 0; i < 4; i++) {
        const tess_shape s = shape_of(i);
        const float *x = tess_store_find(a->store, "grad", names[i], NULL);
        const float *y = tess_store_find(b->store, "grad", names[i], NULL);
        double difference = 0, size = 1e-30;
        for (int64_t k = 0; k < tess_shape_count(&s); k++) {
            difference += pow((double)x[k] - (double)y[k], 2);
            size += pow((double)x[k], 2);
        }
        if (!(sqrt(difference / size) < limit)) {
            fail_msg("%s differs by %.3g of itself", names[i], sqrt(difference / size));
        }
    }
}

static void check_same(mlp_options o, const int expected[5])
{
    static const char *const fused[] = {"linear_gelu", "project_gelu_grad", "activation_grad",
                                        "outer_add", "bias_grad"};
    world plain, w;
    begin(&plain, o);
    begin(&w, o);
    assert_int_equal(tess__graph_fuse_all(&w.g, &w.loss, 1), TESS_OK);
    for (int i = 0; i < 5; i++) {
        if (count(&w, fused[i]) != expected[i]) {
            fail_msg("%d of %s, expected %d", count(&w, fused[i]), fused[i], expected[i]);
        }
    }
    const float before = run(&plain), after = run(&w);
    const bool narrow = o.dtype == TESS_BF16;
    assert_true(fabsf(before - after) <= (narrow ? 1e-2f : 1e-5f) * fabsf(before));
    compare(&plain, &w, narrow ? 2e-2 : 1e-5);
    end(&plain);
    end(&w);
}

static void check_gelu_tanh(void **state)
{
    (void)state;
    /* linear_gelu, project_gelu_grad, activation_grad, outer_add, bias_grad */
    check_same((mlp_options){TESS_BF16, TESS_GELU_TANH}, (int[]){1, 1, 0, 2, 0});
    check_same((mlp_options){TESS_F32, TESS_GELU_TANH}, (int[]){0, 0, 1, 2, 0});
}

static void check_others(void **state)
{
    (void)state;
    check_same((mlp_options){TESS_BF16, TESS_GELU}, (int[]){0, 0, 1, 2, 0});
    check_same((mlp_options){TESS_F32, TESS_QUICK_GELU}, (int[]){0, 0, 1, 2, 0});
}

/* A weight that two products share has two gradients, which an add joins. */
static void check_shared(void **state)
{
    (void)state;
    check_same((mlp_options){TESS_F32, TESS_GELU, .twice = true}, (int[]){0, 0, 2, 0, 2});
}

/* Gradients that two effects read are there for both. */
static void check_read(void **state)
{
    (void)state;
    check_same((mlp_options){TESS_F32, TESS_GELU, .read = 1 | 4}, (int[]){0, 0, 1, 0, 1});
    check_same((mlp_options){TESS_F32, TESS_GELU, .read = 2 | 8}, (int[]){0, 0, 1, 2, 1});
}

/* Without a gradient of the weight there is no product to sum in. */
static void check_frozen(void **state)
{
    (void)state;
    check_same((mlp_options){TESS_F32, TESS_GELU, .frozen = true}, (int[]){0, 0, 1, 1, 0});
    check_same((mlp_options){TESS_BF16, TESS_GELU_TANH, .frozen = true}, (int[]){1, 1, 0, 1, 1});
}

/* z that something else reads is kept, and its two gradients are not one. */
static void check_outside(void **state)
{
    (void)state;
    check_same((mlp_options){TESS_F32, TESS_GELU, .outside = true}, (int[]){0, 0, 0, 2, 0});
    check_same((mlp_options){TESS_BF16, TESS_GELU_TANH, .outside = true}, (int[]){1, 0, 0, 2, 0});
}

/* Without a gradient z is not kept. */
static void check_forward(void **state)
{
    (void)state;
    world w;
    w = (world){.o = {TESS_BF16, TESS_GELU_TANH}, .g = tess_graph_new()};
    const tess_value x = tess_input(w.g, "x", TESS_BF16, TESS_SHAPE_OF(B, T, C));
    tess_value y = mlp(&w, x);
    assert_int_equal(tess__graph_fuse(&w.g, &y, 1, NULL), TESS_OK);
    assert_int_equal(count(&w, "linear_gelu"), 0);
    assert_int_equal(tess__graph_fuse(&w.g, &y, 1, tess_device_cpu()), TESS_OK);
    assert_int_equal(count(&w, "linear_gelu"), 0);
    assert_int_equal(tess__graph_fuse_all(&w.g, &y, 1), TESS_OK);
    assert_int_equal(count(&w, "linear_gelu"), 1);
    assert_int_equal(count(&w, "unary"), 0);
    for (size_t i = 0; i < w.g->n_nodes; i++) {
        const tess_node *n = &w.g->nodes[i];
        const tess_shape s = tess_value_shape(w.g, n->out + 1);
        assert_true(strcmp(n->op->name, "linear_gelu") != 0 || tess_shape_count(&s) == 0);
    }
    tess_plan *plan;
    tess_workspace *workspace = tess_workspace_new();
    w.store = tess_store_new();
    assert_int_equal(tess_store_add_graph(w.store, w.g, "param"), TESS_OK);
    assert_int_equal(tess_store_allocate(w.store), TESS_OK);
    assert_int_equal(tess_plan_build(w.g, &y, 1, tess_device_cpu(), w.store, workspace, &plan),
                     TESS_OK);
    uint16_t zeros[B * T * C] = {0};
    assert_int_equal(tess_plan_bind(plan, "x", zeros), TESS_OK);
    assert_int_equal(tess_plan_run_debug(plan), TESS_OK);
    tess_plan_free(plan);
    tess_workspace_free(workspace);
    end(&w);
}

/* A graph whose memory gives out is left as it was. */
static void check_no_memory(void **state)
{
    (void)state;
    for (int nth = 1; nth < 30; nth++) {
        world w;
        begin(&w, (mlp_options){TESS_F32, TESS_GELU});
        const tess_graph *before = w.g;
        tess_fault_set(TESS_FAULT_ALLOC, nth, true);
        const tess_status st = tess__graph_fuse_all(&w.g, &w.loss, 1);
        tess_fault_set(TESS_FAULT_ALLOC, 0, false);
        assert_true(st == TESS_OK || (st == TESS_NOMEM && w.g == before));
        assert_true(nth > 4 || st == TESS_NOMEM);
        end(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_gelu_tanh), cmocka_unit_test(check_others),
        cmocka_unit_test(check_shared),    cmocka_unit_test(check_read),
        cmocka_unit_test(check_frozen),    cmocka_unit_test(check_outside),
        cmocka_unit_test(check_forward),   cmocka_unit_test(check_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
