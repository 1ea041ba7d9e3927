/* SPDX-License-Identifier: Apache-2.0 */
/* One table per verb: what it is called, what it takes, what it does.
 *
 * The same rows drive parsing, --help, the manual page, completion for three shells, the keys of a
 * configuration file, environment variables and --print-config.  A verb is one file with a struct,
 * a table and a function, and one line in verbs.c.
 *
 * A value comes from the command line, else from TESSERA_<NAME>, else from --config FILE, else from
 * the table; whichever it is, it is text that passes through the same conversion and checks, so a
 * default that its own row would refuse is found by the first test that runs.
 */
#ifndef TESSERA_CLI_OPTION_H
#define TESSERA_CLI_OPTION_H

#include "tessera/base.h"

typedef enum cli_kind {
    CLI_FLAG,   /* bool; --x and --no-x */
    CLI_INT,    /* int64_t */
    CLI_REAL,   /* double */
    CLI_STRING, /* const char * */
    CLI_PATH,   /* const char *, completed as a file name */
    CLI_CHOICE, /* const char *, one of `choices` */
    CLI_LIST,   /* cli_list: the option may be repeated */
    CLI_KINDS,
} cli_kind;

typedef struct cli_list {
    const char **items;
    size_t n_items, n_cap;
} cli_list;

typedef struct cli_option {
    const char *name; /* with hyphens; underscores are accepted everywhere */
    char short_name;  /* 0: none */
    cli_kind kind;
    const char *value;    /* what help calls the value; NULL: after the kind */
    const char *fallback; /* the default, as text; NULL: unset (false, 0, NULL, empty) */
    double min, max;      /* INT and REAL, inclusive; both 0: no limit */
    const char *choices;  /* CHOICE: "a|b|c" */
    size_t offset;        /* of the field in the verb's struct */
    const char *help;     /* one or two sentences, no full stop at the end */
    const char *group;    /* heading in help; NULL: "Options" */
    const char *env;      /* NULL: TESSERA_<NAME>; "": command line only, neither env nor config */
    bool hidden;          /* works, but help and completion do not show it */
} cli_option;

/* {.name = "lr", .kind = CLI_REAL, CLI_AT(train_values, lr), ...} */
#define CLI_AT(type, field) .offset = offsetof(type, field)

typedef struct cli_command cli_command;

typedef struct cli_verb {
    const char *name;    /* "search", "index build" */
    const char *summary; /* one line */
    const char *about;   /* further paragraphs for --help and the manual; NULL: none */
    const cli_option *options;
    size_t n_options;
    size_t values_bytes;    /* of the struct that `options` fill */
    const char *positional; /* "[TEXT...]" for the usage line; NULL: takes none */
    int min_args, max_args; /* how many; max -1: any number */
    bool args_are_files;    /* completion offers file names */
    const char *examples;   /* lines "$ command" and plain lines that explain them */
    bool computes;          /* long and parallel: passive OpenMP waiting, signals stop it gently */
    bool hidden;            /* not listed */
    tess_status (*run)(cli_command *cmd);
} cli_verb;

/* What every verb has. */
typedef struct cli_common {
    bool help, version, quiet, verbose, json, color, print_config;
    const char *log_format, *config;
} cli_common;
extern const cli_option cli_common_options[];
extern const size_t cli_n_common_options;

/* Where a value came from, weakest first. */
typedef enum cli_source {
    CLI_FROM_NOWHERE,
    CLI_FROM_DEFAULT,
    CLI_FROM_CONFIG,
    CLI_FROM_ENV,
    CLI_FROM_FLAG,
} cli_source;

/* One "option is text" as found on the command line, in order. */
typedef struct cli_setting {
    const cli_option *option;
    const char *text;
} cli_setting;

struct cli_command {
    const cli_verb *verb; /* NULL until found */
    void *values;         /* the verb's struct, filled by cli_command_resolve */
    cli_common common;
    const char **args; /* positionals, borrowed from argv */
    size_t n_args;
    bool usage_error; /* exit 2 and point to --help */

    cli_setting *settings;
    size_t n_settings, settings_cap, args_cap;
    cli_source *sources; /* the verb's options, then the common ones */
    tess_arena arena;
    /* How to read the environment; NULL: getenv.  For tests. */
    const char *(*getenv)(const char *name);
};

/* ---- the table of verbs ------------------------------------------------------------------- */

typedef struct cli_verbs {
    const cli_verb *const *items;
    size_t n_items;
} cli_verbs;

/* The verb that args[0], or args[0] args[1], names; *out_words says how many it took.  NULL with
 * the message set, and a suggestion in it, when there is none. */
const cli_verb *cli_verb_find(cli_verbs verbs, const char *const *args, size_t n_args,
                              size_t *out_words);

/* ---- from argv to values ------------------------------------------------------------------ */

/* Splits the command line into verb, settings and positionals; values are not looked at yet, so
 * that --help works beside a bad one.  Common options may stand before the verb.  `cmd` is zeroed
 * by the caller. */
TESS_MUST_USE tess_status cli_command_parse(cli_command *cmd, cli_verbs verbs, int argc,
                                            const char *const *argv);
/* Fills cmd->values and cmd->common from every source, strongest last.  The first error is returned
 * with usage_error set. */
TESS_MUST_USE tess_status cli_command_resolve(cli_command *cmd);
void cli_command_deinit(cli_command *cmd);

/* True when the user chose the value: by flag, environment or configuration. */
bool cli_given(const cli_command *cmd, const char *name);
/* Returns TESS_INVALID with the message and marks it as a mistake in the command line. */
tess_status cli_usage_error(cli_command *cmd, const char *fmt, ...) TESS_PRINTF(2, 3);
/* Writes the resolved options as the JSON object that --config reads; unset ones are null. */
TESS_MUST_USE tess_status cli_command_print_config(const cli_command *cmd, tess_buf *out);

/* ---- rows --------------------------------------------------------------------------------- */

/* Checks `text` and stores it in `values`; a LIST gains an item.  Strings are borrowed or copied to
 * the arena.  `where` names the source in messages: "--lr", "TESSERA_LR", "run.json: lr". */
TESS_MUST_USE tess_status cli_option_set(const cli_option *o, void *values, const char *text,
                                         const char *where, tess_arena *arena);
/* Appends the value as JSON. */
void cli_option_write(const cli_option *o, const void *values, tess_json_writer *w);
/* Option i of the verb, then of the common table; NULL behind the last. */
const cli_option *cli_option_at(const cli_verb *verb, size_t i);
/* By name, '_' and '-' alike; NULL: none.  `verb` NULL: among the common ones. */
const cli_option *cli_option_find(const cli_verb *verb, const char *name, size_t n_bytes);
bool cli_name_equal(const char *option_name, const char *text, size_t n_bytes);
/* "TESSERA_BATCH_SIZE"; "" when the option has none.  Into `out`, which is returned. */
const char *cli_option_env(const cli_option *o, char out[64]);
/* "N", "FILE", ...; "" for a flag. */
const char *cli_option_value_name(const cli_option *o);
/* A flag that is on unless switched off is shown as --no-NAME. */
bool cli_option_is_negative(const cli_option *o);

/* The candidate nearest to `text` when it is near enough to be a slip of the finger, else NULL. */
const char *cli_suggest(const char *text, size_t n_bytes, const char *const *candidates, size_t n);
/* Edit distance with neighbouring letters swapped as one edit; letter case and '_' against '-' are
 * free.  Texts longer than 63 bytes count as far. */
int cli_distance(const char *a, size_t n_a, const char *b, size_t n_b);

#endif
