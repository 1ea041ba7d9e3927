/* SPDX-License-Identifier: Apache-2.0 */
/* The linear layers of a model, as OpenCLIP and as Hugging Face name them.
 *
 * The names are those of the layouts, which read and write weights: a layer is a matrix whose name
 * ends in ".weight" and that embeds nothing.  Where another program has q, k and v apart, they are
 * rows of our in_proj.  torch's MultiheadAttention is wrapped by PEFT as a whole: the module "attn"
 * holds in_proj's adapter and "attn.base_layer.out_proj" the other; here the two can be chosen
 * apart, and the one left out is simply not in the file.  Where such an in_proj is two weights of
 * ours (the pooling head), each takes its rows of B, and none is trained under that name. */
#include "fusion/family.h"
#include "fusion/lora.h"

#include <fnmatch.h>
#include <string.h>

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), k = strlen(suffix);
    return k <= n && strcmp(s + n - k, suffix) == 0;
}

static tess_status push(tess_lora_modules *out, tess_lora_module m)
{
    if (!m.path || !m.name || !m.target) {
        return TESS_NOMEM;
    }
    TESS_TRY(tess_grow(&out->items, &out->cap, out->n + 1, sizeof *out->items));
    out->items[out->n++] = m;
    return TESS_OK;
}

/* ---- names --------------------------------------------------------------------------------- */

static const struct {
    const char *suffix;               /* of the weight's name, cut off */
    const char *path, *name, *target; /* put in its place */
} forms[] = {
    {".attn.in_proj_weight", ".attn", ".attn.in_proj", ".attn"},
    {".attn.out_proj.weight", ".attn.base_layer.out_proj", ".attn.out_proj", ".attn"},
    {".attention.in_proj_weight", ".attention", ".attention.in_proj", ".attention"},
    {".attention.out_proj.weight", ".attention.base_layer.out_proj", ".attention.out_proj",
     ".attention"},
    {"_proj_weight", "_proj", "_proj", "_proj"}, /* of our own pooling head */
    {".weight", "", "", ""},
};

/* Appends the layer of this weight by their name of it, where it is one. */
static tess_status name_module(tess_lora_module m, const char *theirs, tess_arena *a,
                               tess_lora_modules *out)
{
    for (int64_t i = 0; i < TESS_COUNT(forms) && !strstr(theirs, "embedding"); i++) {
        if (ends_with(theirs, forms[i].suffix)) {
            const int n = (int)(strlen(theirs) - strlen(forms[i].suffix));
            m.path = tess_arena_format(a, "%.*s%s", n, theirs, forms[i].path);
            m.name = tess_arena_format(a, "%.*s%s", n, theirs, forms[i].name);
            m.target = tess_arena_format(a, "%.*s%s", n, theirs, forms[i].target);
            return push(out, m);
        }
    }
    return TESS_OK;
}

/* What one rule makes of a weight (M,K). */
static tess_lora_module describe(const char *weight, const tess_shape *s,
                                 const tess_layout_rule *rule)
{
    const bool turned = rule->kind == TESS_LAYOUT_TRANSPOSE;
    tess_lora_module m = {
        .weight = weight, .n_rows = s->dim[turned], .n_in = s->dim[!turned], .transposed = turned};
    if (rule->kind == TESS_LAYOUT_ROWS) {
        m.n_rows = s->dim[0] / rule->n;
        m.row = m.n_rows * rule->part;
    }
    m.n_theirs = m.n_rows;
    if (rule->kind == TESS_LAYOUT_STACKED) {
        m.n_theirs = m.n_rows / rule->span * rule->n;
        m.their_row = m.n_rows / rule->span * rule->part;
    }
    return m;
}

/* BERT's own encoder, CLIPModel and SiglipModel, or VisionTextDualEncoderModel. */
static tess_layout hf_layout(const tess_model_config *c)
{
    if (c->sentence) {
        return tess__layout_bert("", "", false);
    }
    tess_layout all = c->text.bert ? tess__layout_bert("", "text_model.", false) : (tess_layout){0};
    const tess_layout two = tess__family_named("hf")->layout(c);
    for (int64_t i = 0; i < two.n_tables; i++) {
        const tess_layout_table *t = &two.tables[i];
        tess__layout_add(&all, t->rules, t->n_rules, t->our_prefix, t->their_prefix);
    }
    return all;
}

tess_layout tess__lora_layout(const tess_model *m, tess_lora_names names)
{
    const tess_model_config *c = &m->config;
    return names == TESS_LORA_HF ? hf_layout(c)
           : c->sentence         ? (tess_layout){0}
                                 : tess__family_named("openclip")->layout(c);
}

tess_status tess__lora_list(const tess_model *m, tess_lora_names names, tess_arena *arena,
                            tess_lora_modules *out)
{
    const tess_layout layout = tess__lora_layout(m, names);
    tess_buf theirs = {0};
    tess_status st = TESS_OK;
    for (int64_t i = 0; st == TESS_OK && i < tess_store_n_entries(m->store, "param"); i++) {
        float *data;
        tess_shape s;
        const char *weight = tess_store_entry(m->store, "param", i, &data, &s);
        const tess_layout_place place = tess__layout_find(&layout, weight);
        for (int64_t k = 0; st == TESS_OK && s.rank == 2 && k < place.n_rules; k++) {
            st = tess__layout_name(&place, k, weight, &theirs);
            st = st ? st
                    : name_module(describe(weight, &s, &place.rules[k]), theirs.data, arena, out);
        }
    }
    tess_buf_deinit(&theirs);
    return st;
}

/* ---- choosing ------------------------------------------------------------------------------ */

static bool fits(const char *pattern, const char *name)
{
    if (strcmp(pattern, "all-linear") == 0 || fnmatch(pattern, name, 0) == 0) {
        return true;
    }
    for (const char *dot = strchr(name, '.'); dot; dot = strchr(dot + 1, '.')) {
        if (fnmatch(pattern, dot + 1, 0) == 0) {
            return true;
        }
    }
    return false;
}

/* What is behind the last number of a name, or all of it: the same for every block. */
static const char *tail_of(const char *name)
{
    const char *tail = name;
    for (const char *c = name; *c; c++) {
        if (c[0] == '.' && c[1] >= '0' && c[1] <= '9') {
            tail = c + 1 + strspn(c + 1, "0123456789");
            tail += *tail == '.';
        }
    }
    return tail;
}

/* False: B's rows are shared with another weight of ours. */
static bool is_whole(const tess_lora_module *m)
{
    return m->n_rows == m->n_theirs;
}

/* Every tail once. */
static void write_tails(const tess_lora_modules *all, tess_buf *out)
{
    for (size_t i = 0; i < all->n; i++) {
        bool seen = !is_whole(&all->items[i]);
        for (size_t k = 0; k < i && !seen; k++) {
            seen = strcmp(tail_of(all->items[k].name), tail_of(all->items[i].name)) == 0;
        }
        if (!seen) {
            tess_buf_addf(out, "%s%s", out->n_bytes ? ", " : "", tail_of(all->items[i].name));
        }
    }
}

/* Marks what one pattern fits; false: nothing. */
static bool mark(const tess_lora_modules *all, const char *pattern, bool *chosen)
{
    bool any = false;
    for (size_t i = 0; i < all->n; i++) {
        bool fit = is_whole(&all->items[i]) && fits(pattern, all->items[i].name);
        chosen[i] |= fit;
        any |= fit;
    }
    return any;
}

/* Marks what the patterns of `target` fit; *out_odd is the first that fits nothing, or NULL. */
static tess_status mark_all(const tess_lora_modules *all, const char *target, tess_arena *arena,
                            bool *chosen, const char **out_odd)
{
    *out_odd = NULL;
    for (const char *at = target; *at;) {
        at += strspn(at, ", ");
        size_t n = strcspn(at, ", ");
        const char *pattern = tess_arena_strndup(arena, at, n);
        if (!pattern) {
            return TESS_NOMEM;
        }
        if (n > 0 && !mark(all, pattern, chosen) && !*out_odd) {
            *out_odd = pattern;
        }
        at += n;
    }
    return TESS_OK;
}

static tess_status choose_from(const tess_model *m, tess_lora_names names, const char *target,
                               tess_arena *arena, tess_lora_modules *out, const char **out_odd)
{
    tess_lora_modules all = {0};
    bool *chosen = NULL;
    tess_status st = tess__lora_list(m, names, arena, &all);
    if (st == TESS_OK) {
        chosen = tess_alloc_array(all.n, sizeof *chosen);
        st = chosen ? mark_all(&all, target, arena, chosen, out_odd) : TESS_NOMEM;
    }
    for (size_t i = 0; st == TESS_OK && !*out_odd && i < all.n; i++) {
        st = chosen[i] ? push(out, all.items[i]) : TESS_OK;
    }
    tess_free(chosen);
    tess_free(all.items);
    return st;
}

static tess_status refuse(const tess_model *m, const tess_lora_options *o, const char *odd,
                          tess_arena *arena)
{
    tess_buf names[2] = {{0}, {0}};
    static const tess_lora_names kinds[2] = {TESS_LORA_OPENCLIP, TESS_LORA_HF};
    tess_status st = TESS_OK;
    for (int i = 0; st == TESS_OK && i < 2; i++) {
        tess_lora_modules all = {0};
        st = o->names == TESS_LORA_AUTO || o->names == kinds[i]
                 ? tess__lora_list(m, kinds[i], arena, &all)
                 : TESS_OK;
        write_tails(&all, &names[i]);
        tess_free(all.items);
    }
    if (st == TESS_OK) {
        st = TESS_FAIL(TESS_INVALID,
                       "LoRA target \"%s\" matches no linear layer; there are, by OpenCLIP's "
                       "names: %s; by Hugging Face's: %s",
                       odd, names[0].n_bytes ? names[0].data : "none",
                       names[1].n_bytes ? names[1].data : "none");
    }
    tess_buf_deinit(&names[0]);
    tess_buf_deinit(&names[1]);
    return st;
}

tess_status tess__lora_choose(const tess_model *m, const tess_lora_options *o, tess_arena *arena,
                              tess_lora_modules *out)
{
    const char *odd = NULL;
    tess_lora_names first = o->names == TESS_LORA_AUTO ? TESS_LORA_OPENCLIP : o->names;
    TESS_TRY(choose_from(m, first, o->target, arena, out, &odd));
    if (odd && o->names == TESS_LORA_AUTO) {
        TESS_TRY(choose_from(m, TESS_LORA_HF, o->target, arena, out, &odd));
    }
    if (odd) {
        return refuse(m, o, odd, arena);
    }
    return out->n > 0 ? TESS_OK : TESS_FAIL(TESS_INVALID, "the LoRA target names no layer");
}
