/* SPDX-License-Identifier: Apache-2.0 */
/* The .txt and the .json beside a picture, of any bytes. */
#include "fuzz_source.h"
#include "train/sample_captions.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static const char line[] = "{\"image\":\"x\",\"captions\":{\"en\":\"a\",\"de\":\"b\"}}";
    static tess_dataset *ds;
    tess_sample s = {.detail = ""};
    if (!ds) {
        ds = fuzz_open((const uint8_t *)line, sizeof line - 1, "jsonl");
    }
    tess__caption_source from = {.json = {data, n_bytes}};
    if (tess__captions_read(ds, &from, &s) != TESS_OK) {
        abort();
    }
    fuzz_check_sample(&s);
    tess_sample_deinit(&s);
    s = (tess_sample){.detail = ""};
    from = (tess__caption_source){.text = {data, n_bytes}};
    if (tess__captions_read(ds, &from, &s) != TESS_OK) {
        abort();
    }
    fuzz_check_sample(&s);
    tess_sample_deinit(&s);
    return 0;
}
