/* SPDX-License-Identifier: Apache-2.0 */
/* A batch of decoded pictures of every kind of size, resized by a device, beside the same pictures
 * resized by the processor's transform: the patches are equal byte for byte.  Shared by the tests
 * of the processor's operator and of the CUDA device's. */
#ifndef TESTS_VISION_RAW_FIXTURE_H
#define TESTS_VISION_RAW_FIXTURE_H

#include "vision/pictures.h"
#include "vision/raw_pictures.h"

#define RAW_OK(e)                                                                                  \
    do {                                                                                           \
        if ((e) != TESS_OK) {                                                                      \
            fail_msg("%s: %s", #e, tess_error());                                                  \
        }                                                                                          \
    } while (0)

enum { RAW_SIZE = 40, RAW_PATCH = 9, RAW_MAX = 24, RAW_ONE = 3 * RAW_SIZE * RAW_SIZE };

typedef struct raw_set {
    tess_picture picture[RAW_MAX];
    int n;
} raw_set;

static inline void raw_add(raw_set *s, int32_t width, int32_t height)
{
    tess_picture *p = &s->picture[s->n++];
    *p = (tess_picture){.width = width, .height = height};
    p->cap_bytes = 3 * (size_t)width * (size_t)height;
    p->rgb = tess_alloc(p->cap_bytes);
    tess_rng r = tess_rng_at(11, (uint64_t)s->n);
    for (size_t i = 0; i < p->cap_bytes; i++) { /* extremes, so that the filters overshoot */
        const uint32_t v = tess_rng_below(&r, 512);
        p->rgb[i] = (uint8_t)(v < 128 ? 0 : v > 383 ? 255 : v - 128);
    }
}

static inline void raw_open(raw_set *s)
{
    static const int32_t sizes[][2] = {{1, 1},   {1, 9},    {33, 1},   {40, 40},
                                       {41, 39}, {5, 7},    {63, 200}, {90, 64},
                                       {11, 90}, {3000, 5}, {4, 900},  {300, 260}};
    *s = (raw_set){0};
    for (int64_t i = 0; i < TESS_COUNT(sizes); i++) {
        raw_add(s, sizes[i][0], sizes[i][1]);
    }
    decode_fixture("jpeg_exif_6.jpg", &s->picture[s->n++]);
    decode_fixture("png_exif_3.png", &s->picture[s->n++]);
    decode_fixture("jpeg_large.jpg", &s->picture[s->n++]);
}

static inline void raw_close(raw_set *s)
{
    for (int i = 0; i < s->n; i++) {
        tess_picture_deinit(&s->picture[i]);
    }
}

/* One graph on one device: its inputs, bound to what is given, and its patches. */
typedef struct raw_plan {
    tess_graph *g;
    tess_workspace *w;
    tess_store *s;
    tess_plan *p;
    tess_value y;
} raw_plan;

static inline void raw_plan_build(raw_plan *r, const tess_device *device)
{
    r->w = tess_workspace_new();
    r->s = tess_store_new();
    RAW_OK(tess_store_allocate(r->s));
    RAW_OK(tess_plan_build(r->g, &r->y, 1, device, r->s, r->w, &r->p));
}

static inline void raw_plan_free(raw_plan *r)
{
    tess_plan_free(r->p);
    tess_workspace_free(r->w);
    tess_store_free(r->s);
    tess_graph_free(r->g);
}

static inline raw_plan raw_plan_resizing(const tess_raw_pictures *raw, const tess_preprocess *p,
                                         tess_dtype dtype, const tess_device *device)
{
    const tess_raw_memory m = tess_raw_pictures_get(raw);
    raw_plan r = {.g = tess_graph_new()};
    const tess_raw_inputs in = tess__raw_inputs(r.g, m.n, m.size);
    tess_resize_patches_options o = {.size = m.size, .patch = RAW_PATCH, .dtype = dtype};
    for (int c = 0; c < 3; c++) {
        o.mean[c] = (float)p->mean[c];
        o.std[c] = (float)p->std[c];
        o.fill[c] = p->fill[c];
    }
    r.y = tess_resize_patches(r.g, in.bytes, in.places, in.taps, o);
    raw_plan_build(&r, device);
    return r;
}

static inline raw_plan raw_plan_finished(int64_t n, const tess_preprocess *p, tess_dtype dtype,
                                         const tess_device *device)
{
    raw_plan r = {.g = tess_graph_new()};
    const tess_value pictures =
        tess_input(r.g, "pictures", TESS_U8, TESS_SHAPE_OF(n, RAW_SIZE, RAW_SIZE, 3));
    tess_patchify_options o = {.patch = RAW_PATCH, .dtype = dtype};
    for (int c = 0; c < 3; c++) {
        o.mean[c] = (float)p->mean[c];
        o.std[c] = (float)p->std[c];
    }
    r.y = tess_patchify(r.g, pictures, o);
    raw_plan_build(&r, device);
    return r;
}

/* A batch with one place more than pictures, which stays empty. */
typedef struct raw_bench {
    tess_preprocess p;
    tess_resizer *resizer;
    tess_raw_pictures *raw;
    uint8_t *pixels;
    raw_plan resizing, finished;
} raw_bench;

static inline raw_bench raw_bench_open(const raw_set *s, tess_dtype dtype,
                                       const tess_device *device)
{
    raw_bench b = {.p = tess_preprocess_default(), .resizer = tess_resizer_new()};
    const int64_t n = s->n + 1;
    b.p.width = b.p.height = RAW_SIZE;
    memcpy(b.p.fill, (uint8_t[]){9, 200, 31}, 3);
    RAW_OK(tess_raw_pictures_new(n, RAW_SIZE, &b.raw));
    b.pixels = tess_alloc_array((size_t)n, RAW_ONE);
    b.resizing = raw_plan_resizing(b.raw, &b.p, dtype, device);
    b.finished = raw_plan_finished(n, &b.p, dtype, device);
    return b;
}

static inline void raw_bench_close(raw_bench *b)
{
    raw_plan_free(&b->resizing);
    raw_plan_free(&b->finished);
    tess_raw_pictures_free(b->raw);
    tess_resizer_free(b->resizer);
    tess_free(b->pixels);
}

/* Places are set from the last to the first: their order in memory means nothing. */
static inline void raw_check(raw_bench *b, const raw_set *s, const tess_augment *a, uint64_t seed,
                             const char *what)
{
    static const tess_augment nothing;
    const tess_value y = b->finished.y;
    const tess_shape shape = tess_value_shape(b->finished.g, y);
    const size_t n_bytes =
        (size_t)tess_shape_count(&shape) * tess_dtype_bytes(tess_value_dtype(b->finished.g, y));
    tess_raw_pictures_clear(b->raw);
    for (int i = s->n - 1; i >= 0; i--) {
        const tess_raw_view view = {&b->p, a, seed, (uint64_t)i};
        RAW_OK(tess_raw_pictures_set(b->raw, i, b->resizer, &view, &s->picture[i]));
        RAW_OK(tess_augment_apply(b->resizer, &b->p, a ? a : &nothing, seed, (uint64_t)i,
                                  &s->picture[i], b->pixels + (size_t)i * RAW_ONE));
    }
    for (int i = 0; i < RAW_ONE; i++) {
        b->pixels[(size_t)s->n * RAW_ONE + (size_t)i] = b->p.fill[i % 3];
    }
    RAW_OK(tess__raw_bind(b->resizing.p, b->raw));
    RAW_OK(tess_plan_bind(b->finished.p, "pictures", b->pixels));
    RAW_OK(tess_plan_run(b->resizing.p));
    RAW_OK(tess_plan_run(b->finished.p));
    const uint8_t *have = tess_plan_output(b->resizing.p, b->resizing.y);
    const uint8_t *want = tess_plan_output(b->finished.p, y);
    assert_true(have && want);
    const size_t one = n_bytes / (size_t)(s->n + 1);
    for (int i = 0; i <= s->n; i++) {
        if (memcmp(have + (size_t)i * one, want + (size_t)i * one, one) != 0) {
            fail_msg("%s: picture %d of %d x %d is not as the transform makes it", what, i,
                     i < s->n ? s->picture[i].width : 0, i < s->n ? s->picture[i].height : 0);
        }
    }
}

/* All ways of resizing, and the views of training, which crop, mirror and move. */
static inline void raw_check_all(const raw_set *s, tess_dtype dtype, const tess_device *device)
{
    static const tess_augment views[] = {
        {.scale_min = .2, .scale_max = 1, .flip = true},
        {.flip = true, .shift = 50},
        {.scale_min = .9, .scale_max = 1, .shift = 5},
    };
    raw_bench b = raw_bench_open(s, dtype, device);
    for (int mode = 0; mode < TESS_RESIZE_MODES; mode++) {
        b.p.resize_mode = (tess_resize_mode)mode;
        for (int k = 0; k < TESS_INTERPOLATIONS; k++) {
            char what[64];
            b.p.interpolation = (tess_interpolation)k;
            snprintf(what, sizeof what, "mode %d, interpolation %d", mode, k);
            raw_check(&b, s, NULL, 0, what);
            snprintf(what, sizeof what, "view %d, mode %d, interpolation %d", mode, mode, k);
            raw_check(&b, s, &views[mode], (uint64_t)(5 + k), what);
        }
    }
    raw_bench_close(&b);
}

/* A batch of one picture whose numbers are spoiled, one at a time. */
static inline void raw_spoil(const tess_device *device,
                             void (*check)(tess_plan *p, tess_value y, int fault, void *ctx),
                             void *ctx)
{
    static const struct {
        int field; /* of the place; from -1 down: of the first entry of its first table */
        int32_t value;
    } faults[] = {
        {0, -1},  {0, 1 << 30},   {1, 5},   {1, INT32_MAX},  {2, -4},  {2, INT32_MAX},
        {3, -4},  {3, INT32_MAX}, {4, -1},  {4, INT32_MAX},  {5, -1},  {5, INT32_MAX},
        {6, -1},  {6, INT32_MAX}, {7, -1},  {7, INT32_MAX},  {-1, -1}, {-1, 10000},
        {-2, -1}, {-2, 10000},    {-3, -1}, {-3, INT32_MAX},
    };
    raw_set s = {0};
    raw_add(&s, 60, 50);
    raw_bench b = raw_bench_open(&s, TESS_F32, device);
    raw_check(&b, &s, NULL, 0, "before it is spoiled");
    const tess_raw_memory m = tess_raw_pictures_get(b.raw);
    int32_t places[2 * TESS_RESIZE_PLACE], *taps = tess_alloc_array(m.n_taps, sizeof *taps);
    RAW_OK(tess_plan_bind(b.resizing.p, "picture_places", places));
    RAW_OK(tess_plan_bind_part(b.resizing.p, "picture_taps", taps, m.n_taps * sizeof *taps));
    for (int64_t i = 0; i < TESS_COUNT(faults); i++) {
        memcpy(places, m.places, sizeof places);
        memcpy(taps, m.taps, m.n_taps * sizeof *taps);
        if (faults[i].field >= 0) {
            places[faults[i].field] = faults[i].value;
        } else {
            taps[places[4] - 1 - faults[i].field] = faults[i].value;
        }
        check(b.resizing.p, b.resizing.y, (int)i, ctx);
    }
    tess_free(taps);
    raw_bench_close(&b);
    raw_close(&s);
}

#endif
