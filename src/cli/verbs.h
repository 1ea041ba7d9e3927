/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs of the program.  Adding one: a file that defines `const cli_verb cli_verb_<name>`, its
 * declaration here, and its line in verbs.c.  docs/cli.md shows a whole one. */
#ifndef TESSERA_CLI_VERBS_H
#define TESSERA_CLI_VERBS_H

#include "cli/option.h"

extern const cli_verb cli_verb_train;
extern const cli_verb cli_verb_plan;
extern const cli_verb cli_verb_eval;
extern const cli_verb cli_verb_classify;
extern const cli_verb cli_verb_index_build;
extern const cli_verb cli_verb_index_info;
extern const cli_verb cli_verb_lora_merge;
extern const cli_verb cli_verb_mix;
extern const cli_verb cli_verb_search;
extern const cli_verb cli_verb_serve;
extern const cli_verb cli_verb_embed;
extern const cli_verb cli_verb_export_onnx;
extern const cli_verb cli_verb_pack;
extern const cli_verb cli_verb_convert;
extern const cli_verb cli_verb_dataset_check;
extern const cli_verb cli_verb_tokenize;
extern const cli_verb cli_verb_doctor;
extern const cli_verb cli_verb_completion;
extern const cli_verb cli_verb_man;
extern const cli_verb cli_verb_help;

/* In the order in which help lists them. */
cli_verbs cli_all_verbs(void);

/* Standard output, whole or an error: TESS_IO when it cannot be written. */
TESS_MUST_USE tess_status cli_print(const tess_buf *text);

#endif
