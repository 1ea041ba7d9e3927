/* SPDX-License-Identifier: Apache-2.0 */
/* Small graphs and their golden text dumps, for cmocka tests of the engine.  A dump that differs is
 * printed; where the new text is right, put it in tests/fixtures/tensor/NAME.txt. */
#ifndef TESSERA_TESTS_GRAPH_FIXTURE_H
#define TESSERA_TESTS_GRAPH_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tensor/block.h"
#include "tensor/plan.h"

#define ok(expr)                                                                                   \
    do {                                                                                           \
        if ((expr) != TESS_OK) {                                                                   \
            fail_msg("%s: %s", #expr, tess_error());                                               \
        }                                                                                          \
    } while (0)

static inline void assert_says(const char *text)
{
    if (!strstr(tess_error(), text)) {
        fail_msg("expected \"%s\" in \"%s\"", text, tess_error());
    }
}

static inline void assert_golden(const char *name, const tess_buf *text)
{
    char path[128];
    uint8_t *want = NULL;
    size_t n;
    snprintf(path, sizeof path, "tests/fixtures/tensor/%s.txt", name);
    if (tess_file_read(path, 1 << 20, &want, &n) != TESS_OK ||
        strcmp((char *)want, text->data) != 0) {
        print_message("%s", text->data);
        fail_msg("%s differs from what is printed above", path);
    }
    tess_free(want);
}

static inline void assert_graph_is(const char *name, const tess_graph *g)
{
    tess_buf b = {0};
    tess_graph_print(g, &b);
    assert_golden(name, &b);
    tess_buf_deinit(&b);
}

/* A two-layer perceptron: loss = <y, dy>, gradients of all four parameters accumulated. */
typedef struct mlp_graph {
    tess_graph *g;
    tess_value x, y, dy, wrt[4], grad[4];
} mlp_graph;

static inline mlp_graph mlp_make(int64_t n, bool with_grad)
{
    mlp_graph m = {.g = tess_graph_new()};
    tess_graph *g = m.g;
    m.x = tess_input(g, "x", TESS_F32, TESS_SHAPE_OF(n, 6));
    tess_scope_push(g, "mlp");
    tess_value h = tess__linear(g, "c_fc", m.x, 8, (tess_linear_options){0});
    h = tess_unary(g, h, TESS_GELU);
    m.y = tess__linear(g, "c_proj", h, 6, (tess_linear_options){.residual = m.x});
    tess_scope_pop(g);
    m.dy = tess_input(g, "dy", TESS_F32, TESS_SHAPE_OF(n, 6));
    tess_graph_states(g, "param", m.wrt, 4);
    if (with_grad) {
        ok(tess_graph_grad(g, &m.y, &m.dy, 1, m.wrt, 4, m.grad));
        for (int i = 0; i < 4; i++) {
            tess_accumulate(g,
                            tess_state(g, "grad", tess_value_name(g, m.wrt[i]), TESS_F32,
                                       tess_value_shape(g, m.wrt[i])),
                            m.grad[i]);
        }
    }
    ok(tess_graph_check(g));
    return m;
}

static inline tess_store *store_for(const tess_graph *g)
{
    tess_store *s = tess_store_new();
    ok(tess_store_add_graph(s, g, "param"));
    ok(tess_store_add_graph(s, g, "grad"));
    ok(tess_store_allocate(s));
    int64_t n;
    float *x = tess_store_group(s, "param", &n);
    tess_rng r = tess_rng_at(3, 1);
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)(0.3 * tess_rng_normal(&r));
    }
    return s;
}

#endif
