/* SPDX-License-Identifier: Apache-2.0 */
/* Opens bytes as a data set, through a file in memory, and reads every sample of it. */
#ifndef TESSERA_TESTS_FUZZ_SOURCE_H
#define TESSERA_TESTS_FUZZ_SOURCE_H

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tessera/data.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

/* What every sample promises. */
static void fuzz_check_sample(const tess_sample *s)
{
    for (int64_t k = 0; k < s->n_captions; k++) {
        const tess_caption *c = &s->captions[k];
        if (c->n_bytes == 0 || c->n_bytes > 65536 || strlen(c->text) != c->n_bytes ||
            !tess_utf8_valid(c->text, c->n_bytes, true)) {
            abort();
        }
    }
}

/* Adds up the picture, so that a sanitizer sees every byte touched.  Below UINT32_MAX for any input
 * that a fuzzer makes. */
static unsigned fuzz_touch(tess_bytes b)
{
    unsigned sum = 0;
    for (size_t i = 0; i < b.n_bytes; i++) {
        sum += b.data[i];
    }
    return sum;
}

static tess_dataset *fuzz_open(const uint8_t *data, size_t n_bytes, const char *type)
{
    char path[64];
    tess_dataset *ds = NULL;
    const tess_dataset_options o = {
        .type = type, .captions_optional = n_bytes % 2 == 0, .pictures_optional = n_bytes % 3 == 0};
    int fd = memfd_create("fuzz", 0);
    if (fd < 0 || write(fd, data, n_bytes) != (ssize_t)n_bytes) {
        abort();
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (tess_dataset_open(path, &o, &ds) != TESS_OK && !*tess_error()) {
        abort();
    }
    close(fd);
    return ds;
}

__attribute__((unused)) static int fuzz_source(const uint8_t *data, size_t n_bytes,
                                               const char *type, int parts)
{
    tess_sample s = {0};
    tess_dataset *ds = fuzz_open(data, n_bytes, type);
    for (int64_t i = 0; ds && i < tess_dataset_size(ds); i++) {
        if (tess_dataset_read(ds, i, parts, &s) != TESS_OK || !s.key) {
            abort();
        }
        fuzz_check_sample(&s);
        if (fuzz_touch(s.picture) == UINT32_MAX) {
            abort();
        }
    }
    tess_sample_deinit(&s);
    tess_dataset_close(ds);
    return 0;
}

#endif
