/* SPDX-License-Identifier: Apache-2.0 */
/* train: the optimizer loop, its checkpoints, and the evaluation of a model by retrieval. */
#ifndef TESSERA_TRAIN_H
#define TESSERA_TRAIN_H

#include "tessera/data.h"
#include "tessera/fusion.h"
#include "tessera/metrics.h"

/* ---- pictures and captions for a model ----------------------------------------------------- */

/* What the hooks of a real model need. */
typedef struct tess_pipeline {
    tess_preprocess preprocess; /* its width and height give way to the size asked for */
    tess_augment augment;
    tess_decode_limits limits;
    const tess_tokenizer *tokenizer; /* borrowed; NULL: pictures only */
    unsigned clean_flags;            /* TESS_CLEAN_FOLD or 0 */
    bool add_bos, add_eos;
    /* A model of another program: texts go through tess_model_tokenize, uncleaned; borrowed. */
    const tess_model *texts_of;
} tess_pipeline;
/* `p` is borrowed by the hooks and must stay in place. */
tess_hooks tess_pipeline_hooks(const tess_pipeline *p);
/* The pipeline that brings a data set into a model's form; the model must outlive it. */
tess_pipeline tess_model_pipeline(const tess_model *m);

/* ---- training ------------------------------------------------------------------------------ */

typedef struct tess_train_progress {
    int64_t step, total_steps; /* total 0: bounded by time */
    double elapsed, budget; /* seconds of training, all sessions of this run; budget 0: by steps */
    int64_t n_samples;
    double samples_per_second, loss, lr;
} tess_train_progress;

/* Zero means the default named beside a field. */
typedef struct tess_train_options {
    const char *train_data, *dataset_type, *caption_key; /* see tess_dataset_options */
    const char *val_data, *val_caption_key,
        *val_novel_key;    /* as in tess_eval_options; NULL: none */
    const char *model;     /* config file, or a model directory to start from */
    const char *tokenizer; /* NULL: beside the config */
    const char *run_dir;   /* logs/<name> */
    const char *resume;    /* NULL, "latest", or a checkpoint directory */
    tess_precision precision;
    const tess_device *device; /* NULL: the processor */
    /* NULL: alone.  Rank 0 writes the run directory, which all ranks must see to resume, and
     * evaluates; after an error the caller ends the job (tess_comm_abort). */
    tess_comm *comm;
    int zero;              /* see tess_trainer_options, both */
    tess_dtype grad_dtype; /* TESS_F32 */
    size_t overlap_bytes;
    bool deterministic;          /* tess_compute_deterministic */
    int64_t batch_size;          /* 64; pictures of one micro-step on each rank */
    int64_t captions_per_image;  /* 1 */
    int64_t accum_freq;          /* 1; batches of an update, with one loss over all */
    double language_temperature; /* 1 */
    /* The end: by epochs, by steps, or by seconds of training; the one that is set.  Bounded by
     * seconds the schedule follows the clock, and the run is not repeatable bit for bit. */
    int64_t epochs, steps;
    double seconds;
    double lr, beta1, beta2, eps, weight_decay; /* 5e-4, .9, .98, 1e-6, .2 */
    double grad_clip_norm;                      /* 0: none */
    const char *optimizer;         /* adamw | muon: hidden matrices by Muon, the rest by AdamW */
    double muon_momentum, muon_lr; /* 0.95; 1: Muon's rate as a part of lr */
    /* Skips updates whose loss or gradient norm lies so many deviations above the median of the
     * last 128 (tess_update_gate); 0: those alone that are not finite.  What is skipped is in the
     * run directory's skipped.jsonl, with the keys of its samples. */
    double skip_outliers;
    int64_t warmup;             /* steps, linear */
    const char *lr_scheduler;   /* cosine | const */
    double lr_min;              /* the cosine's end, as a part of lr */
    bool grad_checkpointing;    /* TESS_RECOMPUTE_FULL */
    bool recompute_activations; /* TESS_RECOMPUTE_SELECTIVE */
    bool lock_image, lock_text;
    bool stochastic_rounding; /* of the weights' bf16 copies; see tess_adamw */
    /* Rank 1 or more: the model, a directory, stays as it is and an adapter is trained instead. The
     * run directory gets adapter/, and model/ is the two merged; checkpoints hold the adapter. */
    tess_lora_options lora;
    /* Distillation: a model directory whose text tower teaches this one's; its image tower must be
     * this model's, which is neither run nor changed.  The data need no pictures; of each sample
     * the teacher reads a caption in distill_language ("en"), the student that and
     * captions_per_image - 1 (default and least: 1) in other languages.  NULL: none. */
    const char *distill_text, *distill_language;
    const char *distill_loss; /* mse | contrastive; see tess_distill */
    uint64_t seed;
    int workers;
    tess_augment augment;
    double patch_dropout; /* see tess_trainer_options */
    int64_t cache_size;   /* see tess_loader_options */
    size_t cache_bytes;
    double max_bad_rate;
    int64_t log_every_n_steps;  /* 100 */
    int64_t save_every_n_steps; /* 0: at epochs only */
    int64_t save_frequency;     /* epochs between checkpoints; 1 */
    /* A checkpoint is written while training goes on.  At most this much of it is copied aside when
     * an update comes before it is written; 0: updates wait for the disk. */
    size_t save_copy_bytes;
    int64_t val_frequency; /* epochs between evaluations; 0: at the end only */
    bool delete_previous_checkpoint;
    /* Bytes that the process may have in memory, 0: no limit.  States that have no room lie in
     * files of offload_dir (NULL: where the run directory is), and blocks are computed again where
     * that is not enough; a limit that nothing fits is refused with the least that would do. */
    size_t memory_limit;
    const char *offload_dir;
    bool debug_numerics; /* step by step, stops at the first value that is not finite */
    bool profile;
    void (*on_progress)(void *ctx, const tess_train_progress *p);
    void *ctx;
} tess_train_options;

/* Runs to the end, or until tess_cancelled is set, when it saves a checkpoint and returns
 * TESS_CANCELLED.  The run directory gets metrics, report.html, checkpoints/ and, at the end,
 * model/ (a model directory).  A run that exists already is refused unless `resume` is set. */
TESS_MUST_USE tess_status tess_train(const tess_train_options *o);

/* ---- checkpoints --------------------------------------------------------------------------- */

/* A checkpoint is a directory checkpoints/step_NNNNNNNN or checkpoints/epoch_N: a model directory
 * (or an adapter's) with optimizer.safetensors (m/..., v/...) and state.json, which lists every
 * file's size and hash and is written last, in a directory that gets its name last: complete or
 * absent. */
typedef struct tess_train_state {
    int64_t step;    /* updates done */
    int64_t counter; /* samples delivered: the data cursor */
    int64_t epoch;
    double elapsed;  /* seconds, for runs bounded by time; else 0 */
    double loss_sum; /* since the epoch began, and the steps in it: for the mean loss */
    int64_t n_loss;
    uint64_t seed;
    int64_t n_skipped;                     /* updates; see skip_outliers */
    char recent[8 * TESS_RECENT_SIZE + 1]; /* with skip_outliers, their f32 bits in hexadecimal */
    char settings[33];                     /* hash of what must agree for an exact resume */
} tess_train_state;
/* Returns when it is whole. */
TESS_MUST_USE tess_status tess_checkpoint_save(tess_model *m, const tess_train_state *s,
                                               const char *checkpoints_dir, const char *name);
/* Verifies and loads parameters and moments into the model's store. */
TESS_MUST_USE tess_status tess_checkpoint_load(tess_model *m, const char *dir,
                                               tess_train_state *out);
/* The complete checkpoint with the most steps; damaged ones are passed over with a warning.  NULL:
 * none.  The caller frees. */
TESS_MUST_USE tess_status tess_checkpoint_latest(const char *checkpoints_dir, char **out);

/* ---- evaluation ---------------------------------------------------------------------------- */

/* Text-to-image and image-to-text retrieval over all pictures of a data set, per language. */
typedef struct tess_eval_options {
    const char *data, *dataset_type;
    const char *caption_key; /* captions to search with */
    const char *novel_key;   /* a list of the languages whose caption has words never seen; NULL */
    int64_t min_captions;    /* languages with fewer are left out of the means; 50 */
    int workers;
} tess_eval_options;

typedef struct tess_recall {
    int64_t n;
    double at1, at5, at10; /* parts of 1 */
} tess_recall;
typedef struct tess_language_recall {
    const char *language;
    tess_recall text_to_image, known, novel; /* known words, new words */
} tess_language_recall;
typedef struct tess_eval_result {
    int64_t n_pictures, n_captions, n_languages, n_mean_languages;
    tess_recall text_to_image, image_to_text; /* over all captions; pictures */
    /* Means over the languages with at least min_captions captions (of that kind). */
    tess_recall mean, mean_known, mean_novel;
    double mean_rank, median_rank;   /* of text_to_image, from 1 */
    tess_language_recall *languages; /* sorted by name */
    double seconds;
    tess_arena arena;
} tess_eval_result;
TESS_MUST_USE tess_status tess_eval_retrieval(tess_model *m, const tess_eval_options *o,
                                              tess_eval_result *out);
void tess_eval_result_deinit(tess_eval_result *r);
void tess_eval_result_write_json(const tess_eval_result *r, tess_json_writer *w);

/* ---- evaluation tasks ----------------------------------------------------------------------- */

/* The tasks of CLIP_benchmark on data in its layout, by its metrics:
 *   zeroshot_classification  acc1, acc5, mean_per_class_recall
 *   zeroshot_retrieval       image_retrieval_recall@K, text_retrieval_recall@K, a row per language
 *   linear_probe             lp_acc1, lp_acc5, lp_mean_per_class_recall, and weight_decay, seed,
 *                            fewshot_k
 * Ties go by index.  acc5 is NaN with fewer than five classes, as there; classes without a picture
 * do not count in the mean per class.
 *
 * `data` is a directory with <split>/nshards.txt and <split>/{0..n-1}.tar (with .cls or .txt beside
 * the pictures), classnames.txt, zeroshot_classification_templates.txt and dataset_type.txt; or one
 * with a folder for each class, below <split> or itself; for retrieval also whatever
 * tess_dataset_open takes.  Samples without a usable picture, label or caption are left out,
 * counted and named. */
typedef struct tess_task_options {
    const char *task;
    const char *data, *dataset_type;
    const char *split;               /* NULL: test/ where there is one, else `data` itself */
    const char *train_split;         /* "train"; linear_probe */
    const char *val_split;           /* NULL: a part of the training split */
    double val_proportion;           /* that part; 0: 0.2 */
    int64_t fewshot_k;               /* training pictures of each class; 0: all */
    double weight_decay;             /* 0: searched for */
    uint64_t seed;                   /* which pictures are in that part and those few */
    const char *classes, *templates; /* files; NULL: the data set's own */
    const char *caption_key;         /* retrieval; see tess_dataset_options */
    const char *image_root;
    /* Those to evaluate; none: all.  Where the data names none, the first is what the row is
     * called ("en"). */
    const char *const *languages;
    int64_t n_languages;
    const int64_t *recall_k; /* retrieval; none: 1, 5, 10 */
    int64_t n_recall_k;
    int64_t
        max_captions; /* of one picture in one language, the first; 0: all, 1 of Crossmodal-3600 */
    int workers;
    void (*on_progress)(void *ctx, int64_t n_done, int64_t n_total); /* pictures; NULL: none */
    void *ctx;
} tess_task_options;

typedef struct tess_task_row {
    const char *language;
    tess_scalar *metrics;
    int64_t n_metrics;
    int64_t n_pictures, n_texts; /* n_texts: captions, or classes */
} tess_task_row;
typedef struct tess_task_result {
    const char *task;
    tess_task_row *rows; /* sorted by language */
    int64_t n_rows;
    tess_bad_list bad; /* what was left out */
    double seconds;
    tess_arena arena;
} tess_task_result;
TESS_MUST_USE tess_status tess_task_run(tess_model *m, const tess_task_options *o,
                                        tess_task_result *out);
void tess_task_result_deinit(tess_task_result *r);
/* Row i as CLIP_benchmark writes it: {"dataset","model","pretrained","task","metrics","language"};
 * a metric that is NaN is null. */
void tess_task_write_row(const tess_task_result *r, int64_t i, const char *dataset,
                         const char *model, const char *pretrained, tess_json_writer *w);

/* ---- a whole corpus ------------------------------------------------------------------------ */

typedef struct tess_corpus_options {
    const char *data, *dataset_type, *caption_key;
    int workers;
    void (*on_progress)(void *ctx, int64_t n_done, int64_t n_total); /* NULL: none */
} tess_corpus_options;
typedef struct tess_corpus_report {
    int64_t n_embedded;
    tess_bad_list bad; /* what was left out, by reason */
} tess_corpus_report;
/* One embedded picture: its sample with picture and captions, and its unit vector (Z). */
typedef tess_status tess_corpus_fn(void *ctx, const tess_dataset *ds, const tess_sample *s,
                                   const float *vector);
/* Embeds every picture of a data set, in its order; captions are optional.  Pictures that do not
 * decode are counted in the report.  Stops at the first failure of `visit`, or when tess_cancelled
 * is set. */
TESS_MUST_USE tess_status tess_corpus_embed(tess_model *m, const tess_corpus_options *o,
                                            tess_corpus_fn *visit, void *ctx,
                                            tess_corpus_report *out);
/* ---- a corpus of texts --------------------------------------------------------------------- */

typedef struct tess_text_corpus_options {
    const char *path;     /* JSON lines; or a table with a header row, named *.csv or *.tsv */
    const char *text_key; /* the field or column of the text; NULL: "text" */
    const char *id_key;   /* of its key, a string or a whole number; NULL: "key", else "id" */
    void (*on_progress)(void *ctx, int64_t n_done, int64_t n_total); /* bytes; NULL: none */
} tess_text_corpus_options;
/* One text and its unit vector (Z); the text is cut at 64 KiB, the model may read less of it. */
typedef tess_status tess_text_corpus_fn(void *ctx, const char *key, const char *text,
                                        const float *vector);
/* Embeds every text of a file, in its order.  A record without a key gets "line N" ("row N" in a
 * table).  Records that are none, hold no text, are not UTF-8 or repeat a key are counted in the
 * report by their line; a file without any usable one is TESS_INVALID. */
TESS_MUST_USE tess_status tess_text_corpus_embed(tess_model *m, const tess_text_corpus_options *o,
                                                 tess_text_corpus_fn *visit, void *ctx,
                                                 tess_corpus_report *out);

void tess_corpus_report_deinit(tess_corpus_report *r);

#endif
