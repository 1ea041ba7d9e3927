/* SPDX-License-Identifier: Apache-2.0 */
/* lbfgs: the minimum of a smooth convex function of many variables. */
#ifndef TESSERA_TRAIN_LBFGS_H
#define TESSERA_TRAIN_LBFGS_H

#include "tessera/base.h"

/* f(x) and its gradient (n). */
typedef tess_status tess__function(void *ctx, const double *x, double *out_value,
                                   double *out_gradient);

typedef struct tess__lbfgs_options {
    int64_t max_iterations;
    double tolerance; /* done when no element of the gradient is larger */
} tess__lbfgs_options;

typedef struct tess__lbfgs_result {
    int64_t n_iterations, n_calls;
    double value, gradient; /* f, and the largest element of its gradient, at x */
} tess__lbfgs_result;

/* Moves x (n) to the minimum.  Ends at the tolerance, at max_iterations, or where no step along the
 * direction makes f smaller any more, which is where its rounding errors begin; never a failure of
 * its own.  A pure function of its arguments. */
TESS_MUST_USE tess_status tess__lbfgs(tess__function *f, void *ctx, int64_t n, double *x,
                                      const tess__lbfgs_options *o, tess__lbfgs_result *out);

#endif
