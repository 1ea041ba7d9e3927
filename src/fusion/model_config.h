/* SPDX-License-Identifier: Apache-2.0 */
/* The config of a two-tower model: OpenCLIP's model_cfg and preprocess_cfg, and Tessera's own
 * object "tessera" beside them. */
#ifndef TESSERA_FUSION_MODEL_CONFIG_H
#define TESSERA_FUSION_MODEL_CONFIG_H

#include "tessera/fusion.h"

#include "fusion/sentence_config.h"
#include "text/text_tower.h"
#include "vision/vit.h"

typedef struct tess_model_config {
    int64_t embed_dim;
    double init_logit_scale, init_logit_bias;
    bool has_logit_bias, quick_gelu;
    bool custom_text; /* OpenCLIP keeps the text tower under "text." */
    tess_vit_config vision;
    tess_text_config text;
    const char *text_config_file; /* of a text tower of transformers, in its directory; or NULL */
    tess_preprocess preprocess;
    tess_objectives objectives;
    const tess_sentence_config *sentence; /* a text-only model; NULL: two towers */
} tess_model_config;

/* Strings live in the arena; `path` is for messages: "path: model_cfg.vision_cfg.key: ...". */
TESS_MUST_USE tess_status tess__model_config_read(const tess_json *root, const char *path,
                                                  tess_arena *arena, tess_model_config *out);
TESS_MUST_USE tess_status tess__model_config_load(const char *path, tess_arena *arena,
                                                  tess_model_config *out);
/* preprocess_cfg, which must agree with the image tower; `name` is for messages. */
TESS_MUST_USE tess_status tess__read_preprocess(const tess_json *obj, const char *name,
                                                tess_model_config *c);
void tess__model_config_write(const tess_model_config *c, tess_buf *out);

#endif
