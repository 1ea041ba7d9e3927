/* SPDX-License-Identifier: Apache-2.0 */
/* The insides of a training run. */
#ifndef TESSERA_TRAIN_TRAIN_H
#define TESSERA_TRAIN_TRAIN_H

#include "tessera/train.h"
#include "train/saver.h"

/* The text tower that teaches, and its vectors of a batch. */
typedef struct tess__teacher {
    tess_model *model;
    tess_tokenizer_scratch *scratch;
    tess_ids ids;
    float *vectors, *packed; /* (B,Z) each */
    int64_t *offsets;        /* (B+1) */
    int64_t *rows;           /* (B): of texts that give tokens */
} tess__teacher;
/* Opens the teacher of these options for a student; nothing without one. */
TESS_MUST_USE tess_status tess__teacher_open(tess__teacher *t, const tess_train_options *o,
                                             const tess_model *student);
/* Unit vectors of n texts into t->vectors; of a text that gives no token, zeros: nothing is learnt
 * of it. */
TESS_MUST_USE tess_status tess__teacher_embed(tess__teacher *t, char *const *texts, int64_t n);
void tess__teacher_deinit(tess__teacher *t);

typedef struct tess_run {
    tess_train_options o; /* defaults filled in; batch_size of all ranks together */
    int rank, n_ranks;
    int lock;          /* on the run directory */
    tess_pager *pager; /* of a memory limit */
    char *memory_note; /* what it led to */
    tess_model *model;
    tess_trainer *trainer;
    tess__teacher teacher; /* of a distillation */
    tess_pipeline pipeline;
    tess_hooks hooks;
    tess_dataset *data;
    tess_loader *loader;
    tess_metrics *metrics;
    tess_saver *saver; /* of checkpoints, on rank 0 */
    tess_train_state state;
    char *checkpoints_dir;
    char *last_checkpoint; /* of this run, for delete_previous_checkpoint */
    int64_t total_steps;   /* 0: bounded by seconds */
    int64_t samples_per_epoch;
    int64_t evaluated_step; /* the last with results; -1: none */
    int64_t skipped_before; /* updates, in earlier sessions */
    double started;         /* tess_seconds when this session began */
    double elapsed_before;  /* seconds of earlier sessions */
    double elapsed;         /* of this one, by rank 0's clock */
    /* since the last logged step */
    double window_start, data_seconds;
    int64_t window_samples, window_tokens, window_wire, window_steps;
    float loss, norm;
    double lr;
    tess_step_result *skipped; /* (n_skipped) by step of the run: not written down yet */
    size_t n_skipped, cap_skipped;
    tess_appender *skipped_file; /* rank 0's, once there was one */
} tess_run;

/* train_ranks.c.  All ranks begin, from the same files, or none does; `opened`: how this one did.
 */
TESS_MUST_USE tess_status tess__run_begin_together(const tess_run *r, tess_status opened);
/* Ranks stop and slow down together: when one of them was told to stop, and by rank 0's clock. */
TESS_MUST_USE tess_status tess__run_share_clock(tess_run *r, bool *out_stop);
/* What all ranks have in `text`, one after another, in place. */
TESS_MUST_USE tess_status tess__run_gather(const tess_run *r, tess_buf *text);
/* What each rank's loader left out: to the log. */
TESS_MUST_USE tess_status tess__run_log_bad(tess_run *r);

/* train_skipped.c.  Takes a step's result into the state; a skipped one also into the list, which
 * tess__run_log_skipped writes to skipped.jsonl, called by all ranks at the same point. */
TESS_MUST_USE tess_status tess__run_account(tess_run *r, const tess_step_result *s);
TESS_MUST_USE tess_status tess__run_log_skipped(tess_run *r);
/* Rank 0, when it goes on: forgets what was skipped beyond the state's step. */
TESS_MUST_USE tess_status tess__run_open_skipped(tess_run *r);
void tess__run_close_skipped(tess_run *r);
/* With skip_outliers: the store's group "recent" to state.recent, and from there. */
TESS_MUST_USE tess_status tess__run_fetch_recent(tess_run *r);
TESS_MUST_USE tess_status tess__run_send_recent(tess_run *r, const char *checkpoint);

/* The part of training that is done, 0..1: by steps or by the clock. */
double tess__run_fraction(const tess_run *r);
double tess__learning_rate(const tess_train_options *o, int64_t step, double fraction);
/* A hash of every option that an exact resume needs to find unchanged; `teacher` may be NULL. */
TESS_MUST_USE tess_status tess__settings_hash(const tess_train_options *o, const tess_model *m,
                                              tess_model *teacher, char out[33]);

/* What became of the steps before: on a card the last ones are still being made, unless `wait`. */
TESS_MUST_USE tess_status tess__run_take_results(tess_run *r, bool wait);
/* Saves a checkpoint while training goes on. */
TESS_MUST_USE tess_status tess__run_save(tess_run *r, const char *name);
TESS_MUST_USE tess_status tess__run_save_step(tess_run *r);
/* Before an update: what is being saved of the store stays as it was.  Where a save has failed, the
 * run ends here. */
TESS_MUST_USE tess_status tess__run_let_change(tess_run *r);
/* Saves, waits for it, and fails for that reason.  A gradient that was being accumulated is no part
 * of a checkpoint: state points before it. */
TESS_MUST_USE tess_status tess__run_stop_early(tess_run *r, tess_status why);
/* The model directory, and with adapters the adapter's. */
TESS_MUST_USE tess_status tess__run_save_results(tess_run *r);
/* --memory-limit: before the model is opened, and when all is that takes memory. */
TESS_MUST_USE tess_status tess__memory_begin(tess_run *r);
TESS_MUST_USE tess_status tess__memory_divide(tess_run *r);
tess_recompute tess__run_recompute(const tess_train_options *o); /* what the options ask for */
/* The trainer of all other options, in place of one that there is. */
TESS_MUST_USE tess_status tess__run_open_trainer(tess_run *r, tess_recompute recompute);

/* Options to params.txt, sizes and what was left out to the log. */
TESS_MUST_USE tess_status tess__run_log_start(tess_run *r);
/* Retrieval on the validation data: to the metrics, the log and the report. */
TESS_MUST_USE tess_status tess__run_evaluate(tess_run *r);
/* The same, called by all ranks, of a model of which each holds a part; rank 0 decides whether it
 * is `due`. */
TESS_MUST_USE tess_status tess__run_evaluate_together(tess_run *r, bool due);
/* Rank 0, when training is over: takes the whole model from the last checkpoint in place of a part.
 */
TESS_MUST_USE tess_status tess__run_take_whole(tess_run *r);
/* Finds the last step with results: a run that stopped between a checkpoint and its evaluation
 * makes up for it, once. */
TESS_MUST_USE tess_status tess__run_find_evaluated(tess_run *r);

/* A file of a checkpoint that was summed as it was written. */
typedef struct tess__file_sum {
    const char *name;
    int64_t n_bytes;
    uint64_t crc;
} tess__file_sum;
/* Writes state.json into `dir`, with what is known and what all other files there sum to. */
TESS_MUST_USE tess_status tess__state_write(const tess_train_state *s, const char *dir,
                                            const tess__file_sum *known, int64_t n_known);
/* Reads it and checks every file that it lists. */
TESS_MUST_USE tess_status tess__state_read(const char *dir, tess_train_state *out);
/* tess_checkpoint_save on the saver's thread, after the job before.  What the model holds of it may
 * change only after tess__saver_settle.  When it is whole, the checkpoint `previous` (NULL: none)
 * is removed. */
TESS_MUST_USE tess_status tess__checkpoint_start(tess_saver *saver, tess_model *m,
                                                 const tess_train_state *state,
                                                 const char *checkpoints_dir, const char *name,
                                                 const char *previous);
/* The same by all ranks of a trainer that shards, each of which writes its own ranges into the
 * files; returns when it is whole. */
TESS_MUST_USE tess_status tess__checkpoint_save_together(tess_comm *comm, tess_model *m,
                                                         const tess_train_state *state,
                                                         const char *checkpoints_dir,
                                                         const char *name, const char *previous);
/* In two moves, so that what a kill leaves is no damaged checkpoint but a leftover. */
TESS_MUST_USE tess_status tess__checkpoint_remove(const char *dir);
/* Removes what killed saves left. */
TESS_MUST_USE tess_status tess__checkpoints_sweep(const char *checkpoints_dir);

#endif
