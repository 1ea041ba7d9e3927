/* SPDX-License-Identifier: Apache-2.0 */
/* Scalars on their way back from a device: a ring in pinned memory, an event a slot. */
#include "tensor/plan.h"

typedef struct slot {
    void *arrived;
    int64_t tag;
} slot;

struct tess_readback {
    const tess_remote *remote; /* NULL: the plan's memory is the host's */
    float *values;
    slot *slots;
    int64_t capacity, n_added, n_read;
};

static tess_status allocate(tess_readback *r)
{
    const size_t n = (size_t)r->capacity;
    void *values = NULL;
    r->slots = tess_alloc_array(n, sizeof *r->slots);
    if (r->remote) {
        TESS_TRY(r->remote->alloc_host(n * sizeof *r->values, &values));
    } else {
        values = tess_alloc_array(n, sizeof *r->values);
    }
    r->values = values;
    for (int64_t i = 0; r->remote && r->slots && i < r->capacity; i++) {
        TESS_TRY(r->remote->new_event(&r->slots[i].arrived));
    }
    return r->slots && r->values ? TESS_OK : TESS_NOMEM;
}

tess_status tess_readback_new(const tess_device *device, int64_t capacity, tess_readback **out)
{
    *out = NULL;
    tess_readback *r = tess_alloc(sizeof *r);
    if (!r) {
        return TESS_NOMEM;
    }
    *r = (tess_readback){.remote = device->remote, .capacity = capacity};
    const tess_status st = allocate(r);
    if (st) {
        tess_readback_free(r);
        return st;
    }
    *out = r;
    return TESS_OK;
}

void tess_readback_free(tess_readback *r)
{
    if (!r) {
        return;
    }
    if (r->remote) {
        const tess_status st = r->remote->wait(); /* an error was reported to who reads */
        (void)st;
        for (int64_t i = 0; r->slots && i < r->capacity; i++) {
            r->remote->free_event(r->slots[i].arrived);
        }
        r->remote->free_host(r->values);
    } else {
        tess_free(r->values);
    }
    tess_free(r->slots);
    tess_free(r);
}

tess_status tess_readback_add(tess_readback *r, const tess_plan *p, tess_value v, int64_t tag)
{
    const int32_t buffer = v > 0 && v < p->n_values ? p->buffer_of[v] : -1;
    const int64_t at = r->n_added % r->capacity;
    if (buffer < 0 || p->buffers[buffer].n_bytes != sizeof *r->values) {
        return TESS_FAIL(TESS_INVALID, "readback: value %d is no f32 scalar of the plan", (int)v);
    }
    if (r->n_added - r->n_read == r->capacity) {
        return TESS_FAIL(TESS_INVALID, "readback: %lld values wait to be read",
                         (long long)r->capacity);
    }
    const float *from = tess__plan_address(p, buffer);
    if (r->remote) {
        TESS_TRY(r->remote->copy(TESS_LANE_WORK, &r->values[at], from, sizeof *from));
        TESS_TRY(r->remote->mark(r->slots[at].arrived, TESS_LANE_WORK));
    } else {
        r->values[at] = *from;
    }
    r->slots[at].tag = tag;
    r->n_added++;
    return TESS_OK;
}

tess_status tess_readback_read(tess_readback *r, bool wait, float *out, int64_t *out_tag,
                               bool *out_there)
{
    const int64_t at = r->n_read % r->capacity;
    *out_there = r->n_read < r->n_added;
    if (*out_there && r->remote) {
        TESS_TRY(r->remote->reached(r->slots[at].arrived, wait, out_there));
    }
    if (*out_there) {
        *out = r->values[at];
        *out_tag = r->slots[at].tag;
        r->n_read++;
    }
    return TESS_OK;
}
