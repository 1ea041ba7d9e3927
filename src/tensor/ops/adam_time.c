/* SPDX-License-Identifier: Apache-2.0 */
/* adam_time: the optimizers' numbers of a step, where only the device knows how many steps before
 * it were skipped.
 *
 *   rates (3) f32: lr, step (from 1), grad_scale; skipped (1) f32: steps before this one whose
 *   gradient was not finite; sumsq (1) f32 of this one's
 *   hyper (5) f32 = lr, 1/(1-beta1^t), 1/(1-beta2^t), grad_scale, t with t = max(1, step - skipped)
 *   is_skipped (1) f32 = 1 when sumsq is not finite, else 0
 *   Powers are taken in double.  Not differentiable.  Deterministic; one thread. */
#include "tensor/ops/adam_time.h"
#include "tensor/op.h"

#include <math.h>

tess_value tess_adam_time(tess_graph *g, tess_value rates, tess_value skipped, tess_value sumsq,
                          float beta1, float beta2, tess_value *out_is_skipped)
{
    const adam_time_attrs a = {.beta1 = beta1, .beta2 = beta2};
    const tess_value hyper = TESS_NODE(g, &tess__op_adam_time, &a, rates, skipped, sumsq);
    *out_is_skipped = hyper ? hyper + 1 : 0;
    return hyper;
}

static tess_status infer(tess_infer *c)
{
    const tess_operand rates = {.dtype = TESS_F32, .shape = TESS_SHAPE_OF(ADAM_TIME_RATES)};
    const tess_operand one = {.dtype = TESS_F32, .shape = TESS_SHAPE_OF(1)};
    TESS_TRY(tess__expect_like("rates", &c->in[ADAM_TIME_IN_RATES], &rates));
    TESS_TRY(tess__expect_like("skipped", &c->in[ADAM_TIME_IN_SKIPPED], &one));
    TESS_TRY(tess__expect_like("sumsq", &c->in[ADAM_TIME_IN_SUMSQ], &one));
    c->out[0] = (tess_operand){.dtype = TESS_F32, .shape = TESS_SHAPE_OF(TESS_HYPER_COUNT)};
    c->out[1] = one;
    return TESS_OK;
}

static tess_status cpu(const tess_exec *e)
{
    const adam_time_attrs *a = e->attrs;
    const float *rates = e->in[ADAM_TIME_IN_RATES].data;
    const double t = fmax(1, (double)rates[ADAM_TIME_STEP] -
                                 (double)*(const float *)e->in[ADAM_TIME_IN_SKIPPED].data);
    float *hyper = e->out[0].data;
    hyper[TESS_HYPER_LR] = rates[ADAM_TIME_LR];
    hyper[TESS_HYPER_FIX1] = (float)(1 / (1 - pow((double)a->beta1, t)));
    hyper[TESS_HYPER_FIX2] = (float)(1 / (1 - pow((double)a->beta2, t)));
    hyper[TESS_HYPER_SCALE] = rates[ADAM_TIME_SCALE];
    hyper[TESS_HYPER_STEP] = (float)t;
    *(float *)e->out[1].data = isfinite(*(const float *)e->in[ADAM_TIME_IN_SUMSQ].data) ? 0 : 1;
    return TESS_OK;
}

static void print(const void *attrs, tess_buf *out)
{
    const adam_time_attrs *a = attrs;
    tess_buf_addf(out, "beta=%g,%g", (double)a->beta1, (double)a->beta2);
}

static tess_value build(tess_graph *g, const tess_value *in)
{
    tess_value is_skipped;
    return tess_adam_time(g, in[0], in[1], in[2], 0.9f, 0.98f, &is_skipped);
}

/* The same at a step of hundreds, of which some were skipped. */
static tess_value build_late(tess_graph *g, const tess_value *in)
{
    tess_value is_skipped;
    return tess_adam_time(g, tess_scale(g, in[0], 300), in[1], in[2], 0.9f, 0.98f, &is_skipped);
}

static const tess_case cases[] = {
    {.name = "first",
     .n_in = 3,
     .in = {{TESS_F32, {1, {ADAM_TIME_RATES}}, .no_grad = true},
            {TESS_F32, {1, {1}}, .no_grad = true},
            {TESS_F32, {1, {1}}, .no_grad = true}},
     .build = build},
    {.name = "late",
     .n_in = 3,
     .in = {{TESS_F32, {1, {ADAM_TIME_RATES}}, TESS_FILL_POSITIVE, .no_grad = true},
            {TESS_F32, {1, {1}}, TESS_FILL_POSITIVE, .no_grad = true},
            {TESS_F32, {1, {1}}, .no_grad = true}},
     .build = build_late},
};

const tess_op tess__op_adam_time = {
    .name = "adam_time",
    .n_in_min = 3,
    .n_in_max = 3,
    .n_out = 2,
    .attrs_bytes = sizeof(adam_time_attrs),
    .infer = infer,
    .cpu = cpu,
    .ref = cpu,
    .print = print,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
