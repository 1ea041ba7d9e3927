/* SPDX-License-Identifier: Apache-2.0 */
/* The training loop, read top to bottom in tess_train:
 *
 *   open model, data, loader, metrics; resume when asked
 *   while not done: read accum_freq batches, micro-step each, update; log, save, evaluate
 *   save the last checkpoint and the model directory
 *
 * The only state is tess_train_state and the store's groups param, m and v; everything else is a
 * function of the options and of state.step and state.counter, which is why a killed run resumes to
 * the same bytes. */
#include "train/train.h"

#include <string.h>

tess_pipeline tess_model_pipeline(const tess_model *m)
{
    return (tess_pipeline){.preprocess = *tess_model_preprocess(m),
                           .tokenizer = tess_model_tokenizer(m),
                           .add_eos = true,
                           .texts_of = tess_model_has_own_texts(m) ? m : NULL};
}

/* ---- opening ------------------------------------------------------------------------------- */

#define DEFAULT(field, value) o.field = o.field ? o.field : (value)

static tess_train_options with_defaults(tess_train_options o)
{
    DEFAULT(batch_size, 64);
    DEFAULT(captions_per_image, o.distill_text ? 2 : 1);
    DEFAULT(distill_language, "en");
    DEFAULT(distill_loss, "mse");
    DEFAULT(accum_freq, 1);
    DEFAULT(language_temperature, 1);
    DEFAULT(lr, 5e-4);
    DEFAULT(beta1, 0.9);
    DEFAULT(beta2, 0.98);
    DEFAULT(eps, 1e-6);
    DEFAULT(lr_scheduler, "cosine");
    DEFAULT(optimizer, "adamw");
    DEFAULT(muon_momentum, 0.95);
    DEFAULT(muon_lr, 1);
    DEFAULT(log_every_n_steps, 100);
    DEFAULT(save_frequency, 1);
    return o;
}

static tess_status check_distill(const tess_train_options *o)
{
    if (strcmp(o->distill_loss, "mse") != 0 && strcmp(o->distill_loss, "contrastive") != 0) {
        return TESS_FAIL(TESS_INVALID,
                         "distillation loss: expected mse or contrastive, found \"%s\"",
                         o->distill_loss);
    }
    if (o->lora.rank > 0 || o->lock_text) {
        return TESS_FAIL(TESS_INVALID,
                         "distillation trains the whole text tower: leave --lora-rank "
                         "and --lock-text out");
    }
    if (o->captions_per_image < 2) {
        return TESS_FAIL(TESS_INVALID, "distillation pairs a caption with its translations: use "
                                       "--captions-per-image 2 or more");
    }
    return TESS_OK;
}

static tess_distill distill_of(const tess_train_options *o)
{
    return !o->distill_text                      ? TESS_DISTILL_OFF
           : strcmp(o->distill_loss, "mse") == 0 ? TESS_DISTILL_MSE
                                                 : TESS_DISTILL_CONTRASTIVE;
}

static tess_status check_options(const tess_train_options *o)
{
    int ends = (o->epochs > 0) + (o->steps > 0) + (o->seconds > 0);
    if (ends != 1) {
        return TESS_FAIL(TESS_INVALID,
                         "say how long to train with exactly one of --epochs, --steps and "
                         "--max-seconds");
    }
    if (o->lora.rank > 0 && (o->lock_image || o->lock_text)) {
        return TESS_FAIL(
            TESS_INVALID,
            "LoRA freezes both towers: leave --lock-image and --lock-text out, and say "
            "with --lora-target which layers to adapt");
    }
    if (o->distill_text) {
        TESS_TRY(check_distill(o));
    }
    if (!o->train_data || !o->model || !o->run_dir) {
        return TESS_FAIL(TESS_INVALID, "training needs --train-data and --model");
    }
    if (strcmp(o->lr_scheduler, "cosine") != 0 && strcmp(o->lr_scheduler, "const") != 0) {
        return TESS_FAIL(TESS_INVALID, "lr scheduler: expected cosine or const, found \"%s\"",
                         o->lr_scheduler);
    }
    if (strcmp(o->optimizer, "adamw") != 0 && strcmp(o->optimizer, "muon") != 0) {
        return TESS_FAIL(TESS_INVALID, "optimizer: expected adamw or muon, found \"%s\"",
                         o->optimizer);
    }
    return TESS_OK;
}

static tess_status add_lora(tess_run *r)
{
    const tess_train_options *o = &r->o;
    if (!tess_path_is_dir(o->model)) {
        return TESS_FAIL(TESS_INVALID,
                         "an adapter belongs to weights that exist: give --lora-rank together with "
                         "a model directory, not with the config %s",
                         o->model);
    }
    tess_lora_options l = o->lora;
    l.base = o->model;
    TESS_TRY(tess_model_add_lora(r->model, &l, o->seed));
    return tess_model_narrow(r->model);
}

/* Decoded pictures go to a device that resizes them, unless their colours change as well. */
static bool sends_raw(const tess_run *r)
{
    return tess_model_resizes(r->model) && tess_augment_is_geometric(&r->o.augment) &&
           !r->o.distill_text;
}

tess_recompute tess__run_recompute(const tess_train_options *o)
{
    return o->grad_checkpointing      ? TESS_RECOMPUTE_FULL
           : o->recompute_activations ? TESS_RECOMPUTE_SELECTIVE
                                      : TESS_RECOMPUTE_OFF;
}

tess_status tess__run_open_trainer(tess_run *r, tess_recompute recompute)
{
    const tess_train_options *o = &r->o;
    tess_trainer_options t = {.batch = o->batch_size / r->n_ranks,
                              .captions_per_image = o->captions_per_image,
                              .accumulate = o->accum_freq,
                              .beta1 = (float)o->beta1,
                              .beta2 = (float)o->beta2,
                              .eps = (float)o->eps,
                              .weight_decay = (float)o->weight_decay,
                              .clip = (float)o->grad_clip_norm,
                              .fp8_width = o->precision == TESS_PRECISION_FP8 ? TESS_FP8_WIDTH : 0,
                              .muon = strcmp(o->optimizer, "muon") == 0,
                              .muon_momentum = (float)o->muon_momentum,
                              .muon_lr = (float)o->muon_lr,
                              .skip_outliers = (float)o->skip_outliers,
                              .recompute = recompute,
                              .lock_image = o->lock_image,
                              .lock_text = o->lock_text,
                              .raw_pictures = sends_raw(r),
                              .comm = o->comm,
                              .zero = o->zero,
                              .grad_dtype = o->grad_dtype,
                              .overlap_bytes = o->overlap_bytes,
                              .distill = distill_of(o),
                              .patch_dropout = o->patch_dropout,
                              .stochastic_rounding = o->stochastic_rounding,
                              .seed = o->seed};
    tess_trainer_free(r->trainer);
    r->trainer = NULL;
    TESS_TRY(tess_trainer_new(r->model, &t, &r->trainer));
    tess_trainer_debug(r->trainer, o->debug_numerics);
    tess_trainer_profile(r->trainer, o->profile);
    return TESS_OK;
}

static tess_status open_model(tess_run *r)
{
    const tess_train_options *o = &r->o;
    TESS_TRY(tess__memory_begin(r));
    TESS_TRY(tess_path_is_dir(o->model)
                 ? tess_model_open_paged(o->model, o->precision, r->pager, &r->model)
                 : tess_model_new_paged(o->model, o->tokenizer, o->seed, o->precision, r->pager,
                                        &r->model));
    tess_model_use(r->model, o->device);
    tess_compute_deterministic(o->deterministic);
    if (!tess_model_has_image(r->model)) {
        return TESS_FAIL(TESS_INVALID,
                         "%s has a text tower alone: training needs an image tower beside it "
                         "(tessera mix)",
                         o->model);
    }
    TESS_TRY(tess__teacher_open(&r->teacher, o, r->model));
    TESS_TRY(o->lora.rank > 0 ? add_lora(r) : TESS_OK);
    return tess__run_open_trainer(r, tess__run_recompute(o));
}

static tess_status open_data(tess_run *r)
{
    const tess_train_options *o = &r->o;
    r->pipeline = tess_model_pipeline(r->model);
    r->pipeline.augment = o->augment;
    TESS_TRY(tess_augment_check(&o->augment));
    r->hooks = tess_pipeline_hooks(&r->pipeline);
    tess_dataset_options d = {.type = o->dataset_type,
                              .caption_key = o->caption_key,
                              .hooks = &r->hooks,
                              .pictures_optional = o->distill_text != NULL};
    TESS_TRY(tess_dataset_open(o->train_data, &d, &r->data));
    tess_loader_options l = {.hooks = r->hooks,
                             .batch = o->batch_size,
                             .size = o->distill_text ? 0 : tess_model_image_size(r->model),
                             .captions_only = o->distill_text != NULL,
                             .raw = sends_raw(r),
                             .source_language = o->distill_text ? o->distill_language : NULL,
                             .captions_per_image = o->captions_per_image,
                             .max_tokens = tess_model_context_length(r->model),
                             .seed = o->seed,
                             .temperature = o->language_temperature,
                             .rank = r->rank,
                             .n_ranks = r->n_ranks,
                             .patient = r->n_ranks > 1,
                             .workers = o->workers,
                             .cache_size = o->cache_size,
                             .cache_bytes = o->cache_bytes,
                             .token_cache_bytes = o->cache_bytes,
                             .max_bad_rate = o->max_bad_rate};
    TESS_TRY(tess_loader_new(r->data, &l, &r->loader));
    int64_t steps = tess_loader_batches_per_epoch(r->loader) / o->accum_freq;
    if (steps < 1) {
        return TESS_FAIL(TESS_INVALID,
                         "%lld samples make no update of %lld x %lld: lower --batch-size or "
                         "--accum-freq",
                         (long long)tess_dataset_size(r->data), (long long)o->batch_size,
                         (long long)o->accum_freq);
    }
    r->samples_per_epoch = tess_loader_batches_per_epoch(r->loader) * o->batch_size;
    r->total_steps =
        o->steps ? o->steps : o->epochs * r->samples_per_epoch / (o->batch_size * o->accum_freq);
    return TESS_OK;
}

/* ---- resuming ------------------------------------------------------------------------------ */

static tess_status find_checkpoint(const tess_run *r, char **out)
{
    *out = NULL;
    if (!r->o.resume) {
        return TESS_OK;
    }
    if (strcmp(r->o.resume, "latest") == 0) {
        return tess_checkpoint_latest(r->checkpoints_dir, out);
    }
    *out = tess_strdup(r->o.resume);
    return *out ? TESS_OK : TESS_NOMEM;
}

/* The settings agree, so these must; a file whose hashes were put right after a change may not. */
static tess_status check_state(const tess_run *r, const char *dir)
{
    const tess_train_state *s = &r->state;
    if (s->seed != r->o.seed || s->counter != s->step * r->o.batch_size * r->o.accum_freq ||
        s->n_skipped > s->step) {
        return TESS_FAIL(TESS_FORMAT,
                         "checkpoint %s: state.json: seed %llu, step %lld, counter %lld and "
                         "n_skipped %lld do not belong together: it was changed by hand",
                         dir, (unsigned long long)s->seed, (long long)s->step,
                         (long long)s->counter, (long long)s->n_skipped);
    }
    return TESS_OK;
}

static tess_status resume(tess_run *r)
{
    char *dir = NULL, settings[33];
    TESS_TRY(tess__settings_hash(&r->o, r->model, r->teacher.model, settings));
    r->state = (tess_train_state){.seed = r->o.seed};
    memcpy(r->state.settings, settings, sizeof settings);
    TESS_TRY(find_checkpoint(r, &dir));
    if (!dir) {
        return TESS_OK;
    }
    tess_status st = tess_checkpoint_load(r->model, dir, &r->state);
    if (st == TESS_OK && strcmp(settings, r->state.settings) != 0) {
        st = TESS_FAIL(TESS_INVALID,
                       "%s: was written with other options or another model, so going on from it "
                       "would not be the same run; give the options in its params.txt, or start a "
                       "new run from it with --model %s",
                       dir, dir);
    }
    st = st ? st : check_state(r, dir);
    st = st ? st : tess__run_send_recent(r, dir);
    st = st ? st : tess_loader_seek(r->loader, r->state.counter);
    r->elapsed_before = r->state.elapsed;
    r->skipped_before = r->state.n_skipped;
    r->last_checkpoint = dir;
    return st;
}

static tess_status open_run(tess_run *r)
{
    r->checkpoints_dir = tess_format("%s/checkpoints", r->o.run_dir);
    if (!r->checkpoints_dir) {
        return TESS_NOMEM;
    }
    TESS_TRY(open_model(r));
    tess_status st = open_data(r);
    st = st ? st : resume(r);
    st = st ? st : tess__memory_divide(r);
    TESS_TRY(tess__run_begin_together(r, st));
    /* Where ranks shard, one of all of them. */
    TESS_TRY(r->last_checkpoint ? tess_trainer_sync(r->trainer, r->state.step - r->state.n_skipped)
                                : TESS_OK);
    if (r->rank > 0) {
        return TESS_OK;
    }
    /* What is refused before this leaves no directory behind. */
    TESS_TRY(tess_dir_lock(r->o.run_dir,
                           "another process is training in this directory: wait for it, or name "
                           "another one with --name",
                           &r->lock));
    tess_metrics_options m = {
        .dir = r->o.run_dir, .resume = r->o.resume != NULL, .resume_step = r->state.step};
    TESS_TRY(tess_metrics_open(&m, &r->metrics));
    TESS_TRY(tess__run_open_skipped(r));
    TESS_TRY(tess__checkpoints_sweep(r->checkpoints_dir));
    TESS_TRY(tess__saver_new(
        &(tess_saver_options){.copy_bytes = r->o.save_copy_bytes,
                              .piece_bytes =
                                  r->pager ? tess_pager_get_stats(r->pager).block_bytes : 0},
        &r->saver));
    TESS_TRY(tess__run_find_evaluated(r));
    return tess__run_log_start(r);
}

static void close_run(tess_run *r)
{
    tess__saver_free(r->saver); /* reads the model until then */
    tess_metrics_close(r->metrics);
    tess__run_close_skipped(r);
    tess_loader_free(r->loader);
    tess_dataset_close(r->data);
    tess_trainer_free(r->trainer);
    tess__teacher_deinit(&r->teacher);
    tess_model_free(r->model);
    tess_pager_free(r->pager);
    tess_free(r->memory_note);
    tess_free(r->checkpoints_dir);
    tess_free(r->last_checkpoint);
    tess_dir_unlock(&r->lock);
}

/* ---- results ------------------------------------------------------------------------------- */

tess_status tess__run_take_results(tess_run *r, bool wait)
{
    tess_step_result s;
    do {
        TESS_TRY(tess_trainer_read(r->trainer, wait, &s));
        TESS_TRY(s.step > 0 ? tess__run_account(r, &s) : TESS_OK);
    } while (s.step > 0);
    return wait ? tess__run_log_skipped(r) : TESS_OK;
}

/* ---- one update ---------------------------------------------------------------------------- */

static tess_status micro_steps(tess_run *r)
{
    for (int64_t i = 0; i < r->o.accum_freq; i++) {
        const tess_batch *b = NULL;
        double start = tess_seconds();
        TESS_TRY(tess_loader_read(r->loader, &b));
        r->data_seconds += tess_seconds() - start;
        tess_micro_batch mb = {.pictures = b->pictures,
                               .raw = b->raw,
                               .n_tokens = b->n_tokens,
                               .tokens = b->tokens,
                               .positions = b->positions,
                               .offsets = b->offsets,
                               .counter = b->counter + r->rank * b->n_pictures};
        r->window_tokens += b->n_tokens;
        if (r->teacher.model) {
            TESS_TRY(tess__teacher_embed(&r->teacher, b->sources, b->n_pictures));
            mb.teacher = r->teacher.vectors;
        }
        TESS_TRY(tess_trainer_micro_step(r->trainer, &mb, NULL));
    }
    return TESS_OK;
}

static tess_status update(tess_run *r)
{
    r->lr = tess__learning_rate(&r->o, r->state.step, tess__run_fraction(r));
    TESS_TRY(tess__run_let_change(r));
    /* Adam's time counts applied updates: the trainer leaves out those that it skipped. */
    TESS_TRY(tess_trainer_update(r->trainer, r->lr, r->state.step + 1 - r->skipped_before, NULL));
    r->state.step++;
    r->state.counter += r->o.batch_size * r->o.accum_freq;
    r->window_steps++;
    r->window_samples += r->o.batch_size * r->o.accum_freq;
    return TESS_OK;
}

static tess_status log_step(tess_run *r)
{
    const bool logs = r->state.step == 1 || r->state.step % r->o.log_every_n_steps == 0;
    TESS_TRY(tess__run_take_results(r, logs));
    if (r->rank > 0) {
        return TESS_OK;
    }
    double seconds = tess_seconds() - r->window_start, steps = (double)r->window_steps;
    double rate = (double)r->window_samples / seconds;
    if (r->o.on_progress) {
        r->o.on_progress(r->o.ctx, &(tess_train_progress){.step = r->state.step,
                                                          .total_steps = r->total_steps,
                                                          .elapsed = r->elapsed_before +
                                                                     tess_seconds() - r->started,
                                                          .budget = r->o.seconds,
                                                          .n_samples = r->state.counter,
                                                          .samples_per_second = rate,
                                                          .loss = (double)r->loss,
                                                          .lr = r->lr});
    }
    if (!logs) {
        return TESS_OK;
    }
    int64_t in_epoch = r->state.counter % r->samples_per_epoch;
    tess_train_point p = {
        .step = r->state.step,
        .epoch = (r->state.counter - 1) / r->samples_per_epoch,
        .n_samples = in_epoch ? in_epoch : r->samples_per_epoch,
        .samples_per_epoch = r->samples_per_epoch,
        .loss = (double)r->loss,
        .mean_loss = r->state.n_loss ? r->state.loss_sum / (double)r->state.n_loss : 0,
        .lr = r->lr,
        .logit_scale = tess_trainer_logit_scale(r->trainer),
        .data_time = r->data_seconds / steps,
        .batch_time = seconds / steps,
        .samples_per_second = rate,
    };
    double flops = tess_trainer_flops(r->trainer) * (double)r->o.accum_freq * steps / seconds;
    const int64_t sent = r->o.comm ? tess_comm_wire_bytes(r->o.comm) : 0;
    const double wire = (double)(sent - r->window_wire);
    const double buffers = r->o.comm ? (double)tess_comm_bytes(r->o.comm) : 0;
    const double captions =
        (double)(r->o.captions_per_image * r->o.accum_freq * r->o.batch_size) / (double)r->n_ranks;
    const tess_scalar more[] = {{"train/grad_norm", (double)r->norm},
                                {"train/gflops", flops * 1e-9},
                                {"train/tokens", (double)r->window_tokens / (steps * captions)},
                                {"train/state_bytes", (double)tess_trainer_states(r->trainer)},
                                {"train/work_bytes", (double)tess_trainer_memory(r->trainer)},
                                {"train/wire_buffer_bytes", buffers},
                                {"train/wire_bytes", wire / steps}};
    r->window_start = tess_seconds();
    r->window_steps = r->window_samples = r->window_tokens = 0;
    r->window_wire = sent;
    r->data_seconds = 0;
    return tess_metrics_add_train(r->metrics, &p, more, TESS_COUNT(more));
}

/* What the end of an epoch asks for and has not been done: a run that was stopped in the middle of
 * it catches up when it is resumed. */
static tess_status end_epoch(tess_run *r)
{
    int64_t epoch = r->state.counter / r->samples_per_epoch;
    int64_t before = r->state.counter - r->o.batch_size * r->o.accum_freq;
    if (r->state.counter == 0 || epoch == before / r->samples_per_epoch) {
        return TESS_OK;
    }
    TESS_TRY(tess__run_take_results(r, true));
    if (epoch != r->state.epoch) {
        r->state.epoch = epoch;
        r->state.loss_sum = 0;
        r->state.n_loss = 0;
    }
    const bool due = r->o.val_data && r->o.val_frequency > 0 && epoch % r->o.val_frequency == 0 &&
                     r->evaluated_step != r->state.step;
    const bool shards = tess_trainer_shards(r->trainer);
    if (shards || (r->rank == 0 && due)) {
        /* Interrupted, it is made up for when the run goes on: all ranks have yet to stop. */
        const tess_status st = shards ? tess__run_evaluate_together(r, due) : tess__run_evaluate(r);
        TESS_TRY(st == TESS_CANCELLED ? TESS_OK : st);
    }
    if (r->o.seconds > 0 || epoch % r->o.save_frequency != 0) {
        return TESS_OK;
    }
    char name[32];
    snprintf(name, sizeof name, "epoch_%lld", (long long)epoch);
    return tess__run_save(r, name);
}

static bool done(const tess_run *r)
{
    return r->total_steps > 0 ? r->state.step >= r->total_steps : tess__run_fraction(r) >= 1;
}

static tess_status train_loop(tess_run *r)
{
    r->started = r->window_start = tess_seconds();
    r->window_wire = r->o.comm ? tess_comm_wire_bytes(r->o.comm) : 0;
    bool stop = false;
    TESS_TRY(end_epoch(r)); /* of the session before */
    TESS_TRY(tess__run_share_clock(r, &stop));
    while (!done(r)) {
        if (stop) {
            return TESS_FAIL(TESS_CANCELLED, "stopped at step %lld", (long long)r->state.step);
        }
        TESS_TRY(micro_steps(r));
        TESS_TRY(update(r));
        TESS_TRY(log_step(r));
        TESS_TRY(end_epoch(r));
        if (r->o.save_every_n_steps > 0 && r->state.step % r->o.save_every_n_steps == 0) {
            TESS_TRY(tess__run_save_step(r));
        }
        TESS_TRY(tess__run_share_clock(r, &stop));
    }
    return TESS_OK;
}

static void log_profile(const tess_trainer *t)
{
    tess_buf b = {0};
    tess_trainer_print_profile(t, &b);
    for (char *line = b.data, *end; line && *line; line = end) {
        end = strchr(line, '\n');
        *end++ = 0; /* every line of a profile ends in one */
        tess_log(TESS_LOG_INFO, "%s", line);
    }
    tess_buf_deinit(&b);
}

static tess_status finish(tess_run *r)
{
    TESS_TRY(tess__run_save_step(r));
    TESS_TRY(tess__run_log_bad(r));
    if (r->rank > 0) {
        return TESS_OK;
    }
    TESS_TRY(tess__saver_end(r->saver, true));
    if (r->o.profile) {
        log_profile(r->trainer);
    }
    TESS_TRY(tess_trainer_shards(r->trainer) ? tess__run_take_whole(r) : TESS_OK);
    TESS_TRY(tess__run_save_results(r));
    bool evaluated = r->evaluated_step == r->state.step;
    return r->o.val_data && !evaluated ? tess__run_evaluate(r) : tess_report_write(r->o.run_dir);
}

tess_status tess_train(const tess_train_options *options)
{
    tess_run r = {.o = with_defaults(*options), .n_ranks = 1};
    if (options->comm) {
        r.rank = tess_comm_rank(options->comm);
        r.n_ranks = tess_comm_size(options->comm);
        r.o.batch_size *= r.n_ranks;
    }
    tess_status st = check_options(&r.o);
    st = st ? st : open_run(&r);
    if (st == TESS_OK) {
        st = train_loop(&r);
        st = st == TESS_CANCELLED ? tess__run_stop_early(&r, st) : st;
        st = st ? st : finish(&r);
    }
    close_run(&r);
    return st;
}
