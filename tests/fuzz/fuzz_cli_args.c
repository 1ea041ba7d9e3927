/* SPDX-License-Identifier: Apache-2.0 */
/* Command lines: the input's lines are the arguments; one that begins with "env " is what every
 * environment variable holds instead. */
#include "../cli/sample_verbs.h"

#include "cli/help.h"

static const char *variable;

static const char *any_variable(const char *name)
{
    return strcmp(name, "TESSERA_CONFIG") != 0 ? variable : NULL;
}

static bool names_config(const cli_command *cmd)
{
    bool named = false;
    for (size_t i = 0; i < cmd->n_settings; i++) {
        named |= strcmp(cmd->settings[i].option->name, "config") == 0;
    }
    return named;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    const char *argv[32] = {"tessera"};
    int argc = 1;
    char *text = tess_strndup((const char *)data, n_bytes), *next = NULL;
    variable = NULL;
    for (char *line = strtok_r(text, "\n", &next); line != NULL && argc < 32;
         line = strtok_r(NULL, "\n", &next)) {
        if (strncmp(line, "env ", 4) == 0) {
            variable = line + 4;
        } else {
            argv[argc++] = line;
        }
    }
    cli_command cmd = {.getenv = any_variable};
    if (cli_command_parse(&cmd, sample_verbs, argc, argv) == TESS_OK && cmd.verb != NULL &&
        !names_config(&cmd) && cli_command_resolve(&cmd) == TESS_OK) {
        tess_buf out = {0};
        if (cli_command_print_config(&cmd, &out) != TESS_OK) {
            abort();
        }
        tess_buf_deinit(&out);
    }
    cli_command_deinit(&cmd);
    tess_free(text);
    return 0;
}
