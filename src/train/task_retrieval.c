/* SPDX-License-Identifier: Apache-2.0 */
/* task_retrieval: captions find their pictures and pictures their captions, language by language.
 *
 * Pictures are embedded once; each language's captions search all usable pictures.  A picture finds
 * its text when any of its captions is among the first K. */
#include "train/task.h"

#include "train/eval_pictures.h"
#include "train/ranking.h"
#include "train/source.h"

#include <string.h>

static const int64_t default_k[] = {1, 5, 10};

typedef struct retrieval {
    tess__task *t;
    tess__task_layout layout;
    tess_dataset *data;
    tess_captions captions;
    int64_t n_pictures, max_captions;
    float *pictures; /* (n_pictures,Z), the usable ones */
    bool *ok;        /* by sample */
    int64_t *place;  /* by sample: its row of `pictures`; -1: none */
    /* one language's captions */
    int64_t n;
    int64_t *right, *offsets, *rank, *back;
    int32_t *tokens;
    float *texts;
} retrieval;

static tess_status open_data(retrieval *r)
{
    const tess_task_options *o = r->t->o;
    TESS_TRY(tess__task_layout_find(o, o->split, false, &r->layout));
    tess_dataset_options d = {.type = r->layout.type,
                              .caption_key = r->layout.is_wds ? "txt" : o->caption_key,
                              .text_lines = r->layout.is_wds,
                              .image_root = o->image_root};
    TESS_TRY(tess_dataset_open(r->layout.sources, &d, &r->data));
    TESS_TRY(tess_bad_list_merge(&r->t->out->bad, tess_dataset_bad(r->data)));
    bool crossmodal = r->data->files[0].source == &tess__source_crossmodal;
    r->max_captions = o->max_captions > 0 ? o->max_captions : crossmodal ? 1 : INT64_MAX;
    TESS_TRY(tess_captions_load(r->data, &r->t->hooks, tess_model_context_length(r->t->model),
                                false, &r->captions));
    return tess_bad_list_merge(&r->t->out->bad, &r->captions.bad);
}

/* ---- languages ----------------------------------------------------------------------------- */

/* Does the data name languages at all? */
static bool names_languages(const retrieval *r)
{
    return tess_dataset_n_languages(r->data) > 1 ||
           strcmp(tess_dataset_language(r->data, 0), "und") != 0;
}

static tess_status check_languages(const retrieval *r)
{
    const tess_task_options *o = r->t->o;
    tess_buf list = {0};
    for (int64_t i = 0; i < o->n_languages; i++) {
        if (!names_languages(r) || tess_dataset_find_language(r->data, o->languages[i]) >= 0) {
            continue;
        }
        for (int64_t l = 0; l < tess_dataset_n_languages(r->data); l++) {
            tess_buf_addf(&list, "%s%s", l > 0 ? " " : "", tess_dataset_language(r->data, l));
        }
        tess_status st = TESS_FAIL(TESS_INVALID, "%s has no language \"%s\"; it has: %.1000s",
                                   o->data, o->languages[i], list.data);
        tess_buf_deinit(&list);
        return st;
    }
    return TESS_OK;
}

static bool is_wanted(const retrieval *r, int64_t language)
{
    const tess_task_options *o = r->t->o;
    bool wanted = o->n_languages == 0 || !names_languages(r);
    for (int64_t i = 0; i < o->n_languages && !wanted; i++) {
        wanted = strcmp(o->languages[i], tess_dataset_language(r->data, language)) == 0;
    }
    return wanted;
}

/* ---- pictures ------------------------------------------------------------------------------ */

static tess_status embed_pictures(retrieval *r)
{
    const tess_task_options *o = r->t->o;
    int64_t n = tess_dataset_size(r->data), dim = r->t->dim;
    r->pictures = tess_alloc_array((size_t)n, (size_t)dim * sizeof *r->pictures);
    r->ok = tess_alloc_array((size_t)n, sizeof *r->ok);
    r->place = tess_alloc_array((size_t)n, sizeof *r->place);
    if (!r->pictures || !r->ok || !r->place) {
        return TESS_NOMEM;
    }
    TESS_TRY(tess__eval_pictures(r->t->model, r->data, &r->t->hooks, o->workers, o->on_progress,
                                 o->ctx, r->pictures, r->ok, &r->t->out->bad));
    for (int64_t i = 0; i < n; i++) {
        r->place[i] = r->ok[i] ? r->n_pictures : -1;
        if (r->ok[i]) {
            memmove(r->pictures + r->n_pictures * dim, r->pictures + i * dim,
                    (size_t)dim * sizeof *r->pictures);
            r->n_pictures++;
        }
    }
    return TESS_OK;
}

/* ---- one language -------------------------------------------------------------------------- */

static tess_status allocate(retrieval *r)
{
    size_t n = (size_t)r->captions.n_captions, dim = (size_t)r->t->dim;
    r->right = tess_alloc_array(n, sizeof *r->right);
    r->offsets = tess_alloc_array(n + 1, sizeof *r->offsets);
    r->rank = tess_alloc_array(n, sizeof *r->rank);
    r->back = tess_alloc_array((size_t)r->n_pictures, sizeof *r->back);
    r->tokens = tess_alloc_array((size_t)r->captions.n_tokens, sizeof *r->tokens);
    r->texts = tess_alloc_array(n, dim * sizeof *r->texts);
    bool all = r->right && r->offsets && r->rank && r->back && r->tokens && r->texts;
    return all ? TESS_OK : TESS_NOMEM;
}

/* The first max_captions of each usable picture, with their tokens end to end. */
static void gather(retrieval *r, int64_t language)
{
    const tess_captions *c = &r->captions;
    int64_t sample = -1, of_sample = 0;
    r->n = r->offsets[0] = 0;
    for (int64_t i = 0; i < c->n_captions; i++) {
        if (c->languages[i] != language || r->place[c->samples[i]] < 0) {
            continue;
        }
        of_sample = c->samples[i] == sample ? of_sample + 1 : 1;
        sample = c->samples[i];
        if (of_sample > r->max_captions) {
            continue;
        }
        int64_t n = c->offsets[i + 1] - c->offsets[i];
        memcpy(r->tokens + r->offsets[r->n], c->tokens + c->offsets[i],
               (size_t)n * sizeof *r->tokens);
        r->right[r->n] = r->place[sample];
        r->offsets[r->n + 1] = r->offsets[r->n] + n;
        r->n++;
    }
}

static tess_status add_row(retrieval *r, const char *language)
{
    const tess_task_options *o = r->t->o;
    tess_task_row *row;
    int64_t n_k = o->n_recall_k > 0 ? o->n_recall_k : TESS_COUNT(default_k);
    const int64_t *ks = o->n_recall_k > 0 ? o->recall_k : default_k;
    tess_arena *a = &r->t->out->arena;
    TESS_TRY(tess__task_add_row(r->t, language, 2 * n_k, &row));
    for (int64_t i = 0; i < n_k; i++) {
        const char *image = tess_arena_format(a, "image_retrieval_recall@%lld", (long long)ks[i]);
        const char *text = tess_arena_format(a, "text_retrieval_recall@%lld", (long long)ks[i]);
        if (!image || !text) {
            return TESS_NOMEM;
        }
        tess__row_add(row, image, tess__recall_at(r->rank, r->n, ks[i]));
        tess__row_add(row, text, tess__recall_at(r->back, r->n_pictures, ks[i]));
    }
    row->n_pictures = r->n_pictures;
    row->n_texts = r->n;
    return TESS_OK;
}

static tess_status run_language(retrieval *r, int64_t language)
{
    gather(r, language);
    if (r->n == 0) {
        return TESS_OK; /* every caption's picture was left out, which is counted */
    }
    TESS_TRY(tess_model_embed_tokens(r->t->model, r->tokens, r->offsets, r->n, r->texts));
    tess__pairs p = {.questions = r->texts,
                     .answers = r->pictures,
                     .right = r->right,
                     .n_questions = r->n,
                     .n_answers = r->n_pictures,
                     .dim = r->t->dim};
    TESS_TRY(tess__rank_pairs(&p, r->rank, r->back));
    return add_row(r, names_languages(r) ? tess_dataset_language(r->data, language)
                                         : tess__task_language(r->t));
}

static tess_status run(retrieval *r)
{
    TESS_TRY(open_data(r));
    TESS_TRY(check_languages(r));
    TESS_TRY(embed_pictures(r));
    TESS_TRY(allocate(r));
    for (int64_t l = 0; l < tess_dataset_n_languages(r->data); l++) {
        if (is_wanted(r, l)) {
            TESS_TRY(run_language(r, l));
        }
    }
    if (r->t->out->n_rows > 0) {
        return TESS_OK;
    }
    tess_buf list = {0};
    tess_bad_list_write(&r->t->out->bad, &list);
    tess_status st = TESS_FAIL(TESS_FORMAT, "%s: no usable picture with a caption; left out: %s",
                               r->t->o->data, list.data ? list.data : "nothing");
    tess_buf_deinit(&list);
    return st;
}

tess_status tess__task_retrieval(tess__task *t)
{
    retrieval r = {.t = t};
    tess_status st = run(&r);
    void *const arrays[] = {r.pictures, r.ok,   r.place,  r.right, r.offsets,
                            r.rank,     r.back, r.tokens, r.texts};
    for (int64_t i = 0; i < TESS_COUNT(arrays); i++) {
        tess_free(arrays[i]);
    }
    tess_captions_deinit(&r.captions);
    tess_dataset_close(r.data);
    tess__task_layout_deinit(&r.layout);
    return st;
}
