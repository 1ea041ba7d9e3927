/* SPDX-License-Identifier: Apache-2.0 */
/* Matrix products on a CUDA device: matmul.h's specification, answered by cuBLASLt. */
#ifndef TESSERA_TENSOR_CUDA_MATMUL_H
#define TESSERA_TENSOR_CUDA_MATMUL_H

#include "tensor/cuda.h"
#include "tensor/matmul.h"

/* Puts the product on the stream; `pack`, `single` and the scratch mean nothing here.  The first
 * product of its shapes, which no graph may be recording, chooses its algorithm.  f32 operands are
 * multiplied in f32, not in TF32.  TESS_DEVICE, with what to install, where cuBLASLt is missing. */
tess_status tess__cuda_matmul(const tess_matmul_spec *spec, const tess_matmul_args *args,
                              void *stream);

#endif
