/* SPDX-License-Identifier: Apache-2.0 */
/* slice_rows's attributes, for its kernels on every device. */
#ifndef TESSERA_TENSOR_OPS_SLICE_ROWS_H
#define TESSERA_TENSOR_OPS_SLICE_ROWS_H

#include <stdint.h>

typedef struct slice_attrs {
    int64_t begin, n;
} slice_attrs;

typedef struct slice_grad_attrs {
    int64_t begin, n_rows; /* of x */
} slice_grad_attrs;

#endif
