/* SPDX-License-Identifier: Apache-2.0 */
/* The insides of a plan of training: planning.c counts bytes, planning_time.c seconds. */
#ifndef TESSERA_TRAIN_PLANNING_H
#define TESSERA_TRAIN_PLANNING_H

#include "tessera/planning.h"

/* Bytes of a rank's states when none is divided. */
typedef struct tess__states {
    double weights, gradients, masters, moments;
} tess__states;

/* One way to train, to be timed. */
typedef struct tess__timing {
    const tess_cluster *cluster;
    const tess_trainer_account *own;     /* of the stage and recompute that are timed */
    const tess_trainer_account *account; /* of stage 0 */
    tess__states whole;
    int64_t accumulate;
} tess__timing;

/* Bytes that a rank sends in a step, for the states' sake and for the features'. */
double tess__wire_bytes(const tess__timing *t, int stage);
/* Fills what is to be known of time: wire, disk, flops, seconds, bound.  Stage and offload of *out
 * are set, and its bytes. */
void tess__plan_times(const tess__timing *t, tess_planned *out);

#endif
