/* SPDX-License-Identifier: Apache-2.0 */
/* A growable run of bytes whose first failure is latched, so that writers need no error plumbing.
 */
#include "tessera/base.h"

#include <string.h>

/* Room for n_bytes more and the NUL behind them. */
static bool reserve(tess_buf *b, size_t n_bytes)
{
    size_t need = 0;
    if (b->failed || tess_add_overflows(b->n_bytes, n_bytes, &need) ||
        tess_add_overflows(need, 1, &need) ||
        tess_grow(&b->data, &b->cap_bytes, need, 1) != TESS_OK) {
        b->failed = true;
    }
    return !b->failed;
}

void tess_buf_add(tess_buf *b, const void *data, size_t n_bytes)
{
    if (!reserve(b, n_bytes)) {
        return;
    }
    if (n_bytes > 0) {
        memcpy(b->data + b->n_bytes, data, n_bytes);
    }
    b->n_bytes += n_bytes;
    b->data[b->n_bytes] = 0;
}

void tess_buf_adds(tess_buf *b, const char *s)
{
    tess_buf_add(b, s, strlen(s));
}

void tess_buf_addf(tess_buf *b, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    if (n < 0) {
        b->failed = true;
    } else if (reserve(b, (size_t)n)) {
        vsnprintf(b->data + b->n_bytes, (size_t)n + 1, fmt, args);
        b->n_bytes += (size_t)n;
    }
    va_end(args);
}

void tess_buf_clear(tess_buf *b)
{
    b->n_bytes = 0;
    b->failed = false;
    if (b->data != NULL) {
        b->data[0] = 0;
    }
}

tess_status tess_buf_check(const tess_buf *b)
{
    return b->failed ? TESS_FAIL(TESS_NOMEM, "out of memory: a text of %zu bytes could not grow",
                                 b->n_bytes)
                     : TESS_OK;
}

void tess_buf_deinit(tess_buf *b)
{
    if (b != NULL) {
        tess_free(b->data);
        *b = (tess_buf){0};
    }
}
