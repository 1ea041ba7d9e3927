/* SPDX-License-Identifier: Apache-2.0 */
/* source_multilingual: two published test sets of pictures with captions in many languages, as
 * they lie on disk.
 *
 *   xtd10           test_image_names.txt, one picture a line, and test_1kcaptions_<language>.txt
 *                   with the caption of the same line (Aggarwal & Kale 2020; any set of languages)
 *   crossmodal3600  captions.jsonl: "image/key" and, for each language, {"caption": [...]}
 *                   (Thapliyal et al. 2022); pictures are <image/key>.jpg
 *
 * Both are brought to JSON lines in memory, {"image": ..., "captions": {language: [...]}}, a few
 * megabytes, so that a sample is read as any other line is.  Pictures lie in images/ beside the
 * captions, in the same folder, or where image_root says.  One that is absent is a bad sample when
 * it is read; files of captions that do not fit the list of pictures are refused, since a shift by
 * one line would give figures that only look bad. */
#include "train/sample_captions.h"
#include "train/source.h"

#include <string.h>

static const char *const xtd_prefix = "test_1kcaptions_", *const xtd_suffix = ".txt";

static tess_status add_record(tess_dataset *ds, uint32_t file, const char *image, size_t begin,
                              size_t end)
{
    if (end - begin > TESS__JSON_MAX) {
        return tess__index_bad(ds, file, TESS_BAD_TOO_LARGE, image, strlen(image),
                               "its captions have more than 16 MiB");
    }
    return tess__record_add(ds, &(tess__record){.begin = begin,
                                                .id = tess_hash64(image, strlen(image), 0),
                                                .file = file,
                                                .text_bytes = (uint32_t)(end - begin)});
}

/* The text made becomes the file that records point into. */
static tess_status keep_text(tess_dataset *ds, uint32_t file, tess_buf *text)
{
    tess__file *f = &ds->files[file];
    TESS_TRY(tess_buf_check(text));
    f->text = text->data;
    f->map = (tess_bytes){(const uint8_t *)text->data, text->n_bytes};
    *text = (tess_buf){0};
    ds->has_json = true;
    return TESS_OK;
}

/* ---- XTD10 --------------------------------------------------------------------------------- */

typedef struct column {
    char *language;
    tess_names lines;
} column;

typedef struct xtd {
    tess_names pictures, entries;
    column *columns;
    size_t n_columns, cap_columns;
    tess_buf text;
} xtd;

static tess_status load_column(xtd *x, const char *dir, const char *name, size_t n_language)
{
    TESS_TRY(tess_grow(&x->columns, &x->cap_columns, x->n_columns + 1, sizeof *x->columns));
    column *c = &x->columns[x->n_columns++];
    c->language = tess_strndup(name + strlen(xtd_prefix), n_language);
    char *path = tess_format("%s/%s", dir, name);
    tess_status st = c->language && path ? tess_lines_load(path, true, &c->lines) : TESS_NOMEM;
    if (st == TESS_OK && c->lines.n_names != x->pictures.n_names) {
        st = TESS_FAIL(TESS_FORMAT,
                       "%s: %zu lines, but test_image_names.txt has %zu: expected the caption of "
                       "the same line's picture",
                       path, c->lines.n_names, x->pictures.n_names);
    }
    tess_free(path);
    return st;
}

static tess_status load_columns(xtd *x, const char *dir)
{
    size_t n_prefix = strlen(xtd_prefix), n_suffix = strlen(xtd_suffix);
    TESS_TRY(tess_dir_list(dir, false, &x->entries));
    for (size_t i = 0; i < x->entries.n_names; i++) {
        const char *name = x->entries.names[i];
        size_t n = strlen(name);
        if (n > n_prefix + n_suffix && strncmp(name, xtd_prefix, n_prefix) == 0 &&
            strcmp(name + n - n_suffix, xtd_suffix) == 0) {
            TESS_TRY(load_column(x, dir, name, n - n_prefix - n_suffix));
        }
    }
    if (x->n_columns == 0) {
        return TESS_FAIL(TESS_FORMAT,
                         "%s: test_image_names.txt is there, but no test_1kcaptions_LANGUAGE.txt",
                         dir);
    }
    return TESS_OK;
}

static tess_status write_lines(tess_dataset *ds, uint32_t file, xtd *x)
{
    for (size_t i = 0; i < x->pictures.n_names; i++) {
        size_t begin = x->text.n_bytes;
        tess_json_writer w = {.buf = &x->text};
        tess_json_begin_object(&w);
        tess_json_key(&w, "image");
        tess_json_add_string(&w, x->pictures.names[i]);
        tess_json_key(&w, "captions");
        tess_json_begin_object(&w);
        for (size_t k = 0; k < x->n_columns; k++) {
            tess_json_key(&w, x->columns[k].language);
            tess_json_add_string(&w, x->columns[k].lines.names[i]);
        }
        tess_json_end_object(&w);
        tess_json_end_object(&w);
        TESS_TRY(add_record(ds, file, x->pictures.names[i], begin, x->text.n_bytes));
    }
    return keep_text(ds, file, &x->text);
}

static tess_status index_xtd10(tess_dataset *ds, uint32_t file)
{
    const char *dir = ds->files[file].path;
    xtd x = {0};
    char *path = tess_format("%s/test_image_names.txt", dir);
    tess_status st = path ? tess_lines_load(path, false, &x.pictures) : TESS_NOMEM;
    st = st ? st : load_columns(&x, dir);
    st = st ? st : write_lines(ds, file, &x);
    for (size_t k = 0; k < x.n_columns; k++) {
        tess_free(x.columns[k].language);
        tess_names_deinit(&x.columns[k].lines);
    }
    tess_free(x.columns);
    tess_names_deinit(&x.pictures);
    tess_names_deinit(&x.entries);
    tess_buf_deinit(&x.text);
    tess_free(path);
    return st;
}

/* ---- Crossmodal-3600 ----------------------------------------------------------------------- */

static void write_captions(tess_json_writer *w, const tess_json *object)
{
    tess_json_key(w, "captions");
    tess_json_begin_object(w);
    for (size_t i = 0; i < tess_json_count(object); i++) {
        const char *language = "";
        const tess_json *captions =
            tess_json_get(tess_json_member(object, i, &language), "caption");
        if (captions) {
            tess_json_key(w, language);
            tess_json_add_value(w, captions);
        }
    }
    tess_json_end_object(w);
}

static tess_status add_line(tess_dataset *ds, uint32_t file, const char *at, const char *line,
                            size_t n_bytes, tess_buf *text)
{
    tess_json_doc *doc = NULL;
    size_t begin = text->n_bytes;
    tess_json_writer w = {.buf = text};
    tess_status st = n_bytes > TESS__JSON_MAX ? TESS_FAIL(TESS_FORMAT, "above 16 MiB")
                                              : tess_json_parse(line, n_bytes, "JSON", &doc);
    if (st == TESS_NOMEM) {
        return st;
    }
    const tess_json *object = st == TESS_OK ? tess_json_root(doc) : NULL;
    const char *key = tess_json_string(tess_json_get(object, "image/key"), "");
    if (!*key) {
        st = tess__index_bad(ds, file, TESS_BAD_RECORD, at, strlen(at),
                             st == TESS_OK ? "no \"image/key\"" : tess_error());
    } else {
        tess_json_begin_object(&w);
        tess_json_key(&w, "image");
        tess_json_add_string(&w, key);
        write_captions(&w, object);
        tess_json_end_object(&w);
        st = add_record(ds, file, key, begin, text->n_bytes);
    }
    tess_json_free(doc);
    return st;
}

static tess_status index_crossmodal(tess_dataset *ds, uint32_t file)
{
    tess_bytes map = {0};
    tess_buf text = {0};
    char *path = tess_format("%s/captions.jsonl", ds->files[file].path);
    tess_status st = path ? tess_file_map(path, &map) : TESS_NOMEM;
    size_t line = 1;
    for (size_t at = 0; st == TESS_OK && at < map.n_bytes; line++) {
        const char *p = (const char *)map.data + at, *lf = memchr(p, '\n', map.n_bytes - at);
        size_t n = lf ? (size_t)(lf - p) : map.n_bytes - at;
        char where[48];
        snprintf(where, sizeof where, "captions.jsonl line %zu", line);
        if (n > 0 && !(n == 1 && *p == '\r')) {
            st = add_line(ds, file, where, p, n, &text);
        }
        at += n + 1;
    }
    st = st || text.n_bytes == 0 ? st : keep_text(ds, file, &text);
    tess_file_unmap(&map);
    tess_buf_deinit(&text);
    tess_free(path);
    return st;
}

/* ---- reading ------------------------------------------------------------------------------- */

/* Where a picture lies: its name as it is, or with the first suffix under which there is one. */
static char *find_picture(const tess_dataset *ds, const char *dir, const char *image, bool bare)
{
    char *path = bare ? NULL : tess_format("%s/%s", dir, image);
    for (size_t i = 0; bare && i < ds->suffixes.n_names; i++) {
        tess_free(path);
        path = tess_format("%s/%s.%s", dir, image, ds->suffixes.names[i]);
        if (!path || tess_path_exists(path)) {
            return path;
        }
    }
    return path;
}

static tess_status read_picture(const tess_dataset *ds, tess_sample *s, const tess__file *f,
                                const char *image)
{
    const char *root = ds->options.image_root;
    char *dir = root ? tess_strdup(root) : tess_format("%s/images", f->path);
    if (dir && !root && !tess_path_is_dir(dir)) {
        tess_free(dir);
        dir = tess_strdup(f->path);
    }
    char *path = dir ? find_picture(ds, dir, image, f->source == &tess__source_crossmodal) : NULL;
    tess_status st = path ? tess__sample_read_file(ds, s, path) : TESS_NOMEM;
    tess_free(dir);
    tess_free(path);
    return st;
}

static tess_status read_line(const tess_dataset *ds, const tess__record *r, int parts,
                             tess_sample *s)
{
    const tess__file *f = &ds->files[r->file];
    tess_json_doc *doc = NULL;
    TESS_TRY(tess_json_parse(f->text + r->begin, r->text_bytes, f->path, &doc));
    const tess_json *object = tess_json_root(doc);
    const char *image = tess_json_string(tess_json_get(object, "image"), "");
    tess_status st = tess__sample_set_key(s, image, strlen(image));
    if (st == TESS_OK && parts & TESS_READ_CAPTIONS) {
        st = tess__captions_read(ds, &(tess__caption_source){.object = object}, s);
    }
    if (st == TESS_OK && parts & TESS_READ_PICTURE && s->bad == TESS_BAD_NONE) {
        st = read_picture(ds, s, f, image);
    }
    tess_json_free(doc);
    return st;
}

const tess__source tess__source_xtd10 = {
    .type = "xtd10",
    .suffixes = "",
    .sign = "test_image_names.txt",
    .index = index_xtd10,
    .read = read_line,
};

const tess__source tess__source_crossmodal = {
    .type = "crossmodal3600",
    .suffixes = "",
    .sign = "captions.jsonl",
    .sign_word = "\"image/key\"",
    .index = index_crossmodal,
    .read = read_line,
};
