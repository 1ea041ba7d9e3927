/* SPDX-License-Identifier: Apache-2.0 */
/* reshape: the same memory under another shape with as many elements.  A view: no code, no copy. */
#include "tensor/onnx.h"
#include "tensor/op.h"

#include <string.h>

typedef struct reshape_attrs {
    tess_shape shape;
} reshape_attrs;

tess_value tess_reshape(tess_graph *g, tess_value x, tess_shape shape)
{
    const reshape_attrs a = {.shape = shape};
    return TESS_NODE(g, &tess__op_reshape, &a, x);
}

static tess_status infer(tess_infer *c)
{
    const reshape_attrs *a = c->attrs;
    const int64_t have = tess_shape_count(&c->in[0].shape), want = tess_shape_count(&a->shape);
    if (have != want) {
        return TESS_FAIL(TESS_INVALID, "reshape: expected %lld elements, found %lld",
                         (long long)want, (long long)have);
    }
    c->out[0] = (tess_operand){.dtype = c->in[0].dtype, .shape = a->shape};
    return TESS_OK;
}

static void vjp(tess_vjp *c)
{
    c->din[0] = tess_reshape(c->g, c->dout[0], tess_value_shape(c->g, c->in[0]));
}

static tess_status copy(const tess_exec *e)
{
    const size_t n = (size_t)tess_shape_count(&e->in[0].shape);
    memcpy(e->out[0].data, e->in[0].data, n * tess_dtype_bytes(e->in[0].dtype));
    return TESS_OK;
}

static const char *onnx(const tess_onnx_emit *c)
{
    return tess__onnx_alias_state(c)
               ? ""
               : tess__onnx_reshape(c->to, tess__onnx_in(c, 0), &c->out[0].shape);
}

static tess_value build(tess_graph *g, const tess_value *in)
{
    return tess_reshape(g, in[0], TESS_SHAPE_OF(3, 5, 2));
}

static const tess_case cases[] = {
    {.name = "f32", .n_in = 1, .in = {{TESS_F32, {2, {6, 5}}}}, .build = build},
};

const tess_op tess__op_reshape = {
    .name = "reshape",
    .n_in_min = 1,
    .n_in_max = 1,
    .n_out = 1,
    .attrs_bytes = sizeof(reshape_attrs),
    .flags = TESS_OP_VIEW,
    .infer = infer,
    .vjp = vjp,
    .cpu = copy,
    .ref = copy,
    .onnx = onnx,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
