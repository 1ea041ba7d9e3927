/* SPDX-License-Identifier: Apache-2.0 */
/* The towers as ONNX files: the same graphs that embed and train, built for a symbolic batch.
 *
 * Packed texts become padded ids (B,L).  Which of them count is, with Immich's names, read from the
 * ids alone: all up to the first end id (all, where there is none), so that it does not matter what
 * they are filled up with.  With Optimum's names attention_mask says so; a causal tower looks at
 * the end id too, as Hugging Face CLIP does, whose padding is the end id.  A tower that attends to
 * its padding takes ids of the whole context length and no mask. */
#include "fusion/onnx_towers.h"

#include "tensor/onnx.h"

static const tess_onnx_names names[] = {
    [TESS_ONNX_IMMICH] = {.name = "immich",
                          .picture_file = "visual/model.onnx",
                          .text_file = "textual/model.onnx",
                          .picture_in = "image",
                          .picture_out = "embedding",
                          .ids = "text",
                          .text_out = "embedding"},
    [TESS_ONNX_OPTIMUM] = {.name = "optimum",
                           .picture_file = "onnx/vision_model.onnx",
                           .text_file = "onnx/text_model.onnx",
                           .picture_in = "pixel_values",
                           .picture_out = "image_embeds",
                           .ids = "input_ids",
                           .mask = "attention_mask",
                           .text_out = "text_embeds",
                           .wide_ids = true},
};

const tess_onnx_names *tess__onnx_names(tess_onnx_naming naming)
{
    return &names[naming];
}

static tess_onnx_dim batch_dim(const tess_onnx_export *o)
{
    return (tess_onnx_dim){.size = o->batch, .name = o->batch > 0 ? NULL : "batch_size"};
}

static tess_onnx_options options(const tess_onnx_export *o)
{
    return (tess_onnx_options){
        .half = o->half, .external_data = o->external_data, .max_bytes = o->max_bytes};
}

static tess_status finish(tess_onnx *w, tess_value y, const tess_model *m,
                          const tess_onnx_export *o, const char *name, const char *path)
{
    const tess_onnx_dim dims[] = {batch_dim(o), {.size = m->config.embed_dim}};
    tess__onnx_output(w, y, name, dims, TESS_COUNT(dims));
    return tess__onnx_save(w, path);
}

/* ---- pictures ------------------------------------------------------------------------------ */

static tess_status save_pictures(tess_graph *g, const tess_model *m, const tess_onnx_export *o,
                                 const char *path)
{
    const tess_onnx_names *n = &names[o->naming];
    const int64_t s = m->config.vision.image_size;
    const tess_vit_pictures pictures = tess__finished_pictures(g, TESS_ONNX_BATCH, s);
    const tess_value z = tess__picture_tower(g, m, pictures, false);
    const tess_onnx_dim dims[] = {batch_dim(o), {.size = 3}, {.size = s}, {.size = s}};
    tess_onnx *w = tess__onnx_new(g, m->store, options(o));
    if (!w) {
        return TESS_NOMEM;
    }
    w->scope = "pictures";
    const char *in = tess__onnx_input(w, n->picture_in, TESS_ONNX_FLOAT, dims, TESS_COUNT(dims));
    tess__onnx_bind_batch(w, in);
    tess__onnx_bind(w, pictures.finished, o->half ? tess__onnx_cast(w, in, TESS_ONNX_FLOAT16) : in,
                    TESS_ONNX_FLOAT);
    const tess_status st = finish(w, z, m, o, n->picture_out, path);
    tess__onnx_free(w);
    return st;
}

tess_status tess__onnx_picture_tower(const tess_model *m, const tess_onnx_export *o,
                                     const char *path)
{
    tess_graph *g = tess_graph_new();
    const tess_status st = g ? save_pictures(g, m, o, path) : TESS_NOMEM;
    tess_graph_free(g);
    return st;
}

/* ---- texts --------------------------------------------------------------------------------- */

/* (B,L) bool: true up to the first end id. */
static const char *up_to_end(tess_onnx *w, const char *ids, int64_t eos_id)
{
    const char *wide = tess__onnx_cast(w, ids, TESS_ONNX_INT64);
    const char *ends = TESS_ONNX(w, "Equal", wide, tess__onnx_int(w, eos_id));
    const char *before =
        tess__onnx_add(w,
                       (tess_onnx_node){
                           .op = "CumSum",
                           .in = {tess__onnx_cast(w, ends, TESS_ONNX_INT64), tess__onnx_int(w, 1)},
                           .attr = {TESS_ONNX_I("exclusive", 1)},
                       },
                       NULL);
    return TESS_ONNX(w, "Equal", before, tess__onnx_int(w, 0));
}

static const char *add_mask(tess_onnx *w, const tess_model *m, const tess_onnx_names *n,
                            const char *ids, const tess_onnx_dim *dims)
{
    const tess_text_config *c = &m->config.text;
    if (c->pad_to_context) {
        return "";
    }
    if (!n->mask) {
        return up_to_end(w, ids, c->eos_id);
    }
    const char *given = tess__onnx_input(w, n->mask, TESS_ONNX_INT64, dims, 2);
    given = tess__onnx_cast(w, given, TESS_ONNX_BOOL);
    const bool causal = !c->bert && !c->no_causal_mask;
    return causal ? TESS_ONNX(w, "And", given, up_to_end(w, ids, c->eos_id)) : given;
}

static tess_status save_texts(tess_graph *g, const tess_model *m, const tess_onnx_export *o,
                              const char *path)
{
    const tess_onnx_names *n = &names[o->naming];
    const tess_text_config *c = &m->config.text;
    const tess_text_input in = {
        .tokens = tess_input(g, "tokens", TESS_I32, TESS_SHAPE_OF(TESS_ONNX_ROWS)),
        .positions = tess_input(g, "positions", TESS_I32, TESS_SHAPE_OF(TESS_ONNX_ROWS)),
        .offsets = tess_input(g, "offsets", TESS_I32, TESS_SHAPE_OF(TESS_ONNX_BATCH + 1)),
    };
    const tess_value z = tess__caption_tower(g, m, in, false);
    const tess_onnx_dim length = {.size = c->context_length,
                                  .name = c->pad_to_context ? NULL : "sequence_length"};
    const tess_onnx_dim dims[] = {batch_dim(o), length};
    const tess_onnx_type type = n->wide_ids ? TESS_ONNX_INT64 : TESS_ONNX_INT32;
    tess_onnx *w = tess__onnx_new(g, m->store, options(o));
    if (!w) {
        return TESS_NOMEM;
    }
    w->scope = "ids";
    const char *ids = tess__onnx_input(w, n->ids, type, dims, TESS_COUNT(dims));
    tess__onnx_bind_batch(w, ids);
    tess__onnx_bind(w, in.tokens, ids, type);
    tess__onnx_bind(w, in.positions, tess__onnx_range(w, ids, 1), TESS_ONNX_INT64);
    tess__onnx_bind_segments(w, in.offsets, add_mask(w, m, n, ids, dims));
    const tess_status st = finish(w, z, m, o, n->text_out, path);
    tess__onnx_free(w);
    return st;
}

tess_status tess__onnx_text_tower(const tess_model *m, const tess_onnx_export *o, const char *path)
{
    tess_graph *g = tess_graph_new();
    const tess_status st = g ? save_texts(g, m, o, path) : TESS_NOMEM;
    tess_graph_free(g);
    return st;
}
