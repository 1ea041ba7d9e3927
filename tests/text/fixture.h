/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the tokenizer fixtures; for cmocka tests of this folder. */
#ifndef TESS_TESTS_TEXT_FIXTURE_H
#define TESS_TESTS_TEXT_FIXTURE_H

#include "tessera/text.h"

#define FIXTURE_DIR "tests/fixtures/text/"

typedef struct fixture_lines {
    tess_buf *lines; /* each NUL-terminated too */
    size_t n, cap;
} fixture_lines;

static inline int fixture_hex(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

/* "\xNN" and "\\" become bytes. */
static inline void fixture_unescape(const char *s, size_t n, tess_buf *out)
{
    tess_buf_add(out, "", 0);
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        if (c == '\\' && s[i + 1] == 'x') {
            c = (char)(fixture_hex(s[i + 2]) * 16 + fixture_hex(s[i + 3]));
            i += 3;
        } else if (c == '\\') {
            i++;
        }
        tess_buf_add(out, &c, 1);
    }
}

static inline fixture_lines fixture_read_lines(const char *name)
{
    fixture_lines out = {0};
    char *path = tess_format(FIXTURE_DIR "%s", name);
    uint8_t *bytes;
    size_t n_bytes;
    assert_int_equal(tess_file_read(path, 1 << 26, &bytes, &n_bytes), TESS_OK);
    for (const char *at = (const char *)bytes, *end = at + n_bytes; at < end;) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        assert_non_null(stop);
        assert_int_equal(tess_grow(&out.lines, &out.cap, out.n + 1, sizeof(tess_buf)), TESS_OK);
        fixture_unescape(at, (size_t)(stop - at), &out.lines[out.n++]);
        at = stop + 1;
    }
    tess_free(bytes);
    tess_free(path);
    return out;
}

static inline void fixture_free_lines(fixture_lines *l)
{
    for (size_t i = 0; i < l->n; i++) {
        tess_buf_deinit(&l->lines[i]);
    }
    tess_free(l->lines);
}

static inline void fixture_append(const char *name, size_t n_name, const char *suffix,
                                  tess_buf *out)
{
    char *path = tess_format(FIXTURE_DIR "%.*s%s", (int)n_name, name, suffix);
    uint8_t *bytes;
    size_t n_bytes;
    assert_int_equal(tess_file_read(path, 1 << 26, &bytes, &n_bytes), TESS_OK);
    tess_buf_add(out, bytes, n_bytes);
    tess_free(bytes);
    tess_free(path);
}

/* The bytes of the model "name" or "name+rules": the two files one behind the other. */
static inline tess_buf fixture_model(const char *name)
{
    tess_buf out = {0};
    size_t n = strcspn(name, "+");
    fixture_append(name, n, ".model", &out);
    if (name[n] == '+') {
        fixture_append(name + n + 1, strlen(name + n + 1), ".spec", &out);
    }
    return out;
}

static inline tess_tokenizer *fixture_open(const char *name)
{
    tess_buf model = fixture_model(name);
    tess_tokenizer *t = NULL;
    if (tess_tokenizer_open_bytes(model.data, model.n_bytes, name, &t) != TESS_OK) {
        fail_msg("%s", tess_error());
    }
    tess_buf_deinit(&model);
    return t;
}

#endif
