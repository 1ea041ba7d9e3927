/* SPDX-License-Identifier: Apache-2.0 */
/* pipeline: the one file where the data half of train/ meets vision/ and text/. */
#include "tessera/train.h"

#include <string.h>

typedef struct scratch {
    tess_resizer *resizer;
    tess_tokenizer_scratch *tokenizer;
    tess_ids ids;
    tess_buf clean;
} scratch;

static void scratch_free(void *p)
{
    scratch *s = p;
    if (s) {
        tess_resizer_free(s->resizer);
        tess_tokenizer_scratch_free(s->tokenizer);
        tess_ids_deinit(&s->ids);
        tess_buf_deinit(&s->clean);
        tess_free(s);
    }
}

static tess_status scratch_new(void *ctx, void **out)
{
    const tess_pipeline *p = ctx;
    scratch *s = tess_alloc(sizeof *s);
    *out = NULL;
    if (!s) {
        return TESS_NOMEM;
    }
    s->resizer = tess_resizer_new();
    s->tokenizer = p->tokenizer ? tess_tokenizer_scratch_new() : NULL;
    if (!s->resizer || (p->tokenizer && !s->tokenizer)) {
        scratch_free(s);
        return TESS_NOMEM;
    }
    *out = s;
    return TESS_OK;
}

static tess_status decode(void *ctx, void *thread, tess_bytes encoded, tess_picture *out,
                          tess_bad *out_bad)
{
    const tess_pipeline *p = ctx;
    (void)thread;
    tess_status st = tess_picture_decode(encoded.data, encoded.n_bytes, &p->limits, out);
    if (st == TESS_FORMAT || st == TESS_UNSUPPORTED) {
        *out_bad = TESS_BAD_DECODE;
        return TESS_OK;
    }
    return st;
}

static tess_preprocess at_size(const tess_pipeline *p, int64_t size)
{
    tess_preprocess sized = p->preprocess;
    sized.width = sized.height = (int32_t)size;
    return sized;
}

static tess_status resize(void *ctx, void *thread, const tess_picture *in, int64_t size,
                          uint8_t *out)
{
    const tess_preprocess sized = at_size(ctx, size);
    return tess_transform_apply(((scratch *)thread)->resizer, &sized, in, out);
}

/* The views of an epoch are drawn by this and the sample's id. */
static uint64_t view_seed(tess_view_key key)
{
    uint64_t seed[2] = {key.seed, key.epoch};
    return tess_hash64(seed, sizeof seed, 0);
}

static tess_status view(void *ctx, void *thread, const tess_picture *in, tess_view_key key,
                        int64_t size, uint8_t *out)
{
    const tess_pipeline *p = ctx;
    const tess_preprocess sized = at_size(p, size);
    return tess_augment_apply(((scratch *)thread)->resizer, &sized, &p->augment, view_seed(key),
                              key.id, in, out);
}

static tess_status raw(void *ctx, void *thread, const tess_picture *in, const tess_view_key *key,
                       tess_raw_pictures *out, int64_t place)
{
    const tess_pipeline *p = ctx;
    const tess_preprocess sized = at_size(p, tess_raw_pictures_get(out).size);
    tess_raw_view v = {.preprocess = &sized};
    if (key) {
        v.augment = &p->augment;
        v.seed = view_seed(*key);
        v.sample = key->id;
    }
    return tess_raw_pictures_set(out, place, ((scratch *)thread)->resizer, &v, in);
}

static void check(void *ctx, const char *text, size_t n_bytes, tess_bad *out_bad)
{
    (void)ctx;
    if (tess_text_mojibake(text, n_bytes) != TESS_MOJIBAKE_NONE) {
        *out_bad = TESS_BAD_CAPTION_MOJIBAKE;
    }
}

static tess_status copy_ids(const tess_ids *ids, int32_t *out_ids, int64_t *out_n_ids)
{
    memcpy(out_ids, ids->ids, ids->n_ids * sizeof *out_ids);
    *out_n_ids = (int64_t)ids->n_ids;
    return TESS_OK;
}

static tess_status tokenize(void *ctx, void *thread, const char *text, size_t n_bytes,
                            int64_t max_tokens, int32_t *out_ids, int64_t *out_n_ids)
{
    const tess_pipeline *p = ctx;
    scratch *s = thread;
    tess_encode_options o = {.add_bos = p->add_bos,
                             .add_eos = p->add_eos,
                             .max_ids = (size_t)max_tokens,
                             .scratch = s->tokenizer};
    *out_n_ids = 0;
    if (p->texts_of) {
        s->ids.n_ids = 0;
        TESS_TRY(tess_model_tokenize(p->texts_of, text, n_bytes, s->tokenizer, &s->ids));
        return copy_ids(&s->ids, out_ids, out_n_ids);
    }
    TESS_TRY(tess_text_clean(text, n_bytes, p->clean_flags | TESS_CLEAN_TRUNCATE, &s->clean));
    if (s->clean.n_bytes == 0) {
        return TESS_OK;
    }
    s->ids.n_ids = 0;
    TESS_TRY(tess_tokenizer_encode(p->tokenizer, &s->ids, s->clean.data, s->clean.n_bytes, &o));
    return copy_ids(&s->ids, out_ids, out_n_ids);
}

tess_hooks tess_pipeline_hooks(const tess_pipeline *p)
{
    return (tess_hooks){
        .ctx = (void *)(uintptr_t)p, /* hooks only read it */
        .scratch_new = scratch_new,
        .scratch_free = scratch_free,
        .decode = decode,
        .resize = resize,
        .view = view,
        .raw = raw,
        .check = check,
        .tokenize = p->tokenizer ? tokenize : NULL,
    };
}
