/* SPDX-License-Identifier: Apache-2.0 */
/* A WebDataset shard of any bytes: indexed, and every sample read.  Once as it is, and once with
 * the checksums of what looks like headers made right, since chance does not get past them. */
#include "fuzz_source.h"

static void mend(uint8_t *h)
{
    unsigned sum = 0;
    char text[8];
    memset(h + 148, ' ', 8);
    for (int i = 0; i < 512; i++) {
        sum += h[i];
    }
    snprintf(text, sizeof text, "%06o", sum);
    memcpy(h + 148, text, 7);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    uint8_t *mended = tess_alloc(n_bytes);
    if (n_bytes > 0) {
        memcpy(mended, data, n_bytes);
    }
    for (size_t at = 0; at + 512 <= n_bytes; at += 512) {
        if (memcmp(mended + at + 257, "ustar", 5) == 0) {
            mend(mended + at);
        }
    }
    fuzz_source(mended, n_bytes, "webdataset", TESS_READ_ALL);
    tess_free(mended);
    return fuzz_source(data, n_bytes, "webdataset", TESS_READ_ALL);
}
