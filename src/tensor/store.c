/* SPDX-License-Identifier: Apache-2.0 */
/* The store: named states in groups, each group one flat run, the unit of checkpointing.
 *
 * Entries of rank > 1 are laid out first, so that weight decay applies to a prefix and the
 * optimizer is one pass over flat memory; first of all those that have an optimizer of their own.
 * Padding between entries is zero and stays zero under AdamW.
 *
 * Of an entry that ranks split, this rank's run has one range of the flattened tensor, whole units
 * of ENTRY_ALIGNMENT elements except at its end: ranks' ranges differ by one unit at most. */
#include "tensor/floats.h"
#include "tensor/misfits.h"
#include "tensor/op.h"
#include "tensor/pager.h"
#include "tensor/remote.h"

#include <string.h>

#define ENTRY_ALIGNMENT 16 /* elements: 64 bytes */

typedef struct entry {
    char *name;
    tess_shape shape;
    int64_t offset;     /* in the run */
    int64_t at;         /* in the run that holds every entry whole */
    int64_t begin, end; /* elements that the run holds */
    bool split;
    float *mapped; /* read-only memory that another owns, in place of the run */
} entry;

typedef struct group {
    char *name;
    entry *entries;
    size_t n_entries, cap_entries;
    int64_t n, n_leading, n_decayed;
    tess_dtype dtype; /* f32 unless set */
    bool scattered;
    bool described;    /* data are addresses without memory */
    tess_pager *pager; /* that data lies in; NULL: ordinary memory */
    float *data;
} group;

struct tess_store {
    group *groups;
    size_t n_groups, cap_groups;
    bool (*leads)(const char *name);
    bool allocated;
    bool described;       /* see tess_store_describe */
    tess_pager *pager;    /* of groups to come */
    tess_shadows shadows; /* on a device with memory of its own */
};

tess_store *tess_store_new(void)
{
    return tess_alloc(sizeof(tess_store));
}

static group *find_group(const tess_store *s, const char *name)
{
    for (size_t i = 0; i < s->n_groups; i++) {
        if (strcmp(s->groups[i].name, name) == 0) {
            return &s->groups[i];
        }
    }
    return NULL;
}

static tess_status add_group(tess_store *s, const char *name, group **out)
{
    TESS_TRY(tess_grow(&s->groups, &s->cap_groups, s->n_groups + 1, sizeof *s->groups));
    group *g = &s->groups[s->n_groups];
    *g = (group){.name = tess_strdup(name)};
    if (!g->name) {
        return TESS_NOMEM;
    }
    s->n_groups++;
    *out = g;
    return TESS_OK;
}

/* NULL: neither laid out nor mapped. */
static float *at(const group *g, int64_t offset)
{
    return (float *)((char *)g->data + (size_t)offset * tess_dtype_bytes(g->dtype));
}

static float *data_of(const group *g, const entry *e)
{
    return e->mapped ? e->mapped : g->data ? at(g, e->offset) : NULL;
}

static entry *find_entry(const group *g, const char *name)
{
    for (size_t i = 0; i < g->n_entries; i++) {
        if (strcmp(g->entries[i].name, name) == 0) {
            return &g->entries[i];
        }
    }
    return NULL;
}

static tess_status add_entry(group *g, const char *name, tess_shape shape)
{
    entry *old = find_entry(g, name);
    if (old) {
        tess_operand a = {.shape = old->shape}, b = {.shape = shape};
        return tess__expect_like(name, &b, &a);
    }
    TESS_TRY(tess_grow(&g->entries, &g->cap_entries, g->n_entries + 1, sizeof *g->entries));
    g->entries[g->n_entries] =
        (entry){.name = tess_strdup(name), .shape = shape, .end = tess_shape_count(&shape)};
    if (!g->entries[g->n_entries].name) {
        return TESS_NOMEM;
    }
    g->n_entries++;
    return TESS_OK;
}

tess_status tess_store_add(tess_store *s, const char *group_name, const char *name,
                           tess_shape shape)
{
    group *g = find_group(s, group_name);
    if (!g) {
        TESS_TRY(add_group(s, group_name, &g));
    }
    if (g->data && !find_entry(g, name)) {
        return TESS_FAIL(TESS_INVALID, "store: %s comes after the layout", name);
    }
    return add_entry(g, name, shape);
}

tess_status tess_store_set_dtype(tess_store *s, const char *group_name, tess_dtype dtype)
{
    group *g = find_group(s, group_name);
    if (!g || g->data) {
        return TESS_FAIL(TESS_INVALID, "store: group %s is not there, or has its layout",
                         group_name);
    }
    g->dtype = dtype;
    return TESS_OK;
}

void tess__store_scatter(tess_store *s, const char *group_name)
{
    group *g = find_group(s, group_name);
    if (g) {
        g->scattered = true;
    }
}

tess_dtype tess_store_dtype(const tess_store *s, const char *group_name)
{
    const group *g = find_group(s, group_name);
    return g ? g->dtype : TESS_F32;
}

tess_status tess_store_add_graph(tess_store *s, const tess_graph *g, const char *group_name)
{
    int64_t n = tess_graph_states(g, group_name, NULL, 0);
    tess_value *states = tess_alloc_array((size_t)n, sizeof *states);
    if (!states) {
        return TESS_NOMEM;
    }
    tess_graph_states(g, group_name, states, n);
    tess_status st = TESS_OK;
    for (int64_t i = 0; st == TESS_OK && i < n; i++) {
        const char *name = tess_value_name(g, states[i]);
        st =
            name[0] ? tess_store_add(s, group_name, name, tess_value_shape(g, states[i])) : TESS_OK;
    }
    tess_free(states);
    return st;
}

/* 0: leading matrices, 1: the other matrices, 2: the rest. */
static int place_of(const tess_store *s, const entry *e)
{
    return e->shape.rank <= 1 ? 2 : s->leads && s->leads(e->name) ? 0 : 1;
}

static int64_t aligned(int64_t n)
{
    return (n + ENTRY_ALIGNMENT - 1) / ENTRY_ALIGNMENT * ENTRY_ALIGNMENT;
}

static void lay_out(const tess_store *s, group *g)
{
    int64_t ends[3], whole = 0;
    g->n = 0;
    for (int place = 0; place < 3; place++) {
        for (size_t i = 0; i < g->n_entries; i++) {
            entry *e = &g->entries[i];
            if (place_of(s, e) == place) {
                e->offset = g->n;
                e->at = whole;
                g->n += aligned(e->end - e->begin);
                whole += aligned(tess_shape_count(&e->shape));
            }
        }
        ends[place] = g->n;
    }
    g->n_leading = ends[0];
    g->n_decayed = ends[1];
}

static size_t group_bytes(const group *g)
{
    return (size_t)g->n * tess_dtype_bytes(g->dtype);
}

static tess_status allocate(const tess_store *s, group *g)
{
    if (g->data) {
        return TESS_OK;
    }
    lay_out(s, g);
    if (s->pager && group_bytes(g) >= tess__pager_block(s->pager)) {
        void *data = NULL;
        g->pager = s->pager;
        TESS_TRY(tess__pager_map(s->pager, group_bytes(g), &data));
        g->data = data;
        return TESS_OK;
    }
    g->described = s->described;
    g->data = g->described ? tess_reserve(group_bytes(g))
                           : tess_alloc_array((size_t)g->n, tess_dtype_bytes(g->dtype));
    return g->data ? TESS_OK : TESS_NOMEM;
}

static void free_data(group *g)
{
    if (g->described) {
        tess_unreserve(g->data, group_bytes(g));
    } else if (g->pager && g->data) {
        tess__pager_unmap(g->pager, g->data);
    } else {
        tess_free(g->data);
    }
}

int64_t tess_shard_begin(int64_t n, int rank, int n_ranks)
{
    const int64_t units = (n + ENTRY_ALIGNMENT - 1) / ENTRY_ALIGNMENT;
    const int64_t at =
        (units / n_ranks * rank + units % n_ranks * rank / n_ranks) * ENTRY_ALIGNMENT;
    return at < n ? at : n;
}

static bool split_entries(group *g, int rank, int n_ranks,
                          bool (*splits)(const char *name, const tess_shape *shape))
{
    for (size_t i = 0; i < g->n_entries; i++) {
        entry *e = &g->entries[i];
        const int64_t n = tess_shape_count(&e->shape);
        if (e->mapped || e->split) {
            return false;
        }
        e->split = splits(e->name, &e->shape);
        if (e->split) {
            e->begin = tess_shard_begin(n, rank, n_ranks);
            e->end = tess_shard_begin(n, rank + 1, n_ranks);
        }
    }
    return true;
}

tess_status tess_store_split(tess_store *s, const char *group_name, int rank, int n_ranks,
                             bool (*splits)(const char *name, const tess_shape *shape))
{
    group *g = find_group(s, group_name);
    if (!g || g->pager || !split_entries(g, rank, n_ranks, splits)) {
        return TESS_FAIL(TESS_INVALID, "store: group %s is not there, or is split, mapped or paged",
                         group_name);
    }
    if (!g->data) {
        return TESS_OK;
    }
    group whole = *g;
    const size_t width = tess_dtype_bytes(g->dtype);
    g->data = NULL;
    const tess_status st = allocate(s, g);
    for (size_t i = 0; st == TESS_OK && !g->described && i < g->n_entries; i++) {
        const entry *e = &g->entries[i];
        memcpy(at(g, e->offset), at(&whole, e->at + e->begin), (size_t)(e->end - e->begin) * width);
    }
    free_data(&whole);
    return st;
}

static void free_group(group *g)
{
    for (size_t k = 0; k < g->n_entries; k++) {
        tess_free(g->entries[k].name);
    }
    tess_free(g->entries);
    tess_free(g->name);
    free_data(g);
    *g = (group){0};
}

static tess_status fill_mirror(const tess_store *s, group *g, const group *like)
{
    for (size_t i = 0; i < like->n_entries; i++) {
        TESS_TRY(add_entry(g, like->entries[i].name, like->entries[i].shape));
    }
    return s->allocated ? allocate(s, g) : TESS_OK;
}

tess_status tess_store_mirror(tess_store *s, const char *group_name, const char *like)
{
    const group *from = find_group(s, like);
    group *g = NULL;
    if (!from || find_group(s, group_name)) {
        return TESS_FAIL(TESS_INVALID, "store: %s cannot mirror %s", group_name, like);
    }
    TESS_TRY(add_group(s, group_name, &g));
    tess_status st = fill_mirror(s, g, find_group(s, like));
    if (st) {
        free_group(g);
        s->n_groups--;
    }
    return st;
}

void tess_store_free(tess_store *s)
{
    for (size_t i = 0; s && i < s->n_groups; i++) {
        free_group(&s->groups[i]);
    }
    if (s) {
        tess__shadows_deinit(&s->shadows);
        tess_free(s->groups);
        tess_free(s);
    }
}

void tess_store_describe(tess_store *s)
{
    s->described = true;
}

bool tess_store_is_described(const tess_store *s)
{
    return s->described;
}

void tess_store_lead(tess_store *s, bool (*leads)(const char *name))
{
    s->leads = leads;
}

tess_status tess_store_allocate(tess_store *s)
{
    s->allocated = true;
    for (size_t i = 0; i < s->n_groups; i++) {
        TESS_TRY(allocate(s, &s->groups[i]));
    }
    return TESS_OK;
}

tess_status tess_store_map(tess_store *s, const char *group_name, const tess_tensors *t)
{
    const group *g = find_group(s, group_name);
    if (!g || g->data) {
        return TESS_FAIL(TESS_INVALID, "store: no group %s to map, or it is laid out", group_name);
    }
    for (size_t i = 0; i < g->n_entries; i++) {
        entry *e = &g->entries[i];
        const tess_tensor *x = tess_tensors_find(t, e->name);
        if (!x) {
            continue;
        }
        if (strcmp(x->dtype, "F32") != 0 || !tess_shape_equal(&x->shape, &e->shape)) {
            return TESS_FAIL(TESS_FORMAT, "%s: expected F32 in the model's shape", e->name);
        }
        if ((uintptr_t)x->data % sizeof(float) != 0) {
            return TESS_FAIL(TESS_UNSUPPORTED, "%s: expected to begin at a multiple of 4 bytes",
                             e->name);
        }
        e->mapped = (float *)(uintptr_t)x->data;
    }
    s->allocated = true;
    return TESS_OK;
}

float *tess_store_group(const tess_store *s, const char *name, int64_t *out_n)
{
    const group *g = s ? find_group(s, name) : NULL;
    *out_n = g ? g->n : 0;
    return g ? g->data : NULL;
}

tess_status tess__store_shadow(tess_store *s, const tess_remote *remote, const char *group_name,
                               const void *host, size_t n_bytes, void **out)
{
    const group *g = find_group(s, group_name);
    const uint8_t *run = (const uint8_t *)g->data, *at = host;
    const bool apart = g->scattered || !run || at < run || at >= run + group_bytes(g);
    return apart ? tess__shadow_find(&s->shadows, remote, host, host, n_bytes, out)
                 : tess__shadow_find(&s->shadows, remote, host, run, group_bytes(g), out);
}

/* A group's run, or with a name one entry of it; 0 bytes where there is no run. */
static void *run_of(const tess_store *s, const char *group_name, const char *name, size_t *n_bytes)
{
    const group *g = find_group(s, group_name);
    const entry *e = g && name[0] ? find_entry(g, name) : NULL;
    const bool there = g && g->data && (e || !name[0]);
    *n_bytes = !there ? 0
               : e    ? (size_t)(e->end - e->begin) * tess_dtype_bytes(g->dtype)
                      : group_bytes(g);
    return !there ? NULL : e ? at(g, e->offset) : g->data;
}

void tess_store_set_pager(tess_store *s, tess_pager *p)
{
    s->pager = p;
}

tess_pager *tess_store_pager(const tess_store *s)
{
    return s ? s->pager : NULL;
}

tess_status tess_store_gather(tess_store *s, const char *group_name, const char *name)
{
    size_t n_bytes;
    const void *run = run_of(s, group_name, name, &n_bytes);
    return run ? tess__pager_gather(s->pager, run, n_bytes) : TESS_OK;
}

void tess_store_release(tess_store *s, const char *group_name, const char *name, bool written)
{
    size_t n_bytes;
    const void *run = run_of(s, group_name, name, &n_bytes);
    if (run) {
        tess__pager_release(s->pager, run, n_bytes, written ? TESS_PAGED_WRITTEN : TESS_PAGED_READ);
    }
}

tess_status tess_store_keep(tess_store *s, const char *group_name, size_t *budget)
{
    size_t n_bytes;
    const void *run = run_of(s, group_name, "", &n_bytes);
    return run ? tess__pager_keep(s->pager, run, n_bytes, budget) : TESS_OK;
}

tess_status tess_store_upload(tess_store *s, const char *group_name, const char *name)
{
    size_t n_bytes;
    const void *run = run_of(s, group_name, name, &n_bytes);
    return run ? tess__shadows_upload(&s->shadows, run, n_bytes) : TESS_OK;
}

tess_status tess_store_download(tess_store *s, const char *group_name, const char *name)
{
    size_t n_bytes;
    void *run = run_of(s, group_name, name, &n_bytes);
    return run ? tess__shadows_download(&s->shadows, run, n_bytes) : TESS_OK;
}

int64_t tess_store_n_leading(const tess_store *s, const char *name)
{
    const group *g = find_group(s, name);
    return g ? g->n_leading : 0;
}

int64_t tess_store_n_decayed(const tess_store *s, const char *name)
{
    const group *g = find_group(s, name);
    return g ? g->n_decayed : 0;
}

float *tess_store_find(const tess_store *s, const char *group_name, const char *name,
                       tess_shape *out_shape)
{
    const group *g = s ? find_group(s, group_name) : NULL;
    const entry *e = g ? find_entry(g, name) : NULL;
    if (!e) {
        return NULL;
    }
    if (out_shape) {
        *out_shape = e->shape;
    }
    return data_of(g, e);
}

tess_held tess_store_held(const tess_store *s, const char *group_name, const char *name)
{
    const group *g = find_group(s, group_name);
    const entry *e = g ? find_entry(g, name) : NULL;
    return e ? (tess_held){.begin = e->begin,
                           .end = e->end,
                           .offset = e->offset,
                           .at = e->at,
                           .split = e->split}
             : (tess_held){0};
}

void *tess__store_leaf(const tess_store *s, const char *group_name, const char *name,
                       tess_shape *out_shape)
{
    const group *g = find_group(s, group_name);
    const entry *e = g ? find_entry(g, name) : NULL;
    if (!e) {
        return NULL;
    }
    *out_shape = e->split ? TESS_SHAPE_OF(e->end - e->begin) : e->shape;
    return data_of(g, e);
}

size_t tess_store_bytes(const tess_store *s, const char *group_name)
{
    const group *g = find_group(s, group_name);
    return g && g->data ? group_bytes(g) : 0;
}

int64_t tess_store_n_entries(const tess_store *s, const char *name)
{
    const group *g = find_group(s, name);
    return g ? (int64_t)g->n_entries : 0;
}

const char *tess_store_entry(const tess_store *s, const char *name, int64_t i, float **out_data,
                             tess_shape *out_shape)
{
    const group *g = find_group(s, name);
    if (!g || i < 0 || (size_t)i >= g->n_entries) {
        return NULL;
    }
    *out_data = data_of(g, &g->entries[i]);
    *out_shape = g->entries[i].shape;
    return g->entries[i].name;
}

/* ---- loading ------------------------------------------------------------------------------- */

/* The file's tensor for entry i of g; NULL when there is no memory for its name. */
static const char *entry_name(const group *g, size_t i, const char *prefix, tess_buf *buf)
{
    tess_buf_clear(buf);
    tess_buf_addf(buf, "%s%s", prefix, g->entries[i].name);
    return buf->failed ? NULL : buf->data;
}

static void check_entry(const entry *e, const char *name, const tess_tensor *t, tess_misfits *m)
{
    if (!t) {
        tess__misfits_add(m, "missing", name);
    } else if (!tess_shape_equal(&t->shape, &e->shape)) {
        tess__misfits_add_shape(m, name, &t->shape, &e->shape);
    } else if (!tess__floats_dtype(t->dtype)) {
        tess__misfits_add_type(m, name, t->dtype);
    }
}

static void find_extra(const group *g, const tess_tensors *t, const char *prefix, tess_misfits *m)
{
    size_t n_prefix = strlen(prefix);
    for (int64_t i = 0; i < tess_tensors_count(t); i++) {
        const char *name = tess_tensors_at(t, i)->name;
        if (strncmp(name, prefix, n_prefix) == 0 && !find_entry(g, name + n_prefix)) {
            tess__misfits_add(m, "unexpected", name);
        }
    }
}

tess_status tess_store_load(tess_store *s, const char *group_name, const tess_tensors *t,
                            const char *prefix)
{
    const group *g = find_group(s, group_name);
    if (!g || !g->data) {
        return TESS_FAIL(TESS_INVALID, "store: no group %s to load into", group_name);
    }
    tess_misfits wrong = {0};
    tess_buf buf = {0};
    const char *name = NULL;
    for (size_t i = 0; i < g->n_entries && (name = entry_name(g, i, prefix, &buf)); i++) {
        check_entry(&g->entries[i], name, tess_tensors_find(t, name), &wrong);
    }
    find_extra(g, t, prefix, &wrong);
    tess_status st = tess_buf_check(&buf);
    st = st ? st : tess__misfits_check(&wrong);
    for (size_t i = 0; st == TESS_OK && i < g->n_entries; i++) {
        const entry *e = &g->entries[i];
        const tess_tensor *x = tess_tensors_find(t, entry_name(g, i, prefix, &buf));
        const size_t width = x->n_bytes / (size_t)tess_shape_count(&e->shape);
        st = tess_store_gather(s, group_name, e->name);
        if (st == TESS_OK) {
            tess__floats_read(x->dtype, x->data + (size_t)e->begin * width, g->data + e->offset,
                              e->end - e->begin);
            tess_tensors_forget(t, x);
            tess_store_release(s, group_name, e->name, true);
        }
    }
    tess_buf_deinit(&buf);
    tess__misfits_deinit(&wrong);
    return st;
}
