/* SPDX-License-Identifier: Apache-2.0 */
/* The one door to cuBLASLt, which is opened when the first product runs: the program starts, and
 * runs on processors, where it is not installed.
 *
 * A product is a specification of cuda_matmul.h with what the library needs for it.  There may be
 * two ways to a product: by an epilogue of the library's, or plainly with our own kernels beside
 * it; and three forms of a bias.  cuda_choice.c finds the fastest. */
#ifndef TESSERA_TENSOR_CUDA_LT_H
#define TESSERA_TENSOR_CUDA_LT_H

#include <cublasLt.h>

#include "tensor/cuda_matmul.h"

#define TESS_LT_WORKSPACE_BYTES (32 << 20) /* what NVIDIA advises for Hopper */

#define TESS_LT_FUNCTIONS(X)                                                                       \
    X(cublasLtCreate)                                                                              \
    X(cublasLtGetVersion)                                                                          \
    X(cublasLtGetStatusString)                                                                     \
    X(cublasLtMatmul)                                                                              \
    X(cublasLtMatmulAlgoCheck)                                                                     \
    X(cublasLtMatmulAlgoGetHeuristic)                                                              \
    X(cublasLtMatmulDescCreate)                                                                    \
    X(cublasLtMatmulDescDestroy)                                                                   \
    X(cublasLtMatmulDescSetAttribute)                                                              \
    X(cublasLtMatmulPreferenceCreate)                                                              \
    X(cublasLtMatmulPreferenceDestroy)                                                             \
    X(cublasLtMatmulPreferenceSetAttribute)                                                        \
    X(cublasLtMatrixLayoutCreate)                                                                  \
    X(cublasLtMatrixLayoutDestroy)

typedef struct tess_lt {
#define TESS_LT_MEMBER(name) __typeof__(&name) name;
    TESS_LT_FUNCTIONS(TESS_LT_MEMBER)
#undef TESS_LT_MEMBER
    cublasLtHandle_t handle;
    void *workspace; /* TESS_LT_WORKSPACE_BYTES; our own kernels use it between products */
} tess_lt;
extern tess_lt tess__lt;

/* TESS_DEVICE, with what to install, where the library is missing or too old. */
tess_status tess__lt_open(void);
/* What algorithms depend on, in words: the card, its driver, the library's version. */
tess_status tess__lt_place(tess_buf *out);
tess_status tess__lt_check(cublasStatus_t s, const char *what);
tess_status tess__lt_check_cuda(cudaError_t e, const char *what);

/* ---- a product -------------------------------------------------------------------------------
 */

typedef enum tess_lt_bias {
    TESS_LT_BIAS_F32,  /* as it is; the library documents this for f32 results alone */
    TESS_LT_BIAS_BF16, /* rounded first, as the weight is */
    TESS_LT_BIAS_OWN,  /* by a kernel of ours, on the rounded result */
    TESS_LT_BIAS_FORMS,
} tess_lt_bias;

typedef struct tess_lt_way {
    bool fused; /* the specification's epilogue is the library's */
    tess_lt_bias bias;
} tess_lt_way;

typedef struct tess_lt_product {
    tess_cuda_product spec;
    tess_lt_way way;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, c; /* the library's: a is our B, b our A */
    cublasLtMatmulAlgo_t algo;
    void *narrow_bias; /* on the card, for TESS_LT_BIAS_BF16 */
} tess_lt_product;

/* Descriptors for p's way; false where the way is not for this specification. */
bool tess__lt_way_exists(const tess_cuda_product *spec, tess_lt_way way);
tess_status tess__lt_describe(tess_lt_product *p, const tess_cuda_args *x);
void tess__lt_product_free(tess_lt_product *p);
/* The product and our own kernels of its way; the result goes to `to` in place of x->c. */
tess_status tess__lt_run(tess_lt_product *p, const cublasLtMatmulAlgo_t *algo,
                         const tess_cuda_args *x, void *to, void *stream);
/* Way and algorithm: from the file of earlier choices, or measured on the operands and kept. */
tess_status tess__lt_choose(tess_lt_product *p, const tess_cuda_args *x, void *stream);

#endif
