/* SPDX-License-Identifier: Apache-2.0 */
/* adam_time's operands and attributes, for its kernels on every device. */
#ifndef TESSERA_TENSOR_OPS_ADAM_TIME_H
#define TESSERA_TENSOR_OPS_ADAM_TIME_H

#include "tensor/optimizer.h"

typedef struct adam_time_attrs {
    float beta1, beta2;
} adam_time_attrs;

enum { ADAM_TIME_IN_RATES, ADAM_TIME_IN_SKIPPED, ADAM_TIME_IN_SUMSQ };
enum { ADAM_TIME_LR, ADAM_TIME_STEP, ADAM_TIME_SCALE, ADAM_TIME_RATES };

#endif
