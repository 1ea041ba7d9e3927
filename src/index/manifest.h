/* SPDX-License-Identifier: Apache-2.0 */
/* manifest.json: what an index directory holds. */
#ifndef TESSERA_INDEX_MANIFEST_H
#define TESSERA_INDEX_MANIFEST_H

#include "index/vectors.h"

#define TESS__MANIFEST_NAME    "manifest.json"
#define TESS__MANIFEST_VERSION 1

/* Strings live in the caller's arena. */
typedef struct tess__manifest {
    int64_t version;
    char *tessera; /* the version that wrote it */
    char *fingerprint;
    char *model; /* NULL: not recorded */
    int64_t dim, n_rows;
    char *factory;
    int64_t ef_search, n_probe; /* 0 where the factory has none */
    tess__file_facts vectors, rows;
} tess__manifest;

/* Reads the text of a manifest, `name` for messages.  Everything is range-checked; file names are
 * plain names inside the directory.  Does not look at the text's own checksum. */
TESS_MUST_USE tess_status tess__manifest_parse(const char *text, size_t n_bytes, const char *name,
                                               tess_arena *arena, tess__manifest *out);
/* Reads DIR/manifest.json and compares its own checksum, so that no flipped bit in it passes. */
TESS_MUST_USE tess_status tess__manifest_load(const char *dir, tess_arena *arena,
                                              tess__manifest *out);
/* Writes it, whole or absent. */
TESS_MUST_USE tess_status tess__manifest_save(const tess__manifest *m, const char *dir);
/* Appends its facts as the members of an open JSON object. */
void tess__manifest_write(const tess__manifest *m, tess_json_writer *w);

#endif
