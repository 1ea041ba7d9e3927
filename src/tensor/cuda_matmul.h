/* SPDX-License-Identifier: Apache-2.0 */
/* Matrix products on a CUDA device: matmul.h's specification, and what else an epilogue does,
 * answered by cuBLASLt. */
#ifndef TESSERA_TENSOR_CUDA_MATMUL_H
#define TESSERA_TENSOR_CUDA_MATMUL_H

#include "tensor/cuda.h"
#include "tensor/matmul.h"

/* With z (m,n) = A B + bias:
 *   GELU           C = gelu_tanh(z); `aux`, where it is not NULL, gets z; no residual
 *   GELU_GRAD      C = z * gelu_tanh'(aux); no bias, no residual
 *   SUMS           C as without; sums (m) f32 = the sums over k of A, which is stored (k,m)
 * aux is like C.  The library's own forms are tried for bf16 alone: it computes tanh to 11 bits. */
typedef enum tess_epilogue {
    TESS_EPILOGUE_NONE,
    TESS_EPILOGUE_GELU,
    TESS_EPILOGUE_GELU_GRAD,
    TESS_EPILOGUE_SUMS,
} tess_epilogue;

typedef struct tess_cuda_product {
    tess_matmul_spec matmul; /* `pack`, `single` mean nothing here */
    tess_epilogue epilogue;
    bool aux;    /* GELU: z is wanted */
    bool a_e5m2; /* matmul.in is TESS_F8E4M3, but A is E5M2 */
} tess_cuda_product;

typedef struct tess_cuda_args {
    tess_matmul_args matmul; /* the scratch means nothing here */
    void *aux;
    float *sums;
    const float *a_scale, *b_scale; /* FP8: on the card; C is made of a_scale A and b_scale B */
} tess_cuda_args;

/* Puts the product on the stream.  Every operand begins at a multiple of 16 bytes.  The first
 * product of its specification, which no graph may be recording, chooses its algorithm.  f32
 * operands are multiplied in f32, not in TF32; a bf16 product's bias may be rounded to bf16, as the
 * library documents no other.
 * FP8 (in: TESS_F8E4M3) takes B stored (n,k) and A (m,k), n and k in multiples of 16, and gives
 * bf16 or f32; its sums are kept in f32 throughout (no "fast accumulation").  TESS_DEVICE, with
 * what to install, where cuBLASLt is missing. */
tess_status tess__cuda_product(const tess_cuda_product *p, const tess_cuda_args *x, void *stream);
/* The same without an epilogue. */
tess_status tess__cuda_matmul(const tess_matmul_spec *spec, const tess_matmul_args *args,
                              void *stream);

#endif
