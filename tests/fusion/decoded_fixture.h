/* SPDX-License-Identifier: Apache-2.0 */
/* A model that is given decoded pictures, beside itself with the same pictures finished: vectors,
 * losses and weights are equal to the bit.  Shared by the tests of both devices. */
#ifndef TESTS_FUSION_DECODED_FIXTURE_H
#define TESTS_FUSION_DECODED_FIXTURE_H

#include "fusion/fusion_fixture.h"
#include "fusion/model.h"

#define DECODED_PNG "tests/fixtures/vision/png_rgb.png"

/* PICTURES pictures of sizes of their own, as they were decoded and as the model sees them. */
typedef struct decoded {
    tess_raw_pictures *raw; /* with `spare` places more */
    uint8_t *finished;
    size_t one;
} decoded;

static inline decoded decoded_open(const tess_model *m, int64_t spare)
{
    static const int32_t sizes[PICTURES][2] = {{9, 14},  {41, 20}, {1, 3},
                                               {70, 70}, {16, 16}, {33, 100}};
    const int32_t side = (int32_t)tess_model_image_size(m);
    const tess_preprocess *p = tess_model_preprocess(m);
    decoded d = {.one = 3 * (size_t)side * (size_t)side};
    tess_resizer *resizer = tess_resizer_new();
    d.finished = tess_alloc_array(PICTURES, d.one);
    ok(tess_raw_pictures_new(PICTURES + spare, side, &d.raw));
    for (int i = 0; i < PICTURES; i++) {
        tess_picture in = {.width = sizes[i][0], .height = sizes[i][1]};
        in.cap_bytes = 3 * (size_t)in.width * (size_t)in.height;
        in.rgb = tess_alloc(in.cap_bytes);
        tess_rng r = tess_rng_at(3, (uint64_t)i);
        for (size_t k = 0; k < in.cap_bytes; k++) {
            in.rgb[k] = (uint8_t)tess_rng_below(&r, 256);
        }
        ok(tess_raw_pictures_set(d.raw, i, resizer, &(tess_raw_view){.preprocess = p}, &in));
        ok(tess_transform_apply(resizer, p, &in, d.finished + (size_t)i * d.one));
        tess_picture_deinit(&in);
    }
    tess_resizer_free(resizer);
    return d;
}

static inline void decoded_close(decoded *d)
{
    tess_raw_pictures_free(d->raw);
    tess_free(d->finished);
}

/* Its pictures are filled beside their longer side. */
static inline tess_model *decoded_model(const tess_device *device)
{
    tess_model *m = fixture_model("tok_last", TESS_PRECISION_F32);
    m->config.preprocess.resize_mode = TESS_RESIZE_LONGEST;
    memcpy(m->config.preprocess.fill, (uint8_t[]){200, 3, 90}, 3);
    tess_model_use(m, device);
    return m;
}

/* An encoded picture beside the transform and the finished picture's vector. */
static inline void decoded_check_encoded(tess_model *m, float *have, float *want)
{
    tess_bytes png;
    tess_picture picture = {0};
    tess_resizer *resizer = tess_resizer_new();
    const size_t side = (size_t)tess_model_image_size(m);
    uint8_t *pixels = tess_alloc_array(side * side, 3);
    ok(tess_file_map(DECODED_PNG, &png));
    ok(tess_picture_decode(png.data, png.n_bytes, NULL, &picture));
    ok(tess_transform_apply(resizer, tess_model_preprocess(m), &picture, pixels));
    ok(tess_model_embed_pictures(m, pixels, 1, want));
    for (int run = 0; run < 3; run++) {
        ok(tess_model_embed_picture(m, png, have));
        assert_memory_equal(have, want, (size_t)tess_model_embed_dim(m) * sizeof *have);
    }
    assert_int_not_equal(tess_model_embed_picture(m, (tess_bytes){png.data, 40}, have), TESS_OK);
    tess_file_unmap(&png);
    tess_picture_deinit(&picture);
    tess_resizer_free(resizer);
    tess_free(pixels);
}

static inline void decoded_check_embedding(const tess_device *device)
{
    tess_model *m = decoded_model(device);
    decoded d = decoded_open(m, 2);
    const size_t n = PICTURES * (size_t)tess_model_embed_dim(m);
    float *want = tess_alloc_array(n, sizeof *want), *have = tess_alloc_array(n, sizeof *have);
    tess_raw_pictures *other;
    ok(tess_model_embed_pictures(m, d.finished, PICTURES, want));
    for (int run = 0; run < 3; run++) {
        memset(have, 0, n * sizeof *have);
        ok(tess_model_embed_raw(m, d.raw, PICTURES, have));
        assert_memory_equal(have, want, n * sizeof *have);
    }
    ok(tess_model_embed_raw(m, d.raw, 0, have));
    assert_fails(tess_model_embed_raw(m, d.raw, PICTURES + 3, have), TESS_INVALID,
                 "9 of 8 decoded pictures");
    ok(tess_raw_pictures_new(1, 5, &other));
    assert_fails(tess_model_embed_raw(m, other, 1, have), TESS_INVALID, "for 5 pixels");
    decoded_check_encoded(m, have, want);
    tess_raw_pictures_free(other);
    decoded_close(&d);
    tess_free(want);
    tess_free(have);
    tess_model_free(m);
}

/* Three steps; the trained model, for the caller to free. */
static inline tess_model *decoded_train(const tess_device *device, const fixture_batch *batch,
                                        bool raw, bool recompute, float *out_loss)
{
    tess_model *m = decoded_model(device);
    decoded d = decoded_open(m, 0);
    tess_trainer_options o = fixture_options();
    tess_micro_batch b = fixture_micro_batch(batch);
    tess_trainer *t;
    o.raw_pictures = raw;
    o.recompute = recompute;
    b.pictures = raw ? NULL : d.finished;
    b.raw = raw ? d.raw : NULL;
    ok(tess_trainer_new(m, &o, &t));
    for (int i = 0; i < 3; i++) {
        float norm;
        ok(tess_trainer_micro_step(t, &b, &out_loss[i]));
        ok(tess_trainer_update(t, 1e-3, i + 1, &norm));
    }
    if (raw) {
        tess_raw_pictures *other;
        ok(tess_raw_pictures_new(PICTURES + 1, (int32_t)tess_model_image_size(m), &other));
        b.raw = other;
        assert_fails(tess_trainer_micro_step(t, &b, out_loss + 3), TESS_INVALID,
                     "7 decoded pictures");
        tess_raw_pictures_free(other);
    }
    ok(tess_model_fetch(m));
    tess_trainer_free(t);
    decoded_close(&d);
    return m;
}

static inline void decoded_check_training(const tess_device *device, const fixture_batch *batch)
{
    for (int recompute = 0; recompute < 2; recompute++) {
        float finished[4] = {0}, raw[4] = {0};
        int64_t n;
        tess_model *a = decoded_train(device, batch, false, recompute, finished);
        tess_model *b = decoded_train(device, batch, true, recompute, raw);
        assert_memory_equal(finished, raw, 3 * sizeof *raw);
        const float *x = tess_store_group(tess_model_store(a), "param", &n);
        const float *y = tess_store_group(tess_model_store(b), "param", &n);
        assert_memory_equal(x, y, (size_t)n * sizeof *x);
        tess_model_free(a);
        tess_model_free(b);
    }
}

#endif
