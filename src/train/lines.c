/* SPDX-License-Identifier: Apache-2.0 */
/* lines: text files with one thing a line: class names, prompt templates, picture names, captions.
 *
 * A line ends in LF or CRLF, the last one need not; a byte order mark is passed over and white
 * space at both ends of a line is cut.  What a line number means elsewhere (class 17 is line 18)
 * makes an empty line in the middle an error and not something to skip. */
#include "tessera/data.h"

#include <stdlib.h>
#include <string.h>

#define FILE_MAX ((size_t)64 << 20)

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static tess_status add_line(const char *path, const char *text, size_t n, bool may_be_empty,
                            tess_names *out)
{
    size_t line = out->n_names + 1;
    while (n > 0 && is_blank(*text)) {
        text++, n--;
    }
    while (n > 0 && is_blank(text[n - 1])) {
        n--;
    }
    if (n == 0 && !may_be_empty) {
        return TESS_FAIL(TESS_FORMAT, "%s: line %zu is empty: expected one entry on every line",
                         path, line);
    }
    if (!tess_utf8_valid(text, n, true)) {
        return TESS_FAIL(TESS_FORMAT, "%s: line %zu is not UTF-8; convert the file, as with iconv",
                         path, line);
    }
    char *copy = tess_strndup(text, n);
    tess_status st = copy ? tess_names_add(out, copy) : TESS_NOMEM;
    tess_free(copy);
    return st;
}

tess_status tess_lines_parse(const char *text, size_t n_bytes, const char *name, bool may_be_empty,
                             tess_names *out)
{
    size_t at = n_bytes >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    while (at < n_bytes) {
        const char *lf = memchr(text + at, '\n', n_bytes - at);
        size_t n = lf ? (size_t)(lf - text) - at : n_bytes - at;
        TESS_TRY(add_line(name, text + at, n, may_be_empty, out));
        at += n + 1;
    }
    if (out->n_names == 0) {
        return TESS_FAIL(TESS_FORMAT, "%s: the file is empty: expected one entry on every line",
                         name);
    }
    return TESS_OK;
}

tess_status tess_lines_load(const char *path, bool may_be_empty, tess_names *out)
{
    uint8_t *text = NULL;
    size_t n = 0;
    tess_status st = tess_file_read(path, FILE_MAX, &text, &n);
    st = st ? st : tess_lines_parse((const char *)text, n, path, may_be_empty, out);
    tess_free(text);
    return st;
}

static int by_text(const void *a, const void *b)
{
    const char *const *x = *(const char *const *const *)a, *const *y =
                                                               *(const char *const *const *)b;
    int order = strcmp(*x, *y);
    return order ? order : (x > y) - (x < y);
}

tess_status tess_lines_find_repeated(const tess_names *names, size_t *out_first, size_t *out_second)
{
    char ***sorted = tess_alloc_array(names->n_names + 1, sizeof *sorted);
    *out_first = *out_second = SIZE_MAX;
    if (!sorted) {
        return TESS_NOMEM;
    }
    for (size_t i = 0; i < names->n_names; i++) {
        sorted[i] = &names->names[i];
    }
    qsort(sorted, names->n_names, sizeof *sorted, by_text);
    for (size_t i = 1; i < names->n_names; i++) {
        size_t second = (size_t)(sorted[i] - names->names);
        if (strcmp(*sorted[i - 1], *sorted[i]) == 0 && second < *out_second) {
            *out_first = (size_t)(sorted[i - 1] - names->names);
            *out_second = second;
        }
    }
    tess_free(sorted);
    return TESS_OK;
}

tess_status tess_templates_check(const tess_names *templates, const char *path)
{
    for (size_t i = 0; i < templates->n_names; i++) {
        if (!strstr(templates->names[i], "{c}")) {
            return TESS_FAIL(TESS_FORMAT,
                             "%s: line %zu: \"%.200s\" has no {c} where the class's name goes",
                             path, i + 1, templates->names[i]);
        }
    }
    return TESS_OK;
}
