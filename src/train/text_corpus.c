/* SPDX-License-Identifier: Apache-2.0 */
/* Embedding a whole corpus of texts.  Texts are tokenized one after another into one long run of
 * tokens, and the model takes such a run at once: it packs segments end to end, so nothing is spent
 * on padding and the corpus need not be sorted by length. */
#include "tessera/train.h"

#include "train/text_source.h"

#include <string.h>

#define TOKENS_AT_ONCE 131072

typedef struct text_corpus {
    tess_model *model;
    const tess_text_corpus_options *o;
    tess_text_corpus_fn *visit;
    void *ctx;
    tess_corpus_report *report;
    tess__texts source;
    tess_tokenizer_scratch *scratch;
    /* what waits to be embedded */
    tess_ids ids;
    int64_t *offsets, n;
    size_t cap_offsets;
    tess_buf strings; /* key NUL text NUL ... */
    float *vectors;
    size_t cap_vectors;
    /* the keys that were there, as hashes; 0: free */
    uint64_t *seen;
    size_t n_seen, cap_seen;
} text_corpus;

/* ---- keys that were there before ----------------------------------------------------------- */

static void put(uint64_t *table, size_t cap, uint64_t hash)
{
    size_t i = hash & (cap - 1);
    while (table[i] != 0 && table[i] != hash) {
        i = (i + 1) & (cap - 1);
    }
    table[i] = hash;
}

static tess_status double_seen(text_corpus *c)
{
    const size_t cap = c->cap_seen ? 2 * c->cap_seen : 4096;
    uint64_t *table = tess_alloc_array(cap, sizeof *table);
    if (!table) {
        return TESS_NOMEM;
    }
    for (size_t i = 0; i < c->cap_seen; i++) {
        if (c->seen[i]) {
            put(table, cap, c->seen[i]);
        }
    }
    tess_free(c->seen);
    c->seen = table;
    c->cap_seen = cap;
    return TESS_OK;
}

/* 64 bits: two of ten million keys are taken for one with a chance of 3 in a million. */
static tess_status is_new(text_corpus *c, const char *key, bool *out)
{
    uint64_t hash = tess_hash64(key, strlen(key), 0);
    hash += hash == 0;
    if (2 * (c->n_seen + 1) > c->cap_seen) {
        TESS_TRY(double_seen(c));
    }
    size_t i = hash & (c->cap_seen - 1);
    while (c->seen[i] != 0 && c->seen[i] != hash) {
        i = (i + 1) & (c->cap_seen - 1);
    }
    *out = c->seen[i] == 0;
    c->n_seen += *out;
    c->seen[i] = hash;
    return TESS_OK;
}

/* ---- the run of tokens --------------------------------------------------------------------- */

static tess_status flush(text_corpus *c)
{
    const int64_t dim = tess_model_embed_dim(c->model);
    TESS_TRY(tess_grow(&c->vectors, &c->cap_vectors, (size_t)(c->n * dim) + 1, sizeof *c->vectors));
    TESS_TRY(tess_model_embed_tokens(c->model, c->ids.ids, c->offsets, c->n, c->vectors));
    const char *at = c->strings.data;
    for (int64_t i = 0; i < c->n; i++) {
        const char *key = at, *text = key + strlen(key) + 1;
        TESS_TRY(c->visit(c->ctx, key, text, c->vectors + i * dim));
        c->report->n_embedded++;
        at = text + strlen(text) + 1;
    }
    c->n = 0;
    c->ids.n_ids = 0;
    tess_buf_clear(&c->strings);
    if (c->o->on_progress) {
        c->o->on_progress(c->ctx, (int64_t)c->source.at, (int64_t)c->source.map.n_bytes);
    }
    return TESS_OK;
}

static tess_status add_text(text_corpus *c)
{
    const tess__texts *s = &c->source;
    bool novel;
    TESS_TRY(is_new(c, s->key.data, &novel));
    if (!novel) {
        char what[256];
        snprintf(what, sizeof what, "%.100s:%lld: the key %.100s is there twice", s->path,
                 (long long)s->line, s->key.data);
        return tess_bad_list_add(&c->report->bad, TESS_BAD_RECORD, 1, what);
    }
    TESS_TRY(tess_grow(&c->offsets, &c->cap_offsets, (size_t)c->n + 2, sizeof *c->offsets));
    c->offsets[c->n] = (int64_t)c->ids.n_ids;
    tess_status st =
        tess_model_tokenize(c->model, s->text.data, s->text.n_bytes, c->scratch, &c->ids);
    if (st == TESS_FORMAT || st == TESS_INVALID || (int64_t)c->ids.n_ids == c->offsets[c->n]) {
        char what[512];
        snprintf(what, sizeof what, "%.100s:%lld: %.300s", s->path, (long long)s->line,
                 st ? tess_error() : "no token");
        c->ids.n_ids = (size_t)c->offsets[c->n];
        return tess_bad_list_add(&c->report->bad, TESS_BAD_RECORD, 1, what);
    }
    TESS_TRY(st);
    c->offsets[++c->n] = (int64_t)c->ids.n_ids;
    tess_buf_add(&c->strings, s->key.data, s->key.n_bytes + 1);
    tess_buf_add(&c->strings, s->text.data, s->text.n_bytes + 1);
    return tess_buf_check(&c->strings);
}

static tess_status run(text_corpus *c)
{
    bool is_end = false;
    c->scratch = tess_tokenizer_scratch_new();
    if (!c->scratch) {
        return TESS_NOMEM;
    }
    TESS_TRY(tess__texts_open(c->o->path, c->o->text_key, c->o->id_key, &c->source));
    while (!is_end) {
        if (tess_cancelled) {
            return TESS_FAIL(TESS_CANCELLED, "stopped after %lld texts",
                             (long long)c->report->n_embedded);
        }
        TESS_TRY(tess__texts_next(&c->source, &c->report->bad, &is_end));
        if (!is_end) {
            TESS_TRY(add_text(c));
        }
        if (c->n > 0 && (is_end || c->ids.n_ids >= TOKENS_AT_ONCE)) {
            TESS_TRY(flush(c));
        }
    }
    if (c->report->n_embedded == 0) {
        tess_buf why = {0};
        tess_bad_list_write(&c->report->bad, &why);
        tess_status st = TESS_FAIL(TESS_INVALID, "%s: holds no text that can be used%s%s",
                                   c->o->path, why.data ? ": " : "", why.data ? why.data : "");
        tess_buf_deinit(&why);
        return st;
    }
    return TESS_OK;
}

tess_status tess_text_corpus_embed(tess_model *m, const tess_text_corpus_options *o,
                                   tess_text_corpus_fn *visit, void *ctx, tess_corpus_report *out)
{
    *out = (tess_corpus_report){0};
    text_corpus c = {.model = m, .o = o, .visit = visit, .ctx = ctx, .report = out};
    tess_status st = run(&c);
    tess__texts_close(&c.source);
    tess_tokenizer_scratch_free(c.scratch);
    tess_ids_deinit(&c.ids);
    tess_free(c.offsets);
    tess_buf_deinit(&c.strings);
    tess_free(c.vectors);
    tess_free(c.seen);
    if (st) {
        tess_corpus_report_deinit(out);
    }
    return st;
}
