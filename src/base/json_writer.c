/* SPDX-License-Identifier: Apache-2.0 */
/* JSON out, appended to a buffer.
 *
 * "</" and "<!" are written with an escaped "<", so that any document may stand inside a page's
 * script element.  Numbers are free of the locale's decimal comma.
 */
#include "base/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void new_line(tess_json_writer *w)
{
    if (w->pretty) {
        tess_buf_addf(w->buf, "\n%*s", 2 * w->depth, "");
    }
}

/* What stands before a value or a key: nothing after a key, else a comma and a line. */
static void separate(tess_json_writer *w)
{
    if (w->after_key) {
        w->after_key = false;
        return;
    }
    if (w->need_comma) {
        tess_buf_add(w->buf, ",", 1);
    }
    if (w->depth > 0) {
        new_line(w);
    }
}

static void begin(tess_json_writer *w, const char *bracket)
{
    separate(w);
    tess_buf_add(w->buf, bracket, 1);
    w->depth++;
    w->need_comma = false;
}

static void end(tess_json_writer *w, const char *bracket)
{
    w->depth--;
    if (w->need_comma) {
        new_line(w);
    }
    tess_buf_add(w->buf, bracket, 1);
    w->need_comma = true;
}

void tess_json_begin_object(tess_json_writer *w)
{
    begin(w, "{");
}

void tess_json_end_object(tess_json_writer *w)
{
    end(w, "}");
}

void tess_json_begin_array(tess_json_writer *w)
{
    begin(w, "[");
}

void tess_json_end_array(tess_json_writer *w)
{
    end(w, "]");
}

/* One ASCII character that may not stand as itself. */
static void add_escaped(tess_buf *buf, uint8_t c)
{
    static const char plain[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    const char *at = c != 0 ? strchr(plain, c) : NULL;
    if (at != NULL) {
        tess_buf_addf(buf, "\\%c", letters[at - plain]);
    } else {
        tess_buf_addf(buf, "\\u%04x", c);
    }
}

static bool needs_escape(const uint8_t *p)
{
    return *p < 0x20 || *p == '"' || *p == '\\' || (*p == '<' && (p[1] == '/' || p[1] == '!'));
}

static void add_quoted(tess_buf *buf, const char *s)
{
    const uint8_t *p = (const uint8_t *)s;
    size_t n = strlen(s), from = 0;
    tess_buf_add(buf, "\"", 1);
    for (size_t i = 0; i < n;) {
        bool valid = true;
        size_t step = p[i] < 0x80 ? 1 : tess__utf8_step(p + i, n - i, &valid);
        if (!valid || needs_escape(p + i)) {
            tess_buf_add(buf, s + from, i - from);
            if (valid) {
                add_escaped(buf, p[i]);
            } else {
                tess_buf_adds(buf, "\xEF\xBF\xBD");
            }
            from = i + step;
        }
        i += step;
    }
    tess_buf_add(buf, s + from, n - from);
    tess_buf_add(buf, "\"", 1);
}

void tess_json_key(tess_json_writer *w, const char *key)
{
    separate(w);
    add_quoted(w->buf, key);
    tess_buf_adds(w->buf, w->pretty ? ": " : ":");
    w->after_key = true;
}

static void add_word(tess_json_writer *w, const char *word)
{
    separate(w);
    tess_buf_adds(w->buf, word);
    w->need_comma = true;
}

void tess_json_add_string(tess_json_writer *w, const char *s)
{
    if (s == NULL) {
        tess_json_add_null(w);
        return;
    }
    separate(w);
    add_quoted(w->buf, s);
    w->need_comma = true;
}

void tess_json_add_int(tess_json_writer *w, int64_t v)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)v);
    add_word(w, text);
}

void tess_json_add_real(tess_json_writer *w, double v)
{
    if (!isfinite(v)) {
        tess_json_add_null(w);
        return;
    }
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) {
            break;
        }
    }
    size_t n = strspn(text, "0123456789+-e");
    if (text[n] != 0) {
        /* The decimal sign, whatever the locale calls it, ends at the next digit. */
        size_t n_sign = strcspn(text + n, "0123456789");
        text[n] = '.';
        memmove(text + n + 1, text + n + n_sign, strlen(text + n + n_sign) + 1);
    } else if (strchr(text, 'e') == NULL) {
        memcpy(text + n, ".0", 3); /* a real stays a real when read back */
    }
    add_word(w, text);
}

void tess_json_add_bool(tess_json_writer *w, bool v)
{
    add_word(w, v ? "true" : "false");
}

void tess_json_add_null(tess_json_writer *w)
{
    add_word(w, "null");
}

static void add_array(tess_json_writer *w, const tess_json *v)
{
    tess_json_begin_array(w);
    for (size_t i = 0; i < tess_json_count(v); i++) {
        tess_json_add_value(w, tess_json_at(v, i));
    }
    tess_json_end_array(w);
}

static void add_object(tess_json_writer *w, const tess_json *v)
{
    tess_json_begin_object(w);
    for (size_t i = 0; i < tess_json_count(v); i++) {
        const char *key = NULL;
        const tess_json *member = tess_json_member(v, i, &key);
        tess_json_key(w, key);
        tess_json_add_value(w, member);
    }
    tess_json_end_object(w);
}

void tess_json_add_value(tess_json_writer *w, const tess_json *v)
{
    switch (tess_json_kind_of(v)) {
    case TESS_JSON_NULL:
        tess_json_add_null(w);
        break;
    case TESS_JSON_BOOL:
        tess_json_add_bool(w, tess_json_bool(v, false));
        break;
    case TESS_JSON_INT:
        tess_json_add_int(w, tess_json_int(v, 0));
        break;
    case TESS_JSON_REAL:
        tess_json_add_real(w, tess_json_real(v, 0));
        break;
    case TESS_JSON_STRING:
        tess_json_add_string(w, tess_json_string(v, ""));
        break;
    case TESS_JSON_ARRAY:
        add_array(w, v);
        break;
    case TESS_JSON_OBJECT:
        add_object(w, v);
        break;
    }
}
