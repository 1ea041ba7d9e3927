/* SPDX-License-Identifier: Apache-2.0 */
/* A list of what does not fit between a file's tensors and the parameters, for one message. */
#ifndef TESSERA_TENSOR_MISFITS_H
#define TESSERA_TENSOR_MISFITS_H

#include "tessera/tensor.h"

/* Valid when zeroed.  The message names as many as it holds, and the number of the rest. */
typedef struct tess_misfits {
    tess_buf list;
    int64_t n, n_left_out;
} tess_misfits;
void tess__misfits_add(tess_misfits *m, const char *what, const char *name);
/* "misshapen name (expected ..., found ...)", or "transposed ..." where two dimensions swapped
 * places. */
void tess__misfits_add_shape(tess_misfits *m, const char *name, const tess_shape *found,
                             const tess_shape *expected);
/* "no float type in name (F64)" */
void tess__misfits_add_type(tess_misfits *m, const char *name, const char *dtype);
/* TESS_FORMAT "weights do not fit the model: ..."; TESS_OK when there are none. */
TESS_MUST_USE tess_status tess__misfits_check(const tess_misfits *m);
void tess__misfits_deinit(tess_misfits *m);

#endif
