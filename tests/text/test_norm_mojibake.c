/* SPDX-License-Identifier: Apache-2.0 */
/* The mojibake detector: known garbles of every kind, honest text that looks alike, the real Tamil
 * captions of tuxpaint-stamps (TSCII shown as Latin-1), silence over the fixture sentences; and,
 * where Debian's data is installed, over every name of CLDR's annotations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "tessera/text.h"
#include "text/fixture.h"

typedef struct judged {
    const char *text;
    tess_mojibake want;
} judged;

static const judged known[] = {
    {"", TESS_MOJIBAKE_NONE},
    {"A star.", TESS_MOJIBAKE_NONE},
    {"caf\xe9", TESS_MOJIBAKE_NOT_UTF8},
    {"Une étoile filante", TESS_MOJIBAKE_NONE},
    {"Une Ã©toile filante", TESS_MOJIBAKE_LATIN1},
    {"un cafÃ©", TESS_MOJIBAKE_LATIN1},
    {"HvÄ›zda", TESS_MOJIBAKE_LATIN1},
    {"Gwiazda Å›wiÄ…teczna", TESS_MOJIBAKE_LATIN1},
    {"Itâ€™s a star", TESS_MOJIBAKE_LATIN1},
    {"a â€œstarâ€\xc2\x9d", TESS_MOJIBAKE_LATIN1},
    {"Ð—Ð²ÐµÐ·Ð´Ð°", TESS_MOJIBAKE_LATIN1},
    {"ÐŸÑ€Ð¸Ð²ÐµÑ‚", TESS_MOJIBAKE_LATIN1},
    {"çŒ«", TESS_MOJIBAKE_LATIN1},
    {"à¤¤à¤¾à¤°à¤¾", TESS_MOJIBAKE_LATIN1},
    {"ðŸ˜€ smile", TESS_MOJIBAKE_LATIN1},
    {"Â© 2022", TESS_MOJIBAKE_LATIN1},
    {"Р—РІРµР·РґР°", TESS_MOJIBAKE_CP1251},
    {"РџСЂРёРІРµС‚", TESS_MOJIBAKE_CP1251},
    {"caf\xef\xbf\xbd", TESS_MOJIBAKE_REPLACED},
    {"angliski divi, tādē\xc2\x93"
     "ļ toniju",
     TESS_MOJIBAKE_C1},
    {"´Õ ¿ðºò¾¢Ãõ", TESS_MOJIBAKE_8BIT},
    {"þÃñÎ.", TESS_MOJIBAKE_8BIT},
    {"¿¡ýÌ.", TESS_MOJIBAKE_8BIT},
    /* Honest neighbours of the rules. */
    {"«CAFÉ» et «THÉ»", TESS_MOJIBAKE_NONE},
    {"CAFÉ…", TESS_MOJIBAKE_NONE},
    {"café…»", TESS_MOJIBAKE_NONE},
    {"MAÇÃ”", TESS_MOJIBAKE_NONE},
    {"IRMÃ… e IRMÃO", TESS_MOJIBAKE_NONE},
    {"¿Qué? ¡Ándale, Íñigo!", TESS_MOJIBAKE_NONE},
    {"Σίσυφος «Ω»", TESS_MOJIBAKE_NONE},
    {"Å² and Å³", TESS_MOJIBAKE_NONE},
    {"Étoile à 20\xc2\xa0°C, ½ £ ¥5", TESS_MOJIBAKE_NONE},
    {"öö äöü ÄÖÜ", TESS_MOJIBAKE_NONE},
    {"Сіль і Різдво, Росія", TESS_MOJIBAKE_NONE},
    {"ÆØÅ æøå", TESS_MOJIBAKE_NONE},
    {"l·l col·legi", TESS_MOJIBAKE_NONE},
    {"Việt Nam: ÂU CƠ, Ăn Ân", TESS_MOJIBAKE_NONE},
};

static void known_texts(void **state)
{
    (void)state;
    int n_bad = 0;
    for (int64_t i = 0; i < TESS_COUNT(known); i++) {
        tess_mojibake got = tess_text_mojibake(known[i].text, strlen(known[i].text));
        if (got != known[i].want) {
            print_error("%s: %s, expected %s\n", known[i].text, tess_mojibake_name(got),
                        tess_mojibake_name(known[i].want));
            n_bad++;
        }
    }
    assert_int_equal(n_bad, 0);
}

static void real_tamil(void **state)
{
    (void)state;
    fixture_lines l = fixture_read_lines("tscii.txt");
    assert_int_equal(l.n, 59);
    for (size_t i = 0; i < l.n; i++) {
        if (tess_text_mojibake(l.lines[i].data, l.lines[i].n_bytes) == TESS_MOJIBAKE_NONE) {
            fail_msg("not noticed: %s", l.lines[i].data);
        }
    }
    fixture_free_lines(&l);
}

/* The first sentences of the fixture are CLDR names; the hostile strings follow. */
static void fixtures_are_honest(void **state)
{
    (void)state;
    fixture_lines l = fixture_read_lines("sentences.txt");
    for (size_t i = 0; i < 670; i++) {
        if (tess_text_mojibake(l.lines[i].data, l.lines[i].n_bytes) != TESS_MOJIBAKE_NONE) {
            fail_msg("false alarm: %s", l.lines[i].data);
        }
    }
    fixture_free_lines(&l);
}

/* Counts the reported names and keywords of an annotations file, which has one on a line. */
static void scan_xml(const char *path, int64_t *n_texts, int64_t *n_reported)
{
    char line[16384];
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f) != NULL) {
        const char *at = strstr(line, "<annotation ");
        at = at != NULL ? strchr(at, '>') : NULL;
        if (at == NULL) {
            continue;
        }
        size_t n = strcspn(++at, "<");
        ++*n_texts;
        if (tess_text_mojibake(at, n) != TESS_MOJIBAKE_NONE) {
            print_error("%s: %.*s\n", path, (int)n, at);
            ++*n_reported;
        }
    }
    fclose(f);
}

static void cldr_is_honest(void **state)
{
    (void)state;
    static const char *const dirs[] = {"/usr/share/unicode/cldr/common/annotations",
                                       "/usr/share/unicode/cldr/common/annotationsDerived"};
    int64_t n_texts = 0, n_reported = 0;
    for (int64_t d = 0; d < TESS_COUNT(dirs); d++) {
        tess_names files = {0};
        if (!tess_path_is_dir(dirs[d])) {
            skip();
        }
        assert_int_equal(tess_dir_list(dirs[d], true, &files), TESS_OK);
        for (size_t i = 0; i < files.n_names; i++) {
            char *path = tess_format("%s/%s", dirs[d], files.names[i]);
            scan_xml(path, &n_texts, &n_reported);
            tess_free(path);
        }
        tess_names_deinit(&files);
    }
    print_message("%lld texts, %lld reported\n", (long long)n_texts, (long long)n_reported);
    assert_true(n_texts > 800000);
    assert_int_equal(n_reported, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_texts),
        cmocka_unit_test(real_tamil),
        cmocka_unit_test(fixtures_are_honest),
        cmocka_unit_test(cldr_is_honest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
