/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of keys that change nothing.  Hugging Face writes some eighty of them into every
 * config; a list of names costs a line each and keeps the promise that an unknown key is seen. */
#include "fusion/config_keys.h"

#include <stdlib.h>
#include <string.h>

static bool is_known(const tess_config_table *t, const char *key)
{
    for (int64_t i = 0; i < t->n_fields; i++) {
        if (strcmp(t->fields[i].key, key) == 0) {
            return true;
        }
    }
    return false;
}

static const tess_inert_key *find_inert(const tess_config_table *t, const char *key)
{
    for (int64_t i = 0; i < t->n_inert; i++) {
        if (strcmp(t->inert[i].key, key) == 0) {
            return &t->inert[i];
        }
    }
    return NULL;
}

static bool equals_word(const tess_json *v, const char *word, size_t n)
{
    char text[64];
    snprintf(text, sizeof text, "%.*s", (int)n, word);
    switch (tess_json_kind_of(v)) {
    case TESS_JSON_NULL:
        return strcmp(text, "null") == 0;
    case TESS_JSON_BOOL:
        return strcmp(text, tess_json_bool(v, false) ? "true" : "false") == 0;
    case TESS_JSON_INT:
    case TESS_JSON_REAL: {
        char *end;
        double number = strtod(text, &end);
        return end != text && !*end && number == tess_json_real(v, 0);
    }
    case TESS_JSON_STRING:
        return strcmp(text, tess_json_string(v, "")) == 0;
    default:
        return strcmp(text, "{}") == 0 && tess_json_count(v) == 0;
    }
}

static bool is_inert(const tess_inert_key *k, const tess_json *v)
{
    for (const char *word = k->values; word;) {
        size_t n = strcspn(word, "|");
        if (equals_word(v, word, n)) {
            return true;
        }
        word = word[n] ? word + n + 1 : NULL;
    }
    return !k->values;
}

static tess_status refuse(const char *name, const char *key, const tess_inert_key *k,
                          const tess_json *v)
{
    const char *joint = strstr(name, ": ") ? "." : ": ";
    tess_buf found = {0};
    tess_json_writer w = {.buf = &found};
    tess_json_add_value(&w, v);
    tess_status st =
        k ? TESS_FAIL(TESS_UNSUPPORTED, "%s%s%s: expected %s, found %.60s: it changes the results",
                      name, joint, key, k->values, found.data ? found.data : "")
          : TESS_FAIL(TESS_UNSUPPORTED,
                      "%s%s%s: an unknown key, which may change the results; remove it where you "
                      "know that it does not",
                      name, joint, key);
    tess_buf_deinit(&found);
    return st;
}

tess_status tess__config_read(const tess_json *obj, const char *name, tess_config_table table,
                              tess_arena *arena, void *out)
{
    for (size_t i = 0; i < tess_json_count(obj); i++) {
        const char *key = NULL;
        const tess_json *v = tess_json_member(obj, i, &key);
        if (!v || !key || is_known(&table, key)) {
            continue;
        }
        const tess_inert_key *k = find_inert(&table, key);
        if (!k || !is_inert(k, v)) {
            return refuse(name, key, k, v);
        }
    }
    return tess_json_pick_fields(obj, name, table.fields, (size_t)table.n_fields, arena, out);
}
