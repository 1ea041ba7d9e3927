/* SPDX-License-Identifier: Apache-2.0 */
/* Decoded pictures for a device that resizes them.
 *
 * The resizer's own tables are copied, column by column of the result: a flip or a shift takes
 * another column's entry, and a column that nothing lands on has none.  Memory is handed out by two
 * counters that only grow, so threads need no lock; beside what decoded pictures may take there is
 * room for every place's picture finished, so a picture always fits one way. */
#include <stdatomic.h>
#include <string.h>

#include "vision/augment.h"
#include "vision/raw_pictures.h"
#include "vision/transform.h"

enum {
    MEAN_FACTOR = 6,     /* bytes of decoded pixels for each byte of the result, over a batch: crops
                            of 500 x 500 for results of 224 x 224 */
    MOST_FACTOR = 16,    /* of one picture; above it the copy costs more than resizing saves */
    TAPS_PER_OUTPUT = 24 /* bicubic, to a fifth of the size */
};

/* What a batch takes, by its places and size. */
typedef struct limits {
    size_t one_bytes;            /* of a finished picture, in whole units */
    size_t raw_bytes, max_bytes; /* of decoded pictures; of all */
    size_t first_taps, max_taps; /* the identity's; all */
} limits;

struct tess_raw_pictures {
    int64_t n;
    int32_t size;
    limits most;
    tess_resize_place *places;
    uint8_t *bytes;
    int32_t *taps; /* the first table is the identity's, for finished pictures */
    _Atomic size_t n_bytes, n_raw_bytes, n_taps;
};

static size_t whole_units(size_t n_bytes)
{
    return (n_bytes + TESS_RESIZE_UNIT - 1) / TESS_RESIZE_UNIT * TESS_RESIZE_UNIT;
}

static limits limits_of(int64_t n, int32_t size)
{
    limits m = {.one_bytes = whole_units(3 * (size_t)size * (size_t)size)};
    m.raw_bytes = (size_t)n * MEAN_FACTOR * m.one_bytes;
    m.max_bytes = m.raw_bytes + (size_t)n * m.one_bytes;
    m.first_taps = 3 * (size_t)size + 1;
    m.max_taps = m.first_taps + (size_t)n * 2 * (size_t)size * (3 + TAPS_PER_OUTPUT);
    return m;
}

/* ---- life ---------------------------------------------------------------------------------- */

static void set_identity(tess_raw_pictures *r)
{
    int32_t *entry = r->taps;
    for (int32_t i = 0; i < r->size; i++, entry += 3) {
        entry[0] = i;
        entry[1] = 1;
        entry[2] = 3 * r->size;
    }
    *entry = 1 << TESS_RESIZE_BITS;
}

tess_status tess_raw_pictures_new(int64_t n, int32_t size, tess_raw_pictures **out)
{
    *out = NULL;
    const double side = size, bytes = (double)n * (1 + MEAN_FACTOR) * (3 * side * side + 64);
    const double taps = ((double)n + 1) * 2 * side * (3 + TAPS_PER_OUTPUT);
    if (n < 1 || size < 1 || bytes > (double)INT32_MAX * TESS_RESIZE_UNIT || taps > INT32_MAX) {
        return TESS_FAIL(TESS_INVALID, "a batch of %lld decoded pictures for %d x %d pixels",
                         (long long)n, size, size);
    }
    tess_raw_pictures *r = tess_alloc(sizeof *r);
    if (!r) {
        return TESS_NOMEM;
    }
    r->n = n;
    r->size = size;
    r->most = limits_of(n, size);
    r->places = tess_alloc_array((size_t)n, sizeof *r->places);
    r->bytes = tess_alloc_unset(r->most.max_bytes);
    r->taps = tess_alloc_unset(r->most.max_taps * sizeof *r->taps);
    if (!r->places || !r->bytes || !r->taps) {
        tess_raw_pictures_free(r);
        return TESS_NOMEM;
    }
    set_identity(r);
    tess_raw_pictures_clear(r);
    *out = r;
    return TESS_OK;
}

void tess_raw_pictures_free(tess_raw_pictures *r)
{
    if (r) {
        tess_free(r->places);
        tess_free(r->bytes);
        tess_free(r->taps);
        tess_free(r);
    }
}

void tess_raw_pictures_clear(tess_raw_pictures *r)
{
    memset(r->places, 0, (size_t)r->n * sizeof *r->places);
    r->n_bytes = r->n_raw_bytes = 0;
    r->n_taps = r->most.first_taps;
}

tess_status tess_raw_pictures_copy(tess_raw_pictures *to, const tess_raw_pictures *from)
{
    if (to->n != from->n || to->size != from->size) {
        return TESS_FAIL(TESS_INVALID,
                         "%lld decoded pictures for %d pixels do not become %lld "
                         "for %d",
                         (long long)from->n, from->size, (long long)to->n, to->size);
    }
    memcpy(to->places, from->places, (size_t)to->n * sizeof *to->places);
    memcpy(to->bytes, from->bytes, from->n_bytes);
    memcpy(to->taps, from->taps, from->n_taps * sizeof *to->taps);
    to->n_bytes = (size_t)from->n_bytes;
    to->n_raw_bytes = (size_t)from->n_raw_bytes;
    to->n_taps = (size_t)from->n_taps;
    return TESS_OK;
}

tess_raw_memory tess_raw_pictures_get(const tess_raw_pictures *r)
{
    return (tess_raw_memory){.n = r->n,
                             .size = r->size,
                             .places = (const int32_t *)r->places,
                             .bytes = r->bytes,
                             .n_bytes = r->n_bytes,
                             .max_bytes = r->most.max_bytes,
                             .taps = r->taps,
                             .n_taps = r->n_taps,
                             .max_taps = r->most.max_taps};
}

/* ---- one axis ------------------------------------------------------------------------------ */

/* How one axis of a picture becomes `size` outputs. */
typedef struct axis {
    const tess__taps *taps;   /* NULL: the axis keeps its size */
    int32_t origin;           /* of the cropped picture in the whole one */
    int32_t shown, n, landed; /* outputs shown.. of the resized one land at landed.. */
    int32_t size, moved;      /* then moved, */
    bool flip;                /* having been mirrored */
    int32_t first, end;       /* pixels of the whole picture that it reads */
    int32_t most;             /* read by one output */
} axis;

/* The number of the shown output that lands on column i; -1: none does. */
static int32_t output_at(const axis *a, int32_t i)
{
    int32_t j = i - a->moved;
    if (j < 0 || j >= a->size) {
        return -1;
    }
    j = (a->flip ? a->size - 1 - j : j) - a->landed;
    return j >= 0 && j < a->n ? j : -1;
}

static int32_t first_of(const axis *a, int32_t j)
{
    return a->origin + (a->taps ? a->taps->first[j] : a->shown + j);
}

static int32_t count_of(const axis *a, int32_t j)
{
    return a->taps ? a->taps->count[j] : 1;
}

static int32_t tap_of(const axis *a, int32_t j, int32_t t)
{
    const int32_t one = 1 << TESS_RESIZE_BITS;
    return !a->taps ? one : t < count_of(a, j) ? a->taps->k[j * a->taps->stride + t] : 0;
}

/* What the outputs that are left read; nothing, where all were moved out. */
static void measure(axis *a)
{
    a->first = INT32_MAX;
    for (int32_t i = 0; i < a->size; i++) {
        const int32_t j = output_at(a, i);
        if (j >= 0) {
            const int32_t first = first_of(a, j), n = count_of(a, j);
            a->first = first < a->first ? first : a->first;
            a->end = first + n > a->end ? first + n : a->end;
            a->most = n > a->most ? n : a->most;
        }
    }
    a->first = a->end == 0 ? 0 : a->first;
}

static size_t table_size(const axis *a)
{
    return 3 * (size_t)a->size + (size_t)a->most * (size_t)a->n;
}

/* Coefficients lie tap by tap, so that neighbouring outputs read neighbouring ones. */
static void write_table(const axis *a, int32_t *taps, size_t at)
{
    const size_t k = at + 3 * (size_t)a->size;
    for (int32_t i = 0; i < a->size; i++) {
        const int32_t j = output_at(a, i);
        int32_t *entry = taps + at + 3 * (size_t)i;
        entry[0] = j >= 0 ? first_of(a, j) - a->first : 0;
        entry[1] = j >= 0 ? count_of(a, j) : 0;
        entry[2] = j >= 0 ? (int32_t)k + j : 0;
    }
    for (int32_t t = 0; t < a->most; t++) {
        for (int32_t j = 0; j < a->n; j++) {
            taps[k + (size_t)t * (size_t)a->n + (size_t)j] = tap_of(a, j, t);
        }
    }
}

/* ---- one picture --------------------------------------------------------------------------- */

static tess_status plan_axes(tess_resizer *resizer, const tess_raw_view *view,
                             const tess_picture *in, axis *x, axis *y)
{
    static const tess_augment nothing;
    const tess_preprocess *p = view->preprocess;
    const tess__draws d = tess__augment_draw(p, view->augment ? view->augment : &nothing,
                                             view->seed, view->sample, in->width, in->height);
    tess__crop crop = d.crop;
    tess__placement to = {.window = {p->width, p->height, 0, 0, p->width, p->height}};
    if (crop.width == 0) {
        crop = (tess__crop){0, 0, in->width, in->height};
        TESS_TRY(tess__transform_place(p, in->width, in->height, &to));
    }
    const tess__window *w = &to.window;
    *x = (axis){.origin = crop.x, .shown = w->x, .n = w->width, .landed = to.x, .size = p->width};
    *y = (axis){.origin = crop.y, .shown = w->y, .n = w->height, .landed = to.y, .size = p->height};
    x->flip = d.flip;
    x->moved = d.dx;
    y->moved = d.dy;
    TESS_TRY(tess__resize_taps(resizer, crop.width, crop.height, p->interpolation, *w, &x->taps,
                               &y->taps));
    measure(x);
    measure(y);
    return TESS_OK;
}

/* Adds n to the counter unless that passes `most`. */
static bool take(_Atomic size_t *counter, size_t n, size_t most, size_t *out)
{
    *out = atomic_load(counter);
    do {
        if (n > most - *out) {
            return false;
        }
    } while (!atomic_compare_exchange_weak(counter, out, *out + n));
    return true;
}

static size_t read_bytes(const axis *x, const axis *y)
{
    return 3 * (size_t)(x->end - x->first) * (size_t)(y->end - y->first);
}

/* Room for the picture as it was decoded and for its tables. */
static bool reserve(tess_raw_pictures *r, const axis *x, const axis *y, size_t *at, size_t *table)
{
    size_t n_bytes = whole_units(read_bytes(x, y)), before;
    if (n_bytes > MOST_FACTOR * r->most.one_bytes ||
        !take(&r->n_raw_bytes, n_bytes, r->most.raw_bytes, &before) ||
        !take(&r->n_taps, table_size(x) + table_size(y), r->most.max_taps, table)) {
        return false;
    }
    *at = atomic_fetch_add(&r->n_bytes, n_bytes);
    return true;
}

static void copy_pixels(const axis *x, const axis *y, const tess_picture *in, uint8_t *out)
{
    const size_t stride = 3 * (size_t)in->width, n = 3 * (size_t)(x->end - x->first);
    const uint8_t *from = in->rgb + (size_t)y->first * stride + 3 * (size_t)x->first;
    for (int32_t row = y->first; row < y->end; row++, from += stride, out += n) {
        memcpy(out, from, n);
    }
}

static tess_status set_finished(tess_raw_pictures *r, tess_resize_place *place,
                                tess_resizer *resizer, const tess_raw_view *v,
                                const tess_picture *in)
{
    static const tess_augment nothing;
    const size_t at = atomic_fetch_add(&r->n_bytes, r->most.one_bytes);
    *place = (tess_resize_place){.at = (int32_t)(at / TESS_RESIZE_UNIT),
                                 .stride = 3 * r->size,
                                 .width = r->size,
                                 .height = r->size};
    return tess_augment_apply(resizer, v->preprocess, v->augment ? v->augment : &nothing, v->seed,
                              v->sample, in, r->bytes + at);
}

tess_status tess_raw_pictures_set(tess_raw_pictures *r, int64_t place, tess_resizer *resizer,
                                  const tess_raw_view *view, const tess_picture *in)
{
    const tess_preprocess *p = view->preprocess;
    axis x, y;
    size_t at, table;
    if (p->width != r->size || p->height != r->size ||
        (view->augment && !tess_augment_is_geometric(view->augment))) {
        return TESS_FAIL(TESS_INVALID,
                         "a batch of decoded pictures for %d x %d pixels takes no view of %d x %d, "
                         "and none with other brightness or contrast",
                         r->size, r->size, p->width, p->height);
    }
    if (place < 0 || place >= r->n || r->places[place].width > 0) {
        return TESS_FAIL(TESS_INVALID, "place %lld of %lld in a batch of decoded pictures is %s",
                         (long long)place, (long long)r->n,
                         place < 0 || place >= r->n ? "none" : "taken");
    }
    if (in->width < 1 || in->height < 1) {
        return TESS_FAIL(TESS_INVALID, "expected a picture, found an empty one");
    }
    TESS_TRY(plan_axes(resizer, view, in, &x, &y));
    if (!reserve(r, &x, &y, &at, &table)) {
        return set_finished(r, &r->places[place], resizer, view, in);
    }
    const size_t table_y = table + table_size(&x);
    copy_pixels(&x, &y, in, r->bytes + at);
    write_table(&x, r->taps, table);
    write_table(&y, r->taps, table_y);
    r->places[place] = (tess_resize_place){.at = (int32_t)(at / TESS_RESIZE_UNIT),
                                           .stride = 3 * (x.end - x.first),
                                           .width = x.end - x.first,
                                           .height = y.end - y.first,
                                           .x = (int32_t)table,
                                           .x_step = x.n,
                                           .y = (int32_t)table_y,
                                           .y_step = y.n};
    return TESS_OK;
}

/* ---- in a graph ---------------------------------------------------------------------------- */

tess_raw_inputs tess__raw_inputs(tess_graph *g, int64_t n, int32_t size)
{
    const limits m = limits_of(n, size);
    return (tess_raw_inputs){
        .places = tess_input(g, "picture_places", TESS_I32, TESS_SHAPE_OF(n, TESS_RESIZE_PLACE)),
        .taps = tess_input(g, "picture_taps", TESS_I32, TESS_SHAPE_OF((int64_t)m.max_taps)),
        .bytes = tess_input(g, "picture_bytes", TESS_U8, TESS_SHAPE_OF((int64_t)m.max_bytes)),
    };
}

tess_status tess__raw_bind(tess_plan *p, const tess_raw_pictures *r)
{
    TESS_TRY(tess_plan_bind(p, "picture_places", r->places));
    TESS_TRY(tess_plan_bind_part(p, "picture_taps", r->taps, r->n_taps * sizeof *r->taps));
    return tess_plan_bind_part(p, "picture_bytes", r->bytes, r->n_bytes);
}
