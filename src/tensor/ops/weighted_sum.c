/* SPDX-License-Identifier: Apache-2.0 */
/* weighted_sum: the sum of at most 8 scalars with constant weights: how objectives are joined.
 *
 *   x[i] () or (1) f32 -> y () f32 = sum of weight[i] x[i], in double, in order.
 *   Gradient: weight[i] dy. */
#include "tensor/op.h"
#include "tensor/ops/weighted_sum.h"

#include <string.h>

tess_value tess_weighted_sum(tess_graph *g, const tess_value *x, const float *weight, int n)
{
    sum_attrs a = {{0}};
    if (n < 1 || n > TESS_MAX_IN) {
        tess__graph_fail(g,
                         TESS_FAIL(TESS_INVALID, "weighted_sum: expected 1 to %d terms, found %d",
                                   TESS_MAX_IN, n));
        return 0;
    }
    memcpy(a.weight, weight, (size_t)n * sizeof *weight);
    return tess__node_add(g, &tess__op_weighted_sum, &a, x, n);
}

static tess_status infer(tess_infer *c)
{
    for (int i = 0; i < c->n_in; i++) {
        if (c->in[i].dtype != TESS_F32 || tess_shape_count(&c->in[i].shape) != 1) {
            return TESS_FAIL(TESS_INVALID, "weighted_sum: term %d is no f32 scalar", i);
        }
    }
    c->out[0] = (tess_operand){.dtype = TESS_F32};
    return TESS_OK;
}

static void vjp(tess_vjp *c)
{
    const sum_attrs *a = c->attrs;
    for (int i = 0; i < c->n_in; i++) {
        if (c->need[i]) {
            c->din[i] = tess_reshape(c->g, tess_scale(c->g, c->dout[0], a->weight[i]),
                                     tess_value_shape(c->g, c->in[i]));
        }
    }
}

static tess_status cpu(const tess_exec *e)
{
    const sum_attrs *a = e->attrs;
    double sum = 0;
    for (int i = 0; i < e->n_in; i++) {
        sum += (double)a->weight[i] * (double)*(const float *)e->in[i].data;
    }
    *(float *)e->out[0].data = (float)sum;
    return TESS_OK;
}

static tess_value build(tess_graph *g, const tess_value *in)
{
    return tess_weighted_sum(g, in, (const float[]){0.5f, -2.0f, 1.0f}, 3);
}

static const tess_case cases[] = {
    {.name = "three",
     .n_in = 3,
     .in = {{TESS_F32, {0}}, {TESS_F32, {1, {1}}}, {TESS_F32, {0}}},
     .build = build,
     .reduction = 3},
};

const tess_op tess__op_weighted_sum = {
    .name = "weighted_sum",
    .n_in_min = 1,
    .n_in_max = TESS_MAX_IN,
    .n_out = 1,
    .attrs_bytes = sizeof(sum_attrs),
    .infer = infer,
    .vjp = vjp,
    .cpu = cpu,
    .ref = cpu,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
