/* SPDX-License-Identifier: Apache-2.0 */
/* The loader in its evaluation order, and the model: one row for each sample of the data set. */
#include "train/eval_pictures.h"

#define LEAST_BATCH 256

tess_status tess__embed_batch(tess_model *m, const tess_batch *b, float *out)
{
    return b->raw ? tess_model_embed_raw(m, b->raw, b->n_pictures, out)
                  : tess_model_embed_pictures(m, b->pictures, b->n_pictures, out);
}

tess_status tess__eval_pictures(tess_model *m, const tess_dataset *ds, const tess_hooks *hooks,
                                int workers,
                                void (*on_progress)(void *ctx, int64_t n_done, int64_t n_total),
                                void *ctx, float *out_pictures, bool *out_ok, tess_bad_list *bad)
{
    int64_t n = tess_dataset_size(ds), dim = tess_model_embed_dim(m);
    int64_t at_once = tess_model_pictures_at_once(m);
    at_once = at_once > LEAST_BATCH ? at_once : LEAST_BATCH;
    tess_loader *loader = NULL;
    tess_loader_options l = {.hooks = *hooks,
                             .batch = n < at_once ? n : at_once,
                             .size = tess_model_image_size(m),
                             .raw = tess_model_resizes(m),
                             .n_ranks = 1,
                             .workers = workers,
                             .max_bad_rate = 1,
                             .evaluation = true};
    const tess_batch *b = NULL;
    TESS_TRY(tess_loader_new(ds, &l, &loader));
    tess_status st = tess_loader_read(loader, &b);
    while (st == TESS_OK && b) {
        for (int64_t i = 0; i < b->n_pictures; i++) {
            out_ok[b->counter + i] = b->ok[i];
        }
        st = tess__embed_batch(m, b, out_pictures + b->counter * dim);
        if (st == TESS_OK && on_progress) {
            on_progress(ctx, b->counter + b->n_pictures, n);
        }
        st = st ? st : tess_loader_read(loader, &b);
    }
    if (st == TESS_OK && bad) {
        st = tess_bad_list_merge(bad, tess_loader_bad(loader));
    }
    tess_loader_free(loader);
    return st;
}
