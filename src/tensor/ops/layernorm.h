/* SPDX-License-Identifier: Apache-2.0 */
/* layernorm's attributes, for its kernels on every device. */
#ifndef TESSERA_TENSOR_OPS_LAYERNORM_H
#define TESSERA_TENSOR_OPS_LAYERNORM_H

typedef struct layernorm_attrs {
    float eps;
} layernorm_attrs;

#endif
