/* SPDX-License-Identifier: Apache-2.0 */
/* fusion: both towers together.  A two-tower model from a JSON config with OpenCLIP's key names,
 * its objectives, and the model directory that holds it.
 *
 * A model directory:
 *   open_clip_config.json          model_cfg, preprocess_cfg (OpenCLIP), tessera (objectives)
 *   open_clip_model.safetensors    parameters under OpenCLIP's native names, f32
 *   tokenizer.model                SentencePiece
 *   tessera.json                   fingerprint: a hash of weights, towers, preprocessing, tokenizer
 */
#ifndef TESSERA_FUSION_H
#define TESSERA_FUSION_H

#include "tessera/index.h"
#include "tessera/tensor.h"
#include "tessera/text.h"
#include "tessera/vision.h"

typedef struct tess_model tess_model;

/* f32, bf16, or what the processor does best (bf16 with AVX-512 BF16, else f32).  INT8, 8-bit
 * weights and activations, is for embedding alone. */
typedef enum tess_precision {
    TESS_PRECISION_AUTO,
    TESS_PRECISION_F32,
    TESS_PRECISION_BF16,
    TESS_PRECISION_INT8,
    TESS_PRECISION_FP8, /* bf16; a training may multiply in FP8 (tess_trainer_options.fp8_width) */
} tess_precision;
/* Below it, making FP8 numbers costs more than their products spare: the former grows with a
 * layer's widths' sum, the latter with their product (docs/cuda.md has the arithmetic). */
enum { TESS_FP8_WIDTH = 1024 };

/* Reads a config file (model_cfg, preprocess_cfg, tessera) and a tokenizer, and initialises the
 * parameters from the seed.  A config with an unknown key is refused by its path; a tokenizer whose
 * vocabulary does not match vocab_size likewise. */
TESS_MUST_USE tess_status tess_model_new(const char *config_path, const char *tokenizer_path,
                                         uint64_t seed, tess_precision precision, tess_model **out);
/* Opens a model directory ("local-dir:" before it is accepted): Tessera's own, OpenCLIP's
 * (open_clip_config.json) or Hugging Face's CLIP and SigLIP (config.json), with its tokenizer and
 * its safetensors, whole or in shards.  Weights are checked by name and shape and, in Tessera's
 * own, against the recorded fingerprint. */
TESS_MUST_USE tess_status tess_model_open(const char *dir, tess_precision precision,
                                          tess_model **out);
/* What a model is made of, for predictions: a config file or directory (no weights need be there),
 * or with `text` that config itself, `path` being its name in messages. */
typedef struct tess_model_outline {
    const char *path, *text;
    tess_precision precision;
    const tess_device *device; /* of tess_device_describe; the trainers' */
    /* 0: the model, with a store that is described only.  Else towers of so many blocks at most, in
     * memory and with numbers in them, on the processor: for measuring what a block costs. */
    int64_t sample_layers;
} tess_model_outline;
TESS_MUST_USE tess_status tess_model_describe(const tess_model_outline *o, tess_model **out);
int64_t tess_model_n_vocab(const tess_model *m); /* of the text tower */
/* The same two with their states in a pager; NULL: in memory.  Only Tessera's own directories are
 * opened so. */
TESS_MUST_USE tess_status tess_model_new_paged(const char *config_path, const char *tokenizer_path,
                                               uint64_t seed, tess_precision precision,
                                               tess_pager *pager, tess_model **out);
TESS_MUST_USE tess_status tess_model_open_paged(const char *dir, tess_precision precision,
                                                tess_pager *pager, tess_model **out);
void tess_model_free(tess_model *m);
/* Writes a model directory, whole or absent; an existing one is replaced, a directory that holds
 * anything else is refused.  A text-only model keeps the layout that it came in, and that directory
 * is read again for its configs. */
TESS_MUST_USE tess_status tess_model_save(tess_model *m, const char *dir);

/* The parts of a model directory, or of an adapter's where one is trained, for who writes the
 * weights himself.  The tensors' data is the store's own, except for copies in the arena; on a
 * device, what tess_model_fetch brought. */
typedef struct tess_model_weights {
    const char *file; /* its name in the directory */
    tess_tensor *tensors;
    int64_t n;
    const tess_pair *metadata;
    int64_t n_metadata;
    tess_pair base;
    tess_arena arena;
} tess_model_weights; /* not to be moved */
TESS_MUST_USE tess_status tess_model_gather_weights(tess_model *m, tess_model_weights *out);
void tess_model_weights_deinit(tess_model_weights *w);
/* All but the weights and the summary.  From any thread, while the model is trained. */
TESS_MUST_USE tess_status tess_model_write_frame(const tess_model *m, const char *dir);
/* What opening checks the weights' file against: its size and tess_crc64. */
TESS_MUST_USE tess_status tess_model_write_summary(const tess_model *m, const char *dir,
                                                   int64_t n_bytes, uint64_t crc);

/* Writes the model of directory `in` as a directory `out` of another layout, "openclip" or "hf",
 * whole or absent.  Tensors keep the type they had in their file; within one layout they and the
 * configs are what they were.  A model that the layout cannot say: TESS_UNSUPPORTED, by what it
 * cannot say.  `out` must not exist, or be empty. */
TESS_MUST_USE tess_status tess_model_convert(const char *in, const char *to, const char *out);

/* ---- mixtures ------------------------------------------------------------------------------- */

/* What leads from the text tower into the image tower's space. */
typedef enum tess_mix_projection {
    TESS_MIX_AUTO,   /* a text tower's own projection or Dense where it fits, else LINEAR */
    TESS_MIX_LINEAR, /* a new matrix */
    TESS_MIX_MLP,    /* of BERT and XLM-R: two new matrices, GELU between (OpenCLIP's "mlp") */
    TESS_MIX_KEEP,   /* nothing new: the text tower gives vectors of that size as it is */
} tess_mix_projection;
typedef struct tess_mix_options {
    const char *image; /* directory: image tower, preprocessing, logit scale and bias, objectives */
    const char *text;  /* directory: text tower and tokenizer; a text-only model's will do */
    tess_mix_projection projection;
    uint64_t seed; /* of a new projection */
} tess_mix_options;
typedef struct tess_mix_report {
    int64_t text_dim,
        embed_dim; /* of the text tower's model; of the image tower's and the result */
    bool is_fresh; /* the projection is new: the towers do not know each other yet */
} tess_mix_report;
/* Makes a model of an image tower and a text tower of different models; save it with
 * tess_model_save, train it with its image tower locked, or by distillation. */
TESS_MUST_USE tess_status tess_model_mix(const tess_mix_options *o, tess_mix_report *report,
                                         tess_model **out);

/* Whether two models give a picture the same vector: towers, weights and preprocessing alike.  The
 * text tower of one then serves the other's pictures as well. */
bool tess_model_same_image_tower(const tess_model *a, const tess_model *b);

/* 32 hex digits: a hash over everything that decides a vector (weights, towers, preprocessing,
 * tokenizer); what an index records. */
TESS_MUST_USE tess_status tess_model_fingerprint(tess_model *m, char out[33]);
int64_t tess_model_embed_dim(const tess_model *m);
/* False for a text-only model: embedding a picture with it is TESS_UNSUPPORTED. */
bool tess_model_has_image(const tess_model *m);
int64_t tess_model_image_size(const tess_model *m); /* 0 without an image tower */
int64_t tess_model_context_length(const tess_model *m);
int64_t tess_model_n_params(const tess_model *m);
const tess_preprocess *tess_model_preprocess(const tess_model *m);
const tess_tokenizer *tess_model_tokenizer(const tess_model *m);
/* True where texts are prepared as another program prepares them, rather than cleaned as ours. */
bool tess_model_has_own_texts(const tess_model *m);
tess_store *tess_model_store(const tess_model *m); /* group "param" */
/* Where the model computes; to be said before it has computed.  Without it: on the processor. */
void tess_model_use(tess_model *m, const tess_device *device);
/* The same for a model that only embeds from now on.  On a card with bf16 its matrices are kept in
 * bf16 alone, as tess_model_narrow says, but it still knows its fingerprint.  TESS_INVALID: its
 * weights are packed for the processor (tess_model_open_embedder). */
TESS_MUST_USE tess_status tess_model_embed_on(tess_model *m, const tess_device *device);
/* The pictures that its device embeds in one go; more in one call are cut into such runs. */
int64_t tess_model_pictures_at_once(const tess_model *m);
/* Where a Flat index is searched, exactly as by the processor (docs/index.md); to be said before
 * any search.  TESS_UNSUPPORTED: an index of another kind; TESS_NOMEM: the card has no room for its
 * vectors; after both the processor searches. */
TESS_MUST_USE tess_status tess_index_use(tess_index *ix, const tess_device *device);
/* On a device with memory of its own: what training has changed there comes into the host's memory
 * (saving a model or an adapter does so itself), or what was loaded here goes there. */
TESS_MUST_USE tess_status tess_model_fetch(tess_model *m);
TESS_MUST_USE tess_status tess_model_send(tess_model *m);
tess_dtype tess_model_dtype(const tess_model *m); /* that the towers compute in */
/* The config as JSON, as it is saved. */
void tess_model_write_config(const tess_model *m, tess_buf *out);

/* ---- low-bit inference --------------------------------------------------------------------- */

/* Opens a model directory for embedding alone (it cannot be trained or saved).  With a packed file
 * that belongs to the directory the weights are mapped, shared by all processes, and nothing else
 * of them is read; `precision` AUTO takes what was packed, another only what agrees with it.
 * Without one, or with one that is damaged or of other weights (a warning says so), the weights are
 * loaded and packed in memory; INT8 is then measured on a few samples first, and falls back to bf16
 * or f32 with a warning. */
TESS_MUST_USE tess_status tess_model_open_embedder(const char *dir, tess_precision precision,
                                                   tess_model **out);
/* One way of packing, measured: the smallest cosine between vectors of samples and their f32
 * vectors, and what it must be. */
typedef struct tess_pack_candidate {
    const char *mode; /* "int8", "bf16", ... */
    double image_cosine, text_cosine, least_cosine;
} tess_pack_candidate;
#define TESS_PACK_CANDIDATES 8
typedef struct tess_pack_report {
    tess_pack_candidate candidates[TESS_PACK_CANDIDATES]; /* as tried; the last was taken */
    int n_candidates;
    int64_t n_pictures, n_texts; /* samples; 0 pictures: a text-only model, image_cosine 1 */
} tess_pack_report;
/* Writes DIR/tessera_packed.bin, whole or absent: the weights packed in the smallest way that keeps
 * the cosine (8 bits: 0.99, bf16: 0.999), none smaller than `precision` names; AUTO is INT8. */
TESS_MUST_USE tess_status tess_model_pack(const char *dir, tess_precision precision,
                                          tess_pack_report *out);
/* Reads a directory's packed file against its own hash and the weights' fingerprint. */
TESS_MUST_USE tess_status tess_model_check_pack(const char *dir);
/* How the model's products are computed: "int8", "bf16", "f32", ... */
const char *tess_model_mode(const tess_model *m);

/* ---- embedding ---------------------------------------------------------------------------- */

/* pictures (n,S,S,3) u8 -> out (n,Z) f32 unit rows. */
TESS_MUST_USE tess_status tess_model_embed_pictures(tess_model *m, const uint8_t *pictures,
                                                    int64_t n, float *out);
/* The first n places of a batch of decoded pictures, which the device resizes -> the same rows.  A
 * plan is for all its places: fill them, but for the last batch. */
TESS_MUST_USE tess_status tess_model_embed_raw(tess_model *m, const tess_raw_pictures *pictures,
                                               int64_t n, float *out);
/* Whether to give it decoded pictures: on a device with memory of its own. */
bool tess_model_resizes(const tess_model *m);
/* Segments of tokens (offsets (n+1), each at most context_length long) -> out (n,Z) unit rows. */
TESS_MUST_USE tess_status tess_model_embed_tokens(tess_model *m, const int32_t *tokens,
                                                  const int64_t *offsets, int64_t n, float *out);
/* One text, cleaned and tokenized as in training. TESS_FORMAT/TESS_INVALID: not usable text. */
TESS_MUST_USE tess_status tess_model_embed_text(tess_model *m, const char *text, size_t n_bytes,
                                                float *out);
/* One encoded picture, decoded and preprocessed as in training without chance. */
TESS_MUST_USE tess_status tess_model_embed_picture(tess_model *m, tess_bytes encoded, float *out);
/* Cleans and tokenizes one caption: at most context_length ids, the end id included. */
TESS_MUST_USE tess_status tess_model_tokenize(const tess_model *m, const char *text, size_t n_bytes,
                                              tess_tokenizer_scratch *scratch, tess_ids *out);

/* ---- zero-shot classification --------------------------------------------------------------- */

/* A classifier made of words (Radford et al. 2021, section 3.1.4): for each class the mean of the
 * unit vectors of its prompts, normalised again, to out (C,Z).  A prompt is a template with every
 * "{c}" replaced by the class's name; without templates it is the name.  TESS_INVALID: a template
 * without "{c}", a prompt without a word in it. */
TESS_MUST_USE tess_status tess_model_classifier(tess_model *m, const char *const *classes,
                                                int64_t n_classes, const char *const *templates,
                                                int64_t n_templates, float *out);
/* Turns the cosines of one picture with C classes into probabilities, in place: softmax of
 * exp(logit_scale) x, or, for a model with a sigmoid objective or a logit bias, of each
 * sigmoid(exp(logit_scale) x + logit_bias). */
void tess_model_probabilities(const tess_model *m, int64_t n_classes, float *x);

/* ---- ONNX --------------------------------------------------------------------------------- */

typedef enum tess_onnx_naming {
    TESS_ONNX_IMMICH,  /* visual/model.onnx: image -> embedding; textual/model.onnx: text i32 */
    TESS_ONNX_OPTIMUM, /* onnx/vision_model.onnx, onnx/text_model.onnx; pixel_values, input_ids */
} tess_onnx_naming;
typedef struct tess_onnx_export {
    tess_onnx_naming naming;
    int64_t batch;         /* a fixed batch size; 0: any */
    bool external_data;    /* weights beside the models; always so where they pass max_bytes */
    int64_t max_bytes;     /* 0: 2^31 - 1, what protobuf allows */
    bool half;             /* weights and activations in f16; vectors stay f32 */
    const char *model_dir; /* where the model was opened: its tokenizer_config.json goes along */
} tess_onnx_export;
/* Writes a directory of ONNX models (opset 17), whole or absent: both towers with L2-normalised
 * outputs, configs and tokenizer.  An older export is replaced, any other directory that is not
 * empty is refused.  Pictures come in normalised, (B,3,S,S) f32; texts as ids (B,L), filled up with
 * any id behind the end id.  What a consumer will miss is said by warnings in the log.  The model
 * must be open in f32.  TESS_UNSUPPORTED: an operator without an ONNX form, by name. */
TESS_MUST_USE tess_status tess_model_export_onnx(tess_model *m, const char *dir,
                                                 const tess_onnx_export *o);

/* ---- low-rank adapters -------------------------------------------------------------------- */

/* Adapters (LoRA, Hu et al. 2021) add factor * B A to chosen weights, B (M,r) and A (r,K), and
 * leave the weights alone.  They live in directories as PEFT writes them: adapter_config.json and
 * adapter_model.safetensors, whose keys are "base_model.model.<module>.lora_A.weight" and lora_B,
 * with the module names of OpenCLIP or of Hugging Face CLIP; those of one directory are of one
 * kind. A model takes adapters once: several at a time to use, or a fresh one to train. */
typedef enum tess_lora_names {
    TESS_LORA_AUTO,     /* where the target matches: OpenCLIP first */
    TESS_LORA_OPENCLIP, /* visual.transformer.resblocks.0.mlp.c_fc */
    TESS_LORA_HF,       /* vision_model.encoder.layers.0.self_attn.q_proj */
} tess_lora_names;
typedef struct tess_lora_options {
    int64_t rank;         /* 1 or more */
    double alpha;         /* factor = alpha / rank; 0: alpha = rank */
    bool rank_stabilized; /* factor = alpha / sqrt(rank) (Kalajdzievski 2023) */
    /* Module names to adapt, joined with commas; '*' and '?' stand for anything, and a name stands
     * for every module that ends in it behind a dot.  "all-linear": every linear layer.  NULL:
     * "q_proj,v_proj". */
    const char *target;
    tess_lora_names names;
    const char *base; /* what adapter_config.json calls the base; NULL: "" */
} tess_lora_options;
/* A fresh adapter to train: A uniform as PEFT draws it, from the seed; B zero, so that nothing
 * changes yet.  From then on the base is frozen: a trainer moves group "lora" only.  A target that
 * matches nothing is refused with the names that there are. */
TESS_MUST_USE tess_status tess_model_add_lora(tess_model *m, const tess_lora_options *o,
                                              uint64_t seed);
/* Adapters to use, each "DIR" or "DIR:WEIGHT" (a factor of its own, 1).  Refused: names or shapes
 * that this model has not, each listed; what is not plain LoRA, by the name of its setting; numbers
 * that are not finite. */
TESS_MUST_USE tess_status tess_model_adapt(tess_model *m, const char *const *specs, size_t n);
bool tess_model_has_adapters(const tess_model *m);
/* Where a model with adapters computes in bf16, keeps its matrices in bf16 alone: the same numbers
 * in half the memory.  It can then be trained and can embed, but not be saved, merged or
 * fingerprinted (TESS_INVALID), since its f32 weights are gone.  Elsewhere it does nothing. */
TESS_MUST_USE tess_status tess_model_narrow(tess_model *m);
/* The fingerprint of the model without its adapters; "" when it has none. */
const char *tess_model_base(const tess_model *m);
/* Writes the adapter of tess_model_add_lora, whole or absent; an existing one is replaced. */
TESS_MUST_USE tess_status tess_model_save_adapter(tess_model *m, const char *dir);
/* Reads it back, bit for bit. */
TESS_MUST_USE tess_status tess_model_read_adapter(tess_model *m, const char *dir);
/* Adds the products to the weights; the model then has no adapters. */
TESS_MUST_USE tess_status tess_model_merge_adapters(tess_model *m);
/* Puts the prompt of this name (of config_sentence_transformers.json: "query", "document") before
 * every text from now on; NULL: none, also where the model names a default.  TESS_INVALID: there is
 * no such prompt; the message names those that there are. */
TESS_MUST_USE tess_status tess_model_set_prompt(tess_model *m, const char *name);
bool tess_model_has_prompt(const tess_model *m, const char *name);

/* ---- training ----------------------------------------------------------------------------- */

/* A contrastive objective between pictures and texts, or between texts of one picture. */
typedef enum tess_objective_kind {
    TESS_OBJECTIVE_SOFTMAX,
    TESS_OBJECTIVE_SIGMOID,
} tess_objective_kind;
typedef struct tess_objective {
    tess_objective_kind kind;
    double weight; /* 0: off */
} tess_objective;
/* The Turing Bletchley recipe is image_text and text_text together. */
typedef struct tess_objectives {
    tess_objective image_text, text_text;
} tess_objectives;
tess_objectives tess_model_objectives(const tess_model *m);

/* Distillation of a text tower, in place of the objectives.  s is the student's unit vector of a
 * text, u the teacher's unit vector of the text that it translates:
 *   MSE          mean over texts of |s - u|^2 = 2 - 2 cos(s, u) (Reimers & Gurevych 2020, on the
 * unit sphere, where the vectors are compared later) CONTRASTIVE  the softmax objective between the
 * u of a batch and the s, under the model's logit scale, which stays as it is: s shall be nearer to
 * its own u than to the others */
typedef enum tess_distill {
    TESS_DISTILL_OFF,
    TESS_DISTILL_MSE,
    TESS_DISTILL_CONTRASTIVE,
} tess_distill;

/* One micro-step: towers, objectives, gradients added to the store's group "grad".  Built once for
 * each number of token rows (rounded up to a bucket; the plans share one workspace). */
typedef struct tess_trainer_options {
    int64_t batch, captions_per_image; /* B pictures, K captions each */
    /* Micro-steps of one update: the loss is over all their pictures, and towers run twice on each
     * batch, so that memory is that of one (Gao et al. 2021).  In distillation each has its own
     * loss, divided by their number. */
    int64_t accumulate;
    float beta1, beta2, eps, weight_decay, clip;
    /* The hidden matrices (of attention and MLPs) by Muon, the rest by AdamW; see tess_muon. */
    bool muon;
    float muon_momentum, muon_lr; /* muon_lr: its rate as a part of lr */
    float skip_outliers;        /* K of tess_update_gate; 0: what is not finite alone is skipped */
    tess_recompute recompute;   /* within the blocks of both towers */
    bool lock_image, lock_text; /* frozen towers get no gradient */
    bool raw_pictures;          /* pictures come decoded, and the device resizes them */
    tess_distill distill;       /* the text tower alone is run and trained; no pictures */
    /* The part of each picture's patches that a step leaves out (FLIP: Li et al. 2023), 0 to below
     * 1; which ones, the seed and the picture's place in the run decide.  Embedding sees all. */
    double patch_dropout;
    bool stochastic_rounding; /* of the weights' bf16 copies, AdamW's; see tess_adamw */
    uint64_t seed;            /* of both */
    /* Several ranks, each with its own B pictures: objectives are over all of them, gradients are
     * summed before an update, and all ranks keep the same weights.  NULL: alone. */
    tess_comm *comm;
    /* ZeRO's stage (Rajbhandari et al. 2020): each of R ranks holds 1/R of the moments and, where
     * products read bf16, of the f32 masters (1), of gradients too (2), and of the weights (3).
     * AdamW, whole towers.  All stages give the same bits, with `accumulate` above 1 stages 0 and 1
     * and stages 2 and 3.  From 1 on every call of the trainer is one of all ranks. */
    int zero;
    /* From stage 2 on, of weights that are gathered ahead of their use, and of gradients that are
     * reduced beside the work behind them; 0: each is waited for at its place. */
    size_t overlap_bytes;
    tess_dtype grad_dtype; /* of accumulated gradients and of their sums' pieces: TESS_F32, or on
                              processors TESS_BF16 */
    /* Linear layers of blocks from this width on multiply in FP8 (tess_graph_fp8); 0: none.
     * TESS_INVALID where no tower that is run has such a width, or the model is not in bf16. */
    int64_t fp8_width;
} tess_trainer_options;
typedef struct tess_trainer tess_trainer;
/* Adds groups "grad", "m", "v" beside "param", and with bf16 and AdamW "half", the bf16 copy of
 * "param" that each update writes along; the model must not be trained by two at a time.  A model
 * whose states are paged trains to the same bits (whole towers, AdamW, one process, processors). */
TESS_MUST_USE tess_status tess_trainer_new(tess_model *m, const tess_trainer_options *o,
                                           tess_trainer **out);
void tess_trainer_free(tess_trainer *t);
/* Makes ready for batches of up to so many tokens, and says what they need: the plans' memory, and
 * where states are paged, how much of them steps use at once. */
typedef struct tess_trainer_need {
    size_t workspace_bytes, paged_bytes;
} tess_trainer_need;
TESS_MUST_USE tess_status tess_trainer_prepare(tess_trainer *t, int64_t n_tokens,
                                               tess_trainer_need *out);
typedef struct tess_micro_batch {
    const uint8_t *pictures;      /* (B,S,S,3) */
    const tess_raw_pictures *raw; /* in their place, with raw_pictures: B places */
    int64_t n_tokens;             /* N */
    const int32_t *tokens;        /* (N) */
    const int32_t *positions;     /* (N) */
    const int32_t *offsets;       /* (K*B+1), slot-major: segment k*B+b */
    const float *teacher;         /* (B,Z) unit rows; distillation alone */
    int64_t counter;              /* the first picture's place in the run; patch dropout alone */
} tess_micro_batch;
/* Forward, backward, accumulate.  *out_loss is the batch's (not divided by accumulate); where an
 * update has one loss over several batches, the last micro-step's is that, and before it *out_loss
 * stays as it is.  Without out_loss it does not wait for the device, which may go on reading its
 * own copy of b: b may change on return. */
TESS_MUST_USE tess_status tess_trainer_micro_step(tess_trainer *t, const tess_micro_batch *b,
                                                  float *out_loss);
/* Clip, AdamW and Muon, zero the gradients; after all micro-steps of the update (TESS_INVALID).
 * step counts this trainer's updates from 1, or goes on with the count of applied ones from where
 * another left off.  A gradient or a loss that is not finite, or with skip_outliers out of line,
 * changes no weight, and Adam's time stands still; all ranks decide it from the same sums.  Without
 * out_norm it does not wait. */
TESS_MUST_USE tess_status tess_trainer_update(tess_trainer *t, double lr, int64_t step,
                                              float *out_norm);
/* What became of an update for which nobody waited. */
typedef struct tess_step_result {
    int64_t step; /* as given; 0: there is none, or with !wait none yet */
    float loss;   /* the mean of its losses, of all ranks */
    float norm;   /* of the gradient, before it is clipped */
    tess_skip why;
} tess_step_result;
#define TESS_TRAINER_RESULTS 8 /* so many may wait to be read; TESS_INVALID beyond */
/* The oldest. */
TESS_MUST_USE tess_status tess_trainer_read(tess_trainer *t, bool wait, tess_step_result *out);
/* What the trainer holds of the parameters, made anew as update `step` (0: none yet) left it: for
 * whoever has written to group "param" since tess_trainer_new. */
TESS_MUST_USE tess_status tess_trainer_sync(tess_trainer *t, int64_t step);
/* Runs the next micro-steps through the debug executor. */
void tess_trainer_debug(tess_trainer *t, bool on);
/* The states of a resume: groups m, v, grad of this store beside the model's parameters. */
double tess_trainer_flops(const tess_trainer *t);  /* of the last micro-step, by the plan */
size_t tess_trainer_memory(const tess_trainer *t); /* arena bytes now */
size_t tess_trainer_states(const tess_trainer *t); /* weights, gradients, masters and moments */
/* Whether ranks hold parts of what a checkpoint is made of; the model is then for no other use. */
bool tess_trainer_shards(const tess_trainer *t);
/* What a trainer holds on this rank, in bytes, and what its plans cost. */
typedef struct tess_trainer_account {
    int64_t n_params; /* of the model */
    size_t weights;   /* that products read: the parameters, or where "half" is there that */
    size_t gradients, masters, moments; /* "grad"; the parameters beside "half"; "m" and "v" */
    size_t arena, scratch, inputs;      /* of the micro-step's plan, or the update's if larger */
    size_t wire;                        /* buffers of collectives */
    tess_op_cost *step, *update;        /* of both plans; seconds where the trainer is profiled */
    int64_t n_step, n_update;
} tess_trainer_account;
/* Of the micro-step for so many tokens (its plan is built where it is not there); 0: of the last
 * one. */
TESS_MUST_USE tess_status tess_trainer_account_for(tess_trainer *t, int64_t n_tokens,
                                                   tess_trainer_account *out);
void tess_trainer_account_deinit(tess_trainer_account *a);
/* The states' bytes alone, of what is in this rank's store; the rest of *out stays as it is. */
void tess_trainer_count_states(const tess_trainer *t, tess_trainer_account *out);
double tess_trainer_logit_scale(const tess_trainer *t);
void tess_trainer_profile(tess_trainer *t, bool on);
void tess_trainer_print_profile(const tess_trainer *t, tess_buf *out);

#endif
