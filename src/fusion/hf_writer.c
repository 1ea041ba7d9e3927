/* SPDX-License-Identifier: Apache-2.0 */
/* Writing config.json and preprocessor_config.json for CLIPModel and SiglipModel, and only for
 * models that they are. */
#include "fusion/family.h"

#include <string.h>

static tess_status refuse(const char *what)
{
    return TESS_FAIL(TESS_UNSUPPORTED, "Hugging Face's layout cannot say %s", what);
}

static bool is(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

static const struct {
    const char *ours, *theirs;
} acts[] = {
    {"gelu", "gelu"},
    {"gelu_tanh", "gelu_pytorch_tanh"},
    {"quick_gelu", "quick_gelu"},
    {"relu", "relu"},
    {"silu", "silu"},
};

static const char *act_name(const char *ours)
{
    for (int64_t i = 0; i < TESS_COUNT(acts); i++) {
        if (is(acts[i].ours, ours)) {
            return acts[i].theirs;
        }
    }
    return ours;
}

static void add_int(tess_json_writer *w, const char *key, int64_t v)
{
    tess_json_key(w, key);
    tess_json_add_int(w, v);
}

static void add_real(tess_json_writer *w, const char *key, double v)
{
    tess_json_key(w, key);
    tess_json_add_real(w, v);
}

static void add_string(tess_json_writer *w, const char *key, const char *v)
{
    tess_json_key(w, key);
    tess_json_add_string(w, v);
}

static tess_status check_siglip(const tess_model_config *c)
{
    const tess_vit_config *v = &c->vision;
    const tess_text_config *t = &c->text;
    if (!v->patch_bias || !v->no_proj || !v->no_ln_pre || !c->has_logit_bias) {
        return refuse("a probe-pooled image tower that is not SigLIP's in its other parts");
    }
    if (!t->pad_to_context || !t->no_causal_mask || !is(t->pool_type, "last") || !t->proj_bias) {
        return refuse("a SigLIP image tower with a text tower of another kind");
    }
    return TESS_OK;
}

static tess_status check_clip(const tess_model_config *c)
{
    const tess_vit_config *v = &c->vision;
    const tess_text_config *t = &c->text;
    bool end = is(t->pool_type, "argmax") || is(t->pool_type, "eos") || is(t->pool_type, "last");
    if (!is(v->pool_type, "tok") || v->patch_bias || v->no_proj || v->no_ln_pre) {
        return refuse("this image tower: CLIPModel has a class token, pooling tok and ln_pre");
    }
    if (t->no_causal_mask || t->pad_to_context || !end || t->proj_bias) {
        return refuse("this text tower: CLIPModel has a causal mask and pools at the end token");
    }
    return c->has_logit_bias ? refuse("a CLIP with a logit bias") : TESS_OK;
}

static tess_status check(const tess_model_config *c, bool siglip)
{
    if (c->text.bert || (c->text.proj_type && !is(c->text.proj_type, "linear"))) {
        return refuse("this text tower: expected a transformer with a projection");
    }
    if (c->objectives.text_text.weight > 0) {
        return refuse("a scale of its own for texts with texts (objective text_text)");
    }
    return siglip ? check_siglip(c) : check_clip(c);
}

static void write_text(const tess_model_config *c, bool siglip, tess_json_writer *w)
{
    const tess_text_config *t = &c->text;
    int64_t hidden = t->hidden > 0 ? t->hidden : (int64_t)((double)t->width * t->mlp_ratio);
    tess_json_begin_object(w);
    add_string(w, "model_type", siglip ? "siglip_text_model" : "clip_text_model");
    add_int(w, "hidden_size", t->width);
    add_int(w, "intermediate_size", hidden);
    add_int(w, "num_hidden_layers", t->layers);
    add_int(w, "num_attention_heads", t->heads);
    add_int(w, "max_position_embeddings", t->context_length);
    add_int(w, "vocab_size", t->vocab_size);
    add_string(w, "hidden_act", act_name(t->act));
    add_real(w, "layer_norm_eps", t->eps);
    add_int(w, "pad_token_id", t->pad_id);
    add_int(w, "eos_token_id", t->eos_id);
    add_int(w, siglip ? "projection_size" : "projection_dim", c->embed_dim);
    tess_json_end_object(w);
}

static void write_vision(const tess_model_config *c, bool siglip, tess_json_writer *w)
{
    const tess_vit_config *v = &c->vision;
    tess_json_begin_object(w);
    add_string(w, "model_type", siglip ? "siglip_vision_model" : "clip_vision_model");
    add_int(w, "hidden_size", v->width);
    add_int(w, "intermediate_size", tess__vit_hidden(v));
    add_int(w, "num_hidden_layers", v->layers);
    add_int(w, "num_attention_heads", v->width / v->head_width);
    add_int(w, "image_size", v->image_size);
    add_int(w, "patch_size", v->patch_size);
    add_string(w, "hidden_act", act_name(v->act));
    add_real(w, "layer_norm_eps", v->eps);
    if (!siglip) {
        add_int(w, "projection_dim", c->embed_dim);
    }
    tess_json_end_object(w);
}

tess_status tess__hf_write(const tess_model_config *c, tess_buf *out)
{
    bool siglip = is(c->vision.pool_type, "probe");
    tess_json_writer w = {.buf = out, .pretty = true};
    TESS_TRY(check(c, siglip));
    tess_json_begin_object(&w);
    tess_json_key(&w, "architectures");
    tess_json_begin_array(&w);
    tess_json_add_string(&w, siglip ? "SiglipModel" : "CLIPModel");
    tess_json_end_array(&w);
    add_string(&w, "model_type", siglip ? "siglip" : "clip");
    if (!siglip) {
        add_int(&w, "projection_dim", c->embed_dim);
        add_real(&w, "logit_scale_init_value", c->init_logit_scale);
    }
    tess_json_key(&w, "text_config");
    write_text(c, siglip, &w);
    tess_json_key(&w, "vision_config");
    write_vision(c, siglip, &w);
    tess_json_end_object(&w);
    tess_buf_adds(out, "\n");
    return tess_buf_check(out);
}

/* ---- pixels -------------------------------------------------------------------------------- */

static void add_flag(tess_json_writer *w, const char *key, bool v)
{
    tess_json_key(w, key);
    tess_json_add_bool(w, v);
}

static void add_square(tess_json_writer *w, const char *key, int64_t side)
{
    tess_json_key(w, key);
    tess_json_begin_object(w);
    add_int(w, "height", side);
    add_int(w, "width", side);
    tess_json_end_object(w);
}

static void add_reals(tess_json_writer *w, const char *key, const double v[3])
{
    tess_json_key(w, key);
    tess_json_begin_array(w);
    for (int i = 0; i < 3; i++) {
        tess_json_add_real(w, v[i]);
    }
    tess_json_end_array(w);
}

tess_status tess__hf_write_preprocess(const tess_model_config *c, tess_buf *out)
{
    const tess_preprocess *p = &c->preprocess;
    bool siglip = is(c->vision.pool_type, "probe"), crop = p->resize_mode == TESS_RESIZE_SHORTEST;
    tess_json_writer w = {.buf = out, .pretty = true};
    if (p->resize_mode == TESS_RESIZE_LONGEST) {
        return refuse("resize_mode longest");
    }
    tess_json_begin_object(&w);
    add_string(&w, "image_processor_type", siglip ? "SiglipImageProcessor" : "CLIPImageProcessor");
    add_flag(&w, "do_resize", true);
    if (crop) {
        tess_json_key(&w, "size");
        tess_json_begin_object(&w);
        add_int(&w, "shortest_edge", p->width);
        tess_json_end_object(&w);
        add_square(&w, "crop_size", p->width);
    } else {
        add_square(&w, "size", p->width);
    }
    add_flag(&w, "do_center_crop", crop);
    add_int(&w, "resample", p->interpolation == TESS_BICUBIC ? 3 : 2);
    add_flag(&w, "do_rescale", true);
    add_real(&w, "rescale_factor", 1.0 / 255);
    add_flag(&w, "do_normalize", true);
    add_reals(&w, "image_mean", p->mean);
    add_reals(&w, "image_std", p->std);
    add_flag(&w, "do_convert_rgb", true);
    tess_json_end_object(&w);
    tess_buf_adds(out, "\n");
    return tess_buf_check(out);
}
