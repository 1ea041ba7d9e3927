/* SPDX-License-Identifier: Apache-2.0 */
/* tessera train: OpenCLIP's flags where they exist, on top of tess_train. */
#include "cli/common_rows.h"
#include "cli/progress.h"
#include "cli/verbs.h"

#include "tessera/train.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct train_values {
    const char *train_data, *dataset_type, *caption_key, *val_data, *val_caption_key,
        *val_novel_key;
    const char *model, *tokenizer, *logs, *name, *resume, *precision, *device, *scheduler,
        *optimizer;
    int64_t batch_size, captions_per_image, accum_freq, epochs, steps, warmup, seed, workers;
    int64_t log_every, save_every, save_frequency, val_frequency, cache_size, cache_mb, aug_shift;
    double temperature, seconds, lr, beta1, beta2, eps, wd, clip, lr_min, bad_rate;
    double muon_momentum, muon_lr;
    double aug_scale_min, aug_scale_max, aug_brightness, aug_contrast, patch_dropout;
    const char *lora_target, *lora_names;
    const char *distill_text, *distill_language, *distill_loss;
    int64_t lora_rank;
    double lora_alpha, rank_timeout;
    bool rslora;
    bool stochastic_rounding;
    bool aug_flip, grad_checkpointing, lock_image, lock_text, delete_previous, debug, profile,
        deterministic;
} train_values;

#define AT(field) CLI_AT(train_values, field)
#define DATA      .group = "Data"
#define MODEL     .group = "Model"
#define OPTIMIZER .group = "Optimizer"
#define AUGMENT   .group = "Augmentation"
#define RUN       .group = "Run"

static const cli_option train_options[] = {
    {.name = "train-data",
     .kind = CLI_PATH,
     AT(train_data),
     DATA,
     .value = "SOURCES",
     .help = "WebDataset shards (brace ranges, joined with ::), a CSV, TSV or JSONL file, or a "
             "folder of pictures"},
    CLI_DATASET_TYPE(train_values, DATA),
    {.name = "caption-key",
     .kind = CLI_STRING,
     AT(caption_key),
     DATA,
     .value = "KEY",
     .help = "Where captions are: a JSON field, or txt; several split by |"},
    {.name = "val-data",
     .kind = CLI_PATH,
     AT(val_data),
     DATA,
     .value = "SOURCES",
     .help = "Evaluate retrieval on these"},
    {.name = "val-caption-key",
     .kind = CLI_STRING,
     .fallback = "captions_test|captions|txt|caption",
     AT(val_caption_key),
     DATA,
     .value = "KEY",
     .help = "Captions to evaluate with"},
    {.name = "val-novel-key",
     .kind = CLI_STRING,
     .fallback = "test_new",
     AT(val_novel_key),
     DATA,
     .value = "KEY",
     .help = "JSON list of the languages whose caption has words never trained on"},
    {.name = "captions-per-image",
     .kind = CLI_INT,
     .fallback = "1",
     .min = 1,
     .max = 4096,
     AT(captions_per_image),
     DATA,
     .value = "K",
     .help = "Captions of each picture in a step, in different languages where it has them"},
    {.name = "language-temperature",
     .kind = CLI_REAL,
     .fallback = "1",
     .min = 0.01,
     .max = 1e9,
     AT(temperature),
     DATA,
     .value = "T",
     .help = "1: languages as frequent as in the data; higher lifts rare ones; 1e9: all alike"},
    CLI_WORKERS(train_values, "Loader threads; they never change a batch", DATA),
    {.name = "cache-size",
     .kind = CLI_INT,
     .fallback = "0",
     .min = 0,
     .max = 4096,
     AT(cache_size),
     DATA,
     .value = "PIXELS",
     .help = "Keep decoded pictures in memory at this size; views are taken from it. 0: no"},
    {.name = "cache-mb",
     .kind = CLI_INT,
     .fallback = "1024",
     .min = 1,
     .max = 1 << 24,
     AT(cache_mb),
     DATA,
     .value = "MB",
     .help = "Memory for that"},
    {.name = "max-bad-rate",
     .kind = CLI_REAL,
     .fallback = "0.1",
     .min = 0,
     .max = 1,
     AT(bad_rate),
     DATA,
     .value = "PART",
     .help = "Stop when a larger part of the samples is damaged"},
    {.name = "model",
     .kind = CLI_PATH,
     AT(model),
     MODEL,
     .value = "CONFIG|DIR",
     .help = "Config in OpenCLIP's format to start afresh, or a model directory to go on from"},
    {.name = "tokenizer",
     .kind = CLI_PATH,
     AT(tokenizer),
     MODEL,
     .value = "FILE",
     .help = "SentencePiece .model file; default: the one beside the config"},
    {.name = "precision",
     .kind = CLI_CHOICE,
     .choices = "auto|fp32|bf16|amp_bf16|fp8",
     .fallback = "auto",
     AT(precision),
     MODEL,
     .help = "Of activations and matrix operands; weights are fp32. auto: bf16 on a card, and "
             "where the processor has it. fp8: bf16, and products of blocks 1,024 and more wide in "
             "FP8; for cards from Ada and Hopper on (slow on a processor)"},
    CLI_DEVICE(train_values, device, MODEL),
    {.name = "rank-timeout",
     .kind = CLI_REAL,
     .fallback = "1800",
     .min = 0.1,
     .max = 1e6,
     AT(rank_timeout),
     RUN,
     .value = "S",
     .help = "Several ranks (mpirun): end when one has not come for so long"},
    {.name = "deterministic",
     AT(deterministic),
     MODEL,
     .help =
         "On a card: the same bytes in every run, at some speed; a processor always gives them"},
    {.name = "lock-image", AT(lock_image), MODEL, .help = "Freeze the image tower"},
    {.name = "lock-text", AT(lock_text), MODEL, .help = "Freeze the text tower"},
    {.name = "distill-text",
     .kind = CLI_PATH,
     AT(distill_text),
     MODEL,
     .value = "DIR",
     .help =
         "Teach the text tower the vectors of this model's text tower, from translated captions "
         "without pictures; the image towers must be one"},
    {.name = "distill-language",
     .kind = CLI_STRING,
     .fallback = "en",
     AT(distill_language),
     MODEL,
     .value = "CODE",
     .help = "Language of the captions that the teacher reads"},
    {.name = "distill-loss",
     .kind = CLI_CHOICE,
     .choices = "mse|contrastive",
     .fallback = "mse",
     AT(distill_loss),
     MODEL,
     .help = "mse: the teacher's vector itself; contrastive: nearer to it than to the batch's "
             "others"},
    {.name = "lora-rank",
     .kind = CLI_INT,
     .fallback = "0",
     .min = 0,
     .max = 65536,
     AT(lora_rank),
     MODEL,
     .value = "R",
     .help = "Freeze the model, a directory, and train a low-rank adapter of this rank; 0: no"},
    {.name = "lora-target",
     .kind = CLI_STRING,
     .fallback = "q_proj,v_proj",
     AT(lora_target),
     MODEL,
     .value = "NAMES",
     .help = "Layers to adapt, with * and ?: ends of module names of OpenCLIP (attn.in_proj, "
             "mlp.c_fc) or Hugging Face (q_proj, fc1), or all-linear"},
    {.name = "lora-names",
     .kind = CLI_CHOICE,
     .choices = "auto|openclip|hf",
     .fallback = "auto",
     AT(lora_names),
     MODEL,
     .help = "Whose module names; auto: OpenCLIP's where they match"},
    {.name = "lora-alpha",
     .kind = CLI_REAL,
     .fallback = "0",
     .min = 0,
     .max = 1e6,
     AT(lora_alpha),
     MODEL,
     .help = "The adapter counts alpha / rank times; 0: once"},
    {.name = "lora-rslora",
     AT(rslora),
     MODEL,
     .help = "alpha / sqrt(rank) instead (rank-stabilized LoRA)"},
    {.name = "grad-checkpointing",
     AT(grad_checkpointing),
     MODEL,
     .help = "Compute blocks again in the backward pass: less memory, more time"},
    {.name = "batch-size",
     .kind = CLI_INT,
     .fallback = "64",
     .min = 1,
     .max = 1 << 20,
     AT(batch_size),
     OPTIMIZER,
     .value = "B",
     .help = "Pictures of a batch"},
    {.name = "accum-freq",
     .kind = CLI_INT,
     .fallback = "1",
     .min = 1,
     .max = 1 << 16,
     AT(accum_freq),
     OPTIMIZER,
     .value = "N",
     .help = "Batches of an update"},
    {.name = "epochs",
     .kind = CLI_INT,
     .fallback = "0",
     .min = 0,
     .max = 1e9,
     AT(epochs),
     OPTIMIZER,
     .value = "N",
     .help = "Train for so many passes over the data"},
    {.name = "steps",
     .kind = CLI_INT,
     .fallback = "0",
     .min = 0,
     .max = 1e12,
     AT(steps),
     OPTIMIZER,
     .value = "N",
     .help = "Train for so many updates"},
    {.name = "max-seconds",
     .kind = CLI_REAL,
     .fallback = "0",
     .min = 0,
     .max = 1e9,
     AT(seconds),
     OPTIMIZER,
     .value = "S",
     .help = "Train for so long; the schedule follows the clock, so the run cannot be repeated "
             "bit for bit"},
    {.name = "lr",
     .kind = CLI_REAL,
     .fallback = "5e-4",
     .min = 0,
     .max = 10,
     AT(lr),
     OPTIMIZER,
     .help = "Learning rate"},
    {.name = "opt",
     .kind = CLI_CHOICE,
     .choices = "adamw|muon",
     .fallback = "adamw",
     AT(optimizer),
     OPTIMIZER,
     .help = "muon: the matrices of attention and MLPs by Muon, everything else by AdamW"},
    {.name = "muon-momentum",
     .kind = CLI_REAL,
     .fallback = "0.95",
     .min = 0.01,
     .max = 0.9999,
     AT(muon_momentum),
     OPTIMIZER,
     .value = "X",
     .help = "Muon's momentum"},
    {.name = "muon-lr",
     .kind = CLI_REAL,
     .fallback = "1",
     .min = 1e-6,
     .max = 1e6,
     AT(muon_lr),
     OPTIMIZER,
     .value = "FACTOR",
     .help = "Muon's learning rate, as a multiple of --lr"},
    {.name = "lr-scheduler",
     .kind = CLI_CHOICE,
     .choices = "cosine|const",
     .fallback = "cosine",
     AT(scheduler),
     OPTIMIZER,
     .help = "Its course after the warm-up"},
    {.name = "lr-min",
     .kind = CLI_REAL,
     .fallback = "0",
     .min = 0,
     .max = 1,
     AT(lr_min),
     OPTIMIZER,
     .value = "PART",
     .help = "Where the cosine ends, as a part of --lr"},
    {.name = "warmup",
     .kind = CLI_INT,
     .fallback = "0",
     .min = 0,
     .max = 1e9,
     AT(warmup),
     OPTIMIZER,
     .value = "STEPS",
     .help = "Steps of linear warm-up"},
    {.name = "beta1",
     .kind = CLI_REAL,
     .fallback = "0.9",
     .min = 0,
     .max = 0.99999,
     AT(beta1),
     OPTIMIZER,
     .help = "Adam's beta1"},
    {.name = "beta2",
     .kind = CLI_REAL,
     .fallback = "0.98",
     .min = 0,
     .max = 0.999999,
     AT(beta2),
     OPTIMIZER,
     .help = "Adam's beta2"},
    {.name = "eps",
     .kind = CLI_REAL,
     .fallback = "1e-6",
     .min = 0,
     .max = 1,
     AT(eps),
     OPTIMIZER,
     .help = "Adam's epsilon"},
    {.name = "wd",
     .kind = CLI_REAL,
     .fallback = "0.2",
     .min = 0,
     .max = 100,
     AT(wd),
     OPTIMIZER,
     .help = "Weight decay, of matrices only"},
    {.name = "grad-clip-norm",
     .kind = CLI_REAL,
     .fallback = "0",
     .min = 0,
     .max = 1e9,
     AT(clip),
     OPTIMIZER,
     .value = "NORM",
     .help = "Clip the gradient's norm; 0: no"},
    {.name = "stochastic-rounding",
     AT(stochastic_rounding),
     OPTIMIZER,
     .help = "Round the bf16 copies of the f32 weights up or down by chance"},
    {.name = "aug-scale-min",
     .kind = CLI_REAL,
     .fallback = "0",
     .min = 0,
     .max = 1,
     AT(aug_scale_min),
     AUGMENT,
     .value = "PART",
     .help = "Random resized crop: least part of the area; 0: no crop"},
    {.name = "aug-scale-max",
     .kind = CLI_REAL,
     .fallback = "1",
     .min = 0,
     .max = 1,
     AT(aug_scale_max),
     AUGMENT,
     .value = "PART",
     .help = "And the largest"},
    {.name = "aug-shift",
     .kind = CLI_INT,
     .fallback = "0",
     .min = 0,
     .max = 1024,
     AT(aug_shift),
     AUGMENT,
     .value = "PIXELS",
     .help = "Shift by up to so many pixels"},
    {.name = "aug-flip", AT(aug_flip), AUGMENT, .help = "Mirror half of the pictures"},
    {.name = "aug-brightness",
     .kind = CLI_REAL,
     .fallback = "0",
     .min = 0,
     .max = 1,
     AT(aug_brightness),
     AUGMENT,
     .value = "X",
     .help = "Brightness by a factor of 1-X to 1+X"},
    {.name = "force-patch-dropout",
     .kind = CLI_REAL,
     .fallback = "0",
     .min = 0,
     .max = 0.99,
     AT(patch_dropout),
     AUGMENT,
     .value = "PART",
     .help = "Leave this part of every picture's patches out of a step (FLIP): faster steps; "
             "evaluations see all"},
    {.name = "aug-contrast",
     .kind = CLI_REAL,
     .fallback = "0",
     .min = 0,
     .max = 1,
     AT(aug_contrast),
     AUGMENT,
     .value = "X",
     .help = "Contrast likewise"},
    {.name = "logs",
     .kind = CLI_PATH,
     .fallback = "./logs",
     AT(logs),
     RUN,
     .value = "DIR",
     .help = "Where run directories are"},
    {.name = "name",
     .kind = CLI_STRING,
     AT(name),
     RUN,
     .help = "The run's directory in it; default: from the date and the options"},
    {.name = "resume",
     .kind = CLI_PATH,
     AT(resume),
     RUN,
     .value = "latest|DIR",
     .help = "Go on from a checkpoint; latest begins anew when there is none"},
    {.name = "seed",
     .kind = CLI_INT,
     .fallback = "0",
     .min = 0,
     .max = 9e15,
     AT(seed),
     RUN,
     .help = "Decides every random number"},
    {.name = "log-every-n-steps",
     .kind = CLI_INT,
     .fallback = "100",
     .min = 1,
     .max = 1e9,
     AT(log_every),
     RUN,
     .value = "N",
     .help = "Between lines of metrics"},
    {.name = "save-every-n-steps",
     .kind = CLI_INT,
     .fallback = "0",
     .min = 0,
     .max = 1e12,
     AT(save_every),
     RUN,
     .value = "N",
     .help = "Between checkpoints inside an epoch; 0: none"},
    {.name = "save-frequency",
     .kind = CLI_INT,
     .fallback = "1",
     .min = 1,
     .max = 1e9,
     AT(save_frequency),
     RUN,
     .value = "EPOCHS",
     .help = "Between checkpoints"},
    {.name = "val-frequency",
     .kind = CLI_INT,
     .fallback = "0",
     .min = 0,
     .max = 1e9,
     AT(val_frequency),
     RUN,
     .value = "EPOCHS",
     .help = "Between evaluations; 0: at the end only"},
    {.name = "delete-previous-checkpoint",
     AT(delete_previous),
     RUN,
     .help = "Keep only the newest checkpoint"},
    {.name = "debug-numerics",
     AT(debug),
     RUN,
     .help = "Check every operator's output and stop at the first that is not finite (slow)"},
    {.name = "profile", AT(profile), RUN, .help = "Print time by operator at the end"},
};

static void show(void *ctx, const tess_train_progress *p)
{
    cli_progress *bar = ctx;
    char note[96];
    snprintf(note, sizeof note, "loss %.4f lr %.2e step %lld", p->loss, p->lr, (long long)p->step);
    int64_t per_step = p->step > 0 ? p->n_samples / p->step : 0;
    int64_t total = p->total_steps > 0 ? p->total_steps * per_step
                    : p->elapsed > 0   ? (int64_t)((double)p->n_samples * p->budget / p->elapsed)
                                       : 0;
    if (!cli_progress_begun(bar)) {
        cli_progress_begin(bar, p->n_samples - per_step);
    }
    bar->total = total;
    cli_progress_update(bar, p->n_samples, note);
}

/* logs/YYYY_MM_DD-HH_MM_SS-model_X-lr_..-b_..-j_..-p_.., as OpenCLIP names a run. */
static const char *run_dir(cli_command *cmd, const train_values *v)
{
    if (v->name) {
        return tess_arena_format(&cmd->arena, "%s/%s", v->logs, v->name);
    }
    char stamp[32];
    time_t now = time(NULL);
    struct tm tm;
    localtime_r(&now, &tm);
    strftime(stamp, sizeof stamp, "%Y_%m_%d-%H_%M_%S", &tm);
    const char *slash = strrchr(v->model, '/'), *base = slash ? slash + 1 : v->model;
    const char *dot = strrchr(base, '.');
    return tess_arena_format(&cmd->arena, "%s/%s-model_%.*s-lr_%g-b_%lld-j_%lld-p_%s", v->logs,
                             stamp, dot ? (int)(dot - base) : (int)strlen(base), base, v->lr,
                             (long long)v->batch_size, (long long)v->workers, v->precision);
}

static tess_precision precision_of(const char *name)
{
    return strcmp(name, "auto") == 0   ? TESS_PRECISION_AUTO
           : strcmp(name, "fp32") == 0 ? TESS_PRECISION_F32
           : strcmp(name, "fp8") == 0  ? TESS_PRECISION_FP8
                                       : TESS_PRECISION_BF16;
}

static tess_lora_names names_of(const char *name)
{
    return strcmp(name, "auto") == 0       ? TESS_LORA_AUTO
           : strcmp(name, "openclip") == 0 ? TESS_LORA_OPENCLIP
                                           : TESS_LORA_HF;
}

static tess_train_options options_of(const train_values *v, const char *dir, cli_progress *bar)
{
    bool crop = v->aug_scale_min > 0;
    return (tess_train_options){
        .train_data = v->train_data,
        .dataset_type = v->dataset_type,
        .caption_key = v->caption_key,
        .val_data = v->val_data,
        .val_caption_key = v->val_caption_key,
        .val_novel_key = v->val_novel_key,
        .model = v->model,
        .tokenizer = v->tokenizer,
        .run_dir = dir,
        .resume = v->resume,
        .precision = precision_of(v->precision),
        .batch_size = v->batch_size,
        .captions_per_image = v->captions_per_image,
        .accum_freq = v->accum_freq,
        .language_temperature = v->temperature,
        .epochs = v->epochs,
        .steps = v->steps,
        .seconds = v->seconds,
        .lr = v->lr,
        .beta1 = v->beta1,
        .beta2 = v->beta2,
        .eps = v->eps,
        .weight_decay = v->wd,
        .grad_clip_norm = v->clip,
        .stochastic_rounding = v->stochastic_rounding,
        .optimizer = v->optimizer,
        .muon_momentum = v->muon_momentum,
        .muon_lr = v->muon_lr,
        .warmup = v->warmup,
        .lr_scheduler = v->scheduler,
        .lr_min = v->lr_min,
        .grad_checkpointing = v->grad_checkpointing,
        .deterministic = v->deterministic,
        .lock_image = v->lock_image,
        .lock_text = v->lock_text,
        .lora = {.rank = v->lora_rank,
                 .alpha = v->lora_alpha,
                 .rank_stabilized = v->rslora,
                 .target = v->lora_target,
                 .names = names_of(v->lora_names)},
        .distill_text = v->distill_text,
        .distill_language = v->distill_language,
        .distill_loss = v->distill_loss,
        .seed = (uint64_t)v->seed,
        .workers = (int)v->workers,
        .augment = {.scale_min = v->aug_scale_min,
                    .scale_max = crop ? v->aug_scale_max : 0,
                    .flip = v->aug_flip,
                    .shift = (int32_t)v->aug_shift,
                    .brightness = v->aug_brightness,
                    .contrast = v->aug_contrast},
        .patch_dropout = v->patch_dropout,
        .cache_size = v->cache_size,
        .cache_bytes = (size_t)v->cache_mb << 20,
        .max_bad_rate = v->bad_rate,
        .log_every_n_steps = v->log_every,
        .save_every_n_steps = v->save_every,
        .save_frequency = v->save_frequency,
        .val_frequency = v->val_frequency,
        .delete_previous_checkpoint = v->delete_previous,
        .debug_numerics = v->debug,
        .profile = v->profile,
        .on_progress = show,
        .ctx = bar,
    };
}

static tess_status print_result(const cli_command *cmd, const char *dir, bool adapter)
{
    tess_buf out = {0};
    if (cmd->common.json) {
        tess_json_writer w = {.buf = &out};
        tess_json_begin_object(&w);
        tess_json_key(&w, "run");
        tess_json_add_string(&w, dir);
        tess_json_end_object(&w);
        tess_buf_adds(&out, "\n");
    } else {
        if (adapter) {
            tess_buf_addf(&out, "adapter: %s/adapter\n", dir);
        }
        tess_buf_addf(&out, "model:  %s/model\nreport: %s/report.html\n", dir, dir);
    }
    tess_status st = cli_print(&out);
    tess_buf_deinit(&out);
    return st;
}

/* Ranks on one host share its cores, unless the launcher has bound each to its own. */
static void share_threads(const tess_comm *comm)
{
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    const int n = tess_comm_local_size(comm), mine = tess_cpu_count();
    const long each = online / n > 0 ? online / n : 1;
    tess_compute_threads(n > 1 && mine > each ? (int)each : 0);
}

/* An error of one rank ends them all; alone there is nothing to end. */
static tess_status train_as_rank(tess_train_options *o, tess_comm *comm)
{
    const int rank = tess_comm_rank(comm), n = tess_comm_size(comm);
    share_threads(comm);
    o->comm = n > 1 ? comm : NULL;
    if (rank > 0) {
        o->on_progress = NULL;
    }
    const tess_status st = tess_train(o);
    if (st && st != TESS_CANCELLED && n > 1) {
        tess_log(TESS_LOG_ERROR, "rank %d: %s", rank, tess_error());
        tess_comm_abort(comm, 1);
    }
    return st;
}

static tess_status run_train(cli_command *cmd)
{
    const train_values *v = cmd->values;
    if (!v->train_data || !v->model) {
        return cli_usage_error(cmd, "train needs --train-data and --model");
    }
    if ((v->epochs > 0) + (v->steps > 0) + (v->seconds > 0) != 1) {
        return cli_usage_error(cmd, "say how long: one of --epochs, --steps and --max-seconds");
    }
    if (v->resume && !v->name) {
        return cli_usage_error(cmd, "--resume needs the --name of the run to go on with");
    }
    if (cli_given(cmd, "lora-rank") && v->lora_rank == 0) {
        return cli_usage_error(cmd, "--lora-rank starts at 1; leave it out to train the model");
    }
    if (!v->lora_rank && (cli_given(cmd, "lora-target") || cli_given(cmd, "lora-alpha") ||
                          cli_given(cmd, "lora-names") || v->rslora)) {
        return cli_usage_error(cmd, "the --lora options need --lora-rank");
    }
    if (!v->distill_text &&
        (cli_given(cmd, "distill-language") || cli_given(cmd, "distill-loss"))) {
        return cli_usage_error(cmd, "--distill-language and --distill-loss need --distill-text");
    }
    const tess_device *device;
    TESS_TRY(tess_device_open(v->device, &device));
    const char *dir = run_dir(cmd, v);
    if (!dir) {
        return TESS_NOMEM;
    }
    cli_progress bar = cli_progress_new(&cmd->common, "train", v->distill_text ? "txt" : "img");
    tess_train_options o = options_of(v, dir, &bar);
    o.device = device;
    if (device != tess_device_cpu() && o.precision == TESS_PRECISION_AUTO) {
        o.precision = TESS_PRECISION_BF16;
    }
    if (v->distill_text && !cli_given(cmd, "captions-per-image")) {
        o.captions_per_image = 0; /* its own default */
    }
    tess_comm *comm = NULL;
    tess_status st = tess_comm_open(&(tess_comm_options){.seconds = v->rank_timeout}, &comm);
    st = st ? st : train_as_rank(&o, comm);
    cli_progress_end(&bar);
    const bool prints = st == TESS_OK && tess_comm_rank(comm) == 0;
    tess_comm_close(comm);
    return prints ? print_result(cmd, dir, v->lora_rank > 0) : st;
}

const cli_verb cli_verb_train = {
    .name = "train",
    .summary = "Train an image tower and a text tower together",
    .options = train_options,
    .n_options = TESS_COUNT(train_options),
    .values_bytes = sizeof(train_values),
    .computes = true,
    .about = "Writes a run directory with metrics, TensorBoard events, report.html, checkpoints, "
             "and at the end a model directory. Ctrl-C saves a checkpoint and stops; a second one "
             "stops at once. --resume latest goes on exactly where a run stopped, even when it was "
             "killed.",
    .examples =
        "Train for 15 minutes on shards:\n"
        "$ tessera train --train-data 'data/emoji-{000..007}.tar' --model model.json \\\n"
        "    --tokenizer spm.model --batch-size 512 --lr 1e-3 --max-seconds 900 --name first\n"
        "A text tower in more languages, from translated captions alone:\n"
        "$ tessera mix --image ViT-B-32 --text xlm-roberta-base -o mixture\n"
        "$ tessera train --model mixture --distill-text ViT-B-32 \\\n"
        "    --train-data captions.jsonl --epochs 5 --name distilled\n"
        "Go on after an interruption:\n"
        "$ tessera train ... --name first --resume latest",
    .run = run_train,
};
