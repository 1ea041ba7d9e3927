/* SPDX-License-Identifier: Apache-2.0 */
/* The pre-norm transformer block that both towers are made of, with OpenCLIP's parameter names. */
#ifndef TESSERA_TENSOR_BLOCK_H
#define TESSERA_TENSOR_BLOCK_H

#include "tensor/op.h"

typedef struct tess_block_config {
    int64_t width, heads, hidden;
    tess_unary_kind act;
    bool causal;
    float eps;
    tess_dtype dtype;   /* of activations and matrix operands; parameters are f32 leaves */
    tess_value offsets; /* segments of packed rows; 0: x is (B,T,C) */
    int64_t max_segment;
    bool recompute; /* whole blocks are computed again for the backward pass */
} tess_block_config;

/* "name" scope: parameters name.weight, name.bias (C). */
tess_value tess__layernorm(tess_graph *g, const char *name, tess_value x, float eps);
/* y = act(x W^T + bias) + residual; parameters name.weight (out,in), name.bias (out). */
tess_value tess__linear(tess_graph *g, const char *name, tess_value x, int64_t out_width,
                        tess_linear_options o);
/* The weight leaf `name` in the current scope, cast to dtype. */
tess_value tess__weight(tess_graph *g, const char *name, tess_shape shape, tess_dtype dtype);
/* The same for a table whose rows are made dtype when they are read: it is not cast itself. */
tess_value tess__table(tess_graph *g, const char *name, tess_shape shape, tess_dtype dtype);
/* `layers` blocks under the scopes resblocks.0, resblocks.1, ...; x (B,T,C) or (N,C). */
tess_value tess__transformer(tess_graph *g, const tess_block_config *c, int64_t layers,
                             tess_value x);

/* The activation of that name; TESS_UNSUPPORTED with the list of known ones. */
TESS_MUST_USE tess_status tess__unary_find(const char *name, const char *where,
                                           tess_unary_kind *out);

#endif
