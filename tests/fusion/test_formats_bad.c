/* SPDX-License-Identifier: Apache-2.0 */
/* Directories of other programs that are damaged, or that say what this program does not compute:
 * each is refused by the name of what is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fusion_fixture.h"

#define FORMATS "tests/fixtures/formats/"

/* ---- a copy to damage ---------------------------------------------------------------------- */

static void copy_dir(const char *family)
{
    tess_names names = {0};
    char *from = tess_format(FORMATS "%s", family);
    ok(tess_dir_remove(fixture_at("m")));
    ok(tess_dir_make(fixture_at("m")));
    ok(tess_dir_list(from, true, &names));
    for (size_t i = 0; i < names.n_names; i++) {
        uint8_t *data;
        size_t n;
        char *path = tess_format("%s/%s", from, names.names[i]);
        char *to = tess_format("m/%s", names.names[i]);
        const char *slash = strrchr(to, '/');
        char *folder = tess_strndup(to, (size_t)(slash - to));
        ok(tess_dir_make(fixture_at(folder)));
        tess_free(folder);
        ok(tess_file_read(path, 1 << 24, &data, &n));
        ok(tess_file_write(fixture_at(to), data, n));
        tess_free(data);
        tess_free(path);
        tess_free(to);
    }
    tess_names_deinit(&names);
    tess_free(from);
}

static void replace(const char *file, const char *from, const char *to)
{
    uint8_t *text;
    size_t n;
    char *name = tess_format("m/%s", file);
    ok(tess_file_read(fixture_at(name), 1 << 20, &text, &n));
    char *at = strstr((char *)text, from);
    if (!at) {
        fail_msg("%s has no %s", file, from);
    }
    char *changed =
        tess_format("%.*s%s%s", (int)(at - (char *)text), (char *)text, to, at + strlen(from));
    ok(tess_file_write(fixture_at(name), changed, strlen(changed)));
    tess_free(changed);
    tess_free(text);
    tess_free(name);
}

static void assert_refused(tess_status status, const char *message)
{
    tess_model *m = NULL;
    assert_fails(tess_model_open(fixture_at("m"), TESS_PRECISION_F32, &m), status, message);
    assert_null(m);
}

/* ---- configs ------------------------------------------------------------------------------- */

#define OPENCLIP "open_clip_config.json"
static const struct {
    const char *family, *file, *from, *to;
    tess_status status;
    const char *message;
} bad[] = {
    {"openclip_tok", OPENCLIP, "\"embed_dim\"", "\"frobnicate\": 1, \"embed_dim\"",
     TESS_UNSUPPORTED, "model_cfg.frobnicate: an unknown key"},
    {"openclip_tok", OPENCLIP, "\"width\": 32", "\"width\": 32, \"pool_type\": \"rot\"",
     TESS_UNSUPPORTED, "vision_cfg: expected a number of layers and pool_type tok or avg"},
    {"openclip_tok", OPENCLIP, "\"width\": 32", "\"width\": 32, \"qk_norm\": true",
     TESS_UNSUPPORTED, "vision_cfg.qk_norm: expected null|false, found true"},
    {"openclip_tok", OPENCLIP, "\"width\": 32", "\"width\": 32, \"pos_embed_type\": \"sin_cos_2d\"",
     TESS_UNSUPPORTED, "vision_cfg.pos_embed_type: expected learnable"},
    {"openclip_tok", OPENCLIP, "\"width\": 32", "\"width\": 32, \"layers\": [3, 4, 6, 3]",
     TESS_FORMAT, "duplicate"},
    {"openclip_tok", OPENCLIP, "\"width\": 24", "\"width\": 24, \"embed_cls\": true",
     TESS_UNSUPPORTED, "text_cfg.embed_cls"},
    {"openclip_tok", OPENCLIP, "\"width\": 24", "\"width\": 24, \"hf_model_name\": \"gpt2\"",
     TESS_UNSUPPORTED, "gpt2"},
    {"openclip_xlmr", OPENCLIP, "mean_pooler", "max_pooler", TESS_UNSUPPORTED,
     "text_cfg.hf_pooler_type: expected mean_pooler, cls_pooler or"},
    {"openclip_bert", OPENCLIP, "\"linear\"", "\"conv\"", TESS_UNSUPPORTED,
     "text_cfg.hf_proj_type: expected linear, mlp, none or null, found \"conv\""},
    {"openclip_bert", OPENCLIP, "\"linear\"", "null", TESS_INVALID,
     "without a projection the text tower gives 24, but embed_dim is 32"},
    {"openclip_bert", OPENCLIP, "\"linear\"", "\"mlp\"", TESS_FORMAT,
     "missing text.proj.0.weight, missing text.proj.2.weight, unexpected text.proj.weight"},
    {"openclip_bert", OPENCLIP, "\"cls_pooler\"", "\"mean_pooler\", \"frob\": 1", TESS_UNSUPPORTED,
     "text_cfg.frob: an unknown key"},
    {"openclip_xlmr", OPENCLIP, "mean_pooler", "cls_pooler", TESS_FORMAT,
     "missing text.transformer.pooler.dense.weight"},
    {"openclip_xlmr", "text/config.json", "\"vocab_size\": 47", "\"vocab_size\": 46", TESS_INVALID,
     "the tokenizer has 47 pieces, but the text tower embeds 46"},
    {"openclip_xlmr", "text/config.json", "\"hidden_act\": \"gelu\"", "\"hidden_act\": \"mish\"",
     TESS_UNSUPPORTED, "text/config.json: hidden_act: expected gelu"},
    {"openclip_xlmr", "text/config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3",
     TESS_FORMAT, "missing text.transformer.encoder.layer.2.attention.self.query.weight"},
    {"openclip_xlmr", "text/config.json", "\"xlm-roberta\"", "\"mt5\"", TESS_UNSUPPORTED,
     "the sizes of \"tiny-xlm-roberta\" are not known, and nothing is fetched: put"},
    {"openclip_bert", OPENCLIP, "\"hf_model_name\": \"tiny-bert\"",
     "\"hf_model_name\": \"../m/tiny-bert\"", TESS_UNSUPPORTED, "as text/config.json"},
    {"openclip_bert", OPENCLIP, "\"hf_model_name\": \"tiny-bert\"",
     "\"hf_model_name\": \"google-bert/bert-base-uncased\"", TESS_INVALID,
     "the tokenizer has 85 pieces, but the text tower embeds 30522"},
    {"openclip_tok", OPENCLIP, "\"vocab_size\": 64", "\"vocab_size\": 63", TESS_INVALID,
     "the tokenizer has 64 pieces, but the text tower embeds 63"},
    {"openclip_avg", OPENCLIP, "\"eos_id\": 2", "\"eos_id\": 3", TESS_INVALID,
     "the tokenizer's end id is 2, but the text tower reads its result at 3"},
    {"openclip_siglip", OPENCLIP, "\"tanh\"", "\"sigmoid\"", TESS_UNSUPPORTED,
     "text_cfg.act_kwargs.approximate: expected none, or tanh"},
    {"openclip_siglip", OPENCLIP, "\"canonicalize\"", "\"polish\"", TESS_UNSUPPORTED,
     "text_mode: expected clean, raw"},
    {"openclip_siglip", OPENCLIP, "vit_tiny_patch8_siglip_16", "resnet50", TESS_UNSUPPORTED,
     "timm_model_name: expected a vit_*_siglip_*"},
    {"openclip_siglip", OPENCLIP, "\"timm_pool\": \"map\"", "\"timm_pool\": \"avg\"",
     TESS_UNSUPPORTED, "expected timm_pool map"},
    {"hf_clip", "config.json", "\"quick_gelu\"", "\"mish\"", TESS_UNSUPPORTED,
     "text_config.hidden_act: expected gelu"},
    {"hf_clip", "config.json", "\"model_type\": \"clip\"", "\"model_type\": \"siglip2\"",
     TESS_UNSUPPORTED, "found \"siglip2\" (NaFlex"},
    {"hf_clip", "config.json", "\"projection_dim\": 16", "\"projection_dim\": 16, \"rope\": 1e4",
     TESS_UNSUPPORTED, "config.json: rope: an unknown key"},
    {"hf_clip", "config.json", "\"num_channels\": 3", "\"num_channels\": 1", TESS_UNSUPPORTED,
     "vision_config.num_channels: expected 3, found 1"},
    {"hf_siglip", "config.json", "\"vision_use_head\": true", "\"vision_use_head\": false",
     TESS_UNSUPPORTED, "vision_config.vision_use_head"},
    {"hf_siglip", "config.json", "\"projection_size\": 32", "\"projection_size\": 16", TESS_INVALID,
     "text_config.projection_size: the image tower gives 32, found 16"},
    {"hf_clip", "preprocessor_config.json", "\"resample\": 3", "\"resample\": 1", TESS_UNSUPPORTED,
     "resample 3 (bicubic)"},
    {"hf_clip", "preprocessor_config.json", "\"shortest_edge\": 16", "\"shortest_edge\": 20",
     TESS_UNSUPPORTED, "size and crop_size: expected pictures of 16 x 16"},
};

static void test_bad_configs(void **state)
{
    (void)state;
    for (int64_t i = 0; i < TESS_COUNT(bad); i++) {
        copy_dir(bad[i].family);
        replace(bad[i].file, bad[i].from, bad[i].to);
        assert_refused(bad[i].status, bad[i].message);
    }
}

/* A text tower's projection that is stored input x output is named as transposed. */
static void test_transposed_projection(void **state)
{
    (void)state;
    tess_tensors *t;
    copy_dir("openclip_bert");
    ok(tess_tensors_open(FORMATS "openclip_bert/open_clip_model.safetensors", &t));
    int64_t n = tess_tensors_count(t);
    tess_tensor *copy = tess_alloc_array((size_t)n, sizeof *copy);
    for (int64_t i = 0; i < n; i++) {
        copy[i] = *tess_tensors_at(t, i);
        if (strcmp(copy[i].name, "text.proj.weight") == 0) {
            copy[i].shape = TESS_SHAPE_OF(24, 32);
        }
    }
    ok(tess_tensors_save(fixture_at("m/open_clip_model.safetensors"), copy, n, NULL, 0));
    assert_refused(TESS_FORMAT, "transposed text.proj.weight (expected (32,24), found (24,32)");
    tess_free(copy);
    tess_tensors_free(t);
}

/* Keys that decide nothing change nothing. */
static void test_inert_keys(void **state)
{
    (void)state;
    tess_model *m;
    copy_dir("hf_clip");
    replace(
        "config.json", "\"projection_dim\": 16",
        "\"projection_dim\": 16, \"temperature\": 0.7, \"pruned_heads\": {}, \"use_cache\": true");
    ok(tess_model_open(fixture_at("m"), TESS_PRECISION_F32, &m));
    tess_model_free(m);
}

/* ---- weights ------------------------------------------------------------------------------- */

static void test_bad_weights(void **state)
{
    (void)state;
    tess_tensors *t;
    float nan[64];
    for (int i = 0; i < 64; i++) {
        nan[i] = i == 5 ? NAN : 0;
    }
    copy_dir("hf_clip");
    ok(tess_tensors_open(FORMATS "hf_clip/model.safetensors", &t));
    int64_t n = tess_tensors_count(t);
    tess_tensor *copy = tess_alloc_array((size_t)n, sizeof *copy);
    for (int64_t i = 0; i < n; i++) {
        copy[i] = *tess_tensors_at(t, i);
        tess_shape *s = &copy[i].shape;
        if (strcmp(copy[i].name, "text_projection.weight") == 0) {
            *s = TESS_SHAPE_OF(s->dim[1], s->dim[0]);
        } else if (strcmp(copy[i].name, "vision_model.embeddings.class_embedding") == 0) {
            *s = TESS_SHAPE_OF(2, 16);
        } else if (strcmp(copy[i].name, "vision_model.encoder.layers.1.mlp.fc1.bias") == 0) {
            copy[i].name = "vision_model.encoder.layers.2.mlp.fc1.bias";
        }
    }
    ok(tess_tensors_save(fixture_at("m/model.safetensors"), copy, n, NULL, 0));
    assert_refused(TESS_FORMAT,
                   "transposed text_projection.weight (expected (16,24), found (24,16");
    assert_refused(TESS_FORMAT, "misshapen vision_model.embeddings.class_embedding (expected (32)");
    assert_refused(TESS_FORMAT, "missing vision_model.encoder.layers.1.mlp.fc1.bias");
    assert_refused(TESS_FORMAT, "unexpected vision_model.encoder.layers.2.mlp.fc1.bias");
    for (int64_t i = 0; i < n; i++) {
        copy[i] = *tess_tensors_at(t, i);
        if (strcmp(copy[i].name, "vision_model.encoder.layers.1.self_attn.v_proj.bias") == 0) {
            copy[i].data = (const uint8_t *)nan;
        }
    }
    ok(tess_tensors_save(fixture_at("m/model.safetensors"), copy, n, NULL, 0));
    assert_refused(TESS_FORMAT,
                   "NaN or infinity in vision_model.encoder.layers.1.self_attn.v_proj.bias");
    tess_free(copy);
    tess_tensors_free(t);
}

static void test_bad_shards(void **state)
{
    (void)state;
    const char *index = "model.safetensors.index.json",
               *second = "m/model-00002-of-00002.safetensors";
    copy_dir("hf_clip_half");
    replace(index, "\"logit_scale\": \"model-00001", "\"logit_scale\": \"model-00002");
    assert_refused(TESS_FORMAT,
                   "logit_scale is in model-00001-of-00002.safetensors, but the index");
    copy_dir("hf_clip_half");
    replace(index, "\"logit_scale\": \"model-00001", "\"logit_scales\": \"model-00001");
    assert_refused(TESS_FORMAT,
                   "logit_scale is in model-00001-of-00002.safetensors, but the index");
    copy_dir("hf_clip_half");
    replace(index, "\"logit_scale\"",
            "\"more\": \"model-00001-of-00002.safetensors\", \"logit_scale\"");
    assert_refused(TESS_FORMAT,
                   "more should be in model-00001-of-00002.safetensors, which does not");
    copy_dir("hf_clip_half");
    replace(index, "\"model-00001-of-00002.safetensors\"", "\"../model.safetensors\"");
    assert_refused(TESS_FORMAT, "names of files beside it, found \"../model.safetensors\"");
    copy_dir("hf_clip_half");
    ok(tess_dir_remove(fixture_at("elsewhere")));
    ok(tess_path_rename(fixture_at(second), fixture_at("elsewhere")));
    assert_refused(TESS_FORMAT, "are not there: model-00002-of-00002.safetensors");
}

static void test_pickles(void **state)
{
    (void)state;
    copy_dir("openclip_tok");
    ok(tess_path_rename(fixture_at("m/open_clip_model.safetensors"), fixture_at("gone")));
    assert_refused(TESS_IO, "expected open_clip_model.safetensors");
    ok(tess_file_write(fixture_at("m/open_clip_pytorch_model.bin"), "PK", 2));
    assert_refused(TESS_UNSUPPORTED, "open_clip_pytorch_model.bin is a pickle");
    assert_refused(TESS_UNSUPPORTED, "torch.load(\"open_clip_pytorch_model.bin\"");
    assert_refused(TESS_UNSUPPORTED, "\"open_clip_model.safetensors\")'");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_make_root, fixture_remove_root)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_bad_configs), TEST(test_inert_keys), TEST(test_bad_weights),
        TEST(test_bad_shards),  TEST(test_pickles),    TEST(test_transposed_projection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
