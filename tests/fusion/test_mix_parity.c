/* SPDX-License-Identifier: Apache-2.0 */
/* Mixtures against PyTorch (tests/fixtures/mix/make.py, float64): features, logits, loss and every
 * gradient of a contrastive step, and of both forms of distillation; and that what is frozen then
 * gets no gradient.
 *
 * The tolerance is that of test_formats.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fusion_fixture.h"

#include "fusion/family.h"
#include "fusion/model.h"

#define FORMATS   "tests/fixtures/formats/"
#define SENTENCE  "tests/fixtures/sentence/"
#define TOLERANCE 2e-5

enum { N = 5, K = 2, MOST_TOKENS = 512, MOST = 1024 };

typedef struct mixture {
    const char *name, *image, *text;
    tess_mix_projection projection;
} mixture;
static const mixture mixtures[] = {
    {"clip_bert", FORMATS "openclip_tok", SENTENCE "bert", TESS_MIX_LINEAR},
    {"siglip_xlmr", FORMATS "hf_siglip", SENTENCE "xlmr", TESS_MIX_MLP},
};

typedef struct sample {
    const mixture *mixture;
    tess_tensors *file;
    tess_model *model;
    int64_t offsets64[N * K + 1];
    int32_t offsets[N * K + 1], tokens[MOST_TOKENS], positions[MOST_TOKENS];
} sample;

static const tess_tensor *expected(const sample *s, const char *what)
{
    char key[256];
    snprintf(key, sizeof key, "%s/%s", s->mixture->name, what);
    const tess_tensor *t = tess_tensors_find(s->file, key);
    if (!t) {
        fail_msg("expected.safetensors has no %s", key);
    }
    return t;
}

static void read_tokens(sample *s)
{
    const tess_tensor *ids = expected(s, "ids");
    const int32_t *lengths = (const int32_t *)expected(s, "lengths")->data;
    int32_t at = 0;
    assert_int_equal(ids->shape.dim[0], N * K);
    for (int64_t i = 0; i < N * K; i++) {
        for (int32_t k = 0; k < lengths[i]; k++, at++) {
            assert_true(at < MOST_TOKENS);
            s->tokens[at] = ((const int32_t *)ids->data)[i * ids->shape.dim[1] + k];
            s->positions[at] = k;
        }
        s->offsets64[i + 1] = s->offsets[i + 1] = at;
    }
}

static void set_projection(const sample *s)
{
    for (int i = 0; i < (s->mixture->projection == TESS_MIX_MLP ? 2 : 1); i++) {
        char ours[64], theirs[64];
        tess_shape shape;
        snprintf(ours, sizeof ours, "head.%d.dense.weight", i);
        snprintf(theirs, sizeof theirs, "proj.%d", i);
        float *x = tess_store_find(tess_model_store(s->model), "param", ours, &shape);
        const tess_tensor *t = expected(s, theirs);
        assert_true(x && tess_shape_equal(&shape, &t->shape));
        memcpy(x, t->data, t->n_bytes);
    }
}

static void open_sample(sample *s, const mixture *m)
{
    tess_mix_report r;
    const tess_mix_options o = {
        .image = m->image, .text = m->text, .projection = m->projection, .seed = 1};
    memset(s, 0, sizeof *s);
    s->mixture = m;
    ok(tess_tensors_open("tests/fixtures/mix/expected.safetensors", &s->file));
    ok(tess_model_mix(&o, &r, &s->model));
    assert_true(r.is_fresh);
    read_tokens(s);
    set_projection(s);
}

static void close_sample(sample *s)
{
    tess_model_free(s->model);
    tess_tensors_free(s->file);
}

static double compare(const sample *s, const char *what, const double *ours, int64_t n)
{
    const tess_tensor *t = expected(s, what);
    double wrong = 0, all = 0;
    assert_int_equal(tess_shape_count(&t->shape), n);
    for (int64_t i = 0; i < n; i++) {
        const double theirs = (double)((const float *)t->data)[i];
        wrong += (ours[i] - theirs) * (ours[i] - theirs);
        all += theirs * theirs;
    }
    const double e = sqrt(wrong / (all > 0 ? all : 1e-12));
    if (!(e <= TOLERANCE)) {
        fail_msg("%s: %s: relative error %g, allowed %g (norm %g)", s->mixture->name, what, e,
                 TOLERANCE, sqrt(all));
    }
    return e;
}

static double compare_floats(const sample *s, const char *what, const float *ours, int64_t n)
{
    double wide[MOST];
    assert_true(n <= MOST);
    for (int64_t i = 0; i < n; i++) {
        wide[i] = (double)ours[i];
    }
    return compare(s, what, wide, n);
}

/* The home names: the encoder's, its heads', and those of the image tower's model. */
static tess_layout home_layout(const sample *s)
{
    static const tess_layout_rule heads[] = {
        {"head.*", "head.*", TESS_LAYOUT_SAME, 0, 0, 0},
    };
    const tess_layout image = strstr(s->mixture->image, "siglip") ? tess__layout_hf_siglip()
                                                                  : tess__layout_openclip(false);
    tess_layout l = tess__layout_bert("", "bert.", false);
    TESS_LAYOUT_ADD(&l, heads, "", "");
    for (int64_t i = 0; i < image.n_tables; i++) {
        const tess_layout_table *t = &image.tables[i];
        tess__layout_add(&l, t->rules, t->n_rules, t->our_prefix, t->their_prefix);
    }
    return l;
}

/* Sketches of group "grad" against those recorded as KIND.NAME; returns the worst error. */
static double compare_gradients(const sample *s, const char *kind, int64_t *out_n)
{
    tess_arena arena = {0};
    tess_tensor *t;
    double worst = 0;
    const tess_layout l = home_layout(s);
    ok(tess__layout_tensors(&l, tess_model_store(s->model), "grad", NULL, &arena, &t, out_n));
    for (int64_t i = 0; i < *out_n; i++) {
        const int64_t count = tess_shape_count(&t[i].shape), bins = count < BINS ? count : BINS;
        double sums[BINS] = {0};
        for (int64_t k = 0; k < count; k++) {
            const double v = (double)((const float *)t[i].data)[k];
            sums[k % bins] += fixture_mixed(t[i].name, k) & 1 ? -v : v;
        }
        char *what = tess_format("%s.%s", kind, t[i].name);
        /* The key's bias moves no softmax: its gradient is rounding around zero. */
        const bool zero = strstr(what, "k_proj.bias") || strstr(what, "key.bias");
        const double e = zero ? 0 : compare(s, what, sums, bins);
        worst = e > worst ? e : worst;
        tess_free(what);
    }
    tess_arena_deinit(&arena);
    return worst;
}

static float step(const sample *s, const tess_trainer_options *o)
{
    tess_trainer *t;
    float loss;
    const tess_micro_batch b = {.pictures = expected(s, "pictures")->data,
                                .n_tokens = s->offsets[o->captions_per_image * N],
                                .tokens = s->tokens,
                                .positions = s->positions,
                                .offsets = s->offsets,
                                .teacher = (const float *)expected(s, "teacher")->data};
    ok(tess_trainer_new(s->model, o, &t));
    ok(tess_trainer_micro_step(t, &b, &loss));
    tess_trainer_free(t);
    return loss;
}

static void test_contrast(void **state)
{
    (void)state;
    for (int64_t i = 0; i < TESS_COUNT(mixtures); i++) {
        sample s;
        int64_t n;
        open_sample(&s, &mixtures[i]);
        const int64_t z = tess_model_embed_dim(s.model);
        float image[N * 32], text[N * K * 32], logits[N * N];
        assert_true(z <= 32);
        ok(tess_model_embed_pictures(s.model, expected(&s, "pictures")->data, N, image));
        ok(tess_model_embed_tokens(s.model, s.tokens, s.offsets64, N * K, text));
        const float *scale =
            tess_store_find(tess_model_store(s.model), "param", "logit_scale", NULL);
        const float *bias = tess_store_find(tess_model_store(s.model), "param", "logit_bias", NULL);
        for (int64_t k = 0; k < N * N; k++) {
            double dot = 0;
            for (int64_t c = 0; c < z; c++) {
                dot += (double)image[k / N * z + c] * (double)text[k % N * z + c];
            }
            logits[k] = (float)(exp((double)*scale) * dot + (bias ? (double)*bias : 0));
        }
        const double e = compare_floats(&s, "image", image, N * z);
        const double f = compare_floats(&s, "text", text, N * K * z);
        compare_floats(&s, "logits", logits, N * N);
        const tess_trainer_options o = {
            .batch = N, .captions_per_image = 1, .accumulate = 1, .eps = 1};
        const float loss = step(&s, &o);
        compare_floats(&s, "loss", &loss, 1);
        const double g = compare_gradients(&s, "grad", &n);
        print_message("%s: relative errors: features %.1e, gradients %.1e (%lld tensors)\n",
                      mixtures[i].name, e > f ? e : f, g, (long long)n);
        close_sample(&s);
    }
}

static void test_distillation(void **state)
{
    (void)state;
    static const struct {
        tess_distill kind;
        const char *loss, *gradients;
    } forms[] = {{TESS_DISTILL_MSE, "distill", "mse"},
                 {TESS_DISTILL_CONTRASTIVE, "contrast", "contrastive"}};
    for (int64_t i = 0; i < TESS_COUNT(mixtures) * TESS_COUNT(forms); i++) {
        sample s;
        int64_t n;
        open_sample(&s, &mixtures[i / TESS_COUNT(forms)]);
        const tess_trainer_options o = {.batch = N,
                                        .captions_per_image = K,
                                        .accumulate = 1,
                                        .eps = 1,
                                        .distill = forms[i % TESS_COUNT(forms)].kind};
        const float loss = step(&s, &o);
        compare_floats(&s, forms[i % TESS_COUNT(forms)].loss, &loss, 1);
        const double g = compare_gradients(&s, forms[i % TESS_COUNT(forms)].gradients, &n);
        for (int64_t k = 0; k < tess_store_n_entries(tess_model_store(s.model), "grad"); k++) {
            float *x;
            tess_shape shape;
            const char *name = tess_store_entry(tess_model_store(s.model), "grad", k, &x, &shape);
            assert_true(strncmp(name, "visual.", 7) != 0 && strncmp(name, "logit_", 6) != 0);
        }
        print_message("%s, %s: loss %.6f, gradients %.1e (%lld tensors)\n", s.mixture->name,
                      forms[i % TESS_COUNT(forms)].gradients, (double)loss, g, (long long)n);
        close_sample(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contrast),
        cmocka_unit_test(test_distillation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
