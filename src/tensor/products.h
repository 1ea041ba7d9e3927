/* SPDX-License-Identifier: Apache-2.0 */
/* Products for gradients, and what passes ask of products. */
#ifndef TESSERA_TENSOR_PRODUCTS_H
#define TESSERA_TENSOR_PRODUCTS_H

#include "tessera/tensor.h"

/* ops/outer.c: c (M,K) f32 = sum over rows of a (...,M)^T b (...,K): the gradient of a weight. */
tess_value tess__outer(tess_graph *g, tess_value a, tess_value b);

/* What the attributes of a linear and of a unary say. */
bool tess__linear_relu(const void *attrs);
tess_unary_kind tess__unary_kind_of(const void *attrs);

#endif
