/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a manifest: read and in range, or refused with a message. */
#include "index/manifest.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tess_arena arena = {0};
    tess__manifest m;
    if (tess__manifest_parse((const char *)data, size, "fuzz", &arena, &m) == TESS_OK) {
        if (m.dim < 1 || m.dim > TESS_INDEX_MAX_DIM || m.n_rows < 1 || strchr(m.rows.name, '/') ||
            strchr(m.vectors.name, '/')) {
            abort();
        }
    } else if (!tess_error()[0]) {
        abort();
    }
    tess_arena_deinit(&arena);
    return 0;
}
