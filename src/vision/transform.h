/* SPDX-License-Identifier: Apache-2.0 */
/* Where a picture goes when it is resized, apart, so that a device can be told. */
#ifndef VISION_TRANSFORM_H
#define VISION_TRANSFORM_H

#include "vision/resize.h"

/* The part of the resized picture that shows, and where in the result it lands; the rest is filled.
 */
typedef struct tess__placement {
    tess__window window;
    int32_t x, y;
} tess__placement;

/* For a picture of width x height.  TESS_INVALID: it is empty; TESS_FORMAT: too narrow. */
TESS_MUST_USE tess_status tess__transform_place(const tess_preprocess *p, int32_t width,
                                                int32_t height, tess__placement *out);

#endif
