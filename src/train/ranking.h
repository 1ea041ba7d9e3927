/* SPDX-License-Identifier: Apache-2.0 */
/* ranking: where the right answer stands among all answers, without the matrix of all scores. */
#ifndef TESSERA_TRAIN_RANKING_H
#define TESSERA_TRAIN_RANKING_H

#include "tessera/base.h"

/* Rows that ask and rows that answer; each question has one right answer, an answer may be right
 * for many questions (captions and their pictures, pictures and their classes). */
typedef struct tess__pairs {
    const float *questions, *answers; /* (N,Z), (M,Z) */
    const int64_t *right;             /* (N) in 0..M-1 */
    int64_t n_questions, n_answers, dim;
} tess__pairs;

/* Ranks from 1, by the dot product; of equal scores the smaller index comes first, and a score that
 * is not a number counts below all others.
 *   out_right (N)  the rank of each question's right answer among all answers
 *   out_back (M)   the rank, among all questions, of the best question that the answer is right
 *                  for; 0 where there is none.  May be NULL.
 * Every score is computed twice; at most 512 x 2048 of them are held. */
TESS_MUST_USE tess_status tess__rank_pairs(const tess__pairs *p, int64_t *out_right,
                                           int64_t *out_back);

/* The part of the ranks that are 1 to k; ranks of 0 are left out.  NaN when all are. */
double tess__recall_at(const int64_t *ranks, int64_t n, int64_t k);
/* The mean over classes of the part of a class's rows with rank 1; classes without rows are left
 * out.  NaN when all are. */
TESS_MUST_USE tess_status tess__mean_class_recall(const int64_t *ranks, const int64_t *labels,
                                                  int64_t n, int64_t n_classes, double *out);

#endif
