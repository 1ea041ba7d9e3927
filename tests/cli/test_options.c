/* SPDX-License-Identifier: Apache-2.0 */
/* The option framework: parsing, errors with suggestions, and precedence of the sources. */
#include "sample_verbs.h"

#include <unistd.h>

/* The environment that cli_command_resolve sees: "NAME=value" items. */
static const char *const *fake_env;

static const char *fake_getenv(const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; fake_env != NULL && fake_env[i] != NULL; i++) {
        if (strncmp(fake_env[i], name, n) == 0 && fake_env[i][n] == '=') {
            return fake_env[i] + n + 1;
        }
    }
    return NULL;
}

/* Splits `line` at blanks ("_" alone stands for an empty argument) and parses it. */
static tess_status parse(cli_command *cmd, const char *line)
{
    static char text[1024];
    static const char *argv[64];
    int argc = 0;
    *cmd = (cli_command){.getenv = fake_getenv};
    snprintf(text, sizeof(text), "tessera %s", line);
    for (char *next = NULL, *p = strtok_r(text, " ", &next); p != NULL;
         p = strtok_r(NULL, " ", &next)) {
        argv[argc++] = strcmp(p, "_") == 0 ? "" : p;
    }
    tess_status st = cli_command_parse(cmd, sample_verbs, argc, argv);
    return st == TESS_OK ? cli_command_resolve(cmd) : st;
}

/* The resolved configuration in one line: what print-config gives, without white space. */
static char *config_of(const cli_command *cmd)
{
    static char out[2048];
    tess_buf buf = {0};
    size_t n = 0;
    assert_int_equal(cli_command_print_config(cmd, &buf), TESS_OK);
    for (const char *p = buf.data; *p != '\0' && n < sizeof(out) - 1; p++) {
        if (*p != ' ' && *p != '\n') {
            out[n++] = *p;
        }
    }
    out[n] = '\0';
    tess_buf_deinit(&buf);
    return out;
}

static const struct {
    const char *line, *expected; /* a part of the configuration */
} good[] = {
    {"train", "\"batch-size\":64,\"steps\":null,\"lr\":0.0005,\"name\":null"},
    {"train", "\"data\":null,\"dataset-resampled\":true"},
    {"train", "\"precision\":\"auto\",\"fast\":false"},
    {"train --batch-size 8", "\"batch-size\":8"},
    {"train --batch-size=8", "\"batch-size\":8"},
    {"train --batch_size 8", "\"batch-size\":8"},
    {"train --batch_size=8", "\"batch-size\":8"},
    {"train -b8", "\"batch-size\":8"},
    {"train -b 8", "\"batch-size\":8"},
    {"train -b=8", "\"batch-size\":8"},
    {"train -b 8 -b 9", "\"batch-size\":9"},
    {"train --steps -5", "\"steps\":-5"},
    {"train --steps=-9223372036854775808", "\"steps\":-9223372036854775808"},
    {"train --lr 0", "\"lr\":0"},
    {"train --lr 1e-3", "\"lr\":0.001"},
    {"train --name=", "\"name\":\"\""},
    {"train --name _", "\"name\":\"\""},
    {"train --name=--lr", "\"name\":\"--lr\""},
    {"train --name=a=b", "\"name\":\"a=b\""},
    {"train --name -", "\"name\":\"-\""},
    {"train --precision bf16", "\"precision\":\"bf16\""},
    {"train --fast", "\"fast\":true"},
    {"train -f", "\"fast\":true"},
    {"train -qfb8", "\"batch-size\":8"},
    {"train --fast --no-fast", "\"fast\":false"},
    {"train --fast=false", "\"fast\":false"},
    {"train --no-dataset-resampled", "\"dataset-resampled\":false"},
    {"train --no_dataset_resampled", "\"dataset-resampled\":false"},
    {"train --data a --data b -dc", "\"data\":[\"a\",\"b\",\"c\"]"},
    {"train --data=a::b", "\"data\":[\"a::b\"]"},
    {"-q train --lr 1", "\"lr\":1"},
    {"--log-format json train --lr 1", "\"lr\":1"},
    {"index build --lr 1", "\"lr\":1"},
    {"search x --lr 1 y", "\"lr\":1"},
};

static void reads_command_lines(void **state)
{
    (void)state;
    for (int64_t i = 0; i < TESS_COUNT(good); i++) {
        cli_command cmd;
        if (parse(&cmd, good[i].line) != TESS_OK) {
            fail_msg("'%s': %s", good[i].line, tess_error());
        }
        if (strstr(config_of(&cmd), good[i].expected) == NULL) {
            fail_msg("'%s': expected %s in %s", good[i].line, good[i].expected, config_of(&cmd));
        }
        cli_command_deinit(&cmd);
    }
}

static const struct {
    const char *line, *message;
} bad[] = {
    {"trian", "there is no verb 'trian'; did you mean 'train'?"},
    {"xyzzy", "there is no verb 'xyzzy'; 'tessera help' lists them"},
    {"index", "'index' needs one more word: build, info"},
    {"index biuld", "there is no 'index biuld'; did you mean: build"},
    {"index quux", "there is no 'index quux'; there is: build, info"},
    {"train --bath-size 3", "unknown option '--bath-size'; did you mean '--batch-size'?"},
    {"train --batch_sise 3", "unknown option '--batch_sise'; did you mean '--batch-size'?"},
    {"train --batch 3", "unknown option '--batch'; did you mean '--batch-size'?"},
    {"train --qqqqq", "unknown option '--qqqqq'"},
    {"train --prescision=x", "unknown option '--prescision'; did you mean '--precision'?"},
    {"train --no-lr", "'--no-lr' cannot be: it is not a flag"},
    {"train --no-fast=1", "'--no-fast' takes no value"},
    {"train --no-", "unknown option '--no-'"},
    {"train -z", "unknown option '-z'"},
    {"train -fz", "unknown option '-z' in -fz"},
    {"train --lr", "option '--lr' needs a value: X"},
    {"train --lr --fast", "option '--lr' needs a value: X; if '--fast' is the value, write "
                          "--lr=--fast"},
    {"train -b", "option '--batch-size' needs a value: N"},
    {"train --lr fast", "--lr: expected a number, found 'fast'"},
    {"train --lr 1x", "--lr: expected a number, found '1x'"},
    {"train --lr nan", "--lr: expected a number, found 'nan'"},
    {"train --lr inf", "--lr: expected a number, found 'inf'"},
    {"train --lr=", "--lr: expected a number, found ''"},
    {"train --lr -1", "--lr: expected at least 0, found '-1'"},
    {"train -b 0", "--batch-size: expected 1 to 65536, found '0'"},
    {"train -b 1.5", "--batch-size: expected a whole number, found '1.5'"},
    {"train --steps 9223372036854775808", "--steps: '9223372036854775808' does not fit in 64 bits"},
    {"train --precision fp8", "--precision: expected one of auto|bf16|fp32, found 'fp8'"},
    {"train --precision=", "--precision: expected one of auto|bf16|fp32, found ''"},
    {"train --precision bf", "--precision: expected one of auto|bf16|fp32, found 'bf'"},
    {"train --fast=maybe", "--fast: expected true or false, found 'maybe'"},
    {"train --model=", "--model: expected a file name, found nothing"},
    {"train extra", "'train': unexpected argument 'extra'"},
    {"search", "'search' needs DIR [TEXT]"},
    {"search a b c", "'search': unexpected argument 'c'"},
    {"train --config /nonexistent.json", "/nonexistent.json"},
};

static void explains_mistakes(void **state)
{
    (void)state;
    for (int64_t i = 0; i < TESS_COUNT(bad); i++) {
        cli_command cmd;
        tess_status st = parse(&cmd, bad[i].line);
        if (st == TESS_OK || strstr(tess_error(), bad[i].message) == NULL) {
            fail_msg("'%s': expected '%s', found '%s'", bad[i].line, bad[i].message,
                     st == TESS_OK ? "success" : tess_error());
        }
        if (st == TESS_INVALID && !cmd.usage_error) {
            fail_msg("'%s' is not marked as a usage error", bad[i].line);
        }
        cli_command_deinit(&cmd);
    }
}

static void positionals(void **state)
{
    (void)state;
    cli_command cmd;
    assert_int_equal(parse(&cmd, "index build a -f - -5 -- --lr -x"), TESS_OK);
    assert_int_equal(cmd.n_args, 5);
    assert_string_equal(cmd.args[1], "-");
    assert_string_equal(cmd.args[2], "-5");
    assert_string_equal(cmd.args[3], "--lr");
    assert_string_equal(cmd.args[4], "-x");
    assert_string_equal(cmd.verb->name, "index build");
    cli_command_deinit(&cmd);
}

/* ---- sources ------------------------------------------------------------------------------ */

static char config_path[256];

static const char *write_config(const char *text)
{
    const char *base = getenv("TMPDIR");
    snprintf(config_path, sizeof(config_path), "%s/tessera_config_%ld.json",
             base != NULL ? base : "/tmp", (long)getpid());
    assert_int_equal(tess_file_write(config_path, text, strlen(text)), TESS_OK);
    return config_path;
}

static void expect(const char *line, const char *const *env, const char *part)
{
    cli_command cmd;
    fake_env = env;
    if (parse(&cmd, line) != TESS_OK) {
        fail_msg("'%s': %s", line, tess_error());
    }
    if (strstr(config_of(&cmd), part) == NULL) {
        fail_msg("'%s': expected %s in %s", line, part, config_of(&cmd));
    }
    cli_command_deinit(&cmd);
    fake_env = NULL;
}

static void expect_error(const char *line, const char *const *env, const char *message)
{
    cli_command cmd;
    fake_env = env;
    tess_status st = parse(&cmd, line);
    if (st == TESS_OK || strstr(tess_error(), message) == NULL) {
        fail_msg("'%s': expected '%s', found '%s'", line, message, tess_error());
    }
    assert_true(cmd.usage_error || st != TESS_INVALID);
    cli_command_deinit(&cmd);
    fake_env = NULL;
}

static void strongest_source_wins(void **state)
{
    (void)state;
    char line[512];
    static const char *const env[] = {"TESSERA_LR=0.2", "TESSERA_FAST=1", NULL};
    snprintf(line, sizeof(line), "train --config %s",
             write_config("{\"lr\":0.1,\"batch_size\":7,\"fast\":false}"));
    expect(line, NULL, "\"batch-size\":7,\"steps\":null,\"lr\":0.1,");
    expect(line, env, "\"lr\":0.2,");
    expect(line, env, "\"fast\":true");
    strcat(line, " --lr 0.3 --no-fast");
    expect(line, env, "\"lr\":0.3,");
    expect(line, env, "\"fast\":false");
    unlink(config_path);
}

static void lists_are_replaced_whole(void **state)
{
    (void)state;
    char line[512], with_flag[600];
    static const char *const one[] = {"TESSERA_DATA=e", NULL};
    static const char *const many[] = {"TESSERA_DATA=[\"e\",\"f\"]", NULL};
    static const char *const empty[] = {"TESSERA_DATA=", NULL};
    snprintf(line, sizeof(line), "train --config %s", write_config("{\"data\":[\"a\",\"b\"]}"));
    snprintf(with_flag, sizeof(with_flag), "%s --data x", line);
    expect(line, NULL, "\"data\":[\"a\",\"b\"]");
    expect(line, one, "\"data\":[\"e\"]");
    expect(line, many, "\"data\":[\"e\",\"f\"]");
    expect(line, empty, "\"data\":[\"a\",\"b\"]");
    expect(with_flag, many, "\"data\":[\"x\"]");
    write_config("{\"data\":[]}");
    expect(line, NULL, "\"data\":[]");
    write_config("{\"data\":\"a\",\"name\":null}");
    expect(line, NULL, "\"data\":[\"a\"]");
    unlink(config_path);
}

static void sources_are_named_in_errors(void **state)
{
    (void)state;
    char line[512];
    static const char *const env[] = {"TESSERA_BATCH_SIZE=many", NULL};
    static const char *const list[] = {"TESSERA_DATA=[1", NULL};
    static const char *const by_env[] = {"TESSERA_CONFIG=/nonexistent.json", NULL};
    snprintf(line, sizeof(line), "train --config %s", write_config("{\"lrr\":1}"));
    expect_error("train", env, "TESSERA_BATCH_SIZE: expected a whole number, found 'many'");
    expect_error("train", list, "TESSERA_DATA");
    expect_error("train", by_env, "/nonexistent.json");
    expect_error(line, NULL, ": 'lrr' is not an option of 'train'; did you mean 'lr'?");
    write_config("{\"print-config\":true}");
    expect_error(line, NULL, "'print-config' is not an option of 'train'");
    write_config("{\"lr\":{\"x\":1}}");
    expect_error(line, NULL, ": lr: expected a text, a number, true or false");
    write_config("{\"batch-size\":1e9}");
    expect_error(line, NULL, ": batch-size: expected");
    write_config("{\"config\":\"other.json\"}");
    expect_error(line, NULL, "'config' is not an option of 'train'");
    write_config("{\"steps\":1.5}");
    expect_error(line, NULL, ": steps: expected a whole number, found '1.5'");
    write_config("[1]");
    expect_error(line, NULL, "expected a JSON object of options");
    write_config("{\"lr\":");
    expect_error(line, NULL, config_path);
    unlink(config_path);
}

static void print_config_reads_back(void **state)
{
    (void)state;
    cli_command cmd;
    char first[2048], line[512];
    tess_buf out = {0};
    assert_int_equal(parse(&cmd, "train --data a --data b --lr 0.1 --fast --name x"), TESS_OK);
    assert_true(cli_given(&cmd, "lr"));
    assert_false(cli_given(&cmd, "batch-size"));
    snprintf(first, sizeof(first), "%s", config_of(&cmd));
    assert_int_equal(cli_command_print_config(&cmd, &out), TESS_OK);
    snprintf(line, sizeof(line), "train --config %s", write_config(out.data));
    tess_buf_deinit(&out);
    cli_command_deinit(&cmd);
    assert_int_equal(parse(&cmd, line), TESS_OK);
    assert_string_equal(config_of(&cmd), first);
    cli_command_deinit(&cmd);
    unlink(config_path);
}

static void distances(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        int d;
    } cases[] = {{"", "", 0},
                 {"a", "", 1},
                 {"lr", "lr", 0},
                 {"ab", "ba", 1},
                 {"abc", "cba", 2},
                 {"a_b", "a-b", 0},
                 {"Train", "train", 0},
                 {"kitten", "sitting", 3},
                 {"search", "serach", 1}};
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        assert_int_equal(
            cli_distance(cases[i].a, strlen(cases[i].a), cases[i].b, strlen(cases[i].b)),
            cases[i].d);
    }
}

static void survives_no_memory(void **state)
{
    (void)state;
    bool done = false;
    for (int64_t nth = 1; nth < 1000 && !done; nth++) {
        cli_command cmd;
        tess_fault_set(TESS_FAULT_ALLOC, nth, false);
        tess_status st = parse(&cmd, "index build --data a --data b --lr 1 --name x y z");
        done = tess_fault_count(TESS_FAULT_ALLOC) < nth;
        tess_fault_set(TESS_FAULT_ALLOC, 0, false);
        assert_true(st == TESS_NOMEM || (done && st == TESS_OK));
        cli_command_deinit(&cmd);
    }
    assert_true(done);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_command_lines),
        cmocka_unit_test(explains_mistakes),
        cmocka_unit_test(positionals),
        cmocka_unit_test(strongest_source_wins),
        cmocka_unit_test(lists_are_replaced_whole),
        cmocka_unit_test(sources_are_named_in_errors),
        cmocka_unit_test(print_config_reads_back),
        cmocka_unit_test(distances),
        cmocka_unit_test(survives_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
