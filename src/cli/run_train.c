/* SPDX-License-Identifier: Apache-2.0 */
/* Running tessera train: its values become the options of tess_train, alone or as a rank. */
#include "cli/progress.h"
#include "cli/ranks.h"
#include "cli/train_values.h"
#include "cli/verbs.h"

#include "tessera/train.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

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
static const char *run_dir(cli_command *cmd, const cli_train_values *v)
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

static tess_train_options options_of(const cli_train_values *v, const char *dir, cli_progress *bar)
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
        .skip_outliers = v->skip_outliers,
        .stochastic_rounding = v->stochastic_rounding,
        .optimizer = v->optimizer,
        .muon_momentum = v->muon_momentum,
        .muon_lr = v->muon_lr,
        .warmup = v->warmup,
        .lr_scheduler = v->scheduler,
        .lr_min = v->lr_min,
        .grad_checkpointing = v->grad_checkpointing,
        .recompute_activations = v->recompute_activations,
        .deterministic = v->deterministic,
        .zero = (int)v->zero,
        .overlap_bytes = (size_t)v->zero_overlap << 20,
        .grad_dtype = strcmp(v->grad_dtype, "bf16") == 0 ? TESS_BF16 : TESS_F32,
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
        .save_copy_bytes = (size_t)v->save_copy_mb << 20,
        .save_frequency = v->save_frequency,
        .val_frequency = v->val_frequency,
        .delete_previous_checkpoint = v->delete_previous,
        .offload_dir = v->offload_dir,
        .debug_numerics = v->debug,
        .profile = v->profile,
        .on_progress = show,
        .ctx = bar,
    };
}

/* A whole number of bytes, or with a unit behind it of powers of 1,024. */
static bool parse_bytes(const char *text, size_t *out)
{
    static const char units[] = "KMGT";
    char *end = NULL;
    const double n = strtod(text, &end);
    const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    const double bytes = unit ? ldexp(n, 10 * (int)(unit - units + 1)) : n;
    const bool whole = *end == 0 || (unit && end[1] == 0);
    *out = whole && bytes >= 1 && bytes < 1e18 ? (size_t)bytes : 0;
    return *out > 0;
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

/* An error of one rank ends them all; alone there is nothing to end. */
static tess_status train_as_rank(tess_train_options *o, tess_comm *comm)
{
    const int rank = tess_comm_rank(comm), n = tess_comm_size(comm);
    cli_share_threads(comm);
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

tess_status cli_run_train(cli_command *cmd)
{
    const cli_train_values *v = cmd->values;
    if (!v->train_data || !v->model) {
        return cli_usage_error(cmd, "train needs --train-data and --model");
    }
    if ((v->epochs > 0) + (v->steps > 0) + (v->seconds > 0) != 1) {
        return cli_usage_error(cmd, "say how long: one of --epochs, --steps and --max-seconds");
    }
    if (v->grad_checkpointing && v->recompute_activations) {
        return cli_usage_error(cmd, "--grad-checkpointing computes whole blocks again, activations "
                                    "among them: leave --recompute-activations out");
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
    if (v->offload_dir && !v->memory_limit) {
        return cli_usage_error(cmd,
                               "--offload-dir needs --memory-limit: without one all states are "
                               "in memory");
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
    if (v->memory_limit && !parse_bytes(v->memory_limit, &o.memory_limit)) {
        return cli_usage_error(cmd, "--memory-limit: expected bytes, as 4000000000, 4G or 600M");
    }
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
