/* SPDX-License-Identifier: Apache-2.0 */
/* What an operator is.  One operator = one stem (ops/foo.c) + one line (ops.def): the stem holds
 * its contract, shape inference, gradient, CPU code, reference and test cases; nothing about it
 * exists elsewhere.  Operators that only serve a gradient live in the same stem and hang on
 * `extra`. */
#ifndef TESSERA_TENSOR_OP_H
#define TESSERA_TENSOR_OP_H

#include "tessera/tensor.h"

#define TESS_MAX_IN  8
#define TESS_MAX_OUT 4

typedef struct tess_operand {
    void *data;
    tess_dtype dtype;
    tess_shape shape;
} tess_operand;

/* Shape inference: reads in[] (data NULL) and attrs, fills out[].  On a mismatch it returns
 * TESS_FAIL(TESS_INVALID, "what was expected, what was found"); the graph adds the module path.
 * in[i].shape.rank is -1 for an absent optional input. */
typedef struct tess_infer {
    const tess_operand *in;
    int n_in;
    const void *attrs;
    tess_operand *out;
} tess_infer;

/* Gradient: given values of inputs, outputs and output cotangents (0: none), appends nodes and sets
 * din[i] for inputs with need[i].  Builders may be called freely; errors latch in g.
 * sum[i] is what input i has gathered from later nodes (0: nothing yet), to which din[i] is added;
 * a rule that can add in the same pass makes din[i] the whole and sets sum[i] to 0. */
typedef struct tess_vjp {
    tess_graph *g;
    const tess_value *in, *out, *dout;
    const bool *need;
    int n_in;
    const void *attrs;
    tess_value *din, *sum;
} tess_vjp;

/* One execution.  `prepared` is what prepare made; `scratch` has the bytes it asked for (64-byte
 * aligned, contents undefined). Optional inputs that are absent have data NULL, shape.rank -1. */
typedef struct tess_exec {
    const tess_operand *in;
    const tess_operand *out;
    int n_in;
    const void *attrs;
    void *prepared;
    void *scratch;
    void *stream;      /* a CUDA device's queue */
    tess_pager *pager; /* of the states, for operators that page; NULL: all are in memory */
} tess_exec;

typedef struct tess_prepare {
    const tess_operand *in, *out; /* data NULL */
    int n_in;
    const void *attrs;
    void *prepared;       /* out; freed with op->unprepare at plan free */
    size_t scratch_bytes; /* out */
} tess_prepare;

/* A test case: builds the operator on n_in inputs.  The driver fills inputs, runs the CPU code in
 * every instruction set, compares with `ref`, checks the gradient numerically, sentinels around
 * every buffer, allowed aliasing and run-twice equality. */
typedef enum tess_fill {
    TESS_FILL_NORMAL,   /* standard normal, rounded to the dtype */
    TESS_FILL_UNIT,     /* rows of unit length */
    TESS_FILL_INDEX,    /* i32 in 0..limit-1 */
    TESS_FILL_OFFSETS,  /* i32 ascending from 0 to limit, random segment lengths (may be empty) */
    TESS_FILL_BYTES,    /* u8 */
    TESS_FILL_POSITIVE, /* uniform in 0.5..1.5 */
} tess_fill;
typedef struct tess_case_input {
    tess_dtype dtype;
    tess_shape shape;
    tess_fill fill;
    int64_t limit;
    bool no_grad; /* not differentiated */
} tess_case_input;
typedef struct tess_case {
    const char *name;
    int n_in;
    tess_case_input in[TESS_MAX_IN];
    tess_value (*build)(tess_graph *g, const tess_value *in);
    int64_t reduction;  /* length of the longest sum, for the derived tolerance */
    bool on_processors; /* a form that CUDA devices do not have */
    /* Writes inputs that must agree with each other, after all are filled; NULL: nothing to. */
    void (*set)(const tess_operand *in);
} tess_case;

typedef enum tess_op_flags {
    TESS_OP_EFFECT = 1,  /* writes state: always part of a plan, outputs none */
    TESS_OP_VIEW = 2,    /* output 0 is input 0 under another shape: no code, no memory */
    TESS_OP_LEAF = 4,    /* input or state: bound, not computed */
    TESS_OP_ROUNDS = 8,  /* bf16: rounds to bf16 within too, what a product multiplies next */
    TESS_OP_CHEAP = 16,  /* one pass over memory: may be computed again rather than kept */
    TESS_OP_MEETS = 32,  /* waits for other ranks; on a device by way of the host's memory */
    TESS_OP_AGAIN = 64,  /* made again for the backward pass, wherever it stands */
    TESS_OP_PAGES = 128, /* may be given whole groups that are paged: asks for pieces itself */
} tess_op_flags;

/* The operator's ONNX form; tensor/onnx.h.  Returns the name of output 0. */
typedef struct tess_onnx_emit tess_onnx_emit;

typedef struct tess_op tess_op;
struct tess_op {
    const char *name;
    int n_in_min, n_in_max, n_out;
    size_t attrs_bytes;
    unsigned flags;
    unsigned alias_mask; /* bit i: output 0 may share memory with input i when it dies here */
    unsigned state_mask; /* bit i: input i is written (effects) */
    tess_status (*infer)(tess_infer *c);
    void (*vjp)(tess_vjp *c); /* NULL: not differentiable */
    tess_status (*prepare)(tess_prepare *c);
    void (*unprepare)(void *prepared);
    tess_status (*cpu)(const tess_exec *e);
    tess_status (*ref)(const tess_exec *e); /* naive f64 loops; f32 operands only */
    double (*flops)(const tess_operand *in, const tess_operand *out, const void *attrs);
    void (*print)(const void *attrs, tess_buf *out);
    const char *(*onnx)(const tess_onnx_emit *c); /* NULL: no part of an exported forward graph */
    const tess_op *const *extra; /* NULL-terminated: gradient operators of this stem */
    const tess_case *cases;
    int n_cases;
};

/* The table, from ops.def. */
extern const tess_op *const tess__ops[];
extern const int tess__n_ops;
#define TESS_OP(name) extern const tess_op tess__op_##name;
#include "tensor/ops.def"
#undef TESS_OP

/* Appends a node; returns its first output (output k is the returned value + k), 0 once the graph
 * has failed.  attrs are copied.  in[i] may be 0 for an optional input. */
tess_value tess__node_add(tess_graph *g, const tess_op *op, const void *attrs, const tess_value *in,
                          int n_in);
#define TESS_NODE(g, op, attrs, ...)                                                               \
    tess__node_add((g), (op), (attrs), (const tess_value[]){__VA_ARGS__},                          \
                   (int)(sizeof((tess_value[]){__VA_ARGS__}) / sizeof(tess_value)))
/* A tensor of one value: the cotangent of a scalar. */
tess_value tess__fill(tess_graph *g, tess_dtype dtype, tess_shape shape, float value);
/* Latches an error found by a builder before it could add a node. */
void tess__graph_fail(tess_graph *g, tess_status code);

/* A state's data and the shape of its leaf; NULL: no such entry. */
void *tess__store_leaf(const tess_store *s, const char *group, const char *name,
                       tess_shape *out_shape);

/* ops/shard_gather.c: x, this rank's range of a tensor of `shape`, whole; or x, which is whole
 * already.  The gradient of both is this rank's range of the sum over ranks, of type `wire`. */
tess_value tess__shard_gather(tess_graph *g, tess_comm *comm, tess_value x, tess_shape shape,
                              tess_dtype wire);
tess_value tess__shard_whole(tess_graph *g, tess_comm *comm, tess_value x, tess_dtype wire);

/* Shape helpers for operators: rows = product of all but the last dimension. */
int64_t tess__rows(const tess_shape *s);
int64_t tess__last(const tess_shape *s);
/* "expected x (N,192) bf16 like y, found ..." in one call: fails unless dtype and shape agree. */
tess_status tess__expect_like(const char *what, const tess_operand *x, const tess_operand *like);
/* An activation in double, for references. */
double tess__unary_value(tess_unary_kind k, double x);
tess_status tess__expect(const char *what, const tess_operand *x, tess_dtype dtype, int rank);

#endif
