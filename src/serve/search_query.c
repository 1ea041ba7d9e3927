/* SPDX-License-Identifier: Apache-2.0 */
/* What a client searches for.  Both forms of a request fill one struct, which is then checked once.
 */
#include "serve/search_query.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "serve/base64.h"
#include "serve/multipart.h"

#define DEFAULT_K  10
#define MAX_WEIGHT 100

/* ---- JSON ---------------------------------------------------------------------------------- */

typedef struct json_query {
    char *text, *image;
    const tess_json *weights;
    int64_t k;
    double text_weight, picture_weight;
} json_query;

static const tess_field json_fields[] = {
    {"text", TESS_FIELD_STRING, offsetof(json_query, text), 0, 0},
    {"image", TESS_FIELD_STRING, offsetof(json_query, image), 0, 0},
    {"weights", TESS_FIELD_OBJECT, offsetof(json_query, weights), 0, 0},
    {"k", TESS_FIELD_INT, offsetof(json_query, k), 1, TESS_INDEX_MAX_K},
};

static const tess_field weight_fields[] = {
    {"text", TESS_FIELD_REAL, offsetof(json_query, text_weight), -MAX_WEIGHT, MAX_WEIGHT},
    {"image", TESS_FIELD_REAL, offsetof(json_query, picture_weight), -MAX_WEIGHT, MAX_WEIGHT},
};

/* Base64, also as the data: URL that a page makes of a file. */
static tess_status read_picture(const char *s, tess_arena *arena, tess_bytes *out)
{
    if (strncmp(s, "data:", 5) == 0) {
        const char *mark = strstr(s, ";base64,");
        if (!mark) {
            return TESS_FAIL(TESS_FORMAT, "\"image\" is a data: URL that is not base64");
        }
        s = mark + strlen(";base64,");
    }
    return tess__base64_decode(s, strlen(s), arena, out);
}

static tess_status read_json_root(const tess_json *root, tess_arena *arena, json_query *q)
{
    if (tess_json_kind_of(root) != TESS_JSON_OBJECT) {
        return TESS_FAIL(TESS_FORMAT, "expected a JSON object like {\"text\":\"...\",\"k\":10}");
    }
    TESS_TRY(
        tess_json_read_fields(root, "request", json_fields, TESS_COUNT(json_fields), arena, q));
    if (!q->weights) {
        return TESS_OK;
    }
    return tess_json_read_fields(q->weights, "request: weights", weight_fields,
                                 TESS_COUNT(weight_fields), arena, q);
}

static tess_status read_json(tess_bytes body, tess_arena *arena, tess__query *out)
{
    json_query q = {
        .k = out->k, .text_weight = out->text_weight, .picture_weight = out->picture_weight};
    tess_json_doc *doc = NULL;
    TESS_TRY(
        tess_json_parse(body.data ? (const char *)body.data : "", body.n_bytes, "request", &doc));
    tess_status st = read_json_root(tess_json_root(doc), arena, &q);
    tess_json_free(doc);
    TESS_TRY(st);
    out->text = q.text;
    out->text_bytes = q.text ? strlen(q.text) : 0;
    out->k = q.k;
    out->text_weight = q.text_weight;
    out->picture_weight = q.picture_weight;
    return q.image ? read_picture(q.image, arena, &out->picture) : TESS_OK;
}

/* ---- form ---------------------------------------------------------------------------------- */

static tess_status read_number(const tess__part *part, double min, double max, double *out)
{
    char text[32] = "";
    char *end = text;
    if (part->data.n_bytes < sizeof(text)) {
        memcpy(text, part->data.data, part->data.n_bytes);
        *out = strtod(text, &end);
    }
    if (end == text || *end || !isfinite(*out) || *out < min || *out > max) {
        return TESS_FAIL(TESS_INVALID, "%s: expected a number from %g to %g", part->name, min, max);
    }
    return TESS_OK;
}

static tess_status read_text_part(const tess__part *part, tess__query *out)
{
    out->text = (const char *)part->data.data;
    out->text_bytes = part->data.n_bytes;
    return TESS_OK;
}

static tess_status read_picture_part(const tess__part *part, tess__query *out)
{
    out->picture = part->data;
    return TESS_OK;
}

static tess_status read_k_part(const tess__part *part, tess__query *out)
{
    double k = 0;
    TESS_TRY(read_number(part, 1, TESS_INDEX_MAX_K, &k));
    out->k = (int64_t)k;
    return k == (double)out->k ? TESS_OK : TESS_FAIL(TESS_INVALID, "k: expected a whole number");
}

static tess_status read_text_weight_part(const tess__part *part, tess__query *out)
{
    return read_number(part, -MAX_WEIGHT, MAX_WEIGHT, &out->text_weight);
}

static tess_status read_picture_weight_part(const tess__part *part, tess__query *out)
{
    return read_number(part, -MAX_WEIGHT, MAX_WEIGHT, &out->picture_weight);
}

static const struct {
    const char *name;
    tess_status (*read)(const tess__part *part, tess__query *out);
} form_fields[] = {
    {"text", read_text_part},
    {"image", read_picture_part},
    {"k", read_k_part},
    {"text_weight", read_text_weight_part},
    {"image_weight", read_picture_weight_part},
};

static tess_status read_part(const tess__part *part, unsigned *seen, tess__query *out)
{
    for (int64_t i = 0; i < TESS_COUNT(form_fields); i++) {
        if (strcmp(part->name, form_fields[i].name) != 0) {
            continue;
        }
        if (*seen & 1u << i) {
            return TESS_FAIL(TESS_INVALID, "field \"%s\" is there twice", part->name);
        }
        *seen |= 1u << i;
        return form_fields[i].read(part, out);
    }
    return TESS_FAIL(TESS_INVALID,
                     "unknown field \"%s\": expected text, image, k, text_weight, image_weight",
                     part->name);
}

static tess_status read_form(const tess__request *request, tess__query *out)
{
    tess__parts parts;
    unsigned seen = 0;
    TESS_TRY(tess__multipart_parse(request->content_type, request->body, &parts));
    for (int i = 0; i < parts.n; i++) {
        TESS_TRY(read_part(&parts.parts[i], &seen, out));
    }
    return TESS_OK;
}

/* ---- both ---------------------------------------------------------------------------------- */

/* An empty text or picture is what a form sends for a field left alone. */
static tess_status check(const tess__query_limits *limits, tess__query *q)
{
    if (q->text_bytes == 0) {
        q->text = NULL;
    }
    if (q->picture.n_bytes == 0) {
        q->picture = (tess_bytes){0};
    }
    if (!q->text && !q->picture.data) {
        return TESS_FAIL(TESS_INVALID, "nothing to search for: give \"text\", \"image\" or both");
    }
    if (q->text_bytes > limits->max_text_bytes) {
        return TESS_FAIL(TESS_INVALID, "the text has %zu bytes, at most %zu are allowed",
                         q->text_bytes, limits->max_text_bytes);
    }
    if (q->text && !tess_utf8_valid(q->text, q->text_bytes, true)) {
        return TESS_FAIL(TESS_INVALID, "the text is not UTF-8");
    }
    if (q->k > limits->max_k) {
        return TESS_FAIL(TESS_INVALID, "k is %lld: expected 1 to %lld", (long long)q->k,
                         (long long)limits->max_k);
    }
    return TESS_OK;
}

tess_status tess__query_read(const tess__request *request, const tess__query_limits *limits,
                             tess_arena *arena, tess__query *out)
{
    int64_t k = limits->max_k < DEFAULT_K ? limits->max_k : DEFAULT_K;
    *out = (tess__query){.text_weight = 1, .picture_weight = 1, .k = k};
    if (tess__is_media_type(request->content_type, "application/json")) {
        TESS_TRY(read_json(request->body, arena, out));
    } else if (tess__is_media_type(request->content_type, "multipart/form-data")) {
        TESS_TRY(read_form(request, out));
    } else {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "send application/json or multipart/form-data as Content-Type");
    }
    return check(limits, out);
}
