/* SPDX-License-Identifier: Apache-2.0 */
/* Preprocessing: the config in and out, normalising, extreme shapes.  Pixel parity is in
 * test_resize.c. */
#include <math.h>

#include "vision/pictures.h"

static tess_status read_text(const char *text, tess_preprocess *out)
{
    tess_json_doc *doc = NULL;
    assert_int_equal(tess_json_parse(text, strlen(text), "cfg.json", &doc), TESS_OK);
    tess_status st = tess_preprocess_read(tess_json_root(doc), "preprocess_cfg", out);
    tess_json_free(doc);
    return st;
}

static void reads_open_clip(void **state)
{
    (void)state;
    tess_preprocess p;
    assert_int_equal(
        read_text("{\"size\": [384, 256], \"mode\": \"RGB\", \"mean\": [0.5, 0.25, 0.125],"
                  "\"std\": 0.5, \"interpolation\": \"bilinear\", \"resize_mode\": \"squash\","
                  "\"fill_color\": [1, 2, 255]}",
                  &p),
        TESS_OK);
    assert_int_equal(p.height, 384);
    assert_int_equal(p.width, 256);
    assert_int_equal(p.interpolation, TESS_BILINEAR);
    assert_int_equal(p.resize_mode, TESS_RESIZE_SQUASH);
    assert_true(p.mean[2] == .125 && p.std[0] == .5 && p.std[2] == .5);
    assert_memory_equal(p.fill, "\1\2\xff", 3);
    assert_int_equal(read_text("{\"interpolation\": \"random\", \"size\": 96}", &p), TESS_OK);
    assert_int_equal(p.interpolation, TESS_BICUBIC);
    assert_int_equal(p.width, 96);
    assert_int_equal(p.height, 96);
    assert_true(p.mean[0] == 0.48145466);
    assert_int_equal(tess_preprocess_read(NULL, "none", &p), TESS_OK);
    assert_int_equal(p.width, 224);
}

static void refuses_what_it_does_not_know(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{\"sise\": 224}", "sise"},
        {"{\"size\": 0}", "size"},
        {"{\"size\": [224]}", "size"},
        {"{\"size\": [224, 224, 3]}", "size"},
        {"{\"size\": \"224\"}", "size"},
        {"{\"size\": 224.5}", "size"},
        {"{\"size\": 1000000000}", "size"},
        {"{\"mode\": \"L\"}", "mode"},
        {"{\"std\": [1, 0, 1]}", "std"},
        {"{\"std\": 1e-60}", "std"},
        {"{\"mean\": [1, 2]}", "mean"},
        {"{\"mean\": 1e60}", "mean"},
        {"{\"interpolation\": \"lanczos\"}", "interpolation"},
        {"{\"resize_mode\": \"stretch\"}", "resize_mode"},
        {"{\"fill_color\": 256}", "fill_color"},
        {"{\"fill_color\": 1.5}", "fill_color"},
        {"[]", "preprocess_cfg"},
    };
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        tess_preprocess p;
        tess_status st = read_text(cases[i][0], &p);
        if (st != TESS_INVALID || !strstr(tess_error(), cases[i][1]) ||
            !strstr(tess_error(), "preprocess_cfg")) {
            fail_msg("%s: %s: %s", cases[i][0], tess_status_name(st), tess_error());
        }
    }
}

static char *canonical(const char *text)
{
    tess_preprocess p;
    tess_buf b = {0};
    assert_int_equal(read_text(text, &p), TESS_OK);
    tess_preprocess_write(&p, &b);
    assert_int_equal(tess_buf_check(&b), TESS_OK);
    return b.data;
}

static void writes_one_text_for_one_meaning(void **state)
{
    (void)state;
    char *a = canonical("{}");
    char *b = canonical("{\"resize_mode\": \"shortest\", \"size\": [224, 224], \"fill_color\": 0}");
    assert_string_equal(a, b);
    assert_string_equal(a, "{\"size\":224,\"mode\":\"RGB\",\"mean\":[0.48145466,0.4578275,"
                           "0.40821073],\"std\":[0.26862954,0.26130258,0.27577711],"
                           "\"interpolation\":\"bicubic\",\"resize_mode\":\"shortest\","
                           "\"fill_color\":0}");
    char *c = canonical("{\"size\": [32, 48], \"fill_color\": [0, 0, 7], \"std\": 0.1}");
    char *d = canonical(c);
    assert_string_equal(c, d);
    assert_string_not_equal(a, c);
    tess_free(a);
    tess_free(b);
    tess_free(c);
    tess_free(d);
}

static void normalizes_as_torchvision(void **state)
{
    (void)state;
    enum { W = 16, H = 16 };
    tess_preprocess p = tess_preprocess_default();
    p.width = W;
    p.height = H;
    uint8_t in[3 * W * H];
    float out[3 * W * H];
    for (int i = 0; i < 3 * W * H; i++) {
        in[i] = (uint8_t)(i / 3 + i % 3 * 85);
    }
    tess_transform_normalize(&p, in, out);
    for (int c = 0; c < 3; c++) {
        for (int i = 0; i < W * H; i++) {
            float expected = (float)in[3 * i + c] / 255.0f;
            expected -= (float)p.mean[c];
            expected /= (float)p.std[c];
            assert_memory_equal(&out[c * W * H + i], &expected, sizeof expected);
        }
    }
}

static void extreme_shapes(void **state)
{
    (void)state;
    enum { LONG = 200000 };
    tess_resizer *r = tess_resizer_new();
    uint8_t *out = tess_alloc(3 * 224 * 224);
    tess_picture thin = {.width = 1, .height = LONG, .rgb = tess_alloc(3 * LONG)};
    tess_preprocess p = tess_preprocess_default();
    for (int mode = 0; mode < TESS_RESIZE_MODES; mode++) {
        p.resize_mode = (tess_resize_mode)mode;
        for (int turned = 0; turned < 2; turned++) {
            assert_int_equal(tess_transform_apply(r, &p, &thin, out), TESS_OK);
            int32_t w = thin.width;
            thin.width = thin.height;
            thin.height = w;
        }
    }
    tess_picture thinner = {.width = 1, .height = 100000000, .rgb = thin.rgb};
    p.resize_mode = TESS_RESIZE_SHORTEST;
    assert_int_equal(tess_transform_apply(r, &p, &thinner, out), TESS_FORMAT);
    assert_non_null(strstr(tess_error(), "too narrow"));
    assert_int_equal(tess_transform_apply(r, &p, &(tess_picture){0}, out), TESS_INVALID);
    tess_picture_deinit(&thin);
    tess_free(out);
    tess_resizer_free(r);
}

static void out_of_memory_is_reported(void **state)
{
    (void)state;
    tess_picture p = {0};
    tess_preprocess cfg = tess_preprocess_default();
    decode_fixture("jpeg_large.jpg", &p);
    uint8_t *out = tess_alloc(3 * 224 * 224), *again = tess_alloc(3 * 224 * 224);
    tess_resizer *r = tess_resizer_new();
    tess_status st = TESS_NOMEM;
    int64_t nth = 1;
    for (; st != TESS_OK; nth++) { /* the same resizer goes on after each failure */
        tess_fault_set(TESS_FAULT_ALLOC, nth, false);
        st = tess_transform_apply(r, &cfg, &p, out);
        tess_fault_set(TESS_FAULT_ALLOC, 0, false);
        assert_true(st == TESS_OK || st == TESS_NOMEM);
    }
    tess_resizer_free(r);
    r = tess_resizer_new();
    assert_int_equal(tess_transform_apply(r, &cfg, &p, again), TESS_OK);
    assert_memory_equal(out, again, 3 * 224 * 224);
    tess_resizer_free(r);
    tess_picture_deinit(&p);
    tess_free(out);
    tess_free(again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_open_clip),
        cmocka_unit_test(refuses_what_it_does_not_know),
        cmocka_unit_test(writes_one_text_for_one_meaning),
        cmocka_unit_test(normalizes_as_torchvision),
        cmocka_unit_test(extreme_shapes),
        cmocka_unit_test(out_of_memory_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
