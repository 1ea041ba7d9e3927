/* SPDX-License-Identifier: Apache-2.0 */
/* Embedding: a vector does not depend on its company, on the plans that were made before, or on the
 * call that asked for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fusion_fixture.h"

enum { Z = 16, SIDE = 16, MANY = 700 };

/* Unit rows; products of other sizes may sum in another order, some 2^-24 * sqrt(192) apart. */
static void assert_close(const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (fabsf(a[i] - b[i]) > 2e-6f) {
            fail_msg("element %lld: %g and %g", (long long)i, (double)a[i], (double)b[i]);
        }
    }
}

static void assert_unit(const float *x)
{
    double sum = 0;
    for (int i = 0; i < Z; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    assert_true(fabs(sum - 1) < 1e-5);
}

static void test_pictures_in_any_company(void **state)
{
    (void)state;
    enum { N = 300, ONE = SIDE * SIDE * 3 };
    tess_model *m = fixture_model("map_last", TESS_PRECISION_F32);
    uint8_t *pictures = tess_alloc_array(N, ONE);
    float *all = tess_alloc_array(N * Z, sizeof *all), one[Z];
    for (int64_t i = 0; i < (int64_t)N * ONE; i++) {
        pictures[i] = (uint8_t)fixture_mixed("crowd", i);
    }
    ok(tess_model_embed_pictures(m, pictures, N, all));
    for (int64_t i = 0; i < N; i += 37) {
        ok(tess_model_embed_pictures(m, pictures + i * ONE, 1, one));
        assert_close(one, all + i * Z, Z);
        assert_unit(one);
    }
    ok(tess_model_embed_pictures(m, pictures, 0, one));
    tess_free(all);
    tess_free(pictures);
    tess_model_free(m);
}

/* Random captions of 1 to CONTEXT tokens. */
static int64_t make_captions(int32_t *tokens, int64_t *offsets, int64_t n)
{
    offsets[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t length = 1 + (int64_t)(fixture_mixed("length", i) % CONTEXT);
        for (int64_t k = 0; k < length; k++) {
            tokens[offsets[i] + k] = (int32_t)(fixture_mixed("token", i * CONTEXT + k) % 64);
        }
        offsets[i + 1] = offsets[i] + length;
    }
    return offsets[n];
}

static void test_texts_in_any_company(void **state)
{
    (void)state;
    static int32_t tokens[MANY * CONTEXT];
    static int64_t offsets[MANY + 1];
    static float all[MANY * Z], some[MANY * Z];
    static const char *const cases[] = {"tok_last", "avg_mean", "avg_first"};
    make_captions(tokens, offsets, MANY);
    for (int64_t c = 0; c < TESS_COUNT(cases); c++) {
        tess_model *m = fixture_model(cases[c], TESS_PRECISION_F32);
        ok(tess_model_embed_tokens(m, tokens, offsets, MANY, all));
        for (int64_t n = 1; n < 60; n += 2) { /* more shapes than there are plans */
            ok(tess_model_embed_tokens(m, tokens, offsets + 10 * n, n, some));
            assert_close(some, all + 10 * n * Z, n * Z);
        }
        ok(tess_model_embed_tokens(m, tokens, offsets, MANY, some));
        assert_memory_equal(some, all, sizeof all); /* the same call, the same bits */
        tess_model_free(m);
    }
}

static void test_lengths_are_checked(void **state)
{
    (void)state;
    tess_model *m = fixture_model("tok_last", TESS_PRECISION_F32);
    int32_t tokens[CONTEXT + 1] = {0};
    float out[2 * Z];
    assert_fails(tess_model_embed_tokens(m, tokens, (int64_t[]){0, 2, 2}, 2, out), TESS_INVALID,
                 "text 1 has 0 tokens; expected 1 to 12");
    assert_fails(tess_model_embed_tokens(m, tokens, (int64_t[]){0, 13}, 1, out), TESS_INVALID,
                 "text 0 has 13 tokens");
    assert_fails(tess_model_embed_tokens(m, tokens, (int64_t[]){2, 0}, 1, out), TESS_INVALID,
                 "text 0 has -2 tokens");
    ok(tess_model_embed_tokens(m, tokens, (int64_t[]){0, 12}, 1, out));
    tess_model_free(m);
}

static void test_texts(void **state)
{
    (void)state;
    tess_model *m = fixture_model("tok_last", TESS_PRECISION_F32);
    float a[Z], b[Z];
    tess_ids ids = {0};
    ok(tess_model_embed_text(m, "red cat", 7, a));
    ok(tess_model_embed_text(m, "  red \t cat\n", 12, b));
    assert_memory_equal(a, b, sizeof a); /* cleaned as in training */
    ok(tess_model_tokenize(m, "red cat", 7, NULL, &ids));
    assert_int_equal(ids.ids[ids.n_ids - 1], 2);
    ok(tess_model_embed_tokens(m, ids.ids, (int64_t[]){0, (int64_t)ids.n_ids}, 1, b));
    assert_memory_equal(a, b, sizeof a);
    char *novel = tess_alloc(200001);
    memset(novel, 'a', 200000);
    ok(tess_model_embed_text(m, novel, 200000, a)); /* cut to the context */
    assert_unit(a);
    ids.n_ids = 0;
    ok(tess_model_tokenize(m, novel, 200000, NULL, &ids));
    assert_true(ids.n_ids <= CONTEXT);
    assert_fails(tess_model_embed_text(m, "", 0, a), TESS_INVALID, "nothing to search for");
    assert_fails(tess_model_embed_text(m, " \n\t ", 4, a), TESS_INVALID, "nothing to search for");
    assert_int_equal(tess_model_embed_text(m, "\xff\xfe", 2, a), TESS_FORMAT);
    tess_free(novel);
    tess_ids_deinit(&ids);
    tess_model_free(m);
}

static void test_encoded_pictures(void **state)
{
    (void)state;
    tess_model *m = fixture_model("tok_last", TESS_PRECISION_F32);
    tess_bytes png;
    float out[Z];
    ok(tess_file_map("tests/fixtures/vision/png_rgb.png", &png));
    ok(tess_model_embed_picture(m, png, out));
    assert_unit(out);
    assert_int_not_equal(tess_model_embed_picture(m, (tess_bytes){png.data, 40}, out), TESS_OK);
    assert_int_not_equal(tess_model_embed_picture(m, (tess_bytes){0}, out), TESS_OK);
    ok(tess_model_embed_picture(m, png, out));
    tess_file_unmap(&png);
    tess_model_free(m);
}

static void test_failed_allocations(void **state)
{
    (void)state;
    tess_status st = TESS_NOMEM;
    tess_model *m = fixture_model("tok_last", TESS_PRECISION_F32);
    float a[Z], b[Z];
    for (int64_t nth = 1; st; nth += 5) {
        tess_fault_set(TESS_FAULT_ALLOC, nth, false);
        st = tess_model_embed_text(m, "red cat", 7, a);
        tess_fault_set(TESS_FAULT_ALLOC, 0, false);
    }
    tess_model *fresh = fixture_model("tok_last", TESS_PRECISION_F32);
    ok(tess_model_embed_text(fresh, "red cat", 7, b));
    assert_memory_equal(a, b, sizeof a);
    tess_model_free(fresh);
    tess_model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pictures_in_any_company), cmocka_unit_test(test_texts_in_any_company),
        cmocka_unit_test(test_lengths_are_checked),     cmocka_unit_test(test_texts),
        cmocka_unit_test(test_encoded_pictures),        cmocka_unit_test(test_failed_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
