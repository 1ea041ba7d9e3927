/* SPDX-License-Identifier: Apache-2.0 */
/* sdpa's attributes and geometry, for its kernels on every device. */
#ifndef TESSERA_TENSOR_OPS_SDPA_H
#define TESSERA_TENSOR_OPS_SDPA_H

#include "tensor/op.h"

typedef struct sdpa_attrs {
    int64_t heads, max_segment;
    bool causal;
} sdpa_attrs;

/* The gradient reads all of them; y only where that is cheaper than to sum P dP. */
enum { SDPA_QKV, SDPA_OFFSETS, SDPA_KV, SDPA_LSE, SDPA_DY, SDPA_Y };

typedef struct sdpa_geometry {
    int64_t heads, head_dim, width; /* C */
    int64_t n_q, n_k;               /* rows in all */
    int64_t n_segments;
    int64_t max_q, max_k;  /* longest segment */
    int64_t q_row, kv_row; /* elements between rows */
    int64_t k_at, v_at;    /* elements into a row of k and v */
    bool cross, packed, causal;
    float scale;
} sdpa_geometry;

sdpa_geometry tess__sdpa_describe(const tess_operand *in, const sdpa_attrs *a);

#endif
