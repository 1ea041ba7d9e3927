/* SPDX-License-Identifier: Apache-2.0 */
/* fill: every element is one value.
 *
 *   y[i] = value.  No inputs; y f32 or bf16.  Deterministic; writes |y| elements once. */
#include "tensor/kernels.h"
#include "tensor/op.h"
#include "tensor/ops/fill.h"

tess_value tess__fill(tess_graph *g, tess_dtype dtype, tess_shape shape, float value)
{
    fill_attrs a = {.dtype = dtype, .shape = shape, .value = value};
    return tess__node_add(g, &tess__op_fill, &a, NULL, 0);
}

static tess_status infer(tess_infer *c)
{
    const fill_attrs *a = c->attrs;
    if (a->dtype != TESS_F32 && a->dtype != TESS_BF16) {
        return TESS_FAIL(TESS_INVALID, "expected f32 or bf16, found %s", tess_dtype_name(a->dtype));
    }
    c->out[0] = (tess_operand){.dtype = a->dtype, .shape = a->shape};
    return TESS_OK;
}

static tess_status cpu(const tess_exec *e)
{
    const fill_attrs *a = e->attrs;
    int64_t n = tess_shape_count(&e->out[0].shape);
    uint16_t half = tess_bf16_from_f32(a->value);
    for (int64_t i = 0; i < n; i++) {
        if (e->out[0].dtype == TESS_F32) {
            ((float *)e->out[0].data)[i] = a->value;
        } else {
            ((uint16_t *)e->out[0].data)[i] = half;
        }
    }
    return TESS_OK;
}

static void print(const void *attrs, tess_buf *out)
{
    tess_buf_addf(out, "%g", (double)((const fill_attrs *)attrs)->value);
}

static tess_value build_f32(tess_graph *g, const tess_value *in)
{
    (void)in;
    return tess__fill(g, TESS_F32, TESS_SHAPE_OF(3, 5), 2.5f);
}

static tess_value build_bf16(tess_graph *g, const tess_value *in)
{
    (void)in;
    return tess__fill(g, TESS_BF16, TESS_SHAPE_OF(17), -0.5f);
}

static const tess_case cases[] = {
    {.name = "f32", .build = build_f32},
    {.name = "bf16", .build = build_bf16},
};

const tess_op tess__op_fill = {
    .name = "fill",
    .n_out = 1,
    .attrs_bytes = sizeof(fill_attrs),
    .infer = infer,
    .cpu = cpu,
    .ref = cpu,
    .print = print,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
