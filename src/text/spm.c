/* SPDX-License-Identifier: Apache-2.0 */
/* A SentencePiece model: the file, the tries and numbers derived from it, its fingerprint.
 *
 * A type of model is a row of a table; everything but the search for pieces is common. */
#include "text/scratch.h"

#include <float.h>
#include <string.h>

#define MAX_TEXT_BYTES ((size_t)64 << 20)

typedef struct model_type {
    const char *name;
    tess__encode_fn *encode; /* NULL: not offered */
} model_type;
static const model_type types[] = {
    [1] = {"unigram", tess__unigram_encode},
    [2] = {"bpe", tess__bpe_encode},
    [3] = {"word", NULL},
    [4] = {"char", NULL},
};

/* ---- opening ---------------------------------------------------------------------------- */

static tess_status pick_type(tess__spm *t)
{
    uint64_t type = t->model.model_type;
    if (type == 0 || type >= (uint64_t)TESS_COUNT(types)) {
        return TESS_FAIL(TESS_FORMAT, "unknown model type %llu", (unsigned long long)type);
    }
    if (types[type].encode == NULL) {
        return TESS_FAIL(TESS_UNSUPPORTED, "the model is of type \"%s\": expected unigram or bpe",
                         types[type].name);
    }
    t->encode = types[type].encode;
    return TESS_OK;
}

typedef bool choose_fn(const tess__piece *p);
static bool is_plain(const tess__piece *p)
{
    return !tess__piece_is_reserved(p);
}
static bool is_user(const tess__piece *p)
{
    return p->type == TESS__PIECE_USER;
}

static tess_status build_trie(const tess__spm_model *m, choose_fn *choose, tess__trie *out)
{
    tess__trie_key *keys = tess_alloc_array(m->n_pieces, sizeof(*keys));
    if (keys == NULL) {
        return TESS_NOMEM;
    }
    size_t n = 0;
    for (size_t i = 0; i < m->n_pieces; i++) {
        const tess__piece *p = &m->pieces[i];
        if (choose(p)) {
            keys[n++] = (tess__trie_key){p->text, p->n_bytes, (int32_t)i};
        }
    }
    tess_status st = tess__trie_build(out, keys, n);
    tess_free(keys);
    return st;
}

static tess_status build_tries(tess__spm *t)
{
    TESS_TRY(build_trie(&t->model, is_plain, &t->pieces));
    TESS_TRY(build_trie(&t->model, tess__piece_is_reserved, &t->reserved));
    TESS_TRY(build_trie(&t->model, is_user, &t->symbols));
    if (t->pieces.units == NULL) {
        return TESS_FAIL(TESS_FORMAT, "all %zu pieces are control pieces", t->model.n_pieces);
    }
    for (size_t i = 0; i < t->model.n_pieces; i++) {
        const tess__piece *p = &t->model.pieces[i];
        if (!tess__piece_is_reserved(p)) {
            continue;
        }
        int32_t twin = tess__trie_find(&t->pieces, p->text, p->n_bytes);
        if (twin >= 0) {
            return TESS_FAIL(TESS_FORMAT, "pieces %zu and %d are the same", i, (int)twin);
        }
    }
    return TESS_OK;
}

/* Pieces begin where characters do, else a word's end could fall inside one. */
static bool keeps_words(const tess__piece *p)
{
    for (size_t i = 0; i < p->n_bytes;) {
        size_t n = tess__utf8_char(p->text + i, p->n_bytes - i);
        if (n == 0 || (i > 0 && n == TESS__SPACE_BYTES &&
                       memcmp(p->text + i, TESS__SPACE, TESS__SPACE_BYTES) == 0)) {
            return false;
        }
        i += n;
    }
    return true;
}

static void measure(tess__spm *t)
{
    float min_score = FLT_MAX, max_score = FLT_MIN;
    t->space_starts_word = true;
    for (size_t i = 0; i < t->model.n_pieces; i++) {
        const tess__piece *p = &t->model.pieces[i];
        if (p->type == TESS__PIECE_NORMAL) {
            min_score = p->score < min_score ? p->score : min_score;
            max_score = p->score > max_score ? p->score : max_score;
        }
        if (is_plain(p) && !keeps_words(p)) {
            t->space_starts_word = false;
        }
    }
    t->unk_score = min_score - 10.0F;
    t->max_score = max_score;
}

/* The id of a control piece named in the trainer's spec, or -1. */
static int32_t control_id(const tess__spm *t, tess_bytes piece, const char *fallback)
{
    const char *text = piece.n_bytes > 0 ? (const char *)piece.data : fallback;
    size_t n = piece.n_bytes > 0 ? strnlen(text, piece.n_bytes) : strlen(fallback);
    int32_t id = tess__trie_find(&t->reserved, text, n);
    return id >= 0 && t->model.pieces[id].type == TESS__PIECE_CONTROL ? id : -1;
}

static tess_status hash_content(const tess__spm *self, tess_tokenizer *t)
{
    const tess__spm_model *m = &self->model;
    tess_hash128_state *h = tess_hash128_new();
    if (h == NULL) {
        return TESS_NOMEM;
    }
    tess__hash_bytes(h, t->name, strlen(t->name));
    tess__hash_u32(h,
                   (uint32_t)(m->byte_fallback | m->suffix_space << 1 | m->add_dummy_prefix << 2 |
                              m->remove_extra_spaces << 3 | m->escape_spaces << 4));
    tess__hash_u32(h, (uint32_t)t->special[TESS__BOS]);
    tess__hash_u32(h, (uint32_t)t->special[TESS__EOS]);
    tess__hash_u32(h, (uint32_t)t->special[TESS__PAD]);
    tess__spm_hash(self, h);
    tess_hash128_finish(h, t->hash);
    return TESS_OK;
}

void tess__spm_hash(const tess__spm *self, tess_hash128_state *h)
{
    const tess__spm_model *m = &self->model;
    tess__hash_bytes(h, m->charsmap.data, m->charsmap.n_bytes);
    tess__hash_u32(h, (uint32_t)m->n_pieces);
    for (size_t i = 0; i < m->n_pieces; i++) {
        uint32_t bits;
        memcpy(&bits, &m->pieces[i].score, sizeof(bits));
        tess__hash_u32(h, bits);
        tess__hash_u32(h, m->pieces[i].type);
        tess__hash_bytes(h, m->pieces[i].text, m->pieces[i].n_bytes);
    }
}

tess_status tess__spm_init(tess__spm *t, const uint8_t *bytes, size_t n_bytes)
{
    TESS_TRY(tess__spm_model_read(&t->model, bytes, n_bytes));
    TESS_TRY(pick_type(t));
    TESS_TRY(build_tries(t));
    TESS_TRY(tess__spm_norm_init(&t->norm, &t->model, &t->symbols));
    measure(t);
    return TESS_OK;
}

void tess__spm_deinit(tess__spm *t)
{
    tess__spm_norm_deinit(&t->norm);
    tess__trie_deinit(&t->pieces);
    tess__trie_deinit(&t->reserved);
    tess__trie_deinit(&t->symbols);
    tess__spm_model_deinit(&t->model);
}

const char *tess__spm_type(const tess__spm *t)
{
    return types[t->model.model_type].name;
}

/* ---- running ---------------------------------------------------------------------------- */

void tess__run_emit(const tess__spm *t, tess__run *r, int32_t id, const char *text, size_t n_bytes)
{
    bool unknown = id == t->model.unk_id;
    if (unknown && t->model.byte_fallback) {
        for (size_t i = 0; i < n_bytes; i++) {
            tess__run_add(r, t->model.byte_ids[(uint8_t)text[i]]);
        }
    } else if (!unknown || !r->after_unk) {
        tess__run_add(r, id);
    }
    r->after_unk = unknown;
}

tess_status tess__spm_encode(const tess__spm *t, tess__run *r, const char *text, size_t n_bytes)
{
    tess__span_buf *normal = &r->s->spm.text;
    TESS_TRY(tess__spm_norm_run(&t->norm, text, n_bytes, normal));
    return t->encode(t, r, normal->data, normal->n_bytes);
}

void tess__spm_scratch_deinit(tess__spm_scratch *s)
{
    tess_free(s->text.data);
    tess_free(s->best);
    tess_free(s->symbols);
    tess_free(s->heap);
    tess_free(s->spans);
    tess_free(s->ends);
    tess_free(s->split);
}

int32_t tess__spm_find(const tess__spm *t, const char *piece, size_t n_bytes)
{
    int32_t id = tess__trie_find(&t->pieces, piece, n_bytes);
    return id >= 0 ? id : tess__trie_find(&t->reserved, piece, n_bytes);
}

/* ---- as a kind of tokenizer --------------------------------------------------------------- */

static void close_spm(void *self)
{
    if (self != NULL) {
        tess__spm_deinit(self);
        tess_free(self);
    }
}

static tess_status encode(const void *self, tess__run *r, const char *text, size_t n_bytes)
{
    return tess__spm_encode(self, r, text, n_bytes);
}

static tess_bytes piece_of(const void *self, int32_t id)
{
    const tess__piece *p = &((const tess__spm *)self)->model.pieces[id];
    return (tess_bytes){(const uint8_t *)p->text, p->n_bytes};
}

static int32_t find(const void *self, const char *piece, size_t n_bytes)
{
    return tess__spm_find(self, piece, n_bytes);
}

void tess__spm_special(const tess__spm *self, tess_tokenizer *t)
{
    t->special[TESS__UNK] = self->model.unk_id;
    t->special[TESS__BOS] = control_id(self, self->model.bos_piece, "<s>");
    t->special[TESS__EOS] = control_id(self, self->model.eos_piece, "</s>");
    t->special[TESS__PAD] = control_id(self, self->model.pad_piece, "<pad>");
    if (t->special[TESS__EOS] >= 0) {
        t->suffix[t->n_suffix++] = t->special[TESS__EOS];
    }
}

static const tess__tokenizer_kind spm_kind = {
    close_spm, encode, tess__spm_decode, piece_of, find, MAX_TEXT_BYTES,
};

tess_status tess__spm_open(tess_tokenizer *t)
{
    tess__spm *self = tess_alloc(sizeof(*self));
    if (self == NULL) {
        return TESS_NOMEM;
    }
    t->kind = &spm_kind;
    t->self = self;
    TESS_TRY(tess__spm_init(self, t->files[0].bytes, t->files[0].n_bytes));
    t->name = tess__spm_type(self);
    t->n_vocab = (int32_t)self->model.n_pieces;
    tess__spm_special(self, t);
    return hash_content(self, t);
}

tess_status tess__spm_word_encode(const tess__pipe *p, tess__run *r, const char *word, size_t n)
{
    return tess__spm_encode(&p->spm, r, word, n);
}
