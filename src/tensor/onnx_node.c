/* SPDX-License-Identifier: Apache-2.0 */
/* ONNX nodes and constants, and the forms that several operators share. */
#include "tensor/onnx.h"

#include <inttypes.h>
#include <string.h>

#include "tensor/onnx_wire.h"

/* ---- nodes --------------------------------------------------------------------------------- */

static void add_attribute(tess_buf *node, const tess_onnx_attr *a)
{
    tess_buf b = {0};
    int type = ATTRIBUTE_TYPE_INT;
    tess__wire_string(&b, ATTRIBUTE_NAME, a->name);
    if (a->kind == 'f') {
        tess__wire_float(&b, ATTRIBUTE_F, a->f);
        type = ATTRIBUTE_TYPE_FLOAT;
    } else if (a->kind == 'I') {
        for (int i = 0; i < a->n_ints; i++) {
            tess__wire_int(&b, ATTRIBUTE_INTS, a->ints[i]);
        }
        type = ATTRIBUTE_TYPE_INTS;
    } else {
        tess__wire_int(&b, ATTRIBUTE_I, a->i);
    }
    tess__wire_int(&b, ATTRIBUTE_TYPE, type);
    tess__wire_message(node, NODE_ATTRIBUTE, &b);
    tess_buf_deinit(&b);
}

static void append_node(tess_onnx *o, const tess_onnx_node *n, const char *name,
                        const char *const *out, int n_out)
{
    tess_buf b = {0};
    for (int i = 0; i < TESS_COUNT(n->in) && n->in[i]; i++) {
        tess__wire_string(&b, NODE_INPUT, n->in[i]);
    }
    for (int k = 0; k < n_out; k++) {
        tess__wire_string(&b, NODE_OUTPUT, out[k]);
    }
    tess__wire_string(&b, NODE_NAME, name);
    tess__wire_string(&b, NODE_OP_TYPE, n->op);
    for (int i = 0; i < TESS_COUNT(n->attr) && n->attr[i].name; i++) {
        add_attribute(&b, &n->attr[i]);
    }
    tess__wire_message(&o->nodes, GRAPH_NODE, &b);
    tess_buf_deinit(&b);
}

const char *tess__onnx_add(tess_onnx *o, tess_onnx_node n, const char **out)
{
    enum { MAX_OUT = 3 };
    const char *names[MAX_OUT] = {"", "", ""};
    const int n_out = n.n_out ? n.n_out : 1;
    const char *base = NULL;
    if (o->status == TESS_OK) {
        base = tess_arena_format(&o->arena, "%s/%s_%" PRId64, o->scope, n.op, o->serial++);
        names[0] = base;
        for (int k = 1; k < n_out && k < MAX_OUT; k++) {
            names[k] = tess_arena_format(&o->arena, "%s:%d", base ? base : "", k);
        }
        if (!names[0] || !names[1] || !names[2]) {
            tess__onnx_fail(o, TESS_NOMEM);
        }
    }
    if (o->status == TESS_OK) {
        append_node(o, &n, base, names, n_out);
    }
    for (int k = 0; out && k < n_out; k++) {
        out[k] = o->status ? "" : names[k];
    }
    return o->status ? "" : names[0];
}

void tess__onnx_add_named(tess_onnx *o, tess_onnx_node n, const char *name)
{
    if (o->status == TESS_OK) {
        append_node(o, &n, name, &name, 1);
    }
}

/* ---- constants ----------------------------------------------------------------------------- */

static const char *constant(tess_onnx *o, tess_onnx_type type, const char *name, const void *data,
                            size_t n_bytes, tess_shape shape)
{
    void *copy = tess_arena_alloc(&o->arena, n_bytes + 1);
    if (!name || !copy) {
        tess__onnx_fail(o, TESS_NOMEM);
        return "";
    }
    memcpy(copy, data, n_bytes);
    return tess__onnx_tensor(
        o, (tess_onnx_tensor){.name = name, .type = type, .shape = shape, .data = copy});
}

const char *tess__onnx_float(tess_onnx *o, float x)
{
    const char *name = tess_arena_format(&o->arena, "const/f%.9g", (double)x);
    return constant(o, tess__onnx_float_type(o), name, &x, sizeof x, (tess_shape){0});
}

const char *tess__onnx_float32(tess_onnx *o, float x)
{
    const char *name = tess_arena_format(&o->arena, "const/f32:%.9g", (double)x);
    return constant(o, TESS_ONNX_FLOAT, name, &x, sizeof x, (tess_shape){0});
}

const char *tess__onnx_floats(tess_onnx *o, const float *x, int64_t n)
{
    const char *name = tess_arena_format(&o->arena, "const/floats_%" PRId64, o->serial++);
    return constant(o, tess__onnx_float_type(o), name, x, (size_t)n * sizeof *x, TESS_SHAPE_OF(n));
}

const char *tess__onnx_ints(tess_onnx *o, const int64_t *x, int64_t n)
{
    tess_buf b = {0};
    tess_buf_adds(&b, "const/i");
    for (int64_t i = 0; i < n; i++) {
        tess_buf_addf(&b, "%s%" PRId64, i ? "," : "[", x[i]);
    }
    tess_buf_adds(&b, "]");
    const char *name = b.failed ? NULL : tess_arena_format(&o->arena, "%s", b.data);
    tess_buf_deinit(&b);
    return constant(o, TESS_ONNX_INT64, name, x, (size_t)n * sizeof *x, TESS_SHAPE_OF(n));
}

const char *tess__onnx_int(tess_onnx *o, int64_t x)
{
    const char *name = tess_arena_format(&o->arena, "const/i%" PRId64, x);
    return constant(o, TESS_ONNX_INT64, name, &x, sizeof x, (tess_shape){0});
}

tess_onnx_type tess__onnx_float_type(const tess_onnx *o)
{
    return o->options.half ? TESS_ONNX_FLOAT16 : TESS_ONNX_FLOAT;
}

/* ---- shapes -------------------------------------------------------------------------------- */

const char *tess__onnx_reshape(tess_onnx *o, const char *x, const tess_shape *shape)
{
    int64_t dims[TESS_MAX_RANK + 1];
    int64_t n = 0;
    for (int i = 0; i < shape->rank; i++) {
        const int64_t d = shape->dim[i];
        if (i == 0 && d == TESS_ONNX_ROWS) {
            dims[n++] = 0; /* as it is: batch and length */
            dims[n++] = 0;
        } else if (i == 0 && d > 0 && d % TESS_ONNX_BATCH == 0) {
            dims[n++] = -1;
        } else {
            dims[n++] = d;
        }
        if (i > 0 && d > 0 && (d % TESS_ONNX_BATCH == 0 || d % TESS_ONNX_ROWS == 0)) {
            tess__onnx_fail(
                o, TESS_FAIL(TESS_UNSUPPORTED, "%s: a batch that does not lead", o->scope));
        }
    }
    return TESS_ONNX(o, "Reshape", x, tess__onnx_ints(o, dims, n));
}

/* The leading n sizes of the input that has the batch, i64 (n). */
static const char *leading_sizes(tess_onnx *o, int64_t n)
{
    return tess__onnx_add(
        o,
        (tess_onnx_node){.op = "Shape",
                         .in = {o->batch_input ? o->batch_input : ""},
                         .attr = {TESS_ONNX_I("start", 0), TESS_ONNX_I("end", n)}},
        NULL);
}

const char *tess__onnx_expand(tess_onnx *o, const char *x, const tess_shape *shape)
{
    const bool packed = tess__onnx_is_packed(shape);
    if (!packed && (shape->rank < 1 || shape->dim[0] != TESS_ONNX_BATCH)) {
        return TESS_ONNX(o, "Expand", x, tess__onnx_ints(o, shape->dim, shape->rank));
    }
    const char *dims = leading_sizes(o, packed ? 2 : 1);
    if (shape->rank > 1) {
        dims = tess__onnx_concat(o, dims, tess__onnx_ints(o, shape->dim + 1, shape->rank - 1), 0);
    }
    return TESS_ONNX(o, "Expand", x, dims);
}

const char *tess__onnx_concat(tess_onnx *o, const char *a, const char *b, int axis)
{
    return tess__onnx_add(
        o, (tess_onnx_node){.op = "Concat", .in = {a, b}, .attr = {TESS_ONNX_I("axis", axis)}},
        NULL);
}

const char *tess__onnx_cast(tess_onnx *o, const char *x, tess_onnx_type type)
{
    return tess__onnx_add(
        o, (tess_onnx_node){.op = "Cast", .in = {x}, .attr = {TESS_ONNX_I("to", type)}}, NULL);
}

/* ---- sequences ----------------------------------------------------------------------------- */

const char *tess__onnx_range(tess_onnx *o, const char *x, int axis)
{
    const char *n = tess__onnx_add(
        o,
        (tess_onnx_node){.op = "Shape",
                         .in = {x},
                         .attr = {TESS_ONNX_I("start", axis), TESS_ONNX_I("end", axis + 1)}},
        NULL);
    n = TESS_ONNX(o, "Squeeze", n);
    return TESS_ONNX(o, "Range", tess__onnx_int(o, 0), n, tess__onnx_int(o, 1));
}

/* 0 where allowed, else so low that softmax gives 0, and yet finite: a row in which nothing is
 * allowed then gives an average rather than NaN. */
static const char *additive(tess_onnx *o, const char *allowed)
{
    const float low = o->options.half ? -3e4f : -1e9f;
    return TESS_ONNX(o, "Where", allowed, tess__onnx_float(o, 0), tess__onnx_float(o, low));
}

const char *tess__onnx_causal(tess_onnx *o, const char *x)
{
    if (!o->causal) {
        const char *at = tess__onnx_range(o, x, 1);
        const char *row = TESS_ONNX(o, "Unsqueeze", at, TESS_ONNX_LIST(o, 1));
        o->causal = additive(o, TESS_ONNX(o, "LessOrEqual", at, row));
    }
    return o->causal;
}

const char *tess__onnx_keys(tess_onnx *o)
{
    if (!o->keys && o->mask && o->mask[0]) {
        o->keys = additive(o, TESS_ONNX(o, "Unsqueeze", o->mask, TESS_ONNX_LIST(o, 1, 2)));
    }
    return o->keys ? o->keys : "";
}

const char *tess__onnx_last(tess_onnx *o)
{
    if (!o->last) {
        const char *counts = tess__onnx_cast(o, o->mask, TESS_ONNX_INT64);
        const char *n = TESS_ONNX(o, "ReduceSum", counts, TESS_ONNX_LIST(o, 1));
        o->last =
            TESS_ONNX(o, "Max", TESS_ONNX(o, "Sub", n, tess__onnx_int(o, 1)), tess__onnx_int(o, 0));
    }
    return o->last;
}
