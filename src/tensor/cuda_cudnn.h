/* SPDX-License-Identifier: Apache-2.0 */
/* Attention over dense segments by cuDNN's graphs: bf16 rows, all segments of one length. */
#ifndef TESSERA_TENSOR_CUDA_CUDNN_H
#define TESSERA_TENSOR_CUDA_CUDNN_H

#include "tensor/attention_graph.h"

/* Device memory.  Rows are bf16 and start at multiples of 16 bytes; dq has q's distance between
 * rows, dk and dv have k's.  lse and delta: (heads, n_segments n_q) f32. */
typedef struct tess_cudnn_args {
    const void *q, *k, *v;
    void *y;        /* the gradient reads it */
    float *lse;     /* likewise */
    const void *dy; /* the gradient's, with all below */
    void *dq, *dk, *dv;
    float *delta;
    void *workspace; /* tess__cudnn_workspace bytes, 256-byte aligned */
} tess_cudnn_args;

typedef struct tess_cudnn_plan tess_cudnn_plan;

/* The plan for these shapes: an operation graph, cuDNN's first engine for it that repeats bit for
 * bit, compiled.  Made once a process and shape (a second or so) and never freed.  NULL: cuDNN is
 * not installed, too old, has no engine, or memory gave out, each for good; why is logged. */
tess_cudnn_plan *tess__cudnn_plan(const tess_attention_spec *spec);
size_t tess__cudnn_workspace(const tess_cudnn_plan *p);
/* Opens the library; 0: it does not open, or is too old. */
size_t tess__cudnn_version(void);
/* Puts it on the stream; neither allocates nor waits.  The first run of a plan loads its kernels,
 * so no graph may be recording it.  TESS_DEVICE. */
tess_status tess__cudnn_run(const tess_cudnn_plan *p, const tess_cudnn_args *args, void *stream);

#endif
