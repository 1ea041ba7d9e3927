/* SPDX-License-Identifier: Apache-2.0 */
/* The store: named states in groups, each group one flat run, the unit of checkpointing.
 *
 * Entries of rank > 1 are laid out first, so that weight decay applies to a prefix and the
 * optimizer is one pass over flat memory.  Padding between entries is zero and stays zero under
 * AdamW. */
#include "tensor/op.h"

#include <string.h>

#define ENTRY_ALIGNMENT 16 /* elements: 64 bytes */

typedef struct entry {
    char *name;
    tess_shape shape;
    int64_t offset;
} entry;

typedef struct group {
    char *name;
    entry *entries;
    size_t n_entries, cap_entries;
    int64_t n, n_decayed;
    float *data;
} group;

struct tess_store {
    group *groups;
    size_t n_groups, cap_groups;
    bool allocated;
};

tess_store *tess_store_new(void)
{
    return tess_alloc(sizeof(tess_store));
}

void tess_store_free(tess_store *s)
{
    if (!s) {
        return;
    }
    for (size_t i = 0; i < s->n_groups; i++) {
        group *g = &s->groups[i];
        for (size_t k = 0; k < g->n_entries; k++) {
            tess_free(g->entries[k].name);
        }
        tess_free(g->entries);
        tess_free(g->name);
        tess_free(g->data);
    }
    tess_free(s->groups);
    tess_free(s);
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
    g->entries[g->n_entries] = (entry){.name = tess_strdup(name), .shape = shape};
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
    if (!g && s->allocated) {
        return TESS_FAIL(TESS_INVALID, "store: group %s comes after the layout", group_name);
    }
    if (!g) {
        TESS_TRY(add_group(s, group_name, &g));
    }
    if (g->data && !find_entry(g, name)) {
        return TESS_FAIL(TESS_INVALID, "store: %s comes after the layout", name);
    }
    return add_entry(g, name, shape);
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

static void lay_out(group *g)
{
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < g->n_entries; i++) {
            entry *e = &g->entries[i];
            if ((e->shape.rank > 1) == (pass == 0)) {
                e->offset = g->n;
                g->n += (tess_shape_count(&e->shape) + ENTRY_ALIGNMENT - 1) / ENTRY_ALIGNMENT *
                        ENTRY_ALIGNMENT;
            }
        }
        g->n_decayed = pass == 0 ? g->n : g->n_decayed;
    }
}

static tess_status allocate(group *g)
{
    lay_out(g);
    g->data = tess_alloc_array((size_t)g->n, sizeof *g->data);
    return g->data ? TESS_OK : TESS_NOMEM;
}

tess_status tess_store_mirror(tess_store *s, const char *group_name, const char *like)
{
    const group *from = find_group(s, like);
    group *g = NULL;
    if (!from || find_group(s, group_name)) {
        return TESS_FAIL(TESS_INVALID, "store: %s cannot mirror %s", group_name, like);
    }
    TESS_TRY(add_group(s, group_name, &g));
    from = find_group(s, like);
    for (size_t i = 0; i < from->n_entries; i++) {
        TESS_TRY(add_entry(g, from->entries[i].name, from->entries[i].shape));
    }
    return s->allocated ? allocate(g) : TESS_OK;
}

tess_status tess_store_allocate(tess_store *s)
{
    s->allocated = true;
    for (size_t i = 0; i < s->n_groups; i++) {
        TESS_TRY(allocate(&s->groups[i]));
    }
    return TESS_OK;
}

float *tess_store_group(const tess_store *s, const char *name, int64_t *out_n)
{
    const group *g = s ? find_group(s, name) : NULL;
    *out_n = g ? g->n : 0;
    return g ? g->data : NULL;
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
    return g->data + e->offset;
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
    *out_data = g->data + g->entries[i].offset;
    *out_shape = g->entries[i].shape;
    return g->entries[i].name;
}

/* ---- loading ------------------------------------------------------------------------------- */

static float f32_from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ff;
    if (exponent == 0) { /* zero and subnormals: mantissa * 2^-24 */
        float f = (float)mantissa * 5.9604644775390625e-08f;
        return sign ? -f : f;
    }
    uint32_t u = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

/* False for an element type that holds no weights. */
static bool read_floats(const tess_tensor *t, float *out, int64_t n)
{
    if (strcmp(t->dtype, "F32") == 0) {
        memcpy(out, t->data, (size_t)n * sizeof *out);
        return true;
    }
    bool bf16 = strcmp(t->dtype, "BF16") == 0;
    if (!bf16 && strcmp(t->dtype, "F16") != 0) {
        return false;
    }
    for (int64_t i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, t->data + 2 * i, 2);
        out[i] = bf16 ? tess_f32_from_bf16(half) : f32_from_f16(half);
    }
    return true;
}

static void complain(tess_buf *out, const char *what, const char *name)
{
    if (out->n_bytes < 2000) {
        tess_buf_addf(out, "%s%s %s", out->n_bytes ? ", " : "", what, name);
    }
}

static void load_entry(const entry *e, float *data, const tess_tensors *t, const char *prefix,
                       tess_buf *wrong)
{
    char *name = tess_format("%s%s", prefix, e->name);
    const tess_tensor *x = name ? tess_tensors_find(t, name) : NULL;
    if (!x) {
        complain(wrong, "missing", name ? name : e->name);
    } else if (!tess_shape_equal(&x->shape, &e->shape)) {
        tess_buf shapes = {0};
        tess_shape_print(&x->shape, &shapes);
        tess_buf_adds(&shapes, " instead of ");
        tess_shape_print(&e->shape, &shapes);
        tess_buf_addf(&shapes, " for %s", name);
        complain(wrong, "shape", shapes.data ? shapes.data : name);
        tess_buf_deinit(&shapes);
    } else if (!read_floats(x, data + e->offset, tess_shape_count(&e->shape))) {
        complain(wrong, "no float type in", name);
    }
    tess_free(name);
}

tess_status tess_store_load(tess_store *s, const char *group_name, const tess_tensors *t,
                            const char *prefix)
{
    const group *g = find_group(s, group_name);
    if (!g || !g->data) {
        return TESS_FAIL(TESS_INVALID, "store: no group %s to load into", group_name);
    }
    tess_buf wrong = {0};
    size_t n_prefix = strlen(prefix);
    for (size_t i = 0; i < g->n_entries; i++) {
        load_entry(&g->entries[i], g->data, t, prefix, &wrong);
    }
    for (int64_t i = 0; i < tess_tensors_count(t); i++) {
        const char *name = tess_tensors_at(t, i)->name;
        if (strncmp(name, prefix, n_prefix) == 0 && !find_entry(g, name + n_prefix)) {
            complain(&wrong, "unexpected", name);
        }
    }
    tess_status st = wrong.n_bytes
                         ? TESS_FAIL(TESS_FORMAT, "weights do not fit the model: %s", wrong.data)
                         : TESS_OK;
    tess_buf_deinit(&wrong);
    return st;
}
