/* SPDX-License-Identifier: Apache-2.0 */
/* The command line, split into verb, settings and positionals.
 *
 * GNU habits: --x=y, --x y, --no-flag, -xyz for flags, -b64 and -b 64, options and positionals in
 * any order, and "--" before positionals that begin with a hyphen.  Departures: a name is never
 * abbreviated (an option added later would break scripts), and a value that looks like an option
 * must be joined with '=', since it is nearly always a value forgotten.
 */
#include "cli/option.h"

#include <ctype.h>
#include <string.h>

enum { MAX_CANDIDATES = 256 };

/* ---- verbs -------------------------------------------------------------------------------- */

static bool is_word(const char *arg)
{
    return arg[0] != '-' && arg[0] != '\0';
}

static bool is_verb(const cli_verb *v, const char *first, const char *second)
{
    size_t n = strlen(first);
    if (second == NULL) {
        return strcmp(v->name, first) == 0;
    }
    return strncmp(v->name, first, n) == 0 && v->name[n] == ' ' &&
           strcmp(v->name + n + 1, second) == 0;
}

/* The second words of the verbs that begin with `first`. */
static size_t second_words(cli_verbs verbs, const char *first, const char **out)
{
    size_t n = 0, n_first = strlen(first);
    for (size_t i = 0; i < verbs.n_items && n < MAX_CANDIDATES; i++) {
        const char *name = verbs.items[i]->name;
        if (strncmp(name, first, n_first) == 0 && name[n_first] == ' ') {
            out[n++] = name + n_first + 1;
        }
    }
    return n;
}

static const char *join(const char *const *words, size_t n, char *out, size_t out_bytes)
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < n && used < out_bytes; i++) {
        used += (size_t)snprintf(out + used, out_bytes - used, "%s%s", i > 0 ? ", " : "", words[i]);
    }
    return out;
}

static void fail_verb(cli_verbs verbs, const char *first, const char *second)
{
    const char *names[MAX_CANDIDATES];
    char list[256];
    size_t n = second_words(verbs, first, names);
    if (n > 0 && second == NULL) {
        (void)TESS_FAIL(TESS_INVALID, "'%s' needs one more word: %s", first,
                        join(names, n, list, sizeof(list)));
        return;
    }
    if (n > 0) {
        const char *near = cli_suggest(second, strlen(second), names, n);
        (void)TESS_FAIL(TESS_INVALID, "there is no '%s %s'; %s%s", first, second,
                        near != NULL ? "did you mean: " : "there is: ",
                        near != NULL ? near : join(names, n, list, sizeof(list)));
        return;
    }
    for (size_t i = 0; i < verbs.n_items && n < MAX_CANDIDATES; i++) {
        names[n++] = verbs.items[i]->name;
    }
    const char *near = cli_suggest(first, strlen(first), names, n);
    (void)TESS_FAIL(TESS_INVALID, "there is no verb '%s'%s%s%s", first,
                    near != NULL ? "; did you mean '" : "", near != NULL ? near : "",
                    near != NULL ? "'?" : "; 'tessera help' lists them");
}

const cli_verb *cli_verb_find(cli_verbs verbs, const char *const *args, size_t n_args,
                              size_t *out_words)
{
    const char *second = n_args > 1 && is_word(args[1]) ? args[1] : NULL;
    for (size_t words = second != NULL ? 2 : 1; words > 0; words--) {
        for (size_t i = 0; i < verbs.n_items; i++) {
            if (is_verb(verbs.items[i], args[0], words == 2 ? second : NULL)) {
                *out_words = words;
                return verbs.items[i];
            }
        }
    }
    fail_verb(verbs, args[0], second);
    return NULL;
}

/* ---- options ------------------------------------------------------------------------------ */

static tess_status add_setting(cli_command *cmd, const cli_option *o, const char *text)
{
    TESS_TRY(tess_grow(&cmd->settings, &cmd->settings_cap, cmd->n_settings + 1,
                       sizeof(cmd->settings[0])));
    cmd->settings[cmd->n_settings++] = (cli_setting){o, text};
    return TESS_OK;
}

static tess_status add_arg(cli_command *cmd, const char *arg)
{
    TESS_TRY(tess_grow(&cmd->args, &cmd->args_cap, cmd->n_args + 1, sizeof(cmd->args[0])));
    cmd->args[cmd->n_args++] = arg;
    return TESS_OK;
}

static tess_status fail_unknown(cli_command *cmd, const char *name, size_t n_bytes)
{
    const char *names[MAX_CANDIDATES];
    size_t n = 0;
    const cli_option *o;
    for (size_t i = 0; (o = cli_option_at(cmd->verb, i)) != NULL && n < MAX_CANDIDATES; i++) {
        if (!o->hidden) {
            names[n++] = o->name;
        }
    }
    const char *near = cli_suggest(name, n_bytes, names, n);
    return cli_usage_error(cmd, "unknown option '--%.*s'%s%s%s", (int)n_bytes, name,
                           near != NULL ? "; did you mean '--" : "", near != NULL ? near : "",
                           near != NULL ? "'?" : "");
}

/* The value of option `o`: behind '=' (`joined`), or the next argument. */
static tess_status take_value(cli_command *cmd, const cli_option *o, const char *joined,
                              const char *const *rest, int n_rest, int *out_taken)
{
    *out_taken = joined == NULL;
    if (joined != NULL) {
        return add_setting(cmd, o, joined);
    }
    if (n_rest == 0) {
        return cli_usage_error(cmd, "option '--%s' needs a value: %s", o->name,
                               cli_option_value_name(o));
    }
    if (strncmp(rest[0], "--", 2) == 0 && rest[0][2] != '\0') {
        return cli_usage_error(cmd,
                               "option '--%s' needs a value: %s; if '%s' is the value, write "
                               "--%s=%s",
                               o->name, cli_option_value_name(o), rest[0], o->name, rest[0]);
    }
    return add_setting(cmd, o, rest[0]);
}

static tess_status parse_long(cli_command *cmd, const char *arg, const char *const *rest,
                              int n_rest, int *out_taken)
{
    const char *name = arg + 2;
    size_t n = strcspn(name, "=");
    const char *joined = name[n] == '=' ? name + n + 1 : NULL;
    const cli_option *o = cli_option_find(cmd->verb, name, n);
    *out_taken = 0;
    if (o != NULL && o->kind != CLI_FLAG) {
        return take_value(cmd, o, joined, rest, n_rest, out_taken);
    }
    if (o != NULL) {
        return add_setting(cmd, o, joined != NULL ? joined : "true");
    }
    bool no = n > 3 && (strncmp(name, "no-", 3) == 0 || strncmp(name, "no_", 3) == 0);
    o = no ? cli_option_find(cmd->verb, name + 3, n - 3) : NULL;
    if (o == NULL) {
        return fail_unknown(cmd, name, n);
    }
    if (o->kind != CLI_FLAG || joined != NULL) {
        return cli_usage_error(cmd, "'--no-%s' %s", o->name,
                               joined != NULL ? "takes no value" : "cannot be: it is not a flag");
    }
    return add_setting(cmd, o, "false");
}

static const cli_option *find_short(const cli_verb *verb, char letter)
{
    const cli_option *o;
    for (size_t i = 0; (o = cli_option_at(verb, i)) != NULL; i++) {
        if (o->short_name == letter) {
            return o;
        }
    }
    return NULL;
}

static tess_status parse_shorts(cli_command *cmd, const char *arg, const char *const *rest,
                                int n_rest, int *out_taken)
{
    *out_taken = 0;
    for (const char *p = arg + 1; *p != '\0'; p++) {
        const cli_option *o = find_short(cmd->verb, *p);
        if (o == NULL) {
            return cli_usage_error(cmd, "unknown option '-%c'%s%s", *p,
                                   p[1] != '\0' || p > arg + 1 ? " in " : "",
                                   p[1] != '\0' || p > arg + 1 ? arg : "");
        }
        if (o->kind != CLI_FLAG) {
            return take_value(cmd, o, p[1] != '\0' ? p + 1 + (p[1] == '=') : NULL, rest, n_rest,
                              out_taken);
        }
        TESS_TRY(add_setting(cmd, o, "true"));
    }
    return TESS_OK;
}

/* "-" is standard input, "-5" a number. */
static bool is_shorts(const cli_verb *verb, const char *arg)
{
    bool number = isdigit((unsigned char)arg[1]) || arg[1] == '.';
    return arg[0] == '-' && arg[1] != '\0' && (!number || find_short(verb, arg[1]) != NULL);
}

static tess_status parse_word(cli_command *cmd, cli_verbs verbs, const char *const *rest,
                              int n_rest, int *out_taken)
{
    *out_taken = 1;
    if (cmd->verb != NULL) {
        return add_arg(cmd, rest[0]);
    }
    size_t words;
    cmd->verb = cli_verb_find(verbs, rest, (size_t)n_rest, &words);
    cmd->usage_error = cmd->verb == NULL;
    *out_taken = (int)words;
    return cmd->verb != NULL ? TESS_OK : TESS_INVALID;
}

tess_status cli_command_parse(cli_command *cmd, cli_verbs verbs, int argc, const char *const *argv)
{
    bool words_only = false;
    for (int i = 1; i < argc;) {
        const char *arg = argv[i];
        int taken = 0;
        if (!words_only && strcmp(arg, "--") == 0) {
            words_only = true;
            i++;
        } else if (!words_only && strncmp(arg, "--", 2) == 0) {
            TESS_TRY(parse_long(cmd, arg, argv + i + 1, argc - i - 1, &taken));
            i += 1 + taken;
        } else if (!words_only && is_shorts(cmd->verb, arg)) {
            TESS_TRY(parse_shorts(cmd, arg, argv + i + 1, argc - i - 1, &taken));
            i += 1 + taken;
        } else {
            TESS_TRY(parse_word(cmd, verbs, argv + i, argc - i, &taken));
            i += taken;
        }
    }
    return TESS_OK;
}
