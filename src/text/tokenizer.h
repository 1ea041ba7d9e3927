/* SPDX-License-Identifier: Apache-2.0 */
/* What every kind of tokenizer shares: the files it came from, its special ids and template, one
 * run of encoding.  A kind is a table of functions over its own state:
 *
 *   spm.c    a bare SentencePiece .model, with SentencePiece's own arithmetic
 *   pipe.c   normalise, split, look up, as tokenizer.json describes it; the other files that
 *            models carry (vocab.txt, vocab.json and merges.txt, bpe_simple_vocab_16e6.txt.gz, the
 *            .model of XLM-R and SigLIP) become such a description */
#ifndef TESS_TEXT_TOKENIZER_H
#define TESS_TEXT_TOKENIZER_H

#include "tessera/text.h"

typedef enum tess__special {
    TESS__UNK,
    TESS__BOS,
    TESS__EOS,
    TESS__PAD,
    TESS__CLS,
    TESS__SEP,
    TESS__MASK,
    TESS__SPECIALS,
} tess__special;

/* One call of encode. */
typedef struct tess__run {
    tess_tokenizer_scratch *s;
    tess_ids *out;
    size_t max_ids; /* of out, before the closing ids; reaching it sets `full` */
    float score;    /* SentencePiece unigram: of the best path so far */
    bool after_unk; /* SentencePiece: the last piece was unknown, the next unknown one joins it */
    bool full, no_memory;
} tess__run;
void tess__run_add(tess__run *r, int32_t id);

typedef struct tess__tokenizer_kind {
    void (*close)(void *self);
    tess_status (*encode)(const void *self, tess__run *r, const char *text, size_t n_bytes);
    /* Every id is in the vocabulary. */
    void (*decode)(const void *self, tess_buf *out, const int32_t *ids, size_t n_ids);
    tess_bytes (*piece)(const void *self, int32_t id);
    int32_t (*find)(const void *self, const char *piece, size_t n_bytes);
    size_t max_text_bytes;
} tess__tokenizer_kind;

typedef struct tess__token_file {
    char *name; /* without the directory */
    uint8_t *bytes;
    size_t n_bytes;
} tess__token_file;

enum { TESS__MAX_FILES = 4, TESS__MAX_TEMPLATE = 8 };

struct tess_tokenizer {
    const tess__tokenizer_kind *kind;
    void *self;
    const char *name; /* "unigram", "bpe", "wordpiece" */
    int32_t n_vocab;
    int32_t special[TESS__SPECIALS]; /* -1: none */
    int32_t prefix[TESS__MAX_TEMPLATE], suffix[TESS__MAX_TEMPLATE];
    size_t n_prefix, n_suffix;
    bool suffix_once; /* a text that ends with the suffix's id gets no second one */
    tess__token_file files[TESS__MAX_FILES]; /* what decides the ids, the main one first */
    size_t n_files;
    char hash[33];
};

/* Each reads its main file (files[0]) and fills everything from `kind` to n_suffix, and hash. */
tess_status tess__spm_open(tess_tokenizer *t);

/* ---- for fingerprints ---- */
void tess__hash_u32(tess_hash128_state *h, uint32_t v);
void tess__hash_bytes(tess_hash128_state *h, const void *data, size_t n_bytes);

#endif
