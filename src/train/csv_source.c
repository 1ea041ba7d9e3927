/* SPDX-License-Identifier: Apache-2.0 */
/* csv_source: tables with a header row, a column of picture paths and one of captions. */
#include "train/sample_captions.h"
#include "train/csv.h"
#include "train/source.h"

#include <string.h>

static char find_separator(const char *option, tess_bytes map)
{
    if (option && (strcmp(option, "\\t") == 0 || strcmp(option, "tab") == 0)) {
        return '\t';
    }
    if (option && *option) {
        return *option;
    }
    const uint8_t *end = map.n_bytes > 0 ? memchr(map.data, '\n', map.n_bytes) : NULL;
    size_t n = end ? (size_t)(end - map.data) : map.n_bytes;
    return n > 0 && memchr(map.data, '\t', n) ? '\t' : ',';
}

static tess_status no_column(const tess__csv *c, const char *path, const char *key,
                             const char *option)
{
    tess_buf have = {0};
    size_t n;
    for (size_t i = 0; i < c->n_fields; i++) {
        tess_buf_addf(&have, "%s'%.40s'", i > 0 ? ", " : "", tess__csv_field(c, i, &n));
    }
    tess_status st = TESS_FAIL(TESS_INVALID,
                               "%s: no column '%s' in the header row, which has %.400s; name it "
                               "with %s, or the separator with --csv-separator",
                               path, key, have.data ? have.data : "nothing", option);
    tess_buf_deinit(&have);
    return st;
}

static tess_status find_column(const tess__csv *c, const char *path, const char *key,
                               const char *option, uint32_t *out)
{
    size_t n;
    for (size_t i = 0; i < c->n_fields; i++) {
        if (strcmp(tess__csv_field(c, i, &n), key) == 0) {
            *out = (uint32_t)i;
            return TESS_OK;
        }
    }
    return no_column(c, path, key, option);
}

static bool is_caption_column(const tess_dataset *ds, const char *name)
{
    for (size_t i = 0; ds->has_own_keys && i < ds->caption_keys.n_names; i++) {
        if (strcmp(ds->caption_keys.names[i], name) == 0) {
            return true;
        }
    }
    return !ds->has_own_keys && strcmp(name, ds->options.csv_image_key) != 0 &&
           strcmp(name, "key") != 0;
}

/* A table of captions alone: a column for each language. */
static tess_status read_languages(tess_dataset *ds, tess__file *f, const tess__csv *c)
{
    size_t n, n_found = 0;
    f->languages = tess_arena_alloc(&ds->arena, (c->n_fields + 1) * sizeof *f->languages);
    TESS_TRY(f->languages ? TESS_OK : TESS_NOMEM);
    f->image_column = f->text_column = TESS__NOT_THERE;
    f->n_languages = c->n_fields;
    for (size_t i = 0; i < c->n_fields; i++) {
        const char *name = tess__csv_field(c, i, &n);
        if (*name && is_caption_column(ds, name)) {
            f->languages[i] = tess_arena_strndup(&ds->arena, name, n);
            TESS_TRY(f->languages[i] ? TESS_OK : TESS_NOMEM);
            n_found++;
        }
    }
    ds->has_json = true; /* languages have names */
    return n_found > 0 ? TESS_OK : no_column(c, f->path, ds->options.caption_key, "--caption-key");
}

static tess_status read_header(tess_dataset *ds, tess__file *f, tess__csv *c)
{
    bool is_end, ok;
    if (c->map.n_bytes >= 3 && memcmp(c->map.data, "\xEF\xBB\xBF", 3) == 0) {
        c->at = 3;
    }
    TESS_TRY(tess__csv_next(c, &is_end, &ok));
    if (is_end || !ok) {
        return TESS_FAIL(TESS_FORMAT, "%s: expected a header row, found %s", f->path,
                         is_end ? "nothing" : "a quote that does not close");
    }
    if (ds->options.pictures_optional) {
        return read_languages(ds, f, c);
    }
    TESS_TRY(find_column(c, f->path, ds->options.csv_image_key, "--csv-img-key", &f->image_column));
    f->text_column = TESS__NOT_THERE;
    tess_status st =
        find_column(c, f->path, ds->options.csv_caption_key, "--csv-caption-key", &f->text_column);
    return ds->options.captions_optional && st == TESS_INVALID ? TESS_OK : st;
}

static int name_row(uint64_t begin, char out[40])
{
    return snprintf(out, 40, "row at byte %llu", (unsigned long long)begin);
}

static tess_status index_row(tess_dataset *ds, uint32_t file, const tess__csv *c, size_t n_columns,
                             bool ok)
{
    const tess__file *f = &ds->files[file];
    char at[40];
    int n_at = name_row(c->row_at, at);
    if (!ok) {
        return tess__index_bad(ds, file, TESS_BAD_RECORD, at, (size_t)n_at,
                               "its quotes do not close, or it is above 1 MiB");
    }
    if (c->n_fields != n_columns) {
        char what[80];
        snprintf(what, sizeof what, "%zu fields where the header has %zu", c->n_fields, n_columns);
        return tess__index_bad(ds, file, TESS_BAD_RECORD, at, (size_t)n_at, what);
    }
    size_t n_path = (size_t)n_at;
    const char *path = f->languages ? at : tess__csv_field(c, f->image_column, &n_path);
    if (n_path == 0) {
        return tess__index_bad(ds, file, TESS_BAD_NO_PICTURE, at, (size_t)n_at, "no picture");
    }
    return tess__record_add(ds, &(tess__record){.begin = c->row_at,
                                                .id = tess_hash64(path, n_path, 0),
                                                .file = file,
                                                .text_bytes = (uint32_t)c->row_bytes});
}

static tess_status index_csv(tess_dataset *ds, uint32_t file)
{
    tess__file *f = &ds->files[file];
    f->separator = find_separator(ds->options.csv_separator, f->map);
    tess__csv c = {.map = f->map, .separator = f->separator};
    tess_status st = read_header(ds, f, &c);
    size_t n_columns = c.n_fields;
    while (st == TESS_OK) {
        bool is_end, ok;
        st = tess__csv_next(&c, &is_end, &ok);
        if (st != TESS_OK || is_end) {
            break;
        }
        st = index_row(ds, file, &c, n_columns, ok);
    }
    tess__csv_deinit(&c);
    return st;
}

/* The row of a record; the caller deinits. */
static tess_status open_row(const tess_dataset *ds, const tess__record *r, tess__csv *c)
{
    const tess__file *f = &ds->files[r->file];
    bool is_end, ok;
    *c = (tess__csv){.map = {f->map.data + r->begin, r->text_bytes}, .separator = f->separator};
    TESS_TRY(tess__csv_next(c, &is_end, &ok));
    bool has_text = f->text_column == TESS__NOT_THERE || f->text_column < c->n_fields;
    bool has_image = f->languages ? c->n_fields == f->n_languages : f->image_column < c->n_fields;
    if (is_end || !ok || !has_image || !has_text) {
        return TESS_FAIL(TESS_FORMAT, "%s: changed while it is open", f->path);
    }
    return TESS_OK;
}

static tess_status read_csv_key(const tess_dataset *ds, const tess__record *r, tess_sample *s)
{
    tess__csv c;
    size_t n = 0;
    tess_status st = open_row(ds, r, &c);
    if (st == TESS_OK && ds->files[r->file].languages) {
        char at[40];
        st = tess__sample_set_key(s, at, (size_t)name_row(r->begin, at));
    } else if (st == TESS_OK) {
        const char *path = tess__csv_field(&c, ds->files[r->file].image_column, &n);
        st = tess__sample_set_key(s, path, n);
    }
    tess__csv_deinit(&c);
    return st;
}

static tess_status read_row_captions(const tess_dataset *ds, const tess__file *f,
                                     const tess__csv *c, tess_sample *s)
{
    tess__caption_source from = {0};
    if (f->languages) {
        from.row = c;
        from.languages = f->languages;
    } else if (f->text_column != TESS__NOT_THERE) {
        size_t n;
        const char *text = tess__csv_field(c, f->text_column, &n);
        from.text = (tess_bytes){(const uint8_t *)text, n};
        from.is_column = true;
    }
    return tess__captions_read(ds, &from, s);
}

static tess_status read_csv(const tess_dataset *ds, const tess__record *r, int parts,
                            tess_sample *s)
{
    const tess__file *f = &ds->files[r->file];
    tess__csv c;
    tess_status st = open_row(ds, r, &c);
    if (st == TESS_OK && parts & TESS_READ_CAPTIONS) {
        st = read_row_captions(ds, f, &c, s);
    }
    const bool reads_picture = parts & TESS_READ_PICTURE && !f->languages;
    if (st == TESS_OK && reads_picture && s->bad == TESS_BAD_NONE) {
        st = tess__sample_read_linked(ds, s, f, s->key);
    }
    tess__csv_deinit(&c);
    return st;
}

const tess__source tess__source_csv = {
    .type = "csv",
    .suffixes = "csv|tsv",
    .is_mapped = true,
    .index = index_csv,
    .read = read_csv,
    .read_key = read_csv_key,
};
