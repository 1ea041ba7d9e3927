/* SPDX-License-Identifier: Apache-2.0 */
/* The planner's check: a replay of the step list with byte-range ownership.
 *
 * It trusts only what execution will use: the steps, the buffers' offsets and sizes.  Each arena
 * byte range belongs to the value last written there; a step must find its inputs intact, and may
 * only overwrite a value that no later step and no output of the plan reads. */
#include "tensor/plan.h"

#include <string.h>

typedef struct owner {
    size_t begin, end;
    tess_value value;
} owner;

typedef struct replay {
    const tess_plan *p;
    owner *owners;
    int64_t n_owners;
    int64_t *last_read; /* by value: recomputed from the steps */
} replay;

static bool in_arena(const tess_plan *p, int32_t buffer)
{
    return buffer >= 0 && p->buffers[buffer].place == TESS_PLACE_ARENA;
}

static void find_reads(replay *r)
{
    const tess_plan *p = r->p;
    for (int64_t s = 0; s < p->n_steps; s++) {
        for (int k = 0; k < p->steps[s].n_in; k++) {
            r->last_read[p->steps[s].in_value[k]] = s;
        }
    }
    for (int64_t i = 0; i < p->n_outputs; i++) {
        r->last_read[p->outputs[i]] = INT64_MAX;
    }
}

static bool owns(const replay *r, tess_value v, const tess_buffer *b)
{
    for (int64_t i = 0; i < r->n_owners; i++) {
        const owner *o = &r->owners[i];
        if (o->value == v && o->begin == b->offset && o->end == b->offset + b->n_bytes) {
            return true;
        }
    }
    return b->n_bytes == 0;
}

static tess_status read_inputs(const replay *r, int64_t s)
{
    const tess_step *st = &r->p->steps[s];
    for (int k = 0; k < st->n_in; k++) {
        if (in_arena(r->p, st->in_buffer[k]) &&
            !owns(r, st->in_value[k], &r->p->buffers[st->in_buffer[k]])) {
            return TESS_FAIL(TESS_INVALID,
                             "plan: step %lld (%s in %s) reads value %d, whose bytes are no longer "
                             "its own",
                             (long long)s, st->op->name, st->scope, st->in_value[k]);
        }
    }
    return TESS_OK;
}

static bool is_view_source(const tess_step *st, tess_value v)
{
    return st->op->flags & TESS_OP_VIEW && st->in_value[0] == v;
}

/* Value v takes the range of its buffer; what it covers must be dead after step s. */
static tess_status take(replay *r, int64_t s, tess_value v, const tess_buffer *b)
{
    const tess_step *st = &r->p->steps[s];
    for (int64_t i = 0; i < r->n_owners;) {
        owner *o = &r->owners[i];
        bool overlaps = o->begin < b->offset + b->n_bytes && b->offset < o->end;
        if (!overlaps || is_view_source(st, o->value)) {
            i++;
        } else if (r->last_read[o->value] > s) {
            return TESS_FAIL(TESS_INVALID,
                             "plan: step %lld (%s in %s) overwrites value %d, which is read later",
                             (long long)s, st->op->name, st->scope, o->value);
        } else {
            *o = r->owners[--r->n_owners];
        }
    }
    r->owners[r->n_owners++] = (owner){b->offset, b->offset + b->n_bytes, v};
    return TESS_OK;
}

/* An input read in this step may be shared with output 0 alone, and only where the operator allows
 * it. */
static tess_status check_overlap(const replay *r, int64_t s, int k_out)
{
    const tess_plan *p = r->p;
    const tess_step *st = &p->steps[s];
    const tess_buffer *o = &p->buffers[st->out_buffer[k_out]];
    for (int k = 0; k < st->n_in; k++) {
        if (!in_arena(p, st->in_buffer[k])) {
            continue;
        }
        const tess_buffer *i = &p->buffers[st->in_buffer[k]];
        bool overlaps = i->offset < o->offset + o->n_bytes && o->offset < i->offset + i->n_bytes;
        bool allowed = k_out == 0 && i->offset == o->offset &&
                       (st->op->flags & TESS_OP_VIEW || st->op->alias_mask >> k & 1);
        if (overlaps && !allowed) {
            return TESS_FAIL(TESS_INVALID,
                             "plan: step %lld (%s in %s) writes output %d over its own input %d",
                             (long long)s, st->op->name, st->scope, k_out, k);
        }
    }
    return TESS_OK;
}

static tess_status replay_step(replay *r, int64_t s)
{
    const tess_step *st = &r->p->steps[s];
    TESS_TRY(read_inputs(r, s));
    for (int k = 0; k < st->op->n_out; k++) {
        if (in_arena(r->p, st->out_buffer[k])) {
            TESS_TRY(check_overlap(r, s, k));
            TESS_TRY(take(r, s, st->out_value[k], &r->p->buffers[st->out_buffer[k]]));
        }
    }
    return TESS_OK;
}

tess_status tess__plan_check(const tess_plan *p)
{
    replay r = {.p = p};
    r.owners = tess_alloc_array((size_t)p->n_values + 1, sizeof *r.owners);
    r.last_read = tess_alloc_array((size_t)p->n_values + 1, sizeof *r.last_read);
    tess_status st = r.owners && r.last_read ? TESS_OK : TESS_NOMEM;
    if (st == TESS_OK) {
        find_reads(&r);
    }
    for (int64_t s = 0; st == TESS_OK && s < p->n_steps; s++) {
        st = replay_step(&r, s);
    }
    for (int64_t i = 0; st == TESS_OK && i < p->n_outputs; i++) {
        int32_t b = p->buffer_of[p->outputs[i]];
        if (in_arena(p, b) && !owns(&r, p->outputs[i], &p->buffers[b])) {
            st = TESS_FAIL(TESS_INVALID, "plan: output %lld does not survive", (long long)i);
        }
    }
    tess_free(r.owners);
    tess_free(r.last_read);
    return st;
}
