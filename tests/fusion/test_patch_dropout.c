/* SPDX-License-Identifier: Apache-2.0 */
/* Patch dropout: which patches stay, that a step sees those and no others, and that embedding sees
 * all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fusion_fixture.h"

#include "fusion/model.h"
#include "vision/patch_dropout.h"

enum { SIDE = 16, PATCH = 8, ONE = SIDE * SIDE * 3, Z = 16 };

/* ---- the choice ------------------------------------------------------------------------------ */

static tess_vit_config vit(int64_t side, bool class_token)
{
    tess_vit_config c = tess__vit_default();
    c.image_size = side * c.patch_size;
    c.class_token = class_token;
    return c;
}

static void test_counts(void **state)
{
    (void)state;
    const tess_vit_config b32 = vit(7, true), siglip = vit(14, false);
    assert_int_equal(tess__patches_kept(&b32, 0.5), 24 + 1); /* OpenCLIP's int(49 * .5) */
    assert_int_equal(tess__patches_kept(&b32, 0.75), 12 + 1);
    assert_int_equal(tess__patches_kept(&siglip, 0.5), 98);
    assert_int_equal(tess__patches_kept(&siglip, 0.999), 1);
}

/* Ascending, without repeats, and each patch as often as the next: of 20,000 choices of 5 in 16
 * each is in 6,250, give or take 5 standard deviations of 66. */
static void test_choice(void **state)
{
    (void)state;
    enum { N = 20000, P = 16, K = 5 };
    static int32_t rows[N * (K + 1)], again[N * (K + 1)];
    const tess_vit_config c = vit(4, true);
    int64_t counts[P + 1] = {0};
    tess__patches_choose(&c, K + 1, 7, 100, N, rows);
    for (int64_t i = 0; i < N; i++) {
        const int32_t *r = rows + i * (K + 1);
        assert_int_equal(r[0], 0); /* the class token */
        for (int k = 0; k < K; k++) {
            assert_true(r[k + 1] > r[k] && r[k + 1] <= P);
            counts[r[k + 1]]++;
        }
    }
    for (int p = 1; p <= P; p++) {
        assert_true(llabs(counts[p] - N * K / P) < 330);
    }
    /* One at a time, in any order, the same: the place in the run decides. */
    for (int64_t i = N - 1; i >= 0; i -= 7) {
        tess__patches_choose(&c, K + 1, 7, 100 + i, 1, again);
        assert_memory_equal(again, rows + i * (K + 1), (K + 1) * sizeof *rows);
    }
    tess__patches_choose(&c, K + 1, 8, 100, N, again);
    assert_memory_not_equal(again, rows, sizeof rows); /* and the seed */
}

/* ---- a step ---------------------------------------------------------------------------------- */

static float loss_of(const char *name, const fixture_batch *b, const uint8_t *pictures, double rate,
                     int64_t counter)
{
    tess_trainer_options o = fixture_options();
    tess_micro_batch batch = fixture_micro_batch(b);
    tess_trainer *t;
    float loss;
    o.patch_dropout = rate;
    o.seed = 3;
    batch.pictures = pictures;
    batch.counter = counter;
    tess_model *m = fixture_model(name, TESS_PRECISION_F32);
    ok(tess_trainer_new(m, &o, &t));
    ok(tess_trainer_micro_step(t, &batch, &loss));
    tess_trainer_free(t);
    tess_model_free(m);
    return loss;
}

static void invert(uint8_t *picture, int64_t patch)
{
    const int64_t top = patch / (SIDE / PATCH) * PATCH, left = patch % (SIDE / PATCH) * PATCH;
    for (int64_t y = top; y < top + PATCH; y++) {
        for (int64_t x = 3 * left; x < 3 * (left + PATCH); x++) {
            picture[3 * SIDE * y + x] ^= 255;
        }
    }
}

/* Whatever is painted over dropped patches, the loss is the same to the bit; over kept ones, not.
 */
static void test_a_step_sees_what_is_kept(void **state)
{
    (void)state;
    static const char *const names[] = {"tok_last", "avg_mean", "map_last"};
    enum { PATCHES = 4, COUNTER = 60 };
    fixture_batch b;
    fixture_open(&b);
    for (int64_t i = 0; i < TESS_COUNT(names); i++) {
        tess_model *m = fixture_model(names[i], TESS_PRECISION_F32);
        const tess_vit_config *c = &m->config.vision;
        const int64_t kept = tess__patches_kept(c, 0.5);
        int32_t rows[PICTURES * (PATCHES + 1)];
        uint8_t dropped[PICTURES * ONE], seen[PICTURES * ONE];
        memcpy(dropped, b.pictures, sizeof dropped);
        memcpy(seen, b.pictures, sizeof seen);
        tess__patches_choose(c, kept, 3, COUNTER, PICTURES, rows);
        for (int64_t k = 0; k < PICTURES * PATCHES; k++) {
            bool stays = false;
            for (int64_t j = 0; j < kept; j++) {
                stays |= rows[k / PATCHES * kept + j] == k % PATCHES + c->class_token;
            }
            invert((stays ? seen : dropped) + k / PATCHES * ONE, k % PATCHES);
        }
        const float loss = loss_of(names[i], &b, b.pictures, 0.5, COUNTER);
        assert_true(loss_of(names[i], &b, dropped, 0.5, COUNTER) == loss);
        assert_true(loss_of(names[i], &b, seen, 0.5, COUNTER) != loss);
        assert_true(loss_of(names[i], &b, b.pictures, 0.5, COUNTER + PICTURES) != loss);
        assert_true(loss_of(names[i], &b, b.pictures, 0, COUNTER) != loss);
        tess_model_free(m);
    }
    tess_tensors_free(b.file);
}

static void test_embedding_sees_all(void **state)
{
    (void)state;
    fixture_batch b;
    fixture_open(&b);
    float before[PICTURES * Z], after[PICTURES * Z];
    tess_trainer_options o = fixture_options();
    tess_micro_batch batch = fixture_micro_batch(&b);
    tess_trainer *t;
    float loss;
    o.patch_dropout = 0.5;
    tess_model *m = fixture_model("tok_last", TESS_PRECISION_F32);
    ok(tess_model_embed_pictures(m, b.pictures, PICTURES, before));
    ok(tess_trainer_new(m, &o, &t));
    ok(tess_trainer_micro_step(t, &batch, &loss));
    ok(tess_model_embed_pictures(m, b.pictures, PICTURES, after));
    assert_memory_equal(before, after, sizeof before);
    tess_trainer_free(t);
    o.patch_dropout = 1;
    assert_fails(tess_trainer_new(m, &o, &t), TESS_INVALID, "patch dropout: expected 0 to below 1");
    tess_model_free(m);
    tess_tensors_free(b.file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_a_step_sees_what_is_kept),
        cmocka_unit_test(test_embedding_sees_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
