/* SPDX-License-Identifier: Apache-2.0 */
/* One loss over all batches of an update, as large as memory has room for features: gradient
 * caching (Gao et al. 2021).
 *
 * Each micro-step embeds its batch and keeps the features, not what led to them.  With the last one
 * the loss of all features and its gradient by them are computed, and the towers run once more,
 * batch by batch, now to be differentiated with the features' gradients as cotangents.  The result
 * is that of one batch of all the pictures, up to the order of sums: which patches a picture loses
 * is a function of its place in the run, so both passes are of the same towers.
 *
 * Memory: a batch's activations, once; features and their gradients; a copy of the batches. */
#include "fusion/trainer.h"

#include "fusion/model.h"

#include <string.h>

typedef struct held {
    uint8_t *pictures;
    tess_raw_pictures *raw;
    int32_t *tokens, *positions, *offsets;
    size_t cap_tokens, cap_positions;
    tess_micro_batch batch; /* of the above */
} held;

struct tess__cache {
    held *held; /* (A) */
    int64_t n, n_held;
    float *x[2], *dx[2]; /* of text (K*A*B,Z), slot-major; of image (A*B,Z) */
    float *part[2];      /* gradients of one batch's */
    double flops, last_flops;
};

/* ---- life ---------------------------------------------------------------------------------- */

static int64_t slots(const tess_trainer *t, int64_t feature)
{
    return feature == 0 ? t->o.captions_per_image : 1;
}

/* Numbers of one slot of a batch's features. */
static int64_t run_length(const tess_trainer *t)
{
    return t->o.batch * t->model->config.embed_dim;
}

static tess_status allocate(const tess_trainer *t, tess__cache *c)
{
    c->held = tess_alloc_array((size_t)c->n, sizeof *c->held);
    bool all = c->held != NULL;
    for (int64_t i = 0; i < tess__trainer_features(t); i++) {
        const size_t n = (size_t)(slots(t, i) * run_length(t));
        c->x[i] = tess_alloc_array(n * (size_t)c->n, sizeof *c->x[i]);
        c->dx[i] = tess_alloc_array(n * (size_t)c->n, sizeof *c->dx[i]);
        c->part[i] = tess_alloc_array(n, sizeof *c->part[i]);
        all = all && c->x[i] && c->dx[i] && c->part[i];
    }
    return all ? TESS_OK : TESS_NOMEM;
}

tess_status tess__cache_new(const tess_trainer *t, tess__cache **out)
{
    tess__cache *c = tess_alloc(sizeof *c);
    if (!c) {
        return TESS_NOMEM;
    }
    c->n = t->o.accumulate;
    const tess_status st = allocate(t, c);
    if (st) {
        tess__cache_free(c);
        return st;
    }
    *out = c;
    return TESS_OK;
}

void tess__cache_free(tess__cache *c)
{
    for (int64_t i = 0; c && c->held && i < c->n; i++) {
        held *h = &c->held[i];
        tess_raw_pictures_free(h->raw);
        tess_free(h->pictures);
        tess_free(h->tokens);
        tess_free(h->positions);
        tess_free(h->offsets);
    }
    for (int i = 0; c && i < 2; i++) {
        tess_free(c->x[i]);
        tess_free(c->dx[i]);
        tess_free(c->part[i]);
    }
    if (c) {
        tess_free(c->held);
        tess_free(c);
    }
}

int64_t tess__cache_n_held(const tess__cache *c)
{
    return c->n_held;
}

double tess__cache_flops(const tess__cache *c)
{
    return c->last_flops;
}

/* ---- holding ------------------------------------------------------------------------------- */

static tess_status hold_pictures(const tess_trainer *t, held *h, const tess_micro_batch *b)
{
    const int64_t side = t->model->config.vision.image_size;
    const size_t n_bytes = (size_t)(t->o.batch * side * side * 3);
    if (t->o.raw_pictures) {
        const tess_raw_memory r = tess_raw_pictures_get(b->raw);
        TESS_TRY(h->raw ? TESS_OK : tess_raw_pictures_new(r.n, r.size, &h->raw));
        h->batch.raw = h->raw;
        return tess_raw_pictures_copy(h->raw, b->raw);
    }
    h->pictures = h->pictures ? h->pictures : tess_alloc_unset(n_bytes);
    if (!h->pictures) {
        return TESS_NOMEM;
    }
    memcpy(h->pictures, b->pictures, n_bytes);
    h->batch.pictures = h->pictures;
    return TESS_OK;
}

static tess_status hold(const tess_trainer *t, held *h, const tess_micro_batch *b)
{
    const size_t n = (size_t)b->n_tokens;
    const size_t n_offsets = (size_t)(t->o.captions_per_image * t->o.batch) + 1;
    TESS_TRY(tess_grow(&h->tokens, &h->cap_tokens, n, sizeof *h->tokens));
    TESS_TRY(tess_grow(&h->positions, &h->cap_positions, n, sizeof *h->positions));
    h->offsets = h->offsets ? h->offsets : tess_alloc_array(n_offsets, sizeof *h->offsets);
    if (!h->offsets) {
        return TESS_NOMEM;
    }
    h->batch = (tess_micro_batch){.n_tokens = b->n_tokens,
                                  .tokens = h->tokens,
                                  .positions = h->positions,
                                  .offsets = h->offsets,
                                  .counter = b->counter};
    memcpy(h->tokens, b->tokens, n * sizeof *h->tokens);
    memcpy(h->positions, b->positions, n * sizeof *h->positions);
    memcpy(h->offsets, b->offsets, n_offsets * sizeof *h->offsets);
    return tess__trainer_sees(t) ? hold_pictures(t, h, b) : TESS_OK;
}

/* ---- three plans --------------------------------------------------------------------------- */

static tess_status run(const tess_trainer *t, const tess__step_plan *p)
{
    t->cache->flops += tess_plan_get_stats(p->plan).flops;
    return tess__trainer_run(t, p->plan);
}

/* Slot k of batch i's features (K,B,Z) is a run of slot k of all (K,A*B,Z). */
static float *run_of(const tess_trainer *t, float *all, int64_t batch, int64_t slot)
{
    return all + (slot * t->o.accumulate + batch) * run_length(t);
}

static tess_status embed(tess_trainer *t, const tess_micro_batch *b, int64_t batch)
{
    tess__step_plan *p;
    TESS_TRY(tess__trainer_bind(t, TESS__STEP_EMBED, b, &p));
    TESS_TRY(run(t, p));
    for (int64_t i = 0; i < p->n_out; i++) {
        const float *x = tess_plan_output(p->plan, p->out[i]);
        if (!x) {
            return TESS_DEVICE;
        }
        for (int64_t k = 0; k < slots(t, i); k++) {
            memcpy(run_of(t, t->cache->x[i], batch, k), x + k * run_length(t),
                   (size_t)run_length(t) * sizeof *x);
        }
    }
    return TESS_OK;
}

static tess_status differentiate_loss(tess_trainer *t, bool wants_loss)
{
    tess__cache *c = t->cache;
    tess__step_plan *p;
    TESS_TRY(tess__trainer_find(t, TESS__STEP_LOSS, 0, &p));
    for (int64_t i = 0; i < tess__trainer_features(t); i++) {
        TESS_TRY(tess_plan_bind(p->plan, tess__feature_names[i], c->x[i]));
    }
    TESS_TRY(run(t, p));
    for (int64_t i = 0; i < tess__trainer_features(t); i++) {
        const float *dx = tess_plan_output(p->plan, p->out[1 + i]);
        if (!dx) {
            return TESS_DEVICE;
        }
        memcpy(c->dx[i], dx, (size_t)(slots(t, i) * c->n * run_length(t)) * sizeof *dx);
    }
    return wants_loss ? tess_readback_add(t->results, p->plan, p->out[0], 0) : TESS_OK;
}

static tess_status differentiate_towers(tess_trainer *t, int64_t batch)
{
    tess__cache *c = t->cache;
    tess__step_plan *p;
    const bool reads = tess__trainer_runs(t, TESS__STEP_BACK, 0);
    const bool sees = tess__trainer_runs(t, TESS__STEP_BACK, 1);
    if (!reads && !sees) {
        return TESS_OK; /* the scales alone are trained */
    }
    TESS_TRY(tess__trainer_bind(t, TESS__STEP_BACK, &c->held[batch].batch, &p));
    for (int64_t i = reads ? 0 : 1; i < (sees ? 2 : 1); i++) {
        for (int64_t k = 0; k < slots(t, i); k++) {
            memcpy(c->part[i] + k * run_length(t), run_of(t, c->dx[i], batch, k),
                   (size_t)run_length(t) * sizeof *c->part[i]);
        }
        TESS_TRY(tess_plan_bind(p->plan, tess__gradient_names[i], c->part[i]));
    }
    return run(t, p);
}

tess_status tess__cache_step(tess_trainer *t, const tess_micro_batch *b, bool wants_loss,
                             bool *out_done)
{
    tess__cache *c = t->cache;
    const int64_t batch = c->n_held;
    *out_done = batch + 1 == c->n;
    TESS_TRY(hold(t, &c->held[batch], b));
    TESS_TRY(embed(t, &c->held[batch].batch, batch));
    c->n_held++;
    if (!*out_done) {
        return TESS_OK;
    }
    TESS_TRY(differentiate_loss(t, wants_loss));
    for (int64_t i = 0; i < c->n; i++) {
        TESS_TRY(differentiate_towers(t, i));
    }
    c->n_held = 0;
    c->last_flops = c->flops;
    c->flops = 0;
    return TESS_OK;
}
