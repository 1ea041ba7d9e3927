/* SPDX-License-Identifier: Apache-2.0 */
/* The speed mode of the operator driver: TESS_OP_SPEED=1 prints, at training's shapes, the best
 * time of every node of a case's graph with its gradient, its FLOP rate against this machine's own
 * bf16 product and its memory rate against this machine's own copy.  A bench, not a timed test:
 * without the variable it only checks that the cases build. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <time.h>

#include "tensor/op_driver.h"

static bool by_processor;

enum { ROWS = 18432, WIDTH = 192, HIDDEN = 768, REPEATS = 7 };

static tess_value build_linear(tess_graph *g, const tess_value *in)
{
    return tess_linear(g, in[0], in[1], (tess_linear_options){.bias = in[2]});
}

static tess_value build_relu(tess_graph *g, const tess_value *in)
{
    return tess_linear(g, in[0], in[1], (tess_linear_options){.bias = in[2], .relu = true});
}

static tess_value build_residual(tess_graph *g, const tess_value *in)
{
    return tess_linear(g, in[0], in[1], (tess_linear_options){.bias = in[2], .residual = in[3]});
}

static tess_value build_sdpa(tess_graph *g, const tess_value *in)
{
    return tess_sdpa(g, in[0], (tess_sdpa_options){.heads = 3});
}

static tess_value build_text(tess_graph *g, const tess_value *in)
{
    return tess_sdpa(g, in[0],
                     (tess_sdpa_options){.heads = 3, .offsets = in[1], .max_segment = 200});
}

static tess_value build_layernorm(tess_graph *g, const tess_value *in)
{
    return tess_layernorm(g, in[0], in[1], in[2], 1e-5f);
}

static tess_value build_gelu(tess_graph *g, const tess_value *in)
{
    return tess_unary(g, in[0], TESS_GELU);
}

static tess_value build_embedding(tess_graph *g, const tess_value *in)
{
    return tess_embedding(g, in[0], in[1], TESS_BF16);
}

static tess_value build_contrast(tess_graph *g, const tess_value *in)
{
    return tess_contrast_softmax(g, in[0], in[1], in[2]);
}

static tess_value build_add(tess_graph *g, const tess_value *in)
{
    return tess_add(g, in[0], in[1]);
}

static tess_value build_patchify(tess_graph *g, const tess_value *in)
{
    return tess_patchify(g, in[0],
                         (tess_patchify_options){.patch = 16,
                                                 .mean = {0.5f, 0.5f, 0.5f},
                                                 .std = {0.5f, 0.5f, 0.5f},
                                                 .dtype = TESS_BF16});
}

static tess_value build_adamw(tess_graph *g, const tess_value *in)
{
    tess_adamw(g, in[0], in[1], in[2], in[3], in[4], in[5],
               (tess_adamw_options){.beta1 = 0.9f, .beta2 = 0.98f, .eps = 1e-6f, .clip = 1});
    return 0;
}

#define LINEAR(label, out, depth, f)                                                               \
    {                                                                                              \
        .name = (label), .n_in = 3,                                                                \
        .in = {{TESS_BF16, {2, {ROWS, depth}}},                                                    \
               {TESS_BF16, {2, {out, depth}}},                                                     \
               {TESS_F32, {1, {out}}}},                                                            \
        .build = (f)                                                                               \
    }
#define FLAT(n)                                                                                    \
    {                                                                                              \
        TESS_F32, {1, {n}}, TESS_FILL_POSITIVE, .no_grad = true                                    \
    }
static const tess_case cases[] = {
    LINEAR("qkv", 3 * WIDTH, WIDTH, build_linear),
    LINEAR("hidden, relu", HIDDEN, WIDTH, build_relu),
    {.name = "out, residual",
     .n_in = 4,
     .in = {{TESS_BF16, {2, {ROWS, HIDDEN}}},
            {TESS_BF16, {2, {WIDTH, HIDDEN}}},
            {TESS_F32, {1, {WIDTH}}},
            {TESS_BF16, {2, {ROWS, WIDTH}}}},
     .build = build_residual},
    {.name = "attention, 512 x 36 rows",
     .n_in = 1,
     .in = {{TESS_BF16, {3, {512, 36, 3 * WIDTH}}}},
     .build = build_sdpa},
    {.name = "attention, 1024 short segments",
     .n_in = 2,
     .in = {{TESS_BF16, {2, {8192, 3 * WIDTH}}}, {TESS_I32, {1, {1025}}, TESS_FILL_OFFSETS, 8192}},
     .build = build_text},
    {.name = "layernorm",
     .n_in = 3,
     .in = {{TESS_BF16, {2, {ROWS, WIDTH}}}, {TESS_F32, {1, {WIDTH}}}, {TESS_F32, {1, {WIDTH}}}},
     .build = build_layernorm},
    {.name = "gelu", .n_in = 1, .in = {{TESS_BF16, {2, {ROWS, HIDDEN}}}}, .build = build_gelu},
    {.name = "add",
     .n_in = 2,
     .in = {{TESS_BF16, {2, {ROWS, WIDTH}}}, {TESS_BF16, {2, {ROWS, WIDTH}}}},
     .build = build_add},
    {.name = "embedding",
     .n_in = 2,
     .in = {{TESS_F32, {2, {32000, WIDTH}}}, {TESS_I32, {1, {8192}}, TESS_FILL_INDEX, 32000}},
     .build = build_embedding},
    {.name = "softmax objective, B 512, 2 slots",
     .n_in = 3,
     .in = {{TESS_F32, {2, {512, WIDTH}}, TESS_FILL_UNIT},
            {TESS_F32, {2, {1024, WIDTH}}, TESS_FILL_UNIT},
            {TESS_F32, {0}, TESS_FILL_POSITIVE}},
     .build = build_contrast},
    {.name = "patchify",
     .n_in = 1,
     .in = {{TESS_U8, {4, {512, 96, 96, 3}}, TESS_FILL_BYTES, 256}},
     .build = build_patchify},
    {.name = "adamw, 8 M parameters",
     .n_in = 6,
     .in = {FLAT(8000000), FLAT(8000000), FLAT(8000000), FLAT(8000000), FLAT(5), FLAT(1)},
     .build = build_adamw},
};

static double node_bytes(const tess_node *n, const node_run *r)
{
    double bytes = 0;
    for (int i = 0; i < n->n_in; i++) {
        const bool written = n->op->state_mask >> i & 1;
        bytes += r->in[i].data ? (double)operand_bytes(&r->in[i]) * (written ? 2 : 1) : 0;
    }
    for (int k = 0; k < n->op->n_out; k++) {
        bytes += (double)operand_bytes(&r->out[k]);
    }
    return bytes;
}

/* Processor time of the one thread, when asked for. */
static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return by_processor ? (double)t.tv_sec + 1e-9 * (double)t.tv_nsec : tess_seconds();
}

/* Best of several runs of one node, prepared once; its outputs are kept for later nodes. */
static double time_node(driver *d, const tess_node *n, node_run *r)
{
    tess_prepare p = {.in = r->in, .out = r->out, .n_in = n->n_in, .attrs = n->attrs};
    assert_int_equal(n->op->prepare ? n->op->prepare(&p) : TESS_OK, TESS_OK);
    tess_exec e = node_exec(n, r);
    e.prepared = p.prepared;
    e.scratch = tess_alloc(p.scratch_bytes);
    double best = INFINITY;
    for (int i = 0; i < REPEATS; i++) {
        const double start = seconds_now();
        assert_int_equal(n->op->cpu(&e), TESS_OK);
        best = fmin(best, seconds_now() - start);
    }
    tess_free(e.scratch);
    if (n->op->unprepare) {
        n->op->unprepare(p.prepared);
    }
    for (int k = 0; k < n->op->n_out; k++) {
        memcpy(d->data[n->out + k], r->out[k].data, operand_bytes(&r->out[k]));
    }
    return best;
}

/* This machine's bf16 product (2048 cubed) in FLOP/s and copy in bytes read and written per s. */
static void measure_roofs(double *flops, double *bytes)
{
    static const tess_case square = {.n_in = 2,
                                     .in = {{TESS_BF16, {2, {2048, 2048}}, .no_grad = true},
                                            {TESS_BF16, {2, {2048, 2048}}, .no_grad = true},
                                            {TESS_F32, {1, {2048}}, .no_grad = true}},
                                     .build = build_linear};
    static const tess_case copy = {.n_in = 2,
                                   .in = {{TESS_F32, {1, {16000000}}, .no_grad = true},
                                          {TESS_F32, {1, {16000000}}, .no_grad = true}},
                                   .build = build_add};
    const tess_case *const both[] = {&square, &copy};
    for (int i = 0; i < 2; i++) {
        driver d = {.c = both[i]};
        assert_null(driver_build(&d));
        const tess_node n = d.g->nodes[d.g->n_nodes - 1];
        node_run r = node_begin(&d, &n, false, 0);
        const double s = time_node(&d, &n, &r);
        *(i ? bytes : flops) = i ? node_bytes(&n, &r) / s : n.op->flops(r.in, r.out, n.attrs) / s;
        node_end(&n, &r);
        driver_free(&d);
    }
}

static void print_speed(void **state)
{
    (void)state;
    if (!getenv("TESS_OP_SPEED")) {
        skip();
    }
    by_processor = strcmp(getenv("TESS_OP_SPEED"), "cpu") == 0;
    if (by_processor) {
        omp_set_num_threads(1);
    }
    double roof_flops = 0, roof_bytes = 0;
    measure_roofs(&roof_flops, &roof_bytes);
    printf("roofs: %.0f GF/s, %.1f GB/s\n", roof_flops * 1e-9, roof_bytes * 1e-9);
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        driver d = {.c = &cases[i]};
        assert_null(driver_build(&d));
        printf("%s\n", cases[i].name);
        for (size_t k = 0; k < d.g->n_nodes; k++) {
            const tess_node n = d.g->nodes[k];
            if (n.op->flags & TESS_OP_LEAF) {
                continue;
            }
            node_run r = node_begin(&d, &n, false, 0);
            const double s = time_node(&d, &n, &r);
            const double f = n.op->flops ? n.op->flops(r.in, r.out, n.attrs) : 0;
            const double b = node_bytes(&n, &r);
            printf("  %-22s %8.3f ms %7.1f GF/s (%3.0f%%) %6.1f GB/s (%3.0f%%)\n", n.op->name,
                   s * 1e3, f / s * 1e-9, 100 * f / s / roof_flops, b / s * 1e-9,
                   100 * b / s / roof_bytes);
            node_end(&n, &r);
        }
        driver_free(&d);
    }
}

static void cases_build(void **state)
{
    (void)state;
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        driver d = {.c = &cases[i]};
        tess_graph *g = d.g = tess_graph_new();
        for (int k = 0; k < cases[i].n_in; k++) {
            d.in[k] = tess_input(g, "x", cases[i].in[k].dtype, cases[i].in[k].shape);
        }
        cases[i].build(g, d.in);
        assert_int_equal(tess_graph_check(g), TESS_OK);
        tess_graph_free(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cases_build),
        cmocka_unit_test(print_speed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
