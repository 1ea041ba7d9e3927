/* SPDX-License-Identifier: Apache-2.0 */
/* Running a tokenizer that is a list of steps, and its housekeeping.
 *
 * A part is normalised and cut as a whole, then its words go to the model until the ids are full.
 * Two buffers take turns as input and output of the steps, two lists as words before and after, so
 * a warm scratch encodes without allocation. */
#include "text/pipe.h"
#include "base/utf8.h"
#include "text/char_class.h"
#include "text/scratch.h"

#include <string.h>

#define MAX_TEXT_BYTES ((size_t)16 << 20)

/* ---- growing ---------------------------------------------------------------------------- */

tess_status tess__span_reserve(tess__span_buf *b, size_t n)
{
    if (n > TESS__NORMAL_MAX || b->n_bytes > TESS__NORMAL_MAX - n) {
        return TESS_FAIL(TESS_INVALID, "the text is longer than %zu bytes once normalised",
                         TESS__NORMAL_MAX);
    }
    return b->n_bytes + n <= b->cap_bytes ? TESS_OK
                                          : tess_grow(&b->data, &b->cap_bytes, b->n_bytes + n, 1);
}

tess_status tess__span_put(tess__span_buf *b, const void *data, size_t n)
{
    TESS_TRY(tess__span_reserve(b, n));
    if (n > 0) {
        memcpy(b->data + b->n_bytes, data, n);
        b->n_bytes += n;
    }
    return TESS_OK;
}

tess_status tess__words_add(tess__words *w, size_t pos, size_t n_bytes, bool first)
{
    if (n_bytes == 0) {
        return TESS_OK;
    }
    if (w->n == w->cap) {
        TESS_TRY(tess_grow(&w->words, &w->cap, w->n + 16, sizeof(*w->words)));
    }
    w->words[w->n++] = (tess__word){(uint32_t)pos, (uint32_t)n_bytes, first};
    return TESS_OK;
}

void tess__pipe_scratch_deinit(tess__pipe_scratch *s)
{
    tess_free(s->text.data);
    tess_free(s->in.data);
    tess_free(s->out.data);
    tess_free(s->temp.data);
    tess_free(s->before.data);
    tess_free(s->tail.data);
    tess_free(s->points);
    tess_free(s->run);
    tess_free(s->words.words);
    tess_free(s->cut.words);
    tess_free(s->symbols);
    tess_free(s->heap);
    tess_free(s->nodes);
    tess_free(s->ends);
}

/* ---- one part --------------------------------------------------------------------------- */

static void swap_text(tess__pipe_scratch *s)
{
    tess__span_buf t = s->in;
    s->in = s->out;
    s->out = t;
}

static tess_status normalise(const tess__pipe *p, tess__pipe_scratch *s, const char *text, size_t n)
{
    s->in.n_bytes = 0;
    TESS_TRY(tess__span_put(&s->in, text, n));
    for (size_t i = 0; i < p->n_normal; i++) {
        s->out.n_bytes = 0;
        TESS_TRY(p->normal[i].run(&p->normal[i], s));
        swap_text(s);
    }
    return TESS_OK;
}

/* The bytes [from, to) of the normalised part: cut into words, looked up. */
static tess_status encode_stretch(const tess__pipe *p, tess__run *r, size_t from, size_t to,
                                  bool first)
{
    tess__pipe_scratch *s = &r->s->pipe;
    s->words.n = 0;
    TESS_TRY(tess__words_add(&s->words, from, to - from, first));
    for (size_t i = 0; i < p->n_split; i++) {
        s->cut.n = 0;
        s->out.n_bytes = 0;
        TESS_TRY(p->split[i].run(&p->split[i], s));
        tess__words before = s->words;
        s->words = s->cut;
        s->cut = before;
        if (s->out.n_bytes > 0) { /* a step that wrote text */
            swap_text(s);
        }
    }
    for (size_t i = 0; i < s->words.n && !r->full; i++) {
        TESS_TRY(p->encode(p, r, s->in.data + s->words.words[i].pos, s->words.words[i].n_bytes));
    }
    return TESS_OK;
}

/* Pre-tokenizers may rewrite `in`, so stretches between added tokens are cut out beforehand. */
static tess_status encode_around_added(const tess__pipe *p, tess__run *r, bool first)
{
    tess__pipe_scratch *s = &r->s->pipe;
    tess__span_buf whole = s->in;
    tess_status st = TESS_OK;
    s->in = (tess__span_buf){0};
    for (size_t at = 0; at < whole.n_bytes && st == TESS_OK && !r->full;) {
        size_t start, end;
        int k = tess__added_next(p, true, whole.data, whole.n_bytes, at, &start, &end);
        s->in.n_bytes = 0;
        st = tess__span_put(&s->in, whole.data + at, start - at);
        if (st == TESS_OK && start > at) {
            st = encode_stretch(p, r, 0, start - at, first && at == 0);
        }
        if (st == TESS_OK && k >= 0) {
            tess__run_add(r, p->added[k].id);
        }
        at = end;
    }
    tess_free(s->in.data);
    s->in = whole;
    return st;
}

static tess_status encode_part(const tess__pipe *p, tess__run *r, const char *text, size_t n,
                               bool first)
{
    tess__pipe_scratch *s = &r->s->pipe;
    TESS_TRY(normalise(p, s, text, n));
    if (s->in.n_bytes == 0) {
        return TESS_OK;
    }
    size_t start, end;
    if (tess__added_next(p, true, s->in.data, s->in.n_bytes, 0, &start, &end) >= 0) {
        return encode_around_added(p, r, first);
    }
    return encode_stretch(p, r, 0, s->in.n_bytes, first);
}

/* Ill-formed sequences become U+FFFD, a maximal subpart at a time. */
static tess_status repair(tess__pipe_scratch *s, const char **text, size_t *n)
{
    if (tess_utf8_valid(*text, *n, false)) {
        return TESS_OK;
    }
    const uint8_t *from = (const uint8_t *)*text;
    s->text.n_bytes = 0;
    for (size_t i = 0; i < *n;) {
        bool valid;
        size_t used = tess__utf8_step(from + i, *n - i, &valid);
        TESS_TRY(valid ? tess__span_put(&s->text, from + i, used)
                       : tess__span_put(&s->text, "\xef\xbf\xbd", 3));
        i += used;
    }
    *text = s->text.data;
    *n = s->text.n_bytes;
    return TESS_OK;
}

tess_status tess__pipe_encode(const tess__pipe *p, tess__run *r, const char *text, size_t n)
{
    tess__pipe_scratch *s = &r->s->pipe;
    TESS_TRY(repair(s, &text, &n));
    if (p->clean != TESS_CLIP_CLEAN_NONE) {
        s->in.n_bytes = 0;
        TESS_TRY(tess__span_put(&s->in, text, n));
        TESS_TRY(tess__clip_clean_run(p->clean, s));
        tess__span_buf cleaned = s->in;
        s->in = s->text;
        s->text = cleaned;
        text = cleaned.data;
        n = cleaned.n_bytes;
    }
    for (size_t at = 0; at < n && !r->full;) {
        size_t start, end;
        int k = tess__added_next(p, false, text, n, at, &start, &end);
        if (start > at) {
            TESS_TRY(encode_part(p, r, text + at, start - at, at == 0));
        }
        if (k >= 0) {
            tess__run_add(r, p->added[k].id);
        }
        at = end;
    }
    return TESS_OK;
}

/* ---- making and freeing ----------------------------------------------------------------- */

tess__pipe *tess__pipe_new(void)
{
    tess__pipe *p = tess_alloc(sizeof(*p));
    if (p != NULL) {
        p->unk_id = -1;
        p->max_word_chars = 100;
        p->whole_from = INT32_MAX;
        memset(p->byte_ids, 0xff, sizeof(p->byte_ids));
    }
    return p;
}

void tess__pipe_free(void *self)
{
    tess__pipe *p = self;
    if (p == NULL) {
        return;
    }
    tess_free(p->added);
    tess__trie_deinit(&p->added_raw);
    tess__trie_deinit(&p->added_normal);
    tess__vocab_deinit(&p->vocab);
    tess__pairs_deinit(&p->pairs);
    tess_free(p->scores);
    tess__spm_deinit(&p->spm);
    tess__spm_norm_deinit(&p->charsmap);
    tess_arena_deinit(&p->arena);
    tess_free(p);
}

static tess__step *add_step(tess__step *steps, size_t *n, tess__step_fn *run, const char *type)
{
    if (*n == TESS__MAX_STEPS) {
        (void)TESS_FAIL(TESS_UNSUPPORTED, "more than %d steps of one sort", TESS__MAX_STEPS);
        return NULL;
    }
    tess__step *step = &steps[(*n)++];
    *step = (tess__step){.run = run, .type = type};
    return step;
}

tess__step *tess__pipe_add_normal(tess__pipe *p, tess__step_fn *run, const char *type)
{
    return add_step(p->normal, &p->n_normal, run, type);
}

tess__step *tess__pipe_add_split(tess__pipe *p, tess__step_fn *run, const char *type)
{
    return add_step(p->split, &p->n_split, run, type);
}

tess_bytes tess__pipe_copy(tess__pipe *p, const char *text, size_t n_bytes)
{
    char *copy = tess_arena_strndup(&p->arena, text, n_bytes);
    return (tess_bytes){(const uint8_t *)copy, copy != NULL ? n_bytes : 0};
}

tess_status tess__pipe_add_token(tess__pipe *p, tess__added token)
{
    if (p->n_added == p->cap_added) {
        TESS_TRY(tess_grow(&p->added, &p->cap_added, p->n_added + 8, sizeof(*p->added)));
    }
    p->added[p->n_added++] = token;
    return TESS_OK;
}

/* ---- as a kind of tokenizer ------------------------------------------------------------- */

int32_t tess__pipe_find(const tess__pipe *p, const char *piece, size_t n_bytes)
{
    for (size_t i = 0; i < p->n_added; i++) {
        const tess__added *a = &p->added[i];
        if (a->text.n_bytes == n_bytes && memcmp(a->text.data, piece, n_bytes) == 0) {
            return a->id;
        }
    }
    if (tess__pipe_is_spm(p)) {
        return tess__spm_find(&p->spm, piece, n_bytes);
    }
    return tess__vocab_find(&p->vocab, piece, n_bytes);
}

static int32_t find(const void *self, const char *piece, size_t n_bytes)
{
    return tess__pipe_find(self, piece, n_bytes);
}

static tess_bytes piece_of(const void *self, int32_t id)
{
    const tess__pipe *p = self;
    if (tess__pipe_is_spm(p)) {
        const tess__piece *piece = &p->spm.model.pieces[id];
        return (tess_bytes){(const uint8_t *)piece->text, piece->n_bytes};
    }
    if ((size_t)id < p->vocab.n && p->vocab.pieces[id].data != NULL) {
        return p->vocab.pieces[id];
    }
    for (size_t i = 0; i < p->n_added; i++) {
        if (p->added[i].id == id) {
            return p->added[i].text;
        }
    }
    return (tess_bytes){0};
}

static tess_status encode(const void *self, tess__run *r, const char *text, size_t n_bytes)
{
    return tess__pipe_encode(self, r, text, n_bytes);
}

const tess__tokenizer_kind tess__pipe_kind = {
    tess__pipe_free, encode, tess__pipe_decode, piece_of, find, MAX_TEXT_BYTES,
};
