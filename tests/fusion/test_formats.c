/* SPDX-License-Identifier: Apache-2.0 */
/* Models of other programs against their own libraries (tests/fixtures/formats/make.py): features,
 * logits, loss and the gradient of every parameter, by their names; and back in their own layout
 * byte for byte.
 *
 * Tolerances are those of test_dual_parity.c; half-precision files are read exactly, so they get
 * the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fusion_fixture.h"

#include "fusion/family.h"
#include "fusion/model.h"

#define FORMATS   "tests/fixtures/formats/"
#define TOLERANCE 2e-5

enum { N = 5, TOKENS = 10, MAX = 1024 };

static const char *const families[] = {"openclip_tok",  "openclip_avg",  "openclip_siglip",
                                       "openclip_xlmr", "openclip_bert", "openclip_bert_bare",
                                       "hf_clip",       "hf_siglip"};

/* ---- comparing ----------------------------------------------------------------------------- */

typedef struct sample {
    char dir[128];
    tess_tensors *file;
    const uint8_t *pictures;
    int64_t offsets64[N + 1];
    int32_t offsets[N + 1], tokens[N * TOKENS], positions[N * TOKENS];
} sample;

static const tess_tensor *expected(const sample *s, const char *name)
{
    const tess_tensor *t = tess_tensors_find(s->file, name);
    if (!t) {
        fail_msg("%s: expected.safetensors has no %s", s->dir, name);
    }
    return t;
}

static void open_sample(sample *s, const char *name, const char *suffix)
{
    memset(s, 0, sizeof *s);
    snprintf(s->dir, sizeof s->dir, FORMATS "%s%s", name, suffix);
    char *path = tess_format("%s/expected.safetensors", s->dir);
    ok(tess_tensors_open(path, &s->file));
    tess_free(path);
    s->pictures = expected(s, "pictures")->data;
    const uint8_t *ids = expected(s, "tokens")->data, *lengths = expected(s, "lengths")->data;
    int32_t at = 0;
    for (int i = 0; i < N; i++) {
        int32_t length;
        memcpy(&length, lengths + 4 * i, 4);
        for (int32_t k = 0; k < length; k++, at++) {
            memcpy(&s->tokens[at], ids + 4 * (i * TOKENS + k), 4);
            s->positions[at] = k;
        }
        s->offsets64[i + 1] = s->offsets[i + 1] = at;
    }
}

static double compare(const sample *s, const char *what, const double *ours, int64_t n)
{
    const tess_tensor *t = expected(s, what);
    double wrong = 0, all = 0;
    assert_int_equal(tess_shape_count(&t->shape), n);
    for (int64_t i = 0; i < n; i++) {
        float theirs;
        memcpy(&theirs, t->data + 4 * i, 4);
        wrong += (ours[i] - (double)theirs) * (ours[i] - (double)theirs);
        all += (double)theirs * (double)theirs;
    }
    double e = sqrt(wrong / (all > 0 ? all : 1e-12));
    if (!(e <= TOLERANCE)) {
        fail_msg("%s: %s: relative error %g, allowed %g (norm %g)", s->dir, what, e, TOLERANCE,
                 sqrt(all));
    }
    return e;
}

static double compare_floats(const sample *s, const char *what, const float *ours, int64_t n)
{
    double wide[MAX] = {0};
    assert_true(n <= MAX);
    for (int64_t i = 0; i < n; i++) {
        wide[i] = (double)ours[i];
    }
    return compare(s, what, wide, n);
}

static double scalar(const tess_model *m, const char *name)
{
    const float *x = tess_store_find(tess_model_store(m), "param", name, NULL);
    return x ? (double)*x : 0;
}

/* The tokens are those of texts.txt, where there is one. */
static void compare_tokens(const sample *s, const tess_model *m)
{
    uint8_t *texts = NULL;
    size_t n_bytes;
    char *path = tess_format("%s/texts.txt", s->dir);
    if (tess_path_exists(path)) {
        ok(tess_file_read(path, 1 << 16, &texts, &n_bytes));
        const char *at = (const char *)texts;
        tess_ids ids = {0};
        for (int i = 0; i < N; i++) {
            size_t n = strcspn(at, "\n");
            ok(tess_model_tokenize(m, at, n, NULL, &ids));
            at += n + 1;
            assert_int_equal(ids.n_ids, s->offsets[i + 1]);
        }
        assert_memory_equal(ids.ids, s->tokens, ids.n_ids * sizeof *ids.ids);
        tess_ids_deinit(&ids);
    }
    tess_free(texts);
    tess_free(path);
}

static double compare_features(const sample *s, tess_model *m)
{
    int64_t z = tess_model_embed_dim(m);
    float image[N * 64], text[N * 64], logits[N * N];
    assert_true(z <= 64);
    compare_tokens(s, m);
    ok(tess_model_embed_pictures(m, s->pictures, N, image));
    ok(tess_model_embed_tokens(m, s->tokens, s->offsets64, N, text));
    for (int64_t i = 0; i < N * N; i++) {
        double dot = 0;
        for (int64_t k = 0; k < z; k++) {
            dot += (double)image[i / N * z + k] * (double)text[i % N * z + k];
        }
        logits[i] = (float)(exp(scalar(m, "logit_scale")) * dot + scalar(m, "logit_bias"));
    }
    double e = compare_floats(s, "image", image, N * z);
    double f = compare_floats(s, "text", text, N * z);
    compare_floats(s, "logits", logits, N * N);
    return e > f ? e : f;
}

static double compare_gradients(const sample *s, const tess_model *m, const tess_family *f)
{
    tess_arena arena = {0};
    tess_tensor *t;
    int64_t n;
    double worst = 0;
    tess_layout l = f->layout(&m->config);
    ok(tess__layout_tensors(&l, m->store, "grad", NULL, &arena, &t, &n));
    for (int64_t i = 0; i < n; i++) {
        int64_t count = tess_shape_count(&t[i].shape), bins = count < BINS ? count : BINS;
        double sums[BINS] = {0};
        for (int64_t k = 0; k < count; k++) {
            float v;
            memcpy(&v, t[i].data + 4 * k, 4);
            sums[k % bins] += fixture_mixed(t[i].name, k) & 1 ? -(double)v : (double)v;
        }
        char *what = tess_format("grad.%s", t[i].name);
        /* The key's bias moves no softmax: its gradient is rounding around zero. */
        bool zero = strstr(what, "k_proj.bias") || strstr(what, "self.key.bias");
        double e = zero ? 0 : compare(s, what, sums, bins);
        worst = e > worst ? e : worst;
        tess_free(what);
    }
    tess_arena_deinit(&arena);
    return worst;
}

static void test_parity(void **state)
{
    (void)state;
    for (int64_t i = 0; i < TESS_COUNT(families); i++) {
        sample s;
        tess_model *m;
        tess_trainer *t;
        const tess_family *f;
        float loss;
        open_sample(&s, families[i], "");
        ok(tess_model_open(s.dir, TESS_PRECISION_F32, &m));
        ok(tess__family_find(s.dir, &f));
        double features = compare_features(&s, m);
        tess_trainer_options o = {.batch = N, .captions_per_image = 1, .accumulate = 1, .eps = 1};
        ok(tess_trainer_new(m, &o, &t));
        tess_micro_batch b = {.pictures = s.pictures,
                              .n_tokens = s.offsets[N],
                              .tokens = s.tokens,
                              .positions = s.positions,
                              .offsets = s.offsets};
        ok(tess_trainer_micro_step(t, &b, &loss));
        compare_floats(&s, "loss", &loss, 1);
        double gradients = compare_gradients(&s, m, f);
        print_message("%s: relative errors: features %.1e, gradients %.1e\n", families[i], features,
                      gradients);
        tess_trainer_free(t);
        tess_model_free(m);
        tess_tensors_free(s.file);
    }
}

static void test_half_files(void **state)
{
    (void)state;
    for (int64_t i = 0; i < TESS_COUNT(families); i++) {
        sample s;
        tess_model *m;
        open_sample(&s, families[i], "_half");
        ok(tess_model_open(s.dir, TESS_PRECISION_F32, &m));
        compare_features(&s, m);
        tess_model_free(m);
        tess_tensors_free(s.file);
    }
}

/* ---- round trips --------------------------------------------------------------------------- */

static tess_tensors *open_weights(const char *dir)
{
    const tess_family *f;
    tess_arena arena = {0};
    const char *path;
    tess_tensors *t;
    ok(tess__family_find(dir, &f));
    assert_non_null(f);
    ok(tess__family_weights(f, dir, &arena, &path, &t));
    tess_arena_deinit(&arena);
    return t;
}

static void assert_same_weights(const char *a, const char *b)
{
    tess_tensors *x = open_weights(a), *y = open_weights(b);
    assert_int_equal(tess_tensors_count(x), tess_tensors_count(y));
    for (int64_t i = 0; i < tess_tensors_count(x); i++) {
        const tess_tensor *p = tess_tensors_at(x, i), *q = tess_tensors_find(y, p->name);
        if (!q || strcmp(p->dtype, q->dtype) != 0 || !tess_shape_equal(&p->shape, &q->shape) ||
            memcmp(p->data, q->data, p->n_bytes) != 0) {
            fail_msg("%s, %s: %s differs (%s, %s)", a, b, p->name, p->dtype, q ? q->dtype : "none");
        }
    }
    tess_tensors_free(x);
    tess_tensors_free(y);
}

static void test_round_trips(void **state)
{
    (void)state;
    for (int64_t i = 0; i < 2 * TESS_COUNT(families); i++) {
        const char *name = families[i / 2];
        char *dir = tess_format(FORMATS "%s%s", name, i % 2 ? "_half" : "");
        const char *out = fixture_at(dir + strlen(FORMATS));
        const char *to = strncmp(name, "hf", 2) == 0 ? "hf" : "openclip";
        ok(tess_model_convert(dir, to, out));
        assert_same_weights(dir, out);
        tess_free(dir);
    }
}

/* Tessera's own directory between: f32, and the config written anew. */
static void test_through_our_directory(void **state)
{
    (void)state;
    for (int64_t i = 0; i < TESS_COUNT(families); i++) {
        sample s;
        tess_model *m;
        bool timm = strcmp(families[i], "openclip_siglip") == 0 ||
                    strcmp(families[i], "openclip_bert") == 0;
        bool bert = strstr(families[i], "bert") != NULL;
        const char *own = fixture_at("own"), *back = fixture_at("back");
        const char *to = strncmp(families[i], "hf", 2) == 0 ? "hf" : "openclip";
        open_sample(&s, families[i], "");
        ok(tess_model_open(s.dir, TESS_PRECISION_F32, &m));
        ok(tess_model_save(m, own));
        tess_model_free(m);
        ok(tess_model_open(own, TESS_PRECISION_F32, &m));
        compare_features(&s, m);
        tess_model_free(m);
        if (timm) { /* no timm model has the fixture's sizes */
            assert_fails(tess_model_convert(own, to, back), TESS_UNSUPPORTED, "no timm model");
            assert_false(tess_path_exists(back));
            to = "hf";
        }
        if (timm && bert) { /* nor has Hugging Face's SigLIP a BERT */
            assert_fails(tess_model_convert(own, to, back), TESS_UNSUPPORTED, "text tower");
            ok(tess_dir_remove(own));
            tess_tensors_free(s.file);
            continue;
        }
        ok(tess_model_convert(own, to, back));
        ok(tess_model_open(back, TESS_PRECISION_F32, &m));
        compare_features(&s, m);
        tess_model_free(m);
        if (!timm) {
            assert_same_weights(s.dir, back);
        }
        ok(tess_dir_remove(own));
        ok(tess_dir_remove(back));
        tess_tensors_free(s.file);
    }
}

/* OpenCLIP <-> Hugging Face, where both can say the model. */
static void test_across(void **state)
{
    (void)state;
    static const struct {
        const char *family, *to, *refusal;
    } ways[] = {
        {"openclip_tok", "hf", NULL},    {"openclip_avg", "hf", "this image tower"},
        {"openclip_siglip", "hf", NULL}, {"openclip_xlmr", "hf", "text tower"},
        {"hf_clip", "openclip", NULL},   {"hf_siglip", "openclip", "no timm model"},
    };
    for (int64_t i = 0; i < TESS_COUNT(ways); i++) {
        sample s;
        tess_model *m;
        open_sample(&s, ways[i].family, "_half");
        const char *out = fixture_at(ways[i].family);
        if (ways[i].refusal) {
            assert_fails(tess_model_convert(s.dir, ways[i].to, out), TESS_UNSUPPORTED,
                         ways[i].refusal);
        } else {
            ok(tess_model_convert(s.dir, ways[i].to, out));
            ok(tess_model_open(out, TESS_PRECISION_F32, &m));
            compare_features(&s, m);
            tess_model_free(m);
            assert_fails(tess_model_convert(s.dir, ways[i].to, out), TESS_INVALID, "not empty");
        }
        tess_tensors_free(s.file);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_make_root, fixture_remove_root)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_parity),      TEST(test_half_files),
        TEST(test_round_trips), TEST(test_through_our_directory),
        TEST(test_across),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
