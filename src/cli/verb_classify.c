/* SPDX-License-Identifier: Apache-2.0 */
/* tessera classify: pictures sorted into classes that are only named. */
#include "cli/open_model.h"
#include "cli/verbs.h"

#include <stdlib.h>
#include <string.h>

typedef struct classify_values {
    cli_embedder embedder;
    const char *classes, *templates;
    int64_t k;
} classify_values;

static const cli_option classify_options[] = {
    CLI_EMBEDDER(classify_values),
    CLI_CLASSES(classify_values, "Names of the classes, one on a line", .short_name = 'c'),
    CLI_TEMPLATES(classify_values,
                  "Sentences with {c} where the class goes, one on a line; without, the name alone",
                  .short_name = 't'),
    CLI_DEVICE(classify_values, embedder.device),
    {.name = "top",
     .short_name = 'k',
     .kind = CLI_INT,
     .fallback = "5",
     .min = 1,
     .max = 1e9,
     CLI_AT(classify_values, k),
     .value = "N",
     .help = "How many classes are shown of each picture"},
};

typedef struct guess {
    int64_t class;
    float cosine, probability;
} guess;

typedef struct classification {
    const cli_command *cmd;
    tess_model *model;
    tess_names classes, templates;
    int64_t n, dim;
    float *weights; /* (C,Z) */
    float *vector;  /* (Z) */
    float *scores;  /* (C) */
    guess *guesses; /* (C) */
    tess_buf out;
    tess_json_writer json;
    size_t n_left_out;
} classification;

static tess_status load_classes(classification *c, const char *path)
{
    size_t first, second;
    TESS_TRY(tess_lines_load(path, false, &c->classes));
    TESS_TRY(tess_lines_find_repeated(&c->classes, &first, &second));
    if (second != SIZE_MAX) {
        return TESS_FAIL(TESS_FORMAT, "%s: lines %zu and %zu both say \"%s\": remove one", path,
                         first + 1, second + 1, c->classes.names[second]);
    }
    c->n = (int64_t)c->classes.n_names;
    return TESS_OK;
}

static tess_status prepare(classification *c, const classify_values *v)
{
    TESS_TRY(load_classes(c, v->classes));
    if (v->templates) {
        TESS_TRY(tess_lines_load(v->templates, false, &c->templates));
        TESS_TRY(tess_templates_check(&c->templates, v->templates));
    }
    TESS_TRY(cli_open_two_towers(&v->embedder, &c->model));
    c->dim = tess_model_embed_dim(c->model);
    c->weights = tess_alloc_array((size_t)c->n * (size_t)c->dim, sizeof *c->weights);
    c->vector = tess_alloc_array((size_t)c->dim, sizeof *c->vector);
    c->scores = tess_alloc_array((size_t)c->n, sizeof *c->scores);
    c->guesses = tess_alloc_array((size_t)c->n, sizeof *c->guesses);
    if (!c->weights || !c->vector || !c->scores || !c->guesses) {
        return TESS_NOMEM;
    }
    return tess_model_classifier(c->model, (const char *const *)c->classes.names, c->n,
                                 (const char *const *)c->templates.names,
                                 (int64_t)c->templates.n_names, c->weights);
}

static int by_score(const void *a, const void *b)
{
    const guess *x = a, *y = b;
    return x->cosine > y->cosine ? -1 : x->cosine < y->cosine ? 1 : (x->class > y->class) * 2 - 1;
}

static tess_status guess_classes(classification *c, const char *path)
{
    TESS_TRY(cli_embed_file(c->model, path, c->vector));
    for (int64_t i = 0; i < c->n; i++) {
        double sum = 0;
        for (int64_t k = 0; k < c->dim; k++) {
            sum += (double)c->vector[k] * (double)c->weights[i * c->dim + k];
        }
        c->guesses[i] = (guess){.class = i, .cosine = (float)sum};
        c->scores[i] = (float)sum;
    }
    tess_model_probabilities(c->model, c->n, c->scores);
    for (int64_t i = 0; i < c->n; i++) {
        c->guesses[i].probability = c->scores[i];
    }
    qsort(c->guesses, (size_t)c->n, sizeof *c->guesses, by_score);
    return TESS_OK;
}

static void add_json(classification *c, const char *path, int64_t k)
{
    tess_json_writer *w = &c->json;
    tess_json_begin_object(w);
    tess_json_key(w, "path");
    tess_json_add_string(w, path);
    tess_json_key(w, "classes");
    tess_json_begin_array(w);
    for (int64_t i = 0; i < k; i++) {
        tess_json_begin_object(w);
        tess_json_key(w, "class");
        tess_json_add_string(w, c->classes.names[c->guesses[i].class]);
        tess_json_key(w, "index");
        tess_json_add_int(w, c->guesses[i].class);
        tess_json_key(w, "probability");
        tess_json_add_real(w, (double)c->guesses[i].probability);
        tess_json_key(w, "score");
        tess_json_add_real(w, (double)c->guesses[i].cosine);
        tess_json_end_object(w);
    }
    tess_json_end_array(w);
    tess_json_end_object(w);
}

static void add_text(classification *c, const char *path, int64_t k)
{
    tess_buf_addf(&c->out, "%s\n", path);
    for (int64_t i = 0; i < k; i++) {
        tess_buf_addf(&c->out, "  %6.4f  %s\n", (double)c->guesses[i].probability,
                      c->classes.names[c->guesses[i].class]);
    }
}

/* A picture that cannot be read is named and left out; the others are still answered. */
static tess_status classify_one(classification *c, const char *path, int64_t k)
{
    tess_status st = guess_classes(c, path);
    if (st == TESS_FORMAT || st == TESS_IO || st == TESS_UNSUPPORTED) {
        tess_log(TESS_LOG_ERROR, "left out: %s", tess_error());
        c->n_left_out++;
        return TESS_OK;
    }
    TESS_TRY(st);
    if (c->cmd->common.json) {
        add_json(c, path, k);
    } else {
        add_text(c, path, k);
    }
    return TESS_OK;
}

static tess_status classify_all(classification *c, int64_t k)
{
    const cli_command *cmd = c->cmd;
    k = k < c->n ? k : c->n;
    if (cmd->common.json) {
        c->json = (tess_json_writer){.buf = &c->out};
        tess_json_begin_array(&c->json);
    }
    for (size_t i = 0; i < cmd->n_args; i++) {
        TESS_TRY(classify_one(c, cmd->args[i], k));
        if (tess_cancelled) {
            return TESS_FAIL(TESS_CANCELLED, "stopped after %zu pictures", i + 1);
        }
    }
    if (cmd->common.json) {
        tess_json_end_array(&c->json);
        tess_buf_adds(&c->out, "\n");
    }
    TESS_TRY(cli_print(&c->out));
    return c->n_left_out == 0 ? TESS_OK
                              : TESS_FAIL(TESS_FORMAT, "%zu of %zu pictures were left out",
                                          c->n_left_out, cmd->n_args);
}

static tess_status run_classify(cli_command *cmd)
{
    const classify_values *v = cmd->values;
    classification c = {.cmd = cmd};
    if (!v->embedder.model || !v->classes) {
        return cli_usage_error(cmd, "classify needs --model and --classes");
    }
    tess_compute_threads(0);
    tess_status st = prepare(&c, v);
    st = st ? st : classify_all(&c, v->k);
    tess_names_deinit(&c.classes);
    tess_names_deinit(&c.templates);
    tess_free(c.weights);
    tess_free(c.vector);
    tess_free(c.scores);
    tess_free(c.guesses);
    tess_buf_deinit(&c.out);
    tess_model_free(c.model);
    return st;
}

const cli_verb cli_verb_classify = {
    .name = "classify",
    .summary = "Sort pictures into classes that are only named",
    .options = classify_options,
    .n_options = TESS_COUNT(classify_options),
    .values_bytes = sizeof(classify_values),
    .positional = "PICTURE...",
    .min_args = 1,
    .max_args = -1,
    .args_are_files = true,
    .computes = true,
    .about = "A class is the mean of its prompts' vectors: every template with the class's name in "
             "it. Probabilities are the model's own: over all classes together (softmax), or of "
             "each class apart where the model was trained with the sigmoid objective.",
    .examples =
        "$ tessera classify --model logs/first/model --classes animals.txt cat.jpg dog.png\n"
        "$ tessera classify -m MODEL -c animals.txt -t templates.txt --json *.jpg",
    .run = run_classify,
};
