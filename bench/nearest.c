/* SPDX-License-Identifier: Apache-2.0 */
/* Exact search on a CUDA card: seconds a batch of queries takes, from queries in the host's memory
 * to hits there.
 *
 *     bench/nearest [SECONDS [QUERIES [K [N [Z]]]]]
 *
 * N (1,000,000) random unit rows of Z (512) numbers; the K (10) best of each of QUERIES (1,024).
 * Prints one line of JSON with the median over the runs of SECONDS (2), and how many of a batch's
 * queries did not separate.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tensor/nearest.h"

enum { MAX_RUNS = 4096, CHUNK = 16384 };

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sums of three uniform numbers are near enough to normal ones. */
static void fill_units(float *x, int64_t n, int64_t dim, uint32_t *state)
{
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        for (int64_t j = 0; j < dim; j++) {
            float v = 0;
            for (int part = 0; part < 3; part++) {
                *state = *state * 1664525u + 1013904223u;
                v += (float)(int32_t)*state * 0x1p-31f;
            }
            x[i * dim + j] = v;
            sum += (double)v * v;
        }
        for (int64_t j = 0; j < dim; j++) {
            x[i * dim + j] *= (float)(1 / sqrt(sum));
        }
    }
}

static tess_status add_rows(tess__nearest *s, int64_t n, int64_t dim, uint32_t *state)
{
    float *x = tess_alloc_array(CHUNK, (size_t)dim * sizeof *x);
    tess_status st = x ? TESS_OK : TESS_NOMEM;
    for (int64_t i = 0; i < n && st == TESS_OK; i += CHUNK) {
        const int64_t m = n - i < CHUNK ? n - i : CHUNK;
        fill_units(x, m, dim, state);
        st = tess__nearest_add(s, x, m);
    }
    tess_free(x);
    return st;
}

typedef struct setup {
    double seconds;
    int64_t n_queries, k, n, dim;
} setup;

static tess_status measure(tess__nearest *s, const setup *o, uint32_t *state)
{
    static double runs[MAX_RUNS];
    float *q = tess_alloc_array((size_t)o->n_queries, (size_t)o->dim * sizeof *q);
    tess__near_hit *hits = tess_alloc_array((size_t)o->n_queries, (size_t)o->k * sizeof *hits);
    int64_t *n_hits = tess_alloc_array((size_t)o->n_queries, sizeof *n_hits), n = 0;
    tess_status st = q && hits && n_hits ? TESS_OK : TESS_NOMEM;
    if (st == TESS_OK) {
        fill_units(q, o->n_queries, o->dim, state);
        st = tess__nearest_search(s, q, o->n_queries, o->k, hits, n_hits); /* to warm up */
    }
    const double start = tess_seconds();
    for (double last = start; st == TESS_OK && n < MAX_RUNS && (n < 3 || last - start < o->seconds);
         n++) {
        st = tess__nearest_search(s, q, o->n_queries, o->k, hits, n_hits);
        const double now = tess_seconds();
        runs[n] = now - last;
        last = now;
    }
    if (st == TESS_OK) {
        qsort(runs, (size_t)n, sizeof *runs, by_value);
        printf(
            "{\"what\": \"nearest\", \"n\": %lld, \"dim\": %lld, \"queries\": %lld, \"k\": %lld, "
            "\"runs\": %lld, \"seconds\": %.9f, \"full\": %lld}\n",
            (long long)o->n, (long long)o->dim, (long long)o->n_queries, (long long)o->k,
            (long long)n, runs[n / 2], (long long)(tess__nearest_n_full(s) / (n + 1)));
    }
    tess_free(q);
    tess_free(hits);
    tess_free(n_hits);
    return st;
}

static tess_status run(const setup *o)
{
    const tess_device *device;
    tess__nearest *s = NULL;
    uint32_t state = 1;
    TESS_TRY(tess_device_cuda(&device));
    TESS_TRY(tess__nearest_new(device, o->n, o->dim, 0, &s));
    tess_status st = add_rows(s, o->n, o->dim, &state);
    st = st ? st : measure(s, o, &state);
    tess__nearest_free(s);
    return st;
}

int main(int argc, char **argv)
{
    setup o = {.seconds = argc > 1 ? atof(argv[1]) : 2,
               .n_queries = argc > 2 ? atoll(argv[2]) : 1024,
               .k = argc > 3 ? atoll(argv[3]) : 10,
               .n = argc > 4 ? atoll(argv[4]) : 1000000,
               .dim = argc > 5 ? atoll(argv[5]) : 512};
    if (o.seconds <= 0 || o.n_queries < 1 || o.k < 1 || o.n < 1 || o.dim < 1 || argc > 6) {
        fprintf(stderr, "usage: nearest [SECONDS [QUERIES [K [N [Z]]]]]\n");
        return 2;
    }
    if (run(&o)) {
        fprintf(stderr, "nearest: %s\n", tess_error());
        return 1;
    }
    return 0;
}
