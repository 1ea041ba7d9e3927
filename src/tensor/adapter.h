/* SPDX-License-Identifier: Apache-2.0 */
/* Low-rank adapters inside linear and project; see tess_graph_adapt. */
#ifndef TESSERA_TENSOR_ADAPTER_H
#define TESSERA_TENSOR_ADAPTER_H

#include "tessera/tensor.h"

/* The row for weight w, which is a state of group "param" or its cast; NULL: none, and always NULL
 * in a gradient. */
const tess_adapted *tess__adapted_find(const tess_graph *g, tess_value w);
/* (x A^T) B'^T + residual (...,M) or 0. */
tess_value tess__adapted_sum(tess_graph *g, const tess_adapted *a, tess_value x, tess_value w,
                             tess_value residual);
/* w, or where w is the cast of a leaf, another cast of it: a frozen weight then need not be kept in
 * its cast form from the forward to the backward pass, which costs more memory than the cast costs
 * time. */
tess_value tess__cast_again(tess_graph *g, tess_value w);

#endif
