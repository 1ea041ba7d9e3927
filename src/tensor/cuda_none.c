/* SPDX-License-Identifier: Apache-2.0 */
/* In place of the CUDA device where the program is built without nvcc. */
#include "tensor/cuda.h"

tess_status tess_device_cuda(const tess_device **out)
{
    *out = NULL;
    return TESS_FAIL(TESS_UNSUPPORTED, "this program was built without CUDA: build it where nvcc "
                                       "is, or use --device cpu");
}

const tess_cuda_op *tess__cuda_find(const tess_op *op)
{
    (void)op;
    return NULL;
}
