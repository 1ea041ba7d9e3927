/* SPDX-License-Identifier: Apache-2.0 */
/* The unigram model as Hugging Face's `tokenizers` computes it: scores added in double precision
 * (as they stand in tokenizer.json), the first of two equal ways kept, the lowest score less 10 for
 * an unknown character, neighbouring unknown characters one piece.  unigram.c is SentencePiece's
 * own arithmetic; the two can differ in the last bit and so in a tie. */
#include "text/scratch.h"

#include "text/char_class.h"

static void offer(tess__lattice_node *to, double score, size_t start, int32_t id)
{
    if (to->start < 0 || score > to->score) {
        *to = (tess__lattice_node){score, (int32_t)start, id};
    }
}

static void search(const tess__pipe *p, tess__lattice_node *nodes, const char *word, size_t n)
{
    const tess__trie *t = &p->vocab.trie;
    for (size_t start = 0, used; start < n; start += used) {
        (void)tess__char_at(word + start, n - start, &used);
        double so_far = nodes[start].score;
        bool single = false;
        uint32_t node = 0;
        for (size_t end = start; end < n;) {
            node = tess__trie_step(t, node, (uint8_t)word[end]);
            if (node == 0) {
                break;
            }
            end++;
            int32_t id = t->units[node].value;
            if (id >= 0) {
                offer(&nodes[end], p->scores[id] + so_far, start, id);
                single = single || end - start == used;
            }
        }
        if (!single) {
            offer(&nodes[start + used], p->unk_score + so_far, start, p->unk_id);
        }
    }
}

/* An unknown stretch: its own piece where it is one after all, its bytes, or the unknown id. */
static void emit_unknown(const tess__pipe *p, tess__run *r, const char *s, size_t n)
{
    int32_t id = tess__vocab_find(&p->vocab, s, n);
    bool bytes = id < 0 && p->byte_fallback;
    for (size_t i = 0; bytes && i < n; i++) {
        bytes = p->byte_ids[(uint8_t)s[i]] >= 0;
    }
    for (size_t i = 0; bytes && i < n; i++) {
        tess__run_add(r, p->byte_ids[(uint8_t)s[i]]);
    }
    if (!bytes) {
        tess__run_add(r, id >= 0 ? id : p->unk_id);
    }
}

static void emit(const tess__pipe *p, tess__run *r, const char *word, size_t n_ends)
{
    const tess__pipe_scratch *s = &r->s->pipe;
    size_t unknown = SIZE_MAX; /* where the run of unknown characters began */
    for (size_t i = n_ends, start = 0; i-- > 0 && !r->full; start = s->ends[i]) {
        size_t end = s->ends[i];
        bool known = s->nodes[end].id != p->unk_id;
        bool last = i == 0 || s->nodes[s->ends[i - 1]].id != p->unk_id;
        if (known) {
            tess__run_add(r, s->nodes[end].id);
            continue;
        }
        unknown = unknown != SIZE_MAX ? unknown : start;
        if (last) {
            emit_unknown(p, r, word + unknown, end - unknown);
            unknown = SIZE_MAX;
        }
    }
}

tess_status tess__lattice_encode(const tess__pipe *p, tess__run *r, const char *word, size_t n)
{
    tess__pipe_scratch *s = &r->s->pipe;
    TESS_TRY(tess_grow(&s->nodes, &s->cap_nodes, n + 1, sizeof(*s->nodes)));
    TESS_TRY(tess_grow(&s->ends, &s->cap_ends, n + 1, sizeof(*s->ends)));
    for (size_t i = 0; i <= n; i++) {
        s->nodes[i] = (tess__lattice_node){.start = -1};
    }
    s->nodes[0].score = 0;
    search(p, s->nodes, word, n);
    size_t n_ends = 0;
    for (size_t end = n; end > 0; end = (size_t)s->nodes[end].start) {
        s->ends[n_ends++] = (uint32_t)end;
    }
    emit(p, r, word, n_ends);
    return TESS_OK;
}
