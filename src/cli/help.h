/* SPDX-License-Identifier: Apache-2.0 */
/* --help, the manual page and completion scripts, all written from the tables. */
#ifndef TESSERA_CLI_HELP_H
#define TESSERA_CLI_HELP_H

#include "cli/option.h"
#include "cli/term.h"

/* The list of verbs. */
void cli_help_overview(tess_buf *out, cli_verbs verbs, cli_term term);
/* One verb: usage, examples, then options by group. */
void cli_help_verb(tess_buf *out, const cli_verb *verb, cli_term term);

/* tessera(1), roff with man(7) macros: the whole program on one page. */
void cli_man_page(tess_buf *out, cli_verbs verbs);

/* A completion script for "bash", "zsh" or "fish". */
TESS_MUST_USE tess_status cli_complete(tess_buf *out, cli_verbs verbs, const char *shell);

/* ---- shared by the three ------------------------------------------------------------------ */

/* The groups of a verb's visible options, in order of appearance, the common ones last. */
size_t cli_groups(const cli_verb *verb, const char **out, size_t max);
const char *cli_group_of(const cli_option *o);
/* The name as help shows it: "no-color" for a flag that is on by default. */
const char *cli_shown_name(const cli_option *o, char out[64]);

#endif
