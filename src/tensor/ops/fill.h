/* SPDX-License-Identifier: Apache-2.0 */
/* fill's attributes, for its kernels on every device. */
#ifndef TESSERA_TENSOR_OPS_FILL_H
#define TESSERA_TENSOR_OPS_FILL_H

#include "tessera/tensor.h"

typedef struct fill_attrs {
    tess_dtype dtype;
    tess_shape shape;
    float value;
} fill_attrs;

#endif
