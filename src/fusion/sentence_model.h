/* SPDX-License-Identifier: Apache-2.0 */
/* Text-only models: see fusion/sentence_config.h for the directory. */
#ifndef TESSERA_FUSION_SENTENCE_MODEL_H
#define TESSERA_FUSION_SENTENCE_MODEL_H

#include "fusion/model.h"
#include "fusion/sentence_config.h"

TESS_MUST_USE tess_status tess__sentence_open(const char *dir, tess_precision precision,
                                              tess_model **out);

/* Config and tokenizer; the store is not laid out. */
TESS_MUST_USE tess_status tess__sentence_open_config(const char *dir, tess_precision precision,
                                                     tess_model **out);

/* All tensors of the directory, those of a Dense module behind its folder's name, and the layout
 * that they have; its names are in the arena, as is the path of the encoder's weights. */
TESS_MUST_USE tess_status tess__sentence_tensors(const tess_model *m, const char *dir,
                                                 tess_arena *arena, const char **out_path,
                                                 tess_layout *out_layout, tess_tensors **out);

/* Writes the model into a directory of the kind that it came from: its configs and its tokenizer as
 * they are there, its parameters in f32 or (keep_types) in the types that they had there. */
TESS_MUST_USE tess_status tess__sentence_save(const tess_model *m, const char *dir,
                                              bool keep_types);

/* A text as sentence-transformers tokenizes it: prompt, text, the tokenizer's own marks; cut to the
 * context.  TESS_FORMAT: not UTF-8. */
TESS_MUST_USE tess_status tess__sentence_tokenize(const tess_model *m, const char *text,
                                                  size_t n_bytes, tess_tokenizer_scratch *scratch,
                                                  tess_ids *out);

#endif
