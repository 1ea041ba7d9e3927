/* SPDX-License-Identifier: Apache-2.0 */
/* Values for a verb's struct: default, configuration file, environment, command line.
 *
 * Each source is applied over the one before, weakest first; a list is replaced as a whole by a
 * stronger source.  The common options come along, so that a configuration file may say "json".
 */
#include "cli/option.h"

#include <stdlib.h>
#include <string.h>

tess_status cli_usage_error(cli_command *cmd, const char *fmt, ...)
{
    char text[1024];
    va_list va;
    va_start(va, fmt);
    vsnprintf(text, sizeof(text), fmt, va);
    va_end(va);
    cmd->usage_error = true;
    return TESS_FAIL(TESS_INVALID, "%s", text);
}

static bool is_common(const cli_option *o)
{
    return o >= cli_common_options && o < cli_common_options + cli_n_common_options;
}

static size_t index_of(const cli_command *cmd, const cli_option *o)
{
    size_t n = cmd->verb != NULL ? cmd->verb->n_options : 0;
    return is_common(o) ? n + (size_t)(o - cli_common_options) : (size_t)(o - cmd->verb->options);
}

static void *base_of(const cli_command *cmd, const cli_option *o)
{
    return is_common(o) ? (void *)&cmd->common : cmd->values;
}

/* A stronger source than the list's items came from empties it first. */
static tess_status apply(cli_command *cmd, const cli_option *o, cli_source source, const char *text,
                         const char *where)
{
    size_t i = index_of(cmd, o);
    if (o->kind == CLI_LIST && cmd->sources[i] != source) {
        ((cli_list *)((char *)base_of(cmd, o) + o->offset))->n_items = 0;
    }
    TESS_TRY(cli_option_set(o, base_of(cmd, o), text, where, &cmd->arena));
    cmd->sources[i] = source;
    return TESS_OK;
}

static tess_status apply_defaults(cli_command *cmd)
{
    const cli_option *o;
    for (size_t i = 0; (o = cli_option_at(cmd->verb, i)) != NULL; i++) {
        if (o->fallback != NULL) {
            TESS_TRY(apply(cmd, o, CLI_FROM_DEFAULT, o->fallback, o->name));
        }
    }
    return TESS_OK;
}

/* ---- configuration file ------------------------------------------------------------------- */

static const char *scalar_text(const tess_json *v, char number[64])
{
    switch (tess_json_kind_of(v)) {
    case TESS_JSON_BOOL:
        return tess_json_bool(v, false) ? "true" : "false";
    case TESS_JSON_INT:
        snprintf(number, 64, "%lld", (long long)tess_json_int(v, 0));
        return number;
    case TESS_JSON_REAL:
        snprintf(number, 64, "%.17g", tess_json_real(v, 0));
        return number;
    case TESS_JSON_STRING:
        return tess_json_string(v, NULL);
    default:
        return NULL;
    }
}

/* A scalar, or for a list an array of scalars. */
static tess_status apply_json(cli_command *cmd, const cli_option *o, cli_source source,
                              const tess_json *v, const char *where)
{
    char number[64];
    if (tess_json_kind_of(v) == TESS_JSON_NULL) {
        return TESS_OK;
    }
    bool array = o->kind == CLI_LIST && tess_json_kind_of(v) == TESS_JSON_ARRAY;
    size_t n = array ? tess_json_count(v) : 1;
    if (array && n == 0) {
        ((cli_list *)((char *)base_of(cmd, o) + o->offset))->n_items = 0;
        cmd->sources[index_of(cmd, o)] = source;
    }
    for (size_t i = 0; i < n; i++) {
        const char *text = scalar_text(array ? tess_json_at(v, i) : v, number);
        if (text == NULL) {
            return TESS_FAIL(TESS_INVALID, "%s: expected %s", where,
                             o->kind == CLI_LIST ? "a text or an array of texts"
                                                 : "a text, a number, true or false");
        }
        TESS_TRY(apply(cmd, o, source, text, where));
    }
    return TESS_OK;
}

static tess_status fail_key(const cli_command *cmd, const char *path, const char *key)
{
    const char *names[256];
    size_t n = 0;
    const cli_option *o;
    for (size_t i = 0; (o = cli_option_at(cmd->verb, i)) != NULL && n < 256; i++) {
        names[n++] = o->name;
    }
    const char *near = cli_suggest(key, strlen(key), names, n);
    return TESS_FAIL(TESS_INVALID, "%s: '%s' is not an option of '%s'%s%s%s", path, key,
                     cmd->verb->name, near != NULL ? "; did you mean '" : "",
                     near != NULL ? near : "", near != NULL ? "'?" : "");
}

static bool names_config(const cli_option *o)
{
    return strcmp(o->name, "config") == 0;
}

static tess_status apply_config(cli_command *cmd, const char *path, const tess_json *root)
{
    if (tess_json_kind_of(root) != TESS_JSON_OBJECT) {
        return TESS_FAIL(TESS_INVALID, "%s: expected a JSON object of options", path);
    }
    for (size_t i = 0; i < tess_json_count(root); i++) {
        const char *key;
        const tess_json *v = tess_json_member(root, i, &key);
        const cli_option *o = cli_option_find(cmd->verb, key, strlen(key));
        bool allowed = o != NULL && (o->env == NULL || o->env[0] != '\0') && !names_config(o);
        if (!allowed) {
            return fail_key(cmd, path, key);
        }
        const char *where = tess_arena_format(&cmd->arena, "%s: %s", path, key);
        TESS_TRY(where == NULL ? TESS_NOMEM : apply_json(cmd, o, CLI_FROM_CONFIG, v, where));
    }
    return TESS_OK;
}

/* --config names the file, so it is looked for in the stronger sources beforehand. */
static const char *config_path(const cli_command *cmd, const cli_option *config)
{
    char env[64];
    for (size_t i = cmd->n_settings; i-- > 0;) {
        if (cmd->settings[i].option == config) {
            return cmd->settings[i].text;
        }
    }
    return cmd->getenv(cli_option_env(config, env));
}

static tess_status apply_config_file(cli_command *cmd)
{
    const char *path = config_path(cmd, cli_option_find(NULL, "config", strlen("config")));
    if (path == NULL || path[0] == '\0') {
        return TESS_OK;
    }
    tess_json_doc *doc;
    TESS_TRY(tess_json_load(path, &doc));
    tess_status st = apply_config(cmd, path, tess_json_root(doc));
    tess_json_free(doc);
    return st;
}

/* ---- environment and command line --------------------------------------------------------- */

/* A list in one variable is a JSON array; anything else is one item. */
static tess_status apply_variable(cli_command *cmd, const cli_option *o, const char *name,
                                  const char *text)
{
    if (o->kind != CLI_LIST || text[0] != '[') {
        return apply(cmd, o, CLI_FROM_ENV, text, name);
    }
    tess_json_doc *doc;
    TESS_TRY(tess_json_parse(text, strlen(text), name, &doc));
    tess_status st = apply_json(cmd, o, CLI_FROM_ENV, tess_json_root(doc), name);
    tess_json_free(doc);
    return st;
}

static tess_status apply_environment(cli_command *cmd)
{
    const cli_option *o;
    char name[64];
    for (size_t i = 0; (o = cli_option_at(cmd->verb, i)) != NULL; i++) {
        const char *text = cli_option_env(o, name)[0] != '\0' ? cmd->getenv(name) : NULL;
        if (text != NULL && text[0] != '\0') {
            TESS_TRY(apply_variable(cmd, o, name, text));
        }
    }
    return TESS_OK;
}

static tess_status apply_settings(cli_command *cmd)
{
    for (size_t i = 0; i < cmd->n_settings; i++) {
        const cli_setting *s = &cmd->settings[i];
        char where[80];
        snprintf(where, sizeof(where), "--%s", s->option->name);
        TESS_TRY(apply(cmd, s->option, CLI_FROM_FLAG, s->text, where));
    }
    return TESS_OK;
}

static tess_status check_args(cli_command *cmd)
{
    const cli_verb *v = cmd->verb;
    int n = (int)cmd->n_args;
    if (v == NULL) {
        return TESS_OK;
    }
    if (n < v->min_args) {
        return TESS_FAIL(TESS_INVALID, "'%s' needs %s", v->name, v->positional);
    }
    if (v->max_args >= 0 && n > v->max_args) {
        return TESS_FAIL(TESS_INVALID, "'%s': unexpected argument '%s'", v->name,
                         cmd->args[v->max_args]);
    }
    return TESS_OK;
}

static const char *process_getenv(const char *name)
{
    return getenv(name);
}

static tess_status resolve(cli_command *cmd)
{
    size_t n = (cmd->verb != NULL ? cmd->verb->n_options : 0) + cli_n_common_options;
    cmd->getenv = cmd->getenv != NULL ? cmd->getenv : process_getenv;
    cmd->sources = tess_alloc_array(n, sizeof(cmd->sources[0]));
    cmd->values = tess_alloc(cmd->verb != NULL ? cmd->verb->values_bytes : 0);
    if (cmd->sources == NULL || cmd->values == NULL) {
        return TESS_NOMEM;
    }
    TESS_TRY(apply_defaults(cmd));
    TESS_TRY(cmd->verb != NULL ? apply_config_file(cmd) : TESS_OK);
    TESS_TRY(apply_environment(cmd));
    TESS_TRY(apply_settings(cmd));
    return cmd->common.help || cmd->common.print_config ? TESS_OK : check_args(cmd);
}

tess_status cli_command_resolve(cli_command *cmd)
{
    tess_status st = resolve(cmd);
    cmd->usage_error = st == TESS_INVALID;
    return st;
}

void cli_command_deinit(cli_command *cmd)
{
    for (size_t i = 0; cmd->values != NULL && cmd->verb != NULL && i < cmd->verb->n_options; i++) {
        const cli_option *o = &cmd->verb->options[i];
        if (o->kind == CLI_LIST) {
            tess_free(((cli_list *)((char *)cmd->values + o->offset))->items);
        }
    }
    tess_free(cmd->values);
    tess_free(cmd->sources);
    tess_free(cmd->settings);
    tess_free(cmd->args);
    tess_arena_deinit(&cmd->arena);
    *cmd = (cli_command){0};
}

/* ---- questions ---------------------------------------------------------------------------- */

bool cli_given(const cli_command *cmd, const char *name)
{
    const cli_option *o = cli_option_find(cmd->verb, name, strlen(name));
    return o != NULL && cmd->sources != NULL && cmd->sources[index_of(cmd, o)] > CLI_FROM_DEFAULT;
}

tess_status cli_command_print_config(const cli_command *cmd, tess_buf *out)
{
    tess_json_writer w = {.buf = out, .pretty = true};
    tess_json_begin_object(&w);
    for (size_t i = 0; i < cmd->verb->n_options; i++) {
        const cli_option *o = &cmd->verb->options[i];
        if (o->env != NULL && o->env[0] == '\0') {
            continue;
        }
        tess_json_key(&w, o->name);
        if (cmd->sources[i] == CLI_FROM_NOWHERE && o->kind != CLI_FLAG) {
            tess_json_add_null(&w);
        } else {
            cli_option_write(o, cmd->values, &w);
        }
    }
    tess_json_end_object(&w);
    tess_buf_adds(out, "\n");
    return tess_buf_check(out);
}
