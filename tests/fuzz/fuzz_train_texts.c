/* SPDX-License-Identifier: Apache-2.0 */
/* A file of texts of any bytes; the first says whether it is JSON lines, CSV or TSV.  Every record
 * that comes out has a key and a text of UTF-8, and the walk ends. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "train/text_source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void walk(const char *path)
{
    tess__texts t;
    tess_bad_list bad = {0};
    bool is_end = false;
    tess_status st = tess__texts_open(path, NULL, NULL, &t);
    while (st == TESS_OK && !is_end) {
        st = tess__texts_next(&t, &bad, &is_end);
        if (st == TESS_OK && !is_end &&
            (t.key.n_bytes == 0 || t.text.n_bytes == 0 || t.text.n_bytes > TESS__TEXT_MAX ||
             !tess_utf8_valid(t.text.data, t.text.n_bytes, true))) {
            abort();
        }
    }
    tess__texts_close(&t);
    tess_bad_list_deinit(&bad);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static const char *const ends[] = {"jsonl", "csv", "tsv"};
    char path[96];
    if (n_bytes == 0) {
        return 0;
    }
    snprintf(path, sizeof path, "/dev/shm/fuzz_texts_%ld.%s", (long)getpid(), ends[data[0] % 3]);
    if (tess_file_write(path, data + 1, n_bytes - 1) == TESS_OK) {
        walk(path);
        unlink(path);
    }
    return 0;
}
