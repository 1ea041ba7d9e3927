/* SPDX-License-Identifier: Apache-2.0 */
/* Mixtures of two models: each tower is its own model's, through a directory and back, and what
 * does not go together is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fusion_fixture.h"

#include "fusion/model.h"

#define FORMATS  "tests/fixtures/formats/"
#define SENTENCE "tests/fixtures/sentence/"

enum { MOST = 64, SIDE = 16 };

static tess_model *open_at(const char *dir)
{
    tess_model *m = NULL;
    ok(tess_model_open(dir, TESS_PRECISION_F32, &m));
    return m;
}

static tess_model *mix(const char *image, const char *text, tess_mix_projection p, uint64_t seed,
                       tess_mix_report *r)
{
    tess_model *m = NULL;
    ok(tess_model_mix(
        &(tess_mix_options){.image = image, .text = text, .projection = p, .seed = seed}, r, &m));
    return m;
}

static void picture_of(tess_model *m, float *out)
{
    uint8_t pixels[SIDE * SIDE * 3];
    for (int i = 0; i < SIDE * SIDE * 3; i++) {
        pixels[i] = (uint8_t)(fixture_mixed("pixels", i) & 255);
    }
    ok(tess_model_embed_pictures(m, pixels, 1, out));
}

static void text_of(tess_model *m, float *out)
{
    ok(tess_model_embed_text(m, "a red car", 9, out));
}

static double distance(const float *a, const float *b, int64_t n)
{
    double most = 0;
    for (int64_t i = 0; i < n; i++) {
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
    }
    return most;
}

/* Every pair of an image tower and a text tower: saved, opened, the same fingerprint, the same
 * picture vectors as the image tower's model. */
static void test_pairs(void **state)
{
    (void)state;
    static const char *const images[] = {FORMATS "openclip_tok", FORMATS "openclip_avg",
                                         FORMATS "openclip_siglip", FORMATS "hf_clip",
                                         FORMATS "hf_siglip_half"};
    static const char *const texts[] = {SENTENCE "bert",        SENTENCE "xlmr",
                                        SENTENCE "st_dense",    SENTENCE "st_cls",
                                        FORMATS "openclip_avg", FORMATS "hf_siglip"};
    for (int64_t i = 0; i < TESS_COUNT(images) * TESS_COUNT(texts); i++) {
        const char *image = images[i / TESS_COUNT(texts)], *text = texts[i % TESS_COUNT(texts)];
        const char *dir = fixture_at("mixture");
        tess_mix_report r;
        float want[MOST], have[MOST], before[MOST], after[MOST];
        char a[33], b[33];
        tess_model *first = open_at(image), *m = mix(image, text, TESS_MIX_AUTO, 3, &r);
        const int64_t z = tess_model_embed_dim(first);
        assert_true(z <= MOST);
        assert_int_equal(tess_model_embed_dim(m), z);
        assert_true(tess_model_has_image(m));
        picture_of(first, want);
        picture_of(m, have);
        assert_memory_equal(want, have, (size_t)z * sizeof *want);
        text_of(m, before);
        ok(tess_model_fingerprint(m, a));
        ok(tess_model_save(m, dir));
        tess_model_free(m);
        m = open_at(dir);
        ok(tess_model_fingerprint(m, b));
        assert_string_equal(a, b);
        text_of(m, after);
        assert_memory_equal(before, after, (size_t)z * sizeof *before);
        tess_model_free(m);
        tess_model_free(first);
        ok(tess_dir_remove(dir));
    }
}

/* Where nothing is new, the text vectors are the text tower's model's. */
static void test_keep(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {FORMATS "hf_siglip", SENTENCE "bert"},          /* 32 and 32, no projection */
        {FORMATS "hf_clip", FORMATS "openclip_tok"},     /* 16 and 16 */
        {FORMATS "openclip_siglip", FORMATS "hf_siglip"} /* 32 and 32, with a bias */
    };
    for (int64_t i = 0; i < TESS_COUNT(pairs); i++) {
        tess_mix_report r;
        float want[MOST], have[MOST], fresh[MOST];
        tess_model *text = open_at(pairs[i][1]);
        tess_model *m = mix(pairs[i][0], pairs[i][1], TESS_MIX_KEEP, 1, &r);
        const int64_t z = tess_model_embed_dim(m);
        text_of(text, want);
        text_of(m, have);
        assert_false(r.is_fresh);
        assert_memory_equal(want, have, (size_t)z * sizeof *want);
        tess_model_free(m);
        m = mix(pairs[i][0], pairs[i][1], TESS_MIX_LINEAR, 1, &r);
        text_of(m, fresh);
        assert_true(r.is_fresh && distance(fresh, want, z) > 1e-3);
        tess_model_free(m);
        tess_model_free(text);
    }
}

/* A mixture whose parts OpenCLIP has is a model of OpenCLIP's, and another mixture's text tower. */
static void test_further(void **state)
{
    (void)state;
    tess_mix_report r;
    float want[MOST], have[MOST];
    const char *dir = fixture_at("mixture"), *theirs = fixture_at("openclip");
    tess_model *m = mix(FORMATS "openclip_tok", SENTENCE "bert", TESS_MIX_MLP, 3, &r);
    const size_t n_bytes = (size_t)tess_model_embed_dim(m) * sizeof *want;
    text_of(m, want);
    ok(tess_model_save(m, dir));
    tess_model_free(m);
    ok(tess_model_convert(dir, "openclip", theirs));
    m = open_at(theirs);
    text_of(m, have);
    assert_memory_equal(want, have, n_bytes);
    tess_model_free(m);
    m = mix(FORMATS "hf_clip", theirs, TESS_MIX_AUTO, 3, &r);
    text_of(m, have);
    assert_false(r.is_fresh);
    assert_memory_equal(want, have, n_bytes);
    tess_model_free(m);
    m = mix(FORMATS "hf_siglip", dir, TESS_MIX_AUTO, 3, &r);
    assert_true(r.is_fresh);
    assert_int_equal(m->config.text.bert->n_heads, 2); /* the last layer is replaced */
    assert_int_equal(m->config.text.bert->heads[1].width, 32);
    tess_model_free(m);
}

/* The seed decides a new projection, and nothing but that. */
static void test_seed(void **state)
{
    (void)state;
    tess_mix_report r;
    tess_model *m[3];
    float t[3][MOST];
    for (int i = 0; i < 3; i++) {
        m[i] = mix(FORMATS "hf_clip", SENTENCE "xlmr", TESS_MIX_MLP, i == 2 ? 8 : 7, &r);
        text_of(m[i], t[i]);
    }
    const int64_t z = tess_model_embed_dim(m[0]);
    assert_memory_equal(t[0], t[1], (size_t)z * sizeof t[0][0]);
    assert_true(distance(t[0], t[2], z) > 1e-3);
    const tess_store *s = tess_model_store(m[0]);
    for (int64_t i = 0; i < tess_store_n_entries(s, "param"); i++) {
        float *x;
        tess_shape shape;
        const char *name = tess_store_entry(s, "param", i, &x, &shape);
        const float *y = tess_store_find(tess_model_store(m[2]), "param", name, &shape);
        const bool same = memcmp(x, y, (size_t)tess_shape_count(&shape) * sizeof *x) == 0;
        if (same == (strncmp(name, "head.", 5) == 0)) {
            fail_msg("%s is %s for two seeds", name, same ? "the same" : "not the same");
        }
    }
    for (int i = 0; i < 3; i++) {
        tess_model_free(m[i]);
    }
}

static void refuse(const char *image, const char *text, tess_mix_projection p, tess_status status,
                   const char *why)
{
    tess_mix_report r;
    tess_model *m = NULL;
    assert_fails(
        tess_model_mix(&(tess_mix_options){.image = image, .text = text, .projection = p}, &r, &m),
        status, why);
    assert_null(m);
}

static void test_refusals(void **state)
{
    (void)state;
    refuse(SENTENCE "bert", FORMATS "hf_clip", TESS_MIX_AUTO, TESS_INVALID, "text tower alone");
    refuse(FORMATS "hf_clip", SENTENCE "bert", TESS_MIX_KEEP, TESS_INVALID, "vectors of 32");
    refuse(FORMATS "hf_clip", FORMATS "openclip_tok", TESS_MIX_MLP, TESS_UNSUPPORTED, "two layers");
    refuse(FORMATS "hf_clip", "tests/fixtures", TESS_MIX_AUTO, TESS_IO, "text tower's model");
    refuse("tests/fixtures", FORMATS "hf_clip", TESS_MIX_AUTO, TESS_IO, "image tower's model");
}

/* ---- the config of a BERT tower in a directory of two ---- */

static tess_status open_edited(const char *dir, const char *from, const char *to)
{
    uint8_t *text = NULL;
    size_t n;
    char *path = tess_format("%s/open_clip_config.json", dir);
    tess_model *m = NULL;
    ok(tess_file_read(path, 1 << 20, &text, &n));
    char *at = strstr((char *)text, from);
    assert_non_null(at);
    char *edited =
        tess_format("%.*s%s%s", (int)(at - (char *)text), (char *)text, to, at + strlen(from));
    ok(tess_file_write(path, edited, strlen(edited)));
    const tess_status st = tess_model_open(dir, TESS_PRECISION_F32, &m);
    assert_null(m);
    char *why = tess_strdup(tess_error());
    ok(tess_file_write(path, text, n));
    tess_status again = TESS_FAIL(st, "%s", why);
    tess_free(why);
    tess_free(text);
    tess_free(edited);
    tess_free(path);
    return again;
}

static void test_bad_config(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *why;
    } edits[] = {
        {"\"hidden\": 48", "\"hidden\": -1", "text_cfg.bert.hidden"},
        {"\"n_types\"", "\"types\"", "text_cfg.bert.types"},
        {"\"n_positions\": 40", "\"n_positions\": 20", "n_positions"},
        {"\"width\": 16,\n            \"bias\"", "\"bias\"", "width is missing"},
        {"\"width\": 16,\n            \"bias\"", "\"width\": 24, \"bias\"", "embed_dim is 16"},
        {"\"bias\": false", "\"act\": \"sine\"", "sine"},
        {"\"heads\": [\n", "\"heads\": [3,\n", "expected an object"},
        {"\"heads\": [\n", "\"heads\": [{}, {}, {}, {},\n", "at most 4"},
        {"\"pool_type\": \"mean\"", "\"pool_type\": \"attention\"", "pool_type"},
    };
    tess_mix_report r;
    const char *dir = fixture_at("edited");
    tess_model *m = mix(FORMATS "openclip_tok", SENTENCE "bert", TESS_MIX_AUTO, 3, &r);
    ok(tess_model_save(m, dir));
    tess_model_free(m);
    for (int64_t i = 0; i < TESS_COUNT(edits); i++) {
        const tess_status st = open_edited(dir, edits[i].from, edits[i].to);
        if (st == TESS_OK || !strstr(tess_error(), edits[i].why)) {
            fail_msg("%s: expected \"%s\" in \"%s\"", edits[i].to, edits[i].why, tess_error());
        }
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_make_root, fixture_remove_root)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_pairs), TEST(test_keep),     TEST(test_further),
        TEST(test_seed),  TEST(test_refusals), TEST(test_bad_config),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
