/* SPDX-License-Identifier: Apache-2.0 */
/* Writing a text-only model.
 *
 * Its directory is read again for what a model does not keep: the configs of its modules, whose
 * bytes are carried over, and tensors that are no parameters (BERT's pooler where it is not asked,
 * heads of pre-training).  Each folder's weights come out as one file. */
#include "fusion/sentence_model.h"

#include <string.h>

typedef struct saving {
    const tess_model *model;
    const char *from, *to;
    const tess_layout_types *types; /* NULL: f32 */
    tess_arena arena;
    tess_tensors *source;
    tess_tensor *tensors;
    int64_t n;
} saving;

/* ---- configs ------------------------------------------------------------------------------- */

static bool ends_with(const char *name, const char *end)
{
    const size_t n = strlen(name), k = strlen(end);
    return n >= k && strcmp(name + n - k, end) == 0;
}

static tess_status copy_file(saving *s, const char *name)
{
    const char *from = tess_arena_format(&s->arena, "%s/%s", s->from, name);
    const char *to = tess_arena_format(&s->arena, "%s/%s", s->to, name);
    tess_bytes map;
    TESS_TRY(from && to ? TESS_OK : TESS_NOMEM);
    TESS_TRY(tess_file_map(from, &map));
    tess_status st = tess_file_write(to, map.data, map.n_bytes);
    tess_file_unmap(&map);
    return st;
}

/* The configs of one folder; an index of shards belongs to weights that are written anew. */
static tess_status copy_configs(saving *s, const char *folder)
{
    tess_names names = {0};
    const char *joint = *folder ? "/" : "";
    const char *from = tess_arena_format(&s->arena, "%s%s%s", s->from, joint, folder);
    const char *to = tess_arena_format(&s->arena, "%s%s%s", s->to, joint, folder);
    tess_status st = from && to ? tess_dir_make(to) : TESS_NOMEM;
    if (st || !tess_path_is_dir(from)) {
        return st; /* a module without files needs no folder */
    }
    st = tess_dir_list(from, false, &names);
    for (size_t i = 0; st == TESS_OK && i < names.n_names; i++) {
        const char *name = names.names[i];
        if (ends_with(name, ".json") && !ends_with(name, ".index.json")) {
            const char *path = tess_arena_format(&s->arena, "%s%s%s", folder, joint, name);
            st = path ? copy_file(s, path) : TESS_NOMEM;
        }
    }
    tess_names_deinit(&names);
    return st;
}

static tess_status copy_modules(saving *s)
{
    tess_json_doc *doc = NULL;
    const char *path = tess_arena_format(&s->arena, "%s/modules.json", s->from);
    TESS_TRY(path ? copy_configs(s, "") : TESS_NOMEM);
    if (!tess_path_exists(path)) {
        return TESS_OK;
    }
    TESS_TRY(tess_json_load(path, &doc));
    const tess_json *root = tess_json_root(doc);
    tess_status st = TESS_OK;
    for (size_t i = 0; st == TESS_OK && i < tess_json_count(root); i++) {
        const char *folder = tess_json_string(tess_json_get(tess_json_at(root, i), "path"), "");
        st = *folder ? copy_configs(s, folder) : TESS_OK;
    }
    tess_json_free(doc);
    return st;
}

static tess_status save_tokenizer(saving *s)
{
    const char *folder =
        tess_arena_format(&s->arena, "%s/%s", s->to, s->model->config.sentence->encoder);
    return folder ? tess_tokenizer_save_dir(s->model->tokenizer, folder) : TESS_NOMEM;
}

/* ---- weights ------------------------------------------------------------------------------- */

static bool is_written(const saving *s, const char *name)
{
    for (int64_t i = 0; i < s->n; i++) {
        if (strcmp(s->tensors[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static tess_status list_tensors(saving *s)
{
    const tess_model *m = s->model;
    tess_layout layout;
    const char *path;
    TESS_TRY(tess__sentence_tensors(m, s->from, &s->arena, &path, &layout, &s->source));
    TESS_TRY(
        tess__layout_tensors(&layout, m->store, "param", s->types, &s->arena, &s->tensors, &s->n));
    const int64_t n_source = tess_tensors_count(s->source);
    tess_tensor *all = tess_arena_alloc(&s->arena, (size_t)(s->n + n_source + 1) * sizeof *all);
    TESS_TRY(all ? TESS_OK : TESS_NOMEM);
    memcpy(all, s->tensors, (size_t)s->n * sizeof *all);
    s->tensors = all;
    for (int64_t i = 0; i < n_source; i++) {
        const tess_tensor *t = tess_tensors_at(s->source, i);
        if (tess__layout_ignores(&layout, t->name) && !is_written(s, t->name)) {
            all[s->n++] = *t;
        }
    }
    return TESS_OK;
}

/* The module whose folder stands before this name; NULL: the encoder. */
static const char *folder_of(const tess_sentence_config *c, const char *name)
{
    for (int64_t i = 0; i < c->bert.n_heads; i++) {
        const size_t n = strlen(c->folders[i]);
        if (strncmp(name, c->folders[i], n) == 0 && name[n] == '/') {
            return c->folders[i];
        }
    }
    return NULL;
}

/* The tensors of one folder, without its name; NULL: the encoder's. */
static tess_status save_folder(saving *s, const char *folder)
{
    const tess_sentence_config *c = s->model->config.sentence;
    const char *place = folder ? folder : c->encoder;
    const char *path =
        tess_arena_format(&s->arena, "%s/%s%smodel.safetensors", s->to, place, *place ? "/" : "");
    tess_tensor *own = tess_arena_alloc(&s->arena, (size_t)(s->n + 1) * sizeof *own);
    int64_t n = 0;
    TESS_TRY(path && own ? TESS_OK : TESS_NOMEM);
    for (int64_t i = 0; i < s->n; i++) {
        if (folder_of(c, s->tensors[i].name) == folder) {
            own[n] = s->tensors[i];
            own[n++].name += folder ? strlen(folder) + 1 : 0;
        }
    }
    return tess_tensors_save(path, own, n, NULL, 0);
}

static tess_status save_weights(saving *s)
{
    const tess_sentence_config *c = s->model->config.sentence;
    TESS_TRY(list_tensors(s));
    TESS_TRY(save_folder(s, NULL));
    for (int64_t i = 0; i < c->bert.n_heads; i++) {
        TESS_TRY(save_folder(s, c->folders[i]));
    }
    return TESS_OK;
}

tess_status tess__sentence_save(const tess_model *m, const char *dir, bool keep_types)
{
    saving s = {.model = m, .from = m->config.sentence->dir, .to = dir};
    s.types = keep_types && m->types.n ? &m->types : NULL;
    tess_status st = tess_dir_make(dir);
    st = st ? st : copy_modules(&s);
    st = st ? st : save_tokenizer(&s);
    st = st ? st : save_weights(&s);
    tess_tensors_free(s.source);
    tess_arena_deinit(&s.arena);
    return st;
}
