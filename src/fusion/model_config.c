/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing open_clip_config.json.
 *
 * Every object is read by a table that refuses unknown keys, so a misspelt option never trains a
 * different model in silence. */
#include "fusion/model_config.h"

#include <math.h>
#include <string.h>

typedef struct top {
    const tess_json *model, *preprocess, *tessera;
} top;

static const tess_field top_fields[] = {
    {"model_cfg", TESS_FIELD_OBJECT, offsetof(top, model), 0, 0},
    {"preprocess_cfg", TESS_FIELD_OBJECT, offsetof(top, preprocess), 0, 0},
    {"tessera", TESS_FIELD_OBJECT, offsetof(top, tessera), 0, 0},
};

typedef struct model_part {
    int64_t embed_dim;
    double init_logit_scale, init_logit_bias;
    bool quick_gelu, custom_text;
    const tess_json *vision, *text;
} model_part;

static const tess_field model_fields[] = {
    {"embed_dim", TESS_FIELD_INT, offsetof(model_part, embed_dim), 1, 65536},
    {"init_logit_scale", TESS_FIELD_REAL, offsetof(model_part, init_logit_scale), -20, 20},
    {"init_logit_bias", TESS_FIELD_REAL, offsetof(model_part, init_logit_bias), -100, 100},
    {"quick_gelu", TESS_FIELD_BOOL, offsetof(model_part, quick_gelu), 0, 0},
    {"custom_text", TESS_FIELD_BOOL, offsetof(model_part, custom_text), 0, 0},
    {"vision_cfg", TESS_FIELD_OBJECT, offsetof(model_part, vision), 0, 0},
    {"text_cfg", TESS_FIELD_OBJECT, offsetof(model_part, text), 0, 0},
};

typedef struct objective_part {
    const char *kind;
    double weight;
} objective_part;

static const tess_field objective_fields[] = {
    {"kind", TESS_FIELD_STRING, offsetof(objective_part, kind), 0, 0},
    {"weight", TESS_FIELD_REAL, offsetof(objective_part, weight), 0, 1e6},
};

typedef struct tessera_part {
    const tess_json *image_text, *text_text;
    bool custom_text; /* of the OpenCLIP model that it came from */
} tessera_part;

static const tess_field tessera_fields[] = {
    {"image_text", TESS_FIELD_OBJECT, offsetof(tessera_part, image_text), 0, 0},
    {"text_text", TESS_FIELD_OBJECT, offsetof(tessera_part, text_text), 0, 0},
    {"custom_text", TESS_FIELD_BOOL, offsetof(tessera_part, custom_text), 0, 0},
};

static tess_status read_objective(const tess_json *obj, const char *name, tess_arena *arena,
                                  tess_objective *out)
{
    if (!obj) {
        return TESS_OK;
    }
    objective_part part = {.kind = "softmax", .weight = out->weight ? out->weight : 1.0};
    TESS_TRY(tess_json_read_fields(obj, name, objective_fields, TESS_COUNT(objective_fields), arena,
                                   &part));
    bool sigmoid = strcmp(part.kind, "sigmoid") == 0;
    if (!sigmoid && strcmp(part.kind, "softmax") != 0) {
        return TESS_FAIL(TESS_UNSUPPORTED, "%s: kind: expected softmax or sigmoid, found \"%s\"",
                         name, part.kind);
    }
    *out = (tess_objective){.kind = sigmoid ? TESS_OBJECTIVE_SIGMOID : TESS_OBJECTIVE_SOFTMAX,
                            .weight = part.weight};
    return TESS_OK;
}

static tess_status read_model(const tess_json *obj, const char *name, tess_arena *arena,
                              tess_model_config *c)
{
    model_part part = {.embed_dim = 512, .init_logit_scale = log(1 / 0.07), .init_logit_bias = NAN};
    TESS_TRY(
        tess_json_read_fields(obj, name, model_fields, TESS_COUNT(model_fields), arena, &part));
    if (part.custom_text) {
        return TESS_FAIL(TESS_UNSUPPORTED, "%s: custom_text: only the native text tower is known",
                         name);
    }
    if (!part.vision || !part.text) {
        return TESS_FAIL(TESS_INVALID, "%s: expected vision_cfg and text_cfg", name);
    }
    c->embed_dim = part.embed_dim;
    c->init_logit_scale = part.init_logit_scale;
    c->has_logit_bias = !isnan(part.init_logit_bias);
    c->init_logit_bias = c->has_logit_bias ? part.init_logit_bias : 0;
    c->quick_gelu = part.quick_gelu;
    c->vision = tess__vit_default();
    c->text = tess__text_default();
    if (part.quick_gelu) {
        c->vision.act = c->text.act = "quick_gelu";
    }
    const char *vision = tess_arena_format(arena, "%s.vision_cfg", name);
    const char *text = tess_arena_format(arena, "%s.text_cfg", name);
    if (!vision || !text) {
        return TESS_NOMEM;
    }
    TESS_TRY(tess__vit_config_read(part.vision, vision, arena, &c->vision));
    TESS_TRY(tess__text_config_read(part.text, text, arena, &c->text));
    if (c->text.bert && tess__bert_width(&c->text) != c->embed_dim) {
        return TESS_FAIL(TESS_INVALID,
                         "%s: the text tower gives vectors of %lld, but embed_dim is "
                         "%lld",
                         text, (long long)tess__bert_width(&c->text), (long long)c->embed_dim);
    }
    return TESS_OK;
}

static tess_status read_tessera(const tess_json *obj, const char *path, tess_arena *arena,
                                tess_model_config *c)
{
    tess_objectives *out = &c->objectives;
    *out = (tess_objectives){.image_text = {TESS_OBJECTIVE_SOFTMAX, 1.0}};
    if (!obj) {
        return TESS_OK;
    }
    tessera_part part = {0};
    const char *name = tess_arena_format(arena, "%s: tessera", path);
    const char *image_text = tess_arena_format(arena, "%s: tessera.image_text", path);
    const char *text_text = tess_arena_format(arena, "%s: tessera.text_text", path);
    if (!name || !image_text || !text_text) {
        return TESS_NOMEM;
    }
    TESS_TRY(
        tess_json_read_fields(obj, name, tessera_fields, TESS_COUNT(tessera_fields), arena, &part));
    c->custom_text = part.custom_text;
    TESS_TRY(read_objective(part.image_text, image_text, arena, &out->image_text));
    return read_objective(part.text_text, text_text, arena, &out->text_text);
}

tess_status tess__read_preprocess(const tess_json *obj, const char *name, tess_model_config *c)
{
    const int32_t side = (int32_t)c->vision.image_size;
    c->preprocess = tess_preprocess_default();
    TESS_TRY(tess_preprocess_read(obj, name, &c->preprocess));
    if (!tess_json_get(obj, "size")) {
        c->preprocess.width = c->preprocess.height = side;
    }
    if (c->preprocess.width != side || c->preprocess.height != side) {
        return TESS_FAIL(TESS_INVALID, "%s.size is %d x %d, but vision_cfg.image_size is %d", name,
                         c->preprocess.width, c->preprocess.height, side);
    }
    return TESS_OK;
}

tess_status tess__model_config_read(const tess_json *root, const char *path, tess_arena *arena,
                                    tess_model_config *c)
{
    top t = {0};
    /* A bare model_cfg, as in OpenCLIP's presets, is taken too. */
    bool bare = tess_json_get(root, "vision_cfg") != NULL;
    const char *name = bare ? path : tess_arena_format(arena, "%s: model_cfg", path);
    if (!name) {
        return TESS_NOMEM;
    }
    if (bare) {
        t.model = root;
    } else {
        TESS_TRY(tess_json_read_fields(root, path, top_fields, TESS_COUNT(top_fields), arena, &t));
    }
    if (!t.model) {
        return TESS_FAIL(TESS_INVALID, "%s: expected an object with model_cfg", path);
    }
    TESS_TRY(read_model(t.model, name, arena, c));
    const char *preprocess = tess_arena_format(arena, "%s: preprocess_cfg", path);
    TESS_TRY(preprocess ? TESS_OK : TESS_NOMEM);
    TESS_TRY(tess__read_preprocess(t.preprocess, preprocess, c));
    return read_tessera(t.tessera, path, arena, c);
}

tess_status tess__model_config_load(const char *path, tess_arena *arena, tess_model_config *out)
{
    tess_json_doc *doc = NULL;
    TESS_TRY(tess_json_load(path, &doc));
    tess_status st = tess__model_config_read(tess_json_root(doc), path, arena, out);
    tess_json_free(doc);
    return st;
}

/* ---- writing ------------------------------------------------------------------------------- */

static void write_objective(tess_json_writer *w, const char *key, const tess_objective *o)
{
    objective_part part = {.kind = o->kind == TESS_OBJECTIVE_SIGMOID ? "sigmoid" : "softmax",
                           .weight = o->weight};
    tess_json_key(w, key);
    tess_json_begin_object(w);
    tess_json_add_fields(w, objective_fields, TESS_COUNT(objective_fields), &part);
    tess_json_end_object(w);
}

static void write_model(tess_json_writer *w, const tess_model_config *c)
{
    tess_json_begin_object(w);
    tess_json_key(w, "embed_dim");
    tess_json_add_int(w, c->embed_dim);
    tess_json_key(w, "init_logit_scale");
    tess_json_add_real(w, c->init_logit_scale);
    if (c->has_logit_bias) {
        tess_json_key(w, "init_logit_bias");
        tess_json_add_real(w, c->init_logit_bias);
    }
    tess_json_key(w, "quick_gelu");
    tess_json_add_bool(w, c->quick_gelu);
    tess_json_key(w, "vision_cfg");
    tess__vit_config_write(&c->vision, w);
    tess_json_key(w, "text_cfg");
    tess__text_config_write(&c->text, w);
    tess_json_end_object(w);
}

void tess__model_config_write(const tess_model_config *c, tess_buf *out)
{
    tess_buf preprocess = {0};
    tess_json_doc *doc = NULL;
    tess_json_writer w = {.buf = out, .pretty = true};
    tess_preprocess_write(&c->preprocess, &preprocess);
    tess_json_begin_object(&w);
    tess_json_key(&w, "model_cfg");
    write_model(&w, c);
    tess_json_key(&w, "preprocess_cfg");
    if (preprocess.data &&
        tess_json_parse(preprocess.data, preprocess.n_bytes, "preprocess_cfg", &doc) == TESS_OK) {
        tess_json_add_value(&w, tess_json_root(doc));
    } else {
        out->failed = true;
    }
    tess_json_key(&w, "tessera");
    tess_json_begin_object(&w);
    write_objective(&w, "image_text", &c->objectives.image_text);
    write_objective(&w, "text_text", &c->objectives.text_text);
    if (c->custom_text) {
        tess_json_key(&w, "custom_text");
        tess_json_add_bool(&w, true);
    }
    tess_json_end_object(&w);
    tess_json_end_object(&w);
    tess_buf_adds(out, "\n");
    tess_json_free(doc);
    tess_buf_deinit(&preprocess);
}
