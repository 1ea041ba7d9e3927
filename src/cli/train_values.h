/* SPDX-License-Identifier: Apache-2.0 */
/* What the options of tessera train set (verb_train.c), and who reads them (run_train.c). */
#ifndef TESSERA_CLI_TRAIN_VALUES_H
#define TESSERA_CLI_TRAIN_VALUES_H

#include "cli/option.h"

typedef struct cli_train_values {
    const char *train_data, *dataset_type, *caption_key, *val_data, *val_caption_key,
        *val_novel_key;
    const char *model, *tokenizer, *logs, *name, *resume, *precision, *device, *scheduler,
        *optimizer;
    int64_t batch_size, captions_per_image, accum_freq, epochs, steps, warmup, seed, workers;
    int64_t log_every, save_every, save_frequency, save_copy_mb, val_frequency, cache_size,
        cache_mb, aug_shift;
    double temperature, seconds, lr, beta1, beta2, eps, wd, clip, skip_outliers, lr_min, bad_rate;
    double muon_momentum, muon_lr;
    double aug_scale_min, aug_scale_max, aug_brightness, aug_contrast, patch_dropout;
    const char *memory_limit, *offload_dir;
    const char *lora_target, *lora_names;
    const char *distill_text, *distill_language, *distill_loss;
    const char *grad_dtype;
    int64_t lora_rank, zero, zero_overlap;
    double lora_alpha, rank_timeout;
    bool rslora;
    bool stochastic_rounding;
    bool aug_flip, grad_checkpointing, recompute_activations, lock_image, lock_text,
        delete_previous, debug, profile, deterministic;
} cli_train_values;

/* cmd->values are cli_train_values. */
tess_status cli_run_train(cli_command *cmd);

#endif
