/* SPDX-License-Identifier: Apache-2.0 */
/* Captions are JSON of three shapes: a string, an array of strings, language -> string or array. */
#include "index/rows.h"

#include <string.h>

static tess_status refuse(const char *name)
{
    return TESS_FAIL(TESS_INVALID,
                     "%s: captions are a JSON string, an array of strings, or an object of these "
                     "by language",
                     name);
}

static tess_status add_string(const tess_json *v, const char *name, tess_buf *out)
{
    if (tess_json_kind_of(v) != TESS_JSON_STRING) {
        return refuse(name);
    }
    tess_buf_adds(out, tess_json_string(v, ""));
    tess_buf_adds(out, "\n");
    return TESS_OK;
}

/* A string or an array of strings. */
static tess_status add_strings(const tess_json *v, const char *name, tess_buf *out)
{
    if (tess_json_kind_of(v) != TESS_JSON_ARRAY) {
        return add_string(v, name, out);
    }
    for (size_t i = 0; i < tess_json_count(v); i++) {
        TESS_TRY(add_string(tess_json_at(v, i), name, out));
    }
    return TESS_OK;
}

static tess_status add_any(const tess_json *v, const char *name, tess_buf *out)
{
    if (tess_json_kind_of(v) != TESS_JSON_OBJECT) {
        return add_strings(v, name, out);
    }
    for (size_t i = 0; i < tess_json_count(v); i++) {
        const char *language = NULL;
        TESS_TRY(add_strings(tess_json_member(v, i, &language), name, out));
    }
    return TESS_OK;
}

tess_status tess__captions_text(const char *captions, const char *name, tess_buf *out)
{
    tess_json_doc *doc = NULL;
    TESS_TRY(tess_json_parse(captions, strlen(captions), name, &doc));
    tess_status st = add_any(tess_json_root(doc), name, out);
    tess_json_free(doc);
    return st == TESS_OK ? tess_buf_check(out) : st;
}
