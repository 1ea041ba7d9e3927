/* SPDX-License-Identifier: Apache-2.0 */
/* outer: c = a^T b, the sum over rows of outer products: the gradient of a weight.
 *
 *   a (...,M), b (...,K) of one type -> c (M,K) f32.  Not differentiable.
 *   No aliasing.  Deterministic.  2 N M K FLOPs. */
#include "tensor/matmul.h"
#include "tensor/op.h"
#include "tensor/parallel.h"
#include "tensor/products.h"

#include <string.h>

tess_value tess__outer(tess_graph *g, tess_value a, tess_value b)
{
    return TESS_NODE(g, &tess__op_outer, NULL, a, b);
}

static tess_status infer(tess_infer *c)
{
    const tess_operand *a = &c->in[0], *b = &c->in[1];
    if (a->dtype != b->dtype || tess__rows(&a->shape) != tess__rows(&b->shape)) {
        return TESS_FAIL(TESS_INVALID, "outer: expected as many rows of %s in b, found %lld of %s",
                         tess_dtype_name(a->dtype), (long long)tess__rows(&b->shape),
                         tess_dtype_name(b->dtype));
    }
    c->out[0] = (tess_operand){
        .dtype = TESS_F32, .shape = TESS_SHAPE_OF(tess__last(&a->shape), tess__last(&b->shape))};
    return TESS_OK;
}

/* bf16 operands have a kernel of their own where the processor multiplies pairs. */
static bool has_kernel(const tess_operand *a, const tess_operand *b)
{
    return tess__kernels()->outer && a->dtype == TESS_BF16 && tess__last(&b->shape) % 16 == 0;
}

tess_matmul_spec tess__outer_spec(const tess_operand *in)
{
    return (tess_matmul_spec){
        .m = tess__last(&in[0].shape),
        .n = tess__last(&in[1].shape),
        .k = tess__rows(&in[0].shape),
        .in = in[0].dtype,
        .out = TESS_F32,
        .a_trans = true,
    };
}

static tess_status prepare(tess_prepare *c)
{
    const tess_matmul_spec spec = tess__outer_spec(c->in);
    if (has_kernel(&c->in[0], &c->in[1])) {
        c->scratch_bytes =
            (size_t)(tess__kernels()->outer_scratch(spec.m, spec.n) * tess__slots_max()) *
            sizeof(float);
        return TESS_OK;
    }
    tess_matmul *product = NULL;
    TESS_TRY(tess__matmul_new(&spec, &product));
    c->prepared = product;
    c->scratch_bytes = tess__matmul_scratch(product);
    return TESS_OK;
}

/* c in pieces of equal size, one to a thread: `down` by `across`.  Each piece lays its columns of a
 * and b together, so the fewer columns the better. */
typedef struct grid {
    int64_t down, across, m, n; /* m, n: of a piece, in whole tiles */
} grid;

static grid split(int64_t m, int64_t n, int64_t pieces)
{
    enum { TILE_M = 6, TILE_N = 64 };
    grid best = {0};
    for (int64_t down = 1; down <= pieces; down++) {
        if (pieces % down == 0) {
            const int64_t across = pieces / down;
            const grid g = {down, across, (m + down * TILE_M - 1) / (down * TILE_M) * TILE_M,
                            (n + across * TILE_N - 1) / (across * TILE_N) * TILE_N};
            best = down == 1 || g.m + g.n < best.m + best.n ? g : best;
        }
    }
    return best;
}

static void run_kernel(const tess_exec *e)
{
    const tess_operand *a = &e->in[0], *b = &e->in[1];
    const int64_t m = tess__last(&a->shape), n = tess__last(&b->shape);
    const int64_t floats = tess__kernels()->outer_scratch(m, n);
    const grid g = split(m, n, tess__slots());
#pragma omp parallel for schedule(static, 1) num_threads(tess__slots())
    for (int64_t i = 0; i < g.down * g.across; i++) {
        const int64_t row = i / g.across * g.m, column = i % g.across * g.n;
        if (row < m && column < n) {
            tess__kernels()->outer(&(tess_outer_args){
                .a = tess__at(a->data, TESS_BF16, row),
                .b = tess__at(b->data, TESS_BF16, column),
                .a_stride = m,
                .b_stride = n,
                .rows = tess__rows(&a->shape),
                .m = m - row < g.m ? m - row : g.m,
                .n = n - column < g.n ? n - column : g.n,
                .c = (float *)e->out[0].data + row * n + column,
                .c_stride = n,
                .scratch = (float *)e->scratch + floats * omp_get_thread_num(),
            });
        }
    }
}

static tess_status cpu(const tess_exec *e)
{
    if (!has_kernel(&e->in[0], &e->in[1])) {
        return tess__matmul_run(e->prepared, &(tess_matmul_args){.a = e->in[0].data,
                                                                 .b = e->in[1].data,
                                                                 .c = e->out[0].data,
                                                                 .scratch = e->scratch});
    }
    if (tess__rows(&e->in[0].shape) == 0) {
        memset(e->out[0].data, 0, (size_t)tess_shape_count(&e->out[0].shape) * sizeof(float));
        return TESS_OK;
    }
    run_kernel(e);
    return TESS_OK;
}

static tess_status ref(const tess_exec *e)
{
    const int64_t rows = tess__rows(&e->in[0].shape);
    const int64_t m = tess__last(&e->in[0].shape), n = tess__last(&e->in[1].shape);
    const float *a = e->in[0].data, *b = e->in[1].data;
    for (int64_t i = 0; i < m * n; i++) {
        double sum = 0;
        for (int64_t r = 0; r < rows; r++) {
            sum += (double)a[r * m + i / n] * (double)b[r * n + i % n];
        }
        ((float *)e->out[0].data)[i] = (float)sum;
    }
    return TESS_OK;
}

static double flops(const tess_operand *in, const tess_operand *out, const void *attrs)
{
    (void)attrs;
    return 2.0 * (double)tess_shape_count(&out[0].shape) * (double)tess__rows(&in[0].shape);
}

static tess_value build(tess_graph *g, const tess_value *in)
{
    return tess__outer(g, in[0], in[1]);
}

static const tess_case cases[] = {
    {.name = "f32",
     .n_in = 2,
     .in = {{TESS_F32, {2, {37, 12}}, .no_grad = true}, {TESS_F32, {2, {37, 5}}, .no_grad = true}},
     .build = build,
     .reduction = 37},
    {.name = "bf16",
     .n_in = 2,
     .in = {{TESS_BF16, {3, {9, 50, 48}}, .no_grad = true},
            {TESS_BF16, {3, {9, 50, 33}}, .no_grad = true}},
     .build = build,
     .reduction = 450},
    {.name = "bf16_pairs",
     .n_in = 2,
     .in = {{TESS_BF16, {2, {515, 45}}, .no_grad = true},
            {TESS_BF16, {2, {515, 144}}, .no_grad = true}},
     .build = build,
     .reduction = 515},
    {.name = "bf16_one_row",
     .n_in = 2,
     .in = {{TESS_BF16, {2, {1, 7}}, .no_grad = true}, {TESS_BF16, {2, {1, 16}}, .no_grad = true}},
     .build = build,
     .reduction = 1},
};

const tess_op tess__op_outer = {
    .name = "outer",
    .n_in_min = 2,
    .n_in_max = 2,
    .n_out = 1,
    .infer = infer,
    .prepare = prepare,
    .unprepare = tess__matmul_free,
    .cpu = cpu,
    .ref = ref,
    .flops = flops,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
