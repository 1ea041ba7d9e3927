/* SPDX-License-Identifier: Apache-2.0 */
/* What ranks that train together do beside their plans: who holds which part of a training's
 * states, the sum of gradients, its norm, and the weights after an update.
 *
 * ZeRO (Rajbhandari et al. 2020): a matrix's states are split by ranges of its elements, the same
 * for every group, so that an update needs nothing of another rank.  Stage 1 splits what AdamW
 * keeps (moments, and f32 masters where products read bf16), stage 2 gradients as well, stage 3 the
 * weights.  What is no matrix (0.2 % of a ViT-B/32), every rank holds and updates whole.
 *
 * All sums are in the order of ranks, and the norm is one of the ranges' sums, in an order that no
 * stage changes: with one micro-step to an update all stages give the same bits. */
#include "fusion/trainer.h"

#include "fusion/model.h"
#include "tensor/comm.h"
#include "tensor/parallel.h"
#include "tensor/plan.h"

#include <stdlib.h>
#include <string.h>

#define PIECE 65536 /* elements that a thread takes at a time */

int tess__trainer_ranks(const tess_trainer *t)
{
    return t->o.comm ? tess_comm_size(t->o.comm) : 1;
}

static int stage(const tess_trainer *t)
{
    return tess__trainer_ranks(t) > 1 ? t->o.zero : 0;
}

static bool ends_with(const char *name, const char *suffix)
{
    const size_t n = strlen(name), k = strlen(suffix);
    return k <= n && strcmp(name + n - k, suffix) == 0;
}

/* What towers read as matrices, or as the tables of words: all but small tensors that are read in
 * f32. */
static bool splits(const char *name, const tess_shape *shape)
{
    static const char *const small[] = {"positional_embedding", "token_type_embedding", "query"};
    for (int64_t i = 0; i < TESS_COUNT(small); i++) {
        if (ends_with(name, small[i])) {
            return false;
        }
    }
    return shape->rank > 1;
}

tess__sharding tess__trainer_sharding(const tess_trainer *t)
{
    return (tess__sharding){.comm = tess__trainer_ranks(t) > 1 ? t->o.comm : NULL,
                            .splits = splits,
                            .scatters = stage(t) >= 2,
                            .gathers = stage(t) >= 3,
                            .wire = t->o.grad_dtype};
}

bool tess_trainer_shards(const tess_trainer *t)
{
    return t && stage(t) > 0;
}

/* ---- states -------------------------------------------------------------------------------- */

bool tess__trainer_splits(const tess_trainer *t, const char *group)
{
    const bool is_weight = strcmp(group, t->narrow ? "half" : "param") == 0;
    const bool is_grad = strcmp(group, "grad") == 0;
    return stage(t) >= (is_weight ? 3 : is_grad ? 2 : 1);
}

tess_status tess__trainer_split(const tess_trainer *t, const char *group)
{
    return tess__trainer_splits(t, group)
               ? tess_store_split(t->model->store, group, tess_comm_rank(t->o.comm),
                                  tess__trainer_ranks(t), splits)
               : TESS_OK;
}

/* ---- tables -------------------------------------------------------------------------------- */

typedef struct table {
    const tess_trainer *t;
    tess__ranks *r;
    size_t cap_ranges, cap_pieces, cap_runs;
} table;

/* An entry's range `held` for AdamW, in pieces. */
static tess_status add_ranges(table *b, const char *name, const tess_shape *shape, tess_held held)
{
    const tess_store *s = b->t->model->store;
    const tess_held p = tess_store_held(s, "param", name), g = tess_store_held(s, "grad", name);
    const tess_held h = tess_store_held(s, "half", name);
    for (int64_t i = held.begin; i < held.end; i += PIECE) {
        const int64_t n = held.end - i < PIECE ? held.end - i : PIECE;
        TESS_TRY(tess_grow(&b->r->ranges, &b->cap_ranges, (size_t)b->r->n_ranges + 1,
                           sizeof *b->r->ranges));
        b->r->ranges[b->r->n_ranges++] =
            (tess_adamw_range){.param = p.offset + i - p.begin,
                               .grad = g.offset + i - g.begin,
                               .moment = held.offset + i - held.begin,
                               .narrow = b->t->narrow ? h.offset + i - h.begin : 0,
                               .element = p.at + i,
                               .n = n,
                               .decayed = shape->rank > 1};
    }
    return TESS_OK;
}

/* Elements begin to end of an entry for the norm, as a part of rank's sum. */
static tess_status add_pieces(table *b, tess_held g, int rank, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i += PIECE) {
        TESS_TRY(tess_grow(&b->r->pieces, &b->cap_pieces, (size_t)b->r->n_pieces + 1,
                           sizeof *b->r->pieces));
        b->r->pieces[b->r->n_pieces++] = (tess_sum_piece){.offset = g.offset + i - g.begin,
                                                          .n = end - i < PIECE ? end - i : PIECE,
                                                          .group = rank};
    }
    return TESS_OK;
}

/* A run of gradients that all ranks hold whole; joined to the one before where it follows. */
static tess_status add_run(table *b, tess_held g)
{
    tess__ranks *r = b->r;
    tess__grad_run *last = r->n_runs > 0 ? &r->runs[r->n_runs - 1] : NULL;
    if (last && last->offset <= g.offset && g.offset - last->offset - last->n < 16) {
        last->n = g.offset + g.end - last->offset;
        return TESS_OK;
    }
    TESS_TRY(tess_grow(&r->runs, &b->cap_runs, (size_t)r->n_runs + 1, sizeof *r->runs));
    r->runs[r->n_runs++] = (tess__grad_run){g.offset, g.end};
    return TESS_OK;
}

static tess_status add_entry(table *b, const char *name, const tess_shape *shape)
{
    const tess_store *s = b->t->model->store;
    const tess_held g = tess_store_held(s, "grad", name), m = tess_store_held(s, "m", name);
    const int64_t n = tess_shape_count(shape);
    const int ranks = tess__trainer_ranks(b->t);
    TESS_TRY(add_ranges(b, name, shape, m));
    if (!splits(name, shape)) {
        TESS_TRY(add_run(b, g));
        return add_pieces(b, g, ranks, 0, n);
    }
    /* Stage 0 has the whole sum, and adds it up as the ranges' owners would. */
    for (int r = 0; r < ranks; r++) {
        if (stage(b->t) == 0 || r == tess_comm_rank(b->t->o.comm)) {
            TESS_TRY(add_pieces(b, g, r, tess_shard_begin(n, r, ranks),
                                tess_shard_begin(n, r + 1, ranks)));
        }
    }
    return TESS_OK;
}

tess_status tess__ranks_build(tess_trainer *t)
{
    table b = {.t = t, .r = &t->ranks};
    const tess_store *s = t->model->store;
    if (tess__trainer_ranks(t) == 1) {
        return TESS_OK;
    }
    for (int64_t i = 0; i < tess_store_n_entries(s, "grad"); i++) {
        float *data;
        tess_shape shape;
        const char *name = tess_store_entry(s, "grad", i, &data, &shape);
        TESS_TRY(add_entry(&b, name, &shape));
    }
    t->ranks.counts = tess_alloc_array((size_t)tess__trainer_ranks(t), sizeof(int64_t));
    t->ranks.sums = tess_alloc_array((size_t)tess__trainer_ranks(t) + 1, sizeof(double));
    t->ranks.partial = tess_alloc_array((size_t)t->ranks.n_pieces + 1, sizeof(double));
    return t->ranks.counts && t->ranks.sums && t->ranks.partial ? TESS_OK : TESS_NOMEM;
}

void tess__ranks_deinit(tess__ranks *r)
{
    tess_free(r->ranges);
    tess_free(r->pieces);
    tess_free(r->runs);
    tess_free(r->counts);
    tess_free(r->sums);
    tess_free(r->partial);
}

/* ---- collectives --------------------------------------------------------------------------- */

/* How much of n elements each rank holds, in units of `width`. */
static const int64_t *fill_counts(const tess_trainer *t, int64_t n, int64_t width)
{
    const int ranks = tess__trainer_ranks(t);
    for (int r = 0; r < ranks; r++) {
        t->ranks.counts[r] =
            (tess_shard_begin(n, r + 1, ranks) - tess_shard_begin(n, r, ranks)) * width;
    }
    return t->ranks.counts;
}

/* This rank's range of a gradient that it has whole becomes that of the sum, in its place. */
static tess_status reduce_entry(const tess_trainer *t, void *grad, int64_t n)
{
    const int64_t begin = tess_shard_begin(n, tess_comm_rank(t->o.comm), tess__trainer_ranks(t));
    return tess_comm_reduce_scatter(t->o.comm, grad, t->o.grad_dtype, fill_counts(t, n, 1),
                                    tess__at_mut(grad, t->o.grad_dtype, begin));
}

static tess_status reduce_entries(const tess_trainer *t)
{
    const tess_store *s = t->model->store;
    for (int64_t i = 0; i < tess_store_n_entries(s, "grad"); i++) {
        float *grad;
        tess_shape shape;
        const char *name = tess_store_entry(s, "grad", i, &grad, &shape);
        if (splits(name, &shape)) {
            TESS_TRY(reduce_entry(t, grad, tess_shape_count(&shape)));
        }
    }
    return TESS_OK;
}

static tess_status reduce_runs(const tess_trainer *t, void *grad)
{
    for (int64_t i = 0; i < t->ranks.n_runs; i++) {
        TESS_TRY(tess_comm_all_reduce(t->o.comm,
                                      tess__at_mut(grad, t->o.grad_dtype, t->ranks.runs[i].offset),
                                      t->o.grad_dtype, t->ranks.runs[i].n));
    }
    return TESS_OK;
}

static tess_status reduce_gradients(const tess_trainer *t)
{
    int64_t n;
    void *grad = tess_store_group(t->model->store, "grad", &n);
    if (stage(t) == 0) {
        return tess_comm_all_reduce(t->o.comm, grad, t->o.grad_dtype, n);
    }
    TESS_TRY(stage(t) == 1 ? reduce_entries(t) : TESS_OK);
    return reduce_runs(t, grad);
}

/* Between cards, whole. */
static tess_status reduce_on_card(const tess_trainer *t, const char *group, float *x, int64_t n)
{
    void *there = NULL;
    TESS_TRY(tess__store_shadow(t->model->store, tess__model_device(t->model)->remote, group, x,
                                (size_t)n * sizeof *x, &there));
    return tess__cards_all_reduce(t->cards, there, n);
}

tess_status tess__ranks_reduce(const tess_trainer *t)
{
    static const char *const groups[] = {"grad", "loss"};
    tess_store *s = t->model->store;
    for (int64_t i = 0; tess__trainer_ranks(t) > 1 && i < TESS_COUNT(groups); i++) {
        int64_t n;
        float *x = tess_store_group(s, groups[i], &n);
        if (t->cards) {
            TESS_TRY(reduce_on_card(t, groups[i], x, n));
            continue;
        }
        TESS_TRY(tess_store_download(s, groups[i], "")); /* from a card */
        TESS_TRY(i == 0 ? reduce_gradients(t) : tess_comm_all_reduce(t->o.comm, x, TESS_F32, n));
        TESS_TRY(tess_store_upload(s, groups[i], ""));
    }
    return TESS_OK;
}

bool tess__ranks_have_norm(const tess_trainer *t)
{
    return tess__trainer_ranks(t) > 1 && tess__model_device(t->model) == tess_device_cpu();
}

/* Sums of squares: by pieces, of these by rank, and of these the whole, each in order. */
tess_status tess__ranks_norm(tess_trainer *t)
{
    tess__ranks *r = &t->ranks;
    const int ranks = tess__trainer_ranks(t);
    int64_t n;
    const void *grad = tess_store_group(t->model->store, "grad", &n);
    if (!tess__ranks_have_norm(t)) {
        return TESS_OK;
    }
    tess__sumsq_pieces(t->o.grad_dtype, grad, r->pieces, r->n_pieces, r->partial);
    memset(r->sums, 0, (size_t)(ranks + 1) * sizeof *r->sums);
    for (int64_t i = 0; i < r->n_pieces; i++) {
        r->sums[r->pieces[i].group] += r->partial[i];
    }
    if (stage(t) > 0) {
        for (int k = 0; k < ranks; k++) {
            r->counts[k] = sizeof *r->sums;
        }
        TESS_TRY(tess_comm_all_gather(t->o.comm, &r->sums[tess_comm_rank(t->o.comm)], r->counts,
                                      r->sums));
    }
    double sum = 0;
    for (int k = 0; k <= ranks; k++) {
        sum += r->sums[k];
    }
    r->sumsq = (float)sum;
    return TESS_OK;
}

/* A tensor of which every rank has made its own range anew, in its place. */
static tess_status gather_entry(const tess_trainer *t, void *whole, tess_dtype type, int64_t n)
{
    const int64_t begin = tess_shard_begin(n, tess_comm_rank(t->o.comm), tess__trainer_ranks(t));
    return tess_comm_all_gather(t->o.comm, tess__at(whole, type, begin),
                                fill_counts(t, n, (int64_t)tess_dtype_bytes(type)), whole);
}

tess_status tess__ranks_gather(const tess_trainer *t, bool locked)
{
    const tess_store *s = t->model->store;
    const char *group = t->narrow ? "half" : "param";
    if (stage(t) != 1 && stage(t) != 2) {
        return TESS_OK;
    }
    for (int64_t i = 0; i < tess_store_n_entries(s, group); i++) {
        float *data;
        tess_shape shape;
        const char *name = tess_store_entry(s, group, i, &data, &shape);
        if (splits(name, &shape) && (locked || !tess__trainer_locks(t, name))) {
            TESS_TRY(gather_entry(t, data, tess_store_dtype(s, group), tess_shape_count(&shape)));
        }
    }
    return TESS_OK;
}

tess_status tess__ranks_finish(const tess_trainer *t)
{
    int64_t n;
    void *grad = tess_store_group(t->model->store, "grad", &n);
    if (stage(t) == 1) { /* AdamW has zeroed its own ranges alone */
        memset(grad, 0, (size_t)n * tess_dtype_bytes(t->o.grad_dtype));
    }
    return tess__ranks_gather(t, false);
}
