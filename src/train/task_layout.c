/* SPDX-License-Identifier: Apache-2.0 */
/* task_layout: what a directory given to an evaluation task is.
 *
 * CLIP_benchmark's shards are read through nshards.txt and not by listing: the file says how many
 * shards the figures are of, so one too few or too many is an error and not another data set. */
#include "train/task.h"

#include <stdlib.h>
#include <string.h>

#define SHARDS_MAX 1000000

void tess__task_layout_deinit(tess__task_layout *l)
{
    tess_free(l->sources);
    *l = (tess__task_layout){0};
}

static bool exists(const char *dir, const char *name)
{
    char *path = tess_format("%s/%s", dir, name);
    bool is_there = path && tess_path_exists(path);
    tess_free(path);
    return is_there;
}

tess_status tess__task_layout_beside(const tess_task_options *o, const char *asked,
                                     const char *name, char **out)
{
    *out = NULL;
    if (!asked && !exists(o->data, name)) {
        return TESS_OK;
    }
    *out = asked ? tess_strdup(asked) : tess_format("%s/%s", o->data, name);
    return *out ? TESS_OK : TESS_NOMEM;
}

/* A file that holds one word. */
static tess_status read_word(const char *dir, const char *name, char **out)
{
    tess_names lines = {0};
    char *path = tess_format("%s/%s", dir, name);
    tess_status st = path ? tess_lines_load(path, false, &lines) : TESS_NOMEM;
    if (st == TESS_OK && lines.n_names != 1) {
        st = TESS_FAIL(TESS_FORMAT, "%s: %zu lines: expected one", path, lines.n_names);
    }
    *out = st ? NULL : tess_strdup(lines.names[0]);
    st = st || *out ? st : TESS_NOMEM;
    tess_names_deinit(&lines);
    tess_free(path);
    return st;
}

/* What dataset_type.txt says must fit the task. */
static tess_status check_type(const tess_task_options *o, bool labels)
{
    char *word = NULL;
    if (exists(o->data, "dataset_type.txt")) {
        TESS_TRY(read_word(o->data, "dataset_type.txt", &word));
    }
    const char *type = word ? word : "classification";
    bool retrieval = strcasecmp(type, "retrieval") == 0;
    tess_status st = TESS_OK;
    if (strcasecmp(type, "multilabel") == 0) {
        st = TESS_FAIL(TESS_UNSUPPORTED,
                       "%s/dataset_type.txt: multilabel: only one class a picture is known",
                       o->data);
    } else if (!retrieval && strcasecmp(type, "classification") != 0) {
        st = TESS_FAIL(TESS_FORMAT,
                       "%s/dataset_type.txt: expected retrieval or classification, found \"%.60s\"",
                       o->data, type);
    } else if (retrieval == labels) {
        st = TESS_FAIL(TESS_INVALID,
                       "%s: %s says %s, which the task %s cannot use; choose another --task",
                       o->data, word ? "dataset_type.txt" : "no dataset_type.txt", type, o->task);
    }
    tess_free(word);
    return st;
}

static tess_status count_shards(const char *dir, int64_t *out)
{
    char *word = NULL, *end = NULL;
    TESS_TRY(read_word(dir, "nshards.txt", &word));
    long long n = strtoll(word, &end, 10);
    tess_status st = TESS_OK;
    if (*end || end == word || n < 1 || n > SHARDS_MAX) {
        st = TESS_FAIL(TESS_FORMAT,
                       "%s/nshards.txt: expected a number of shards from 1 to %d, found \"%.60s\"",
                       dir, SHARDS_MAX, word);
    }
    tess_free(word);
    *out = (int64_t)n;
    return st;
}

static tess_status check_shards(const char *dir, int64_t n)
{
    char name[32];
    for (int64_t i = 0; i < n; i++) {
        snprintf(name, sizeof name, "%lld.tar", (long long)i);
        if (!exists(dir, name)) {
            return TESS_FAIL(TESS_IO, "%s/%s is not there, but nshards.txt says %lld", dir, name,
                             (long long)n);
        }
    }
    snprintf(name, sizeof name, "%lld.tar", (long long)n);
    if (exists(dir, name)) {
        return TESS_FAIL(TESS_FORMAT,
                         "%s/nshards.txt says %lld, but there is a %s too: correct the one or "
                         "remove the other",
                         dir, (long long)n, name);
    }
    return TESS_OK;
}

static tess_status use_shards(const char *dir, tess__task_layout *out)
{
    int64_t n;
    TESS_TRY(count_shards(dir, &n));
    TESS_TRY(check_shards(dir, n));
    *out = (tess__task_layout){.is_wds = true, .type = "webdataset"};
    out->sources = tess_format("%s/{0..%lld}.tar", dir, (long long)(n - 1));
    return out->sources ? TESS_OK : TESS_NOMEM;
}

static tess_status use_path(const char *path, const char *type, bool is_folders,
                            tess__task_layout *out)
{
    *out = (tess__task_layout){.is_folders = is_folders, .type = type};
    out->sources = tess_strdup(path);
    return out->sources ? TESS_OK : TESS_NOMEM;
}

static bool has_tars(const char *dir)
{
    tess_names names = {0};
    bool found = false;
    if (tess_dir_list(dir, false, &names) == TESS_OK) {
        for (size_t i = 0; i < names.n_names; i++) {
            size_t n = strlen(names.names[i]);
            found = found || (n > 4 && strcmp(names.names[i] + n - 4, ".tar") == 0);
        }
    }
    tess_names_deinit(&names);
    return found;
}

static tess_status find_in(const tess_task_options *o, const char *dir, bool labels, bool named,
                           tess__task_layout *out)
{
    if (exists(dir, "nshards.txt")) {
        TESS_TRY(check_type(o, labels));
        return use_shards(dir, out);
    }
    if (exists(dir, "0.tar")) {
        return TESS_FAIL(
            TESS_IO, "%s/nshards.txt is not there: expected a file with the number of shards", dir);
    }
    bool is_dir = tess_path_is_dir(dir);
    if (!is_dir && named) {
        return TESS_FAIL(TESS_IO, "%s: no such directory: check --val-data and the split's name",
                         dir);
    }
    const char *root = is_dir ? dir : o->data;
    if (labels && !has_tars(root)) {
        return use_path(root, "folder", true, out);
    }
    return use_path(root, "auto", false, out);
}

tess_status tess__task_layout_find(const tess_task_options *o, const char *split, bool labels,
                                   tess__task_layout *out)
{
    bool is_auto = !o->dataset_type || strcmp(o->dataset_type, "auto") == 0;
    if (!is_auto || !tess_path_is_dir(o->data)) {
        return use_path(o->data, is_auto ? "auto" : o->dataset_type, false, out);
    }
    char *dir = tess_format("%s/%s", o->data, split ? split : "test");
    tess_status st = dir ? find_in(o, dir, labels, split != NULL, out) : TESS_NOMEM;
    tess_free(dir);
    return st;
}
