/* SPDX-License-Identifier: Apache-2.0 */
/* patchify: pictures to rows of normalised pixels, one row per patch.
 *
 *   pictures (B,S,S,3) u8 -> y (B*P,3*p*p) f32 or bf16, P = (S/p)^2: (x/255 - mean)/std in the
 * order channel, row, column, so that a convolution's weight (C,3,p,p) is a linear weight.  Pixels
 *   beyond the last whole patch are left out, as a convolution without padding leaves them.
 *   Not differentiable.  Deterministic; one pass. */
#include "tensor/onnx.h"
#include "tensor/parallel.h"

#include <string.h>

tess_value tess_patchify(tess_graph *g, tess_value pictures, tess_patchify_options o)
{
    return TESS_NODE(g, &tess__op_patchify, &o, pictures);
}

static tess_status infer(tess_infer *c)
{
    const tess_patchify_options *o = c->attrs;
    const tess_shape *x = &c->in[0].shape;
    TESS_TRY(tess__expect("pictures", &c->in[0], TESS_U8, 4));
    if (x->dim[1] != x->dim[2] || x->dim[3] != 3 || o->patch < 1 || o->patch > x->dim[1]) {
        return TESS_FAIL(TESS_INVALID,
                         "patchify: expected square pictures of 3 channels with patches of at most "
                         "their side, found %lldx%lldx%lld and %lld",
                         (long long)x->dim[1], (long long)x->dim[2], (long long)x->dim[3],
                         (long long)o->patch);
    }
    const int64_t side = x->dim[1] / o->patch;
    c->out[0] =
        (tess_operand){.dtype = o->dtype,
                       .shape = TESS_SHAPE_OF(x->dim[0] * side * side, 3 * o->patch * o->patch)};
    return o->dtype == TESS_F32 || o->dtype == TESS_BF16
               ? TESS_OK
               : TESS_FAIL(TESS_INVALID, "patchify: expected to make f32 or bf16, found %s",
                           tess_dtype_name(o->dtype));
}

static tess_status cpu(const tess_exec *e)
{
    const tess_kernels *k = tess__kernels();
    const tess_patchify_options *o = e->attrs;
    const int64_t n = e->in[0].shape.dim[0], size = e->in[0].shape.dim[1];
    const int64_t per = n > 0 ? tess_shape_count(&e->out[0].shape) / n : 0;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        k->patchify(o->dtype, tess__at_mut(e->out[0].data, o->dtype, i * per),
                    (const uint8_t *)e->in[0].data + i * size * size * 3, size, o->patch, o->mean,
                    o->std);
    }
    return TESS_OK;
}

static tess_status ref(const tess_exec *e)
{
    const tess_patchify_options *o = e->attrs;
    const int64_t size = e->in[0].shape.dim[1], p = o->patch, side = size / p;
    const int64_t width = 3 * p * p;
    for (int64_t i = 0; i < tess_shape_count(&e->out[0].shape); i++) {
        const int64_t row = i / width, c = i % width / (p * p);
        const int64_t y = row % (side * side) / side * p + i % (p * p) / p;
        const int64_t x = row % side * p + i % p, picture = row / (side * side);
        const uint8_t *pixels = e->in[0].data;
        const double v = (double)pixels[((picture * size + y) * size + x) * 3 + c] / 255;
        ((float *)e->out[0].data)[i] = (float)((v - (double)o->mean[c]) / (double)o->std[c]);
    }
    return TESS_OK;
}

/* (B,S,S,3) u8 -> (B,3,S,S) normalised. */
static const char *onnx_normalize(const tess_onnx_emit *c, const char *x)
{
    const tess_patchify_options *o = c->attrs;
    x = tess__onnx_cast(c->to, x, tess__onnx_float_type(c->to));
    x = TESS_ONNX(c->to, "Div", x, tess__onnx_float(c->to, 255));
    x = TESS_ONNX(c->to, "Sub", x, tess__onnx_floats(c->to, o->mean, 3));
    x = TESS_ONNX(c->to, "Div", x, tess__onnx_floats(c->to, o->std, 3));
    return tess__onnx_add(c->to,
                          (tess_onnx_node){.op = "Transpose",
                                           .in = {x},
                                           .attr = {TESS_ONNX_INTS("perm", 0, 3, 1, 2)}},
                          NULL);
}

/* Where the model's input is floats it is (B,3,S,S), normalised already. */
static const char *onnx(const tess_onnx_emit *c)
{
    const tess_shape *s = &c->in[0].shape;
    const int64_t p = ((const tess_patchify_options *)c->attrs)->patch, side = s->dim[1] / p;
    const tess_shape cut = TESS_SHAPE_OF(s->dim[0], 3, side, p, side, p);
    const char *x = tess__onnx_in(c, 0);
    x = tess__onnx_in_is(c, 0, TESS_ONNX_UINT8) ? onnx_normalize(c, x) : x;
    if (side * p != s->dim[1]) {
        x = TESS_ONNX(c->to, "Slice", x, TESS_ONNX_LIST(c->to, 0, 0),
                      TESS_ONNX_LIST(c->to, side * p, side * p), TESS_ONNX_LIST(c->to, 2, 3));
    }
    x = tess__onnx_add(c->to,
                       (tess_onnx_node){.op = "Transpose",
                                        .in = {tess__onnx_reshape(c->to, x, &cut)},
                                        .attr = {TESS_ONNX_INTS("perm", 0, 2, 4, 1, 3, 5)}},
                       NULL);
    return tess__onnx_reshape(c->to, x, &c->out[0].shape);
}

static tess_value build_f32(tess_graph *g, const tess_value *in)
{
    return tess_patchify(g, in[0],
                         (tess_patchify_options){.patch = 3,
                                                 .mean = {0.48f, 0.46f, 0.41f},
                                                 .std = {0.27f, 0.26f, 0.28f},
                                                 .dtype = TESS_F32});
}

static tess_value build_bf16(tess_graph *g, const tess_value *in)
{
    return tess_patchify(g, in[0],
                         (tess_patchify_options){.patch = 16,
                                                 .mean = {0.5f, 0.5f, 0.5f},
                                                 .std = {0.5f, 0.5f, 0.5f},
                                                 .dtype = TESS_BF16});
}

/* Even, but of no pack's length, as the 14 of ViT-L/14. */
static tess_value build_even(tess_graph *g, const tess_value *in)
{
    return tess_patchify(g, in[0],
                         (tess_patchify_options){.patch = 6,
                                                 .mean = {0.48f, 0.46f, 0.41f},
                                                 .std = {0.27f, 0.26f, 0.28f},
                                                 .dtype = TESS_BF16});
}

static const tess_case cases[] = {
    {.name = "odd",
     .n_in = 1,
     .in = {{TESS_U8, {4, {2, 11, 11, 3}}, TESS_FILL_BYTES, 256, true}},
     .build = build_f32,
     .reduction = 4},
    {.name = "bf16",
     .n_in = 1,
     .in = {{TESS_U8, {4, {3, 48, 48, 3}}, TESS_FILL_BYTES, 256, true}},
     .build = build_bf16,
     .reduction = 4},
    {.name = "even_bf16",
     .n_in = 1,
     .in = {{TESS_U8, {4, {2, 20, 20, 3}}, TESS_FILL_BYTES, 256, true}},
     .build = build_even,
     .reduction = 4},
};

const tess_op tess__op_patchify = {
    .name = "patchify",
    .n_in_min = 1,
    .n_in_max = 1,
    .n_out = 1,
    .attrs_bytes = sizeof(tess_patchify_options),
    .infer = infer,
    .cpu = cpu,
    .ref = ref,
    .onnx = onnx,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
