/* SPDX-License-Identifier: Apache-2.0 */
/* The insides of a trainer: trainer.c builds its micro-step's plans, trainer_loss.c what is in them
 * of the objectives, trainer_update.c the update's plan; trainer_run.c runs them, and
 * trainer_cache.c those of an update whose loss is over several batches; trainer_ranks.c is what
 * several ranks do beside. */
#ifndef TESSERA_FUSION_TRAINER_H
#define TESSERA_FUSION_TRAINER_H

#include "tensor/graph.h"
#include "tensor/parallel.h"
#include "tessera/fusion.h"

#define TESS__STEP_PLANS     48
#define TESS__RATES          3 /* of tess_adam_time */
#define TESS__RESULT_NUMBERS 3 /* of an update, that are read back */

/* A micro-step is one plan; where the features of several are cached (trainer_cache.c) it is two,
 * before and after the one of the loss. */
typedef enum tess__step_kind {
    TESS__STEP_WHOLE, /* out: the loss */
    TESS__STEP_EMBED, /* the batch -> out: features of text (K*B,Z), and of image (B,Z) if it sees
                       */
    TESS__STEP_LOSS,  /* inputs "text", "image" of all batches -> out: loss, d text, d image */
    TESS__STEP_BACK,  /* the batch, "d_text", "d_image" -> gradients of the weights */
} tess__step_kind;

typedef struct tess__step_plan {
    tess__step_kind kind;
    tess_graph *graph;
    tess_plan *plan;
    tess_value out[3];
    int64_t n_out, rows, last_used;
} tess__step_plan;

typedef struct tess__cache tess__cache;

typedef struct tess__grad_run {
    int64_t offset, n;
} tess__grad_run;

/* What R ranks need beside their plans; all zero alone. */
typedef struct tess__ranks {
    tess_adamw_range *ranges; /* that this rank updates */
    tess_sum_piece *pieces;   /* of gradients, for the norm: group r is rank r's, R what all hold */
    tess__grad_run *runs;     /* of gradients that all ranks hold whole */
    int64_t n_ranges, n_pieces, n_runs;
    int64_t *counts; /* (R) of one collective */
    double *sums;    /* (R+1): of squares */
    double *partial; /* (n_pieces) */
    float sumsq;
} tess__ranks;

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
    struct tess_cards *cards; /* NULL: ranks send by way of the host */
    tess__cache *cache;       /* NULL: each micro-step is whole */
    tess__ranks ranks;
    bool narrow; /* products read group "half", which the update writes */
    bool debug, profile;
};

/* Ranks that train together. */
int tess__trainer_ranks(const tess_trainer *t);
/* How many ranks make the whole loss, each of all ranks' features, so that its gradients are summed
 * as often: all on cards, whose kernels know no ranks.  1: each makes its part. */
int64_t tess__trainer_whole(const tess_trainer *t);
/* By how much a loss is divided: losses of an update, and ranks that make the whole. */
float tess__trainer_parts(const tess_trainer *t);
/* Features to which a batch leads: text, and image if it sees.  Their names as inputs of the loss,
 * and of their gradients. */
extern const char *const tess__feature_names[2], *const tess__gradient_names[2];
int64_t tess__trainer_features(const tess_trainer *t);
/* Whether a plan of this kind runs the tower of that feature: one that is frozen is not run again.
 */
bool tess__trainer_runs(const tess_trainer *t, tess__step_kind kind, int64_t feature);
/* Whether pictures are a part of its batches. */
bool tess__trainer_sees(const tess_trainer *t);
/* The group that is trained: the parameters, or with adapters theirs alone. */
const char *tess__trainer_group(const tess_trainer *t);
/* Whether this entry of it is frozen, or any. */
bool tess__trainer_locks(const tess_trainer *t, const char *name);
bool tess__trainer_locks_any(const tess_trainer *t);
/* K': how many rows of a picture a step sees. */
int64_t tess__trainer_kept(const tess_trainer *t);
/* The loss, divided by tess__trainer_parts, of features image (B,Z), 0 where it sees none, and text
 * (K*B,Z), of one batch or of several as one. */
tess_value tess__trainer_loss(tess_graph *g, const tess_trainer *t, tess_value image,
                              tess_value text);
/* The plan for so many token rows; built where it is not there. */
tess_status tess__trainer_find(tess_trainer *t, tess__step_kind kind, int64_t rows,
                               tess__step_plan **out);
/* The plan for this batch, with what is bound of it. */
tess_status tess__trainer_bind(tess_trainer *t, tess__step_kind kind, const tess_micro_batch *b,
                               tess__step_plan **out);
tess_status tess__trainer_run(const tess_trainer *t, tess_plan *plan);
/* With accumulate above 1: a loss over all batches of an update.  The cache is freed with the
 * trainer. */
tess_status tess__cache_new(const tess_trainer *t, tess__cache **out);
void tess__cache_free(tess__cache *c);
/* A micro-step; *out_done: it was the update's last, and with wants_loss the loss is among the
 * results. */
tess_status tess__cache_step(tess_trainer *t, const tess_micro_batch *b, bool wants_loss,
                             bool *out_done);
/* Micro-steps since the last update, and FLOPs of the last update's. */
int64_t tess__cache_n_held(const tess__cache *c);
double tess__cache_flops(const tess__cache *c);
/* So many token rows a plan is built for, of a batch with n tokens. */
int64_t tess__trainer_bucket(int64_t n);
tess_status tess__trainer_build_update(tess_trainer *t);
/* The group "half", a bf16 copy of all parameters in the same places; tess_trainer_sync fills it.
 */
tess_status tess__trainer_add_half(const tess_trainer *t);

/* How graphs of this trainer have their weights. */
tess__sharding tess__trainer_sharding(const tess_trainer *t);
/* Whether this rank holds only its ranges of a group, and making it so before its layout. */
bool tess__trainer_splits(const tess_trainer *t, const char *group);
tess_status tess__trainer_split(const tess_trainer *t, const char *group);
/* After the states are there. */
tess_status tess__ranks_build(tess_trainer *t);
void tess__ranks_deinit(tess__ranks *r);
/* An update over ranks: gradients become their sums, ranks.sumsq that of their squares; the
 * update's plan; then what each rank has made anew of the weights goes to the others. */
tess_status tess__ranks_reduce(const tess_trainer *t);
tess_status tess__ranks_norm(tess_trainer *t);
tess_status tess__ranks_finish(const tess_trainer *t);
/* Whether it makes the norm, on processors; a card's plan makes its own. */
bool tess__ranks_have_norm(const tess_trainer *t);
/* Ranges of weights to all ranks, where these hold them whole; with `locked` of frozen ones too. */
tess_status tess__ranks_gather(const tess_trainer *t, bool locked);

#endif
