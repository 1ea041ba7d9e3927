/* SPDX-License-Identifier: Apache-2.0 */
/* Reading Hugging Face's config.json of model_type clip and siglip.
 *
 * SigLIP 2 at fixed resolution says siglip too; siglip2 is the model for pictures of any shape
 * (NaFlex), which is another one.  Configs from before transformers 4.30 repeat the towers under
 * text_config_dict and vision_config_dict, which then decide, as they do there. */
#include "fusion/config_keys.h"
#include "fusion/family.h"

#include <math.h>
#include <string.h>

/* ---- keys ---------------------------------------------------------------------------------- */

/* Keys of any Hugging Face config that say how to generate text, to train, or nothing at all. */
#define COMMON_INERT                                                                               \
    {"_name_or_path", NULL}, {"_commit_hash", NULL}, {"_attn_implementation_autoset", NULL},       \
        {"_attn_implementation", NULL}, {"add_cross_attention", "false|null"},                     \
        {"architectures", NULL}, {"attention_dropout", NULL}, {"attn_implementation", NULL},       \
        {"bad_words_ids", NULL}, {"begin_suppress_tokens", NULL}, {"bos_token_id", NULL},          \
        {"chunk_size_feed_forward", NULL}, {"cross_attention_hidden_size", "null"},                \
        {"decoder_start_token_id", NULL}, {"diversity_penalty", NULL}, {"do_sample", NULL},        \
        {"dropout", NULL}, {"dtype", NULL}, {"early_stopping", NULL},                              \
        {"encoder_no_repeat_ngram_size", NULL}, {"exponential_decay_length_penalty", NULL},        \
        {"finetuning_task", NULL}, {"forced_bos_token_id", NULL}, {"forced_eos_token_id", NULL},   \
        {"gradient_checkpointing", NULL}, {"id2label", NULL}, {"initializer_factor", NULL},        \
        {"initializer_range", NULL}, {"is_composition", NULL}, {"is_decoder", "false|null"},       \
        {"is_encoder_decoder", "false|null"}, {"label2id", NULL}, {"length_penalty", NULL},        \
        {"max_length", NULL}, {"min_length", NULL}, {"no_repeat_ngram_size", NULL},                \
        {"num_beam_groups", NULL}, {"num_beams", NULL}, {"num_return_sequences", NULL},            \
        {"output_attentions", NULL}, {"output_hidden_states", NULL}, {"output_scores", NULL},      \
        {"prefix", NULL}, {"problem_type", NULL}, {"pruned_heads", "{}|null"},                     \
        {"remove_invalid_values", NULL}, {"repetition_penalty", NULL}, {"return_dict", NULL},      \
        {"return_dict_in_generate", NULL}, {"sep_token_id", NULL}, {"suppress_tokens", NULL},      \
        {"task_specific_params", NULL}, {"temperature", NULL}, {"tf_legacy_loss", NULL},           \
        {"tie_encoder_decoder", "false|null"}, {"tie_word_embeddings", NULL},                      \
        {"tokenizer_class", NULL}, {"top_k", NULL}, {"top_p", NULL}, {"torch_dtype", NULL},        \
        {"torchscript", NULL}, {"transformers_version", NULL}, {"typical_p", NULL},                \
        {"use_bfloat16", NULL}, {"use_cache", NULL},                                               \
    {                                                                                              \
        "use_return_dict", NULL                                                                    \
    }

typedef struct top_keys {
    const char *model_type;
    int64_t projection_dim;
    double logit_scale;
    const tess_json *text, *vision, *old_text, *old_vision;
} top_keys;
static const tess_field top_fields[] = {
    {"model_type", TESS_FIELD_STRING, offsetof(top_keys, model_type), 0, 0},
    {"projection_dim", TESS_FIELD_INT, offsetof(top_keys, projection_dim), 1, 65536},
    {"logit_scale_init_value", TESS_FIELD_REAL, offsetof(top_keys, logit_scale), -20, 20},
    {"text_config", TESS_FIELD_OBJECT, offsetof(top_keys, text), 0, 0},
    {"vision_config", TESS_FIELD_OBJECT, offsetof(top_keys, vision), 0, 0},
    {"text_config_dict", TESS_FIELD_OBJECT, offsetof(top_keys, old_text), 0, 0},
    {"vision_config_dict", TESS_FIELD_OBJECT, offsetof(top_keys, old_vision), 0, 0},
};
static const tess_inert_key top_inert[] = {
    COMMON_INERT, {"eos_token_id", NULL}, {"pad_token_id", NULL}};

/* Of one tower. */
typedef struct tower_keys {
    int64_t width, hidden, layers, heads, image_size, patch_size, positions, vocab, pad, projection;
    const tess_json *eos;
    const char *act;
    double eps;
} tower_keys;
#define AT(field) offsetof(tower_keys, field)
#define TOWER_FIELDS                                                                               \
    {"hidden_size", TESS_FIELD_INT, AT(width), 1, 65536},                                          \
        {"intermediate_size", TESS_FIELD_INT, AT(hidden), 1, 1048576},                             \
        {"num_hidden_layers", TESS_FIELD_INT, AT(layers), 1, 1024},                                \
        {"num_attention_heads", TESS_FIELD_INT, AT(heads), 1, 1024},                               \
        {"hidden_act", TESS_FIELD_STRING, AT(act), 0, 0},                                          \
    {                                                                                              \
        "layer_norm_eps", TESS_FIELD_REAL, AT(eps), 1e-12, 1                                       \
    }
static const tess_field vision_fields[] = {
    TOWER_FIELDS,
    {"image_size", TESS_FIELD_INT, AT(image_size), 1, 4096},
    {"patch_size", TESS_FIELD_INT, AT(patch_size), 1, 1024},
};
static const tess_inert_key vision_inert[] = {
    COMMON_INERT,
    {"model_type", "clip_vision_model|siglip_vision_model"},
    {"num_channels", "3"},
    {"vision_use_head", "true"},
    {"projection_dim", NULL}, /* the model's own decides */
    {"eos_token_id", NULL},
    {"pad_token_id", NULL},
};
static const tess_field text_fields[] = {
    TOWER_FIELDS,
    {"max_position_embeddings", TESS_FIELD_INT, AT(positions), 2, 65536},
    {"vocab_size", TESS_FIELD_INT, AT(vocab), 1, 16777216},
    {"pad_token_id", TESS_FIELD_INT, AT(pad), 0, 16777216},
    {"eos_token_id", TESS_FIELD_VALUE, AT(eos), 0, 0},
    {"projection_size", TESS_FIELD_INT, AT(projection), 1, 65536},
};
#undef AT
static const tess_inert_key text_inert[] = {
    COMMON_INERT,
    {"model_type", "clip_text_model|siglip_text_model"},
    {"projection_dim", NULL},
};

/* ---- activations --------------------------------------------------------------------------- */

static const struct {
    const char *theirs, *ours;
} acts[] = {
    {"gelu", "gelu"},          {"gelu_pytorch_tanh", "gelu_tanh"},
    {"gelu_new", "gelu_tanh"}, {"quick_gelu", "quick_gelu"},
    {"relu", "relu"},          {"silu", "silu"},
    {"swish", "silu"},
};

static tess_status find_act(const char *name, const char *theirs, const char **ours)
{
    for (int64_t i = 0; i < TESS_COUNT(acts); i++) {
        if (strcmp(acts[i].theirs, theirs) == 0) {
            *ours = acts[i].ours;
            return TESS_OK;
        }
    }
    return TESS_FAIL(TESS_UNSUPPORTED,
                     "%s.hidden_act: expected gelu, gelu_pytorch_tanh, gelu_new, quick_gelu, relu "
                     "or silu, found \"%s\"",
                     name, theirs);
}

/* ---- towers -------------------------------------------------------------------------------- */

/* What a config that leaves keys out means: the defaults of the config classes. */
static const struct model_type {
    const char *name;
    bool siglip;
    tower_keys text, vision;
} types[] = {
    {"clip",
     false,
     {512, 2048, 12, 8, 0, 0, 77, 49408, 1, 0, NULL, "quick_gelu", 1e-5},
     {768, 3072, 12, 12, 224, 32, 0, 0, 0, 0, NULL, "quick_gelu", 1e-5}},
    {"siglip",
     true,
     {768, 3072, 12, 12, 0, 0, 64, 32000, 1, 0, NULL, "gelu_pytorch_tanh", 1e-6},
     {768, 3072, 12, 12, 224, 16, 0, 0, 0, 0, NULL, "gelu_pytorch_tanh", 1e-6}},
};

static const struct model_type *find_type(const char *name)
{
    for (int64_t i = 0; name && i < TESS_COUNT(types); i++) {
        if (strcmp(types[i].name, name) == 0) {
            return &types[i];
        }
    }
    return NULL;
}

static tess_status check_heads(const tower_keys *k, const char *name)
{
    if (k->width % k->heads != 0) {
        return TESS_FAIL(TESS_INVALID, "%s: hidden_size %lld is no multiple of the %lld heads",
                         name, (long long)k->width, (long long)k->heads);
    }
    return TESS_OK;
}

static tess_status read_vision(const tess_json *obj, const char *name, const struct model_type *t,
                               tess_arena *arena, tess_vit_config *out)
{
    tower_keys k = t->vision;
    TESS_TRY(
        tess__config_read(obj, name, TESS_CONFIG_TABLE(vision_fields, vision_inert), arena, &k));
    TESS_TRY(check_heads(&k, name));
    *out = (tess_vit_config){.image_size = k.image_size,
                             .patch_size = k.patch_size,
                             .width = k.width,
                             .layers = k.layers,
                             .head_width = k.width / k.heads,
                             .mlp_ratio = (double)k.hidden / (double)k.width,
                             .pool_type = t->siglip ? "probe" : "tok",
                             .no_ln_pre = t->siglip,
                             .eps = k.eps,
                             .class_token = !t->siglip,
                             .patch_bias = t->siglip,
                             .no_proj = t->siglip,
                             .hidden = k.hidden};
    TESS_TRY(find_act(name, k.act, &out->act));
    return tess__vit_config_check(out, name);
}

static tess_status read_text(const tess_json *obj, const char *name, const struct model_type *t,
                             tess_arena *arena, tess_text_config *out, int64_t *projection)
{
    tower_keys k = t->text;
    TESS_TRY(tess__config_read(obj, name, TESS_CONFIG_TABLE(text_fields, text_inert), arena, &k));
    TESS_TRY(check_heads(&k, name));
    /* 2 is what CLIP's configs said before they said the truth: the highest id decides then. */
    int64_t eos = k.eos ? tess_json_int(k.eos, -1) : 49407;
    if (!t->siglip && (eos < 0 || (eos != 2 && eos >= k.vocab))) {
        return TESS_FAIL(TESS_UNSUPPORTED, "%s.eos_token_id: expected one id below vocab_size %lld",
                         name, (long long)k.vocab);
    }
    *projection = k.projection ? k.projection : k.width;
    *out = (tess_text_config){.context_length = k.positions,
                              .vocab_size = k.vocab,
                              .width = k.width,
                              .heads = k.heads,
                              .layers = k.layers,
                              .mlp_ratio = (double)k.hidden / (double)k.width,
                              .pool_type = t->siglip  ? "last"
                                           : eos == 2 ? "argmax"
                                                      : "eos",
                              .no_causal_mask = t->siglip,
                              .pad_id = k.pad,
                              .eos_id = eos,
                              .tokenizer = "",
                              .eps = k.eps,
                              .pad_to_context = t->siglip,
                              .text_mode = "raw",
                              .proj_bias = t->siglip,
                              .proj_type = "linear",
                              .hidden = k.hidden};
    TESS_TRY(find_act(name, k.act, &out->act));
    return tess__text_config_check(out, name);
}

static tess_status check_type(const char *found, const char *path)
{
    if (find_type(found)) {
        return TESS_OK;
    }
    return TESS_FAIL(TESS_UNSUPPORTED, "%s: model_type: expected clip or siglip, found \"%s\"%s",
                     path, found ? found : "",
                     found && strcmp(found, "siglip2") == 0
                         ? " (NaFlex; SigLIP 2 at fixed resolution says siglip)"
                         : "");
}

tess_status tess__hf_read(const tess_json *root, const char *path, tess_arena *arena,
                          tess_model_config *c)
{
    top_keys k = {.projection_dim = 512, .logit_scale = 2.6592};
    const char *vision = tess_arena_format(arena, "%s: vision_config", path);
    const char *text = tess_arena_format(arena, "%s: text_config", path);
    TESS_TRY(vision && text ? TESS_OK : TESS_NOMEM);
    TESS_TRY(check_type(tess_json_string(tess_json_get(root, "model_type"), NULL), path));
    TESS_TRY(tess__config_read(root, path, TESS_CONFIG_TABLE(top_fields, top_inert), arena, &k));
    const struct model_type *t = find_type(k.model_type);
    int64_t text_dim = 0;
    *c = (tess_model_config){.has_logit_bias = t->siglip, .quick_gelu = false};
    TESS_TRY(read_vision(k.old_vision ? k.old_vision : k.vision, vision, t, arena, &c->vision));
    TESS_TRY(read_text(k.old_text ? k.old_text : k.text, text, t, arena, &c->text, &text_dim));
    c->embed_dim = t->siglip ? c->vision.width : k.projection_dim;
    c->init_logit_scale = t->siglip ? log(10) : k.logit_scale;
    c->init_logit_bias = t->siglip ? -10 : 0;
    if (t->siglip && text_dim != c->embed_dim) {
        return TESS_FAIL(TESS_INVALID, "%s.projection_size: the image tower gives %lld, found %lld",
                         text, (long long)c->embed_dim, (long long)text_dim);
    }
    c->objectives.image_text =
        (tess_objective){t->siglip ? TESS_OBJECTIVE_SIGMOID : TESS_OBJECTIVE_SOFTMAX, 1.0};
    return TESS_OK;
}
