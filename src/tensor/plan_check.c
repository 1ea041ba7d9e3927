/* SPDX-License-Identifier: Apache-2.0 */
/* The planner's check: a replay of the step list with byte-range ownership.
 *
 * It trusts only what execution will use: the steps, the buffers' offsets and sizes.  Each arena
 * byte range belongs to the value last written there; a step must find its inputs intact, and may
 * only overwrite a value that no later step and no output of the plan reads.  A view writes
 * nothing: it is one more owner of its source's range. */
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

static bool overlap(const tess_buffer *a, const tess_buffer *b)
{
    return a->offset < b->offset + b->n_bytes && b->offset < a->offset + a->n_bytes;
}

static tess_status complain(const tess_plan *p, int64_t s, const char *what, tess_value v)
{
    return TESS_FAIL(TESS_INVALID, "plan: step %lld (%s in %s) %s: value %d", (long long)s,
                     p->steps[s].op->name, p->steps[s].scope, what, v);
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

/* ---- one operand --------------------------------------------------------------------------- */

/* The buffer holds the operand, lies in the arena, and lives in step s as the debug executor
 * believes it does. */
static tess_status check_buffer(const tess_plan *p, int64_t s, tess_value v, const tess_operand *x,
                                const tess_buffer *b)
{
    size_t n_bytes = (size_t)tess_shape_count(&x->shape) * tess_dtype_bytes(x->dtype);
    if (n_bytes > b->n_bytes) {
        return complain(p, s, "has a buffer that is too small", v);
    }
    if (b->offset % TESS_ARENA_ALIGNMENT || b->offset > p->stats.arena_bytes ||
        b->n_bytes > p->stats.arena_bytes - b->offset) {
        return complain(p, s, "has a buffer beside the arena", v);
    }
    if (s < b->first || s > b->last) {
        return complain(p, s, "uses released memory", v);
    }
    return TESS_OK;
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
    const tess_plan *p = r->p;
    const tess_step *st = &p->steps[s];
    for (int k = 0; k < st->n_in; k++) {
        if (!in_arena(p, st->in_buffer[k])) {
            continue;
        }
        const tess_buffer *b = &p->buffers[st->in_buffer[k]];
        TESS_TRY(check_buffer(p, s, st->in_value[k], &st->in[k], b));
        if (!owns(r, st->in_value[k], b)) {
            return complain(p, s, "reads bytes that are no longer its input's", st->in_value[k]);
        }
    }
    return TESS_OK;
}

/* ---- outputs ------------------------------------------------------------------------------- */

/* Value v takes the range of its buffer; what it covers must be dead after step s. */
static tess_status take(replay *r, int64_t s, tess_value v, const tess_buffer *b)
{
    for (int64_t i = 0; i < r->n_owners;) {
        owner *o = &r->owners[i];
        if (o->begin >= b->offset + b->n_bytes || b->offset >= o->end) {
            i++;
        } else if (r->last_read[o->value] > s) {
            return complain(r->p, s, "overwrites what is read later", o->value);
        } else {
            *o = r->owners[--r->n_owners];
        }
    }
    r->owners[r->n_owners++] = (owner){b->offset, b->offset + b->n_bytes, v};
    return TESS_OK;
}

static tess_status take_view(replay *r, int64_t s)
{
    const tess_plan *p = r->p;
    const tess_step *st = &p->steps[s];
    const tess_buffer *b = &p->buffers[st->out_buffer[0]];
    if (st->in_buffer[0] != st->out_buffer[0]) {
        return complain(p, s, "is a view with a buffer of its own", st->out_value[0]);
    }
    r->owners[r->n_owners++] = (owner){b->offset, b->offset + b->n_bytes, st->out_value[0]};
    return TESS_OK;
}

/* An input read in this step may be shared with output 0 alone, and only where the operator allows
 * it; outputs never share. */
static tess_status check_overlap(const replay *r, int64_t s, int k_out)
{
    const tess_plan *p = r->p;
    const tess_step *st = &p->steps[s];
    const tess_buffer *o = &p->buffers[st->out_buffer[k_out]];
    for (int k = 0; k < st->n_in; k++) {
        const tess_buffer *i = in_arena(p, st->in_buffer[k]) ? &p->buffers[st->in_buffer[k]] : NULL;
        bool allowed = i && k_out == 0 && i->offset == o->offset && st->op->alias_mask >> k & 1;
        if (i && overlap(i, o) && !allowed) {
            return complain(p, s, "writes an output over its own input", st->in_value[k]);
        }
    }
    for (int k = 0; k < k_out; k++) {
        if (overlap(&p->buffers[st->out_buffer[k]], o)) {
            return complain(p, s, "writes one output over another", st->out_value[k]);
        }
    }
    return TESS_OK;
}

static tess_status write_outputs(replay *r, int64_t s)
{
    const tess_plan *p = r->p;
    const tess_step *st = &p->steps[s];
    for (int k = 0; k < st->op->n_out; k++) {
        if (!in_arena(p, st->out_buffer[k])) {
            continue;
        }
        const tess_buffer *b = &p->buffers[st->out_buffer[k]];
        TESS_TRY(check_buffer(p, s, st->out_value[k], &st->out[k], b));
        if (st->op->flags & TESS_OP_VIEW) {
            return take_view(r, s);
        }
        TESS_TRY(check_overlap(r, s, k));
        TESS_TRY(take(r, s, st->out_value[k], b));
    }
    return TESS_OK;
}

/* ---- the whole ----------------------------------------------------------------------------- */

static tess_status check_plan_outputs(const replay *r)
{
    const tess_plan *p = r->p;
    for (int64_t i = 0; i < p->n_outputs; i++) {
        int32_t b = p->buffer_of[p->outputs[i]];
        if (in_arena(p, b) &&
            (!owns(r, p->outputs[i], &p->buffers[b]) || p->buffers[b].last != INT64_MAX)) {
            return TESS_FAIL(TESS_INVALID, "plan: output %lld does not survive", (long long)i);
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
        st = read_inputs(&r, s);
        st = st ? st : write_outputs(&r, s);
    }
    st = st ? st : check_plan_outputs(&r);
    tess_free(r.owners);
    tess_free(r.last_read);
    return st;
}
