/* SPDX-License-Identifier: Apache-2.0 */
/* Operators that only the fusing of others makes, and the pass that does: for a device where an
 * epilogue of a product costs less than a pass over its result. */
#ifndef TESSERA_TENSOR_FUSE_H
#define TESSERA_TENSOR_FUSE_H

#include "tensor/matmul.h"
#include "tensor/op.h"

/* *g and *output become those of the same computation, in which
 *   linear, unary (gelu_tanh)         are linear_gelu,
 *   project, unary_grad (gelu_tanh)   are project_gelu_grad,
 *   unary_grad, bias_grad             are activation_grad,
 *   outer, bias_grad, accumulate      are outer_add,
 * the first two in bf16 alone.  What is read elsewhere stays as it is.  Nothing happens where the
 * device (NULL: the processor) gains nothing. */
TESS_MUST_USE tess_status tess__graph_fuse(tess_graph **g, tess_value *outputs, int64_t n_outputs,
                                           const tess_device *device);
/* The same on any device. */
TESS_MUST_USE tess_status tess__graph_fuse_all(tess_graph **g, tess_value *outputs,
                                               int64_t n_outputs);

/* ops/linear_gelu.c, ops/activation_grad.c, ops/outer_add.c */
tess_value tess__linear_gelu(tess_graph *g, tess_value x, tess_value w, tess_value bias,
                             bool keeps);
tess_value tess__project_gelu_grad(tess_graph *g, tess_value dy, tess_value w, tess_value z);
tess_value tess__activation_grad(tess_graph *g, tess_value z, tess_value dy, tess_unary_kind kind);
void tess__outer_add(tess_graph *g, tess_value sum, tess_value a, tess_value b, tess_value sums);

tess_matmul_spec tess__linear_gelu_spec(const tess_operand *in);
tess_matmul_spec tess__outer_add_spec(const tess_operand *in);

#endif
