/* SPDX-License-Identifier: Apache-2.0 */
/* task: CLIP_benchmark's evaluation tasks, from the options to its rows. */
#include "train/task.h"

#include "train/ranking.h"

#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    tess_status (*run)(tess__task *t);
} tasks[] = {
    {"zeroshot_classification", tess__task_classification},
    {"zeroshot_retrieval", tess__task_retrieval},
    {"linear_probe", tess__task_probe},
};

/* ---- rows ---------------------------------------------------------------------------------- */

const char *tess__task_language(const tess__task *t)
{
    return t->o->n_languages > 0 ? t->o->languages[0] : "en";
}

tess_status tess__task_add_row(tess__task *t, const char *language, int64_t n, tess_task_row **out)
{
    tess_task_result *r = t->out;
    size_t n_rows = (size_t)r->n_rows + 1;
    tess_task_row *rows = tess_arena_alloc(&r->arena, n_rows * sizeof *rows);
    tess_scalar *metrics = tess_arena_alloc(&r->arena, (size_t)n * sizeof *metrics);
    char *name = tess_arena_strndup(&r->arena, language, strlen(language));
    if (!rows || !metrics || !name) {
        return TESS_NOMEM;
    }
    if (r->n_rows > 0) {
        memcpy(rows, r->rows, (n_rows - 1) * sizeof *rows);
    }
    r->rows = rows;
    *out = &rows[r->n_rows++];
    **out = (tess_task_row){.language = name, .metrics = metrics};
    return TESS_OK;
}

void tess__row_add(tess_task_row *row, const char *name, double value)
{
    row->metrics[row->n_metrics++] = (tess_scalar){name, value};
}

/* ---- zero-shot classification -------------------------------------------------------------- */

static tess_status load_templates(const tess__task *t, tess_names *out)
{
    char *path = NULL;
    TESS_TRY(tess__task_layout_beside(t->o, t->o->templates,
                                      "zeroshot_classification_templates.txt", &path));
    tess_status st = path ? tess_lines_load(path, false, out) : TESS_OK;
    st = st || !path ? st : tess_templates_check(out, path);
    tess_free(path);
    return st;
}

static tess_status make_classifier(tess__task *t, const tess_names *templates, float **out)
{
    *out = tess_alloc_array((size_t)t->n_classes, (size_t)t->dim * sizeof **out);
    return *out ? tess_model_classifier(t->model, (const char *const *)t->classes.names,
                                        t->n_classes, (const char *const *)templates->names,
                                        (int64_t)templates->n_names, *out)
                : TESS_NOMEM;
}

/* The three figures of classification under their names. */
static tess_status add_accuracies(tess_task_row *row, const char *const names[3],
                                  const tess__features *f, const int64_t *ranks, int64_t n_classes)
{
    double per_class;
    TESS_TRY(tess__mean_class_recall(ranks, f->labels, f->n, n_classes, &per_class));
    tess__row_add(row, names[0], tess__recall_at(ranks, f->n, 1));
    tess__row_add(row, names[1], n_classes >= 5 ? tess__recall_at(ranks, f->n, 5) : NAN);
    tess__row_add(row, names[2], per_class);
    row->n_pictures = f->n;
    row->n_texts = n_classes;
    return TESS_OK;
}

static tess_status classify(tess__task *t, const tess__features *f, const float *classifier)
{
    static const char *const names[] = {"acc1", "acc5", "mean_per_class_recall"};
    tess__pairs p = {.questions = f->x,
                     .answers = classifier,
                     .right = f->labels,
                     .n_questions = f->n,
                     .n_answers = t->n_classes,
                     .dim = t->dim};
    tess_task_row *row;
    int64_t *ranks = tess_alloc_array((size_t)f->n, sizeof *ranks);
    tess_status st = ranks ? tess__rank_pairs(&p, ranks, NULL) : TESS_NOMEM;
    st = st ? st : tess__task_add_row(t, tess__task_language(t), 3, &row);
    st = st ? st : add_accuracies(row, names, f, ranks, t->n_classes);
    tess_free(ranks);
    return st;
}

tess_status tess__task_classification(tess__task *t)
{
    tess__split s = {0};
    tess_names templates = {0};
    float *classifier = NULL;
    tess_status st = tess__split_open(t, t->o->split, &s);
    if (st == TESS_OK && t->n_classes == 0) {
        st = TESS_FAIL(TESS_INVALID, "%s: no classnames.txt: give the names with --classes FILE",
                       t->o->data);
    }
    st = st ? st : load_templates(t, &templates);
    st = st ? st : make_classifier(t, &templates, &classifier);
    st = st ? st : tess__split_embed(t, &s, false);
    st = st ? st : classify(t, &s.features, classifier);
    tess_free(classifier);
    tess_names_deinit(&templates);
    tess__split_deinit(&s);
    return st;
}

/* ---- linear probe -------------------------------------------------------------------------- */

/* Rows `picked` of f, in that order. */
static tess_status pick(const tess__features *f, int64_t wide, const int64_t *picked, int64_t n,
                        tess__features *out)
{
    out->x = tess_alloc_array((size_t)n, (size_t)wide * sizeof *out->x);
    out->labels = tess_alloc_array((size_t)n, sizeof *out->labels);
    out->n = n;
    if (!out->x || !out->labels) {
        return TESS_NOMEM;
    }
    for (int64_t i = 0; i < n; i++) {
        memcpy(out->x + i * wide, f->x + picked[i] * wide, (size_t)wide * sizeof *out->x);
        out->labels[i] = f->labels[picked[i]];
    }
    return TESS_OK;
}

static void features_deinit(tess__features *f)
{
    tess_free(f->x);
    tess_free(f->labels);
    *f = (tess__features){0};
}

static tess_status join(const tess__features *a, const tess__features *b, int64_t wide,
                        tess__features *out)
{
    size_t n = (size_t)(a->n + b->n);
    out->x = tess_alloc_array(n, (size_t)wide * sizeof *out->x);
    out->labels = tess_alloc_array(n, sizeof *out->labels);
    out->n = (int64_t)n;
    if (!out->x || !out->labels) {
        return TESS_NOMEM;
    }
    memcpy(out->x, a->x, (size_t)(a->n * wide) * sizeof *out->x);
    memcpy(out->x + a->n * wide, b->x, (size_t)(b->n * wide) * sizeof *out->x);
    memcpy(out->labels, a->labels, (size_t)a->n * sizeof *out->labels);
    memcpy(out->labels + a->n, b->labels, (size_t)b->n * sizeof *out->labels);
    return TESS_OK;
}

typedef struct probing {
    tess__task *t;
    tess__split train, val, test;
    tess__features own_train, own_val; /* what the seed chose of the training split */
    tess__probe probe;
    double weight_decay;
} probing;

static int64_t largest_label(const tess__features *f, int64_t at_least)
{
    for (int64_t i = 0; i < f->n; i++) {
        at_least = f->labels[i] > at_least ? f->labels[i] : at_least;
    }
    return at_least;
}

/* The rows that the seed puts first, up to k of each class; all classes must have as many. */
static tess_status take_few(const probing *p, int64_t *picked, int64_t *n)
{
    const tess__features *f = &p->train.features;
    int64_t k = p->t->o->fewshot_k, kept = 0;
    int64_t *counts = tess_alloc_array((size_t)p->probe.n_classes, sizeof *counts);
    if (!counts) {
        return TESS_NOMEM;
    }
    for (int64_t i = 0; i < *n; i++) {
        if (counts[f->labels[picked[i]]] < k) {
            counts[f->labels[picked[i]]]++;
            picked[kept++] = picked[i];
        }
    }
    *n = kept;
    tess_status st = TESS_OK;
    for (int64_t c = 0; c < p->probe.n_classes && st == TESS_OK; c++) {
        if (counts[c] < k) {
            st = TESS_FAIL(TESS_INVALID,
                           "class %lld has %lld pictures to train with: expected at least "
                           "--fewshot-k %lld",
                           (long long)c, (long long)counts[c], (long long)k);
        }
    }
    tess_free(counts);
    return st;
}

/* Without a validation split of its own, a part of the training split that the seed chooses. */
static tess_status divide(probing *p)
{
    const tess__features *all = &p->train.features;
    int64_t n = all->n, wide = p->probe.dim + 1;
    bool part = !p->t->o->val_split && !(p->t->o->weight_decay > 0);
    int64_t n_val = part ? (int64_t)((double)n * p->t->o->val_proportion) : 0, n_train = n - n_val;
    if (part && (n_val == 0 || n_train == 0)) {
        return TESS_FAIL(TESS_INVALID,
                         "%lld training pictures are too few to keep %g of them for validation: "
                         "give --val-split, --val-proportion or --weight-decay",
                         (long long)n, p->t->o->val_proportion);
    }
    int64_t *order = tess_alloc_array((size_t)n, sizeof *order);
    for (int64_t i = 0; order && i < n; i++) {
        order[i] = (int64_t)tess_permute(p->t->o->seed, (uint64_t)n, (uint64_t)i);
    }
    tess_status st = order ? pick(all, wide, order + n_train, n_val, &p->own_val) : TESS_NOMEM;
    if (st == TESS_OK && p->t->o->fewshot_k > 0) {
        st = take_few(p, order, &n_train);
    }
    st = st ? st : pick(all, wide, order, n_train, &p->own_train);
    tess_free(order);
    return st;
}

/* As CLIP_benchmark: what the search validated with is trained on too in the end, unless only a
 * few pictures of each class are wanted. */
static tess_status train(probing *p)
{
    const tess_task_options *o = p->t->o;
    const tess__features *val = o->val_split ? &p->val.features : &p->own_val;
    tess__features both = {0};
    p->weight_decay = o->weight_decay;
    if (!(o->weight_decay > 0)) {
        TESS_TRY(tess__probe_search(&p->probe, &p->own_train, val, &p->weight_decay));
    }
    if (o->fewshot_k > 0 || val->n == 0) {
        return tess__probe_fit(&p->probe, &p->own_train, p->weight_decay);
    }
    tess_status st = join(&p->own_train, val, p->probe.dim + 1, &both);
    st = st ? st : tess__probe_fit(&p->probe, &both, p->weight_decay);
    features_deinit(&both);
    return st;
}

static tess_status score(probing *p)
{
    static const char *const names[] = {"lp_acc1", "lp_acc5", "lp_mean_per_class_recall"};
    const tess__features *f = &p->test.features;
    tess__task *t = p->t;
    tess_task_row *row;
    int64_t *ranks = tess_alloc_array((size_t)f->n, sizeof *ranks);
    tess_status st = ranks ? tess__probe_rank(&p->probe, f, ranks) : TESS_NOMEM;
    st = st ? st : tess__task_add_row(t, tess__task_language(t), 6, &row);
    st = st ? st : add_accuracies(row, names, f, ranks, p->probe.n_classes);
    tess_free(ranks);
    TESS_TRY(st);
    tess__row_add(row, "weight_decay", p->weight_decay);
    tess__row_add(row, "seed", (double)t->o->seed);
    tess__row_add(row, "fewshot_k", t->o->fewshot_k > 0 ? (double)t->o->fewshot_k : -1);
    return TESS_OK;
}

static tess_status open_splits(probing *p)
{
    const tess_task_options *o = p->t->o;
    TESS_TRY(tess__split_open(p->t, o->train_split, &p->train));
    TESS_TRY(tess__split_open(p->t, o->split, &p->test));
    if (strcmp(p->train.layout.sources, p->test.layout.sources) == 0) {
        return TESS_FAIL(TESS_INVALID,
                         "%s: the split %s is both trained on and measured with: expected a "
                         "directory for each",
                         o->data, o->train_split);
    }
    if (o->val_split) {
        TESS_TRY(tess__split_open(p->t, o->val_split, &p->val));
        TESS_TRY(tess__split_embed(p->t, &p->val, true));
    }
    TESS_TRY(tess__split_embed(p->t, &p->train, true));
    TESS_TRY(tess__split_embed(p->t, &p->test, true));
    int64_t most = largest_label(&p->train.features, largest_label(&p->val.features, -1));
    p->probe.dim = p->t->dim;
    p->probe.n_classes =
        p->t->n_classes > 0 ? p->t->n_classes : largest_label(&p->test.features, most) + 1;
    return TESS_OK;
}

tess_status tess__task_probe(tess__task *t)
{
    probing p = {.t = t};
    tess_status st = open_splits(&p);
    st = st ? st : divide(&p);
    st = st ? st : train(&p);
    st = st ? st : score(&p);
    tess__split_deinit(&p.train);
    tess__split_deinit(&p.val);
    tess__split_deinit(&p.test);
    features_deinit(&p.own_train);
    features_deinit(&p.own_val);
    tess__probe_deinit(&p.probe);
    return st;
}

/* ---- the task ------------------------------------------------------------------------------ */

static tess_status run_task(tess__task *t)
{
    for (int64_t i = 0; i < TESS_COUNT(tasks); i++) {
        if (strcmp(tasks[i].name, t->o->task) == 0) {
            t->out->task = tasks[i].name;
            return tasks[i].run(t);
        }
    }
    return TESS_FAIL(TESS_INVALID,
                     "task '%s' is not one of zeroshot_classification, zeroshot_retrieval, "
                     "linear_probe",
                     t->o->task);
}

tess_status tess_task_run(tess_model *m, const tess_task_options *o, tess_task_result *out)
{
    double start = tess_seconds();
    tess_task_options filled = *o;
    filled.train_split = o->train_split ? o->train_split : "train";
    filled.val_proportion = o->val_proportion > 0 ? o->val_proportion : 0.2;
    tess__task t = {.model = m, .o = &filled, .out = out, .dim = tess_model_embed_dim(m)};
    *out = (tess_task_result){0};
    t.pipeline = tess_model_pipeline(m);
    t.hooks = tess_pipeline_hooks(&t.pipeline);
    tess_status st = run_task(&t);
    out->seconds = tess_seconds() - start;
    tess_names_deinit(&t.classes);
    tess_names_deinit(&t.folders);
    if (st) {
        tess_task_result_deinit(out);
    }
    return st;
}

void tess_task_result_deinit(tess_task_result *r)
{
    tess_bad_list_deinit(&r->bad);
    tess_arena_deinit(&r->arena);
    *r = (tess_task_result){0};
}

void tess_task_write_row(const tess_task_result *r, int64_t i, const char *dataset,
                         const char *model, const char *pretrained, tess_json_writer *w)
{
    const tess_task_row *row = &r->rows[i];
    tess_json_begin_object(w);
    tess_json_key(w, "dataset");
    tess_json_add_string(w, dataset);
    tess_json_key(w, "model");
    tess_json_add_string(w, model);
    tess_json_key(w, "pretrained");
    tess_json_add_string(w, pretrained);
    tess_json_key(w, "task");
    tess_json_add_string(w, r->task);
    tess_json_key(w, "metrics");
    tess_json_begin_object(w);
    for (int64_t k = 0; k < row->n_metrics; k++) {
        tess_json_key(w, row->metrics[k].name);
        tess_json_add_real(w, row->metrics[k].value);
    }
    tess_json_end_object(w);
    tess_json_key(w, "language");
    tess_json_add_string(w, row->language);
    tess_json_end_object(w);
}
