/* SPDX-License-Identifier: Apache-2.0 */
/* Between the CUDA device and its operators.
 *
 * A launcher puts an operator's work on the device's queue (tess_exec's stream) and returns; all
 * pointers in tess_exec are the device's, but attrs, which are the host's.  It neither allocates
 * nor waits, so that a plan's launches can be captured as a CUDA graph and replayed: what changes
 * from step to step is read by the kernels from device memory. */
#ifndef TESSERA_TENSOR_CUDA_H
#define TESSERA_TENSOR_CUDA_H

#include "tensor/op.h"

typedef struct tess_cuda_op {
    const char *name; /* of the tess_op */
    tess_status (*launch)(const tess_exec *e);
    size_t (*scratch)(const tess_prepare *c); /* NULL: none */
} tess_cuda_op;

#define TESS_CUDA(op) tess_status tess__cuda_##op(const tess_exec *e);
#define TESS_CUDA_SCRATCH(op)                                                                      \
    tess_status tess__cuda_##op(const tess_exec *e);                                               \
    size_t tess__cuda_##op##_scratch(const tess_prepare *c);
#include "tensor/cuda.def"
#undef TESS_CUDA
#undef TESS_CUDA_SCRATCH

/* The operator's row; NULL: it has none. */
const tess_cuda_op *tess__cuda_find(const tess_op *op);
/* TESS_OK, or the last launch's error as TESS_DEVICE. */
tess_status tess__cuda_launched(const char *what);

/* As tess_compute_deterministic was told. */
bool tess__is_deterministic(void);

tess_status tess__cuda_zero(void *x, size_t n_bytes, void *stream);
/* sum (width) = the rows of x (n,width), f32, added in a fixed order.  In the stream's order. */
void tess__cuda_sum_rows(float *sum, const float *x, int64_t n, int64_t width, void *stream);
/* The same of any rows x (n,width) f32 or bf16, the beginnings of which are `stride` elements
 * apart; scratch: so many bytes. */
size_t tess__cuda_column_sum_scratch(int64_t n, int64_t width);
void tess__cuda_column_sum(float *sum, tess_dtype dtype, const void *x, int64_t n, int64_t width,
                           int64_t stride, float *scratch, void *stream);

#endif
