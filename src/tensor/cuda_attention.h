/* SPDX-License-Identifier: Apache-2.0 */
/* Attention on a CUDA device: our kernels or cuDNN's, whichever is faster for its shapes. */
#ifndef TESSERA_TENSOR_CUDA_ATTENTION_H
#define TESSERA_TENSOR_CUDA_ATTENTION_H

#include "tensor/cuda.h"

/* Puts the whole operator on the stream with our kernels; its scratch is (heads, rows of q) f32 for
 * the gradient and none forward. */
typedef tess_status tess_own_attention(const tess_exec *e);

/* sdpa or its gradient.  The first run of its shapes, which no graph may be recording, times both
 * and keeps the faster, on disk too (cuda_cache.h).  Where cuDNN does not serve them, ours runs:
 * rows that are not bf16, packed segments, heads that are no multiple of 8 or above 128. */
tess_status tess__cuda_attention(const tess_exec *e, bool grad, tess_own_attention *own);
size_t tess__cuda_attention_scratch(const tess_prepare *c, bool grad);

/* For tests: which one runs where both can, from the next plan on. */
typedef enum tess_attention_use {
    TESS_ATTENTION_FASTER,
    TESS_ATTENTION_OURS,
    TESS_ATTENTION_CUDNN,
} tess_attention_use;
void tess__cuda_attention_use(tess_attention_use use);

#endif
