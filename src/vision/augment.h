/* SPDX-License-Identifier: Apache-2.0 */
/* What chance decides, apart from what is done to pixels: tests look at it, and a device is told.
 */
#ifndef VISION_AUGMENT_H
#define VISION_AUGMENT_H

#include "tessera/vision.h"

typedef struct tess__crop {
    int32_t x, y, width, height;
} tess__crop;

/* torchvision's RandomResizedCrop.get_params for a picture of width x height. */
tess__crop tess__crop_draw(const tess_augment *a, tess_rng *r, int32_t width, int32_t height);

/* All draws for one view: a function of options, seed, sample and the picture's size. */
typedef struct tess__draws {
    tess__crop crop; /* width 0: none, the whole picture is brought to the size */
    bool flip;
    int32_t dx, dy;              /* then moved right and down */
    double brightness, contrast; /* factors; 1: as it was */
} tess__draws;
tess__draws tess__augment_draw(const tess_preprocess *p, const tess_augment *a, uint64_t seed,
                               uint64_t sample, int32_t width, int32_t height);

#endif
