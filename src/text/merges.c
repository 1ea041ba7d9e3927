/* SPDX-License-Identifier: Apache-2.0 */
/* Byte pair encoding over a word, with merges by rank (Sennrich et al., ACL 2016), as Hugging
 * Face's `tokenizers` does it and, for its vocabularies, OpenCLIP: symbols begin as characters with
 * the prefix or suffix that the vocabulary uses, the pair of lowest rank merges first, the leftmost
 * of equals.
 *
 * A merge in the heap is stale when the pair at its place no longer makes its id.  Unknown
 * characters keep tokenizers' rule: a run of them is held back until a known one comes (or, without
 * fuse_unk, the next one), and bytes that stand in for a character pass by what is held back. */
#include "text/heap.h"
#include "text/scratch.h"

#include "text/char_class.h"

#include <string.h>

static bool before(const tess__bpe_merge *a, const tess__bpe_merge *b)
{
    return a->rank < b->rank || (a->rank == b->rank && a->pos < b->pos);
}

TESS__HEAP(tess__bpe_merge, before)

/* ---- the first symbols ------------------------------------------------------------------ */

static void add_symbol(tess__pipe_scratch *s, size_t *n, int32_t id)
{
    s->symbols[*n] = (tess__bpe_symbol){id, (int32_t)*n - 1, (int32_t)*n + 1, 1};
    ++*n;
}

/* The id of a character with what the vocabulary puts around it. */
static int32_t find_char(const tess__pipe *p, const char *s, size_t n, bool first, bool last)
{
    const tess__trie *t = &p->vocab.trie;
    uint32_t node = 0;
    if (!first && p->prefix.n_bytes > 0) {
        node = p->prefix_node;
        if (node == 0) {
            return -1;
        }
    }
    node = tess__trie_walk(t, node, s, n);
    if (node != 0 && last && p->suffix.n_bytes > 0) {
        node = tess__trie_walk(t, node, (const char *)p->suffix.data, p->suffix.n_bytes);
    }
    return node != 0 ? t->units[node].value : -1;
}

/* The bytes of a character (and of what is put around it), or false when one has no piece. */
static bool add_bytes(const tess__pipe *p, tess__pipe_scratch *s, size_t *n, tess_bytes part)
{
    for (size_t i = 0; i < part.n_bytes; i++) {
        if (p->byte_ids[part.data[i]] < 0) {
            return false;
        }
    }
    for (size_t i = 0; i < part.n_bytes; i++) {
        add_symbol(s, n, p->byte_ids[part.data[i]]);
    }
    return true;
}

static bool add_fallback(const tess__pipe *p, tess__pipe_scratch *s, size_t *n, tess_bytes c,
                         bool first, bool last)
{
    size_t start = *n;
    bool ok = p->byte_fallback && (first || add_bytes(p, s, n, p->prefix)) &&
              add_bytes(p, s, n, c) && (!last || add_bytes(p, s, n, p->suffix));
    *n = ok ? *n : start;
    return ok;
}

static size_t first_symbols(const tess__pipe *p, tess__pipe_scratch *s, const char *word, size_t n)
{
    size_t n_symbols = 0;
    bool held = false; /* an unknown character not given out yet */
    for (size_t i = 0, used; i < n; i += used) {
        (void)tess__char_at(word + i, n - i, &used);
        bool first = i == 0, last = i + used == n;
        int32_t id = find_char(p, word + i, used, first, last);
        if (id >= 0) {
            if (held) {
                add_symbol(s, &n_symbols, p->unk_id);
                held = false;
            }
            add_symbol(s, &n_symbols, id);
            continue;
        }
        tess_bytes c = {(const uint8_t *)word + i, used};
        if (add_fallback(p, s, &n_symbols, c, first, last) || p->unk_id < 0) {
            continue;
        }
        if (held && !p->fuse_unk) {
            add_symbol(s, &n_symbols, p->unk_id);
        }
        held = true;
    }
    if (held) {
        add_symbol(s, &n_symbols, p->unk_id);
    }
    return n_symbols;
}

/* ---- merging ---------------------------------------------------------------------------- */

static void offer(const tess__pipe *p, tess__pipe_scratch *s, size_t *n_heap, int32_t left)
{
    int32_t right = left >= 0 ? s->symbols[left].next : -1;
    if (right < 0) {
        return;
    }
    const tess__pair *pair = tess__pairs_find(&p->pairs, s->symbols[left].id, s->symbols[right].id);
    if (pair != NULL) {
        heap_push(s->heap, n_heap, (tess__bpe_merge){pair->rank, left, pair->id});
    }
}

static void merge_all(const tess__pipe *p, tess__pipe_scratch *s, size_t n)
{
    size_t n_heap = 0;
    s->symbols[n - 1].next = -1;
    for (size_t i = 0; i + 1 < n; i++) {
        offer(p, s, &n_heap, (int32_t)i);
    }
    while (n_heap > 0) {
        tess__bpe_merge m = heap_pop(s->heap, &n_heap);
        tess__bpe_symbol *a = &s->symbols[m.pos];
        if (a->n_bytes == 0 || a->next < 0) {
            continue;
        }
        tess__bpe_symbol *b = &s->symbols[a->next];
        const tess__pair *pair = tess__pairs_find(&p->pairs, a->id, b->id);
        if (pair == NULL || pair->id != m.id) {
            continue;
        }
        a->id = m.id;
        a->next = b->next;
        b->n_bytes = 0;
        if (b->next >= 0) {
            s->symbols[b->next].prev = m.pos;
        }
        offer(p, s, &n_heap, a->prev);
        offer(p, s, &n_heap, m.pos);
    }
}

tess_status tess__merges_encode(const tess__pipe *p, tess__run *r, const char *word, size_t n)
{
    tess__pipe_scratch *s = &r->s->pipe;
    int32_t whole = p->whole_from != INT32_MAX ? tess__vocab_find(&p->vocab, word, n) : -1;
    if (whole >= 0 && whole >= p->whole_from) {
        tess__run_add(r, whole);
        return TESS_OK;
    }
    /* A symbol a byte at most. */
    size_t most = n * (1 + p->prefix.n_bytes) + p->suffix.n_bytes;
    TESS_TRY(tess_grow(&s->symbols, &s->cap_symbols, most, sizeof(*s->symbols)));
    size_t n_symbols = first_symbols(p, s, word, n);
    /* Every merge takes one offer and a symbol away and brings two offers at most. */
    TESS_TRY(tess_grow(&s->heap, &s->cap_heap, n_symbols * 2, sizeof(*s->heap)));
    if (n_symbols > 1) {
        merge_all(p, s, n_symbols);
    }
    for (size_t i = 0; i < n_symbols && !r->full; i++) {
        if (s->symbols[i].n_bytes > 0) {
            tess__run_add(r, s->symbols[i].id);
        }
    }
    return TESS_OK;
}
