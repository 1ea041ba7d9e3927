/* SPDX-License-Identifier: Apache-2.0 */
/* Products for gradients, and what passes ask of products. */
#ifndef TESSERA_TENSOR_PRODUCTS_H
#define TESSERA_TENSOR_PRODUCTS_H

#include "tensor/matmul.h"
#include "tensor/op.h"

/* ops/outer.c: c (M,K) f32 = sum over rows of a (...,M)^T b (...,K): the gradient of a weight. */
tess_value tess__outer(tess_graph *g, tess_value a, tess_value b);

/* ops/linear.c: (M) f32 = the sum over rows of dy (...,M). */
tess_value tess__bias_grad(tess_graph *g, tess_value dy);
/* ops/linear_fp8.c: tess_graph_fp8's product, and whether it is one. */
tess_value tess__linear_fp8(tess_graph *g, tess_value x, tess_value w, tess_value bias,
                            tess_value residual);
bool tess__linear_is_fp8(const tess_graph *g, tess_value x, tess_value w);
void tess__linear_fp8_free(void *prepared);

/* The product that an operator is, from its inputs. */
tess_matmul_spec tess__linear_spec(const tess_operand *in, const void *attrs);
tess_matmul_spec tess__project_spec(const tess_operand *in);
tess_matmul_spec tess__outer_spec(const tess_operand *in);

/* What the attributes of a linear and of a unary say. */
bool tess__linear_relu(const void *attrs);
tess_unary_kind tess__unary_kind_of(const void *attrs);

#endif
