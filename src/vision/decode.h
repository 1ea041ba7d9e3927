/* SPDX-License-Identifier: Apache-2.0 */
/* Between decode.c and the three doors: jpeg.c, png.c, webp.c. */
#ifndef VISION_DECODE_H
#define VISION_DECODE_H

#include "tessera/vision.h"

/* A decoder reads `src` into `out` as stored, unoriented, and names the EXIF orientation. */
typedef tess_status tess__decode_fn(tess_bytes src, const tess_decode_limits *limits,
                                    tess_picture *out, int32_t *out_orientation);
/* A prober reads the stored size and the orientation. */
typedef tess_status tess__probe_fn(tess_bytes src, tess_picture_info *out);

tess_status tess__jpeg_decode(tess_bytes src, const tess_decode_limits *limits, tess_picture *out,
                              int32_t *out_orientation);
tess_status tess__jpeg_probe(tess_bytes src, tess_picture_info *out);
tess_status tess__png_decode(tess_bytes src, const tess_decode_limits *limits, tess_picture *out,
                             int32_t *out_orientation);
tess_status tess__png_probe(tess_bytes src, tess_picture_info *out);
tess_status tess__webp_decode(tess_bytes src, const tess_decode_limits *limits, tess_picture *out,
                              int32_t *out_orientation);
tess_status tess__webp_probe(tess_bytes src, tess_picture_info *out);

/* Checks width x height against the limits, of which one pixel costs `pixel_bytes` of memory in
 * all, and makes room in `out`, whose size it sets. */
tess_status tess__picture_reserve(tess_picture *out, const tess_decode_limits *limits,
                                  uint32_t width, uint32_t height, size_t pixel_bytes);

/* Blends n_pixels of straight RGBA onto the background, to RGB. */
void tess__picture_blend(const uint8_t *rgba, size_t n_pixels, const uint8_t background[3],
                         uint8_t *rgb);

#endif
