/* SPDX-License-Identifier: Apache-2.0 */
/* Resizing and the evaluation transform equal Pillow's pixels, on every instruction set. */
#include "vision/pictures.h"
#include "vision/resize.h"

typedef struct expectation {
    const char *file, *mode, *hash;
    tess_preprocess p;
    int32_t box[4];
    bool has_box;
} expectation;

static expectation read_expectation(const tess_json *row)
{
    static const char *const modes[] = {"shortest", "longest", "squash"};
    expectation e = {
        .file = tess_json_string(tess_json_get(row, "file"), ""),
        .mode = tess_json_string(tess_json_get(row, "resize_mode"), ""),
        .hash = tess_json_string(tess_json_get(row, "hash"), ""),
        .p = {.width = (int32_t)tess_json_int(tess_json_get(row, "width"), 0),
              .height = (int32_t)tess_json_int(tess_json_get(row, "height"), 0),
              .fill = {9, 20, 200}},
    };
    const char *filter = tess_json_string(tess_json_get(row, "interpolation"), "");
    e.p.interpolation = strcmp(filter, "bicubic") == 0 ? TESS_BICUBIC : TESS_BILINEAR;
    for (int i = 0; i < 3; i++) {
        if (strcmp(e.mode, modes[i]) == 0) {
            e.p.resize_mode = (tess_resize_mode)i;
        }
    }
    const tess_json *box = tess_json_get(row, "box");
    e.has_box = box != NULL;
    for (size_t i = 0; i < 4; i++) {
        e.box[i] = (int32_t)tess_json_int(tess_json_at(box, i), 0);
    }
    return e;
}

static tess_status run(tess_resizer *r, const expectation *e, const tess_picture *in, uint8_t *out)
{
    if (!e->has_box) {
        return tess_transform_apply(r, &e->p, in, out);
    }
    tess__view v = tess__view_of(in);
    v.rgb += (size_t)e->box[1] * v.stride + 3 * (size_t)e->box[0];
    v.width = e->box[2] - e->box[0];
    v.height = e->box[3] - e->box[1];
    tess__window all = {e->p.width, e->p.height, 0, 0, e->p.width, e->p.height};
    return tess__resize_window(r, v, e->p.interpolation, all, out, 3 * (size_t)e->p.width);
}

static void equals_pillow_on(tess_isa isa)
{
    tess_isa_cap(isa);
    tess_json_doc *doc = load_expectations("resize.json");
    const tess_json *rows = tess_json_root(doc);
    tess_resizer *r = tess_resizer_new();
    tess_picture p = {0};
    assert_true(tess_json_count(rows) > 300);
    for (size_t i = 0; i < tess_json_count(rows); i++) {
        expectation e = read_expectation(tess_json_at(rows, i));
        size_t n_bytes = 3 * (size_t)e.p.width * (size_t)e.p.height;
        uint8_t *out = tess_alloc(n_bytes);
        char hex[17];
        decode_fixture(e.file, &p);
        assert_int_equal(run(r, &e, &p, out), TESS_OK);
        hash_pixels(out, n_bytes, hex);
        if (strcmp(hex, e.hash) != 0) {
            fail_msg("row %zu: %s to %d x %d, %s, filter %d, isa %s", i, e.file, e.p.width,
                     e.p.height, e.mode, (int)e.p.interpolation, tess_isa_name(isa));
        }
        tess_free(out);
    }
    tess_picture_deinit(&p);
    tess_resizer_free(r);
    tess_json_free(doc);
    tess_isa_cap(TESS_ISA_COUNT - 1);
}

static void equals_pillow(void **state)
{
    (void)state;
    for (int isa = TESS_ISA_BASE; isa < TESS_ISA_COUNT; isa++) {
        equals_pillow_on((tess_isa)isa);
    }
}

/* A picture of random bytes in memory of exactly its size, so that sanitizers see overreads. */
static tess_picture random_picture(tess_rng *rng, int32_t w, int32_t h)
{
    size_t n = 3 * (size_t)w * (size_t)h;
    tess_picture p = {.width = w, .height = h, .rgb = malloc(n)};
    for (size_t i = 0; i < n; i++) {
        p.rgb[i] = (uint8_t)tess_rng_below(rng, 256);
        p.rgb[i] = p.rgb[i] < 80 ? 0 : p.rgb[i] > 170 ? 255 : p.rgb[i]; /* overshoots */
    }
    return p;
}

static void all_isas_agree_on_odd_sizes(void **state)
{
    (void)state;
    enum { ROUNDS = 150, SIDE = 70 };
    tess_rng rng = tess_rng_at(7, 7);
    tess_resizer *r = tess_resizer_new();
    for (int i = 0; i < ROUNDS; i++) {
        tess_picture p = random_picture(&rng, 1 + (int32_t)tess_rng_below(&rng, SIDE),
                                        1 + (int32_t)tess_rng_below(&rng, SIDE));
        int32_t w = 1 + (int32_t)tess_rng_below(&rng, SIDE);
        int32_t h = 1 + (int32_t)tess_rng_below(&rng, SIDE);
        size_t n = 3 * (size_t)w * (size_t)h;
        uint8_t *out[TESS_ISA_COUNT];
        for (int isa = 0; isa < TESS_ISA_COUNT; isa++) {
            out[isa] = malloc(n);
            tess_isa_cap((tess_isa)isa);
            assert_int_equal(tess_picture_resize(r, &p, i % 2, w, h, out[isa]), TESS_OK);
            assert_memory_equal(out[isa], out[0], n);
        }
        for (int isa = 0; isa < TESS_ISA_COUNT; isa++) {
            free(out[isa]);
        }
        free(p.rgb);
    }
    tess_isa_cap(TESS_ISA_COUNT - 1);
    tess_resizer_free(r);
}

static void refuses_impossible_sizes(void **state)
{
    (void)state;
    uint8_t pixel[3] = {0};
    tess_picture p = {.width = 1, .height = 1, .rgb = pixel}, empty = {0};
    tess_resizer *r = tess_resizer_new();
    assert_int_equal(tess_picture_resize(r, &p, TESS_BICUBIC, 0, 4, pixel), TESS_INVALID);
    assert_int_equal(tess_picture_resize(r, &p, TESS_BICUBIC, 4, -1, pixel), TESS_INVALID);
    assert_int_equal(tess_picture_resize(r, &empty, TESS_BICUBIC, 1, 1, pixel), TESS_INVALID);
    tess_resizer_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_pillow),
        cmocka_unit_test(all_isas_agree_on_odd_sizes),
        cmocka_unit_test(refuses_impossible_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
