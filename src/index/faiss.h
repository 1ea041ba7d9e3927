/* SPDX-License-Identifier: Apache-2.0 */
/* The one door to FAISS: a table of functions with the signatures of FAISS's C API.
 *
 * Debian's libfaiss has the C API's headers but not its code, and is built for SSE2 only.  So the
 * table has two makers: our shim over the C++ library (faiss_shim.cpp), and a libfaiss_c.so of the
 * user's own, named by TESSERA_FAISS_C=/path, whose symbols are looked up at run time.  FAISS's
 * headers are included in the shim alone; the opaque struct tags here are the ones they use.
 */
#ifndef TESSERA_INDEX_FAISS_H
#define TESSERA_INDEX_FAISS_H

#include <stdint.h>
#include <stdio.h>

typedef struct FaissIndex_H tess__faiss_index;
typedef struct FaissParameterSpace_H tess__faiss_space;

#define TESS__FAISS_INNER_PRODUCT 0

/* X(member, symbol in libfaiss_c.so, result, parameters).  An int result of 0 is success, otherwise
 * last_error has this thread's text; ntotal, d, is_trained and metric_type answer at once. */
#define TESS__FAISS_FUNCTIONS(X)                                                                   \
    X(index_factory, "faiss_index_factory", int,                                                   \
      (tess__faiss_index * *out, int d, const char *description, int metric))                      \
    X(train, "faiss_Index_train", int, (tess__faiss_index * ix, int64_t n, const float *x))        \
    X(add, "faiss_Index_add", int, (tess__faiss_index * ix, int64_t n, const float *x))            \
    X(search, "faiss_Index_search", int,                                                           \
      (const tess__faiss_index *ix, int64_t n, const float *x, int64_t k, float *distances,        \
       int64_t *labels))                                                                           \
    X(reconstruct_n, "faiss_Index_reconstruct_n", int,                                             \
      (const tess__faiss_index *ix, int64_t first, int64_t n, float *out))                         \
    X(write_index, "faiss_write_index", int, (const tess__faiss_index *ix, FILE *f))               \
    X(read_index, "faiss_read_index", int, (FILE * f, int io_flags, tess__faiss_index **out))      \
    X(free_index, "faiss_Index_free", void, (tess__faiss_index * ix))                              \
    X(ntotal, "faiss_Index_ntotal", int64_t, (const tess__faiss_index *ix))                        \
    X(d, "faiss_Index_d", int, (const tess__faiss_index *ix))                                      \
    X(is_trained, "faiss_Index_is_trained", int, (const tess__faiss_index *ix))                    \
    X(metric_type, "faiss_Index_metric_type", int, (const tess__faiss_index *ix))                  \
    X(space_new, "faiss_ParameterSpace_new", int, (tess__faiss_space * *out))                      \
    X(space_free, "faiss_ParameterSpace_free", void, (tess__faiss_space * space))                  \
    X(set_parameter, "faiss_ParameterSpace_set_index_parameter", int,                              \
      (const tess__faiss_space *space, tess__faiss_index *ix, const char *name, double value))     \
    X(last_error, "faiss_get_last_error", const char *, (void))

typedef struct tess__faiss_api {
#define X(member, symbol, result, parameters) result(*member) parameters;
    TESS__FAISS_FUNCTIONS(X)
#undef X
} tess__faiss_api;

#ifdef __cplusplus
extern "C" {
#endif

/* The shim's table, and the version of the library behind it: "1.7.3". */
extern const tess__faiss_api tess__faiss_shim;
extern const char tess__faiss_version[];

#ifdef __cplusplus
}
#else
#include "tessera/base.h"

/* The chosen table; TESS_UNSUPPORTED when TESSERA_FAISS_C names something that is none. */
TESS_MUST_USE tess_status tess__faiss_get(const tess__faiss_api **out);
/* "FAISS cannot WHAT: its text", or TESS_OK for 0. */
TESS_MUST_USE tess_status tess__faiss_status(const tess__faiss_api *api, int rc, const char *what);
/* What answers: "built in", or the path of the user's library. */
const char *tess__faiss_origin(void);
#endif
#endif
