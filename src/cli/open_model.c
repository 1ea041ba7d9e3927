/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a model to embed with, on the processor or on a card, and what the verbs do alike. */
#include "cli/open_model.h"

#include "cli/progress.h"

#include <string.h>

#define PICTURE_BYTES_MAX ((size_t)256 << 20)

/* The device is opened first: where there is none, nothing else is worth its time. */
static tess_status open_whole(const cli_embedder *e, const char *dir, tess_model **out)
{
    const tess_device *device;
    tess_precision precision = e->precision ? cli_precision_of(e->precision) : TESS_PRECISION_AUTO;
    TESS_TRY(tess_device_open(e->device, &device));
    if (precision == TESS_PRECISION_AUTO && device != tess_device_cpu()) {
        precision = TESS_PRECISION_BF16;
    }
    tess_status st = tess_model_open(dir, precision, out);
    st = st ? st : tess_model_adapt(*out, e->adapters.items, e->adapters.n_items);
    st = st ? st : tess_model_embed_on(*out, device);
    if (st) {
        tess_model_free(*out);
        *out = NULL;
    }
    return st;
}

tess_status cli_open_embedder(const cli_embedder *e, const char *dir, tess_model **out)
{
    const tess_precision precision = cli_precision_of(e->precision);
    const bool on_card = strcmp(e->device, "cpu") != 0, adapted = e->adapters.n_items > 0;
    *out = NULL;
    if (precision == TESS_PRECISION_INT8 && on_card) {
        return TESS_FAIL(TESS_INVALID,
                         "8-bit weights are packed for the processor: use --device cpu, or with "
                         "--device %s --precision bf16 or f32",
                         e->device);
    }
    if (precision == TESS_PRECISION_INT8 && adapted) {
        return TESS_FAIL(TESS_INVALID,
                         "adapters are applied in f32 or bf16: for int8 merge them first with "
                         "tessera lora merge");
    }
    return on_card || adapted ? open_whole(e, dir, out)
                              : tess_model_open_embedder(dir, precision, out);
}

tess_status cli_open_two_towers(const cli_embedder *e, tess_model **out)
{
    *out = NULL;
    TESS_TRY(open_whole(e, e->model, out));
    if (!tess_model_has_image(*out)) {
        tess_model_free(*out);
        *out = NULL;
        return TESS_FAIL(TESS_INVALID,
                         "%s has a text tower alone: expected a model of pictures and texts",
                         e->model);
    }
    return TESS_OK;
}

tess_status cli_embed_file(tess_model *m, const char *path, float *out)
{
    uint8_t *bytes = NULL;
    size_t n_bytes = 0;
    TESS_TRY(tess_file_read(path, PICTURE_BYTES_MAX, &bytes, &n_bytes)); /* names the file */
    tess_status st = tess_model_embed_picture(m, (tess_bytes){bytes, n_bytes}, out);
    tess_free(bytes);
    return st ? tess_error_prefix(st, "%s", path) : TESS_OK;
}

void cli_show_corpus(void *ctx, int64_t n_done, int64_t n_total)
{
    cli_progress_follow(ctx, n_done, n_total);
}

void cli_add_left_out(const tess_corpus_report *r, tess_buf *out)
{
    if (tess_bad_list_total(&r->bad) > 0) {
        tess_buf_adds(out, "; left out: ");
        tess_bad_list_write(&r->bad, out);
    }
}
