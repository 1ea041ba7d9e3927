/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of host memory on a device. */
#include "tensor/remote.h"

#include <string.h>

static tess_status add_shadow(tess_shadows *s, const void *base, size_t n_bytes, tess_shadow **out)
{
    void *data;
    TESS_TRY(tess_grow(&s->items, &s->cap, s->n + 1, sizeof *s->items));
    TESS_TRY(s->remote->alloc(n_bytes, &data));
    const tess_status st = s->remote->upload(data, base, n_bytes);
    if (st) {
        s->remote->free(data);
        return st;
    }
    s->items[s->n] = (tess_shadow){.host = base, .n_bytes = n_bytes, .data = data};
    *out = &s->items[s->n++];
    return TESS_OK;
}

tess_status tess__shadow_find(tess_shadows *s, const tess_remote *remote, const void *host,
                              const void *base, size_t n_bytes, void **out)
{
    tess_shadow *found = NULL;
    if (s->remote && s->remote != remote) {
        return TESS_FAIL(TESS_INVALID, "the model is on another device already");
    }
    s->remote = remote;
    for (size_t i = 0; i < s->n && !found; i++) {
        found = s->items[i].host == base ? &s->items[i] : NULL;
    }
    if (!found) {
        TESS_TRY(add_shadow(s, base, n_bytes, &found));
    }
    *out = found->data + ((const uint8_t *)host - found->host);
    return TESS_OK;
}

/* The part of x that is in the host's (base, n_bytes): bytes begin..end of x. */
static bool overlap(const tess_shadow *x, const void *base, size_t n_bytes, size_t *begin,
                    size_t *end)
{
    const uint8_t *first = base, *last = first + n_bytes;
    first = first > x->host ? first : x->host;
    last = last < x->host + x->n_bytes ? last : x->host + x->n_bytes;
    *begin = first < last ? (size_t)(first - x->host) : 0;
    *end = first < last ? (size_t)(last - x->host) : 0;
    return first < last;
}

tess_status tess__shadows_upload(const tess_shadows *s, const void *base, size_t n_bytes)
{
    for (size_t i = 0, begin, end; i < s->n; i++) {
        const tess_shadow *x = &s->items[i];
        if (overlap(x, base, n_bytes, &begin, &end)) {
            TESS_TRY(s->remote->upload(x->data + begin, x->host + begin, end - begin));
        }
    }
    return TESS_OK;
}

tess_status tess__shadows_download(const tess_shadows *s, void *base, size_t n_bytes)
{
    for (size_t i = 0, begin, end; i < s->n; i++) {
        const tess_shadow *x = &s->items[i];
        if (overlap(x, base, n_bytes, &begin, &end)) {
            uint8_t *to = (uint8_t *)base + (x->host + begin - (const uint8_t *)base);
            TESS_TRY(s->remote->download(to, x->data + begin, end - begin));
        }
    }
    return TESS_OK;
}

void tess__shadows_deinit(tess_shadows *s)
{
    for (size_t i = 0; i < s->n; i++) {
        s->remote->free(s->items[i].data);
    }
    tess_free(s->items);
    *s = (tess_shadows){0};
}
