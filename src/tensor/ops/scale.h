/* SPDX-License-Identifier: Apache-2.0 */
/* scale's attributes, for its kernels on every device. */
#ifndef TESSERA_TENSOR_OPS_SCALE_H
#define TESSERA_TENSOR_OPS_SCALE_H

typedef struct scale_attrs {
    float factor;
} scale_attrs;

#endif
