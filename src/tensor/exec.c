/* SPDX-License-Identifier: Apache-2.0 */
/* Running a plan: devices, the workspace, the plain executor and the profile. */
#include "tensor/plan.h"

#include <omp.h>
#include <string.h>

/* ---- devices and memory -------------------------------------------------------------------- */

const tess_device *tess_device_null(void)
{
    static const tess_device device = {.name = "null", .computes = false};
    return &device;
}

const tess_device *tess_device_cpu(void)
{
    static const tess_device device = {.name = "cpu", .computes = true, .prepares = true};
    return &device;
}

const tess_device *tess_device_describe(const char *name)
{
    static const tess_device cpu = {.name = "described cpu", .prepares = true};
    static const tess_device cuda = {.name = "described cuda", .prepares = true, .fuses = true};
    return strcmp(name, "cuda") == 0 ? &cuda : &cpu;
}

tess_status tess_device_open(const char *name, const tess_device **out)
{
    *out = tess_device_cpu();
    if (strcmp(name, "cuda") == 0) {
        return tess_device_cuda(out);
    }
    return strcmp(name, "cpu") == 0
               ? TESS_OK
               : TESS_FAIL(TESS_INVALID, "there is no device %s: expected cpu or cuda", name);
}

void tess_compute_threads(int n)
{
    omp_set_num_threads(n > 0 ? n : tess_cpu_count());
}

static bool deterministic;

void tess_compute_deterministic(bool on)
{
    deterministic = on;
}

bool tess__is_deterministic(void)
{
    return deterministic;
}

tess_workspace *tess_workspace_new(void)
{
    return tess_alloc(sizeof(tess_workspace));
}

static void free_memory(tess_workspace *w)
{
    if (w->remote) {
        w->remote->free(w->data);
    } else {
        tess_free(w->data);
    }
    w->data = NULL;
}

static tess_status new_memory(tess_workspace *w, size_t n_bytes)
{
    if (w->remote) {
        void *data = NULL;
        const tess_status st = w->remote->alloc(n_bytes, &data);
        w->data = data;
        return st;
    }
    w->data = tess_alloc(n_bytes);
    return w->data ? TESS_OK : TESS_NOMEM;
}

void tess_workspace_free(tess_workspace *w)
{
    if (w) {
        tess__feed_deinit(&w->feed);
        free_memory(w);
        tess_free(w);
    }
}

size_t tess_workspace_bytes(const tess_workspace *w)
{
    return w->n_bytes;
}

tess_status tess__workspace_reserve(tess_workspace *w, const tess_remote *remote, size_t n_bytes)
{
    if (w->data && w->remote != remote) {
        return TESS_FAIL(TESS_INVALID, "the workspace is another device's");
    }
    if (n_bytes <= w->n_bytes) {
        return TESS_OK;
    }
    free_memory(w);
    w->n_bytes = 0;
    w->generation++;
    w->remote = remote;
    const tess_status st = new_memory(w, n_bytes);
    if (st && remote) {
        return tess_error_prefix(st, "the plan's memory");
    }
    if (st) {
        return TESS_FAIL(TESS_NOMEM,
                         "the plan needs %.1f MB and memory gave out: use a smaller batch or "
                         "--grad-checkpointing",
                         (double)n_bytes / 1e6);
    }
    w->n_bytes = n_bytes;
    return TESS_OK;
}

/* ---- binding ------------------------------------------------------------------------------- */

tess_status tess_plan_bind(tess_plan *p, const char *input, const void *data)
{
    return tess_plan_bind_part(p, input, data, SIZE_MAX);
}

tess_status tess_plan_bind_part(tess_plan *p, const char *input, const void *data, size_t n_bytes)
{
    bool found = false;
    for (int64_t i = 0; i < p->n_buffers; i++) {
        tess_buffer *b = &p->buffers[i];
        if (b->place == TESS_PLACE_INPUT && strcmp(b->name, input) == 0) {
            found = true;
            /* A device's own copy of an input stays where it is. */
            p->resolved &= b->data == data || (b->data && p->device->remote);
            b->data = (void *)(uintptr_t)data; /* inputs are never written */
            b->n_set = n_bytes < b->n_bytes ? n_bytes : b->n_bytes;
        }
    }
    return found ? TESS_OK : TESS_FAIL(TESS_INVALID, "plan: no input is called %s", input);
}

size_t tess__plan_inputs_at(const tess_plan *p)
{
    const size_t used = p->stats.arena_bytes + p->stats.scratch_bytes;
    return (used + TESS_ARENA_ALIGNMENT - 1) / TESS_ARENA_ALIGNMENT * TESS_ARENA_ALIGNMENT;
}

size_t tess__plan_bytes(const tess_plan *p)
{
    return tess__plan_inputs_at(p) + p->input_bytes;
}

void *tess__plan_address(const tess_plan *p, int32_t buffer)
{
    if (buffer < 0) {
        return NULL;
    }
    const tess_buffer *b = &p->buffers[buffer];
    if (b->place == TESS_PLACE_ARENA) {
        return p->workspace->data + b->offset;
    }
    if (!p->device->remote) {
        return b->data;
    }
    return b->place == TESS_PLACE_INPUT ? p->workspace->data + tess__plan_inputs_at(p) + b->offset
                                        : b->remote;
}

tess_status tess__plan_resolve(tess_plan *p)
{
    /* Another plan of this workspace may have failed to grow it, and have lost it. */
    TESS_TRY(tess__workspace_reserve(p->workspace, p->device->remote, tess__plan_bytes(p)));
    if (p->resolved && p->generation == p->workspace->generation) {
        return TESS_OK;
    }
    for (int64_t i = 0; i < p->n_buffers; i++) {
        if (p->buffers[i].place == TESS_PLACE_INPUT && !p->buffers[i].data) {
            return TESS_FAIL(TESS_INVALID, "plan: input %s is not bound", p->buffers[i].name);
        }
    }
    for (int64_t s = 0; s < p->n_steps; s++) {
        tess_step *st = &p->steps[s];
        for (int k = 0; k < st->n_in; k++) {
            st->in[k].data = tess__plan_address(p, st->in_buffer[k]);
        }
        for (int k = 0; k < st->op->n_out; k++) {
            st->out[k].data = tess__plan_address(p, st->out_buffer[k]);
        }
    }
    p->generation = p->workspace->generation;
    p->resolved = true;
    return TESS_OK;
}

const void *tess_plan_output(const tess_plan *p, tess_value v)
{
    const int32_t buffer = v > 0 && v < p->n_values ? p->buffer_of[v] : -1;
    return buffer >= 0 && p->device->remote ? tess__remote_output(p, buffer)
                                            : tess__plan_address(p, buffer);
}

/* ---- running ------------------------------------------------------------------------------- */

static tess_status run_step(const tess_plan *p, const tess_step *st)
{
    if (st->op->flags & TESS_OP_VIEW) {
        return TESS_OK;
    }
    tess_status code =
        st->op->cpu(&(tess_exec){.in = st->in,
                                 .out = st->out,
                                 .n_in = st->n_in,
                                 .attrs = st->attrs,
                                 .prepared = st->prepared,
                                 .pager = p->pager,
                                 .scratch = p->workspace->data + p->stats.arena_bytes});
    return code ? tess_error_prefix(code, "%s: %s", st->scope, st->op->name) : TESS_OK;
}

/* With the paged states that it uses; `check` fails where a number is not finite, but for states
 * that the operator pages itself, which are gone. */
static tess_status run_paged(tess_plan *p, int64_t s, bool check)
{
    tess_status st = tess__plan_pages_enter(p, s);
    st = st ? st : run_step(p, &p->steps[s]);
    const bool elsewhere = p->pager && p->steps[s].op->flags & TESS_OP_PAGES;
    st = st || !check || elsewhere ? st : tess__step_check(&p->steps[s]);
    if (st) {
        tess__plan_pages_abandon(p, s);
    } else {
        tess__plan_pages_leave(p, s);
    }
    return st;
}

tess_status tess_plan_run(tess_plan *p)
{
    if (!p->device->computes) {
        return TESS_OK;
    }
    if (p->device->remote) {
        return tess__remote_run(p);
    }
    TESS_TRY(tess__plan_resolve(p));
    tess__plan_pages_begin(p);
    for (int64_t s = 0; s < p->n_steps; s++) {
        double start = p->profile ? tess_seconds() : 0;
        TESS_TRY(run_paged(p, s, false));
        p->steps[s].seconds += p->profile ? tess_seconds() - start : 0;
    }
    p->n_runs += p->profile;
    return TESS_OK;
}

/* ---- step by step --------------------------------------------------------------------------- */

static int64_t first_not_finite(const tess_operand *x)
{
    int64_t n = tess_shape_count(&x->shape);
    for (int64_t i = 0; i < n; i++) {
        uint32_t u = 0;
        if (x->dtype == TESS_F32) {
            memcpy(&u, (const float *)x->data + i, 4);
        } else if (x->dtype == TESS_BF16) {
            u = (uint32_t)((const uint16_t *)x->data)[i] << 16;
        } else {
            return -1;
        }
        if ((u & 0x7f800000) == 0x7f800000) {
            return i;
        }
    }
    return -1;
}

tess_status tess__step_check(const tess_step *st)
{
    for (int k = 0; k < st->op->n_out; k++) {
        int64_t i = first_not_finite(&st->out[k]);
        if (i >= 0) {
            return TESS_FAIL(TESS_INVALID, "%s: %s: element %lld of output %d is not finite",
                             st->scope, st->op->name, (long long)i, k);
        }
    }
    for (int k = 0; k < st->n_in; k++) {
        int64_t i = st->op->state_mask >> k & 1 ? first_not_finite(&st->in[k]) : -1;
        if (i >= 0) {
            return TESS_FAIL(TESS_INVALID, "%s: %s: element %lld of state %d is not finite",
                             st->scope, st->op->name, (long long)i, k);
        }
    }
    return TESS_OK;
}

/* All-ones bytes are a NaN in every float type, and a wild index in i32. */
static void poison(const tess_plan *p, int64_t step)
{
    for (int64_t i = 0; i < p->n_buffers; i++) {
        const tess_buffer *b = &p->buffers[i];
        if (b->place == TESS_PLACE_ARENA && b->last == step) {
            memset(p->workspace->data + b->offset, 0xff, b->n_bytes);
        }
    }
}

tess_status tess_plan_run_debug(tess_plan *p)
{
    if (!p->device->computes) {
        return TESS_OK;
    }
    if (p->device->remote) {
        return tess__remote_run_debug(p);
    }
    TESS_TRY(tess__plan_resolve(p));
    memset(p->workspace->data, 0xff, p->stats.arena_bytes);
    tess__plan_pages_begin(p);
    for (int64_t s = 0; s < p->n_steps; s++) {
        memset(p->workspace->data + p->stats.arena_bytes, 0xff, p->stats.scratch_bytes);
        TESS_TRY(run_paged(p, s, true));
        poison(p, s);
    }
    return TESS_OK;
}

/* ---- reports ------------------------------------------------------------------------------- */

void tess_plan_print(const tess_plan *p, tess_buf *out)
{
    tess_buf_addf(out, "%s: %lld steps, arena %zu bytes, scratch %zu, live %zu\n", p->device->name,
                  (long long)p->n_steps, p->stats.arena_bytes, p->stats.scratch_bytes,
                  p->stats.live_bytes);
    for (int64_t s = 0; s < p->n_steps; s++) {
        const tess_step *st = &p->steps[s];
        tess_buf_addf(out, "%4lld %-18s", (long long)s, st->op->name);
        for (int k = 0; k < st->op->n_out; k++) {
            const tess_buffer *b = &p->buffers[st->out_buffer[k]];
            tess_buf_addf(out, " [%zu+%zu]", b->offset, b->n_bytes);
        }
        tess_buf_addf(out, " @%s\n", st->scope);
    }
}

void tess_plan_profile(tess_plan *p, bool on)
{
    p->profile = on;
    p->n_runs = 0;
    for (int64_t s = 0; s < p->n_steps; s++) {
        p->steps[s].seconds = 0;
    }
}

/* Seconds and FLOPs of all steps with the operator of step s, which is its first. */
static bool sum_operator(const tess_plan *p, int64_t s, double *seconds, double *flops, int64_t *n)
{
    *seconds = *flops = 0;
    *n = 0;
    for (int64_t i = 0; i < p->n_steps; i++) {
        if (p->steps[i].op == p->steps[s].op) {
            if (i < s) {
                return false;
            }
            *seconds += p->steps[i].seconds;
            *flops += p->steps[i].flops;
            ++*n;
        }
    }
    return true;
}

void tess_plan_print_profile(const tess_plan *p, tess_buf *out)
{
    double total = 0, seconds, flops;
    int64_t n;
    for (int64_t s = 0; s < p->n_steps; s++) {
        total += p->steps[s].seconds;
    }
    double runs = p->n_runs > 0 ? (double)p->n_runs : 1;
    tess_buf_addf(out, "%-22s %6s %10s %7s %9s\n", "operator", "steps", "ms/run", "share", "GF/s");
    for (int64_t s = 0; s < p->n_steps; s++) {
        if (sum_operator(p, s, &seconds, &flops, &n)) {
            tess_buf_addf(out, "%-22s %6lld %10.3f %6.1f%% %9.1f\n", p->steps[s].op->name,
                          (long long)n, 1e3 * seconds / runs, total > 0 ? 100 * seconds / total : 0,
                          seconds > 0 ? flops * runs / seconds * 1e-9 : 0);
        }
    }
    tess_buf_addf(out, "%-22s %6lld %10.3f %6.1f%% %9.1f\n", "all", (long long)p->n_steps,
                  1e3 * total / runs, 100.0, total > 0 ? p->stats.flops * runs / total * 1e-9 : 0);
}
