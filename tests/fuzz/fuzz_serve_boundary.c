/* SPDX-License-Identifier: Apache-2.0 */
/* Any Content-Type (up to the first NUL) with any form behind it: parts lie within the body. */
#include "serve/multipart.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    if (!nul) {
        return 0;
    }
    tess_bytes body = {.data = nul + 1, .n_bytes = size - (size_t)(nul + 1 - data)};
    tess__parts parts;
    if (tess__multipart_parse((const char *)data, body, &parts) != TESS_OK) {
        return 0;
    }
    for (int i = 0; i < parts.n; i++) {
        const tess_bytes *part = &parts.parts[i].data;
        if (!parts.parts[i].name[0] || part->data < body.data ||
            part->data + part->n_bytes > body.data + body.n_bytes) {
            abort();
        }
    }
    return 0;
}
