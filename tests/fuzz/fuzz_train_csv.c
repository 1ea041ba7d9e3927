/* SPDX-License-Identifier: Apache-2.0 */
/* A table of any bytes behind a good header row; pictures, whose paths are the bytes', stay closed.
 */
#include "fuzz_source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static const char header[] = "filepath,title\n";
    tess_buf table = {0};
    tess_buf_adds(&table, header);
    tess_buf_add(&table, data, n_bytes);
    fuzz_source((const uint8_t *)table.data, table.n_bytes, "csv", TESS_READ_CAPTIONS);
    tess_buf_deinit(&table);
    return fuzz_source(data, n_bytes, "csv", TESS_READ_CAPTIONS);
}
