/* SPDX-License-Identifier: Apache-2.0 */
/* A config object read into a struct by a table: what the table does not know is refused, because a
 * misspelt key that is silently ignored costs a training run.
 */
#include "tessera/base.h"

#include <string.h>

/* Where a value stands, for messages, and where strings go. */
typedef struct reader {
    const char *name, *joint; /* "file" + ": " + key, or "file: path" + "." + key */
    tess_arena *arena;
} reader;

static const char *const kind_names[] = {
    [TESS_JSON_NULL] = "null",        [TESS_JSON_BOOL] = "a boolean",
    [TESS_JSON_INT] = "an integer",   [TESS_JSON_REAL] = "a number",
    [TESS_JSON_STRING] = "a string",  [TESS_JSON_ARRAY] = "an array",
    [TESS_JSON_OBJECT] = "an object",
};

static tess_status wrong_kind(const reader *r, const char *key, const char *expected,
                              const tess_json *v)
{
    return TESS_FAIL(TESS_INVALID, "%s%s%s: expected %s, found %s", r->name, r->joint, key,
                     expected, kind_names[tess_json_kind_of(v)]);
}

static tess_status check_range(const reader *r, const tess_field *f, double v)
{
    if ((f->min == 0 && f->max == 0) || (v >= f->min && v <= f->max)) {
        return TESS_OK;
    }
    return TESS_FAIL(TESS_INVALID, "%s%s%s: expected %.15g to %.15g, found %.15g", r->name,
                     r->joint, f->key, f->min, f->max, v);
}

static tess_status read_int(const reader *r, const tess_field *f, const tess_json *v, void *out)
{
    if (tess_json_kind_of(v) != TESS_JSON_INT) {
        return wrong_kind(r, f->key, "an integer", v);
    }
    int64_t value = tess_json_int(v, 0);
    TESS_TRY(check_range(r, f, (double)value));
    memcpy(out, &value, sizeof value);
    return TESS_OK;
}

static bool is_number(const tess_json *v)
{
    tess_json_kind kind = tess_json_kind_of(v);
    return kind == TESS_JSON_INT || kind == TESS_JSON_REAL;
}

static tess_status read_real(const reader *r, const tess_field *f, const tess_json *v, void *out)
{
    if (!is_number(v)) {
        return wrong_kind(r, f->key, "a number", v);
    }
    double value = tess_json_real(v, 0);
    TESS_TRY(check_range(r, f, value));
    memcpy(out, &value, sizeof value);
    return TESS_OK;
}

static tess_status read_bool(const reader *r, const tess_field *f, const tess_json *v, void *out)
{
    if (tess_json_kind_of(v) != TESS_JSON_BOOL) {
        return wrong_kind(r, f->key, "true or false", v);
    }
    bool value = tess_json_bool(v, false);
    memcpy(out, &value, sizeof value);
    return TESS_OK;
}

static tess_status read_string(const reader *r, const tess_field *f, const tess_json *v, void *out)
{
    const char *s = tess_json_string(v, NULL);
    if (s == NULL) {
        return wrong_kind(r, f->key, "a string", v);
    }
    char *copy = tess_arena_strndup(r->arena, s, strlen(s));
    if (copy == NULL) {
        return TESS_NOMEM;
    }
    memcpy(out, &copy, sizeof copy);
    return TESS_OK;
}

static tess_status read_reals3(const reader *r, const tess_field *f, const tess_json *v, void *out)
{
    double value[3];
    bool is_array = tess_json_kind_of(v) == TESS_JSON_ARRAY;
    if (is_array && tess_json_count(v) != 3) {
        return TESS_FAIL(TESS_INVALID, "%s%s%s: expected 3 numbers, found %zu items", r->name,
                         r->joint, f->key, tess_json_count(v));
    }
    for (size_t i = 0; i < 3; i++) {
        const tess_json *item = is_array ? tess_json_at(v, i) : v;
        if (!is_number(item)) {
            return wrong_kind(r, f->key, "3 numbers or one", item);
        }
        value[i] = tess_json_real(item, 0);
        TESS_TRY(check_range(r, f, value[i]));
    }
    memcpy(out, value, sizeof value);
    return TESS_OK;
}

static tess_status read_object(const reader *r, const tess_field *f, const tess_json *v, void *out)
{
    if (tess_json_kind_of(v) != TESS_JSON_OBJECT) {
        return wrong_kind(r, f->key, "an object", v);
    }
    memcpy(out, &v, sizeof v);
    return TESS_OK;
}

static tess_status read_value(const reader *r, const tess_field *f, const tess_json *v, void *out)
{
    (void)r, (void)f;
    memcpy(out, &v, sizeof v);
    return TESS_OK;
}

static tess_status (*const read_kind[])(const reader *, const tess_field *, const tess_json *,
                                        void *) = {
    [TESS_FIELD_INT] = read_int,       [TESS_FIELD_REAL] = read_real,
    [TESS_FIELD_BOOL] = read_bool,     [TESS_FIELD_STRING] = read_string,
    [TESS_FIELD_REALS3] = read_reals3, [TESS_FIELD_OBJECT] = read_object,
    [TESS_FIELD_VALUE] = read_value,
};

static tess_status unknown_key(const reader *r, const char *key, const tess_field *fields,
                               size_t n_fields)
{
    tess_buf known = {0};
    for (size_t i = 0; i < n_fields; i++) {
        tess_buf_addf(&known, "%s%s", i > 0 ? ", " : "", fields[i].key);
    }
    tess_status st = TESS_FAIL(TESS_INVALID, "%s%s%s: expected one of {%s}, found an unknown key",
                               r->name, r->joint, key, known.data != NULL ? known.data : "");
    tess_buf_deinit(&known);
    return st;
}

static const tess_field *find_field(const char *key, const tess_field *fields, size_t n_fields)
{
    for (size_t i = 0; i < n_fields; i++) {
        if (strcmp(fields[i].key, key) == 0) {
            return &fields[i];
        }
    }
    return NULL;
}

static tess_status read_fields(const tess_json *obj, const char *name, const tess_field *fields,
                               size_t n_fields, bool strict, tess_arena *arena, void *out)
{
    reader r = {name, strstr(name, ": ") != NULL ? "." : ": ", arena};
    tess_json_kind kind = tess_json_kind_of(obj);
    if (kind == TESS_JSON_NULL) {
        return TESS_OK;
    }
    if (kind != TESS_JSON_OBJECT) {
        return TESS_FAIL(TESS_INVALID, "%s: expected an object, found %s", name, kind_names[kind]);
    }
    for (size_t i = 0; i < tess_json_count(obj); i++) {
        const char *key = NULL;
        const tess_json *v = tess_json_member(obj, i, &key);
        const tess_field *f = find_field(key, fields, n_fields);
        if (f == NULL && strict) {
            return unknown_key(&r, key, fields, n_fields);
        }
        if (f != NULL && tess_json_kind_of(v) != TESS_JSON_NULL) {
            TESS_TRY(read_kind[f->kind](&r, f, v, (char *)out + f->offset));
        }
    }
    return TESS_OK;
}

tess_status tess_json_read_fields(const tess_json *obj, const char *name, const tess_field *fields,
                                  size_t n_fields, tess_arena *arena, void *out)
{
    return read_fields(obj, name, fields, n_fields, true, arena, out);
}

tess_status tess_json_pick_fields(const tess_json *obj, const char *name, const tess_field *fields,
                                  size_t n_fields, tess_arena *arena, void *out)
{
    return read_fields(obj, name, fields, n_fields, false, arena, out);
}
