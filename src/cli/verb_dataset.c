/* SPDX-License-Identifier: Apache-2.0 */
/* tessera dataset check: reads every sample and says what is there and what is wrong. */
#include "cli/common_rows.h"
#include "cli/verbs.h"

#include "tessera/train.h"

typedef struct check_values {
    const char *dataset_type, *caption_key;
} check_values;

static const cli_option check_options[] = {
    CLI_DATASET_TYPE(check_values),
    {.name = "caption-key",
     .kind = CLI_STRING,
     CLI_AT(check_values, caption_key),
     .value = "KEY",
     .help = "Where captions are: a JSON field, or txt"},
};

static tess_status print_report(const cli_command *cmd, const tess_data_report *r,
                                const tess_dataset *ds)
{
    tess_buf out = {0};
    if (cmd->common.json) {
        tess_json_writer w = {.buf = &out};
        tess_data_report_write_json(r, ds, &w);
        tess_buf_adds(&out, "\n");
    } else {
        tess_data_report_write_text(r, ds, &out);
    }
    tess_status st = cli_print(&out);
    tess_buf_deinit(&out);
    return st;
}

static tess_status run_check(cli_command *cmd)
{
    const check_values *v = cmd->values;
    tess_pipeline pipeline = {.preprocess = tess_preprocess_default()};
    tess_hooks hooks = tess_pipeline_hooks(&pipeline);
    tess_dataset_options o = {.type = v->dataset_type, .caption_key = v->caption_key};
    tess_dataset *ds = NULL;
    tess_data_report r = {0};
    tess_status st = tess_dataset_open(cmd->args[0], &o, &ds);
    st = st ? st : tess_dataset_check(ds, &hooks, &r);
    st = st ? st : print_report(cmd, &r, ds);
    tess_data_report_deinit(&r);
    tess_dataset_close(ds);
    return st;
}

const cli_verb cli_verb_dataset_check = {
    .name = "dataset check",
    .summary = "Read every sample and report what is wrong",
    .options = check_options,
    .n_options = TESS_COUNT(check_options),
    .values_bytes = sizeof(check_values),
    .positional = "SOURCES",
    .min_args = 1,
    .max_args = 1,
    .args_are_files = true,
    .computes = true,
    .about = "Decodes every picture and judges every caption: damaged files, captions that are not "
             "UTF-8 or were once decoded wrongly, languages and their counts, picture sizes.",
    .examples = "$ tessera dataset check 'shards/{000..099}.tar'\n"
                "$ tessera dataset check --json pictures.csv",
    .run = run_check,
};
