/* SPDX-License-Identifier: Apache-2.0 */
/* probe: logistic regression on frozen features. */
#ifndef TESSERA_TRAIN_PROBE_H
#define TESSERA_TRAIN_PROBE_H

#include "tessera/base.h"

typedef struct tess__features {
    float *x;        /* (N,Z+1), the last column 1 */
    int64_t *labels; /* (N) in 0..C-1 */
    int64_t n;
} tess__features;

typedef struct tess__probe {
    int64_t dim, n_classes; /* Z, C */
    float *weights;         /* (C,Z+1), the last column the bias */
    int64_t n_iterations, n_calls;
    double loss, gradient;
} tess__probe;

/* The minimum over W (C,Z) and b (C) of
 *   mean over rows of [-log softmax(W x + b)[label]] + weight_decay/2 |W|^2;
 * the bias is not decayed.  scikit-learn's LogisticRegression(C = 1 / (N weight_decay)) has the
 * same minimum.  Products are f32, sums over rows and the weights are doubles; ends when no
 * element of the gradient is above 1e-6, or after 1000 iterations.  dim and n_classes are set by
 * the caller. */
TESS_MUST_USE tess_status tess__probe_fit(tess__probe *p, const tess__features *train,
                                          double weight_decay);
void tess__probe_deinit(tess__probe *p);
/* The rank of each row's label, from 1; ties as in ranking.h. */
TESS_MUST_USE tess_status tess__probe_rank(const tess__probe *p, const tess__features *f,
                                           int64_t *out_ranks);

/* CLIP_benchmark's search: of 97 weight decays from 1e-6 to 1e2, even in the logarithm, 7 first,
 * then around the best in steps of 8, 4, 2 and 1; the best is the one with the most rows of `val`
 * right, the first that was tried where several have as many.  *out_weight_decay is one of them;
 * p holds no weights afterwards. */
TESS_MUST_USE tess_status tess__probe_search(tess__probe *p, const tess__features *train,
                                             const tess__features *val, double *out_weight_decay);

#endif
