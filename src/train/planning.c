/* SPDX-License-Identifier: Apache-2.0 */
/* Ways to train and what each needs: the trainer's own graphs and states, planned on a described
 * device with a described store, as rank 0 of ranks that are described too. */
#include "train/planning.h"

#include <math.h>
#include <string.h>

const char *tess_planned_kind_name(tess_planned_kind k)
{
    static const char *const names[] = {
        [TESS_PLANNED_WEIGHTS] = "weights", [TESS_PLANNED_GRADIENTS] = "gradients",
        [TESS_PLANNED_MASTERS] = "masters", [TESS_PLANNED_MOMENTS] = "moments",
        [TESS_PLANNED_ARENA] = "arena",     [TESS_PLANNED_SCRATCH] = "scratch",
        [TESS_PLANNED_WIRE] = "wire",       [TESS_PLANNED_INPUTS] = "inputs"};
    return names[k];
}

const char *tess_bound_name(tess_bound b)
{
    static const char *const names[] = {[TESS_BOUND_COMPUTE] = "compute",
                                        [TESS_BOUND_MEMORY] = "memory",
                                        [TESS_BOUND_WIRE] = "wire",
                                        [TESS_BOUND_DISK] = "disk"};
    return names[b];
}

const char *tess_recompute_name(tess_recompute r)
{
    static const char *const names[TESS_RECOMPUTES] = {[TESS_RECOMPUTE_OFF] = "off",
                                                       [TESS_RECOMPUTE_FULL] = "full",
                                                       [TESS_RECOMPUTE_SELECTIVE] = "selective"};
    return names[r];
}

/* ---- what a trainer would hold -------------------------------------------------------------- */

static const tess_device *device_of(const tess_planning_options *o)
{
    return tess_device_describe(o->cluster->cuda ? "cuda" : "cpu");
}

static tess_trainer_options trainer_options(const tess_planning_options *o, const tess_model *m,
                                            int stage, tess_recompute recompute, tess_comm *comm)
{
    const bool texts = tess_model_objectives(m).text_text.weight > 0;
    return (tess_trainer_options){.batch = o->batch,
                                  .captions_per_image = o->captions_per_image
                                                            ? o->captions_per_image
                                                        : texts ? 2
                                                                : 1,
                                  .accumulate = o->accumulate ? o->accumulate : 1,
                                  .beta1 = 0.9F,
                                  .beta2 = 0.98F,
                                  .eps = 1e-6F,
                                  .recompute = recompute,
                                  .zero = stage,
                                  .grad_dtype = o->bf16_gradients ? TESS_BF16 : TESS_F32,
                                  .comm = comm};
}

typedef struct outline {
    tess_trainer_account account;
    int64_t captions;
    double tokens;
    tess_dtype dtype;
} outline;

static tess_status account_for(const tess_planning_options *o, int stage, tess_recompute recompute,
                               tess_comm *comm, outline *out)
{
    tess_model *m = NULL;
    tess_trainer *t = NULL;
    tess_model_outline model = o->model;
    model.device = device_of(o);
    TESS_TRY(tess_model_describe(&model, &m));
    const tess_trainer_options options = trainer_options(o, m, stage, recompute, comm);
    const int64_t longest = tess_model_context_length(m);
    out->dtype = tess_model_dtype(m);
    out->captions = options.captions_per_image;
    out->tokens = o->tokens > 0 ? o->tokens : (double)longest;
    const double n_tokens = ceil((double)(o->batch * out->captions) * out->tokens);
    tess_status st = TESS_OK;
    if (out->tokens > (double)longest) {
        st = TESS_FAIL(TESS_INVALID, "captions of %g tokens: this model takes %lld", out->tokens,
                       (long long)longest);
    }
    st = st ? st : tess_trainer_new(m, &options, &t);
    st = st ? st : tess_trainer_account_for(t, (int64_t)n_tokens, &out->account);
    tess_trainer_free(t);
    tess_model_free(m);
    return st;
}

static tess_status make_outline(const tess_planning_options *o, int stage, tess_recompute recompute,
                                outline *out)
{
    tess_comm *comm = NULL;
    *out = (outline){0};
    tess_compute_threads((int)o->cluster->threads);
    TESS_TRY(tess_comm_describe((int)o->cluster->ranks, &comm));
    const tess_status st = account_for(o, stage, recompute, comm, out);
    tess_comm_close(comm);
    return st;
}

/* ---- ways ----------------------------------------------------------------------------------- */

static tess__states whole_states(const tess_trainer_account *a)
{
    return (tess__states){.weights = (double)a->weights,
                          .gradients = (double)a->gradients,
                          .masters = (double)a->masters,
                          .moments = (double)a->moments};
}

static void count_bytes(const tess_planning_options *o, const tess_trainer_account *a,
                        tess_planned *out)
{
    out->bytes[TESS_PLANNED_WEIGHTS] = (double)a->weights;
    out->bytes[TESS_PLANNED_GRADIENTS] = (double)a->gradients;
    out->bytes[TESS_PLANNED_MASTERS] = out->offload ? 0 : (double)a->masters;
    out->bytes[TESS_PLANNED_MOMENTS] = out->offload ? 0 : (double)a->moments;
    out->bytes[TESS_PLANNED_ARENA] = (double)a->arena;
    out->bytes[TESS_PLANNED_SCRATCH] = (double)a->scratch;
    out->bytes[TESS_PLANNED_INPUTS] = (double)a->inputs;
    out->bytes[TESS_PLANNED_WIRE] = o->cluster->cuda ? 0 : (double)a->wire;
    for (int k = 0; k < TESS_PLANNED_KINDS; k++) {
        out->total += out->bytes[k];
    }
    out->fits = out->total <= o->cluster->memory;
}

static tess_status add_row(const tess_planning_options *o, const outline *whole, int stage,
                           tess_recompute recompute, tess_planning *out)
{
    outline own = *whole;
    tess_planned *row = &out->row[out->n_rows];
    *row = (tess_planned){.stage = stage, .recompute = recompute, .offload = o->offload};
    if (stage > 0) {
        TESS_TRY(make_outline(o, stage, recompute, &own));
    }
    const tess__timing t = {.cluster = o->cluster,
                            .own = &own.account,
                            .account = &whole->account,
                            .whole = whole_states(&whole->account),
                            .accumulate = o->accumulate ? o->accumulate : 1};
    count_bytes(o, &own.account, row);
    tess__plan_times(&t, row);
    out->n_rows++;
    if (stage > 0) {
        tess_trainer_account_deinit(&own.account);
    }
    return TESS_OK;
}

static tess_status add_rows(const tess_planning_options *o, tess_recompute recompute,
                            tess_planning *out)
{
    outline whole;
    TESS_TRY(make_outline(o, 0, recompute, &whole));
    out->n_params = whole.account.n_params;
    out->tokens = whole.tokens;
    out->captions_per_image = whole.captions;
    out->dtype = whole.dtype;
    tess_status st = TESS_OK;
    for (int stage = 0; st == TESS_OK && stage < TESS_ZERO_STAGES; stage++) {
        if (o->stage < 0 || o->stage == stage) {
            st = add_row(o, &whole, stage, recompute, out);
        }
    }
    tess_trainer_account_deinit(&whole.account);
    return st;
}

static tess_status check(const tess_planning_options *o)
{
    const tess_cluster *c = o->cluster;
    if (o->batch < 1 || o->tokens < 0 || o->captions_per_image < 0 || o->accumulate < 0 ||
        o->stage >= TESS_ZERO_STAGES) {
        return TESS_FAIL(TESS_INVALID, "batch, captions, tokens and micro-steps start at 1, and "
                                       "ZeRO has the stages 0 to 3");
    }
    if (c->ranks > 1 && (c->ranks_per_host > 1 ? c->link : c->net) <= 0) {
        return TESS_FAIL(TESS_INVALID, "%s: %lld ranks, and no link_gbs between them", c->name,
                         (long long)c->ranks);
    }
    if (c->ranks > c->ranks_per_host && c->net <= 0) {
        return TESS_FAIL(TESS_INVALID,
                         "%s: %lld ranks, %lld to a host, and no net_gbs between hosts", c->name,
                         (long long)c->ranks, (long long)c->ranks_per_host);
    }
    if (o->offload && (c->disk_read <= 0 || c->disk_write <= 0)) {
        return TESS_FAIL(TESS_INVALID,
                         "%s: states in files, and no disk_read_gbs and disk_write_gbs", c->name);
    }
    return TESS_OK;
}

tess_status tess_plan_training(const tess_planning_options *o, tess_planning *out)
{
    *out = (tess_planning){.best = -1};
    TESS_TRY(check(o));
    static const tess_recompute ways[TESS_RECOMPUTES] = {
        TESS_RECOMPUTE_OFF, TESS_RECOMPUTE_SELECTIVE, TESS_RECOMPUTE_FULL};
    for (int i = 0; i < TESS_RECOMPUTES; i++) {
        if (o->recompute < 0 || o->recompute == (int)ways[i]) {
            TESS_TRY(add_rows(o, ways[i], out));
        }
    }
    for (int64_t i = 0; i < out->n_rows; i++) {
        const tess_planned *p = &out->row[i];
        if (p->fits && (out->best < 0 || p->step_seconds < out->row[out->best].step_seconds)) {
            out->best = i;
        }
    }
    return TESS_OK;
}

/* ---- advice --------------------------------------------------------------------------------- */

static tess_status fits(const tess_planning_options *o, bool *out)
{
    tess_planning p;
    TESS_TRY(tess_plan_training(o, &p));
    *out = p.best >= 0;
    return TESS_OK;
}

/* The largest batch below the one asked for: by halves, then up to it by an eighth. */
static tess_status find_batch(tess_planning_options o, int64_t *out)
{
    bool good = false;
    const int64_t asked = o.batch;
    *out = 0;
    for (o.batch /= 2; o.batch > 0 && !good; o.batch /= 2) {
        TESS_TRY(fits(&o, &good));
        *out = good ? o.batch : 0;
    }
    for (int64_t step = *out / 2; good && step > 0 && step >= *out / 8; step /= 2) {
        bool more = false;
        o.batch = *out + step;
        TESS_TRY(o.batch < asked ? fits(&o, &more) : TESS_OK);
        *out = more ? o.batch : *out;
    }
    return TESS_OK;
}

static tess_status find_ranks(tess_planning_options o, int64_t *out)
{
    tess_cluster c = *o.cluster;
    bool good = false;
    o.cluster = &c;
    *out = 0;
    c.link = c.link > 0 ? c.link : 1e9; /* what fits does not depend on it */
    c.net = c.net > 0 ? c.net : 1e9;
    for (c.ranks *= 2; c.ranks <= 65536 && !good; c.ranks *= 2) {
        TESS_TRY(fits(&o, &good));
        *out = good ? c.ranks : 0;
    }
    return TESS_OK;
}

tess_status tess_planning_advise(const tess_planning_options *o, const tess_planning *p,
                                 tess_planning_advice *out)
{
    tess_planning_options least = *o;
    *out = (tess_planning_advice){.memory = INFINITY};
    for (int64_t i = 0; i < p->n_rows; i++) {
        const tess_planned *row = &p->row[i];
        if (row->total < out->memory) {
            out->memory = row->total;
            least.stage = row->stage;
            least.recompute = (int)row->recompute;
        }
    }
    TESS_TRY(find_batch(least, &out->batch));
    if (!o->offload && o->cluster->disk_read > 0 && o->cluster->disk_write > 0) {
        tess_planning_options files = least;
        files.offload = true;
        TESS_TRY(fits(&files, &out->offload));
    }
    least.stage = o->stage < 0 ? 3 : o->stage;
    return least.stage > 0 ? find_ranks(least, &out->ranks) : TESS_OK;
}
