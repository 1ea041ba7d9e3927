/* SPDX-License-Identifier: Apache-2.0 */
/* The product that only gradients need; its operator is ops/outer.c. */
#ifndef TESSERA_TENSOR_PRODUCTS_H
#define TESSERA_TENSOR_PRODUCTS_H

#include "tessera/tensor.h"

/* c (M,K) f32 = sum over rows of a (...,M)^T b (...,K): the gradient of a weight. */
tess_value tess__outer(tess_graph *g, tess_value a, tess_value b);

#endif
