/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a picture, with limits small enough that the fuzzer spends its time in parsers. */
#include "tessera/vision.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    const tess_decode_limits limits = {
        .max_pixels = 1 << 16, .max_bytes = 1 << 22, .max_scans = 20};
    static tess_picture picture;
    tess_picture_info info;
    if (tess_picture_probe(data, n_bytes, &info) != TESS_OK) {
        info.width = 0;
    }
    if (tess_picture_decode(data, n_bytes, &limits, &picture) == TESS_OK &&
        (picture.width != info.width || picture.height != info.height)) {
        __builtin_trap(); /* what decodes was probed, with the same size */
    }
    return 0;
}
