/* SPDX-License-Identifier: Apache-2.0 */
/* OpenCLIP's cleaning of texts, in Python's terms: ftfy.fix_text, html.unescape twice, strip, split
 * and join, str.lower with its final sigma, translate.
 *
 * Departure: of ftfy what text_fix.c has; mojibake is not repaired. */
#include "text/char_class.h"
#include "text/html_unescape.h"
#include "text/normalize.h"

#include <string.h>

tess_status tess_clip_clean_find(const char *name, tess_clip_clean *out)
{
    static const char *const names[] = {
        [TESS_CLIP_CLEAN_WHITESPACE] = "whitespace",
        [TESS_CLIP_CLEAN_LOWER] = "lower",
        [TESS_CLIP_CLEAN_CANONICALIZE] = "canonicalize",
    };
    for (int i = 1; i < TESS_COUNT(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (tess_clip_clean)i;
            return TESS_OK;
        }
    }
    return TESS_FAIL(TESS_INVALID,
                     "clean: expected whitespace, lower or canonicalize, found \"%.40s\"", name);
}

static void swap(tess__pipe_scratch *s)
{
    tess__span_buf in = s->in;
    s->in = s->out;
    s->out = in;
    s->out.n_bytes = 0;
}

/* str.isspace: White_Space and the four separators of ASCII. */
static bool is_space(uint32_t c)
{
    return (c >= 0x1c && c <= 0x1f) || tess__char_is(TESS__CHAR_SPACE, c);
}

/* " ".join(text.split()) */
static tess_status collapse(tess__pipe_scratch *s)
{
    bool owed = false;
    TESS_TRY(tess__span_reserve(&s->out, s->in.n_bytes));
    for (size_t i = 0, used; i < s->in.n_bytes; i += used) {
        uint32_t c = tess__char_at(s->in.data + i, s->in.n_bytes - i, &used);
        if (is_space(c)) {
            owed = s->out.n_bytes > 0;
            continue;
        }
        if (owed) {
            s->out.data[s->out.n_bytes++] = ' ';
            owed = false;
        }
        memcpy(s->out.data + s->out.n_bytes, s->in.data + i, used);
        s->out.n_bytes += used;
    }
    swap(s);
    return TESS_OK;
}

/* Without ASCII punctuation; with `join`, "_" becomes a space first. */
static tess_status drop_punctuation(tess__pipe_scratch *s, bool join)
{
    TESS_TRY(tess__span_reserve(&s->out, s->in.n_bytes));
    for (size_t i = 0; i < s->in.n_bytes; i++) {
        char c = s->in.data[i];
        bool punct = (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
                     (c >= '{' && c <= '~');
        if (!punct || (join && c == '_')) {
            s->out.data[s->out.n_bytes++] = punct ? ' ' : c;
        }
    }
    swap(s);
    return TESS_OK;
}

/* Whether a capital sigma at s[at] ends a word: a cased letter before it and none behind, looking
 * past what ignores case. */
static bool is_final_sigma(const char *s, size_t n, size_t at)
{
    size_t i = at, used;
    bool cased = false;
    while (i > 0) {
        uint32_t c = tess__char_before(s, i, &i);
        if (!tess__char_is(TESS__CHAR_CASE_IGNORABLE, c)) {
            cased = tess__char_is(TESS__CHAR_CASED, c);
            break;
        }
    }
    for (i = at + 2; cased && i < n; i += used) {
        uint32_t c = tess__char_at(s + i, n - i, &used);
        if (!tess__char_is(TESS__CHAR_CASE_IGNORABLE, c)) {
            return !tess__char_is(TESS__CHAR_CASED, c);
        }
    }
    return cased;
}

/* str.lower.  What lies between two sigmas is looked past twice at most: linear. */
static tess_status lower(tess__pipe_scratch *s)
{
    const char *in = s->in.data;
    size_t n = s->in.n_bytes;
    for (size_t i = 0, used; i < n; i += used) {
        uint32_t c = tess__char_at(in + i, n - i, &used), low[2];
        if (s->out.n_bytes + 8 > s->out.cap_bytes) {
            TESS_TRY(tess__span_reserve(&s->out, (n - i) * 2 + 8));
        }
        int k = tess__lower_of(c, low);
        if (c == 0x3a3 && is_final_sigma(in, n, i)) {
            low[0] = 0x3c2;
        }
        for (int j = 0; j < k; j++) {
            s->out.n_bytes += tess__char_put(low[j], s->out.data + s->out.n_bytes);
        }
    }
    swap(s);
    return TESS_OK;
}

static tess_status unescape(tess__pipe_scratch *s)
{
    for (int i = 0; i < 2 && s->in.n_bytes > 0 && memchr(s->in.data, '&', s->in.n_bytes); i++) {
        TESS_TRY(tess__html_unescape(&s->in, &s->out));
        swap(s);
    }
    return TESS_OK;
}

tess_status tess__clip_clean_run(tess_clip_clean how, tess__pipe_scratch *s)
{
    TESS_TRY(tess__text_fix(s));
    TESS_TRY(unescape(s));
    if (how == TESS_CLIP_CLEAN_CANONICALIZE) {
        TESS_TRY(drop_punctuation(s, true));
        TESS_TRY(lower(s));
        return collapse(s);
    }
    TESS_TRY(collapse(s));
    return how == TESS_CLIP_CLEAN_LOWER ? lower(s) : TESS_OK;
}

/* Hugging Face's SiglipTokenizer: lower case, no ASCII punctuation, white space collapsed. */
tess_status tess__normal_siglip(const tess__step *step, tess__pipe_scratch *s)
{
    if ((step->flags & TESS__SIGLIP_LOWER) != 0) {
        TESS_TRY(lower(s));
    }
    TESS_TRY(drop_punctuation(s, false));
    TESS_TRY(collapse(s));
    return tess__span_put(&s->out, s->in.data, s->in.n_bytes);
}
