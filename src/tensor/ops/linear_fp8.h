/* SPDX-License-Identifier: Apache-2.0 */
/* What the processor's and the card's code of linear_fp8 share. */
#ifndef TESSERA_TENSOR_OPS_LINEAR_FP8_H
#define TESSERA_TENSOR_OPS_LINEAR_FP8_H

#include <stdbool.h>

/* Of linear_fp8_grad: which of its results are wanted; the other is empty. */
typedef struct linear_fp8_grad_attrs {
    bool dx, dw;
} linear_fp8_grad_attrs;

#endif
