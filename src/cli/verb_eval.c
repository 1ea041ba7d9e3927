/* SPDX-License-Identifier: Apache-2.0 */
/* tessera eval: retrieval of a data set's pictures by its captions, per language. */
#include "cli/verbs.h"

#include "tessera/train.h"

typedef struct eval_values {
    const char *model, *data, *dataset_type, *caption_key, *novel_key;
    int64_t min_captions, workers;
} eval_values;

static const cli_option eval_options[] = {
    {.name = "model",
     .short_name = 'm',
     .kind = CLI_PATH,
     CLI_AT(eval_values, model),
     .value = "DIR",
     .help = "Model directory"},
    {.name = "val-data",
     .kind = CLI_PATH,
     CLI_AT(eval_values, data),
     .value = "SOURCES",
     .help = "Pictures and captions, as --train-data of tessera train"},
    {.name = "dataset-type",
     .kind = CLI_CHOICE,
     .choices = "auto|webdataset|csv|jsonl|folder",
     .fallback = "auto",
     CLI_AT(eval_values, dataset_type),
     .help = "What the sources are"},
    {.name = "val-caption-key",
     .kind = CLI_STRING,
     .fallback = "captions_test|captions|txt|caption",
     CLI_AT(eval_values, caption_key),
     .value = "KEY",
     .help = "Captions to search with"},
    {.name = "val-novel-key",
     .kind = CLI_STRING,
     .fallback = "test_new",
     CLI_AT(eval_values, novel_key),
     .value = "KEY",
     .help = "JSON list of the languages whose caption has words never trained on"},
    {.name = "min-captions",
     .kind = CLI_INT,
     .fallback = "50",
     .min = 1,
     .max = 1e9,
     CLI_AT(eval_values, min_captions),
     .value = "N",
     .help = "Languages with fewer are left out of the means"},
    {.name = "workers",
     .short_name = 'j',
     .kind = CLI_INT,
     .fallback = "1",
     .min = 0,
     .max = 1024,
     CLI_AT(eval_values, workers),
     .value = "N",
     .help = "Loader threads"},
};

static void print_recall(tess_buf *out, const char *name, const tess_recall *r, const char *what)
{
    tess_buf_addf(out, "%-28s %8lld %s  R@1 %.4f  R@5 %.4f  R@10 %.4f\n", name, (long long)r->n,
                  what, r->at1, r->at5, r->at10);
}

static void print_text(tess_buf *out, const tess_eval_result *r)
{
    print_recall(out, "text to image, mean", &r->mean, "languages");
    print_recall(out, "  known words", &r->mean_known, "languages");
    print_recall(out, "  new words", &r->mean_novel, "languages");
    print_recall(out, "text to image, all", &r->text_to_image, "captions ");
    print_recall(out, "image to text, all", &r->image_to_text, "pictures ");
    tess_buf_addf(out, "rank of the right picture: mean %.1f, median %.0f of %lld; %.1f s\n\n",
                  r->mean_rank, r->median_rank, (long long)r->n_pictures, r->seconds);
    tess_buf_addf(out, "%-12s %8s %7s %7s %7s %9s %9s\n", "language", "captions", "R@1", "R@5",
                  "R@10", "R@1 known", "R@1 new");
    for (int64_t i = 0; i < r->n_languages; i++) {
        const tess_language_recall *l = &r->languages[i];
        tess_buf_addf(out, "%-12s %8lld %7.3f %7.3f %7.3f %9.3f %9.3f\n", l->language,
                      (long long)l->text_to_image.n, l->text_to_image.at1, l->text_to_image.at5,
                      l->text_to_image.at10, l->known.at1, l->novel.at1);
    }
}

static tess_status print_result(const cli_command *cmd, const tess_eval_result *r)
{
    tess_buf out = {0};
    if (cmd->common.json) {
        tess_json_writer w = {.buf = &out};
        tess_eval_result_write_json(r, &w);
        tess_buf_adds(&out, "\n");
    } else {
        print_text(&out, r);
    }
    tess_status st = cli_print(&out);
    tess_buf_deinit(&out);
    return st;
}

static tess_status run_eval(cli_command *cmd)
{
    const eval_values *v = cmd->values;
    if (!v->model || !v->data) {
        return cli_usage_error(cmd, "eval needs --model and --val-data");
    }
    tess_model *m = NULL;
    tess_eval_result r = {0};
    tess_eval_options o = {.data = v->data,
                           .dataset_type = v->dataset_type,
                           .caption_key = v->caption_key,
                           .novel_key = v->novel_key,
                           .min_captions = v->min_captions,
                           .workers = (int)v->workers};
    tess_compute_threads(0);
    tess_status st = tess_model_open(v->model, TESS_PRECISION_AUTO, &m);
    st = st ? st : tess_eval_retrieval(m, &o, &r);
    st = st ? st : print_result(cmd, &r);
    tess_eval_result_deinit(&r);
    tess_model_free(m);
    return st;
}

const cli_verb cli_verb_eval = {
    .name = "eval",
    .summary = "Measure retrieval, language by language",
    .options = eval_options,
    .n_options = TESS_COUNT(eval_options),
    .values_bytes = sizeof(eval_values),
    .computes = true,
    .about = "Every caption searches all pictures of the data. R@K is the part of captions whose "
             "picture is among the first K; the mean counts every language alike.",
    .examples = "$ tessera eval --model logs/first/model --val-data 'data/emoji-{000..007}.tar'",
    .run = run_eval,
};
