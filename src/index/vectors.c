/* SPDX-License-Identifier: Apache-2.0 */
/* Unit vectors in a FAISS index.
 *
 * FAISS is kept at arm's length: files reach it only after their checksum was compared, and leave
 * it through a stream into a tess_writer (faiss_write_index_fname opens the final name and loses
 * the error of a full disk); every label it returns is range-checked; numbers are finite before
 * they go in, for HNSW corrupts its links on a NaN without a word.
 */
#include "index/vectors.h"
#include "index/faiss.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* Queries handed to FAISS at once: bounds the (Q,K) work arrays. */
#define QUERY_CHUNK 256
/* Rows added at once: bounds what FAISS sets aside while adding. */
#define ADD_CHUNK   65536

struct tess__vectors {
    const tess__faiss_api *api;
    tess__faiss_index *index;
};

tess_status tess__unit_vector(const float *x, int64_t dim, float *out)
{
    double sum = 0;
    for (int64_t i = 0; i < dim; i++) {
        sum += (double)x[i] * x[i];
    }
    /* One NaN or Inf makes the sum so; squares of f32 cannot overflow a double. */
    if (!isfinite(sum)) {
        return TESS_FAIL(TESS_INVALID, "the vector holds a number that is not finite");
    }
    /* Below the smallest normal f32 the direction is rounding noise. */
    if (sqrt(sum) < 1.17549435e-38) {
        return TESS_FAIL(TESS_INVALID, "the vector has no length (all zero)");
    }
    double scale = 1.0 / sqrt(sum);
    for (int64_t i = 0; i < dim; i++) {
        out[i] = (float)(x[i] * scale);
    }
    return TESS_OK;
}

void tess__vectors_free(tess__vectors *v)
{
    if (!v) {
        return;
    }
    if (v->index) {
        v->api->free_index(v->index);
    }
    tess_free(v);
}

static tess_status vectors_new(tess__vectors **out)
{
    tess__vectors *v = tess_alloc(sizeof(*v));
    if (!v) {
        return TESS_NOMEM;
    }
    tess_status st = tess__faiss_get(&v->api);
    if (st != TESS_OK) {
        tess_free(v);
        return st;
    }
    *out = v;
    return TESS_OK;
}

/* ---- building and files -------------------------------------------------------------------- */

static tess_status build(tess__vectors *v, const char *factory, const float *x, int64_t n,
                         int64_t dim)
{
    const tess__faiss_api *api = v->api;
    int rc = api->index_factory(&v->index, (int)dim, factory, TESS__FAISS_INNER_PRODUCT);
    if (rc != 0) {
        return TESS_FAIL(TESS_INVALID, "FAISS does not know the index \"%s\" at dimension %lld: %s",
                         factory, (long long)dim, api->last_error());
    }
    if (!api->is_trained(v->index)) {
        TESS_TRY(tess__faiss_status(api, api->train(v->index, n, x), "train the index"));
    }
    for (int64_t i = 0; i < n; i += ADD_CHUNK) {
        int64_t m = n - i < ADD_CHUNK ? n - i : ADD_CHUNK;
        TESS_TRY(tess__faiss_status(api, api->add(v->index, m, x + i * dim), "add vectors"));
        if (tess_cancelled) {
            return TESS_FAIL(TESS_CANCELLED, "stopped while adding vectors");
        }
    }
    return TESS_OK;
}

tess_status tess__vectors_build(const char *factory, const float *x, int64_t n, int64_t dim,
                                int n_threads, tess__vectors **out)
{
    tess__vectors *v = NULL;
    TESS_TRY(vectors_new(&v));
    int before = omp_get_max_threads();
    omp_set_num_threads(n_threads > 0 ? n_threads : tess_cpu_count());
    tess_status st = build(v, factory, x, n, dim);
    omp_set_num_threads(before);
    if (st != TESS_OK) {
        tess__vectors_free(v);
        return st;
    }
    *out = v;
    return TESS_OK;
}

/* The far end of the FILE that FAISS writes to. */
typedef struct sink {
    tess_writer *writer;
    tess_hash128_state *hash;
    int64_t n_bytes;
    tess_status status;
} sink;

static ssize_t sink_write(void *ctx, const char *data, size_t n_bytes)
{
    sink *s = ctx;
    if (s->status == TESS_OK) {
        s->status = tess_writer_write(s->writer, data, n_bytes);
    }
    if (s->status != TESS_OK) {
        return 0; /* what fopencookie takes for an error; -1 would be undefined */
    }
    tess_hash128_add(s->hash, data, n_bytes);
    s->n_bytes += (int64_t)n_bytes;
    return (ssize_t)n_bytes;
}

static tess_status write_stream(const tess__vectors *v, sink *s)
{
    FILE *f = fopencookie(s, "wb", (cookie_io_functions_t){.write = sink_write});
    if (!f) {
        return TESS_FAIL(TESS_NOMEM, "no memory for an output stream");
    }
    setvbuf(f, NULL, _IOFBF, 1 << 18);
    int rc = v->api->write_index(v->index, f);
    bool lost = ferror(f) != 0;
    lost |= fclose(f) != 0;
    if (s->status != TESS_OK) {
        return s->status; /* the message is the writer's */
    }
    TESS_TRY(tess__faiss_status(v->api, rc, "write the index"));
    return lost ? TESS_FAIL(TESS_IO, "the index could not be written in full") : TESS_OK;
}

tess_status tess__vectors_save(const tess__vectors *v, const char *path, int64_t *out_bytes,
                               char out_xxh3[33])
{
    sink s = {0};
    TESS_TRY(tess_writer_open(path, &s.writer));
    s.hash = tess_hash128_new();
    tess_status st = s.hash ? write_stream(v, &s) : TESS_NOMEM;
    if (s.hash) {
        tess_hash128_finish(s.hash, out_xxh3);
    }
    if (st != TESS_OK) {
        tess_writer_abort(s.writer);
        return st;
    }
    *out_bytes = s.n_bytes;
    return tess_writer_commit(s.writer);
}

tess_status tess__xxh3_hex(const void *data, size_t n_bytes, char out_hex[33])
{
    tess_hash128_state *hash = tess_hash128_new();
    if (!hash) {
        return TESS_NOMEM;
    }
    tess_hash128_add(hash, data, n_bytes);
    tess_hash128_finish(hash, out_hex);
    return TESS_OK;
}

tess_status tess__file_map_checked(const char *path, const tess__file_facts *facts, tess_bytes *out)
{
    tess_bytes map = {0};
    TESS_TRY(tess_file_map(path, &map));
    char hex[33] = "";
    tess_status st = TESS_OK;
    if (map.n_bytes != (size_t)facts->n_bytes) {
        st = TESS_FAIL(TESS_FORMAT,
                       "%s: the manifest says %lld bytes, the file has %zu: the index is damaged, "
                       "build it again",
                       path, (long long)facts->n_bytes, map.n_bytes);
    } else {
        st = tess__xxh3_hex(map.data, map.n_bytes, hex);
    }
    if (st == TESS_OK && strcmp(hex, facts->xxh3) != 0) {
        st = TESS_FAIL(TESS_FORMAT,
                       "%s: checksum is %s, the manifest says %s: the index is damaged, build it "
                       "again",
                       path, hex, facts->xxh3);
    }
    if (st != TESS_OK) {
        tess_file_unmap(&map);
        return st;
    }
    *out = map;
    return TESS_OK;
}

static tess_status read_stream(tess__vectors *v, const tess_bytes *map, const char *path)
{
    FILE *f = map->n_bytes ? fmemopen((void *)(uintptr_t)map->data, map->n_bytes, "rb") : NULL;
    if (!f) {
        return TESS_FAIL(TESS_FORMAT, "%s: cannot be read (%zu bytes)", path, map->n_bytes);
    }
    int rc = v->api->read_index(f, 0, &v->index);
    fclose(f);
    if (rc != 0) {
        return TESS_FAIL(TESS_FORMAT, "%s: FAISS cannot read it: %s", path, v->api->last_error());
    }
    return TESS_OK;
}

static tess_status check_loaded(const tess__vectors *v, const char *path, int64_t n, int64_t dim)
{
    int64_t found_n = v->api->ntotal(v->index);
    int found_dim = v->api->d(v->index);
    int metric = v->api->metric_type(v->index);
    if (found_n != n || found_dim != dim || metric != TESS__FAISS_INNER_PRODUCT) {
        return TESS_FAIL(TESS_FORMAT,
                         "%s: expected %lld vectors of dimension %lld by inner product, found %lld "
                         "of %d, metric %d",
                         path, (long long)n, (long long)dim, (long long)found_n, found_dim, metric);
    }
    return TESS_OK;
}

tess_status tess__vectors_load(const char *path, const tess__file_facts *facts, int64_t n,
                               int64_t dim, tess__vectors **out)
{
    tess__vectors *v = NULL;
    TESS_TRY(vectors_new(&v));
    tess_bytes map = {0};
    tess_status st = tess__file_map_checked(path, facts, &map);
    if (st == TESS_OK) {
        st = read_stream(v, &map, path);
    }
    tess_file_unmap(&map);
    if (st == TESS_OK) {
        st = check_loaded(v, path, n, dim);
    }
    if (st != TESS_OK) {
        tess__vectors_free(v);
        return st;
    }
    *out = v;
    return TESS_OK;
}

/* ---- searching ----------------------------------------------------------------------------- */

static tess_status set_parameter(tess__vectors *v, const char *name, int64_t value)
{
    tess__faiss_space *space = NULL;
    TESS_TRY(tess__faiss_status(v->api, v->api->space_new(&space), "make a parameter space"));
    int rc = v->api->set_parameter(space, v->index, name, (double)value);
    v->api->space_free(space);
    return tess__faiss_status(v->api, rc, "set a search parameter");
}

tess_status tess__vectors_set_search(tess__vectors *v, const char *factory, int64_t ef_search,
                                     int64_t n_probe)
{
    bool ivf = strstr(factory, "IVF") != NULL;
    bool hnsw = strstr(factory, "HNSW") != NULL;
    if (ivf) {
        TESS_TRY(set_parameter(v, "nprobe", n_probe));
    }
    if (hnsw) {
        TESS_TRY(set_parameter(v, ivf ? "quantizer_efSearch" : "efSearch", ef_search));
    }
    return TESS_OK;
}

static int compare_hits(const void *pa, const void *pb)
{
    const tess_hit *a = pa, *b = pb;
    if (a->score != b->score) {
        return a->score > b->score ? -1 : 1;
    }
    return (a->row > b->row) - (a->row < b->row);
}

/* Keeps the labels that are rows: FAISS pads with -1, and a compressed index can score NaN. */
static int64_t gather_hits(const float *scores, const int64_t *labels, int64_t k, int64_t n_rows,
                           tess_hit *hits)
{
    int64_t n = 0;
    for (int64_t i = 0; i < k; i++) {
        if (labels[i] >= 0 && labels[i] < n_rows && isfinite(scores[i])) {
            hits[n++] = (tess_hit){.row = labels[i], .score = scores[i]};
        }
    }
    qsort(hits, (size_t)n, sizeof(*hits), compare_hits);
    return n;
}

/* FAISS opens a parallel region as wide as the thread's setting even for one query; a team that
 * spins while another program has the core costs more than the search. */
static int search_threads(const tess__vectors *v, const float *queries, int64_t n, int64_t k,
                          float *scores, int64_t *labels)
{
    int before = omp_get_max_threads();
    omp_set_num_threads(n < before ? (int)n : before);
    int rc = v->api->search(v->index, n, queries, k, scores, labels);
    omp_set_num_threads(before);
    return rc;
}

tess_status tess__vectors_search(const tess__vectors *v, const float *queries, int64_t n_queries,
                                 int64_t k, tess_hit *out_hits, int64_t *out_n_hits)
{
    int64_t dim = v->api->d(v->index), n_rows = v->api->ntotal(v->index);
    int64_t kk = k < n_rows ? k : n_rows;
    int64_t chunk = n_queries < QUERY_CHUNK ? n_queries : QUERY_CHUNK;
    float *scores = tess_alloc_array((size_t)(chunk * kk), sizeof(*scores));
    int64_t *labels = tess_alloc_array((size_t)(chunk * kk), sizeof(*labels));
    tess_status st = scores && labels ? TESS_OK : TESS_NOMEM;
    for (int64_t q = 0; q < n_queries && st == TESS_OK; q += chunk) {
        int64_t m = n_queries - q < chunk ? n_queries - q : chunk;
        int rc = search_threads(v, queries + q * dim, m, kk, scores, labels);
        st = tess__faiss_status(v->api, rc, "search");
        for (int64_t i = 0; i < m && st == TESS_OK; i++) {
            out_n_hits[q + i] =
                gather_hits(scores + i * kk, labels + i * kk, kk, n_rows, out_hits + (q + i) * k);
        }
    }
    tess_free(scores);
    tess_free(labels);
    return st;
}

tess_status tess__vectors_get(const tess__vectors *v, int64_t first, int64_t n, float *out)
{
    if (first < 0 || n < 0 || first > v->api->ntotal(v->index) - n) {
        return TESS_FAIL(TESS_INVALID, "the index has no rows %lld .. %lld", (long long)first,
                         (long long)(first + n - 1));
    }
    return tess__faiss_status(v->api, v->api->reconstruct_n(v->index, first, n, out),
                              "give vectors back");
}
