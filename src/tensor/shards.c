/* SPDX-License-Identifier: Apache-2.0 */
/* A checkpoint in several files: an index {"metadata", "weight_map": {tensor: file}} beside them.
 *
 * The index and the files must say the same of every tensor; then the files are joined and read as
 * one.  File names that lead elsewhere are refused. */
#include "tessera/tensor.h"

#include <string.h>

#define MAX_SHARDS 1024

typedef struct index_file {
    const char *path;
    const tess_json *map;
    tess_arena arena;
    const char *names[MAX_SHARDS], *paths[MAX_SHARDS];
    int64_t n;
} index_file;

static bool is_plain(const char *name)
{
    return name[0] && name[0] != '.' && !strchr(name, '/') && !strchr(name, '\\');
}

static tess_status add_shard(index_file *x, const char *name)
{
    for (int64_t i = x->n - 1; i >= 0; i--) {
        if (strcmp(x->names[i], name) == 0) {
            return TESS_OK;
        }
    }
    if (!is_plain(name) || x->n == MAX_SHARDS) {
        return TESS_FAIL(TESS_FORMAT,
                         "%s: weight_map: expected at most %d names of files beside it, found "
                         "\"%.100s\"",
                         x->path, MAX_SHARDS, name);
    }
    const char *slash = strrchr(x->path, '/');
    int n_dir = slash ? (int)(slash - x->path) + 1 : 0;
    x->names[x->n] = name;
    x->paths[x->n] = tess_arena_format(&x->arena, "%.*s%s", n_dir, x->path, name);
    return x->paths[x->n++] ? TESS_OK : TESS_NOMEM;
}

static tess_status read_map(index_file *x, const tess_json *root)
{
    x->map = tess_json_get(root, "weight_map");
    if (tess_json_kind_of(x->map) != TESS_JSON_OBJECT || tess_json_count(x->map) == 0) {
        return TESS_FAIL(TESS_FORMAT, "%s: expected an object with weight_map, tensor to file",
                         x->path);
    }
    for (size_t i = 0; i < tess_json_count(x->map); i++) {
        const char *key;
        const tess_json *v = tess_json_member(x->map, i, &key);
        if (tess_json_kind_of(v) != TESS_JSON_STRING) {
            return TESS_FAIL(TESS_FORMAT, "%s: weight_map.%.200s: expected a file's name", x->path,
                             key);
        }
        TESS_TRY(add_shard(x, tess_json_string(v, "")));
    }
    return TESS_OK;
}

static tess_status find_missing(const index_file *x)
{
    tess_buf missing = {0};
    for (int64_t i = 0; i < x->n; i++) {
        if (!tess_path_exists(x->paths[i]) && missing.n_bytes < 1000) {
            tess_buf_addf(&missing, "%s%s", missing.n_bytes ? ", " : "", x->names[i]);
        }
    }
    tess_status st = tess_buf_check(&missing);
    if (st == TESS_OK && missing.n_bytes > 0) {
        st = TESS_FAIL(TESS_FORMAT, "%s: files that it names are not there: %s; fetch them again",
                       x->path, missing.data);
    }
    tess_buf_deinit(&missing);
    return st;
}

/* Every tensor of the shard must be promised to be in it. */
static tess_status check_shard(const index_file *x, const tess_tensors *t, int64_t i)
{
    for (int64_t k = 0; k < tess_tensors_count(t); k++) {
        const char *name = tess_tensors_at(t, k)->name;
        const char *said = tess_json_string(tess_json_get(x->map, name), NULL);
        if (!said || strcmp(said, x->names[i]) != 0) {
            return TESS_FAIL(TESS_FORMAT, "%s: %.200s is in %s, but the index says %s", x->path,
                             name, x->names[i], said ? said : "nothing of it");
        }
    }
    return TESS_OK;
}

static tess_status check_promises(const index_file *x, const tess_tensors *all)
{
    for (size_t i = 0; i < tess_json_count(x->map); i++) {
        const char *key;
        const tess_json *v = tess_json_member(x->map, i, &key);
        if (!tess_tensors_find(all, key)) {
            return TESS_FAIL(TESS_FORMAT, "%s: %.200s should be in %s, which does not have it",
                             x->path, key, tess_json_string(v, ""));
        }
    }
    return TESS_OK;
}

static tess_status add_file(const index_file *x, int64_t i, tess_tensors **all)
{
    tess_tensors *t = NULL;
    TESS_TRY(tess_tensors_open(x->paths[i], &t));
    tess_status st = check_shard(x, t, i);
    if (st == TESS_OK && *all) {
        st = tess_tensors_join(*all, t, "");
    }
    if (st) {
        tess_tensors_free(t);
        return st;
    }
    *all = *all ? *all : t;
    return TESS_OK;
}

static tess_status open_all(index_file *x, const tess_json *root, tess_tensors **all)
{
    TESS_TRY(read_map(x, root));
    TESS_TRY(find_missing(x));
    for (int64_t i = 0; i < x->n; i++) {
        TESS_TRY(add_file(x, i, all));
    }
    return check_promises(x, *all);
}

tess_status tess_tensors_open_index(const char *path, tess_tensors **out)
{
    *out = NULL;
    tess_json_doc *doc = NULL;
    index_file *x = tess_alloc(sizeof *x);
    tess_tensors *all = NULL;
    tess_status st = x ? tess_json_load(path, &doc) : TESS_NOMEM;
    if (st == TESS_OK) {
        x->path = path;
        st = open_all(x, tess_json_root(doc), &all);
    }
    if (st) {
        tess_tensors_free(all);
    } else {
        *out = all;
    }
    tess_json_free(doc);
    if (x) {
        tess_arena_deinit(&x->arena);
    }
    tess_free(x);
    return st;
}
