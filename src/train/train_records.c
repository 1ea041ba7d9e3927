/* SPDX-License-Identifier: Apache-2.0 */
/* What a run writes down of itself: its options, and what its evaluations found. */
#include "train/metrics_read.h"
#include "train/train.h"

#include <string.h>

/* ---- the start ----------------------------------------------------------------------------- */

static void write_params(const tess_train_options *o, const tess_model *m, tess_json_writer *w)
{
    const struct {
        const char *name;
        const char *text;
        double real;
    } params[] = {
        {"train_data", o->train_data, 0},
        {"caption_key", o->caption_key, 0},
        {"val_data", o->val_data, 0},
        {"model", o->model, 0},
        {"tokenizer", o->tokenizer, 0},
        {"name", o->run_dir, 0},
        {"precision",
         o->precision == TESS_PRECISION_FP8 ? "fp8" : tess_dtype_name(tess_model_dtype(m)), 0},
        {"lr_scheduler", o->lr_scheduler, 0},
        {"opt", o->optimizer, 0},
        {"muon_momentum", NULL, o->muon_momentum},
        {"muon_lr", NULL, o->muon_lr},
        {"batch_size", NULL, (double)o->batch_size},
        {"captions_per_image", NULL, (double)o->captions_per_image},
        {"accum_freq", NULL, (double)o->accum_freq},
        {"language_temperature", NULL, o->language_temperature},
        {"epochs", NULL, (double)o->epochs},
        {"steps", NULL, (double)o->steps},
        {"max_seconds", NULL, o->seconds},
        {"lr", NULL, o->lr},
        {"beta1", NULL, o->beta1},
        {"beta2", NULL, o->beta2},
        {"eps", NULL, o->eps},
        {"wd", NULL, o->weight_decay},
        {"grad_clip_norm", NULL, o->grad_clip_norm},
        {"skip_outliers", NULL, o->skip_outliers},
        {"stochastic_rounding", NULL, (double)o->stochastic_rounding},
        {"warmup", NULL, (double)o->warmup},
        {"lr_min", NULL, o->lr_min},
        {"seed", NULL, (double)o->seed},
        {"workers", NULL, (double)o->workers},
        {"cache_size", NULL, (double)o->cache_size},
        {"aug_scale_min", NULL, o->augment.scale_min},
        {"aug_scale_max", NULL, o->augment.scale_max},
        {"aug_shift", NULL, (double)o->augment.shift},
        {"aug_flip", NULL, (double)o->augment.flip},
        {"aug_brightness", NULL, o->augment.brightness},
        {"aug_contrast", NULL, o->augment.contrast},
        {"force_patch_dropout", NULL, o->patch_dropout},
        {"grad_checkpointing", NULL, (double)o->grad_checkpointing},
        {"recompute_activations", NULL, (double)o->recompute_activations},
        {"deterministic", NULL, (double)o->deterministic},
        {"lock_image", NULL, (double)o->lock_image},
        {"lock_text", NULL, (double)o->lock_text},
        {"lora_rank", NULL, (double)o->lora.rank},
        {"lora_alpha", NULL, o->lora.alpha},
        {"lora_rslora", NULL, (double)o->lora.rank_stabilized},
        {"distill_text", o->distill_text, 0},
        {"distill_language", o->distill_text ? o->distill_language : NULL, 0},
        {"distill_loss", o->distill_text ? o->distill_loss : NULL, 0},
        {"lora_target", o->lora.rank > 0 ? o->lora.target : NULL, 0},
        {"parameters", NULL, (double)tess_model_n_params(m)},
    };
    tess_json_begin_object(w);
    for (int64_t i = 0; i < TESS_COUNT(params); i++) {
        if (params[i].text || params[i].real != 0) {
            tess_json_key(w, params[i].name);
            if (params[i].text) {
                tess_json_add_string(w, params[i].text);
            } else {
                tess_json_add_real(w, params[i].real);
            }
        }
    }
    tess_json_end_object(w);
}

/* What a rank holds of a training's states. */
static tess_status log_states(tess_run *r)
{
    tess_trainer_account a = {0};
    if (r->n_ranks == 1) {
        return TESS_OK;
    }
    tess_trainer_count_states(r->trainer, &a);
    return tess_metrics_log(
        r->metrics, TESS_LOG_INFO,
        "%d ranks, ZeRO stage %d; rank 0 holds %.1f MB: weights %.1f, gradients "
        "%.1f, masters %.1f, moments %.1f",
        r->n_ranks, r->o.zero, (double)tess_trainer_states(r->trainer) * 1e-6,
        (double)a.weights * 1e-6, (double)a.gradients * 1e-6, (double)a.masters * 1e-6,
        (double)a.moments * 1e-6);
}

tess_status tess__run_log_start(tess_run *r)
{
    tess_buf b = {0};
    tess_json_doc *doc = NULL;
    tess_json_writer w = {.buf = &b};
    write_params(&r->o, r->model, &w);
    tess_status st = tess_buf_check(&b);
    st = st ? st : tess_json_parse(b.data, b.n_bytes, "params", &doc);
    st = st ? st : tess_metrics_write_params(r->metrics, tess_json_root(doc));
    tess_json_free(doc);
    tess_buf_clear(&b);
    if (tess_bad_list_total(tess_dataset_bad(r->data)) > 0) {
        tess_bad_list_write(tess_dataset_bad(r->data), &b);
    }
    st = st ? st
            : tess_metrics_log(r->metrics, TESS_LOG_INFO,
                               "%lld samples in %lld languages, %.1f M parameters, %s%s%s",
                               (long long)tess_dataset_size(r->data),
                               (long long)tess_dataset_n_languages(r->data),
                               (double)tess_model_n_params(r->model) * 1e-6,
                               tess_dtype_name(tess_model_dtype(r->model)),
                               b.n_bytes ? "; left out: " : "", b.n_bytes ? b.data : "");
    if (st == TESS_OK && r->memory_note) {
        st = tess_metrics_log(r->metrics, TESS_LOG_INFO, "%s", r->memory_note);
    }
    tess_buf_deinit(&b);
    return st ? st : log_states(r);
}

/* ---- evaluations --------------------------------------------------------------------------- */

static bool note_step(void *ctx, const tess_json *record, int64_t step, int64_t offset)
{
    (void)record, (void)offset;
    *(int64_t *)ctx = step;
    return true;
}

tess_status tess__run_find_evaluated(tess_run *r)
{
    tess__metrics_walk walk;
    char *path = tess_format("%s/results.jsonl", r->checkpoints_dir);
    r->evaluated_step = -1;
    tess_status st =
        path ? tess__metrics_read(path, note_step, &r->evaluated_step, &walk) : TESS_NOMEM;
    tess_free(path);
    return st;
}

/* Two scalars: R@1 and R@10 of one language. */
static tess_status add_language(tess_arena *names, tess_scalar *out, const tess_language_recall *l)
{
    out[0].name = tess_arena_format(names, "val/text_to_image_R@1/%s", l->language);
    out[0].value = l->text_to_image.at1;
    out[1].name = tess_arena_format(names, "val/text_to_image_R@10/%s", l->language);
    out[1].value = l->text_to_image.at10;
    return out[0].name && out[1].name ? TESS_OK : TESS_NOMEM;
}

static tess_status record(tess_run *r, const tess_eval_result *e)
{
    const tess_scalar head[] = {
        {"val/text_to_image_R@1", e->mean.at1},
        {"val/text_to_image_R@5", e->mean.at5},
        {"val/text_to_image_R@10", e->mean.at10},
        {"val/image_to_text_R@1", e->image_to_text.at1},
        {"val/image_to_text_R@5", e->image_to_text.at5},
        {"val/image_to_text_R@10", e->image_to_text.at10},
        {"val/text_to_image_mean_rank", e->mean_rank},
        {"val/text_to_image_median_rank", e->median_rank},
        {"val/text_to_image_R@1_known_words", e->mean_known.at1},
        {"val/text_to_image_R@1_new_words", e->mean_novel.at1},
    };
    int64_t n = TESS_COUNT(head);
    tess_scalar *scalars = tess_alloc_array((size_t)(n + 2 * e->n_languages), sizeof *scalars);
    tess_arena names = {0};
    tess_status st = scalars ? TESS_OK : TESS_NOMEM;
    if (scalars) {
        memcpy(scalars, head, sizeof head);
    }
    for (int64_t i = 0; st == TESS_OK && i < e->n_languages; i++) {
        st = add_language(&names, scalars + n, &e->languages[i]);
        n += 2;
    }
    st =
        st ? st
           : tess_metrics_add_result(r->metrics, r->state.step, r->state.epoch, scalars, (size_t)n);
    r->evaluated_step = st ? r->evaluated_step : r->state.step;
    tess_free(scalars);
    tess_arena_deinit(&names);
    return st;
}

tess_status tess__run_evaluate(tess_run *r)
{
    tess_eval_result e = {0};
    tess_eval_options o = {.data = r->o.val_data,
                           .dataset_type = r->o.dataset_type,
                           .caption_key = r->o.val_caption_key,
                           .novel_key = r->o.val_novel_key,
                           .workers = r->o.workers};
    TESS_TRY(tess_eval_retrieval(r->model, &o, &e));
    tess_status st = record(r, &e);
    st = st ? st
            : tess_metrics_log(r->metrics, TESS_LOG_INFO,
                               "Eval Epoch: %lld text_to_image_R@1: %.4f text_to_image_R@10: %.4f "
                               "(mean over %lld of %lld languages, %lld captions, %.1f s)",
                               (long long)r->state.epoch, e.mean.at1, e.mean.at10,
                               (long long)e.n_mean_languages, (long long)e.n_languages,
                               (long long)e.n_captions, e.seconds);
    tess_eval_result_deinit(&e);
    return st ? st : tess_report_write(r->o.run_dir);
}
