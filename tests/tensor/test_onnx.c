/* SPDX-License-Identifier: Apache-2.0 */
/* ONNX models: every operator's cases are exported or refused by name; what is written is read back
 * by a reader of its own and must be a closed list of nodes in order; data inside and outside of
 * the model; nothing is left of a failed write.
 *
 * With TESS_ONNX_CASES=DIR the exported cases stay there, each as NAME.onnx and NAME.safetensors
 * (inputs x0, x1, ... and the cpu's y); test_onnx_values.py computes them again. */
#include "tensor/graph_fixture.h"

#include <unistd.h>

#include "tensor/onnx.h"
#include "tensor/onnx_wire.h"
#include "tensor/op_driver.h"

/* ---- a reader of protocol buffers ------------------------------------------------------------ */

typedef struct field {
    int number;
    uint64_t value; /* varint, or the length of bytes */
    const uint8_t *bytes;
} field;

static uint64_t read_varint(const uint8_t **at, const uint8_t *end)
{
    uint64_t x = 0;
    for (int shift = 0; *at < end; shift += 7) {
        const uint8_t b = *(*at)++;
        x |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80) {
            return x;
        }
    }
    fail_msg("a varint is cut");
    return 0;
}

static bool next_field(const uint8_t **at, const uint8_t *end, field *f)
{
    if (*at == end) {
        return false;
    }
    const uint64_t tag = read_varint(at, end);
    *f = (field){.number = (int)(tag >> 3)};
    if ((tag & 7) == 5) {
        f->bytes = *at;
        *at += 4;
        return true;
    }
    f->value = read_varint(at, end);
    if ((tag & 7) == 2) {
        assert_true(f->value <= (uint64_t)(end - *at));
        f->bytes = *at;
        *at += f->value;
    } else {
        assert_int_equal(tag & 7, 0);
    }
    return true;
}

static char *text_of(const field *f)
{
    return tess_strndup((const char *)f->bytes, f->value);
}

/* What the tests look at. */
typedef struct tensor_seen {
    char *name;
    int64_t count, raw_bytes, offset, length;
    int type;
    const uint8_t *raw;
} tensor_seen;
typedef struct model_seen {
    uint8_t *file;
    size_t n_file;
    int64_t ir_version, opset;
    tess_names known, ops; /* names that a node may read; operator types */
    tensor_seen tensors[64];
    int n_tensors;
    char *location;
} model_seen;

static bool has(const tess_names *names, const char *name)
{
    for (size_t i = 0; i < names->n_names; i++) {
        if (strcmp(names->names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

static void add_new(tess_names *names, char *name)
{
    if (has(names, name)) {
        fail_msg("%s is defined twice", name);
    }
    ok(tess_names_add(names, name));
    tess_free(name);
}

static void see_external(model_seen *m, tensor_seen *t, field entry)
{
    const uint8_t *at = entry.bytes, *end = at + entry.value;
    field f;
    char *key = NULL, *value = NULL;
    while (next_field(&at, end, &f)) {
        if (f.number == ENTRY_KEY) {
            key = text_of(&f);
        } else {
            value = text_of(&f);
        }
    }
    if (strcmp(key, "offset") == 0) {
        t->offset = atoll(value);
    } else if (strcmp(key, "length") == 0) {
        t->length = atoll(value);
    } else {
        tess_free(m->location);
        m->location = tess_strdup(value);
    }
    tess_free(key);
    tess_free(value);
}

static void see_tensor(model_seen *m, field message)
{
    const uint8_t *at = message.bytes, *end = at + message.value;
    field f;
    assert_true(m->n_tensors < 64);
    tensor_seen *t = &m->tensors[m->n_tensors++];
    *t = (tensor_seen){.count = 1, .raw_bytes = -1, .offset = -1};
    while (next_field(&at, end, &f)) {
        if (f.number == TENSOR_DIMS) {
            t->count *= (int64_t)f.value;
        } else if (f.number == TENSOR_DATA_TYPE) {
            t->type = (int)f.value;
        } else if (f.number == TENSOR_NAME) {
            t->name = text_of(&f);
            ok(tess_names_add(&m->known, t->name));
        } else if (f.number == TENSOR_RAW_DATA) {
            t->raw = f.bytes;
            t->raw_bytes = (int64_t)f.value;
        } else if (f.number == TENSOR_EXTERNAL_DATA) {
            see_external(m, t, f);
        }
    }
    const int64_t item = t->type == TESS_ONNX_INT64 ? 8 : t->type == TESS_ONNX_FLOAT16 ? 2 : 4;
    assert_int_equal(t->count * item, t->raw_bytes >= 0 ? t->raw_bytes : t->length);
}

static void see_node(model_seen *m, field message)
{
    const uint8_t *at = message.bytes, *end = at + message.value;
    field f;
    while (next_field(&at, end, &f)) {
        char *name = f.bytes ? text_of(&f) : NULL;
        if (f.number == NODE_INPUT && !has(&m->known, name)) {
            fail_msg("%s is read before it is made", name);
        }
        if (f.number == NODE_OUTPUT) {
            add_new(&m->known, name);
            continue;
        }
        if (f.number == NODE_OP_TYPE) {
            ok(tess_names_add(&m->ops, name));
        }
        tess_free(name);
    }
}

static void see_value_info(model_seen *m, field message, bool is_output)
{
    const uint8_t *at = message.bytes, *end = at + message.value;
    field f;
    while (next_field(&at, end, &f)) {
        if (f.number == VALUE_INFO_NAME && is_output) {
            char *name = text_of(&f);
            assert_true(has(&m->known, name));
            tess_free(name);
        } else if (f.number == VALUE_INFO_NAME) {
            add_new(&m->known, text_of(&f));
        }
    }
}

/* What nodes may read comes first, whatever its place in the file. */
static void see_graph(model_seen *m, field graph)
{
    for (int pass = 0; pass < 2; pass++) {
        const uint8_t *at = graph.bytes, *end = at + graph.value;
        field f;
        while (next_field(&at, end, &f)) {
            if (pass == 0 && f.number == GRAPH_INITIALIZER) {
                see_tensor(m, f);
            } else if (pass == 0 && f.number == GRAPH_INPUT) {
                see_value_info(m, f, false);
            } else if (pass == 1 && f.number == GRAPH_NODE) {
                see_node(m, f);
            } else if (pass == 1 && f.number == GRAPH_OUTPUT) {
                see_value_info(m, f, true);
            }
        }
    }
}

static void model_open(const char *path, model_seen *m)
{
    *m = (model_seen){0};
    ok(tess_file_read(path, 1 << 24, &m->file, &m->n_file));
    const uint8_t *at = m->file, *end = at + m->n_file;
    field f, opset;
    while (next_field(&at, end, &f)) {
        if (f.number == MODEL_IR_VERSION) {
            m->ir_version = (int64_t)f.value;
        } else if (f.number == MODEL_GRAPH) {
            see_graph(m, f);
        } else if (f.number == MODEL_OPSET_IMPORT) {
            const uint8_t *in = f.bytes;
            while (next_field(&in, f.bytes + f.value, &opset)) {
                m->opset = (int64_t)opset.value;
            }
        }
    }
    assert_int_equal(m->ir_version, 8);
    assert_int_equal(m->opset, 17);
}

static const tensor_seen *tensor_at(const model_seen *m, const char *name)
{
    for (int i = 0; i < m->n_tensors; i++) {
        if (strcmp(m->tensors[i].name, name) == 0) {
            return &m->tensors[i];
        }
    }
    return NULL;
}

static void model_close(model_seen *m)
{
    for (int i = 0; i < m->n_tensors; i++) {
        tess_free(m->tensors[i].name);
    }
    tess_names_deinit(&m->known);
    tess_names_deinit(&m->ops);
    tess_free(m->location);
    tess_free(m->file);
}

/* ---- a scratch directory --------------------------------------------------------------------- */

static char root[256];

static int make_root(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "%s/tessera-onnx-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : P_tmpdir);
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
    (void)state;
    return tess_dir_remove(root) == TESS_OK ? 0 : -1;
}

static size_t n_files(void)
{
    tess_names names = {0};
    ok(tess_dir_list(root, true, &names));
    const size_t n = names.n_names;
    tess_names_deinit(&names);
    return n;
}

/* ---- the operators' cases -------------------------------------------------------------------- */

static tess_onnx_type onnx_type(tess_dtype t)
{
    return t == TESS_I32 ? TESS_ONNX_INT32 : t == TESS_U8 ? TESS_ONNX_UINT8 : TESS_ONNX_FLOAT;
}

static int shape_dims(const tess_shape *s, tess_onnx_dim *dims)
{
    for (int i = 0; i < s->rank; i++) {
        dims[i] = (tess_onnx_dim){.size = s->dim[i]};
    }
    return s->rank;
}

/* Inputs x0, x1, ... and the cpu's y as a safetensors file. */
static void save_values(const tess_case *c, const tess_graph *g, tess_value y, const char *path)
{
    static const char *const names[] = {"x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7"};
    tess_tensor tensors[TESS_MAX_IN + 1] = {{0}};
    void *data[TESS_MAX_IN];
    tess_plan *plan = NULL;
    tess_workspace *work = tess_workspace_new();
    ok(tess_plan_build(g, &y, 1, tess_device_cpu(), NULL, work, &plan));
    for (int i = 0; i < c->n_in; i++) {
        const tess_operand o = {.dtype = c->in[i].dtype, .shape = c->in[i].shape};
        data[i] = tess_alloc(operand_bytes(&o));
        fill_operand(data[i], &o, c->in[i].fill, c->in[i].limit, (uint64_t)i + 1);
        ok(tess_plan_bind(plan, names[i], data[i]));
        tensors[i] = (tess_tensor){.name = names[i],
                                   .dtype = o.dtype == TESS_I32  ? "I32"
                                            : o.dtype == TESS_U8 ? "U8"
                                                                 : "F32",
                                   .shape = o.shape,
                                   .data = data[i],
                                   .n_bytes = operand_bytes(&o)};
    }
    ok(tess_plan_run(plan));
    const tess_operand o = tess__operand(g, y);
    tensors[c->n_in] = (tess_tensor){.name = "y",
                                     .dtype = "F32",
                                     .shape = o.shape,
                                     .data = tess_plan_output(plan, y),
                                     .n_bytes = operand_bytes(&o)};
    ok(tess_tensors_save(path, tensors, c->n_in + 1, NULL, 0));
    tess_plan_free(plan);
    tess_workspace_free(work);
    for (int i = 0; i < c->n_in; i++) {
        tess_free(data[i]);
    }
}

static tess_status export_case(const tess_op *op, const tess_case *c, const char *dir)
{
    tess_graph *g = tess_graph_new();
    tess_value in[TESS_MAX_IN] = {0};
    tess_onnx_dim dims[TESS_MAX_RANK];
    for (int i = 0; i < c->n_in; i++) {
        char name[16];
        snprintf(name, sizeof name, "x%d", i);
        in[i] = tess_input(g, name, c->in[i].dtype, c->in[i].shape);
    }
    const tess_value y = c->build(g, in);
    tess_onnx *o = tess__onnx_new(g, NULL, (tess_onnx_options){0});
    for (int i = 0; i < c->n_in; i++) {
        const int n = shape_dims(&c->in[i].shape, dims);
        const tess_onnx_type type = onnx_type(c->in[i].dtype);
        tess__onnx_bind(o, in[i], tess__onnx_input(o, tess_value_name(g, in[i]), type, dims, n),
                        type);
    }
    const tess_shape shape = tess_value_shape(g, y);
    tess__onnx_output(o, y, "y", dims, shape_dims(&shape, dims));
    tess_status st = tess__onnx_check(o);
    if (st == TESS_OK) {
        char *model = tess_format("%s/%s-%s.onnx", dir, op->name, c->name);
        char *values = tess_format("%s/%s-%s.safetensors", dir, op->name, c->name);
        model_seen m;
        ok(tess__onnx_save(o, model));
        model_open(model, &m);
        model_close(&m);
        save_values(c, g, y, values);
        tess_free(model);
        tess_free(values);
    }
    tess__onnx_free(o);
    tess_graph_free(g);
    return st;
}

static bool is_refused(const tess_op *op, const tess_case *c)
{
    bool refused = !op->onnx;
    for (int i = 0; i < c->n_in; i++) {
        refused |= c->in[i].dtype == TESS_BF16 || c->in[i].fill == TESS_FILL_OFFSETS;
    }
    return refused || strstr(c->name, "bf16");
}

/* Packed segments are tested by whole towers, tests/cli/test_onnx.py: they become padding. */
static void operators_are_exported_or_refused_by_name(void **state)
{
    (void)state;
    const char *dir = getenv("TESS_ONNX_CASES");
    int n_exported = 0, n_refused = 0;
    for (int i = 0; i < tess__n_ops; i++) {
        const tess_op *op = tess__ops[i];
        for (int k = 0; k < op->n_cases; k++) {
            if (op->flags & TESS_OP_EFFECT || op->n_out == 0 ||
                strcmp(op->cases[k].name, "beyond") == 0) { /* ids beyond the table */
                continue;
            }
            const tess_status st = export_case(op, &op->cases[k], dir ? dir : root);
            if (is_refused(op, &op->cases[k])) {
                if (st != TESS_UNSUPPORTED) {
                    fail_msg("%s/%s is not refused", op->name, op->cases[k].name);
                }
                n_refused++;
            } else if (st != TESS_OK) {
                fail_msg("%s/%s: %s", op->name, op->cases[k].name, tess_error());
            } else {
                n_exported++;
            }
        }
    }
    print_message("%d cases exported, %d refused\n", n_exported, n_refused);
    assert_true(n_exported >= 25 && n_refused >= 20);
}

static void what_has_no_form_is_named(void **state)
{
    (void)state;
    tess_graph *g = tess_graph_new();
    const tess_value x = tess_input(g, "x", TESS_F32, TESS_SHAPE_OF(4, 3));
    const tess_value scale = tess_input(g, "scale", TESS_F32, TESS_SHAPE_OF(1));
    tess_scope_push(g, "loss");
    const tess_value y = tess_contrast_softmax(g, x, x, scale);
    tess_onnx *o = tess__onnx_new(g, NULL, (tess_onnx_options){0});
    tess__onnx_output(o, y, "y", NULL, 0);
    assert_int_equal(tess__onnx_check(o), TESS_UNSUPPORTED);
    assert_says("loss: operator contrast_softmax has no ONNX form");
    assert_int_equal(tess__onnx_save(o, "nowhere/x.onnx"), TESS_UNSUPPORTED);
    tess__onnx_free(o);
    tess_graph_free(g);
}

/* ---- a small model --------------------------------------------------------------------------- */

enum { ROWS = 5 };

/* The perceptron of the fixture, and another one beside it that nothing needs. */
static tess_status save_mlp(const char *path, tess_onnx_options options)
{
    mlp_graph m = mlp_make(ROWS, false);
    tess_scope_push(m.g, "unused");
    tess__linear(m.g, "head", m.y, 3, (tess_linear_options){0});
    tess_scope_pop(m.g);
    tess_store *s = store_for(m.g);
    const tess_onnx_dim dims[] = {{.name = "rows"}, {.size = 6}};
    tess_onnx *o = tess__onnx_new(m.g, s, options);
    tess_status st = o ? TESS_OK : TESS_NOMEM;
    if (o) {
        tess__onnx_bind(o, m.x, tess__onnx_input(o, "x", TESS_ONNX_FLOAT, dims, 2),
                        TESS_ONNX_FLOAT);
        tess__onnx_output(o, m.y, "y", dims, 2);
        st = tess__onnx_save(o, path);
    }
    tess__onnx_free(o);
    tess_store_free(s);
    tess_graph_free(m.g);
    return st;
}

static const char *at(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", root, name);
    return path;
}

static void only_what_is_needed_is_written(void **state)
{
    (void)state;
    model_seen m;
    ok(save_mlp(at("mlp.onnx"), (tess_onnx_options){0}));
    model_open(at("mlp.onnx"), &m);
    assert_non_null(tensor_at(&m, "mlp.c_fc.weight.T"));
    assert_non_null(tensor_at(&m, "mlp.c_proj.bias"));
    assert_null(tensor_at(&m, "unused.head.weight.T"));
    assert_true(has(&m.known, "y"));
    assert_true(has(&m.ops, "Erf"));
    model_close(&m);
    unlink(at("mlp.onnx"));
}

/* (6,8) in the file, (8,6) in the store: element (k,m) is the weight's (m,k). */
static void weights_are_stored_transposed(void **state)
{
    (void)state;
    mlp_graph m = mlp_make(ROWS, false);
    tess_store *s = store_for(m.g);
    tess_shape shape;
    const float *w = tess_store_find(s, "param", "mlp.c_fc.weight", &shape);
    model_seen seen;
    ok(save_mlp(at("mlp.onnx"), (tess_onnx_options){0}));
    model_open(at("mlp.onnx"), &seen);
    const tensor_seen *t = tensor_at(&seen, "mlp.c_fc.weight.T");
    for (int64_t i = 0; i < t->count; i++) {
        float x;
        memcpy(&x, t->raw + 4 * i, 4);
        const int64_t k = i / shape.dim[0], row = i % shape.dim[0];
        assert_true(x == w[row * shape.dim[1] + k]);
    }
    model_close(&seen);
    tess_store_free(s);
    tess_graph_free(m.g);
    unlink(at("mlp.onnx"));
}

/* A wide layer, so that there are tensors of more than 1 KiB. */
static tess_status save_wide(const char *path, tess_onnx_options options)
{
    tess_graph *g = tess_graph_new();
    const tess_value x = tess_input(g, "x", TESS_F32, TESS_SHAPE_OF(2, 300));
    tess_value y = tess__linear(g, "a", x, 500, (tess_linear_options){.relu = true});
    y = tess__linear(g, "b", y, 7, (tess_linear_options){0});
    tess_store *s = store_for(g);
    const tess_onnx_dim in[] = {{.size = 2}, {.size = 300}}, out[] = {{.size = 2}, {.size = 7}};
    tess_onnx *o = tess__onnx_new(g, s, options);
    tess__onnx_bind(o, x, tess__onnx_input(o, "x", TESS_ONNX_FLOAT, in, 2), TESS_ONNX_FLOAT);
    tess__onnx_output(o, y, "y", out, 2);
    const tess_status st = tess__onnx_save(o, path);
    tess__onnx_free(o);
    tess_store_free(s);
    tess_graph_free(g);
    return st;
}

static void check_external(tess_onnx_options options)
{
    model_seen inside, outside;
    uint8_t *data;
    size_t n_data;
    ok(save_wide(at("in.onnx"), (tess_onnx_options){0}));
    ok(save_wide(at("out.onnx"), options));
    model_open(at("in.onnx"), &inside);
    model_open(at("out.onnx"), &outside);
    ok(tess_file_read(at("out.onnx_data"), 1 << 24, &data, &n_data));
    assert_string_equal(outside.location, "out.onnx_data");
    assert_int_equal(inside.n_tensors, outside.n_tensors);
    int n_outside = 0;
    for (int i = 0; i < inside.n_tensors; i++) {
        const tensor_seen *a = &inside.tensors[i], *b = &outside.tensors[i];
        assert_string_equal(a->name, b->name);
        const uint8_t *bytes = b->raw;
        if (b->offset >= 0) {
            n_outside++;
            assert_int_equal(b->offset % 4096, 0);
            assert_true(b->length >= 1024 && (size_t)(b->offset + b->length) <= n_data);
            bytes = data + b->offset;
        }
        assert_memory_equal(a->raw, bytes, (size_t)a->raw_bytes);
    }
    assert_int_equal(n_outside, 3); /* two weights and a bias of 2000 bytes */
    model_close(&inside);
    model_close(&outside);
    tess_free(data);
    unlink(at("in.onnx"));
    unlink(at("out.onnx"));
    unlink(at("out.onnx_data"));
}

static void data_outside_of_the_model(void **state)
{
    (void)state;
    check_external((tess_onnx_options){.external_data = true});
}

static void data_goes_outside_beyond_the_limit(void **state)
{
    (void)state;
    model_seen m;
    check_external((tess_onnx_options){.max_bytes = 600000});
    ok(save_wide(at("fits.onnx"), (tess_onnx_options){.max_bytes = 700000}));
    model_open(at("fits.onnx"), &m);
    assert_null(m.location);
    model_close(&m);
    unlink(at("fits.onnx"));
    assert_int_equal(n_files(), 0);
}

static void halves_round_to_even(void **state)
{
    (void)state;
    static const struct {
        float x;
        uint16_t half;
    } want[] = {{0, 0},
                {1, 0x3c00},
                {-2, 0xc000},
                {65504, 0x7bff},
                {0x1p-24f, 1},
                {0x1p-14f, 0x400},
                {1.0f / 3, 0x3555},
                {1 + 0x1p-11f, 0x3c00},
                {1 + 0x3p-11f, 0x3c02}};
    tess_graph *g = tess_graph_new();
    const tess_value x = tess_input(g, "x", TESS_F32, TESS_SHAPE_OF(TESS_COUNT(want)));
    const tess_value w = tess_state(g, "param", "w", TESS_F32, TESS_SHAPE_OF(TESS_COUNT(want)));
    const tess_value y = tess_add(g, x, w);
    tess_store *s = store_for(g);
    tess_shape shape;
    float *values = tess_store_find(s, "param", "w", &shape);
    for (int64_t i = 0; i < TESS_COUNT(want); i++) {
        values[i] = want[i].x;
    }
    for (int too_large = 0; too_large < 2; too_large++) {
        const tess_onnx_dim dims[] = {{.size = TESS_COUNT(want)}};
        tess_onnx *o = tess__onnx_new(g, s, (tess_onnx_options){.half = true});
        tess__onnx_bind(o, x, tess__onnx_input(o, "x", TESS_ONNX_FLOAT16, dims, 1),
                        TESS_ONNX_FLOAT16);
        tess__onnx_output(o, y, "y", dims, 1);
        values[0] = too_large ? 7e4f : 0;
        const tess_status st = tess__onnx_save(o, at("half.onnx"));
        tess__onnx_free(o);
        if (too_large) {
            assert_int_equal(st, TESS_UNSUPPORTED);
            assert_says("w holds 70000, which f16 cannot");
            continue;
        }
        ok(st);
        model_seen m;
        model_open(at("half.onnx"), &m);
        const tensor_seen *t = tensor_at(&m, "w");
        for (int64_t i = 0; i < TESS_COUNT(want); i++) {
            uint16_t half;
            memcpy(&half, t->raw + 2 * i, 2);
            assert_int_equal(half, want[i].half);
        }
        model_close(&m);
    }
    tess_store_free(s);
    tess_graph_free(g);
    unlink(at("half.onnx"));
}

/* ---- faults ---------------------------------------------------------------------------------- */

static void a_failed_write_leaves_nothing(void **state)
{
    (void)state;
    int failures = 0;
    for (int kind = TESS_FAULT_WRITE; kind <= TESS_FAULT_RENAME; kind++) {
        for (int64_t nth = 1; nth < 4; nth++) {
            tess_fault_set((tess_fault)kind, nth, true);
            const tess_status st =
                save_wide(at("x.onnx"), (tess_onnx_options){.external_data = nth % 2 == 0});
            tess_fault_set((tess_fault)kind, 0, false);
            if (st == TESS_OK) {
                unlink(at("x.onnx"));
            } else {
                assert_false(tess_path_exists(at("x.onnx")));
                failures++;
            }
            unlink(at("x.onnx_data"));
        }
    }
    assert_true(failures >= 4);
    assert_int_equal(n_files(), 0);
    assert_int_equal(save_wide(at("no/such/x.onnx"), (tess_onnx_options){0}), TESS_IO);
}

static void memory_may_give_out_anywhere(void **state)
{
    (void)state;
    int failures = 0;
    mlp_graph m = mlp_make(ROWS, false);
    tess_store *s = store_for(m.g);
    const tess_onnx_dim dims[] = {{.name = "rows"}, {.size = 6}};
    for (int64_t nth = 1; nth < 200; nth++) {
        tess_fault_set(TESS_FAULT_ALLOC, nth, false);
        tess_onnx *o = tess__onnx_new(m.g, s, (tess_onnx_options){.external_data = true});
        tess_status st = TESS_NOMEM;
        if (o) {
            tess__onnx_bind(o, m.x, tess__onnx_input(o, "x", TESS_ONNX_FLOAT, dims, 2),
                            TESS_ONNX_FLOAT);
            tess__onnx_output(o, m.y, "y", dims, 2);
            st = tess__onnx_save(o, at("x.onnx"));
        }
        tess__onnx_free(o);
        tess_fault_set(TESS_FAULT_ALLOC, 0, false);
        if (st == TESS_OK) {
            model_seen seen;
            model_open(at("x.onnx"), &seen);
            model_close(&seen);
            unlink(at("x.onnx"));
        } else {
            assert_int_equal(st, TESS_NOMEM);
            failures++;
        }
        unlink(at("x.onnx_data"));
    }
    assert_true(failures > 20);
    assert_int_equal(n_files(), 0);
    tess_store_free(s);
    tess_graph_free(m.g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(operators_are_exported_or_refused_by_name, make_root,
                                        remove_root),
        cmocka_unit_test(what_has_no_form_is_named),
        cmocka_unit_test_setup_teardown(only_what_is_needed_is_written, make_root, remove_root),
        cmocka_unit_test_setup_teardown(weights_are_stored_transposed, make_root, remove_root),
        cmocka_unit_test_setup_teardown(data_outside_of_the_model, make_root, remove_root),
        cmocka_unit_test_setup_teardown(data_goes_outside_beyond_the_limit, make_root, remove_root),
        cmocka_unit_test_setup_teardown(halves_round_to_even, make_root, remove_root),
        cmocka_unit_test_setup_teardown(a_failed_write_leaves_nothing, make_root, remove_root),
        cmocka_unit_test_setup_teardown(memory_may_give_out_anywhere, make_root, remove_root),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
