/* SPDX-License-Identifier: Apache-2.0 */
/* A model's config of any bytes: what is taken is written, and what was written reads back the
 * same. */
#include <stdlib.h>
#include <string.h>

#include "fusion/model_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static bool read_config(const void *text, size_t n_bytes, tess_buf *out)
{
    tess_json_doc *doc = NULL;
    tess_arena arena = {0};
    tess_model_config c = {0};
    tess_status st = tess_json_parse(text, n_bytes, "fuzz", &doc);
    st = st ? st : tess__model_config_read(tess_json_root(doc), "fuzz", &arena, &c);
    if (st && !*tess_error()) {
        abort();
    }
    if (!st) {
        tess__model_config_write(&c, out);
    }
    tess_arena_deinit(&arena);
    tess_json_free(doc);
    return !st;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    tess_buf first = {0}, second = {0};
    if (read_config(data, n_bytes, &first) &&
        (!read_config(first.data, first.n_bytes, &second) || strcmp(first.data, second.data))) {
        abort();
    }
    tess_buf_deinit(&first);
    tess_buf_deinit(&second);
    return 0;
}
