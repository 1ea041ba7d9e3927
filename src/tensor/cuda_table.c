/* SPDX-License-Identifier: Apache-2.0 */
/* The table of operators that a CUDA device runs, from cuda.def. */
#include "tensor/cuda.h"

#include <string.h>

#define TESS_CUDA(op)         {.name = #op, .launch = tess__cuda_##op},
#define TESS_CUDA_SCRATCH(op) {#op, tess__cuda_##op, tess__cuda_##op##_scratch},
static const tess_cuda_op ops[] = {
#include "tensor/cuda.def"
};

const tess_cuda_op *tess__cuda_find(const tess_op *op)
{
    for (int64_t i = 0; i < TESS_COUNT(ops); i++) {
        if (strcmp(ops[i].name, op->name) == 0) {
            return &ops[i];
        }
    }
    return NULL;
}
