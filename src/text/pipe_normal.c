/* SPDX-License-Identifier: Apache-2.0 */
/* Normalisers, each as Hugging Face's `tokenizers` of the same name does it: `in` to `out`.
 *
 * Text that is plain ASCII takes short ways; for the rest a step walks over code points. */
#include "text/char_class.h"
#include "text/normalize.h"
#include "text/pipe.h"

#include <stdlib.h>
#include <string.h>

static bool is_ascii(const tess__span_buf *b)
{
    for (size_t i = 0; i < b->n_bytes; i++) {
        if ((uint8_t)b->data[i] >= 0x80) {
            return false;
        }
    }
    return true;
}

static tess_status copy(tess__pipe_scratch *s)
{
    return tess__span_put(&s->out, s->in.data, s->in.n_bytes);
}

static void put_char(tess__span_buf *b, uint32_t c)
{
    b->n_bytes += tess__char_put(c, b->data + b->n_bytes);
}

static int compare_lower(const void *key, const void *row)
{
    uint32_t a = *(const uint32_t *)key, b = ((const tess__char_range *)row)->first;
    return (a > b) - (a < b);
}

/* Rust's char::to_lowercase. */
static void put_lower(tess__span_buf *b, uint32_t c)
{
    if (c < 0x80) {
        b->data[b->n_bytes++] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
        return;
    }
    const tess__char_range *other = bsearch(&c, tess__lower_exceptions, tess__n_lower_exceptions,
                                            sizeof(*tess__lower_exceptions), compare_lower);
    uint32_t low[2];
    int n = tess__lower_of(c, low);
    if (other != NULL) {
        low[0] = other->last;
    }
    for (int i = 0; i < n; i++) {
        put_char(b, low[i]);
    }
}

/* ---- one character at a time ------------------------------------------------------------ */

typedef void char_fn(const tess__step *step, tess__span_buf *out, uint32_t c);

/* Every character through `put`, which writes at most 8 bytes. */
static tess_status each_char(const tess__step *step, tess__pipe_scratch *s, char_fn *put)
{
    for (size_t i = 0, used; i < s->in.n_bytes; i += used) {
        uint32_t c = tess__char_at(s->in.data + i, s->in.n_bytes - i, &used);
        if (s->out.n_bytes + 8 > s->out.cap_bytes) {
            TESS_TRY(tess__span_reserve(&s->out, (s->in.n_bytes - i) * 2 + 8));
        }
        put(step, &s->out, c);
    }
    return TESS_OK;
}

static void lower_char(const tess__step *step, tess__span_buf *out, uint32_t c)
{
    (void)step;
    put_lower(out, c);
}

tess_status tess__normal_lower(const tess__step *step, tess__pipe_scratch *s)
{
    return each_char(step, s, lower_char);
}

static void unmarked_char(const tess__step *step, tess__span_buf *out, uint32_t c)
{
    (void)step;
    if (c < 0x80 || !tess__char_is(TESS__CHAR_MARK, c)) {
        put_char(out, c);
    }
}

tess_status tess__normal_strip_accents(const tess__step *step, tess__pipe_scratch *s)
{
    return each_char(step, s, unmarked_char);
}

/* ---- BERT ------------------------------------------------------------------------------- */

static bool is_cjk(uint32_t c)
{
    static const tess__char_range ranges[] = {
        {0x3400, 0x4dbf},   {0x4e00, 0x9fff},   {0xf900, 0xfaff},   {0x20000, 0x2a6df},
        {0x2a700, 0x2b81f}, {0x2b920, 0x2ceaf}, {0x2f800, 0x2fa1f},
    };
    for (int64_t i = 0; i < TESS_COUNT(ranges); i++) {
        if (c >= ranges[i].first && c <= ranges[i].last) {
            return true;
        }
    }
    return false;
}

static void clean_char(const tess__step *step, tess__span_buf *out, uint32_t c)
{
    if ((step->flags & TESS__BERT_CLEAN) != 0) {
        if (tess__char_is(TESS__CHAR_BERT_CONTROL, c)) {
            return;
        }
        c = tess__char_is(TESS__CHAR_SPACE, c) ? ' ' : c;
    }
    if ((step->flags & TESS__BERT_CHINESE) != 0 && is_cjk(c)) {
        out->data[out->n_bytes++] = ' ';
        put_char(out, c);
        out->data[out->n_bytes++] = ' ';
        return;
    }
    put_char(out, c);
}

static void finish_char(const tess__step *step, tess__span_buf *out, uint32_t c)
{
    if (c >= 0x80 && (step->flags & TESS__BERT_STRIP) != 0 &&
        tess__char_is(TESS__CHAR_BERT_MARK, c)) {
        return;
    }
    if ((step->flags & TESS__BERT_LOWER) != 0) {
        put_lower(out, c);
    } else {
        put_char(out, c);
    }
}

/* The whole of it for ASCII, where accents and ideographs do not occur. */
static tess_status bert_ascii(const tess__step *step, tess__pipe_scratch *s)
{
    bool clean = (step->flags & TESS__BERT_CLEAN) != 0;
    bool lower = (step->flags & TESS__BERT_LOWER) != 0;
    TESS_TRY(tess__span_reserve(&s->out, s->in.n_bytes));
    char *to = s->out.data;
    for (size_t i = 0; i < s->in.n_bytes; i++) {
        char c = s->in.data[i];
        if (clean && (c < ' ' || c == 0x7f)) {
            if (c != '\t' && c != '\n' && c != '\r') {
                continue;
            }
            c = ' ';
        }
        *to++ = (char)(lower && c >= 'A' && c <= 'Z' ? c + 32 : c);
    }
    s->out.n_bytes = (size_t)(to - s->out.data);
    return TESS_OK;
}

static void swap(tess__pipe_scratch *s)
{
    tess__span_buf in = s->in;
    s->in = s->out;
    s->out = in;
    s->out.n_bytes = 0;
}

tess_status tess__normal_bert(const tess__step *step, tess__pipe_scratch *s)
{
    if (is_ascii(&s->in)) {
        return bert_ascii(step, s);
    }
    TESS_TRY(each_char(step, s, clean_char));
    swap(s);
    if ((step->flags & TESS__BERT_STRIP) != 0) {
        TESS_TRY(tess__normal_form(s, false, false));
        swap(s);
    }
    return each_char(step, s, finish_char);
}

/* ---- normal forms ----------------------------------------------------------------------- */

tess_status tess__normal_nfc(const tess__step *step, tess__pipe_scratch *s)
{
    (void)step;
    return is_ascii(&s->in) ? copy(s) : tess__normal_form(s, true, false);
}

tess_status tess__normal_nfd(const tess__step *step, tess__pipe_scratch *s)
{
    (void)step;
    return is_ascii(&s->in) ? copy(s) : tess__normal_form(s, false, false);
}

tess_status tess__normal_nfkc(const tess__step *step, tess__pipe_scratch *s)
{
    (void)step;
    return is_ascii(&s->in) ? copy(s) : tess__normal_form(s, true, true);
}

tess_status tess__normal_nfkd(const tess__step *step, tess__pipe_scratch *s)
{
    (void)step;
    return is_ascii(&s->in) ? copy(s) : tess__normal_form(s, false, true);
}

/* ---- strings ---------------------------------------------------------------------------- */

tess_status tess__normal_strip(const tess__step *step, tess__pipe_scratch *s)
{
    size_t start = 0, end = s->in.n_bytes, used;
    while ((step->flags & TESS__STRIP_LEFT) != 0 && start < end &&
           tess__char_is(TESS__CHAR_SPACE, tess__char_at(s->in.data + start, end - start, &used))) {
        start += used;
    }
    while ((step->flags & TESS__STRIP_RIGHT) != 0 && start < end &&
           tess__char_is(TESS__CHAR_SPACE, tess__char_before(s->in.data, end, &used))) {
        end = used;
    }
    return tess__span_put(&s->out, s->in.data + start, end - start);
}

tess_status tess__normal_prepend(const tess__step *step, tess__pipe_scratch *s)
{
    if (s->in.n_bytes > 0) {
        TESS_TRY(tess__span_put(&s->out, step->to.data, step->to.n_bytes));
    }
    return copy(s);
}

tess_status tess__normal_replace(const tess__step *step, tess__pipe_scratch *s)
{
    const char *in = s->in.data;
    size_t n = s->in.n_bytes, from = 0;
    while (from < n) {
        const char *at = memmem(in + from, n - from, step->from.data, step->from.n_bytes);
        size_t stop = at != NULL ? (size_t)(at - in) : n;
        TESS_TRY(tess__span_put(&s->out, in + from, stop - from));
        if (at == NULL) {
            break;
        }
        TESS_TRY(tess__span_put(&s->out, step->to.data, step->to.n_bytes));
        from = stop + step->from.n_bytes;
    }
    return TESS_OK;
}

/* Every run of at least `flags` white space characters (or, with `from`, of that string). */
tess_status tess__normal_replace_spaces(const tess__step *step, tess__pipe_scratch *s)
{
    const char *in = s->in.data;
    size_t n = s->in.n_bytes, used;
    for (size_t i = 0; i < n;) {
        size_t end = i, n_run = 0;
        while (end < n) {
            uint32_t c = tess__char_at(in + end, n - end, &used);
            bool hit = step->from.n_bytes > 0 ? c == ' ' : tess__char_is(TESS__CHAR_SPACE, c);
            if (!hit) {
                break;
            }
            end += used;
            n_run++;
        }
        if (n_run >= step->flags) {
            TESS_TRY(tess__span_put(&s->out, step->to.data, step->to.n_bytes));
        } else {
            end += n_run == 0 ? used : 0;
            TESS_TRY(tess__span_put(&s->out, in + i, end - i));
        }
        i = end;
    }
    return TESS_OK;
}

/* ---- SentencePiece's map ---------------------------------------------------------------- */

static tess_status put_mapped(const tess__step *step, tess__pipe_scratch *s, size_t from, size_t to)
{
    const char *text;
    size_t n_text;
    for (size_t i = from, used; i < to; i += used) {
        (void)tess__char_at(s->in.data + i, to - i, &used);
        if (tess__spm_norm_first(step->charsmap, s->in.data + i, used, &text, &n_text)) {
            TESS_TRY(tess__span_put(&s->out, text, n_text));
        } else {
            TESS_TRY(tess__span_put(&s->out, s->in.data + i, used));
        }
    }
    return TESS_OK;
}

/* `tokenizers` asks the map cluster by cluster, for clusters under 6 bytes as a whole first, and
 * takes the shortest rule; SentencePiece itself takes the longest anywhere. */
tess_status tess__normal_precompiled(const tess__step *step, tess__pipe_scratch *s)
{
    const char *in = s->in.data, *text;
    size_t n = s->in.n_bytes, n_text;
    for (size_t i = 0, end; i < n; i = end) {
        size_t used;
        int32_t state = 0;
        uint32_t c = tess__char_at(in + i, n - i, &used);
        end = i + used;
        while (end < n) {
            uint32_t next = tess__char_at(in + end, n - end, &used);
            bool plain = c < 0x80 && next < 0x80 && !(c == '\r' && next == '\n');
            if (plain || tess__grapheme_breaks(c, next, &state)) {
                break;
            }
            end += used;
            c = next;
        }
        if (end - i < 6 && tess__spm_norm_first(step->charsmap, in + i, end - i, &text, &n_text)) {
            TESS_TRY(tess__span_put(&s->out, text, n_text));
        } else {
            TESS_TRY(put_mapped(step, s, i, end));
        }
    }
    return TESS_OK;
}
