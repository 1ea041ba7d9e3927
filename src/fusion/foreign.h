/* SPDX-License-Identifier: Apache-2.0 */
/* Models of other programs: opened from their own directories, with their own tokenizers. */
#ifndef TESSERA_FUSION_FOREIGN_H
#define TESSERA_FUSION_FOREIGN_H

#include "fusion/family.h"
#include "fusion/model.h"

/* Opens a directory of this family. */
TESS_MUST_USE tess_status tess__foreign_open(const tess_family *f, const char *dir,
                                             tess_precision precision, tess_model **out);
/* The config and the tokenizer alone, and a store that is not laid out. */
TESS_MUST_USE tess_status tess__foreign_open_config(const tess_family *f, const char *dir,
                                                    tess_precision precision, tess_model **out);
/* Opens the tokenizer that lies in a model's directory, for a text tower whose text_mode is not
 * "clean", and takes its marks over; a vocabulary of another size is refused. */
TESS_MUST_USE tess_status tess__foreign_tokenizer(tess_model *m, const char *dir);
/* The tokenizer's end and padding ids, where it has them, in place of the config's; the end of a
 * BERT is what its tokenizer puts behind every text. */
TESS_MUST_USE tess_status tess__foreign_take_marks(tess_model *m);
/* A text as its model's own program tokenizes it: with its marks, cut, and filled up where the
 * tower attends to the filling. */
TESS_MUST_USE tess_status tess__foreign_tokenize(const tess_model *m, const char *text,
                                                 size_t n_bytes, tess_tokenizer_scratch *scratch,
                                                 tess_ids *out);

#endif
