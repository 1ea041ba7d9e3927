/* SPDX-License-Identifier: Apache-2.0 */
/* tessera mix: the image tower of one model with the text tower of another. */
#include "cli/verbs.h"

#include "tessera/fusion.h"

#include <string.h>

typedef struct mix_values {
    const char *image, *text, *out, *projection;
    int64_t seed;
} mix_values;

static const cli_option options[] = {
    {.name = "image",
     .kind = CLI_PATH,
     CLI_AT(mix_values, image),
     .value = "DIR",
     .help = "Model whose image tower, preprocessing and logit scale are taken"},
    {.name = "text",
     .kind = CLI_PATH,
     CLI_AT(mix_values, text),
     .value = "DIR",
     .help = "Model whose text tower and tokenizer are taken: of two towers, or BERT, XLM-R or "
             "sentence-transformers"},
    {.name = "output",
     .short_name = 'o',
     .kind = CLI_PATH,
     CLI_AT(mix_values, out),
     .value = "DIR",
     .help = "Model directory to make; a model that exists is replaced"},
    {.name = "projection",
     .kind = CLI_CHOICE,
     .choices = "auto|linear|mlp|keep",
     .fallback = "auto",
     CLI_AT(mix_values, projection),
     .help = "From the text tower into the images' space. auto: the text tower's own where it "
             "fits, else linear; linear, mlp: new; keep: nothing new"},
    {.name = "seed",
     .kind = CLI_INT,
     .fallback = "0",
     .min = 0,
     .max = 9e15,
     CLI_AT(mix_values, seed),
     .help = "Of a new projection"},
};

static tess_mix_projection projection_of(const char *name)
{
    return strcmp(name, "auto") == 0     ? TESS_MIX_AUTO
           : strcmp(name, "linear") == 0 ? TESS_MIX_LINEAR
           : strcmp(name, "mlp") == 0    ? TESS_MIX_MLP
                                         : TESS_MIX_KEEP;
}

static void describe(const tess_mix_report *r, const char *dir, const char *fingerprint,
                     tess_buf *out)
{
    tess_buf_addf(out, "%s: %s\n", dir, fingerprint);
    if (r->is_fresh) {
        tess_buf_addf(out,
                      "vectors of %lld; a new projection leads there from the text tower: train it "
                      "with --lock-image or --distill-text\n",
                      (long long)r->embed_dim);
    } else {
        tess_buf_addf(out, "vectors of %lld, with the text tower's own projection\n",
                      (long long)r->embed_dim);
    }
}

static void describe_json(const tess_mix_report *r, const char *dir, const char *fingerprint,
                          tess_buf *out)
{
    tess_json_writer w = {.buf = out};
    tess_json_begin_object(&w);
    tess_json_key(&w, "model");
    tess_json_add_string(&w, dir);
    tess_json_key(&w, "fingerprint");
    tess_json_add_string(&w, fingerprint);
    tess_json_key(&w, "embed_dim");
    tess_json_add_int(&w, r->embed_dim);
    tess_json_key(&w, "text_dim");
    tess_json_add_int(&w, r->text_dim);
    tess_json_key(&w, "new_projection");
    tess_json_add_bool(&w, r->is_fresh);
    tess_json_end_object(&w);
    tess_buf_adds(out, "\n");
}

static tess_status run(cli_command *cmd)
{
    const mix_values *v = cmd->values;
    if (!v->image || !v->text || !v->out) {
        return cli_usage_error(cmd, "mix needs --image, --text and --output");
    }
    const tess_mix_options o = {.image = v->image,
                                .text = v->text,
                                .projection = projection_of(v->projection),
                                .seed = (uint64_t)v->seed};
    tess_model *m = NULL;
    tess_mix_report r;
    tess_buf out = {0};
    char fingerprint[33];
    tess_status st = tess_model_mix(&o, &r, &m);
    st = st ? st : tess_model_save(m, v->out);
    st = st ? st : tess_model_fingerprint(m, fingerprint);
    if (st == TESS_OK) {
        (cmd->common.json ? describe_json : describe)(&r, v->out, fingerprint, &out);
        st = cli_print(&out);
    }
    tess_buf_deinit(&out);
    tess_model_free(m);
    return st;
}

const cli_verb cli_verb_mix = {
    .name = "mix",
    .summary = "Join one model's image tower and another's text tower",
    .options = options,
    .n_options = TESS_COUNT(options),
    .values_bytes = sizeof(mix_values),
    .about =
        "The model directory that is made opens with every verb. Where the projection is new the "
        "towers have still to meet: train it on pictures with --lock-image (LiT), or on translated "
        "captions alone with --distill-text.",
    .examples = "A CLIP that reads a hundred languages:\n"
                "$ tessera mix --image ViT-B-32 --text xlm-roberta-base -o mixture\n"
                "$ tessera train --model mixture --distill-text ViT-B-32 \\\n"
                "    --train-data captions.jsonl --epochs 5\n"
                "LiT, on pictures with captions:\n"
                "$ tessera train --model mixture --lock-image --train-data 'shards/{000..099}.tar' "
                "\\\n"
                "    --epochs 3",
    .run = run,
};
