/* SPDX-License-Identifier: Apache-2.0 */
/* WordPiece (Schuster and Nakajima 2012, as BERT uses it): from the left the longest piece that
 * fits, pieces inside a word under the names "##...".  A word that does not come out whole, or has
 * more than max_word_chars characters, is one unknown id. */
#include "text/pipe.h"

/* Bytes of the longest piece at s when the walk begins at `node`; its id to *out_id. */
static size_t longest(const tess__trie *t, uint32_t node, const char *s, size_t n, int32_t *out_id)
{
    size_t best = 0;
    for (size_t i = 0; i < n; i++) {
        node = tess__trie_step(t, node, (uint8_t)s[i]);
        if (node == 0) {
            break;
        }
        if (t->units[node].value >= 0) {
            *out_id = t->units[node].value;
            best = i + 1;
        }
    }
    return best;
}

static size_t count_chars(const char *s, size_t n)
{
    size_t n_chars = 0;
    for (size_t i = 0; i < n; i++) {
        n_chars += ((uint8_t)s[i] & 0xc0) != 0x80;
    }
    return n_chars;
}

tess_status tess__wordpiece_encode(const tess__pipe *p, tess__run *r, const char *word, size_t n)
{
    size_t n_before = r->out->n_ids;
    bool whole = n <= p->max_word_chars || count_chars(word, n) <= p->max_word_chars;
    for (size_t at = 0; whole && at < n && !r->no_memory;) {
        uint32_t node = at == 0 ? 0 : p->prefix_node;
        int32_t id = -1;
        bool can = at == 0 || p->prefix.n_bytes == 0 || node != 0;
        size_t used = can ? longest(&p->vocab.trie, node, word + at, n - at, &id) : 0;
        if (used > 0) {
            tess__run_add(r, id);
        }
        whole = used > 0;
        at += used;
    }
    if (!whole) { /* what was given out of it is taken back */
        r->out->n_ids = n_before;
        r->full = r->no_memory;
        tess__run_add(r, p->unk_id);
    }
    return TESS_OK;
}
