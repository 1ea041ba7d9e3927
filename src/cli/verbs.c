/* SPDX-License-Identifier: Apache-2.0 */
/* The table of verbs, apart from main.c so that tests can link it. */
#include "cli/verbs.h"

static const cli_verb *const verbs[] = {
    &cli_verb_train,       &cli_verb_plan,        &cli_verb_eval,          &cli_verb_classify,
    &cli_verb_index_build, &cli_verb_index_info,  &cli_verb_lora_merge,    &cli_verb_mix,
    &cli_verb_search,      &cli_verb_serve,       &cli_verb_embed,         &cli_verb_convert,
    &cli_verb_pack,        &cli_verb_export_onnx, &cli_verb_dataset_check, &cli_verb_tokenize,
    &cli_verb_doctor,      &cli_verb_completion,  &cli_verb_man,           &cli_verb_help,
};

cli_verbs cli_all_verbs(void)
{
    return (cli_verbs){verbs, TESS_COUNT(verbs)};
}

tess_status cli_print(const tess_buf *text)
{
    TESS_TRY(tess_buf_check(text));
    bool written =
        text->n_bytes == 0 || fwrite(text->data, 1, text->n_bytes, stdout) == text->n_bytes;
    return written && fflush(stdout) == 0 ? TESS_OK : tess__fail_errno("write", "standard output");
}
