/* SPDX-License-Identifier: Apache-2.0 */
/* Base64, one character at a time into a bit buffer: a picture's worth takes a few milliseconds,
 * which embedding it dwarfs. */
#include "serve/base64.h"

static int digit(char c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

tess_status tess__base64_decode(const char *s, size_t n, tess_arena *arena, tess_bytes *out)
{
    uint8_t *data = tess_arena_alloc(arena, n / 4 * 3 + 3);
    if (!data) {
        return TESS_NOMEM;
    }
    uint32_t bits = 0;
    size_t n_digits = 0, n_padding = 0, n_bytes = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '\r' || s[i] == '\n') {
            continue;
        }
        n_padding += s[i] == '=';
        int d = n_padding ? 0 : digit(s[i]);
        if (d < 0 || (n_padding && s[i] != '=')) {
            return TESS_FAIL(TESS_FORMAT, "base64: unexpected character at %zu", i);
        }
        bits = bits << 6 | (uint32_t)d;
        if (++n_digits % 4 == 0) {
            data[n_bytes++] = (uint8_t)(bits >> 16);
            data[n_bytes++] = (uint8_t)(bits >> 8);
            data[n_bytes++] = (uint8_t)bits;
        }
    }
    if (n_digits % 4 != 0 || n_padding > 2) {
        return TESS_FAIL(TESS_FORMAT, "base64: cut off");
    }
    *out = (tess_bytes){.data = data, .n_bytes = n_bytes - n_padding};
    return TESS_OK;
}
