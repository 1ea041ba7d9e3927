/* SPDX-License-Identifier: Apache-2.0 */
/* Any JSON as a preprocess config; what is accepted must print to a text that reads back to it. */
#include <string.h>

#include "tessera/vision.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static bool read_text(const char *text, size_t n_bytes, tess_preprocess *out)
{
    tess_json_doc *doc = NULL;
    if (tess_json_parse(text, n_bytes, "fuzz", &doc) != TESS_OK) {
        return false;
    }
    tess_status st = tess_preprocess_read(tess_json_root(doc), "fuzz", out);
    tess_json_free(doc);
    return st == TESS_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    tess_preprocess p, again;
    if (!read_text((const char *)data, n_bytes, &p)) {
        return 0;
    }
    tess_buf first = {0}, second = {0};
    tess_preprocess_write(&p, &first);
    if (!read_text(first.data, first.n_bytes, &again)) {
        __builtin_trap();
    }
    tess_preprocess_write(&again, &second);
    if (strcmp(first.data, second.data) != 0) {
        __builtin_trap();
    }
    tess_buf_deinit(&first);
    tess_buf_deinit(&second);
    return 0;
}
