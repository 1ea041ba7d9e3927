/* SPDX-License-Identifier: Apache-2.0 */
/* A text tower of transformers inside an OpenCLIP model: text_cfg with hf_model_name.
 *
 * OpenCLIP names a model of a hub there and takes its config from the network.  Here the sizes come
 * from a config.json in the model's own directory, or from a table of well-known names. */
#ifndef TESSERA_FUSION_HF_TEXT_H
#define TESSERA_FUSION_HF_TEXT_H

#include "fusion/layout.h"
#include "fusion/model_config.h"

/* The folder that a written directory keeps the text tower's config.json in. */
#define TESS_HF_TEXT_FOLDER "text"

typedef struct tess_hf_text {
    const char *model;  /* hf_model_name */
    const char *proj;   /* hf_proj_type; NULL: null */
    const char *pooler; /* hf_pooler_type; NULL: null */
    int64_t context_length;
} tess_hf_text;

/* The encoder, its pooling and its projections into out, which keeps what it says of texts and
 * tokenizers; *out_file is the config that was read, relative to dir, or NULL.  The first of
 * config.json, text/config.json and NAME/config.json that is an encoder's (dir NULL: none is looked
 * for), else the table. */
TESS_MUST_USE tess_status tess__hf_text_read(const tess_hf_text *k, const char *dir,
                                             const char *name, int64_t embed_dim, tess_arena *arena,
                                             tess_text_config *out, const char **out_file);
/* OpenCLIP's keys of this tower, into an object that is open.  TESS_UNSUPPORTED: poolings and
 * projections that OpenCLIP has not. */
TESS_MUST_USE tess_status tess__hf_text_write(const tess_text_config *c, tess_json_writer *w);
/* text/config.json for it, unless a well-known name says it. */
TESS_MUST_USE tess_status tess__hf_text_write_config(const tess_text_config *c, const char *dir);
/* text.transformer.*, text.proj.*; a tower that OpenCLIP has not gets no names for its heads. */
void tess__layout_add_hf_text(tess_layout *l, const tess_text_config *c);

#endif
