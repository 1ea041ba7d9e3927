/* SPDX-License-Identifier: Apache-2.0 */
/* Writing open_clip_config.json as OpenCLIP reads it: its keys alone, and only models that its
 * towers are. */
#include "fusion/family.h"
#include "fusion/hf_text.h"

#include <string.h>

static tess_status refuse(const char *what)
{
    return TESS_FAIL(TESS_UNSUPPORTED, "OpenCLIP's layout cannot say %s", what);
}

static bool is(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

/* A ratio that OpenCLIP's int(width * ratio) makes this width of; 0: there is none. */
static double ratio_for(int64_t width, int64_t hidden)
{
    double ratio = (double)hidden / (double)width;
    for (int i = 0; i < 2; i++) {
        if ((int64_t)((double)width * ratio) == hidden) {
            return ratio;
        }
        ratio = ((double)hidden + 0.5) / (double)width;
    }
    return 0;
}

static void add_int(tess_json_writer *w, const char *key, int64_t v)
{
    tess_json_key(w, key);
    tess_json_add_int(w, v);
}

static void add_bool(tess_json_writer *w, const char *key, bool v)
{
    tess_json_key(w, key);
    tess_json_add_bool(w, v);
}

static void add_string(tess_json_writer *w, const char *key, const char *v)
{
    tess_json_key(w, key);
    tess_json_add_string(w, v);
}

/* act_kwargs and norm_kwargs, where they are not the defaults. */
static void add_kwargs(tess_json_writer *w, const char *act, double eps)
{
    if (is(act, "gelu_tanh")) {
        tess_json_key(w, "act_kwargs");
        tess_json_begin_object(w);
        add_string(w, "approximate", "tanh");
        tess_json_end_object(w);
    }
    if (eps != 1e-5) {
        tess_json_key(w, "norm_kwargs");
        tess_json_begin_object(w);
        tess_json_key(w, "eps");
        tess_json_add_real(w, eps);
        tess_json_end_object(w);
    }
}

static tess_status write_trunk(const tess_vit_config *c, tess_json_writer *w)
{
    const tess_timm_trunk *t = tess__timm_match(c);
    if (!t || c->eps != 1e-6 || !c->no_ln_pre || !c->no_proj || !c->patch_bias) {
        return refuse("this image tower: no timm model of the SigLIP family has its sizes, "
                      "activation and parts");
    }
    tess_json_begin_object(w);
    add_int(w, "image_size", c->image_size);
    add_string(w, "timm_model_name", t->name);
    add_bool(w, "timm_model_pretrained", false);
    add_string(w, "timm_pool", "map");
    add_string(w, "timm_proj", "none");
    tess_json_end_object(w);
    return TESS_OK;
}

static tess_status write_vision(const tess_vit_config *c, tess_json_writer *w)
{
    if (is(c->pool_type, "probe")) {
        return write_trunk(c, w);
    }
    double ratio = ratio_for(c->width, tess__vit_hidden(c));
    if (!c->class_token || is(c->pool_type, "map")) {
        return refuse("an image tower without a class token, or Tessera's own map pooling");
    }
    if (c->patch_bias || c->no_proj || ratio <= 0) {
        return refuse("a patch embedding with a bias, or an image tower without a projection");
    }
    tess_json_begin_object(w);
    add_int(w, "image_size", c->image_size);
    add_int(w, "layers", c->layers);
    add_int(w, "width", c->width);
    add_int(w, "head_width", c->head_width);
    add_int(w, "patch_size", c->patch_size);
    tess_json_key(w, "mlp_ratio");
    tess_json_add_real(w, ratio);
    add_bool(w, "no_ln_pre", c->no_ln_pre);
    add_bool(w, "final_ln_after_pool", c->final_ln_after_pool);
    add_string(w, "pool_type", c->pool_type);
    add_kwargs(w, c->act, c->eps);
    tess_json_end_object(w);
    return TESS_OK;
}

/* OpenCLIP's name of the pooling; NULL: none. */
static const char *pool_name(const tess_text_config *c)
{
    bool end = is(c->pool_type, "argmax") || is(c->pool_type, "eos");
    if (c->pad_to_context) {
        return is(c->pool_type, "last") || is(c->pool_type, "first") ? c->pool_type : NULL;
    }
    if (c->no_causal_mask) {
        return NULL;
    }
    /* Without padding the last token is the end. */
    return end || is(c->pool_type, "first") ? c->pool_type
           : is(c->pool_type, "last")       ? "eos"
                                            : NULL;
}

/* Whose tokenizer, and how texts are cleaned for it. */
static void add_tokenizer(const tess_text_config *c, tess_json_writer *w)
{
    if (is(c->text_mode ? c->text_mode : "clean", "open_clip")) {
        return;
    }
    add_string(w, "hf_tokenizer_name", ".");
    tess_json_key(w, "tokenizer_kwargs");
    tess_json_begin_object(w);
    bool cleaned = !tess__text_is_clean(c) && !is(c->text_mode, "raw");
    add_string(w, "clean", cleaned ? c->text_mode : "whitespace");
    tess_json_end_object(w);
}

static tess_status write_hf_text(const tess_text_config *c, tess_json_writer *w)
{
    tess_json_begin_object(w);
    TESS_TRY(tess__hf_text_write(c, w));
    add_tokenizer(c, w);
    tess_json_end_object(w);
    return TESS_OK;
}

static tess_status write_text(const tess_text_config *c, tess_json_writer *w)
{
    if (c->bert) {
        return write_hf_text(c, w);
    }
    double ratio =
        ratio_for(c->width, c->hidden > 0 ? c->hidden : (int64_t)((double)c->width * c->mlp_ratio));
    const char *pool = pool_name(c);
    if (!pool || ratio <= 0) {
        return refuse("a text tower that looks both ways without attending to its padding, or "
                      "Tessera's own mean pooling");
    }
    tess_json_begin_object(w);
    add_int(w, "context_length", c->context_length);
    add_int(w, "vocab_size", c->vocab_size);
    add_int(w, "width", c->width);
    add_int(w, "heads", c->heads);
    add_int(w, "layers", c->layers);
    tess_json_key(w, "mlp_ratio");
    tess_json_add_real(w, ratio);
    add_string(w, "pool_type", pool);
    add_bool(w, "no_causal_mask", c->no_causal_mask);
    add_int(w, "pad_id", c->pad_id);
    add_int(w, "eos_id", c->eos_id);
    add_bool(w, "proj_bias", c->proj_bias);
    add_string(w, "proj_type", c->proj_type ? c->proj_type : "linear");
    add_tokenizer(c, w);
    add_kwargs(w, c->act, c->eps);
    tess_json_end_object(w);
    return TESS_OK;
}

/* model_cfg.quick_gelu; a text tower of transformers has its own say. */
static bool wants_quick(const tess_model_config *c)
{
    return is(c->text.bert ? c->vision.act : c->text.act, "quick_gelu");
}

/* gelu and its tanh form are each tower's own; the quick one and no other is both towers'. */
static tess_status check_acts(const tess_model_config *c)
{
    const char *acts[] = {c->vision.act, c->text.act};
    bool trunk = is(c->vision.pool_type, "probe");
    bool quick = wants_quick(c);
    for (int i = trunk ? 1 : 0; i < (c->text.bert ? 1 : 2); i++) {
        bool known = is(acts[i], "gelu") || is(acts[i], "gelu_tanh");
        if (quick ? !is(acts[i], "quick_gelu") : !known) {
            return refuse("these activations: both towers quick_gelu, or each gelu or gelu_tanh");
        }
    }
    return TESS_OK;
}

static tess_status write_model(const tess_model_config *c, tess_json_writer *w)
{
    bool trunk = is(c->vision.pool_type, "probe");
    tess_json_begin_object(w);
    add_int(w, "embed_dim", c->embed_dim);
    tess_json_key(w, "init_logit_scale");
    tess_json_add_real(w, c->init_logit_scale);
    if (c->has_logit_bias) {
        tess_json_key(w, "init_logit_bias");
        tess_json_add_real(w, c->init_logit_bias);
    }
    add_bool(w, "quick_gelu", wants_quick(c));
    add_bool(w, "custom_text", trunk || c->text.bert || c->custom_text);
    tess_json_key(w, "vision_cfg");
    TESS_TRY(write_vision(&c->vision, w));
    tess_json_key(w, "text_cfg");
    TESS_TRY(write_text(&c->text, w));
    tess_json_end_object(w);
    return TESS_OK;
}

static tess_status add_preprocess(const tess_model_config *c, tess_json_writer *w)
{
    tess_buf text = {0};
    tess_json_doc *doc = NULL;
    tess_preprocess_write(&c->preprocess, &text);
    tess_status st = tess_buf_check(&text);
    st = st ? st : tess_json_parse(text.data, text.n_bytes, "preprocess_cfg", &doc);
    if (st == TESS_OK) {
        tess_json_add_value(w, tess_json_root(doc));
    }
    tess_json_free(doc);
    tess_buf_deinit(&text);
    return st;
}

tess_status tess__openclip_write(const tess_model_config *c, tess_buf *out)
{
    tess_json_writer w = {.buf = out, .pretty = true};
    TESS_TRY(check_acts(c));
    tess_json_begin_object(&w);
    tess_json_key(&w, "model_cfg");
    TESS_TRY(write_model(c, &w));
    tess_json_key(&w, "preprocess_cfg");
    TESS_TRY(add_preprocess(c, &w));
    tess_json_end_object(&w);
    tess_buf_adds(out, "\n");
    return tess_buf_check(out);
}
