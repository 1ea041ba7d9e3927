/* SPDX-License-Identifier: Apache-2.0 */
/* Embedding on a CUDA device, for a small model of every family that opens, beside the processor in
 * f32; and texts without their padding beside PyTorch's padded batches.
 *
 * In f32 both sum products of at most 192 terms, some 40 in a row: sqrt(40 * 192) * 2^-24 = 5e-6 of
 * a unit row; 2e-5 is allowed.  In bf16 each of some 26 operators rounds to 8 bits: 0.6 % as
 * test_dual_parity.c derives, and 2.4 % is allowed there and here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fusion/fusion_fixture.h"

#define F32_TOLERANCE  2e-5
#define BF16_TOLERANCE 0.024

enum { N = 5, SIDE_MAX = 64 };

static const char *const families[] = {
    "formats/openclip_tok",  "formats/openclip_avg",  "formats/openclip_siglip",
    "formats/openclip_xlmr", "formats/openclip_bert", "formats/openclip_bert_bare",
    "formats/hf_clip",       "formats/hf_siglip",     "sentence/bert",
    "sentence/xlmr",         "sentence/st_cls",       "sentence/st_mean",
    "sentence/st_dense",
};
static const char *const texts[N] = {"red cat", "a", "a black dog sits", "tree", "red tree red"};

static const tess_device *card(void)
{
    const tess_device *d;
    ok(tess_device_cuda(&d));
    return d;
}

static tess_model *open(const char *family, tess_precision precision)
{
    tess_model *m;
    char *dir = tess_format("tests/fixtures/%s", family);
    ok(tess_model_open(dir, precision, &m));
    tess_free(dir);
    return m;
}

/* |a - b| / |b| */
static double difference(const float *a, const float *b, int64_t n)
{
    double wrong = 0, all = 0;
    for (int64_t i = 0; i < n; i++) {
        wrong += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        all += (double)b[i] * (double)b[i];
    }
    return sqrt(wrong / (all > 0 ? all : 1e-300));
}

/* N unit rows of pictures and N of texts. */
typedef struct vectors {
    float *pictures, *texts;
    int64_t dim;
    bool has_pictures;
} vectors;

static vectors embed(tess_model *m)
{
    const size_t side = (size_t)tess_model_image_size(m);
    vectors v = {.dim = tess_model_embed_dim(m), .has_pictures = tess_model_has_image(m)};
    uint8_t *pixels = tess_alloc_array(N, side * side * 3 + 1);
    v.pictures = tess_alloc_array(N, (size_t)v.dim * sizeof(float));
    v.texts = tess_alloc_array(N, (size_t)v.dim * sizeof(float));
    for (size_t i = 0; i < N * side * side * 3; i++) {
        pixels[i] = (uint8_t)fixture_mixed("pixels", (int64_t)i);
    }
    if (v.has_pictures) {
        ok(tess_model_embed_pictures(m, pixels, N, v.pictures));
    }
    tess_ids ids = {0};
    int64_t offsets[N + 1] = {0};
    for (int i = 0; i < N; i++) {
        ok(tess_model_tokenize(m, texts[i], strlen(texts[i]), NULL, &ids));
        offsets[i + 1] = (int64_t)ids.n_ids;
    }
    ok(tess_model_embed_tokens(m, ids.ids, offsets, N, v.texts));
    tess_ids_deinit(&ids);
    tess_free(pixels);
    return v;
}

static void deinit(vectors *v)
{
    tess_free(v->pictures);
    tess_free(v->texts);
}

static void check_beside(const char *family, const vectors *here, tess_precision precision,
                         double tolerance)
{
    tess_model *m = open(family, precision);
    ok(tess_model_embed_on(m, card()));
    vectors there = embed(m);
    const int64_t n = N * here->dim;
    const double p = here->has_pictures ? difference(there.pictures, here->pictures, n) : 0;
    const double t = difference(there.texts, here->texts, n);
    print_message("%s %s: pictures %.1e, texts %.1e\n", family, tess_model_mode(m), p, t);
    assert_true(p <= tolerance && t <= tolerance);
    if (precision == TESS_PRECISION_BF16) {
        assert_true(t > 1e-5); /* it is bf16 */
    }
    deinit(&there);
    tess_model_free(m);
}

static void check_families(void **state)
{
    (void)state;
    for (int64_t i = 0; i < TESS_COUNT(families); i++) {
        tess_model *m = open(families[i], TESS_PRECISION_F32);
        vectors here = embed(m);
        check_beside(families[i], &here, TESS_PRECISION_F32, F32_TOLERANCE);
        check_beside(families[i], &here, TESS_PRECISION_BF16, BF16_TOLERANCE);
        deinit(&here);
        tess_model_free(m);
    }
}

/* The bf16 copies belong to the same model, and calls of other sizes to the same vectors: the plans
 * are recorded by the second run and replayed by the third. */
static void check_calls(void **state)
{
    (void)state;
    char before[33], after[33];
    float one[64];
    tess_model *m = open("formats/openclip_tok", TESS_PRECISION_BF16);
    ok(tess_model_fingerprint(m, before));
    ok(tess_model_embed_on(m, card()));
    ok(tess_model_fingerprint(m, after));
    assert_string_equal(before, after);
    vectors all = embed(m);
    for (int run = 0; run < 4; run++) {
        for (int i = 0; i < N; i++) {
            ok(tess_model_embed_text(m, texts[i], strlen(texts[i]), one));
            assert_true(difference(one, all.texts + i * all.dim, all.dim) < 1e-6);
        }
        assert_true(difference(one, all.texts, all.dim) > 0.01); /* each text has its own */
    }
    assert_fails(tess_model_save(m, "nowhere"), TESS_INVALID, "f32 weights");
    deinit(&all);
    tess_model_free(m);
}

static void check_packed(void **state)
{
    (void)state;
    tess_model *m;
    ok(tess_model_open_embedder("tests/fixtures/formats/openclip_tok", TESS_PRECISION_F32, &m));
    assert_fails(tess_model_embed_on(m, card()), TESS_INVALID, "packed for the processor");
    tess_model_free(m);
}

/* A card takes as many pictures at once as make 2^16 patches, or 1,024. */
static void check_sizes(void **state)
{
    (void)state;
    tess_model *m = open("formats/openclip_tok", TESS_PRECISION_F32);
    assert_true(tess_model_image_size(m) <= SIDE_MAX);
    assert_int_equal(tess_model_pictures_at_once(m), 128);
    ok(tess_model_embed_on(m, card()));
    assert_int_equal(tess_model_pictures_at_once(m), 1024);
    tess_model_free(m);
}

/* ---- padding --------------------------------------------------------------------------------- */

/* PyTorch's texts are padded to 12 tokens and masked (tests/fixtures/fusion/make.py), or causal and
 * read at their end; here nothing is behind the end. */
static void check_without_padding(const fixture_batch *b, const char *name,
                                  tess_precision precision, double tolerance)
{
    float text[PICTURES * SLOTS * 16], theirs[PICTURES * SLOTS * 16];
    int64_t n;
    tess_model *m = fixture_model(name, precision);
    ok(tess_model_embed_on(m, card()));
    ok(tess_model_embed_tokens(m, b->tokens, b->offsets64, PICTURES * SLOTS, text));
    char *key = tess_format("%s/text", name);
    memcpy(theirs, fixture_tensor(b, key, &n), sizeof theirs);
    assert_int_equal(n, TESS_COUNT(theirs));
    assert_true(b->offsets[PICTURES * SLOTS] < PICTURES * SLOTS * CONTEXT); /* some are shorter */
    const double e = difference(text, theirs, n);
    print_message("%s %s: texts beside PyTorch's padded ones %.1e\n", name, tess_model_mode(m), e);
    assert_true(e <= tolerance);
    tess_free(key);
    tess_model_free(m);
}

/* One step: the loss and the gradient's norm of PyTorch's padded batch. */
static void check_step(const fixture_batch *b, const char *name, tess_precision precision,
                       double tolerance)
{
    static const char *const names[] = {"loss_0", "norm_0"};
    const tess_trainer_options o = fixture_options();
    const tess_micro_batch batch = fixture_micro_batch(b);
    float ours[2], theirs;
    int64_t n;
    tess_trainer *t;
    tess_model *m = fixture_model(name, precision);
    tess_model_use(m, card());
    ok(tess_trainer_new(m, &o, &t));
    ok(tess_trainer_micro_step(t, &batch, &ours[0]));
    ok(tess_trainer_update(t, 1e-3, 1, &ours[1]));
    for (int i = 0; i < 2; i++) {
        char *key = tess_format("%s/%s", name, names[i]);
        memcpy(&theirs, fixture_tensor(b, key, &n), sizeof theirs);
        const double e = difference(&ours[i], &theirs, 1);
        print_message("%s %s: %.1e\n", key, tess_dtype_name(tess_model_dtype(m)), e);
        assert_true(e <= tolerance);
        tess_free(key);
    }
    tess_trainer_free(t);
    tess_model_free(m);
}

static void check_padding(void **state)
{
    (void)state;
    static const char *const towers[] = {"tok_last", "avg_mean", "map_last", "avg_first"};
    fixture_batch b;
    fixture_open(&b);
    for (int64_t i = 0; i < TESS_COUNT(towers); i++) {
        check_without_padding(&b, towers[i], TESS_PRECISION_F32, F32_TOLERANCE);
        check_without_padding(&b, towers[i], TESS_PRECISION_BF16, BF16_TOLERANCE);
        check_step(&b, towers[i], TESS_PRECISION_F32, F32_TOLERANCE);
        check_step(&b, towers[i], TESS_PRECISION_BF16, BF16_TOLERANCE);
    }
    tess_tensors_free(b.file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_families), cmocka_unit_test(check_calls),
        cmocka_unit_test(check_packed),   cmocka_unit_test(check_sizes),
        cmocka_unit_test(check_padding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
