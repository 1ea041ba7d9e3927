/* SPDX-License-Identifier: Apache-2.0 */
/* sample: reading one sample by index, and the pieces that every source's reader uses. */
#include "train/source.h"

#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#define DETAIL_MAX 512

void tess__sample_spoil(tess_sample *s, tess_bad reason, const char *fmt, ...)
{
    char text[DETAIL_MAX];
    va_list va;
    if (s->bad != TESS_BAD_NONE) {
        return;
    }
    va_start(va, fmt);
    vsnprintf(text, sizeof text, fmt, va);
    va_end(va);
    s->bad = reason;
    tess_buf_clear(&s->detail_buf);
    tess_buf_adds(&s->detail_buf, text);
    s->detail = s->detail_buf.data ? s->detail_buf.data : "";
}

tess_status tess__sample_set_key(tess_sample *s, const char *key, size_t n_bytes)
{
    tess_buf_clear(&s->key_buf);
    tess_buf_add(&s->key_buf, key, n_bytes);
    tess_buf_add(&s->key_buf, "", 1);
    s->key = s->key_buf.data;
    return tess_buf_check(&s->key_buf);
}

/* Reads a plain file of at most max_bytes: a pipe or a device would block or never end. */
static tess_status read_plain(tess_sample *s, const char *path, size_t max_bytes, uint8_t **out,
                              size_t *out_bytes)
{
    struct stat info;
    *out = NULL;
    if (stat(path, &info) != 0 || !S_ISREG(info.st_mode)) {
        tess__sample_spoil(s, TESS_BAD_UNREADABLE, "no such file: %s", path);
        return TESS_OK;
    }
    if ((uint64_t)info.st_size > max_bytes) {
        tess__sample_spoil(s, TESS_BAD_TOO_LARGE, "%s has %lld bytes, at most %zu are read", path,
                           (long long)info.st_size, max_bytes);
        return TESS_OK;
    }
    tess_status st = tess_file_read(path, max_bytes, out, out_bytes);
    if (st == TESS_NOMEM) {
        return st;
    }
    if (st != TESS_OK) {
        *out = NULL;
        tess__sample_spoil(s, TESS_BAD_UNREADABLE, "%s", tess_error());
    }
    return TESS_OK;
}

tess_status tess__sample_read_file(const tess_dataset *ds, tess_sample *s, const char *path)
{
    size_t n = 0;
    TESS_TRY(read_plain(s, path, ds->options.max_picture_bytes, &s->file, &n));
    s->picture = (tess_bytes){s->file, s->file ? n : 0};
    tess_buf_clear(&s->path_buf);
    tess_buf_adds(&s->path_buf, path);
    TESS_TRY(tess_buf_check(&s->path_buf));
    s->path = s->path_buf.data;
    return TESS_OK;
}

tess_status tess__sample_read_linked(const tess_dataset *ds, tess_sample *s,
                                     const tess__file *table, const char *path)
{
    const char *slash = strrchr(table->path, '/'), *root = ds->options.image_root;
    char *beside = NULL;
    if (strstr(path, "://")) {
        tess__sample_spoil(s, TESS_BAD_UNREADABLE,
                           "%s is an address; only local files are read: download it first", path);
        return TESS_OK;
    }
    if (*path != '/' && root) {
        beside = tess_format("%s/%s", root, path);
    } else if (*path != '/' && slash) {
        beside = tess_format("%.*s/%s", (int)(slash - table->path), table->path, path);
        if (beside && !tess_path_exists(beside)) {
            tess_free(beside);
            beside = tess_strdup(path);
        }
    } else {
        beside = tess_strdup(path);
    }
    tess_status st = beside ? tess__sample_read_file(ds, s, beside) : TESS_NOMEM;
    tess_free(beside);
    return st;
}

tess_status tess__sample_read_text(tess_sample *s, const char *path, uint8_t **out,
                                   size_t *out_bytes)
{
    return read_plain(s, path, (size_t)16 << 20, out, out_bytes);
}

static void clear(tess_sample *s, const tess_dataset *ds, int64_t index)
{
    tess_free(s->file);
    s->file = NULL;
    s->index = index;
    s->id = ds->records[index].id;
    s->picture = (tess_bytes){0};
    s->path = "";
    s->offset = 0;
    s->captions = NULL;
    s->n_captions = 0;
    s->bad = TESS_BAD_NONE;
    s->detail = "";
    memset(s->n_dropped, 0, sizeof s->n_dropped);
}

tess_status tess_dataset_read(const tess_dataset *ds, int64_t index, int parts, tess_sample *s)
{
    if (index < 0 || index >= (int64_t)ds->n_records) {
        return TESS_FAIL(TESS_INVALID, "sample %lld: the data set has %zu", (long long)index,
                         ds->n_records);
    }
    clear(s, ds, index);
    const tess__record *r = &ds->records[index];
    const tess__source *source = ds->files[r->file].source;
    if (source->read_key) {
        TESS_TRY(source->read_key(ds, r, s));
    }
    TESS_TRY(source->read(ds, r, parts, s));
    const tess__file *file = &ds->files[r->file];
    if (s->picture.data && !s->file && file->map.data) {
        s->path = file->path;
        s->offset = s->picture.data - file->map.data;
    }
    return TESS_OK;
}

void tess_sample_deinit(tess_sample *s)
{
    if (s) {
        tess_free(s->file);
        tess_buf_deinit(&s->key_buf);
        tess_buf_deinit(&s->text_buf);
        tess_buf_deinit(&s->detail_buf);
        tess_buf_deinit(&s->path_buf);
        tess_free(s->caption_buf);
        *s = (tess_sample){0};
    }
}
