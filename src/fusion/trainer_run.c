/* SPDX-License-Identifier: Apache-2.0 */
/* Running a trainer's plans: a batch into the micro-step's, the rates into the update's, and what
 * came of them, now or when it has arrived. */
#include "fusion/trainer.h"

#include "fusion/model.h"
#include "tensor/comm.h"
#include "tensor/plan.h"
#include "vision/patch_dropout.h"

#include <math.h>
#include <string.h>

int64_t tess__trainer_bucket(int64_t n)
{
    int64_t step = 32;
    while (step * 64 <= n) {
        step *= 2;
    }
    return n < step ? step : (n + step - 1) / step * step;
}

static tess_status copy_tokens(tess_trainer *t, const tess_micro_batch *b, int64_t rows)
{
    TESS_TRY(tess_grow(&t->tokens, &t->cap_tokens, (size_t)rows, sizeof *t->tokens));
    TESS_TRY(tess_grow(&t->positions, &t->cap_positions, (size_t)rows, sizeof *t->positions));
    memcpy(t->tokens, b->tokens, (size_t)b->n_tokens * sizeof *t->tokens);
    memcpy(t->positions, b->positions, (size_t)b->n_tokens * sizeof *t->positions);
    for (int64_t i = b->n_tokens; i < rows; i++) {
        t->tokens[i] = t->positions[i] = -1; /* a zero row that belongs to no caption */
    }
    return TESS_OK;
}

static tess_status bind_pictures(const tess_trainer *t, const tess_micro_batch *b, tess_plan *plan)
{
    if (t->kept) {
        tess__patches_choose(&t->model->config.vision, tess__trainer_kept(t), t->o.seed, b->counter,
                             t->o.batch, t->kept);
        TESS_TRY(tess_plan_bind(plan, "kept", t->kept));
    }
    if (!t->o.raw_pictures) {
        return tess_plan_bind(plan, "pictures", b->pictures);
    }
    const tess_raw_memory r = tess_raw_pictures_get(b->raw);
    if (r.n != t->o.batch || r.size != t->model->config.vision.image_size) {
        return TESS_FAIL(
            TESS_INVALID,
            "a batch of %lld decoded pictures for %d pixels was given to a trainer for "
            "%lld for %lld pixels",
            (long long)r.n, r.size, (long long)t->o.batch,
            (long long)t->model->config.vision.image_size);
    }
    return tess__raw_bind(plan, b->raw);
}

/* The teacher's vectors, once for each slot of captions. */
static tess_status bind_teacher(tess_trainer *t, const tess_micro_batch *b, tess_plan *plan)
{
    const size_t n = (size_t)(t->o.batch * t->model->config.embed_dim);
    const size_t k = (size_t)t->o.captions_per_image;
    TESS_TRY(tess_grow(&t->teacher, &t->cap_teacher, n * k, sizeof *t->teacher));
    for (size_t i = 0; i < k; i++) {
        memcpy(t->teacher + i * n, b->teacher, n * sizeof *t->teacher);
    }
    return tess_plan_bind(plan, "teacher", t->teacher);
}

static tess_status bind_captions(tess_trainer *t, const tess_micro_batch *b, tess_plan *plan,
                                 int64_t rows)
{
    TESS_TRY(copy_tokens(t, b, rows));
    TESS_TRY(tess_plan_bind(plan, "tokens", t->tokens));
    TESS_TRY(tess_plan_bind(plan, "positions", t->positions));
    return tess_plan_bind(plan, "offsets", b->offsets);
}

tess_status tess_trainer_prepare(tess_trainer *t, int64_t n_tokens, tess_trainer_need *out)
{
    static const tess__step_kind whole[] = {TESS__STEP_WHOLE};
    static const tess__step_kind cached[] = {TESS__STEP_EMBED, TESS__STEP_LOSS, TESS__STEP_BACK};
    const tess__step_kind *kinds = t->cache ? cached : whole;
    *out = (tess_trainer_need){.paged_bytes = tess_plan_get_stats(t->update).paged_bytes};
    for (int64_t i = 0; i < (t->cache ? TESS_COUNT(cached) : 1); i++) {
        const bool reads = tess__trainer_runs(t, kinds[i], 0),
                   sees = tess__trainer_runs(t, kinds[i], 1);
        tess__step_plan *p;
        if (kinds[i] != TESS__STEP_LOSS && !reads && !sees) {
            continue;
        }
        const bool tower = kinds[i] != TESS__STEP_LOSS && reads;
        TESS_TRY(tess__trainer_find(t, kinds[i], tower ? tess__trainer_bucket(n_tokens) : 0, &p));
        const size_t paged = tess_plan_get_stats(p->plan).paged_bytes;
        out->paged_bytes = paged > out->paged_bytes ? paged : out->paged_bytes;
    }
    out->workspace_bytes = tess_workspace_bytes(t->workspace);
    return TESS_OK;
}

/* The newest number; those before it nobody has read and nobody will. */
static tess_status take_newest(tess_trainer *t, float *out)
{
    bool there = true;
    int64_t tag;
    TESS_TRY(tess__cards_settle(t->cards));
    while (there) {
        TESS_TRY(tess_readback_read(t->results, true, out, &tag, &there));
    }
    return TESS_OK;
}

tess_status tess__trainer_bind(tess_trainer *t, tess__step_kind kind, const tess_micro_batch *b,
                               tess__step_plan **out)
{
    const bool reads = tess__trainer_runs(t, kind, 0), sees = tess__trainer_runs(t, kind, 1);
    const int64_t rows = reads ? tess__trainer_bucket(b->n_tokens) : 0;
    TESS_TRY(tess__trainer_find(t, kind, rows, out));
    TESS_TRY(sees ? bind_pictures(t, b, (*out)->plan) : TESS_OK);
    TESS_TRY(t->o.distill ? bind_teacher(t, b, (*out)->plan) : TESS_OK);
    return reads ? bind_captions(t, b, (*out)->plan, rows) : TESS_OK;
}

tess_status tess__trainer_run(const tess_trainer *t, tess_plan *plan)
{
    TESS_TRY(tess__cards_settle(t->cards)); /* features that meet wait for the card */
    return t->debug ? tess_plan_run_debug(plan) : tess_plan_run(plan);
}

static tess_status whole_step(tess_trainer *t, const tess_micro_batch *b, bool wants_loss)
{
    tess__step_plan *p;
    TESS_TRY(tess__trainer_bind(t, TESS__STEP_WHOLE, b, &p));
    TESS_TRY(tess__trainer_run(t, p->plan));
    return wants_loss ? tess_readback_add(t->results, p->plan, p->out[0], 0) : TESS_OK;
}

tess_status tess_trainer_micro_step(tess_trainer *t, const tess_micro_batch *b, float *out_loss)
{
    bool done = true;
    TESS_TRY(t->cache ? tess__cache_step(t, b, out_loss != NULL, &done)
                      : whole_step(t, b, out_loss != NULL));
    if (out_loss && done) {
        TESS_TRY(take_newest(t, out_loss));
        *out_loss *= tess__trainer_parts(t);
    }
    return TESS_OK;
}

tess_status tess_trainer_update(tess_trainer *t, double lr, int64_t step, float *out_norm)
{
    if (t->cache && tess__cache_n_held(t->cache) > 0) {
        return TESS_FAIL(TESS_INVALID, "an update of %lld micro-steps was asked for after %lld",
                         (long long)t->o.accumulate, (long long)tess__cache_n_held(t->cache));
    }
    t->rates[0] = (float)lr;
    t->rates[1] = (float)step;
    t->rates[2] = 1.0f;
    TESS_TRY(tess__ranks_reduce(t));
    TESS_TRY(tess__ranks_norm(t));
    TESS_TRY(tess_plan_run(t->update));
    TESS_TRY(tess__ranks_finish(t));
    if (out_norm) {
        TESS_TRY(tess_readback_add(t->results, t->update, t->norm, step));
        TESS_TRY(take_newest(t, out_norm));
        *out_norm = sqrtf(*out_norm);
        return TESS_OK;
    }
    const tess_value numbers[TESS__RESULT_NUMBERS] = {t->loss, t->norm, t->why};
    for (int i = 0; i < TESS__RESULT_NUMBERS; i++) {
        TESS_TRY(tess_readback_add(t->results, t->update, numbers[i], step));
    }
    return TESS_OK;
}

/* An update's numbers arrive in order: where the first is, the others are not far. */
tess_status tess_trainer_read(tess_trainer *t, bool wait, tess_step_result *out)
{
    float x[TESS__RESULT_NUMBERS];
    int64_t step = 0;
    bool there = true;
    *out = (tess_step_result){0};
    TESS_TRY(wait ? tess__cards_settle(t->cards) : TESS_OK);
    for (int i = 0; i < TESS__RESULT_NUMBERS && there; i++) {
        TESS_TRY(tess_readback_read(t->results, wait || i > 0, &x[i], &step, &there));
    }
    if (there) {
        *out = (tess_step_result){
            .step = step, .loss = x[0], .norm = sqrtf(x[1]), .why = (tess_skip)x[2]};
    }
    return TESS_OK;
}
