/* SPDX-License-Identifier: Apache-2.0 */
/* Patch dropout (FLIP: Li et al. 2023): a step sees some of a picture's patches, chosen anew for
 * each place in the run. */
#ifndef TESSERA_VISION_PATCH_DROPOUT_H
#define TESSERA_VISION_PATCH_DROPOUT_H

#include "vision/vit.h"

/* Rows that are left of a picture's, the class token's among them: it is never dropped, and of the
 * P patches max(1, floor(P (1 - rate))) stay, as in OpenCLIP. */
int64_t tess__patches_kept(const tess_vit_config *c, double rate);
/* The rows of n pictures that are left, out (n,kept) ascending: a uniform choice that depends on
 * the seed and on the picture's place in the run, first..first+n, alone. */
void tess__patches_choose(const tess_vit_config *c, int64_t kept, uint64_t seed, int64_t first,
                          int64_t n, int32_t *out);

#endif
