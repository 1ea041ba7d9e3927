/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing the patches that a step sees: selection sampling (Knuth, The Art of Computer Programming
 * 2, algorithm 3.4.2 S), which gives them in order, so that what is left of a picture lies in
 * memory as the picture does. */
#include "vision/patch_dropout.h"

/* Keeps these draws apart from others of the same seed. */
static const uint64_t use_key = 0x70617463686b6570u;

static int64_t n_patches(const tess_vit_config *c)
{
    const int64_t side = c->image_size / c->patch_size;
    return side * side;
}

int64_t tess__patches_kept(const tess_vit_config *c, double rate)
{
    const int64_t n = (int64_t)((double)n_patches(c) * (1 - rate));
    return (n > 1 ? n : 1) + c->class_token;
}

static void choose(tess_rng r, int64_t n, int64_t kept, bool class_token, int32_t *out)
{
    if (class_token) {
        *out++ = 0;
        kept--;
    }
    for (int64_t i = 0; kept > 0; i++) {
        if (tess_rng_below(&r, (uint32_t)(n - i)) < (uint32_t)kept) {
            *out++ = (int32_t)(i + class_token);
            kept--;
        }
    }
}

void tess__patches_choose(const tess_vit_config *c, int64_t kept, uint64_t seed, int64_t first,
                          int64_t n, int32_t *out)
{
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        choose(tess_rng_at(seed ^ use_key, (uint64_t)(first + i)), n_patches(c), kept,
               c->class_token, out + i * kept);
    }
}
