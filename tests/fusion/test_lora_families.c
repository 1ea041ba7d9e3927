/* SPDX-License-Identifier: Apache-2.0 */
/* Adapters that PEFT made on BERT, XLM-RoBERTa, SigLIP and OpenCLIP's SigLIP: applied and merged
 * they give PEFT's features (make_lora_families.py), and ours for the same layers go round.
 *
 * Features are unit rows; as in test_lora.c an f32 pass differs from f64 by some 1e-6 of them, and
 * 5e-6 is what is asked for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fusion/lora.h"
#include "fusion_fixture.h"

#define TOLERANCE 5e-6f

enum { MOST = 8 * 32, MOST_TOKENS = 512 };

static const struct {
    const char *name, *dir, *batch, *prefix, *targets;
} cases[] = {
    {"bert", "tests/fixtures/sentence/bert", "tests/fixtures/sentence/expected.safetensors",
     "bert/", "query,key,value,dense"},
    {"xlmr", "tests/fixtures/sentence/xlmr", "tests/fixtures/sentence/expected.safetensors",
     "xlmr/", "all-linear"},
    {"siglip", "tests/fixtures/formats/hf_siglip",
     "tests/fixtures/formats/hf_siglip/expected.safetensors", "", "attention.out_proj,head,fc?"},
    {"timm", "tests/fixtures/formats/openclip_siglip",
     "tests/fixtures/formats/openclip_siglip/expected.safetensors", "", "attn.in_proj,qkv,q,kv"},
};

typedef struct features {
    int64_t n_texts, n_pictures, width;
    float text[MOST], image[MOST];
} features;

static const tess_tensor *find(const tess_tensors *t, const char *prefix, const char *what)
{
    char key[64];
    snprintf(key, sizeof key, "%s%s", prefix, what);
    return tess_tensors_find(t, key);
}

/* The case's own batch. */
static features embed(tess_model *m, int64_t i)
{
    features f = {.width = tess_model_embed_dim(m)};
    tess_tensors *file;
    ok(tess_tensors_open(cases[i].batch, &file));
    const tess_tensor *lengths = find(file, cases[i].prefix, "lengths");
    const tess_tensor *ids = find(file, cases[i].prefix, *cases[i].prefix ? "ids" : "tokens");
    const tess_tensor *pictures = find(file, cases[i].prefix, "pictures");
    int32_t tokens[MOST_TOKENS], length;
    int64_t offsets[16] = {0};
    f.n_texts = ids->shape.dim[0];
    assert_true(f.n_texts * f.width <= MOST && tess_shape_count(&ids->shape) <= MOST_TOKENS);
    for (int64_t k = 0; k < f.n_texts; k++) {
        memcpy(&length, lengths->data + 4 * k, 4);
        memcpy(tokens + offsets[k], ids->data + 4 * k * ids->shape.dim[1], 4 * (size_t)length);
        offsets[k + 1] = offsets[k] + length;
    }
    ok(tess_model_embed_tokens(m, tokens, offsets, f.n_texts, f.text));
    if (pictures) {
        f.n_pictures = pictures->shape.dim[0];
        ok(tess_model_embed_pictures(m, pictures->data, f.n_pictures, f.image));
    }
    tess_tensors_free(file);
    return f;
}

static float most_apart(const float *a, const float *b, int64_t n)
{
    float most = 0;
    for (int64_t i = 0; i < n; i++) {
        most = fmaxf(most, fabsf(a[i] - b[i]));
    }
    return most;
}

static float distance(const features *a, const features *b)
{
    return fmaxf(most_apart(a->text, b->text, a->n_texts * a->width),
                 most_apart(a->image, b->image, a->n_pictures * a->width));
}

static features expect(const features *like, int64_t i)
{
    features f = *like;
    tess_tensors *file;
    char prefix[32];
    snprintf(prefix, sizeof prefix, "%s/", cases[i].name);
    ok(tess_tensors_open(FIXTURE "lora_families.safetensors", &file));
    const tess_tensor *text = find(file, prefix, "text"), *image = find(file, prefix, "image");
    assert_true(text && text->n_bytes == (size_t)(f.n_texts * f.width) * sizeof f.text[0]);
    memcpy(f.text, text->data, text->n_bytes);
    if (image) {
        memcpy(f.image, image->data, image->n_bytes);
    }
    tess_tensors_free(file);
    return f;
}

static tess_model *open_case(int64_t i)
{
    tess_model *m = NULL;
    ok(tess_model_open(cases[i].dir, TESS_PRECISION_F32, &m));
    return m;
}

static void test_opens_what_peft_made(void **state)
{
    (void)state;
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        char dir[64];
        const char *spec = dir;
        snprintf(dir, sizeof dir, FIXTURE "lora_%s", cases[i].name);
        tess_model *m = open_case(i);
        const features none = embed(m, i);
        ok(tess_model_adapt(m, &spec, 1));
        const features applied = embed(m, i), want = expect(&applied, i);
        ok(tess_model_merge_adapters(m));
        const features merged = embed(m, i);
        print_message("%-6s differs from PEFT by %.1e applied, %.1e merged, from none by %.2f\n",
                      cases[i].name, (double)distance(&applied, &want),
                      (double)distance(&merged, &want), (double)distance(&none, &want));
        assert_true(distance(&applied, &want) < TOLERANCE);
        assert_true(distance(&merged, &want) < TOLERANCE);
        assert_true(distance(&none, &want) > 0.05f);
        tess_model_free(m);
    }
}

/* A fresh adapter with another B than zero, written and opened again. */
static void test_round_trip(void **state)
{
    (void)state;
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        const char *dir = fixture_at("trip");
        tess_model *m = open_case(i), *again = open_case(i);
        const features none = embed(m, i);
        ok(tess_model_add_lora(m, &(tess_lora_options){.rank = 2, .target = cases[i].targets}, 3));
        for (size_t k = 0; k < m->lora->parts.n; k++) {
            const tess_lora_part *p = &m->lora->parts.items[k];
            float *a, *b;
            int64_t width, rank;
            tess__lora_site(m, p, &a, &b, &width, &rank);
            for (int64_t r = p->module.row; r < p->module.row + p->module.n_rows; r++) {
                b[r * rank + p->col] = (float)(r % 7 - 3) / 16;
            }
        }
        tess__model_free_plans(m);
        ok(tess_model_save_adapter(m, dir));
        ok(tess_model_adapt(again, &dir, 1));
        const features ours = embed(m, i), opened = embed(again, i);
        assert_true(distance(&ours, &opened) < 2e-6f);
        assert_true(distance(&ours, &none) > 0.01f);
        tess_model_free(m);
        tess_model_free(again);
    }
}

static void refuse(int64_t i, const char *target, tess_lora_names names, const char *text)
{
    tess_model *m = open_case(i);
    const tess_lora_options o = {.rank = 2, .target = target, .names = names};
    assert_fails(tess_model_add_lora(m, &o, 1), TESS_INVALID, text);
    tess_model_free(m);
}

static void test_names_that_are_not_there(void **state)
{
    (void)state;
    refuse(0, "q_proj", TESS_LORA_AUTO,
           "by OpenCLIP's names: none; by Hugging Face's: attention.self.query, "
           "attention.self.key, attention.self.value, attention.output.dense, "
           "intermediate.dense, output.dense");
    refuse(2, "attention.in_proj", TESS_LORA_HF, "matches no linear layer");
    refuse(3, "visual.trunk.blocks.0.mlp.c_fc", TESS_LORA_OPENCLIP, "attn.qkv, attn.proj, mlp.fc1");
    const char *other = FIXTURE "lora_siglip";
    tess_model *m = open_case(0);
    assert_fails(tess_model_adapt(m, &other, 1), TESS_FORMAT,
                 "no such layer: base_model.model.text_model.head.lora_A.weight");
    tess_model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opens_what_peft_made),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_names_that_are_not_there),
    };
    return cmocka_run_group_tests(tests, fixture_make_root, fixture_remove_root);
}
