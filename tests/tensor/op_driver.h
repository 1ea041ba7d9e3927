/* SPDX-License-Identifier: Apache-2.0 */
/* One driver for every operator case: builds the case's graph with its gradient, runs each node and
 * compares.  A check returns NULL or what went wrong, so that planted faults can be shown to be
 * found.
 *
 * Tolerances are derived: for f32, 8 * 2^-23 * sqrt(longest sum) of (|ref| + rms(ref)); for bf16
 * outputs the reference is fed the same rounded inputs, and one rounding (2^-8 |ref|) is added;
 * 2^-23 allows for sums of ones that cancel. */
#ifndef TESSERA_TESTS_OP_DRIVER_H
#define TESSERA_TESTS_OP_DRIVER_H

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/contrast.h"
#include "tensor/graph.h"
#include "tensor/kernels.h"
#include "tensor/matmul.h"
#include "tensor/products.h"
#include "tensor/remote.h"

enum { DRIVER_GUARD = 64, DRIVER_MAX_VALUES = 64 };

typedef struct driver {
    tess_graph *g;
    const tess_op *op;
    const tess_case *c;
    void *data[DRIVER_MAX_VALUES]; /* by value: what the cpu computed, or the leaf's content */
    tess_value in[TESS_MAX_IN], y, dy, wrt[TESS_MAX_IN], grad[TESS_MAX_IN];
    int n_wrt;
    const tess_remote *remote; /* nodes run on this device; NULL: on the CPU */
    void (*disturb)(int how);  /* 1..3: what may not change a result; NULL: threads */
    char fault[512];
} driver;

#define FAULT(d, ...) (snprintf((d)->fault, sizeof(d)->fault, __VA_ARGS__), (d)->fault)

/* ---- guarded memory ------------------------------------------------------------------------ */

static inline size_t operand_bytes(const tess_operand *x)
{
    return (size_t)tess_shape_count(&x->shape) * tess_dtype_bytes(x->dtype);
}

static inline void *guarded_new(size_t bytes, int garbage)
{
    char *p = tess_alloc(bytes + 2 * DRIVER_GUARD);
    memset(p, 0xa5, bytes + 2 * DRIVER_GUARD);
    memset(p + DRIVER_GUARD, garbage, bytes);
    return p + DRIVER_GUARD;
}

static inline bool guarded_intact(const void *data, size_t bytes)
{
    const unsigned char *before = (const unsigned char *)data - DRIVER_GUARD;
    const unsigned char *after = (const unsigned char *)data + bytes;
    for (int i = 0; i < DRIVER_GUARD; i++) {
        if (before[i] != 0xa5 || after[i] != 0xa5) {
            return false;
        }
    }
    return true;
}

static inline void guarded_free(void *data)
{
    if (data) {
        tess_free((char *)data - DRIVER_GUARD);
    }
}

static inline void *guarded_copy(const void *data, size_t bytes)
{
    void *p = guarded_new(bytes, 0);
    memcpy(p, data, bytes);
    return p;
}

/* ---- filling ------------------------------------------------------------------------------- */

static inline void fill_offsets(int32_t *x, int64_t n, int64_t limit, tess_rng *r)
{
    for (int64_t i = 0; i < n; i++) {
        x[i] = i == 0 ? 0 : (int32_t)tess_rng_below(r, (uint32_t)limit + 1);
    }
    x[n - 1] = n > 1 ? (int32_t)limit : 0;
    for (int64_t i = 1; i < n; i++) { /* insertion sort */
        for (int64_t j = i; j > 0 && x[j] < x[j - 1]; j--) {
            const int32_t t = x[j];
            x[j] = x[j - 1];
            x[j - 1] = t;
        }
    }
}

static inline void fill_unit(float *x, const tess_shape *s)
{
    const int64_t width = tess__last(s);
    for (int64_t r = 0; r < tess__rows(s); r++) {
        double sum = 0;
        for (int64_t j = 0; j < width; j++) {
            sum += (double)x[r * width + j] * (double)x[r * width + j];
        }
        for (int64_t j = 0; j < width; j++) {
            x[r * width + j] /= (float)sqrt(sum);
        }
    }
}

static inline void fill_floats(void *data, const tess_operand *o, tess_fill fill, tess_rng *r)
{
    const int64_t n = tess_shape_count(&o->shape);
    float *x = tess_alloc_array((size_t)n + 1, sizeof *x);
    for (int64_t i = 0; i < n; i++) {
        x[i] = fill == TESS_FILL_POSITIVE ? (float)(0.5 + tess_rng_unit(r))
                                          : (float)tess_rng_normal(r);
    }
    if (fill == TESS_FILL_UNIT) {
        fill_unit(x, &o->shape);
    }
    tess__kernels()->convert(o->dtype, data, TESS_F32, x, n);
    tess_free(x);
}

static inline void fill_operand(void *data, const tess_operand *o, tess_fill fill, int64_t limit,
                                uint64_t seed)
{
    const int64_t n = tess_shape_count(&o->shape);
    tess_rng r = tess_rng_at(seed, 7);
    if (fill == TESS_FILL_OFFSETS) {
        fill_offsets(data, n, limit, &r);
    } else if (o->dtype == TESS_F32 || o->dtype == TESS_BF16) {
        fill_floats(data, o, fill, &r);
    } else {
        for (int64_t i = 0; i < n; i++) {
            const uint32_t v = tess_rng_below(&r, (uint32_t)(limit > 0 ? limit : 256));
            if (o->dtype == TESS_I32) {
                ((int32_t *)data)[i] = (int32_t)v;
            } else {
                ((uint8_t *)data)[i] = (uint8_t)v;
            }
        }
    }
}

/* ---- the case's graph ---------------------------------------------------------------------- */

static inline const char *driver_build(driver *d)
{
    const tess_case *c = d->c;
    d->g = tess_graph_new();
    for (int i = 0; i < c->n_in; i++) {
        char name[16];
        snprintf(name, sizeof name, "x%d", i);
        d->in[i] = tess_input(d->g, name, c->in[i].dtype, c->in[i].shape);
    }
    d->y = c->build(d->g, d->in);
    for (int i = 0; i < c->n_in; i++) {
        if (!c->in[i].no_grad && (c->in[i].dtype == TESS_F32 || c->in[i].dtype == TESS_BF16)) {
            d->wrt[d->n_wrt++] = d->in[i];
        }
    }
    tess_status st = tess_graph_check(d->g);
    if (st == TESS_OK && d->y && tess__value_node(d->g, d->y)->op->vjp && d->n_wrt > 0) {
        d->dy = tess_input(d->g, "dy", tess_value_dtype(d->g, d->y), tess_value_shape(d->g, d->y));
        st = tess_graph_grad(d->g, &d->y, &d->dy, 1, d->wrt, d->n_wrt, d->grad);
    }
    if (st != TESS_OK) {
        return FAULT(d, "does not build: %s", tess_error());
    }
    for (tess_value v = 1; v < tess_graph_n_values(d->g); v++) {
        const tess_operand o = tess__operand(d->g, v);
        const bool given = v <= c->n_in;
        d->data[v] = guarded_new(operand_bytes(&o), 0);
        if (tess__value_node(d->g, v)->op->flags & TESS_OP_LEAF) {
            fill_operand(d->data[v], &o, given ? c->in[v - 1].fill : TESS_FILL_NORMAL,
                         given ? c->in[v - 1].limit : 0, (uint64_t)v);
        }
    }
    if (c->set) {
        tess_operand in[TESS_MAX_IN];
        for (int i = 0; i < c->n_in; i++) {
            in[i] = tess__operand(d->g, d->in[i]);
            in[i].data = d->data[d->in[i]];
        }
        c->set(in);
    }
    return NULL;
}

static inline void driver_free(driver *d)
{
    for (int i = 0; i < DRIVER_MAX_VALUES; i++) {
        guarded_free(d->data[i]);
    }
    tess_graph_free(d->g);
}

/* ---- one node ------------------------------------------------------------------------------ */

typedef struct node_run {
    tess_operand in[TESS_MAX_IN], out[TESS_MAX_OUT];
} node_run;

/* Own copies of inputs, outputs full of garbage; f32 operands for the reference. */
static inline node_run node_begin(const driver *d, const tess_node *n, bool wide, int garbage)
{
    node_run r = {0};
    for (int i = 0; i < n->n_in; i++) {
        r.in[i] = tess__operand(d->g, n->in[i]);
        if (!n->in[i]) {
            continue;
        }
        tess_operand *o = &r.in[i];
        if (wide && o->dtype == TESS_BF16) {
            o->dtype = TESS_F32;
            o->data = guarded_new(operand_bytes(o), 0);
            tess__kernels()->convert(TESS_F32, o->data, TESS_BF16, d->data[n->in[i]],
                                     tess_shape_count(&o->shape));
        } else {
            o->data = guarded_copy(d->data[n->in[i]], operand_bytes(o));
        }
    }
    for (int k = 0; k < n->op->n_out; k++) {
        tess_operand *o = &r.out[k];
        *o = tess__operand(d->g, n->out + k);
        o->dtype = wide && o->dtype == TESS_BF16 ? TESS_F32 : o->dtype;
        o->data = guarded_new(operand_bytes(o), garbage);
    }
    return r;
}

static inline void node_end(const tess_node *n, node_run *r)
{
    for (int k = 0; k < n->op->n_out; k++) {
        guarded_free(r->out[k].data);
    }
    for (int i = 0; i < n->n_in; i++) {
        guarded_free(r->in[i].data);
    }
}

static inline tess_exec node_exec(const tess_node *n, node_run *r)
{
    return (tess_exec){.in = r->in, .out = r->out, .n_in = n->n_in, .attrs = n->attrs};
}

/* ---- a node on a device with memory of its own ------------------------------------------------
 */

/* Copies of guarded memory on the device, guards and all. */
typedef struct far_block {
    void *host;
    size_t bytes;
    char *data;
} far_block;
typedef struct far_memory {
    const tess_remote *remote;
    far_block block[TESS_MAX_IN + TESS_MAX_OUT + 1];
    int n;
    tess_status st;
} far_memory;

static inline void *far_copy(far_memory *m, void *host, size_t bytes)
{
    for (int i = 0; i < m->n; i++) {
        if (m->block[i].host == host) {
            return m->block[i].data + DRIVER_GUARD;
        }
    }
    far_block *b = &m->block[m->n++];
    void *data = NULL;
    *b = (far_block){.host = host, .bytes = bytes + 2 * DRIVER_GUARD};
    m->st = m->st ? m->st : m->remote->alloc(b->bytes, &data);
    m->st = m->st ? m->st : m->remote->upload(data, (char *)host - DRIVER_GUARD, b->bytes);
    b->data = data;
    return b->data + DRIVER_GUARD;
}

static inline void far_end(far_memory *m)
{
    for (int i = 0; i < m->n; i++) {
        far_block *b = &m->block[i];
        m->st =
            m->st ? m->st : m->remote->download((char *)b->host - DRIVER_GUARD, b->data, b->bytes);
        m->remote->free(b->data);
    }
}

static inline const char *node_far(driver *d, const tess_node *n, node_run *r, int garbage)
{
    const tess_cuda_op *op = tess__cuda_find(n->op);
    far_memory m = {.remote = d->remote};
    node_run far = *r;
    if (n->op->flags & TESS_OP_VIEW) {
        memcpy(r->out[0].data, r->in[0].data, operand_bytes(&r->out[0]));
        return NULL;
    }
    if (!op) {
        return FAULT(d, "%s: no kernel", n->op->name);
    }
    for (int i = 0; i < n->n_in; i++) {
        far.in[i].data =
            r->in[i].data ? far_copy(&m, r->in[i].data, operand_bytes(&r->in[i])) : NULL;
    }
    for (int k = 0; k < n->op->n_out; k++) {
        far.out[k].data = far_copy(&m, r->out[k].data, operand_bytes(&r->out[k]));
    }
    const tess_prepare p = {.in = r->in, .out = r->out, .n_in = n->n_in, .attrs = n->attrs};
    const size_t scratch_bytes = op->scratch ? op->scratch(&p) : 0;
    void *scratch = guarded_new(scratch_bytes, garbage);
    tess_exec e = node_exec(n, &far);
    e.scratch = far_copy(&m, scratch, scratch_bytes);
    e.stream = d->remote->stream();
    m.st = m.st ? m.st : op->launch(&e);
    far_end(&m);
    const bool intact = guarded_intact(scratch, scratch_bytes);
    guarded_free(scratch);
    return m.st      ? FAULT(d, "%s: %s", n->op->name, tess_error())
           : !intact ? FAULT(d, "%s: writes beyond its scratch", n->op->name)
                     : NULL;
}

/* prepare, cpu, unprepare, as a plan does; scratch is full of garbage and guarded. */
static inline const char *node_cpu(driver *d, const tess_node *n, node_run *r, int garbage)
{
    if (d->remote) {
        return node_far(d, n, r, garbage);
    }
    tess_prepare p = {.in = r->in, .out = r->out, .n_in = n->n_in, .attrs = n->attrs};
    if (n->op->prepare && n->op->prepare(&p) != TESS_OK) {
        return FAULT(d, "%s: prepare: %s", n->op->name, tess_error());
    }
    tess_exec e = node_exec(n, r);
    void *scratch = guarded_new(p.scratch_bytes, garbage);
    e.prepared = p.prepared;
    e.scratch = scratch;
    const tess_status st = n->op->cpu(&e);
    const bool intact = guarded_intact(scratch, p.scratch_bytes);
    guarded_free(scratch);
    if (n->op->unprepare) {
        n->op->unprepare(p.prepared);
    }
    if (st != TESS_OK) {
        return FAULT(d, "%s: %s", n->op->name, tess_error());
    }
    return intact ? NULL : FAULT(d, "%s: writes beyond its scratch", n->op->name);
}

/* The operands that a node writes: outputs, or states of an effect. */
static inline int node_written(const tess_node *n, node_run *r, tess_operand *out)
{
    int count = 0;
    for (int k = 0; k < n->op->n_out; k++) {
        out[count++] = r->out[k];
    }
    for (int i = 0; i < n->n_in; i++) {
        if (n->op->state_mask >> i & 1) {
            out[count++] = r->in[i];
        }
    }
    return count;
}

/* ---- checks of one node -------------------------------------------------------------------- */

static inline const char *check_memory(driver *d, const tess_node *n, node_run *r)
{
    for (int k = 0; k < n->op->n_out; k++) {
        if (!guarded_intact(r->out[k].data, operand_bytes(&r->out[k]))) {
            return FAULT(d, "%s: writes outside output %d", n->op->name, k);
        }
    }
    for (int i = 0; i < n->n_in; i++) {
        if (!r->in[i].data) {
            continue;
        }
        const size_t bytes = operand_bytes(&r->in[i]);
        if (!guarded_intact(r->in[i].data, bytes)) {
            return FAULT(d, "%s: writes outside input %d", n->op->name, i);
        }
        const bool state = n->op->state_mask >> i & 1;
        if (!state && memcmp(r->in[i].data, d->data[n->in[i]], bytes) != 0) {
            return FAULT(d, "%s: changes input %d", n->op->name, i);
        }
    }
    return NULL;
}

static inline double value_at(const tess_operand *x, int64_t i)
{
    return x->dtype == TESS_BF16 ? (double)tess_f32_from_bf16(((const uint16_t *)x->data)[i])
                                 : (double)((const float *)x->data)[i];
}

static inline double largest_of(const tess_operand *x, int64_t begin, int64_t n)
{
    double largest = 0;
    for (int64_t i = begin; i < begin + n; i++) {
        largest = fmax(largest, fabs(value_at(x, i)));
    }
    return largest;
}

/* The limit on an element's error is the sum of these.
 *
 * Sums in f32: 8 units in the last place times the root of the longest sum, of the element and of
 * the operand's root mean square, since sums cancel.
 *
 * A bf16 result: 2^-8 of the element, where rounding costs 2^-9.
 *
 * TESS_OP_ROUNDS: each factor of the last product has a relative error of its own, uniform within
 * 2^-9, so of standard deviation 2^-9 / sqrt(3).  The errors of a sum add up as its terms do, in
 * squares: to 2^-9 / sqrt(3) of the root mean square of what was computed from the same terms, a
 * head's part of a row.  The row's largest element, some 2.5 times that, stands for it: 2^-8 of it
 * is 8 deviations.
 *
 * A product with a bias on a device: the library may take the bias rounded to bf16, an error of
 * 2^-9 of it; the row's largest element, a sum of such terms, stands for it too. */
static inline bool rounds_within(const driver *d, const tess_op *op)
{
    return op->flags & TESS_OP_ROUNDS || (d->remote && strncmp(op->name, "linear", 6) == 0);
}

static inline const char *compare_operand(driver *d, const tess_op *op, int which,
                                          const tess_operand *have, const tess_operand *want)
{
    const int64_t n = tess_shape_count(&have->shape);
    const int64_t longest = d->c->reduction > 1 ? d->c->reduction : 1;
    const double eps = 8 * 0x1p-23 * sqrt((double)longest);
    const double rounding = have->dtype == TESS_BF16 ? 0x1p-8 : 0;
    const double within = rounds_within(d, op) ? rounding : 0;
    const int64_t width = have->shape.rank > 0 ? tess__last(&have->shape) : 1;
    double squares = 0, largest = 0;
    for (int64_t i = 0; i < n; i++) {
        squares += value_at(want, i) * value_at(want, i) / (double)n;
    }
    for (int64_t i = 0; i < n; i++) {
        largest = i % width == 0 ? largest_of(want, i, width) : largest;
        const double w = value_at(want, i), h = value_at(have, i);
        const double limit =
            eps * (fabs(w) + sqrt(squares)) + rounding * fabs(w) + within * largest + 0x1p-23;
        if (!(fabs(h - w) <= limit)) {
            return FAULT(d, "%s: output %d [%lld]: %.9g, reference %.9g, limit %.3g", op->name,
                         which, (long long)i, h, w, limit);
        }
    }
    return NULL;
}

static inline const char *check_reference(driver *d, const tess_node *n, node_run *cpu)
{
    node_run wide = node_begin(d, n, true, 0x5a);
    const tess_exec e = node_exec(n, &wide);
    tess_operand have[TESS_MAX_IN + TESS_MAX_OUT], want[TESS_MAX_IN + TESS_MAX_OUT];
    const char *fault = NULL;
    if (n->op->ref(&e) != TESS_OK) {
        fault = FAULT(d, "%s: reference: %s", n->op->name, tess_error());
    }
    const int count = node_written(n, cpu, have);
    node_written(n, &wide, want);
    for (int k = 0; !fault && k < count; k++) {
        fault = compare_operand(d, n->op, k, &have[k], &want[k]);
    }
    node_end(n, &wide);
    return fault;
}

/* Another run, whose result must be the same bytes. */
static inline const char *check_again(driver *d, const tess_node *n, node_run *first, int threads,
                                      int alias, const char *what)
{
    node_run again = node_begin(d, n, false, 0x33);
    void *own = again.out[0].data;
    if (alias >= 0) {
        again.out[0].data = again.in[alias].data;
    }
    const int before = omp_get_max_threads();
    if (d->disturb) {
        d->disturb(threads);
    } else {
        omp_set_num_threads(threads);
    }
    const char *fault = node_cpu(d, n, &again, 0x77);
    omp_set_num_threads(before);
    tess_operand a[TESS_MAX_IN + TESS_MAX_OUT], b[TESS_MAX_IN + TESS_MAX_OUT];
    const int count = node_written(n, first, a);
    node_written(n, &again, b);
    for (int k = 0; !fault && k < count; k++) {
        if (memcmp(a[k].data, b[k].data, operand_bytes(&a[k])) != 0) {
            fault = FAULT(d, "%s: output %d differs: %s", n->op->name, k, what);
        }
    }
    again.out[0].data = own;
    node_end(n, &again);
    return fault;
}

/* oneDNN's f32 products may depend on the number of threads (matmul.h). */
static inline bool depends_on_threads(const driver *d, const tess_node *n, const node_run *r)
{
    if (d->remote) {
        return false;
    }
    const bool product =
        n->op->unprepare == tess__matmul_free || n->op->unprepare == tess__strips_free;
    const bool fp8 = n->op->unprepare == tess__linear_fp8_free;
    return (product || fp8) && (r->in[0].dtype == TESS_F32 || tess_isa_get() < TESS_ISA_AVX512BF16);
}

static inline const char *check_repeats(driver *d, const tess_node *n, node_run *first)
{
    const int threads = d->disturb ? 0 : omp_get_max_threads();
    const char *fault = check_again(d, n, first, threads, -1, "run twice");
    for (int t = 1; !fault && t <= 3 && !depends_on_threads(d, n, first); t++) {
        fault = check_again(d, n, first, t, -1, "another number, or order, of threads");
    }
    for (int i = 0; !fault && i < n->n_in; i++) {
        if (n->op->alias_mask >> i & 1 && n->in[i] &&
            operand_bytes(&first->in[i]) == operand_bytes(&first->out[0])) {
            fault = check_again(d, n, first, threads, i, "output in an input's memory");
        }
    }
    return fault;
}

static inline const char *check_node(driver *d, const tess_node *n)
{
    node_run r = node_begin(d, n, false, 0xee);
    const char *fault = node_cpu(d, n, &r, 0xff);
    fault = fault ? fault : check_memory(d, n, &r);
    fault = fault ? fault : check_reference(d, n, &r);
    fault = fault ? fault : check_repeats(d, n, &r);
    for (int k = 0; k < n->op->n_out; k++) {
        memcpy(d->data[n->out + k], r.out[k].data, operand_bytes(&r.out[k]));
    }
    node_end(n, &r);
    return fault;
}

/* ---- the gradient, numerically ------------------------------------------------------------- */

/* Everything in f32 by the references; x are the inputs' contents, dy the cotangent's. */
typedef struct wide_world {
    float *data[DRIVER_MAX_VALUES];
} wide_world;

static inline void wide_run(const driver *d, wide_world *w, bool backward)
{
    for (size_t i = 0; i < d->g->n_nodes; i++) {
        const tess_node *n = &d->g->nodes[i];
        if (n->op->flags & TESS_OP_LEAF || (n->backward && !backward)) {
            continue;
        }
        node_run r = {0};
        for (int k = 0; k < n->n_in; k++) {
            r.in[k] = tess__operand(d->g, n->in[k]);
            r.in[k].dtype = r.in[k].dtype == TESS_BF16 ? TESS_F32 : r.in[k].dtype;
            r.in[k].data = n->in[k] ? w->data[n->in[k]] : NULL;
        }
        for (int k = 0; k < n->op->n_out; k++) {
            r.out[k] = tess__operand(d->g, n->out + k);
            r.out[k].dtype = TESS_F32;
            r.out[k].data = w->data[n->out + k];
        }
        const tess_exec e = node_exec(n, &r);
        if (n->op->ref(&e) != TESS_OK) {
            abort();
        }
    }
}

static inline double wide_loss(const driver *d, wide_world *w)
{
    const tess_shape s = tess_value_shape(d->g, d->y);
    double sum = 0;
    wide_run(d, w, false);
    for (int64_t i = 0; i < tess_shape_count(&s); i++) {
        sum += (double)w->data[d->y][i] * (double)w->data[d->dy][i];
    }
    return sum;
}

/* d loss along u at x, by central differences of steps h and h/2 (Richardson). */
static inline double slope_along(const driver *d, wide_world *w, tess_value x, const double *u,
                                 int64_t n, double step)
{
    double slope[2];
    float *saved = tess_alloc_array((size_t)n, sizeof *saved);
    memcpy(saved, w->data[x], (size_t)n * sizeof *saved);
    for (int k = 0; k < 2; k++) {
        const double h = k ? step / 2 : step;
        double loss[2];
        for (int s = 0; s < 2; s++) {
            for (int64_t i = 0; i < n; i++) {
                w->data[x][i] = (float)((double)saved[i] + (s ? -h : h) * u[i]);
            }
            loss[s] = wide_loss(d, w);
        }
        slope[k] = (loss[0] - loss[1]) / (2 * h);
    }
    memcpy(w->data[x], saved, (size_t)n * sizeof *saved);
    tess_free(saved);
    return (4 * slope[1] - slope[0]) / 3;
}

/* The direction leans towards the gradient, so that an error of its length shows. */
static inline const char *check_slope(driver *d, wide_world *w, int which)
{
    const tess_value x = d->wrt[which], dx = d->grad[which];
    const tess_shape s = tess_value_shape(d->g, x);
    const int64_t n = tess_shape_count(&s);
    double *u = tess_alloc_array((size_t)n + 1, sizeof *u), length = 0, dot = 0, u_length = 0;
    const float *g = w->data[dx];
    tess_rng r = tess_rng_at(3, (uint64_t)which);
    for (int64_t i = 0; i < n; i++) {
        length += (double)g[i] * (double)g[i];
    }
    for (int64_t i = 0; i < n; i++) {
        u[i] =
            0.5 * tess_rng_normal(&r) + (length > 0 ? (double)g[i] * sqrt((double)n / length) : 0);
        dot += u[i] * (double)g[i];
        u_length += u[i] * u[i];
    }
    /* A long step loses to kinks (relu), a short one to rounding: either will do. */
    const double limit = 2e-3 * sqrt(length * u_length) + 1e-6;
    double slope = slope_along(d, w, x, u, n, 1e-2);
    if (fabs(slope - dot) > limit) {
        slope = slope_along(d, w, x, u, n, 5e-4);
    }
    tess_free(u);
    return fabs(slope - dot) <= limit ? NULL
                                      : FAULT(d, "%s: gradient of input %d: %.7g, numeric %.7g",
                                              d->op->name, which, dot, slope);
}

static inline const char *check_gradient(driver *d)
{
    wide_world w = {{0}};
    const char *fault = NULL;
    for (tess_value v = 1; v < tess_graph_n_values(d->g); v++) {
        const tess_operand o = tess__operand(d->g, v);
        const int64_t n = tess_shape_count(&o.shape);
        w.data[v] = tess_alloc_array((size_t)n + 1, sizeof(float));
        if (o.dtype == TESS_F32 || o.dtype == TESS_BF16) {
            tess__kernels()->convert(TESS_F32, w.data[v], o.dtype, d->data[v], n);
        } else {
            memcpy(w.data[v], d->data[v], operand_bytes(&o));
        }
    }
    wide_run(d, &w, true);
    for (int i = 0; !fault && i < d->n_wrt; i++) {
        fault = d->grad[i] ? check_slope(d, &w, i)
                           : FAULT(d, "%s: input %d has no gradient", d->op->name, i);
    }
    for (int v = 0; v < DRIVER_MAX_VALUES; v++) {
        tess_free(w.data[v]);
    }
    return fault;
}

/* ---- everything ---------------------------------------------------------------------------- */

/* NULL, or what is wrong (in d->fault); driver_free in any case. */
static inline const char *driver_check(driver *d)
{
    const char *fault = driver_build(d);
    for (size_t i = 0; !fault && i < d->g->n_nodes; i++) {
        const tess_node n = d->g->nodes[i];
        if (!(n.op->flags & TESS_OP_LEAF)) {
            fault = check_node(d, &n);
        }
    }
    return fault || !d->dy || d->remote ? fault : check_gradient(d);
}

#endif
