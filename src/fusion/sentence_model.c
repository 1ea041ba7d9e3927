/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a text-only model: the encoder's weights and those of its Dense modules are one set of
 * tensors, the latter with their folder before the name. */
#include "fusion/sentence_model.h"

#include "fusion/family.h"
#include "fusion/layout.h"

#include <string.h>

bool tess_model_has_image(const tess_model *m)
{
    return !m->config.sentence;
}

/* ---- weights ------------------------------------------------------------------------------- */

/* Whole or in shards, and the file's path; pickles are refused with the line that converts them. */
static tess_status open_tensors(const char *dir, const char *folder, tess_arena *arena,
                                const char **path, tess_tensors **out)
{
    static const tess_family files = {
        .name = "sentence", .config = "config.json", .weights = {"model.safetensors"}};
    const char *place = tess_arena_format(arena, "%s%s%s", dir, *folder ? "/" : "", folder);
    *out = NULL;
    return place ? tess__family_weights(&files, place, arena, path, out) : TESS_NOMEM;
}

static tess_status join_heads(const tess_sentence_config *c, const char *dir, tess_arena *arena,
                              tess_tensors *t)
{
    const char *path;
    for (int64_t i = 0; i < c->bert.n_heads; i++) {
        tess_tensors *head = NULL;
        char *prefix = tess_format("%s/", c->folders[i]);
        tess_status st =
            prefix ? open_tensors(dir, c->folders[i], arena, &path, &head) : TESS_NOMEM;
        st = st ? st : tess_tensors_join(t, head, prefix);
        tess_free(prefix);
        if (st) {
            tess_tensors_free(head);
            return st;
        }
    }
    return TESS_OK;
}

/* What comes before the encoder's names: nothing, or the name that a bigger model gave it. */
static const char *find_prefix(const tess_tensors *t)
{
    static const char *const prefixes[] = {"", "bert.", "roberta.", "camembert."};
    for (int64_t i = 0; i < TESS_COUNT(prefixes); i++) {
        char name[64];
        snprintf(name, sizeof name, "%sembeddings.word_embeddings.weight", prefixes[i]);
        if (tess_tensors_find(t, name)) {
            return prefixes[i];
        }
    }
    return "";
}

static bool has_old_norms(const tess_tensors *t, const char *prefix)
{
    char name[64];
    snprintf(name, sizeof name, "%sembeddings.LayerNorm.gamma", prefix);
    return tess_tensors_find(t, name) != NULL;
}

static tess_status add_heads(const tess_sentence_config *c, tess_arena *arena, tess_layout *l)
{
    static const tess_layout_rule head[] = {
        {"dense.weight", "linear.weight", TESS_LAYOUT_SAME, 0, 0},
        {"dense.bias", "linear.bias", TESS_LAYOUT_SAME, 0, 0},
    };
    for (int64_t i = 0; i < c->bert.n_heads; i++) {
        const char *ours = tess_arena_format(arena, "head.%lld.", (long long)i);
        const char *theirs = tess_arena_format(arena, "%s/", c->folders[i]);
        if (!ours || !theirs) {
            return TESS_NOMEM;
        }
        TESS_LAYOUT_ADD(l, head, ours, theirs);
    }
    return TESS_OK;
}

tess_status tess__sentence_tensors(const tess_model *m, const char *dir, tess_arena *arena,
                                   const char **out_path, tess_layout *out_layout,
                                   tess_tensors **out)
{
    const tess_sentence_config *c = m->config.sentence;
    TESS_TRY(open_tensors(dir, c->encoder, arena, out_path, out));
    tess_status st = join_heads(c, dir, arena, *out);
    if (st == TESS_OK) {
        const char *prefix = find_prefix(*out);
        *out_layout = tess__layout_bert("", prefix, has_old_norms(*out, prefix));
        st = add_heads(c, arena, out_layout);
    }
    if (st) {
        tess_tensors_free(*out);
        *out = NULL;
    }
    return st;
}

static tess_status load_weights(tess_model *m, const char *dir)
{
    tess_tensors *t = NULL;
    tess_layout l;
    const char *path;
    TESS_TRY(tess__sentence_tensors(m, dir, &m->arena, &path, &l, &t));
    tess_status st = tess__layout_load(&l, m->store, "param", t, &m->types);
    tess_tensors_free(t);
    return st ? tess_error_prefix(st, "%s", path) : TESS_OK;
}

/* ---- the tokenizer ------------------------------------------------------------------------- */

/* Embeddings are sometimes padded to a round number of rows; a tokenizer that lacks more than that
 * is another model's. */
#define MOST_UNUSED 1024

static tess_status check_tokenizer(const tess_model *m, const char *dir)
{
    const int64_t n = tess_tokenizer_n_vocab(m->tokenizer), rows = m->config.text.vocab_size;
    if (n > rows || n + MOST_UNUSED < rows) {
        return TESS_FAIL(
            TESS_INVALID,
            "%s: the tokenizer has %lld pieces, but vocab_size is %lld: they belong to "
            "different models",
            dir, (long long)n, (long long)rows);
    }
    return TESS_OK;
}

static tess_status open_tokenizer(tess_model *m, const char *dir)
{
    const tess_sentence_config *c = m->config.sentence;
    char *path = tess_format("%s%s%s", dir, *c->encoder ? "/" : "", c->encoder);
    tess_status st = path ? tess_tokenizer_open_dir(path, NULL, &m->tokenizer) : TESS_NOMEM;
    tess_free(path);
    return st ? st : check_tokenizer(m, dir);
}

/* ---- the model ----------------------------------------------------------------------------- */

static tess_status read_config(tess_model *m, const char *dir)
{
    tess_sentence_config *c = tess_arena_alloc(&m->arena, sizeof *c);
    if (!c) {
        return TESS_NOMEM;
    }
    TESS_TRY(tess__sentence_read(dir, &m->arena, c));
    c->dir = tess_arena_strndup(&m->arena, dir, strlen(dir));
    TESS_TRY(c->dir ? TESS_OK : TESS_NOMEM);
    m->config.sentence = c;
    m->config.text = c->text;
    m->config.embed_dim = tess__bert_width(&c->text);
    m->prompt = c->default_prompt ? tess__sentence_prompt(c, c->default_prompt) : NULL;
    TESS_TRY(open_tokenizer(m, dir));
    return tess__model_make_store(m);
}

tess_status tess__sentence_open_config(const char *dir, tess_precision precision, tess_model **out)
{
    tess_model *m = NULL;
    tess_status st = tess__model_alloc(precision, &m);
    st = st ? st : read_config(m, dir);
    if (st) {
        tess_model_free(m);
        return st;
    }
    *out = m;
    return TESS_OK;
}

tess_status tess__sentence_open(const char *dir, tess_precision precision, tess_model **out)
{
    tess_model *m = NULL;
    TESS_TRY(tess__sentence_open_config(dir, precision, &m));
    tess_status st = tess_store_allocate(m->store);
    st = st ? st : load_weights(m, dir);
    if (st) {
        tess_model_free(m);
        return st;
    }
    *out = m;
    return TESS_OK;
}

/* ---- prompts ------------------------------------------------------------------------------- */

bool tess_model_has_prompt(const tess_model *m, const char *name)
{
    return m->config.sentence && tess__sentence_prompt(m->config.sentence, name);
}

static tess_status unknown_prompt(const tess_sentence_config *c, const char *name)
{
    tess_buf known = {0};
    for (int64_t i = 0; c && i < c->n_prompts; i++) {
        tess_buf_addf(&known, "%s%s", i ? ", " : "", c->prompts[i].name);
    }
    tess_status st = TESS_FAIL(TESS_INVALID, "the model has no prompt \"%s\"; it has: %s", name,
                               known.data ? known.data : "none");
    tess_buf_deinit(&known);
    return st;
}

tess_status tess_model_set_prompt(tess_model *m, const char *name)
{
    if (!name) {
        m->prompt = NULL;
        return TESS_OK;
    }
    if (!tess_model_has_prompt(m, name)) {
        return unknown_prompt(m->config.sentence, name);
    }
    m->prompt = tess__sentence_prompt(m->config.sentence, name);
    return TESS_OK;
}

/* ---- texts --------------------------------------------------------------------------------- */

#define MOST_BYTES ((size_t)65536)

static size_t cut_at_character(const char *text, size_t n)
{
    size_t end = n < MOST_BYTES ? n : MOST_BYTES;
    while (end > 0 && end < n && ((uint8_t)text[end] & 0xc0) == 0x80) {
        end--;
    }
    return end;
}

/* White space at both ends goes, as in sentence-transformers; the tokenizer sees to the rest. */
static tess_bytes strip(const char *text, size_t n)
{
    while (n > 0 && strchr(" \t\n\v\f\r", *text)) {
        text++, n--;
    }
    while (n > 0 && strchr(" \t\n\v\f\r", text[n - 1])) {
        n--;
    }
    return (tess_bytes){(const uint8_t *)text, n};
}

tess_status tess__sentence_tokenize(const tess_model *m, const char *text, size_t n_bytes,
                                    tess_tokenizer_scratch *scratch, tess_ids *out)
{
    const tess_encode_options o = {
        .add_special = true, .max_ids = (size_t)m->config.text.context_length, .scratch = scratch};
    n_bytes = cut_at_character(text, n_bytes);
    if (!tess_utf8_valid(text, n_bytes, false)) {
        return TESS_FAIL(TESS_FORMAT, "the text is not UTF-8");
    }
    if (!m->prompt || !*m->prompt) {
        const tess_bytes t = strip(text, n_bytes);
        return tess_tokenizer_encode(m->tokenizer, out, (const char *)t.data, t.n_bytes, &o);
    }
    tess_buf all = {0};
    tess_buf_adds(&all, m->prompt);
    tess_buf_add(&all, text, n_bytes);
    tess_status st = tess_buf_check(&all);
    const tess_bytes t = strip(all.data ? all.data : "", all.n_bytes);
    st = st ? st : tess_tokenizer_encode(m->tokenizer, out, (const char *)t.data, t.n_bytes, &o);
    tess_buf_deinit(&all);
    return st;
}
