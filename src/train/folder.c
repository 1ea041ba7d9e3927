/* SPDX-License-Identifier: Apache-2.0 */
/* folder: pictures in a directory tree, captions in the .txt or .json of the same stem.
 *
 * The listing is sorted, so what belongs to a picture is found by bisection; the order of samples
 * is the sorted order of their paths, whatever the file system says.
 */
#include "train/sample_captions.h"
#include "train/source.h"

#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Is "stem.suffix" in the sorted listing? */
static tess_status is_listed(const tess_names *listing, const char *stem, size_t n_stem,
                             const char *suffix, bool *out)
{
    char *name = tess_format("%.*s.%s", (int)n_stem, stem, suffix);
    if (!name) {
        return TESS_NOMEM;
    }
    *out = bsearch(&name, listing->names, listing->n_names, sizeof name, compare) != NULL;
    tess_free(name);
    return TESS_OK;
}

/* Is there a picture of the same stem with a suffix that is preferred to this one's? */
static tess_status has_better(const tess_dataset *ds, const tess_names *listing, const char *stem,
                              size_t n_stem, int64_t rank, bool *out)
{
    *out = false;
    for (int64_t i = 0; i < rank && !*out; i++) {
        TESS_TRY(is_listed(listing, stem, n_stem, ds->suffixes.names[i], out));
    }
    return TESS_OK;
}

static tess_status index_picture(tess_dataset *ds, uint32_t file, const tess_names *listing,
                                 const char *name, int64_t rank)
{
    size_t n_stem = (size_t)(strrchr(name, '.') - name);
    bool is_worse, has_text, has_json;
    TESS_TRY(has_better(ds, listing, name, n_stem, rank, &is_worse));
    TESS_TRY(is_listed(listing, name, n_stem, ds->options.text_suffix, &has_text));
    TESS_TRY(is_listed(listing, name, n_stem, "json", &has_json));
    if (is_worse) {
        return TESS_OK;
    }
    if (!has_text && !has_json && !ds->options.captions_optional) {
        char what[64];
        snprintf(what, sizeof what, "neither .%.30s nor .json beside it", ds->options.text_suffix);
        return tess__index_bad(ds, file, TESS_BAD_NO_CAPTION, name, strlen(name), what);
    }
    ds->has_json = ds->has_json || has_json;
    tess__record r = {.begin = ds->names.n_bytes,
                      .id = tess_hash64(name, n_stem, 0),
                      .file = file,
                      .text_at = has_text ? 0 : TESS__NOT_THERE,
                      .json_at = has_json ? 0 : TESS__NOT_THERE};
    tess_buf_add(&ds->names, name, strlen(name) + 1);
    TESS_TRY(tess_buf_check(&ds->names));
    return tess__record_add(ds, &r);
}

/* Captions without a picture. */
static tess_status index_other(tess_dataset *ds, uint32_t file, const tess_names *listing,
                               const char *name)
{
    const char *dot = strrchr(name, '.');
    bool has_picture = false;
    if (!dot || (strcmp(dot + 1, ds->options.text_suffix) != 0 && strcmp(dot, ".json") != 0)) {
        return TESS_OK;
    }
    for (size_t i = 0; i < ds->suffixes.n_names && !has_picture; i++) {
        char upper[16];
        snprintf(upper, sizeof upper, "%s", ds->suffixes.names[i]);
        for (char *p = upper; *p; p++) {
            *p = (char)(*p >= 'a' && *p <= 'z' ? *p - 'a' + 'A' : *p);
        }
        size_t n_stem = (size_t)(dot - name);
        TESS_TRY(is_listed(listing, name, n_stem, ds->suffixes.names[i], &has_picture));
        if (!has_picture) {
            TESS_TRY(is_listed(listing, name, n_stem, upper, &has_picture));
        }
    }
    return has_picture ? TESS_OK
                       : tess__index_bad(ds, file, TESS_BAD_NO_PICTURE, name, strlen(name),
                                         "no picture of this stem");
}

static tess_status index_folder(tess_dataset *ds, uint32_t file)
{
    tess_names listing = {0};
    tess_status st = tess_dir_list(ds->files[file].path, true, &listing);
    if (st == TESS_OK && listing.n_names > 1) {
        qsort(listing.names, listing.n_names, sizeof *listing.names, compare);
    }
    for (size_t i = 0; i < listing.n_names && st == TESS_OK; i++) {
        const char *name = listing.names[i];
        int64_t rank = tess__suffix_find(&ds->suffixes, name, strlen(name));
        st = rank >= 0 ? index_picture(ds, file, &listing, name, rank)
                       : index_other(ds, file, &listing, name);
    }
    tess_names_deinit(&listing);
    return st;
}

static tess_status read_folder_key(const tess_dataset *ds, const tess__record *r, tess_sample *s)
{
    const char *name = ds->names.data + r->begin;
    return tess__sample_set_key(s, name, (size_t)(strrchr(name, '.') - name));
}

static tess_status read_beside(const tess_dataset *ds, const tess__record *r, const char *suffix,
                               tess_sample *s, uint8_t **out, tess_bytes *out_bytes)
{
    size_t n = 0;
    char *path = tess_format("%s/%s.%s", ds->files[r->file].path, s->key, suffix);
    tess_status st = path ? tess__sample_read_text(s, path, out, &n) : TESS_NOMEM;
    tess_free(path);
    *out_bytes = (tess_bytes){*out, *out ? n : 0};
    return st;
}

static tess_status read_folder_captions(const tess_dataset *ds, const tess__record *r,
                                        tess_sample *s)
{
    uint8_t *text = NULL, *json = NULL;
    tess__caption_source from = {0};
    tess_status st = TESS_OK;
    if (r->text_at != TESS__NOT_THERE) {
        st = read_beside(ds, r, ds->options.text_suffix, s, &text, &from.text);
    }
    if (st == TESS_OK && r->json_at != TESS__NOT_THERE) {
        st = read_beside(ds, r, "json", s, &json, &from.json);
    }
    if (st == TESS_OK) {
        st = tess__captions_read(ds, &from, s);
    }
    tess_free(text);
    tess_free(json);
    return st;
}

static tess_status read_folder(const tess_dataset *ds, const tess__record *r, int parts,
                               tess_sample *s)
{
    if (parts & TESS_READ_CAPTIONS) {
        TESS_TRY(read_folder_captions(ds, r, s));
    }
    if (!(parts & TESS_READ_PICTURE) || s->bad != TESS_BAD_NONE) {
        return TESS_OK;
    }
    char *path = tess_format("%s/%s", ds->files[r->file].path, ds->names.data + r->begin);
    tess_status st = path ? tess__sample_read_file(ds, s, path) : TESS_NOMEM;
    tess_free(path);
    return st;
}

const tess__source tess__source_folder = {
    .type = "folder",
    .suffixes = "",
    .index = index_folder,
    .read = read_folder,
    .read_key = read_folder_key,
};
