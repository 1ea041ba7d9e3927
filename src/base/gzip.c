/* SPDX-License-Identifier: Apache-2.0 */
/* The door to zlib.  Output grows by doubling and stops at the caller's limit, so a small file that
 * unpacks to a huge one costs no more than that. */
#include "base/gzip.h"

#include <zlib.h>

static voidpf allocate(voidpf ctx, uInt n, uInt item_bytes)
{
    (void)ctx;
    return tess_alloc_array(n, item_bytes);
}

static void release(voidpf ctx, voidpf p)
{
    (void)ctx;
    tess_free(p);
}

typedef struct output {
    uint8_t *data;
    size_t n_bytes, cap_bytes, max_bytes;
} output;

static tess_status inflate_some(z_stream *z, output *o, int *out_rc)
{
    if (o->n_bytes == o->max_bytes) {
        return TESS_FAIL(TESS_NOMEM, "gzip data: more than %zu bytes come out", o->max_bytes);
    }
    TESS_TRY(tess_grow(&o->data, &o->cap_bytes, o->n_bytes + 2, 1));
    size_t room = o->cap_bytes - 1 - o->n_bytes;
    room = room < o->max_bytes - o->n_bytes ? room : o->max_bytes - o->n_bytes;
    z->next_out = o->data + o->n_bytes;
    z->avail_out = (uInt)(room < UINT32_MAX ? room : UINT32_MAX);
    size_t asked = z->avail_out;
    *out_rc = inflate(z, Z_NO_FLUSH);
    o->n_bytes += asked - z->avail_out;
    return TESS_OK;
}

static tess_status unpack(z_stream *z, output *o)
{
    TESS_TRY(tess_grow(&o->data, &o->cap_bytes, 4096, 1));
    for (;;) {
        int rc = Z_OK;
        size_t before = z->avail_in;
        TESS_TRY(inflate_some(z, o, &rc));
        if (rc == Z_STREAM_END && z->avail_in == 0) {
            o->data[o->n_bytes] = 0;
            return TESS_OK;
        }
        if (rc == Z_STREAM_END) { /* another member follows */
            rc = inflateReset(z);
        }
        if (rc == Z_MEM_ERROR) {
            return TESS_FAIL(TESS_NOMEM, "gzip data: out of memory");
        }
        bool stuck = rc == Z_BUF_ERROR || (before == 0 && z->avail_out > 0);
        if (rc != Z_OK && rc != Z_BUF_ERROR) {
            return TESS_FAIL(TESS_FORMAT, "damaged gzip data: %s",
                             z->msg != NULL ? z->msg : "not in gzip's format");
        }
        if (stuck && z->avail_in == 0 && z->avail_out > 0) {
            return TESS_FAIL(TESS_FORMAT, "gzip data cut short");
        }
    }
}

tess_status tess__gunzip(const uint8_t *data, size_t n_bytes, size_t max_bytes, uint8_t **out,
                         size_t *out_bytes)
{
    *out = NULL;
    if (n_bytes > UINT32_MAX) {
        return TESS_FAIL(TESS_FORMAT, "gzip data of %zu bytes", n_bytes);
    }
    z_stream z = {.zalloc = allocate,
                  .zfree = release,
                  .next_in = (z_const Bytef *)(uintptr_t)data,
                  .avail_in = (uInt)n_bytes};
    if (inflateInit2(&z, 15 + 16) != Z_OK) { /* 16: a gzip header and no other */
        return TESS_FAIL(TESS_NOMEM, "gzip data: out of memory");
    }
    output o = {.max_bytes = max_bytes};
    tess_status st = unpack(&z, &o);
    (void)inflateEnd(&z);
    if (st != TESS_OK) {
        tess_free(o.data);
        return st;
    }
    *out = o.data;
    *out_bytes = o.n_bytes;
    return TESS_OK;
}
