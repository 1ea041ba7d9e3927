/* SPDX-License-Identifier: Apache-2.0 */
/* source: opening a data set.
 *
 * Names are expanded, each is given its kind (a table of sources), mapped and indexed.  A file that
 * was asked for and is not there is a failure: a data set that silently shrinks gives wrong
 * figures.  A file that is there but damaged is counted and read as far as it goes.
 */
#include "train/sample_captions.h"
#include "train/source.h"

#include <string.h>

#define SIGN_BYTES 65536

static const tess__source *const sources[] = {
    &tess__source_tar,    &tess__source_csv,   &tess__source_jsonl,
    &tess__source_folder, &tess__source_xtd10, &tess__source_crossmodal,
};

static const char *const default_image_keys = "image|image_path|filepath|url";
static const char *const default_caption_keys = "captions|txt|caption|text|title";
static const char *const default_suffixes = "jpg;jpeg;png;webp";

/* ---- options ------------------------------------------------------------------------------ */

static const char *keep(tess_dataset *ds, const char *s, const char *fallback, bool *ok)
{
    s = s ? s : fallback;
    if (!s) {
        return NULL;
    }
    const char *copy = tess_arena_strndup(&ds->arena, s, strlen(s));
    *ok = *ok && copy;
    return copy;
}

static tess_status set_options(tess_dataset *ds, const tess_dataset_options *o)
{
    bool ok = true;
    tess_dataset_options *own = &ds->options;
    *own = *o;
    own->type = keep(ds, o->type, "auto", &ok);
    own->csv_separator = keep(ds, o->csv_separator, NULL, &ok);
    own->csv_image_key = keep(ds, o->csv_image_key, "filepath", &ok);
    own->csv_caption_key = keep(ds, o->csv_caption_key, "title", &ok);
    own->image_key = keep(ds, o->image_key, default_image_keys, &ok);
    own->caption_key = keep(ds, o->caption_key, default_caption_keys, &ok);
    ds->has_own_keys = o->caption_key != NULL;
    own->image_suffixes = keep(ds, o->image_suffixes, default_suffixes, &ok);
    own->text_suffix = keep(ds, o->text_suffix, "txt", &ok);
    own->image_root = keep(ds, o->image_root, NULL, &ok);
    own->max_picture_bytes = o->max_picture_bytes ? o->max_picture_bytes : (size_t)64 << 20;
    own->max_caption_bytes = o->max_caption_bytes ? o->max_caption_bytes : (size_t)64 << 10;
    own->max_captions = o->max_captions ? o->max_captions : 4096;
    if (!ok) {
        return TESS_NOMEM;
    }
    if (own->max_picture_bytes > UINT32_MAX / 2 || own->max_caption_bytes > UINT32_MAX / 2 ||
        own->max_captions < 0 || own->max_captions > INT32_MAX) {
        return TESS_FAIL(TESS_INVALID, "limits on pictures and captions must be below 2 GiB");
    }
    TESS_TRY(tess__names_split(own->image_key, "|", &ds->image_keys));
    TESS_TRY(tess__names_split(own->caption_key, "|", &ds->caption_keys));
    return tess__names_split(own->image_suffixes, ";|,", &ds->suffixes);
}

/* ---- kinds -------------------------------------------------------------------------------- */

static tess_status find_by_type(const char *type, const tess__source **out)
{
    type = strcmp(type, "tsv") == 0 ? "csv" : type;
    for (int64_t i = 0; i < TESS_COUNT(sources); i++) {
        if (strcmp(sources[i]->type, type) == 0) {
            *out = sources[i];
            return TESS_OK;
        }
    }
    return TESS_FAIL(TESS_INVALID,
                     "data set type '%s' is not one of auto, webdataset, csv, tsv, jsonl, folder, "
                     "xtd10, crossmodal3600",
                     type);
}

static tess_status find_by_suffix(const char *path, const tess__source **out)
{
    for (int64_t i = 0; i < TESS_COUNT(sources); i++) {
        tess_names suffixes = {0};
        tess_status st = tess__names_split(sources[i]->suffixes, "|", &suffixes);
        int64_t at = tess__suffix_find(&suffixes, path, strlen(path));
        tess_names_deinit(&suffixes);
        TESS_TRY(st);
        if (at >= 0) {
            *out = sources[i];
            return TESS_OK;
        }
    }
    return TESS_FAIL(TESS_INVALID,
                     "%s: cannot tell its type from the name (.tar, .csv, .tsv, .jsonl, .ndjson or "
                     "a directory); say it with --dataset-type",
                     path);
}

static tess_status add_file(tess_dataset *ds, const char *path, const tess__source *source)
{
    TESS_TRY(tess_grow(&ds->files, &ds->cap_files, ds->n_files + 1, sizeof *ds->files));
    tess__file *f = &ds->files[ds->n_files];
    *f = (tess__file){.source = source};
    f->path = tess_arena_strndup(&ds->arena, path, strlen(path));
    ds->n_files += f->path != NULL;
    return f->path ? TESS_OK : TESS_NOMEM;
}

/* Is there such a file, with the word (NULL: any will do) near its beginning? */
static tess_status has_sign(const char *path, const char *word, bool *out)
{
    tess_bytes map = {0};
    *out = tess_path_exists(path);
    if (!*out || !word) {
        return TESS_OK;
    }
    TESS_TRY(tess_file_map(path, &map));
    size_t n = map.n_bytes < SIGN_BYTES ? map.n_bytes : SIGN_BYTES;
    *out = n > 0 && memmem(map.data, n, word, strlen(word));
    tess_file_unmap(&map);
    return TESS_OK;
}

/* A directory that is one data set, known by the name of a file in it; `type` auto: any. */
static tess_status find_layout(const char *path, const char *type, const tess__source **out)
{
    bool any = strcmp(type, "auto") == 0;
    *out = NULL;
    for (int64_t i = 0; i < TESS_COUNT(sources) && !*out; i++) {
        const tess__source *s = sources[i];
        if (!s->sign || (!any && strcmp(type, s->type) != 0)) {
            continue;
        }
        char *sign = tess_format("%s/%s", path, s->sign);
        if (!sign) {
            return TESS_NOMEM;
        }
        bool is_there;
        tess_status st = has_sign(sign, any ? s->sign_word : NULL, &is_there);
        tess_free(sign);
        TESS_TRY(st);
        *out = is_there ? s : NULL;
    }
    return TESS_OK;
}

/* The .tar files of a directory, sorted; none: the directory is a folder of pictures. */
static tess_status add_shards(tess_dataset *ds, const char *path, size_t *out_n)
{
    tess_names entries = {0};
    tess_status st = tess_dir_list(path, false, &entries);
    *out_n = 0;
    for (size_t i = 0; i < entries.n_names && st == TESS_OK; i++) {
        const char *name = entries.names[i];
        size_t n = strlen(name);
        if (n > 4 && strcmp(name + n - 4, ".tar") == 0) {
            char *shard = tess_format("%s/%s", path, name);
            st = shard ? add_file(ds, shard, &tess__source_tar) : TESS_NOMEM;
            tess_free(shard);
            ++*out_n;
        }
    }
    tess_names_deinit(&entries);
    return st;
}

static tess_status add_directory(tess_dataset *ds, const char *path)
{
    const char *type = ds->options.type;
    size_t n_shards = 0;
    const tess__source *layout;
    TESS_TRY(find_layout(path, type, &layout));
    if (layout) {
        return add_file(ds, path, layout);
    }
    if (strcmp(type, "auto") == 0 || strcmp(type, "webdataset") == 0) {
        TESS_TRY(add_shards(ds, path, &n_shards));
    }
    if (n_shards > 0) {
        return TESS_OK;
    }
    if (strcmp(type, "auto") != 0 && strcmp(type, "folder") != 0) {
        TESS_TRY(find_by_type(type, &layout));
        return TESS_FAIL(TESS_INVALID, "%s: a directory without %s is no %s data set", path,
                         layout->sign ? layout->sign : ".tar files", type);
    }
    return add_file(ds, path, &tess__source_folder);
}

static tess_status add_path(tess_dataset *ds, const char *path)
{
    const tess__source *source = NULL;
    if (!tess_path_exists(path)) {
        return TESS_FAIL(TESS_IO, "%s: no such file or directory; check the path and its braces",
                         path);
    }
    if (tess_path_is_dir(path)) {
        return add_directory(ds, path);
    }
    if (strcmp(ds->options.type, "auto") == 0) {
        TESS_TRY(find_by_suffix(path, &source));
    } else {
        TESS_TRY(find_by_type(ds->options.type, &source));
    }
    if (source == &tess__source_folder || source->sign) {
        return TESS_FAIL(TESS_INVALID, "%s: a %s data set must be a directory", path, source->type);
    }
    return add_file(ds, path, source);
}

/* ---- indexing ----------------------------------------------------------------------------- */

tess_status tess__record_add(tess_dataset *ds, const tess__record *r)
{
    TESS_TRY(tess_grow(&ds->records, &ds->cap_records, ds->n_records + 1, sizeof *ds->records));
    ds->records[ds->n_records++] = *r;
    return TESS_OK;
}

tess_status tess__index_bad(tess_dataset *ds, uint32_t file, tess_bad reason, const char *key,
                            size_t key_bytes, const char *what)
{
    char name[512];
    snprintf(name, sizeof name, "%s: %.*s%s%s", ds->files[file].path, (int)key_bytes, key,
             key_bytes > 0 ? ": " : "", what);
    return tess_bad_list_add(&ds->bad, reason, 1, name);
}

static tess_status index_all(tess_dataset *ds)
{
    for (size_t i = 0; i < ds->n_files; i++) {
        tess__file *f = &ds->files[i];
        if (tess_cancelled) {
            return TESS_FAIL(TESS_CANCELLED, "stopped while indexing %s", f->path);
        }
        if (f->source->is_mapped) {
            TESS_TRY(tess_file_map(f->path, &f->map));
        }
        TESS_TRY(f->source->index(ds, (uint32_t)i));
    }
    if (ds->n_records == 0) {
        tess_buf list = {0};
        tess_bad_list_write(&ds->bad, &list);
        tess_status st = TESS_FAIL(TESS_FORMAT, "no usable sample in the data set; left out: %s",
                                   list.n_bytes > 0 ? list.data : "nothing, it is empty");
        tess_buf_deinit(&list);
        return st;
    }
    return TESS_OK;
}

static tess_status find_languages(tess_dataset *ds)
{
    if (ds->has_json) {
        TESS_TRY(tess__languages_scan(ds));
    }
    return ds->languages.n > 0 ? TESS_OK : tess__language_add(&ds->languages, "und", 0);
}

static tess_status open_paths(tess_dataset *ds, const char *path)
{
    tess_names paths = {0};
    const tess__source *source = NULL;
    tess_status st = TESS_OK;
    if (strcmp(ds->options.type, "auto") != 0) {
        TESS_TRY(find_by_type(ds->options.type, &source));
    }
    st = tess__source_expand(path, &paths);
    for (size_t i = 0; i < paths.n_names && st == TESS_OK; i++) {
        st = add_path(ds, paths.names[i]);
    }
    tess_names_deinit(&paths);
    return st;
}

tess_status tess_dataset_open(const char *path, const tess_dataset_options *options,
                              tess_dataset **out)
{
    static const tess_dataset_options defaults;
    tess_status st = TESS_OK;
    *out = NULL;
    tess_dataset *ds = tess_alloc(sizeof *ds);
    if (!ds) {
        return TESS_NOMEM;
    }
    TESS_TRY_GOTO(st, set_options(ds, options ? options : &defaults), failed);
    TESS_TRY_GOTO(st, open_paths(ds, path), failed);
    TESS_TRY_GOTO(st, index_all(ds), failed);
    TESS_TRY_GOTO(st, find_languages(ds), failed);
    *out = ds;
    return TESS_OK;
failed:
    tess_dataset_close(ds);
    return st;
}

void tess_dataset_close(tess_dataset *ds)
{
    if (!ds) {
        return;
    }
    for (size_t i = 0; i < ds->n_files; i++) {
        if (ds->files[i].text) {
            tess_free(ds->files[i].text);
        } else {
            tess_file_unmap(&ds->files[i].map);
        }
    }
    for (size_t i = 0; i < ds->languages.n; i++) {
        tess_free(ds->languages.names[i]);
    }
    tess_free(ds->languages.names);
    tess_free(ds->languages.counts);
    tess_names_deinit(&ds->image_keys);
    tess_names_deinit(&ds->caption_keys);
    tess_names_deinit(&ds->suffixes);
    tess_bad_list_deinit(&ds->bad);
    tess_buf_deinit(&ds->names);
    tess_free(ds->files);
    tess_free(ds->records);
    tess_arena_deinit(&ds->arena);
    tess_free(ds);
}

int64_t tess_dataset_size(const tess_dataset *ds)
{
    return (int64_t)ds->n_records;
}

const tess_bad_list *tess_dataset_bad(const tess_dataset *ds)
{
    return &ds->bad;
}

int64_t tess_dataset_n_languages(const tess_dataset *ds)
{
    return (int64_t)ds->languages.n;
}

const char *tess_dataset_language(const tess_dataset *ds, int64_t language)
{
    return ds->languages.names[language];
}

int64_t tess_dataset_language_count(const tess_dataset *ds, int64_t language)
{
    return ds->languages.counts[language];
}

int64_t tess_dataset_find_language(const tess_dataset *ds, const char *name)
{
    return tess__language_find(&ds->languages, name);
}

uint64_t tess_dataset_id(const tess_dataset *ds, int64_t sample)
{
    return ds->records[sample].id;
}
