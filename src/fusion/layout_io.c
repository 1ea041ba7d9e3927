/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing parameters through a layout.
 *
 * Reading looks at everything before it changes anything: all that is wrong is in one message.
 * Writing makes the list of their tensors; f32 parameters that keep their order are borrowed from
 * the store, so that only transposed and narrowed ones cost memory. */
#include "fusion/layout.h"

#include "tensor/floats.h"
#include "tensor/misfits.h"

#include <string.h>

typedef struct param {
    const char *name;
    float *data;
    tess_shape shape;
} param;

static param param_at(const tess_store *s, const char *group, int64_t i)
{
    param p;
    p.name = tess_store_entry(s, group, i, &p.data, &p.shape);
    return p;
}

static float *data_of_part(const param *p, const tess_layout_rule *rule)
{
    bool rows = rule->kind == TESS_LAYOUT_ROWS;
    return p->data + (rows ? tess_shape_count(&p->shape) / rule->n * rule->part : 0);
}

/* out (C,R) = x (R,C) transposed, in tiles that fit the first cache. */
static void transpose(const float *x, int64_t rows, int64_t cols, float *out)
{
    const int64_t tile = 32;
    for (int64_t i = 0; i < rows; i += tile) {
        for (int64_t j = 0; j < cols; j += tile) {
            for (int64_t r = i; r < i + tile && r < rows; r++) {
                for (int64_t c = j; c < j + tile && c < cols; c++) {
                    out[c * rows + r] = x[r * cols + c];
                }
            }
        }
    }
}

/* ---- reading ------------------------------------------------------------------------------- */

typedef struct loading {
    const tess_layout *layout;
    const tess_tensors *tensors;
    bool *claimed; /* of the file's tensors */
    tess_misfits wrong;
    tess_buf name;
} loading;

static bool same_shape(const tess_shape *a, const tess_shape *b)
{
    bool one = tess_shape_count(a) == 1 && tess_shape_count(b) == 1 && a->rank + b->rank == 1;
    return one || tess_shape_equal(a, b);
}

static void check_part(loading *l, const param *p, const tess_layout_rule *rule)
{
    const char *name = l->name.data;
    const tess_tensor *t = tess_tensors_find(l->tensors, name);
    tess_shape shape;
    if (!t) {
        tess__misfits_add(&l->wrong, "missing", name);
        return;
    }
    l->claimed[t - tess_tensors_at(l->tensors, 0)] = true;
    if (!tess__layout_shape(rule, &p->shape, &shape) || !same_shape(&t->shape, &shape)) {
        tess__misfits_add_shape(&l->wrong, name, &t->shape, &shape);
    } else if (!tess__floats_dtype(t->dtype)) {
        tess__misfits_add_type(&l->wrong, name, t->dtype);
    }
}

static tess_status check_param(loading *l, const param *p)
{
    tess_layout_place place = tess__layout_find(l->layout, p->name);
    if (place.n_rules == 0) {
        tess__misfits_add(&l->wrong, "no place in this layout for", p->name);
    }
    for (int64_t i = 0; i < place.n_rules; i++) {
        TESS_TRY(tess__layout_name(&place, i, p->name, &l->name));
        check_part(l, p, &place.rules[i]);
    }
    return TESS_OK;
}

static void find_extra(loading *l)
{
    for (int64_t i = 0; i < tess_tensors_count(l->tensors); i++) {
        const char *name = tess_tensors_at(l->tensors, i)->name;
        if (!l->claimed[i] && !tess__layout_ignores(l->layout, name)) {
            tess__misfits_add(&l->wrong, "unexpected", name);
        }
    }
}

static tess_status read_transposed(const tess_tensor *t, const param *p, bool *finite)
{
    float *theirs = tess_alloc_array((size_t)tess_shape_count(&t->shape), sizeof *theirs);
    if (!theirs) {
        return TESS_NOMEM;
    }
    *finite = tess__floats_read(t->dtype, t->data, theirs, tess_shape_count(&t->shape));
    transpose(theirs, t->shape.dim[0], t->shape.dim[1], p->data);
    tess_free(theirs);
    return TESS_OK;
}

/* Rows of ours from all of theirs, or all of ours from rows of theirs. */
static bool read_part(const tess_tensor *t, const param *p, const tess_layout_rule *rule)
{
    int64_t theirs = tess_shape_count(&t->shape), ours = tess_shape_count(&p->shape);
    int64_t skipped = rule->kind == TESS_LAYOUT_STACKED ? theirs / rule->n * rule->part : 0;
    return tess__floats_read(t->dtype, t->data + (size_t)skipped * tess__floats_bytes(t->dtype),
                             data_of_part(p, rule), ours < theirs ? ours : theirs);
}

static tess_status read_param(loading *l, const param *p, const char **out_type)
{
    tess_layout_place place = tess__layout_find(l->layout, p->name);
    for (int64_t i = 0; i < place.n_rules; i++) {
        TESS_TRY(tess__layout_name(&place, i, p->name, &l->name));
        const tess_tensor *t = tess_tensors_find(l->tensors, l->name.data);
        bool finite = true;
        if (place.rules[i].kind == TESS_LAYOUT_TRANSPOSE) {
            TESS_TRY(read_transposed(t, p, &finite));
        } else {
            finite = read_part(t, p, &place.rules[i]);
        }
        tess_tensors_forget(l->tensors, t);
        if (!finite) {
            tess__misfits_add(&l->wrong, "NaN or infinity in", l->name.data);
        }
        /* Parts of several types come back as the widest: no digit is lost. */
        bool wider = *out_type && strcmp(*out_type, t->dtype) != 0;
        *out_type = tess__floats_dtype(wider ? "F32" : t->dtype);
    }
    return TESS_OK;
}

static tess_status load_all(loading *l, tess_store *s, const char *group, const char **types)
{
    int64_t n = tess_store_n_entries(s, group);
    for (int64_t i = 0; i < n; i++) {
        param p = param_at(s, group, i);
        TESS_TRY(check_param(l, &p));
    }
    find_extra(l);
    TESS_TRY(tess__misfits_check(&l->wrong));
    for (int64_t i = 0; i < n; i++) {
        param p = param_at(s, group, i);
        TESS_TRY(tess_store_gather(s, group, p.name));
        const tess_status st = read_param(l, &p, &types[i]);
        tess_store_release(s, group, p.name, true);
        TESS_TRY(st);
    }
    return tess__misfits_check(&l->wrong);
}

tess_status tess__layout_load(const tess_layout *layout, tess_store *s, const char *group,
                              const tess_tensors *t, tess_layout_types *out)
{
    int64_t n = tess_store_n_entries(s, group);
    loading l = {.layout = layout, .tensors = t};
    tess_layout_types types = {.types = tess_alloc_array((size_t)n, sizeof *types.types), .n = n};
    l.claimed = tess_alloc_array((size_t)tess_tensors_count(t), sizeof *l.claimed);
    tess_status st = l.claimed && types.types ? load_all(&l, s, group, types.types) : TESS_NOMEM;
    tess_free(l.claimed);
    tess__misfits_deinit(&l.wrong);
    tess_buf_deinit(&l.name);
    if (out && st == TESS_OK) {
        *out = types;
    } else {
        tess__layout_types_deinit(&types);
    }
    return st;
}

/* ---- writing ------------------------------------------------------------------------------- */

typedef struct saving {
    const tess_layout *layout;
    tess_arena *arena;
    tess_tensor *tensors;
    int64_t n;
} saving;

/* Numbers in the file's type; f32 is borrowed. */
static const uint8_t *in_type(saving *s, const float *data, int64_t n, const char *type)
{
    if (strcmp(type, "F32") == 0) {
        return (const uint8_t *)data;
    }
    uint8_t *narrow = tess_arena_alloc(s->arena, (size_t)n * tess__floats_bytes(type));
    if (narrow) {
        tess__floats_write(type, data, narrow, n);
    }
    return narrow;
}

static const float *turned(saving *s, const param *p)
{
    float *out = tess_arena_alloc(s->arena, (size_t)tess_shape_count(&p->shape) * sizeof *out);
    if (out) {
        transpose(p->data, p->shape.dim[0], p->shape.dim[1], out);
    }
    return out;
}

static tess_tensor *find_tensor(const saving *s, const char *name)
{
    for (int64_t i = 0; i < s->n; i++) {
        if (strcmp(s->tensors[i].name, name) == 0) {
            return &s->tensors[i];
        }
    }
    return NULL;
}

/* Parameters that are stacked in one tensor meet in it, in any order; the first gives the type. */
static tess_status write_stacked(saving *s, const param *p, const tess_layout_rule *rule,
                                 const char *type, tess_tensor *fresh)
{
    tess_tensor *t = find_tensor(s, fresh->name);
    if (!t) {
        t = fresh;
        t->dtype = tess__floats_dtype(type);
        t->n_bytes = (size_t)tess_shape_count(&t->shape) * tess__floats_bytes(type);
        t->data = tess_arena_alloc(s->arena, t->n_bytes);
        s->n++;
    }
    if (!t->data) {
        return TESS_NOMEM;
    }
    size_t begin = t->n_bytes / (size_t)rule->n * (size_t)rule->part;
    tess__floats_write(t->dtype, p->data, (uint8_t *)(uintptr_t)t->data + begin,
                       tess_shape_count(&p->shape));
    return TESS_OK;
}

static tess_status write_part(saving *s, const param *p, const tess_layout_rule *rule,
                              const char *type, tess_tensor *t)
{
    if (!tess__layout_shape(rule, &p->shape, &t->shape)) {
        return TESS_FAIL(TESS_INVALID, "%s: its shape has no form in %s", p->name, s->layout->name);
    }
    if (rule->kind == TESS_LAYOUT_STACKED) {
        return write_stacked(s, p, rule, type, t);
    }
    const float *data = rule->kind == TESS_LAYOUT_TRANSPOSE ? turned(s, p) : data_of_part(p, rule);
    t->dtype = tess__floats_dtype(type);
    t->n_bytes = (size_t)tess_shape_count(&t->shape) * tess__floats_bytes(type);
    t->data = data ? in_type(s, data, tess_shape_count(&t->shape), type) : NULL;
    s->n++;
    return t->data ? TESS_OK : TESS_NOMEM;
}

static tess_status write_param(saving *s, const param *p, const char *type)
{
    tess_layout_place place = tess__layout_find(s->layout, p->name);
    tess_buf name = {0};
    tess_status st = TESS_OK;
    for (int64_t i = 0; st == TESS_OK && i < place.n_rules; i++) {
        tess_tensor *t = &s->tensors[s->n];
        st = tess__layout_name(&place, i, p->name, &name);
        t->name = st ? NULL : tess_arena_strndup(s->arena, name.data, name.n_bytes);
        st = st ? st : t->name ? TESS_OK : TESS_NOMEM;
        st = st ? st : write_part(s, p, &place.rules[i], type, t);
    }
    tess_buf_deinit(&name);
    return st;
}

/* At most how many tensors the layout makes of the group; parameters without a place are listed. */
static tess_status count_tensors(const tess_layout *l, const tess_store *s, const char *group,
                                 int64_t *out_n)
{
    tess_misfits homeless = {0};
    *out_n = 0;
    for (int64_t i = 0; i < tess_store_n_entries(s, group); i++) {
        param p = param_at(s, group, i);
        tess_layout_place place = tess__layout_find(l, p.name);
        *out_n += place.n_rules;
        if (place.n_rules == 0) {
            tess__misfits_add(&homeless, "no place for", p.name);
        }
    }
    tess_status st = tess_buf_check(&homeless.list);
    if (st == TESS_OK && homeless.n > 0) {
        st = TESS_FAIL(TESS_UNSUPPORTED, "%s: %s", l->name, homeless.list.data);
    }
    tess__misfits_deinit(&homeless);
    return st;
}

tess_status tess__layout_tensors(const tess_layout *l, const tess_store *store, const char *group,
                                 const tess_layout_types *types, tess_arena *arena,
                                 tess_tensor **out, int64_t *out_n)
{
    saving s = {.layout = l, .arena = arena};
    int64_t n;
    TESS_TRY(count_tensors(l, store, group, &n));
    s.tensors = tess_arena_alloc(arena, (size_t)(n + 1) * sizeof *s.tensors);
    if (!s.tensors) {
        return TESS_NOMEM;
    }
    for (int64_t i = 0; i < tess_store_n_entries(store, group); i++) {
        param p = param_at(store, group, i);
        TESS_TRY(write_param(&s, &p, types && i < types->n ? types->types[i] : "F32"));
    }
    *out = s.tensors;
    *out_n = s.n;
    return TESS_OK;
}
