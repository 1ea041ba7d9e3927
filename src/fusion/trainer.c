/* SPDX-License-Identifier: Apache-2.0 */
/* One training step as two plans: the micro-step (towers, objectives, gradients, accumulation) and
 * the update (norm, clip, AdamW and Muon).
 *
 * Captions are packed, so the number of token rows differs from batch to batch; a micro-step plan
 * is built for each bucket of rows (1/32 of a power of two wide, so about 1 % is spent on filling)
 * and kept, all plans sharing one workspace.  An update of several micro-steps has one loss over
 * all their batches (trainer_cache.c), and plans for its pieces. */
#include "fusion/trainer.h"

#include "fusion/lora.h"
#include "tensor/comm.h"
#include "tensor/fuse.h"
#include "tensor/overlap.h"
#include "tensor/op.h"
#include "tensor/plan.h"
#include "vision/patch_dropout.h"

#include <math.h>
#include <string.h>

/* ---- graphs -------------------------------------------------------------------------------- */

int64_t tess__trainer_whole(const tess_trainer *t)
{
    const bool card = tess__model_device(t->model) != tess_device_cpu();
    return t->o.comm && card ? tess_comm_size(t->o.comm) : 1;
}

float tess__trainer_parts(const tess_trainer *t)
{
    const int64_t n = t->cache ? 1 : t->o.accumulate;
    return (float)(n * tess__trainer_whole(t));
}

const char *const tess__feature_names[2] = {"text", "image"};
const char *const tess__gradient_names[2] = {"d_text", "d_image"};

int64_t tess__trainer_features(const tess_trainer *t)
{
    return tess__trainer_sees(t) ? 2 : 1;
}

bool tess__trainer_runs(const tess_trainer *t, tess__step_kind kind, int64_t feature)
{
    const bool frozen = !t->model->lora && (feature == 0 ? t->o.lock_text : t->o.lock_image);
    return feature < tess__trainer_features(t) && !(kind == TESS__STEP_BACK && frozen);
}

bool tess__trainer_sees(const tess_trainer *t)
{
    return !t->o.distill && t->model->config.objectives.image_text.weight > 0;
}

int64_t tess__trainer_kept(const tess_trainer *t)
{
    return tess__patches_kept(&t->model->config.vision, t->o.patch_dropout);
}

const char *tess__trainer_group(const tess_trainer *t)
{
    return t->model->lora ? "lora" : "param";
}

bool tess__trainer_locks_any(const tess_trainer *t)
{
    return !t->model->lora && (t->o.lock_image || t->o.lock_text || !tess__trainer_sees(t));
}

bool tess__trainer_locks(const tess_trainer *t, const char *name)
{
    if (t->model->lora) {
        return false;
    }
    bool visual = strncmp(name, "visual.", 7) == 0;
    bool scale = strncmp(name, "logit_", 6) == 0;
    return visual  ? t->o.lock_image || !tess__trainer_sees(t)
           : scale ? t->o.distill != TESS_DISTILL_OFF
                   : t->o.lock_text;
}

/* What is differentiated: y, with cotangents dy or, NULL, a scalar; by everything that is not
 * frozen, and by values of the graph. */
typedef struct differential {
    const tess_value *y, *dy;
    int64_t n_y;
    const tess_value *by;
    int64_t n_by;
    tess_value *out; /* (n_by) */
} differential;

/* States that are trained, and what else there is; returns how many. */
static int64_t add_wrt(const tess_graph *g, const tess_trainer *t, const differential *d,
                       tess_value *wrt, int64_t n_wide, int64_t n)
{
    int64_t n_wrt = 0;
    tess_graph_states(g, tess__trainer_group(t), wrt, n_wide);
    tess_graph_states(g, "half", wrt + n_wide, n - n_wide);
    for (int64_t i = 0; i < n; i++) {
        if (!tess__trainer_locks(t, tess_value_name(g, wrt[i]))) {
            wrt[n_wrt++] = wrt[i];
        }
    }
    for (int64_t i = 0; i < d->n_by; i++) {
        wrt[n_wrt + i] = d->by[i];
    }
    return n_wrt + d->n_by;
}

/* Ranks may hold a range of the gradient of a weight that they have whole. */
static void accumulate(tess_graph *g, const tess_trainer *t, tess_value weight, tess_value grad)
{
    const tess_shape whole = tess_value_shape(g, weight), got = tess_value_shape(g, grad);
    const bool held = got.rank == 1 && whole.rank > 1;
    tess_accumulate(
        g, tess_state(g, "grad", tess_value_name(g, weight), t->o.grad_dtype, held ? got : whole),
        grad);
}

/* Gradients of states are added to their accumulators. */
static tess_status add_gradients(tess_graph *g, const tess_trainer *t, const differential *d)
{
    const int64_t n_wide = tess_graph_states(g, tess__trainer_group(t), NULL, 0);
    const int64_t n = n_wide + (t->narrow ? tess_graph_states(g, "half", NULL, 0) : 0);
    int64_t n_wrt = 0;
    tess_value *wrt = tess_alloc_array((size_t)(n + d->n_by) + 1, sizeof *wrt);
    tess_value *grads = tess_alloc_array((size_t)(n + d->n_by) + 1, sizeof *grads);
    tess_status st = wrt && grads ? tess_graph_check(g) : TESS_NOMEM;
    if (st == TESS_OK) {
        n_wrt = add_wrt(g, t, d, wrt, n_wide, n);
        st = tess_graph_grad(g, d->y, d->dy, d->n_y, wrt, n_wrt, grads);
    }
    for (int64_t i = 0; st == TESS_OK && i < n_wrt; i++) {
        if (i >= n_wrt - d->n_by) {
            d->out[i - (n_wrt - d->n_by)] = grads[i];
        } else if (grads[i]) {
            accumulate(g, t, wrt[i], grads[i]);
        }
    }
    tess_free(wrt);
    tess_free(grads);
    return st ? st : tess_graph_check(g);
}

static tess_value image_tower(tess_graph *g, const tess_trainer *t)
{
    const int64_t s = t->model->config.vision.image_size;
    tess_vit_pictures pictures =
        t->o.raw_pictures ? (tess_vit_pictures){.raw = tess__raw_inputs(g, t->o.batch, (int32_t)s)}
                          : tess__finished_pictures(g, t->o.batch, s);
    if (t->kept) {
        pictures.kept =
            tess_input(g, "kept", TESS_I32, TESS_SHAPE_OF(t->o.batch, tess__trainer_kept(t)));
    }
    return tess__picture_tower(g, t->model, pictures, t->o.recompute);
}

/* Each rank has the whole loss, which is divided by as many as make it; a part of each, summed
 * before the update, is the same on all. */
static void note_loss(tess_graph *g, const tess_trainer *t, tess_value loss)
{
    const int64_t n_ranks = tess__trainer_ranks(t) / tess__trainer_whole(t);
    const tess_value part = n_ranks > 1 ? tess_scale(g, loss, 1 / (float)n_ranks) : loss;
    tess_accumulate(g, tess_state(g, "loss", "sum", TESS_F32, TESS_SHAPE_OF(1)), part);
}

static tess_value text_tower(tess_graph *g, const tess_trainer *t, int64_t rows)
{
    const int64_t n = t->o.captions_per_image * t->o.batch;
    tess_text_input in = {
        .tokens = tess_input(g, "tokens", TESS_I32, TESS_SHAPE_OF(rows)),
        .positions = tess_input(g, "positions", TESS_I32, TESS_SHAPE_OF(rows)),
        .offsets = tess_input(g, "offsets", TESS_I32, TESS_SHAPE_OF(n + 1)),
    };
    return tess__caption_tower(g, t->model, in, t->o.recompute);
}

/* x: features of text (K*B,Z) and of image (B,Z), 0 where the tower is not run. */
static void add_towers(tess_graph *g, const tess_trainer *t, const tess__step_plan *p,
                       tess_value x[2])
{
    const int64_t b = t->o.batch, z = t->model->config.embed_dim;
    x[1] = tess__trainer_runs(t, p->kind, 1) ? image_tower(g, t) : 0;
    x[0] = tess__trainer_runs(t, p->kind, 0) ? text_tower(g, t, p->rows) : 0;
    if (x[1]) {
        TESS_SHAPE(g, x[1], b, z);
    }
    if (x[0]) {
        TESS_SHAPE(g, x[0], t->o.captions_per_image * b, z);
    }
}

/* Inputs that are like the features of n batches. */
static void add_feature_inputs(tess_graph *g, const tess_trainer *t, const char *const names[2],
                               int64_t n, tess_value x[2])
{
    const int64_t z = t->model->config.embed_dim, rows = n * t->o.batch;
    x[0] = tess_input(g, names[0], TESS_F32, TESS_SHAPE_OF(t->o.captions_per_image * rows, z));
    x[1] = tess__trainer_sees(t) ? tess_input(g, names[1], TESS_F32, TESS_SHAPE_OF(rows, z)) : 0;
}

static tess_status build_graph(const tess_trainer *t, tess__step_plan *p)
{
    const int64_t n = tess__trainer_features(t);
    tess_graph *g = p->graph;
    tess_value x[2], dx[2];
    if (t->narrow) {
        tess_graph_narrow(g);
    }
    tess_graph_fp8(g, t->o.fp8_width);
    g->sharding = tess__trainer_sharding(t);
    if (p->kind == TESS__STEP_LOSS) {
        add_feature_inputs(g, t, tess__feature_names, t->o.accumulate, x);
    } else {
        add_towers(g, t, p, x);
    }
    if (p->kind == TESS__STEP_EMBED) {
        p->n_out = n;
        memcpy(p->out, x, sizeof x);
        return tess_graph_check(g);
    }
    if (p->kind == TESS__STEP_BACK) {
        add_feature_inputs(g, t, tess__gradient_names, 1, dx);
        const int64_t first = x[0] ? 0 : 1, n_run = (x[0] != 0) + (x[1] != 0);
        return add_gradients(g, t, &(differential){.y = x + first, .dy = dx + first, .n_y = n_run});
    }
    p->out[0] = tess__trainer_loss(g, t, x[1], x[0]);
    p->n_out = 1;
    note_loss(g, t, p->out[0]);
    differential d = {.y = p->out, .n_y = 1, .by = x, .out = p->out + 1};
    if (p->kind == TESS__STEP_LOSS) {
        d.n_by = n;
        p->n_out += n;
    }
    return add_gradients(g, t, &d);
}

static tess_status apply_recompute(tess__step_plan *p, tess_recompute what)
{
    tess_graph *redone = NULL;
    tess_value *map = tess_alloc_array((size_t)tess_graph_n_values(p->graph), sizeof *map);
    tess_status st = map ? tess_graph_recompute(p->graph, what, &redone, map) : TESS_NOMEM;
    if (st == TESS_OK) {
        for (int64_t i = 0; i < p->n_out; i++) {
            p->out[i] = map[p->out[i]];
        }
        tess_graph_free(p->graph);
        p->graph = redone;
    }
    tess_free(map);
    return st;
}

static void free_step_plan(tess__step_plan *p)
{
    tess_plan_free(p->plan);
    tess_graph_free(p->graph);
    *p = (tess__step_plan){0};
}

static tess_status build_step(tess_trainer *t, tess__step_plan *p)
{
    p->graph = tess_graph_new();
    if (!p->graph) {
        return TESS_NOMEM;
    }
    TESS_TRY(build_graph(t, p));
    const bool goes_back = p->kind == TESS__STEP_WHOLE || p->kind == TESS__STEP_BACK;
    if (goes_back && (t->o.recompute || t->o.zero >= 3)) {
        const tess_recompute what = t->o.recompute ? t->o.recompute : TESS_RECOMPUTE_SELECTIVE;
        TESS_TRY(apply_recompute(p, what));
    }
    if (t->o.zero >= 2 && tess__trainer_ranks(t) > 1 && t->o.overlap_bytes > 0 && !t->debug) {
        TESS_TRY(tess__graph_overlap(&p->graph, p->out, p->n_out, t->o.overlap_bytes));
    }
    TESS_TRY(tess__graph_fuse(&p->graph, p->out, p->n_out, tess__model_device(t->model)));
    TESS_TRY(tess_plan_build(p->graph, p->out, p->n_out, tess__model_device(t->model),
                             t->model->store, t->workspace, &p->plan));
    tess_plan_profile(p->plan, t->profile);
    return TESS_OK;
}

tess_status tess__trainer_find(tess_trainer *t, tess__step_kind kind, int64_t rows,
                               tess__step_plan **out)
{
    tess__step_plan *oldest = &t->plans[0];
    for (int i = 0; i < TESS__STEP_PLANS; i++) {
        tess__step_plan *p = &t->plans[i];
        if (p->plan && p->kind == kind && p->rows == rows) {
            oldest = p;
            break;
        }
        oldest = p->last_used < oldest->last_used ? p : oldest;
    }
    if (!oldest->plan || oldest->kind != kind || oldest->rows != rows) {
        free_step_plan(oldest);
        oldest->kind = kind;
        oldest->rows = rows;
        tess_status st = build_step(t, oldest);
        if (st) {
            free_step_plan(oldest);
            return st;
        }
    }
    oldest->last_used = ++t->clock;
    t->last = oldest - t->plans;
    *out = oldest;
    return TESS_OK;
}

/* ---- life ---------------------------------------------------------------------------------- */

static tess_status check_sharding(const tess_model *m, const tess_trainer_options *o)
{
    if (o->zero < 0 || o->zero > 3) {
        return TESS_FAIL(TESS_INVALID, "ZeRO: expected a stage from 0 to 3, found %d", o->zero);
    }
    if (o->zero > 0 && (o->muon || m->lora || o->distill)) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "ZeRO shards what AdamW keeps of whole towers: with %s use --zero 0",
                         o->muon   ? "Muon"
                         : m->lora ? "adapters"
                                   : "distillation");
    }
    if (o->zero > 0 && !tess_store_is_described(m->store) &&
        tess__model_device(m) != tess_device_cpu()) {
        return TESS_FAIL(TESS_UNSUPPORTED, "ZeRO shards what processors train: with a card use "
                                           "--zero 0");
    }
    if (o->grad_dtype != TESS_F32 && o->grad_dtype != TESS_BF16) {
        return TESS_FAIL(TESS_INVALID, "gradients: expected f32 or bf16, found %s",
                         tess_dtype_name(o->grad_dtype));
    }
    const bool on_card =
        !tess_store_is_described(m->store) && tess__model_device(m) != tess_device_cpu();
    if (o->grad_dtype == TESS_BF16 && (o->muon || m->lora || on_card)) {
        return TESS_FAIL(TESS_UNSUPPORTED, "gradients in bf16 are AdamW's, of whole towers, on "
                                           "processors: use --grad-dtype f32");
    }
    return TESS_OK;
}

/* Muon takes whole groups; other devices and other ranks copy them. */
static tess_status check_paged(const tess_model *m, const tess_trainer_options *o)
{
    const char *what = o->muon                                      ? "Muon"
                       : m->lora                                    ? "LoRA"
                       : o->comm && tess_comm_size(o->comm) > 1     ? "several ranks"
                       : o->zero > 0                                ? "ZeRO"
                       : tess__model_device(m) != tess_device_cpu() ? "a card"
                                                                    : NULL;
    return what ? TESS_FAIL(TESS_UNSUPPORTED,
                            "states are offloaded for whole towers, AdamW and one process on "
                            "processors: not with %s; leave the memory limit out",
                            what)
                : TESS_OK;
}

static tess_status check_options(const tess_model *m, const tess_trainer_options *o)
{
    TESS_TRY(check_sharding(m, o));
    if (o->batch < 1 || o->captions_per_image < 1 || o->accumulate < 1) {
        return TESS_FAIL(TESS_INVALID, "batch, captions per image and accumulation start at 1");
    }
    if (!(o->patch_dropout >= 0 && o->patch_dropout < 1)) {
        return TESS_FAIL(TESS_INVALID, "patch dropout: expected 0 to below 1, found %g",
                         o->patch_dropout);
    }
    if (o->comm && tess_comm_size(o->comm) > 1 && o->distill) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "several ranks train both towers: not by distillation yet");
    }
    if (o->distill && (m->lora || o->lock_text)) {
        return TESS_FAIL(TESS_INVALID, "distillation trains the text tower itself: without "
                                       "adapters, and not locked");
    }
    if (o->distill) {
        return TESS_OK;
    }
    if (m->config.objectives.text_text.weight > 0 && o->captions_per_image < 2) {
        return TESS_FAIL(TESS_INVALID,
                         "the text-text objective pairs captions of one picture: use "
                         "--captions-per-image 2 or more, or set tessera.text_text.weight to 0");
    }
    TESS_TRY(tess_store_pager(m->store) ? check_paged(m, o) : TESS_OK);
    if (o->stochastic_rounding && (m->dtype != TESS_BF16 || m->lora || o->muon)) {
        return TESS_FAIL(TESS_INVALID, "stochastic rounding is of the bf16 weights that AdamW "
                                       "writes: train whole towers with it, in bf16");
    }
    if (m->lora && (!m->lora->trains || o->muon)) {
        return TESS_FAIL(TESS_INVALID, "%s",
                         o->muon ? "Muon is for whole matrices: train adapters with AdamW"
                                 : "these adapters are for use, not for training");
    }
    if (m->config.objectives.text_text.weight <= 0 && m->config.objectives.image_text.weight <= 0) {
        return TESS_FAIL(TESS_INVALID, "no objective has a weight above 0");
    }
    return TESS_OK;
}

/* Entries of `group` for what is not frozen. */
static tess_status add_unlocked(const tess_trainer *t, const char *group)
{
    tess_store *s = t->model->store;
    for (int64_t i = 0; i < tess_store_n_entries(s, "param"); i++) {
        float *data;
        tess_shape shape;
        const char *name = tess_store_entry(s, "param", i, &data, &shape);
        if (!tess__trainer_locks(t, name)) {
            TESS_TRY(tess_store_add(s, group, name, shape));
        }
    }
    return TESS_OK;
}

static tess_status add_states_of(const tess_trainer *t, const char *group)
{
    tess_store *s = t->model->store;
    const bool is_grad = strcmp(group, "grad") == 0;
    if (t->model->lora) {
        return tess_store_mirror(s, group, tess__trainer_group(t));
    }
    TESS_TRY(add_unlocked(t, group));
    TESS_TRY(is_grad ? tess_store_set_dtype(s, group, t->o.grad_dtype) : TESS_OK);
    TESS_TRY(tess__trainer_split(t, group));
    return tess_store_allocate(s);
}

/* A state of this trainer's own, which starts with zeros. */
static tess_status add_own(const tess_trainer *t, const char *group, const char *name, int64_t n)
{
    tess_store *s = t->model->store;
    int64_t n_there;
    if (!tess_store_group(s, group, &n_there)) {
        TESS_TRY(tess_store_add(s, group, name, TESS_SHAPE_OF(n)));
        TESS_TRY(tess_store_allocate(s));
    }
    if (tess_store_is_described(s)) {
        return TESS_OK;
    }
    memset(tess_store_group(s, group, &n_there), 0, (size_t)n * sizeof(float));
    return tess_store_upload(s, group, "");
}

/* Gradients and moments are three quarters of a training's states: what is frozen has none. */
static tess_status add_states(const tess_trainer *t)
{
    static const char *const groups[] = {"grad", "m", "v"};
    tess_store *s = t->model->store;
    for (int64_t i = 0; i < TESS_COUNT(groups); i++) {
        int64_t n;
        if (!tess_store_group(s, groups[i], &n)) {
            TESS_TRY(add_states_of(t, groups[i]));
        }
    }
    TESS_TRY(add_own(t, "skipped", "updates", 1));
    TESS_TRY(add_own(t, "loss", "sum", 1));
    return t->o.skip_outliers > 0 ? add_own(t, "recent", "steps", TESS_RECENT_SIZE) : TESS_OK;
}

static tess_status check_fp8(const tess_trainer *t)
{
    const tess_model_config *c = &t->model->config;
    const int64_t image = tess__trainer_sees(t) ? c->vision.width : 0, text = c->text.width;
    if (t->o.fp8_width <= 0) {
        return TESS_OK;
    }
    if (t->model->dtype != TESS_BF16) {
        return TESS_FAIL(TESS_INVALID, "FP8 products are for models in bf16");
    }
    if (image < t->o.fp8_width && text < t->o.fp8_width) {
        return TESS_FAIL(TESS_INVALID,
                         "FP8 pays for blocks of width %lld and more, and this model's are %lld "
                         "(image) and %lld (text) wide: use --precision bf16",
                         (long long)t->o.fp8_width, (long long)image, (long long)text);
    }
    return TESS_OK;
}

tess_status tess_trainer_new(tess_model *m, const tess_trainer_options *o, tess_trainer **out)
{
    *out = NULL;
    if (m->packs) {
        return TESS_FAIL(TESS_INVALID, "the model was opened for embedding alone");
    }
    TESS_TRY(check_options(m, o));
    tess_trainer *t = tess_alloc(sizeof *t);
    if (!t) {
        return TESS_NOMEM;
    }
    t->model = m;
    t->o = *o;
    t->workspace = tess_workspace_new();
    tess_status st = t->workspace ? check_fp8(t) : TESS_NOMEM;
    if (st == TESS_OK && o->patch_dropout > 0 && tess__trainer_sees(t)) {
        t->kept =
            tess_alloc_array((size_t)o->batch, (size_t)tess__trainer_kept(t) * sizeof *t->kept);
        st = t->kept ? TESS_OK : TESS_NOMEM;
    }
    st = st ? st
            : tess_readback_new(tess__model_device(m), TESS_TRAINER_RESULTS * TESS__RESULT_NUMBERS,
                                &t->results);
    t->narrow = m->dtype == TESS_BF16 && !m->lora && !o->muon;
    st = st ? st : tess__trainer_split(t, "param");
    st = st ? st : add_states(t);
    st = st ? st : tess__trainer_add_half(t);
    st = st ? st : tess__ranks_build(t);
    st = st ? st : tess_trainer_sync(t, 0);
    if (st == TESS_OK && o->accumulate > 1 && !o->distill) {
        st = tess__cache_new(t, &t->cache);
    }
    st = st ? st : tess__trainer_build_update(t);
    if (st == TESS_OK && tess_store_dtype(m->store, "grad") == TESS_F32) {
        st = tess__cards_open(o->comm, tess__model_device(m)->remote, &t->cards);
    }
    if (st) {
        tess_trainer_free(t);
        return st;
    }
    *out = t;
    return TESS_OK;
}

void tess_trainer_free(tess_trainer *t)
{
    if (!t) {
        return;
    }
    for (int i = 0; i < TESS__STEP_PLANS; i++) {
        free_step_plan(&t->plans[i]);
    }
    tess__cards_close(t->cards);
    tess_plan_free(t->update);
    tess_graph_free(t->update_graph);
    tess_readback_free(t->results);
    tess_workspace_free(t->workspace);
    tess_free(t->tokens);
    tess_free(t->positions);
    tess_free(t->kept);
    tess_free(t->teacher);
    tess__cache_free(t->cache);
    tess__ranks_deinit(&t->ranks);
    tess_free(t);
}

/* ---- looking ------------------------------------------------------------------------------- */

void tess_trainer_debug(tess_trainer *t, bool on)
{
    t->debug = on;
}

double tess_trainer_flops(const tess_trainer *t)
{
    const tess__step_plan *p = &t->plans[t->last];
    if (t->cache) {
        return tess__cache_flops(t->cache) / (double)t->o.accumulate;
    }
    return p->plan ? tess_plan_get_stats(p->plan).flops : 0;
}

size_t tess_trainer_memory(const tess_trainer *t)
{
    return tess_workspace_bytes(t->workspace);
}

double tess_trainer_logit_scale(const tess_trainer *t)
{
    tess_store *s = t->model->store;
    const float *scale = tess_store_find(s, "param", "logit_scale", NULL);
    if (!scale || tess_store_download(s, "param", "logit_scale") != TESS_OK ||
        tess_store_gather(s, "param", "logit_scale") != TESS_OK) {
        return 0;
    }
    const double value = exp((double)*scale);
    tess_store_release(s, "param", "logit_scale", false);
    return value;
}

void tess_trainer_profile(tess_trainer *t, bool on)
{
    t->profile = on;
    for (int i = 0; i < TESS__STEP_PLANS; i++) {
        if (t->plans[i].plan) {
            tess_plan_profile(t->plans[i].plan, on);
        }
    }
    tess_plan_profile(t->update, on);
}

void tess_trainer_print_profile(const tess_trainer *t, tess_buf *out)
{
    const tess__step_plan *p = &t->plans[t->last];
    if (p->plan) {
        tess_plan_print_profile(p->plan, out);
    }
}
