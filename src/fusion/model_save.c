/* SPDX-License-Identifier: Apache-2.0 */
/* Writing a model directory, whole or absent; its parts, for checkpoints; and what it records of
 * itself.
 *
 * tessera.json has the fingerprint of a model that is saved by itself.  That is a hash of all
 * weights in one order, which who writes them by pieces, or has a part of them alone, cannot make
 * as he goes: a checkpoint's has size and sum of the weights' file in its place. */
#include "fusion/lora.h"
#include "fusion/model.h"
#include "fusion/sentence_model.h"

#include <string.h>

#define CONFIG_FILE  "open_clip_config.json"
#define SUMMARY_FILE "tessera.json"

enum { SUMMARY_FORMAT = 1, SUM_BYTES = 48 };

/* ---- parts --------------------------------------------------------------------------------- */

static tess_status describe_params(const tess_model *m, tess_model_weights *out)
{
    out->file = TESS_WEIGHTS_FILE;
    out->n = tess_store_n_entries(m->store, "param");
    out->tensors = tess_alloc_array((size_t)out->n, sizeof *out->tensors);
    for (int64_t i = 0; out->tensors && i < out->n; i++) {
        float *data;
        tess_tensor *t = &out->tensors[i];
        t->name = tess_store_entry(m->store, "param", i, &data, &t->shape);
        t->dtype = "F32";
        t->data = (const uint8_t *)data;
        t->n_bytes = (size_t)tess_shape_count(&t->shape) * sizeof *data;
        t->pager = tess_store_pager(m->store);
    }
    return out->tensors ? TESS_OK : TESS_NOMEM;
}

tess_status tess_model_gather_weights(tess_model *m, tess_model_weights *out)
{
    *out = (tess_model_weights){0};
    return m->lora ? tess__lora_describe(m, out) : describe_params(m, out);
}

void tess_model_weights_deinit(tess_model_weights *w)
{
    tess_free(w->tensors);
    tess_arena_deinit(&w->arena);
    *w = (tess_model_weights){0};
}

/* ---- a directory --------------------------------------------------------------------------- */

static tess_status write_summary(const tess_model *m, const char *path, const char *key,
                                 const char *value)
{
    tess_buf b = {0};
    tess_json_writer w = {.buf = &b, .pretty = true};
    tess_json_begin_object(&w);
    tess_json_key(&w, "format");
    tess_json_add_int(&w, SUMMARY_FORMAT);
    tess_json_key(&w, "tessera_version");
    tess_json_add_string(&w, TESS_VERSION);
    tess_json_key(&w, key);
    tess_json_add_string(&w, value);
    tess_json_key(&w, "embed_dim");
    tess_json_add_int(&w, m->config.embed_dim);
    tess_json_end_object(&w);
    tess_buf_adds(&b, "\n");
    tess_status st = tess_buf_check(&b);
    st = st ? st : tess_file_write(path, b.data, b.n_bytes);
    tess_buf_deinit(&b);
    return st;
}

static tess_status save_summary(tess_model *m, const char *path)
{
    char fingerprint[33];
    TESS_TRY(tess_model_fingerprint(m, fingerprint));
    return write_summary(m, path, "fingerprint", fingerprint);
}

static tess_status save_config(const tess_model *m, const char *path)
{
    tess_buf b = {0};
    tess__model_config_write(&m->config, &b);
    tess_status st = tess_buf_check(&b);
    st = st ? st : tess_file_write(path, b.data, b.n_bytes);
    tess_buf_deinit(&b);
    return st;
}

/* The config and the tokenizer. */
static tess_status save_frame(const tess_model *m, const char *dir)
{
    tess_arena paths = {0};
    const char *config = tess_arena_format(&paths, "%s/" CONFIG_FILE, dir);
    const char *tokenizer = tess_arena_format(&paths, "%s/%s", dir, m->config.text.tokenizer);
    tess_status st = config && tokenizer ? tess_dir_make(dir) : TESS_NOMEM;
    st = st ? st : save_config(m, config);
    bool clean = tess__text_is_clean(&m->config.text);
    st = st      ? st
         : clean ? tess_tokenizer_save(m->tokenizer, tokenizer)
                 : tess_tokenizer_save_dir(m->tokenizer, dir);
    tess_arena_deinit(&paths);
    return st;
}

static tess_status save_weights(tess_model *m, const char *path)
{
    tess_model_weights weights = {0};
    tess_status st = tess_model_gather_weights(m, &weights);
    st = st ? st : tess_tensors_save(path, weights.tensors, weights.n, NULL, 0);
    tess_model_weights_deinit(&weights);
    return st;
}

static tess_status save_parts(tess_model *m, const char *dir)
{
    if (m->config.sentence) {
        return tess__sentence_save(m, dir, false);
    }
    tess_arena paths = {0};
    const char *weights = tess_arena_format(&paths, "%s/" TESS_WEIGHTS_FILE, dir);
    const char *summary = tess_arena_format(&paths, "%s/" SUMMARY_FILE, dir);
    tess_status st = weights && summary ? save_frame(m, dir) : TESS_NOMEM;
    st = st ? st : save_weights(m, weights);
    st = st ? st : save_summary(m, summary);
    tess_arena_deinit(&paths);
    return st;
}

/* Only what is a model is ever replaced: a mistyped path must not cost somebody's files. */
static tess_status check_replaceable(const char *dir)
{
    if (!tess_path_exists(dir)) {
        return TESS_OK;
    }
    char *config = tess_format("%s/" CONFIG_FILE, dir);
    bool is_model = config && tess_path_exists(config), is_sentence = false;
    tess_names names = {0};
    tess_status st = config ? tess__sentence_is_dir(dir, &is_sentence) : TESS_NOMEM;
    is_model = is_model || is_sentence;
    st = st ? st : tess_dir_list(dir, false, &names);
    if (st == TESS_OK && !is_model && names.n_names > 0) {
        st = TESS_FAIL(TESS_INVALID,
                       "it exists and is no model directory: name another, or remove it yourself");
    }
    tess_names_deinit(&names);
    tess_free(config);
    return st;
}

static tess_status save_beside(tess_model *m, const char *dir, const char *fresh)
{
    TESS_TRY(check_replaceable(dir));
    TESS_TRY(tess_dir_remove(fresh));
    tess_status st = save_parts(m, fresh);
    st = st ? st : tess_dir_replace(fresh, dir);
    if (st) {
        char *why = tess_strdup(tess_error());
        tess_status ignored = tess_dir_remove(fresh); /* what a failed save leaves */
        (void)ignored;
        st = why ? TESS_FAIL(st, "%s", why) : st;
        tess_free(why);
    }
    return st;
}

tess_status tess_model_save(tess_model *m, const char *dir)
{
    if (m->packs || m->narrow) {
        return TESS_FAIL(TESS_INVALID,
                         "saving model %s: it was opened for embedding alone, or has "
                         "given up its f32 weights",
                         dir);
    }
    TESS_TRY(tess_model_fetch(m));
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/') {
        n--;
    }
    char *plain = tess_strndup(dir, n), *fresh = tess_format("%.*s.saving", (int)n, dir);
    tess_status st = plain && fresh ? save_beside(m, plain, fresh) : TESS_NOMEM;
    tess_free(plain);
    tess_free(fresh);
    return st ? tess_error_prefix(st, "saving model %s", dir) : TESS_OK;
}

/* ---- what it records ------------------------------------------------------------------------ */

static void format_sum(int64_t n_bytes, uint64_t crc, char out[SUM_BYTES])
{
    snprintf(out, SUM_BYTES, "%lld:%016llx", (long long)n_bytes, (unsigned long long)crc);
}

static tess_status sum_weights(const char *dir, char out[SUM_BYTES])
{
    tess_bytes map = {0};
    char *path = tess_format("%s/" TESS_WEIGHTS_FILE, dir);
    tess_status st = path ? tess_file_map(path, &map) : TESS_NOMEM;
    if (st == TESS_OK) {
        format_sum((int64_t)map.n_bytes, tess_file_crc64(map), out);
        tess_file_unmap(&map);
    }
    tess_free(path);
    return st;
}

static tess_status check_summary(tess_model *m, const char *dir, const char *path)
{
    char have[SUM_BYTES];
    tess_json_doc *doc = NULL;
    TESS_TRY(tess_json_load(path, &doc));
    const tess_json *root = tess_json_root(doc);
    const char *sum = tess_json_string(tess_json_get(root, "weights"), NULL);
    const char *want = sum ? sum : tess_json_string(tess_json_get(root, "fingerprint"), "");
    int64_t format = tess_json_int(tess_json_get(root, "format"), 0);
    tess_status st = sum ? sum_weights(dir, have) : tess_model_fingerprint(m, have);
    if (st == TESS_OK && format != SUMMARY_FORMAT) {
        st = TESS_FAIL(TESS_UNSUPPORTED, "%s: expected format %d, found %lld", path, SUMMARY_FORMAT,
                       (long long)format);
    }
    if (st == TESS_OK && strcmp(have, want) != 0) {
        st = TESS_FAIL(TESS_FORMAT,
                       "%s: recorded %s %.48s, but the files give %s: a file was changed "
                       "or is damaged; restore it, or delete tessera.json to accept the files as "
                       "they are",
                       path, sum ? "weights" : "fingerprint", want, have);
    }
    tess_json_free(doc);
    return st;
}

tess_status tess__model_check_summary(tess_model *m, const char *dir)
{
    char *path = tess_format("%s/" SUMMARY_FILE, dir);
    tess_status st = path ? TESS_OK : TESS_NOMEM;
    if (st == TESS_OK && tess_path_exists(path)) {
        st = check_summary(m, dir, path);
    }
    tess_free(path);
    return st;
}

/* ---- of a checkpoint ----------------------------------------------------------------------- */

tess_status tess_model_write_frame(const tess_model *m, const char *dir)
{
    return m->lora ? tess__lora_write_config(m, dir) : save_frame(m, dir);
}

tess_status tess_model_write_summary(const tess_model *m, const char *dir, int64_t n_bytes,
                                     uint64_t crc)
{
    char sum[SUM_BYTES];
    if (m->lora) {
        return TESS_OK;
    }
    char *path = tess_format("%s/" SUMMARY_FILE, dir);
    format_sum(n_bytes, crc, sum);
    tess_status st = path ? write_summary(m, path, "weights", sum) : TESS_NOMEM;
    tess_free(path);
    return st;
}
