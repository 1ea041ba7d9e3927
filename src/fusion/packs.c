/* SPDX-License-Identifier: Apache-2.0 */
/* Packed weights by parameter: made from f32 when first asked for, or found in a packed file.
 *
 * Training changes weights in every step and packs them in every product; a model that only embeds
 * packs each once.  Plans keep pointers to the entries, so an entry never moves. */
#include "fusion/packs.h"

#include <string.h>

typedef struct pack {
    char *name;
    tess_packed packed;
} pack;

struct tess_packs {
    tess_pack_mode mode;
    tess_store *store;  /* f32 parameters, or NULL */
    tess_tensors *file; /* or NULL */
    pack **items;
    size_t n_items, cap_items;
};

const char *tess__pack_mode_name(tess_pack_mode mode)
{
    static const char *const spared[TESS_SPARED_COUNT] = {
        [TESS_SPARED_NONE] = "int8",
        [TESS_SPARED_ENDS] = "int8, first and last layers bf16",
        [TESS_SPARED_OUTPUTS] = "int8, first, last and MLP output layers bf16",
    };
    return mode.kind == TESS_I8 ? spared[mode.spared] : tess_dtype_name(mode.kind);
}

tess_packs *tess__packs_new(tess_store *store, tess_pack_mode mode)
{
    tess_packs *p = tess_alloc(sizeof *p);
    if (p) {
        p->store = store;
        p->mode = mode;
    }
    return p;
}

static bool ends_with(const char *name, const char *suffix)
{
    const size_t n = strlen(name), k = strlen(suffix);
    return n >= k && strcmp(name + n - k, suffix) == 0;
}

static tess_dtype kind_of(tess_pack_mode mode, const char *name)
{
    static const char *const outputs[] = {"c_proj.weight", "output.dense.weight"};
    bool spared = mode.spared >= TESS_SPARED_ENDS && !tess__is_hidden(name);
    for (int64_t i = 0; i < TESS_COUNT(outputs); i++) {
        spared |= mode.spared >= TESS_SPARED_OUTPUTS && ends_with(name, outputs[i]);
    }
    return mode.kind == TESS_I8 && spared ? TESS_BF16 : mode.kind;
}

static pack *find_item(const tess_packs *p, const char *name)
{
    for (size_t i = 0; i < p->n_items; i++) {
        if (strcmp(p->items[i]->name, name) == 0) {
            return p->items[i];
        }
    }
    return NULL;
}

static tess_status add_item(tess_packs *p, const char *name, pack **out)
{
    TESS_TRY(tess_grow(&p->items, &p->cap_items, p->n_items + 1, sizeof(pack *)));
    pack *item = tess_alloc(sizeof *item);
    if (!item) {
        return TESS_NOMEM;
    }
    item->name = tess_strdup(name);
    if (!item->name) {
        tess_free(item);
        return TESS_NOMEM;
    }
    p->items[p->n_items++] = item;
    *out = item;
    return TESS_OK;
}

/* ---- from f32 ------------------------------------------------------------------------------ */

static tess_status pack_parameter(tess_packs *p, const tess_product *product, pack *item)
{
    const float *w = tess_store_find(p->store, "param", product->name, NULL);
    if (!w) {
        return TESS_FAIL(TESS_INVALID, "the model has no such parameter");
    }
    return tess__packed_make(kind_of(p->mode, product->name), w, product->n, product->k,
                             product->transposed, &item->packed);
}

/* ---- from a file --------------------------------------------------------------------------- */

static const tess_tensor *find_tensor(const tess_packs *p, const char *what, const char *name)
{
    char *key = tess_format("%s:%s", what, name);
    const tess_tensor *t = key ? tess_tensors_find(p->file, key) : NULL;
    tess_free(key);
    return t;
}

static bool has_count(const tess_tensor *t, const char *dtype, int64_t n)
{
    return t && strcmp(t->dtype, dtype) == 0 && tess_shape_count(&t->shape) == n;
}

static const struct {
    const char *name;
    tess_dtype dtype;
} panel_dtypes[] = {{"F32", TESS_F32}, {"BF16", TESS_BF16}, {"I8", TESS_I8}};

/* Whether panels can be of the tensor's type, and of which. */
static bool is_panels(const tess_tensor *t, tess_dtype *out)
{
    for (int64_t i = 0; t && i < TESS_COUNT(panel_dtypes); i++) {
        if (strcmp(t->dtype, panel_dtypes[i].name) == 0) {
            *out = panel_dtypes[i].dtype;
            return true;
        }
    }
    return false;
}

/* Everything is read where it lies, as words of 32 bits. */
static tess_status check_places(const tess_tensors *file)
{
    for (int64_t i = 0; i < tess_tensors_count(file); i++) {
        const tess_tensor *t = tess_tensors_at(file, i);
        if ((uintptr_t)t->data % sizeof(uint32_t) != 0) {
            return TESS_FAIL(TESS_FORMAT, "%s: expected to begin at a multiple of 4 bytes",
                             t->name);
        }
    }
    return TESS_OK;
}

static tess_status map_parameter(tess_packs *p, const tess_product *product, pack *item)
{
    const tess_tensor *t = find_tensor(p, "panels", product->name);
    const int64_t n_padded = tess__packed_n_panels(product->n) * TESS_PANEL;
    tess_packed *w = &item->packed;
    const tess_tensor *scale = NULL, *sum = NULL;
    bool fits = is_panels(t, &w->kind);
    w->n = product->n;
    w->k = product->k;
    fits = fits && t->n_bytes == tess__packed_panel_bytes(w->kind, w->n, w->k);
    if (w->kind == TESS_I8) {
        scale = find_tensor(p, "scale", product->name);
        sum = find_tensor(p, "sum", product->name);
        fits = fits && has_count(scale, "F32", n_padded) && has_count(sum, "I32", n_padded);
    }
    if (!fits) {
        return TESS_FAIL(TESS_FORMAT, "the packed file does not hold it; run tessera pack again");
    }
    w->panels = t->data;
    w->scale = scale ? (const float *)(const void *)scale->data : NULL;
    w->sum = sum ? (const int32_t *)(const void *)sum->data : NULL;
    return TESS_OK;
}

static tess_status read_mode(const tess_tensors *file, tess_pack_mode *out)
{
    const char *mode = tess_tensors_metadata(file, "mode");
    for (int s = 0; s < TESS_SPARED_COUNT; s++) {
        for (int64_t i = 0; i < TESS_COUNT(panel_dtypes); i++) {
            const tess_pack_mode m = {panel_dtypes[i].dtype, (tess_spared)s};
            if (mode && strcmp(mode, tess__pack_mode_name(m)) == 0) {
                *out = m;
                return TESS_OK;
            }
        }
    }
    return TESS_FAIL(TESS_FORMAT, "its mode is none that is known");
}

tess_status tess__packs_of_file(tess_tensors *file, tess_packs **out)
{
    *out = tess_alloc(sizeof **out);
    if (!*out) {
        tess_tensors_free(file);
        return TESS_NOMEM;
    }
    (*out)->file = file;
    tess_status st = read_mode(file, &(*out)->mode);
    st = st ? st : check_places(file);
    if (st) {
        tess__packs_free(*out);
        *out = NULL;
    }
    return st;
}

/* ---- both ---------------------------------------------------------------------------------- */

void tess__packs_free(tess_packs *p)
{
    for (size_t i = 0; p && i < p->n_items; i++) {
        tess__packed_deinit(&p->items[i]->packed);
        tess_free(p->items[i]->name);
        tess_free(p->items[i]);
    }
    if (p) {
        tess_free(p->items);
        tess_tensors_free(p->file);
        tess_free(p);
    }
}

const tess_tensors *tess__packs_file(const tess_packs *p)
{
    return p->file;
}

tess_pack_mode tess__packs_mode(const tess_packs *p)
{
    return p->mode;
}

int64_t tess__packs_count(const tess_packs *p)
{
    return (int64_t)p->n_items;
}

const tess_packed *tess__packs_at(const tess_packs *p, int64_t i, const char **out_name)
{
    *out_name = p->items[i]->name;
    return &p->items[i]->packed;
}

static tess_status find_packed(void *ctx, const tess_product *product, const tess_packed **out)
{
    tess_packs *p = ctx;
    pack *item = find_item(p, product->name);
    if (!item) {
        TESS_TRY(add_item(p, product->name, &item));
        const tess_status st =
            p->file ? map_parameter(p, product, item) : pack_parameter(p, product, item);
        if (st) {
            p->n_items--;
            tess_free(item->name);
            tess_free(item);
            return st;
        }
    }
    if (item->packed.n != product->n || item->packed.k != product->k) {
        return TESS_OK; /* another product reads it in another shape */
    }
    *out = &item->packed;
    return TESS_OK;
}

tess_status tess__packs_lower(tess_packs *p, tess_graph **g, tess_value *output)
{
    tess_graph *low = NULL;
    tess_value value = 0;
    TESS_TRY(tess__graph_lower(*g, *output, find_packed, p, &low, &value));
    tess_graph_free(*g);
    *g = low;
    *output = value;
    return tess__graph_pool_early(g, output);
}
