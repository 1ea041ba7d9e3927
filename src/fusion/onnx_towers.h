/* SPDX-License-Identifier: Apache-2.0 */
/* The towers of a model as ONNX files. */
#ifndef TESSERA_FUSION_ONNX_TOWERS_H
#define TESSERA_FUSION_ONNX_TOWERS_H

#include "fusion/model.h"

/* What a consumer calls things. */
typedef struct tess_onnx_names {
    const char *name;
    const char *picture_file, *text_file;
    const char *picture_in, *picture_out;
    const char *ids, *mask, *text_out; /* mask NULL: none; texts end behind the end id */
    bool wide_ids;                     /* i64, else i32 */
} tess_onnx_names;
const tess_onnx_names *tess__onnx_names(tess_onnx_naming naming);

TESS_MUST_USE tess_status tess__onnx_picture_tower(const tess_model *m, const tess_onnx_export *o,
                                                   const char *path);
TESS_MUST_USE tess_status tess__onnx_text_tower(const tess_model *m, const tess_onnx_export *o,
                                                const char *path);

#endif
