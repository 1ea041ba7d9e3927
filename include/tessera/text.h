/* SPDX-License-Identifier: Apache-2.0 */
/* text: a sentence -> numbers. */
#ifndef TESSERA_TEXT_H
#define TESSERA_TEXT_H

#include "tessera/base.h"

/* ---- tokenizers ---- */

/* Token ids; zeroed is empty. */
typedef struct tess_ids {
    int32_t *ids;
    size_t n_ids, cap_ids;
} tess_ids;
void tess_ids_deinit(tess_ids *ids);

/* A tokenizer: text -> ids, the ids that its home library gives.
 *
 *   file                            home
 *   SentencePiece .model            SentencePiece 0.1.97: unigram, BPE, byte fallback
 *   tokenizer.json                  Hugging Face tokenizers: Unigram, BPE, WordPiece
 *   vocab.txt                       Hugging Face BertTokenizer (WordPiece)
 *   vocab.json with merges.txt      Hugging Face CLIPTokenizer (BPE)
 *   bpe_simple_vocab_16e6.txt.gz    OpenCLIP's SimpleTokenizer (BPE, cleaning, ftfy but its
 * mojibake)
 *
 * What a tokenizer.json asks for and is not known is refused by name.  Immutable once open: any
 * number of threads may use one. */
typedef struct tess_tokenizer tess_tokenizer;

/* OpenCLIP's `clean`, done to a text before anything else.  Each begins with what it calls basic
 * (HTML character references replaced, twice; white space stripped). */
typedef enum tess_clip_clean {
    TESS_CLIP_CLEAN_NONE,
    TESS_CLIP_CLEAN_WHITESPACE,   /* every run of white space one space */
    TESS_CLIP_CLEAN_LOWER,        /* and Python's lower() */
    TESS_CLIP_CLEAN_CANONICALIZE, /* and ASCII punctuation removed, "_" a space first: SigLIP */
} tess_clip_clean;
/* TESS_INVALID: not "whitespace", "lower" or "canonicalize". */
TESS_MUST_USE tess_status tess_clip_clean_find(const char *name, tess_clip_clean *out);

typedef struct tess_tokenizer_options {
    tess_clip_clean clean; /* OpenCLIP's HFTokenizer(clean=...); NONE: as the file alone says */
    /* A CLIP vocabulary is used as OpenCLIP's SimpleTokenizer would, whatever file it lies in:
     * cleaned by `clean` (NONE: LOWER), padded with 0.  Without it vocab.json and tokenizer.json
     * are used as Hugging Face does. */
    bool open_clip;
} tess_tokenizer_options;

/* Opens a file by what it holds; a directory as tess_tokenizer_open_dir does.  TESS_FORMAT: not a
 * tokenizer, or a damaged one (the message says what the file looks like).  TESS_UNSUPPORTED:
 * understood but not offered, by name. */
TESS_MUST_USE tess_status tess_tokenizer_open(const char *path, tess_tokenizer **out);
/* The same from memory (copied); `name` is for messages. */
TESS_MUST_USE tess_status tess_tokenizer_open_bytes(const void *data, size_t n_bytes,
                                                    const char *name, tess_tokenizer **out);
/* Opens a model directory's tokenizer: the first of tokenizer.json, sentencepiece.bpe.model,
 * spiece.model, tokenizer.model, spm.model, vocab.txt, vocab.json with merges.txt,
 * bpe_simple_vocab_16e6.txt.gz that is there, and tokenizer_config.json and special_tokens_map.json
 * where they decide something (special tokens; lower-casing of vocab.txt; the class of a .model).
 * sentencepiece.bpe.model is XLM-R's: <s> <pad> </s> <unk> are 0 to 3, its pieces follow from 4,
 * <mask> is last.  `opts` NULL: all defaults.  TESS_IO: no such file, with what was looked for. */
TESS_MUST_USE tess_status tess_tokenizer_open_dir(const char *dir,
                                                  const tess_tokenizer_options *opts,
                                                  tess_tokenizer **out);
void tess_tokenizer_close(tess_tokenizer *t);
/* Writes the very bytes that were opened to `path`.  Where several files decide the ids, the others
 * go beside it under the names they had; opening the directory then gives the same tokenizer. */
TESS_MUST_USE tess_status tess_tokenizer_save(const tess_tokenizer *t, const char *path);
/* Writes all of them into a directory, which must exist, under the names they had. */
TESS_MUST_USE tess_status tess_tokenizer_save_dir(const tess_tokenizer *t, const char *dir);
/* Appends a tokenizer.json that gives the ids of tess_text_clean and this SentencePiece unigram
 * model with its end id.  TESS_UNSUPPORTED: what Hugging Face's Unigram would cut otherwise (BPE,
 * byte fallback, pieces of several words, user-defined pieces). */
TESS_MUST_USE tess_status tess_tokenizer_write_json(const tess_tokenizer *t, tess_buf *out);
/* The name of the i-th of these files, the main one first; NULL behind the last.  A tokenizer
 * opened from memory has one, called what it was called. */
const char *tess_tokenizer_file(const tess_tokenizer *t, size_t i);

/* Working memory of one thread.  Worth keeping: with it, encoding settles into no allocation. */
typedef struct tess_tokenizer_scratch tess_tokenizer_scratch;
tess_tokenizer_scratch *tess_tokenizer_scratch_new(void); /* NULL: no memory */
void tess_tokenizer_scratch_free(tess_tokenizer_scratch *s);

typedef struct tess_encode_options {
    bool add_bos, add_eos; /* TESS_INVALID when the model has no such id */
    /* The model's own template: [CLS] ... [SEP], <s> ... </s>, ... </s>, as its files say; for a
     * bare .model its end id, where it has one.  Not together with add_bos or add_eos. */
    bool add_special;
    /* At most this many ids, begin and end included; a longer sequence is cut before the end ids,
     * which stay.  0: no limit. */
    size_t max_ids;
    tess_tokenizer_scratch *scratch; /* NULL: the call makes its own */
} tess_encode_options;

/* Appends the ids of a text to *out (set n_ids = 0 to start over).  Any bytes are text: ill-formed
 * UTF-8 becomes U+FFFD, a byte at a time in SentencePiece's models, else a maximal subpart at a
 * time as in Python's errors="replace".  `opts` NULL: all defaults. Unigram, WordPiece: O(n *
 * longest piece); BPE: O(n log n); memory O(n), or of the longest word where no SentencePiece piece
 * crosses a space.  n_bytes at most 64 MiB for a SentencePiece model, 16 MiB for the others
 * (TESS_INVALID).  On failure *out is as before. */
TESS_MUST_USE tess_status tess_tokenizer_encode(const tess_tokenizer *t, tess_ids *out,
                                                const char *text, size_t n_bytes,
                                                const tess_encode_options *opts);

/* Appends the text of ids to *out: control pieces and special tokens vanish, byte pieces are joined
 * into characters (an ill-formed byte becomes U+FFFD), spaces come back, a dummy prefix goes.
 * SentencePiece's own text for its models; for the others readable text, a tokenizer.json's
 * `decoder` is not consulted.  TESS_INVALID: an id that is not in the vocabulary. */
TESS_MUST_USE tess_status tess_tokenizer_decode(const tess_tokenizer *t, tess_buf *out,
                                                const int32_t *ids, size_t n_ids);

int32_t tess_tokenizer_n_vocab(const tess_tokenizer *t);
int32_t tess_tokenizer_unk_id(const tess_tokenizer *t);
int32_t tess_tokenizer_bos_id(const tess_tokenizer *t); /* -1: none; likewise the next ones */
int32_t tess_tokenizer_eos_id(const tess_tokenizer *t);
int32_t tess_tokenizer_pad_id(const tess_tokenizer *t);
int32_t tess_tokenizer_cls_id(const tess_tokenizer *t);
int32_t tess_tokenizer_sep_id(const tess_tokenizer *t);
int32_t tess_tokenizer_mask_id(const tess_tokenizer *t);
/* Ids that add_special puts before and behind a text. */
size_t tess_tokenizer_n_special(const tess_tokenizer *t);
/* "unigram", "bpe" or "wordpiece". */
const char *tess_tokenizer_kind(const tess_tokenizer *t);
/* The piece of an id as its vocabulary writes it (SentencePiece: spaces as U+2581; CLIP: bytes as
 * letters), not NUL-terminated; data NULL when there is no such id. */
tess_bytes tess_tokenizer_piece(const tess_tokenizer *t, int32_t id);
/* The id of exactly this piece, or -1. */
int32_t tess_tokenizer_find(const tess_tokenizer *t, const char *piece, size_t n_bytes);
/* 32 hex digits: XXH3-128 of everything that decides the ids (pieces, scores, rules, flags,
 * template), so that a model's fingerprint does not depend on how its file was serialised. */
const char *tess_tokenizer_hash(const tess_tokenizer *t);

/* ---- cleaning captions and queries ---- */

/* The longest text that tess_text_clean gives out.  A caption is some 100 bytes. */
#define TESS_TEXT_CLEAN_BYTES ((size_t)65536)

enum {
    TESS_CLEAN_FOLD = 1,     /* fold case too (NFKC of the full Unicode case folding) */
    TESS_CLEAN_TRUNCATE = 2, /* cut a longer text at a character instead of refusing it */
};

/* Replaces *out by the cleaned text: NFKC; control characters, noncharacters, byte order marks and
 * bidirectional embeddings removed; every run of white space one space, none at either end; at most
 * 30 combining marks in a row (the bound of the Stream-Safe Text Format, UAX #15; the others are
 * dropped).  Cleaning twice changes nothing.  The same function serves training, indexing and
 * queries.  O(n).
 * TESS_FORMAT: not UTF-8, with the offset.  TESS_INVALID: longer than TESS_TEXT_CLEAN_BYTES. */
TESS_MUST_USE tess_status tess_text_clean(const char *s, size_t n_bytes, unsigned flags,
                                          tess_buf *out);

typedef enum tess_mojibake {
    TESS_MOJIBAKE_NONE,
    TESS_MOJIBAKE_NOT_UTF8,
    TESS_MOJIBAKE_REPLACED, /* holds U+FFFD: characters were lost on the way */
    TESS_MOJIBAKE_C1,       /* holds C1 control characters: an 8-bit code page taken for Latin-1 */
    TESS_MOJIBAKE_LATIN1,   /* UTF-8 read as Latin-1 or Windows-1252: a two-letter garble for one */
    TESS_MOJIBAKE_CP1251,   /* UTF-8 read as Windows-1251 */
    TESS_MOJIBAKE_8BIT,     /* another 8-bit encoding (TSCII, say) read as Latin-1 */
    TESS_MOJIBAKE_KINDS,
} tess_mojibake;

/* Whether a caption was damaged by a wrong decoding, and how.  Judges from the text alone and keeps
 * silent when in doubt: of CLDR's 871,908 names and keywords in its 138
 * locales none is reported. */
tess_mojibake tess_text_mojibake(const char *s, size_t n_bytes);
/* "none", "not-utf8", "replaced", ... for counts and logs. */
const char *tess_mojibake_name(tess_mojibake reason);

#endif
