/* SPDX-License-Identifier: Apache-2.0 */
/* The linear layers of a model, as OpenCLIP and as Hugging Face CLIP name them.
 *
 * Our weights have OpenCLIP's names.  In OpenCLIP attention is torch's MultiheadAttention, which
 * PEFT wraps as a whole: the module "attn" holds in_proj's adapter and "attn.base_layer.out_proj"
 * the other; here the two can be chosen apart, and the one left out is simply not in the file.  In
 * Hugging Face's models q, k and v are layers of their own, rows of our in_proj, and the
 * projections into the joint space are layers too. */
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

/* ---- OpenCLIP ------------------------------------------------------------------------------ */

static const struct {
    const char *suffix;               /* of our weight, cut off */
    const char *path, *name, *target; /* put in its place */
} openclip[] = {
    {".attn.in_proj_weight", ".attn", ".attn.in_proj", ".attn"},
    {".attn.out_proj.weight", ".attn.base_layer.out_proj", ".attn.out_proj", ".attn"},
    {"_proj_weight", "_proj", "_proj", "_proj"}, /* of the pooling head */
    {".weight", "", "", ""},
};

static tess_status add_openclip(const char *weight, tess_shape s, tess_arena *a,
                                tess_lora_modules *out)
{
    for (int64_t i = 0; i < TESS_COUNT(openclip) && !strstr(weight, "embedding"); i++) {
        if (ends_with(weight, openclip[i].suffix)) {
            int n = (int)(strlen(weight) - strlen(openclip[i].suffix));
            return push(out,
                        (tess_lora_module){
                            .path = tess_arena_format(a, "%.*s%s", n, weight, openclip[i].path),
                            .name = tess_arena_format(a, "%.*s%s", n, weight, openclip[i].name),
                            .target = tess_arena_format(a, "%.*s%s", n, weight, openclip[i].target),
                            .weight = weight,
                            .n_rows = s.dim[0],
                            .n_in = s.dim[1]});
        }
    }
    return TESS_OK;
}

/* ---- Hugging Face -------------------------------------------------------------------------- */

static const struct {
    const char *ours, *theirs;
} hf_towers[] = {
    {"visual.transformer.resblocks.", "vision_model.encoder.layers."},
    {"transformer.resblocks.", "text_model.encoder.layers."},
};

static const struct {
    const char *ours; /* behind the block's number */
    int64_t n_parts;
    const char *theirs[3];
} hf_blocks[] = {
    {".attn.in_proj_weight", 3, {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}},
    {".attn.out_proj.weight", 1, {"self_attn.out_proj"}},
    {".mlp.c_fc.weight", 1, {"mlp.fc1"}},
    {".mlp.c_proj.weight", 1, {"mlp.fc2"}},
};

static const struct {
    const char *ours, *theirs;
} hf_projections[] = {
    {"visual.proj", "visual_projection"},
    {"text_projection", "text_projection"},
};

static tess_status add_hf_block(const char *weight, tess_shape s, const char *tower,
                                const char *number, tess_arena *a, tess_lora_modules *out)
{
    int digits = (int)strspn(number, "0123456789");
    for (int64_t i = 0; i < TESS_COUNT(hf_blocks); i++) {
        for (int64_t k = 0;
             strcmp(number + digits, hf_blocks[i].ours) == 0 && k < hf_blocks[i].n_parts; k++) {
            int64_t rows = s.dim[0] / hf_blocks[i].n_parts;
            const char *path =
                tess_arena_format(a, "%s%.*s.%s", tower, digits, number, hf_blocks[i].theirs[k]);
            TESS_TRY(push(out, (tess_lora_module){.path = path,
                                                  .name = path,
                                                  .target = path,
                                                  .weight = weight,
                                                  .row = k * rows,
                                                  .n_rows = rows,
                                                  .n_in = s.dim[1]}));
        }
    }
    return TESS_OK;
}

static tess_status add_hf(const char *weight, tess_shape s, tess_arena *a, tess_lora_modules *out)
{
    for (int64_t i = 0; i < TESS_COUNT(hf_projections); i++) {
        if (strcmp(weight, hf_projections[i].ours) == 0) {
            const char *path = hf_projections[i].theirs;
            return push(out, (tess_lora_module){.path = path,
                                                .name = path,
                                                .target = path,
                                                .weight = weight,
                                                .n_rows = s.dim[1],
                                                .n_in = s.dim[0],
                                                .transposed = true});
        }
    }
    for (int64_t i = 0; i < TESS_COUNT(hf_towers); i++) {
        size_t n = strlen(hf_towers[i].ours);
        if (strncmp(weight, hf_towers[i].ours, n) == 0) {
            return add_hf_block(weight, s, hf_towers[i].theirs, weight + n, a, out);
        }
    }
    return TESS_OK;
}

tess_status tess__lora_list(const tess_model *m, tess_lora_names names, tess_arena *arena,
                            tess_lora_modules *out)
{
    for (int64_t i = 0; i < tess_store_n_entries(m->store, "param"); i++) {
        float *data;
        tess_shape s;
        const char *weight = tess_store_entry(m->store, "param", i, &data, &s);
        if (s.rank == 2) {
            TESS_TRY(names == TESS_LORA_HF ? add_hf(weight, s, arena, out)
                                           : add_openclip(weight, s, arena, out));
        }
    }
    return TESS_OK;
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

/* Every tail once. */
static void write_tails(const tess_lora_modules *all, tess_buf *out)
{
    for (size_t i = 0; i < all->n; i++) {
        bool seen = false;
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
        bool fit = fits(pattern, all->items[i].name);
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
                       odd, names[0].n_bytes ? names[0].data : "none asked for",
                       names[1].n_bytes ? names[1].data : "none asked for");
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
