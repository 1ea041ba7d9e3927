/* SPDX-License-Identifier: Apache-2.0 */
/* Reading OpenCLIP's own open_clip_config.json: every key of its CLIPVisionCfg and CLIPTextCfg,
 * with its defaults.
 *
 * What OpenCLIP does and Tessera's own models do not: "avg" has a class token that is left out of
 * the mean; towers without a causal mask attend to their padding; a timm trunk takes its sizes from
 * its name and never the quick GELU; a text tower of transformers has its sizes elsewhere. */
#include "fusion/config_keys.h"
#include "fusion/family.h"
#include "fusion/hf_text.h"

#include <math.h>
#include <string.h>

/* ---- tables -------------------------------------------------------------------------------- */

typedef struct model_keys {
    int64_t embed_dim;
    double init_logit_scale, init_logit_bias;
    bool quick_gelu, custom_text;
    const tess_json *vision, *text;
} model_keys;

static const tess_field model_fields[] = {
    {"embed_dim", TESS_FIELD_INT, offsetof(model_keys, embed_dim), 1, 65536},
    {"init_logit_scale", TESS_FIELD_REAL, offsetof(model_keys, init_logit_scale), -20, 20},
    {"init_logit_bias", TESS_FIELD_REAL, offsetof(model_keys, init_logit_bias), -100, 100},
    {"quick_gelu", TESS_FIELD_BOOL, offsetof(model_keys, quick_gelu), 0, 0},
    {"custom_text", TESS_FIELD_BOOL, offsetof(model_keys, custom_text), 0, 0},
    {"vision_cfg", TESS_FIELD_OBJECT, offsetof(model_keys, vision), 0, 0},
    {"text_cfg", TESS_FIELD_OBJECT, offsetof(model_keys, text), 0, 0},
};
static const tess_inert_key model_inert[] = {
    {"cast_dtype", NULL},       {"output_dict", NULL}, {"nonscalar_logit_scale", "null|false"},
    {"multimodal_cfg", "null"}, {"tessera", NULL},
};

/* The extra parts of a block, none of which is offered. */
#define BLOCK_INERT                                                                                \
    {"ls_init_value", "null"}, {"block_type", "null|default"}, {"qk_norm", "null|false"},          \
        {"scaled_cosine_attn", "null|false"}, {"scale_heads", "null|false"},                       \
        {"scale_attn_inner", "null|false"}, {"scale_attn", "null|false"},                          \
        {"scale_fc", "null|false"},                                                                \
    {                                                                                              \
        "output_tokens", NULL                                                                      \
    }

typedef struct vision_keys {
    tess_vit_config c;
    const tess_json *act, *norm, *image_size, *layers;
    const char *timm_name, *timm_pool, *timm_proj;
} vision_keys;

#define AT(field) offsetof(vision_keys, field)
static const tess_field vision_fields[] = {
    {"image_size", TESS_FIELD_VALUE, AT(image_size), 0, 0},
    {"layers", TESS_FIELD_VALUE, AT(layers), 0, 0},
    {"width", TESS_FIELD_INT, AT(c.width), 1, 65536},
    {"head_width", TESS_FIELD_INT, AT(c.head_width), 1, 1024},
    {"mlp_ratio", TESS_FIELD_REAL, AT(c.mlp_ratio), 0.01, 64},
    {"patch_size", TESS_FIELD_INT, AT(c.patch_size), 1, 1024},
    {"no_ln_pre", TESS_FIELD_BOOL, AT(c.no_ln_pre), 0, 0},
    {"final_ln_after_pool", TESS_FIELD_BOOL, AT(c.final_ln_after_pool), 0, 0},
    {"pool_type", TESS_FIELD_STRING, AT(c.pool_type), 0, 0},
    {"act_kwargs", TESS_FIELD_OBJECT, AT(act), 0, 0},
    {"norm_kwargs", TESS_FIELD_OBJECT, AT(norm), 0, 0},
    {"timm_model_name", TESS_FIELD_STRING, AT(timm_name), 0, 0},
    {"timm_pool", TESS_FIELD_STRING, AT(timm_pool), 0, 0},
    {"timm_proj", TESS_FIELD_STRING, AT(timm_proj), 0, 0},
};
#undef AT
static const tess_inert_key vision_inert[] = {
    BLOCK_INERT,
    {"patch_dropout", NULL}, /* in training only; likewise timm_drop and timm_drop_path */
    {"attentional_pool", "null|false"},
    {"attn_pooler_queries", NULL},
    {"attn_pooler_heads", NULL},
    {"pos_embed_type", "learnable"},
    {"timm_model_pretrained", NULL},
    {"timm_proj_bias", "null|false"},
    {"timm_drop", NULL},
    {"timm_drop_path", NULL},
};

typedef struct text_keys {
    tess_text_config c;
    const tess_json *act, *norm, *tokenizer;
    const char *hf_model, *hf_tokenizer, *hf_proj, *hf_pooler;
} text_keys;

#define AT(field) offsetof(text_keys, field)
static const tess_field text_fields[] = {
    {"context_length", TESS_FIELD_INT, AT(c.context_length), 2, 65536},
    {"vocab_size", TESS_FIELD_INT, AT(c.vocab_size), 1, 16777216},
    {"width", TESS_FIELD_INT, AT(c.width), 1, 65536},
    {"heads", TESS_FIELD_INT, AT(c.heads), 1, 1024},
    {"layers", TESS_FIELD_INT, AT(c.layers), 0, 1024},
    {"mlp_ratio", TESS_FIELD_REAL, AT(c.mlp_ratio), 0.01, 64},
    {"pool_type", TESS_FIELD_STRING, AT(c.pool_type), 0, 0},
    {"no_causal_mask", TESS_FIELD_BOOL, AT(c.no_causal_mask), 0, 0},
    {"pad_id", TESS_FIELD_INT, AT(c.pad_id), 0, 16777216},
    {"eos_id", TESS_FIELD_INT, AT(c.eos_id), 0, 16777216},
    {"proj_bias", TESS_FIELD_BOOL, AT(c.proj_bias), 0, 0},
    {"proj_type", TESS_FIELD_STRING, AT(c.proj_type), 0, 0},
    {"act_kwargs", TESS_FIELD_OBJECT, AT(act), 0, 0},
    {"norm_kwargs", TESS_FIELD_OBJECT, AT(norm), 0, 0},
    {"tokenizer_kwargs", TESS_FIELD_OBJECT, AT(tokenizer), 0, 0},
    {"hf_tokenizer_name", TESS_FIELD_STRING, AT(hf_tokenizer), 0, 0},
    {"hf_model_name", TESS_FIELD_STRING, AT(hf_model), 0, 0},
    {"hf_proj_type", TESS_FIELD_STRING, AT(hf_proj), 0, 0},
    {"hf_pooler_type", TESS_FIELD_STRING, AT(hf_pooler), 0, 0},
};
#undef AT
static const tess_inert_key text_inert[] = {
    BLOCK_INERT,
    {"embed_cls", "null|false"},
    {"final_ln_after_pool", NULL}, /* the same numbers: the layernorm acts on each row alone */
    {"tokenizer_mode", "null"},
    {"hf_model_pretrained", NULL},
    {"hf_model_config", "null"},
};

/* The directory, for what lies beside the config (NULL: nothing does), and where strings go. */
typedef struct place {
    const char *dir;
    tess_arena *arena;
} place;

/* ---- act_kwargs, norm_kwargs, tokenizer_kwargs --------------------------------------------- */

typedef struct kwargs {
    const char *approximate, *clean;
    double eps;
} kwargs;
static const tess_field act_fields[] = {
    {"approximate", TESS_FIELD_STRING, offsetof(kwargs, approximate), 0, 0}};
static const tess_field norm_fields[] = {{"eps", TESS_FIELD_REAL, offsetof(kwargs, eps), 1e-12, 1}};
static const tess_field tokenizer_fields[] = {
    {"clean", TESS_FIELD_STRING, offsetof(kwargs, clean), 0, 0}};
static const tess_inert_key tokenizer_inert[] = {{"strip_sep_token", "false"},
                                                 {"language", "null"}};

static tess_status read_act(const tess_json *obj, const char *name, tess_arena *arena,
                            const char **act)
{
    kwargs k = {.approximate = "none"};
    const char *where = tess_arena_format(arena, "%s.act_kwargs", name);
    TESS_TRY(where ? TESS_OK : TESS_NOMEM);
    TESS_TRY(tess_json_read_fields(obj, where, act_fields, TESS_COUNT(act_fields), arena, &k));
    if (strcmp(k.approximate, "none") == 0) {
        return TESS_OK;
    }
    if (strcmp(k.approximate, "tanh") != 0 || strcmp(*act, "gelu") != 0) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "%s.approximate: expected none, or tanh without quick_gelu, found \"%s\"",
                         where, k.approximate);
    }
    *act = "gelu_tanh";
    return TESS_OK;
}

static tess_status read_norm(const tess_json *obj, const char *name, tess_arena *arena, double *eps)
{
    kwargs k = {.eps = *eps};
    const char *where = tess_arena_format(arena, "%s.norm_kwargs", name);
    TESS_TRY(where ? TESS_OK : TESS_NOMEM);
    TESS_TRY(tess_json_read_fields(obj, where, norm_fields, TESS_COUNT(norm_fields), arena, &k));
    *eps = k.eps;
    return TESS_OK;
}

/* ---- towers -------------------------------------------------------------------------------- */

/* A trunk that the table does not know must say its sizes, in keys that OpenCLIP has and does not
 * read for timm's models. */
static tess_status describe_trunk(const vision_keys *k, const tess_json *obj, const char *name,
                                  tess_timm_trunk *out)
{
    static const char *const sizes[] = {"width", "layers", "head_width", "patch_size", "mlp_ratio"};
    for (int64_t i = 0; i < TESS_COUNT(sizes); i++) {
        if (tess_json_kind_of(tess_json_get(obj, sizes[i])) == TESS_JSON_NULL) {
            return TESS_FAIL(TESS_UNSUPPORTED,
                             "%s.timm_model_name: expected a vit_*_siglip_* that is known, or one "
                             "with width, layers, head_width, patch_size and mlp_ratio beside it, "
                             "found \"%s\" without %s",
                             name, k->timm_name, sizes[i]);
        }
    }
    *out = (tess_timm_trunk){.name = k->timm_name,
                             .width = k->c.width,
                             .layers = tess_json_int(k->layers, 0),
                             .heads = k->c.width / k->c.head_width,
                             .hidden = tess__vit_hidden(&k->c),
                             .patch_size = k->c.patch_size,
                             .image_size = k->c.image_size,
                             .act = "gelu"};
    bool siglip = strstr(k->timm_name, "_siglip_") && !strstr(k->timm_name, "_gap_");
    if (!siglip || out->layers < 1 || out->layers > 1024 || out->heads < 1) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "%s.timm_model_name: expected a vit_*_siglip_*, found \"%s\"", name,
                         k->timm_name);
    }
    return TESS_OK;
}

static tess_status read_trunk(const vision_keys *k, const tess_json *obj, const char *name,
                              tess_vit_config *c)
{
    tess_timm_trunk described;
    const tess_timm_trunk *t = tess__timm_find(k->timm_name);
    if (!t) {
        TESS_TRY(describe_trunk(k, obj, name, &described));
        t = &described;
    }
    if (strcmp(k->timm_pool, "map") != 0 || strcmp(k->timm_proj, "none") != 0) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "%s: expected timm_pool map and timm_proj none, found \"%s\" and \"%s\"",
                         name, k->timm_pool, k->timm_proj);
    }
    if (c->image_size != t->image_size) {
        return TESS_FAIL(TESS_INVALID, "%s.image_size: %s has %lld, found %lld", name, t->name,
                         (long long)t->image_size, (long long)c->image_size);
    }
    *c = (tess_vit_config){.image_size = t->image_size,
                           .patch_size = t->patch_size,
                           .width = t->width,
                           .layers = t->layers,
                           .head_width = t->width / t->heads,
                           .mlp_ratio = (double)t->hidden / (double)t->width,
                           .pool_type = "probe",
                           .act = t->act,
                           .no_ln_pre = true,
                           .eps = 1e-6,
                           .patch_bias = true,
                           .no_proj = true,
                           .hidden = t->hidden};
    return TESS_OK;
}

/* One number, or the same twice. */
static tess_status read_side(const tess_json *v, const char *name, int64_t *out)
{
    if (!v) {
        return TESS_OK;
    }
    bool pair = tess_json_count(v) == 2;
    int64_t side = tess_json_int(pair ? tess_json_at(v, 0) : v, 0);
    if (side < 1 || side > 4096 || (pair && tess_json_int(tess_json_at(v, 1), 0) != side)) {
        return TESS_FAIL(TESS_UNSUPPORTED, "%s.image_size: expected one side of 1..4096", name);
    }
    *out = side;
    return TESS_OK;
}

static tess_status read_vision(const tess_json *obj, const char *name, bool quick_gelu,
                               tess_arena *arena, tess_vit_config *out)
{
    vision_keys k = {.c = tess__vit_default(), .timm_pool = "avg", .timm_proj = "linear"};
    TESS_TRY(
        tess__config_read(obj, name, TESS_CONFIG_TABLE(vision_fields, vision_inert), arena, &k));
    TESS_TRY(read_side(k.image_size, name, &k.c.image_size));
    if (k.timm_name) {
        TESS_TRY(read_trunk(&k, obj, name, &k.c));
    } else {
        k.c.layers = k.layers ? tess_json_int(k.layers, 0) : k.c.layers;
        k.c.act = quick_gelu ? "quick_gelu" : "gelu";
        k.c.class_token = true;
        TESS_TRY(read_act(k.act, name, arena, &k.c.act));
        TESS_TRY(read_norm(k.norm, name, arena, &k.c.eps));
        bool known = strcmp(k.c.pool_type, "tok") == 0 || strcmp(k.c.pool_type, "avg") == 0;
        if (k.c.layers < 1 || k.c.layers > 1024 || !known) {
            return TESS_FAIL(TESS_UNSUPPORTED,
                             "%s: expected a number of layers and pool_type tok or avg, found %s",
                             name, known ? "a ResNet's layers" : k.c.pool_type);
        }
    }
    *out = k.c;
    return tess__vit_config_check(out, name);
}

/* Whose tokenizer, and how texts are cleaned for it. */
static tess_status read_tokenizer(const text_keys *k, const char *name, tess_arena *arena,
                                  tess_text_config *c)
{
    kwargs w = {.clean = k->hf_tokenizer ? "whitespace" : "open_clip"};
    const char *where = tess_arena_format(arena, "%s.tokenizer_kwargs", name);
    TESS_TRY(where ? TESS_OK : TESS_NOMEM);
    TESS_TRY(tess__config_read(k->tokenizer, where,
                               TESS_CONFIG_TABLE(tokenizer_fields, tokenizer_inert), arena, &w));
    c->text_mode = w.clean;
    c->tokenizer = "";
    return TESS_OK;
}

/* A key that is there and null says something else than its absence. */
static bool is_null(const tess_json *obj, const char *key)
{
    const tess_json *v = tess_json_get(obj, key);
    return v && tess_json_kind_of(v) == TESS_JSON_NULL;
}

static tess_status read_hf_text(text_keys *k, const tess_json *obj, const place *p,
                                const char *name, tess_model_config *c)
{
    const tess_hf_text t = {.model = k->hf_model,
                            .proj = is_null(obj, "hf_proj_type") ? NULL : k->hf_proj,
                            .pooler = is_null(obj, "hf_pooler_type") ? NULL : k->hf_pooler,
                            .context_length = k->c.context_length};
    TESS_TRY(read_tokenizer(k, name, p->arena, &k->c));
    TESS_TRY(
        tess__hf_text_read(&t, p->dir, name, c->embed_dim, p->arena, &k->c, &c->text_config_file));
    c->text = k->c;
    c->custom_text = true;
    return tess__text_config_check(&c->text, name);
}

static tess_status read_text(const tess_json *obj, const char *name, bool quick_gelu,
                             const place *p, tess_model_config *model)
{
    text_keys k = {.c = tess__text_default(), .hf_proj = "mlp", .hf_pooler = "mean_pooler"};
    tess_arena *arena = p->arena;
    tess_text_config *out = &model->text;
    TESS_TRY(tess__config_read(obj, name, TESS_CONFIG_TABLE(text_fields, text_inert), arena, &k));
    if (k.hf_model && *k.hf_model) {
        return read_hf_text(&k, obj, p, name, model);
    }
    k.c.act = quick_gelu ? "quick_gelu" : "gelu";
    TESS_TRY(read_act(k.act, name, arena, &k.c.act));
    TESS_TRY(read_norm(k.norm, name, arena, &k.c.eps));
    TESS_TRY(read_tokenizer(&k, name, arena, &k.c));
    bool last = strcmp(k.c.pool_type, "last") == 0, first = strcmp(k.c.pool_type, "first") == 0;
    bool end = strcmp(k.c.pool_type, "argmax") == 0 || strcmp(k.c.pool_type, "eos") == 0;
    k.c.pad_to_context = k.c.no_causal_mask || last;
    if ((!last && !first && !end) || (end && k.c.no_causal_mask)) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "%s.pool_type: expected first or last, or argmax or eos with a causal "
                         "mask, found \"%s\"%s",
                         name, k.c.pool_type, k.c.no_causal_mask ? " without one" : "");
    }
    *out = k.c;
    return tess__text_config_check(out, name);
}

/* ---- the whole ----------------------------------------------------------------------------- */

static tess_status read_model(const tess_json *obj, const char *name, const place *p,
                              tess_model_config *c)
{
    tess_arena *arena = p->arena;
    model_keys k = {.embed_dim = 512, .init_logit_scale = log(1 / 0.07), .init_logit_bias = NAN};
    TESS_TRY(tess__config_read(obj, name, TESS_CONFIG_TABLE(model_fields, model_inert), arena, &k));
    if (!k.vision || !k.text) {
        return TESS_FAIL(TESS_INVALID, "%s: expected vision_cfg and text_cfg", name);
    }
    *c = (tess_model_config){.embed_dim = k.embed_dim,
                             .init_logit_scale = k.init_logit_scale,
                             .has_logit_bias = !isnan(k.init_logit_bias),
                             .init_logit_bias = isnan(k.init_logit_bias) ? 0 : k.init_logit_bias,
                             .quick_gelu = k.quick_gelu,
                             .custom_text = k.custom_text};
    const char *vision = tess_arena_format(arena, "%s.vision_cfg", name);
    const char *text = tess_arena_format(arena, "%s.text_cfg", name);
    TESS_TRY(vision && text ? TESS_OK : TESS_NOMEM);
    TESS_TRY(read_vision(k.vision, vision, k.quick_gelu, arena, &c->vision));
    TESS_TRY(read_text(k.text, text, k.quick_gelu, p, c));
    if (c->vision.no_proj && c->vision.width != c->embed_dim) {
        return TESS_FAIL(TESS_INVALID, "%s.embed_dim: the image tower gives %lld, found %lld", name,
                         (long long)c->vision.width, (long long)c->embed_dim);
    }
    if (c->vision.no_proj && !c->custom_text) {
        return TESS_FAIL(TESS_UNSUPPORTED, "%s: a timm trunk is known with custom_text only", name);
    }
    c->objectives.image_text =
        (tess_objective){c->has_logit_bias ? TESS_OBJECTIVE_SIGMOID : TESS_OBJECTIVE_SOFTMAX, 1.0};
    return TESS_OK;
}

tess_status tess__openclip_read(const tess_json *root, const char *dir, const char *path,
                                tess_arena *arena, tess_model_config *c)
{
    const place p = {dir, arena};
    const char *name = tess_arena_format(arena, "%s: model_cfg", path);
    const char *preprocess = tess_arena_format(arena, "%s: preprocess_cfg", path);
    const tess_json *model = tess_json_get(root, "model_cfg");
    const tess_json *pixels = tess_json_get(root, "preprocess_cfg");
    TESS_TRY(name && preprocess ? TESS_OK : TESS_NOMEM);
    if (tess_json_kind_of(model) != TESS_JSON_OBJECT) {
        return TESS_FAIL(TESS_INVALID, "%s: expected an object with model_cfg", path);
    }
    TESS_TRY(read_model(model, name, &p, c));
    return tess__read_preprocess(pixels, preprocess, c);
}
