/* SPDX-License-Identifier: Apache-2.0 */
/* The model of a tokenizer.json: WordPiece, BPE or Unigram, with the spellings that versions of
 * `tokenizers` have written: merges as "a b" or ["a", "b"], a missing type. */
#include "text/pipe_json.h"

#include <math.h>
#include <string.h>

/* {"piece": id, ...} */
tess_status tess__pipe_read_dictionary(tess__pipe *p, const tess_json *vocab)
{
    if (tess_json_kind_of(vocab) != TESS_JSON_OBJECT) {
        return TESS_FAIL(TESS_FORMAT, "vocab: expected an object of pieces and ids");
    }
    /* Holes are paid for in memory: no more of them than pieces, some thousands aside. */
    int64_t most = (int64_t)tess_json_count(vocab) * 2 + 65536;
    for (size_t i = 0; i < tess_json_count(vocab); i++) {
        const char *piece;
        const tess_json *id = tess_json_member(vocab, i, &piece);
        if (tess_json_kind_of(id) != TESS_JSON_INT) {
            return TESS_FAIL(TESS_FORMAT, "vocab: the id of \"%.40s\": expected a whole number",
                             piece);
        }
        if (tess_json_int(id, 0) > most) {
            return TESS_FAIL(TESS_FORMAT,
                             "vocab: \"%.40s\" has id %lld in a vocabulary of %zu pieces: expected "
                             "0 to %lld",
                             piece, (long long)tess_json_int(id, 0), tess_json_count(vocab),
                             (long long)most);
        }
        tess_bytes copy = tess__pipe_copy(p, piece, strlen(piece));
        if (copy.data == NULL) {
            return TESS_NOMEM;
        }
        tess_status st = tess__vocab_put(&p->vocab, tess_json_int(id, -1), copy);
        if (st != TESS_OK) {
            return tess_error_prefix(st, "vocab");
        }
    }
    return tess__vocab_build(&p->vocab);
}

/* An optional string; absent or null: "". */
static tess_status read_affix(tess__pipe *p, const tess_json *model, const char *key,
                              tess_bytes *out)
{
    if (tess_json_kind_of(tess_json_get(model, key)) == TESS_JSON_NULL) {
        return TESS_OK;
    }
    return tess__json_text(p, model, key, out);
}

/* ---- WordPiece -------------------------------------------------------------------------- */

tess_status tess__pipe_set_wordpiece(tess__pipe *p, const char *unknown)
{
    p->encode = tess__wordpiece_encode;
    p->unk_id = tess__vocab_find(&p->vocab, unknown, strlen(unknown));
    p->prefix_node =
        tess__trie_walk(&p->vocab.trie, 0, (const char *)p->prefix.data, p->prefix.n_bytes);
    if (p->unk_id < 0) {
        return TESS_FAIL(TESS_FORMAT, "the unknown token \"%.40s\" is not in the vocabulary",
                         unknown);
    }
    return TESS_OK;
}

static tess_status read_wordpiece(tess__pipe *p, const tess_json *model)
{
    TESS_TRY(tess__pipe_read_dictionary(p, tess_json_get(model, "vocab")));
    p->prefix = (tess_bytes){(const uint8_t *)"##", 2};
    TESS_TRY(read_affix(p, model, "continuing_subword_prefix", &p->prefix));
    int64_t most = tess_json_int(tess_json_get(model, "max_input_chars_per_word"), 100);
    if (most < 1 || most > TESS__MAX_PIECE_BYTES) {
        return TESS_FAIL(TESS_FORMAT, "max_input_chars_per_word: expected 1 to %d, found %lld",
                         TESS__MAX_PIECE_BYTES, (long long)most);
    }
    p->max_word_chars = (size_t)most;
    return tess__pipe_set_wordpiece(p,
                                    tess_json_string(tess_json_get(model, "unk_token"), "[UNK]"));
}

/* ---- BPE -------------------------------------------------------------------------------- */

/* "a b" or ["a", "b"]; the pieces borrowed. */
static tess_status split_merge(const tess_json *v, tess_bytes *left, tess_bytes *right)
{
    const char *both = tess_json_string(v, NULL), *a, *b;
    size_t n_a;
    if (both != NULL) {
        const char *space = strchr(both, ' ');
        a = both;
        b = space != NULL ? space + 1 : "";
        n_a = space != NULL ? (size_t)(space - both) : 0;
    } else {
        a = tess_json_string(tess_json_at(v, 0), "");
        b = tess_json_count(v) == 2 ? tess_json_string(tess_json_at(v, 1), "") : "";
        n_a = strlen(a);
    }
    *left = (tess_bytes){(const uint8_t *)a, n_a};
    *right = (tess_bytes){(const uint8_t *)b, strlen(b)};
    if (n_a == 0 || *b == 0) {
        return TESS_FAIL(TESS_FORMAT, "expected \"a b\" or [\"a\", \"b\"]");
    }
    return TESS_OK;
}

tess_status tess__pipe_add_merge(tess__pipe *p, uint32_t rank, tess_bytes left, tess_bytes right,
                                 tess_buf *temp)
{
    size_t n_prefix = p->prefix.n_bytes;
    n_prefix = right.n_bytes > n_prefix && n_prefix > 0 &&
                       memcmp(right.data, p->prefix.data, n_prefix) == 0
                   ? n_prefix
                   : 0;
    tess_buf_clear(temp);
    tess_buf_add(temp, left.data, left.n_bytes);
    tess_buf_add(temp, right.data + n_prefix, right.n_bytes - n_prefix);
    TESS_TRY(tess_buf_check(temp));
    tess__pair pair = {
        .left = tess__vocab_find(&p->vocab, (const char *)left.data, left.n_bytes),
        .right = tess__vocab_find(&p->vocab, (const char *)right.data, right.n_bytes),
        .rank = rank,
        .id = tess__vocab_find(&p->vocab, temp->data, temp->n_bytes),
    };
    if (pair.left < 0 || pair.right < 0 || pair.id < 0) {
        tess_bytes missing = pair.left < 0 ? left : pair.right < 0 ? right : (tess_bytes){0};
        missing = missing.data != NULL ? missing
                                       : (tess_bytes){(const uint8_t *)temp->data, temp->n_bytes};
        return TESS_FAIL(TESS_FORMAT, "\"%.*s\" is not in the vocabulary",
                         (int)(missing.n_bytes < 60 ? missing.n_bytes : 60), missing.data);
    }
    tess__pairs_add(&p->pairs, pair);
    return TESS_OK;
}

static tess_status read_merges(tess__pipe *p, const tess_json *merges)
{
    if (tess_json_kind_of(merges) != TESS_JSON_ARRAY ||
        tess_json_count(merges) > (size_t)4 * TESS__MAX_VOCAB) {
        return TESS_FAIL(TESS_FORMAT, "merges: expected a list");
    }
    size_t n = tess_json_count(merges);
    TESS_TRY(tess__pairs_init(&p->pairs, n));
    tess_buf temp = {0};
    tess_status st = TESS_OK;
    for (size_t i = 0; st == TESS_OK && i < n; i++) {
        tess_bytes left, right;
        st = split_merge(tess_json_at(merges, i), &left, &right);
        st = st ? st : tess__pipe_add_merge(p, (uint32_t)i, left, right, &temp);
        st = st ? tess_error_prefix(st, "merges[%zu]", i) : TESS_OK;
    }
    tess_buf_deinit(&temp);
    return st;
}

tess_status tess__pipe_set_bpe(tess__pipe *p, const char *unknown)
{
    p->encode = tess__merges_encode;
    p->prefix_node =
        tess__trie_walk(&p->vocab.trie, 0, (const char *)p->prefix.data, p->prefix.n_bytes);
    if (unknown == NULL) {
        return TESS_OK;
    }
    p->unk_id = tess__vocab_find(&p->vocab, unknown, strlen(unknown));
    return p->unk_id >= 0
               ? TESS_OK
               : TESS_FAIL(TESS_FORMAT, "the unknown token \"%.40s\" is not in the vocabulary",
                           unknown);
}

static tess_status read_bpe(tess__pipe *p, const tess_json *model)
{
    if (tess_json_real(tess_json_get(model, "dropout"), 0) != 0) {
        return TESS_FAIL(TESS_UNSUPPORTED, "dropout: encoding would be random; set it to null");
    }
    TESS_TRY(tess__pipe_read_dictionary(p, tess_json_get(model, "vocab")));
    TESS_TRY(read_affix(p, model, "continuing_subword_prefix", &p->prefix));
    TESS_TRY(read_affix(p, model, "end_of_word_suffix", &p->suffix));
    TESS_TRY(tess__json_flag(model, "fuse_unk", false, &p->fuse_unk));
    TESS_TRY(tess__json_flag(model, "byte_fallback", false, &p->byte_fallback));
    bool ignore_merges;
    TESS_TRY(tess__json_flag(model, "ignore_merges", false, &ignore_merges));
    p->whole_from = ignore_merges ? 0 : INT32_MAX;
    TESS_TRY(read_merges(p, tess_json_get(model, "merges")));
    return tess__pipe_set_bpe(p, tess_json_string(tess_json_get(model, "unk_token"), NULL));
}

/* ---- unigram ---------------------------------------------------------------------------- */

tess_status tess__pipe_set_unigram(tess__pipe *p, int64_t unk_id)
{
    double least = INFINITY;
    p->encode = tess__lattice_encode;
    if (unk_id < 0 || (size_t)unk_id >= p->vocab.n) {
        return TESS_FAIL(TESS_FORMAT, "unk_id: expected 0 to %zu, found %lld", p->vocab.n - 1,
                         (long long)unk_id);
    }
    p->unk_id = (int32_t)unk_id;
    for (size_t i = 0; i < p->vocab.n; i++) {
        if (!isfinite(p->scores[i])) {
            return TESS_FAIL(TESS_FORMAT, "the score of piece %zu is not finite", i);
        }
        least = p->scores[i] < least ? p->scores[i] : least;
    }
    p->unk_score = least - 10.0;
    return TESS_OK;
}

static tess_status read_unigram(tess__pipe *p, const tess_json *model)
{
    const tess_json *vocab = tess_json_get(model, "vocab");
    size_t n = tess_json_count(vocab);
    if (tess_json_kind_of(vocab) != TESS_JSON_ARRAY || n == 0) {
        return TESS_FAIL(TESS_FORMAT, "vocab: expected a list of pieces and scores");
    }
    p->scores = tess_alloc_array(n, sizeof(*p->scores));
    if (p->scores == NULL) {
        return TESS_NOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        const tess_json *row = tess_json_at(vocab, i);
        const char *piece = tess_json_string(tess_json_at(row, 0), NULL);
        p->scores[i] = tess_json_real(tess_json_at(row, 1), NAN);
        if (piece == NULL || isnan(p->scores[i])) {
            return TESS_FAIL(TESS_FORMAT, "vocab[%zu]: expected [\"piece\", score]", i);
        }
        tess_bytes copy = tess__pipe_copy(p, piece, strlen(piece));
        if (copy.data == NULL) {
            return TESS_NOMEM;
        }
        TESS_TRY(tess__vocab_put(&p->vocab, (int64_t)i, copy));
    }
    TESS_TRY(tess__vocab_build(&p->vocab));
    TESS_TRY(tess__json_flag(model, "byte_fallback", false, &p->byte_fallback));
    return tess__pipe_set_unigram(p, tess_json_int(tess_json_get(model, "unk_id"), -1));
}

/* ---- the table -------------------------------------------------------------------------- */

typedef struct model_type {
    const char *type, *name;
    tess_status (*read)(tess__pipe *p, const tess_json *model);
} model_type;
static const model_type types[] = {
    {"WordPiece", "wordpiece", read_wordpiece},
    {"BPE", "bpe", read_bpe},
    {"Unigram", "unigram", read_unigram},
};

/* Files before 2020 leave the type out. */
static const char *guess_type(const tess_json *model)
{
    const tess_json *vocab = tess_json_get(model, "vocab");
    return tess_json_kind_of(vocab) == TESS_JSON_ARRAY    ? "Unigram"
           : tess_json_get(model, "merges") != NULL       ? "BPE"
           : tess_json_kind_of(vocab) == TESS_JSON_OBJECT ? "WordPiece"
                                                          : "(no type)";
}

tess_status tess__pipe_read_model(tess__pipe *p, const tess_json *model, const char **out_name)
{
    const char *type = tess_json_string(tess_json_get(model, "type"), NULL);
    type = type != NULL ? type : guess_type(model);
    for (int64_t i = 0; i < TESS_COUNT(types); i++) {
        if (strcmp(types[i].type, type) == 0) {
            tess_status st = types[i].read(p, model);
            *out_name = types[i].name;
            return st != TESS_OK ? tess_error_prefix(st, "model %s", type) : TESS_OK;
        }
    }
    return TESS_FAIL(TESS_UNSUPPORTED, "model %s is not known", type);
}
