/* SPDX-License-Identifier: Apache-2.0 */
/* index: vectors and their rows, searched.  Knows nothing of models: vectors in, row ids out.
 *
 * An index is a directory:
 *   manifest.json   format, fingerprint, dimension, factory string, counts, checksums
 * (docs/index.md) vectors.faiss   the vectors, an index file that stock FAISS reads rows.sqlite one
 * row per vector: key, kind, source, captions; and an FTS5 table over captions It is built beside
 * its final name and moved there in one step, so it is whole or absent, and an older index stays in
 * service until the new one is complete.
 *
 * Vectors are scaled to unit length on the way in, queries too: a score is a cosine, higher is
 * nearer.  Row ids are 0..N-1 in the order in which rows were added.
 */
#ifndef TESSERA_INDEX_H
#define TESSERA_INDEX_H

#include "tessera/base.h"

/* Limits on what is accepted, also from files. */
#define TESS_INDEX_MAX_DIM       65536
#define TESS_INDEX_MAX_KEY_BYTES 4096
#define TESS_INDEX_MAX_K         10000

typedef enum tess_row_kind {
    TESS_ROW_IMAGE,
    TESS_ROW_TEXT,
    TESS_ROW_KINDS,
} tess_row_kind;

/* What is known of one vector.  Strings are UTF-8. */
typedef struct tess_row {
    int64_t id;            /* row id; set by the index, ignored by tess_index_builder_add */
    const char *key;       /* the caller's own name for it: not empty, unique in the index */
    tess_row_kind kind;    /* what the vector was made from */
    const char *path;      /* file that holds the source's bytes; NULL: none.  A relative path is
                              made absolute when it is added */
    int64_t offset;        /* where in `path` the bytes begin (a shard's member), */
    int64_t n_bytes;       /* and how many they are; 0: from offset to the end of the file */
    const char *captions;  /* JSON: a string, an array of them, or language -> string or array;
                              NULL: none */
    int64_t width, height; /* of the picture; 0: not known */
} tess_row;

/* ---- building ----------------------------------------------------------------------------- */

typedef struct tess_index_options {
    int64_t dim;             /* Z, 1..TESS_INDEX_MAX_DIM */
    const char *fingerprint; /* of the model that made the vectors; not empty, at most 512 bytes */
    const char *model;       /* path of that model, for whoever opens the index; NULL: none */
    const char *factory;     /* FAISS factory string, or NULL or "auto": see tess_index_auto.  IDMap
                                is refused (the index keeps that mapping itself) */
    bool replace;            /* take the place of an index that is already at `dir` */
    int64_t ef_search;       /* HNSW: candidates kept while searching; 0: 128 */
    int64_t n_probe; /* IVF: lists visited; 0: 16, or a 64th of the lists where that is more */
    int n_threads;   /* for training and adding; 0: one per core.  With one thread an HNSW
                        index is the same every time; Flat always is */
} tess_index_options;

typedef struct tess_index_builder tess_index_builder;

/* Starts an index that will be at `dir`.  Work happens in "DIR.building", which a build that was
 * killed leaves behind and the next one clears.  TESS_INVALID when `dir` exists and `replace` is
 * not set, when it exists and is no index (never replaced), when another build of it is running. */
TESS_MUST_USE tess_status tess_index_builder_open(const char *dir,
                                                  const tess_index_options *options,
                                                  tess_index_builder **out);
/* Adds n vectors (n,Z) f32 and their rows.  A vector that is not finite or has no length, a key
 * that is empty, not UTF-8 or already there, captions that are not such JSON: TESS_INVALID naming
 * the key, and none of the n is added; the builder can go on. */
TESS_MUST_USE tess_status tess_index_builder_add(tess_index_builder *b, const float *vectors,
                                                 const tess_row *rows, int64_t n);
int64_t tess_index_builder_count(const tess_index_builder *b);
/* Builds, writes, syncs, and moves the index into place; frees the builder, also on failure, after
 * which nothing is left and what was at `dir` is untouched.  One exception: when the very last sync
 * (of the parent directory, after the move) fails, the new index is there, whole, yet TESS_IO says
 * that a power cut may still undo the move. */
TESS_MUST_USE tess_status tess_index_builder_commit(tess_index_builder *b);
/* Gives up: removes what was written, frees the builder. */
void tess_index_builder_abort(tess_index_builder *b);

/* The factory string that "auto" stands for.  Exact search ("Flat") as long as reading every vector
 * costs about as much as the rest of a query (4M floats or 1000 rows); then AutoFaiss' rule: HNSW
 * with as many links as fit half of `memory_bytes`, then IVF, then OPQ + IVF + PQ.  Writes at most
 * 64 bytes with the NUL. */
void tess_index_auto(int64_t n_rows, int64_t dim, int64_t memory_bytes, char out[64]);

/* ---- searching ---------------------------------------------------------------------------- */

/* An open index.  All functions on it may be called from several threads at once. */
typedef struct tess_index tess_index;

/* Opens the index at `dir`: reads the manifest, compares every file's size and XXH3 checksum with
 * it, loads the vectors.  `fingerprint` is the model's that will make the queries, NULL to accept
 * any; another one is TESS_INVALID with both in the message.  Damage is TESS_FORMAT. */
TESS_MUST_USE tess_status tess_index_open(const char *dir, const char *fingerprint,
                                          tess_index **out);
void tess_index_close(tess_index *ix);

typedef struct tess_hit {
    int64_t row;
    float score; /* cosine, -1..1; of compressed vectors, an approximation of it */
} tess_hit;

/* The k nearest rows of each query.  queries (Q,Z) f32, out_hits (Q,K), out_n_hits (Q): how many of
 * a query's hits are valid, best first, equal scores by row id; never more than there are rows.
 * TESS_INVALID: k not in 1..TESS_INDEX_MAX_K, a query that is not finite or has no length. */
TESS_MUST_USE tess_status tess_index_search(tess_index *ix, const float *queries, int64_t n_queries,
                                            int64_t k, tess_hit *out_hits, int64_t *out_n_hits);
/* Exact search elsewhere, on a card, in FAISS's place.  `search` is as tess_index_search, but its
 * queries have unit length; it may be called from several threads. */
typedef struct tess_index_searcher {
    tess_status (*search)(void *ctx, const float *queries, int64_t n_queries, int64_t k,
                          tess_hit *out_hits, int64_t *out_n_hits);
    void (*free)(void *ctx);
    void *ctx;
} tess_index_searcher;
/* True of an index that FAISS searches exactly too. */
bool tess_index_is_flat(const tess_index *ix);
/* The vectors of rows first .. first + n - 1 of such an index, out (n,Z). */
TESS_MUST_USE tess_status tess_index_vectors(const tess_index *ix, int64_t first, int64_t n,
                                             float *out);
/* Gives the index a searcher, which it frees when it is closed or gets another; before any search.
 * Where `search` answers TESS_NOMEM, FAISS does. */
void tess_index_set_searcher(tess_index *ix, const tess_index_searcher *s);
/* The k rows whose captions hold all the words (any language; BM25, higher is better), for a
 * lexical half of a search.  Nothing in `words` is an operator. */
TESS_MUST_USE tess_status tess_index_match(tess_index *ix, const char *words, int64_t k,
                                           tess_hit *out_hits, int64_t *out_n_hits);

/* Row `id`, its strings in `arena`.  TESS_INVALID when there is no such row. */
TESS_MUST_USE tess_status tess_index_row(tess_index *ix, int64_t id, tess_arena *arena,
                                         tess_row *out);
/* The row id of a key; TESS_INVALID when it is not there. */
TESS_MUST_USE tess_status tess_index_find(tess_index *ix, const char *key, int64_t *out_id);
/* The bytes that a row was made from, re-read from its path; the caller frees with tess_free.
 * TESS_INVALID: the row names no source; TESS_IO: it is gone or shorter than it was; TESS_NOMEM:
 * more than max_bytes. */
TESS_MUST_USE tess_status tess_row_read(const tess_row *row, size_t max_bytes, uint8_t **out,
                                        size_t *out_bytes);
const char *tess_row_kind_name(tess_row_kind kind); /* "image", "text" */

int64_t tess_index_count(const tess_index *ix); /* N */
/* How many of them are of a kind; looks at every row: for information, not for each query. */
TESS_MUST_USE tess_status tess_index_count_kind(const tess_index *ix, tess_row_kind kind,
                                                int64_t *out);
int64_t tess_index_dim(const tess_index *ix); /* Z */
const char *tess_index_fingerprint(const tess_index *ix);
const char *tess_index_model(const tess_index *ix); /* NULL: none was recorded */
/* The version of the FAISS that is built in, or the path of the user's library; "none" when that
 * one cannot be used.  For doctor. */
const char *tess_index_library(void);
/* The manifest's facts and the library that answers, as one JSON object appended to `out`. */
TESS_MUST_USE tess_status tess_index_info(const tess_index *ix, tess_buf *out);

#endif
