/* SPDX-License-Identifier: Apache-2.0 */
/* loader_cache: decoded pictures and token ids, kept while there is room.
 *
 * A table of atomic pointers, one a sample.  Entries are never replaced or dropped: small data sets
 * fit whole, and for large ones a fixed part that is kept serves as well as any policy, since every
 * sample is visited equally often.
 */
#include "train/loader.h"

#include <string.h>

tess_status tess__cache_init(tess__cache *c, int64_t n_samples, const tess_loader_options *o)
{
    c->n_samples = n_samples;
    c->max_picture_bytes = o->cache_size > 0 ? o->cache_bytes : 0;
    c->max_token_bytes = o->captions_per_image > 0 ? o->token_cache_bytes : 0;
    if (c->max_picture_bytes > 0) {
        c->pictures = tess_alloc_array((size_t)n_samples, sizeof *c->pictures);
        if (!c->pictures) {
            return TESS_NOMEM;
        }
    }
    if (c->max_token_bytes > 0) {
        c->tokens = tess_alloc_array((size_t)n_samples, sizeof *c->tokens);
        if (!c->tokens) {
            return TESS_NOMEM;
        }
    }
    return TESS_OK;
}

void tess__cache_deinit(tess__cache *c)
{
    for (int64_t i = 0; i < c->n_samples; i++) {
        if (c->pictures) {
            tess_free(atomic_load(&c->pictures[i]));
        }
        if (c->tokens) {
            tess_free(atomic_load(&c->tokens[i]));
        }
    }
    tess_free(c->pictures);
    tess_free(c->tokens);
}

/* Reserves n_bytes of a budget. */
static bool reserve(_Atomic size_t *used, size_t max, size_t n_bytes)
{
    if (atomic_fetch_add(used, n_bytes) + n_bytes <= max) {
        return true;
    }
    atomic_fetch_sub(used, n_bytes);
    return false;
}

const uint8_t *tess__cache_get_picture(tess__cache *c, int64_t sample)
{
    return c->pictures ? atomic_load_explicit(&c->pictures[sample], memory_order_acquire) : NULL;
}

void tess__cache_add_picture(tess__cache *c, int64_t sample, const uint8_t *pixels, size_t n_bytes)
{
    uint8_t *none = NULL;
    if (!c->pictures || !reserve(&c->picture_bytes, c->max_picture_bytes, n_bytes)) {
        return;
    }
    uint8_t *copy = tess_alloc(n_bytes);
    if (copy) {
        memcpy(copy, pixels, n_bytes);
    }
    if (!copy || !atomic_compare_exchange_strong(&c->pictures[sample], &none, copy)) {
        tess_free(copy);
        atomic_fetch_sub(&c->picture_bytes, n_bytes);
    }
}

const tess__tokens *tess__cache_get_tokens(tess__cache *c, int64_t sample)
{
    return c->tokens ? atomic_load_explicit(&c->tokens[sample], memory_order_acquire) : NULL;
}

bool tess__cache_has_token_room(tess__cache *c)
{
    return c->tokens && atomic_load(&c->token_bytes) < c->max_token_bytes;
}

const tess__tokens *tess__cache_add_tokens(tess__cache *c, int64_t sample, tess__tokens *t,
                                           size_t n_bytes)
{
    tess__tokens *first = NULL;
    if (atomic_compare_exchange_strong(&c->tokens[sample], &first, t)) {
        atomic_fetch_add(&c->token_bytes, n_bytes);
        return t;
    }
    tess_free(t);
    return first;
}
