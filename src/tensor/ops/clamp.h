/* SPDX-License-Identifier: Apache-2.0 */
/* clamp's attributes, for its kernels on every device. */
#ifndef TESSERA_TENSOR_OPS_CLAMP_H
#define TESSERA_TENSOR_OPS_CLAMP_H

typedef struct clamp_attrs {
    float least, most;
} clamp_attrs;

#endif
