/* SPDX-License-Identifier: Apache-2.0 */
/* eval_task: tessera eval --task. */
#ifndef TESSERA_CLI_EVAL_TASK_H
#define TESSERA_CLI_EVAL_TASK_H

#include "cli/open_model.h"
#include "cli/verbs.h"

typedef struct eval_values {
    cli_embedder embedder;
    const char *data, *task, *dataset_type, *caption_key, *novel_key;
    int64_t min_captions, workers;
    /* of the tasks */
    const char *split, *train_split, *val_split, *recall_k, *classes, *templates, *image_root;
    cli_list languages;
    int64_t max_captions, fewshot_k, seed;
    double val_proportion, weight_decay;
    const char *output, *dataset_name, *model_name, *pretrained;
} eval_values;

/* cmd->values is an eval_values whose task is one of CLIP_benchmark's. */
TESS_MUST_USE tess_status cli_eval_task(cli_command *cmd);

#endif
