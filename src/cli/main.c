/* SPDX-License-Identifier: Apache-2.0 */
/* tessera: finds the verb, resolves its options, runs it, and turns its status into an exit code.
 *
 * Exit codes: 0, 1 the work failed, 2 the command line (or environment, or configuration) is wrong,
 * 130 stopped by a signal.  Results go to standard output; everything else to standard error.
 */
#include "cli/help.h"
#include "cli/log_sink.h"
#include "cli/process.h"
#include "cli/verbs.h"

#include <string.h>

enum { EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_CANCELLED = 130 };

static bool has_setting(const cli_command *cmd, const char *name)
{
    bool on = false;
    for (size_t i = 0; i < cmd->n_settings; i++) {
        if (strcmp(cmd->settings[i].option->name, name) == 0) {
            on = strcmp(cmd->settings[i].text, "false") != 0;
        }
    }
    return on;
}

static tess_status print_and_free(tess_buf *out)
{
    tess_status st = cli_print(out);
    tess_buf_deinit(out);
    return st;
}

static tess_status print_version(cli_command *cmd)
{
    tess_buf out = {0};
    tess_json_writer w = {.buf = &out};
    if (!has_setting(cmd, "json")) {
        tess_buf_adds(&out, "tessera " TESS_VERSION "\n");
        return print_and_free(&out);
    }
    tess_json_begin_object(&w);
    tess_json_key(&w, "tessera");
    tess_json_add_string(&w, TESS_VERSION);
    tess_json_end_object(&w);
    tess_buf_adds(&out, "\n");
    return print_and_free(&out);
}

static tess_status print_help(cli_command *cmd)
{
    tess_buf out = {0};
    cli_term term = cli_term_of(stdout, true);
    if (cmd->verb != NULL) {
        cli_help_verb(&out, cmd->verb, term);
    } else {
        cli_help_overview(&out, cli_all_verbs(), term);
    }
    return print_and_free(&out);
}

/* Without a verb: the overview, where an error belongs. */
static tess_status fail_no_verb(cli_command *cmd)
{
    tess_buf out = {0};
    cli_help_overview(&out, cli_all_verbs(), cli_term_of(stderr, true));
    fputs(out.data != NULL ? out.data : "", stderr);
    tess_buf_deinit(&out);
    return cli_usage_error(cmd, "expected a verb");
}

static tess_status run(cli_command *cmd, int argc, char **argv)
{
    TESS_TRY(cli_command_parse(cmd, cli_all_verbs(), argc, (const char *const *)argv));
    if (has_setting(cmd, "version")) {
        return print_version(cmd);
    }
    if (has_setting(cmd, "help")) {
        return print_help(cmd);
    }
    if (cmd->verb == NULL) {
        return fail_no_verb(cmd);
    }
    TESS_TRY(cli_command_resolve(cmd));
    cli_log_open(&cmd->common);
    if (cmd->common.print_config) {
        tess_buf out = {0};
        tess_status st = cli_command_print_config(cmd, &out);
        return st == TESS_OK ? print_and_free(&out) : st;
    }
    if (cmd->verb->computes) {
        cli_process_prepare(argv);
        cli_process_catch_signals();
    }
    return cmd->verb->run(cmd);
}

int main(int argc, char **argv)
{
    cli_command cmd = {0};
    cli_common early = {.color = true};
    int code = 0;
    cli_log_open(&early);
    tess_status st = run(&cmd, argc, argv);
    if (st != TESS_OK) {
        code = st == TESS_CANCELLED ? EXIT_CANCELLED : cmd.usage_error ? EXIT_USAGE : EXIT_FAILED;
        cli_log_failure(st == TESS_CANCELLED && tess_error()[0] == '\0' ? "stopped" : tess_error());
    }
    if (cmd.usage_error) {
        fprintf(stderr, "Try 'tessera %s%s--help'.\n", cmd.verb != NULL ? cmd.verb->name : "",
                cmd.verb != NULL ? " " : "");
    }
    cli_command_deinit(&cmd);
    return code;
}
