/* SPDX-License-Identifier: Apache-2.0 */
/* unary's attributes, for its kernels on every device. */
#ifndef TESSERA_TENSOR_OPS_UNARY_H
#define TESSERA_TENSOR_OPS_UNARY_H

#include "tessera/tensor.h"

typedef struct unary_attrs {
    tess_unary_kind kind;
} unary_attrs;

#endif
