/* SPDX-License-Identifier: Apache-2.0 */
/* EXIF orientation: how a camera was held. */
#ifndef VISION_EXIF_H
#define VISION_EXIF_H

#include "tessera/vision.h"

/* The orientation (tag 0x0112 of the first image directory) in an EXIF block, with or without its
 * "Exif\0\0" head.  1, which is upright, for anything absent or malformed: a broken note in the
 * margin does not make a picture bad.  Source: EXIF 2.3, TIFF 6.0. */
int32_t tess__exif_orientation(tess_bytes exif);

/* True when the orientation swaps width and height. */
static inline bool tess__exif_swaps(int32_t orientation)
{
    return orientation >= 5;
}

/* Turns the picture upright; orientation 1 costs nothing. */
tess_status tess__exif_turn(tess_picture *picture, int32_t orientation);

#endif
