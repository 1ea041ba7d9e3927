/* SPDX-License-Identifier: Apache-2.0 */
/* sample_captions: from text and JSON to the captions of a sample.
 *
 * Text is gathered in one buffer that may move while it grows, so captions hold offsets until the
 * last one is in.  Before a .json is parsed its bytes are searched for the keys in question: an
 * img2dataset .json has metadata only, and its caption is in the .txt.  (A key spelt with escapes
 * is therefore not found; no writer does that.)
 */
#include "train/sample_captions.h"

#include "train/csv.h"

#include <stdlib.h>
#include <string.h>

#define LANGUAGES_MAX 4096

/* ---- languages ---------------------------------------------------------------------------- */

/* The place of `name` or where it belongs. */
static size_t lower_bound(const tess__languages *l, const char *name)
{
    size_t low = 0, high = l->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (strcmp(l->names[mid], name) < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

int64_t tess__language_find(const tess__languages *l, const char *name)
{
    size_t at = lower_bound(l, name);
    return at < l->n && strcmp(l->names[at], name) == 0 ? (int64_t)at : -1;
}

tess_status tess__language_add(tess__languages *l, const char *name, int64_t n)
{
    size_t at = lower_bound(l, name);
    if (at < l->n && strcmp(l->names[at], name) == 0) {
        l->counts[at] += n;
        return TESS_OK;
    }
    TESS_TRY(tess_grow(&l->names, &l->cap_names, l->n + 1, sizeof *l->names));
    TESS_TRY(tess_grow(&l->counts, &l->cap_counts, l->n + 1, sizeof *l->counts));
    char *copy = tess_strdup(name);
    if (!copy) {
        return TESS_NOMEM;
    }
    memmove(l->names + at + 1, l->names + at, (l->n - at) * sizeof *l->names);
    memmove(l->counts + at + 1, l->counts + at, (l->n - at) * sizeof *l->counts);
    l->names[at] = copy;
    l->counts[at] = n;
    l->n++;
    return TESS_OK;
}

/* A language that the scan has not met (none does, unless files change) or has no room for counts
 * as "und". */
static tess_status set_language(const tess_dataset *ds, tess_sample *s, const char *name,
                                int64_t *out)
{
    if (s->learn) {
        bool is_full = s->learn->n >= LANGUAGES_MAX && tess__language_find(s->learn, name) < 0;
        *out = 0;
        return tess__language_add(s->learn, is_full || !*name ? "und" : name, 1);
    }
    int64_t at = tess__language_find(&ds->languages, *name ? name : "und");
    at = at >= 0 ? at : tess__language_find(&ds->languages, "und");
    *out = at >= 0 ? at : 0;
    return TESS_OK;
}

/* ---- captions ----------------------------------------------------------------------------- */

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void trim(const char **text, size_t *n)
{
    if (*n >= 3 && memcmp(*text, "\xEF\xBB\xBF", 3) == 0) {
        *text += 3, *n -= 3;
    }
    while (*n > 0 && is_blank(**text)) {
        ++*text, --*n;
    }
    while (*n > 0 && is_blank((*text)[*n - 1])) {
        --*n;
    }
}

static tess_bad judge(const tess_dataset *ds, const tess_sample *s, const char *text, size_t n)
{
    const tess_hooks *hooks = ds->options.hooks;
    tess_bad bad = TESS_BAD_NONE;
    if (n == 0) {
        return TESS_BAD_CAPTION_EMPTY;
    }
    if (n > ds->options.max_caption_bytes) {
        return TESS_BAD_CAPTION_LONG;
    }
    if (!tess_utf8_valid(text, n, true)) {
        return TESS_BAD_CAPTION_UTF8;
    }
    if (s->n_captions >= ds->options.max_captions) {
        return TESS_BAD_CAPTION_MANY;
    }
    if (hooks && hooks->check && !s->learn) { /* counts of languages may include the odd one */
        hooks->check(hooks->ctx, text, n, &bad);
    }
    return bad;
}

static tess_status add(const tess_dataset *ds, tess_sample *s, const char *text, size_t n,
                       const char *language)
{
    trim(&text, &n);
    tess_bad bad = judge(ds, s, text, n);
    if (bad != TESS_BAD_NONE) {
        s->n_dropped[bad]++;
        return TESS_OK;
    }
    TESS_TRY(tess_grow(&s->caption_buf, &s->caption_cap, (size_t)s->n_captions + 1,
                       sizeof *s->caption_buf));
    tess_caption *c = &s->caption_buf[s->n_captions];
    TESS_TRY(set_language(ds, s, language, &c->language));
    c->text = (const char *)(uintptr_t)s->text_buf.n_bytes; /* an offset, until finish */
    c->n_bytes = n;
    tess_buf_add(&s->text_buf, text, n);
    tess_buf_add(&s->text_buf, "", 1);
    s->n_captions++;
    return tess_buf_check(&s->text_buf);
}

/* The text beside a picture: one caption, or one a line. */
static tess_status add_text(const tess_dataset *ds, tess_sample *s, tess_bytes text)
{
    const char *at = (const char *)text.data, *end = at + text.n_bytes;
    while (ds->options.text_lines && at < end) {
        const char *lf = memchr(at, '\n', (size_t)(end - at)), *stop = lf ? lf : end;
        TESS_TRY(add(ds, s, at, (size_t)(stop - at), ""));
        at = stop + 1;
    }
    return ds->options.text_lines ? TESS_OK : add(ds, s, at, text.n_bytes, "");
}

static tess_status add_json_string(const tess_dataset *ds, tess_sample *s, const tess_json *v,
                                   const char *language)
{
    const char *text = tess_json_string(v, "");
    return add(ds, s, text, strlen(text), language);
}

/* A string, or an array of strings. */
static tess_status add_json_texts(const tess_dataset *ds, tess_sample *s, const tess_json *v,
                                  const char *language)
{
    if (tess_json_kind_of(v) != TESS_JSON_ARRAY) {
        return add_json_string(ds, s, v, language);
    }
    for (size_t i = 0; i < tess_json_count(v); i++) {
        TESS_TRY(add_json_string(ds, s, tess_json_at(v, i), language));
    }
    return TESS_OK;
}

static tess_status add_json(const tess_dataset *ds, tess_sample *s, const tess_json *v)
{
    if (tess_json_kind_of(v) != TESS_JSON_OBJECT) {
        return add_json_texts(ds, s, v, "");
    }
    for (size_t i = 0; i < tess_json_count(v); i++) {
        const char *language = "";
        const tess_json *texts = tess_json_member(v, i, &language);
        TESS_TRY(add_json_texts(ds, s, texts, language));
    }
    return TESS_OK;
}

static bool may_have_key(tess_bytes json, const char *key)
{
    size_t n_key = strlen(key);
    const uint8_t *at = json.data, *end = json.data + json.n_bytes;
    while ((at = memmem(at, (size_t)(end - at), key, n_key))) {
        if (at > json.data && at[-1] == '"' && at + n_key < end && at[n_key] == '"') {
            return true;
        }
        at++;
    }
    return false;
}

/* Parses the .json the first time a key may be in it; *out_object stays NULL when none is. */
static tess_status open_json(tess_bytes json, const char *key, tess_json_doc **doc,
                             const tess_json **out_object, tess_sample *s)
{
    if (*out_object || *doc || !json.data || s->bad != TESS_BAD_NONE) {
        return TESS_OK;
    }
    if (json.n_bytes > TESS__JSON_MAX) {
        tess__sample_spoil(s, TESS_BAD_TOO_LARGE, "its JSON has %zu bytes, at most %zu are read",
                           json.n_bytes, TESS__JSON_MAX);
        return TESS_OK;
    }
    if (!may_have_key(json, key)) {
        return TESS_OK;
    }
    tess_status st = tess_json_parse((const char *)json.data, json.n_bytes, "JSON", doc);
    if (st == TESS_NOMEM) {
        return st;
    }
    if (st != TESS_OK) {
        tess__sample_spoil(s, TESS_BAD_JSON, "%s", tess_error());
        return TESS_OK;
    }
    *out_object = tess_json_root(*doc);
    return TESS_OK;
}

static tess_status add_row(const tess_dataset *ds, tess_sample *s, const tess__csv *row,
                           const char *const *languages)
{
    for (size_t i = 0; i < row->n_fields; i++) {
        size_t n;
        const char *text = tess__csv_field(row, i, &n);
        if (languages[i] && n > 0) {
            TESS_TRY(add(ds, s, text, n, languages[i]));
        }
    }
    return TESS_OK;
}

/* The first of the keys that is there. */
static tess_status gather(const tess_dataset *ds, const tess__caption_source *from, tess_sample *s,
                          tess_json_doc **doc)
{
    const tess_json *object = from->object;
    if (from->row) {
        return add_row(ds, s, from->row, from->languages);
    }
    if (from->is_column) {
        return add(ds, s, (const char *)from->text.data, from->text.n_bytes, "");
    }
    for (size_t i = 0; i < ds->caption_keys.n_names && s->bad == TESS_BAD_NONE; i++) {
        const char *key = ds->caption_keys.names[i];
        if (strcmp(key, "txt") == 0) {
            if (from->text.data) {
                return add_text(ds, s, from->text);
            }
            continue;
        }
        TESS_TRY(open_json(from->json, key, doc, &object, s));
        const tess_json *v = tess_json_get(object, key);
        if (tess_json_kind_of(v) != TESS_JSON_NULL) {
            return add_json(ds, s, v);
        }
    }
    return TESS_OK;
}

static void finish(const tess_dataset *ds, tess_sample *s)
{
    tess_bad reason = TESS_BAD_NONE;
    int64_t n_dropped = 0;
    for (int64_t i = 0; i < s->n_captions; i++) {
        s->caption_buf[i].text = s->text_buf.data + (uintptr_t)s->caption_buf[i].text;
    }
    for (int r = 0; r < TESS_BAD_COUNT; r++) {
        reason = s->n_dropped[r] > 0 && reason == TESS_BAD_NONE ? (tess_bad)r : reason;
        n_dropped += s->n_dropped[r];
    }
    s->captions = s->caption_buf;
    if (s->n_captions > 0 || ds->options.captions_optional) {
        return;
    }
    if (n_dropped > 0) {
        tess__sample_spoil(s, TESS_BAD_NO_CAPTION, "all %lld captions were left out (%s)",
                           (long long)n_dropped, tess_bad_name(reason));
    } else {
        tess__sample_spoil(s, TESS_BAD_NO_CAPTION, "no caption under %s", ds->options.caption_key);
    }
}

tess_status tess__captions_read(const tess_dataset *ds, const tess__caption_source *from,
                                tess_sample *s)
{
    tess_json_doc *doc = NULL;
    tess_buf_clear(&s->text_buf);
    tess_status st = gather(ds, from, s, &doc);
    tess_json_free(doc);
    if (st == TESS_OK) {
        finish(ds, s);
    }
    return st;
}

tess_status tess__languages_scan(tess_dataset *ds)
{
    tess_sample s = {.learn = &ds->languages};
    tess_status st = TESS_OK;
    for (size_t i = 0; i < ds->n_records && st == TESS_OK; i++) {
        if (tess_cancelled) {
            st = TESS_FAIL(TESS_CANCELLED, "stopped while reading captions");
        } else {
            st = tess_dataset_read(ds, (int64_t)i, TESS_READ_CAPTIONS, &s);
        }
    }
    tess_sample_deinit(&s);
    return st;
}
