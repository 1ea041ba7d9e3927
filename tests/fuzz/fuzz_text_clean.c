/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a caption: <u8 flags><text>.  What comes out is UTF-8, within the limit, and
 * cleaning it again changes nothing. */
#include <stdlib.h>
#include <string.h>

#include "tessera/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void check(bool ok)
{
    if (!ok) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    if (n_bytes == 0) {
        return 0;
    }
    unsigned flags = data[0] & (TESS_CLEAN_FOLD | TESS_CLEAN_TRUNCATE);
    const char *s = (const char *)data + 1;
    size_t n = n_bytes - 1;
    tess_buf once = {0}, twice = {0};
    bool valid = tess_utf8_valid(s, n, false);
    tess_status st = tess_text_clean(s, n, flags, &once);
    check((st == TESS_FORMAT) == !valid);
    check((tess_text_mojibake(s, n) == TESS_MOJIBAKE_NOT_UTF8) == !valid);
    if (st == TESS_OK) {
        check(once.n_bytes <= TESS_TEXT_CLEAN_BYTES);
        check(tess_utf8_valid(once.data, once.n_bytes, true));
        check(tess_text_clean(once.data, once.n_bytes, flags, &twice) == TESS_OK);
        check(once.n_bytes == twice.n_bytes && memcmp(once.data, twice.data, once.n_bytes) == 0);
    }
    tess_buf_deinit(&once);
    tess_buf_deinit(&twice);
    return 0;
}
