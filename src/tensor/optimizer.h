/* SPDX-License-Identifier: Apache-2.0 */
/* What the optimizers share: the input hyper (5) f32 (lr, 1/(1-beta1^t), 1/(1-beta2^t),
 * grad_scale, t), and the factor that clips a gradient by its norm. */
#ifndef TESSERA_TENSOR_OPTIMIZER_H
#define TESSERA_TENSOR_OPTIMIZER_H

#include <math.h>

enum {
    TESS_HYPER_LR,
    TESS_HYPER_FIX1,
    TESS_HYPER_FIX2,
    TESS_HYPER_SCALE,
    TESS_HYPER_STEP, /* exact up to 2^24 */
    TESS_HYPER_COUNT
};

/* clip 0: no limit. */
static inline float tess__grad_factor(const float *hyper, float sumsq, float clip)
{
    const float scale = hyper[TESS_HYPER_SCALE], norm = sqrtf(sumsq) * scale;
    return clip > 0 && norm > clip ? scale * clip / norm : scale;
}

#endif
