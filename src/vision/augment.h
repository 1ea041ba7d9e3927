/* SPDX-License-Identifier: Apache-2.0 */
/* The random crop, apart, so that tests can look at what was drawn. */
#ifndef VISION_AUGMENT_H
#define VISION_AUGMENT_H

#include "tessera/vision.h"

typedef struct tess__crop {
    int32_t x, y, width, height;
} tess__crop;

/* torchvision's RandomResizedCrop.get_params for a picture of width x height. */
tess__crop tess__crop_draw(const tess_augment *a, tess_rng *r, int32_t width, int32_t height);

#endif
