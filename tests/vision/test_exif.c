/* SPDX-License-Identifier: Apache-2.0 */
/* The orientation reader on well-formed, odd and broken EXIF blocks; the eight turns. */
#include "vision/exif.h"
#include "vision/pictures.h"

#define II       "II*\0\x08\0\0\0"
#define ENTRY(v) "\x12\1\3\0\1\0\0\0" v

static void reads_or_falls_back(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n_bytes;
        int32_t orientation;
    } cases[] = {
        {II "\1\0" ENTRY("\6\0\0\0"), 22, 6},
        {"Exif\0\0" II "\1\0" ENTRY("\3\0\0\0"), 28, 3},
        {"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\x08\0\0", 22, 8},
        {"MM\0*\0\0\0\x08\0\1\1\x12\0\4\0\0\0\1\0\0\0\5", 22, 5}, /* a LONG */
        {II "\xff\xff" ENTRY("\7\0\0\0"), 22, 7},                 /* claims 65,535 entries */
        {II "\xff\xff\0\1\3\0\1\0\0\0\0\0\0\0", 22, 1},
        {II "\1\0" ENTRY("\0\0\0\0"), 22, 1},
        {II "\1\0" ENTRY("\x09\0\0\0"), 22, 1},
        {II "\1\0" ENTRY("\6\0\0"), 21, 1}, /* cut in the entry */
        {"II*\0\xff\xff\xff\xff\1\0" ENTRY("\6\0\0\0"), 22, 1},
        {"II*\0\x15\0\0\0\1\0" ENTRY("\6\0\0\0"), 22, 1},
        {"II+\0\x08\0\0\0\1\0" ENTRY("\6\0\0\0"), 22, 1},
        {"IM*\0\x08\0\0\0\1\0" ENTRY("\6\0\0\0"), 22, 1},
        {II, 8, 1},
        {"", 0, 1},
        {"Exif\0", 5, 1},
        {"Exif\0\0", 6, 1},
    };
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        uint8_t *exact = malloc(cases[i].n_bytes);
        memcpy(exact, cases[i].bytes, cases[i].n_bytes);
        int32_t found = tess__exif_orientation((tess_bytes){exact, cases[i].n_bytes});
        if (found != cases[i].orientation) {
            fail_msg("case %d: expected %d, found %d", (int)i, cases[i].orientation, found);
        }
        free(exact);
    }
}

/* abc / def, each letter one pixel. */
static void turns(void **state)
{
    (void)state;
    static const char *const upright[9] = {"",       "abcdef", "cbafed", "fedcba", "defabc",
                                           "adbecf", "daebfc", "fcebda", "cfbead"};
    for (int32_t o = 1; o <= 8; o++) {
        tess_picture p = {.width = 3, .height = 2, .rgb = tess_alloc(18), .cap_bytes = 18};
        for (int i = 0; i < 18; i++) {
            p.rgb[i] = (uint8_t)("abcdef"[i / 3] + i % 3);
        }
        assert_int_equal(tess__exif_turn(&p, o), TESS_OK);
        assert_int_equal(p.width, tess__exif_swaps(o) ? 2 : 3);
        char found[7] = "";
        for (int i = 0; i < 6; i++) {
            found[i] = (char)p.rgb[3 * i];
            assert_int_equal(p.rgb[3 * i + 2], p.rgb[3 * i] + 2);
        }
        assert_string_equal(found, upright[o]);
        tess_picture_deinit(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_or_falls_back),
        cmocka_unit_test(turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
