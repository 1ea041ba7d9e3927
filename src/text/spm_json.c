/* SPDX-License-Identifier: Apache-2.0 */
/* A SentencePiece model as a tokenizer.json, for consumers that read nothing else.
 *
 * Hugging Face's Unigram sees one word at a time where SentencePiece sees the whole text; the two
 * agree as long as no piece holds a space but at its begin.  What differs: text that spells out a
 * special token ("</s>") becomes that token there, and letters in SentencePiece; and U+2581 in a
 * text. */
#include <string.h>

#include "text/spm.h"

static const char *word_only(const tess__spm_model *m)
{
    if (m->model_type != 1) {
        return "it is no unigram model";
    }
    if (m->suffix_space || !m->add_dummy_prefix || !m->escape_spaces) {
        return "it puts spaces in another way";
    }
    for (size_t i = 0; i < m->n_pieces; i++) {
        const tess__piece *p = &m->pieces[i];
        if (p->type == TESS__PIECE_USER) {
            return "it has user-defined pieces";
        }
        if (p->n_bytes > TESS__SPACE_BYTES &&
            memmem(p->text + 1, p->n_bytes - 1, TESS__SPACE, TESS__SPACE_BYTES)) {
            return "it has pieces of several words";
        }
    }
    return m->byte_fallback || m->n_unused > 0 ? "it has byte or unused pieces" : NULL;
}

static void add_pair(tess_json_writer *w, const char *key, const char *value)
{
    tess_json_key(w, key);
    tess_json_add_string(w, value);
}

static void add_piece(tess_json_writer *w, const tess__piece *p)
{
    char *text = tess_strndup(p->text, p->n_bytes);
    tess_json_add_string(w, text);
    w->buf->failed |= !text;
    tess_free(text);
}

static void add_flag(tess_json_writer *w, const char *key, bool value)
{
    tess_json_key(w, key);
    tess_json_add_bool(w, value);
}

static void add_specials(tess_json_writer *w, const tess__spm_model *m)
{
    static const char *const off[] = {"single_word", "lstrip", "rstrip", "normalized"};
    tess_json_key(w, "added_tokens");
    tess_json_begin_array(w);
    for (size_t i = 0; i < m->n_pieces; i++) {
        if (tess__piece_is_reserved(&m->pieces[i])) {
            tess_json_begin_object(w);
            tess_json_key(w, "id");
            tess_json_add_int(w, (int64_t)i);
            tess_json_key(w, "content");
            add_piece(w, &m->pieces[i]);
            for (int64_t k = 0; k < TESS_COUNT(off); k++) {
                add_flag(w, off[k], false);
            }
            add_flag(w, "special", true);
            tess_json_end_object(w);
        }
    }
    tess_json_end_array(w);
}

static void add_base64(tess_json_writer *w, tess_bytes x)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    tess_buf b = {0};
    for (size_t i = 0; i < x.n_bytes; i += 3) {
        const size_t n = x.n_bytes - i;
        const uint32_t v = (uint32_t)x.data[i] << 16 | (n > 1 ? (uint32_t)x.data[i + 1] << 8 : 0) |
                           (n > 2 ? x.data[i + 2] : 0);
        const char four[4] = {letters[v >> 18], letters[v >> 12 & 63],
                              n > 1 ? letters[v >> 6 & 63] : '=', n > 2 ? letters[v & 63] : '='};
        tess_buf_add(&b, four, sizeof four);
    }
    tess_json_add_string(w, b.data ? b.data : "");
    w->buf->failed |= b.failed;
    tess_buf_deinit(&b);
}

/* NFKC is of tess_text_clean, which comes before the tokenizer here. */
static void add_normalizer(tess_json_writer *w, const tess__spm_model *m)
{
    tess_json_key(w, "normalizer");
    tess_json_begin_object(w);
    add_pair(w, "type", "Sequence");
    tess_json_key(w, "normalizers");
    tess_json_begin_array(w);
    tess_json_begin_object(w);
    add_pair(w, "type", "NFKC");
    tess_json_end_object(w);
    if (m->charsmap.n_bytes > 0) {
        tess_json_begin_object(w);
        add_pair(w, "type", "Precompiled");
        tess_json_key(w, "precompiled_charsmap");
        add_base64(w, m->charsmap);
        tess_json_end_object(w);
    }
    tess_json_end_array(w);
    tess_json_end_object(w);
}

static void add_metaspace(tess_json_writer *w)
{
    tess_json_begin_object(w);
    add_pair(w, "type", "Metaspace");
    add_pair(w, "replacement", TESS__SPACE);
    add_pair(w, "prepend_scheme", "always");
    add_flag(w, "split", true);
    tess_json_end_object(w);
}

static void add_splits(tess_json_writer *w)
{
    tess_json_key(w, "pre_tokenizer");
    tess_json_begin_object(w);
    add_pair(w, "type", "Sequence");
    tess_json_key(w, "pretokenizers");
    tess_json_begin_array(w);
    tess_json_begin_object(w);
    add_pair(w, "type", "WhitespaceSplit");
    tess_json_end_object(w);
    add_metaspace(w);
    tess_json_end_array(w);
    tess_json_end_object(w);
    tess_json_key(w, "decoder");
    add_metaspace(w);
}

static void add_part(tess_json_writer *w, const char *kind, const char *id, int type)
{
    tess_json_begin_object(w);
    tess_json_key(w, kind);
    tess_json_begin_object(w);
    add_pair(w, "id", id);
    tess_json_key(w, "type_id");
    tess_json_add_int(w, type);
    tess_json_end_object(w);
    tess_json_end_object(w);
}

/* Text, end id; of two texts both, each with its own. */
static void add_template(tess_json_writer *w, const char *end, int32_t end_id)
{
    tess_json_key(w, "post_processor");
    tess_json_begin_object(w);
    add_pair(w, "type", "TemplateProcessing");
    tess_json_key(w, "single");
    tess_json_begin_array(w);
    add_part(w, "Sequence", "A", 0);
    add_part(w, "SpecialToken", end, 0);
    tess_json_end_array(w);
    tess_json_key(w, "pair");
    tess_json_begin_array(w);
    add_part(w, "Sequence", "A", 0);
    add_part(w, "SpecialToken", end, 0);
    add_part(w, "Sequence", "B", 1);
    add_part(w, "SpecialToken", end, 1);
    tess_json_end_array(w);
    tess_json_key(w, "special_tokens");
    tess_json_begin_object(w);
    tess_json_key(w, end);
    tess_json_begin_object(w);
    add_pair(w, "id", end);
    tess_json_key(w, "ids");
    tess_json_begin_array(w);
    tess_json_add_int(w, end_id);
    tess_json_end_array(w);
    tess_json_key(w, "tokens");
    tess_json_begin_array(w);
    tess_json_add_string(w, end);
    tess_json_end_array(w);
    tess_json_end_object(w);
    tess_json_end_object(w);
    tess_json_end_object(w);
}

static void add_model(tess_json_writer *w, const tess__spm_model *m)
{
    tess_json_key(w, "model");
    tess_json_begin_object(w);
    add_pair(w, "type", "Unigram");
    tess_json_key(w, "unk_id");
    tess_json_add_int(w, m->unk_id);
    tess_json_key(w, "vocab");
    tess_json_begin_array(w);
    for (size_t i = 0; i < m->n_pieces; i++) {
        const tess__piece *p = &m->pieces[i];
        tess_json_begin_array(w);
        add_piece(w, p);
        tess_json_add_real(w, tess__piece_is_reserved(p) ? 0 : (double)p->score);
        tess_json_end_array(w);
    }
    tess_json_end_array(w);
    add_flag(w, "byte_fallback", false);
    tess_json_end_object(w);
}

static void write_all(tess_json_writer *w, const tess__spm_model *m, int32_t end_id)
{
    tess_json_begin_object(w);
    add_pair(w, "version", "1.0");
    tess_json_key(w, "truncation");
    tess_json_add_null(w);
    tess_json_key(w, "padding");
    tess_json_add_null(w);
    add_specials(w, m);
    add_normalizer(w, m);
    add_splits(w);
    if (end_id >= 0) {
        const tess__piece *p = &m->pieces[end_id];
        char *end = tess_strndup(p->text, p->n_bytes);
        w->buf->failed |= !end;
        add_template(w, end ? end : "", end_id);
        tess_free(end);
    }
    add_model(w, m);
    tess_json_end_object(w);
}

/* The file's own ids, and not those of a family that renumbers them. */
static bool same_ids(const tess_tokenizer *t, const tess__spm_model *m)
{
    bool same = t->n_vocab == (int32_t)m->n_pieces;
    for (size_t i = 0; same && i < m->n_pieces; i++) {
        const tess_bytes piece = tess_tokenizer_piece(t, (int32_t)i);
        same = piece.n_bytes == m->pieces[i].n_bytes &&
               memcmp(piece.data, m->pieces[i].text, piece.n_bytes) == 0;
    }
    return same;
}

tess_status tess_tokenizer_write_json(const tess_tokenizer *t, tess_buf *out)
{
    tess__spm_model m = {0};
    tess_json_writer w = {.buf = out};
    TESS_TRY(tess__spm_model_read(&m, t->files[0].bytes, t->files[0].n_bytes));
    const char *why = same_ids(t, &m) ? word_only(&m) : "its ids are not the file's";
    if (!why) {
        write_all(&w, &m, tess_tokenizer_eos_id(t));
    }
    tess__spm_model_deinit(&m);
    return why ? TESS_FAIL(TESS_UNSUPPORTED, "%s has no form as a tokenizer.json: %s",
                           t->files[0].name, why)
               : tess_buf_check(out);
}
