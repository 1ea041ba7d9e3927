/* SPDX-License-Identifier: Apache-2.0 */
/* jsonl: one JSON object a line, with a picture's path and captions.
 *
 * Every line is parsed when the data set is opened, for its key; a line that is no object, or names
 * no picture, is counted and left out then.
 */
#include "train/sample_captions.h"
#include "train/source.h"

#include <string.h>

static const char *find_image(const tess_dataset *ds, const tess_json *object)
{
    for (size_t i = 0; i < ds->image_keys.n_names; i++) {
        const char *path = tess_json_string(tess_json_get(object, ds->image_keys.names[i]), "");
        if (*path) {
            return path;
        }
    }
    return NULL;
}

/* Captions alone are named by their line. */
static const char *find_key(const tess_json *object, const char *image, size_t begin, char line[40])
{
    const char *key = tess_json_string(tess_json_get(object, "key"), "");
    snprintf(line, 40, "line at byte %zu", begin);
    return *key ? key : image ? image : line;
}

static tess_status index_line(tess_dataset *ds, uint32_t file, size_t begin, size_t n_bytes)
{
    char at[40];
    int n_at = snprintf(at, sizeof at, "line at byte %zu", begin);
    const char *text = (const char *)ds->files[file].map.data + begin;
    tess_json_doc *doc = NULL;
    if (n_bytes > TESS__JSON_MAX) {
        return tess__index_bad(ds, file, TESS_BAD_TOO_LARGE, at, (size_t)n_at, "above 16 MiB");
    }
    tess_status st = tess_json_parse(text, n_bytes, "JSON", &doc);
    if (st == TESS_NOMEM) {
        return st;
    }
    const tess_json *object = st == TESS_OK ? tess_json_root(doc) : NULL;
    const char *image = find_image(ds, object);
    if (tess_json_kind_of(object) != TESS_JSON_OBJECT) {
        st = tess__index_bad(ds, file, TESS_BAD_RECORD, at, (size_t)n_at,
                             st == TESS_OK ? "expected an object" : tess_error());
    } else if (!image && !ds->options.pictures_optional) {
        st = tess__index_bad(ds, file, TESS_BAD_NO_PICTURE, at, (size_t)n_at, "no picture");
    } else {
        const char *key = find_key(object, image, begin, at);
        st = tess__record_add(ds, &(tess__record){.begin = begin,
                                                  .id = tess_hash64(key, strlen(key), 0),
                                                  .file = file,
                                                  .text_bytes = (uint32_t)n_bytes});
    }
    tess_json_free(doc);
    return st;
}

static bool is_blank_line(const uint8_t *p, size_t n)
{
    while (n > 0 && (*p == ' ' || *p == '\t' || *p == '\r')) {
        p++, n--;
    }
    return n == 0;
}

static tess_status index_jsonl(tess_dataset *ds, uint32_t file)
{
    tess_bytes map = ds->files[file].map;
    bool has_mark = map.n_bytes >= 3 && memcmp(map.data, "\xEF\xBB\xBF", 3) == 0;
    for (size_t at = has_mark ? 3 : 0; at < map.n_bytes;) {
        const uint8_t *p = map.data + at, *lf = memchr(p, '\n', map.n_bytes - at);
        size_t n = lf ? (size_t)(lf - p) : map.n_bytes - at;
        if (!is_blank_line(p, n)) {
            TESS_TRY(index_line(ds, file, at, n));
        }
        at += n + 1;
    }
    ds->has_json = true;
    return TESS_OK;
}

static tess_status open_line(const tess_dataset *ds, const tess__record *r, tess_json_doc **doc)
{
    const tess__file *f = &ds->files[r->file];
    return tess_json_parse((const char *)f->map.data + r->begin, r->text_bytes, f->path, doc);
}

/* The key comes with the rest: a line is parsed once. */
static tess_status read_jsonl(const tess_dataset *ds, const tess__record *r, int parts,
                              tess_sample *s)
{
    tess_json_doc *doc = NULL;
    TESS_TRY(open_line(ds, r, &doc));
    const tess_json *object = tess_json_root(doc);
    const char *image = find_image(ds, object);
    tess_status st = TESS_OK;
    if (!image && !ds->options.pictures_optional) {
        st = TESS_FAIL(TESS_FORMAT, "%s: changed while it is open", ds->files[r->file].path);
    } else {
        char line[40];
        const char *key = find_key(object, image, r->begin, line);
        st = tess__sample_set_key(s, key, strlen(key));
    }
    if (st == TESS_OK && parts & TESS_READ_CAPTIONS) {
        st = tess__captions_read(ds, &(tess__caption_source){.object = object}, s);
    }
    if (st == TESS_OK && parts & TESS_READ_PICTURE && s->bad == TESS_BAD_NONE && image) {
        st = tess__sample_read_linked(ds, s, &ds->files[r->file], image);
    }
    tess_json_free(doc);
    return st;
}

const tess__source tess__source_jsonl = {
    .type = "jsonl",
    .suffixes = "jsonl|ndjson",
    .is_mapped = true,
    .index = index_jsonl,
    .read = read_jsonl,
};
