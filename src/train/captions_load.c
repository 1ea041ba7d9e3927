/* SPDX-License-Identifier: Apache-2.0 */
/* captions_load: every caption of a data set, tokenized, for evaluation. */
#include "train/source.h"

#include <string.h>

typedef struct gatherer {
    const tess_hooks *hooks;
    void *scratch;
    int64_t max_tokens;
    bool with_texts;
    tess_captions *out;
} gatherer;

static tess_status keep_text(gatherer *g, const tess_caption *c)
{
    tess_captions *o = g->out;
    TESS_TRY(tess_grow(&o->texts, &o->cap_texts, (size_t)o->n_captions + 1, sizeof *o->texts));
    o->texts[o->n_captions] = tess_arena_strndup(&o->arena, c->text, c->n_bytes);
    return o->texts[o->n_captions] ? TESS_OK : TESS_NOMEM;
}

/* Captions that give no token are left out, as in training. */
static tess_status add_caption(gatherer *g, int64_t sample, const tess_caption *c)
{
    tess_captions *o = g->out;
    size_t n = (size_t)o->n_captions, n_tokens = (size_t)o->n_tokens;
    int64_t n_new = 0;
    TESS_TRY(tess_grow(&o->samples, &o->cap_samples, n + 1, sizeof *o->samples));
    TESS_TRY(tess_grow(&o->languages, &o->cap_languages, n + 1, sizeof *o->languages));
    TESS_TRY(tess_grow(&o->offsets, &o->cap_offsets, n + 2, sizeof *o->offsets));
    TESS_TRY(
        tess_grow(&o->tokens, &o->cap_tokens, n_tokens + (size_t)g->max_tokens, sizeof *o->tokens));
    TESS_TRY(g->hooks->tokenize(g->hooks->ctx, g->scratch, c->text, c->n_bytes, g->max_tokens,
                                o->tokens + n_tokens, &n_new));
    if (n_new <= 0) {
        return tess_bad_list_add(&o->bad, TESS_BAD_CAPTION_EMPTY, 1, c->text);
    }
    if (g->with_texts) {
        TESS_TRY(keep_text(g, c));
    }
    o->samples[n] = sample;
    o->languages[n] = (int32_t)c->language;
    o->n_tokens += n_new;
    o->offsets[n + 1] = o->n_tokens;
    o->n_captions++;
    return TESS_OK;
}

static tess_status add_sample(gatherer *g, const tess_dataset *ds, int64_t i, tess_sample *s)
{
    TESS_TRY(tess_dataset_read(ds, i, TESS_READ_CAPTIONS, s));
    for (int64_t k = 0; k < s->n_captions; k++) {
        TESS_TRY(add_caption(g, i, &s->captions[k]));
    }
    /* A picture without a caption under these keys is nothing bad in an evaluation. */
    if (s->bad != TESS_BAD_NONE && s->bad != TESS_BAD_NO_CAPTION) {
        TESS_TRY(tess_bad_list_add(&g->out->bad, s->bad, 1, s->key));
    }
    for (int r = TESS_BAD_CAPTION_UTF8; r < TESS_BAD_COUNT; r++) {
        TESS_TRY(tess_bad_list_add(&g->out->bad, (tess_bad)r, s->n_dropped[r], s->key));
    }
    return TESS_OK;
}

tess_status tess_captions_load(const tess_dataset *ds, const tess_hooks *hooks, int64_t max_tokens,
                               bool with_texts, tess_captions *out)
{
    gatherer g = {.hooks = hooks, .max_tokens = max_tokens, .with_texts = with_texts, .out = out};
    tess_sample s = {0};
    tess_status st = TESS_OK;
    *out = (tess_captions){0};
    st = tess_grow(&out->offsets, &out->cap_offsets, 1, sizeof *out->offsets);
    if (st == TESS_OK && hooks->scratch_new) {
        st = hooks->scratch_new(hooks->ctx, &g.scratch);
    }
    for (int64_t i = 0; i < tess_dataset_size(ds) && st == TESS_OK; i++) {
        st = tess_cancelled ? TESS_FAIL(TESS_CANCELLED, "stopped while reading captions")
                            : add_sample(&g, ds, i, &s);
    }
    if (hooks->scratch_free) {
        hooks->scratch_free(g.scratch);
    }
    tess_sample_deinit(&s);
    return st;
}

void tess_captions_deinit(tess_captions *c)
{
    if (c) {
        tess_free(c->samples);
        tess_free(c->languages);
        tess_free(c->offsets);
        tess_free(c->tokens);
        tess_free(c->texts);
        tess_bad_list_deinit(&c->bad);
        tess_arena_deinit(&c->arena);
        *c = (tess_captions){0};
    }
}
