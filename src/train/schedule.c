/* SPDX-License-Identifier: Apache-2.0 */
/* The learning rate, and what makes two runs the same run. */
#include "train/train.h"

#include <math.h>
#include <string.h>

double tess__run_fraction(const tess_run *r)
{
    double f = r->total_steps > 0 ? (double)r->state.step / (double)r->total_steps
                                  : (r->elapsed_before + r->elapsed) / r->o.seconds;
    return f < 1 ? f : 1;
}

double tess__learning_rate(const tess_train_options *o, int64_t step, double fraction)
{
    double warm = o->warmup > 0 && step < o->warmup ? (double)(step + 1) / (double)o->warmup : 1;
    double shape = 1;
    if (strcmp(o->lr_scheduler, "cosine") == 0) {
        shape = o->lr_min + (1 - o->lr_min) * 0.5 * (1 + cos(3.14159265358979323846 * fraction));
    }
    return o->lr * warm * shape;
}

/* The adapter's shape and what it is added to; nothing where there is none. */
static void add_lora(tess_hash128_state *s, const tess_train_options *o, const tess_model *m)
{
    const double reals[] = {(double)o->lora.rank, o->lora.alpha, (double)o->lora.rank_stabilized,
                            (double)o->lora.names};
    const char *target = o->lora.target ? o->lora.target : "", *base = tess_model_base(m);
    tess_hash128_add(s, reals, sizeof reals);
    tess_hash128_add(s, target, strlen(target) + 1);
    tess_hash128_add(s, base, strlen(base));
}

static void add_teacher(tess_hash128_state *s, const tess_train_options *o, const char *fingerprint)
{
    const char *const texts[] = {o->distill_language, o->distill_loss};
    for (int64_t i = 0; i < TESS_COUNT(texts); i++) {
        tess_hash128_add(s, texts[i], strlen(texts[i]) + 1);
    }
    tess_hash128_add(s, fingerprint, strlen(fingerprint));
}

tess_status tess__settings_hash(const tess_train_options *o, const tess_model *m,
                                tess_model *teacher, char out[33])
{
    const double reals[] = {o->language_temperature,
                            o->seconds,
                            o->lr,
                            o->beta1,
                            o->beta2,
                            o->eps,
                            o->weight_decay,
                            o->grad_clip_norm,
                            o->muon_momentum,
                            o->muon_lr,
                            o->lr_min,
                            o->augment.scale_min,
                            o->augment.scale_max,
                            o->augment.ratio_min,
                            o->augment.ratio_max,
                            o->augment.brightness,
                            o->augment.contrast};
    const int64_t ints[] = {
        o->batch_size, o->captions_per_image, o->accum_freq,      o->epochs,        o->steps,
        o->warmup,     o->cache_size,         o->augment.flip,    o->augment.shift, o->lock_image,
        o->lock_text,  (int64_t)o->seed,      tess_model_dtype(m)};
    const char *texts[] = {o->train_data, o->caption_key ? o->caption_key : "", o->lr_scheduler,
                           o->optimizer, tess_tokenizer_hash(tess_model_tokenizer(m))};
    char teachers[33] = "";
    TESS_TRY(teacher ? tess_model_fingerprint(teacher, teachers) : TESS_OK);
    tess_buf config = {0};
    tess_model_write_config(m, &config);
    tess_hash128_state *s = tess_hash128_new();
    if (s) {
        tess_hash128_add(s, reals, sizeof reals);
        tess_hash128_add(s, ints, sizeof ints);
        for (int64_t i = 0; i < TESS_COUNT(texts); i++) {
            tess_hash128_add(s, texts[i], strlen(texts[i]) + 1);
        }
        tess_hash128_add(s, config.data ? config.data : "", config.n_bytes);
        if (o->patch_dropout > 0) {
            tess_hash128_add(s, &o->patch_dropout, sizeof o->patch_dropout);
        }
        if (o->skip_outliers > 0) {
            tess_hash128_add(s, &o->skip_outliers, sizeof o->skip_outliers);
        }
        if (o->lora.rank > 0) {
            add_lora(s, o, m);
        }
        if (o->accum_freq > 1) {
            tess_hash128_add(s, "one loss", strlen("one loss")); /* over all batches of an update */
        }
        if (o->grad_dtype != TESS_F32) {
            tess_hash128_add(s, "grad_dtype", strlen("grad_dtype"));
        }
        if (o->stochastic_rounding) {
            tess_hash128_add(s, "stochastic_rounding", strlen("stochastic_rounding"));
        }
        if (teacher) {
            add_teacher(s, o, teachers);
        }
        tess_hash128_finish(s, out);
    }
    const tess_status st = s ? tess_buf_check(&config) : TESS_NOMEM;
    tess_buf_deinit(&config);
    return st;
}
