/* SPDX-License-Identifier: Apache-2.0 */
/* cast: the same values in another float type.
 *
 *   y[i] = x[i], f32 <-> bf16 (to nearest, ties to even).  Gradient: the cast back; a cotangent
 * that is already of x's type (gradients of weights are f32) passes as it is. No aliasing;
 * deterministic; one pass. */
#include "tensor/parallel.h"

typedef struct cast_attrs {
    tess_dtype dtype;
} cast_attrs;

tess_value tess_cast(tess_graph *g, tess_value x, tess_dtype dtype)
{
    if (x && tess_value_dtype(g, x) == dtype) {
        return x;
    }
    const cast_attrs a = {.dtype = dtype};
    return TESS_NODE(g, &tess__op_cast, &a, x);
}

static bool is_float(tess_dtype t)
{
    return t == TESS_F32 || t == TESS_BF16;
}

static tess_status infer(tess_infer *c)
{
    const cast_attrs *a = c->attrs;
    if (!is_float(c->in[0].dtype) || !is_float(a->dtype)) {
        return TESS_FAIL(TESS_INVALID, "cast: expected f32 or bf16, found %s to %s",
                         tess_dtype_name(c->in[0].dtype), tess_dtype_name(a->dtype));
    }
    c->out[0] = (tess_operand){.dtype = a->dtype, .shape = c->in[0].shape};
    return TESS_OK;
}

static void vjp(tess_vjp *c)
{
    c->din[0] = tess_cast(c->g, c->dout[0], tess_value_dtype(c->g, c->in[0]));
}

static tess_status cpu(const tess_exec *e)
{
    tess__convert(e->out[0].dtype, e->out[0].data, e->in[0].dtype, e->in[0].data,
                  tess_shape_count(&e->in[0].shape));
    return TESS_OK;
}

static void print(const void *attrs, tess_buf *out)
{
    tess_buf_adds(out, tess_dtype_name(((const cast_attrs *)attrs)->dtype));
}

static tess_value build_down(tess_graph *g, const tess_value *in)
{
    return tess_cast(g, in[0], TESS_BF16);
}

static tess_value build_up(tess_graph *g, const tess_value *in)
{
    return tess_cast(g, in[0], TESS_F32);
}

static const tess_case cases[] = {
    {.name = "down", .n_in = 1, .in = {{TESS_F32, {2, {37, 53}}}}, .build = build_down},
    {.name = "up", .n_in = 1, .in = {{TESS_BF16, {1, {1}}}}, .build = build_up},
    {.name = "up_long", .n_in = 1, .in = {{TESS_BF16, {2, {300, 129}}}}, .build = build_up},
};

const tess_op tess__op_cast = {
    .name = "cast",
    .n_in_min = 1,
    .n_in_max = 1,
    .n_out = 1,
    .attrs_bytes = sizeof(cast_attrs),
    .infer = infer,
    .vjp = vjp,
    .cpu = cpu,
    .ref = cpu,
    .print = print,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
