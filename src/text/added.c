/* SPDX-License-Identifier: Apache-2.0 */
/* Added tokens: texts that become one id wherever they stand, before (or, with `normalized`, after)
 * normalisation.  The leftmost match counts, of those the longest; lstrip and rstrip take the white
 * space beside it along; a single_word token that touches a word character is passed over. */
#include "text/char_class.h"
#include "text/pipe.h"

static bool is_word_char(uint32_t c)
{
    return c == '_' || tess__char_is(TESS__CHAR_LETTER, c) || tess__char_is(TESS__CHAR_NUMBER, c) ||
           tess__char_is(TESS__CHAR_MARK, c);
}

static bool touches_word(const char *s, size_t n, size_t start, size_t end)
{
    size_t other;
    return (start > 0 && is_word_char(tess__char_before(s, start, &other))) ||
           (end < n && is_word_char(tess__char_at(s + end, n - end, &other)));
}

static size_t widen_left(const char *s, size_t from, size_t start)
{
    size_t before;
    while (start > from && tess__char_is(TESS__CHAR_SPACE, tess__char_before(s, start, &before))) {
        start = before;
    }
    return start < from ? from : start;
}

static size_t widen_right(const char *s, size_t n, size_t end)
{
    size_t used;
    while (end < n && tess__char_is(TESS__CHAR_SPACE, tess__char_at(s + end, n - end, &used))) {
        end += used;
    }
    return end;
}

/* The place in `added` of the longest token at s, or -1. */
static int longest_at(const tess__trie *t, const char *s, size_t n, size_t *out_bytes)
{
    int found = -1;
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        node = tess__trie_step(t, node, (uint8_t)s[i]);
        if (node == 0) {
            break;
        }
        if (t->units[node].value >= 0) {
            found = t->units[node].value;
            *out_bytes = i + 1;
        }
    }
    return found;
}

int tess__added_next(const tess__pipe *p, bool normalized, const char *s, size_t n, size_t from,
                     size_t *out_start, size_t *out_end)
{
    const tess__trie *t = normalized ? &p->added_normal : &p->added_raw;
    const bool *first = normalized ? p->added_normal_first : p->added_raw_first;
    for (size_t at = from; t->units != NULL && at < n;) {
        size_t n_match = 1;
        int k = first[(uint8_t)s[at]] ? longest_at(t, s + at, n - at, &n_match) : -1;
        if (k >= 0 && !(p->added[k].single_word && touches_word(s, n, at, at + n_match))) {
            *out_start = p->added[k].lstrip ? widen_left(s, from, at) : at;
            *out_end = p->added[k].rstrip ? widen_right(s, n, at + n_match) : at + n_match;
            return k;
        }
        at += n_match;
    }
    *out_start = *out_end = n;
    return -1;
}

static tess_status build(tess__pipe *p, bool normalized, const tess_bytes *texts, tess__trie *out,
                         bool *first)
{
    tess__trie_key *keys = tess_alloc_array(p->n_added, sizeof(*keys));
    if (keys == NULL) {
        return TESS_NOMEM;
    }
    size_t n = 0;
    for (size_t i = 0; i < p->n_added; i++) {
        if (p->added[i].normalized == normalized && texts[i].n_bytes > 0) {
            keys[n++] = (tess__trie_key){(const char *)texts[i].data, (uint32_t)texts[i].n_bytes,
                                         (int32_t)i};
            first[texts[i].data[0]] = true;
        }
    }
    tess_status st = tess__trie_build(out, keys, n);
    tess_free(keys);
    return st != TESS_OK ? tess_error_prefix(st, "added_tokens") : TESS_OK;
}

/* A token matched in normalised text is normalised itself. */
static tess_status normalise(tess__pipe *p, const tess__added *a, tess__pipe_scratch *s,
                             tess_bytes *out)
{
    s->in.n_bytes = 0;
    TESS_TRY(tess__span_put(&s->in, a->text.data, a->text.n_bytes));
    for (size_t i = 0; i < p->n_normal; i++) {
        s->out.n_bytes = 0;
        TESS_TRY(p->normal[i].run(&p->normal[i], s));
        tess__span_buf in = s->in;
        s->in = s->out;
        s->out = in;
    }
    *out = tess__pipe_copy(p, s->in.data != NULL ? s->in.data : "", s->in.n_bytes);
    return out->data != NULL ? TESS_OK : TESS_NOMEM;
}

tess_status tess__added_build(tess__pipe *p)
{
    if (p->n_added == 0) {
        return TESS_OK;
    }
    tess_bytes *texts = tess_alloc_array(p->n_added, sizeof(*texts));
    tess__pipe_scratch s = {0};
    tess_status st = texts != NULL ? TESS_OK : TESS_NOMEM;
    for (size_t i = 0; st == TESS_OK && i < p->n_added; i++) {
        texts[i] = p->added[i].text;
        if (p->added[i].normalized) {
            st = normalise(p, &p->added[i], &s, &texts[i]);
        }
    }
    st = st ? st : build(p, false, texts, &p->added_raw, p->added_raw_first);
    st = st ? st : build(p, true, texts, &p->added_normal, p->added_normal_first);
    tess__pipe_scratch_deinit(&s);
    tess_free(texts);
    return st;
}
