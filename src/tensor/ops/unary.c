/* SPDX-License-Identifier: Apache-2.0 */
/* unary: y = f(x) for the activations of tess_unary_kind; computed in f32, rounded once.
 *
 *   Gradient: dx = f'(x) dy, from x (relu as well: y > 0 where x > 0).  y may take x's memory, dx
 *   that of x or dy.  Deterministic; one pass. */
#include "tensor/onnx.h"
#include "tensor/parallel.h"
#include "tensor/products.h"
#include "tensor/ops/unary.h"

#include <math.h>

static const char *const names[TESS_UNARY_COUNT] = {
    [TESS_RELU] = "relu",           [TESS_GELU] = "gelu",
    [TESS_GELU_TANH] = "gelu_tanh", [TESS_QUICK_GELU] = "quick_gelu",
    [TESS_SILU] = "silu",           [TESS_TANH] = "tanh",
};
static const tess_op grad_op;

const char *tess_unary_name(tess_unary_kind k)
{
    return k < TESS_UNARY_COUNT ? names[k] : "?";
}

tess_value tess_unary(tess_graph *g, tess_value x, tess_unary_kind kind)
{
    const unary_attrs a = {.kind = kind};
    return TESS_NODE(g, &tess__op_unary, &a, x);
}

tess_unary_kind tess__unary_kind_of(const void *attrs)
{
    return ((const unary_attrs *)attrs)->kind;
}

static tess_status infer(tess_infer *c)
{
    const unary_attrs *a = c->attrs;
    if (a->kind >= TESS_UNARY_COUNT) {
        return TESS_FAIL(TESS_INVALID, "unary: kind %d is unknown", (int)a->kind);
    }
    c->out[0] = c->in[0];
    return TESS_OK;
}

static tess_status grad_infer(tess_infer *c)
{
    TESS_TRY(tess__expect_like("dy", &c->in[1], &c->in[0]));
    c->out[0] = c->in[0];
    return TESS_OK;
}

static void vjp(tess_vjp *c)
{
    c->din[0] = TESS_NODE(c->g, &grad_op, c->attrs, c->in[0], c->dout[0]);
}

static tess_status cpu(const tess_exec *e)
{
    const tess_kernels *k = tess__kernels();
    const unary_attrs *a = e->attrs;
    const tess_dtype t = e->out[0].dtype;
    const tess_chunks c = tess__chunks(tess_shape_count(&e->out[0].shape), 1);
#pragma omp parallel for schedule(static) if (c.n > 1)
    for (int64_t i = 0; i < c.n; i++) {
        const tess_range r = tess__chunk(&c, i);
        k->unary(a->kind, t, tess__at_mut(e->out[0].data, t, r.begin),
                 tess__at(e->in[0].data, t, r.begin), r.n);
    }
    return TESS_OK;
}

static tess_status grad_cpu(const tess_exec *e)
{
    const tess_kernels *k = tess__kernels();
    const unary_attrs *a = e->attrs;
    const tess_dtype t = e->out[0].dtype;
    const tess_chunks c = tess__chunks(tess_shape_count(&e->out[0].shape), 1);
#pragma omp parallel for schedule(static) if (c.n > 1)
    for (int64_t i = 0; i < c.n; i++) {
        const tess_range r = tess__chunk(&c, i);
        k->unary_grad(a->kind, t, tess__at_mut(e->out[0].data, t, r.begin),
                      tess__at(e->in[0].data, t, r.begin), tess__at(e->in[1].data, t, r.begin),
                      r.n);
    }
    return TESS_OK;
}

double tess__unary_value(tess_unary_kind k, double x)
{
    const double u = 0.7978845608028654 * (x + 0.044715 * x * x * x);
    const double table[TESS_UNARY_COUNT] = {
        [TESS_RELU] = x > 0 ? x : 0,
        [TESS_GELU] = x * 0.5 * erfc(-x * 0.7071067811865476),
        [TESS_GELU_TANH] = 0.5 * x * (1 + tanh(u)),
        [TESS_QUICK_GELU] = x / (1 + exp(-1.702 * x)),
        [TESS_SILU] = x / (1 + exp(-x)),
        [TESS_TANH] = tanh(x),
    };
    return table[k];
}

static tess_status ref(const tess_exec *e)
{
    const float *x = e->in[0].data;
    float *y = e->out[0].data;
    for (int64_t i = 0; i < tess_shape_count(&e->out[0].shape); i++) {
        y[i] = (float)tess__unary_value(((const unary_attrs *)e->attrs)->kind, (double)x[i]);
    }
    return TESS_OK;
}

/* Central differences in double: an oracle that shares nothing with the kernel's slopes. */
static tess_status grad_ref(const tess_exec *e)
{
    const tess_unary_kind kind = ((const unary_attrs *)e->attrs)->kind;
    const float *x = e->in[0].data, *dy = e->in[1].data;
    float *dx = e->out[0].data;
    const double h = kind == TESS_RELU ? 0 : 1e-5;
    for (int64_t i = 0; i < tess_shape_count(&e->out[0].shape); i++) {
        const double v = (double)x[i];
        const double slope =
            kind == TESS_RELU
                ? v > 0
                : (tess__unary_value(kind, v + h) - tess__unary_value(kind, v - h)) / (2 * h);
        dx[i] = (float)(slope * (double)dy[i]);
    }
    return TESS_OK;
}

static void print(const void *attrs, tess_buf *out)
{
    tess_buf_adds(out, tess_unary_name(((const unary_attrs *)attrs)->kind));
}

static const char *onnx_relu(tess_onnx *o, const char *x)
{
    return TESS_ONNX(o, "Relu", x);
}

static const char *onnx_tanh(tess_onnx *o, const char *x)
{
    return TESS_ONNX(o, "Tanh", x);
}

static const char *onnx_silu(tess_onnx *o, const char *x)
{
    return TESS_ONNX(o, "Mul", x, TESS_ONNX(o, "Sigmoid", x));
}

static const char *onnx_quick_gelu(tess_onnx *o, const char *x)
{
    const char *t = TESS_ONNX(o, "Mul", x, tess__onnx_float(o, 1.702f));
    return TESS_ONNX(o, "Mul", x, TESS_ONNX(o, "Sigmoid", t));
}

/* 0.5 x (1 + t) */
static const char *onnx_half(tess_onnx *o, const char *x, const char *t)
{
    t = TESS_ONNX(o, "Add", t, tess__onnx_float(o, 1));
    return TESS_ONNX(o, "Mul", TESS_ONNX(o, "Mul", x, t), tess__onnx_float(o, 0.5f));
}

static const char *onnx_gelu(tess_onnx *o, const char *x)
{
    const char *t = TESS_ONNX(o, "Div", x, tess__onnx_float(o, (float)M_SQRT2));
    return onnx_half(o, x, TESS_ONNX(o, "Erf", t));
}

static const char *onnx_gelu_tanh(tess_onnx *o, const char *x)
{
    const char *t = TESS_ONNX(o, "Mul", TESS_ONNX(o, "Mul", x, x), x);
    t = TESS_ONNX(o, "Add", x, TESS_ONNX(o, "Mul", t, tess__onnx_float(o, 0.044715f)));
    t = TESS_ONNX(o, "Mul", t, tess__onnx_float(o, (float)sqrt(M_2_PI)));
    return onnx_half(o, x, TESS_ONNX(o, "Tanh", t));
}

static const char *onnx(const tess_onnx_emit *c)
{
    static const char *(*const forms[TESS_UNARY_COUNT])(tess_onnx *, const char *) = {
        [TESS_RELU] = onnx_relu,           [TESS_GELU] = onnx_gelu,
        [TESS_GELU_TANH] = onnx_gelu_tanh, [TESS_QUICK_GELU] = onnx_quick_gelu,
        [TESS_SILU] = onnx_silu,           [TESS_TANH] = onnx_tanh,
    };
    const tess_unary_kind kind = ((const unary_attrs *)c->attrs)->kind;
    return forms[kind] ? forms[kind](c->to, tess__onnx_in(c, 0))
                       : tess__onnx_refuse(c, "this activation has no ONNX form");
}

#define BUILD(kind)                                                                                \
    static tess_value build_##kind(tess_graph *g, const tess_value *in)                            \
    {                                                                                              \
        return tess_unary(g, in[0], kind);                                                         \
    }
BUILD(TESS_RELU)
BUILD(TESS_GELU)
BUILD(TESS_GELU_TANH)
BUILD(TESS_QUICK_GELU)
BUILD(TESS_SILU)
BUILD(TESS_TANH)

#define CASE(kind, type, ...)                                                                      \
    {                                                                                              \
        .name = #kind " " #type, .n_in = 1, .in = {{type, __VA_ARGS__}}, .build = build_##kind     \
    }
static const tess_case cases[] = {
    CASE(TESS_RELU, TESS_F32, {2, {7, 33}}),        CASE(TESS_GELU, TESS_F32, {2, {7, 133}}),
    CASE(TESS_GELU_TANH, TESS_F32, {1, {1}}),       CASE(TESS_QUICK_GELU, TESS_F32, {2, {5, 70}}),
    CASE(TESS_SILU, TESS_F32, {2, {1, 300}}),       CASE(TESS_RELU, TESS_BF16, {2, {40, 511}}),
    CASE(TESS_GELU, TESS_BF16, {3, {4, 90, 100}}),  CASE(TESS_GELU_TANH, TESS_BF16, {1, {77}}),
    CASE(TESS_QUICK_GELU, TESS_BF16, {2, {6, 70}}), CASE(TESS_SILU, TESS_BF16, {1, {9}}),
    CASE(TESS_TANH, TESS_F32, {2, {7, 300}}),       CASE(TESS_TANH, TESS_BF16, {1, {900}}),
};

static const tess_op grad_op = {
    .name = "unary_grad",
    .n_in_min = 2,
    .n_in_max = 2,
    .n_out = 1,
    .attrs_bytes = sizeof(unary_attrs),
    .alias_mask = 3,
    .infer = grad_infer,
    .cpu = grad_cpu,
    .ref = grad_ref,
    .print = print,
};
static const tess_op *const extra[] = {&grad_op, NULL};

const tess_op tess__op_unary = {
    .name = "unary",
    .n_in_min = 1,
    .n_in_max = 1,
    .n_out = 1,
    .attrs_bytes = sizeof(unary_attrs),
    .flags = TESS_OP_CHEAP,
    .alias_mask = 1,
    .infer = infer,
    .vjp = vjp,
    .cpu = cpu,
    .ref = ref,
    .print = print,
    .onnx = onnx,
    .extra = extra,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
