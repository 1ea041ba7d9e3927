/* SPDX-License-Identifier: Apache-2.0 */
/* HTML character references, as Python's html.unescape replaces them (HTML5, "consume a character
 * reference"): numbers with Windows-1252's meaning for 0x80 to 0x9f, names with or without their
 * semicolon, the longest known name where more letters follow. */
#include "text/html_unescape.h"
#include "text/char_class.h"
#include "text/pipe.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_NAME_CHARS = 32, MAX_STRICT_CHARS = 24 };

/* What 0x80 to 0x9f stand for; 0: nothing else than themselves. */
static const uint16_t windows[32] = {
    0x20ac, 0,      0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160,
    0x2039, 0x0152, 0,      0x017d, 0,      0,      0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
    0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0,      0x017e, 0x0178,
};

uint32_t tess__windows_1252(uint32_t c)
{
    return windows[c - 0x80] != 0 ? windows[c - 0x80] : c;
}

static bool is_removed(uint32_t c)
{
    return (c >= 1 && c <= 8) || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f ||
           (c >= 0xfdd0 && c <= 0xfdef) || (c & 0xfffe) == 0xfffe;
}

static tess_status put_number(tess__span_buf *out, uint32_t c)
{
    char utf8[4];
    if (c >= 0x80 && c <= 0x9f) {
        c = tess__windows_1252(c);
    } else if (c == 0 || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) {
        c = 0xfffd;
    } else if (is_removed(c)) {
        return TESS_OK;
    }
    return tess__span_put(out, utf8, tess__char_put(c, utf8));
}

static int digit_of(char c, uint32_t base)
{
    int v = c >= '0' && c <= '9'                 ? c - '0'
            : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                 : 99;
    return v < (int)base ? v : -1;
}

/* "#123;" or "#x1F;" at s; bytes read, 0 when it is no number. */
static size_t read_number(const char *s, size_t n, uint32_t *out)
{
    uint32_t base = n > 1 && (s[1] == 'x' || s[1] == 'X') ? 16 : 10, c = 0;
    size_t start = base == 16 ? 2 : 1, i = start;
    for (; i < n && digit_of(s[i], base) >= 0; i++) {
        c = c > 0x10ffff ? c : c * base + (uint32_t)digit_of(s[i], base);
    }
    *out = c;
    return i == start ? 0 : i + (i < n && s[i] == ';');
}

static size_t name_bytes(const char *s, size_t n)
{
    size_t i = 0, used;
    for (int k = 0; i < n && k < MAX_NAME_CHARS && memchr("\t\n\f <&#;", s[i], 7) == NULL; k++) {
        (void)tess__char_at(s + i, n - i, &used);
        i += used;
    }
    return i > 0 ? i + (i < n && s[i] == ';') : 0;
}

static int compare_name(const tess_bytes *key, const tess__entity *e)
{
    int c = strncmp((const char *)key->data, e->name, key->n_bytes);
    return c != 0 ? c : -(e->name[key->n_bytes] != 0);
}

static int compare(const void *key, const void *row)
{
    return compare_name(key, row);
}

static const tess__entity *find(const char *s, size_t n)
{
    tess_bytes key = {(const uint8_t *)s, n};
    return bsearch(&key, tess__entities, tess__n_entities, sizeof(*tess__entities), compare);
}

static tess_status put_name(tess__span_buf *out, const char *s, size_t n)
{
    for (size_t k = n; k > 1; k--) {
        const tess__entity *e = find(s, k);
        if (e != NULL) {
            TESS_TRY(tess__span_put(out, e->text, strlen(e->text)));
            return tess__span_put(out, s + k, n - k);
        }
    }
    TESS_TRY(tess__span_put(out, "&", 1));
    return tess__span_put(out, s, n);
}

tess_status tess__html_unescape(const tess__span_buf *in, tess__span_buf *out)
{
    const char *s = in->data;
    size_t n = in->n_bytes;
    out->n_bytes = 0;
    for (size_t i = 0; i < n;) {
        const char *at = memchr(s + i, '&', n - i);
        size_t stop = at != NULL ? (size_t)(at - s) : n, used = 0;
        TESS_TRY(tess__span_put(out, s + i, stop - i));
        if (at == NULL) {
            break;
        }
        i = stop + 1;
        uint32_t c;
        if (i < n && s[i] == '#') {
            used = read_number(s + i, n - i, &c);
            TESS_TRY(used > 0 ? put_number(out, c) : tess__span_put(out, "&", 1));
        } else {
            used = i < n ? name_bytes(s + i, n - i) : 0;
            TESS_TRY(used > 0 ? put_name(out, s + i, used) : tess__span_put(out, "&", 1));
        }
        i += used;
    }
    return TESS_OK;
}

/* ---- with semicolons ----------------------------------------------------------------------- */

/* Bytes of "name;" or "#12;" at s, 0 when nothing of that form. */
static size_t strict_bytes(const char *s, size_t n)
{
    size_t begin = n > 0 && s[0] == '#', i = begin;
    while (i < n && ((s[i] >= '0' && s[i] <= '9') || ((s[i] | 32) >= 'a' && (s[i] | 32) <= 'z'))) {
        i++;
    }
    return i > begin && i - begin <= MAX_STRICT_CHARS && i < n && s[i] == ';' ? i + 1 : 0;
}

/* A number must be one to its end, and not be the semicolon itself. */
static tess_status put_strict(tess__span_buf *out, const char *s, size_t n)
{
    uint32_t c;
    if (s[0] == '#' && read_number(s, n, &c) == n && c != ';') {
        return put_number(out, c);
    }
    const tess__entity *e = s[0] != '#' ? find(s, n) : NULL;
    if (e != NULL) {
        return tess__span_put(out, e->text, strlen(e->text));
    }
    TESS_TRY(tess__span_put(out, "&", 1));
    return tess__span_put(out, s, n);
}

tess_status tess__html_unescape_strict(const tess__span_buf *in, tess__span_buf *out)
{
    const char *s = in->data;
    size_t n = in->n_bytes;
    out->n_bytes = 0;
    for (size_t i = 0; i < n;) {
        const char *at = memchr(s + i, '&', n - i);
        size_t stop = at != NULL ? (size_t)(at - s) : n;
        TESS_TRY(tess__span_put(out, s + i, stop - i));
        i = stop + 1;
        size_t used = at != NULL && i < n ? strict_bytes(s + i, n - i) : 0;
        if (used > 0) {
            TESS_TRY(put_strict(out, s + i, used));
            i += used;
        } else if (at != NULL) {
            TESS_TRY(tess__span_put(out, "&", 1));
        }
    }
    return TESS_OK;
}
