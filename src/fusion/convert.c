/* SPDX-License-Identifier: Apache-2.0 */
/* A model directory becomes one of another layout.
 *
 * Weights keep the type that each tensor had; within one family the configs and the tensors that
 * are no parameters are carried over as they are, so that what comes back is what went in. */
#include "fusion/foreign.h"
#include "fusion/sentence_model.h"

#include <string.h>

typedef struct conversion {
    tess_model *model;
    const tess_family *from, *to; /* from NULL: Tessera's own directory */
    const char *in, *fresh;       /* directories */
    tess_arena arena;
    tess_tensors *source; /* within one family: for what is carried over */
    tess_tensor *tensors;
    int64_t n;
} conversion;

static bool same_family(const conversion *c)
{
    return c->from == c->to;
}

static tess_status copy_file(conversion *c, const char *name)
{
    const char *from = tess_arena_format(&c->arena, "%s/%s", c->in, name);
    const char *to = tess_arena_format(&c->arena, "%s/%s", c->fresh, name);
    tess_bytes map;
    TESS_TRY(from && to ? TESS_OK : TESS_NOMEM);
    const char *slash = strrchr(name, '/');
    if (slash) {
        const char *folder =
            tess_arena_format(&c->arena, "%s/%.*s", c->fresh, (int)(slash - name), name);
        TESS_TRY(folder ? tess_dir_make(folder) : TESS_NOMEM);
    }
    TESS_TRY(tess_file_map(from, &map));
    tess_status st = tess_file_write(to, map.data, map.n_bytes);
    tess_file_unmap(&map);
    return st;
}

static tess_status write_configs(conversion *c)
{
    if (!same_family(c)) {
        return c->to->write(&c->model->config, c->fresh);
    }
    for (int i = 0; c->to->configs[i]; i++) {
        TESS_TRY(copy_file(c, c->to->configs[i]));
    }
    const char *text = c->model->config.text_config_file;
    return text ? copy_file(c, text) : TESS_OK;
}

static bool is_written(const conversion *c, const char *name)
{
    for (int64_t i = 0; i < c->n; i++) {
        if (strcmp(c->tensors[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* position_ids and the like, behind the parameters. */
static tess_status add_carried(conversion *c, const tess_layout *layout)
{
    const char *path;
    TESS_TRY(tess__family_weights(c->from, c->in, &c->arena, &path, &c->source));
    int64_t n_source = tess_tensors_count(c->source);
    tess_tensor *all = tess_arena_alloc(&c->arena, (size_t)(c->n + n_source + 1) * sizeof *all);
    TESS_TRY(all ? TESS_OK : TESS_NOMEM);
    memcpy(all, c->tensors, (size_t)c->n * sizeof *all);
    for (int64_t i = 0; i < n_source; i++) {
        const tess_tensor *t = tess_tensors_at(c->source, i);
        if (!is_written(c, t->name) && tess__layout_ignores(layout, t->name)) {
            all[c->n++] = *t;
        }
    }
    c->tensors = all;
    return TESS_OK;
}

/* A scalar is (1) in some files: what was read so is written so. */
static void restore_shapes(conversion *c)
{
    for (int64_t i = 0; i < c->n; i++) {
        const tess_tensor *was = tess_tensors_find(c->source, c->tensors[i].name);
        if (was && tess_shape_count(&was->shape) == tess_shape_count(&c->tensors[i].shape)) {
            c->tensors[i].shape = was->shape;
        }
    }
}

static tess_status write_weights(conversion *c)
{
    tess_model *m = c->model;
    tess_layout layout = c->to->layout(&m->config);
    const char *path = tess_arena_format(&c->arena, "%s/%s", c->fresh, c->to->weights[0]);
    TESS_TRY(path ? TESS_OK : TESS_NOMEM);
    TESS_TRY(tess__layout_tensors(&layout, m->store, "param", m->types.n ? &m->types : NULL,
                                  &c->arena, &c->tensors, &c->n));
    if (same_family(c)) {
        TESS_TRY(add_carried(c, &layout));
        restore_shapes(c);
    }
    return tess_tensors_save(path, c->tensors, c->n, NULL, 0);
}

static tess_status write_all(conversion *c)
{
    if (c->model->config.sentence) {
        return tess__sentence_save(c->model, c->fresh, true);
    }
    TESS_TRY(tess_dir_make(c->fresh));
    TESS_TRY(write_configs(c));
    TESS_TRY(tess_tokenizer_save_dir(c->model->tokenizer, c->fresh));
    return write_weights(c);
}

/* Nothing that exists is overwritten. */
static tess_status check_target(const char *out)
{
    tess_names names = {0};
    if (!tess_path_exists(out)) {
        return TESS_OK;
    }
    TESS_TRY(tess_dir_list(out, false, &names));
    bool empty = names.n_names == 0;
    tess_names_deinit(&names);
    return empty ? TESS_OK
                 : TESS_FAIL(TESS_INVALID, "%s: it exists and is not empty: name another", out);
}

static tess_status check_sentence(const conversion *c, const char *to)
{
    if (c->model->config.sentence && strcmp(to, "hf") != 0) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "%s has a text tower alone, which the layout %s cannot say: expected hf, "
                         "or an image tower beside it (tessera mix)",
                         c->in, to);
    }
    return TESS_OK;
}

static tess_status convert(conversion *c, const char *to, const char *out)
{
    c->to = tess__family_named(to);
    c->fresh = tess_arena_format(&c->arena, "%s.saving", out);
    TESS_TRY(c->fresh ? TESS_OK : TESS_NOMEM);
    if (!c->to) {
        return TESS_FAIL(TESS_INVALID, "expected the layout openclip or hf, found \"%s\"", to);
    }
    TESS_TRY(check_target(out));
    TESS_TRY(tess_model_open(c->in, TESS_PRECISION_F32, &c->model));
    TESS_TRY(check_sentence(c, to));
    TESS_TRY(tess__family_find(c->in, &c->from));
    TESS_TRY(tess_dir_remove(c->fresh));
    TESS_TRY(write_all(c));
    return tess_dir_replace(c->fresh, out);
}

tess_status tess_model_convert(const char *in, const char *to, const char *out)
{
    conversion c = {.in = strncmp(in, "local-dir:", 10) == 0 ? in + 10 : in};
    tess_status st = convert(&c, to, out);
    if (st && c.fresh) {
        char *why = tess_strdup(tess_error());
        tess_status ignored = tess_dir_remove(c.fresh); /* what a failed save leaves */
        (void)ignored;
        st = why ? TESS_FAIL(st, "%s", why) : st;
        tess_free(why);
    }
    tess_tensors_free(c.source);
    tess_model_free(c.model);
    tess_arena_deinit(&c.arena);
    return st;
}
