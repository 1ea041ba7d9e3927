/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing how to pack a model: by the cosine between its vectors and those in f32.
 *
 * The samples are made here, so that a model can be judged without data: drawn pictures (ramps,
 * blots and noise in varying mixture, from a fixed seed) and short texts in many scripts.  The
 * smallest cosine of all samples decides, not the mean: a mode that ruins one picture in sixteen
 * is a bad mode. */
#include "fusion/packs.h"

#include <math.h>
#include <string.h>

enum { N_TEXTS = 12 };
static const char *const texts[N_TEXTS] = {
    "a photo of a dog running on the beach",
    "two red cars parked in front of a house",
    "Ein altes Fahrrad lehnt an einer Wand",
    "une tasse de café sur une table en bois",
    "un gato negro duerme en el sofá",
    "日の出の山と湖",
    "一个孩子在公园里放风筝",
    "снежная гора под голубым небом",
    "طائر أزرق على غصن شجرة",
    "सड़क पर चलते हुए लोग",
    "diagram of a water pump, black and white, labelled in English, from a manual of 1912",
    "sun",
};

typedef struct samples {
    int64_t n_pictures, n_texts;
    uint8_t *pictures;
    tess_ids tokens;
    int64_t offsets[N_TEXTS + 1];
} samples;

/* ---- samples ------------------------------------------------------------------------------- */

typedef struct blot {
    double x, y, radius, color[3];
} blot;

static void draw(uint8_t *picture, int64_t side, uint64_t seed)
{
    tess_rng r = tess_rng_at(7, seed);
    blot blots[6];
    double ramp[3][3], noise = 60 * tess_rng_unit(&r) * tess_rng_unit(&r);
    for (int c = 0; c < 3; c++) {
        for (int k = 0; k < 3; k++) {
            ramp[c][k] = 255 * tess_rng_unit(&r) - (k ? 128 : 0);
        }
    }
    for (int i = 0; i < 6; i++) {
        blots[i] = (blot){.x = tess_rng_unit(&r), .y = tess_rng_unit(&r)};
        blots[i].radius = 0.3 * tess_rng_unit(&r);
        for (int c = 0; c < 3; c++) {
            blots[i].color[c] = 255 * tess_rng_unit(&r);
        }
    }
    for (int64_t at = 0; at < side * side * 3; at++) {
        const double x = (double)(at / 3 % side) / (double)side;
        const double y = (double)(at / 3 / side) / (double)side;
        const int64_t c = at % 3;
        double v = ramp[c][0] + x * ramp[c][1] + y * ramp[c][2];
        for (int i = 0; i < 6; i++) {
            const double dx = x - blots[i].x, dy = y - blots[i].y;
            v = dx * dx + dy * dy < blots[i].radius * blots[i].radius ? blots[i].color[c] : v;
        }
        v += noise * tess_rng_normal(&r);
        picture[at] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
    }
}

static tess_status draw_pictures(int64_t side, int64_t n, samples *out)
{
    out->n_pictures = n;
    out->pictures = tess_alloc_array((size_t)n, (size_t)(side * side * 3));
    if (!out->pictures) {
        return TESS_NOMEM;
    }
    for (int64_t i = 0; i < n; i++) {
        draw(out->pictures + i * side * side * 3, side, (uint64_t)i);
    }
    return TESS_OK;
}

/* Of a text-only model, texts alone. */
static tess_status make_samples(const tess_model *m, int64_t n_pictures, samples *out)
{
    if (tess_model_has_image(m)) {
        TESS_TRY(draw_pictures(m->config.vision.image_size, n_pictures, out));
    }
    out->n_texts = N_TEXTS;
    for (int i = 0; i < N_TEXTS; i++) {
        TESS_TRY(tess_model_tokenize(m, texts[i], strlen(texts[i]), NULL, &out->tokens));
        out->offsets[i + 1] = (int64_t)out->tokens.n_ids;
    }
    return TESS_OK;
}

/* ---- cosines ------------------------------------------------------------------------------- */

/* Unit rows of all samples, pictures first; caller frees. */
static tess_status embed(tess_model *m, const samples *s, float **out)
{
    const size_t z = (size_t)m->config.embed_dim;
    float *x = tess_alloc_array((size_t)(s->n_pictures + s->n_texts) * z, sizeof *x);
    if (!x) {
        return TESS_NOMEM;
    }
    tess_status st =
        s->n_pictures > 0 ? tess_model_embed_pictures(m, s->pictures, s->n_pictures, x) : TESS_OK;
    st = st ? st
            : tess_model_embed_tokens(m, s->tokens.ids, s->offsets, s->n_texts,
                                      x + (size_t)s->n_pictures * z);
    if (st) {
        tess_free(x);
        return st;
    }
    *out = x;
    return TESS_OK;
}

/* The smallest cosine of n pairs of rows; one that is not a number counts as -1. */
static double least_cosine(const float *a, const float *b, int64_t n, int64_t width)
{
    double least = 1;
    for (int64_t i = 0; i < n; i++, a += width, b += width) {
        double ab = 0, aa = 0, bb = 0;
        for (int64_t j = 0; j < width; j++) {
            ab += (double)a[j] * (double)b[j];
            aa += (double)a[j] * (double)a[j];
            bb += (double)b[j] * (double)b[j];
        }
        const double cosine = ab / sqrt(aa * bb);
        least = isnan(cosine) ? -1 : cosine < least ? cosine : least;
    }
    return least;
}

static tess_status measure(tess_model *m, const samples *s, const float *exact,
                           tess_pack_candidate *out)
{
    float *x = NULL;
    TESS_TRY(embed(m, s, &x));
    const int64_t z = m->config.embed_dim;
    out->image_cosine = least_cosine(x, exact, s->n_pictures, z);
    out->text_cosine =
        least_cosine(x + s->n_pictures * z, exact + s->n_pictures * z, s->n_texts, z);
    tess_free(x);
    return TESS_OK;
}

/* ---- the choice ---------------------------------------------------------------------------- */

/* Cheapest first; `precision` that asks for it, and the cosine that it must keep. */
static const struct {
    tess_pack_mode mode;
    tess_precision precision;
    double least;
} modes[] = {
    {{TESS_I8, TESS_SPARED_NONE}, TESS_PRECISION_INT8, 0.99},
    {{TESS_I8, TESS_SPARED_ENDS}, TESS_PRECISION_INT8, 0.99},
    {{TESS_I8, TESS_SPARED_OUTPUTS}, TESS_PRECISION_INT8, 0.99},
    {{TESS_BF16, TESS_SPARED_NONE}, TESS_PRECISION_BF16, 0.999},
    {{TESS_F32, TESS_SPARED_NONE}, TESS_PRECISION_F32, -2},
};

/* INT8 and AUTO begin at 8 bits, BF16 and F32 at themselves. */
static bool allowed(tess_precision asked, tess_precision of_mode)
{
    return of_mode == TESS_PRECISION_F32 || asked == TESS_PRECISION_AUTO ||
           asked == TESS_PRECISION_INT8 || asked == of_mode;
}

static tess_status try_modes(tess_model *m, tess_precision precision, const samples *s,
                             const float *exact, tess_pack_report *out)
{
    for (int64_t i = 0; i < TESS_COUNT(modes); i++) {
        if (!allowed(precision, modes[i].precision)) {
            continue;
        }
        tess_pack_candidate *c = &out->candidates[out->n_candidates++];
        c->mode = tess__pack_mode_name(modes[i].mode);
        c->least_cosine = modes[i].least;
        TESS_TRY(tess__model_set_mode(m, &modes[i].mode));
        TESS_TRY(measure(m, s, exact, c));
        if (c->image_cosine >= modes[i].least && c->text_cosine >= modes[i].least) {
            break;
        }
    }
    return TESS_OK;
}

tess_status tess__pack_choose(tess_model *m, tess_precision precision, int64_t n_pictures,
                              tess_pack_report *out)
{
    const tess_pack_mode f32 = {TESS_F32, TESS_SPARED_NONE};
    samples s = {0};
    float *exact = NULL;
    tess_status st = make_samples(m, n_pictures, &s);
    *out = (tess_pack_report){.n_pictures = s.n_pictures, .n_texts = s.n_texts};
    st = st ? st : tess__model_set_mode(m, &f32);
    st = st ? st : embed(m, &s, &exact);
    st = st ? st : try_modes(m, precision, &s, exact, out);
    tess_free(exact);
    tess_free(s.pictures);
    tess_ids_deinit(&s.tokens);
    return st;
}
