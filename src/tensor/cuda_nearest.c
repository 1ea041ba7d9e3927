/* SPDX-License-Identifier: Apache-2.0 */
/* The host's half of the exact search: memory on the card, and the order of the passes.
 *
 * The first pass looks at a sample of the rows and writes all of their scores; each later one looks
 * at several times as many, and asks for the k-th best so far.  Tiles are looked at in strides of
 * the golden section, since neighbours in an index are often alike: a sample of the first rows
 * would say little of the others. */
#include "tensor/nearest.h"
#include "tensor/plan.h"

#include <pthread.h>
#include <string.h>

#define TILE           TESS__NEAR_TILE
#define LEAST_CAPACITY 8192
#define MOST_ROUNDS    16 /* a pass looks at up to so many times the rows before it */
#define MOST_QUERIES   4096
#define FOUND_BYTES    ((int64_t)256 << 20)

struct tess__nearest {
    const tess_remote *remote;
    pthread_mutex_t lock; /* over what follows */
    tess__near near;
    int64_t n_added, capacity, n_full;
    void *work; /* where near's pointers from queries on lie */
    size_t work_bytes;
};

static int64_t up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

static int64_t most_of(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t least_of(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- rows ------------------------------------------------------------------------------------ */

static int64_t common_divisor(int64_t a, int64_t b)
{
    return b == 0 ? a : common_divisor(b, a % b);
}

/* Near the golden section of n, and reaching every tile. */
static int64_t step_of(int64_t n)
{
    int64_t step = (int64_t)((double)n * 0.6180339887) + 1;
    while (common_divisor(n, step) != 1) {
        step++;
    }
    return step;
}

static tess_status alloc_rows(tess__nearest *s)
{
    const tess__near *x = &s->near;
    const size_t bytes = (size_t)x->n_rows * (size_t)x->dim * sizeof(float);
    const size_t rounded = (size_t)x->n_rows * (size_t)x->row * 2;
    void *rows = NULL, *extent = NULL;
    tess_status st = s->remote->alloc(bytes, &rows);
    s->near.rows = rows;
    st = st ? st : s->remote->alloc(rounded, &s->near.rounded);
    st = st ? st : s->remote->alloc(2 * sizeof(float), &extent);
    s->near.extent = extent;
    st = st ? st : s->remote->fill(extent, 0, 2 * sizeof(float));
    if (st == TESS_NOMEM) {
        return TESS_FAIL(TESS_NOMEM,
                         "the card's memory has no room for %lld vectors of %lld "
                         "numbers (%.1f GB)",
                         (long long)x->n_rows, (long long)x->dim, (double)(bytes + rounded) / 1e9);
    }
    return st;
}

tess_status tess__nearest_new(const tess_device *device, int64_t n, int64_t dim, int64_t capacity,
                              tess__nearest **out)
{
    *out = NULL;
    if (!device->remote || n < 1 || n > INT32_MAX || dim < 1) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "exact search on a card takes 1 to %d vectors and a CUDA device, not "
                         "%lld on the device \"%s\"",
                         INT32_MAX, (long long)n, device->name);
    }
    tess__nearest *s = tess_alloc(sizeof *s);
    if (!s) {
        return TESS_NOMEM;
    }
    pthread_mutex_init(&s->lock, NULL);
    s->remote = device->remote;
    s->capacity = capacity;
    s->near = (tess__near){.n_rows = n, .dim = dim, .row = up(dim, 32)};
    s->near.n_tiles = (n + TILE - 1) / TILE;
    s->near.tile_step = step_of(s->near.n_tiles);
    const tess_status st = alloc_rows(s);
    if (st) {
        tess__nearest_free(s);
        return st;
    }
    *out = s;
    return TESS_OK;
}

tess_status tess__nearest_add(tess__nearest *s, const float *x, int64_t n)
{
    const tess__near *near = &s->near;
    if (n < 0 || n > near->n_rows - s->n_added) {
        return TESS_FAIL(TESS_INVALID, "there is room for %lld more vectors, not %lld",
                         (long long)(near->n_rows - s->n_added), (long long)n);
    }
    if (n > 0) {
        TESS_TRY(s->remote->upload(near->rows + s->n_added * near->dim, x,
                                   (size_t)n * (size_t)near->dim * sizeof *x));
        tess__near_round(near, s->n_added, n, s->remote->stream());
        TESS_TRY(tess__cuda_launched("rounding vectors"));
    }
    s->n_added += n;
    return TESS_OK;
}

void tess__nearest_free(tess__nearest *s)
{
    if (s) {
        s->remote->free(s->work);
        s->remote->free(s->near.extent);
        s->remote->free(s->near.rounded);
        s->remote->free(s->near.rows);
        pthread_mutex_destroy(&s->lock);
        tess_free(s);
    }
}

int64_t tess__nearest_n_full(const tess__nearest *s)
{
    return s->n_full;
}

/* ---- a batch of queries ---------------------------------------------------------------------- */

/* Room for what a pass may leave: thirty times k, so that it may look at four times the rows of all
 * passes before it and find six times what is expected; all rows where those are fewer. */
static int64_t capacity_of(const tess__nearest *s, int64_t k)
{
    const int64_t usual = most_of(LEAST_CAPACITY, 32 * k);
    const int64_t capacity = most_of(s->capacity > 0 ? s->capacity : usual, k + TILE);
    return least_of(up(capacity, TILE), s->near.n_tiles * TILE);
}

/* Places n items of `bytes` at *at. */
static void *place(uint8_t *base, size_t *at, int64_t n, size_t bytes)
{
    void *p = base + *at;
    *at += ((size_t)n * bytes + 255) / 256 * 256;
    return p;
}

static size_t lay_out(tess__near *x, uint8_t *base)
{
    size_t at = 0;
    x->queries = place(base, &at, x->n_queries * x->dim, sizeof(float));
    x->rounded_queries = place(base, &at, x->n_queries * x->row, 2);
    x->margin = place(base, &at, x->n_queries, sizeof(float));
    x->least = place(base, &at, x->n_queries, sizeof(float));
    x->count = place(base, &at, x->n_queries, sizeof(int32_t));
    x->found = place(base, &at, x->n_queries * x->capacity, sizeof(uint64_t));
    x->best = place(base, &at, x->n_queries * x->k, sizeof(uint64_t));
    return at;
}

static tess_status reserve(tess__nearest *s)
{
    static uint8_t nowhere[1];
    const size_t bytes = lay_out(&s->near, nowhere);
    if (bytes > s->work_bytes) {
        s->remote->free(s->work);
        s->work = NULL;
        s->work_bytes = 0;
        TESS_TRY(s->remote->alloc(bytes, &s->work));
        s->work_bytes = bytes;
    }
    lay_out(&s->near, s->work);
    return TESS_OK;
}

static void run_passes(const tess__near *x, bool exact, void *stream)
{
    const int64_t rounds = most_of(1, least_of(x->capacity / (8 * x->k), MOST_ROUNDS));
    int64_t done = least_of(x->n_tiles, x->capacity / TILE);
    tess__near_begin(x, exact, stream);
    tess__near_scan(x, 0, done, exact, stream);
    tess__near_select(x, done * TILE, exact, stream);
    while (done < x->n_tiles) {
        const int64_t step = exact ? (x->capacity - x->k) / TILE : done * rounds;
        const int64_t n = least_of(step, x->n_tiles - done);
        tess__near_scan(x, done, n, exact, stream);
        tess__near_select(x, 0, exact, stream);
        done += n;
    }
    if (!exact) {
        tess__near_score(x, stream);
        tess__near_select(x, 0, true, stream);
    }
    tess__near_rank(x, stream);
}

/* A batch on its way. */
typedef struct batch {
    int64_t n, k; /* k: at most as many as there are rows */
    uint64_t *best;
    int32_t *count;
} batch;

static tess_status answer(tess__nearest *s, const batch *b, const float *queries, bool exact)
{
    const tess_remote *r = s->remote;
    tess__near *x = &s->near;
    x->n_queries = b->n;
    x->k = b->k;
    x->capacity = capacity_of(s, b->k);
    TESS_TRY(reserve(s));
    TESS_TRY(r->upload(x->queries, queries, (size_t)(b->n * x->dim) * sizeof *queries));
    run_passes(x, exact, r->stream());
    TESS_TRY(tess__cuda_launched("exact search"));
    TESS_TRY(r->download(b->count, x->count, (size_t)b->n * sizeof *b->count));
    return r->download(b->best, x->best, (size_t)(b->n * b->k) * sizeof *b->best);
}

static int64_t read_hits(const uint64_t *best, int64_t n, tess__near_hit *out)
{
    for (int64_t i = 0; i < n; i++) {
        const uint32_t high = (uint32_t)(best[i] >> 32);
        const uint32_t bits = high & 0x80000000u ? high & 0x7fffffffu : ~high;
        out[i].row = (int64_t)(UINT32_MAX - (uint32_t)best[i]);
        memcpy(&out[i].score, &bits, sizeof bits);
    }
    return n;
}

/* The queries that lost some of what they found, again: all of them at once. */
static tess_status answer_lost(tess__nearest *s, const batch *b, const float *queries, int64_t k,
                               tess__near_hit *out_hits, int64_t *out_n_hits)
{
    const int64_t dim = s->near.dim;
    float *lost = tess_alloc_array((size_t)b->n, (size_t)dim * sizeof *lost);
    int64_t *which = tess_alloc_array((size_t)b->n, sizeof *which);
    batch again = *b;
    again.n = 0;
    for (int64_t i = 0; lost && which && i < b->n; i++) {
        if (b->count[i] > s->near.capacity) {
            memcpy(lost + again.n * dim, queries + i * dim, (size_t)dim * sizeof *lost);
            which[again.n++] = i;
        }
    }
    tess_status st = lost && which ? TESS_OK : TESS_NOMEM;
    st = st || again.n == 0 ? st : answer(s, &again, lost, true);
    for (int64_t i = 0; st == TESS_OK && i < again.n; i++) {
        out_n_hits[which[i]] = read_hits(b->best + i * b->k, b->count[i], out_hits + which[i] * k);
    }
    s->n_full += again.n;
    tess_free(lost);
    tess_free(which);
    return st;
}

static tess_status search_batch(tess__nearest *s, const batch *b, const float *queries, int64_t k,
                                tess__near_hit *out_hits, int64_t *out_n_hits)
{
    TESS_TRY(answer(s, b, queries, false));
    for (int64_t i = 0; i < b->n; i++) {
        if (b->count[i] <= s->near.capacity) {
            out_n_hits[i] = read_hits(b->best + i * b->k, b->count[i], out_hits + i * k);
        }
    }
    return answer_lost(s, b, queries, k, out_hits, out_n_hits);
}

static tess_status search_all(tess__nearest *s, const float *queries, int64_t n_queries, int64_t k,
                              tess__near_hit *out_hits, int64_t *out_n_hits)
{
    batch b = {.k = least_of(k, s->near.n_rows)};
    int64_t most = FOUND_BYTES / (capacity_of(s, b.k) * (int64_t)sizeof(uint64_t));
    most = least_of(most_of(1, most), least_of(MOST_QUERIES, n_queries));
    b.best = tess_alloc_array((size_t)most, (size_t)b.k * sizeof *b.best);
    b.count = tess_alloc_array((size_t)most, sizeof *b.count);
    tess_status st = b.best && b.count ? TESS_OK : TESS_NOMEM;
    for (int64_t q = 0; q < n_queries && st == TESS_OK; q += b.n) {
        b.n = least_of(most, n_queries - q);
        st = search_batch(s, &b, queries + q * s->near.dim, k, out_hits + q * k, out_n_hits + q);
    }
    tess_free(b.best);
    tess_free(b.count);
    return st;
}

tess_status tess__nearest_search(tess__nearest *s, const float *queries, int64_t n_queries,
                                 int64_t k, tess__near_hit *out_hits, int64_t *out_n_hits)
{
    if (k < 1 || n_queries < 1 || s->n_added != s->near.n_rows) {
        return TESS_FAIL(TESS_INVALID,
                         "expected queries, k of 1 or more and %lld vectors, found %lld, %lld and "
                         "%lld",
                         (long long)s->near.n_rows, (long long)n_queries, (long long)k,
                         (long long)s->n_added);
    }
    pthread_mutex_lock(&s->lock);
    const tess_status st = search_all(s, queries, n_queries, k, out_hits, out_n_hits);
    pthread_mutex_unlock(&s->lock);
    return st;
}
