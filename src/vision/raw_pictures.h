/* SPDX-License-Identifier: Apache-2.0 */
/* A batch of decoded pictures as a graph's inputs. */
#ifndef VISION_RAW_PICTURES_H
#define VISION_RAW_PICTURES_H

#include "tessera/tensor.h"
#include "tessera/vision.h"

/* Inputs of tess_resize_patches. */
typedef struct tess_raw_inputs {
    tess_value bytes, places, taps;
} tess_raw_inputs;
/* "picture_places", "picture_taps" and "picture_bytes" for every batch of n places for (size,size).
 */
tess_raw_inputs tess__raw_inputs(tess_graph *g, int64_t n, int32_t size);
/* Binds them; the batch must keep its content while the plan runs. */
TESS_MUST_USE tess_status tess__raw_bind(tess_plan *p, const tess_raw_pictures *r);

#endif
