/* SPDX-License-Identifier: Apache-2.0 */
/* Help, manual page and completion scripts of the sample program. */
#include "sample_verbs.h"

#include "cli/help.h"

#include <unistd.h>

static const cli_term plain = {.width = 80};

static void assert_has(const tess_buf *out, const char *part)
{
    assert_false(out->failed);
    if (strstr(out->data, part) == NULL) {
        fail_msg("expected\n%s\nin\n%s", part, out->data);
    }
}

static int longest_line(const char *text)
{
    int longest = 0;
    while (*text != '\0') {
        size_t n = strcspn(text, "\n");
        int columns = cli_columns(text, n);
        longest = columns > longest ? columns : longest;
        text += n + (text[n] == '\n');
    }
    return longest;
}

static void help_of_a_verb(void **state)
{
    (void)state;
    tess_buf out = {0};
    cli_help_verb(&out, &sample_train, plain);
    assert_has(&out, "Train a model\n\nUsage: tessera train [options]\n\nExamples:\n  Small:\n"
                     "      tessera train --lr 1e-3\n\nFirst paragraph.\n\n");
    assert_has(&out, "\nData:\n  -d, --data SOURCE           Where the pictures are [may be "
                     "repeated] [env:\n                              TESSERA_DATA]\n");
    assert_has(&out, "      --no-dataset-resampled  Each epoch is a new order [env:\n");
    assert_has(&out, "  -b, --batch-size N          Pictures a step [default: 64] [env:\n");
    assert_has(&out, "      --precision auto|bf16|fp32\n                              Of matrix");
    assert_has(&out, "\nEverywhere:\n  -h, --help                  Show this help\n");
    assert_null(strstr(out.data, "secret"));
    assert_null(strchr(out.data, '\033'));
    assert_true(longest_line(out.data) <= 80);
    assert_true(strstr(out.data, "Examples:") < strstr(out.data, "Data:"));
    tess_buf_deinit(&out);
}

static void help_fits_the_terminal(void **state)
{
    (void)state;
    for (int width = 50; width <= 100; width += 10) {
        tess_buf out = {0};
        cli_help_verb(&out, &sample_train, (cli_term){.width = width});
        assert_true(longest_line(out.data) <= width);
        tess_buf_deinit(&out);
    }
}

static void colour_does_not_move_columns(void **state)
{
    (void)state;
    tess_buf with = {0}, without = {0}, stripped = {0};
    cli_help_verb(&with, &sample_search, (cli_term){.width = 80, .color = true});
    cli_help_verb(&without, &sample_search, plain);
    assert_non_null(strchr(with.data, '\033'));
    for (const char *p = with.data; *p != '\0';) {
        if (*p == '\033') {
            p = strchr(p, 'm') + 1;
        } else {
            tess_buf_add(&stripped, p++, 1);
        }
    }
    assert_string_equal(stripped.data, without.data);
    tess_buf_deinit(&with);
    tess_buf_deinit(&without);
    tess_buf_deinit(&stripped);
}

static void wraps_text(void **state)
{
    (void)state;
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"aa bb cc", "aa bb\n  cc"},
        {"aaaaaaaaaaaaaa b", "aaaaaaaaaaaaaa\n  b"},
        {"a\n\nb", "a\n\n  b"},
        {"\u00e4\u00f6\u00fc \u00e4\u00f6 x", "\u00e4\u00f6\u00fc \u00e4\u00f6\n  x"},
        {"", ""},
    };
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        tess_buf out = {0};
        tess_buf_adds(&out, "");
        cli_wrap(&out, cases[i].text, 0, 2, 7);
        assert_string_equal(out.data != NULL ? out.data : "", cases[i].expected);
        tess_buf_deinit(&out);
    }
}

static void overview_lists_verbs(void **state)
{
    (void)state;
    tess_buf out = {0};
    cli_help_overview(&out, sample_verbs, plain);
    assert_has(&out, "\nVerbs:\n  train           Train a model\n  search          Find\n"
                     "  index build     Build an index\n");
    tess_buf_deinit(&out);
}

static const char *write_temporary(const tess_buf *text)
{
    static char path[256];
    const char *base = getenv("TMPDIR");
    snprintf(path, sizeof(path), "%s/tessera_help_%ld", base != NULL ? base : "/tmp",
             (long)getpid());
    assert_int_equal(tess_file_write(path, text->data, text->n_bytes), TESS_OK);
    return path;
}

/* Runs `command`, whose %s is a file with the text, when its program is there. */
static void run_on(const tess_buf *text, const char *program, const char *command)
{
    char line[1024], filled[512];
    const char *path = write_temporary(text);
    snprintf(filled, sizeof(filled), "%s", command);
    char *at = strstr(filled, "FILE");
    assert_non_null(at);
    snprintf(line, sizeof(line), "! command -v %s >/dev/null || { %.*s%s%s; }", program,
             (int)(at - filled), filled, path, at + 4);
    assert_int_equal(system(line), 0);
    unlink(path);
}

static void manual_page(void **state)
{
    (void)state;
    tess_buf out = {0};
    cli_man_page(&out, sample_verbs);
    assert_has(&out, ".TH TESSERA 1 \"\" \"tessera " TESS_VERSION "\" \"User Commands\"\n");
    assert_has(&out, ".SS \"tessera index build\"\n");
    assert_has(&out, ".TP\n\\fB\\-b\\fR, \\fB\\-\\-batch\\-size\\fR \\fIN\\fR\nPictures a step.\n"
                     "Default: 64.\nEnvironment: TESSERA_BATCH_SIZE.\n");
    assert_has(&out, "\n\\&.Second with a leading dot.\n");
    assert_null(strstr(out.data, "secret"));
    run_on(&out, "man",
           "test -z \"$(LC_ALL=C.UTF-8 MANROFFSEQ= man --warnings -l FILE 2>&1 "
           ">/dev/null)\"");
    tess_buf_deinit(&out);
}

static void completion_scripts(void **state)
{
    (void)state;
    tess_buf bash = {0}, zsh = {0}, fish = {0}, none = {0};
    assert_int_equal(cli_complete(&bash, sample_verbs, "bash"), TESS_OK);
    assert_has(&bash, "    '') COMPREPLY=($(compgen -W 'train search index' -- \"$cur\")) ;;\n"
                      "    index) COMPREPLY=($(compgen -W 'build info' -- \"$cur\")) ;;\n");
    assert_has(&bash, "        --precision) follow=words; words='auto bf16 fp32' ;;\n");
    assert_has(&bash, "        --model|-m) follow=file ;;\n");
    assert_has(&bash, "--no-dataset-resampled ");
    run_on(&bash, "bash", "bash -n FILE");

    assert_int_equal(cli_complete(&zsh, sample_verbs, "zsh"), TESS_OK);
    assert_has(&zsh, "'--name[It'\\''s a \\[name\\]\\: x]:TEXT: '");
    assert_has(&zsh, "'--precision[Of matrix products]:value:(auto bf16 fp32)'");
    run_on(&zsh, "zsh", "zsh -n FILE");

    assert_int_equal(cli_complete(&fish, sample_verbs, "fish"), TESS_OK);
    assert_has(&fish, "complete -c tessera -n '__fish_seen_subcommand_from train' -l precision -x "
                      "-a 'auto bf16 fp32' -d 'Of matrix products'\n");
    assert_has(&fish, " -l name -x -d 'It\\'s a [name]: x'\n");
    run_on(&fish, "fish", "fish --no-execute FILE");

    assert_int_equal(cli_complete(&none, sample_verbs, "csh"), TESS_INVALID);
    tess_buf_deinit(&bash);
    tess_buf_deinit(&zsh);
    tess_buf_deinit(&fish);
    tess_buf_deinit(&none);
}

/* What bash offers for the last of `words`. */
static void expect_offer(const char *words, const char *expected)
{
    tess_buf script = {0};
    char tail[512];
    assert_int_equal(cli_complete(&script, sample_verbs, "bash"), TESS_OK);
    tess_buf_addf(&script,
                  "COMP_WORDS=(tessera %s)\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_tessera\n"
                  "echo \"${COMPREPLY[*]}\"\n",
                  words);
    snprintf(tail, sizeof(tail), "test \"$(bash FILE)\" = '%s'", expected);
    run_on(&script, "bash", tail);
    tess_buf_deinit(&script);
}

static void bash_offers(void **state)
{
    (void)state;
    expect_offer("tr", "train");
    expect_offer("index ''", "build info");
    expect_offer("index build --pre", "--precision");
    expect_offer("train --precision b", "bf16");
    expect_offer("train -q --no-", "--no-dataset-resampled --no-color");
    expect_offer("train --lr ''", "");
    expect_offer("search README.m", "README.md");
    expect_offer("search --model LICEN", "LICENSE");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(help_of_a_verb),
        cmocka_unit_test(help_fits_the_terminal),
        cmocka_unit_test(colour_does_not_move_columns),
        cmocka_unit_test(wraps_text),
        cmocka_unit_test(overview_lists_verbs),
        cmocka_unit_test(manual_page),
        cmocka_unit_test(completion_scripts),
        cmocka_unit_test(bash_offers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
