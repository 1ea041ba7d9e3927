/* SPDX-License-Identifier: Apache-2.0 */
/* The dots of a contrastive objective, in strips of rows.
 *
 *   a (N,Z), b (K*B,Z) f32: for each slot k, dots (N,B) = a b_k^T, made TESS_STRIP_ROWS rows at a
 *   time, so memory is linear in N.  With gradients, the strip that the visitor leaves behind is
 *   taken as d loss / d dots: da += strip b_k, db_k += strip^T a.
 *
 *   Alone N is B.  A rank of R has in a the rows of all, N = R B, and in b its own: its part of the
 *   work is the B columns whose matches are rows first .. first+B-1 of a. */
#ifndef TESSERA_TENSOR_CONTRAST_H
#define TESSERA_TENSOR_CONTRAST_H

#include "tensor/op.h"

enum { TESS_STRIP_ROWS = 256 };

typedef struct tess_contrast_attrs {
    tess_comm *comm; /* NULL: alone */
    int64_t slots;   /* K; 0: as many as a goes into b */
    int64_t first;
} tess_contrast_attrs;

/* Sizes and the ranks' part, from an operator's operands and attributes. */
typedef struct tess_contrast_dims {
    tess_comm *comm; /* NULL: alone */
    int64_t n, batch, slots, width, first;
} tess_contrast_dims;
tess_contrast_dims tess__contrast_dims(const tess_operand *in, const void *attrs);
/* Attributes of rank's part; first is where its rows are among all ranks'. */
tess_contrast_attrs tess__contrast_over(tess_graph *g, tess_comm *comm, tess_value a, tess_value b);

typedef struct tess_strips tess_strips;
TESS_MUST_USE tess_status tess__strips_new(const tess_contrast_dims *d, bool backward,
                                           tess_strips **out);
void tess__strips_free(void *strips);
size_t tess__strips_scratch(const tess_strips *s);

/* Rows row .. row+n_rows-1 of slot's dots; row i of `dots` is `batch` long, and its match is column
 * match+i, where there is such a column. */
typedef struct tess_strip {
    int64_t slot, row, n_rows, batch, match;
    bool is_first, is_last; /* of the slot */
    float *dots;
} tess_strip;
typedef void tess_strip_visit(void *ctx, const tess_strip *strip);
typedef struct tess_strips_args {
    const float *a, *b;
    float *da, *db; /* NULL forward */
    void *scratch;
} tess_strips_args;
TESS_MUST_USE tess_status tess__strips_run(tess_strips *s, const tess_strips_args *args,
                                           tess_strip_visit *visit, void *ctx);
/* The operator's a and b; backward its da and db as well. */
tess_strips_args tess__strips_args_of(const tess_exec *e, bool backward);
void tess__contrast_print(const void *attrs, tess_buf *out);
/* Strips with `extra` bytes of scratch behind theirs. */
TESS_MUST_USE tess_status tess__contrast_prepare(tess_prepare *c, bool backward, size_t extra);
double tess__contrast_flops(const tess_operand *in, const tess_operand *out, const void *attrs);
double tess__contrast_grad_flops(const tess_operand *in, const tess_operand *out,
                                 const void *attrs);

/* Shapes of a, b and log_scale. */
TESS_MUST_USE tess_status tess__contrast_check(const tess_operand *in, const void *attrs);
/* exp(min(log_scale, ln 100)) */
float tess__contrast_scale(float log_scale);
/* What the gradient of log_scale becomes at the cap: it may only lead away from it. */
float tess__contrast_scale_grad(float log_scale, double d);

/* lse (n): the logarithms of all ranks' sums of exponentials, from each rank's.  By two sums: of
 * exp(lse / 8), whose logarithm times 8 is at most 8 ln R above the greatest, and then of what is
 * lowered by that, where no sum of the greatest's size is lost.  scratch (n). */
TESS_MUST_USE tess_status tess__contrast_join(tess_comm *comm, float *lse, int64_t n,
                                              float *scratch);
/* The sum over ranks of their parts of the loss, on all of them. */
TESS_MUST_USE tess_status tess__contrast_sum(tess_comm *comm, double part, float *out);

/* Reference: s times the dot of row i of a and row j of b. */
double tess__contrast_logit(const tess_exec *e, int64_t i, int64_t j);
/* d loss / d logit. */
typedef double tess_contrast_slope(const tess_exec *e, int64_t i, int64_t j, double logit);
/* da, db and dlog_scale from it, pair by pair; returns the slopes' sum. */
double tess__contrast_ref_grad(const tess_exec *e, tess_contrast_slope *slope);

#endif
