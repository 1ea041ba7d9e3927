/* SPDX-License-Identifier: Apache-2.0 */
/* The families of model directories: how each is recognised, read and written.
 *
 *   OpenCLIP       open_clip_config.json, open_clip_model.safetensors; Tessera's own among them
 *   Hugging Face   config.json with a model_type, preprocessor_config.json, model.safetensors
 *
 * A new family is a config reader, a layout and a row in family.c. */
#ifndef TESSERA_FUSION_FAMILY_H
#define TESSERA_FUSION_FAMILY_H

#include "fusion/layout.h"
#include "fusion/model_config.h"

typedef struct tess_family {
    const char *name;
    const char *config;     /* the file that makes a directory one of these */
    const char *weights[4]; /* the files of its weights, the first that is there; NULL ends them */
    /* False: the config is another family's, or no model's. */
    bool (*owns)(const tess_json *root);
    /* Reads the directory's configs; strings live in the arena. */
    tess_status (*read)(const tess_json *root, const char *dir, const char *path, tess_arena *arena,
                        tess_model_config *out);
    /* The layout of the weights of such a config. */
    tess_layout (*layout)(const tess_model_config *c);
    /* The config files that say this model in the directory; what it cannot say is refused. */
    tess_status (*write)(const tess_model_config *c, const char *dir);
    const char *const *configs; /* all config files, NULL last; for carrying them over */
} tess_family;

/* The family of a directory: the first whose config and weights are there. */
TESS_MUST_USE tess_status tess__family_find(const char *dir, const tess_family **out);
/* Why no model of any kind is here, for a directory without open_clip_config.json. */
TESS_MUST_USE tess_status tess__family_none(const char *dir);
/* By its short name ("openclip", "hf"); NULL: none. */
const tess_family *tess__family_named(const char *name);
/* Opens the directory's weights under one of the family's names, whole or in shards; pickles are
 * refused with the line that converts them.  *out_path is what was opened, in the arena. */
TESS_MUST_USE tess_status tess__family_weights(const tess_family *f, const char *dir,
                                               tess_arena *arena, const char **out_path,
                                               tess_tensors **out);

/* ---- OpenCLIP ------------------------------------------------------------------------------ */

/* open_clip_config.json of OpenCLIP itself (without Tessera's object); what it leaves to other
 * files is looked for in dir (NULL: nowhere). */
TESS_MUST_USE tess_status tess__openclip_read(const tess_json *root, const char *dir,
                                              const char *path, tess_arena *arena,
                                              tess_model_config *out);
TESS_MUST_USE tess_status tess__openclip_write(const tess_model_config *c, tess_buf *out);
/* A timm trunk of the SigLIP family, by its name or by its shape; NULL: none such. */
typedef struct tess_timm_trunk {
    const char *name;
    int64_t width, layers, heads, hidden, patch_size, image_size;
    const char *act;
} tess_timm_trunk;
const tess_timm_trunk *tess__timm_find(const char *name);
const tess_timm_trunk *tess__timm_match(const tess_vit_config *c);

/* ---- Hugging Face -------------------------------------------------------------------------- */

/* config.json, and preprocessor_config.json (NULL root: absent) for it. */
TESS_MUST_USE tess_status tess__hf_read(const tess_json *root, const char *path, tess_arena *arena,
                                        tess_model_config *out);
TESS_MUST_USE tess_status tess__hf_read_preprocess(const tess_json *root, const char *path,
                                                   tess_arena *arena, tess_model_config *out);
TESS_MUST_USE tess_status tess__hf_write(const tess_model_config *c, tess_buf *out);
TESS_MUST_USE tess_status tess__hf_write_preprocess(const tess_model_config *c, tess_buf *out);

#endif
