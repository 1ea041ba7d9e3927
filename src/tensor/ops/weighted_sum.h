/* SPDX-License-Identifier: Apache-2.0 */
/* weighted_sum's attributes, for its kernels on every device. */
#ifndef TESSERA_TENSOR_OPS_WEIGHTED_SUM_H
#define TESSERA_TENSOR_OPS_WEIGHTED_SUM_H

#include "tensor/op.h"

typedef struct sum_attrs {
    float weight[TESS_MAX_IN];
} sum_attrs;

#endif
