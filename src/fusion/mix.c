/* SPDX-License-Identifier: Apache-2.0 */
/* A model of two others: the image tower and the pixels of one, the text tower and the tokenizer of
 * another, and between them a projection into the first one's space.
 *
 * Its config is written as its directory will hold it and read back, so that what is mixed is what
 * opens later; parameters are then taken over by their names.  Where a projection is new it is
 * drawn from the seed, and the towers have still to meet: docs/mixtures.md. */
#include "fusion/foreign.h"
#include "fusion/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct mixing {
    tess_model *image, *text; /* where the towers come from */
    tess_model *out;
    tess_model_config config; /* strings are those of the two */
    tess_bert_config bert;
    bool is_fresh;      /* the projection is new */
    int64_t fresh_head; /* of a BERT tower: the first new head */
} mixing;

/* ---- the projection ------------------------------------------------------------------------ */

/* Whether a sentence encoder ends in a Dense layer, or a two-tower model in a projection. */
static bool has_projection(const tess_text_config *c)
{
    return c->bert ? c->bert->n_heads > 0 : !c->proj_type || strcmp(c->proj_type, "none") != 0;
}

static int64_t width_of(const mixing *x)
{
    return tess_model_embed_dim(x->text);
}

static tess_status choose_projection(mixing *x, tess_mix_projection asked)
{
    const int64_t dim = tess_model_embed_dim(x->image);
    const bool fits = width_of(x) == dim;
    if (asked == TESS_MIX_KEEP && !fits) {
        return TESS_FAIL(TESS_INVALID,
                         "the text tower gives vectors of %lld, the image tower of %lld: they need "
                         "a new projection (auto, linear or mlp)",
                         (long long)width_of(x), (long long)dim);
    }
    if (asked == TESS_MIX_MLP && !x->config.text.bert) {
        return TESS_FAIL(TESS_UNSUPPORTED, "a projection of two layers is for BERT and XLM-R; this "
                                           "text tower has one of its own kind: linear");
    }
    x->is_fresh =
        asked == TESS_MIX_AUTO ? !fits || !has_projection(&x->config.text) : asked != TESS_MIX_KEEP;
    return TESS_OK;
}

static tess_status add_head(mixing *x, int64_t width, const char *act)
{
    if (x->bert.n_heads >= TESS_BERT_HEADS) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "the text tower has %d dense layers already: no room "
                         "for a projection",
                         TESS_BERT_HEADS);
    }
    x->bert.heads[x->bert.n_heads++] = (tess_bert_head){.width = width, .act = act};
    return TESS_OK;
}

/* Whether the last dense layer is what led into another model's space: a pooler has an activation.
 */
static bool ends_in_projection(const mixing *x)
{
    const int64_t n = x->bert.n_heads;
    return !x->text->config.sentence && n > 0 && !x->bert.heads[n - 1].act;
}

/* Behind the Dense layers of a sentence encoder, in place of another mixture's projection.  The
 * hidden width of two layers is OpenCLIP's: the mean of both sides. */
static tess_status project_bert(mixing *x, tess_mix_projection asked)
{
    const int64_t dim = tess_model_embed_dim(x->image);
    x->bert.n_heads -= ends_in_projection(x);
    x->fresh_head = x->bert.n_heads;
    x->config.text.bert = &x->bert;
    const int64_t width = tess__bert_width(&x->config.text);
    if (asked == TESS_MIX_MLP) {
        TESS_TRY(add_head(x, (width + dim) / 2, "gelu"));
    }
    return add_head(x, dim, NULL);
}

static bool is_fresh(const mixing *x, const char *name)
{
    if (!x->is_fresh) {
        return false;
    }
    if (!x->config.text.bert) {
        return strncmp(name, "text_projection", 15) == 0;
    }
    return strncmp(name, "head.", 5) == 0 && strtoll(name + 5, NULL, 10) >= x->fresh_head;
}

/* ---- config and tokenizer ------------------------------------------------------------------ */

static tess_status join_configs(mixing *x, tess_mix_projection asked)
{
    tess_model_config *c = &x->config;
    const tess_model_config *text = &x->text->config;
    *c = x->image->config;
    c->text = text->text;
    c->custom_text |= text->custom_text;
    TESS_TRY(choose_projection(x, asked));
    if (c->text.bert) {
        x->bert = *c->text.bert;
        c->text.mlp_ratio = fmin(fmax(c->text.mlp_ratio, 0.01), 64); /* of no use to it */
        return x->is_fresh ? project_bert(x, asked) : TESS_OK;
    }
    if (x->is_fresh) {
        c->text.proj_type = "linear";
    }
    return TESS_OK;
}

/* Through its file's text: strings come to lie in the new model's arena, and what could not be
 * opened again is not made. */
static tess_status take_config(mixing *x)
{
    tess_buf text = {0};
    tess_json_doc *doc = NULL;
    tess__model_config_write(&x->config, &text);
    tess_status st = tess_buf_check(&text);
    st = st ? st : tess_json_parse(text.data, text.n_bytes, "the mixture", &doc);
    st = st ? st
            : tess__model_config_read(tess_json_root(doc), "the mixture", &x->out->arena,
                                      &x->out->config);
    tess_json_free(doc);
    tess_buf_deinit(&text);
    return st;
}

static tess_status take_tokenizer(mixing *x)
{
    x->out->tokenizer = x->text->tokenizer;
    x->text->tokenizer = NULL;
    return tess__text_is_clean(&x->out->config.text) ? TESS_OK : tess__foreign_take_marks(x->out);
}

/* ---- parameters ---------------------------------------------------------------------------- */

static const tess_model *owner(const mixing *x, const char *name)
{
    const bool shared = strncmp(name, "visual.", 7) == 0 || strncmp(name, "logit_", 6) == 0;
    return shared ? x->image : x->text;
}

static tess_status take_params(mixing *x)
{
    tess_store *s = x->out->store;
    for (int64_t i = 0; i < tess_store_n_entries(s, "param"); i++) {
        float *data;
        tess_shape want, have;
        const char *name = tess_store_entry(s, "param", i, &data, &want);
        if (is_fresh(x, name)) {
            continue;
        }
        const float *from = tess_store_find(owner(x, name)->store, "param", name, &have);
        if (!from || !tess_shape_equal(&want, &have)) {
            return TESS_FAIL(TESS_INVALID, "%s: the model that it comes from has none of its shape",
                             name);
        }
        memcpy(data, from, (size_t)tess_shape_count(&want) * sizeof *data);
    }
    return TESS_OK;
}

/* ---- comparing ----------------------------------------------------------------------------- */

static void describe_image(const tess_model *m, tess_buf *out)
{
    tess_json_writer w = {.buf = out};
    tess__vit_config_write(&m->config.vision, &w);
    tess_preprocess_write(&m->config.preprocess, out);
}

static bool same_config(const tess_model *a, const tess_model *b)
{
    tess_buf x = {0}, y = {0};
    describe_image(a, &x);
    describe_image(b, &y);
    const bool same =
        !x.failed && !y.failed && x.n_bytes == y.n_bytes && memcmp(x.data, y.data, x.n_bytes) == 0;
    tess_buf_deinit(&x);
    tess_buf_deinit(&y);
    return same;
}

bool tess_model_same_image_tower(const tess_model *a, const tess_model *b)
{
    bool same = tess_model_has_image(a) && tess_model_has_image(b) && same_config(a, b);
    for (int64_t i = 0; same && i < tess_store_n_entries(a->store, "param"); i++) {
        float *data;
        tess_shape x, y;
        const char *name = tess_store_entry(a->store, "param", i, &data, &x);
        if (strncmp(name, "visual.", 7) == 0) {
            const float *other = tess_store_find(b->store, "param", name, &y);
            same = data && other && tess_shape_equal(&x, &y) &&
                   memcmp(data, other, (size_t)tess_shape_count(&x) * sizeof *data) == 0;
        }
    }
    return same;
}

/* ---- the whole ----------------------------------------------------------------------------- */

static tess_status open_both(mixing *x, const tess_mix_options *o)
{
    tess_status st = tess_model_open(o->image, TESS_PRECISION_F32, &x->image);
    if (st == TESS_OK && !tess_model_has_image(x->image)) {
        st = TESS_FAIL(TESS_INVALID,
                       "%s has a text tower alone: name it as the text tower's model, and one with "
                       "pictures as the image tower's",
                       o->image);
    }
    TESS_TRY(st ? tess_error_prefix(st, "the image tower's model") : TESS_OK);
    st = tess_model_open(o->text, TESS_PRECISION_F32, &x->text);
    TESS_TRY(st ? tess_error_prefix(st, "the text tower's model") : TESS_OK);
    if (x->text->prompt && *x->text->prompt) {
        tess_log(TESS_LOG_WARN, "%s puts the prompt \"%s\" before its texts; a mixture has none",
                 o->text, x->text->prompt);
    }
    return TESS_OK;
}

static tess_status mix(mixing *x, const tess_mix_options *o)
{
    TESS_TRY(open_both(x, o));
    TESS_TRY(join_configs(x, o->projection));
    TESS_TRY(tess__model_alloc(TESS_PRECISION_F32, &x->out));
    TESS_TRY(take_config(x));
    TESS_TRY(take_tokenizer(x));
    TESS_TRY(tess__model_make_store(x->out));
    TESS_TRY(tess_store_allocate(x->out->store));
    TESS_TRY(tess__model_init_params(x->out, o->seed));
    return take_params(x);
}

tess_status tess_model_mix(const tess_mix_options *o, tess_mix_report *report, tess_model **out)
{
    mixing x = {0};
    *out = NULL;
    tess_status st = mix(&x, o);
    if (st) {
        tess_model_free(x.out);
    } else {
        *report = (tess_mix_report){.text_dim = width_of(&x),
                                    .embed_dim = tess_model_embed_dim(x.out),
                                    .is_fresh = x.is_fresh};
        *out = x.out;
    }
    tess_model_free(x.image);
    tess_model_free(x.text);
    return st;
}
