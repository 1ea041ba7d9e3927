/* SPDX-License-Identifier: Apache-2.0 */
/* Damaged, hostile and mislabelled pictures: one message each, no crash, nothing left behind. */
#include <zlib.h>

#include "vision/pictures.h"

/* A copy in memory of exactly n_bytes, so that sanitizers see overreads. */
static tess_status decode_copy(const uint8_t *data, size_t n_bytes, const tess_decode_limits *l)
{
    uint8_t *copy = malloc(n_bytes);
    memcpy(copy, data, n_bytes);
    tess_picture p = {0};
    tess_picture_info info;
    tess_status st = tess_picture_probe(copy, n_bytes, &info);
    st = tess_picture_decode(copy, n_bytes, l, &p);
    if (st == TESS_OK) {
        assert_true(p.width > 0 && p.height > 0);
    } else {
        assert_true(p.width == 0 && p.height == 0);
        assert_true(strlen(tess_error()) > 10);
    }
    tess_picture_deinit(&p);
    free(copy);
    return st;
}

static void expect_refusal(const void *data, size_t n_bytes, const tess_decode_limits *l,
                           tess_status status, const char *text)
{
    tess_status st = decode_copy(data, n_bytes, l);
    if (st != status || !strstr(tess_error(), text)) {
        fail_msg("expected %s with \"%s\", found %s: %s", tess_status_name(status), text,
                 tess_status_name(st), tess_error());
    }
}

typedef void each_fn(const char *file, const uint8_t *data, size_t n_bytes);

static void for_each_fixture(each_fn *fn)
{
    tess_json_doc *doc = load_expectations("decode.json");
    const tess_json *rows = tess_json_root(doc);
    for (size_t i = 0; i < tess_json_count(rows); i++) {
        const char *file = tess_json_string(tess_json_get(tess_json_at(rows, i), "file"), "");
        tess_bytes b = load_fixture(file);
        fn(file, b.data, b.n_bytes);
        tess_free((void *)b.data);
    }
    tess_json_free(doc);
}

/* All of a fixture that its decoder must see: bytes behind the end do not count. */
static size_t needed_bytes(const char *file, size_t n_bytes)
{
    return strcmp(file, "jpeg_trailing.jpg") == 0 ? n_bytes - strlen("after the end") : n_bytes;
}

static void cut(const char *file, const uint8_t *data, size_t n_bytes)
{
    size_t n = needed_bytes(file, n_bytes);
    const size_t ends[] = {1,         2,     3,     10,    20,    n / 8, n / 4, n / 3, n / 2,
                           3 * n / 4, n - 9, n - 8, n - 5, n - 4, n - 3, n - 2, n - 1};
    for (int64_t i = 0; i < TESS_COUNT(ends); i++) {
        if (decode_copy(data, ends[i], NULL) == TESS_OK) {
            fail_msg("%s cut to %zu of %zu bytes was decoded", file, ends[i], n);
        }
    }
}

static void cut_files_are_refused(void **state)
{
    (void)state;
    for_each_fixture(cut);
}

/* Any outcome but a crash; limits keep a flipped size from costing memory. */
static void flip_bits(const char *file, const uint8_t *data, size_t n_bytes)
{
    enum { FLIPS = 60 };
    const tess_decode_limits limits = {.max_pixels = 1 << 20, .max_bytes = 1 << 24};
    tess_rng rng = tess_rng_at(tess_hash64(file, strlen(file), 0), 1);
    uint8_t *copy = malloc(n_bytes);
    for (int i = 0; i < FLIPS; i++) {
        memcpy(copy, data, n_bytes);
        for (int n = 0; n <= i % 4; n++) {
            /* half of them in the header */
            uint32_t span = (uint32_t)(i % 2 && n_bytes > 64 ? 64 : n_bytes);
            copy[tess_rng_below(&rng, span)] ^= (uint8_t)(1u << tess_rng_below(&rng, 8));
        }
        (void)decode_copy(copy, n_bytes, &limits);
    }
    free(copy);
}

static void flipped_bits_do_no_harm(void **state)
{
    (void)state;
    for_each_fixture(flip_bits);
}

static void names_what_it_refuses(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n_bytes;
        tess_status status;
        const char *text;
    } cases[] = {
        {"", 0, TESS_FORMAT, "0 bytes"},
        {"\xff", 1, TESS_FORMAT, "1 bytes that begin with ff"},
        {"\0\0\0\0\0\0\0\0\0\0", 10, TESS_FORMAT, "begin with 00 00 00 00 00 00 00 00"},
        {"GIF89a\1\0\1\0", 10, TESS_UNSUPPORTED, "found GIF"},
        {"BM\0\0\0\0", 6, TESS_UNSUPPORTED, "found BMP"},
        {"II*\0\0\0\0\0", 8, TESS_UNSUPPORTED, "found TIFF"},
        {"\0\0\0\x18"
         "ftypheic",
         12, TESS_UNSUPPORTED, "found HEIC"},
        {"\0\0\0\x18"
         "ftypavif",
         12, TESS_UNSUPPORTED, "found AVIF"},
        {"RIFF\4\0\0\0WAVE", 12, TESS_UNSUPPORTED, "not WebP"},
        {"\n <!DOCTYPE html><title>404", 26, TESS_UNSUPPORTED, "found HTML"},
        {"\xef\xbb\xbf<html>", 9, TESS_UNSUPPORTED, "found HTML"},
        {"<svg xmlns=''>", 14, TESS_UNSUPPORTED, "found SVG"},
        {"<?xml version='1.0'?>", 21, TESS_UNSUPPORTED, "found XML or SVG"},
        {"{\"error\": 1}", 12, TESS_UNSUPPORTED, "found JSON"},
        {"%PDF-1.7", 8, TESS_UNSUPPORTED, "found PDF"},
        {"\xff\xd8\xff", 3, TESS_FORMAT, "cut short"},
        {"\x89PNG\r\n\x1a\n", 8, TESS_FORMAT, "cut short"},
    };
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        expect_refusal(cases[i].bytes, cases[i].n_bytes, NULL, cases[i].status, cases[i].text);
    }
}

/* ---- bombs -------------------------------------------------------------------------------- */

static void put_32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++) {
        p[i] = (uint8_t)(v >> (24 - 8 * i));
    }
}

static void huge_png_is_refused(void **state)
{
    (void)state;
    static const uint32_t sides[][2] = {{100000, 100000}, {0x7fffffff, 0x7fffffff}, {178956971, 1}};
    tess_bytes b = load_fixture("png_rgb.png");
    uint8_t *copy = (uint8_t *)b.data;
    for (int64_t i = 0; i < TESS_COUNT(sides); i++) {
        put_32(copy + 16, sides[i][0]);
        put_32(copy + 20, sides[i][1]);
        put_32(copy + 29, (uint32_t)crc32(0, copy + 12, 17));
        tess_status st = decode_copy(copy, b.n_bytes, NULL);
        assert_int_equal(st, TESS_FORMAT);
    }
    assert_non_null(strstr(tess_error(), "178956971 x 1 pixels, over the limit of 178956970"));
    tess_free(copy);
}

static void limits_hold(void **state)
{
    (void)state;
    static const char *const files[] = {"jpeg_large.jpg", "png_rgb.png", "png_rgba_interlaced.png",
                                        "webp_lossy.webp"};
    for (int64_t i = 0; i < TESS_COUNT(files); i++) {
        tess_bytes b = load_fixture(files[i]);
        expect_refusal(b.data, b.n_bytes, &(tess_decode_limits){.max_pixels = 300}, TESS_FORMAT,
                       "over the limit of 300");
        expect_refusal(b.data, b.n_bytes, &(tess_decode_limits){.max_bytes = 900}, TESS_FORMAT,
                       "limit of 900 bytes");
        tess_free((void *)b.data);
    }
    /* a progressive picture's coefficients count too: the pixels alone need 204,480 bytes */
    tess_bytes b = load_fixture("jpeg_large_progressive.jpg");
    expect_refusal(b.data, b.n_bytes, &(tess_decode_limits){.max_bytes = 220000}, TESS_FORMAT,
                   "limit of 220000 bytes");
    tess_free((void *)b.data);
}

/* A legal progressive picture, 8 x 8 and black but for its DC, of n_scans scans: one coefficient
 * and one bit each.  Every code is the single bit 0, which means "nothing here". */
static void add_scans_file(tess_buf *b, int n_scans)
{
    static const char head[] = "\xff\xd8\xff\xc2\0\x11\x08\0\x08\0\x08\3\1\x11\0\2\x11\0\3\x11\0"
                               "\xff\xc4\0\x14\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                               "\xff\xc4\0\x14\x10\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                               "\xff\xdb\0\x43\0";
    enum { TOP_BIT = 13, BITS = TOP_BIT + 1, LAST = 63 };
    tess_buf_add(b, head, sizeof head - 1);
    for (int i = 0; i < 64; i++) {
        tess_buf_add(b, "\1", 1);
    }
    tess_buf_add(b, "\xff\xda\0\x0c\3\1\0\2\0\3\0\0\0\0\x1f", 15);
    for (int i = 0; i < n_scans - 1; i++) {
        int bit = TOP_BIT - i % BITS, at = i / BITS % LAST + 1, component = i / BITS / LAST + 1;
        int before = bit == TOP_BIT ? 0 : bit + 1;
        uint8_t scan[] = {0xff, 0xda, 0, 8, 1, 0, 0, 0, 0, 0, 0x7f};
        scan[5] = (uint8_t)component;
        scan[7] = scan[8] = (uint8_t)at;
        scan[9] = (uint8_t)(before << 4 | bit);
        tess_buf_add(b, scan, sizeof scan);
    }
    tess_buf_add(b, "\xff\xd9", 2);
}

static void many_scans_are_refused(void **state)
{
    (void)state;
    tess_buf bomb = {0}, fair = {0};
    add_scans_file(&bomb, 1000);
    expect_refusal(bomb.data, bomb.n_bytes, NULL, TESS_FORMAT, "limit of 100 scans");
    assert_int_equal(
        decode_copy((uint8_t *)bomb.data, bomb.n_bytes, &(tess_decode_limits){.max_scans = 1000}),
        TESS_OK);
    add_scans_file(&fair, 100);
    assert_int_equal(decode_copy((uint8_t *)fair.data, fair.n_bytes, NULL), TESS_OK);
    tess_buf_deinit(&bomb);
    tess_buf_deinit(&fair);
}

/* Image data that stop before a well-formed end: libjpeg would fill with grey. */
static void gap_before_the_end_is_refused(void **state)
{
    (void)state;
    tess_bytes b = load_fixture("jpeg_large.jpg");
    tess_buf gap = {0};
    tess_buf_add(&gap, b.data, b.n_bytes / 2);
    tess_buf_add(&gap, "\xff\xd9", 2);
    expect_refusal(gap.data, gap.n_bytes, NULL, TESS_FORMAT, "premature end");
    tess_buf_deinit(&gap);
    tess_free((void *)b.data);
}

/* Each allocation fails in turn: an error every time, and no leak (sanitizers look). */
static void out_of_memory_is_reported(void **state)
{
    (void)state;
    static const char *const files[] = {"jpeg_ycck.jpg", "jpeg_exif_6.jpg",
                                        "png_rgba_interlaced.png", "webp_lossy_alpha.webp"};
    for (int64_t i = 0; i < TESS_COUNT(files); i++) {
        tess_bytes b = load_fixture(files[i]);
        tess_status st = TESS_NOMEM;
        int64_t nth = 1;
        for (; st != TESS_OK; nth++) {
            tess_picture p = {0};
            tess_fault_set(TESS_FAULT_ALLOC, nth, false);
            st = tess_picture_decode(b.data, b.n_bytes, NULL, &p);
            tess_fault_set(TESS_FAULT_ALLOC, 0, false);
            assert_true(st == TESS_OK || st == TESS_NOMEM);
            tess_picture_deinit(&p);
            assert_true(nth < 100);
        }
        assert_true(nth > 2);
        tess_free((void *)b.data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_files_are_refused),
        cmocka_unit_test(flipped_bits_do_no_harm),
        cmocka_unit_test(names_what_it_refuses),
        cmocka_unit_test(huge_png_is_refused),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(many_scans_are_refused),
        cmocka_unit_test(gap_before_the_end_is_refused),
        cmocka_unit_test(out_of_memory_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
