/* SPDX-License-Identifier: Apache-2.0 */
/* What the picture tests share: fixtures by name, and the hash that make.py writes. */
#ifndef TESTS_VISION_PICTURES_H
#define TESTS_VISION_PICTURES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tessera/vision.h"

#define FIXTURES "tests/fixtures/vision/"

/* FNV-1a, 64 bits, as 16 hex digits. */
static inline void hash_pixels(const uint8_t *data, size_t n_bytes, char out_hex[17])
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n_bytes; i++) {
        h = (h ^ data[i]) * 0x100000001b3u;
    }
    snprintf(out_hex, 17, "%016llx", (unsigned long long)h);
}

static inline tess_bytes load_fixture(const char *name)
{
    char *path = tess_format("%s%s", FIXTURES, name);
    uint8_t *data = NULL;
    size_t n_bytes = 0;
    if (tess_file_read(path, 1 << 24, &data, &n_bytes) != TESS_OK) {
        fail_msg("%s: %s", path, tess_error());
    }
    tess_free(path);
    return (tess_bytes){data, n_bytes};
}

static inline tess_json_doc *load_expectations(const char *name)
{
    char *path = tess_format("%s%s", FIXTURES, name);
    tess_json_doc *doc = NULL;
    if (tess_json_load(path, &doc) != TESS_OK) {
        fail_msg("%s", tess_error());
    }
    tess_free(path);
    return doc;
}

static inline void decode_fixture(const char *name, tess_picture *out)
{
    tess_bytes b = load_fixture(name);
    if (tess_picture_decode(b.data, b.n_bytes, NULL, out) != TESS_OK) {
        fail_msg("%s: %s", name, tess_error());
    }
    tess_free((void *)b.data);
}

#endif
