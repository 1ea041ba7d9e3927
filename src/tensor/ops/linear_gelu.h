/* SPDX-License-Identifier: Apache-2.0 */
/* linear_gelu's attributes, for its code on every device. */
#ifndef TESSERA_TENSOR_OPS_LINEAR_GELU_H
#define TESSERA_TENSOR_OPS_LINEAR_GELU_H

#include <stdbool.h>

typedef struct linear_gelu_attrs {
    bool keeps; /* z */
} linear_gelu_attrs;

#endif
