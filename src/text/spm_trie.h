/* SPDX-License-Identifier: Apache-2.0 */
/* A double-array trie over byte strings, built by us from the pieces of a vocabulary.
 *
 * The child of node p for byte b is base(p) ^ b, and it is one when check(child) == p.  Bases stay
 * inside a block of 256 units, so no step can leave the array and a step needs no bounds check. */
#ifndef TESS_TEXT_SPM_TRIE_H
#define TESS_TEXT_SPM_TRIE_H

#include "tessera/base.h"

typedef struct tess__trie_unit {
    uint32_t base, check;
    int32_t value; /* -1: no key ends here */
} tess__trie_unit;

typedef struct tess__trie {
    tess__trie_unit *units; /* NULL: the empty trie */
    size_t n_units, cap_units;
} tess__trie;

typedef struct tess__trie_key {
    const char *text;
    uint32_t n_bytes;
    int32_t value; /* >= 0 */
} tess__trie_key;

/* Builds from keys in any order (they are sorted in place); no key is empty.  TESS_FORMAT when two
 * are equal.  Time O(n log n) comparisons plus O(nodes); an explicit stack, no recursion. */
TESS_MUST_USE tess_status tess__trie_build(tess__trie *t, tess__trie_key *keys, size_t n_keys);
void tess__trie_deinit(tess__trie *t);

/* One step; 0 when there is no such child (the root is nobody's child). */
static inline uint32_t tess__trie_step(const tess__trie *t, uint32_t node, uint8_t byte)
{
    uint32_t child = t->units[node].base ^ byte;
    return t->units[child].check == node ? child : 0;
}

/* Steps over a whole string from `node`; 0 when it leaves the trie. */
static inline uint32_t tess__trie_walk(const tess__trie *t, uint32_t node, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        node = tess__trie_step(t, node, (uint8_t)s[i]);
        if (node == 0) {
            return 0;
        }
    }
    return node;
}

/* The value of exactly this key, or -1. */
int32_t tess__trie_find(const tess__trie *t, const char *s, size_t n_bytes);
/* Bytes of the longest key that is a prefix of s, 0 when none is. */
size_t tess__trie_longest(const tess__trie *t, const char *s, size_t n_bytes);

#endif
