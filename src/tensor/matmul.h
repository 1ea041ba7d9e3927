/* SPDX-License-Identifier: Apache-2.0 */
/* Matrix products: the one door to oneDNN, and to the engine's own kernel where that is faster.
 *
 *   C (m,n) = act(A (m,k) B (k,n) + bias (n)) + residual (m,n), or C += A B.
 *
 * A product is set up once for its shapes and run often, without allocating.  Runs of one object
 * must not overlap.
 *
 * Two runs give the same bytes.  With bf16 operands on AVX-512 BF16 they are also the same for any
 * number of threads; in f32 the library splits some long sums by its threads, so there the bytes
 * hold for one number of threads (a `single` product has one). */
#ifndef TESSERA_TENSOR_MATMUL_H
#define TESSERA_TENSOR_MATMUL_H

#include "tessera/tensor.h"

typedef struct tess_matmul_spec {
    int64_t m, n, k;
    tess_dtype in, out;    /* of A and B; of C and residual: f32 or like in */
    bool a_trans, b_trans; /* A is stored (k,m); B is stored (n,k) */
    bool pack;             /* B is small against A: put it into the library's layout in each run */
    bool bias;             /* f32 */
    bool relu, residual;
    bool accumulate; /* C += A B; f32 out, and none of the three above */
    bool single;     /* on the thread that runs it, for callers that run several at once */
} tess_matmul_spec;

typedef struct tess_matmul tess_matmul;
TESS_MUST_USE tess_status tess__matmul_new(const tess_matmul_spec *spec, tess_matmul **out);
void tess__matmul_free(void *m);
/* What a run needs of 64-byte aligned scratch. */
size_t tess__matmul_scratch(const tess_matmul *m);
typedef struct tess_matmul_args {
    const void *a, *b, *residual;
    const float *bias;
    void *c, *scratch;
} tess_matmul_args;
TESS_MUST_USE tess_status tess__matmul_run(tess_matmul *m, const tess_matmul_args *a);

/* oneDNN's version as "2.6.3". */
const char *tess__matmul_version(void);

#endif
