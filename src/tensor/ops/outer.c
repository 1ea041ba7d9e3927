/* SPDX-License-Identifier: Apache-2.0 */
/* outer: c = a^T b, the sum over rows of outer products: the gradient of a weight.
 *
 *   a (...,M), b (...,K) of one type -> c (M,K) f32.  Not differentiable.
 *   No aliasing.  Deterministic.  2 N M K FLOPs. */
#include "tensor/matmul.h"
#include "tensor/op.h"
#include "tensor/products.h"

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

static tess_status prepare(tess_prepare *c)
{
    const tess_operand *a = &c->in[0], *b = &c->in[1];
    const tess_matmul_spec spec = {
        .m = tess__last(&a->shape),
        .n = tess__last(&b->shape),
        .k = tess__rows(&a->shape),
        .in = a->dtype,
        .out = TESS_F32,
        .a_trans = true,
    };
    tess_matmul *m = NULL;
    TESS_TRY(tess__matmul_new(&spec, &m));
    c->prepared = m;
    c->scratch_bytes = tess__matmul_scratch(m);
    return TESS_OK;
}

static tess_status cpu(const tess_exec *e)
{
    return tess__matmul_run(e->prepared, &(tess_matmul_args){.a = e->in[0].data,
                                                             .b = e->in[1].data,
                                                             .c = e->out[0].data,
                                                             .scratch = e->scratch});
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
