/* SPDX-License-Identifier: Apache-2.0 */
/* What ranks send while they compute: see overlap.c. */
#ifndef TESSERA_TENSOR_OVERLAP_H
#define TESSERA_TENSOR_OVERLAP_H

#include "tensor/graph.h"

/* *g and *out become those of the same computation, in which shards are gathered ahead of their use
 * and gradients reduced behind the work that comes next, each with at most `cap` bytes on their
 * way. */
TESS_MUST_USE tess_status tess__graph_overlap(tess_graph **g, tess_value *out, int64_t n_out,
                                              size_t cap);

/* ops/shard_gather.c.  Whether a node is of that kind, and how many bytes it has on their way. */
bool tess__shard_gathers(const tess_graph *g, const tess_node *n);
bool tess__shard_reduces(const tess_graph *g, const tess_node *n);
size_t tess__shard_bytes(const tess_graph *g, const tess_node *n);
/* The beginning of what node `like` does to x, and its end: what it would have given. */
tess_value tess__shard_begin(tess_graph *g, const tess_node *like, tess_value x);
tess_value tess__shard_end(tess_graph *g, const tess_node *like, tess_value x, tess_value begun);

#endif
