/* SPDX-License-Identifier: Apache-2.0 */
/* Text-only models against transformers and sentence-transformers (tests/fixtures/sentence/make.py,
 * float64): token ids, features, and the gradient of every parameter.
 *
 * f32 gives 2^-24 a rounding, and some 20 sums of 32 to 48 terms follow each other, which grow with
 * the square root: sqrt(20 * 48) * 2^-24 = 2e-6; the LayerNorms multiply it by a few: 2e-5. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fusion/model.h"
#include "fusion_fixture.h"

#define SENTENCE  "tests/fixtures/sentence/"
#define TOLERANCE 2e-5

enum { MOST_TEXTS = 16, MOST_TOKENS = 1024 };

typedef struct batch {
    int64_t n, width; /* texts, columns of features */
    int64_t offsets64[MOST_TEXTS + 1];
    int32_t offsets[MOST_TEXTS + 1], tokens[MOST_TOKENS], positions[MOST_TOKENS];
    const float *features;
} batch;

static const tess_tensor *find(const tess_tensors *t, const char *name, const char *what)
{
    char key[256];
    snprintf(key, sizeof key, "%s/%s", name, what);
    const tess_tensor *x = tess_tensors_find(t, key);
    if (!x) {
        fail_msg("the fixture has no %s", key);
    }
    return x;
}

static void read_batch(const tess_tensors *t, const char *name, batch *b)
{
    const tess_tensor *ids = find(t, name, "ids"), *lengths = find(t, name, "lengths");
    const tess_tensor *features = find(t, name, "features");
    memset(b, 0, sizeof *b);
    b->n = ids->shape.dim[0];
    b->width = features->shape.dim[1];
    b->features = (const float *)features->data;
    assert_true(b->n <= MOST_TEXTS);
    for (int64_t i = 0; i < b->n; i++) {
        const int32_t length = ((const int32_t *)lengths->data)[i];
        const int32_t *row = (const int32_t *)ids->data + i * ids->shape.dim[1];
        for (int32_t k = 0; k < length; k++) {
            b->positions[b->offsets[i] + k] = k;
            b->tokens[b->offsets[i] + k] = row[k];
        }
        b->offsets[i + 1] = b->offsets[i] + length;
        b->offsets64[i + 1] = b->offsets[i + 1];
    }
}

static double error_of(const float *ours, const float *theirs, int64_t n)
{
    double wrong = 0, all = 0;
    for (int64_t i = 0; i < n; i++) {
        wrong += pow((double)ours[i] - (double)theirs[i], 2);
        all += pow((double)theirs[i], 2);
    }
    return sqrt(wrong / (all > 0 ? all : 1e-300));
}

static void expect(const char *name, const char *what, double error, double allowed)
{
    if (!(error <= allowed)) {
        fail_msg("%s: %s: relative error %g, allowed %g", name, what, error, allowed);
    }
}

static tess_model *open_model(const char *name)
{
    tess_model *m = NULL;
    char path[128];
    snprintf(path, sizeof path, SENTENCE "%s", name);
    ok(tess_model_open(path, TESS_PRECISION_F32, &m));
    return m;
}

/* Features as they are before they are made unit rows, and gradients of <features, dy>. */
typedef struct passes {
    tess_graph *g;
    tess_plan *plan;
    tess_workspace *workspace;
    tess_value features, grads[64];
    tess_value params[64];
    int64_t n_params;
} passes;

static void run_passes(tess_model *m, const batch *b, const float *dy, passes *p)
{
    tess_value outputs[65];
    memset(p, 0, sizeof *p);
    p->g = tess_graph_new();
    p->workspace = tess_workspace_new();
    const int64_t n_rows = b->offsets[b->n];
    tess_text_input in = {
        .tokens = tess_input(p->g, "tokens", TESS_I32, TESS_SHAPE_OF(n_rows)),
        .positions = tess_input(p->g, "positions", TESS_I32, TESS_SHAPE_OF(n_rows)),
        .offsets = tess_input(p->g, "offsets", TESS_I32, TESS_SHAPE_OF(b->n + 1)),
    };
    tess_value dz = tess_input(p->g, "dy", TESS_F32, TESS_SHAPE_OF(b->n, b->width));
    p->features = tess__text_tower(p->g, &m->config.text, in, m->config.embed_dim, TESS_F32, false);
    p->n_params = tess_graph_states(p->g, "param", p->params, 64);
    ok(tess_graph_grad(p->g, &p->features, &dz, 1, p->params, p->n_params, p->grads));
    int64_t n = 0;
    outputs[n++] = p->features;
    for (int64_t i = 0; i < p->n_params; i++) {
        if (p->grads[i]) {
            outputs[n++] = p->grads[i];
        }
    }
    ok(tess_plan_build(p->g, outputs, n, tess_device_cpu(), m->store, p->workspace, &p->plan));
    ok(tess_plan_bind(p->plan, "tokens", b->tokens));
    ok(tess_plan_bind(p->plan, "positions", b->positions));
    ok(tess_plan_bind(p->plan, "offsets", b->offsets));
    ok(tess_plan_bind(p->plan, "dy", dy));
    ok(tess_plan_run(p->plan));
}

static void free_passes(passes *p)
{
    tess_plan_free(p->plan);
    tess_graph_free(p->g);
    tess_workspace_free(p->workspace);
}

static float *make_dy(int64_t n)
{
    float *dy = tess_alloc_array((size_t)n, sizeof *dy);
    for (int64_t i = 0; i < n; i++) {
        dy[i] = (float)(37 * i % 64) / 32 - 1;
    }
    return dy;
}

static void test_features(void **state)
{
    (void)state;
    static const char *const names[] = {"bert",    "bert_prefixed", "xlmr",
                                        "st_mean", "st_cls",        "st_dense"};
    tess_tensors *t;
    batch b;
    passes p;
    ok(tess_tensors_open(SENTENCE "expected.safetensors", &t));
    for (int64_t i = 0; i < TESS_COUNT(names); i++) {
        tess_model *m = open_model(names[i]);
        read_batch(t, names[i], &b);
        float *dy = make_dy(b.n * b.width), unit[MOST_TEXTS * 32];
        assert_int_equal(tess_model_embed_dim(m), b.width);
        run_passes(m, &b, dy, &p);
        const float *features = tess_plan_output(p.plan, p.features);
        const double e = error_of(features, b.features, b.n * b.width);
        expect(names[i], "features", e, TOLERANCE);
        ok(tess_model_embed_tokens(m, b.tokens, b.offsets64, b.n, unit));
        for (int64_t k = 0; k < b.n; k++) {
            double length = 0;
            for (int64_t j = 0; j < b.width; j++) {
                length += pow((double)b.features[k * b.width + j], 2);
            }
            for (int64_t j = 0; j < b.width; j++) {
                const double theirs = (double)b.features[k * b.width + j] / sqrt(length);
                assert_true(fabs((double)unit[k * b.width + j] - theirs) < TOLERANCE);
            }
        }
        print_message("%s: features: relative error %.1e\n", names[i], e);
        tess_free(dy);
        free_passes(&p);
        tess_model_free(m);
    }
    tess_tensors_free(t);
}

static void compare_gradients(const tess_tensors *t, const char *model, int64_t n_params)
{
    batch b;
    passes p;
    double worst = 0;
    read_batch(t, model, &b);
    tess_model *m = open_model(model);
    float *dy = make_dy(b.n * b.width);
    run_passes(m, &b, dy, &p);
    assert_int_equal(p.n_params, n_params);
    for (int64_t i = 0; i < p.n_params; i++) {
        char what[128];
        const char *name = tess_value_name(p.g, p.params[i]);
        snprintf(what, sizeof what, "grad.%s", name);
        const tess_tensor *theirs = find(t, model, what);
        assert_int_not_equal(p.grads[i], 0);
        const tess_shape s = tess_value_shape(p.g, p.grads[i]);
        assert_true(tess_shape_equal(&s, &theirs->shape));
        double e = error_of(tess_plan_output(p.plan, p.grads[i]), (const float *)theirs->data,
                            tess_shape_count(&s));
        expect(model, what, e, TOLERANCE);
        worst = e > worst ? e : worst;
    }
    print_message("%s: gradients: worst relative error %.1e\n", model, worst);
    tess_free(dy);
    free_passes(&p);
    tess_model_free(m);
}

static void test_gradients(void **state)
{
    (void)state;
    tess_tensors *t;
    ok(tess_tensors_open(SENTENCE "expected.safetensors", &t));
    compare_gradients(t, "bert", 5 + 2 * 12);
    compare_gradients(t, "xlmr", 5 + 2 * 12);
    tess_tensors_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_features),
        cmocka_unit_test(test_gradients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
