/* SPDX-License-Identifier: Apache-2.0 */
/* The text tower that a distillation learns from: it reads texts with its own tokenizer, and gives
 * their unit vectors.  They are computed again in every epoch, for a third of a step's time, so
 * that a corpus of any size needs no memory for them. */
#include "train/train.h"

#include <string.h>

static tess_status check_teacher(const tess_model *teacher, const tess_model *student,
                                 const char *dir)
{
    const int64_t z = tess_model_embed_dim(teacher), own = tess_model_embed_dim(student);
    if (!tess_model_has_image(student)) {
        return TESS_FAIL(TESS_INVALID,
                         "the model has a text tower alone: join it with the teacher's "
                         "image tower first: tessera mix --image %s --text MODEL",
                         dir);
    }
    if (z != own) {
        return TESS_FAIL(TESS_INVALID,
                         "the teacher %s gives vectors of %lld, the model of %lld: make the model "
                         "with tessera mix --image %s",
                         dir, (long long)z, (long long)own, dir);
    }
    if (!tess_model_same_image_tower(teacher, student)) {
        return TESS_FAIL(TESS_INVALID,
                         "the teacher %s has another image tower than the model, so pictures would "
                         "not be found by what it teaches: make the model with tessera mix --image "
                         "%s",
                         dir, dir);
    }
    return TESS_OK;
}

static tess_status make_room(tess__teacher *t, int64_t n)
{
    const size_t z = (size_t)tess_model_embed_dim(t->model);
    t->scratch = tess_tokenizer_scratch_new();
    t->vectors = tess_alloc_array((size_t)n * z, sizeof *t->vectors);
    t->packed = tess_alloc_array((size_t)n * z, sizeof *t->packed);
    t->offsets = tess_alloc_array((size_t)n + 1, sizeof *t->offsets);
    t->rows = tess_alloc_array((size_t)n, sizeof *t->rows);
    return t->scratch && t->vectors && t->packed && t->offsets && t->rows ? TESS_OK : TESS_NOMEM;
}

tess_status tess__teacher_open(tess__teacher *t, const tess_train_options *o,
                               const tess_model *student)
{
    if (!o->distill_text) {
        return TESS_OK;
    }
    tess_status st = tess_model_open(o->distill_text, o->precision, &t->model);
    TESS_TRY(st ? tess_error_prefix(st, "the teacher") : TESS_OK);
    TESS_TRY(check_teacher(t->model, student, o->distill_text));
    return make_room(t, o->batch_size);
}

tess_status tess__teacher_embed(tess__teacher *t, char *const *texts, int64_t n)
{
    const size_t z = (size_t)tess_model_embed_dim(t->model);
    int64_t n_rows = 0;
    t->ids.n_ids = 0;
    for (int64_t i = 0; i < n; i++) {
        const size_t before = t->ids.n_ids;
        TESS_TRY(tess_model_tokenize(t->model, texts[i], strlen(texts[i]), t->scratch, &t->ids));
        if (t->ids.n_ids > before) {
            t->rows[n_rows++] = i;
            t->offsets[n_rows] = (int64_t)t->ids.n_ids;
        }
    }
    memset(t->vectors, 0, (size_t)n * z * sizeof *t->vectors);
    if (n_rows == 0) {
        return TESS_OK;
    }
    TESS_TRY(tess_model_embed_tokens(t->model, t->ids.ids, t->offsets, n_rows, t->packed));
    for (int64_t i = 0; i < n_rows; i++) {
        memcpy(t->vectors + (size_t)t->rows[i] * z, t->packed + (size_t)i * z,
               z * sizeof *t->vectors);
    }
    return TESS_OK;
}

void tess__teacher_deinit(tess__teacher *t)
{
    tess_model_free(t->model);
    tess_tokenizer_scratch_free(t->scratch);
    tess_ids_deinit(&t->ids);
    tess_free(t->vectors);
    tess_free(t->packed);
    tess_free(t->offsets);
    tess_free(t->rows);
    *t = (tess__teacher){0};
}
