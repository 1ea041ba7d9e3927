/* SPDX-License-Identifier: Apache-2.0 */
/* Classes of characters as the home libraries see them; the tables come from script/text-tables. */
#ifndef TESS_TEXT_CHAR_CLASS_H
#define TESS_TEXT_CHAR_CLASS_H

#include "tessera/base.h"

typedef enum tess__char_class {
    TESS__CHAR_SPACE,
    TESS__CHAR_LETTER,
    TESS__CHAR_NUMBER,
    TESS__CHAR_CLIP_LETTER,
    TESS__CHAR_CLIP_NUMBER,
    TESS__CHAR_CLIP_DROPPED,
    TESS__CHAR_BERT_CONTROL,
    TESS__CHAR_BERT_PUNCT,
    TESS__CHAR_BERT_MARK,
    TESS__CHAR_MARK,
    TESS__CHAR_CASED,
    TESS__CHAR_CASE_IGNORABLE,
    TESS__CHAR_UNKNOWN,
    TESS__CHAR_CLASSES,
} tess__char_class;

typedef struct tess__char_range {
    uint32_t first, last; /* of the exceptions of lower case: from, to */
} tess__char_range;
typedef struct tess__char_table {
    const tess__char_range *ranges;
    size_t n;
} tess__char_table;
extern const tess__char_table tess__char_tables[TESS__CHAR_CLASSES];
extern const tess__char_range tess__lower_exceptions[];
extern const size_t tess__n_lower_exceptions;

bool tess__char_is(tess__char_class class, uint32_t c);

/* The code point at s (well-formed UTF-8, n_left > 0) and its bytes. */
uint32_t tess__char_at(const char *s, size_t n_left, size_t *out_bytes);
/* Writes a code point as UTF-8; returns the bytes, at most 4. */
size_t tess__char_put(uint32_t c, char *out);
/* The code point that ends at s + at (well-formed UTF-8, at > 0) and where it begins. */
uint32_t tess__char_before(const char *s, size_t at, size_t *out_start);

#endif
