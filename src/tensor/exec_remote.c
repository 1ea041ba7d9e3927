/* SPDX-License-Identifier: Apache-2.0 */
/* Running a plan on a device whose memory is not the host's. */
#include "tensor/parallel.h"
#include "tensor/plan.h"

#include <string.h>

/* ---- building ------------------------------------------------------------------------------- */

static size_t aligned(size_t n)
{
    return (n + TESS_ARENA_ALIGNMENT - 1) / TESS_ARENA_ALIGNMENT * TESS_ARENA_ALIGNMENT;
}

/* A state's copy is the store's; inputs lie side by side behind the arena. */
static tess_status place_leaf(tess_plan *p, tess_store *store, const tess_leaf_attrs *a,
                              tess_buffer *b)
{
    if (a->group) {
        return tess__store_shadow(store, p->device->remote, a->group, b->data, b->n_bytes,
                                  &b->remote);
    }
    b->offset = p->input_bytes;
    p->input_bytes += aligned(b->n_bytes);
    return TESS_OK;
}

tess_status tess__remote_build(tess_plan *p, tess_store *store, const tess_graph *g)
{
    p->host_copies = tess_alloc_array((size_t)p->n_buffers + 1, sizeof *p->host_copies);
    p->pieces = tess_alloc_array((size_t)p->n_buffers + 1, sizeof *p->pieces);
    if (!p->host_copies || !p->pieces) {
        return TESS_NOMEM;
    }
    for (int64_t s = 0; s < p->n_steps; s++) {
        p->n_meets += (p->steps[s].op->flags & TESS_OP_MEETS) != 0;
    }
    p->recordings = tess_alloc_array((size_t)p->n_meets + 1, sizeof *p->recordings);
    if (!p->recordings) {
        return TESS_NOMEM;
    }
    for (size_t i = 0; i < g->n_nodes; i++) {
        const tess_node *n = &g->nodes[i];
        if (n->op->flags & TESS_OP_LEAF && p->buffer_of[n->out] >= 0) {
            TESS_TRY(place_leaf(p, store, n->attrs, &p->buffers[p->buffer_of[n->out]]));
        }
    }
    return tess__feed_reserve(&p->workspace->feed, p->device->remote, p->input_bytes);
}

static void forget(tess_plan *p)
{
    for (int64_t i = 0; p->recordings && i <= p->n_meets; i++) {
        p->device->remote->forget(p->recordings[i]);
        p->recordings[i] = NULL;
    }
}

void tess__remote_free(tess_plan *p)
{
    forget(p);
    tess_free(p->recordings);
    tess_free(p->met);
    for (int64_t i = 0; p->host_copies && i < p->n_buffers; i++) {
        tess_free(p->host_copies[i]);
    }
    tess_free(p->host_copies);
    tess_free(p->pieces);
}

/* ---- running -------------------------------------------------------------------------------- */

static tess_status launch(const tess_plan *p, const tess_step *st)
{
    const tess_exec e = {.in = st->in,
                         .out = st->out,
                         .n_in = st->n_in,
                         .attrs = st->attrs,
                         .scratch = p->workspace->data + p->stats.arena_bytes,
                         .stream = p->device->remote->stream()};
    return st->cuda->launch(&e);
}

static size_t bytes_of(const tess_operand *x)
{
    return (size_t)tess_shape_count(&x->shape) * tess_dtype_bytes(x->dtype);
}

/* The operands' places behind the scratch; returns the bytes of all. */
static size_t place_operands(const tess_step *st, uint8_t *base, tess_operand *in,
                             tess_operand *out)
{
    size_t at = aligned(st->scratch_bytes);
    for (int k = 0; k < st->n_in; k++) {
        in[k] = st->in[k];
        in[k].data = base ? base + at : NULL;
        at += aligned(bytes_of(&in[k]));
    }
    for (int k = 0; k < st->op->n_out; k++) {
        out[k] = st->out[k];
        out[k].data = base ? base + at : NULL;
        at += aligned(bytes_of(&out[k]));
    }
    return at;
}

/* A step that waits for other ranks, as a processor does it: on the host's copies of its operands,
 * once all before it is done. */
static tess_status meet(tess_plan *p, const tess_step *st)
{
    const tess_remote *r = p->device->remote;
    tess_operand in[TESS_MAX_IN], out[TESS_MAX_OUT];
    TESS_TRY(tess_grow(&p->met, &p->cap_met, place_operands(st, NULL, in, out), 1));
    place_operands(st, p->met, in, out);
    for (int k = 0; k < st->n_in; k++) {
        TESS_TRY(r->download(in[k].data, st->in[k].data, bytes_of(&in[k])));
    }
    TESS_TRY(st->op->cpu(&(tess_exec){.in = in,
                                      .out = out,
                                      .n_in = st->n_in,
                                      .attrs = st->attrs,
                                      .prepared = st->prepared,
                                      .scratch = p->met}));
    for (int k = 0; k < st->op->n_out; k++) {
        TESS_TRY(r->upload(st->out[k].data, out[k].data, bytes_of(&st->out[k])));
    }
    return TESS_OK;
}

static tess_status run_step(tess_plan *p, const tess_step *st)
{
    if (st->op->flags & TESS_OP_VIEW) {
        return TESS_OK;
    }
    const tess_status code = st->cuda ? launch(p, st) : meet(p, st);
    return code ? tess_error_prefix(code, "%s: %s", st->scope, st->op->name) : TESS_OK;
}

static tess_status run_steps(tess_plan *p, int64_t begin, int64_t end)
{
    for (int64_t s = begin; s < end; s++) {
        TESS_TRY(run_step(p, &p->steps[s]));
    }
    return TESS_OK;
}

/* A batch is up to hundreds of megabytes: more than one thread's copy keeps up with. */
static void copy_input(uint8_t *to, const void *from, size_t n_bytes)
{
    const tess_chunks c = tess__chunks((int64_t)n_bytes, 1);
#pragma omp parallel for schedule(static) if (c.n > 1)
    for (int64_t i = 0; i < c.n; i++) {
        const tess_range r = tess__chunk(&c, i);
        memcpy(to + r.begin, (const uint8_t *)from + r.begin, (size_t)r.n);
    }
}

/* An input in one piece with the one before, where that is there to its end. */
static void add_piece(tess_plan *p, const tess_buffer *b)
{
    tess_piece *last = p->n_pieces > 0 ? &p->pieces[p->n_pieces - 1] : NULL;
    if (last && aligned(last->offset + last->n_bytes) == b->offset) {
        last->n_bytes = b->offset + b->n_set - last->offset;
    } else {
        p->pieces[p->n_pieces++] = (tess_piece){.offset = b->offset, .n_bytes = b->n_set};
    }
}

static tess_status feed_inputs(tess_plan *p)
{
    tess_feed *f = &p->workspace->feed;
    uint8_t *slot;
    if (p->input_bytes == 0) {
        return TESS_OK;
    }
    TESS_TRY(tess__feed_begin(f, p->input_bytes, &slot));
    p->n_pieces = 0;
    for (int64_t i = 0; i < p->n_buffers; i++) {
        const tess_buffer *b = &p->buffers[i];
        if (b->place == TESS_PLACE_INPUT) {
            copy_input(slot + b->offset, b->data, b->n_set);
            add_piece(p, b);
        }
    }
    return tess__feed_send(f, p->workspace->data + tess__plan_inputs_at(p), p->pieces, p->n_pieces,
                           p->input_bytes);
}

static tess_status begin(tess_plan *p)
{
    const bool there = p->resolved;
    const int64_t generation = p->generation;
    TESS_TRY(tess__plan_resolve(p));
    if (!there || generation != p->generation) {
        forget(p);
        p->ran = false;
    }
    return feed_inputs(p);
}

static tess_status replay(tess_plan *p, void **recording, int64_t from, int64_t to)
{
    const tess_remote *r = p->device->remote;
    if (!*recording) {
        TESS_TRY(r->record());
        const tess_status code = run_steps(p, from, to);
        const tess_status ended = r->recorded(recording);
        TESS_TRY(code ? code : ended);
    }
    return r->replay(*recording);
}

/* What meets other ranks stands between recordings. */
static tess_status run_recorded(tess_plan *p)
{
    int64_t from = 0, n = 0;
    for (int64_t s = 0; s < p->n_steps; s++) {
        if (p->steps[s].op->flags & TESS_OP_MEETS) {
            TESS_TRY(from < s ? replay(p, &p->recordings[n], from, s) : TESS_OK);
            TESS_TRY(run_step(p, &p->steps[s]));
            from = s + 1;
            n++;
        }
    }
    return from < p->n_steps ? replay(p, &p->recordings[n], from, p->n_steps) : TESS_OK;
}

/* Each step waited for, so that its time is its own. */
static tess_status run_timed(tess_plan *p)
{
    const tess_remote *r = p->device->remote;
    TESS_TRY(r->wait());
    for (int64_t s = 0; s < p->n_steps; s++) {
        const double start = tess_seconds();
        TESS_TRY(run_step(p, &p->steps[s]));
        TESS_TRY(r->wait());
        p->steps[s].seconds += tess_seconds() - start;
    }
    p->n_runs++;
    return TESS_OK;
}

tess_status tess__remote_run(tess_plan *p)
{
    TESS_TRY(begin(p));
    if (p->profile) {
        return run_timed(p);
    }
    if (!p->ran) {
        TESS_TRY(run_steps(p, 0, p->n_steps));
        p->ran = true;
        return TESS_OK;
    }
    return run_recorded(p);
}

/* ---- step by step ---------------------------------------------------------------------------- */

static tess_status fetch(const tess_plan *p, tess_operand *x)
{
    const size_t n_bytes = (size_t)tess_shape_count(&x->shape) * tess_dtype_bytes(x->dtype);
    void *host = tess_alloc(n_bytes);
    const tess_status st = host ? p->device->remote->download(host, x->data, n_bytes) : TESS_NOMEM;
    x->data = host;
    return st;
}

/* The check of a host plan, on copies. */
static tess_status check_step(const tess_plan *p, const tess_step *st)
{
    tess_step host = *st;
    tess_status code = TESS_OK;
    for (int k = 0; k < TESS_MAX_IN; k++) {
        const bool written = k < st->n_in && st->op->state_mask >> k & 1;
        host.in[k].data = NULL;
        if (written && code == TESS_OK) {
            host.in[k].data = st->in[k].data;
            code = fetch(p, &host.in[k]);
        }
    }
    for (int k = 0; k < TESS_MAX_OUT; k++) {
        host.out[k].data = NULL;
        if (k < st->op->n_out && code == TESS_OK) {
            host.out[k].data = st->out[k].data;
            code = fetch(p, &host.out[k]);
        }
    }
    code = code ? code : tess__step_check(&host);
    for (int k = 0; k < TESS_MAX_IN; k++) {
        tess_free(host.in[k].data);
    }
    for (int k = 0; k < TESS_MAX_OUT; k++) {
        tess_free(host.out[k].data);
    }
    return code;
}

tess_status tess__remote_run_debug(tess_plan *p)
{
    const tess_remote *r = p->device->remote;
    TESS_TRY(begin(p));
    TESS_TRY(r->fill(p->workspace->data, 0xff, p->stats.arena_bytes));
    for (int64_t s = 0; s < p->n_steps; s++) {
        TESS_TRY(r->fill(p->workspace->data + p->stats.arena_bytes, 0xff, p->stats.scratch_bytes));
        TESS_TRY(run_step(p, &p->steps[s]));
        TESS_TRY(check_step(p, &p->steps[s]));
        for (int64_t i = 0; i < p->n_buffers; i++) {
            const tess_buffer *b = &p->buffers[i];
            if (b->place == TESS_PLACE_ARENA && b->last == s) {
                TESS_TRY(r->fill(p->workspace->data + b->offset, 0xff, b->n_bytes));
            }
        }
    }
    return TESS_OK;
}

/* ---- results --------------------------------------------------------------------------------- */

const void *tess__remote_output(const tess_plan *p, int32_t buffer)
{
    const tess_buffer *b = &p->buffers[buffer];
    const void *from = tess__plan_address(p, buffer);
    void **copy = &p->host_copies[buffer];
    *copy = *copy ? *copy : tess_alloc(b->n_bytes);
    return *copy && p->device->remote->download(*copy, from, b->n_bytes) == TESS_OK ? *copy : NULL;
}
