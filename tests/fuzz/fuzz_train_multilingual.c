/* SPDX-License-Identifier: Apache-2.0 */
/* XTD10's and Crossmodal-3600's files of any bytes.  The first byte chooses; XTD10's three files
 * are divided by zero bytes.  Pictures, whose names are the bytes', stay closed. */
#include "fuzz_source.h"

static char dir[64];

static void put(const char *name, const uint8_t *data, size_t n_bytes)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n_bytes, f) != n_bytes || fclose(f) != 0) {
        abort();
    }
}

static void clean(void)
{
    if (tess_dir_remove(dir) != TESS_OK) {
        abort();
    }
}

static void make_dir(void)
{
    if (!*dir) {
        snprintf(dir, sizeof dir, "/dev/shm/tessera_fuzz_XXXXXX");
        if (!mkdtemp(dir) || atexit(clean) != 0) {
            abort();
        }
    }
}

static void put_xtd10(const uint8_t *data, size_t n_bytes)
{
    static const char *const names[] = {"test_image_names.txt", "test_1kcaptions_de.txt",
                                        "test_1kcaptions_ja.txt"};
    for (int i = 0; i < 3; i++) {
        const uint8_t *zero = i < 2 && n_bytes > 0 ? memchr(data, 0, n_bytes) : NULL;
        size_t n = zero ? (size_t)(zero - data) : n_bytes;
        put(names[i], data, n);
        data += zero ? n + 1 : n;
        n_bytes -= zero ? n + 1 : n;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    bool xtd = n_bytes > 0 && data[0] % 2 == 0;
    tess_dataset_options o = {.type = xtd ? "xtd10" : "crossmodal3600",
                              .captions_optional = n_bytes % 2 == 0};
    tess_dataset *ds = NULL;
    tess_sample s = {0};
    make_dir();
    if (n_bytes == 0) {
        return 0;
    }
    if (xtd) {
        put_xtd10(data + 1, n_bytes - 1);
    } else {
        put("captions.jsonl", data + 1, n_bytes - 1);
    }
    if (tess_dataset_open(dir, &o, &ds) != TESS_OK && !*tess_error()) {
        abort();
    }
    for (int64_t i = 0; ds && i < tess_dataset_size(ds); i++) {
        if (tess_dataset_read(ds, i, TESS_READ_CAPTIONS, &s) != TESS_OK || !s.key) {
            abort();
        }
        fuzz_check_sample(&s);
    }
    tess_sample_deinit(&s);
    tess_dataset_close(ds);
    return 0;
}
