/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a tokenizer: the model's file, the tries and numbers derived from it, its fingerprint.
 *
 * A kind of model is a row of a table; everything but the search for pieces is common. */
#include "text/spm.h"

#include <float.h>
#include <string.h>

#define MAX_MODEL_BYTES ((size_t)512 << 20)

typedef struct kind {
    const char *name;
    tess__encode_fn *encode; /* NULL: not offered */
} kind;
static const kind kinds[] = {
    [1] = {"unigram", tess__unigram_encode},
    [2] = {"bpe", tess__bpe_encode},
    [3] = {"word", NULL},
    [4] = {"char", NULL},
};

/* ---- opening ---------------------------------------------------------------------------- */

static tess_status pick_kind(tess_tokenizer *t)
{
    uint64_t type = t->model.model_type;
    if (type == 0 || type >= (uint64_t)TESS_COUNT(kinds)) {
        return TESS_FAIL(TESS_FORMAT, "unknown model type %llu", (unsigned long long)type);
    }
    if (kinds[type].encode == NULL) {
        return TESS_FAIL(TESS_UNSUPPORTED, "the model is of type \"%s\": expected unigram or bpe",
                         kinds[type].name);
    }
    t->kind = kinds[type].name;
    t->encode = kinds[type].encode;
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

static tess_status build_tries(tess_tokenizer *t)
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

static void measure(tess_tokenizer *t)
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
static int32_t control_id(const tess_tokenizer *t, tess_bytes piece, const char *fallback)
{
    const char *text = piece.n_bytes > 0 ? (const char *)piece.data : fallback;
    size_t n = piece.n_bytes > 0 ? strnlen(text, piece.n_bytes) : strlen(fallback);
    int32_t id = tess__trie_find(&t->reserved, text, n);
    return id >= 0 && t->model.pieces[id].type == TESS__PIECE_CONTROL ? id : -1;
}

static void hash_u32(tess_hash128_state *h, uint32_t v)
{
    uint8_t b[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    tess_hash128_add(h, b, sizeof(b));
}

static void hash_bytes(tess_hash128_state *h, const void *data, size_t n_bytes)
{
    hash_u32(h, (uint32_t)n_bytes);
    tess_hash128_add(h, data, n_bytes);
}

static tess_status hash_content(tess_tokenizer *t)
{
    const tess__spm_model *m = &t->model;
    tess_hash128_state *h = tess_hash128_new();
    if (h == NULL) {
        return TESS_NOMEM;
    }
    hash_bytes(h, t->kind, strlen(t->kind));
    hash_u32(h, (uint32_t)(m->byte_fallback | m->suffix_space << 1 | m->add_dummy_prefix << 2 |
                           m->remove_extra_spaces << 3 | m->escape_spaces << 4));
    hash_u32(h, (uint32_t)t->bos_id);
    hash_u32(h, (uint32_t)t->eos_id);
    hash_u32(h, (uint32_t)t->pad_id);
    hash_bytes(h, m->charsmap.data, m->charsmap.n_bytes);
    hash_u32(h, (uint32_t)m->n_pieces);
    for (size_t i = 0; i < m->n_pieces; i++) {
        uint32_t bits;
        memcpy(&bits, &m->pieces[i].score, sizeof(bits));
        hash_u32(h, bits);
        hash_u32(h, m->pieces[i].type);
        hash_bytes(h, m->pieces[i].text, m->pieces[i].n_bytes);
    }
    tess_hash128_finish(h, t->hash);
    return TESS_OK;
}

static tess_status prepare(tess_tokenizer *t, uint8_t *bytes, size_t n_bytes)
{
    TESS_TRY(tess__spm_model_read(&t->model, bytes, n_bytes));
    TESS_TRY(pick_kind(t));
    TESS_TRY(build_tries(t));
    TESS_TRY(tess__spm_norm_init(&t->norm, &t->model, &t->symbols));
    measure(t);
    t->bos_id = control_id(t, t->model.bos_piece, "<s>");
    t->eos_id = control_id(t, t->model.eos_piece, "</s>");
    t->pad_id = control_id(t, t->model.pad_piece, "<pad>");
    return hash_content(t);
}

/* Takes ownership of bytes. */
static tess_status open_owned(uint8_t *bytes, size_t n_bytes, const char *name,
                              tess_tokenizer **out)
{
    tess_tokenizer *t = tess_alloc(sizeof(*t));
    if (t == NULL) {
        tess_free(bytes);
        return TESS_NOMEM;
    }
    tess_status st = prepare(t, bytes, n_bytes);
    if (st != TESS_OK) {
        tess_tokenizer_close(t);
        return tess_error_prefix(st, "%s", name);
    }
    *out = t;
    return TESS_OK;
}

tess_status tess_tokenizer_open(const char *path, tess_tokenizer **out)
{
    uint8_t *bytes;
    size_t n_bytes;
    *out = NULL;
    TESS_TRY(tess_file_read(path, MAX_MODEL_BYTES, &bytes, &n_bytes));
    return open_owned(bytes, n_bytes, path, out);
}

tess_status tess_tokenizer_open_bytes(const void *data, size_t n_bytes, const char *name,
                                      tess_tokenizer **out)
{
    *out = NULL;
    if (n_bytes > MAX_MODEL_BYTES) {
        return TESS_FAIL(TESS_FORMAT, "%s: a model of %zu bytes, the limit is %zu", name, n_bytes,
                         MAX_MODEL_BYTES);
    }
    uint8_t *bytes = tess_alloc(n_bytes);
    if (bytes == NULL) {
        return TESS_NOMEM;
    }
    if (n_bytes > 0) {
        memcpy(bytes, data, n_bytes);
    }
    return open_owned(bytes, n_bytes, name, out);
}

void tess_tokenizer_close(tess_tokenizer *t)
{
    if (t == NULL) {
        return;
    }
    tess__spm_norm_deinit(&t->norm);
    tess__trie_deinit(&t->pieces);
    tess__trie_deinit(&t->reserved);
    tess__trie_deinit(&t->symbols);
    tess__spm_model_deinit(&t->model);
    tess_free(t);
}

tess_status tess_tokenizer_save(const tess_tokenizer *t, const char *path)
{
    return tess_file_write(path, t->model.bytes, t->model.n_bytes);
}

/* ---- looking ---------------------------------------------------------------------------- */

int32_t tess_tokenizer_n_vocab(const tess_tokenizer *t)
{
    return (int32_t)t->model.n_pieces;
}

int32_t tess_tokenizer_unk_id(const tess_tokenizer *t)
{
    return t->model.unk_id;
}

int32_t tess_tokenizer_bos_id(const tess_tokenizer *t)
{
    return t->bos_id;
}

int32_t tess_tokenizer_eos_id(const tess_tokenizer *t)
{
    return t->eos_id;
}

int32_t tess_tokenizer_pad_id(const tess_tokenizer *t)
{
    return t->pad_id;
}

const char *tess_tokenizer_kind(const tess_tokenizer *t)
{
    return t->kind;
}

tess_bytes tess_tokenizer_piece(const tess_tokenizer *t, int32_t id)
{
    if (id < 0 || (size_t)id >= t->model.n_pieces) {
        return (tess_bytes){0};
    }
    const tess__piece *p = &t->model.pieces[id];
    return (tess_bytes){(const uint8_t *)p->text, p->n_bytes};
}

int32_t tess_tokenizer_find(const tess_tokenizer *t, const char *piece, size_t n_bytes)
{
    int32_t id = tess__trie_find(&t->pieces, piece, n_bytes);
    return id >= 0 ? id : tess__trie_find(&t->reserved, piece, n_bytes);
}

const char *tess_tokenizer_hash(const tess_tokenizer *t)
{
    return t->hash;
}
