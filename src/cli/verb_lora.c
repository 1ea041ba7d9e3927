/* SPDX-License-Identifier: Apache-2.0 */
/* tessera lora merge: a model and its adapters made into one model directory. */
#include "cli/common_rows.h"
#include "cli/verbs.h"

#include "tessera/fusion.h"

typedef struct merge_values {
    const char *model, *out;
    cli_list adapters;
} merge_values;

static const cli_option merge_options[] = {
    CLI_MODEL(merge_values),
    CLI_ADAPTER(merge_values, adapters),
    {.name = "out",
     .short_name = 'o',
     .kind = CLI_PATH,
     CLI_AT(merge_values, out),
     .value = "DIR",
     .help = "Model directory to write; one that exists is replaced"},
};

static tess_status run_merge(cli_command *cmd)
{
    const merge_values *v = cmd->values;
    if (!v->model || !v->out || v->adapters.n_items == 0) {
        return cli_usage_error(cmd, "lora merge needs --model, --adapter and --out");
    }
    tess_model *m = NULL;
    tess_buf out = {0};
    char fingerprint[33];
    tess_status st = tess_model_open(v->model, TESS_PRECISION_F32, &m);
    st = st ? st : tess_model_adapt(m, v->adapters.items, v->adapters.n_items);
    st = st ? st : tess_model_merge_adapters(m);
    st = st ? st : tess_model_save(m, v->out);
    st = st ? st : tess_model_fingerprint(m, fingerprint);
    if (st == TESS_OK) {
        tess_buf_addf(&out, "%s: %s\n", v->out, fingerprint);
        st = cli_print(&out);
    }
    tess_buf_deinit(&out);
    tess_model_free(m);
    return st;
}

const cli_verb cli_verb_lora_merge = {
    .name = "lora merge",
    .summary = "Add low-rank adapters to a model's weights",
    .options = merge_options,
    .n_options = TESS_COUNT(merge_options),
    .values_bytes = sizeof(merge_values),
    .about =
        "The model that is written needs no adapter any more, and gives the same vectors as the "
        "model with its adapters, but for rounding.",
    .examples = "$ tessera lora merge -m model --adapter logs/pets/adapter -o model-pets\n"
                "Two at once, the second at half its strength:\n"
                "$ tessera lora merge -m model --adapter pets --adapter night:0.5 -o both",
    .run = run_merge,
};
