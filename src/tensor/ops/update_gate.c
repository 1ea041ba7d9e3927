/* SPDX-License-Identifier: Apache-2.0 */
/* update_gate: whether a step's gradient may change weights.
 *
 *   sumsq (1) f32 of the gradient; loss (1) f32; recent (258) f32 or absent, what update_note keeps
 *   gated (1) f32 = sumsq where it may, else NaN, by which every optimizer leaves its states alone
 *   why (1) f32 = a tess_skip; loss (1) f32 = loss, to be read back
 *   A step is skipped for a norm or a loss that is not finite; and where `recent` is given and
 *   holds 32 steps, for one above  median + K max(1.4826 median|x - median|, 0.01 |median|).
 *
 *   Medians are of the last 128 steps, the one of rank (n-1)/2, so that they are one of the numbers
 *   on any device.  OLMo's skip-step optimizer has mean and standard deviation over 128 steps; with
 *   medians an outlier moves neither, though it is kept among the others: a loss that has changed
 *   for good is the new median after 64 steps, and nothing is skipped for ever.
 *
 * update_note: an effect.  Enters loss and norm in `recent`, those that are finite, and sets the
 * state loss to zero.  Neither is differentiable.  Deterministic; one thread. */
#include "tensor/ops/update_gate.h"
#include "tensor/op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const tess_op tess__op_update_note;

tess_value tess_update_gate(tess_graph *g, tess_value sumsq, tess_value loss, tess_value recent,
                            float deviations, tess_value *out_why, tess_value *out_loss)
{
    const update_gate_attrs a = {.deviations = deviations};
    const tess_value in[] = {sumsq, loss, recent};
    const tess_value gated = tess__node_add(g, &tess__op_update_gate, &a, in, recent ? 3 : 2);
    *out_why = gated ? gated + GATE_OUT_WHY : 0;
    *out_loss = gated ? gated + GATE_OUT_LOSS : 0;
    return gated;
}

void tess_update_note(tess_graph *g, tess_value sumsq, tess_value loss, tess_value recent)
{
    const tess_value in[] = {sumsq, loss, recent};
    tess__node_add(g, &tess__op_update_note, NULL, in, recent ? 3 : 2);
}

static tess_status infer(tess_infer *c)
{
    const tess_operand one = {.dtype = TESS_F32, .shape = TESS_SHAPE_OF(1)};
    const tess_operand recent = {.dtype = TESS_F32, .shape = TESS_SHAPE_OF(RECENT_SIZE)};
    TESS_TRY(tess__expect_like("sumsq", &c->in[GATE_IN_SUMSQ], &one));
    TESS_TRY(tess__expect_like("loss", &c->in[GATE_IN_LOSS], &one));
    if (c->n_in > GATE_IN_RECENT) {
        TESS_TRY(tess__expect_like("recent", &c->in[GATE_IN_RECENT], &recent));
    }
    return TESS_OK;
}

static tess_status infer_gate(tess_infer *c)
{
    for (int k = 0; k < GATE_N_OUT; k++) {
        c->out[k] = (tess_operand){.dtype = TESS_F32, .shape = TESS_SHAPE_OF(1)};
    }
    return infer(c);
}

/* ---- whether ------------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static float median_by_sorting(float *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, ascending);
    return x[(n - 1) / 2];
}

/* The number below which rank (n-1)/2 of the others lie, ties in their order. */
static float median_by_counting(float *x, int n)
{
    for (int i = 0; i < n; i++) {
        int below = 0;
        for (int k = 0; k < n; k++) {
            below += x[k] < x[i] || (x[k] == x[i] && k < i);
        }
        if (below == (n - 1) / 2) {
            return x[i];
        }
    }
    return NAN;
}

typedef float median_fn(float *x, int n);

static float limit(const float *kept, int n, float deviations, median_fn *median)
{
    float x[RECENT_STEPS];
    memcpy(x, kept, (size_t)n * sizeof *x);
    const float middle = median(x, n);
    for (int i = 0; i < n; i++) {
        x[i] = fabsf(kept[i] - middle);
    }
    const float usual = GATE_MAD_TO_DEVIATION * median(x, n);
    const float least = GATE_LEAST_DEVIATION * fabsf(middle);
    return middle + deviations * (usual > least ? usual : least);
}

static tess_skip judge(const tess_exec *e, float sumsq, float loss, median_fn *median)
{
    const float *recent = e->n_in > GATE_IN_RECENT ? e->in[GATE_IN_RECENT].data : NULL;
    const float k = ((const update_gate_attrs *)e->attrs)->deviations;
    if (!isfinite(sumsq)) {
        return TESS_SKIP_GRADIENT;
    }
    if (!isfinite(loss)) {
        return TESS_SKIP_LOSS;
    }
    const int n = recent ? (int)recent[RECENT_COUNT] : 0;
    if (n < RECENT_FROM) {
        return TESS_SKIP_NOT;
    }
    return loss > limit(recent + RECENT_LOSSES, n, k, median)          ? TESS_SKIP_HIGH_LOSS
           : sqrtf(sumsq) > limit(recent + RECENT_NORMS, n, k, median) ? TESS_SKIP_HIGH_NORM
                                                                       : TESS_SKIP_NOT;
}

static tess_status decide(const tess_exec *e, median_fn *median)
{
    const float sumsq = *(const float *)e->in[GATE_IN_SUMSQ].data;
    const float loss = *(const float *)e->in[GATE_IN_LOSS].data;
    const tess_skip why = judge(e, sumsq, loss, median);
    *(float *)e->out[GATE_OUT_SUMSQ].data = why ? NAN : sumsq;
    *(float *)e->out[GATE_OUT_WHY].data = (float)why;
    *(float *)e->out[GATE_OUT_LOSS].data = loss;
    return TESS_OK;
}

static tess_status gate(const tess_exec *e)
{
    return decide(e, median_by_sorting);
}

static tess_status gate_ref(const tess_exec *e)
{
    return decide(e, median_by_counting);
}

/* ---- what is kept -------------------------------------------------------------------------- */

static tess_status note(const tess_exec *e)
{
    const float norm = sqrtf(*(const float *)e->in[NOTE_IN_SUMSQ].data);
    float *loss = e->in[NOTE_IN_LOSS].data;
    float *recent = e->n_in > NOTE_IN_RECENT ? e->in[NOTE_IN_RECENT].data : NULL;
    if (recent && isfinite(norm) && isfinite(*loss)) {
        const int at = (int)recent[RECENT_NEXT], n = (int)recent[RECENT_COUNT];
        recent[RECENT_LOSSES + at] = *loss;
        recent[RECENT_NORMS + at] = norm;
        recent[RECENT_NEXT] = (float)((at + 1) % RECENT_STEPS);
        recent[RECENT_COUNT] = (float)(n < RECENT_STEPS ? n + 1 : n);
    }
    *loss = 0;
    return TESS_OK;
}

bool tess_recent_is_valid(const float *recent)
{
    const float n = recent[RECENT_COUNT], next = recent[RECENT_NEXT];
    return n >= 0 && n <= RECENT_STEPS && next >= 0 && next < RECENT_STEPS;
}

/* ---- cases --------------------------------------------------------------------------------- */

static void print(const void *attrs, tess_buf *out)
{
    tess_buf_addf(out, "deviations=%g", (double)((const update_gate_attrs *)attrs)->deviations);
}

/* A state that some steps were entered in, whose numbers are what it was filled with. */
static void enter(const tess_operand *in, int count, int next)
{
    float *recent = in[GATE_IN_RECENT].data;
    recent[RECENT_COUNT] = (float)count;
    recent[RECENT_NEXT] = (float)next;
    for (int i = count; i < RECENT_STEPS; i++) {
        recent[RECENT_LOSSES + i] = recent[RECENT_NORMS + i] = 0;
    }
}

static void enter_some(const tess_operand *in)
{
    enter(in, 57, 57);
}

static void enter_all(const tess_operand *in)
{
    enter(in, RECENT_STEPS, RECENT_STEPS - 1);
}

static tess_value build_gate(tess_graph *g, const tess_value *in)
{
    tess_value why, loss;
    return tess_update_gate(g, in[0], in[1], in[2], 20, &why, &loss);
}

static tess_value build_plain_gate(tess_graph *g, const tess_value *in)
{
    tess_value why, loss;
    return tess_update_gate(g, in[0], in[1], 0, 0, &why, &loss);
}

static tess_value build_note(tess_graph *g, const tess_value *in)
{
    tess_update_note(g, in[0], in[1], in[2]);
    return 0;
}

static tess_value build_plain_note(tess_graph *g, const tess_value *in)
{
    tess_update_note(g, in[0], in[1], 0);
    return 0;
}

#define ONE                                                                                        \
    {                                                                                              \
        TESS_F32, {1, {1}}, TESS_FILL_POSITIVE, .no_grad = true                                    \
    }
#define RECENT                                                                                     \
    {                                                                                              \
        TESS_F32, {1, {RECENT_SIZE}}, TESS_FILL_POSITIVE, .no_grad = true                          \
    }

static const tess_case gate_cases[] = {
    {.name = "plain", .n_in = 2, .in = {ONE, ONE}, .build = build_plain_gate},
    {.name = "some", .n_in = 3, .in = {ONE, ONE, RECENT}, .build = build_gate, .set = enter_some},
    {.name = "all", .n_in = 3, .in = {ONE, ONE, RECENT}, .build = build_gate, .set = enter_all},
};

static const tess_case note_cases[] = {
    {.name = "plain", .n_in = 2, .in = {ONE, ONE}, .build = build_plain_note},
    {.name = "some", .n_in = 3, .in = {ONE, ONE, RECENT}, .build = build_note, .set = enter_some},
    {.name = "wraps", .n_in = 3, .in = {ONE, ONE, RECENT}, .build = build_note, .set = enter_all},
};

static const tess_op tess__op_update_note = {
    .name = "update_note",
    .n_in_min = 2,
    .n_in_max = 3,
    .flags = TESS_OP_EFFECT,
    .state_mask = 1 << NOTE_IN_LOSS | 1 << NOTE_IN_RECENT,
    .infer = infer,
    .cpu = note,
    .ref = note,
    .cases = note_cases,
    .n_cases = TESS_COUNT(note_cases),
};

static const tess_op *const extra[] = {&tess__op_update_note, NULL};

const tess_op tess__op_update_gate = {
    .name = "update_gate",
    .n_in_min = 2,
    .n_in_max = 3,
    .n_out = GATE_N_OUT,
    .attrs_bytes = sizeof(update_gate_attrs),
    .infer = infer_gate,
    .cpu = gate,
    .ref = gate_ref,
    .print = print,
    .extra = extra,
    .cases = gate_cases,
    .n_cases = TESS_COUNT(gate_cases),
};
