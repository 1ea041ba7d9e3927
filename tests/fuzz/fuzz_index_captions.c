/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a row's captions: the texts inside, or refused with a message. */
#include "index/rows.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *captions = tess_strndup((const char *)data, size);
    tess_buf text = {0};
    if (tess__captions_text(captions, "fuzz", &text) == TESS_OK) {
        if (!tess_utf8_valid(text.data ? text.data : "", text.n_bytes, true)) {
            abort();
        }
    } else if (!tess_error()[0]) {
        abort();
    }
    tess_buf_deinit(&text);
    tess_free(captions);
    return 0;
}
