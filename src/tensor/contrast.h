/* SPDX-License-Identifier: Apache-2.0 */
/* The dots of a contrastive objective, in strips of rows.
 *
 *   a (B,Z), b (K*B,Z) f32: for each slot k, dots (B,B) = a b_k^T, made TESS_STRIP_ROWS rows at a
 *   time, so memory is linear in B.  With gradients, the strip that the visitor leaves behind is
 *   taken as d loss / d dots: da += strip b_k, db_k += strip^T a. */
#ifndef TESSERA_TENSOR_CONTRAST_H
#define TESSERA_TENSOR_CONTRAST_H

#include "tensor/op.h"

enum { TESS_STRIP_ROWS = 256 };

typedef struct tess_strips tess_strips;
TESS_MUST_USE tess_status tess__strips_new(int64_t batch, int64_t width, bool backward,
                                           tess_strips **out);
void tess__strips_free(void *strips);
size_t tess__strips_scratch(const tess_strips *s);

/* Rows row .. row+n_rows-1 of slot's dots; row i of `dots` is B long, its match is column row+i. */
typedef struct tess_strip {
    int64_t slot, row, n_rows, batch;
    float *dots;
} tess_strip;
typedef void tess_strip_visit(void *ctx, const tess_strip *strip);
typedef struct tess_strips_args {
    const float *a, *b;
    int64_t n_slots;
    float *da, *db; /* NULL forward */
    void *scratch;
} tess_strips_args;
TESS_MUST_USE tess_status tess__strips_run(tess_strips *s, const tess_strips_args *args,
                                           tess_strip_visit *visit, void *ctx);
/* The operator's a and b; backward its da and db as well. */
tess_strips_args tess__strips_args_of(const tess_exec *e, bool backward);
/* Strips with `extra` bytes of scratch behind theirs. */
TESS_MUST_USE tess_status tess__contrast_prepare(tess_prepare *c, bool backward, size_t extra);
double tess__contrast_flops(const tess_operand *in, const tess_operand *out, const void *attrs);
double tess__contrast_grad_flops(const tess_operand *in, const tess_operand *out,
                                 const void *attrs);

/* Shapes of a, b and log_scale; n_slots through out. */
TESS_MUST_USE tess_status tess__contrast_check(const tess_operand *in, int64_t *out_slots);
/* exp(min(log_scale, ln 100)) */
float tess__contrast_scale(float log_scale);
/* What the gradient of log_scale becomes at the cap: it may only lead away from it. */
float tess__contrast_scale_grad(float log_scale, double d);

/* Reference: s times the dot of row i of a and row j of b. */
double tess__contrast_logit(const tess_exec *e, int64_t i, int64_t j);
/* d loss / d logit. */
typedef double tess_contrast_slope(const tess_exec *e, int64_t i, int64_t j, double logit);
/* da, db and dlog_scale from it, pair by pair; returns the slopes' sum. */
double tess__contrast_ref_grad(const tess_exec *e, tess_contrast_slope *slope);

#endif
