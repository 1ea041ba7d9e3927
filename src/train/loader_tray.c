/* SPDX-License-Identifier: Apache-2.0 */
/* loader_tray: the memory of one batch, allocated once. */
#include "train/loader.h"

#include <string.h>

tess_status tess__tray_init(tess__tray *t, const tess_loader *l)
{
    const tess_loader_options *o = &l->options;
    size_t n = (size_t)l->n_local, k = (size_t)o->captions_per_image;
    size_t side = (size_t)o->size, n_rows = n * k, n_tokens;
    if (tess_mul_overflows(n_rows, (size_t)o->max_tokens, &n_tokens) || n_tokens > INT32_MAX) {
        return TESS_FAIL(TESS_INVALID,
                         "%zu captions a batch of up to %lld tokens: more than 2^31 tokens", n_rows,
                         (long long)o->max_tokens);
    }
    if (o->raw) {
        TESS_TRY(tess_raw_pictures_new(l->n_local, (int32_t)side, &t->raw));
    } else {
        t->pictures = tess_alloc_array(n, side * side * 3);
    }
    t->samples = tess_alloc_array(n, sizeof *t->samples);
    t->ids = tess_alloc_array(n, sizeof *t->ids);
    t->ok = tess_alloc_array(n, sizeof *t->ok);
    t->tokens = tess_alloc_array(n_tokens, sizeof *t->tokens);
    t->positions = tess_alloc_array(n_tokens, sizeof *t->positions);
    t->rows = tess_alloc_array(n_tokens, sizeof *t->rows);
    t->n_rows = tess_alloc_array(n_rows, sizeof *t->n_rows);
    t->row_languages = tess_alloc_array(n_rows, sizeof *t->row_languages);
    t->languages = tess_alloc_array(n_rows, sizeof *t->languages);
    t->offsets = tess_alloc_array(n_rows + 1, sizeof *t->offsets);
    t->sources = tess_alloc_array(n, sizeof *t->sources);
    t->n_sources = l->n_local;
    bool ok = (t->pictures || t->raw) && t->samples && t->ids && t->ok && t->tokens &&
              t->positions && t->rows && t->n_rows && t->row_languages && t->languages &&
              t->offsets && t->sources;
    return ok ? TESS_OK : TESS_NOMEM;
}

static void clear_events(tess__tray *t)
{
    for (size_t i = 0; i < t->n_events; i++) {
        tess_free(t->events[i].detail);
    }
    t->n_events = 0;
    tess_free(t->error);
    t->error = NULL;
    t->status = TESS_OK;
}

void tess__tray_deinit(tess__tray *t)
{
    clear_events(t);
    tess_free(t->events);
    tess_free(t->pictures);
    tess_raw_pictures_free(t->raw);
    tess_free(t->samples);
    tess_free(t->ids);
    tess_free(t->ok);
    tess_free(t->tokens);
    tess_free(t->positions);
    tess_free(t->rows);
    tess_free(t->n_rows);
    tess_free(t->row_languages);
    tess_free(t->languages);
    tess_free(t->offsets);
    for (int64_t i = 0; t->sources && i < t->n_sources; i++) {
        tess_free(t->sources[i]);
    }
    tess_free(t->sources);
}

void tess__tray_start(tess__tray *t, const tess_loader *l, int64_t step)
{
    int64_t counter = step * l->options.batch, n_slots = l->n_local;
    if (l->options.evaluation) {
        int64_t left = l->order.n - counter - l->first_slot;
        n_slots = left < 0 ? 0 : left < n_slots ? left : n_slots;
    }
    clear_events(t);
    if (t->raw) {
        tess_raw_pictures_clear(t->raw);
    }
    t->state = TESS__TRAY_FILLING;
    t->step = step;
    t->n_slots = t->n_left = n_slots;
    t->next_slot = 0;
    t->batch = (tess_batch){
        .counter = counter,
        .epoch = l->options.evaluation ? 0 : tess_order_epoch(&l->order, counter),
        .n_pictures = n_slots,
        .pictures = t->pictures,
        .raw = t->raw,
        .samples = t->samples,
        .ids = t->ids,
        .ok = t->ok,
        .n_captions = l->options.captions_per_image,
        .tokens = t->tokens,
        .positions = t->positions,
        .offsets = t->offsets,
        .languages = t->languages,
        .sources = l->source_language >= 0 ? t->sources : NULL,
    };
}

void tess__tray_pack(tess__tray *t, const tess_loader *l)
{
    int64_t n_captions = l->options.captions_per_image, n_tokens = 0, segment = 0;
    for (int64_t k = 0; k < n_captions; k++) {
        for (int64_t b = 0; b < t->n_slots; b++, segment++) {
            int64_t row = b * n_captions + k;
            int32_t n = t->n_rows[row];
            memcpy(t->tokens + n_tokens, t->rows + row * l->options.max_tokens,
                   (size_t)n * sizeof *t->tokens);
            for (int32_t i = 0; i < n; i++) {
                t->positions[n_tokens + i] = i;
            }
            t->offsets[segment] = (int32_t)n_tokens;
            t->languages[segment] = t->row_languages[row];
            n_tokens += n;
        }
    }
    t->offsets[segment] = (int32_t)n_tokens;
    t->batch.n_tokens = n_tokens;
}
