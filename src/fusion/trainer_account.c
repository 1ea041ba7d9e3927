/* SPDX-License-Identifier: Apache-2.0 */
/* What a training costs before it is begun: models without weights, and what trainers hold and do.
 *
 * The same functions that build a training's graphs, stores and plans build those of a prediction,
 * with states that have a layout and no memory; so there is no second description of them to keep
 * true. */
#include "fusion/model.h"
#include "fusion/trainer.h"
#include "tensor/plan.h"

#include <string.h>

/* ---- models --------------------------------------------------------------------------------- */

static tess_status read_config(const tess_model_outline *o, tess_model *m)
{
    tess_json_doc *doc = NULL;
    if (!o->text) {
        return tess__model_config_load(o->path, &m->arena, &m->config);
    }
    TESS_TRY(tess_json_parse(o->text, strlen(o->text), o->path, &doc));
    tess_status st = tess__model_config_read(tess_json_root(doc), o->path, &m->arena, &m->config);
    tess_json_free(doc);
    return st;
}

/* A directory's text tower is known by what its layout says; a config needs no tokenizer. */
static tess_status open_outline(const tess_model_outline *o, tess_model **out)
{
    if (!o->text && tess_path_is_dir(o->path)) {
        return tess__model_open_config(o->path, o->precision, out);
    }
    TESS_TRY(tess__model_alloc(o->precision, out));
    return read_config(o, *out);
}

static int64_t at_most(int64_t n, int64_t most)
{
    return n < most ? n : most;
}

static tess_status make_store(tess_model *m, const tess_model_outline *o)
{
    if (m->config.sentence) {
        return TESS_FAIL(TESS_INVALID,
                         "%s has a text tower alone: training needs an image tower beside it "
                         "(tessera mix)",
                         o->path);
    }
    if (o->sample_layers > 0) {
        m->config.vision.layers = at_most(m->config.vision.layers, o->sample_layers);
        m->config.text.layers = at_most(m->config.text.layers, o->sample_layers);
    }
    tess_store_free(m->store);
    m->store = NULL;
    TESS_TRY(tess__model_make_store(m));
    if (o->sample_layers == 0) {
        tess_store_describe(m->store);
        m->device = o->device;
    }
    return tess_store_allocate(m->store);
}

tess_status tess_model_describe(const tess_model_outline *o, tess_model **out)
{
    *out = NULL;
    tess_model *m = NULL;
    tess_status st = open_outline(o, &m);
    st = st ? st : make_store(m, o);
    st = st || o->sample_layers <= 0 ? st : tess__model_init_params(m, 1);
    if (st) {
        tess_model_free(m);
        return st;
    }
    *out = m;
    return TESS_OK;
}

int64_t tess_model_n_vocab(const tess_model *m)
{
    return m->config.text.vocab_size;
}

/* ---- accounts ------------------------------------------------------------------------------- */

static size_t group_bytes(const tess_store *s, const char *group)
{
    int64_t n;
    tess_store_group(s, group, &n);
    return (size_t)n * tess_dtype_bytes(tess_store_dtype(s, group));
}

size_t tess_trainer_states(const tess_trainer *t)
{
    static const char *const groups[] = {"param", "half", "grad", "m", "v"};
    size_t sum = 0;
    for (int64_t i = 0; i < TESS_COUNT(groups); i++) {
        sum += group_bytes(t->model->store, groups[i]);
    }
    return sum;
}

void tess_trainer_count_states(const tess_trainer *t, tess_trainer_account *out)
{
    const tess_store *s = t->model->store;
    const size_t param = group_bytes(s, "param"), half = group_bytes(s, "half");
    out->weights = half > 0 ? half : param;
    out->masters = half > 0 ? param : 0;
    out->gradients = group_bytes(s, "grad");
    out->moments = group_bytes(s, "m") + group_bytes(s, "v");
}

/* The plan's costs, of which a micro-step has this share, behind those that are there. */
static tess_status add_costs(const tess_plan *p, double share, tess_trainer_account *out)
{
    tess_op_cost *more = NULL;
    int64_t n = 0;
    size_t n_step = (size_t)out->n_step;
    TESS_TRY(tess_plan_costs(p, &more, &n));
    for (int64_t i = 0; i < n; i++) {
        more[i].flops *= share;
        more[i].bytes *= share;
        more[i].seconds *= share;
    }
    const tess_status st = tess_grow(&out->step, &n_step, n_step + (size_t)n, sizeof *out->step);
    if (st == TESS_OK) {
        memcpy(out->step + out->n_step, more, (size_t)n * sizeof *more);
        out->n_step += n;
    }
    tess_free(more);
    return st;
}

static void widen(const tess_plan *p, tess_trainer_account *out)
{
    const tess_plan_stats s = tess_plan_get_stats(p);
    if (s.arena_bytes + s.scratch_bytes > out->arena + out->scratch) {
        out->arena = s.arena_bytes;
        out->scratch = s.scratch_bytes;
    }
    out->inputs = s.input_bytes > out->inputs ? s.input_bytes : out->inputs;
}

/* A micro-step is one plan; with one loss for A of them, two and an A-th of the loss's. */
static tess_status count_step(tess_trainer *t, int64_t n_tokens, tess_trainer_account *out)
{
    static const tess__step_kind kinds[] = {TESS__STEP_EMBED, TESS__STEP_BACK, TESS__STEP_LOSS};
    for (int i = 0; i < (t->cache ? TESS_COUNT(kinds) : 1); i++) {
        const tess__step_kind kind = t->cache ? kinds[i] : TESS__STEP_WHOLE;
        const bool is_loss = kind == TESS__STEP_LOSS;
        tess__step_plan *p;
        TESS_TRY(tess__trainer_find(t, kind, is_loss ? 0 : tess__trainer_bucket(n_tokens), &p));
        TESS_TRY(add_costs(p->plan, is_loss ? 1 / (double)t->o.accumulate : 1, out));
        widen(p->plan, out);
    }
    return TESS_OK;
}

static tess_status count_last(const tess_trainer *t, tess_trainer_account *out)
{
    const tess__step_plan *p = &t->plans[t->last];
    if (!p->plan) {
        return TESS_FAIL(TESS_INVALID, "no micro-step has been run");
    }
    widen(p->plan, out);
    return add_costs(p->plan, 1, out);
}

tess_status tess_trainer_account_for(tess_trainer *t, int64_t n_tokens, tess_trainer_account *out)
{
    *out = (tess_trainer_account){.n_params = tess_model_n_params(t->model)};
    tess_status st = n_tokens > 0 ? count_step(t, n_tokens, out) : count_last(t, out);
    if (st == TESS_OK) {
        widen(t->update, out);
        out->wire = t->o.comm ? tess_comm_bytes(t->o.comm) : 0;
        tess_trainer_count_states(t, out);
        st = tess_plan_costs(t->update, &out->update, &out->n_update);
    }
    if (st) {
        tess_trainer_account_deinit(out);
    }
    return st;
}

void tess_trainer_account_deinit(tess_trainer_account *a)
{
    tess_free(a->step);
    tess_free(a->update);
    a->step = a->update = NULL;
}
