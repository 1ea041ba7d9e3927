/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a model of another program.  Its family reads the config and names the layout; the
 * parameters, the graph and all that follows are those of any model. */
#include "fusion/foreign.h"

#include <string.h>

/* ---- tokenizers ---------------------------------------------------------------------------- */

static tess_status tokenizer_options(const tess_text_config *c, tess_tokenizer_options *out)
{
    *out = (tess_tokenizer_options){.open_clip = strcmp(c->text_mode, "open_clip") == 0};
    if (out->open_clip || strcmp(c->text_mode, "raw") == 0) {
        return TESS_OK;
    }
    return tess_clip_clean_find(c->text_mode, &out->clean);
}

/* BERT's embeddings are sometimes padded to a round number of rows. */
#define MOST_UNUSED 1024

static tess_status check_tokenizer(const tess_model *m, const char *dir)
{
    const tess_text_config *c = &m->config.text;
    int32_t n = tess_tokenizer_n_vocab(m->tokenizer), eos = tess_tokenizer_eos_id(m->tokenizer);
    if (n > c->vocab_size || (int64_t)n + (c->bert ? MOST_UNUSED : 0) < c->vocab_size) {
        return TESS_FAIL(TESS_INVALID,
                         "%s: the tokenizer has %d pieces, but the text tower embeds %lld: they "
                         "belong to different models",
                         dir, n, (long long)c->vocab_size);
    }
    if (strcmp(c->pool_type, "eos") == 0 && eos != c->eos_id) {
        return TESS_FAIL(TESS_INVALID,
                         "%s: the tokenizer's end id is %d, but the text tower reads its result at "
                         "%lld",
                         dir, eos, (long long)c->eos_id);
    }
    return TESS_OK;
}

tess_status tess__foreign_tokenizer(tess_model *m, const char *dir)
{
    tess_tokenizer_options o;
    tess_text_config *c = &m->config.text;
    TESS_TRY(tokenizer_options(c, &o));
    TESS_TRY(tess_tokenizer_open_dir(dir, &o, &m->tokenizer));
    TESS_TRY(check_tokenizer(m, dir));
    return tess__foreign_take_marks(m);
}

/* -1: an empty text has no marks. */
static tess_status find_closing(const tess_tokenizer *t, int32_t *out)
{
    tess_ids ids = {0};
    const tess_encode_options o = {.add_special = true, .max_ids = 8};
    tess_status st = tess_tokenizer_encode(t, &ids, "", 0, &o);
    *out = st == TESS_OK && ids.n_ids > 0 ? ids.ids[ids.n_ids - 1] : -1;
    tess_ids_deinit(&ids);
    return st;
}

tess_status tess__foreign_take_marks(tess_model *m)
{
    tess_text_config *c = &m->config.text;
    int32_t eos = tess_tokenizer_eos_id(m->tokenizer), pad = tess_tokenizer_pad_id(m->tokenizer);
    if (c->bert && eos < 0) {
        TESS_TRY(find_closing(m->tokenizer, &eos));
    }
    c->eos_id = eos >= 0 ? eos : c->eos_id;
    c->pad_id = pad >= 0 ? pad : c->pad_id;
    return TESS_OK;
}

/* A tower with a causal mask reads its result at the first end id: what follows has no say. */
static void cut_at_end(const tess_text_config *c, tess_ids *ids, size_t begin)
{
    for (size_t i = begin; !c->no_causal_mask && !c->pad_to_context && i < ids->n_ids; i++) {
        if (ids->ids[i] == c->eos_id) {
            ids->n_ids = i + 1;
        }
    }
}

static tess_status fill_up(const tess_text_config *c, tess_ids *ids, size_t begin)
{
    size_t n = begin + (size_t)c->context_length;
    if (!c->pad_to_context || ids->n_ids >= n) {
        return TESS_OK;
    }
    TESS_TRY(tess_grow(&ids->ids, &ids->cap_ids, n, sizeof *ids->ids));
    while (ids->n_ids < n) {
        ids->ids[ids->n_ids++] = (int32_t)c->pad_id;
    }
    return TESS_OK;
}

tess_status tess__foreign_tokenize(const tess_model *m, const char *text, size_t n_bytes,
                                   tess_tokenizer_scratch *scratch, tess_ids *out)
{
    const tess_text_config *c = &m->config.text;
    size_t begin = out->n_ids;
    tess_encode_options o = {
        .add_special = true, .max_ids = (size_t)c->context_length, .scratch = scratch};
    TESS_TRY(tess_tokenizer_encode(m->tokenizer, out, text, n_bytes, &o));
    cut_at_end(c, out, begin);
    return fill_up(c, out, begin);
}

/* ---- opening ------------------------------------------------------------------------------- */

static tess_status read_config(const tess_family *f, const char *dir, tess_model *m)
{
    tess_json_doc *doc = NULL;
    const char *path = tess_arena_format(&m->arena, "%s/%s", dir, f->config);
    TESS_TRY(path ? TESS_OK : TESS_NOMEM);
    TESS_TRY(tess_json_load(path, &doc));
    tess_status st = f->read(tess_json_root(doc), dir, path, &m->arena, &m->config);
    tess_json_free(doc);
    return st;
}

static tess_status load_weights(const tess_family *f, const char *dir, tess_model *m)
{
    const char *path = NULL;
    tess_tensors *t = NULL;
    tess_layout layout = f->layout(&m->config);
    TESS_TRY(tess__family_weights(f, dir, &m->arena, &path, &t));
    tess_status st = tess__layout_load(&layout, m->store, "param", t, &m->types);
    tess_tensors_free(t);
    return st ? tess_error_prefix(st, "%s", path) : TESS_OK;
}

tess_status tess__foreign_open_config(const tess_family *f, const char *dir,
                                      tess_precision precision, tess_model **out)
{
    tess_model *m = NULL;
    *out = NULL;
    tess_status st = tess__model_alloc(precision, &m);
    st = st ? st : read_config(f, dir, m);
    st = st ? st : tess__foreign_tokenizer(m, dir);
    st = st ? st : tess__model_make_store(m);
    if (st) {
        tess_model_free(m);
        return st;
    }
    *out = m;
    return TESS_OK;
}

tess_status tess__foreign_open(const tess_family *f, const char *dir, tess_precision precision,
                               tess_model **out)
{
    tess_model *m = NULL;
    *out = NULL;
    TESS_TRY(tess__foreign_open_config(f, dir, precision, &m));
    tess_status st = tess_store_allocate(m->store);
    st = st ? st : load_weights(f, dir, m);
    if (st) {
        tess_model_free(m);
        return st;
    }
    *out = m;
    return TESS_OK;
}
