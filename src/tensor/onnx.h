/* SPDX-License-Identifier: Apache-2.0 */
/* A forward graph as an ONNX model: each operator's own emission, in the order of the graph, pruned
 * to what the outputs need.
 *
 * Symbolic sizes.  The graph is built by the ordinary builders with two sizes that stand for
 * unknown ones: TESS_ONNX_BATCH, and TESS_ONNX_ROWS for the rows of packed texts.  Both are primes
 * above any size that a config may have, so a dimension that is a multiple of one is recognised.
 * A value (ROWS,...) becomes an ONNX value (B,L,...): packed rows become padded ones, one more
 * dimension, and `offsets` become a mask.
 *
 * Errors latch in the writer, as they do in a graph; names are borrowed from it. */
#ifndef TESSERA_TENSOR_ONNX_H
#define TESSERA_TENSOR_ONNX_H

#include "tensor/op.h"

#define TESS_ONNX_BATCH ((int64_t)2147483647)
#define TESS_ONNX_ROWS  ((int64_t)2147483629)

/* TensorProto.DataType. */
typedef enum tess_onnx_type {
    TESS_ONNX_FLOAT = 1,
    TESS_ONNX_UINT8 = 2,
    TESS_ONNX_INT32 = 6,
    TESS_ONNX_INT64 = 7,
    TESS_ONNX_BOOL = 9,
    TESS_ONNX_FLOAT16 = 10,
} tess_onnx_type;

typedef struct tess_onnx_options {
    bool half;          /* weights and activations in f16 */
    bool external_data; /* weights in a file beside the model; always so beyond max_bytes */
    int64_t max_bytes;  /* of a model with its weights inside; 0: 2^31 - 1, protobuf's limit */
} tess_onnx_options;

/* An initializer.  Its data is f32 where `type` is a float type; what differs is converted on the
 * way to the file, as is a transposition. */
typedef struct tess_onnx_tensor {
    const char *name;
    tess_onnx_type type;
    tess_shape shape; /* as ONNX sees it */
    const void *data;
    bool transposed;     /* data is (dim[1],dim[0]) */
    int64_t external_at; /* place in the data file; -1: inside */
} tess_onnx_tensor;

/* What a value of the graph is in the model. */
typedef struct tess_onnx_value {
    const char *name;   /* NULL: not emitted yet */
    const float *state; /* not NULL: a state, emitted where it is used */
    const char *state_name;
    tess_shape shape;    /* the state's */
    tess_onnx_type type; /* of a bound input; 0: not known */
} tess_onnx_value;

typedef struct tess_onnx {
    const tess_graph *graph;
    const tess_store *store;
    tess_onnx_options options;
    tess_arena arena;
    tess_onnx_value *values; /* by value of the graph */
    tess_onnx_tensor *tensors;
    size_t n_tensors, cap_tensors;
    tess_buf nodes, inputs, outputs;
    const char *scope;
    int64_t serial;
    const char *batch_input, *mask, *last, *keys, *causal;
    tess_value segments;
    tess_status status;
    char *message;
} tess_onnx;

/* Of the graph and the states in `store` (NULL: none), which must outlive it.  NULL: no memory. */
tess_onnx *tess__onnx_new(const tess_graph *g, const tess_store *store, tess_onnx_options o);
void tess__onnx_free(tess_onnx *o);
TESS_MUST_USE tess_status tess__onnx_check(const tess_onnx *o);
/* Latches an error whose message is set. */
void tess__onnx_fail(tess_onnx *o, tess_status code);
/* Adds an initializer of data that outlives the writer, or the one of that name; its name. */
const char *tess__onnx_tensor(tess_onnx *o, tess_onnx_tensor t);

/* ---- inputs and outputs of the model ------------------------------------------------------- */

typedef struct tess_onnx_dim {
    int64_t size;
    const char *name; /* of a dimension without a fixed size, or NULL */
} tess_onnx_dim;
const char *tess__onnx_input(tess_onnx *o, const char *name, tess_onnx_type type,
                             const tess_onnx_dim *dims, int n_dims);
/* An input leaf of the graph is this ONNX value. */
void tess__onnx_bind(tess_onnx *o, tess_value leaf, const char *name, tess_onnx_type type);
/* The packed rows' `offsets` leaf: mask (B,L) bool, true for tokens that count, which come before
 * all others; "" when all do. */
void tess__onnx_bind_segments(tess_onnx *o, tess_value leaf, const char *mask);
/* This input's shape begins with the batch, and the length where there are packed rows. */
void tess__onnx_bind_batch(tess_onnx *o, const char *input);
/* Emits what v needs and declares it as an output, f32. */
void tess__onnx_output(tess_onnx *o, tess_value v, const char *name, const tess_onnx_dim *dims,
                       int n_dims);
/* Writes the model, and its weights beside it at path + "_data" where they are external: each file
 * whole or absent. */
TESS_MUST_USE tess_status tess__onnx_save(tess_onnx *o, const char *path);

/* ---- emission ------------------------------------------------------------------------------ */

/* One node of the graph; the function returns the ONNX name of output 0. */
struct tess_onnx_emit {
    tess_onnx *to;
    const tess_operand *in, *out; /* data NULL; rank -1: absent */
    const tess_value *in_values;
    tess_value out_value;
    int n_in;
    const void *attrs;
};
/* The ONNX value of input i; "" when it is absent. */
const char *tess__onnx_in(const tess_onnx_emit *c, int i);
/* Of a matrix, transposed: as a weight of its own where it is a state, else by a node. */
const char *tess__onnx_in_transposed(const tess_onnx_emit *c, int i);
/* Declares that output 0 is state-backed input 0 under another shape; false when it is no state. */
bool tess__onnx_alias_state(const tess_onnx_emit *c);
/* Whether input i comes from an ONNX value of this type (only inputs of the model tell). */
bool tess__onnx_in_is(const tess_onnx_emit *c, int i, tess_onnx_type type);

typedef struct tess_onnx_attr {
    const char *name;
    char kind; /* 'i', 'f', 'I' */
    int64_t i;
    float f;
    int n_ints;
    int64_t ints[TESS_MAX_RANK];
} tess_onnx_attr;
#define TESS_ONNX_I(key, value) ((tess_onnx_attr){.name = (key), .kind = 'i', .i = (value)})
#define TESS_ONNX_F(key, value) ((tess_onnx_attr){.name = (key), .kind = 'f', .f = (value)})
#define TESS_ONNX_INTS(key, ...)                                                                   \
    ((tess_onnx_attr){.name = (key),                                                               \
                      .kind = 'I',                                                                 \
                      .n_ints = (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),         \
                      .ints = {__VA_ARGS__}})

typedef struct tess_onnx_node {
    const char *op;
    const char *in[4]; /* to the first NULL */
    tess_onnx_attr attr[2];
    int n_out; /* 0: one */
} tess_onnx_node;
/* Appends a node; its outputs' names in out[n_out], the first one returned ("" after an error). */
const char *tess__onnx_add(tess_onnx *o, tess_onnx_node n, const char **out);
/* With one output of this very name. */
void tess__onnx_add_named(tess_onnx *o, tess_onnx_node n, const char *name);
/* y = Op(in...) without attributes. */
#define TESS_ONNX(o, op_type, ...)                                                                 \
    tess__onnx_add((o), (tess_onnx_node){.op = (op_type), .in = {__VA_ARGS__}}, NULL)

/* Constants; equal ones are one. */
const char *tess__onnx_float(tess_onnx *o, float x);                    /* () of the float type */
const char *tess__onnx_float32(tess_onnx *o, float x);                  /* () f32 */
const char *tess__onnx_floats(tess_onnx *o, const float *x, int64_t n); /* (n) likewise */
const char *tess__onnx_ints(tess_onnx *o, const int64_t *x, int64_t n); /* (n) i64 */
const char *tess__onnx_int(tess_onnx *o, int64_t x);                    /* () i64 */
#define TESS_ONNX_LIST(o, ...)                                                                     \
    tess__onnx_ints((o), (const int64_t[]){__VA_ARGS__},                                           \
                    (int64_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)))

/* Reshapes x to a shape that may hold symbolic sizes. */
const char *tess__onnx_reshape(tess_onnx *o, const char *x, const tess_shape *shape);
/* Expands x to a shape whose symbolic size, if any, leads. */
const char *tess__onnx_expand(tess_onnx *o, const char *x, const tess_shape *shape);
const char *tess__onnx_concat(tess_onnx *o, const char *a, const char *b, int axis);
const char *tess__onnx_cast(tess_onnx *o, const char *x, tess_onnx_type type);
/* Numbers 0..L-1 i64 (L), where L is dimension `axis` of x. */
const char *tess__onnx_range(tess_onnx *o, const char *x, int axis);
tess_onnx_type tess__onnx_float_type(const tess_onnx *o);
/* (L,L): 0 where column <= row, a large negative number elsewhere; L is dimension 1 of x. */
const char *tess__onnx_causal(tess_onnx *o, const char *x);
/* (B,1,1,L): 0 for tokens that count, a large negative number elsewhere; "" when all do. */
const char *tess__onnx_keys(tess_onnx *o);
/* (B,1) i64: the place of the last token that counts. */
const char *tess__onnx_last(tess_onnx *o);
/* Latches TESS_UNSUPPORTED: this operator, or this use of it, has no ONNX form. */
const char *tess__onnx_refuse(const tess_onnx_emit *c, const char *why);

static inline bool tess__onnx_is_packed(const tess_shape *s)
{
    return s->rank > 0 && s->dim[0] == TESS_ONNX_ROWS;
}

#endif
