/* SPDX-License-Identifier: Apache-2.0 */
/* Low-rank adapters of a model: one to train, or several to use, and the merge.
 *
 * However many adapters and parts a weight has, it has one A (R,K) and one B (M,R), in which each
 * is a block: rows of A, and of B the same columns at the rows that the part acts on.  In training
 * tess_blocks keeps what lies between the blocks at zero and puts in the factor; for use the factor
 * is in B from the start. */
#include "fusion/lora.h"

#include "tensor/parallel.h"
#include "tensor/remote.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

double tess__lora_factor(double alpha, int64_t rank, bool rank_stabilized)
{
    return alpha / (rank_stabilized ? sqrt((double)rank) : (double)rank);
}

void tess__lora_apply(tess_graph *g, const tess_model *m)
{
    if (m->lora) {
        tess_graph_adapt(g, m->lora->sites, m->lora->n_sites);
    }
    if (m->narrow) {
        tess_graph_narrow(g);
    }
}

void tess__lora_free(tess_lora *l)
{
    if (l) {
        tess_free(l->parts.items);
        tess_free(l->sites);
        tess_arena_deinit(&l->arena);
        tess_free(l);
    }
}

bool tess_model_has_adapters(const tess_model *m)
{
    return m->lora != NULL;
}

const char *tess_model_base(const tess_model *m)
{
    return m->lora ? m->lora->base : "";
}

/* ---- sites --------------------------------------------------------------------------------- */

static int64_t find_site(tess_lora *l, const char *weight)
{
    for (int64_t i = 0; i < l->n_sites; i++) {
        if (strcmp(l->sites[i].weight, weight) == 0) {
            return i;
        }
    }
    l->sites[l->n_sites].weight = weight;
    return l->n_sites++;
}

/* Gives every part its site and its columns there. */
static tess_status make_sites(tess_lora *l)
{
    l->sites = tess_alloc_array(l->parts.n, sizeof *l->sites);
    if (!l->sites) {
        return TESS_NOMEM;
    }
    for (size_t i = 0; i < l->parts.n; i++) {
        tess_lora_part *p = &l->parts.items[i];
        p->site = find_site(l, p->module.weight);
        p->col = l->sites[p->site].rank;
        l->sites[p->site].rank += p->rank;
    }
    return TESS_OK;
}

static tess_status add_leaf(tess_lora *l, tess_store *s, const char *weight, const char *which,
                            tess_shape shape)
{
    const char *name = tess_arena_format(&l->arena, "%s.%s", weight, which);
    return name ? tess_store_add(s, "lora", name, shape) : TESS_NOMEM;
}

static tess_status make_leaves(tess_lora *l, tess_store *s)
{
    for (size_t i = 0; i < l->parts.n; i++) {
        const tess_lora_part *p = &l->parts.items[i];
        if (p->col > 0) {
            continue; /* the site's first part stands for all */
        }
        tess_shape w;
        tess_store_find(s, "param", p->module.weight, &w);
        const int64_t rank = l->sites[p->site].rank, out = w.dim[p->module.transposed ? 1 : 0];
        TESS_TRY(add_leaf(l, s, p->module.weight, "lora_A", TESS_SHAPE_OF(rank, p->module.n_in)));
        TESS_TRY(add_leaf(l, s, p->module.weight, "lora_B", TESS_SHAPE_OF(out, rank)));
    }
    return tess_store_allocate(s);
}

static float *leaf(const tess_model *m, const char *weight, const char *which, tess_shape *shape)
{
    char name[512];
    snprintf(name, sizeof name, "%s.%s", weight, which);
    return tess_store_find(m->store, "lora", name, shape);
}

void tess__lora_site(const tess_model *m, const tess_lora_part *p, float **out_a, float **out_b,
                     int64_t *out_width, int64_t *out_site_rank)
{
    tess_shape a = {0};
    *out_a = leaf(m, p->module.weight, "lora_A", &a);
    *out_b = leaf(m, p->module.weight, "lora_B", NULL);
    *out_width = a.dim[1];
    *out_site_rank = a.dim[0];
}

static tess_status start(const tess_model *m, tess_lora **out)
{
    if (m->lora || tess_store_n_entries(m->store, "lora") > 0) {
        return TESS_FAIL(TESS_INVALID, "this model has taken its adapters: give all at once");
    }
    *out = tess_alloc(sizeof **out);
    return *out ? TESS_OK : TESS_NOMEM;
}

/* The model takes l over, or it is freed. */
static tess_status finish(tess_model *m, tess_lora *l, tess_status st)
{
    st = st ? st : tess_model_fingerprint(m, l->base);
    if (st) {
        tess__lora_free(l);
        return st;
    }
    m->lora = l;
    tess__model_free_plans(m);
    return TESS_OK;
}

/* ---- training ------------------------------------------------------------------------------ */

static tess_status check_options(const tess_lora_options *o)
{
    if (o->rank < 1 || o->rank > 65536) {
        return TESS_FAIL(TESS_INVALID, "LoRA rank: expected 1 to 65536, found %lld",
                         (long long)o->rank);
    }
    if (!isfinite(o->alpha) || o->alpha < 0) {
        return TESS_FAIL(TESS_INVALID, "LoRA alpha: expected a number above 0, found %g", o->alpha);
    }
    return TESS_OK;
}

static tess_status copy_options(tess_lora *l, const tess_lora_options *o)
{
    const char *target = o->target ? o->target : "q_proj,v_proj", *base = o->base ? o->base : "";
    l->o = *o;
    l->o.alpha = o->alpha > 0 ? o->alpha : (double)o->rank;
    l->o.target = tess_arena_strndup(&l->arena, target, strlen(target));
    l->o.base = tess_arena_strndup(&l->arena, base, strlen(base));
    return l->o.target && l->o.base ? TESS_OK : TESS_NOMEM;
}

static tess_status add_parts(tess_lora *l, const tess_lora_modules *chosen)
{
    TESS_TRY(tess_grow(&l->parts.items, &l->parts.cap, chosen->n, sizeof *l->parts.items));
    for (size_t i = 0; i < chosen->n; i++) {
        l->parts.items[l->parts.n++] =
            (tess_lora_part){.module = chosen->items[i], .rank = l->o.rank, .factor = 1};
    }
    return TESS_OK;
}

static tess_status set_blocks(tess_lora *l)
{
    for (size_t i = 0; i < l->parts.n; i++) {
        const tess_lora_part *p = &l->parts.items[i];
        tess_blocks_options *b = &l->sites[p->site].blocks;
        if (b->n_blocks == TESS_BLOCKS) {
            return TESS_FAIL(TESS_INVALID, "%s: more than %d adapted parts", p->module.weight,
                             TESS_BLOCKS);
        }
        b->scale = (float)tess__lora_factor(l->o.alpha, l->o.rank, l->o.rank_stabilized);
        b->block[b->n_blocks].row = p->module.row;
        b->block[b->n_blocks].n_rows = p->module.n_rows;
        b->block[b->n_blocks].col = p->col;
        b->block[b->n_blocks++].n_cols = p->rank;
    }
    return TESS_OK;
}

/* A as PEFT draws it: Kaiming-uniform with slope sqrt 5, which is U(-1, 1) / sqrt(in). */
static void draw(const tess_model *m, const tess_lora *l, uint64_t seed)
{
    for (size_t i = 0; i < l->parts.n; i++) {
        const tess_lora_part *p = &l->parts.items[i];
        float *a, *b;
        int64_t width, site_rank;
        tess__lora_site(m, p, &a, &b, &width, &site_rank);
        tess_rng r = tess_rng_at(seed, tess_hash64(p->module.path, strlen(p->module.path), 1));
        const double bound = 1 / sqrt((double)width);
        for (int64_t k = p->col * width; k < (p->col + p->rank) * width; k++) {
            a[k] = (float)((2 * tess_rng_unit(&r) - 1) * bound);
        }
    }
}

static tess_status make_fresh(tess_model *m, tess_lora *l, const tess_lora_options *o,
                              uint64_t seed)
{
    tess_lora_modules chosen = {0};
    l->trains = true;
    TESS_TRY(copy_options(l, o));
    tess_status st = tess__lora_choose(m, &l->o, &l->arena, &chosen);
    st = st ? st : add_parts(l, &chosen);
    tess_free(chosen.items);
    st = st ? st : make_sites(l);
    st = st ? st : set_blocks(l);
    st = st ? st : make_leaves(l, m->store);
    if (st == TESS_OK) {
        draw(m, l, seed);
    }
    return st;
}

tess_status tess_model_add_lora(tess_model *m, const tess_lora_options *o, uint64_t seed)
{
    tess_lora *l = NULL;
    TESS_TRY(check_options(o));
    TESS_TRY(start(m, &l));
    return finish(m, l, make_fresh(m, l, o, seed));
}

/* ---- narrow base --------------------------------------------------------------------------- */

/* The matrices of `g` in bf16, rounded as a cast does; the f32 ones give their memory back. */
static tess_status make_half(tess_model *m, const tess_graph *g)
{
    TESS_TRY(tess_graph_check(g));
    TESS_TRY(tess_store_add_graph(m->store, g, "half"));
    TESS_TRY(tess_store_set_dtype(m->store, "half", TESS_BF16));
    TESS_TRY(tess_store_allocate(m->store));
    tess__store_scatter(m->store, "param");
    for (int64_t i = 0; i < tess_store_n_entries(m->store, "half"); i++) {
        float *half;
        tess_shape shape;
        const char *name = tess_store_entry(m->store, "half", i, &half, &shape);
        float *full = tess_store_find(m->store, "param", name, NULL);
        const int64_t n = tess_shape_count(&shape);
        tess__convert(TESS_BF16, half, TESS_F32, full, n);
        tess_memory_forget(full, (size_t)n * sizeof *full);
    }
    return TESS_OK;
}

tess_status tess__model_narrow(tess_model *m)
{
    tess_graph *g = tess_graph_new();
    if (!g) {
        return TESS_NOMEM;
    }
    m->narrow = true;
    tess__model_leaves(g, m);
    tess_status st = make_half(m, g);
    tess_graph_free(g);
    tess__model_free_plans(m);
    return st;
}

tess_status tess_model_narrow(tess_model *m)
{
    const bool gains = m->dtype == TESS_BF16 && m->lora && !m->narrow;
    return gains ? tess__model_narrow(m) : TESS_OK;
}

/* ---- use ----------------------------------------------------------------------------------- */

/* Copies a part's tensors into its blocks. */
static tess_status fill(const tess_model *m, const tess_lora_part *p)
{
    float *a, *b;
    int64_t width, site_rank;
    tess__lora_site(m, p, &a, &b, &width, &site_rank);
    float *up = tess_alloc_array((size_t)(p->module.n_rows * p->rank), sizeof *up);
    if (!up) {
        return TESS_NOMEM;
    }
    tess_status st = tess__lora_read_part(p, a + p->col * width, up);
    for (int64_t i = 0; st == TESS_OK && i < p->module.n_rows * p->rank; i++) {
        const int64_t row = p->module.row + i / p->rank, col = p->col + i % p->rank;
        b[row * site_rank + col] = (float)(p->factor * (double)up[i]);
    }
    tess_free(up);
    return st;
}

/* "DIR:WEIGHT"; what is behind the last colon is a weight when it is a number. */
static tess_status split_spec(const char *spec, tess_arena *arena, const char **dir, double *weight)
{
    const char *colon = strrchr(spec, ':');
    char *end = NULL;
    *weight = colon && colon[1] ? strtod(colon + 1, &end) : 1;
    bool has_weight = colon && colon[1] && *end == 0;
    if (has_weight && !isfinite(*weight)) {
        return TESS_FAIL(TESS_INVALID, "adapter %s: its weight is not finite", spec);
    }
    *weight = has_weight ? *weight : 1;
    *dir = tess_arena_strndup(arena, spec, has_weight ? (size_t)(colon - spec) : strlen(spec));
    return *dir ? TESS_OK : TESS_NOMEM;
}

static tess_status open_all(const tess_model *m, tess_lora *l, const char *const *specs, size_t n,
                            tess_lora_file *files)
{
    for (size_t i = 0; i < n; i++) {
        const char *dir = NULL;
        double weight = 1;
        TESS_TRY(split_spec(specs[i], &l->arena, &dir, &weight));
        tess_status st = tess__lora_open(m, dir, weight, &l->arena, &l->parts, &files[i]);
        if (st) {
            return tess_error_prefix(st, "adapter %s", dir);
        }
    }
    return TESS_OK;
}

static tess_status take_all(tess_model *m, tess_lora *l, const char *const *specs, size_t n,
                            tess_lora_file *files)
{
    TESS_TRY(open_all(m, l, specs, n, files));
    TESS_TRY(make_sites(l));
    TESS_TRY(make_leaves(l, m->store));
    for (size_t i = 0; i < l->parts.n; i++) {
        TESS_TRY(fill(m, &l->parts.items[i]));
        l->parts.items[i].a = l->parts.items[i].b = NULL;
    }
    return TESS_OK;
}

tess_status tess_model_adapt(tess_model *m, const char *const *specs, size_t n)
{
    tess_lora *l = NULL;
    if (n == 0) {
        return TESS_OK;
    }
    TESS_TRY(start(m, &l));
    tess_lora_file *files = tess_alloc_array(n, sizeof *files);
    tess_status st = files ? take_all(m, l, specs, n, files) : TESS_NOMEM;
    st = finish(m, l, st);
    for (size_t i = 0; files && i < n; i++) {
        if (st == TESS_OK && files[i].base[0] && strcmp(files[i].base, m->lora->base) != 0) {
            tess_log(TESS_LOG_WARN,
                     "adapter %s was trained on the model %s, this one is %s of the same shape",
                     specs[i], files[i].base, m->lora->base);
        }
        tess__lora_close(&files[i]);
    }
    tess_free(files);
    return st;
}

/* ---- merging ------------------------------------------------------------------------------- */

/* W += factor B A over one part's rows, each element summed in double and rounded once. */
static tess_status merge_part(const tess_model *m, const tess_lora_part *p)
{
    float *a, *b;
    int64_t width, site_rank;
    tess_shape ws;
    tess__lora_site(m, p, &a, &b, &width, &site_rank);
    float *w = tess_store_find(m->store, "param", p->module.weight, &ws);
    const tess_blocks_options *o = &m->lora->sites[p->site].blocks;
    const double factor = o->n_blocks > 0 ? (double)o->scale : 1;
    double *sum = tess_alloc_array((size_t)width, sizeof *sum);
    if (!sum) {
        return TESS_NOMEM;
    }
    for (int64_t i = p->module.row; i < p->module.row + p->module.n_rows; i++) {
        memset(sum, 0, (size_t)width * sizeof *sum);
        for (int64_t r = p->col; r < p->col + p->rank; r++) {
            for (int64_t k = 0; k < width; k++) {
                sum[k] += (double)b[i * site_rank + r] * (double)a[r * width + k];
            }
        }
        for (int64_t k = 0; k < width; k++) {
            float *x = p->module.transposed ? &w[k * ws.dim[1] + i] : &w[i * width + k];
            *x = (float)((double)*x + factor * sum[k]);
        }
    }
    tess_free(sum);
    return TESS_OK;
}

tess_status tess_model_merge_adapters(tess_model *m)
{
    if (m->narrow) {
        return TESS_FAIL(TESS_INVALID, "the model has given up its f32 weights: open it again");
    }
    for (size_t i = 0; m->lora && i < m->lora->parts.n; i++) {
        TESS_TRY(merge_part(m, &m->lora->parts.items[i]));
    }
    tess__model_free_plans(m);
    tess__lora_free(m->lora);
    m->lora = NULL;
    return TESS_OK;
}
