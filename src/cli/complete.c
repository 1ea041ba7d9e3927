/* SPDX-License-Identifier: Apache-2.0 */
/* Completion scripts for bash, zsh and fish, written out in full from the tables: the script starts
 * no process while the user types, and is regenerated when the program changes.
 */
#include "cli/help.h"

#include <string.h>

enum { MAX_VERBS = 64 };

/* What may follow an option. */
typedef enum follow { FOLLOW_NOTHING, FOLLOW_CHOICE, FOLLOW_FILE, FOLLOW_TEXT } follow;

static follow follow_of(const cli_option *o)
{
    static const follow of_kind[CLI_KINDS] = {
        [CLI_FLAG] = FOLLOW_NOTHING, [CLI_INT] = FOLLOW_TEXT,  [CLI_REAL] = FOLLOW_TEXT,
        [CLI_STRING] = FOLLOW_TEXT,  [CLI_PATH] = FOLLOW_FILE, [CLI_CHOICE] = FOLLOW_CHOICE,
        [CLI_LIST] = FOLLOW_FILE,
    };
    return of_kind[o->kind];
}

/* Text inside single quotes; `special` characters get a backslash as well. */
static void add_quoted(tess_buf *out, const char *s, const char *special)
{
    for (; *s != '\0'; s++) {
        if (*s == '\'') {
            tess_buf_adds(out, "'\\''");
            continue;
        }
        if (strchr(special, *s) != NULL) {
            tess_buf_adds(out, "\\");
        }
        tess_buf_add(out, *s == '\n' ? " " : s, 1);
    }
}

static void add_choices(tess_buf *out, const char *choices)
{
    for (; *choices != '\0'; choices++) {
        tess_buf_add(out, *choices == '|' ? " " : choices, 1);
    }
}

/* The first word of a two-word verb, 0 bytes for one of one word. */
static size_t group_bytes(const cli_verb *v)
{
    const char *blank = strchr(v->name, ' ');
    return blank != NULL ? (size_t)(blank - v->name) : 0;
}

static bool same_group(const cli_verb *a, const cli_verb *b)
{
    size_t n = group_bytes(a);
    return n == group_bytes(b) && memcmp(a->name, b->name, n) == 0;
}

/* True for the first verb of a group of two-word verbs. */
static bool opens_group(cli_verbs verbs, size_t i)
{
    const cli_verb *v = verbs.items[i];
    bool first = group_bytes(v) > 0 && !v->hidden;
    for (size_t j = 0; j < i && first; j++) {
        first = verbs.items[j]->hidden || !same_group(verbs.items[j], v);
    }
    return first;
}

static const char *last_word(const cli_verb *v)
{
    size_t n = group_bytes(v);
    return n > 0 ? v->name + n + 1 : v->name;
}

/* Visible verbs that may come first: one-word verbs, and each group once (n_bytes of its name). */
static size_t first_words(cli_verbs verbs, size_t out[MAX_VERBS])
{
    size_t n = 0;
    for (size_t i = 0; i < verbs.n_items && n < MAX_VERBS; i++) {
        bool plain = !verbs.items[i]->hidden && group_bytes(verbs.items[i]) == 0;
        if (plain || opens_group(verbs, i)) {
            out[n++] = i;
        }
    }
    return n;
}

/* The verbs of the group that verb i opens. */
static size_t members(cli_verbs verbs, size_t i, size_t out[MAX_VERBS])
{
    size_t n = 0;
    for (size_t j = i; j < verbs.n_items && n < MAX_VERBS; j++) {
        if (!verbs.items[j]->hidden && same_group(verbs.items[i], verbs.items[j])) {
            out[n++] = j;
        }
    }
    return n;
}

static void add_first_word(tess_buf *out, const cli_verb *v)
{
    size_t n = group_bytes(v);
    tess_buf_add(out, v->name, n > 0 ? n : strlen(v->name));
}

/* ---- bash --------------------------------------------------------------------------------- */

static void bash_words(tess_buf *out, cli_verbs verbs, const size_t *which, size_t n, bool last)
{
    tess_buf_adds(out, " COMPREPLY=($(compgen -W '");
    for (size_t i = 0; i < n; i++) {
        tess_buf_adds(out, i > 0 ? " " : "");
        if (last) {
            tess_buf_adds(out, last_word(verbs.items[which[i]]));
        } else {
            add_first_word(out, verbs.items[which[i]]);
        }
    }
    tess_buf_adds(out, "' -- \"$cur\")) ;;\n");
}

static void bash_verb(tess_buf *out, const cli_verb *v)
{
    const cli_option *o;
    char name[64];
    tess_buf_addf(out, "    '%s')\n        options='", v->name);
    for (size_t i = 0; (o = cli_option_at(v, i)) != NULL; i++) {
        if (!o->hidden) {
            tess_buf_addf(out, "--%s ", cli_shown_name(o, name));
        }
    }
    tess_buf_addf(out, "'\n        files=%d\n        case $prev in\n", v->args_are_files);
    for (size_t i = 0; (o = cli_option_at(v, i)) != NULL; i++) {
        if (o->hidden || o->kind == CLI_FLAG) {
            continue;
        }
        tess_buf_addf(out, "        --%s", o->name);
        if (o->short_name != 0) {
            tess_buf_addf(out, "|-%c", o->short_name);
        }
        if (follow_of(o) == FOLLOW_CHOICE) {
            tess_buf_adds(out, ") follow=words; words='");
            add_choices(out, o->choices);
            tess_buf_adds(out, "' ;;\n");
        } else {
            tess_buf_addf(out, ") follow=%s ;;\n", follow_of(o) == FOLLOW_FILE ? "file" : "text");
        }
    }
    tess_buf_adds(out, "        esac ;;\n");
}

static const char bash_head[] =
    "# bash completion for tessera; written by 'tessera completion bash'\n"
    "_tessera() {\n"
    "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
    "    local verb='' options='' files=0 follow='' words='' i\n"
    "    COMPREPLY=()\n"
    "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
    "        [[ ${COMP_WORDS[i]} == -* ]] && continue\n"
    "        verb=$verb${verb:+ }${COMP_WORDS[i]}\n"
    "        case $verb in\n";

static const char bash_tail[] =
    "    esac\n"
    "    if [[ -z $options ]]; then\n"
    "        return\n"
    "    elif [[ $follow == words ]]; then\n"
    "        COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
    "    elif [[ -z $follow && $cur == -* ]]; then\n"
    "        COMPREPLY=($(compgen -W \"$options\" -- \"$cur\"))\n"
    "    elif [[ $follow == file || ( -z $follow && $files == 1 ) ]]; then\n"
    "        compopt -o filenames 2>/dev/null\n"
    "        COMPREPLY=($(compgen -f -- \"$cur\"))\n"
    "    fi\n"
    "}\n"
    "complete -F _tessera tessera\n";

static void complete_bash(tess_buf *out, cli_verbs verbs)
{
    size_t first[MAX_VERBS], group[MAX_VERBS];
    size_t n = first_words(verbs, first);
    tess_buf_adds(out, bash_head);
    for (size_t i = 0; i < n; i++) {
        if (group_bytes(verbs.items[first[i]]) > 0) {
            tess_buf_adds(out, "        ");
            add_first_word(out, verbs.items[first[i]]);
            tess_buf_adds(out, ") ;;\n");
        }
    }
    tess_buf_adds(out, "        *) break ;;\n        esac\n    done\n    case $verb in\n    '')");
    bash_words(out, verbs, first, n, false);
    for (size_t i = 0; i < n; i++) {
        if (group_bytes(verbs.items[first[i]]) > 0) {
            tess_buf_adds(out, "    ");
            add_first_word(out, verbs.items[first[i]]);
            tess_buf_adds(out, ")");
            bash_words(out, verbs, group, members(verbs, first[i], group), true);
        }
    }
    for (size_t i = 0; i < verbs.n_items; i++) {
        if (!verbs.items[i]->hidden) {
            bash_verb(out, verbs.items[i]);
        }
    }
    tess_buf_adds(out, bash_tail);
}

/* ---- zsh ---------------------------------------------------------------------------------- */

static void zsh_describe(tess_buf *out, cli_verbs verbs, const size_t *which, size_t n, bool last)
{
    tess_buf_adds(out, "        local -a verbs=(\n");
    for (size_t i = 0; i < n; i++) {
        const cli_verb *v = verbs.items[which[i]];
        tess_buf_adds(out, "            '");
        if (last) {
            tess_buf_adds(out, last_word(v));
        } else {
            add_first_word(out, v);
        }
        tess_buf_adds(out, ":");
        add_quoted(out, group_bytes(v) > 0 && !last ? "more verbs" : v->summary, ":");
        tess_buf_adds(out, "'\n");
    }
    tess_buf_adds(out, "        )\n        _describe verb verbs\n        return\n    fi\n");
}

static void zsh_option(tess_buf *out, const cli_option *o)
{
    char name[64];
    const char *value = cli_option_value_name(o);
    tess_buf_addf(out, " \\\n            '%s--%s[", o->kind == CLI_LIST ? "*" : "",
                  cli_shown_name(o, name));
    add_quoted(out, o->help, "[]:\\");
    tess_buf_adds(out, "]");
    if (follow_of(o) == FOLLOW_CHOICE) {
        tess_buf_adds(out, ":value:(");
        add_choices(out, o->choices);
        tess_buf_adds(out, ")");
    } else if (o->kind != CLI_FLAG) {
        tess_buf_adds(out, ":");
        add_quoted(out, value, "[]:\\");
        tess_buf_adds(out, follow_of(o) == FOLLOW_FILE ? ":_files" : ": ");
    }
    tess_buf_adds(out, "'");
}

static void zsh_verb(tess_buf *out, const cli_verb *v)
{
    const cli_option *o;
    tess_buf_addf(out, "    ('%s')\n        _arguments -s", v->name);
    for (size_t i = 0; (o = cli_option_at(v, i)) != NULL; i++) {
        if (!o->hidden) {
            zsh_option(out, o);
        }
    }
    tess_buf_adds(out, v->args_are_files ? " \\\n            '*:file:_files'" : "");
    tess_buf_adds(out, "\n        ;;\n");
}

static void complete_zsh(tess_buf *out, cli_verbs verbs)
{
    size_t first[MAX_VERBS], group[MAX_VERBS];
    size_t n = first_words(verbs, first);
    tess_buf_adds(out, "#compdef tessera\n"
                       "# zsh completion for tessera; written by 'tessera completion zsh'\n"
                       "_tessera() {\n    local verb=${words[2]}\n"
                       "    if (( CURRENT == 2 )); then\n");
    zsh_describe(out, verbs, first, n, false);
    for (size_t i = 0; i < n; i++) {
        if (group_bytes(verbs.items[first[i]]) == 0) {
            continue;
        }
        tess_buf_adds(out, "    if [[ ${words[2]} == ");
        add_first_word(out, verbs.items[first[i]]);
        tess_buf_adds(out, " ]] && (( CURRENT == 3 )); then\n");
        zsh_describe(out, verbs, group, members(verbs, first[i], group), true);
        tess_buf_adds(out, "    if [[ ${words[2]} == ");
        add_first_word(out, verbs.items[first[i]]);
        tess_buf_adds(out, " ]]; then\n        verb=\"$verb ${words[3]}\"\n        shift words\n"
                           "        (( CURRENT-- ))\n    fi\n");
    }
    tess_buf_adds(out, "    shift words\n    (( CURRENT-- ))\n    case $verb in\n");
    for (size_t i = 0; i < verbs.n_items; i++) {
        if (!verbs.items[i]->hidden) {
            zsh_verb(out, verbs.items[i]);
        }
    }
    tess_buf_adds(out, "    esac\n}\n"
                       "if [[ ${funcstack[1]} == _tessera ]]; then\n    _tessera \"$@\"\n"
                       "else\n    compdef _tessera tessera\nfi\n");
}

/* ---- fish --------------------------------------------------------------------------------- */

static void fish_description(tess_buf *out, const char *text)
{
    tess_buf_adds(out, " -d '");
    for (; *text != '\0'; text++) {
        if (*text == '\'' || *text == '\\') {
            tess_buf_adds(out, "\\");
        }
        tess_buf_add(out, text, 1);
    }
    tess_buf_adds(out, "'\n");
}

/* "seen this verb", as a fish condition. */
static void fish_condition(tess_buf *out, const cli_verb *v)
{
    tess_buf_adds(out, "complete -c tessera -n '__fish_seen_subcommand_from ");
    add_first_word(out, v);
    if (group_bytes(v) > 0) {
        tess_buf_addf(out, "; and __fish_seen_subcommand_from %s", last_word(v));
    }
    tess_buf_adds(out, "'");
}

static void fish_verb(tess_buf *out, const cli_verb *v)
{
    static const char *const how[] = {[FOLLOW_NOTHING] = "",
                                      [FOLLOW_CHOICE] = " -x -a '",
                                      [FOLLOW_FILE] = " -r -F",
                                      [FOLLOW_TEXT] = " -x"};
    const cli_option *o;
    char name[64];
    for (size_t i = 0; (o = cli_option_at(v, i)) != NULL; i++) {
        if (o->hidden) {
            continue;
        }
        fish_condition(out, v);
        tess_buf_addf(out, " -l %s", cli_shown_name(o, name));
        if (o->short_name != 0) {
            tess_buf_addf(out, " -s %c", o->short_name);
        }
        tess_buf_adds(out, how[follow_of(o)]);
        if (follow_of(o) == FOLLOW_CHOICE) {
            add_choices(out, o->choices);
            tess_buf_adds(out, "'");
        }
        fish_description(out, o->help);
    }
    if (v->args_are_files) {
        fish_condition(out, v);
        tess_buf_adds(out, " -F\n");
    }
}

static void fish_first(tess_buf *out, const cli_verb *v)
{
    tess_buf_adds(out, "complete -c tessera -n __fish_use_subcommand -a ");
    add_first_word(out, v);
    fish_description(out, group_bytes(v) > 0 ? "More verbs" : v->summary);
}

/* The second words of a group, offered until one of them is there. */
static void fish_group(tess_buf *out, cli_verbs verbs, size_t i)
{
    size_t group[MAX_VERBS];
    size_t n = members(verbs, i, group);
    for (size_t j = 0; j < n; j++) {
        tess_buf_adds(out, "complete -c tessera -n '__fish_seen_subcommand_from ");
        add_first_word(out, verbs.items[i]);
        tess_buf_adds(out, "; and not __fish_seen_subcommand_from");
        for (size_t k = 0; k < n; k++) {
            tess_buf_addf(out, " %s", last_word(verbs.items[group[k]]));
        }
        tess_buf_addf(out, "' -a %s", last_word(verbs.items[group[j]]));
        fish_description(out, verbs.items[group[j]]->summary);
    }
}

static void complete_fish(tess_buf *out, cli_verbs verbs)
{
    size_t first[MAX_VERBS];
    size_t n = first_words(verbs, first);
    tess_buf_adds(out, "# fish completion for tessera; written by 'tessera completion fish'\n"
                       "complete -c tessera -f\n");
    for (size_t i = 0; i < n; i++) {
        fish_first(out, verbs.items[first[i]]);
        if (group_bytes(verbs.items[first[i]]) > 0) {
            fish_group(out, verbs, first[i]);
        }
    }
    for (size_t i = 0; i < verbs.n_items; i++) {
        if (!verbs.items[i]->hidden) {
            fish_verb(out, verbs.items[i]);
        }
    }
}

tess_status cli_complete(tess_buf *out, cli_verbs verbs, const char *shell)
{
    static const struct {
        const char *name;
        void (*write)(tess_buf *out, cli_verbs verbs);
    } shells[] = {{"bash", complete_bash}, {"zsh", complete_zsh}, {"fish", complete_fish}};
    for (int64_t i = 0; i < TESS_COUNT(shells); i++) {
        if (strcmp(shell, shells[i].name) == 0) {
            shells[i].write(out, verbs);
            return tess_buf_check(out);
        }
    }
    return TESS_FAIL(TESS_INVALID, "no completion for '%s'; there is: bash, zsh, fish", shell);
}
