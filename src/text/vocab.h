/* SPDX-License-Identifier: Apache-2.0 */
/* A vocabulary: pieces by id, ids by piece, and for byte pair encoding the pairs that merge. */
#ifndef TESS_TEXT_VOCAB_H
#define TESS_TEXT_VOCAB_H

#include "text/spm_trie.h"

typedef struct tess__vocab {
    tess_bytes *pieces; /* by id; data NULL: a hole, which only an added token may fill */
    size_t n, cap;
    tess__trie trie;
} tess__vocab;

/* Puts a piece (borrowed) at an id.  TESS_FORMAT: the id is taken, negative or beyond the limit. */
TESS_MUST_USE tess_status tess__vocab_put(tess__vocab *v, int64_t id, tess_bytes piece);
/* Builds the trie.  TESS_FORMAT: two pieces are the same, or there are none. */
TESS_MUST_USE tess_status tess__vocab_build(tess__vocab *v);
void tess__vocab_deinit(tess__vocab *v);
static inline int32_t tess__vocab_find(const tess__vocab *v, const char *s, size_t n)
{
    return tess__trie_find(&v->trie, s, n);
}

/* (left id, right id) -> (rank, id of the join): an open-addressed table. */
typedef struct tess__pair {
    int32_t left, right; /* left -1: free */
    uint32_t rank;
    int32_t id;
} tess__pair;

typedef struct tess__pairs {
    tess__pair *slots;
    size_t n_slots, n; /* n_slots: a power of two */
} tess__pairs;

TESS_MUST_USE tess_status tess__pairs_init(tess__pairs *p, size_t n_pairs);
/* A pair that is there already gets the new rank and id, as in a dictionary. */
void tess__pairs_add(tess__pairs *p, tess__pair pair);
const tess__pair *tess__pairs_find(const tess__pairs *p, int32_t left, int32_t right);
void tess__pairs_deinit(tess__pairs *p);

#endif
