/* SPDX-License-Identifier: Apache-2.0 */
/* Zero-shot classifiers: class names and prompt templates to one unit vector a class.
 *
 * Prompts of several classes are embedded together, 512 at a time, whatever the number of
 * templates; their unit vectors are added up in double precision, in the order of the templates.
 * The classic template is Python's str.format with {c}; here "{c}" is replaced and nothing else
 * is looked at, so a brace elsewhere in a template stands for itself. */
#include "fusion/model.h"

#include <math.h>
#include <string.h>

#define PROMPTS_PER_RUN 512

typedef struct prompts {
    tess_model *model;
    tess_tokenizer_scratch *scratch;
    tess_ids ids; /* of all prompts in hand, end to end */
    int64_t n, offsets[PROMPTS_PER_RUN + 1], classes[PROMPTS_PER_RUN];
    float *vectors; /* (PROMPTS_PER_RUN,Z) */
    double *sums;   /* (C,Z) */
    tess_buf text;
} prompts;

static tess_status flush(prompts *p)
{
    int64_t dim = tess_model_embed_dim(p->model);
    TESS_TRY(tess_model_embed_tokens(p->model, p->ids.ids, p->offsets, p->n, p->vectors));
    for (int64_t i = 0; i < p->n; i++) {
        for (int64_t k = 0; k < dim; k++) {
            p->sums[p->classes[i] * dim + k] += (double)p->vectors[i * dim + k];
        }
    }
    p->n = 0;
    p->ids.n_ids = 0;
    return TESS_OK;
}

static tess_status write_prompt(prompts *p, const char *name, const char *template)
{
    const char *at = template, *hole = strstr(at, "{c}");
    tess_buf_clear(&p->text);
    if (!hole) {
        return TESS_FAIL(TESS_INVALID, "template \"%s\": expected {c} where the class goes",
                         template);
    }
    for (; hole; hole = strstr(at, "{c}")) {
        tess_buf_add(&p->text, at, (size_t)(hole - at));
        tess_buf_adds(&p->text, name);
        at = hole + 3;
    }
    tess_buf_adds(&p->text, at);
    return tess_buf_check(&p->text);
}

static tess_status add_prompt(prompts *p, int64_t class, const char *name, const char *template)
{
    size_t before = p->ids.n_ids;
    TESS_TRY(write_prompt(p, name, template));
    TESS_TRY(tess_model_tokenize(p->model, p->text.data, p->text.n_bytes, p->scratch, &p->ids));
    if (p->ids.n_ids < before + 2) { /* the end id alone */
        return TESS_FAIL(TESS_INVALID, "class \"%s\": the prompt \"%s\" holds no word", name,
                         p->text.data);
    }
    p->classes[p->n++] = class;
    p->offsets[p->n] = (int64_t)p->ids.n_ids;
    return p->n == PROMPTS_PER_RUN ? flush(p) : TESS_OK;
}

static void normalise(const double *sum, int64_t n, float *out)
{
    double square = 0;
    for (int64_t k = 0; k < n; k++) {
        square += sum[k] * sum[k];
    }
    double scale = square > 0 ? 1 / sqrt(square) : 0;
    for (int64_t k = 0; k < n; k++) {
        out[k] = (float)(sum[k] * scale);
    }
}

static tess_status start(prompts *p, tess_model *m, int64_t n_classes)
{
    size_t dim = (size_t)tess_model_embed_dim(m);
    p->model = m;
    p->scratch = tess_tokenizer_scratch_new();
    p->vectors = tess_alloc_array(PROMPTS_PER_RUN * dim, sizeof *p->vectors);
    p->sums = tess_alloc_array((size_t)n_classes * dim, sizeof *p->sums);
    return p->scratch && p->vectors && p->sums ? TESS_OK : TESS_NOMEM;
}

tess_status tess_model_classifier(tess_model *m, const char *const *classes, int64_t n_classes,
                                  const char *const *templates, int64_t n_templates, float *out)
{
    static const char *const name_alone[] = {"{c}"};
    int64_t dim = tess_model_embed_dim(m);
    prompts *p = tess_alloc(sizeof *p);
    tess_status st = p ? start(p, m, n_classes) : TESS_NOMEM;
    if (n_templates == 0) {
        templates = name_alone;
        n_templates = 1;
    }
    for (int64_t c = 0; c < n_classes && st == TESS_OK; c++) {
        for (int64_t t = 0; t < n_templates && st == TESS_OK; t++) {
            st = add_prompt(p, c, classes[c], templates[t]);
        }
        if (tess_cancelled) {
            st = TESS_FAIL(TESS_CANCELLED, "stopped while embedding class names");
        }
    }
    st = st ? st : flush(p);
    for (int64_t c = 0; c < n_classes && st == TESS_OK; c++) {
        normalise(p->sums + c * dim, dim, out + c * dim);
    }
    if (p) {
        tess_tokenizer_scratch_free(p->scratch);
        tess_ids_deinit(&p->ids);
        tess_free(p->vectors);
        tess_free(p->sums);
        tess_buf_deinit(&p->text);
    }
    tess_free(p);
    return st;
}

/* ---- probabilities ------------------------------------------------------------------------- */

static double scalar(const tess_model *m, const char *name, double fallback)
{
    const float *x = tess_store_find(m->store, "param", name, NULL);
    return x ? (double)*x : fallback;
}

static void softmax(int64_t n, double scale, float *x)
{
    double max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        max = fmax(max, scale * (double)x[i]);
    }
    for (int64_t i = 0; i < n; i++) {
        sum += exp(scale * (double)x[i] - max);
    }
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)(exp(scale * (double)x[i] - max) / sum);
    }
}

void tess_model_probabilities(const tess_model *m, int64_t n_classes, float *x)
{
    double scale = exp(scalar(m, "logit_scale", 0));
    bool sigmoid = tess_model_objectives(m).image_text.kind == TESS_OBJECTIVE_SIGMOID ||
                   tess_store_find(m->store, "param", "logit_bias", NULL);
    if (!sigmoid) {
        softmax(n_classes, scale, x);
        return;
    }
    double bias = scalar(m, "logit_bias", 0);
    for (int64_t i = 0; i < n_classes; i++) {
        x[i] = (float)(1 / (1 + exp(-(scale * (double)x[i] + bias))));
    }
}
