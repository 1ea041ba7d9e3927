/* SPDX-License-Identifier: Apache-2.0 */
/* The unigram model: of all ways to cut the text into pieces, the one whose scores add up highest
 * (Kudo, ACL 2018), by dynamic programming over byte positions.
 *
 * To give SentencePiece's very ids its arithmetic is repeated, not only its rule: a score is added
 * in double and kept in float, the first of two equal ways wins, a user-defined symbol of n bytes
 * scores n * max_score - 0.1 (where max_score is at least FLT_MIN, so about -0.1), and one unknown
 * character costs the lowest score less 10.  Where no piece crosses a space the text is done a word
 * at a time with the running score carried on: the same sums in the same order, in a few hundred
 * bytes of memory, and encoding can stop at max_ids. */
#include "text/scratch.h"

#include <string.h>

static inline void offer(tess__best *to, double score, int32_t start, int32_t id)
{
    if (to->start == -1 || score > to->score) {
        *to = (tess__best){(float)score, start, id};
    }
}

/* Tries every piece that begins at `start`; true when one is exactly the first character. */
static inline bool offer_pieces(const tess__spm *t, tess__best *best, const char *text,
                                size_t start, size_t n, size_t char_bytes)
{
    bool single = false;
    float so_far = best[start].score;
    uint32_t node = 0;
    for (size_t end = start; end < n;) {
        node = tess__trie_step(&t->pieces, node, (uint8_t)text[end]);
        if (node == 0) {
            break;
        }
        end++;
        int32_t id = t->pieces.units[node].value;
        if (id < 0 || t->model.pieces[id].type == TESS__PIECE_UNUSED) {
            continue;
        }
        const tess__piece *p = &t->model.pieces[id];
        size_t length = end - start;
        double score = p->type == TESS__PIECE_USER ? (float)length * t->max_score - 0.1 : p->score;
        offer(&best[end], score + so_far, (int32_t)start, id);
        single = single || length == char_bytes;
    }
    return single;
}

static void search(const tess__spm *t, tess__best *best, const char *text, size_t n)
{
    for (size_t start = 0; start < n;) {
        size_t char_bytes = tess__char_bytes(text + start, n - start);
        if (!offer_pieces(t, best, text, start, n, char_bytes)) {
            float score = t->unk_score + best[start].score;
            offer(&best[start + char_bytes], score, (int32_t)start, t->model.unk_id);
        }
        start += char_bytes;
    }
}

/* The end of the word at `start`: where the next space begins, or n. */
static size_t word_end(const char *text, size_t start, size_t n)
{
    size_t at = start;
    do {
        at += tess__char_bytes(text + at, n - at);
    } while (at < n && (n - at < TESS__SPACE_BYTES || text[at] != TESS__SPACE[0] ||
                        memcmp(text + at, TESS__SPACE, TESS__SPACE_BYTES) != 0));
    return at;
}

static tess_status encode_word(const tess__spm *t, tess__run *r, const char *text, size_t n)
{
    tess__spm_scratch *s = &r->s->spm;
    TESS_TRY(tess_grow(&s->best, &s->cap_best, n + 1, sizeof(*s->best)));
    TESS_TRY(tess_grow(&s->ends, &s->cap_ends, n + 1, sizeof(*s->ends)));
    memset(s->best, 0xff, (n + 1) * sizeof(*s->best));
    s->best[0].score = r->score;
    search(t, s->best, text, n);
    r->score = s->best[n].score;
    size_t n_ends = 0;
    for (size_t end = n; end > 0; end = (size_t)s->best[end].start) {
        s->ends[n_ends++] = (uint32_t)end;
    }
    for (size_t start = 0; n_ends > 0 && !r->full; start = s->ends[n_ends]) {
        size_t end = s->ends[--n_ends];
        tess__run_emit(t, r, s->best[end].id, text + start, end - start);
    }
    return TESS_OK;
}

tess_status tess__unigram_encode(const tess__spm *t, tess__run *r, const char *text, size_t n)
{
    for (size_t start = 0; start < n && !r->full;) {
        size_t end = t->space_starts_word ? word_end(text, start, n) : n;
        TESS_TRY(encode_word(t, r, text + start, end - start));
        start = end;
    }
    return TESS_OK;
}
