/* SPDX-License-Identifier: Apache-2.0 */
/* --help: usage, examples first, then the options by group with defaults and variables. */
#include "cli/help.h"

#include <string.h>

enum { TEXT_COLUMN = 30, NARROW_COLUMN = 8, WIDE = 76, MAX_GROUPS = 24 };

const char *cli_group_of(const cli_option *o)
{
    return o->group != NULL ? o->group : "Options";
}

size_t cli_groups(const cli_verb *verb, const char **out, size_t max)
{
    size_t n = 0;
    const cli_option *o;
    for (size_t i = 0; (o = cli_option_at(verb, i)) != NULL; i++) {
        bool seen = o->hidden;
        for (size_t j = 0; j < n && !seen; j++) {
            seen = strcmp(out[j], cli_group_of(o)) == 0;
        }
        if (!seen && n < max) {
            out[n++] = cli_group_of(o);
        }
    }
    return n;
}

const char *cli_shown_name(const cli_option *o, char out[64])
{
    snprintf(out, 64, "%s%s", cli_option_is_negative(o) ? "no-" : "", o->name);
    return out;
}

static void add_heading(tess_buf *out, const char *text, cli_term t)
{
    tess_buf_addf(out, "\n%s%s:%s\n", cli_style_begin(t, CLI_STYLE_HEAD), text,
                  cli_style_begin(t, CLI_STYLE_PLAIN));
}

/* Commands are the lines that begin with "$ ". */
static void add_examples(tess_buf *out, const char *text, cli_term t)
{
    add_heading(out, "Examples", t);
    while (*text != '\0') {
        size_t n = strcspn(text, "\n");
        bool command = strncmp(text, "$ ", 2) == 0;
        tess_buf_addf(out, "%s%s%.*s%s\n", command ? "      " : "  ",
                      command ? cli_style_begin(t, CLI_STYLE_NAME) : "", (int)(command ? n - 2 : n),
                      command ? text + 2 : text,
                      command ? cli_style_begin(t, CLI_STYLE_PLAIN) : "");
        text += n + (text[n] == '\n');
    }
}

static void add_label(tess_buf *out, const cli_option *o, cli_term t)
{
    char name[64];
    const char *value = cli_option_value_name(o);
    tess_buf_addf(out, "  %s", cli_style_begin(t, CLI_STYLE_NAME));
    if (o->short_name != 0) {
        tess_buf_addf(out, "-%c, ", o->short_name);
    } else {
        tess_buf_adds(out, "    ");
    }
    tess_buf_addf(out, "--%s%s%s%s", cli_shown_name(o, name), cli_style_begin(t, CLI_STYLE_PLAIN),
                  value[0] != '\0' ? " " : "", value);
}

static void add_notes(tess_buf *text, const cli_option *o, cli_term t)
{
    char env[64];
    tess_buf_adds(text, cli_style_begin(t, CLI_STYLE_FAINT));
    if (o->kind == CLI_LIST) {
        tess_buf_adds(text, " [may be repeated]");
    }
    if (o->fallback != NULL && o->kind != CLI_FLAG && o->fallback[0] != '\0') {
        tess_buf_addf(text, " [default: %s]", o->fallback);
    }
    if (cli_option_env(o, env)[0] != '\0') {
        tess_buf_addf(text, " [env: %s]", env);
    }
    tess_buf_adds(text, cli_style_begin(t, CLI_STYLE_PLAIN));
}

static void add_option(tess_buf *out, const cli_option *o, cli_term t)
{
    tess_buf label = {0}, text = {0};
    add_label(&label, o, t);
    tess_buf_adds(&text, o->help);
    add_notes(&text, o, t);
    int columns = label.data != NULL ? cli_columns(label.data, label.n_bytes) : 0;
    tess_buf_add(out, label.data, label.n_bytes);
    int column = t.width >= WIDE ? TEXT_COLUMN : NARROW_COLUMN;
    if (columns + 2 > column) {
        tess_buf_adds(out, "\n");
        columns = 0;
    }
    cli_pad(out, column - columns);
    cli_wrap(out, text.data != NULL ? text.data : "", column, column, t.width);
    tess_buf_adds(out, "\n");
    out->failed |= label.failed || text.failed;
    tess_buf_deinit(&label);
    tess_buf_deinit(&text);
}

static void add_group(tess_buf *out, const cli_verb *verb, const char *group, cli_term t)
{
    add_heading(out, group, t);
    const cli_option *o;
    for (size_t i = 0; (o = cli_option_at(verb, i)) != NULL; i++) {
        if (!o->hidden && strcmp(cli_group_of(o), group) == 0) {
            add_option(out, o, t);
        }
    }
}

void cli_help_verb(tess_buf *out, const cli_verb *verb, cli_term t)
{
    const char *groups[MAX_GROUPS];
    size_t n = cli_groups(verb, groups, MAX_GROUPS);
    cli_wrap(out, verb->summary, 0, 0, t.width);
    tess_buf_addf(out, "\n\n%sUsage:%s tessera %s%s%s%s\n", cli_style_begin(t, CLI_STYLE_HEAD),
                  cli_style_begin(t, CLI_STYLE_PLAIN), verb->name,
                  verb->n_options > 0 ? " [options]" : "", verb->positional != NULL ? " " : "",
                  verb->positional != NULL ? verb->positional : "");
    if (verb->examples != NULL) {
        add_examples(out, verb->examples, t);
    }
    if (verb->about != NULL) {
        tess_buf_adds(out, "\n");
        cli_wrap(out, verb->about, 0, 0, t.width);
        tess_buf_adds(out, "\n");
    }
    for (size_t i = 0; i < n; i++) {
        add_group(out, verb, groups[i], t);
    }
}

static void add_verb(tess_buf *out, const cli_verb *v, cli_term t)
{
    enum { COLUMN = 18 };
    tess_buf_addf(out, "  %s%s%s", cli_style_begin(t, CLI_STYLE_NAME), v->name,
                  cli_style_begin(t, CLI_STYLE_PLAIN));
    cli_pad(out, COLUMN - 2 - (int)strlen(v->name));
    cli_wrap(out, v->summary, COLUMN, COLUMN, t.width);
    tess_buf_adds(out, "\n");
}

void cli_help_overview(tess_buf *out, cli_verbs verbs, cli_term t)
{
    tess_buf_adds(out, "Tessera trains vision and text models together, opens the ones you have,\n"
                       "and searches pictures and texts with them.\n\n");
    tess_buf_addf(out, "%sUsage:%s tessera VERB [options]\n", cli_style_begin(t, CLI_STYLE_HEAD),
                  cli_style_begin(t, CLI_STYLE_PLAIN));
    add_heading(out, "Verbs", t);
    for (size_t i = 0; i < verbs.n_items; i++) {
        if (!verbs.items[i]->hidden) {
            add_verb(out, verbs.items[i], t);
        }
    }
    tess_buf_adds(out,
                  "\n'tessera VERB --help' says more about one of them.  Every option can also "
                  "be set\nas TESSERA_<OPTION> in the environment or as a key in --config "
                  "FILE.\n");
}
