/* SPDX-License-Identifier: Apache-2.0 */
/* loader_fill: one slot of a batch.
 *
 * What a slot holds is a pure function of the data, the options and the counter.  The caches only
 * shorten the way: with a picture or its tokens kept, the same bytes come out that reading again
 * would give.
 */
#include "train/loader.h"

#include <string.h>

/* Samples that are tried for one slot before the run is given up. */
#define ATTEMPTS_MAX 1000

/* What is known about the sample in hand. */
typedef struct job {
    tess__worker *w;
    tess__tray *t;
    int64_t slot, sample;
    tess_view_key key;
    const uint8_t *pixels;      /* from the cache */
    const tess__tokens *tokens; /* from the cache */
} job;

/* ---- captions ----------------------------------------------------------------------------- */

static tess_status tokenize(tess__worker *w, int64_t caption, int32_t *out, int64_t *out_n)
{
    const tess_loader_options *o = &w->loader->options;
    const tess_caption *c = &w->sample.captions[caption];
    *out_n = 0;
    TESS_TRY(o->hooks.tokenize(o->hooks.ctx, w->scratch, c->text, c->n_bytes, o->max_tokens, out,
                               out_n));
    if (*out_n < 0 || *out_n > o->max_tokens) {
        return TESS_FAIL(TESS_INVALID, "a tokenizer gave %lld ids where at most %lld fit",
                         (long long)*out_n, (long long)o->max_tokens);
    }
    return TESS_OK;
}

/* Tokenizes every caption of the sample just read into one block for the cache. */
static tess_status build_tokens(job *j)
{
    tess__worker *w = j->w;
    const tess_sample *s = &w->sample;
    size_t n = (size_t)s->n_captions, n_ids = 0;
    size_t head = sizeof(tess__tokens) + (2 * n + 1) * sizeof(int32_t);
    size_t widest = (size_t)w->loader->options.max_tokens;
    int32_t *lengths;
    TESS_TRY(tess_grow(&w->ids, &w->cap_ids, n + 1, sizeof *w->ids));
    for (size_t c = 0; c < n; c++) {
        int64_t n_new;
        TESS_TRY(tess_grow(&w->ids, &w->cap_ids, n + n_ids + widest, sizeof *w->ids));
        TESS_TRY(tokenize(w, (int64_t)c, w->ids + n + n_ids, &n_new));
        w->ids[c] = (int32_t)n_new;
        n_ids += (size_t)n_new;
    }
    size_t n_bytes = head + n_ids * sizeof(int32_t);
    tess__tokens *t = tess_alloc(n_bytes);
    if (!t) {
        return TESS_NOMEM;
    }
    lengths = w->ids;
    t->n_captions = s->n_captions;
    t->offsets = (int32_t *)(t + 1);
    t->languages = t->offsets + n + 1;
    t->ids = t->languages + n;
    memcpy(t->n_dropped, s->n_dropped + TESS_BAD_CAPTION_UTF8, sizeof t->n_dropped);
    for (size_t c = 0; c < n; c++) {
        t->offsets[c + 1] = t->offsets[c] + lengths[c];
        t->languages[c] = (int32_t)s->captions[c].language;
    }
    memcpy(t->ids, w->ids + n, n_ids * sizeof *t->ids);
    j->tokens = tess__cache_add_tokens(&w->loader->cache, j->sample, t, n_bytes);
    return TESS_OK;
}

/* Ids of one caption to its row. */
static tess_status fill_row(job *j, int64_t caption, int64_t row)
{
    tess__tray *t = j->t;
    int64_t n = 0, max = j->w->loader->options.max_tokens;
    int32_t *out = t->rows + row * max;
    if (j->tokens) {
        const int32_t *at = j->tokens->offsets + caption;
        n = at[1] - at[0];
        memcpy(out, j->tokens->ids + at[0], (size_t)n * sizeof *out);
        t->row_languages[row] = j->tokens->languages[caption];
    } else {
        TESS_TRY(tokenize(j->w, caption, out, &n));
        t->row_languages[row] = (int32_t)j->w->sample.captions[caption].language;
    }
    t->n_rows[row] = (int32_t)n;
    return TESS_OK;
}

static tess_status start_draw(job *j)
{
    tess__worker *w = j->w;
    if (j->tokens) {
        return tess_caption_draw_set(w->draw, j->key, j->tokens->languages, j->tokens->n_captions);
    }
    size_t n = (size_t)w->sample.n_captions;
    TESS_TRY(tess_grow(&w->languages, &w->cap_languages, n, sizeof *w->languages));
    for (size_t c = 0; c < n; c++) {
        w->languages[c] = (int32_t)w->sample.captions[c].language;
    }
    return tess_caption_draw_set(w->draw, j->key, w->languages, (int64_t)n);
}

static tess_status keep_source(job *j, int64_t caption)
{
    char **text = &j->t->sources[j->slot];
    tess_free(*text);
    *text = tess_strdup(j->w->sample.captions[caption].text);
    return *text ? TESS_OK : TESS_NOMEM;
}

/* The first caption drawn in the source language to slot 0, those in other languages behind it.
 * *out 0: there is none of it. */
static tess_status draw_translations(job *j, int64_t first, int64_t n_want, int64_t *out)
{
    const tess_loader *l = j->w->loader;
    int64_t n = 1, c;
    bool found = false;
    while ((n < n_want || !found) && (c = tess_caption_draw_next(j->w->draw)) >= 0) {
        const bool is_source = j->w->sample.captions[c].language == l->source_language;
        if (is_source ? found : n >= n_want) {
            continue;
        }
        const int64_t row = is_source ? first : first + n;
        TESS_TRY(fill_row(j, c, row));
        if (is_source && j->t->n_rows[row] > 0) {
            found = true;
            TESS_TRY(keep_source(j, c));
        } else {
            n += j->t->n_rows[row] > 0;
        }
    }
    *out = found ? n : 0;
    return TESS_OK;
}

static tess_status draw_any(job *j, int64_t first, int64_t n_want, int64_t *out)
{
    int64_t n = 0, c;
    while (n < n_want && (c = tess_caption_draw_next(j->w->draw)) >= 0) {
        TESS_TRY(fill_row(j, c, first + n));
        n += j->t->n_rows[first + n] > 0;
    }
    *out = n;
    return TESS_OK;
}

/* Draws K captions that have tokens; with fewer, those again from the first. */
static tess_status fill_captions(job *j)
{
    tess__tray *t = j->t;
    const tess_loader *l = j->w->loader;
    const bool translates = l->source_language >= 0;
    int64_t n_want = l->options.captions_per_image, n = 0;
    int64_t first = j->slot * n_want, max = l->options.max_tokens;
    TESS_TRY(start_draw(j));
    TESS_TRY((translates ? draw_translations : draw_any)(j, first, n_want, &n));
    if (n == 0) {
        tess_sample *s = &j->w->sample;
        s->bad = TESS_BAD_NO_CAPTION;
        s->detail = translates ? "no caption in the source language" : "no caption gives a token";
        return TESS_OK;
    }
    for (int64_t i = n; i < n_want; i++) {
        int64_t from = first + i % n, to = first + i;
        memcpy(t->rows + to * max, t->rows + from * max, (size_t)t->n_rows[from] * sizeof *t->rows);
        t->n_rows[to] = t->n_rows[from];
        t->row_languages[to] = t->row_languages[from];
    }
    return TESS_OK;
}

/* ---- pictures ----------------------------------------------------------------------------- */

/* The view, or without chance the whole picture. */
static tess_status fill_view(job *j, const tess_picture *picture)
{
    const tess_loader_options *o = &j->w->loader->options;
    size_t n_bytes = (size_t)o->size * (size_t)o->size * 3;
    if (o->raw) {
        return o->hooks.raw(o->hooks.ctx, j->w->scratch, picture, o->evaluation ? NULL : &j->key,
                            j->t->raw, j->slot);
    }
    uint8_t *out = j->t->pictures + (size_t)j->slot * n_bytes;
    if (o->hooks.view && !o->evaluation) {
        return o->hooks.view(o->hooks.ctx, j->w->scratch, picture, j->key, o->size, out);
    }
    return o->hooks.resize(o->hooks.ctx, j->w->scratch, picture, o->size, out);
}

static tess_status decode(job *j)
{
    tess__worker *w = j->w;
    const tess_hooks *h = &w->loader->options.hooks;
    tess_bad bad = TESS_BAD_NONE;
    TESS_TRY(h->decode(h->ctx, w->scratch, w->sample.picture, &w->picture, &bad));
    if (bad != TESS_BAD_NONE) {
        w->sample.bad = bad;
        tess_buf_clear(&w->sample.detail_buf);
        tess_buf_adds(&w->sample.detail_buf, tess_error());
        w->sample.detail = w->sample.detail_buf.data ? w->sample.detail_buf.data : "";
    }
    return TESS_OK;
}

static tess_status fill_picture(job *j)
{
    tess__worker *w = j->w;
    const tess_loader_options *o = &w->loader->options;
    size_t n_bytes = (size_t)o->cache_size * (size_t)o->cache_size * 3;
    if (!j->pixels) {
        TESS_TRY(decode(j));
        if (w->sample.bad != TESS_BAD_NONE) {
            return TESS_OK;
        }
        if (o->cache_size == 0) {
            return fill_view(j, &w->picture);
        }
        TESS_TRY(o->hooks.resize(o->hooks.ctx, w->scratch, &w->picture, o->cache_size, w->small));
        tess__cache_add_picture(&w->loader->cache, j->sample, w->small, n_bytes);
    } else {
        memcpy(w->small, j->pixels, n_bytes);
    }
    return fill_view(j, &(tess_picture){.width = (int32_t)o->cache_size,
                                        .height = (int32_t)o->cache_size,
                                        .rgb = w->small,
                                        .cap_bytes = n_bytes});
}

/* ---- slots -------------------------------------------------------------------------------- */

/* Reads what the caches do not have. */
static tess_status read_missing(job *j)
{
    tess__worker *w = j->w;
    tess_loader *l = w->loader;
    bool wants_captions = l->options.captions_per_image > 0;
    j->pixels = tess__cache_get_picture(&l->cache, j->sample);
    j->tokens = wants_captions ? tess__cache_get_tokens(&l->cache, j->sample) : NULL;
    const bool has_pixels = j->pixels || l->options.captions_only;
    int parts = (has_pixels ? 0 : TESS_READ_PICTURE) |
                (wants_captions && !j->tokens ? TESS_READ_CAPTIONS : 0);
    w->sample.bad = TESS_BAD_NONE;
    if (parts != 0) {
        TESS_TRY(tess_dataset_read(l->ds, j->sample, parts, &w->sample));
    }
    if (w->sample.bad == TESS_BAD_NONE && parts & TESS_READ_CAPTIONS &&
        tess__cache_has_token_room(&l->cache)) {
        TESS_TRY(build_tokens(j));
    }
    return TESS_OK;
}

static tess_status fill_sample(job *j)
{
    tess__worker *w = j->w;
    TESS_TRY(read_missing(j));
    if (w->sample.bad == TESS_BAD_NONE && w->loader->options.captions_per_image > 0) {
        TESS_TRY(fill_captions(j));
    }
    const bool done = w->sample.bad != TESS_BAD_NONE || w->loader->options.captions_only;
    return done ? TESS_OK : fill_picture(j);
}

/* Notes what was bad about the sample, for the count at delivery. */
static tess_status note(job *j, int64_t attempt)
{
    tess_sample *s = &j->w->sample;
    tess_loader *l = j->w->loader;
    tess__event e = {.slot = j->slot, .attempt = attempt, .sample = j->sample, .bad = s->bad};
    int64_t n_dropped = 0;
    bool is_read = !j->tokens || s->bad != TESS_BAD_NONE;
    const int64_t *dropped =
        j->tokens ? j->tokens->n_dropped : s->n_dropped + TESS_BAD_CAPTION_UTF8;
    for (int i = 0; i < TESS__N_CAPTION_REASONS; i++) {
        e.n_dropped[i] = l->options.captions_per_image > 0 ? dropped[i] : 0;
        n_dropped += e.n_dropped[i];
    }
    if (s->bad == TESS_BAD_NONE && n_dropped == 0) {
        return TESS_OK;
    }
    if (is_read && s->bad != TESS_BAD_NONE) {
        e.detail = tess_strdup(s->detail);
        if (!e.detail) {
            return TESS_NOMEM;
        }
    }
    pthread_mutex_lock(&l->lock);
    tess_status st =
        tess_grow(&j->t->events, &j->t->cap_events, j->t->n_events + 1, sizeof *j->t->events);
    if (st == TESS_OK) {
        j->t->events[j->t->n_events++] = e;
    }
    pthread_mutex_unlock(&l->lock);
    if (st != TESS_OK) {
        tess_free(e.detail);
    }
    return st;
}

/* An evaluation slot keeps its sample; a bad one is black (an empty place of decoded pictures) and
 * without captions. */
static void blank(job *j)
{
    const tess_loader_options *o = &j->w->loader->options;
    size_t n_bytes = (size_t)o->size * (size_t)o->size * 3;
    if (!o->raw) {
        memset(j->t->pictures + (size_t)j->slot * n_bytes, 0, n_bytes);
    }
    for (int64_t k = 0; k < o->captions_per_image; k++) {
        j->t->n_rows[j->slot * o->captions_per_image + k] = 0;
        j->t->row_languages[j->slot * o->captions_per_image + k] = 0;
    }
}

static tess_status fill_slot(tess__worker *w, tess__tray *t, int64_t slot)
{
    tess_loader *l = w->loader;
    int64_t counter = t->batch.counter, global = l->first_slot + slot;
    int64_t n_attempts = l->options.evaluation ? 1 : ATTEMPTS_MAX;
    job j = {.w = w, .t = t, .slot = slot};
    for (int64_t attempt = 0; attempt < n_attempts; attempt++) {
        j.sample = l->options.evaluation ? counter + global
                                         : tess_order_get(&l->order, counter, global, attempt);
        if (j.sample < 0) {
            break;
        }
        j.key = (tess_view_key){.seed = l->options.seed,
                                .epoch = (uint64_t)t->batch.epoch,
                                .id = tess_dataset_id(l->ds, j.sample)};
        TESS_TRY(fill_sample(&j));
        TESS_TRY(note(&j, attempt));
        t->samples[slot] = j.sample;
        t->ids[slot] = j.key.id;
        t->ok[slot] = w->sample.bad == TESS_BAD_NONE;
        if (t->ok[slot]) {
            return TESS_OK;
        }
    }
    if (l->options.evaluation) {
        blank(&j);
        return TESS_OK;
    }
    return TESS_FAIL(TESS_FORMAT, "no good sample found for a place in the batch");
}

tess_status tess__loader_fill(tess__worker *w, tess__tray *t, int64_t first, int64_t last)
{
    for (int64_t slot = first; slot < last; slot++) {
        if (tess_cancelled && !w->loader->options.patient) {
            return TESS_FAIL(TESS_CANCELLED, "stopped while loading");
        }
        TESS_TRY(fill_slot(w, t, slot));
    }
    return TESS_OK;
}
