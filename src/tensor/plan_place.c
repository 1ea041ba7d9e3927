/* SPDX-License-Identifier: Apache-2.0 */
/* Placement: largest buffer first, at the lowest offset free for its whole lifetime.
 *
 * Offline dynamic storage allocation is NP-hard; greedy by size stays within a few percent of the
 * largest sum of live bytes on transformer graphs (tests/tensor/test_plan.c prints the ratio), and
 * a graph has hundreds of buffers, so the quadratic search costs milliseconds. */
#include "tensor/plan.h"

#include <stdlib.h>
#include <string.h>

static size_t aligned(size_t n)
{
    return (n + TESS_ARENA_ALIGNMENT - 1) / TESS_ARENA_ALIGNMENT * TESS_ARENA_ALIGNMENT;
}

static int by_size(const void *a, const void *b)
{
    const tess_buffer *x = *(tess_buffer *const *)a, *y = *(tess_buffer *const *)b;
    if (x->n_bytes != y->n_bytes) {
        return x->n_bytes < y->n_bytes ? 1 : -1;
    }
    return x < y ? -1 : x > y;
}

/* The lowest offset where b fits among `placed`, which is sorted by offset. */
static size_t lowest_fit(const tess_buffer *b, tess_buffer *const *placed, int64_t n)
{
    size_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        const tess_buffer *o = placed[i];
        if (o->last < b->first || b->last < o->first || o->offset + aligned(o->n_bytes) <= at) {
            continue;
        }
        if (o->offset >= at + aligned(b->n_bytes)) {
            break;
        }
        at = o->offset + aligned(o->n_bytes);
    }
    return at;
}

/* Puts b into `placed` so that it stays sorted by offset. */
static void insert(tess_buffer **placed, int64_t n, tess_buffer *b)
{
    int64_t at = n;
    while (at > 0 && placed[at - 1]->offset > b->offset) {
        at--;
    }
    memmove(&placed[at + 1], &placed[at], (size_t)(n - at) * sizeof *placed);
    placed[at] = b;
}

size_t tess__plan_place(tess_buffer *buffers, int64_t n, tess_status *st)
{
    tess_buffer **order = tess_alloc_array((size_t)n + 1, sizeof *order);
    tess_buffer **placed = tess_alloc_array((size_t)n + 1, sizeof *placed);
    size_t end = 0;
    int64_t n_order = 0;
    *st = order && placed ? TESS_OK : TESS_NOMEM;
    for (int64_t i = 0; *st == TESS_OK && i < n; i++) {
        if (buffers[i].place == TESS_PLACE_ARENA && buffers[i].n_bytes > 0) {
            order[n_order++] = &buffers[i];
        }
    }
    if (*st == TESS_OK) {
        qsort(order, (size_t)n_order, sizeof *order, by_size);
    }
    for (int64_t i = 0; i < n_order; i++) {
        order[i]->offset = lowest_fit(order[i], placed, i);
        insert(placed, i, order[i]);
        size_t top = order[i]->offset + aligned(order[i]->n_bytes);
        end = top > end ? top : end;
    }
    tess_free(order);
    tess_free(placed);
    return end;
}
