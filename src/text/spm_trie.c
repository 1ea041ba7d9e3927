/* SPDX-License-Identifier: Apache-2.0 */
/* Building the double array.
 *
 * Nodes are placed first fit, but only the newest OPEN_BLOCKS blocks are tried: a block that has
 * been passed over so long has too few holes to be worth the search.  With 250,000 pieces that
 * wastes under a tenth of the units and keeps building linear.  Free units of a block are a bitmap
 * of 256 bits, so "the children's bytes all free" is looked up bit by bit without touching units.
 */
#include "text/spm_trie.h"

#include <stdlib.h>
#include <string.h>

enum { OPEN_BLOCKS = 16, BLOCK = 256 };
#define MAX_UNITS ((size_t)1 << 29)
#define NO_PARENT UINT32_MAX

typedef struct free_map {
    uint64_t bits[4]; /* 1: free */
} free_map;

typedef struct range {
    uint32_t node, depth;
    size_t lo, hi; /* the keys below this node */
} range;

typedef struct builder {
    tess__trie *trie;
    const tess__trie_key *keys;
    free_map *maps;
    size_t n_blocks, cap_blocks;
    range *stack;
    size_t n_stack, cap_stack;
} builder;

static int compare_keys(const void *pa, const void *pb)
{
    const tess__trie_key *a = pa, *b = pb;
    uint32_t n = a->n_bytes < b->n_bytes ? a->n_bytes : b->n_bytes;
    int c = memcmp(a->text, b->text, n);
    return c != 0 ? c : (a->n_bytes > b->n_bytes) - (a->n_bytes < b->n_bytes);
}

static bool is_free(const free_map *m, unsigned i)
{
    return m->bits[i >> 6] >> (i & 63) & 1;
}

static tess_status add_block(builder *b)
{
    tess__trie *t = b->trie;
    if (t->n_units + BLOCK > MAX_UNITS) {
        return TESS_FAIL(TESS_FORMAT, "the vocabulary needs more than %zu trie nodes", MAX_UNITS);
    }
    TESS_TRY(tess_grow(&t->units, &t->cap_units, t->n_units + BLOCK, sizeof(*t->units)));
    TESS_TRY(tess_grow(&b->maps, &b->cap_blocks, b->n_blocks + 1, sizeof(*b->maps)));
    for (size_t i = 0; i < BLOCK; i++) {
        t->units[t->n_units + i] = (tess__trie_unit){.check = NO_PARENT, .value = -1};
    }
    memset(&b->maps[b->n_blocks], 0xff, sizeof(free_map));
    if (b->n_blocks == 0) {
        b->maps[0].bits[0] &= ~UINT64_C(1); /* the root */
    }
    t->n_units += BLOCK;
    b->n_blocks++;
    return TESS_OK;
}

/* A base low byte with which all labels fall on free units of this block, or -1. */
static int fit(const free_map *m, const uint8_t *labels, unsigned n_labels)
{
    for (unsigned w = 0; w < 4; w++) {
        for (uint64_t bits = m->bits[w]; bits != 0; bits &= bits - 1) {
            unsigned base = (w * 64 + (unsigned)__builtin_ctzll(bits)) ^ labels[0];
            unsigned k = 1;
            while (k < n_labels && is_free(m, base ^ labels[k])) {
                k++;
            }
            if (k == n_labels) {
                return (int)base;
            }
        }
    }
    return -1;
}

static tess_status place(builder *b, const uint8_t *labels, unsigned n_labels, uint32_t *out_base)
{
    size_t first = b->n_blocks > OPEN_BLOCKS ? b->n_blocks - OPEN_BLOCKS : 0;
    for (size_t block = first;; block++) {
        if (block == b->n_blocks) {
            TESS_TRY(add_block(b));
        }
        int base = fit(&b->maps[block], labels, n_labels);
        if (base >= 0) {
            *out_base = (uint32_t)(block * BLOCK + (unsigned)base);
            return TESS_OK;
        }
    }
}

static void claim(builder *b, uint32_t unit, uint32_t parent)
{
    b->maps[unit / BLOCK].bits[unit % BLOCK >> 6] &= ~(UINT64_C(1) << (unit & 63));
    b->trie->units[unit].check = parent;
}

/* Gives node r its value and its children, and pushes their ranges. */
static tess_status expand(builder *b, range r)
{
    uint8_t labels[256];
    size_t starts[257];
    unsigned n = 0;
    if (b->keys[r.lo].n_bytes == r.depth) {
        b->trie->units[r.node].value = b->keys[r.lo].value;
        r.lo++;
    }
    for (size_t i = r.lo; i < r.hi; i++) {
        uint8_t byte = (uint8_t)b->keys[i].text[r.depth];
        if (n == 0 || labels[n - 1] != byte) {
            labels[n] = byte;
            starts[n++] = i;
        }
    }
    if (n == 0) {
        return TESS_OK;
    }
    starts[n] = r.hi;
    uint32_t base;
    TESS_TRY(place(b, labels, n, &base));
    TESS_TRY(tess_grow(&b->stack, &b->cap_stack, b->n_stack + n, sizeof(*b->stack)));
    b->trie->units[r.node].base = base;
    for (unsigned k = n; k-- > 0;) {
        claim(b, base ^ labels[k], r.node);
        b->stack[b->n_stack++] = (range){base ^ labels[k], r.depth + 1, starts[k], starts[k + 1]};
    }
    return TESS_OK;
}

static tess_status build(builder *b, size_t n_keys)
{
    TESS_TRY(add_block(b));
    TESS_TRY(expand(b, (range){0, 0, 0, n_keys}));
    while (b->n_stack > 0) {
        TESS_TRY(expand(b, b->stack[--b->n_stack]));
    }
    return TESS_OK;
}

tess_status tess__trie_build(tess__trie *t, tess__trie_key *keys, size_t n_keys)
{
    if (n_keys == 0) {
        return TESS_OK;
    }
    qsort(keys, n_keys, sizeof(*keys), compare_keys);
    for (size_t i = 1; i < n_keys; i++) {
        if (compare_keys(&keys[i - 1], &keys[i]) == 0) {
            return TESS_FAIL(TESS_FORMAT, "pieces %d and %d are the same", (int)keys[i - 1].value,
                             (int)keys[i].value);
        }
    }
    builder b = {.trie = t, .keys = keys};
    tess_status st = build(&b, n_keys);
    tess_free(b.maps);
    tess_free(b.stack);
    if (st != TESS_OK) {
        tess__trie_deinit(t);
    }
    return st;
}

void tess__trie_deinit(tess__trie *t)
{
    tess_free(t->units);
    *t = (tess__trie){0};
}

int32_t tess__trie_find(const tess__trie *t, const char *s, size_t n_bytes)
{
    if (t->units == NULL || n_bytes == 0) {
        return -1;
    }
    uint32_t node = tess__trie_walk(t, 0, s, n_bytes);
    return node != 0 ? t->units[node].value : -1;
}

size_t tess__trie_longest(const tess__trie *t, const char *s, size_t n_bytes)
{
    size_t longest = 0;
    if (t->units == NULL) {
        return 0;
    }
    uint32_t node = 0;
    for (size_t i = 0; i < n_bytes; i++) {
        node = tess__trie_step(t, node, (uint8_t)s[i]);
        if (node == 0) {
            break;
        }
        if (t->units[node].value >= 0) {
            longest = i + 1;
        }
    }
    return longest;
}
