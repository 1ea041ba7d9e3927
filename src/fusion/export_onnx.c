/* SPDX-License-Identifier: Apache-2.0 */
/* The directory of an ONNX export: models, configs and tokenizer under a consumer's names.
 *
 *   Immich      visual/model.onnx, visual/preprocess_cfg.json, textual/model.onnx,
 *               textual/tokenizer.json, textual/tokenizer_config.json, config.json (model_cfg)
 *   Optimum     onnx/vision_model.onnx, onnx/text_model.onnx, config.json,
 *               preprocessor_config.json, tokenizer.json, tokenizer_config.json
 *
 * A text-only model has the text's files alone.
 *
 * tessera_export.json says what it was made of, and that the directory may be replaced. */
#include <string.h>

#include "fusion/family.h"
#include "fusion/onnx_towers.h"

#define EXPORT_FILE   "tessera_export.json"
#define EXPORT_FORMAT 1

static char *path_in(tess_arena *a, const char *dir, const char *name)
{
    return tess_arena_format(a, "%s/%s", dir, name);
}

static tess_status write_json(const char *path, tess_buf *b)
{
    tess_buf_adds(b, "\n");
    tess_status st = tess_buf_check(b);
    st = st ? st : tess_file_write(path, b->data, b->n_bytes);
    tess_buf_deinit(b);
    return st;
}

static void add_text(tess_json_writer *w, const char *key, const char *value)
{
    tess_json_key(w, key);
    tess_json_add_string(w, value);
}

static void add_int(tess_json_writer *w, const char *key, int64_t value)
{
    tess_json_key(w, key);
    tess_json_add_int(w, value);
}

/* ---- configs ------------------------------------------------------------------------------- */

static tess_status copy_file(const char *from, const char *to)
{
    uint8_t *data = NULL;
    size_t n = 0;
    TESS_TRY(tess_file_read(from, (size_t)1 << 26, &data, &n));
    const tess_status st = tess_file_write(to, data, n);
    tess_free(data);
    return st;
}

/* A file that its format may have no words for: then the log says so. */
static tess_status write_if_said(const char *path, tess_status st, tess_buf *b)
{
    if (st == TESS_UNSUPPORTED) {
        const char *slash = strrchr(path, '/');
        tess_log(TESS_LOG_WARN, "no %s: %s", slash ? slash + 1 : path, tess_error());
        st = TESS_OK;
    } else {
        st = st ? st : tess_buf_check(b);
        st = st ? st : tess_file_write(path, b->data, b->n_bytes);
    }
    tess_buf_deinit(b);
    return st;
}

/* One object of the config as a file of its own. */
static tess_status save_part(const tess_json *config, const char *key, const char *path)
{
    tess_buf out = {0};
    tess_json_writer w = {.buf = &out, .pretty = true};
    tess_json_add_value(&w, tess_json_get(config, key));
    return write_json(path, &out);
}

/* OpenCLIP's config, cut in two; Tessera's own keys where OpenCLIP has none. */
static tess_status save_immich_configs(const tess_model *m, const char *dir, tess_arena *a)
{
    const char *model = path_in(a, dir, "config.json");
    const char *pixels = path_in(a, dir, "visual/preprocess_cfg.json");
    tess_buf b = {0};
    tess_json_doc *doc = NULL;
    tess_status st = model && pixels ? tess__openclip_write(&m->config, &b) : TESS_NOMEM;
    if (st == TESS_UNSUPPORTED) {
        tess_buf_clear(&b);
        tess__model_config_write(&m->config, &b);
        st = TESS_OK;
    }
    st = st ? st : tess_buf_check(&b);
    st = st ? st : tess_json_parse(b.data, b.n_bytes, "config", &doc);
    st = st ? st : save_part(tess_json_root(doc), "model_cfg", model);
    st = st ? st : save_part(tess_json_root(doc), "preprocess_cfg", pixels);
    tess_json_free(doc);
    tess_buf_deinit(&b);
    return st;
}

static tess_status save_hf_configs(const tess_model *m, const char *dir, tess_arena *a)
{
    const char *model = path_in(a, dir, "config.json");
    const char *pixels = path_in(a, dir, "preprocessor_config.json");
    tess_buf b = {0}, c = {0};
    TESS_TRY(model && pixels ? TESS_OK : TESS_NOMEM);
    tess_status st = tess__hf_write(&m->config, &b);
    TESS_TRY(write_if_said(model, st, &b));
    st = tess__hf_write_preprocess(&m->config, &c);
    return write_if_said(pixels, st, &c);
}

/* A text-only model's own config.json. */
static tess_status carry_config(const tess_onnx_export *o, const char *dir, tess_arena *a)
{
    const char *theirs = path_in(a, o->model_dir ? o->model_dir : ".", "config.json");
    const char *ours = path_in(a, dir, "config.json");
    TESS_TRY(theirs && ours ? TESS_OK : TESS_NOMEM);
    return o->model_dir && tess_path_exists(theirs) ? copy_file(theirs, ours) : TESS_OK;
}

/* ---- tokenizer ----------------------------------------------------------------------------- */

static void add_token(tess_json_writer *w, const char *key, const tess_tokenizer *t, int64_t id)
{
    tess_bytes piece =
        id >= 0 && id <= INT32_MAX ? tess_tokenizer_piece(t, (int32_t)id) : (tess_bytes){0};
    char *text = piece.data ? tess_strndup((const char *)piece.data, piece.n_bytes) : NULL;
    if (text) {
        add_text(w, key, text);
    }
    w->buf->failed |= piece.data && !text;
    tess_free(text);
}

static tess_status write_tokenizer_config(const tess_model *m, const char *path)
{
    const tess_text_config *c = &m->config.text;
    tess_buf out = {0};
    tess_json_writer w = {.buf = &out, .pretty = true};
    tess_json_begin_object(&w);
    add_text(&w, "tokenizer_class", "PreTrainedTokenizerFast");
    add_int(&w, "model_max_length", c->context_length);
    add_token(&w, "bos_token", m->tokenizer, tess_tokenizer_bos_id(m->tokenizer));
    add_token(&w, "eos_token", m->tokenizer, c->eos_id);
    add_token(&w, "unk_token", m->tokenizer, tess_tokenizer_unk_id(m->tokenizer));
    add_token(&w, "pad_token", m->tokenizer, c->pad_id);
    tess_json_end_object(&w);
    return write_json(path, &out);
}

static tess_status save_tokenizer_config(const tess_model *m, const char *model_dir,
                                         const char *path)
{
    char *theirs = model_dir ? tess_format("%s/tokenizer_config.json", model_dir) : NULL;
    const bool copy = theirs && tess_path_exists(theirs);
    const tess_status st = copy ? copy_file(theirs, path) : write_tokenizer_config(m, path);
    tess_free(theirs);
    return st;
}

/* A tokenizer.json made of a SentencePiece model, beside it; where that cannot be, a word about
 * what a consumer will miss. */
static tess_status convert_tokenizer(const tess_model *m, const char *path)
{
    tess_buf b = {0};
    tess_status st = tess_tokenizer_write_json(m->tokenizer, &b);
    if (st == TESS_UNSUPPORTED || st == TESS_FORMAT) {
        tess_log(TESS_LOG_WARN, "no tokenizer.json: %s; consumers that want one need it converted",
                 tess_error());
        st = TESS_OK;
    } else {
        st = st ? st : tess_file_write(path, b.data, b.n_bytes);
    }
    tess_buf_deinit(&b);
    return st;
}

/* tokenizer.json under that name, whatever the model calls it; else the model's files as they are
 * too. */
static tess_status save_tokenizer_files(const tess_model *m, const char *dir)
{
    const char *name = tess_tokenizer_file(m->tokenizer, 0);
    const size_t n = strlen(name);
    const bool json =
        n > 5 && strcmp(name + n - 5, ".json") == 0 && strcmp(name, "vocab.json") != 0;
    char *path = tess_format("%s/tokenizer.json", dir);
    tess_status st = path ? TESS_OK : TESS_NOMEM;
    if (st == TESS_OK && json) {
        st = tess_tokenizer_save(m->tokenizer, path);
    } else if (st == TESS_OK) {
        st = tess_tokenizer_save_dir(m->tokenizer, dir);
        st = st ? st : convert_tokenizer(m, path);
    }
    tess_free(path);
    return st;
}

static tess_status save_tokenizer(const tess_model *m, const tess_onnx_export *o, const char *dir)
{
    char *config = tess_format("%s/tokenizer_config.json", dir);
    tess_status st = config ? save_tokenizer_files(m, dir) : TESS_NOMEM;
    if (st == TESS_OK && !tess_path_exists(config)) {
        st = save_tokenizer_config(m, o->model_dir, config);
    }
    tess_free(config);
    return st;
}

/* ---- the directory ------------------------------------------------------------------------- */

static tess_status save_summary(tess_model *m, const tess_onnx_export *o, const char *path)
{
    char fingerprint[33];
    TESS_TRY(tess_model_fingerprint(m, fingerprint));
    tess_buf b = {0};
    tess_json_writer w = {.buf = &b, .pretty = true};
    tess_json_begin_object(&w);
    add_int(&w, "format", EXPORT_FORMAT);
    add_text(&w, "tessera_version", TESS_VERSION);
    add_text(&w, "kind", "onnx");
    add_text(&w, "naming", tess__onnx_names(o->naming)->name);
    add_text(&w, "precision", o->half ? "fp16" : "fp32");
    add_text(&w, "fingerprint", fingerprint);
    add_int(&w, "embed_dim", m->config.embed_dim);
    tess_json_end_object(&w);
    return write_json(path, &b);
}

static tess_status save_configs(const tess_model *m, const tess_onnx_export *o, const char *dir,
                                tess_arena *a)
{
    const bool immich = o->naming == TESS_ONNX_IMMICH;
    const char *tokens = immich ? path_in(a, dir, "textual") : dir;
    tess_status st = tokens ? TESS_OK : TESS_NOMEM;
    st = st                         ? st
         : !tess_model_has_image(m) ? carry_config(o, dir, a)
         : immich                   ? save_immich_configs(m, dir, a)
                                    : save_hf_configs(m, dir, a);
    return st ? st : save_tokenizer(m, o, tokens);
}

static tess_status make_parents(const tess_model *m, const tess_onnx_names *n, const char *dir,
                                tess_arena *a)
{
    const char *files[] = {n->text_file, n->picture_file};
    for (int i = 0; i < (tess_model_has_image(m) ? 2 : 1); i++) {
        const int length = (int)(strchr(files[i], '/') - files[i]);
        const char *path = tess_arena_format(a, "%s/%.*s", dir, length, files[i]);
        TESS_TRY(path ? tess_dir_make(path) : TESS_NOMEM);
    }
    return TESS_OK;
}

static tess_status save_parts(tess_model *m, const tess_onnx_export *o, const char *dir)
{
    const tess_onnx_names *n = tess__onnx_names(o->naming);
    tess_arena a = {0};
    const char *pictures = path_in(&a, dir, n->picture_file);
    const char *texts = path_in(&a, dir, n->text_file);
    const char *summary = path_in(&a, dir, EXPORT_FILE);
    tess_status st = pictures && texts && summary ? make_parents(m, n, dir, &a) : TESS_NOMEM;
    if (st == TESS_OK && tess_model_has_image(m)) {
        st = tess__onnx_picture_tower(m, o, pictures);
    }
    st = st ? st : tess__onnx_text_tower(m, o, texts);
    st = st ? st : save_configs(m, o, dir, &a);
    st = st ? st : save_summary(m, o, summary);
    tess_arena_deinit(&a);
    return st;
}

/* Only what is an export is ever replaced: a mistyped path must not cost somebody's files. */
static tess_status check_replaceable(const char *dir)
{
    if (!tess_path_exists(dir)) {
        return TESS_OK;
    }
    if (!tess_path_is_dir(dir)) {
        return TESS_FAIL(TESS_INVALID, "it exists and is no directory");
    }
    char *mark = tess_format("%s/" EXPORT_FILE, dir);
    const bool is_export = mark && tess_path_exists(mark);
    tess_names found = {0};
    tess_status st = mark ? tess_dir_list(dir, false, &found) : TESS_NOMEM;
    if (st == TESS_OK && !is_export && found.n_names > 0) {
        st = TESS_FAIL(TESS_INVALID,
                       "it exists and is no export: name another, or remove it yourself");
    }
    tess_names_deinit(&found);
    tess_free(mark);
    return st;
}

static tess_status save_beside(tess_model *m, const tess_onnx_export *o, const char *dir,
                               const char *fresh)
{
    TESS_TRY(check_replaceable(dir));
    TESS_TRY(tess_dir_remove(fresh));
    tess_status st = save_parts(m, o, fresh);
    st = st ? st : tess_dir_replace(fresh, dir);
    if (st) {
        char *why = tess_strdup(tess_error());
        const tess_status ignored = tess_dir_remove(fresh); /* what a failed export leaves */
        (void)ignored;
        st = why ? TESS_FAIL(st, "%s", why) : st;
        tess_free(why);
    }
    return st;
}

tess_status tess_model_export_onnx(tess_model *m, const char *dir, const tess_onnx_export *o)
{
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/') {
        n--;
    }
    if (m->packs || m->dtype != TESS_F32) {
        return TESS_FAIL(TESS_INVALID,
                         "exporting to %s: expected a model that is open in f32, "
                         "found %s",
                         dir, tess_model_mode(m));
    }
    char *plain = tess_strndup(dir, n), *fresh = tess_format("%.*s.exporting", (int)n, dir);
    const tess_status st = plain && fresh ? save_beside(m, o, plain, fresh) : TESS_NOMEM;
    tess_free(plain);
    tess_free(fresh);
    return st ? tess_error_prefix(st, "exporting to %s", dir) : TESS_OK;
}
