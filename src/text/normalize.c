/* SPDX-License-Identifier: Apache-2.0 */
/* The project's own normalisation of captions and queries, and the one door to utf8proc (tokenizers
 * get their normal forms here too, which follow `tokenizers` instead).
 *
 * utf8proc decomposes and composes; the passes between are ours.  Its own canonical ordering is a
 * bubble sort over the whole string, quadratic in a flood of combining marks, so marks are put in
 * order here while they are collected, in runs of at most MAX_MARKS.  No buffer grows with what a
 * hostile text expands to: collecting stops at the limit. */
#include "text/normalize.h"
#include "text/char_class.h"

#include <string.h>
#include <utf8proc.h>

/* NFKC makes at most 18 code points of one (U+FDFA) and 6 of one byte, and composing makes one of
 * at most 4; with Unicode's stability rules these stay true. */
enum { MAX_MARKS = 30, MAX_EXPANSION = 32, MAX_POINTS_PER_BYTE = 6, MAX_COMPOSED = 4 };

typedef struct collector {
    int32_t *points; /* decomposed, in canonical order */
    size_t n, cap;
    size_t n_marks; /* length of the run of combining marks at the end */
    bool space;     /* a space is owed before the next character */
    bool full;
} collector;

static int combining_class(int32_t c)
{
    return c < 0x300 ? 0 : utf8proc_get_property(c)->combining_class;
}

/* Characters that say nothing: controls, noncharacters, byte order marks and the bidirectional
 * embeddings, overrides and isolates (whose effect does not outlive their string).  Joiners,
 * variation selectors, tags and direction marks stay: they tell words and emoji apart. */
static bool is_noise(int32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x202a && c <= 0x202e) ||
           (c >= 0x2066 && c <= 0x2069) || c == 0xfeff || (c >= 0xfff9 && c <= 0xfffb) ||
           (c >= 0xfdd0 && c <= 0xfdef) || (c & 0xfffe) == 0xfffe;
}

static bool is_space(int32_t c)
{
    return c == ' ' || (c >= 9 && c <= 13) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

/* Puts a combining mark into its place in the run at the end: stable, by class. */
static void add_mark(collector *k, int32_t c, int class)
{
    if (k->n_marks == MAX_MARKS) {
        return;
    }
    size_t at = k->n;
    while (at > k->n - k->n_marks && combining_class(k->points[at - 1]) > class) {
        k->points[at] = k->points[at - 1];
        at--;
    }
    k->points[at] = c;
    k->n++;
    k->n_marks++;
}

/* Adds one decomposed code point. */
static void add_point(collector *k, int32_t c)
{
    if (is_space(c)) {
        k->space = k->n > 0;
        return;
    }
    if (is_noise(c)) {
        return;
    }
    if (k->n + 2 > k->cap) {
        k->full = true;
        return;
    }
    if (k->space) {
        k->points[k->n++] = ' ';
        k->n_marks = 0;
        k->space = false;
    }
    int class = combining_class(c);
    if (class != 0) {
        add_mark(k, c, class);
    } else {
        k->points[k->n++] = c;
        k->n_marks = 0;
    }
}

static tess_status bad_utf8(size_t at)
{
    return TESS_FAIL(TESS_FORMAT, "expected UTF-8, found an ill-formed sequence at byte %zu", at);
}

/* Decomposes the text into k; stops early when k is full.  The whole text is checked all the same.
 */
static tess_status collect(collector *k, const char *s, size_t n_bytes, unsigned flags)
{
    int options = UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT |
                  ((flags & TESS_CLEAN_FOLD) != 0 ? UTF8PROC_CASEFOLD : 0);
    for (size_t i = 0; i < n_bytes;) {
        utf8proc_int32_t c, parts[MAX_EXPANSION];
        utf8proc_ssize_t used =
            utf8proc_iterate((const utf8proc_uint8_t *)s + i, (utf8proc_ssize_t)(n_bytes - i), &c);
        if (used <= 0) {
            return bad_utf8(i);
        }
        i += (size_t)used;
        if (k->full || is_space(c) ||
            is_noise(c)) { /* U+0085 and the like decompose to themselves */
            if (!k->full) {
                add_point(k, c);
            }
            continue;
        }
        int last_class = 0;
        utf8proc_ssize_t n = utf8proc_decompose_char(c, parts, MAX_EXPANSION,
                                                     (utf8proc_option_t)options, &last_class);
        for (utf8proc_ssize_t j = 0; j < n && j < MAX_EXPANSION && !k->full; j++) {
            add_point(k, parts[j]);
        }
    }
    return TESS_OK;
}

/* Writes the code points as UTF-8 up to the limit; false when they do not all fit. */
static bool write_utf8(const int32_t *points, size_t n, tess_buf *out)
{
    for (size_t i = 0; i < n; i++) {
        utf8proc_uint8_t c[4];
        size_t n_c = (size_t)utf8proc_encode_char(points[i], c);
        if (out->n_bytes + n_c > TESS_TEXT_CLEAN_BYTES) {
            return false;
        }
        tess_buf_add(out, c, n_c);
    }
    return true;
}

static tess_status finish(collector *k, unsigned flags, tess_buf *out)
{
    utf8proc_ssize_t n = utf8proc_normalize_utf32(k->points, (utf8proc_ssize_t)k->n,
                                                  UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    if (n < 0) {
        return TESS_FAIL(TESS_FORMAT, "the text cannot be composed: %s", utf8proc_errmsg(n));
    }
    bool fits = write_utf8(k->points, (size_t)n, out) && !k->full;
    if (!fits && (flags & TESS_CLEAN_TRUNCATE) == 0) {
        return TESS_FAIL(TESS_INVALID, "the text is longer than %zu bytes once cleaned",
                         TESS_TEXT_CLEAN_BYTES);
    }
    if (out->n_bytes > 0 && out->data[out->n_bytes - 1] == ' ') {
        out->data[--out->n_bytes] = 0;
    }
    return tess_buf_check(out);
}

tess_status tess_text_clean(const char *s, size_t n_bytes, unsigned flags, tess_buf *out)
{
    tess_buf_clear(out);
    tess_buf_add(out, "", 0);
    /* More points than this cannot compose into a text within the limit. */
    size_t most = TESS_TEXT_CLEAN_BYTES * MAX_COMPOSED;
    size_t all = n_bytes < most ? n_bytes * MAX_POINTS_PER_BYTE : most;
    collector k = {.cap = (all < most ? all : most) + MAX_EXPANSION};
    k.points = tess_alloc_array(k.cap + 1, sizeof(*k.points));
    if (k.points == NULL) {
        return TESS_NOMEM;
    }
    tess_status st = collect(&k, s, n_bytes, flags);
    if (st == TESS_OK) {
        st = finish(&k, flags, out);
    }
    tess_free(k.points);
    if (st != TESS_OK) {
        tess_buf_clear(out);
    }
    return st;
}

/* ---- for tokenizers --------------------------------------------------------------------- */

static int known_class(int32_t c)
{
    int class = combining_class(c);
    return class != 0 && !tess__char_is(TESS__CHAR_UNKNOWN, (uint32_t)c) ? class : 0;
}

/* Orders a run of marks by class, stable: a counting sort, so that no run is slow. */
static tess_status order_marks(tess__pipe_scratch *s, int32_t *marks, size_t n)
{
    size_t starts[257] = {0};
    bool ordered = true;
    for (size_t i = 0; i < n; i++) {
        starts[known_class(marks[i]) + 1]++;
        ordered = ordered && (i == 0 || known_class(marks[i - 1]) <= known_class(marks[i]));
    }
    if (ordered) {
        return TESS_OK;
    }
    TESS_TRY(tess_grow(&s->run, &s->cap_run, n, sizeof(*s->run)));
    for (size_t i = 0; i < 256; i++) {
        starts[i + 1] += starts[i];
    }
    for (size_t i = 0; i < n; i++) {
        s->run[starts[known_class(marks[i])]++] = marks[i];
    }
    memcpy(marks, s->run, n * sizeof(*marks));
    return TESS_OK;
}

static tess_status order_all(tess__pipe_scratch *s, size_t n)
{
    size_t start = 0;
    for (size_t i = 0; i <= n; i++) {
        if (i < n && known_class(s->points[i]) != 0) {
            continue;
        }
        if (i > start + 1) {
            TESS_TRY(order_marks(s, s->points + start, i - start));
        }
        start = i + 1;
    }
    return TESS_OK;
}

static tess_status decompose(tess__pipe_scratch *s, bool compat, size_t *out_n)
{
    const char *in = s->in.data;
    size_t n_points = 0;
    int options = UTF8PROC_DECOMPOSE | (compat ? UTF8PROC_COMPAT : 0);
    for (size_t i = 0, used; i < s->in.n_bytes; i += used) {
        uint32_t c = tess__char_at(in + i, s->in.n_bytes - i, &used);
        if (n_points + MAX_EXPANSION > s->cap_points) {
            size_t want = n_points + MAX_EXPANSION + (s->in.n_bytes - i);
            if (want > TESS__NORMAL_MAX / 4) {
                return TESS_FAIL(TESS_INVALID, "the text is longer than %zu bytes once normalised",
                                 TESS__NORMAL_MAX);
            }
            TESS_TRY(tess_grow(&s->points, &s->cap_points, want, sizeof(*s->points)));
        }
        if (c < 0x80 || tess__char_is(TESS__CHAR_UNKNOWN, c)) {
            s->points[n_points++] = (int32_t)c;
            continue;
        }
        int last_class = 0;
        utf8proc_ssize_t n =
            utf8proc_decompose_char((utf8proc_int32_t)c, s->points + n_points, MAX_EXPANSION,
                                    (utf8proc_option_t)options, &last_class);
        n_points += n > 0 ? (size_t)n : 0;
    }
    *out_n = n_points;
    return TESS_OK;
}

tess_status tess__normal_form(tess__pipe_scratch *s, bool compose, bool compat)
{
    size_t n = 0;
    TESS_TRY(decompose(s, compat, &n));
    TESS_TRY(order_all(s, n));
    if (compose && n > 0) {
        utf8proc_ssize_t k = utf8proc_normalize_utf32(s->points, (utf8proc_ssize_t)n,
                                                      UTF8PROC_COMPOSE | UTF8PROC_STABLE);
        if (k < 0) {
            return TESS_FAIL(TESS_FORMAT, "the text cannot be composed: %s", utf8proc_errmsg(k));
        }
        n = (size_t)k;
    }
    TESS_TRY(tess__span_reserve(&s->out, n * 4));
    for (size_t i = 0; i < n; i++) {
        s->out.n_bytes += tess__char_put((uint32_t)s->points[i], s->out.data + s->out.n_bytes);
    }
    return TESS_OK;
}

int tess__lower_of(uint32_t c, uint32_t out[2])
{
    if (c == 0x130) {
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
    return 1;
}

bool tess__grapheme_breaks(uint32_t before, uint32_t after, int32_t *state)
{
    return utf8proc_grapheme_break_stateful((utf8proc_int32_t)before, (utf8proc_int32_t)after,
                                            state);
}
