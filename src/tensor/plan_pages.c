/* SPDX-License-Identifier: Apache-2.0 */
/* States that are not in memory all the time, from a plan's point of view.
 *
 * A plan knows every step's states before it runs.  A window is a run of steps that use one state,
 * from the first of them to the last; uses that are few steps apart share one.  While the plan
 * runs, windows are asked for in the order in which they begin, as far ahead as memory is left, and
 * a step waits only for its own: so a weight is on its way while the steps before it compute, is
 * given back after its last step forwards, and comes again for the steps backwards, as a gathered
 * weight of ZeRO's third stage does.  A state that was written goes back to its file meanwhile.
 *
 * Operators that read a whole group page it themselves, a piece at a time (TESS_OP_PAGES). */
#include "tensor/parallel.h"
#include "tensor/plan.h"

enum { NEAR_STEPS = 4 }; /* uses at most so far apart are one window */

typedef struct builder {
    tess_plan *p;
    int64_t *open; /* by buffer: its last window, -1: none */
    size_t cap;
} builder;

static tess_status use(builder *b, int32_t buffer, int64_t step, bool written)
{
    tess_plan *p = b->p;
    const tess_buffer *x = &p->buffers[buffer];
    if (b->open[buffer] >= 0) {
        tess_window *w = &p->windows[b->open[buffer]];
        if (step - w->last <= NEAR_STEPS) {
            w->last = step;
            w->written |= written;
            return TESS_OK;
        }
    }
    TESS_TRY(tess_grow(&p->windows, &b->cap, (size_t)p->n_windows + 1, sizeof *p->windows));
    b->open[buffer] = p->n_windows;
    p->windows[p->n_windows++] = (tess_window){
        .data = x->data, .n_bytes = x->n_bytes, .first = step, .last = step, .written = written};
    return TESS_OK;
}

static tess_status use_inputs(builder *b, int64_t s)
{
    const tess_plan *p = b->p;
    const tess_step *st = &p->steps[s];
    for (int k = 0; k < st->n_in; k++) {
        const int32_t id = st->in_buffer[k];
        const bool paged = id >= 0 && p->buffers[id].place == TESS_PLACE_STATE &&
                           tess__pager_has(p->pager, p->buffers[id].data);
        if (paged && !(st->op->flags & TESS_OP_PAGES)) {
            TESS_TRY(use(b, id, s, st->op->state_mask >> k & 1));
        }
    }
    return TESS_OK;
}

/* Of whole groups a chunk at once, as sumsq reads them, and a block more at both ends. */
static size_t paged_by_operator(const tess_plan *p, const tess_step *st)
{
    size_t sum = 0;
    for (int k = 0; k < st->n_in && st->op->flags & TESS_OP_PAGES; k++) {
        const tess_buffer *x = st->in_buffer[k] >= 0 ? &p->buffers[st->in_buffer[k]] : NULL;
        if (x && x->place == TESS_PLACE_STATE && tess__pager_has(p->pager, x->data)) {
            const size_t item = tess_dtype_bytes(st->in[k].dtype);
            const tess_chunks c = tess__chunks((int64_t)(x->n_bytes / item), 1);
            sum += tess__pager_span(p->pager, x->data, (size_t)c.rows_per * item) +
                   2 * tess__pager_block(p->pager);
        }
    }
    return sum;
}

/* Bytes of all windows that are open at the same step, at most. */
static size_t most_at_once(const tess_plan *p)
{
    size_t most = 0;
    for (int64_t s = 0; s < p->n_steps; s++) {
        size_t sum = paged_by_operator(p, &p->steps[s]);
        for (int64_t w = 0; w < p->n_windows; w++) {
            const tess_window *x = &p->windows[w];
            sum +=
                x->first <= s && s <= x->last ? tess__pager_span(p->pager, x->data, x->n_bytes) : 0;
        }
        most = sum > most ? sum : most;
    }
    return most;
}

tess_status tess__plan_find_windows(tess_plan *p)
{
    if (!p->pager || !p->device->computes) {
        return TESS_OK;
    }
    builder b = {.p = p, .open = tess_alloc_array((size_t)p->n_buffers + 1, sizeof *b.open)};
    tess_status st = b.open ? TESS_OK : TESS_NOMEM;
    for (int64_t i = 0; st == TESS_OK && i < p->n_buffers; i++) {
        b.open[i] = -1;
    }
    for (int64_t s = 0; st == TESS_OK && s < p->n_steps; s++) {
        st = use_inputs(&b, s);
    }
    tess_free(b.open);
    p->stats.paged_bytes = most_at_once(p);
    return st;
}

/* ---- while it runs --------------------------------------------------------------------------- */

static tess_pages pages_of(const tess_window *w)
{
    return (tess_pages){.at = w->data,
                        .n_bytes = w->n_bytes,
                        .how = w->written ? TESS_PAGED_WRITTEN : TESS_PAGED_READ};
}

static tess_status ask_ahead(tess_plan *p, int64_t step)
{
    while (p->n_asked < p->n_windows) {
        const tess_window *w = &p->windows[p->n_asked];
        const tess_pages x = pages_of(w);
        if (w->first <= step) {
            TESS_TRY(tess__pager_ask(p->pager, &x, 1));
        } else if (!tess__pager_try(p->pager, &x, 1)) {
            break;
        }
        p->n_asked++;
    }
    return TESS_OK;
}

void tess__plan_pages_begin(tess_plan *p)
{
    p->n_asked = p->n_closed = 0;
}

tess_status tess__plan_pages_enter(tess_plan *p, int64_t step)
{
    TESS_TRY(ask_ahead(p, step));
    for (int64_t i = p->n_closed; i < p->n_asked; i++) {
        const tess_window *w = &p->windows[i];
        if (w->first == step) {
            const tess_pages x = pages_of(w);
            TESS_TRY(tess__pager_wait(p->pager, &x, 1));
        }
    }
    return TESS_OK;
}

static void close_window(const tess_plan *p, const tess_window *w)
{
    const tess_pages x = pages_of(w);
    tess__pager_done(p->pager, &x, 1);
}

void tess__plan_pages_leave(tess_plan *p, int64_t step)
{
    for (int64_t i = p->n_closed; i < p->n_asked; i++) {
        if (p->windows[i].last == step) {
            close_window(p, &p->windows[i]);
        }
    }
    while (p->n_closed < p->n_asked && p->windows[p->n_closed].last <= step) {
        p->n_closed++;
    }
}

void tess__plan_pages_abandon(tess_plan *p, int64_t step)
{
    for (int64_t i = p->n_closed; i < p->n_asked; i++) {
        if (p->windows[i].last >= step) {
            close_window(p, &p->windows[i]);
        }
    }
}
