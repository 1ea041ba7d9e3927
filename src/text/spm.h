/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the SentencePiece tokenizer share: the model as read, the normaliser, and one
 * run of encoding.
 *
 *   .model --spm_model.c--> pieces, flags --spm.c--> tries, tables
 *   text --spm_norm.c--> normalised text --unigram.c | bpe.c--> (id, piece) --spm.c--> ids */
#ifndef TESS_TEXT_SPM_H
#define TESS_TEXT_SPM_H

#include "text/spm_trie.h"
#include "text/tokenizer.h"

/* U+2581, which stands for a space inside pieces. */
#define TESS__SPACE       "\xe2\x96\x81"
#define TESS__SPACE_BYTES ((size_t)3)
/* Normalised text is addressed with 32 bits; this is also the memory a hostile rule can claim. */
#define TESS__NORMAL_MAX  ((size_t)256 << 20)

typedef enum tess__piece_type { /* the numbers of the file format */
                                TESS__PIECE_NORMAL = 1,
                                TESS__PIECE_UNKNOWN = 2,
                                TESS__PIECE_CONTROL = 3,
                                TESS__PIECE_USER = 4,
                                TESS__PIECE_UNUSED = 5,
                                TESS__PIECE_BYTE = 6,
} tess__piece_type;

typedef struct tess__piece {
    const char *text; /* inside the model's bytes */
    uint32_t n_bytes;
    float score;
    uint8_t type;
    uint8_t byte; /* BYTE: which */
} tess__piece;

/* The model file as read; every slice points into the file's bytes. */
typedef struct tess__spm_model {
    tess__piece *pieces;
    size_t n_pieces, cap_pieces;
    uint64_t model_type; /* 1 unigram, 2 bpe, 3 word, 4 char */
    bool has_trainer, has_normalizer;
    bool byte_fallback, suffix_space;
    bool add_dummy_prefix, remove_extra_spaces, escape_spaces;
    tess_bytes charsmap, denormalizer;
    tess_bytes unk_surface, bos_piece, eos_piece, pad_piece;
    int32_t unk_id;
    int32_t byte_ids[256]; /* -1 without byte fallback */
    size_t n_unused;
} tess__spm_model;

/* Reads and checks a model, which borrows `bytes`.  TESS_FORMAT when the bytes are no model,
 * TESS_UNSUPPORTED for what is not offered. */
TESS_MUST_USE tess_status tess__spm_model_read(tess__spm_model *m, const uint8_t *bytes,
                                               size_t n_bytes);
void tess__spm_model_deinit(tess__spm_model *m);
static inline bool tess__piece_is_reserved(const tess__piece *p)
{
    return p->type == TESS__PIECE_UNKNOWN || p->type == TESS__PIECE_CONTROL ||
           p->type == TESS__PIECE_BYTE;
}

/* ---- normalising ------------------------------------------------------------------------ */

typedef struct tess__spm_norm {
    uint32_t *units; /* the rules' double array (darts-clone's layout); NULL: no rules */
    size_t n_units;
    const char *out; /* what they map to, NUL-delimited, inside the model's bytes */
    size_t out_bytes;
    uint8_t ascii[128];  /* how an ASCII byte may be copied without looking at the rules */
    tess__trie *symbols; /* user-defined symbols pass untouched; borrowed */
    bool add_dummy_prefix, remove_extra_spaces, escape_spaces, suffix_space;
} tess__spm_norm;

TESS_MUST_USE tess_status tess__spm_norm_init(tess__spm_norm *n, const tess__spm_model *m,
                                              tess__trie *symbols);
/* The rules alone (borrowed), for tess__spm_norm_first. */
TESS_MUST_USE tess_status tess__spm_norm_rules(tess__spm_norm *n, tess_bytes map);
void tess__spm_norm_deinit(tess__spm_norm *n);
/* What the shortest rule that is a prefix of s gives; false when none is. */
bool tess__spm_norm_first(const tess__spm_norm *n, const char *s, size_t n_bytes,
                          const char **out_text, size_t *out_bytes);

/* Growable text without tess_buf's terminator and latch: the inner loop writes into room made
 * beforehand. */
typedef struct tess__span_buf {
    char *data;
    size_t n_bytes, cap_bytes;
} tess__span_buf;
/* text (any bytes) -> *out (replaced), the text that pieces are matched against. */
TESS_MUST_USE tess_status tess__spm_norm_run(const tess__spm_norm *n, const char *text,
                                             size_t n_bytes, tess__span_buf *out);

/* ---- encoding --------------------------------------------------------------------------- */

typedef struct tess__best { /* unigram: the best way to reach a position */
    float score;
    int32_t start; /* -1: not reached */
    int32_t id;
} tess__best;

typedef struct tess__symbol { /* BPE: a piece in the making */
    uint32_t pos, n_bytes;    /* n_bytes 0: merged away */
    int32_t prev, next;
    uint32_t node; /* where its text ends in the trie of pieces, 0: not a prefix of any */
    bool frozen;
} tess__symbol;

typedef struct tess__merge { /* BPE: a pair that could become a piece */
    float score;
    int32_t left, right;
    uint32_t n_bytes, node;
} tess__merge;

typedef struct tess__span {
    uint32_t pos, n_bytes;
} tess__span;

typedef struct tess__spm_scratch {
    tess__span_buf text;
    tess__best *best;
    tess__symbol *symbols;
    tess__merge *heap;
    tess__span *spans;
    uint32_t *ends, *split; /* split: for each UNUSED id, bytes of the left half it was made of */
    size_t cap_best, cap_symbols, cap_heap, cap_spans, cap_ends, cap_split;
} tess__spm_scratch;
void tess__spm_scratch_deinit(tess__spm_scratch *s);

typedef struct tess__spm tess__spm;
typedef tess_status tess__encode_fn(const tess__spm *t, tess__run *r, const char *text,
                                    size_t n_bytes);
tess__encode_fn tess__unigram_encode, tess__bpe_encode;

struct tess__spm {
    tess__spm_model model;
    tess__spm_norm norm;
    tess__trie pieces;   /* NORMAL, USER_DEFINED and UNUSED */
    tess__trie reserved; /* the others */
    tess__trie symbols;  /* USER_DEFINED */
    tess__encode_fn *encode;
    bool space_starts_word; /* no piece has a space behind its first character */
    float unk_score, max_score;
};

TESS_MUST_USE tess_status tess__spm_init(tess__spm *t, const uint8_t *bytes, size_t n_bytes);
void tess__spm_deinit(tess__spm *t);
const char *tess__spm_type(const tess__spm *t); /* "unigram" or "bpe" */
/* Special ids and template of a bare model. */
void tess__spm_special(const tess__spm *t, tess_tokenizer *out);
void tess__spm_hash(const tess__spm *t, tess_hash128_state *h);
int32_t tess__spm_find(const tess__spm *t, const char *piece, size_t n_bytes);
TESS_MUST_USE tess_status tess__spm_encode(const tess__spm *t, tess__run *r, const char *text,
                                           size_t n_bytes);
void tess__spm_decode(const void *self, tess_buf *out, const int32_t *ids, size_t n_ids);

/* Gives out a piece: its id, its bytes when it is unknown and the model falls back to bytes,
 * nothing when it continues a run of unknown pieces. */
void tess__run_emit(const tess__spm *t, tess__run *r, int32_t id, const char *text, size_t n_bytes);

/* Bytes of the character that begins with this byte, as SentencePiece counts them: by the lead byte
 * alone. */
static inline size_t tess__char_bytes(const char *s, size_t n_left)
{
    static const uint8_t by_lead[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4};
    size_t n = by_lead[(uint8_t)*s >> 4];
    return n < n_left ? n : n_left;
}

/* Bytes of a well-formed UTF-8 character at s, 0 when there is none (n_left > 0). */
size_t tess__utf8_char(const char *s, size_t n_left);

#endif
