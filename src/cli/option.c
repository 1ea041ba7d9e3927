/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of an option table: look-up, conversion from text, and writing back as JSON. */
#include "cli/option.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COMMON(field) .offset = offsetof(cli_common, field), .group = "Everywhere"

const cli_option cli_common_options[] = {
    {.name = "help", .short_name = 'h', COMMON(help), .env = "", .help = "Show this help"},
    {.name = "version", COMMON(version), .env = "", .help = "Show the version"},
    {.name = "quiet",
     .short_name = 'q',
     COMMON(quiet),
     .help = "Only warnings and errors, no progress bar"},
    {.name = "verbose", .short_name = 'v', COMMON(verbose), .help = "Say more about what happens"},
    {.name = "json", COMMON(json), .help = "Results as JSON on standard output"},
    {.name = "color",
     COMMON(color),
     .fallback = "true",
     .help = "No colour; NO_COLOR and TERM=dumb do the same"},
    {.name = "log-format",
     .kind = CLI_CHOICE,
     .choices = "text|json",
     .fallback = "text",
     COMMON(log_format),
     .help = "Form of the messages on standard error"},
    {.name = "config",
     .kind = CLI_PATH,
     COMMON(config),
     .help = "Read options from a JSON object; its keys are the option names"},
    {.name = "print-config",
     COMMON(print_config),
     .env = "",
     .help = "Show the options as they were understood, as JSON, and stop"},
};
const size_t cli_n_common_options = sizeof(cli_common_options) / sizeof(cli_common_options[0]);

/* ---- look-up ------------------------------------------------------------------------------ */

const cli_option *cli_option_at(const cli_verb *verb, size_t i)
{
    size_t n = verb != NULL ? verb->n_options : 0;
    if (i < n) {
        return &verb->options[i];
    }
    return i - n < cli_n_common_options ? &cli_common_options[i - n] : NULL;
}

bool cli_name_equal(const char *option_name, const char *text, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++) {
        char c = text[i] == '_' ? '-' : text[i];
        if (option_name[i] != c || c == '\0') {
            return false;
        }
    }
    return option_name[n_bytes] == '\0';
}

const cli_option *cli_option_find(const cli_verb *verb, const char *name, size_t n_bytes)
{
    const cli_option *o;
    for (size_t i = 0; (o = cli_option_at(verb, i)) != NULL; i++) {
        if (cli_name_equal(o->name, name, n_bytes)) {
            return o;
        }
    }
    return NULL;
}

const char *cli_option_env(const cli_option *o, char out[64])
{
    if (o->env != NULL) {
        snprintf(out, 64, "%s", o->env);
        return out;
    }
    int n = snprintf(out, 64, "TESSERA_");
    for (const char *p = o->name; *p != '\0' && n < 63; p++) {
        out[n++] = *p == '-' ? '_' : (char)toupper((unsigned char)*p);
    }
    out[n] = '\0';
    return out;
}

const char *cli_option_value_name(const cli_option *o)
{
    static const char *const names[CLI_KINDS] = {"", "N", "X", "TEXT", "FILE", "", "TEXT"};
    if (o->value != NULL) {
        return o->value;
    }
    return o->kind == CLI_CHOICE ? o->choices : names[o->kind];
}

bool cli_option_is_negative(const cli_option *o)
{
    return o->kind == CLI_FLAG && o->fallback != NULL && strcmp(o->fallback, "true") == 0;
}

/* ---- from text ---------------------------------------------------------------------------- */

static const struct {
    const char *text;
    bool value;
} truths[] = {{"true", true},   {"1", true},  {"yes", true}, {"on", true},
              {"false", false}, {"0", false}, {"no", false}, {"off", false}};

static tess_status set_flag(const cli_option *o, void *field, const char *text, const char *where)
{
    (void)o;
    for (int64_t i = 0; i < TESS_COUNT(truths); i++) {
        if (strcmp(text, truths[i].text) == 0) {
            *(bool *)field = truths[i].value;
            return TESS_OK;
        }
    }
    return TESS_FAIL(TESS_INVALID, "%s: expected true or false, found '%s'", where, text);
}

static tess_status check_range(const cli_option *o, double v, const char *text, const char *where)
{
    if ((o->min == 0 && o->max == 0) || (v >= o->min && v <= o->max)) {
        return TESS_OK;
    }
    if (isinf(o->max)) {
        return TESS_FAIL(TESS_INVALID, "%s: expected at least %g, found '%s'", where, o->min, text);
    }
    return TESS_FAIL(TESS_INVALID, "%s: expected %.15g to %.15g, found '%s'", where, o->min, o->max,
                     text);
}

static tess_status set_int(const cli_option *o, void *field, const char *text, const char *where)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || isspace((unsigned char)text[0])) {
        return TESS_FAIL(TESS_INVALID, "%s: expected a whole number, found '%s'", where, text);
    }
    if (errno == ERANGE) {
        return TESS_FAIL(TESS_INVALID, "%s: '%s' does not fit in 64 bits", where, text);
    }
    TESS_TRY(check_range(o, (double)v, text, where));
    *(int64_t *)field = v;
    return TESS_OK;
}

static tess_status set_real(const cli_option *o, void *field, const char *text, const char *where)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end != '\0' || isspace((unsigned char)text[0]) || !isfinite(v)) {
        return TESS_FAIL(TESS_INVALID, "%s: expected a number, found '%s'", where, text);
    }
    TESS_TRY(check_range(o, v, text, where));
    *(double *)field = v;
    return TESS_OK;
}

static tess_status set_string(const cli_option *o, void *field, const char *text, const char *where)
{
    if (o->kind == CLI_PATH && text[0] == '\0') {
        return TESS_FAIL(TESS_INVALID, "%s: expected a file name, found nothing", where);
    }
    *(const char **)field = text;
    return TESS_OK;
}

static tess_status set_choice(const cli_option *o, void *field, const char *text, const char *where)
{
    size_t n_text = strlen(text);
    for (const char *p = o->choices; n_text > 0 && *p != '\0';) {
        size_t n = strcspn(p, "|");
        if (n == n_text && memcmp(p, text, n) == 0) {
            *(const char **)field = text;
            return TESS_OK;
        }
        p += n + (p[n] == '|');
    }
    return TESS_FAIL(TESS_INVALID, "%s: expected one of %s, found '%s'", where, o->choices, text);
}

static tess_status add_item(const cli_option *o, void *field, const char *text, const char *where)
{
    (void)o;
    (void)where;
    cli_list *list = field;
    TESS_TRY(tess_grow(&list->items, &list->n_cap, list->n_items + 1, sizeof(list->items[0])));
    list->items[list->n_items++] = text;
    return TESS_OK;
}

static void write_flag(const void *field, tess_json_writer *w)
{
    tess_json_add_bool(w, *(const bool *)field);
}
static void write_int(const void *field, tess_json_writer *w)
{
    tess_json_add_int(w, *(const int64_t *)field);
}
static void write_real(const void *field, tess_json_writer *w)
{
    tess_json_add_real(w, *(const double *)field);
}
static void write_string(const void *field, tess_json_writer *w)
{
    tess_json_add_string(w, *(const char *const *)field);
}
static void write_list(const void *field, tess_json_writer *w)
{
    const cli_list *list = field;
    tess_json_begin_array(w);
    for (size_t i = 0; i < list->n_items; i++) {
        tess_json_add_string(w, list->items[i]);
    }
    tess_json_end_array(w);
}

static const struct {
    tess_status (*set)(const cli_option *o, void *field, const char *text, const char *where);
    void (*write)(const void *field, tess_json_writer *w);
} kinds[CLI_KINDS] = {
    [CLI_FLAG] = {set_flag, write_flag},     [CLI_INT] = {set_int, write_int},
    [CLI_REAL] = {set_real, write_real},     [CLI_STRING] = {set_string, write_string},
    [CLI_PATH] = {set_string, write_string}, [CLI_CHOICE] = {set_choice, write_string},
    [CLI_LIST] = {add_item, write_list},
};

tess_status cli_option_set(const cli_option *o, void *values, const char *text, const char *where,
                           tess_arena *arena)
{
    char *copy = tess_arena_strndup(arena, text, strlen(text));
    if (copy == NULL) {
        return TESS_NOMEM;
    }
    return kinds[o->kind].set(o, (char *)values + o->offset, copy, where);
}

void cli_option_write(const cli_option *o, const void *values, tess_json_writer *w)
{
    kinds[o->kind].write((const char *)values + o->offset, w);
}

/* ---- suggestions -------------------------------------------------------------------------- */

static int fold(char c)
{
    return c == '_' ? '-' : tolower((unsigned char)c);
}

static int min3(int a, int b, int c)
{
    int m = a < b ? a : b;
    return m < c ? m : c;
}

/* Three rows of the usual table: the one before the last is what a swap looks at. */
int cli_distance(const char *a, size_t n_a, const char *b, size_t n_b)
{
    int rows[3][64];
    if (n_a > 63 || n_b > 63) {
        return 64;
    }
    for (size_t j = 0; j <= n_b; j++) {
        rows[0][j] = (int)j;
    }
    for (size_t i = 1; i <= n_a; i++) {
        int *row = rows[i % 3], *up = rows[(i + 2) % 3], *up2 = rows[(i + 1) % 3];
        row[0] = (int)i;
        for (size_t j = 1; j <= n_b; j++) {
            int differs = fold(a[i - 1]) != fold(b[j - 1]);
            row[j] = min3(up[j] + 1, row[j - 1] + 1, up[j - 1] + differs);
            bool swapped = i > 1 && j > 1 && fold(a[i - 1]) == fold(b[j - 2]) &&
                           fold(a[i - 2]) == fold(b[j - 1]);
            if (swapped && up2[j - 2] + 1 < row[j]) {
                row[j] = up2[j - 2] + 1;
            }
        }
    }
    return rows[n_a % 3][n_b];
}

/* A third of the letters may be wrong; a beginning of at least three letters is always near. */
const char *cli_suggest(const char *text, size_t n_bytes, const char *const *candidates, size_t n)
{
    const char *best = NULL;
    int best_distance = 64;
    for (size_t i = 0; i < n; i++) {
        size_t n_c = strlen(candidates[i]);
        int d = cli_distance(text, n_bytes, candidates[i], n_c);
        int limit = (int)(n_bytes < 4 ? 1 : (n_bytes + 1) / 3);
        if (n_bytes >= 3 && n_c > n_bytes && strncmp(candidates[i], text, n_bytes) == 0) {
            d = 1;
        }
        if (d <= limit && d < best_distance) {
            best = candidates[i];
            best_distance = d;
        }
    }
    return best;
}
