/* SPDX-License-Identifier: Apache-2.0 */
/* tessera convert: a model directory in another program's layout. */
#include "cli/verbs.h"

#include "tessera/fusion.h"

typedef struct convert_values {
    const char *model, *to, *out;
} convert_values;

static const cli_option options[] = {
    {.name = "model",
     .short_name = 'm',
     .kind = CLI_PATH,
     CLI_AT(convert_values, model),
     .value = "DIR",
     .help = "Model directory: Tessera's, OpenCLIP's or Hugging Face's"},
    {.name = "to",
     .kind = CLI_CHOICE,
     .choices = "openclip|hf",
     CLI_AT(convert_values, to),
     .help = "The layout to write"},
    {.name = "output",
     .short_name = 'o',
     .kind = CLI_PATH,
     CLI_AT(convert_values, out),
     .value = "DIR",
     .help = "Directory to make"},
};

static tess_status run(cli_command *cmd)
{
    const convert_values *v = cmd->values;
    if (!v->model || !v->to || !v->out) {
        return cli_usage_error(cmd, "convert needs --model, --to and --output");
    }
    TESS_TRY(tess_model_convert(v->model, v->to, v->out));
    tess_log(TESS_LOG_INFO, "wrote %s", v->out);
    return TESS_OK;
}

const cli_verb cli_verb_convert = {
    .name = "convert",
    .summary = "Write a model in OpenCLIP's or Hugging Face's layout",
    .options = options,
    .n_options = TESS_COUNT(options),
    .values_bytes = sizeof(convert_values),
    .about =
        "Every tensor keeps its type (bf16, f16, f32), and within one layout its bytes. What the "
        "layout cannot say is refused by name. The tokenizer's files come along. A text-only model "
        "has a layout of its own, --to hf.",
    .examples = "$ tessera convert -m logs/emoji/model --to openclip -o emoji-openclip\n"
                "$ tessera convert -m clip-vit-base-patch32 --to openclip -o ViT-B-32",
    .run = run,
};
