/* SPDX-License-Identifier: Apache-2.0 */
/* JSON lines of any bytes; pictures, whose paths are the bytes', stay closed. */
#include "fuzz_source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    return fuzz_source(data, n_bytes, "jsonl", TESS_READ_CAPTIONS);
}
