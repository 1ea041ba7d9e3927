/* SPDX-License-Identifier: Apache-2.0 */
/* An index searched on a device: its vectors go there, and the exact search answers in FAISS's
 * place. The index knows nothing of devices and the device nothing of indexes; this is where they
 * meet. */
#include "tensor/nearest.h"
#include "tessera/fusion.h"

/* Rows that go to the device at once. */
#define CHUNK_BYTES ((int64_t)64 << 20)

static tess_status search(void *ctx, const float *queries, int64_t n_queries, int64_t k,
                          tess_hit *out_hits, int64_t *out_n_hits)
{
    tess__near_hit *found = tess_alloc_array((size_t)n_queries, (size_t)k * sizeof *found);
    if (!found) {
        return TESS_NOMEM;
    }
    const tess_status st = tess__nearest_search(ctx, queries, n_queries, k, found, out_n_hits);
    for (int64_t q = 0; st == TESS_OK && q < n_queries; q++) {
        for (int64_t i = q * k; i < q * k + out_n_hits[q]; i++) {
            out_hits[i] = (tess_hit){.row = found[i].row, .score = found[i].score};
        }
    }
    tess_free(found);
    return st;
}

static void free_searcher(void *ctx)
{
    tess__nearest_free(ctx);
}

static tess_status add_rows(tess__nearest *s, const tess_index *ix)
{
    const int64_t n_rows = tess_index_count(ix), dim = tess_index_dim(ix);
    const int64_t fit = CHUNK_BYTES / (dim * (int64_t)sizeof(float));
    const int64_t chunk = fit < n_rows ? fit : n_rows;
    float *x = tess_alloc_array((size_t)chunk, (size_t)dim * sizeof *x);
    tess_status st = x ? TESS_OK : TESS_NOMEM;
    for (int64_t i = 0; i < n_rows && st == TESS_OK; i += chunk) {
        const int64_t n = n_rows - i < chunk ? n_rows - i : chunk;
        st = tess_index_vectors(ix, i, n, x);
        st = st ? st : tess__nearest_add(s, x, n);
    }
    tess_free(x);
    return st;
}

tess_status tess_index_use(tess_index *ix, const tess_device *device)
{
    if (device == tess_device_cpu()) {
        tess_index_set_searcher(ix, &(tess_index_searcher){0});
        return TESS_OK;
    }
    if (!tess_index_is_flat(ix)) {
        return TESS_FAIL(
            TESS_UNSUPPORTED,
            "a card searches an index of kind Flat alone (index build --index-key Flat)");
    }
    tess__nearest *s = NULL;
    TESS_TRY(tess__nearest_new(device, tess_index_count(ix), tess_index_dim(ix), 0, &s));
    const tess_status st = add_rows(s, ix);
    if (st) {
        tess__nearest_free(s);
        return st;
    }
    tess_log(TESS_LOG_DEBUG, "%lld vectors are searched on the card",
             (long long)tess_index_count(ix));
    tess_index_set_searcher(
        ix, &(tess_index_searcher){.search = search, .free = free_searcher, .ctx = s});
    return TESS_OK;
}
