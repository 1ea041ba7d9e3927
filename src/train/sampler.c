/* SPDX-License-Identifier: Apache-2.0 */
/* sampler: which sample stands where, and which of its captions are read.
 *
 * Both are pure functions.  The order of an epoch is a permutation that is computed, not stored
 * (tess_permute), under a seed of its own.  Replacements for a bad sample come from the same slot
 * of later batches: with that rule what a slot delivers depends on nothing but the data, so threads
 * and ranks need not agree on anything.
 */
#include "tessera/data.h"

#include <math.h>
#include <string.h>

/* What a random number is for; part of its key. */
enum { USE_ORDER = 1, USE_CAPTIONS = 2 };

int64_t tess_order_epoch(const tess_order *o, int64_t counter)
{
    return counter / o->batch / (o->n / o->batch);
}

/* Position in the epoch's permutation. */
static int64_t position(const tess_order *o, int64_t batch, int64_t slot, int64_t attempt)
{
    int64_t n_batches = o->n / o->batch, tail = o->n % o->batch;
    int64_t n_own = n_batches + (slot < tail);
    if (attempt < n_batches) {
        return (batch + attempt) % n_batches * o->batch + slot;
    }
    if (attempt < n_own) {
        return n_batches * o->batch + slot;
    }
    /* The positions of other slots, from this batch on. */
    int64_t n_others = o->n - n_own, wide = o->batch - 1;
    int64_t i = (attempt - n_own + batch * wide + slot) % n_others;
    int64_t in_group = i % wide;
    return i / wide * o->batch + in_group + (in_group >= slot);
}

int64_t tess_order_get(const tess_order *o, int64_t counter, int64_t slot, int64_t attempt)
{
    int64_t n_batches = o->n / o->batch, step = counter / o->batch;
    uint64_t key[3] = {USE_ORDER, o->seed, (uint64_t)(step / n_batches)};
    if (attempt >= o->n) {
        return -1;
    }
    int64_t at = position(o, step % n_batches, slot, attempt);
    return (int64_t)tess_permute(tess_hash64(key, sizeof key, 0), (uint64_t)o->n, (uint64_t)at);
}

struct tess_caption_draw {
    double *weights;   /* by language */
    int32_t *rounds;   /* by language: the round in which it was last drawn, from 1 */
    bool *is_drawn;    /* by caption */
    int32_t *captions; /* languages of this picture's captions */
    size_t cap_drawn, cap_captions;
    int64_t n_languages, n_captions;
    int32_t round;
    tess_rng rng;
};

tess_status tess_caption_draw_new(const tess_dataset *ds, double temperature,
                                  tess_caption_draw **out)
{
    int64_t n = tess_dataset_n_languages(ds), most = 1;
    *out = NULL;
    if (!(temperature > 0)) {
        return TESS_FAIL(TESS_INVALID, "caption temperature %g: expected a number above 0",
                         temperature);
    }
    tess_caption_draw *d = tess_alloc(sizeof *d);
    if (!d) {
        return TESS_NOMEM;
    }
    d->n_languages = n;
    d->weights = tess_alloc_array((size_t)n, sizeof *d->weights);
    d->rounds = tess_alloc_array((size_t)n, sizeof *d->rounds);
    if (!d->weights || !d->rounds) {
        tess_caption_draw_free(d);
        return TESS_NOMEM;
    }
    for (int64_t l = 0; l < n; l++) {
        int64_t count = tess_dataset_language_count(ds, l);
        most = count > most ? count : most;
    }
    for (int64_t l = 0; l < n; l++) {
        int64_t count = tess_dataset_language_count(ds, l);
        double part = (double)(count > 0 ? count : 1) / (double)most;
        d->weights[l] = pow(part, 1 / temperature - 1);
    }
    *out = d;
    return TESS_OK;
}

void tess_caption_draw_free(tess_caption_draw *d)
{
    if (d) {
        tess_free(d->weights);
        tess_free(d->rounds);
        tess_free(d->is_drawn);
        tess_free(d->captions);
        tess_free(d);
    }
}

tess_status tess_caption_draw_set(tess_caption_draw *d, tess_view_key key, const int32_t *languages,
                                  int64_t n_captions)
{
    uint64_t stream[3] = {USE_CAPTIONS, key.epoch, key.id};
    size_t n = (size_t)n_captions;
    TESS_TRY(tess_grow(&d->is_drawn, &d->cap_drawn, n, sizeof *d->is_drawn));
    TESS_TRY(tess_grow(&d->captions, &d->cap_captions, n, sizeof *d->captions));
    if (n > 0) {
        memset(d->is_drawn, 0, n * sizeof *d->is_drawn);
        memcpy(d->captions, languages, n * sizeof *languages);
    }
    memset(d->rounds, 0, (size_t)d->n_languages * sizeof *d->rounds);
    d->n_captions = n_captions;
    d->round = 1;
    d->rng = tess_rng_at(key.seed, tess_hash64(stream, sizeof stream, 0));
    return TESS_OK;
}

static bool is_open(const tess_caption_draw *d, int64_t c)
{
    return !d->is_drawn[c] && d->rounds[d->captions[c]] != d->round;
}

/* One by weight among those open in this round; -1: none. */
static int64_t draw(tess_caption_draw *d)
{
    double total = 0;
    int64_t last = -1;
    for (int64_t c = 0; c < d->n_captions; c++) {
        total += is_open(d, c) ? d->weights[d->captions[c]] : 0;
    }
    double at = total > 0 ? total * tess_rng_unit(&d->rng) : 0;
    for (int64_t c = 0; c < d->n_captions; c++) {
        if (is_open(d, c)) {
            last = c;
            at -= d->weights[d->captions[c]];
            if (at < 0) {
                break;
            }
        }
    }
    return last;
}

int64_t tess_caption_draw_next(tess_caption_draw *d)
{
    int64_t c = draw(d);
    if (c < 0) {
        d->round++;
        c = draw(d);
    }
    if (c >= 0) {
        d->is_drawn[c] = true;
        d->rounds[d->captions[c]] = d->round;
    }
    return c;
}
