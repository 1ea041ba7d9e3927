/* SPDX-License-Identifier: Apache-2.0 */
/* CLIP's byte pair encoding from its own files: bpe_simple_vocab_16e6.txt.gz (or the text inside),
 * or vocab.json with merges.txt.
 *
 * Two programs use this vocabulary, and differ: OpenCLIP's SimpleTokenizer cleans a text, ignores
 * case in its pattern and knows <start_of_text>; Hugging Face's CLIPTokenizer applies NFC and knows
 * <|startoftext|>.  The gz is OpenCLIP's; the pair of files is Hugging Face's unless the caller
 * says open_clip. */
#include "base/gzip.h"
#include "text/char_class.h"
#include "text/open.h"
#include "text/pipe_json.h"

#include <string.h>

#define MAX_UNPACKED_BYTES ((size_t)64 << 20)

enum { N_MERGES = 49152 - 256 - 2 }; /* what OpenCLIP takes of the file */

static const char end_of_word[] = "</w>";

/* ---- text files of merges --------------------------------------------------------------- */

typedef struct lines {
    const char *data;
    size_t n, at;
    int64_t line;
} lines;

static bool next_line(lines *l, tess_bytes *out)
{
    if (l->at >= l->n) {
        return false;
    }
    const char *stop = memchr(l->data + l->at, '\n', l->n - l->at);
    size_t end = stop != NULL ? (size_t)(stop - l->data) : l->n, start = l->at;
    l->at = end + 1;
    l->line++;
    end -= end > start && l->data[end - 1] == '\r';
    *out = (tess_bytes){(const uint8_t *)l->data + start, end - start};
    return true;
}

/* "a b": exactly two words. */
static tess_status cut_merge(tess_bytes line, tess_bytes *left, tess_bytes *right)
{
    const uint8_t *space = memchr(line.data, ' ', line.n_bytes);
    size_t n = space != NULL ? (size_t)(space - line.data) : 0;
    *left = (tess_bytes){line.data, n};
    *right = (tess_bytes){line.data + n + 1, n > 0 ? line.n_bytes - n - 1 : 0};
    if (n == 0 || right->n_bytes == 0 || memchr(right->data, ' ', right->n_bytes) != NULL) {
        return TESS_FAIL(TESS_FORMAT, "expected two pieces");
    }
    return TESS_OK;
}

typedef tess_status merge_fn(tess__pipe *p, uint32_t rank, tess_bytes left, tess_bytes right,
                             tess_buf *temp);

/* The merges behind the first line, the last line may be empty. */
static tess_status each_merge(tess__pipe *p, lines l, size_t most, merge_fn *add)
{
    tess_buf temp = {0};
    tess_bytes line, left, right;
    tess_status st = next_line(&l, &line) ? TESS_OK : TESS_FAIL(TESS_FORMAT, "no merges");
    for (uint32_t rank = 0; st == TESS_OK && rank < most && next_line(&l, &line); rank++) {
        if (line.n_bytes == 0 && l.at >= l.n) {
            break;
        }
        st = cut_merge(line, &left, &right);
        st = st ? st : add(p, rank, left, right, &temp);
        st = st ? tess_error_prefix(st, "line %lld", (long long)l.line) : TESS_OK;
    }
    tess_buf_deinit(&temp);
    return st;
}

/* ---- OpenCLIP --------------------------------------------------------------------------- */

static tess_status put_piece(tess__pipe *p, const void *text, size_t n, const char *tail)
{
    char *copy = tess_arena_alloc(&p->arena, n + strlen(tail) + 1);
    if (copy == NULL) {
        return TESS_NOMEM;
    }
    memcpy(copy, text, n);
    memcpy(copy + n, tail, strlen(tail));
    return tess__vocab_put(&p->vocab, (int64_t)p->vocab.n,
                           (tess_bytes){(const uint8_t *)copy, n + strlen(tail)});
}

/* The letters of the 256 bytes: those that print first, then U+0100 onwards for the others. */
static tess_status put_letters(tess__pipe *p, const char *tail)
{
    char utf8[4];
    for (uint32_t c = 33; c < 256 + 68; c++) {
        if ((c > 126 && c < 161) || c == 173) {
            continue;
        }
        TESS_TRY(put_piece(p, utf8, tess__char_put(c, utf8), tail));
    }
    return TESS_OK;
}

static tess_status put_merged(tess__pipe *p, uint32_t rank, tess_bytes left, tess_bytes right,
                              tess_buf *temp)
{
    (void)rank;
    tess_buf_clear(temp);
    tess_buf_add(temp, left.data, left.n_bytes);
    tess_buf_add(temp, right.data, right.n_bytes);
    TESS_TRY(tess_buf_check(temp));
    return put_piece(p, temp->data, temp->n_bytes, "");
}

static tess_status read_simple(tess__pipe *p, const char *data, size_t n)
{
    lines all = {.data = data, .n = n};
    if (!tess_utf8_valid(data, n, true)) {
        return TESS_FAIL(TESS_FORMAT, "expected UTF-8 text");
    }
    TESS_TRY(put_letters(p, ""));
    TESS_TRY(put_letters(p, end_of_word));
    TESS_TRY(each_merge(p, all, N_MERGES, put_merged));
    size_t n_merges = p->vocab.n - 512;
    TESS_TRY(put_piece(p, "<start_of_text>", 15, ""));
    TESS_TRY(put_piece(p, "<end_of_text>", 13, ""));
    TESS_TRY(tess__vocab_build(&p->vocab));
    TESS_TRY(tess__pairs_init(&p->pairs, n_merges));
    return each_merge(p, all, N_MERGES, tess__pipe_add_merge);
}

/* The two special tokens under OpenCLIP's names. */
static tess_status rename_specials(tess__pipe *p, tess_tokenizer *t)
{
    static const char *const names[2][3] = {{"<|startoftext|>", "<start_of_text>"},
                                            {"<|endoftext|>", "<end_of_text>"}};
    for (int i = 0; i < 2; i++) {
        int32_t id = -1;
        for (int k = 0; k < 2 && id < 0; k++) {
            id = tess__vocab_find(&p->vocab, names[i][k], strlen(names[i][k]));
        }
        if (id < 0) {
            return TESS_FAIL(TESS_FORMAT, "no CLIP vocabulary: %s is not in it", names[i][0]);
        }
        p->vocab.pieces[id] = (tess_bytes){(const uint8_t *)names[i][1], strlen(names[i][1])};
        t->special[i == 0 ? TESS__BOS : TESS__EOS] = id;
        p->whole_from = id < p->whole_from ? id : p->whole_from;
    }
    tess__trie_deinit(&p->vocab.trie);
    return tess__vocab_build(&p->vocab);
}

static bool is_clip(const tess__pipe *p)
{
    return p->encode == tess__merges_encode && p->suffix.n_bytes == 4 && p->prefix.n_bytes == 0 &&
           memcmp(p->suffix.data, end_of_word, 4) == 0;
}

tess_status tess__clip_make_open(tess__pipe *p, tess_tokenizer *t)
{
    if (!is_clip(p)) {
        return TESS_FAIL(TESS_FORMAT,
                         "open_clip: expected CLIP's byte pair encoding with \"</w>\"");
    }
    TESS_TRY(rename_specials(p, t));
    tess__step *words = tess__pipe_add_split(p, tess__split_clip, "Split");
    tess__step *bytes = tess__pipe_add_split(p, tess__split_bytes, "ByteLevel");
    if (words == NULL || bytes == NULL) {
        return TESS_UNSUPPORTED;
    }
    words->flags = TESS__CLIP_SPECIALS | TESS__CLIP_OPEN;
    p->clean = p->clean != TESS_CLIP_CLEAN_NONE ? p->clean : TESS_CLIP_CLEAN_LOWER;
    p->unk_id = -1;
    t->special[TESS__PAD] = 0;
    t->prefix[t->n_prefix++] = t->special[TESS__BOS];
    t->suffix[t->n_suffix++] = t->special[TESS__EOS];
    return tess__pipe_finish(p, t, "bpe");
}

static tess_status build_simple(tess__pipe *p, tess_tokenizer *t)
{
    const tess__token_file *f = &t->files[0];
    p->suffix = (tess_bytes){(const uint8_t *)end_of_word, 4};
    if (f->n_bytes < 2 || f->bytes[0] != 0x1f) {
        TESS_TRY(read_simple(p, (const char *)f->bytes, f->n_bytes));
    } else {
        uint8_t *text;
        size_t n_text;
        TESS_TRY(tess__gunzip(f->bytes, f->n_bytes, MAX_UNPACKED_BYTES, &text, &n_text));
        tess_status st = tess_utf8_valid((const char *)text, n_text, true) && n_text > 0 &&
                                 strstr((const char *)text, "bpe_simple_vocab") != NULL
                             ? read_simple(p, (const char *)text, n_text)
                             : TESS_FAIL(TESS_FORMAT, "gzip data, but no bpe_simple_vocab in it: "
                                                      "if it is a packed model, unpack it first");
        tess_free(text);
        TESS_TRY(st);
    }
    TESS_TRY(tess__pipe_set_bpe(p, NULL));
    return tess__clip_make_open(p, t);
}

/* ---- Hugging Face ----------------------------------------------------------------------- */

static tess_status add_hf_steps(tess__pipe *p)
{
    tess__step *nfc = tess__pipe_add_normal(p, tess__normal_nfc, "NFC");
    tess__step *spaces = tess__pipe_add_normal(p, tess__normal_replace_spaces, "Replace");
    tess__step *lower = tess__pipe_add_normal(p, tess__normal_lower, "Lowercase");
    tess__step *words = tess__pipe_add_split(p, tess__split_clip, "Split");
    tess__step *bytes = tess__pipe_add_split(p, tess__split_bytes, "ByteLevel");
    if (!nfc || !spaces || !lower || !words || !bytes) {
        return TESS_UNSUPPORTED;
    }
    spaces->flags = 1;
    spaces->to = (tess_bytes){(const uint8_t *)" ", 1};
    words->flags = TESS__CLIP_SPECIALS;
    bytes->flags = TESS__BYTES_REGEX;
    return TESS_OK;
}

static int32_t find(const void *self, const char *piece, size_t n_bytes)
{
    return tess__pipe_find(self, piece, n_bytes);
}

static tess_status make_hf(tess__pipe *p, tess_tokenizer *t, const tess__open_options *o)
{
    TESS_TRY(add_hf_steps(p));
    tess__fill_special(t, o, find, p);
    int32_t bos = t->special[TESS__BOS], eos = t->special[TESS__EOS];
    if (bos < 0 || eos < 0) {
        return TESS_FAIL(TESS_FORMAT, "no begin or end token in the vocabulary");
    }
    if (tess__config_token(o, "pad_token") == NULL) {
        t->special[TESS__PAD] = eos;
    }
    TESS_TRY(tess__pipe_add_specials(p, t));
    t->prefix[t->n_prefix++] = bos;
    t->suffix[t->n_suffix++] = eos;
    return tess__pipe_finish(p, t, "bpe");
}

static size_t count_lines(const tess__token_file *f)
{
    size_t n = 1;
    for (size_t i = 0; i < f->n_bytes; i++) {
        n += f->bytes[i] == '\n';
    }
    return n;
}

static tess_status build_pair(tess__pipe *p, tess_tokenizer *t, const tess__open_options *o)
{
    const tess__token_file *vocab = &t->files[0], *merges = &t->files[1];
    tess_json_doc *doc;
    TESS_TRY(tess_json_parse((const char *)vocab->bytes, vocab->n_bytes, "vocab.json", &doc));
    tess_status st = tess__pipe_read_dictionary(p, tess_json_root(doc));
    tess_json_free(doc);
    TESS_TRY(st);
    if (!tess_utf8_valid((const char *)merges->bytes, merges->n_bytes, true)) {
        return TESS_FAIL(TESS_FORMAT, "merges.txt: expected UTF-8 text");
    }
    lines all = {.data = (const char *)merges->bytes, .n = merges->n_bytes};
    TESS_TRY(tess__pairs_init(&p->pairs, count_lines(merges)));
    st = each_merge(p, all, SIZE_MAX, tess__pipe_add_merge);
    if (st != TESS_OK) {
        return tess_error_prefix(st, "merges.txt");
    }
    p->suffix = (tess_bytes){(const uint8_t *)end_of_word, 4};
    const char *unknown = tess__config_token(o, "unk_token");
    TESS_TRY(tess__pipe_set_bpe(p, unknown != NULL ? unknown : "<|endoftext|>"));
    return o->user.open_clip ? tess__clip_make_open(p, t) : make_hf(p, t, o);
}

tess_status tess__clip_open(tess_tokenizer *t, const tess__open_options *o)
{
    tess__pipe *p = tess__pipe_new();
    if (p == NULL) {
        return TESS_NOMEM;
    }
    p->clean = o->user.clean;
    tess_status st = t->n_files > 1 ? build_pair(p, t, o) : build_simple(p, t);
    if (st != TESS_OK) {
        t->kind = NULL;
        tess__pipe_free(p);
    }
    return st;
}
