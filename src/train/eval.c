/* SPDX-License-Identifier: Apache-2.0 */
/* Retrieval: every caption against every picture.
 *
 * A picture finds its text when any of its captions is among the first K, as the CLIP paper counts
 * it; ranks and ties are ranking.h's. */
#include "train/train.h"

#include "train/eval_pictures.h"
#include "train/ranking.h"

#include <stdlib.h>
#include <string.h>

typedef struct eval {
    tess_model *model;
    const tess_eval_options *o;
    tess_pipeline pipeline;
    tess_hooks hooks;
    tess_dataset *data;
    tess_captions captions;
    int64_t dim, n_pictures, n_captions;
    float *pictures, *texts; /* (n,Z) */
    int64_t *rank;           /* by caption, from 1 */
    bool *novel;             /* by caption */
    int64_t *picture_rank;   /* by picture, of its best caption; 0: it has none */
    bool *ok;                /* by picture: it was decoded */
} eval;

/* ---- embedding ----------------------------------------------------------------------------- */

static tess_status open_data(eval *e, const char *caption_key, tess_dataset **out)
{
    tess_dataset_options d = {.type = e->o->dataset_type,
                              .caption_key = caption_key,
                              .captions_optional = true,
                              .hooks = &e->hooks};
    return tess_dataset_open(e->o->data, &d, out);
}

static tess_status allocate(eval *e)
{
    size_t p = (size_t)e->n_pictures, c = (size_t)e->n_captions, z = (size_t)e->dim;
    e->pictures = tess_alloc_array(p * z, sizeof(float));
    e->texts = tess_alloc_array(c * z, sizeof(float));
    e->rank = tess_alloc_array(c, sizeof *e->rank);
    e->novel = tess_alloc_array(c, sizeof *e->novel);
    e->picture_rank = tess_alloc_array(p, sizeof *e->picture_rank);
    e->ok = tess_alloc_array(p, sizeof *e->ok);
    bool all = e->pictures && e->texts && e->rank && e->novel && e->picture_rank && e->ok;
    return all ? TESS_OK : TESS_NOMEM;
}

static tess_status load(eval *e)
{
    e->pipeline = tess_model_pipeline(e->model);
    e->hooks = tess_pipeline_hooks(&e->pipeline);
    TESS_TRY(open_data(e, e->o->caption_key, &e->data));
    TESS_TRY(tess_captions_load(e->data, &e->hooks, tess_model_context_length(e->model), false,
                                &e->captions));
    e->dim = tess_model_embed_dim(e->model);
    e->n_pictures = tess_dataset_size(e->data);
    e->n_captions = e->captions.n_captions;
    if (e->n_captions == 0) {
        return TESS_FAIL(TESS_INVALID, "%s: no captions under the key \"%s\" to evaluate with",
                         e->o->data, e->o->caption_key ? e->o->caption_key : "(default)");
    }
    TESS_TRY(allocate(e));
    TESS_TRY(tess__eval_pictures(e->model, e->data, &e->hooks, e->o->workers, NULL, NULL,
                                 e->pictures, e->ok, NULL));
    return tess_model_embed_tokens(e->model, e->captions.tokens, e->captions.offsets, e->n_captions,
                                   e->texts);
}

/* Marks the captions whose language the sample lists under novel_key. */
static tess_status find_novel(eval *e)
{
    if (!e->o->novel_key) {
        return TESS_OK;
    }
    tess_dataset *ds = NULL;
    tess_captions list = {0};
    tess_status st = open_data(e, e->o->novel_key, &ds);
    st = st ? st
            : tess_captions_load(ds, &e->hooks, tess_model_context_length(e->model), true, &list);
    int64_t c = 0;
    for (int64_t i = 0; st == TESS_OK && i < list.n_captions; i++) {
        int64_t language = tess_dataset_find_language(e->data, list.texts[i]);
        while (c < e->n_captions && e->captions.samples[c] < list.samples[i]) {
            c++;
        }
        for (int64_t k = c; k < e->n_captions && e->captions.samples[k] == list.samples[i]; k++) {
            e->novel[k] |= e->captions.languages[k] == language;
        }
    }
    tess_captions_deinit(&list);
    tess_dataset_close(ds);
    return st;
}

/* ---- ranking ------------------------------------------------------------------------------- */

static tess_status rank_all(eval *e)
{
    tess__pairs p = {.questions = e->texts,
                     .answers = e->pictures,
                     .right = e->captions.samples,
                     .n_questions = e->n_captions,
                     .n_answers = e->n_pictures,
                     .dim = e->dim};
    return tess__rank_pairs(&p, e->rank, e->picture_rank);
}

/* ---- summing up ---------------------------------------------------------------------------- */

static void count(tess_recall *r, int64_t rank)
{
    r->n++;
    r->at1 += rank <= 1;
    r->at5 += rank <= 5;
    r->at10 += rank <= 10;
}

static void divide(tess_recall *r, double n)
{
    if (n > 0) {
        r->at1 /= n;
        r->at5 /= n;
        r->at10 /= n;
    }
}

static void add_mean(tess_recall *mean, const tess_recall *x, int64_t least)
{
    if (x->n >= least) {
        mean->n++;
        mean->at1 += x->at1;
        mean->at5 += x->at5;
        mean->at10 += x->at10;
    }
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static tess_status sum_languages(const eval *e, tess_eval_result *r)
{
    int64_t n = tess_dataset_n_languages(e->data);
    tess_language_recall *l = tess_arena_alloc(&r->arena, (size_t)(n + 1) * sizeof *l);
    if (!l) {
        return TESS_NOMEM;
    }
    for (int64_t c = 0; c < e->n_captions; c++) {
        tess_language_recall *x = &l[e->captions.languages[c]];
        count(&x->text_to_image, e->rank[c]);
        count(e->novel[c] ? &x->novel : &x->known, e->rank[c]);
    }
    int64_t least = e->o->min_captions > 0 ? e->o->min_captions : 50;
    r->languages = l;
    for (int64_t i = 0; i < n; i++) {
        if (l[i].text_to_image.n == 0) {
            continue;
        }
        const char *name = tess_dataset_language(e->data, i);
        l[i].language = tess_arena_strndup(&r->arena, name, strlen(name));
        if (!l[i].language) {
            return TESS_NOMEM;
        }
        divide(&l[i].text_to_image, (double)l[i].text_to_image.n);
        divide(&l[i].known, (double)l[i].known.n);
        divide(&l[i].novel, (double)l[i].novel.n);
        add_mean(&r->mean, &l[i].text_to_image, least);
        add_mean(&r->mean_known, &l[i].known, least);
        add_mean(&r->mean_novel, &l[i].novel, least);
        l[r->n_languages++] = l[i];
    }
    r->n_mean_languages = r->mean.n;
    divide(&r->mean, (double)r->mean.n);
    divide(&r->mean_known, (double)r->mean_known.n);
    divide(&r->mean_novel, (double)r->mean_novel.n);
    return TESS_OK;
}

static tess_status sum_up(const eval *e, tess_eval_result *r)
{
    double rank_sum = 0;
    for (int64_t c = 0; c < e->n_captions; c++) {
        count(&r->text_to_image, e->rank[c]);
        rank_sum += (double)e->rank[c];
    }
    for (int64_t p = 0; p < e->n_pictures; p++) {
        if (e->ok[p] && e->picture_rank[p] > 0) {
            count(&r->image_to_text, e->picture_rank[p]);
        }
    }
    divide(&r->text_to_image, (double)r->text_to_image.n);
    divide(&r->image_to_text, (double)r->image_to_text.n);
    TESS_TRY(sum_languages(e, r));
    qsort(e->rank, (size_t)e->n_captions, sizeof *e->rank, by_value);
    r->mean_rank = rank_sum / (double)e->n_captions;
    r->median_rank = (double)e->rank[e->n_captions / 2];
    r->n_pictures = e->n_pictures;
    r->n_captions = e->n_captions;
    return TESS_OK;
}

static void deinit(eval *e)
{
    tess_captions_deinit(&e->captions);
    tess_dataset_close(e->data);
    void *const arrays[] = {e->pictures, e->texts, e->rank, e->novel, e->picture_rank, e->ok};
    for (int64_t i = 0; i < TESS_COUNT(arrays); i++) {
        tess_free(arrays[i]);
    }
}

tess_status tess_eval_retrieval(tess_model *m, const tess_eval_options *o, tess_eval_result *out)
{
    double start = tess_seconds();
    eval e = {.model = m, .o = o};
    *out = (tess_eval_result){0};
    tess_status st = load(&e);
    st = st ? st : find_novel(&e);
    st = st ? st : rank_all(&e);
    st = st ? st : sum_up(&e, out);
    out->seconds = tess_seconds() - start;
    deinit(&e);
    if (st) {
        tess_eval_result_deinit(out);
    }
    return st;
}

void tess_eval_result_deinit(tess_eval_result *r)
{
    tess_arena_deinit(&r->arena);
    *r = (tess_eval_result){0};
}

static void write_recall(tess_json_writer *w, const char *key, const tess_recall *r)
{
    tess_json_key(w, key);
    tess_json_begin_object(w);
    tess_json_key(w, "n");
    tess_json_add_int(w, r->n);
    tess_json_key(w, "R@1");
    tess_json_add_real(w, r->at1);
    tess_json_key(w, "R@5");
    tess_json_add_real(w, r->at5);
    tess_json_key(w, "R@10");
    tess_json_add_real(w, r->at10);
    tess_json_end_object(w);
}

void tess_eval_result_write_json(const tess_eval_result *r, tess_json_writer *w)
{
    tess_json_begin_object(w);
    tess_json_key(w, "n_pictures");
    tess_json_add_int(w, r->n_pictures);
    tess_json_key(w, "n_captions");
    tess_json_add_int(w, r->n_captions);
    write_recall(w, "text_to_image_mean_over_languages", &r->mean);
    write_recall(w, "text_to_image_mean_known_words", &r->mean_known);
    write_recall(w, "text_to_image_mean_new_words", &r->mean_novel);
    write_recall(w, "text_to_image", &r->text_to_image);
    write_recall(w, "image_to_text", &r->image_to_text);
    tess_json_key(w, "mean_rank");
    tess_json_add_real(w, r->mean_rank);
    tess_json_key(w, "median_rank");
    tess_json_add_real(w, r->median_rank);
    tess_json_key(w, "seconds");
    tess_json_add_real(w, r->seconds);
    tess_json_key(w, "languages");
    tess_json_begin_object(w);
    for (int64_t i = 0; i < r->n_languages; i++) {
        const tess_language_recall *l = &r->languages[i];
        tess_json_key(w, l->language);
        tess_json_begin_object(w);
        write_recall(w, "all", &l->text_to_image);
        write_recall(w, "known_words", &l->known);
        write_recall(w, "new_words", &l->novel);
        tess_json_end_object(w);
    }
    tess_json_end_object(w);
    tess_json_end_object(w);
}
