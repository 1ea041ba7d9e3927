/* SPDX-License-Identifier: Apache-2.0 */
/* The model of a tokenizer.json: WordPiece, BPE or Unigram, with the spellings that versions of
 * `tokenizers` have written: merges as "a b" or ["a", "b"], a missing type. */
#include "text/pipe_json.h"

#include <string.h>

/* {"piece": id, ...} */
static tess_status read_dictionary(tess__pipe *p, const tess_json *vocab)
{
    if (tess_json_kind_of(vocab) != TESS_JSON_OBJECT) {
        return TESS_FAIL(TESS_FORMAT, "vocab: expected an object of pieces and ids");
    }
    for (size_t i = 0; i < tess_json_count(vocab); i++) {
        const char *piece;
        const tess_json *id = tess_json_member(vocab, i, &piece);
        if (tess_json_kind_of(id) != TESS_JSON_INT) {
            return TESS_FAIL(TESS_FORMAT, "vocab: the id of \"%.40s\": expected a whole number",
                             piece);
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
    TESS_TRY(read_dictionary(p, tess_json_get(model, "vocab")));
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

/* ---- the table -------------------------------------------------------------------------- */

typedef struct model_type {
    const char *type, *name;
    tess_status (*read)(tess__pipe *p, const tess_json *model);
} model_type;
static const model_type types[] = {
    {"WordPiece", "wordpiece", read_wordpiece},
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
