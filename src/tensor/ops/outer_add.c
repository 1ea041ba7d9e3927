/* SPDX-License-Identifier: Apache-2.0 */
/* outer_add: sum += a^T b, and sums += the rows of a: the gradients of a weight and of its bias,
 * added to what earlier micro-steps gave.  The fusing of outer, bias_grad and accumulate.
 *
 *   sum f32 of M K elements, a (...,M), b (...,K) of one type, sums (M) f32 or absent.  An effect.
 *   Not differentiable.  Deterministic.  2 N M K FLOPs. */
#include "tensor/fuse.h"
#include "tensor/parallel.h"
#include "tensor/products.h"

void tess__outer_add(tess_graph *g, tess_value sum, tess_value a, tess_value b, tess_value sums)
{
    const tess_value in[] = {sum, a, b, sums};
    tess__node_add(g, &tess__op_outer_add, NULL, in, sums ? 4 : 3);
}

static tess_status infer(tess_infer *c)
{
    const tess_operand *sum = &c->in[0], *a = &c->in[1], *b = &c->in[2];
    const int64_t m = tess__last(&a->shape), k = tess__last(&b->shape);
    if (a->dtype != b->dtype || tess__rows(&a->shape) != tess__rows(&b->shape) ||
        sum->dtype != TESS_F32 || tess_shape_count(&sum->shape) != m * k) {
        return TESS_FAIL(TESS_INVALID,
                         "outer_add: expected %lld elements and as many rows of %s in b, found "
                         "%lld and %lld rows of %s",
                         (long long)(m * k), tess_dtype_name(a->dtype),
                         (long long)tess_shape_count(&sum->shape), (long long)tess__rows(&b->shape),
                         tess_dtype_name(b->dtype));
    }
    const tess_operand sums = {.dtype = TESS_F32, .shape = TESS_SHAPE_OF(m)};
    return c->n_in > 3 ? tess__expect_like("sums", &c->in[3], &sums) : TESS_OK;
}

tess_matmul_spec tess__outer_add_spec(const tess_operand *in)
{
    tess_matmul_spec spec = tess__outer_spec(in + 1);
    spec.accumulate = true;
    return spec;
}

static tess_status prepare(tess_prepare *c)
{
    const tess_matmul_spec spec = tess__outer_add_spec(c->in);
    tess_matmul *product = NULL;
    TESS_TRY(tess__matmul_new(&spec, &product));
    c->prepared = product;
    c->scratch_bytes = tess__matmul_scratch(product);
    return TESS_OK;
}

static tess_status cpu(const tess_exec *e)
{
    const tess_operand *a = &e->in[1];
    if (e->n_in > 3) {
        tess__kernels()->column_sum(a->dtype, e->in[3].data, a->data, tess__rows(&a->shape),
                                    tess__last(&a->shape));
    }
    return tess__matmul_run(e->prepared, &(tess_matmul_args){.a = a->data,
                                                             .b = e->in[2].data,
                                                             .c = e->in[0].data,
                                                             .scratch = e->scratch});
}

static tess_status ref(const tess_exec *e)
{
    const int64_t rows = tess__rows(&e->in[1].shape), m = tess__last(&e->in[1].shape);
    const int64_t n = tess__last(&e->in[2].shape);
    const float *a = e->in[1].data, *b = e->in[2].data;
    for (int64_t i = 0; i < m; i++) {
        double sum = 0;
        for (int64_t r = 0; r < rows; r++) {
            sum += (double)a[r * m + i];
        }
        if (e->n_in > 3) {
            ((float *)e->in[3].data)[i] += (float)sum;
        }
        for (int64_t j = 0; j < n; j++) {
            sum = 0;
            for (int64_t r = 0; r < rows; r++) {
                sum += (double)a[r * m + i] * (double)b[r * n + j];
            }
            ((float *)e->in[0].data)[i * n + j] += (float)sum;
        }
    }
    return TESS_OK;
}

static double flops(const tess_operand *in, const tess_operand *out, const void *attrs)
{
    (void)out;
    (void)attrs;
    return 2.0 * (double)tess_shape_count(&in[1].shape) * (double)tess__last(&in[2].shape);
}

static tess_value build(tess_graph *g, const tess_value *in)
{
    tess__outer_add(g, in[0], in[1], in[2], 0);
    return 0;
}

static tess_value build_sums(tess_graph *g, const tess_value *in)
{
    tess__outer_add(g, in[0], in[1], in[2], in[3]);
    return 0;
}

#define GIVEN(type, ...)                                                                           \
    {                                                                                              \
        type, __VA_ARGS__, .no_grad = true                                                         \
    }
static const tess_case cases[] = {
    {.name = "f32",
     .n_in = 3,
     .in = {GIVEN(TESS_F32, {2, {21, 33}}), GIVEN(TESS_F32, {2, {45, 21}}),
            GIVEN(TESS_F32, {2, {45, 33}})},
     .build = build,
     .reduction = 46},
    {.name = "f32_sums",
     .n_in = 4,
     .in = {GIVEN(TESS_F32, {1, {21 * 33}}), GIVEN(TESS_F32, {3, {5, 9, 21}}),
            GIVEN(TESS_F32, {3, {5, 9, 33}}), GIVEN(TESS_F32, {1, {21}})},
     .build = build_sums,
     .reduction = 46},
    {.name = "bf16_sums",
     .n_in = 4,
     .in = {GIVEN(TESS_F32, {2, {24, 40}}), GIVEN(TESS_BF16, {2, {515, 24}}),
            GIVEN(TESS_BF16, {2, {515, 40}}), GIVEN(TESS_F32, {1, {24}})},
     .build = build_sums,
     .reduction = 516},
};

const tess_op tess__op_outer_add = {
    .name = "outer_add",
    .n_in_min = 3,
    .n_in_max = 4,
    .flags = TESS_OP_EFFECT,
    .state_mask = 1 | 8,
    .infer = infer,
    .prepare = prepare,
    .unprepare = tess__matmul_free,
    .cpu = cpu,
    .ref = ref,
    .flops = flops,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
