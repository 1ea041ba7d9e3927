/* SPDX-License-Identifier: Apache-2.0 */
/* update_gate's operands and attributes, for its kernels on every device. */
#ifndef TESSERA_TENSOR_OPS_UPDATE_GATE_H
#define TESSERA_TENSOR_OPS_UPDATE_GATE_H

#include "tessera/tensor.h"

typedef struct update_gate_attrs {
    float deviations; /* K */
} update_gate_attrs;

enum { GATE_IN_SUMSQ, GATE_IN_LOSS, GATE_IN_RECENT };
enum { GATE_OUT_SUMSQ, GATE_OUT_WHY, GATE_OUT_LOSS, GATE_N_OUT };
enum { NOTE_IN_SUMSQ, NOTE_IN_LOSS, NOTE_IN_RECENT };
/* In the state `recent`: how many steps are in it, where the next goes, their losses and norms. */
enum {
    RECENT_STEPS = 128,
    RECENT_FROM = 32,
    RECENT_COUNT = 0,
    RECENT_NEXT,
    RECENT_LOSSES,
    RECENT_NORMS = RECENT_LOSSES + RECENT_STEPS,
    RECENT_SIZE = RECENT_NORMS + RECENT_STEPS
};
#if defined __cplusplus
static_assert(RECENT_SIZE == TESS_RECENT_SIZE, "as callers know it");
#else
_Static_assert(RECENT_SIZE == TESS_RECENT_SIZE, "as callers know it");
#endif

/* A normal distribution's standard deviation is so many times its median deviation; and the least
 * that counts as one, as a part of the median, for losses that stand still. */
#define GATE_MAD_TO_DEVIATION 1.4826f
#define GATE_LEAST_DEVIATION  0.01f

#endif
