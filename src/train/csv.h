/* SPDX-License-Identifier: Apache-2.0 */
/* csv: walks the rows of a CSV or TSV file that lies in memory. */
#ifndef TESSERA_TRAIN_CSV_H
#define TESSERA_TRAIN_CSV_H

#include "tessera/base.h"

#define TESS__CSV_ROW_MAX (1u << 20)

typedef struct tess__csv {
    tess_bytes map;
    size_t at;
    char separator;
    /* the row: field i is text.data[starts[i]] up to the next NUL at starts[i + 1] - 1 */
    tess_buf text;
    size_t *starts;
    size_t n_fields, cap_starts;
    size_t row_at, row_bytes; /* where in the map, line end included */
} tess__csv;

/* The next row that is not blank; *out_end when there is none.  *out_ok false: a row above 1 MiB
 * or whose quotes do not close; the walk goes on at the next line. */
TESS_MUST_USE tess_status tess__csv_next(tess__csv *c, bool *out_end, bool *out_ok);
/* NUL-terminated; *out_bytes counts NULs inside too. */
const char *tess__csv_field(const tess__csv *c, size_t i, size_t *out_bytes);
void tess__csv_deinit(tess__csv *c);

#endif
