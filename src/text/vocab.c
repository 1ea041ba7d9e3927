/* SPDX-License-Identifier: Apache-2.0 */
/* Vocabularies and merge tables.  Ids come from files: every one is checked; holes are allowed, for
 * added tokens often stand in them. */
#include "text/pipe.h"

#include <string.h>

tess_status tess__vocab_put(tess__vocab *v, int64_t id, tess_bytes piece)
{
    if (id < 0 || id >= TESS__MAX_VOCAB) {
        return TESS_FAIL(TESS_FORMAT, "the id %lld of \"%.40s\": expected 0 to %d", (long long)id,
                         (const char *)piece.data, TESS__MAX_VOCAB - 1);
    }
    if (piece.n_bytes == 0 || piece.n_bytes > TESS__MAX_PIECE_BYTES) {
        return TESS_FAIL(TESS_FORMAT, "the piece of id %lld has %zu bytes: expected 1 to %d",
                         (long long)id, piece.n_bytes, TESS__MAX_PIECE_BYTES);
    }
    size_t at = (size_t)id;
    if (at >= v->n) {
        TESS_TRY(tess_grow(&v->pieces, &v->cap, at + 1, sizeof(*v->pieces)));
        v->n = at + 1;
    }
    if (v->pieces[at].data != NULL) {
        return TESS_FAIL(TESS_FORMAT, "id %lld belongs to \"%.40s\" and to \"%.40s\"",
                         (long long)id, (const char *)v->pieces[at].data, (const char *)piece.data);
    }
    v->pieces[at] = piece;
    return TESS_OK;
}

tess_status tess__vocab_build(tess__vocab *v)
{
    tess__trie_key *keys = tess_alloc_array(v->n, sizeof(*keys));
    if (keys == NULL) {
        return TESS_NOMEM;
    }
    size_t n = 0;
    for (size_t i = 0; i < v->n; i++) {
        if (v->pieces[i].data != NULL) {
            keys[n++] = (tess__trie_key){(const char *)v->pieces[i].data,
                                         (uint32_t)v->pieces[i].n_bytes, (int32_t)i};
        }
    }
    tess_status st = n > 0 ? tess__trie_build(&v->trie, keys, n)
                           : TESS_FAIL(TESS_FORMAT, "the vocabulary is empty");
    tess_free(keys);
    return st;
}

void tess__vocab_deinit(tess__vocab *v)
{
    tess_free(v->pieces);
    tess__trie_deinit(&v->trie);
    *v = (tess__vocab){0};
}

/* ---- pairs ------------------------------------------------------------------------------- */

static size_t slot_of(const tess__pairs *p, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint64_t mixed = key * UINT64_C(0x9e3779b97f4a7c15);
    /* The high half: only it depends on both ids. */
    size_t i =
        (size_t)((mixed ^ mixed >> 29) * UINT64_C(0xbf58476d1ce4e5b9) >> 32) & (p->n_slots - 1);
    while (p->slots[i].left >= 0 && (p->slots[i].left != left || p->slots[i].right != right)) {
        i = (i + 1) & (p->n_slots - 1);
    }
    return i;
}

tess_status tess__pairs_init(tess__pairs *p, size_t n_pairs)
{
    size_t n = 16;
    while (n < n_pairs * 2) {
        n *= 2;
    }
    p->slots = tess_alloc_array(n, sizeof(*p->slots));
    if (p->slots == NULL) {
        return TESS_NOMEM;
    }
    p->n_slots = n;
    for (size_t i = 0; i < n; i++) {
        p->slots[i].left = -1;
    }
    return TESS_OK;
}

void tess__pairs_add(tess__pairs *p, tess__pair pair)
{
    size_t i = slot_of(p, pair.left, pair.right);
    p->n += p->slots[i].left < 0;
    p->slots[i] = pair;
}

const tess__pair *tess__pairs_find(const tess__pairs *p, int32_t left, int32_t right)
{
    if (left < 0 || p->n == 0) {
        return NULL;
    }
    const tess__pair *found = &p->slots[slot_of(p, left, right)];
    return found->left >= 0 ? found : NULL;
}

void tess__pairs_deinit(tess__pairs *p)
{
    tess_free(p->slots);
    *p = (tess__pairs){0};
}
