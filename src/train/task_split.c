/* SPDX-License-Identifier: Apache-2.0 */
/* task_split: the labelled pictures of one split.
 *
 * A label is the number in a sample's .cls, or the place of its folder's name among the sorted
 * names of all folders, which is how ImageNet's classes are counted too.  The folders of the first
 * split that is opened are the classes of all. */
#include "train/task.h"

#include "train/eval_pictures.h"
#include "train/source.h"

#include <stdlib.h>
#include <string.h>

#define CLASSES_MAX 1000000

/* ---- classes ------------------------------------------------------------------------------- */

static tess_status list_folders(const char *dir, tess_names *out)
{
    tess_names entries = {0};
    tess_status st = tess_dir_list(dir, false, &entries);
    for (size_t i = 0; st == TESS_OK && i < entries.n_names; i++) {
        if (entries.names[i][0] == '.') {
            continue;
        }
        char *path = tess_format("%s/%s", dir, entries.names[i]);
        st = !path                    ? TESS_NOMEM
             : tess_path_is_dir(path) ? tess_names_add(out, entries.names[i])
                                      : TESS_OK;
        tess_free(path);
    }
    tess_names_deinit(&entries);
    if (st == TESS_OK && out->n_names == 0) {
        st = TESS_FAIL(TESS_FORMAT,
                       "%s: neither <split>/nshards.txt nor folders, one for each class", dir);
    }
    return st;
}

/* A folder's name is its class's, underscores for blanks. */
static tess_status name_folders(const tess_names *folders, tess_names *out)
{
    for (size_t i = 0; i < folders->n_names; i++) {
        TESS_TRY(tess_names_add(out, folders->names[i]));
        for (char *p = out->names[i]; *p; p++) {
            *p = *p == '_' ? ' ' : *p;
        }
        if (!tess_utf8_valid(out->names[i], strlen(out->names[i]), true)) {
            return TESS_FAIL(TESS_FORMAT, "folder %zu of the classes has a name that is not UTF-8",
                             i + 1);
        }
    }
    return TESS_OK;
}

static tess_status load_names(tess__task *t, const char *path)
{
    size_t first, second;
    TESS_TRY(tess_lines_load(path, false, &t->classes));
    TESS_TRY(tess_lines_find_repeated(&t->classes, &first, &second));
    if (second != SIZE_MAX) { /* ImageNet's own list has two such pairs */
        tess_log(TESS_LOG_WARN, "%s: lines %zu and %zu both say \"%s\"", path, first + 1,
                 second + 1, t->classes.names[second]);
    }
    if (t->folders.n_names > 0 && t->folders.n_names != t->classes.n_names) {
        return TESS_FAIL(TESS_FORMAT, "%s: %zu names, but there are %zu folders of classes", path,
                         t->classes.n_names, t->folders.n_names);
    }
    return TESS_OK;
}

static tess_status find_classes(tess__task *t, const tess__task_layout *l)
{
    char *path = NULL;
    if (l->is_folders) {
        TESS_TRY(list_folders(l->sources, &t->folders));
    }
    TESS_TRY(tess__task_layout_beside(t->o, t->o->classes, "classnames.txt", &path));
    tess_status st = path ? load_names(t, path) : name_folders(&t->folders, &t->classes);
    tess_free(path);
    t->n_classes = (int64_t)t->classes.n_names;
    return st;
}

/* ---- labels -------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int64_t find_folder(const tess__task *t, const char *key)
{
    const char *slash = strchr(key, '/');
    char *name = slash ? tess_strndup(key, (size_t)(slash - key)) : NULL;
    char **found =
        name ? bsearch(&name, t->folders.names, t->folders.n_names, sizeof name, by_name) : NULL;
    tess_free(name);
    return found ? found - t->folders.names : -1;
}

/* Decimal digits only; -1: anything else, or a number that is no class. */
static int64_t parse_label(const char *text, int64_t n_classes)
{
    int64_t v = 0;
    for (const char *p = text; *p; p++) {
        if (*p < '0' || *p > '9' || v >= CLASSES_MAX) {
            return -1;
        }
        v = v * 10 + (*p - '0');
    }
    return *text && v < n_classes ? v : -1;
}

static tess_status add_bad(tess__task *t, const tess__split *s, const tess_sample *x,
                           tess_bad reason, const char *what)
{
    char name[600];
    snprintf(name, sizeof name, "%s: %s: %s", s->data->files[s->data->records[x->index].file].path,
             x->key, what);
    return tess_bad_list_add(&t->out->bad, reason, 1, name);
}

/* *out -1: none that is usable, which is counted. */
static tess_status read_label(tess__task *t, const tess__split *s, int64_t i, tess_sample *x,
                              int64_t *out)
{
    char what[160];
    bool is_folders = s->layout.is_folders;
    TESS_TRY(tess_dataset_read(s->data, i, is_folders ? 0 : TESS_READ_CAPTIONS, x));
    *out = -1;
    if (is_folders) {
        *out = find_folder(t, x->key);
        return *out >= 0 ? TESS_OK : add_bad(t, s, x, TESS_BAD_LABEL, "not in a class's folder");
    }
    if (x->bad != TESS_BAD_NONE) {
        return add_bad(t, s, x, x->bad, x->detail);
    }
    int64_t limit = t->n_classes > 0 ? t->n_classes : CLASSES_MAX;
    *out = parse_label(x->captions[0].text, limit);
    if (*out >= 0) {
        return TESS_OK;
    }
    snprintf(what, sizeof what, "class \"%.60s\": expected a number from 0 to %lld",
             x->captions[0].text, (long long)(limit - 1));
    return add_bad(t, s, x, TESS_BAD_LABEL, what);
}

static tess_status read_labels(tess__task *t, tess__split *s)
{
    tess_sample x = {0};
    tess_status st = TESS_OK;
    for (int64_t i = 0; st == TESS_OK && i < tess_dataset_size(s->data); i++) {
        st = tess_cancelled ? TESS_FAIL(TESS_CANCELLED, "stopped while reading labels")
                            : read_label(t, s, i, &x, &s->features.labels[i]);
    }
    tess_sample_deinit(&x);
    return st;
}

/* ---- pictures ------------------------------------------------------------------------------ */

/* Moves the usable rows together, and appends the column of ones. */
static tess_status gather(const tess__task *t, tess__split *s, const float *rows, const bool *ok,
                          bool bias)
{
    int64_t n = tess_dataset_size(s->data), wide = t->dim + bias, kept = 0;
    tess__features *f = &s->features;
    f->x = tess_alloc_array((size_t)n, (size_t)wide * sizeof *f->x);
    if (!f->x) {
        return TESS_NOMEM;
    }
    for (int64_t i = 0; i < n; i++) {
        if (!ok[i] || f->labels[i] < 0) {
            continue;
        }
        memcpy(f->x + kept * wide, rows + i * t->dim, (size_t)t->dim * sizeof *rows);
        if (bias) {
            f->x[kept * wide + t->dim] = 1;
        }
        f->labels[kept++] = f->labels[i];
    }
    f->n = kept;
    return TESS_OK;
}

static tess_status check_some(const tess__task *t, const tess__split *s)
{
    if (s->features.n > 0) {
        return TESS_OK;
    }
    tess_buf list = {0};
    tess_bad_list_write(&t->out->bad, &list);
    tess_status st = TESS_FAIL(TESS_FORMAT, "%s: no usable picture with a class; left out: %s",
                               s->layout.sources, list.data ? list.data : "nothing, it is empty");
    tess_buf_deinit(&list);
    return st;
}

tess_status tess__split_embed(tess__task *t, tess__split *s, bool bias)
{
    size_t n = (size_t)tess_dataset_size(s->data);
    float *rows = tess_alloc_array(n, (size_t)t->dim * sizeof *rows);
    bool *ok = tess_alloc_array(n, sizeof *ok);
    s->features.labels = tess_alloc_array(n, sizeof *s->features.labels);
    tess_status st = rows && ok && s->features.labels ? read_labels(t, s) : TESS_NOMEM;
    st = st ? st
            : tess__eval_pictures(t->model, s->data, &t->hooks, t->o->workers, t->o->on_progress,
                                  t->o->ctx, rows, ok, &t->out->bad);
    st = st ? st : gather(t, s, rows, ok, bias);
    st = st ? st : check_some(t, s);
    tess_free(rows);
    tess_free(ok);
    return st;
}

tess_status tess__split_open(tess__task *t, const char *name, tess__split *out)
{
    *out = (tess__split){0};
    TESS_TRY(tess__task_layout_find(t->o, name, true, &out->layout));
    if (t->classes.n_names == 0) {
        TESS_TRY(find_classes(t, &out->layout));
    }
    tess_dataset_options d = {.type = out->layout.type,
                              .caption_key = "txt",
                              .text_suffix = "cls",
                              .image_root = t->o->image_root,
                              .captions_optional = out->layout.is_folders};
    TESS_TRY(tess_dataset_open(out->layout.sources, &d, &out->data));
    return tess_bad_list_merge(&t->out->bad, tess_dataset_bad(out->data));
}

void tess__split_deinit(tess__split *s)
{
    tess__task_layout_deinit(&s->layout);
    tess_dataset_close(s->data);
    tess_free(s->features.x);
    tess_free(s->features.labels);
    *s = (tess__split){0};
}
