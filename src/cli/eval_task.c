/* SPDX-License-Identifier: Apache-2.0 */
/* The rows of an evaluation task: as a table, as JSON lines, and as files that CLIP_benchmark's
 * build command reads (one row each). */
#include "cli/eval_task.h"

#include "cli/progress.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define RECALL_K_MAX 64

/* What the row says beside its figures. */
typedef struct names {
    char *dataset, *model, *pretrained;
} names;

/* ---- names --------------------------------------------------------------------------------- */

/* The last part of a path; of .../NAME/model, what a run writes, it is NAME. */
static char *last_part(const char *path, bool pass_model)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    size_t begin = n;
    while (begin > 0 && path[begin - 1] != '/') {
        begin--;
    }
    if (pass_model && begin > 1 && n - begin == 5 && memcmp(path + begin, "model", 5) == 0) {
        char *above = tess_strndup(path, begin - 1);
        char *name = above ? last_part(above, false) : NULL;
        tess_free(above);
        return name;
    }
    return tess_strndup(path + begin, n - begin);
}

static tess_status find_names(const eval_values *v, tess_model *m, names *out)
{
    char fingerprint[33];
    TESS_TRY(tess_model_fingerprint(m, fingerprint));
    out->dataset = v->dataset_name ? tess_strdup(v->dataset_name) : last_part(v->data, false);
    out->model = v->model_name ? tess_strdup(v->model_name) : last_part(v->embedder.model, true);
    out->pretrained = tess_strdup(v->pretrained ? v->pretrained : fingerprint);
    return out->dataset && out->model && out->pretrained ? TESS_OK : TESS_NOMEM;
}

/* ---- printing ------------------------------------------------------------------------------ */

static void add_text(tess_buf *out, const tess_task_result *r, const names *n)
{
    tess_buf_addf(out, "%s on %s, %.1f s\n", r->task, n->dataset, r->seconds);
    for (int64_t i = 0; i < r->n_rows; i++) {
        const tess_task_row *row = &r->rows[i];
        tess_buf_addf(out, "\n%s: %lld pictures, %lld %s\n", row->language,
                      (long long)row->n_pictures, (long long)row->n_texts,
                      strcmp(r->task, "zeroshot_retrieval") == 0 ? "captions" : "classes");
        for (int64_t k = 0; k < row->n_metrics; k++) {
            double x = row->metrics[k].value;
            if (isnan(x)) {
                tess_buf_addf(out, "  %-28s -\n", row->metrics[k].name);
            } else {
                tess_buf_addf(out, "  %-28s %.4g\n", row->metrics[k].name, x);
            }
        }
    }
}

static tess_status print_rows(const cli_command *cmd, const tess_task_result *r, const names *n)
{
    tess_buf out = {0};
    for (int64_t i = 0; cmd->common.json && i < r->n_rows; i++) {
        tess_json_writer w = {.buf = &out};
        tess_task_write_row(r, i, n->dataset, n->model, n->pretrained, &w);
        tess_buf_adds(&out, "\n");
    }
    if (!cmd->common.json) {
        add_text(&out, r, n);
    }
    tess_status st = cli_print(&out);
    tess_buf_deinit(&out);
    return st;
}

static void report_left_out(const tess_task_result *r)
{
    tess_buf list = {0};
    tess_bad_list_write(&r->bad, &list);
    if (list.n_bytes > 0) {
        tess_log(TESS_LOG_WARN, "left out: %s", list.data);
    }
    tess_buf_deinit(&list);
}

/* ---- files --------------------------------------------------------------------------------- */

static void add_name(tess_buf *out, const char *name)
{
    for (const char *p = name; *p; p++) {
        tess_buf_add(out, *p == '/' ? "_" : p, 1);
    }
}

/* The template with its fields replaced; a slash within a field becomes an underscore. */
static tess_status write_path(const char *template, const tess_task_result *r, int64_t i,
                              const names *n, tess_buf *out)
{
    const struct {
        const char *field, *value;
    } fields[] = {{"{dataset}", n->dataset},
                  {"{model}", n->model},
                  {"{pretrained}", n->pretrained},
                  {"{task}", r->task},
                  {"{language}", r->rows[i].language}};
    tess_buf_clear(out);
    while (*template) {
        int64_t k = 0;
        while (k < TESS_COUNT(fields) &&
               strncmp(template, fields[k].field, strlen(fields[k].field)) != 0) {
            k++;
        }
        if (k < TESS_COUNT(fields)) {
            add_name(out, fields[k].value);
            template += strlen(fields[k].field);
        } else {
            tess_buf_add(out, template ++, 1);
        }
    }
    return tess_buf_check(out);
}

static tess_status write_files(const char *template, const tess_task_result *r, const names *n)
{
    tess_buf path = {0}, row = {0};
    tess_status st = TESS_OK;
    if (r->n_rows > 1 && !strstr(template, "{language}")) {
        return TESS_FAIL(TESS_INVALID,
                         "--output %s is one file for %lld rows: put {language} into its name",
                         template, (long long)r->n_rows);
    }
    for (int64_t i = 0; i < r->n_rows && st == TESS_OK; i++) {
        tess_json_writer w = {.buf = &row};
        tess_buf_clear(&row);
        tess_task_write_row(r, i, n->dataset, n->model, n->pretrained, &w);
        tess_buf_adds(&row, "\n");
        st = write_path(template, r, i, n, &path);
        st = st ? st : tess_buf_check(&row);
        st = st ? st : tess_file_write(path.data, row.data, row.n_bytes);
    }
    tess_buf_deinit(&path);
    tess_buf_deinit(&row);
    return st;
}

/* ---- the task ------------------------------------------------------------------------------ */

static tess_status parse_ks(cli_command *cmd, const char *text, int64_t *out, int64_t *out_n)
{
    *out_n = 0;
    for (const char *p = text;; p++) {
        char *end;
        long long k = strtoll(p, &end, 10);
        if (end == p || k < 1 || *out_n == RECALL_K_MAX || (*end && *end != ',')) {
            return cli_usage_error(cmd,
                                   "--recall-k: expected numbers from 1 with commas, as in "
                                   "1,5,10; found \"%s\"",
                                   text);
        }
        out[(*out_n)++] = k;
        if (!*end) {
            return TESS_OK;
        }
        p = end;
    }
}

static tess_status run_with(cli_command *cmd, tess_model *m, const tess_task_options *o)
{
    const eval_values *v = cmd->values;
    tess_task_result r = {0};
    names n = {0};
    tess_status st = find_names(v, m, &n);
    st = st ? st : tess_task_run(m, o, &r);
    cli_progress_end(o->ctx);
    if (st == TESS_OK) {
        report_left_out(&r);
    }
    st = st ? st : print_rows(cmd, &r, &n);
    st = st || !v->output ? st : write_files(v->output, &r, &n);
    tess_task_result_deinit(&r);
    tess_free(n.dataset);
    tess_free(n.model);
    tess_free(n.pretrained);
    return st;
}

tess_status cli_eval_task(cli_command *cmd)
{
    const eval_values *v = cmd->values;
    int64_t ks[RECALL_K_MAX];
    cli_progress bar = cli_progress_new(&cmd->common, "embed", "img");
    tess_task_options o = {
        .task = v->task,
        .data = v->data,
        .dataset_type = v->dataset_type,
        .split = v->split,
        .train_split = v->train_split,
        .val_split = v->val_split,
        .val_proportion = v->val_proportion,
        .fewshot_k = v->fewshot_k,
        .weight_decay = v->weight_decay,
        .seed = (uint64_t)v->seed,
        .classes = v->classes,
        .templates = v->templates,
        .caption_key = v->caption_key,
        .image_root = v->image_root,
        .languages = v->languages.items,
        .n_languages = (int64_t)v->languages.n_items,
        .recall_k = ks,
        .max_captions = v->max_captions,
        .workers = (int)v->workers,
        .on_progress = cli_show_corpus,
        .ctx = &bar,
    };
    TESS_TRY(parse_ks(cmd, v->recall_k, ks, &o.n_recall_k));
    tess_model *m = NULL;
    tess_compute_threads(0);
    tess_status st = cli_open_two_towers(&v->embedder, &m);
    st = st ? st : run_with(cmd, m, &o);
    tess_model_free(m);
    return st;
}
