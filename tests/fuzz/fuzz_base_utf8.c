/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8 of any bytes: steps cover the text, agree with the whole, and writing repairs it. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    bool all = true;
    size_t at = 0;
    while (at < n_bytes) {
        bool valid = false;
        size_t step = tess__utf8_step(data + at, n_bytes - at, &valid);
        if (step == 0 || step > n_bytes - at) {
            abort();
        }
        all = all && valid;
        at += step;
    }
    if (tess_utf8_valid((const char *)data, n_bytes, false) != all) {
        abort();
    }
    char *text = tess_strndup((const char *)data, n_bytes);
    tess_buf out = {0};
    tess_json_writer w = {.buf = &out};
    tess_json_add_string(&w, text);
    tess_json_doc *doc = NULL;
    if (tess_json_parse(out.data, out.n_bytes, "written", &doc) != TESS_OK ||
        (all && strcmp(tess_json_string(tess_json_root(doc), ""), text) != 0)) {
        abort();
    }
    tess_json_free(doc);
    tess_buf_deinit(&out);
    tess_free(text);
    return 0;
}
