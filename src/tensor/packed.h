/* SPDX-License-Identifier: Apache-2.0 */
/* Weights of a linear layer, packed once for inference.
 *
 * W (N,K) is cut into panels of TESS_PANEL rows (columns of the product).  A panel is
 * (groups, TESS_PANEL, in a group) with 32-bit groups along k: one f32, two bf16 or four bytes;
 * rows and k beyond the end are zeros.  The layout is the same for every instruction set, so that a
 * file of packed weights serves any machine.
 *
 * i8: w = scale[n] q, |q| <= 127, scale[n] = max |w[n]| / 127; sum[n] is the sum of q[n], which
 * corrects for the zero point of the activations. */
#ifndef TESSERA_TENSOR_PACKED_H
#define TESSERA_TENSOR_PACKED_H

#include "tensor/kernels.h"
#include "tensor/op.h"

#define TESS_PACKED_MAX_K 65536 /* 255 * 127 * k stays below 2^31 */

typedef struct tess_packed {
    tess_dtype kind; /* TESS_F32, TESS_BF16 or TESS_I8 */
    int64_t n, k;
    const void *panels;
    const float *scale; /* (panels, TESS_PANEL), i8 only */
    const int32_t *sum; /* likewise */
    void *owned;        /* the one block of all three; NULL: they lie in a mapped file */
} tess_packed;

int64_t tess__packed_n_panels(int64_t n);
int64_t tess__packed_groups(tess_dtype kind, int64_t k);
size_t tess__packed_panel_bytes(tess_dtype kind, int64_t n, int64_t k);
/* w is (n,k), or with `transposed` (k,n).  A weight that is not finite is refused. */
TESS_MUST_USE tess_status tess__packed_make(tess_dtype kind, const float *w, int64_t n, int64_t k,
                                            bool transposed, tess_packed *out);
void tess__packed_deinit(tess_packed *p);

/* y (...,N) = act(x (...,K) W^T + bias) + residual, like tess_linear; for inference: no gradient.
 * w must outlive every plan of the graph.  act TESS_UNARY_COUNT: none. */
typedef struct tess_packed_options {
    tess_value bias, residual;
    tess_unary_kind act;
} tess_packed_options;
tess_value tess__packed_linear(tess_graph *g, tess_value x, const tess_packed *w,
                               tess_packed_options o);

#endif
