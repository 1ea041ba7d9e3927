/* SPDX-License-Identifier: Apache-2.0 */
/* Exact search, asked for piece by piece.
 *
 *     gpu_search DEVICE ROWS WIDTH K QUERIES DATA
 *
 * DATA holds rows.f32 (N,Z) and queries.f32 (Q,Z), unit rows.  "searchCOUNT N" answers the
 * milliseconds of N searches of the first
 * COUNT queries, from the host's memory to hits there; "hits N" the rows found for N queries. On
 * the processor FAISS's flat index answers. */
#include "gpu_side.h"

#include "index/vectors.h"
#include "tensor/nearest.h"

typedef struct side {
    tess__nearest *card;
    tess__vectors *here; /* in its place on the processor */
    const float *queries;
    int64_t k, n_queries, *n_hits;
    tess__near_hit *hits;
    tess_hit *found;
} side;

static tess_status search(const side *s, int64_t n)
{
    if (s->card) {
        return tess__nearest_search(s->card, s->queries, n, s->k, s->hits, s->n_hits);
    }
    TESS_TRY(tess__vectors_search(s->here, s->queries, n, s->k, s->found, s->n_hits));
    for (int64_t i = 0; i < n * s->k; i++) {
        s->hits[i] = (tess__near_hit){s->found[i].row, s->found[i].score};
    }
    return TESS_OK;
}

static tess_status print_hits(const side *s, int64_t n)
{
    TESS_TRY(search(s, n));
    for (int64_t q = 0; q < n; q++) {
        printf("%s", q ? ", [" : "[[");
        for (int64_t i = 0; i < s->n_hits[q]; i++) {
            printf("%s%lld", i ? ", " : "", (long long)s->hits[q * s->k + i].row);
        }
        printf("]");
    }
    printf("]");
    return TESS_OK;
}

static tess_status answer(void *ctx, const char *name, int64_t n)
{
    const side *s = ctx;
    const int64_t count = strncmp(name, "search", 6) == 0 ? side_count(name + 6) : 0;
    if (strcmp(name, "hits") == 0 && n <= s->n_queries) {
        return print_hits(s, n);
    }
    if (count == 0 || count > s->n_queries) {
        return TESS_FAIL(TESS_INVALID, "expected hits or search1 to search%lld, found %.20s",
                         (long long)s->n_queries, name);
    }
    for (int64_t i = 0; i < n; i++) {
        const double begin = tess_seconds();
        TESS_TRY(search(s, count));
        printf("%s%.4f", i ? ", " : "{\"ms\": [", 1e3 * (tess_seconds() - begin));
    }
    printf("], \"all_rows\": %lld}", (long long)(s->card ? tess__nearest_n_full(s->card) : 0));
    return TESS_OK;
}

static tess_status open_rows(side *s, const char *device_name, int64_t n, int64_t width,
                             const float *rows)
{
    const tess_device *device;
    TESS_TRY(tess_device_open(device_name, &device));
    if (device == tess_device_cpu()) {
        return tess__vectors_build("Flat", rows, n, width, 1, &s->here);
    }
    TESS_TRY(tess__nearest_new(device, n, width, 0, &s->card));
    return tess__nearest_add(s->card, rows, n);
}

static tess_status run(side *s, char **a, int64_t n, int64_t width)
{
    const void *rows, *queries;
    TESS_TRY(side_map(a[6], "rows.f32", (size_t)(n * width) * sizeof(float), &rows));
    TESS_TRY(
        side_map(a[6], "queries.f32", (size_t)(s->n_queries * width) * sizeof(float), &queries));
    const size_t most = (size_t)(s->n_queries * s->k);
    s->queries = queries;
    s->hits = tess_alloc_array(most, sizeof *s->hits);
    s->found = tess_alloc_array(most, sizeof *s->found);
    s->n_hits = tess_alloc_array((size_t)s->n_queries, sizeof *s->n_hits);
    if (!s->hits || !s->found || !s->n_hits) {
        return TESS_NOMEM;
    }
    const double begin = tess_seconds();
    TESS_TRY(open_rows(s, a[1], n, width, rows));
    printf("{\"open_s\": %.3f}\n", tess_seconds() - begin);
    fflush(stdout);
    return side_serve(s, answer);
}

int main(int argc, char **argv)
{
    side s = {0};
    const int64_t n = argc == 7 ? side_count(argv[2]) : 0;
    const int64_t width = argc == 7 ? side_count(argv[3]) : 0;
    s.k = argc == 7 ? side_count(argv[4]) : 0;
    s.n_queries = argc == 7 ? side_count(argv[5]) : 0;
    if (!n || !width || !s.k || !s.n_queries) {
        fprintf(stderr, "usage: gpu_search DEVICE ROWS WIDTH K QUERIES DATA\n");
        return 2;
    }
    tess_compute_threads(0);
    const tess_status st = run(&s, argv, n, width);
    tess__nearest_free(s.card);
    tess__vectors_free(s.here);
    tess_free(s.hits);
    tess_free(s.found);
    tess_free(s.n_hits);
    return side_end("gpu_search", st);
}
