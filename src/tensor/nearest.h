/* SPDX-License-Identifier: Apache-2.0 */
/* Exact nearest rows by inner product, on a CUDA device: rows that lie there, and the search.
 *
 * Rows are kept twice: as they came in f32, and rounded to bf16.  A search takes all products of
 * rounded numbers, on the tensor cores, and keeps the rows that may still be among the k best: with
 * E no less than any difference between such a score and the exact one, a row whose rounded score
 * is 2 E below the k-th best rounded score has k rows above it.  What is left, some k rows and a
 * few, is scored in f32 from the rows as they came.  E is no estimate: it is made of the lengths of
 * the rows and of what rounding took from them (Cauchy-Schwarz), and of the error of a sum of Z
 * products. Where too many rows lie within 2 E of the k-th (copies, say), that query is answered by
 * f32 scores of all rows, which has no such limit; both ways give the same scores, bit for bit.
 *
 * The f32 score of a query and a row is one function of the two (sums in a fixed order): neither
 * the batch nor the other rows change it. */
#ifndef TESSERA_TENSOR_NEAREST_H
#define TESSERA_TENSOR_NEAREST_H

#include "tessera/tensor.h"

typedef struct tess__nearest tess__nearest;

typedef struct tess__near_hit {
    int64_t row;
    float score;
} tess__near_hit;

/* Room for n rows of `dim` numbers.  capacity: rows that may be left of a query between two passes
 * (for tests; k + 128 at least); 0: 32 k, 8,192 at least.  TESS_UNSUPPORTED: a device without
 * memory of its own, or 2^31 rows; TESS_NOMEM says how much the rows need there. */
TESS_MUST_USE tess_status tess__nearest_new(const tess_device *device, int64_t n, int64_t dim,
                                            int64_t capacity, tess__nearest **out);
/* Adds rows x (n,dim) f32 after those that are there; a row that is not finite is never found. */
TESS_MUST_USE tess_status tess__nearest_add(tess__nearest *s, const float *x, int64_t n);
/* queries (Q,dim) f32, finite; out_hits (Q,k), out_n_hits (Q): the k best rows, best first, equal
 * scores by row; fewer where there are no more.  Scores that are not finite are no hits.  May be
 * called from several threads: one search runs at a time.  TESS_NOMEM: no memory on the card for
 * what is left of so many queries. */
TESS_MUST_USE tess_status tess__nearest_search(tess__nearest *s, const float *queries,
                                               int64_t n_queries, int64_t k,
                                               tess__near_hit *out_hits, int64_t *out_n_hits);
/* Queries so far that took f32 scores of all rows. */
int64_t tess__nearest_n_full(const tess__nearest *s);
void tess__nearest_free(tess__nearest *s);

/* ---- between nearest's two halves: nearest.cu has the kernels ---------------------------------
 */

enum { TESS__NEAR_TILE = 128 }; /* rows */

/* A pass of a search; all pointers are the card's.  A found row is a key: its score in the upper
 * half, so that keys are ordered as scores are, and below it the row's complement; 0: none. */
typedef struct tess__near {
    float *rows;   /* (N,Z) */
    void *rounded; /* (N,row) bf16, filled up with zeros */
    float *extent; /* the length of the longest row; the longest of what rounding took */
    int64_t n_rows, dim, row;
    int64_t n_tiles, tile_step; /* the i-th tile that is looked at is i tile_step % n_tiles */
    float *queries;             /* (Q,Z) */
    void *rounded_queries;      /* (Q,row) bf16 */
    float *margin, *least;      /* (Q): 2 E; what a score must reach */
    int32_t *count;             /* (Q): found; above capacity: some were lost */
    uint64_t *found, *best;     /* (Q,capacity), (Q,k) */
    int64_t n_queries, k, capacity;
} tess__near;

/* Rounds rows first .. first + n - 1, and extends `extent`. */
void tess__near_round(const tess__near *s, int64_t first, int64_t n, void *stream);
/* Rounds the queries; nothing is found.  Not exact: those whose margin is no number count as lost.
 */
void tess__near_begin(const tess__near *s, bool exact, void *stream);
/* Finds what reaches `least` in `n_tiles` tiles, from the first-th that is looked at on.  From the
 * beginning on (first 0) a row's place is that of its tile, and count stays 0. */
void tess__near_scan(const tess__near *s, int64_t first, int64_t n_tiles, bool exact, void *stream);
/* Keeps of each query's found (of the first n_places; 0: of `count`) the k best; or, not exact, all
 * within the margin of the k-th; sets `least` and `count`. */
void tess__near_select(const tess__near *s, int64_t n_places, bool exact, void *stream);
/* f32 scores for what is found. */
void tess__near_score(const tess__near *s, void *stream);
/* best = found, of which there are at most k, in order. */
void tess__near_rank(const tess__near *s, void *stream);

#endif
