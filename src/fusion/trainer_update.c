/* SPDX-License-Identifier: Apache-2.0 */
/* A trainer's update: the gradient's norm, AdamW over all tensors in one operator, Muon, the bounds
 * of scales; and the bf16 copy of the weights that AdamW writes along. */
#include "fusion/trainer.h"

#include "fusion/model.h"
#include "tensor/op.h"
#include "tensor/parallel.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- graph --------------------------------------------------------------------------------- */

static int by_grad(const void *a, const void *b)
{
    const tess_adamw_part *x = a, *y = b;
    return x->grad < y->grad ? -1 : x->grad > y->grad;
}

/* Where the gradients' entries lie among the parameters.  What is frozen leaves gaps: a tower has
 * one among the hidden matrices, one among the others and one among the rest, and so few parts. */
static tess_status find_parts(const tess_trainer *t, tess_adamw_options *o)
{
    const tess_store *s = t->model->store;
    const char *group = tess__trainer_group(t);
    const int64_t n_entries = tess_store_n_entries(s, group);
    tess_adamw_part *entry = tess_alloc_array((size_t)n_entries + 1, sizeof *entry);
    if (!entry) {
        return TESS_NOMEM;
    }
    int64_t n = 0;
    for (int64_t i = 0; i < n_entries; i++) {
        tess_shape shape;
        float *param;
        const char *name = tess_store_entry(s, group, i, &param, &shape);
        if (tess_store_find(s, "grad", name, NULL)) {
            entry[n++] = (tess_adamw_part){tess_store_held(s, "grad", name).offset,
                                           tess_store_held(s, group, name).offset};
        }
    }
    qsort(entry, (size_t)n, sizeof *entry, by_grad);
    for (int64_t i = 0; i < n; i++) {
        const tess_adamw_part *last = i > 0 ? &o->part[o->n_parts - 1] : NULL;
        if (!last || entry[i].param - entry[i].grad != last->param - last->grad) {
            assert(o->n_parts < TESS_ADAMW_PARTS);
            o->part[o->n_parts++] = entry[i];
        }
    }
    tess_free(entry);
    return TESS_OK;
}

static tess_value whole_group(tess_graph *g, const tess_trainer *t, const char *group,
                              tess_dtype dtype)
{
    int64_t n;
    tess_store_group(t->model->store, group, &n);
    return tess_state(g, group, "", dtype, TESS_SHAPE_OF(n));
}

/* AdamW over all that is trained at once. */
static tess_status add_adamw(tess_graph *g, const tess_trainer *t, tess_value hyper)
{
    const tess_store *s = t->model->store;
    tess_adamw_options o = {.beta1 = t->o.beta1,
                            .beta2 = t->o.beta2,
                            .eps = t->o.eps,
                            .weight_decay = t->o.weight_decay,
                            .clip = t->o.clip,
                            .begin = t->o.muon ? tess_store_n_leading(s, "grad") : 0,
                            .n_decayed = tess_store_n_decayed(s, "grad"),
                            .stochastic = t->o.stochastic_rounding,
                            .seed = t->o.seed};
    if (tess__trainer_splits(t, "m")) {
        o.ranges = t->ranks.ranges;
        o.n_ranges = t->ranks.n_ranges;
    } else {
        TESS_TRY(find_parts(t, &o));
    }
    if (o.n_parts > 0 || o.n_ranges > 0) {
        o.narrow = t->narrow ? whole_group(g, t, "half", TESS_BF16) : 0;
        tess_adamw(g, whole_group(g, t, tess__trainer_group(t), TESS_F32),
                   whole_group(g, t, "grad", t->o.grad_dtype), whole_group(g, t, "m", TESS_F32),
                   whole_group(g, t, "v", TESS_F32), hyper, t->gated, o);
    }
    return TESS_OK;
}

/* The matrices collected in `o`, which lie in one entry, or with the empty name in the groups. */
static void add_muon(tess_graph *g, const tess_trainer *t, tess_value hyper, const char *name,
                     tess_shape shape, tess_muon_options *o)
{
    static const char *const groups[3] = {"param", "grad", "m"};
    tess_value x[3];
    if (o->n_matrices == 0) {
        return;
    }
    for (int i = 0; i < 3; i++) {
        x[i] = tess_reshape(g, tess_state(g, groups[i], name, TESS_F32, shape),
                            TESS_SHAPE_OF(tess_shape_count(&shape)));
    }
    tess_muon(g, x[0], x[1], x[2], hyper, t->gated, o);
    o->n_matrices = 0;
}

/* All hidden matrices that are not frozen, as many at a time as an operator takes; where some are,
 * the groups differ in their layout, and it is one entry at a time. */
static void add_hidden(tess_graph *g, const tess_trainer *t, tess_value hyper)
{
    const tess_store *s = t->model->store;
    tess_muon_options o = {.momentum = t->o.muon_momentum,
                           .lr_factor = t->o.muon_lr,
                           .weight_decay = t->o.weight_decay,
                           .clip = t->o.clip,
                           .dtype = t->model->dtype};
    int64_t n;
    float *data;
    const float *base = tess_store_group(s, "param", &n);
    const tess_shape flat = TESS_SHAPE_OF(n);
    const bool apart = tess__trainer_locks_any(t);
    tess_shape shape;
    for (int64_t i = 0; i < tess_store_n_entries(s, "param"); i++) {
        const char *name = tess_store_entry(s, "param", i, &data, &shape);
        const int64_t blocks = tess__trainer_locks(t, name) ? 0 : tess__hidden_blocks(name);
        for (int64_t k = 0; k < blocks; k++) {
            if (o.n_matrices == TESS_MUON_MATRICES) {
                add_muon(g, t, hyper, "", flat, &o);
            }
            const int64_t rows = shape.dim[0] / blocks, cols = shape.dim[1];
            o.matrix[o.n_matrices].begin = (apart ? 0 : data - base) + k * rows * cols;
            o.matrix[o.n_matrices].rows = rows;
            o.matrix[o.n_matrices++].cols = cols;
        }
        if (apart && blocks > 0) {
            add_muon(g, t, hyper, name, shape, &o);
        }
    }
    add_muon(g, t, hyper, "", flat, &o);
}

/* CLIP's bound: a scale above 100 makes training unstable. */
static void clamp_scales(tess_graph *g, const tess_model *m)
{
    static const char *const names[] = {"logit_scale", "logit_scale_text"};
    for (int64_t i = 0; i < TESS_COUNT(names); i++) {
        tess_shape shape;
        if (tess_store_find(m->store, "param", names[i], &shape)) {
            tess_clamp(g, tess_state(g, "param", names[i], TESS_F32, shape), 0.0f, 4.6051702f);
        }
    }
}

/* Which steps were skipped is known on the device alone, which does not wait for us to ask. */
static tess_value add_time(tess_graph *g, const tess_trainer *t)
{
    const tess_value rates = tess_input(g, "rates", TESS_F32, TESS_SHAPE_OF(TESS__RATES));
    const tess_value skipped = tess_state(g, "skipped", "updates", TESS_F32, TESS_SHAPE_OF(1));
    tess_value is_skipped;
    const tess_value hyper =
        tess_adam_time(g, rates, skipped, t->gated, t->o.beta1, t->o.beta2, &is_skipped);
    tess_accumulate(g, skipped, is_skipped);
    return hyper;
}

/* The gradient's norm, and whether it counts: from sums over all ranks, so that all decide alike.
 */
static void add_gate(tess_graph *g, tess_trainer *t)
{
    const tess_value loss = tess_state(g, "loss", "sum", TESS_F32, TESS_SHAPE_OF(1));
    const tess_value recent = t->o.skip_outliers > 0 ? tess_state(g, "recent", "steps", TESS_F32,
                                                                  TESS_SHAPE_OF(TESS_RECENT_SIZE))
                                                     : 0;
    t->norm = tess__ranks_have_norm(t) ? tess_input(g, "sumsq", TESS_F32, TESS_SHAPE_OF(1))
                                       : tess_sumsq(g, whole_group(g, t, "grad", t->o.grad_dtype));
    t->gated = tess_update_gate(g, t->norm, loss, recent, t->o.skip_outliers, &t->why, &t->loss);
    tess_update_note(g, t->norm, loss, recent);
}

tess_status tess__trainer_build_update(tess_trainer *t)
{
    tess_store *s = t->model->store;
    tess_graph *g = t->update_graph = tess_graph_new();
    if (!g) {
        return TESS_NOMEM;
    }
    add_gate(g, t);
    const tess_value hyper = add_time(g, t);
    if (t->o.muon) {
        add_hidden(g, t, hyper);
    }
    TESS_TRY(add_adamw(g, t, hyper));
    if (!t->model->lora && !t->o.distill) {
        clamp_scales(g, t->model);
    }
    const tess_value outputs[] = {t->norm, t->loss, t->why};
    TESS_TRY(tess_plan_build(g, outputs, TESS_COUNT(outputs), tess__model_device(t->model), s,
                             t->workspace, &t->update));
    TESS_TRY(tess__ranks_have_norm(t) ? tess_plan_bind(t->update, "sumsq", &t->ranks.sumsq)
                                      : TESS_OK);
    return tess_plan_bind(t->update, "rates", t->rates);
}

/* ---- bf16 copy ------------------------------------------------------------------------------ */

tess_status tess__trainer_add_half(const tess_trainer *t)
{
    tess_store *s = t->model->store;
    int64_t n;
    if (!t->narrow || tess_store_group(s, "half", &n)) {
        return TESS_OK;
    }
    for (int64_t i = 0; i < tess_store_n_entries(s, "param"); i++) {
        float *data;
        tess_shape shape;
        const char *name = tess_store_entry(s, "param", i, &data, &shape);
        TESS_TRY(tess_store_add(s, "half", name, shape));
    }
    TESS_TRY(tess_store_set_dtype(s, "half", TESS_BF16));
    TESS_TRY(tess__trainer_split(t, "half"));
    return tess_store_allocate(s);
}

/* What this rank holds of an entry; by chance as update `step` rounded it. */
static tess_status narrow_entry(const tess_trainer *t, const char *name, const float *param,
                                int64_t step)
{
    tess_store *s = t->model->store;
    const tess_held p = tess_store_held(s, "param", name), h = tess_store_held(s, "half", name);
    int64_t n;
    uint16_t *half = (uint16_t *)tess_store_group(s, "half", &n) + h.offset + p.begin - h.begin;
    n = p.end - p.begin;
    TESS_TRY(tess_store_gather(s, "param", name));
    const tess_status st = tess_store_gather(s, "half", name);
    if (st == TESS_OK && t->o.stochastic_rounding && !tess__trainer_locks(t, name)) {
        tess__kernels()->round_stochastic(half, param, n, p.at + p.begin, t->o.seed,
                                          (uint64_t)step);
    } else if (st == TESS_OK) {
        tess__convert(TESS_BF16, half, TESS_F32, param, n);
    }
    tess_store_release(s, "param", name, false);
    if (st == TESS_OK) {
        tess_store_release(s, "half", name, true);
    }
    return st;
}

tess_status tess_trainer_sync(tess_trainer *t, int64_t step)
{
    tess_store *s = t->model->store;
    if (!t->narrow || tess_store_is_described(s)) {
        return TESS_OK;
    }
    TESS_TRY(tess_store_download(s, "param", ""));
    for (int64_t i = 0; i < tess_store_n_entries(s, "param"); i++) {
        float *param;
        tess_shape shape;
        const char *name = tess_store_entry(s, "param", i, &param, &shape);
        TESS_TRY(narrow_entry(t, name, param, step));
    }
    TESS_TRY(tess__ranks_gather(t, true));
    return tess_store_upload(s, "half", "");
}
