/* SPDX-License-Identifier: Apache-2.0 */
/* The insides of a trainer: trainer.c builds its micro-step's plans, trainer_loss.c what is in them
 * of the objectives, trainer_update.c the update's plan; trainer_run.c runs them. */
#ifndef TESSERA_FUSION_TRAINER_H
#define TESSERA_FUSION_TRAINER_H

#include "tessera/fusion.h"

#define TESS__STEP_PLANS     48
#define TESS__RATES          3 /* of tess_adam_time */
#define TESS__RESULT_NUMBERS 3 /* of an update, that are read back */

typedef struct tess__step_plan {
    tess_graph *graph;
    tess_plan *plan;
    tess_value loss;
    int64_t rows, last_used;
} tess__step_plan;

struct tess_trainer {
    tess_model *model;
    tess_trainer_options o;
    tess_workspace *workspace;
    tess__step_plan plans[TESS__STEP_PLANS];
    int64_t clock, last;
    tess_graph *update_graph;
    tess_plan *update;
    tess_value norm, gated, loss, why; /* of tess_update_gate */
    float rates[TESS__RATES];
    tess_readback *results; /* of an update its loss, its norm's square and why; or one loss */
    int32_t *tokens, *positions;
    int32_t *kept;  /* (B,K'): rows of each picture that this step sees; NULL: all */
    float *teacher; /* (K*B,Z): the batch's, once for each slot */
    size_t cap_tokens, cap_positions, cap_teacher;
    bool narrow; /* products read group "half", which the update writes */
    bool debug, profile;
};

/* By how much a micro-step's loss is divided: micro-steps of an update. */
float tess__trainer_parts(const tess_trainer *t);
/* Whether pictures are a part of its batches. */
bool tess__trainer_sees(const tess_trainer *t);
/* The group that is trained: the parameters, or with adapters theirs alone. */
const char *tess__trainer_group(const tess_trainer *t);
/* Whether this entry of it is frozen, or any. */
bool tess__trainer_locks(const tess_trainer *t, const char *name);
bool tess__trainer_locks_any(const tess_trainer *t);
/* K': how many rows of a picture a step sees. */
int64_t tess__trainer_kept(const tess_trainer *t);
/* The micro-step's loss, divided by tess__trainer_parts, of features image (B,Z), 0 where it sees
 * none, and text (K*B,Z). */
tess_value tess__trainer_loss(tess_graph *g, const tess_trainer *t, tess_value image,
                              tess_value text);
/* The micro-step's plan for so many token rows; built where it is not there. */
tess_status tess__trainer_find(tess_trainer *t, int64_t rows, tess__step_plan **out);
/* So many token rows a plan is built for, of a batch with n tokens. */
int64_t tess__trainer_bucket(int64_t n);
tess_status tess__trainer_build_update(tess_trainer *t);
/* The group "half", a bf16 copy of all parameters in the same places; tess_trainer_sync fills it.
 */
tess_status tess__trainer_add_half(const tess_trainer *t);

#endif
