/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs that speak about the program: help, man, completion. */
#include "cli/help.h"
#include "cli/verbs.h"

#include <string.h>

typedef struct no_values {
    char none;
} no_values;

static tess_status print_and_free(tess_buf *out)
{
    tess_status st = cli_print(out);
    tess_buf_deinit(out);
    return st;
}

static tess_status run_help(cli_command *cmd)
{
    tess_buf out = {0};
    cli_term term = cli_term_of(stdout, cmd->common.color);
    if (cmd->n_args == 0) {
        cli_help_overview(&out, cli_all_verbs(), term);
        return print_and_free(&out);
    }
    size_t words;
    const cli_verb *verb = cli_verb_find(cli_all_verbs(), cmd->args, cmd->n_args, &words);
    if (verb == NULL || words < cmd->n_args) {
        return verb == NULL ? cli_usage_error(cmd, "%s", tess_error())
                            : cli_usage_error(cmd, "unexpected argument '%s'", cmd->args[words]);
    }
    cli_help_verb(&out, verb, term);
    return print_and_free(&out);
}

const cli_verb cli_verb_help = {
    .name = "help",
    .summary = "Say what a verb does and takes",
    .values_bytes = sizeof(no_values),
    .positional = "[VERB]",
    .max_args = 2,
    .examples = "All verbs:\n$ tessera help\nOne of them:\n$ tessera help doctor",
    .run = run_help,
};

static tess_status run_man(cli_command *cmd)
{
    (void)cmd;
    tess_buf out = {0};
    cli_man_page(&out, cli_all_verbs());
    return print_and_free(&out);
}

const cli_verb cli_verb_man = {
    .name = "man",
    .summary = "Write the manual page to standard output",
    .values_bytes = sizeof(no_values),
    .examples = "Read it:\n$ tessera man | man -l -\n"
                "Install it:\n$ tessera man > /usr/local/share/man/man1/tessera.1",
    .run = run_man,
};

static tess_status run_completion(cli_command *cmd)
{
    tess_buf out = {0};
    tess_status st = cli_complete(&out, cli_all_verbs(), cmd->args[0]);
    if (st == TESS_INVALID) {
        cmd->usage_error = true;
    }
    if (st == TESS_OK) {
        st = cli_print(&out);
    }
    tess_buf_deinit(&out);
    return st;
}

const cli_verb cli_verb_completion = {
    .name = "completion",
    .summary = "Write a completion script for bash, zsh or fish",
    .values_bytes = sizeof(no_values),
    .positional = "bash|zsh|fish",
    .min_args = 1,
    .max_args = 1,
    .examples = "In this shell:\n$ eval \"$(tessera completion bash)\"\n"
                "For good:\n$ tessera completion bash > "
                "~/.local/share/bash-completion/completions/tessera\n"
                "$ tessera completion zsh > ~/.zfunc/_tessera\n"
                "$ tessera completion fish > ~/.config/fish/completions/tessera.fish",
    .run = run_completion,
};
