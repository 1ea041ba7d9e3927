/* SPDX-License-Identifier: Apache-2.0 */
/* tessera export onnx: a model as ONNX files, under the names of those who read them. */
#include "cli/common_rows.h"
#include "cli/verbs.h"

#include <string.h>

#include "tessera/fusion.h"

typedef struct export_values {
    cli_list adapters;
    const char *model, *out, *naming, *batch, *precision;
    bool external_data;
} export_values;

static const cli_option export_options[] = {
    CLI_MODEL(export_values),
    CLI_ADAPTER(export_values, adapters),
    {.name = "out",
     .short_name = 'o',
     .kind = CLI_PATH,
     CLI_AT(export_values, out),
     .value = "DIR",
     .help = "Directory to write; an older export there is replaced"},
    {.name = "naming",
     .kind = CLI_CHOICE,
     .choices = "immich|optimum",
     .fallback = "immich",
     CLI_AT(export_values, naming),
     .help = "Names of files, inputs and outputs: Immich's, or Optimum's, which "
             "transformers.js reads too"},
    {.name = "batch",
     .kind = CLI_STRING,
     .fallback = "dynamic",
     CLI_AT(export_values, batch),
     .value = "N",
     .help = "A fixed batch size, or dynamic"},
    {.name = "external-data",
     .kind = CLI_FLAG,
     CLI_AT(export_values, external_data),
     .help = "Keep weights in a file beside each model; without it only beyond 2 GB"},
    {.name = "precision",
     .kind = CLI_CHOICE,
     .choices = "fp32|fp16",
     .fallback = "fp32",
     CLI_AT(export_values, precision),
     .help = "Type of weights and activations"},
};

static tess_status read_batch(cli_command *cmd, const char *text, int64_t *out)
{
    *out = 0;
    if (strcmp(text, "dynamic") == 0) {
        return TESS_OK;
    }
    for (const char *c = text; *c >= '0' && *c <= '9' && *out <= 65536; c++) {
        *out = *out * 10 + (*c - '0');
        if (!c[1] && *out >= 1 && *out <= 65536) {
            return TESS_OK;
        }
    }
    return cli_usage_error(cmd, "--batch: expected dynamic or 1 to 65536, found \"%s\"", text);
}

static tess_status file_bytes(const char *dir, const char *name, int64_t *out)
{
    tess_bytes map = {0};
    char *path = tess_format("%s/%s", dir, name);
    const tess_status st = path ? tess_file_map(path, &map) : TESS_NOMEM;
    *out = (int64_t)map.n_bytes;
    tess_file_unmap(&map);
    tess_free(path);
    return st;
}

/* Every file with its size, as lines or as an object. */
static tess_status print_files(const char *dir, bool json)
{
    tess_names names = {0};
    tess_buf b = {0};
    tess_json_writer w = {.buf = &b};
    tess_status st = tess_dir_list(dir, true, &names);
    if (json) {
        tess_json_begin_object(&w);
    }
    for (size_t i = 0; i < names.n_names && st == TESS_OK; i++) {
        int64_t n = 0;
        st = file_bytes(dir, names.names[i], &n);
        if (json) {
            tess_json_key(&w, names.names[i]);
            tess_json_add_int(&w, n);
        } else {
            tess_buf_addf(&b, "%12lld  %s/%s\n", (long long)n, dir, names.names[i]);
        }
    }
    if (json) {
        tess_json_end_object(&w);
        tess_buf_adds(&b, "\n");
    }
    st = st ? st : cli_print(&b);
    tess_buf_deinit(&b);
    tess_names_deinit(&names);
    return st;
}

/* Adapters are merged: an exported model has no others. */
static tess_status open_merged(const export_values *v, tess_model **out)
{
    TESS_TRY(tess_model_open(v->model, TESS_PRECISION_F32, out));
    if (v->adapters.n_items == 0) {
        return TESS_OK;
    }
    TESS_TRY(tess_model_adapt(*out, v->adapters.items, v->adapters.n_items));
    return tess_model_merge_adapters(*out);
}

static tess_status run_export(cli_command *cmd)
{
    const export_values *v = cmd->values;
    if (!v->model || !v->out) {
        return cli_usage_error(cmd, "export onnx needs --model and --out");
    }
    tess_onnx_export o = {
        .naming = strcmp(v->naming, "optimum") == 0 ? TESS_ONNX_OPTIMUM : TESS_ONNX_IMMICH,
        .external_data = v->external_data,
        .half = strcmp(v->precision, "fp16") == 0,
        .model_dir = strncmp(v->model, "local-dir:", 10) == 0 ? v->model + 10 : v->model};
    TESS_TRY(read_batch(cmd, v->batch, &o.batch));
    tess_model *m = NULL;
    tess_status st = open_merged(v, &m);
    st = st ? st : tess_model_export_onnx(m, v->out, &o);
    st = st ? st : print_files(v->out, cmd->common.json);
    tess_model_free(m);
    return st;
}

const cli_verb cli_verb_export_onnx = {
    .name = "export onnx",
    .summary = "Write a model as ONNX files",
    .options = export_options,
    .n_options = TESS_COUNT(export_options),
    .values_bytes = sizeof(export_values),
    .about = "Opset 17. Pictures go in normalised, (batch,3,size,size); texts as token ids, filled "
             "up behind their end id. Vectors come out with length 1. See docs/onnx.md.",
    .examples = "$ tessera export onnx --model logs/first/model --out immich\n"
                "$ tessera export onnx --model logs/first/model --out web --naming optimum",
    .run = run_export,
};
