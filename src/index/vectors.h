/* SPDX-License-Identifier: Apache-2.0 */
/* Unit vectors in a FAISS index: built, saved, loaded, searched. */
#ifndef TESSERA_INDEX_VECTORS_H
#define TESSERA_INDEX_VECTORS_H

#include "tessera/index.h"

typedef struct tess__vectors tess__vectors;

/* How a file must look, as the manifest says; written by save, compared by load. */
typedef struct tess__file_facts {
    char *name;
    int64_t n_bytes;
    char *xxh3; /* 32 hex digits */
} tess__file_facts;

/* Trains `factory` on x (N,Z) f32 and adds it. */
TESS_MUST_USE tess_status tess__vectors_build(const char *factory, const float *x, int64_t n,
                                              int64_t dim, int n_threads, tess__vectors **out);
/* Writes the FAISS file, whole or absent; gives its length and checksum. */
TESS_MUST_USE tess_status tess__vectors_save(const tess__vectors *v, const char *path,
                                             int64_t *out_bytes, char out_xxh3[33]);
/* Loads what save wrote.  The bytes are compared with `facts` before FAISS sees them, since FAISS
 * trusts its files; then count and dimension are compared with n and dim. */
TESS_MUST_USE tess_status tess__vectors_load(const char *path, const tess__file_facts *facts,
                                             int64_t n, int64_t dim, tess__vectors **out);
/* Sets what FAISS must know before a search; `factory` says which of the two it has.  FAISS 1.7.3
 * ignores an efSearch given with a query, and stores 16. */
TESS_MUST_USE tess_status tess__vectors_set_search(tess__vectors *v, const char *factory,
                                                   int64_t ef_search, int64_t n_probe);
/* queries (Q,Z) unit f32; hits (Q,K) and n_hits (Q) as in tess_index_search. */
TESS_MUST_USE tess_status tess__vectors_search(const tess__vectors *v, const float *queries,
                                               int64_t n_queries, int64_t k, tess_hit *out_hits,
                                               int64_t *out_n_hits);
/* Rows first .. first + n - 1, as they were added, into out (n,Z); of a Flat index. */
TESS_MUST_USE tess_status tess__vectors_get(const tess__vectors *v, int64_t first, int64_t n,
                                            float *out);
void tess__vectors_free(tess__vectors *v);

/* Scales x (Z) to unit length into out (Z).  TESS_INVALID when it is not finite or has no length.
 */
TESS_MUST_USE tess_status tess__unit_vector(const float *x, int64_t dim, float *out);

/* Maps a file and compares its size and checksum with `facts`; the caller unmaps. */
TESS_MUST_USE tess_status tess__file_map_checked(const char *path, const tess__file_facts *facts,
                                                 tess_bytes *out);
/* The checksum of bytes in memory. */
TESS_MUST_USE tess_status tess__xxh3_hex(const void *data, size_t n_bytes, char out_hex[33]);

#endif
