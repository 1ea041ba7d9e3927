/* SPDX-License-Identifier: Apache-2.0 */
/* Augmentation: a function of (seed, sample) alone, inside its stated ranges, off when told. */
#include <math.h>

#include "vision/augment.h"
#include "vision/pictures.h"

enum { SIDE = 48, N_BYTES = 3 * SIDE * SIDE };

static const tess_augment everything = {
    .scale_min = .3, .scale_max = 1, .flip = true, .shift = 4, .brightness = .2, .contrast = .2};

static tess_preprocess small(void)
{
    tess_preprocess p = tess_preprocess_default();
    p.width = p.height = SIDE;
    p.fill[0] = 7;
    return p;
}

static void one(tess_resizer *r, const tess_augment *a, uint64_t seed, uint64_t sample,
                const tess_picture *in, uint8_t *out)
{
    tess_preprocess p = small();
    assert_int_equal(tess_augment_apply(r, &p, a, seed, sample, in, out), TESS_OK);
}

/* Two resizers, opposite orders: as two workers would meet the samples. */
static void depends_on_seed_and_sample_alone(void **state)
{
    (void)state;
    enum { N = 24 };
    static uint8_t a[N][N_BYTES], b[N_BYTES];
    tess_resizer *r = tess_resizer_new(), *s = tess_resizer_new();
    tess_picture p = {0};
    decode_fixture("jpeg_large.jpg", &p);
    for (uint64_t i = 0; i < N; i++) {
        one(r, &everything, 5, i, &p, a[i]);
    }
    for (uint64_t i = N; i-- > 0;) {
        one(s, &everything, 5, i, &p, b);
        assert_memory_equal(a[i], b, N_BYTES);
        one(s, &everything, 6, i, &p, b);
        assert_memory_not_equal(a[i], b, N_BYTES);
        assert_memory_not_equal(a[i], a[(i + 1) % N], N_BYTES);
    }
    tess_picture_deinit(&p);
    tess_resizer_free(r);
    tess_resizer_free(s);
}

static void nothing_asked_is_the_evaluation_transform(void **state)
{
    (void)state;
    static uint8_t a[N_BYTES], b[N_BYTES];
    tess_resizer *r = tess_resizer_new();
    tess_picture p = {0};
    tess_preprocess cfg = small();
    decode_fixture("jpeg_large.jpg", &p);
    one(r, &(tess_augment){0}, 1, 2, &p, a);
    assert_int_equal(tess_transform_apply(r, &cfg, &p, b), TESS_OK);
    assert_memory_equal(a, b, N_BYTES);
    tess_picture_deinit(&p);
    tess_resizer_free(r);
}

static void crops_keep_to_scale_and_ratio(void **state)
{
    (void)state;
    enum { DRAWS = 4000, W = 500, H = 375 };
    const tess_augment a = {.scale_min = .1, .scale_max = .4, .ratio_min = .8, .ratio_max = 1.25};
    double sum = 0, corner = 1;
    for (uint64_t i = 0; i < DRAWS; i++) {
        tess_rng rng = tess_rng_at(3, i);
        tess__crop c = tess__crop_draw(&a, &rng, W, H);
        assert_true(c.x >= 0 && c.y >= 0 && c.width >= 1 && c.height >= 1);
        assert_true(c.x + c.width <= W && c.y + c.height <= H);
        double area = (double)c.width * c.height / W / H, ratio = (double)c.width / c.height;
        assert_true(area > .098 && area < .402);
        assert_true(ratio > .78 && ratio < 1.28);
        sum += area;
        corner = fmin(corner, (c.x + c.y) / (double)(W + H));
    }
    assert_true(fabs(sum / DRAWS - .25) < .005); /* every crop fits: uniform; 3.6 deviations */
    assert_true(corner < .02);
}

static void impossible_crops_fall_back_to_the_middle(void **state)
{
    (void)state;
    const tess_augment a = {.scale_min = 1, .scale_max = 1};
    tess_rng rng = tess_rng_at(1, 1);
    tess__crop c = tess__crop_draw(&a, &rng, 1000, 100);
    assert_int_equal(c.height, 100);
    assert_int_equal(c.width, 133); /* 4/3 */
    assert_int_equal(c.x, 433);
    c = tess__crop_draw(&a, &rng, 30, 300);
    assert_int_equal(c.width, 30);
    assert_int_equal(c.height, 40);
    assert_int_equal(c.y, 130);
    c = tess__crop_draw(&a, &rng, 1, 1);
    assert_true(c.width == 1 && c.height == 1);
}

static tess_picture ramp(void)
{
    tess_picture p = {.width = SIDE, .height = SIDE, .rgb = tess_alloc(N_BYTES)};
    for (int i = 0; i < SIDE * SIDE; i++) {
        p.rgb[3 * i] = (uint8_t)(100 + i % SIDE);
        p.rgb[3 * i + 1] = (uint8_t)(100 + i / SIDE);
        p.rgb[3 * i + 2] = 100;
    }
    return p;
}

static void flips_half_of_the_time(void **state)
{
    (void)state;
    enum { N = 400 };
    static uint8_t out[N_BYTES];
    tess_resizer *r = tess_resizer_new();
    tess_picture p = ramp();
    int n_flipped = 0;
    for (uint64_t i = 0; i < N; i++) {
        one(r, &(tess_augment){.flip = true}, 9, i, &p, out);
        bool flipped = out[0] != 100;
        n_flipped += flipped;
        for (int x = 0; x < SIDE; x++) {
            assert_int_equal(out[3 * (5 * SIDE + x)], 100 + (flipped ? SIDE - 1 - x : x));
            assert_int_equal(out[3 * (5 * SIDE + x) + 1], 105);
        }
    }
    assert_true(n_flipped > N * 2 / 5 && n_flipped < N * 3 / 5);
    tess_picture_deinit(&p);
    tess_resizer_free(r);
}

static void shifts_within_reach_and_fills(void **state)
{
    (void)state;
    enum { N = 200, REACH = 3 };
    static uint8_t out[N_BYTES];
    tess_resizer *r = tess_resizer_new();
    tess_picture p = ramp();
    int seen[2 * REACH + 1][2 * REACH + 1] = {{0}};
    for (uint64_t i = 0; i < N; i++) {
        one(r, &(tess_augment){.shift = REACH}, 9, i, &p, out);
        const uint8_t *m = out + 3 * (SIDE / 2 * SIDE + SIDE / 2);
        int dx = 100 + SIDE / 2 - m[0], dy = 100 + SIDE / 2 - m[1];
        assert_true(abs(dx) <= REACH && abs(dy) <= REACH);
        seen[dy + REACH][dx + REACH] = 1;
        for (int y = 0; y < SIDE; y++) {
            for (int x = 0; x < SIDE; x++) {
                const uint8_t *q = out + 3 * (y * SIDE + x);
                int sx = x - dx, sy = y - dy;
                bool inside = sx >= 0 && sx < SIDE && sy >= 0 && sy < SIDE;
                assert_int_equal(q[0], inside ? 100 + sx : 7);
                assert_int_equal(q[1], inside ? 100 + sy : 0);
            }
        }
    }
    int n_seen = 0;
    for (int i = 0; i < TESS_COUNT(seen) * TESS_COUNT(seen[0]); i++) {
        n_seen += seen[i / (2 * REACH + 1)][i % (2 * REACH + 1)];
    }
    assert_true(n_seen > 40); /* of 49 */
    tess_picture_deinit(&p);
    tess_resizer_free(r);
}

static void brightness_scales_and_contrast_keeps_the_mean(void **state)
{
    (void)state;
    enum { N = 100 };
    static uint8_t out[N_BYTES];
    tess_resizer *r = tess_resizer_new();
    tess_picture p = ramp();
    for (uint64_t i = 0; i < N; i++) {
        one(r, &(tess_augment){.brightness = .3}, 9, i, &p, out);
        assert_true(out[2] >= 70 && out[2] <= 130);
        assert_true(abs(out[3 * (SIDE - 1)] - (100 + SIDE - 1) * out[2] / 100) <= 2);
        one(r, &(tess_augment){.contrast = .3}, 9, i, &p, out);
        double mean = 0;
        for (int k = 0; k < SIDE * SIDE; k++) {
            mean += .299 * out[3 * k] + .587 * out[3 * k + 1] + .114 * out[3 * k + 2];
        }
        assert_true(fabs(mean / SIDE / SIDE - 120.8) < 1);
    }
    tess_picture_deinit(&p);
    tess_resizer_free(r);
}

static void refuses_bad_options(void **state)
{
    (void)state;
    static const tess_augment bad[] = {
        {.scale_min = -.1, .scale_max = 1},
        {.scale_min = .9, .scale_max = .5},
        {.scale_max = 1.5},
        {.ratio_min = 2, .ratio_max = 1},
        {.ratio_max = 1},
        {.shift = -1},
        {.brightness = -1},
        {.contrast = (double)NAN},
    };
    assert_int_equal(tess_augment_check(&everything), TESS_OK);
    assert_int_equal(tess_augment_check(&(tess_augment){0}), TESS_OK);
    for (int64_t i = 0; i < TESS_COUNT(bad); i++) {
        assert_int_equal(tess_augment_check(&bad[i]), TESS_INVALID);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(depends_on_seed_and_sample_alone),
        cmocka_unit_test(nothing_asked_is_the_evaluation_transform),
        cmocka_unit_test(crops_keep_to_scale_and_ratio),
        cmocka_unit_test(impossible_crops_fall_back_to_the_middle),
        cmocka_unit_test(flips_half_of_the_time),
        cmocka_unit_test(shifts_within_reach_and_fills),
        cmocka_unit_test(brightness_scales_and_contrast_keeps_the_mean),
        cmocka_unit_test(refuses_bad_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
