/* SPDX-License-Identifier: Apache-2.0 */
/* Which family a model directory is of, and where its weights lie.
 *
 * One directory may hold a model twice (OpenCLIP's files beside Hugging Face's), sometimes with the
 * weights of one of them as a pickle; so a family is taken whose weights are there too, before one
 * that has a config alone.  Pickles are programs: they are never read. */
#include "fusion/family.h"

#include "fusion/hf_text.h"

#include <string.h>

/* ---- the families -------------------------------------------------------------------------- */

static bool owns_openclip(const tess_json *root)
{
    return tess_json_get(root, "model_cfg") && !tess_json_get(root, "tessera");
}

static bool owns_hf(const tess_json *root)
{
    return tess_json_get(root, "model_type") &&
           (tess_json_get(root, "vision_config") || tess_json_get(root, "text_config") ||
            tess_json_get(root, "vision_config_dict"));
}

static tess_status read_openclip(const tess_json *root, const char *dir, const char *path,
                                 tess_arena *arena, tess_model_config *out)
{
    return tess__openclip_read(root, dir, path, arena, out);
}

static tess_status read_hf(const tess_json *root, const char *dir, const char *path,
                           tess_arena *arena, tess_model_config *out)
{
    tess_json_doc *doc = NULL;
    const char *pixels = tess_arena_format(arena, "%s/preprocessor_config.json", dir);
    TESS_TRY(pixels ? TESS_OK : TESS_NOMEM);
    TESS_TRY(tess__hf_read(root, path, arena, out));
    TESS_TRY(tess_json_load(pixels, &doc));
    tess_status st = tess__hf_read_preprocess(tess_json_root(doc), pixels, arena, out);
    tess_json_free(doc);
    return st;
}

static tess_layout layout_openclip(const tess_model_config *c)
{
    const bool timm = strcmp(c->vision.pool_type, "probe") == 0;
    if (c->text.bert) {
        tess_layout l = tess__layout_openclip_image(timm);
        tess__layout_add_hf_text(&l, &c->text);
        return l;
    }
    return timm ? tess__layout_openclip_timm() : tess__layout_openclip(c->custom_text);
}

static tess_layout layout_hf(const tess_model_config *c)
{
    return strcmp(c->vision.pool_type, "probe") == 0 ? tess__layout_hf_siglip()
                                                     : tess__layout_hf_clip();
}

static tess_status write_file(const char *dir, const char *name, tess_buf *text, tess_status st)
{
    char *path = tess_format("%s/%s", dir, name);
    st = st ? st : path ? tess_buf_check(text) : TESS_NOMEM;
    st = st ? st : tess_file_write(path, text->data, text->n_bytes);
    tess_buf_deinit(text);
    tess_free(path);
    return st;
}

static tess_status write_openclip(const tess_model_config *c, const char *dir)
{
    tess_buf text = {0};
    tess_status st = tess__openclip_write(c, &text);
    TESS_TRY(write_file(dir, "open_clip_config.json", &text, st));
    return tess__hf_text_write_config(&c->text, dir);
}

static tess_status write_hf(const tess_model_config *c, const char *dir)
{
    tess_buf text = {0}, pixels = {0};
    tess_status st = tess__hf_write(c, &text);
    TESS_TRY(write_file(dir, "config.json", &text, st));
    st = tess__hf_write_preprocess(c, &pixels);
    return write_file(dir, "preprocessor_config.json", &pixels, st);
}

static const char *const openclip_configs[] = {"open_clip_config.json", NULL};
static const char *const hf_configs[] = {"config.json", "preprocessor_config.json", NULL};

static const tess_family families[] = {
    {"openclip",
     "open_clip_config.json",
     {"open_clip_model.safetensors", "model.safetensors"},
     owns_openclip,
     read_openclip,
     layout_openclip,
     write_openclip,
     openclip_configs},
    {"hf", "config.json", {"model.safetensors"}, owns_hf, read_hf, layout_hf, write_hf, hf_configs},
};

const tess_family *tess__family_named(const char *name)
{
    for (int64_t i = 0; i < TESS_COUNT(families); i++) {
        if (strcmp(families[i].name, name) == 0) {
            return &families[i];
        }
    }
    return NULL;
}

/* ---- finding ------------------------------------------------------------------------------- */

/* The path of the first weights that are there, an index among them; NULL: none. */
static const char *find_weights(const tess_family *f, const char *dir, tess_arena *arena)
{
    static const char *const suffixes[] = {"", ".index.json"};
    for (int i = 0; i < 4 && f->weights[i]; i++) {
        for (int k = 0; k < 2; k++) {
            const char *path = tess_arena_format(arena, "%s/%s%s", dir, f->weights[i], suffixes[k]);
            if (path && tess_path_exists(path)) {
                return path;
            }
        }
    }
    return NULL;
}

static tess_status owns(const tess_family *f, const char *dir, tess_arena *arena, bool *out)
{
    *out = false;
    const char *path = tess_arena_format(arena, "%s/%s", dir, f->config);
    TESS_TRY(path ? TESS_OK : TESS_NOMEM);
    if (!tess_path_exists(path)) {
        return TESS_OK;
    }
    tess_json_doc *doc = NULL;
    TESS_TRY(tess_json_load(path, &doc));
    *out = f->owns(tess_json_root(doc));
    tess_json_free(doc);
    return TESS_OK;
}

static tess_status find(const char *dir, tess_arena *arena, const tess_family **out)
{
    const tess_family *bare = NULL; /* the config alone is there */
    for (int64_t i = 0; i < TESS_COUNT(families); i++) {
        bool is_owner;
        TESS_TRY(owns(&families[i], dir, arena, &is_owner));
        if (is_owner && find_weights(&families[i], dir, arena)) {
            *out = &families[i];
            return TESS_OK;
        }
        bare = is_owner && !bare ? &families[i] : bare;
    }
    *out = bare;
    return TESS_OK;
}

tess_status tess__family_find(const char *dir, const tess_family **out)
{
    tess_arena arena = {0};
    *out = NULL;
    tess_status st = find(dir, &arena, out);
    tess_arena_deinit(&arena);
    return st;
}

/* There is a config.json, and it is nobody's. */
static tess_status refuse_config(const char *path)
{
    tess_json_doc *doc = NULL;
    TESS_TRY(tess_json_load(path, &doc));
    const char *type = tess_json_string(tess_json_get(tess_json_root(doc), "model_type"), NULL);
    tess_status st =
        type ? TESS_FAIL(TESS_UNSUPPORTED,
                         "%s: model_type: expected clip or siglip with their vision_config and "
                         "text_config, bert or xlm-roberta, found \"%.60s\"",
                         path, type)
             : TESS_FAIL(TESS_FORMAT, "%s: expected an object with model_type", path);
    tess_json_free(doc);
    return st;
}

tess_status tess__family_none(const char *dir)
{
    if (!tess_path_is_dir(dir)) {
        return TESS_FAIL(TESS_IO,
                         "%s: expected a directory with open_clip_config.json, config.json or "
                         "modules.json, found %s",
                         dir, tess_path_exists(dir) ? "a file" : "nothing");
    }
    char *path = tess_format("%s/config.json", dir);
    tess_status st = path ? TESS_OK : TESS_NOMEM;
    if (st == TESS_OK && tess_path_exists(path)) {
        st = refuse_config(path);
    } else if (st == TESS_OK) {
        st = TESS_FAIL(TESS_IO,
                       "%s: no model here: expected open_clip_config.json, config.json or "
                       "modules.json",
                       dir);
    }
    tess_free(path);
    return st;
}

/* ---- weights ------------------------------------------------------------------------------- */

static bool is_pickle(const char *name)
{
    static const char *const ends[] = {".bin", ".pt", ".pth", ".ckpt", ".bin.index.json"};
    size_t n = strlen(name);
    for (int64_t i = 0; i < TESS_COUNT(ends); i++) {
        size_t k = strlen(ends[i]);
        if (n > k && strcmp(name + n - k, ends[i]) == 0) {
            return true;
        }
    }
    return false;
}

static tess_status refuse(const tess_family *f, const char *dir, const tess_names *names)
{
    for (size_t i = 0; i < names->n_names; i++) {
        const char *name = names->names[i];
        if (is_pickle(name)) {
            return TESS_FAIL(
                TESS_UNSUPPORTED,
                "%s/%s is a pickle, a program that runs when it is read; convert it where PyTorch "
                "is: python3 -c 'import torch; from safetensors.torch import save_file; d = "
                "torch.load(\"%s\", map_location=\"cpu\", weights_only=True); d = "
                "d.get(\"state_dict\", d); save_file({k.removeprefix(\"module.\"): "
                "v.contiguous().clone() for k, v in d.items()}, \"%s\")'",
                dir, name, name, f->weights[0]);
        }
    }
    return TESS_FAIL(TESS_IO, "%s: expected %s, or its .index.json with shards", dir,
                     f->weights[0]);
}

tess_status tess__family_weights(const tess_family *f, const char *dir, tess_arena *arena,
                                 const char **out_path, tess_tensors **out)
{
    const char *path = *out_path = find_weights(f, dir, arena);
    if (path) {
        size_t n = strlen(path), k = strlen(".index.json");
        bool sharded = n > k && strcmp(path + n - k, ".index.json") == 0;
        return sharded ? tess_tensors_open_index(path, out) : tess_tensors_open(path, out);
    }
    tess_names names = {0};
    tess_status st = tess_dir_list(dir, false, &names);
    st = st ? st : refuse(f, dir, &names);
    tess_names_deinit(&names);
    return st;
}
