/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors of any bytes: a file that opens tiles its data exactly, and every byte may be read.
 */
#include <stdlib.h>
#include <string.h>

#include "tessera/tensor.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    tess_tensors *t = NULL;
    if (tess_tensors_parse((tess_bytes){data, n_bytes}, "fuzz", &t) != TESS_OK) {
        if (!*tess_error() || t) {
            abort();
        }
        return 0;
    }
    size_t sum = 0;
    unsigned touched = 0;
    for (int64_t i = 0; i < tess_tensors_count(t); i++) {
        const tess_tensor *x = tess_tensors_at(t, i);
        if (tess_tensors_find(t, x->name) != x) {
            abort();
        }
        for (size_t k = 0; k < x->n_bytes; k++) {
            touched += x->data[k];
        }
        sum += x->n_bytes;
    }
    uint64_t header;
    memcpy(&header, data, 8);
    if (sum != n_bytes - 8 - header || touched == UINT32_MAX) {
        abort();
    }
    tess_tensors_free(t);
    return 0;
}
