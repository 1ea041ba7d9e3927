/* SPDX-License-Identifier: Apache-2.0 */
/* pool's attributes, for its kernels on every device. */
#ifndef TESSERA_TENSOR_OPS_POOL_H
#define TESSERA_TENSOR_OPS_POOL_H

#include "tessera/tensor.h"

typedef struct pool_attrs {
    tess_pool_kind kind;
    tess_shape shape; /* of x, for the gradient */
} pool_attrs;

#endif
