/* SPDX-License-Identifier: Apache-2.0 */
/* Embedding pictures and texts with a model.
 *
 * A plan is made for each shape and kept; shapes are rounded up (pictures and segments to a power
 * of two, token rows to an eighth of one) so that a handful of plans serve every call.  What the
 * rounding adds are empty segments and rows beyond the last segment, which change nothing. */
#include "fusion/packs.h"
#include "fusion/model.h"
#include "fusion/sentence_model.h"

#include "fusion/foreign.h"
#include "fusion/text_runs.h"
#include "tensor/fuse.h"

#include <math.h>
#include <string.h>

#define PICTURES_PER_RUN 128
#define PICTURES_PACKED  16 /* whose activations stay in the caches: 3 % faster than 32 */
#define SEGMENTS_PER_RUN 512
#define ROWS_PER_RUN     576 /* whose activations stay in the caches: int8 8 % faster than 2048 */

/* A card has 132 processors to keep busy: 2^16 rows of width 768 are 1,536 tiles of 128 x 256 in
 * the narrowest product, 11.6 rounds, of which the last that is not full costs 3 %. */
#define PATCHES_CARD     65536
#define PICTURES_CARD    1024 /* at most: below 64 patches a picture */
#define ROWS_CARD        16384
#define SEGMENTS_CARD    4096

static void free_plan(tess_embed_plan *p)
{
    tess_plan_free(p->plan);
    tess_graph_free(p->graph);
    *p = (tess_embed_plan){0};
}

void tess__model_free_plans(tess_model *m)
{
    for (int i = 0; i < TESS_EMBED_PLANS; i++) {
        free_plan(&m->picture_plans[i]);
        free_plan(&m->text_plans[i]);
    }
}

static int64_t round_up(int64_t n, int64_t least, bool fine)
{
    int64_t p = least;
    while (p < n) {
        p *= 2;
    }
    int64_t step = fine && p / 8 >= least ? p / 8 : p;
    return (n + step - 1) / step * step;
}

/* The plan for this shape, or the least recently used slot, emptied. */
static tess_embed_plan *find_plan(tess_model *m, tess_embed_plan *plans, int64_t rows,
                                  int64_t segments)
{
    tess_embed_plan *oldest = &plans[0];
    for (int i = 0; i < TESS_EMBED_PLANS; i++) {
        tess_embed_plan *p = &plans[i];
        if (p->plan && p->rows == rows && p->segments == segments) {
            p->last_used = ++m->clock;
            return p;
        }
        oldest = p->last_used < oldest->last_used ? p : oldest;
    }
    free_plan(oldest);
    oldest->rows = rows;
    oldest->segments = segments;
    oldest->last_used = ++m->clock;
    return oldest;
}

static tess_status finish_plan(tess_model *m, tess_embed_plan *p)
{
    tess_status st = m->packs ? tess__packs_lower(m->packs, &p->graph, &p->out) : TESS_OK;
    st = st ? st : tess__graph_fuse(&p->graph, &p->out, 1, tess__model_device(m));
    st = st ? st
            : tess_plan_build(p->graph, &p->out, 1, tess__model_device(m), m->store, m->workspace,
                              &p->plan);
    if (st) {
        free_plan(p);
    }
    return st;
}

static bool all_finite(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) {
            return false;
        }
    }
    return true;
}

/* The first parameter with a NaN or an infinity; "a weight of the model" where none lies open. */
static const char *unsound_weight(const tess_model *m)
{
    for (int64_t i = 0; i < tess_store_n_entries(m->store, "param"); i++) {
        float *data;
        tess_shape shape;
        const char *name = tess_store_entry(m->store, "param", i, &data, &shape);
        if (data && !all_finite(data, tess_shape_count(&shape))) {
            return name;
        }
    }
    return "a weight of the model";
}

/* Weights that are used where they lie are not looked through beforehand. */
static tess_status check_vectors(const tess_model *m, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (!all_finite(x + i * m->config.embed_dim, m->config.embed_dim)) {
            return TESS_FAIL(TESS_FORMAT,
                             "vector %lld is not finite: %s is NaN, infinite or far too large",
                             (long long)i, unsound_weight(m));
        }
    }
    return TESS_OK;
}

static bool on_card(const tess_model *m)
{
    return tess__model_device(m) != tess_device_cpu();
}

/* ---- pictures ------------------------------------------------------------------------------ */

int64_t tess_model_pictures_at_once(const tess_model *m)
{
    if (!on_card(m) || !tess_model_has_image(m)) {
        return m->packs ? PICTURES_PACKED : PICTURES_PER_RUN;
    }
    const int64_t side = m->config.vision.image_size / m->config.vision.patch_size;
    int64_t n = 1;
    while (n < PICTURES_CARD && 2 * n * side * side <= PATCHES_CARD) {
        n *= 2;
    }
    return n;
}

static tess_status picture_plan(tess_model *m, int64_t n, bool raw, tess_embed_plan **out)
{
    tess_embed_plan *p = *out = find_plan(m, m->picture_plans, raw ? -1 : 0, n);
    if (p->plan) {
        return TESS_OK;
    }
    const int64_t s = m->config.vision.image_size;
    p->graph = tess_graph_new();
    if (!p->graph) {
        return TESS_NOMEM;
    }
    const tess_vit_pictures pictures =
        raw ? (tess_vit_pictures){.raw = tess__raw_inputs(p->graph, n, (int32_t)s)}
            : tess__finished_pictures(p->graph, n, s);
    p->out = tess__picture_tower(p->graph, m, pictures, false);
    return finish_plan(m, p);
}

/* Runs what is bound; the first n rows to out. */
static tess_status run_plan(tess_model *m, tess_embed_plan *p, int64_t n, float *out)
{
    TESS_TRY(tess_plan_run(p->plan));
    const float *x = tess_plan_output(p->plan, p->out);
    if (!x) {
        return TESS_DEVICE;
    }
    memcpy(out, x, (size_t)(n * m->config.embed_dim) * sizeof *out);
    return m->packs ? check_vectors(m, out, n) : TESS_OK;
}

static tess_status run_pictures(tess_model *m, const uint8_t *pictures, int64_t n, float *out)
{
    int64_t rounded = round_up(n, 1, false);
    size_t one = (size_t)m->config.vision.image_size * (size_t)m->config.vision.image_size * 3;
    TESS_TRY(tess_grow(&m->pixels, &m->cap_pixels, (size_t)rounded * one, 1));
    memcpy(m->pixels, pictures, (size_t)n * one);
    memset(m->pixels + (size_t)n * one, 0, (size_t)(rounded - n) * one);
    tess_embed_plan *p;
    TESS_TRY(picture_plan(m, rounded, false, &p));
    TESS_TRY(tess_plan_bind(p->plan, "pictures", m->pixels));
    return run_plan(m, p, n, out);
}

static tess_status need_image_tower(const tess_model *m)
{
    return tess_model_has_image(m)
               ? TESS_OK
               : TESS_FAIL(TESS_UNSUPPORTED,
                           "the model has a text tower alone: it embeds texts, and no pictures");
}

tess_status tess_model_embed_pictures(tess_model *m, const uint8_t *pictures, int64_t n, float *out)
{
    TESS_TRY(need_image_tower(m));
    size_t one = (size_t)m->config.vision.image_size * (size_t)m->config.vision.image_size * 3;
    const int64_t most = tess_model_pictures_at_once(m);
    for (int64_t i = 0; i < n; i += most) {
        int64_t k = n - i < most ? n - i : most;
        TESS_TRY(run_pictures(m, pictures + (size_t)i * one, k, out + i * m->config.embed_dim));
    }
    return TESS_OK;
}

tess_status tess_model_embed_raw(tess_model *m, const tess_raw_pictures *pictures, int64_t n,
                                 float *out)
{
    TESS_TRY(need_image_tower(m));
    const tess_raw_memory r = tess_raw_pictures_get(pictures);
    if (r.size != m->config.vision.image_size || n < 0 || n > r.n) {
        return TESS_FAIL(TESS_INVALID,
                         "%lld of %lld decoded pictures for %d pixels were given to a model for "
                         "%lld pixels",
                         (long long)n, (long long)r.n, r.size,
                         (long long)m->config.vision.image_size);
    }
    if (n == 0) {
        return TESS_OK;
    }
    tess_embed_plan *p;
    TESS_TRY(picture_plan(m, r.n, true, &p));
    TESS_TRY(tess__raw_bind(p->plan, pictures));
    return run_plan(m, p, n, out);
}

/* The decoded picture, resized by the device. */
static tess_status embed_decoded(tess_model *m, float *out)
{
    const tess_raw_view view = {.preprocess = &m->config.preprocess};
    if (!m->raw) {
        TESS_TRY(tess_raw_pictures_new(1, (int32_t)m->config.vision.image_size, &m->raw));
    }
    tess_raw_pictures_clear(m->raw);
    TESS_TRY(tess_raw_pictures_set(m->raw, 0, m->resizer, &view, &m->picture));
    return tess_model_embed_raw(m, m->raw, 1, out);
}

static tess_status embed_resized(tess_model *m, float *out)
{
    size_t side = (size_t)m->config.vision.image_size;
    uint8_t *pixels = tess_alloc_array(side * side, 3);
    if (!pixels) {
        return TESS_NOMEM;
    }
    tess_status st = tess_transform_apply(m->resizer, &m->config.preprocess, &m->picture, pixels);
    st = st ? st : tess_model_embed_pictures(m, pixels, 1, out);
    tess_free(pixels);
    return st;
}

tess_status tess_model_embed_picture(tess_model *m, tess_bytes encoded, float *out)
{
    TESS_TRY(need_image_tower(m));
    TESS_TRY(tess_picture_decode(encoded.data, encoded.n_bytes, NULL, &m->picture));
    return tess_model_resizes(m) ? embed_decoded(m, out) : embed_resized(m, out);
}

/* ---- texts --------------------------------------------------------------------------------- */

static tess_status text_plan(tess_model *m, int64_t rows, int64_t segments, tess_embed_plan **out)
{
    tess_embed_plan *p = *out = find_plan(m, m->text_plans, rows, segments);
    if (p->plan) {
        return TESS_OK;
    }
    p->graph = tess_graph_new();
    if (!p->graph) {
        return TESS_NOMEM;
    }
    tess_text_input in = {
        .tokens = tess_input(p->graph, "tokens", TESS_I32, TESS_SHAPE_OF(rows)),
        .positions = tess_input(p->graph, "positions", TESS_I32, TESS_SHAPE_OF(rows)),
        .offsets = tess_input(p->graph, "offsets", TESS_I32, TESS_SHAPE_OF(segments + 1)),
    };
    p->out = tess__caption_tower(p->graph, m, in, false);
    return finish_plan(m, p);
}

/* Texts of one call: their tokens, and which of them a run takes. */
typedef struct batch {
    const int32_t *tokens;
    const int64_t *offsets; /* by number of text */
    int64_t texts[SEGMENTS_CARD], n, most_rows;
    float *out; /* rows by number of text */
} batch;

static int64_t rows_of(const batch *b)
{
    int64_t rows = 0;
    for (int64_t s = 0; s < b->n; s++) {
        rows += b->offsets[b->texts[s] + 1] - b->offsets[b->texts[s]];
    }
    return rows;
}

/* Copies segments into the model's buffers; rows beyond them get id -1, a zero row. */
static tess_status pack(tess_model *m, const batch *b, int64_t rows, int64_t segments)
{
    TESS_TRY(tess_grow(&m->tokens, &m->cap_tokens, (size_t)rows, sizeof *m->tokens));
    TESS_TRY(tess_grow(&m->positions, &m->cap_positions, (size_t)rows, sizeof *m->positions));
    TESS_TRY(tess_grow(&m->offsets, &m->cap_offsets, (size_t)segments + 1, sizeof *m->offsets));
    int64_t at = 0;
    m->offsets[0] = 0;
    for (int64_t s = 0; s < segments; s++) {
        const int64_t from = s < b->n ? b->offsets[b->texts[s]] : 0;
        const int64_t length = s < b->n ? b->offsets[b->texts[s] + 1] - from : 0;
        for (int64_t i = 0; i < length; i++, at++) {
            m->tokens[at] = b->tokens[from + i];
            m->positions[at] = (int32_t)i;
        }
        m->offsets[s + 1] = (int32_t)at;
    }
    for (; at < rows; at++) {
        m->tokens[at] = m->positions[at] = -1;
    }
    return TESS_OK;
}

static tess_status run_texts(tess_model *m, const batch *b)
{
    const int64_t n = rows_of(b), z = m->config.embed_dim, segments = round_up(b->n, 1, false);
    const int64_t rounded = round_up(n, 8, true);
    const int64_t rows = n <= b->most_rows && rounded > b->most_rows ? b->most_rows : rounded;
    tess_embed_plan *p;
    TESS_TRY(pack(m, b, rows, segments));
    TESS_TRY(text_plan(m, rows, segments, &p));
    TESS_TRY(tess_plan_bind(p->plan, "tokens", m->tokens));
    TESS_TRY(tess_plan_bind(p->plan, "positions", m->positions));
    TESS_TRY(tess_plan_bind(p->plan, "offsets", m->offsets));
    TESS_TRY(tess_plan_run(p->plan));
    const float *x = tess_plan_output(p->plan, p->out);
    if (!x) {
        return TESS_DEVICE;
    }
    for (int64_t s = 0; s < b->n; s++) {
        memcpy(b->out + b->texts[s] * z, x + s * z, (size_t)z * sizeof *x);
    }
    return m->packs ? check_vectors(m, x, b->n) : TESS_OK;
}

tess_status tess_model_embed_tokens(tess_model *m, const int32_t *tokens, const int64_t *offsets,
                                    int64_t n, float *out)
{
    const int64_t longest = m->config.text.context_length;
    for (int64_t i = 0; i < n; i++) {
        int64_t length = offsets[i + 1] - offsets[i];
        if (length < 1 || length > longest) {
            return TESS_FAIL(TESS_INVALID, "text %lld has %lld tokens; expected 1 to %lld",
                             (long long)i, (long long)length, (long long)longest);
        }
    }
    const int64_t most = on_card(m) ? SEGMENTS_CARD : SEGMENTS_PER_RUN;
    batch b = {.tokens = tokens,
               .offsets = offsets,
               .most_rows = on_card(m) ? ROWS_CARD : ROWS_PER_RUN,
               .out = out};
    tess__text_runs runs;
    TESS_TRY(tess__text_runs_init(offsets, n, longest, &runs));
    tess_status st = TESS_OK;
    while (st == TESS_OK && (b.n = tess__text_runs_next(&runs, b.most_rows, most, b.texts)) > 0) {
        st = run_texts(m, &b);
    }
    tess__text_runs_deinit(&runs);
    return st;
}

tess_status tess_model_tokenize(const tess_model *m, const char *text, size_t n_bytes,
                                tess_tokenizer_scratch *scratch, tess_ids *out)
{
    if (m->config.sentence) {
        return tess__sentence_tokenize(m, text, n_bytes, scratch, out);
    }
    if (!tess__text_is_clean(&m->config.text)) {
        return tess__foreign_tokenize(m, text, n_bytes, scratch, out);
    }
    tess_buf clean = {0};
    tess_status st = tess_text_clean(text, n_bytes, TESS_CLEAN_TRUNCATE, &clean);
    tess_encode_options o = {
        .add_eos = true, .max_ids = (size_t)m->config.text.context_length, .scratch = scratch};
    st = st ? st
            : tess_tokenizer_encode(m->tokenizer, out, clean.data ? clean.data : "", clean.n_bytes,
                                    &o);
    tess_buf_deinit(&clean);
    return st;
}

tess_status tess_model_embed_text(tess_model *m, const char *text, size_t n_bytes, float *out)
{
    m->ids.n_ids = 0;
    TESS_TRY(tess_model_tokenize(m, text, n_bytes, NULL, &m->ids));
    const bool marked = m->config.text.bert != NULL; /* with marks around a text */
    if (m->ids.n_ids < 2 || (marked && m->ids.n_ids <= tess_tokenizer_n_special(m->tokenizer))) {
        return TESS_FAIL(TESS_INVALID, "the text holds nothing to search for");
    }
    int64_t offsets[2] = {0, (int64_t)m->ids.n_ids};
    return tess_model_embed_tokens(m, m->ids.ids, offsets, 1, out);
}
