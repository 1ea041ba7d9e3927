/* SPDX-License-Identifier: Apache-2.0 */
/* OpenCLIP's cleaning, ftfy's fixes among it: what comes out is well-formed and not much longer. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "text/pipe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || !tess_utf8_valid((const char *)data + 1, size - 1, false)) {
        return -1;
    }
    tess__pipe_scratch s = {0};
    tess_clip_clean how = (tess_clip_clean)(TESS_CLIP_CLEAN_WHITESPACE + data[0] % 3);
    tess_status st = tess__span_put(&s.in, data + 1, size - 1);
    st = st ? st : tess__clip_clean_run(how, &s);
    if (st == TESS_OK && s.in.n_bytes > 0 &&
        (!tess_utf8_valid(s.in.data, s.in.n_bytes, false) || s.in.n_bytes > 8 * size + 64)) {
        abort();
    }
    tess__pipe_scratch_deinit(&s);
    return 0;
}
