/* SPDX-License-Identifier: Apache-2.0 */
/* Lowering for inference: products with a stored weight become products with packed weights. */
#ifndef TESSERA_TENSOR_LOWER_H
#define TESSERA_TENSOR_LOWER_H

#include "tensor/packed.h"

/* A product with a parameter: W is the state `name` (n,k), or transposed (k,n). */
typedef struct tess_product {
    const char *name;
    int64_t n, k;
    bool transposed;
} tess_product;

/* The packed weights for a product; *out stays NULL to leave the product as it is. */
typedef tess_status tess_find_packed(void *ctx, const tess_product *product,
                                     const tess_packed **out);

/* A new graph that computes `output`, with nothing that it does not need: each linear or project
 * whose weight is a state of group "param" (under casts and reshapes) becomes a packed_linear,
 * together with the activation that alone reads it.  Weights that are packed everywhere are no
 * states of the new graph. */
TESS_MUST_USE tess_status tess__graph_lower(const tess_graph *g, tess_value output,
                                            tess_find_packed *find, void *ctx, tess_graph **out,
                                            tess_value *out_value);

/* *g and *output become those of the same computation, in which what only a pooling to one row of
 * each segment (first, last) wants is computed at those rows alone. */
TESS_MUST_USE tess_status tess__graph_pool_early(tess_graph **g, tess_value *output);
bool tess__pool_is_one_row(const void *attrs); /* of a pool */

#endif
