/* SPDX-License-Identifier: Apache-2.0 */
/* Pre-tokenizers, each as Hugging Face's `tokenizers` of the same name does it: the words before to
 * the words after.  The regular expressions of CLIP and GPT-2 are scanners written out by hand, so
 * there is no expression engine whose backtracking a text could abuse. */
#include "text/char_class.h"
#include "text/pipe.h"

#include <string.h>

/* ---- white space, BERT ------------------------------------------------------------------ */

static tess_status cut_space(tess__pipe_scratch *s, tess__word w, bool punct)
{
    const char *in = s->in.data;
    size_t start = w.pos, end = w.pos + (size_t)w.n_bytes;
    for (size_t i = start, used; i < end; i += used) {
        uint32_t c = tess__char_at(in + i, end - i, &used);
        bool space = tess__char_is(TESS__CHAR_SPACE, c);
        if (!space && !(punct && tess__char_is(TESS__CHAR_BERT_PUNCT, c))) {
            continue;
        }
        TESS_TRY(tess__words_add(&s->cut, start, i - start, w.first && start == w.pos));
        TESS_TRY(tess__words_add(&s->cut, i, space ? 0 : used, w.first && i == w.pos));
        start = i + used;
    }
    return tess__words_add(&s->cut, start, end - start, w.first && start == w.pos);
}

tess_status tess__split_space(const tess__step *step, tess__pipe_scratch *s)
{
    (void)step;
    for (size_t i = 0; i < s->words.n; i++) {
        TESS_TRY(cut_space(s, s->words.words[i], false));
    }
    return TESS_OK;
}

tess_status tess__split_bert(const tess__step *step, tess__pipe_scratch *s)
{
    (void)step;
    for (size_t i = 0; i < s->words.n; i++) {
        TESS_TRY(cut_space(s, s->words.words[i], true));
    }
    return TESS_OK;
}

/* ---- strings ---------------------------------------------------------------------------- */

static bool has_at(const tess__span_buf *b, size_t at, size_t end, tess_bytes text)
{
    return end - at >= text.n_bytes && memcmp(b->data + at, text.data, text.n_bytes) == 0;
}

/* Split(pattern, MergedWithPrevious): a match ends the word before it; a match behind a match is a
 * word of its own. */
tess_status tess__split_merged_with_previous(const tess__step *step, tess__pipe_scratch *s)
{
    for (size_t i = 0; i < s->words.n; i++) {
        tess__word w = s->words.words[i];
        size_t start = w.pos, end = w.pos + (size_t)w.n_bytes;
        for (size_t at = start; at < end;) {
            if (!has_at(&s->in, at, end, step->from)) {
                at++;
                continue;
            }
            at += step->from.n_bytes;
            TESS_TRY(tess__words_add(&s->cut, start, at - start, w.first && start == w.pos));
            start = at;
        }
        TESS_TRY(tess__words_add(&s->cut, start, end - start, w.first && start == w.pos));
    }
    return TESS_OK;
}

/* `from` is the replacement character.  Spaces become it, one is put before the word as the scheme
 * says, and (with SPLIT) every one begins a word. */
static tess_status metaspace_word(const tess__step *step, tess__pipe_scratch *s, tess__word w)
{
    size_t start = s->out.n_bytes;
    bool begins = s->in.data[w.pos] == ' ' || has_at(&s->in, w.pos, w.pos + w.n_bytes, step->from);
    bool prepend = (step->flags & TESS__METASPACE_ALWAYS) != 0 ||
                   ((step->flags & TESS__METASPACE_FIRST) != 0 && w.first);
    if (prepend && !begins) {
        TESS_TRY(tess__span_put(&s->out, step->from.data, step->from.n_bytes));
    }
    for (size_t i = w.pos; i < w.pos + (size_t)w.n_bytes;) {
        const char *space = memchr(s->in.data + i, ' ', w.pos + w.n_bytes - i);
        size_t stop = space != NULL ? (size_t)(space - s->in.data) : w.pos + (size_t)w.n_bytes;
        TESS_TRY(tess__span_put(&s->out, s->in.data + i, stop - i));
        if (space != NULL) {
            TESS_TRY(tess__span_put(&s->out, step->from.data, step->from.n_bytes));
        }
        i = stop + 1;
    }
    size_t from = start, end = s->out.n_bytes;
    for (size_t at = start; (step->flags & TESS__METASPACE_SPLIT) != 0 && at < end; at++) {
        if (at > from && has_at(&s->out, at, end, step->from)) {
            TESS_TRY(tess__words_add(&s->cut, from, at - from, w.first && from == start));
            from = at;
        }
    }
    return tess__words_add(&s->cut, from, end - from, w.first && from == start);
}

tess_status tess__split_metaspace(const tess__step *step, tess__pipe_scratch *s)
{
    for (size_t i = 0; i < s->words.n; i++) {
        TESS_TRY(metaspace_word(step, s, s->words.words[i]));
    }
    return TESS_OK;
}

/* `from` before the word that begins the text, and before no other. */
tess_status tess__split_prefix_first(const tess__step *step, tess__pipe_scratch *s)
{
    for (size_t i = 0; i < s->words.n; i++) {
        tess__word w = s->words.words[i];
        size_t start = s->out.n_bytes;
        TESS_TRY(tess__span_put(&s->out, step->from.data, w.first ? step->from.n_bytes : 0));
        TESS_TRY(tess__span_put(&s->out, s->in.data + w.pos, w.n_bytes));
        TESS_TRY(tess__words_add(&s->cut, start, s->out.n_bytes - start, w.first));
    }
    return TESS_OK;
}

/* ---- regular expressions ---------------------------------------------------------------- */

typedef enum sort { OTHER, LETTER, NUMBER, SPACE } sort;

static sort sort_of(uint32_t c, bool open_clip)
{
    if (c < 0x80) {
        bool letter = (c | 32) >= 'a' && (c | 32) <= 'z';
        bool space = c == ' ' || (c >= 9 && c <= 13);
        return letter ? LETTER : c >= '0' && c <= '9' ? NUMBER : space ? SPACE : OTHER;
    }
    if (tess__char_is(open_clip ? TESS__CHAR_CLIP_LETTER : TESS__CHAR_LETTER, c)) {
        return LETTER;
    }
    if (tess__char_is(open_clip ? TESS__CHAR_CLIP_NUMBER : TESS__CHAR_NUMBER, c)) {
        return NUMBER;
    }
    bool space = tess__char_is(open_clip ? TESS__CHAR_CLIP_DROPPED : TESS__CHAR_SPACE, c);
    return space ? SPACE : OTHER;
}

/* The end of the run of this sort that begins at `at`. */
static size_t run_end(const char *in, size_t at, size_t end, sort want, bool open_clip)
{
    size_t used;
    while (at < end && sort_of(tess__char_at(in + at, end - at, &used), open_clip) == want) {
        at += used;
    }
    return at;
}

/* Bytes of 's 't 're 've 'm 'll 'd at s, 0 when none is there.  OpenCLIP's pattern ignores case,
 * and there U+017F is an s. */
static size_t contraction(const char *s, size_t n, bool open_clip)
{
    static const char *const tails[] = {"s", "t", "re", "ve", "m", "ll", "d"};
    if (*s != '\'') {
        return 0;
    }
    for (int64_t i = 0; i < TESS_COUNT(tails); i++) {
        size_t k = strlen(tails[i]);
        if (n > k &&
            (open_clip ? strncasecmp(s + 1, tails[i], k) : memcmp(s + 1, tails[i], k)) == 0) {
            return k + 1;
        }
    }
    return open_clip && n > 2 && memcmp(s + 1, "\xc5\xbf", 2) == 0 ? 3 : 0;
}

static size_t clip_special(const char *s, size_t n, unsigned flags)
{
    static const char *const names[2][2] = {{"<|startoftext|>", "<|endoftext|>"},
                                            {"<start_of_text>", "<end_of_text>"}};
    bool open_clip = (flags & TESS__CLIP_OPEN) != 0;
    if (*s != '<' || (flags & TESS__CLIP_SPECIALS) == 0) {
        return 0;
    }
    for (int i = 0; i < 2; i++) {
        const char *name = names[open_clip][i];
        size_t k = strlen(name);
        if (n >= k && (open_clip ? strncasecmp(s, name, k) : memcmp(s, name, k)) == 0) {
            return k;
        }
    }
    return 0;
}

/* CLIP: <special>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+, the matches kept. */
tess_status tess__split_clip(const tess__step *step, tess__pipe_scratch *s)
{
    bool open_clip = (step->flags & TESS__CLIP_OPEN) != 0;
    const char *in = s->in.data;
    for (size_t i = 0; i < s->words.n; i++) {
        tess__word w = s->words.words[i];
        size_t end = w.pos + (size_t)w.n_bytes, used;
        for (size_t at = w.pos; at < end; at += used) {
            used = clip_special(in + at, end - at, step->flags);
            used = used > 0 ? used : contraction(in + at, end - at, open_clip);
            if (used == 0) {
                sort k = sort_of(tess__char_at(in + at, end - at, &used), open_clip);
                if (k == LETTER || k == OTHER) {
                    used = run_end(in, at, end, k, open_clip) - at;
                } else if (k == SPACE) {
                    continue;
                }
            }
            TESS_TRY(tess__words_add(&s->cut, at, used, w.first && at == w.pos));
        }
    }
    return TESS_OK;
}

/* GPT-2: contractions, then runs of letters, of numbers, of others, each with one space before it;
 * white space without its last character where a word follows, else all of it. */
static size_t gpt2_end(const char *in, size_t at, size_t end)
{
    size_t used = contraction(in + at, end - at, false);
    if (used > 0) {
        return at + used;
    }
    size_t word = in[at] == ' ' && at + 1 < end ? at + 1 : at;
    sort k = sort_of(tess__char_at(in + word, end - word, &used), false);
    if (k != SPACE) {
        return run_end(in, word, end, k, false);
    }
    size_t stop = run_end(in, at, end, SPACE, false), last;
    if (stop < end) {
        (void)tess__char_before(in, stop, &last);
        stop = last > at ? last : stop;
    }
    return stop;
}

/* Bytes that print stand for themselves, the others for U+0100 onwards, in order. */
static uint32_t letter_of_byte(uint8_t b)
{
    bool prints = (b >= 33 && b <= 126) || (b >= 161 && b != 173);
    if (prints) {
        return b;
    }
    return 256U + (b < 33 ? b : b < 161 ? 33U + (b - 127U) : 67U);
}

static tess_status put_bytes(tess__pipe_scratch *s, size_t from, size_t to, bool first)
{
    size_t start = s->out.n_bytes;
    TESS_TRY(tess__span_reserve(&s->out, (to - from) * 2));
    for (size_t i = from; i < to; i++) {
        s->out.n_bytes +=
            tess__char_put(letter_of_byte((uint8_t)s->in.data[i]), s->out.data + s->out.n_bytes);
    }
    return tess__words_add(&s->cut, start, s->out.n_bytes - start, first);
}

/* The words of `in` with a space before each that has none; becomes `in`. */
static tess_status prefix_spaces(tess__pipe_scratch *s)
{
    for (size_t i = 0; i < s->words.n; i++) {
        tess__word *w = &s->words.words[i];
        size_t start = s->out.n_bytes;
        if (s->in.data[w->pos] != ' ') {
            TESS_TRY(tess__span_put(&s->out, " ", 1));
        }
        TESS_TRY(tess__span_put(&s->out, s->in.data + w->pos, w->n_bytes));
        *w = (tess__word){(uint32_t)start, (uint32_t)(s->out.n_bytes - start), w->first};
    }
    tess__span_buf in = s->in;
    s->in = s->out;
    s->out = in;
    s->out.n_bytes = 0;
    return TESS_OK;
}

tess_status tess__split_bytes(const tess__step *step, tess__pipe_scratch *s)
{
    if ((step->flags & TESS__BYTES_PREFIX) != 0) {
        TESS_TRY(prefix_spaces(s));
    }
    for (size_t i = 0; i < s->words.n; i++) {
        tess__word w = s->words.words[i];
        size_t end = w.pos + (size_t)w.n_bytes;
        for (size_t at = w.pos, stop; at < end; at = stop) {
            stop = (step->flags & TESS__BYTES_REGEX) != 0 ? gpt2_end(s->in.data, at, end) : end;
            TESS_TRY(put_bytes(s, at, stop, w.first && at == w.pos));
        }
    }
    return TESS_OK;
}
