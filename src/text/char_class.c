/* SPDX-License-Identifier: Apache-2.0 */
/* Looking characters up, and well-formed UTF-8 forwards and backwards. */
#include "text/char_class.h"

bool tess__char_is(tess__char_class class, uint32_t c)
{
    const tess__char_table *t = &tess__char_tables[class];
    size_t lo = 0, hi = t->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (t->ranges[mid].last < c) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo < t->n && t->ranges[lo].first <= c;
}

uint32_t tess__char_at(const char *text, size_t n_left, size_t *out_bytes)
{
    const uint8_t *s = (const uint8_t *)text;
    size_t n = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (n > n_left) {
        n = n_left;
    }
    uint32_t c = n == 1 ? s[0] : s[0] & (0x7fU >> n);
    for (size_t i = 1; i < n; i++) {
        c = c << 6 | (s[i] & 0x3f);
    }
    *out_bytes = n;
    return c;
}

size_t tess__char_put(uint32_t c, char *out)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; c >>= 6) {
        out[i] = (char)(0x80 | (c & 0x3f));
    }
    out[0] = (char)((0xf00U >> n & 0xff) | c);
    return n;
}

uint32_t tess__char_before(const char *s, size_t at, size_t *out_start)
{
    size_t start = at - 1, n;
    while (start > 0 && at - start < 4 && ((uint8_t)s[start] & 0xc0) == 0x80) {
        start--;
    }
    *out_start = start;
    return tess__char_at(s + start, at - start, &n);
}
