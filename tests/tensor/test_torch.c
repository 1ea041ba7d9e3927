/* SPDX-License-Identifier: Apache-2.0 */
/* Attention, layernorm and the softmax objective against PyTorch: values and gradients, through the
 * planner and the cpu device, to 1e-5 of the largest element.  tests/fixtures/tensor/make.py made
 * the numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "tessera/tensor.h"

enum { MAX_VALUES = 4 };

typedef struct world {
    tess_tensors *file;
    tess_graph *g;
    const char *names[MAX_VALUES]; /* of inputs in the file */
    int n_in;
} world;

static world world_new(const char *path)
{
    world w = {.g = tess_graph_new()};
    if (tess_tensors_open(path, &w.file) != TESS_OK) {
        fail_msg("%s", tess_error());
    }
    return w;
}

static tess_value add_input(world *w, const char *name)
{
    const tess_tensor *t = tess_tensors_find(w->file, name);
    assert_non_null(t);
    w->names[w->n_in++] = name;
    return tess_input(w->g, name, TESS_F32, t->shape);
}

static void compare(const world *w, const char *name, const float *have)
{
    const tess_tensor *t = tess_tensors_find(w->file, name);
    assert_non_null(t);
    const int64_t n = tess_shape_count(&t->shape);
    const float *want = (const void *)t->data;
    double largest = 0;
    for (int64_t i = 0; i < n; i++) {
        largest = fmax(largest, fabs((double)want[i]));
    }
    for (int64_t i = 0; i < n; i++) {
        if (!(fabs((double)have[i] - (double)want[i]) <= 1e-5 * largest)) {
            fail_msg("%s[%lld]: %.9g, PyTorch %.9g", name, (long long)i, (double)have[i],
                     (double)want[i]);
        }
    }
}

/* Runs the graph and compares values[i] with the file's names[i]. */
static void run_and_compare(world *w, const tess_value *values, const char *const *names, int n)
{
    tess_plan *p = NULL;
    tess_store *store = tess_store_new();
    tess_workspace *workspace = tess_workspace_new();
    tess_status st = tess_store_allocate(store);
    st = st ? st : tess_plan_build(w->g, values, n, tess_device_cpu(), store, workspace, &p);
    for (int i = 0; st == TESS_OK && i < w->n_in; i++) {
        st = tess_plan_bind(p, w->names[i], tess_tensors_find(w->file, w->names[i])->data);
    }
    st = st ? st : tess_plan_run(p);
    if (st != TESS_OK) {
        fail_msg("%s", tess_error());
    }
    for (int i = 0; i < n; i++) {
        compare(w, names[i], tess_plan_output(p, values[i]));
    }
    tess_plan_free(p);
    tess_workspace_free(workspace);
    tess_store_free(store);
    tess_graph_free(w->g);
    tess_tensors_free(w->file);
}

static void check_attention(bool causal)
{
    world w = world_new("tests/fixtures/tensor/attention.safetensors");
    const tess_value qkv = add_input(&w, "qkv"), dy = add_input(&w, "dy");
    tess_value values[2];
    values[0] = tess_sdpa(w.g, qkv, (tess_sdpa_options){.heads = 3, .causal = causal});
    assert_int_equal(tess_graph_grad(w.g, values, &dy, 1, &qkv, 1, &values[1]), TESS_OK);
    const char *const full[] = {"full.y", "full.dqkv"}, *const masked[] = {"causal.y",
                                                                           "causal.dqkv"};
    run_and_compare(&w, values, causal ? masked : full, 2);
}

static void attention(void **state)
{
    (void)state;
    check_attention(false);
}

static void causal_attention(void **state)
{
    (void)state;
    check_attention(true);
}

static void layernorm(void **state)
{
    (void)state;
    world w = world_new("tests/fixtures/tensor/layernorm.safetensors");
    const tess_value wrt[] = {add_input(&w, "x"), add_input(&w, "weight"), add_input(&w, "bias")};
    const tess_value dy = add_input(&w, "dy");
    tess_value values[4];
    values[0] = tess_layernorm(w.g, wrt[0], wrt[1], wrt[2], 1e-5f);
    assert_int_equal(tess_graph_grad(w.g, values, &dy, 1, wrt, 3, values + 1), TESS_OK);
    run_and_compare(&w, values, (const char *const[]){"y", "dx", "dweight", "dbias"}, 4);
}

static void softmax_objective(void **state)
{
    (void)state;
    world w = world_new("tests/fixtures/tensor/contrast.safetensors");
    const tess_value wrt[] = {add_input(&w, "a"), add_input(&w, "b"), add_input(&w, "log_scale")};
    tess_value values[4];
    values[0] =
        tess_contrast_softmax(w.g, tess_l2norm(w.g, wrt[0]), tess_l2norm(w.g, wrt[1]), wrt[2]);
    assert_int_equal(tess_graph_grad(w.g, values, NULL, 1, wrt, 3, values + 1), TESS_OK);
    run_and_compare(&w, values, (const char *const[]){"loss", "da", "db", "dlog_scale"}, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention),
        cmocka_unit_test(causal_attention),
        cmocka_unit_test(layernorm),
        cmocka_unit_test(softmax_objective),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
