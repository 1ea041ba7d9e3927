/* SPDX-License-Identifier: Apache-2.0 */
/* The model as a file, streamed: every message's length is known before its bytes are written, so a
 * model of any size needs no second copy of its weights in memory.
 *
 * External data: tensors of at least 1 KiB at multiples of 4 KiB, which lets a consumer map them;
 * smaller ones stay in the model, since consumers want to see shapes and scalars there. */
#include "tensor/onnx.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "tensor/onnx_wire.h"

enum { EXTERNAL_LEAST = 1024, EXTERNAL_ALIGN = 4096, CHUNK_FLOATS = 1 << 16 };

/* ---- tensors ------------------------------------------------------------------------------- */

static int64_t item_bytes(tess_onnx_type type)
{
    return type == TESS_ONNX_INT64 ? 8 : type == TESS_ONNX_FLOAT16 ? 2 : 4;
}

static int64_t tensor_bytes(const tess_onnx_tensor *t)
{
    return tess_shape_count(&t->shape) * item_bytes(t->type);
}

static void add_entry(tess_buf *b, const char *key, const char *value)
{
    tess_buf entry = {0};
    tess__wire_string(&entry, ENTRY_KEY, key);
    tess__wire_string(&entry, ENTRY_VALUE, value);
    tess__wire_message(b, TENSOR_EXTERNAL_DATA, &entry);
    tess_buf_deinit(&entry);
}

static void add_external(tess_buf *b, const tess_onnx_tensor *t, const char *location)
{
    char number[32];
    add_entry(b, "location", location);
    snprintf(number, sizeof number, "%" PRId64, t->external_at);
    add_entry(b, "offset", number);
    snprintf(number, sizeof number, "%" PRId64, tensor_bytes(t));
    add_entry(b, "length", number);
    tess__wire_int(b, TENSOR_DATA_LOCATION, TENSOR_LOCATION_EXTERNAL);
}

/* A TensorProto but for the bytes of its raw_data, which come last. */
static void tensor_head(tess_buf *b, const tess_onnx_tensor *t, const char *location)
{
    for (int i = 0; i < t->shape.rank; i++) {
        tess__wire_int(b, TENSOR_DIMS, t->shape.dim[i]);
    }
    tess__wire_int(b, TENSOR_DATA_TYPE, t->type);
    tess__wire_string(b, TENSOR_NAME, t->name);
    if (t->external_at >= 0) {
        add_external(b, t, location);
    } else {
        tess__wire_begin(b, TENSOR_RAW_DATA, (uint64_t)tensor_bytes(t));
    }
}

/* To nearest, ties to even; beyond the range: infinity. */
static uint16_t half_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    const float a = fabsf(x);
    if (!(a < 65520.0f)) {
        return (uint16_t)(sign | (isnan(x) ? 0x7e00 : 0x7c00));
    }
    if (a < 0x1p-14f) { /* multiples of 2^-24 */
        return (uint16_t)(sign | (uint16_t)lrintf(a * 0x1p24f));
    }
    memcpy(&bits, &a, sizeof bits);
    bits += 0xfff + (bits >> 13 & 1);
    return (uint16_t)(sign | (uint16_t)((bits - 0x38000000u) >> 13));
}

static tess_status write_floats(tess_writer *w, const tess_onnx_tensor *t, const float *x,
                                int64_t n, uint16_t *halves)
{
    if (t->type == TESS_ONNX_FLOAT) {
        return tess_writer_write(w, x, (size_t)n * sizeof *x);
    }
    for (int64_t i = 0; i < n; i++) {
        halves[i] = half_of(x[i]);
        if ((halves[i] & 0x7c00) == 0x7c00) {
            return TESS_FAIL(TESS_UNSUPPORTED, "%s holds %g, which f16 cannot: export f32", t->name,
                             (double)x[i]);
        }
    }
    return tess_writer_write(w, halves, (size_t)n * sizeof *halves);
}

/* (R,C) from data (C,R), some output rows at a time. */
static tess_status write_transposed(tess_writer *w, const tess_onnx_tensor *t, float *rows,
                                    int64_t room, uint16_t *halves)
{
    const float *x = t->data;
    const int64_t n_rows = t->shape.dim[0], width = t->shape.dim[1];
    const int64_t step = room / width;
    for (int64_t r = 0; r < n_rows; r += step) {
        const int64_t n = n_rows - r < step ? n_rows - r : step;
        for (int64_t j = 0; j < width; j++) {
            for (int64_t i = 0; i < n; i++) {
                rows[i * width + j] = x[j * n_rows + r + i];
            }
        }
        TESS_TRY(write_floats(w, t, rows, n * width, halves));
    }
    return TESS_OK;
}

static tess_status write_data(tess_writer *w, const tess_onnx_tensor *t)
{
    const int64_t n = tess_shape_count(&t->shape);
    if (t->type == TESS_ONNX_INT64 || (t->type == TESS_ONNX_FLOAT && !t->transposed)) {
        return tess_writer_write(w, t->data, (size_t)tensor_bytes(t));
    }
    const int64_t width = t->transposed ? t->shape.dim[1] : 1;
    const int64_t room = width > CHUNK_FLOATS ? width : CHUNK_FLOATS;
    float *rows = tess_alloc_array((size_t)room, sizeof *rows);
    uint16_t *halves = tess_alloc_array((size_t)room, sizeof *halves);
    tess_status st = rows && halves ? TESS_OK : TESS_NOMEM;
    if (st == TESS_OK && t->transposed) {
        st = write_transposed(w, t, rows, room, halves);
    }
    for (int64_t i = 0; st == TESS_OK && !t->transposed && i < n; i += room) {
        st = write_floats(w, t, (const float *)t->data + i, n - i < room ? n - i : room, halves);
    }
    tess_free(rows);
    tess_free(halves);
    return st;
}

/* ---- the data file ------------------------------------------------------------------------- */

static tess_status write_padding(tess_writer *w, int64_t n)
{
    static const char zeros[EXTERNAL_ALIGN];
    return n > 0 ? tess_writer_write(w, zeros, (size_t)n) : TESS_OK;
}

static tess_status write_external(const tess_onnx *o, const char *path)
{
    tess_writer *w = NULL;
    int64_t at = 0;
    TESS_TRY(tess_writer_open(path, &w));
    tess_status st = TESS_OK;
    for (size_t i = 0; st == TESS_OK && i < o->n_tensors; i++) {
        const tess_onnx_tensor *t = &o->tensors[i];
        if (t->external_at >= 0) {
            st = write_padding(w, t->external_at - at);
            st = st ? st : write_data(w, t);
            at = t->external_at + tensor_bytes(t);
        }
    }
    if (st) {
        tess_writer_abort(w);
        return st;
    }
    return tess_writer_commit(w);
}

static void place_external(tess_onnx *o)
{
    int64_t at = 0;
    for (size_t i = 0; i < o->n_tensors; i++) {
        tess_onnx_tensor *t = &o->tensors[i];
        if (tensor_bytes(t) >= EXTERNAL_LEAST) {
            at = (at + EXTERNAL_ALIGN - 1) / EXTERNAL_ALIGN * EXTERNAL_ALIGN;
            t->external_at = at;
            at += tensor_bytes(t);
        }
    }
}

/* ---- the model file ------------------------------------------------------------------------ */

typedef struct layout {
    tess_buf head, name, tail; /* before the graph, the graph's name, behind it */
    int64_t graph_bytes, total_bytes;
} layout;

static int64_t field_bytes(int64_t n)
{
    return 1 + tess__wire_varint_bytes((uint64_t)n) + n; /* field numbers below 16 */
}

/* Heads and data of the initializers, each as a field of the graph. */
static int64_t initializers_bytes(const tess_onnx *o, const char *location, bool *out_failed)
{
    int64_t sum = 0;
    tess_buf head = {0};
    for (size_t i = 0; i < o->n_tensors; i++) {
        const tess_onnx_tensor *t = &o->tensors[i];
        tess_buf_clear(&head);
        tensor_head(&head, t, location);
        sum += field_bytes((int64_t)head.n_bytes + (t->external_at < 0 ? tensor_bytes(t) : 0));
        *out_failed |= head.failed;
    }
    tess_buf_deinit(&head);
    return sum;
}

static tess_status lay_out(const tess_onnx *o, const char *location, layout *l)
{
    tess_buf opset = {0};
    bool failed = false;
    tess_buf_clear(&l->head);
    tess_buf_clear(&l->name);
    tess_buf_clear(&l->tail);
    tess__wire_string(&l->name, GRAPH_NAME, "tessera");
    l->graph_bytes =
        (int64_t)(o->nodes.n_bytes + l->name.n_bytes + o->inputs.n_bytes + o->outputs.n_bytes) +
        initializers_bytes(o, location, &failed);
    tess__wire_int(&l->head, MODEL_IR_VERSION, ONNX_IR_VERSION);
    tess__wire_string(&l->head, MODEL_PRODUCER_NAME, "tessera");
    tess__wire_string(&l->head, MODEL_PRODUCER_VERSION, TESS_VERSION);
    tess__wire_begin(&l->head, MODEL_GRAPH, (uint64_t)l->graph_bytes);
    tess__wire_int(&opset, OPSET_VERSION, ONNX_OPSET);
    tess__wire_message(&l->tail, MODEL_OPSET_IMPORT, &opset);
    tess_buf_deinit(&opset);
    l->total_bytes = (int64_t)(l->head.n_bytes + l->tail.n_bytes) + l->graph_bytes;
    l->tail.failed |= failed;
    TESS_TRY(tess_buf_check(&l->head));
    TESS_TRY(tess_buf_check(&l->name));
    return tess_buf_check(&l->tail);
}

static tess_status write_initializers(const tess_onnx *o, tess_writer *w, const char *location)
{
    tess_buf head = {0}, begin = {0};
    tess_status st = TESS_OK;
    for (size_t i = 0; st == TESS_OK && i < o->n_tensors; i++) {
        const tess_onnx_tensor *t = &o->tensors[i];
        const bool inside = t->external_at < 0;
        tess_buf_clear(&head);
        tess_buf_clear(&begin);
        tensor_head(&head, t, location);
        tess__wire_begin(&begin, GRAPH_INITIALIZER,
                         head.n_bytes + (inside ? (uint64_t)tensor_bytes(t) : 0));
        tess_buf_add(&begin, head.data ? head.data : "", head.n_bytes);
        st = tess_buf_check(&head);
        st = st ? st : tess_buf_check(&begin);
        st = st ? st : tess_writer_write(w, begin.data, begin.n_bytes);
        st = st || !inside ? st : write_data(w, t);
    }
    tess_buf_deinit(&head);
    tess_buf_deinit(&begin);
    return st;
}

static tess_status write_buf(tess_writer *w, const tess_buf *b)
{
    return b->n_bytes > 0 ? tess_writer_write(w, b->data, b->n_bytes) : TESS_OK;
}

static tess_status write_model(const tess_onnx *o, const layout *l, const char *path,
                               const char *location)
{
    tess_writer *w = NULL;
    TESS_TRY(tess_writer_open(path, &w));
    tess_status st = write_buf(w, &l->head);
    st = st ? st : write_buf(w, &o->nodes);
    st = st ? st : write_buf(w, &l->name);
    st = st ? st : write_initializers(o, w, location);
    st = st ? st : write_buf(w, &o->inputs);
    st = st ? st : write_buf(w, &o->outputs);
    st = st ? st : write_buf(w, &l->tail);
    if (st) {
        tess_writer_abort(w);
        return st;
    }
    return tess_writer_commit(w);
}

static tess_status save(tess_onnx *o, const char *path, const char *data_path, layout *l)
{
    const char *slash = strrchr(data_path, '/');
    const char *location = slash ? slash + 1 : data_path;
    TESS_TRY(lay_out(o, location, l));
    if (o->options.external_data || l->total_bytes > o->options.max_bytes) {
        place_external(o);
        TESS_TRY(lay_out(o, location, l));
        TESS_TRY(write_external(o, data_path));
    }
    return write_model(o, l, path, location);
}

tess_status tess__onnx_save(tess_onnx *o, const char *path)
{
    layout l = {0};
    TESS_TRY(tess__onnx_check(o));
    char *data_path = tess_format("%s_data", path);
    tess_status st = data_path ? save(o, path, data_path, &l) : TESS_NOMEM;
    tess_free(data_path);
    tess_buf_deinit(&l.head);
    tess_buf_deinit(&l.name);
    tess_buf_deinit(&l.tail);
    return st;
}
