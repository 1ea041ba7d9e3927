/* SPDX-License-Identifier: Apache-2.0 */
/* Every fixture decodes to Pillow's pixels, bit for bit; the prober agrees; options do as told. */
#include "vision/pictures.h"

static void equals_pillow(void **state)
{
    (void)state;
    tess_json_doc *doc = load_expectations("decode.json");
    const tess_json *rows = tess_json_root(doc);
    tess_picture p = {0};
    assert_true(tess_json_count(rows) >= 60);
    for (size_t i = 0; i < tess_json_count(rows); i++) {
        const tess_json *row = tess_json_at(rows, i);
        const char *file = tess_json_string(tess_json_get(row, "file"), "");
        char hex[17];
        decode_fixture(file, &p); /* into the same picture: memory is reused */
        hash_pixels(p.rgb, 3 * (size_t)p.width * (size_t)p.height, hex);
        int64_t w = tess_json_int(tess_json_get(row, "width"), 0);
        int64_t h = tess_json_int(tess_json_get(row, "height"), 0);
        if (p.width != w || p.height != h ||
            strcmp(hex, tess_json_string(tess_json_get(row, "hash"), "")) != 0) {
            const uint8_t *m = p.rgb + 3 * (p.width / 2 + (int64_t)p.width * (p.height / 2));
            const tess_json *e = tess_json_get(row, "middle");
            fail_msg("%s: %d x %d, middle %d %d %d; expected %d x %d, middle %d %d %d", file,
                     p.width, p.height, m[0], m[1], m[2], (int)w, (int)h,
                     (int)tess_json_int(tess_json_at(e, 0), 0),
                     (int)tess_json_int(tess_json_at(e, 1), 0),
                     (int)tess_json_int(tess_json_at(e, 2), 0));
        }
    }
    tess_picture_deinit(&p);
    tess_json_free(doc);
}

static void probe_agrees(void **state)
{
    (void)state;
    tess_json_doc *doc = load_expectations("decode.json");
    const tess_json *rows = tess_json_root(doc);
    for (size_t i = 0; i < tess_json_count(rows); i++) {
        const tess_json *row = tess_json_at(rows, i);
        const char *file = tess_json_string(tess_json_get(row, "file"), "");
        tess_bytes b = load_fixture(file);
        tess_picture_info info;
        if (tess_picture_probe(b.data, b.n_bytes, &info) != TESS_OK) {
            fail_msg("%s: %s", file, tess_error());
        }
        assert_int_equal(info.width, tess_json_int(tess_json_get(row, "width"), 0));
        assert_int_equal(info.height, tess_json_int(tess_json_get(row, "height"), 0));
        char start[5] = {0};
        strncpy(start, tess_picture_format_name(info.format), 4);
        assert_int_equal(strncasecmp(file, start, 3), 0);
        tess_free((void *)b.data);
    }
    tess_json_free(doc);
}

static void background_is_free_to_choose(void **state)
{
    (void)state;
    static const uint8_t green[3] = {0, 255, 0};
    tess_bytes b = load_fixture("png_grey1_trns.png");
    tess_picture p = {0};
    tess_decode_limits limits = {.background = green};
    assert_int_equal(tess_picture_decode(b.data, b.n_bytes, &limits, &p), TESS_OK);
    /* samples alternate in pairs: opaque 0, then the transparent 1 */
    assert_memory_equal(p.rgb, "\0\0\0", 3);
    assert_memory_equal(p.rgb + 6, green, 3);
    tess_picture_deinit(&p);
    tess_free((void *)b.data);
}

static void scaled_only_when_allowed(void **state)
{
    (void)state;
    static const int32_t cases[][3] = {{0, 320, 213},   {214, 320, 213}, {107, 320, 213},
                                       {106, 160, 107}, {60, 160, 107},  {50, 80, 54},
                                       {1, 40, 27}};
    tess_bytes b = load_fixture("jpeg_large.jpg");
    tess_picture p = {0};
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        tess_decode_limits limits = {.allow_scaled = cases[i][0]};
        assert_int_equal(tess_picture_decode(b.data, b.n_bytes, &limits, &p), TESS_OK);
        assert_int_equal(p.width, cases[i][1]);
        assert_int_equal(p.height, cases[i][2]);
    }
    tess_picture_deinit(&p);
    tess_free((void *)b.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_pillow),
        cmocka_unit_test(probe_agrees),
        cmocka_unit_test(background_is_free_to_choose),
        cmocka_unit_test(scaled_only_when_allowed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
