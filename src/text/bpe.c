/* SPDX-License-Identifier: Apache-2.0 */
/* Byte pair encoding as SentencePiece does it: begin with characters (and user-defined symbols,
 * which never merge), and keep joining the neighbours whose join is the best-scored piece, the
 * leftmost of equals, until no join is a piece (Sennrich et al., ACL 2016, with scores for merge
 * ranks).
 *
 * A symbol remembers where its text ends in the trie of pieces, so whether "left + right" is a
 * piece is asked by walking on over the right part only; no strings are hashed.  Pairs wait in a
 * binary heap; stale ones are recognised by their length.  Where no piece crosses a space, words
 * cannot influence each other and are done one at a time, in heaps of a dozen pairs.
 *
 * UNUSED pieces may be stepped through but not given out: such a result is taken apart again into
 * the halves it was last made of. */
#include "text/heap.h"
#include "text/scratch.h"

#include <string.h>

static bool before(const tess__merge *a, const tess__merge *b)
{
    return a->score > b->score || (a->score == b->score && a->left < b->left);
}

TESS__HEAP(tess__merge, before)

/* Cuts the text into the first symbols; returns how many. */
static size_t cut(const tess__spm *t, tess__symbol *symbols, const char *text, size_t n)
{
    int32_t k = 0;
    for (size_t pos = 0; pos < n; k++) {
        size_t bytes = tess__trie_longest(&t->symbols, text + pos, n - pos);
        bool frozen = bytes > 0;
        if (!frozen) {
            bytes = tess__char_bytes(text + pos, n - pos);
        }
        symbols[k] = (tess__symbol){.pos = (uint32_t)pos,
                                    .n_bytes = (uint32_t)bytes,
                                    .prev = k - 1,
                                    .next = k + 1,
                                    .node = tess__trie_walk(&t->pieces, 0, text + pos, bytes),
                                    .frozen = frozen};
        pos += bytes;
    }
    symbols[k - 1].next = -1;
    return (size_t)k;
}

/* Puts the pair into the heap when its join is a piece. */
static inline tess_status offer(const tess__spm *t, tess__spm_scratch *s, size_t *n_heap,
                                const char *text, int32_t left, int32_t right)
{
    if (left < 0 || right < 0) {
        return TESS_OK;
    }
    const tess__symbol *a = &s->symbols[left], *b = &s->symbols[right];
    if (a->node == 0 || a->frozen || b->frozen) {
        return TESS_OK;
    }
    uint32_t node = tess__trie_walk(&t->pieces, a->node, text + b->pos, b->n_bytes);
    int32_t id = node != 0 ? t->pieces.units[node].value : -1;
    if (id < 0) {
        return TESS_OK;
    }
    if (*n_heap == s->cap_heap) {
        TESS_TRY(tess_grow(&s->heap, &s->cap_heap, *n_heap + 64, sizeof(*s->heap)));
    }
    heap_push(s->heap, n_heap,
              (tess__merge){t->model.pieces[id].score, left, right, a->n_bytes + b->n_bytes, node});
    if (t->model.pieces[id].type == TESS__PIECE_UNUSED) {
        s->split[id] = a->n_bytes;
    }
    return TESS_OK;
}

static tess_status merge_all(const tess__spm *t, tess__spm_scratch *s, const char *text,
                             size_t n_symbols)
{
    tess__symbol *symbols = s->symbols;
    size_t n_heap = 0;
    for (size_t i = 1; i < n_symbols; i++) {
        TESS_TRY(offer(t, s, &n_heap, text, (int32_t)i - 1, (int32_t)i));
    }
    while (n_heap > 0) {
        tess__merge m = heap_pop(s->heap, &n_heap);
        tess__symbol *a = &symbols[m.left], *b = &symbols[m.right];
        if (a->n_bytes == 0 || b->n_bytes == 0 || a->n_bytes + b->n_bytes != m.n_bytes) {
            continue;
        }
        a->n_bytes = m.n_bytes;
        a->node = m.node;
        a->next = b->next;
        if (b->next >= 0) {
            symbols[b->next].prev = m.left;
        }
        b->n_bytes = 0;
        TESS_TRY(offer(t, s, &n_heap, text, a->prev, m.left));
        TESS_TRY(offer(t, s, &n_heap, text, m.left, a->next));
    }
    return TESS_OK;
}

/* Gives out a stretch, taking UNUSED pieces apart; an explicit stack, at most its bytes + 1 deep.
 */
static void emit_split(const tess__spm *t, tess__run *r, const char *text, tess__span all)
{
    tess__span *stack = r->s->spm.spans;
    size_t n = 0;
    stack[n++] = all;
    while (n > 0 && !r->full) {
        tess__span w = stack[--n];
        int32_t id = tess__trie_find(&t->pieces, text + w.pos, w.n_bytes);
        uint32_t left =
            id >= 0 && t->model.pieces[id].type == TESS__PIECE_UNUSED ? r->s->spm.split[id] : 0;
        if (left == 0) {
            tess__run_emit(t, r, id >= 0 ? id : t->model.unk_id, text + w.pos, w.n_bytes);
        } else {
            stack[n++] = (tess__span){w.pos + left, w.n_bytes - left};
            stack[n++] = (tess__span){w.pos, left};
        }
    }
}

static void emit(const tess__spm *t, tess__run *r, const char *text)
{
    const tess__symbol *symbols = r->s->spm.symbols;
    for (int32_t i = 0; i >= 0 && !r->full; i = symbols[i].next) {
        const tess__symbol *a = &symbols[i];
        int32_t id = a->node != 0 ? t->pieces.units[a->node].value : -1;
        if (id >= 0 && t->model.pieces[id].type == TESS__PIECE_UNUSED) {
            emit_split(t, r, text, (tess__span){a->pos, a->n_bytes});
        } else {
            tess__run_emit(t, r, id >= 0 ? id : t->model.unk_id, text + a->pos, a->n_bytes);
        }
    }
}

static tess_status encode_word(const tess__spm *t, tess__run *r, const char *text, size_t n)
{
    tess__spm_scratch *s = &r->s->spm;
    TESS_TRY(tess_grow(&s->symbols, &s->cap_symbols, n, sizeof(*s->symbols)));
    if (t->model.n_unused > 0) {
        TESS_TRY(tess_grow(&s->spans, &s->cap_spans, n + 1, sizeof(*s->spans)));
    }
    size_t n_symbols = cut(t, s->symbols, text, n);
    TESS_TRY(merge_all(t, s, text, n_symbols));
    emit(t, r, text);
    return TESS_OK;
}

/* The end of the word at `start`: where the next space begins, or n. */
static size_t word_end(const tess__spm *t, const char *text, size_t start, size_t n)
{
    size_t at = start;
    do {
        size_t symbol = tess__trie_longest(&t->symbols, text + at, n - at);
        at += symbol > 0 ? symbol : tess__char_bytes(text + at, n - at);
    } while (at < n && (n - at < TESS__SPACE_BYTES || text[at] != TESS__SPACE[0] ||
                        memcmp(text + at, TESS__SPACE, TESS__SPACE_BYTES) != 0));
    return at;
}

tess_status tess__bpe_encode(const tess__spm *t, tess__run *r, const char *text, size_t n)
{
    if (t->model.n_unused > 0) {
        TESS_TRY(tess_grow(&r->s->spm.split, &r->s->spm.cap_split, t->model.n_pieces,
                           sizeof(*r->s->spm.split)));
        memset(r->s->spm.split, 0, t->model.n_pieces * sizeof(*r->s->spm.split));
    }
    /* How an UNUSED piece was last made may depend on the whole text. */
    bool by_word = t->space_starts_word && t->model.n_unused == 0;
    for (size_t start = 0; start < n && !r->full;) {
        size_t end = by_word ? word_end(t, text, start, n) : n;
        TESS_TRY(encode_word(t, r, text + start, end - start));
        start = end;
    }
    return TESS_OK;
}
