/* SPDX-License-Identifier: Apache-2.0 */
/* rows.sqlite: one row per vector, and full text over the captions.  The one door to SQLite. */
#ifndef TESSERA_INDEX_ROWS_H
#define TESSERA_INDEX_ROWS_H

#include "index/vectors.h"

typedef struct tess__rows tess__rows;

/* A new file for writing, in one transaction. */
TESS_MUST_USE tess_status tess__rows_create(const char *path, tess__rows **out);
/* Adds rows with ids first, first+1, ...: all of them or none.  Strings must be UTF-8; a key that
 * is there already is TESS_INVALID and named. */
TESS_MUST_USE tess_status tess__rows_add(tess__rows *r, const tess_row *rows, int64_t n,
                                         int64_t first);
/* Commits, syncs and closes; frees also on failure. */
TESS_MUST_USE tess_status tess__rows_finish(tess__rows *r);

/* Opens what finish left, read-only, after comparing its bytes with `facts`. */
TESS_MUST_USE tess_status tess__rows_open(const char *path, const tess__file_facts *facts,
                                          int64_t n_rows, tess__rows **out);
/* The readers below may be called from several threads. */
TESS_MUST_USE tess_status tess__rows_get(tess__rows *r, int64_t id, tess_arena *arena,
                                         tess_row *out);
TESS_MUST_USE tess_status tess__rows_find(tess__rows *r, const char *key, int64_t *out_id);
TESS_MUST_USE tess_status tess__rows_match(tess__rows *r, const char *words, int64_t k,
                                           tess_hit *out_hits, int64_t *out_n_hits);
/* Rows of a kind; looks at all of them. */
TESS_MUST_USE tess_status tess__rows_count(tess__rows *r, tess_row_kind kind, int64_t *out);
/* Closes and frees; what was not finished is rolled back. */
void tess__rows_close(tess__rows *r);

/* The texts of a row's captions, one a line, for the full-text table.  TESS_INVALID when it is not
 * a string, an array of strings, or an object of these. */
TESS_MUST_USE tess_status tess__captions_text(const char *captions, const char *name,
                                              tess_buf *out);

#endif
