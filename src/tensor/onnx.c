/* SPDX-License-Identifier: Apache-2.0 */
/* The pass: walks the graph once, in its order, and lets each operator that the outputs need emit
 * its ONNX nodes.
 *
 * A state becomes an initializer where it is first used, under its own name; a reshaped state is
 * the same bytes under other dimensions, and the weight of a linear layer is stored transposed,
 * since ONNX's MatMul knows no transposed operand and a Transpose node would be run at every call
 * by consumers that do not fold constants. */
#include "tensor/onnx.h"

#include <string.h>

#include "tensor/graph.h"
#include "tensor/onnx_wire.h"

/* ---- life ---------------------------------------------------------------------------------- */

tess_onnx *tess__onnx_new(const tess_graph *g, const tess_store *store, tess_onnx_options options)
{
    tess_onnx *o = tess_alloc(sizeof *o);
    if (!o) {
        return NULL;
    }
    *o = (tess_onnx){.graph = g, .store = store, .options = options, .scope = ""};
    o->options.max_bytes = options.max_bytes > 0 ? options.max_bytes : INT32_MAX;
    o->values = tess_alloc_array((size_t)tess_graph_n_values(g), sizeof *o->values);
    if (!o->values) {
        tess_free(o);
        return NULL;
    }
    tess_status st = tess_graph_check(g);
    if (st) {
        tess__onnx_fail(o, st);
    }
    return o;
}

void tess__onnx_free(tess_onnx *o)
{
    if (!o) {
        return;
    }
    tess_buf_deinit(&o->nodes);
    tess_buf_deinit(&o->inputs);
    tess_buf_deinit(&o->outputs);
    tess_free(o->tensors);
    tess_free(o->values);
    tess_free(o->message);
    tess_arena_deinit(&o->arena);
    tess_free(o);
}

tess_status tess__onnx_check(const tess_onnx *o)
{
    if (!o) {
        return TESS_FAIL(TESS_NOMEM, "ONNX model: out of memory");
    }
    if (o->status) {
        return TESS_FAIL(o->status, "%s", o->message ? o->message : "out of memory");
    }
    TESS_TRY(tess_buf_check(&o->nodes));
    TESS_TRY(tess_buf_check(&o->inputs));
    return tess_buf_check(&o->outputs);
}

void tess__onnx_fail(tess_onnx *o, tess_status code)
{
    if (o->status == TESS_OK) {
        o->status = code;
        o->message = tess_strdup(tess_error());
    }
}

const char *tess__onnx_refuse(const tess_onnx_emit *c, const char *why)
{
    tess__onnx_fail(c->to, TESS_FAIL(TESS_UNSUPPORTED, "%s: %s", c->to->scope, why));
    return "";
}

/* ---- initializers -------------------------------------------------------------------------- */

const char *tess__onnx_tensor(tess_onnx *o, tess_onnx_tensor t)
{
    for (size_t i = 0; t.name && i < o->n_tensors; i++) {
        if (strcmp(o->tensors[i].name, t.name) == 0) {
            return o->tensors[i].name;
        }
    }
    if (!t.name || tess_grow(&o->tensors, &o->cap_tensors, o->n_tensors + 1, sizeof *o->tensors)) {
        tess__onnx_fail(o, TESS_NOMEM);
        return "";
    }
    t.external_at = -1;
    o->tensors[o->n_tensors++] = t;
    return t.name;
}

/* The initializer of a state: "name", "name.T" transposed, "name:(4,5)" under another shape. */
static const char *state_tensor(tess_onnx *o, const tess_onnx_value *v, bool transposed)
{
    const char *name = v->state_name;
    tess_onnx_tensor t = {.type = tess__onnx_float_type(o), .shape = v->shape, .data = v->state};
    if (transposed) {
        name = tess_arena_format(&o->arena, "%s.T", name);
        t.shape = TESS_SHAPE_OF(v->shape.dim[1], v->shape.dim[0]);
        t.transposed = true;
    }
    t.name = name;
    return tess__onnx_tensor(o, t);
}

static void bind_state(tess_onnx *o, tess_value leaf)
{
    const tess_leaf_attrs *a = tess__value_node(o->graph, leaf)->attrs;
    const tess_operand want = tess__operand(o->graph, leaf);
    tess_shape have;
    const float *data = o->store ? tess_store_find(o->store, a->group, a->name, &have) : NULL;
    if (!data || !tess_shape_equal(&have, &want.shape) || want.dtype != TESS_F32) {
        tess__onnx_fail(o,
                        TESS_FAIL(TESS_INVALID, "%s: the store holds no such f32 state", a->name));
        return;
    }
    o->values[leaf].state = data;
    o->values[leaf].state_name = a->name;
    o->values[leaf].shape = want.shape;
}

/* ---- what operators ask for ---------------------------------------------------------------- */

const char *tess__onnx_in(const tess_onnx_emit *c, int i)
{
    if (i >= c->n_in || !c->in_values[i]) {
        return "";
    }
    tess_onnx_value *v = &c->to->values[c->in_values[i]];
    if (!v->name && v->state) {
        v->name = state_tensor(c->to, v, false);
    }
    if (!v->name) {
        tess__onnx_fail(c->to,
                        TESS_FAIL(TESS_UNSUPPORTED, "%s: needs %s, which has no form in the model",
                                  c->to->scope, tess_value_name(c->to->graph, c->in_values[i])));
    }
    return v->name ? v->name : "";
}

const char *tess__onnx_in_transposed(const tess_onnx_emit *c, int i)
{
    const tess_onnx_value *v = &c->to->values[c->in_values[i]];
    return v->state ? state_tensor(c->to, v, true)
                    : tess__onnx_add(c->to,
                                     (tess_onnx_node){.op = "Transpose",
                                                      .in = {tess__onnx_in(c, i)},
                                                      .attr = {TESS_ONNX_INTS("perm", 1, 0)}},
                                     NULL);
}

bool tess__onnx_alias_state(const tess_onnx_emit *c)
{
    const tess_onnx_value *v = &c->to->values[c->in_values[0]];
    if (!v->state) {
        return false;
    }
    const tess_shape shape = c->out[0].shape;
    tess_buf b = {0};
    tess_shape_print(&shape, &b);
    const char *name =
        b.failed ? NULL : tess_arena_format(&c->to->arena, "%s:%s", v->state_name, b.data);
    tess_buf_deinit(&b);
    if (!name) {
        tess__onnx_fail(c->to, TESS_NOMEM);
        return true;
    }
    tess_onnx_value *y = &c->to->values[c->out_value];
    *y = (tess_onnx_value){.state = v->state, .state_name = name, .shape = shape};
    return true;
}

bool tess__onnx_in_is(const tess_onnx_emit *c, int i, tess_onnx_type type)
{
    return i < c->n_in && c->to->values[c->in_values[i]].type == type;
}

/* ---- inputs and outputs -------------------------------------------------------------------- */

static void add_value_info(tess_buf *to, int field, const char *name, tess_onnx_type type,
                           const tess_onnx_dim *dims, int n_dims)
{
    tess_buf shape = {0}, tensor = {0}, outer = {0}, info = {0}, dim = {0};
    for (int i = 0; i < n_dims; i++) {
        dim.n_bytes = 0; /* and not tess_buf_clear, which forgets a failure */
        if (dims[i].name) {
            tess__wire_string(&dim, DIM_PARAM, dims[i].name);
        } else {
            tess__wire_int(&dim, DIM_VALUE, dims[i].size);
        }
        tess__wire_message(&shape, SHAPE_DIM, &dim);
    }
    tess__wire_int(&tensor, TENSOR_TYPE_ELEM, type);
    tess__wire_message(&tensor, TENSOR_TYPE_SHAPE, &shape);
    tess__wire_message(&outer, TYPE_TENSOR, &tensor);
    tess__wire_string(&info, VALUE_INFO_NAME, name);
    tess__wire_message(&info, VALUE_INFO_TYPE, &outer);
    tess__wire_message(to, field, &info);
    tess_buf_deinit(&dim);
    tess_buf_deinit(&shape);
    tess_buf_deinit(&tensor);
    tess_buf_deinit(&outer);
    tess_buf_deinit(&info);
}

const char *tess__onnx_input(tess_onnx *o, const char *name, tess_onnx_type type,
                             const tess_onnx_dim *dims, int n_dims)
{
    add_value_info(&o->inputs, GRAPH_INPUT, name, type, dims, n_dims);
    const char *copy = tess_arena_format(&o->arena, "%s", name);
    if (!copy) {
        tess__onnx_fail(o, TESS_NOMEM);
    }
    return copy ? copy : "";
}

void tess__onnx_bind(tess_onnx *o, tess_value leaf, const char *name, tess_onnx_type type)
{
    if (o->status == TESS_OK && leaf) {
        o->values[leaf].name = name;
        o->values[leaf].type = type;
    }
}

void tess__onnx_bind_segments(tess_onnx *o, tess_value leaf, const char *mask)
{
    o->segments = leaf;
    o->mask = mask;
}

void tess__onnx_bind_batch(tess_onnx *o, const char *input)
{
    o->batch_input = input;
}

/* Marks the nodes that v needs. */
static bool *find_needed(const tess_graph *g, tess_value v)
{
    bool *need = tess_alloc_array(g->n_nodes + 1, sizeof *need);
    if (!need) {
        return NULL;
    }
    need[g->values[v].node] = true;
    for (size_t i = g->n_nodes; i-- > 0;) {
        for (int k = 0; need[i] && k < g->nodes[i].n_in; k++) {
            if (g->nodes[i].in[k]) {
                need[g->values[g->nodes[i].in[k]].node] = true;
            }
        }
    }
    return need;
}

/* The graph is built in f32; a model in f16 is made of it by the types of weights and inputs. */
static const tess_operand *find_other_type(const tess_operand *x, int n)
{
    for (int i = 0; i < n; i++) {
        if (x[i].shape.rank >= 0 && x[i].dtype != TESS_F32 && x[i].dtype != TESS_I32 &&
            x[i].dtype != TESS_U8) {
            return &x[i];
        }
    }
    return NULL;
}

static void emit_node(tess_onnx *o, const tess_node *n)
{
    tess_operand in[TESS_MAX_IN], out[TESS_MAX_OUT];
    tess_onnx_emit c = {.to = o,
                        .in = in,
                        .out = out,
                        .in_values = n->in,
                        .out_value = n->out,
                        .n_in = n->n_in,
                        .attrs = n->attrs};
    o->scope = n->scope[0] ? n->scope : n->op->name;
    for (int i = 0; i < n->n_in; i++) {
        in[i] = tess__operand(o->graph, n->in[i]);
    }
    for (int k = 0; k < n->op->n_out; k++) {
        out[k] = tess__operand(o->graph, n->out + k);
    }
    const tess_operand *other = find_other_type(in, n->n_in);
    other = other ? other : find_other_type(out, n->op->n_out);
    if (!n->op->onnx) {
        tess__onnx_fail(o, TESS_FAIL(TESS_UNSUPPORTED, "%s: operator %s has no ONNX form", o->scope,
                                     n->op->name));
    } else if (other) {
        tess__onnx_fail(o, TESS_FAIL(TESS_UNSUPPORTED, "%s: %s computes in %s; expected f32",
                                     o->scope, n->op->name, tess_dtype_name(other->dtype)));
    } else {
        const char *name = n->op->onnx(&c);
        if (!o->values[n->out].state) {
            o->values[n->out].name = name;
        }
    }
}

void tess__onnx_output(tess_onnx *o, tess_value v, const char *name, const tess_onnx_dim *dims,
                       int n_dims)
{
    const tess_graph *g = o->graph;
    bool *need = o->status ? NULL : find_needed(g, v);
    if (!need) {
        tess__onnx_fail(o, TESS_NOMEM);
        return;
    }
    for (size_t i = 0; i < g->n_nodes && o->status == TESS_OK; i++) {
        const tess_node *n = &g->nodes[i];
        if (!need[i] || (n->out && (o->values[n->out].name || o->values[n->out].state))) {
            continue;
        }
        if (n->op == &tess__op_state) {
            bind_state(o, n->out);
        } else if (n->op != &tess__op_input) {
            emit_node(o, n);
        }
    }
    tess_free(need);
    o->scope = name;
    const tess_onnx_emit end = {.to = o, .in_values = &v, .n_in = 1};
    tess__onnx_add_named(o, (tess_onnx_node){.op = "Identity", .in = {tess__onnx_in(&end, 0)}},
                         name);
    add_value_info(&o->outputs, GRAPH_OUTPUT, name, TESS_ONNX_FLOAT, dims, n_dims);
}
