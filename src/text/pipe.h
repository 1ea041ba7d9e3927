/* SPDX-License-Identifier: Apache-2.0 */
/* A tokenizer as tokenizer.json describes it, in the order of Hugging Face's `tokenizers`:
 *
 *   text --clip_clean.c--> cleaned, where OpenCLIP asks for it
 *        --added.c--> added tokens cut out of the raw text, the rest in parts
 *   part --pipe_normal.c--> normalised, one step after the other
 *        --added.c--> added tokens that are matched in normalised text
 *        --pipe_split.c--> words, one pre-tokenizer after the other
 *   word --wordpiece.c | merges.c | lattice.c | spm.c--> ids
 *
 * A step is a row: the function, and what the file says about it.  Normalisers rewrite `in` to
 * `out`; pre-tokenizers cut spans of `in`, and those that change the text write `out` as well.  The
 * driver swaps the two.  Offsets into the original are not kept: nobody here asks for them. */
#ifndef TESS_TEXT_PIPE_H
#define TESS_TEXT_PIPE_H

#include "text/spm.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

/* A word in the making.  `first`: the text begins with it (Metaspace's prepend_scheme "first"). */
typedef struct tess__word {
    uint32_t pos, n_bytes;
    bool first;
} tess__word;

typedef struct tess__words {
    tess__word *words;
    size_t n, cap;
} tess__words;

typedef struct tess__bpe_symbol {
    int32_t id, prev, next;
    uint32_t n_bytes; /* 0: merged away */
} tess__bpe_symbol;

typedef struct tess__bpe_merge {
    uint32_t rank;
    int32_t pos, id;
} tess__bpe_merge;

typedef struct tess__lattice_node {
    double score;
    int32_t start, id; /* start -1: not reached */
} tess__lattice_node;

typedef struct tess__pipe_scratch {
    tess__span_buf text;         /* the input where it was ill-formed */
    tess__span_buf in, out;      /* of the step at work */
    tess__span_buf temp;         /* of one step, or of the model */
    tess__span_buf before, tail; /* tess__text_fix: to compare with; what comes after the head */
    int32_t *points;             /* normal forms: code points */
    int32_t *run;                /* normal forms: marks to be ordered */
    size_t cap_points, cap_run;
    tess__words words, cut; /* before and after a pre-tokenizer */
    tess__bpe_symbol *symbols;
    tess__bpe_merge *heap;
    tess__lattice_node *nodes;
    uint32_t *ends;
    size_t cap_symbols, cap_heap, cap_nodes, cap_ends;
} tess__pipe_scratch;
void tess__pipe_scratch_deinit(tess__pipe_scratch *s);

typedef struct tess__step tess__step;
typedef tess_status tess__step_fn(const tess__step *step, tess__pipe_scratch *s);
struct tess__step {
    tess__step_fn *run;
    const char *type;    /* as in the file */
    tess_bytes from, to; /* Replace, Prepend, Metaspace */
    unsigned flags;      /* each step's own */
    const tess__spm_norm *charsmap;
};

enum {
    TESS__MAX_STEPS = 16,
    TESS__MAX_PIECE_BYTES = 1 << 16,
    TESS__MAX_VOCAB = 1 << 24,
};

/* Flags of steps. */
enum {
    TESS__BERT_CLEAN = 1,
    TESS__BERT_CHINESE = 2,
    TESS__BERT_STRIP = 4,
    TESS__BERT_LOWER = 8,
    TESS__SIGLIP_LOWER = 1,
    TESS__STRIP_LEFT = 1,
    TESS__STRIP_RIGHT = 2,
    TESS__METASPACE_SPLIT = 1,
    TESS__METASPACE_ALWAYS = 2,
    TESS__METASPACE_FIRST = 4,
    TESS__BYTES_PREFIX = 1,
    TESS__BYTES_REGEX = 2,
    TESS__CLIP_SPECIALS = 1, /* the expression begins with the two special tokens */
    TESS__CLIP_OPEN = 2,     /* as OpenCLIP writes and compiles it */
};

typedef struct tess__added {
    tess_bytes text;
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
} tess__added;

typedef struct tess__pipe tess__pipe;
typedef tess_status tess__word_fn(const tess__pipe *p, tess__run *r, const char *word,
                                  size_t n_bytes);

struct tess__pipe {
    tess_arena arena;
    tess_clip_clean clean; /* before everything else */
    tess__step normal[TESS__MAX_STEPS], split[TESS__MAX_STEPS];
    size_t n_normal, n_split;
    tess__added *added;
    size_t n_added, cap_added;
    tess__trie added_raw, added_normal; /* values: places in `added` */
    bool added_raw_first[256], added_normal_first[256];
    tess__vocab vocab;

    tess__word_fn *encode;
    int32_t unk_id; /* -1: unknown characters vanish (BPE without unk_token) */
    /* WordPiece: before a piece that continues a word.  BPE: before and behind.  SigLIP: "<unk>" */
    tess_bytes prefix, suffix;
    size_t n_lead_ids;    /* SigLIP: ids of `prefix` before a stretch, to be cut off */
    uint32_t prefix_node; /* where `prefix` ends in the trie, 0: it is no prefix of a piece */
    size_t max_word_chars;
    bool fuse_unk, byte_fallback;
    /* BPE: a word that is a piece with this id or a higher one is given out unmerged: 0 with
     * ignore_merges, OpenCLIP's special tokens, else INT32_MAX. */
    int32_t whole_from;
    int32_t byte_ids[256]; /* of <0xNN>, -1: none */
    tess__pairs pairs;
    double *scores; /* unigram: one an id */
    double unk_score;
    tess__spm spm; /* of a .model behind a pipe: `charsmap`, or the model itself */
    tess__spm_norm charsmap;
};

extern const tess__tokenizer_kind tess__pipe_kind;

/* ---- making one ---- */

tess__pipe *tess__pipe_new(void); /* NULL: no memory */
void tess__pipe_free(void *p);
/* The caller fills in the rest of the row; NULL (with the message) when there are too many. */
tess__step *tess__pipe_add_normal(tess__pipe *p, tess__step_fn *run, const char *type);
tess__step *tess__pipe_add_split(tess__pipe *p, tess__step_fn *run, const char *type);
TESS_MUST_USE tess_status tess__pipe_add_token(tess__pipe *p, tess__added token);
/* t's special tokens, each once, to be found in the raw text; their ids have pieces. */
TESS_MUST_USE tess_status tess__pipe_add_specials(tess__pipe *p, const tess_tokenizer *t);
/* Checks and indexes what was filled in, and makes it t's: kind, vocabulary, hash.  t's special ids
 * and template must stand. */
TESS_MUST_USE tess_status tess__pipe_finish(tess__pipe *p, tess_tokenizer *t, const char *name);
/* The id of a piece or an added token, or -1. */
int32_t tess__pipe_find(const tess__pipe *p, const char *piece, size_t n_bytes);
tess_bytes tess__pipe_copy(tess__pipe *p, const char *text, size_t n_bytes); /* data NULL: memory */

void tess__pipe_decode(const void *self, tess_buf *out, const int32_t *ids, size_t n_ids);

/* ---- running ---- */

/* Room for n more bytes of *b. */
TESS_MUST_USE tess_status tess__span_reserve(tess__span_buf *b, size_t n);
TESS_MUST_USE tess_status tess__span_put(tess__span_buf *b, const void *data, size_t n);
TESS_MUST_USE tess_status tess__words_add(tess__words *w, size_t pos, size_t n_bytes, bool first);
TESS_MUST_USE tess_status tess__pipe_encode(const tess__pipe *p, tess__run *r, const char *text,
                                            size_t n_bytes);

/* Where the next added token lies in s[from..n): *out_start, *out_end with the spaces it takes
 * along; its place in `added`, or -1 with both at n. */
int tess__added_next(const tess__pipe *p, bool normalized, const char *s, size_t n, size_t from,
                     size_t *out_start, size_t *out_end);
TESS_MUST_USE tess_status tess__added_build(tess__pipe *p);

/* OpenCLIP's cleaning of the well-formed text in s->in; the result is in s->in. */
TESS_MUST_USE tess_status tess__clip_clean_run(tess_clip_clean how, tess__pipe_scratch *s);

/* ftfy's fixes of s->in but mojibake; s->out is empty after. */
TESS_MUST_USE tess_status tess__text_fix(tess__pipe_scratch *s);

/* Normalisers. */
tess__step_fn tess__normal_bert, tess__normal_lower, tess__normal_nfc, tess__normal_nfd,
    tess__normal_nfkc, tess__normal_nfkd, tess__normal_strip_accents, tess__normal_strip,
    tess__normal_replace, tess__normal_replace_spaces, tess__normal_prepend,
    tess__normal_precompiled, tess__normal_siglip;
/* Pre-tokenizers. */
tess__step_fn tess__split_bert, tess__split_space, tess__split_metaspace, tess__split_clip,
    tess__split_bytes, tess__split_merged_with_previous, tess__split_prefix_first;

/* Models. */
tess__word_fn tess__wordpiece_encode, tess__merges_encode, tess__lattice_encode,
    tess__spm_word_encode, tess__siglip_word_encode;

/* The pieces are those of `spm`, not of `vocab`. */
static inline bool tess__pipe_is_spm(const tess__pipe *p)
{
    return p->encode == tess__spm_word_encode || p->encode == tess__siglip_word_encode;
}

#endif
