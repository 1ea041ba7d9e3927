/* SPDX-License-Identifier: Apache-2.0 */
/* Reading texts from a mapped file.  One bad line never ends the walk: it is counted with its line
 * number and what is wrong. */
#include "train/text_source.h"

#include "train/sample_captions.h"

#include <string.h>

#define NO_COLUMN ((size_t)-1)

static tess_status add_bad(const tess__texts *t, tess_bad_list *bad, tess_bad reason,
                           const char *what)
{
    char name[512];
    snprintf(name, sizeof name, "%.200s:%lld: %.250s", t->path, (long long)t->line, what);
    return tess_bad_list_add(bad, reason, 1, name);
}

/* Only what has a letter, a digit, anything but white space and control characters. */
static bool is_blank(const char *s, size_t n)
{
    while (n > 0 && (uint8_t)*s <= ' ') {
        s++, n--;
    }
    return n == 0;
}

static size_t cut_at_character(const char *s, size_t n, size_t most)
{
    size_t end = n < most ? n : most;
    while (end > 0 && end < n && ((uint8_t)s[end] & 0xc0) == 0x80) {
        end--;
    }
    return end;
}

/* Keeps a record's key and text; *ok false when it was counted as bad. */
static tess_status keep(tess__texts *t, tess_bad_list *bad, const char *key, const char *text,
                        size_t n_text, bool *ok)
{
    *ok = false;
    if (!text || is_blank(text, n_text)) {
        char what[96];
        snprintf(what, sizeof what, "%s \"%.40s\"", text ? "nothing in" : "no", t->text_key);
        return add_bad(t, bad, TESS_BAD_NO_CAPTION, what);
    }
    if (!tess_utf8_valid(text, n_text, true) || (key && !tess_utf8_valid(key, strlen(key), true))) {
        return add_bad(t, bad, TESS_BAD_RECORD, "not UTF-8");
    }
    if (key && strlen(key) > 1024) {
        return add_bad(t, bad, TESS_BAD_RECORD, "a key of more than 1024 bytes");
    }
    tess_buf_clear(&t->key);
    tess_buf_clear(&t->text);
    tess_buf_add(&t->text, text, cut_at_character(text, n_text, TESS__TEXT_MAX));
    if (key && *key) {
        tess_buf_adds(&t->key, key);
    } else {
        tess_buf_addf(&t->key, "%s %lld", t->is_csv ? "row" : "line", (long long)t->line);
    }
    *ok = true;
    TESS_TRY(tess_buf_check(&t->key));
    return tess_buf_check(&t->text);
}

/* ---- JSON lines ---------------------------------------------------------------------------- */

/* A string, or a whole number as its digits in `digits`; NULL when it is neither. */
static const char *id_string(const tess_json *v, char digits[32])
{
    if (tess_json_kind_of(v) == TESS_JSON_INT) {
        snprintf(digits, 32, "%lld", (long long)tess_json_int(v, 0));
        return digits;
    }
    return tess_json_string(v, NULL);
}

static const char *find_id(const tess__texts *t, const tess_json *object, char digits[32])
{
    if (t->id_key) {
        return id_string(tess_json_get(object, t->id_key), digits);
    }
    const char *key = id_string(tess_json_get(object, "key"), digits);
    return key ? key : id_string(tess_json_get(object, "id"), digits);
}

static tess_status read_line(tess__texts *t, tess_bad_list *bad, const char *line, size_t n_bytes,
                             bool *ok)
{
    *ok = false;
    if (n_bytes > TESS__JSON_MAX) {
        return add_bad(t, bad, TESS_BAD_TOO_LARGE, "a line above 16 MiB");
    }
    char digits[32];
    tess_json_doc *doc = NULL;
    tess_status st = tess_json_parse(line, n_bytes, "JSON", &doc);
    if (st == TESS_NOMEM) {
        return st;
    }
    const tess_json *root = st == TESS_OK ? tess_json_root(doc) : NULL;
    if (tess_json_kind_of(root) != TESS_JSON_OBJECT) {
        st = add_bad(t, bad, TESS_BAD_RECORD, st ? tess_error() : "expected an object");
    } else {
        const char *text = tess_json_string(tess_json_get(root, t->text_key), NULL);
        st = keep(t, bad, find_id(t, root, digits), text, text ? strlen(text) : 0, ok);
    }
    tess_json_free(doc);
    return st;
}

static tess_status next_line(tess__texts *t, tess_bad_list *bad, bool *ok)
{
    const uint8_t *p = t->map.data + t->at, *lf = memchr(p, '\n', t->map.n_bytes - t->at);
    const size_t n = lf ? (size_t)(lf - p) : t->map.n_bytes - t->at;
    t->at += n + (lf != NULL);
    t->line++;
    *ok = false;
    return is_blank((const char *)p, n) ? TESS_OK : read_line(t, bad, (const char *)p, n, ok);
}

/* ---- tables -------------------------------------------------------------------------------- */

static size_t find_column(const tess__csv *c, const char *name)
{
    size_t n;
    for (size_t i = 0; name && i < c->n_fields; i++) {
        if (strcmp(tess__csv_field(c, i, &n), name) == 0) {
            return i;
        }
    }
    return NO_COLUMN;
}

static tess_status read_header(tess__texts *t)
{
    bool is_end, ok;
    TESS_TRY(tess__csv_next(&t->csv, &is_end, &ok));
    t->line = 1;
    t->text_column = is_end || !ok ? NO_COLUMN : find_column(&t->csv, t->text_key);
    if (t->text_column == NO_COLUMN) {
        return TESS_FAIL(TESS_INVALID,
                         "%s: no column \"%s\" in its first row: name it with --text-key", t->path,
                         t->text_key);
    }
    t->id_column = find_column(&t->csv, t->id_key ? t->id_key : "key");
    if (t->id_key && t->id_column == NO_COLUMN) {
        return TESS_FAIL(TESS_INVALID, "%s: no column \"%s\" in its first row", t->path, t->id_key);
    }
    if (!t->id_key && t->id_column == NO_COLUMN) {
        t->id_column = find_column(&t->csv, "id");
    }
    t->n_columns = t->csv.n_fields;
    return TESS_OK;
}

static tess_status next_row(tess__texts *t, tess_bad_list *bad, bool *is_end, bool *ok)
{
    bool whole;
    size_t n_text = 0, n_key;
    *ok = false;
    TESS_TRY(tess__csv_next(&t->csv, is_end, &whole));
    if (*is_end) {
        return TESS_OK;
    }
    t->line++;
    t->at = t->csv.at;
    if (!whole || t->csv.n_fields != t->n_columns) {
        return add_bad(t, bad, TESS_BAD_RECORD,
                       whole ? "another number of fields than the first row has"
                             : "its quotes do not close, or it is above 1 MiB");
    }
    const char *text = tess__csv_field(&t->csv, t->text_column, &n_text);
    const char *key =
        t->id_column == NO_COLUMN ? NULL : tess__csv_field(&t->csv, t->id_column, &n_key);
    return keep(t, bad, key, text, n_text, ok);
}

/* ---- both ---------------------------------------------------------------------------------- */

static bool ends_with(const char *s, const char *suffix)
{
    const size_t n = strlen(s), k = strlen(suffix);
    return n >= k && strcasecmp(s + n - k, suffix) == 0;
}

tess_status tess__texts_open(const char *path, const char *text_key, const char *id_key,
                             tess__texts *t)
{
    const bool tsv = ends_with(path, ".tsv");
    *t = (tess__texts){.path = path,
                       .text_key = text_key ? text_key : "text",
                       .id_key = id_key,
                       .is_csv = tsv || ends_with(path, ".csv")};
    if (tess_path_is_dir(path)) {
        return TESS_FAIL(TESS_INVALID, "%s: expected a file of texts, found a folder", path);
    }
    TESS_TRY(tess_file_map(path, &t->map));
    if (t->map.n_bytes >= 3 && memcmp(t->map.data, "\xEF\xBB\xBF", 3) == 0) {
        t->at = 3;
    }
    if (!t->is_csv) {
        return TESS_OK;
    }
    t->csv = (tess__csv){.map = t->map, .at = t->at, .separator = tsv ? '\t' : ','};
    return read_header(t);
}

tess_status tess__texts_next(tess__texts *t, tess_bad_list *bad, bool *out_end)
{
    bool ok = false;
    *out_end = false;
    while (!ok) {
        if (!t->is_csv && t->at >= t->map.n_bytes) {
            *out_end = true;
            return TESS_OK;
        }
        TESS_TRY(t->is_csv ? next_row(t, bad, out_end, &ok) : next_line(t, bad, &ok));
        if (*out_end) {
            return TESS_OK;
        }
    }
    return TESS_OK;
}

void tess__texts_close(tess__texts *t)
{
    tess__csv_deinit(&t->csv);
    tess_buf_deinit(&t->key);
    tess_buf_deinit(&t->text);
    tess_file_unmap(&t->map);
}
