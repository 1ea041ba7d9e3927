/* SPDX-License-Identifier: Apache-2.0 */
/* The manual page, from the tables: roff with the man(7) macros and nothing beyond them. */
#include "cli/help.h"

#include <ctype.h>
#include <string.h>

enum { MAX_GROUPS = 24 };

/* Hyphens become \- so that options can be copied; a line may not begin with . or '. */
static void add_text(tess_buf *out, const char *s, size_t n_bytes)
{
    bool line_start = out->n_bytes == 0 || out->data[out->n_bytes - 1] == '\n';
    for (size_t i = 0; i < n_bytes; i++) {
        char c = s[i];
        if (line_start && (c == '.' || c == '\'')) {
            tess_buf_adds(out, "\\&");
        }
        if (c == '-') {
            tess_buf_adds(out, "\\-");
        } else if (c == '\\') {
            tess_buf_adds(out, "\\e");
        } else {
            tess_buf_add(out, &c, 1);
        }
        line_start = c == '\n';
    }
}

static void adds(tess_buf *out, const char *s)
{
    add_text(out, s, strlen(s));
}

/* Blank lines become paragraphs. */
static void add_paragraphs(tess_buf *out, const char *s)
{
    while (*s != '\0') {
        const char *end = strstr(s, "\n\n");
        size_t n = end != NULL ? (size_t)(end - s) : strlen(s);
        add_text(out, s, n);
        tess_buf_adds(out, end != NULL ? "\n.PP\n" : "\n");
        s += n + (end != NULL ? 2 : 0);
    }
}

static void add_option(tess_buf *out, const cli_option *o)
{
    char name[64], env[64];
    const char *value = cli_option_value_name(o);
    tess_buf_adds(out, ".TP\n");
    if (o->short_name != 0) {
        tess_buf_addf(out, "\\fB\\-%c\\fR, ", o->short_name);
    }
    tess_buf_adds(out, "\\fB\\-\\-");
    adds(out, cli_shown_name(o, name));
    tess_buf_adds(out, "\\fR");
    if (value[0] != '\0') {
        tess_buf_adds(out, " \\fI");
        adds(out, value);
        tess_buf_adds(out, "\\fR");
    }
    tess_buf_adds(out, "\n");
    adds(out, o->help);
    tess_buf_adds(out, ".\n");
    if (o->kind == CLI_LIST) {
        tess_buf_adds(out, "May be repeated.\n");
    }
    if (o->fallback != NULL && o->kind != CLI_FLAG && o->fallback[0] != '\0') {
        tess_buf_adds(out, "Default: ");
        adds(out, o->fallback);
        tess_buf_adds(out, ".\n");
    }
    if (cli_option_env(o, env)[0] != '\0') {
        tess_buf_addf(out, "Environment: %s.\n", env);
    }
}

static void add_options(tess_buf *out, const cli_option *options, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!options[i].hidden) {
            add_option(out, &options[i]);
        }
    }
}

static void add_examples(tess_buf *out, const char *s)
{
    while (*s != '\0') {
        size_t n = strcspn(s, "\n");
        bool command = strncmp(s, "$ ", 2) == 0;
        tess_buf_adds(out, command ? ".PP\n.in +4n\n.nf\n" : ".PP\n");
        add_text(out, s, n);
        tess_buf_adds(out, command ? "\n.fi\n.in\n" : "\n");
        s += n + (s[n] == '\n');
    }
}

static void add_verb(tess_buf *out, const cli_verb *v)
{
    tess_buf_adds(out, ".SS \"tessera ");
    adds(out, v->name);
    tess_buf_adds(out, "\"\n");
    adds(out, v->summary);
    tess_buf_adds(out, ".\n.PP\n\\fBtessera ");
    adds(out, v->name);
    tess_buf_adds(out, "\\fR [\\fIoptions\\fR]");
    if (v->positional != NULL) {
        tess_buf_adds(out, " \\fI");
        adds(out, v->positional);
        tess_buf_adds(out, "\\fR");
    }
    tess_buf_adds(out, "\n");
    if (v->about != NULL) {
        tess_buf_adds(out, ".PP\n");
        add_paragraphs(out, v->about);
    }
    if (v->examples != NULL) {
        add_examples(out, v->examples);
    }
    add_options(out, v->options, v->n_options);
}

static const char page_head[] =
    ".TH TESSERA 1 \"\" \"tessera " TESS_VERSION "\" \"User Commands\"\n"
    ".SH NAME\n"
    "tessera \\- train, open and search vision and text models\n"
    ".SH SYNOPSIS\n"
    ".B tessera\n"
    ".I verb\n"
    "[\\fIoptions\\fR]\n"
    ".SH DESCRIPTION\n"
    "Tessera trains vision and text models together, opens the ones you have, and searches\n"
    "pictures and texts with them.\n"
    "Results go to standard output; messages and progress go to standard error.\n"
    ".PP\n"
    "A value comes from the command line, else from the environment variable\n"
    "TESSERA_<OPTION>, else from the file named by \\fB\\-\\-config\\fR, else from the default.\n"
    "\\fB\\-\\-print\\-config\\fR shows the result in the form that \\fB\\-\\-config\\fR reads.\n";

static const char page_tail[] =
    ".SH EXIT STATUS\n"
    ".TP\n0\nSuccess.\n"
    ".TP\n1\nThe work failed; one line on standard error says why.\n"
    ".TP\n2\nThe command line, an environment variable or the configuration file is wrong.\n"
    ".TP\n130\nStopped by a signal.\n"
    ".SH SIGNALS\n"
    "The first SIGINT or SIGTERM lets the work stop at the next safe point: training saves a\n"
    "checkpoint.  A second one ends the process at once.\n"
    ".SH ENVIRONMENT\n"
    ".TP\nTESSERA_<OPTION>\nThe value of an option.\n"
    ".TP\nTESSERA_ISA\nInstruction set to use where the processor has it, else the best it has: "
    "base, avx2, avx512, avx512vnni or avx512bf16.\n"
    ".TP\nNO_COLOR\nWhen set and not empty, no colour.\n"
    ".TP\nOMP_NUM_THREADS\nThreads for computation; default: the cores this process may use.\n";

void cli_man_page(tess_buf *out, cli_verbs verbs)
{
    tess_buf_adds(out, page_head);
    tess_buf_adds(out, ".SH VERBS\n");
    for (size_t i = 0; i < verbs.n_items; i++) {
        if (!verbs.items[i]->hidden) {
            add_verb(out, verbs.items[i]);
        }
    }
    tess_buf_adds(out, ".SH COMMON OPTIONS\nEvery verb has these.\n");
    add_options(out, cli_common_options, cli_n_common_options);
    tess_buf_adds(out, page_tail);
}
