/* SPDX-License-Identifier: Apache-2.0 */
/* A file of texts, record by record: JSON lines, or CSV and TSV with a header row. */
#ifndef TESSERA_TRAIN_TEXT_SOURCE_H
#define TESSERA_TRAIN_TEXT_SOURCE_H

#include "tessera/data.h"

#include "train/csv.h"

/* The longest text that is kept; what lies behind it is cut off at a character. */
#define TESS__TEXT_MAX ((size_t)64 << 10)

typedef struct tess__texts {
    const char *path, *text_key, *id_key; /* id_key NULL: "key" or "id" */
    tess_bytes map;
    size_t at;    /* where the next record begins */
    int64_t line; /* of the record, from 1; of a table, the row */
    bool is_csv;
    tess__csv csv;
    size_t text_column, id_column, n_columns;
    /* the record; valid until the next one */
    tess_buf key, text;
} tess__texts;

/* TESS_INVALID: a table without the columns, a file that is neither.  `t` must stay in place. */
TESS_MUST_USE tess_status tess__texts_open(const char *path, const char *text_key,
                                           const char *id_key, tess__texts *t);
/* The next usable record, or *out_end.  What cannot be used on the way is counted in `bad`. */
TESS_MUST_USE tess_status tess__texts_next(tess__texts *t, tess_bad_list *bad, bool *out_end);
void tess__texts_close(tess__texts *t);

#endif
