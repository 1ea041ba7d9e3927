/* SPDX-License-Identifier: Apache-2.0 */
/* Inputs on their way to a device; remote.h says how. */
#include "tensor/remote.h"

#define BATCHES      2
#define SCALAR_SLOTS 8

/* ---- pinned memory in turn ------------------------------------------------------------------- */

static tess_status reserve_slots(tess_slots *s, const tess_remote *r, int n, size_t n_bytes)
{
    void *pinned = NULL;
    if (n_bytes <= s->n_bytes) {
        return TESS_OK;
    }
    TESS_TRY(r->wait());
    r->free_host(s->pinned);
    s->pinned = NULL;
    s->n_bytes = 0;
    for (; s->n < n; s->n++) {
        TESS_TRY(r->new_event(&s->copied[s->n]));
    }
    TESS_TRY(r->alloc_host(n_bytes * (size_t)n, &pinned));
    s->pinned = pinned;
    s->n_bytes = n_bytes;
    return TESS_OK;
}

static int slot_now(const tess_slots *s)
{
    return (int)(s->n_taken % s->n);
}

static uint8_t *pinned_now(const tess_slots *s)
{
    return s->pinned + (size_t)slot_now(s) * s->n_bytes;
}

static void deinit_slots(tess_slots *s, const tess_remote *r)
{
    for (int i = 0; i < s->n; i++) {
        r->free_event(s->copied[i]);
    }
    r->free_host(s->pinned);
}

/* ---- the feed ---------------------------------------------------------------------------------
 */

static bool is_small(size_t n_bytes)
{
    return n_bytes <= TESS_FEED_SCALARS;
}

static tess_status reserve_batches(tess_feed *f, size_t n_bytes)
{
    const tess_remote *r = f->remote;
    void *staged = NULL;
    if (n_bytes <= f->batches.n_bytes && f->staged) {
        return TESS_OK;
    }
    TESS_TRY(reserve_slots(&f->batches, r, BATCHES, n_bytes));
    r->free(f->staged);
    f->staged = NULL;
    TESS_TRY(r->alloc(f->batches.n_bytes, &staged));
    f->staged = staged;
    return f->placed ? TESS_OK : r->new_event(&f->placed);
}

tess_status tess__feed_reserve(tess_feed *f, const tess_remote *remote, size_t n_bytes)
{
    f->remote = remote;
    return is_small(n_bytes) ? reserve_slots(&f->scalars, remote, SCALAR_SLOTS, TESS_FEED_SCALARS)
                             : reserve_batches(f, n_bytes);
}

tess_status tess__feed_begin(tess_feed *f, size_t n_bytes, uint8_t **out)
{
    tess_slots *s = is_small(n_bytes) ? &f->scalars : &f->batches;
    bool reached;
    TESS_TRY(tess__feed_reserve(f, f->remote, n_bytes)); /* a growth may have failed since */
    TESS_TRY(f->remote->reached(s->copied[slot_now(s)], true, &reached));
    *out = pinned_now(s);
    return TESS_OK;
}

static tess_status copy_pieces(const tess_feed *f, tess_lane lane, uint8_t *to, const uint8_t *from,
                               const tess_piece *pieces, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const tess_piece *x = &pieces[i];
        TESS_TRY(f->remote->copy(lane, to + x->offset, from + x->offset, x->n_bytes));
    }
    return TESS_OK;
}

static tess_status send_batch(tess_feed *f, void *to, const tess_piece *pieces, int64_t n)
{
    const tess_remote *r = f->remote;
    void *copied = f->batches.copied[slot_now(&f->batches)];
    TESS_TRY(r->follow(TESS_LANE_COPY, f->placed));
    TESS_TRY(copy_pieces(f, TESS_LANE_COPY, f->staged, pinned_now(&f->batches), pieces, n));
    TESS_TRY(r->mark(copied, TESS_LANE_COPY));
    TESS_TRY(r->follow(TESS_LANE_WORK, copied));
    TESS_TRY(copy_pieces(f, TESS_LANE_WORK, to, f->staged, pieces, n));
    f->batches.n_taken++;
    return r->mark(f->placed, TESS_LANE_WORK);
}

tess_status tess__feed_send(tess_feed *f, void *to, const tess_piece *pieces, int64_t n_pieces,
                            size_t n_bytes)
{
    tess_slots *s = &f->scalars;
    if (!is_small(n_bytes)) {
        return send_batch(f, to, pieces, n_pieces);
    }
    TESS_TRY(copy_pieces(f, TESS_LANE_WORK, to, pinned_now(s), pieces, n_pieces));
    TESS_TRY(f->remote->mark(s->copied[slot_now(s)], TESS_LANE_WORK));
    s->n_taken++;
    return TESS_OK;
}

void tess__feed_deinit(tess_feed *f)
{
    const tess_remote *r = f->remote;
    if (r) {
        const tess_status st = r->wait(); /* for what is on its way, which has failed or not */
        (void)st;
        r->free(f->staged);
        deinit_slots(&f->batches, r);
        deinit_slots(&f->scalars, r);
        r->free_event(f->placed);
    }
    *f = (tess_feed){0};
}
