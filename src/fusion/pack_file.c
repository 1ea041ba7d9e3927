/* SPDX-License-Identifier: Apache-2.0 */
/* The packed file of a model directory: everything that embedding reads of the weights, as a
 * safetensors file, mapped read-only and so shared by all processes that use the model.
 *
 *   panels:NAME  F32, BF16 or I8   packed products (tensor/packed.h; the same on every machine)
 *   scale:NAME   F32               of their rows, 8 bits only
 *   sum:NAME     I32               likewise
 *   NAME         F32               parameters that are read as they are
 *   metadata     tessera_pack (format), mode, stamp, fingerprint, hash (of all data)
 *
 * It is a cache: what does not belong to the directory's other files is not used. */
#include "fusion/packs.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PACK_FORMAT "1"

/* ---- stamp --------------------------------------------------------------------------------- */

static bool makes_model(const char *name)
{
    static const char *const suffixes[] = {".json", ".safetensors", ".model", ".txt"};
    const size_t n = strlen(name);
    for (int64_t i = 0; i < TESS_COUNT(suffixes); i++) {
        const size_t k = strlen(suffixes[i]);
        if (n > k && name[0] != '.' && strcmp(name + n - k, suffixes[i]) == 0) {
            return true;
        }
    }
    return false;
}

static void stamp_file(const char *path, const char *name, tess_buf *out)
{
    struct stat info;
    if (stat(path, &info) == 0 && S_ISREG(info.st_mode)) {
        tess_buf_addf(out, "%s %lld %lld.%09ld\n", name, (long long)info.st_size,
                      (long long)info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
    }
}

/* The files of `dir`, each name behind `prefix`. */
static tess_status stamp_files(const char *dir, const char *prefix, tess_buf *out)
{
    tess_names names = {0};
    tess_status st = tess_dir_list(dir, false, &names);
    for (size_t i = 0; st == TESS_OK && i < names.n_names; i++) {
        if (makes_model(names.names[i])) {
            char *path = tess_format("%s/%s", dir, names.names[i]);
            char *name = tess_format("%s%s", prefix, names.names[i]);
            st = path && name ? TESS_OK : TESS_NOMEM;
            if (st == TESS_OK) {
                stamp_file(path, name, out);
            }
            tess_free(path);
            tess_free(name);
        }
    }
    tess_names_deinit(&names);
    return st;
}

/* A folder with a config is a module of a sentence-transformers model. */
static tess_status stamp_modules(const char *dir, tess_buf *out)
{
    tess_names names = {0};
    tess_arena paths = {0};
    tess_status st = tess_dir_list(dir, false, &names);
    for (size_t i = 0; st == TESS_OK && i < names.n_names; i++) {
        const char *folder = tess_arena_format(&paths, "%s/%s", dir, names.names[i]);
        const char *config = tess_arena_format(&paths, "%s/config.json", folder ? folder : "");
        const char *prefix = tess_arena_format(&paths, "%s/", names.names[i]);
        st = folder && config && prefix ? TESS_OK : TESS_NOMEM;
        if (st == TESS_OK && tess_path_exists(config)) {
            st = stamp_files(folder, prefix, out);
        }
    }
    tess_arena_deinit(&paths);
    tess_names_deinit(&names);
    return st;
}

tess_status tess__pack_stamp(const char *dir, char **out)
{
    *out = NULL;
    tess_buf b = {0};
    tess_status st = stamp_files(dir, "", &b);
    st = st ? st : stamp_modules(dir, &b);
    st = st ? st : tess_buf_check(&b);
    if (st == TESS_OK) {
        *out = tess_strndup(b.data ? b.data : "", b.n_bytes);
        st = *out ? TESS_OK : TESS_NOMEM;
    }
    tess_buf_deinit(&b);
    return st;
}

/* ---- writing ------------------------------------------------------------------------------- */

typedef struct contents {
    tess_arena arena;
    tess_tensor *items;
    size_t n, cap;
} contents;

static tess_status add_tensor(contents *c, const char *what, const char *name, tess_dtype dtype,
                              tess_shape shape, const void *data)
{
    static const char *const words[TESS_DTYPE_COUNT] = {
        [TESS_F32] = "F32", [TESS_BF16] = "BF16", [TESS_I32] = "I32", [TESS_I8] = "I8"};
    TESS_TRY(tess_grow(&c->items, &c->cap, c->n + 1, sizeof *c->items));
    tess_tensor *t = &c->items[c->n];
    *t = (tess_tensor){.name = tess_arena_format(&c->arena, "%s%s", what, name),
                       .dtype = words[dtype],
                       .shape = shape,
                       .data = data,
                       .n_bytes = (size_t)tess_shape_count(&shape) * tess_dtype_bytes(dtype)};
    c->n += t->name != NULL;
    return t->name ? TESS_OK : TESS_NOMEM;
}

static tess_status add_packed(contents *c, const char *name, const tess_packed *w)
{
    const int64_t panels = tess__packed_n_panels(w->n);
    const int64_t per = (int64_t)(sizeof(uint32_t) / tess_dtype_bytes(w->kind));
    TESS_TRY(add_tensor(c, "panels:", name, w->kind,
                        TESS_SHAPE_OF(panels, tess__packed_groups(w->kind, w->k), TESS_PANEL, per),
                        w->panels));
    if (w->kind != TESS_I8) {
        return TESS_OK;
    }
    TESS_TRY(add_tensor(c, "scale:", name, TESS_F32, TESS_SHAPE_OF(panels, TESS_PANEL), w->scale));
    return add_tensor(c, "sum:", name, TESS_I32, TESS_SHAPE_OF(panels, TESS_PANEL), w->sum);
}

/* The towers that there are, over the model's packs: their states are what is not packed. */
static tess_status build_lowered(tess_model *m, tess_graph *towers[2])
{
    const int64_t s = m->config.vision.image_size;
    const bool has_image = tess_model_has_image(m);
    towers[0] = tess_graph_new();
    towers[1] = tess_graph_new();
    if (!towers[0] || !towers[1]) {
        return TESS_NOMEM;
    }
    tess_graph *g = towers[1];
    tess_value out[2] = {0, 0};
    if (has_image) {
        out[0] = tess__picture_tower(towers[0], m, tess__finished_pictures(towers[0], 1, s), false);
    }
    out[1] = tess__caption_tower(
        g, m,
        (tess_text_input){.tokens = tess_input(g, "tokens", TESS_I32, TESS_SHAPE_OF(1)),
                          .positions = tess_input(g, "positions", TESS_I32, TESS_SHAPE_OF(1)),
                          .offsets = tess_input(g, "offsets", TESS_I32, TESS_SHAPE_OF(2))},
        false);
    for (int i = has_image ? 0 : 1; i < 2; i++) {
        TESS_TRY(tess_graph_check(towers[i]));
        TESS_TRY(tess__packs_lower(m->packs, &towers[i], &out[i]));
    }
    return TESS_OK;
}

static bool is_packed(const tess_packs *p, const char *name)
{
    const char *other;
    for (int64_t i = 0; i < tess__packs_count(p); i++) {
        tess__packs_at(p, i, &other);
        if (strcmp(name, other) == 0) {
            return true;
        }
    }
    return false;
}

static tess_status collect(tess_model *m, contents *c)
{
    tess_graph *towers[2] = {NULL, NULL};
    tess_status st = build_lowered(m, towers);
    for (int64_t i = 0; st == TESS_OK && i < tess__packs_count(m->packs); i++) {
        const char *name;
        const tess_packed *w = tess__packs_at(m->packs, i, &name);
        st = add_packed(c, name, w);
    }
    for (int64_t i = 0; st == TESS_OK && i < tess_store_n_entries(m->store, "param"); i++) {
        float *data;
        tess_shape shape;
        const char *name = tess_store_entry(m->store, "param", i, &data, &shape);
        const bool read = tess_graph_find(towers[0], name) || tess_graph_find(towers[1], name);
        if (read || !is_packed(m->packs, name)) {
            st = add_tensor(c, "", name, TESS_F32, shape, data);
        }
    }
    tess_graph_free(towers[0]);
    tess_graph_free(towers[1]);
    return st;
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const tess_tensor *const *)a)->name, (*(const tess_tensor *const *)b)->name);
}

/* Over all names and data, in the order of the names; reorders `tensors`. */
static tess_status hash_tensors(const tess_tensor **tensors, size_t n, char out[33])
{
    tess_hash128_state *h = tess_hash128_new();
    if (!h) {
        return TESS_NOMEM;
    }
    qsort(tensors, n, sizeof(const tess_tensor *), by_name);
    for (size_t i = 0; i < n; i++) {
        tess_hash128_add(h, tensors[i]->name, strlen(tensors[i]->name) + 1);
        tess_hash128_add(h, tensors[i]->data, tensors[i]->n_bytes);
    }
    tess_hash128_finish(h, out);
    return TESS_OK;
}

static tess_status hash_contents(const contents *c, char out[33])
{
    const tess_tensor **order = tess_alloc_array(c->n + 1, sizeof *order);
    for (size_t i = 0; order && i < c->n; i++) {
        order[i] = &c->items[i];
    }
    const tess_status st = order ? hash_tensors(order, c->n, out) : TESS_NOMEM;
    tess_free(order);
    return st;
}

static tess_status save_contents(tess_model *m, const char *stamp, const char *path,
                                 const contents *c)
{
    char fingerprint[33], hash[33];
    TESS_TRY(tess_model_fingerprint(m, fingerprint));
    TESS_TRY(hash_contents(c, hash));
    const tess_pair pairs[] = {{"tessera_pack", PACK_FORMAT},
                               {"mode", tess__pack_mode_name(tess__packs_mode(m->packs))},
                               {"stamp", stamp},
                               {"fingerprint", fingerprint},
                               {"hash", hash}};
    return tess_tensors_save(path, c->items, (int64_t)c->n, pairs, TESS_COUNT(pairs));
}

tess_status tess__pack_save(tess_model *m, const char *stamp, const char *path)
{
    contents c = {0};
    tess_status st = collect(m, &c);
    st = st ? st : save_contents(m, stamp, path, &c);
    tess_free(c.items);
    tess_arena_deinit(&c.arena);
    return st;
}

/* ---- reading ------------------------------------------------------------------------------- */

static bool says(const tess_tensors *t, const char *key, const char *value)
{
    const char *have = tess_tensors_metadata(t, key);
    return have && strcmp(have, value) == 0;
}

tess_status tess__pack_open(const char *path, const char *stamp, tess_pack_match *match,
                            tess_packs **out)
{
    tess_tensors *t = NULL;
    *out = NULL;
    TESS_TRY(tess_tensors_open(path, &t));
    const char *fingerprint = tess_tensors_metadata(t, "fingerprint");
    if (!says(t, "tessera_pack", PACK_FORMAT) || !fingerprint || strlen(fingerprint) != 32) {
        tess_tensors_free(t);
        return TESS_FAIL(TESS_FORMAT, "%s: expected packed weights of format " PACK_FORMAT, path);
    }
    match->stamped = says(t, "stamp", stamp);
    memcpy(match->fingerprint, fingerprint, 33);
    const tess_status st = tess__packs_of_file(t, out);
    return st ? tess_error_prefix(st, "%s", path) : TESS_OK;
}

tess_status tess__pack_verify(const tess_packs *p)
{
    const tess_tensors *t = tess__packs_file(p);
    const size_t n = (size_t)tess_tensors_count(t);
    const tess_tensor **order = tess_alloc_array(n + 1, sizeof *order);
    char hash[33];
    for (size_t i = 0; order && i < n; i++) {
        order[i] = tess_tensors_at(t, (int64_t)i);
    }
    const tess_status st = order ? hash_tensors(order, n, hash) : TESS_NOMEM;
    tess_free(order);
    TESS_TRY(st);
    return says(t, "hash", hash)
               ? TESS_OK
               : TESS_FAIL(TESS_FORMAT, "its data is not what was written; run tessera pack again");
}
