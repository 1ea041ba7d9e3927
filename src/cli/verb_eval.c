/* SPDX-License-Identifier: Apache-2.0 */
/* tessera eval: retrieval of a data set's pictures by its captions, per language, and the tasks of
 * CLIP_benchmark. */
#include "cli/eval_task.h"

#include <string.h>

#define TASKS "Tasks"

static const cli_option eval_options[] = {
    CLI_EMBEDDER(eval_values),
    {.name = "val-data",
     .kind = CLI_PATH,
     CLI_AT(eval_values, data),
     .value = "SOURCES",
     .help = "What to evaluate on: sources as --train-data of tessera train takes, or a directory "
             "in CLIP_benchmark's layout, with a folder for each class, XTD10 or Crossmodal-3600"},
    {.name = "task",
     .kind = CLI_CHOICE,
     .choices = "languages|zeroshot_classification|zeroshot_retrieval|linear_probe",
     .fallback = "languages",
     CLI_AT(eval_values, task),
     .help = "languages: a report by language; the others: CLIP_benchmark's tasks and rows"},
    CLI_DATASET_TYPE(eval_values),
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
    CLI_WORKERS(eval_values, "Loader threads"),
    CLI_DEVICE(eval_values, embedder.device),
    {.name = "split",
     .kind = CLI_STRING,
     CLI_AT(eval_values, split),
     .value = "NAME",
     .help = "Folder of the pictures to measure with; test, or the data's own, without",
     .group = TASKS},
    {.name = "language",
     .kind = CLI_LIST,
     CLI_AT(eval_values, languages),
     .value = "TAG",
     .help = "Languages to measure, all without; where the data names none, what its row says (en)",
     .group = TASKS},
    {.name = "recall-k",
     .kind = CLI_STRING,
     .fallback = "1,5,10",
     CLI_AT(eval_values, recall_k),
     .value = "K,...",
     .help = "Retrieval: the K of recall@K",
     .group = TASKS},
    {.name = "max-captions",
     .kind = CLI_INT,
     .fallback = "0",
     .min = 0,
     .max = 1e9,
     CLI_AT(eval_values, max_captions),
     .value = "N",
     .help = "Retrieval: the first N captions of a picture in a language; 0: all, but 1 of "
             "Crossmodal-3600",
     .group = TASKS},
    {.name = "image-root",
     .kind = CLI_PATH,
     CLI_AT(eval_values, image_root),
     .value = "DIR",
     .help = "Where the pictures of XTD10, Crossmodal-3600, a CSV or JSONL file are",
     .group = TASKS},
    CLI_CLASSES(eval_values, "Names of the classes in place of the data's classnames.txt",
                .group = TASKS),
    CLI_TEMPLATES(eval_values,
                  "Prompts with {c}, in place of zeroshot_classification_templates.txt",
                  .group = TASKS),
    {.name = "train-split",
     .kind = CLI_STRING,
     .fallback = "train",
     CLI_AT(eval_values, train_split),
     .value = "NAME",
     .help = "Linear probe: folder of the pictures to train with",
     .group = TASKS},
    {.name = "val-split",
     .kind = CLI_STRING,
     CLI_AT(eval_values, val_split),
     .value = "NAME",
     .help = "Linear probe: folder of those that choose the weight decay",
     .group = TASKS},
    {.name = "val-proportion",
     .kind = CLI_REAL,
     .fallback = "0.2",
     .min = 0.001,
     .max = 0.999,
     CLI_AT(eval_values, val_proportion),
     .value = "P",
     .help = "Linear probe: the part of the training pictures that chooses it, without --val-split",
     .group = TASKS},
    {.name = "weight-decay",
     .kind = CLI_REAL,
     .fallback = "0",
     .min = 0,
     .max = 1e9,
     CLI_AT(eval_values, weight_decay),
     .value = "W",
     .help = "Linear probe: this one; 0: search for it",
     .group = TASKS},
    {.name = "fewshot-k",
     .kind = CLI_INT,
     .fallback = "0",
     .min = 0,
     .max = 1e9,
     CLI_AT(eval_values, fewshot_k),
     .value = "K",
     .help = "Linear probe: train with K pictures of each class; 0: with all",
     .group = TASKS},
    {.name = "seed",
     .kind = CLI_INT,
     .fallback = "0",
     .min = 0,
     .max = 1e15,
     CLI_AT(eval_values, seed),
     .value = "N",
     .help = "Linear probe: which pictures are in that part and those few",
     .group = TASKS},
    {.name = "output",
     .short_name = 'o',
     .kind = CLI_PATH,
     CLI_AT(eval_values, output),
     .value = "FILE",
     .help = "Write each row to a JSON file; {dataset}, {model}, {pretrained}, {task} and "
             "{language} are replaced",
     .group = TASKS},
    {.name = "dataset-name",
     .kind = CLI_STRING,
     CLI_AT(eval_values, dataset_name),
     .value = "NAME",
     .help = "The row's dataset; the data's last folder without",
     .group = TASKS},
    {.name = "model-name",
     .kind = CLI_STRING,
     CLI_AT(eval_values, model_name),
     .value = "NAME",
     .help = "The row's model; the model directory's name without",
     .group = TASKS},
    {.name = "pretrained",
     .kind = CLI_STRING,
     CLI_AT(eval_values, pretrained),
     .value = "NAME",
     .help = "The row's pretrained; the model's fingerprint without",
     .group = TASKS},
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

static tess_status run_languages(cli_command *cmd, tess_model *m)
{
    const eval_values *v = cmd->values;
    tess_eval_result r = {0};
    tess_eval_options o = {.data = v->data,
                           .dataset_type = v->dataset_type,
                           .caption_key = v->caption_key,
                           .novel_key = v->novel_key,
                           .min_captions = v->min_captions,
                           .workers = (int)v->workers};
    tess_status st = tess_eval_retrieval(m, &o, &r);
    st = st ? st : print_result(cmd, &r);
    tess_eval_result_deinit(&r);
    return st;
}

/* An option of the tasks without a task would be passed over in silence. */
static tess_status check_options(cli_command *cmd, bool is_task)
{
    for (int64_t i = 0; i < TESS_COUNT(eval_options) && !is_task; i++) {
        const cli_option *o = &eval_options[i];
        if (o->group && cli_given(cmd, o->name)) {
            return cli_usage_error(cmd, "--%s needs --task", o->name);
        }
    }
    return TESS_OK;
}

static tess_status run_eval(cli_command *cmd)
{
    const eval_values *v = cmd->values;
    bool is_task = strcmp(v->task, "languages") != 0;
    if (!v->embedder.model || !v->data) {
        return cli_usage_error(cmd, "eval needs --model and --val-data");
    }
    TESS_TRY(check_options(cmd, is_task));
    if (is_task) {
        return cli_eval_task(cmd);
    }
    tess_model *m = NULL;
    tess_compute_threads(0);
    tess_status st = cli_open_two_towers(&v->embedder, &m);
    st = st ? st : run_languages(cmd, m);
    tess_model_free(m);
    return st;
}

const cli_verb cli_verb_eval = {
    .name = "eval",
    .summary = "Measure retrieval and classification",
    .options = eval_options,
    .n_options = TESS_COUNT(eval_options),
    .values_bytes = sizeof(eval_values),
    .computes = true,
    .about = "Every caption searches all pictures of the data. R@K is the part of captions whose "
             "picture is among the first K; the mean counts every language alike.\n\n"
             "With --task it is one of CLIP_benchmark's tasks: zero-shot classification by class "
             "names and templates, zero-shot retrieval with a row for each language, or a linear "
             "probe on frozen features. --json and --output give its rows, which its build command "
             "merges with others'.",
    .examples = "$ tessera eval --model logs/first/model --val-data 'data/emoji-{000..007}.tar'\n"
                "$ tessera eval -m MODEL --task zeroshot_classification --val-data wds/cifar10\n"
                "$ tessera eval -m MODEL --task zeroshot_retrieval --val-data xtd10 "
                "-o '{dataset}_{language}.json'\n"
                "$ tessera eval -m MODEL --task linear_probe --val-data imagenet --split val",
    .run = run_eval,
};
