/* SPDX-License-Identifier: Apache-2.0 */
/* Embedding a whole corpus: the loader in its evaluation order, the model, and one visit a picture.
 */
#include "train/eval_pictures.h"

#include <string.h>

typedef struct corpus {
    tess_model *model;
    const tess_corpus_options *o;
    tess_corpus_fn *visit;
    void *ctx;
    tess_corpus_report *report;
    tess_pipeline pipeline;
    tess_hooks hooks;
    tess_dataset *data;
    tess_loader *loader;
    tess_sample sample;
    float *vectors;
} corpus;

#define LEAST_BATCH 128

static tess_status open_corpus(corpus *c)
{
    if (!tess_model_has_image(c->model)) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "the model has a text tower alone: give it texts, with --text or --texts");
    }
    c->pipeline = tess_model_pipeline(c->model);
    c->hooks = tess_pipeline_hooks(&c->pipeline);
    tess_dataset_options d = {.type = c->o->dataset_type,
                              .caption_key = c->o->caption_key,
                              .captions_optional = true,
                              .hooks = &c->hooks};
    TESS_TRY(tess_dataset_open(c->o->data, &d, &c->data));
    int64_t n = tess_dataset_size(c->data), at_once = tess_model_pictures_at_once(c->model);
    at_once = at_once > LEAST_BATCH ? at_once : LEAST_BATCH;
    tess_loader_options l = {.hooks = c->hooks,
                             .batch = n < at_once ? n : at_once,
                             .size = tess_model_image_size(c->model),
                             .raw = tess_model_resizes(c->model),
                             .n_ranks = 1,
                             .workers = c->o->workers,
                             .max_bad_rate = 1,
                             .evaluation = true};
    TESS_TRY(tess_loader_new(c->data, &l, &c->loader));
    c->vectors = tess_alloc_array((size_t)l.batch * (size_t)tess_model_embed_dim(c->model),
                                  sizeof *c->vectors);
    return c->vectors ? TESS_OK : TESS_NOMEM;
}

static tess_status visit_batch(corpus *c, const tess_batch *b)
{
    int64_t dim = tess_model_embed_dim(c->model);
    for (int64_t i = 0; i < b->n_pictures; i++) {
        if (!b->ok[i]) {
            continue; /* counted by the loader */
        }
        TESS_TRY(tess_dataset_read(c->data, b->samples[i], TESS_READ_ALL, &c->sample));
        TESS_TRY(c->visit(c->ctx, c->data, &c->sample, c->vectors + i * dim));
        c->report->n_embedded++;
    }
    return TESS_OK;
}

static tess_status run(corpus *c)
{
    const tess_batch *b = NULL;
    TESS_TRY(open_corpus(c));
    TESS_TRY(tess_loader_read(c->loader, &b));
    while (b) {
        if (tess_cancelled) {
            return TESS_FAIL(TESS_CANCELLED, "stopped after %lld pictures", (long long)b->counter);
        }
        TESS_TRY(tess__embed_batch(c->model, b, c->vectors));
        TESS_TRY(visit_batch(c, b));
        if (c->o->on_progress) {
            c->o->on_progress(c->ctx, b->counter + b->n_pictures, tess_dataset_size(c->data));
        }
        TESS_TRY(tess_loader_read(c->loader, &b));
    }
    TESS_TRY(tess_bad_list_merge(&c->report->bad, tess_dataset_bad(c->data)));
    return tess_bad_list_merge(&c->report->bad, tess_loader_bad(c->loader));
}

tess_status tess_corpus_embed(tess_model *m, const tess_corpus_options *o, tess_corpus_fn *visit,
                              void *ctx, tess_corpus_report *out)
{
    *out = (tess_corpus_report){0};
    corpus c = {.model = m, .o = o, .visit = visit, .ctx = ctx, .report = out};
    tess_status st = run(&c);
    tess_loader_free(c.loader);
    tess_dataset_close(c.data);
    tess_sample_deinit(&c.sample);
    tess_free(c.vectors);
    if (st) {
        tess_corpus_report_deinit(out);
    }
    return st;
}

void tess_corpus_report_deinit(tess_corpus_report *r)
{
    tess_bad_list_deinit(&r->bad);
    *r = (tess_corpus_report){0};
}
