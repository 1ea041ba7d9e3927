/* SPDX-License-Identifier: Apache-2.0 */
/* Floating point numbers as checkpoint files hold them: F32, BF16, F16. */
#ifndef TESSERA_TENSOR_FLOATS_H
#define TESSERA_TENSOR_FLOATS_H

#include "tessera/tensor.h"

/* The file's word for a type that holds floats ("F32", "BF16", "F16"), as a string that lives as
 * long as the program; NULL for every other word. */
const char *tess__floats_dtype(const char *word);
size_t tess__floats_bytes(const char *dtype); /* of one number; 0: no such type */
/* n numbers of that type become f32, exactly.  False when one of them is NaN or infinite. */
bool tess__floats_read(const char *dtype, const void *from, float *out, int64_t n);
/* The other way, rounded to nearest even; what tess__floats_read gave comes back bit for bit. */
void tess__floats_write(const char *dtype, const float *from, void *out, int64_t n);

#endif
