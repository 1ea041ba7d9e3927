/* SPDX-License-Identifier: Apache-2.0 */
/* resize_patches: decoded pictures of many sizes to rows of normalised pixels, one row per patch.
 *
 *   bytes (N) u8, places (B,8) i32, taps (M) i32 -> y (B*P,3*p*p) f32 or bf16, P = (S/p)^2:
 *   m[r,X] = clip8(sum over t of kx[X,t] v[r, first(X) + t]), v a channel of the picture,
 *   v'[Y,X] = clip8(sum over t of ky[Y,t] m[first(Y) + t, X]), clip8(s) = (s + 2^21 >> 22) in
 *   0..255, sums wrapping at 32 bits, and then patchify of v'.  Filled where an axis reads nothing.
 *   The layout of places and taps is tess_resize_place's.
 *   Not differentiable.  Deterministic: integer sums have no order.
 *
 * A source row is resized along x once and then added to every output row that reads it, so that
 * memory does not grow with the picture.  This is for devices: on a processor vision's transform
 * does the same in vectors, picture by picture as they are decoded. */
#include "tensor/parallel.h"

#include <math.h>
#include <string.h>

tess_value tess_resize_patches(tess_graph *g, tess_value bytes, tess_value places, tess_value taps,
                               tess_resize_patches_options o)
{
    return TESS_NODE(g, &tess__op_resize_patches, &o, bytes, places, taps);
}

static tess_status infer(tess_infer *c)
{
    const tess_resize_patches_options *o = c->attrs;
    TESS_TRY(tess__expect("bytes", &c->in[0], TESS_U8, 1));
    TESS_TRY(tess__expect("places", &c->in[1], TESS_I32, 2));
    TESS_TRY(tess__expect("taps", &c->in[2], TESS_I32, 1));
    if (c->in[1].shape.dim[1] != TESS_RESIZE_PLACE || o->patch < 1 || o->patch > o->size ||
        o->size > 1 << 13) {
        return TESS_FAIL(TESS_INVALID,
                         "resize_patches: expected places (B,%d), and patches of at most the size, "
                         "at most 8192, found (B,%lld), %lld and %lld",
                         TESS_RESIZE_PLACE, (long long)c->in[1].shape.dim[1], (long long)o->patch,
                         (long long)o->size);
    }
    const int64_t side = o->size / o->patch;
    c->out[0] = (tess_operand){
        .dtype = o->dtype,
        .shape = TESS_SHAPE_OF(c->in[1].shape.dim[0] * side * side, 3 * o->patch * o->patch)};
    return o->dtype == TESS_F32 || o->dtype == TESS_BF16
               ? TESS_OK
               : TESS_FAIL(TESS_INVALID, "resize_patches: expected to make f32 or bf16, found %s",
                           tess_dtype_name(o->dtype));
}

/* ---- what the inputs say ------------------------------------------------------------------- */

typedef struct axis {
    const int32_t *taps, *table;
    int64_t step;
} axis;

typedef struct picture {
    const uint8_t *pixels;
    int64_t stride, width, height;
    axis x, y;
} picture;

static picture picture_at(const tess_exec *e, int64_t b)
{
    const tess_resize_place *p = (const tess_resize_place *)e->in[1].data + b;
    const int32_t *taps = e->in[2].data;
    return (picture){.pixels = (const uint8_t *)e->in[0].data + (int64_t)p->at * TESS_RESIZE_UNIT,
                     .stride = p->stride,
                     .width = p->width,
                     .height = p->height,
                     .x = {taps, taps + p->x, p->x_step},
                     .y = {taps, taps + p->y, p->y_step}};
}

static inline int64_t first_of(const axis *a, int64_t i)
{
    return a->table[3 * i];
}

static inline int64_t count_of(const axis *a, int64_t i)
{
    return a->table[3 * i + 1];
}

static inline uint32_t tap_of(const axis *a, int64_t i, int64_t t)
{
    return (uint32_t)a->taps[a->table[3 * i + 2] + t * a->step];
}

static inline uint8_t clip8(uint32_t sum)
{
    const int32_t v = (int32_t)(sum + (1u << (TESS_RESIZE_BITS - 1))) >> TESS_RESIZE_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

static bool axis_fits(const int32_t *taps, int64_t n_taps, int64_t at, int64_t step, int64_t in,
                      int64_t size)
{
    bool fits = at >= 0 && at + 3 * size <= n_taps && step >= 0;
    for (int64_t i = 0; fits && i < size; i++) {
        const int64_t first = taps[at + 3 * i], n = taps[at + 3 * i + 1], k = taps[at + 3 * i + 2];
        fits = n == 0 ||
               (n > 0 && first >= 0 && first + n <= in && k >= 0 && k + (n - 1) * step < n_taps);
    }
    return fits;
}

static tess_status check(const tess_exec *e, int64_t size)
{
    const int64_t n_bytes = e->in[0].shape.dim[0], n_taps = e->in[2].shape.dim[0];
    const tess_resize_place *p = e->in[1].data;
    for (int64_t b = 0; b < e->in[1].shape.dim[0]; b++, p++) {
        if (p->width == 0 || p->height == 0) {
            continue;
        }
        const int64_t row = 3 * (int64_t)p->width;
        const int64_t end =
            (int64_t)p->at * TESS_RESIZE_UNIT + ((int64_t)p->height - 1) * p->stride + row;
        if (p->at < 0 || p->width < 0 || p->height < 0 || p->stride < row || end > n_bytes) {
            return TESS_FAIL(TESS_INVALID,
                             "resize_patches: picture %lld of %d x %d pixels in rows of %d bytes "
                             "from %lld on does not lie in %lld bytes",
                             (long long)b, p->width, p->height, p->stride,
                             (long long)p->at * TESS_RESIZE_UNIT, (long long)n_bytes);
        }
        if (!axis_fits(e->in[2].data, n_taps, p->x, p->x_step, p->width, size) ||
            !axis_fits(e->in[2].data, n_taps, p->y, p->y_step, p->height, size)) {
            return TESS_FAIL(TESS_INVALID,
                             "resize_patches: the tables of picture %lld lead out of its %d x %d "
                             "pixels or of the %lld numbers of taps",
                             (long long)b, p->width, p->height, (long long)n_taps);
        }
    }
    return TESS_OK;
}

/* ---- the processor's code ------------------------------------------------------------------ */

static void fill_row(const tess_resize_patches_options *o, uint8_t *row)
{
    for (int64_t x = 0; x < o->size; x++, row += 3) {
        memcpy(row, o->fill, 3);
    }
}

/* Source row r along x, to (S,3). */
static void resize_row(const picture *p, int64_t r, int64_t size, uint8_t *out)
{
    const uint8_t *row = p->pixels + r * p->stride;
    for (int64_t x = 0; x < size; x++, out += 3) {
        const uint8_t *v = row + 3 * first_of(&p->x, x);
        uint32_t sum[3] = {0};
        for (int64_t t = 0; t < count_of(&p->x, x); t++, v += 3) {
            const uint32_t k = tap_of(&p->x, x, t);
            for (int c = 0; c < 3; c++) {
                sum[c] += k * v[c];
            }
        }
        for (int c = 0; c < 3; c++) {
            out[c] = clip8(sum[c]);
        }
    }
}

/* Adds `row` (S,3), which is source row r, to the outputs (S,S,3) that read it. */
static void add_row(const picture *p, int64_t r, int64_t size, const uint8_t *row, uint32_t *sum)
{
    for (int64_t y = 0; y < size; y++) {
        const int64_t t = r - first_of(&p->y, y);
        if (t < 0 || t >= count_of(&p->y, y)) {
            continue;
        }
        const uint32_t k = tap_of(&p->y, y, t);
        for (int64_t i = 0; i < 3 * size; i++) {
            sum[y * 3 * size + i] += k * row[i];
        }
    }
}

/* sum (S,S,3): scratch. */
static void resize(const tess_resize_patches_options *o, const picture *p, uint32_t *sum,
                   uint8_t *out)
{
    const int64_t size = o->size, width = 3 * size;
    const bool there = p->width > 0 && p->height > 0;
    memset(sum, 0, (size_t)(size * width) * sizeof *sum);
    for (int64_t r = 0; there && r < p->height; r++) {
        resize_row(p, r, size, out);
        add_row(p, r, size, out, sum);
    }
    for (int64_t y = 0; y < size; y++, out += width, sum += width) {
        if (!there || count_of(&p->y, y) == 0) {
            fill_row(o, out);
            continue;
        }
        for (int64_t x = 0; x < size; x++) {
            for (int64_t c = 0; c < 3; c++) {
                out[3 * x + c] = count_of(&p->x, x) > 0 ? clip8(sum[3 * x + c]) : o->fill[c];
            }
        }
    }
}

static size_t pixels_of(const tess_resize_patches_options *o)
{
    return (size_t)(3 * o->size * o->size);
}

static size_t scratch_of(const tess_resize_patches_options *o)
{
    return (pixels_of(o) * (1 + sizeof(uint32_t)) + 63) / 64 * 64;
}

static tess_status prepare(tess_prepare *c)
{
    c->scratch_bytes = (size_t)tess__slots() * scratch_of(c->attrs);
    return TESS_OK;
}

static tess_status cpu(const tess_exec *e)
{
    const tess_kernels *k = tess__kernels();
    const tess_resize_patches_options *o = e->attrs;
    const int64_t n = e->in[1].shape.dim[0];
    const int64_t per = n > 0 ? tess_shape_count(&e->out[0].shape) / n : 0;
    TESS_TRY(check(e, o->size));
#pragma omp parallel for schedule(dynamic) num_threads(tess__slots())
    for (int64_t b = 0; b < n; b++) {
        uint32_t *sum =
            (uint32_t *)((uint8_t *)e->scratch + (size_t)omp_get_thread_num() * scratch_of(o));
        uint8_t *pixels = (uint8_t *)(sum + pixels_of(o));
        const picture p = picture_at(e, b);
        resize(o, &p, sum, pixels);
        k->patchify(o->dtype, tess__at_mut(e->out[0].data, o->dtype, b * per), pixels, o->size,
                    o->patch, o->mean, o->std);
    }
    return TESS_OK;
}

/* ---- the reference ------------------------------------------------------------------------- */

static double exact_sum(double sum)
{
    const double v = floor((sum + 0x1p21) / 0x1p22);
    return v < 0 ? 0 : v > 255 ? 255 : v;
}

/* One channel of one output pixel, column by column as the contract says it. */
static double exact_pixel(const tess_resize_patches_options *o, const picture *p, int64_t y,
                          int64_t x, int64_t c)
{
    if (p->width == 0 || p->height == 0 || !count_of(&p->x, x) || !count_of(&p->y, y)) {
        return o->fill[c];
    }
    double sum = 0;
    for (int64_t t = 0; t < count_of(&p->y, y); t++) {
        const uint8_t *row = p->pixels + (first_of(&p->y, y) + t) * p->stride + c;
        double inner = 0;
        for (int64_t s = 0; s < count_of(&p->x, x); s++) {
            inner += (double)(int32_t)tap_of(&p->x, x, s) * row[3 * (first_of(&p->x, x) + s)];
        }
        sum += (double)(int32_t)tap_of(&p->y, y, t) * exact_sum(inner);
    }
    return exact_sum(sum);
}

static tess_status ref(const tess_exec *e)
{
    const tess_resize_patches_options *o = e->attrs;
    const int64_t p = o->patch, side = o->size / p, width = 3 * p * p;
    for (int64_t i = 0; i < tess_shape_count(&e->out[0].shape); i++) {
        const int64_t row = i / width, c = i % width / (p * p);
        const int64_t y = row % (side * side) / side * p + i % (p * p) / p;
        const int64_t x = row % side * p + i % p;
        const picture pic = picture_at(e, row / (side * side));
        const double v = exact_pixel(o, &pic, y, x, c) / 255;
        ((float *)e->out[0].data)[i] = (float)((v - (double)o->mean[c]) / (double)o->std[c]);
    }
    return TESS_OK;
}

/* ---- cases --------------------------------------------------------------------------------- */

/* A table of `size` outputs over `in` pixels, each reading up to `n` of them with coefficients that
 * overshoot on both sides; of the outputs, those below `gap` read nothing.  Returns where it ends.
 */
static int32_t set_axis(int32_t *taps, int32_t at, int64_t size, int64_t in, int64_t n, int64_t gap,
                        bool mirrored)
{
    const int32_t one = 1 << TESS_RESIZE_BITS, k = at + (int32_t)(3 * size);
    n = n < in ? n : in;
    for (int64_t i = 0; i < size; i++) {
        const int64_t j = mirrored ? size - 1 - i : i;
        int32_t *entry = taps + at + 3 * i;
        entry[0] = (int32_t)((in - n) * j / (size > 1 ? size - 1 : 1));
        entry[1] = i < gap ? 0 : (int32_t)n;
        entry[2] = k + (int32_t)j;
        for (int64_t t = 0; t < n; t++) {
            const int32_t rest =
                t == 0 ? one - (int32_t)(n - 1) * (one / (int32_t)n) : one / (int32_t)n;
            taps[k + t * size + j] = rest + (t == n / 2 ? one / 2 : 0) - (t == n - 1 ? one / 2 : 0);
        }
    }
    return k + (int32_t)(n * size);
}

/* Pictures of different sizes, the last of which is none. */
static void set_places(const tess_operand *in, int64_t size)
{
    static const struct {
        int32_t width, height, x_taps, y_taps, gap;
        bool mirrored;
    } kinds[] = {
        {11, 11, 1, 1, 0, false}, {1, 1, 1, 1, 0, false},  {29, 7, 9, 3, 2, true},
        {5, 83, 4, 40, 1, false}, {40, 47, 6, 7, 0, true}, {0, 0, 0, 0, 0, false},
    };
    tess_resize_place *p = in[1].data;
    int32_t at = 0, tap = 0;
    const int64_t n = in[1].shape.dim[0];
    for (int64_t b = 0; b < n; b++) {
        const int64_t i = b == n - 1 ? TESS_COUNT(kinds) - 1 : b;
        p[b] = (tess_resize_place){.at = at,
                                   .stride = 3 * kinds[i].width + (int32_t)b,
                                   .width = kinds[i].width,
                                   .height = kinds[i].height,
                                   .x_step = (int32_t)size,
                                   .y_step = (int32_t)size};
        if (kinds[i].width > 0) {
            p[b].x = tap;
            p[b].y = tap = set_axis(in[2].data, tap, size, kinds[i].width, kinds[i].x_taps,
                                    kinds[i].gap, kinds[i].mirrored);
            tap = set_axis(in[2].data, tap, size, kinds[i].height, kinds[i].y_taps, kinds[i].gap,
                           false);
        }
        at += (p[b].stride * p[b].height + TESS_RESIZE_UNIT - 1) / TESS_RESIZE_UNIT;
    }
}

static void set_small(const tess_operand *in)
{
    set_places(in, 11);
}

static void set_large(const tess_operand *in)
{
    set_places(in, 48);
}

static tess_value build_f32(tess_graph *g, const tess_value *in)
{
    return tess_resize_patches(g, in[0], in[1], in[2],
                               (tess_resize_patches_options){.size = 11,
                                                             .patch = 3,
                                                             .mean = {0.48f, 0.46f, 0.41f},
                                                             .std = {0.27f, 0.26f, 0.28f},
                                                             .fill = {7, 100, 250},
                                                             .dtype = TESS_F32});
}

static tess_value build_bf16(tess_graph *g, const tess_value *in)
{
    return tess_resize_patches(g, in[0], in[1], in[2],
                               (tess_resize_patches_options){.size = 48,
                                                             .patch = 16,
                                                             .mean = {0.5f, 0.5f, 0.5f},
                                                             .std = {0.5f, 0.5f, 0.5f},
                                                             .dtype = TESS_BF16});
}

static const tess_case cases[] = {
    {.name = "odd",
     .n_in = 3,
     .in = {{TESS_U8, {1, {9000}}, TESS_FILL_BYTES, 256, true},
            {TESS_I32, {2, {6, TESS_RESIZE_PLACE}}, TESS_FILL_INDEX, 1, true},
            {TESS_I32, {1, {1400}}, TESS_FILL_INDEX, 1, true}},
     .build = build_f32,
     .reduction = 4,
     .set = set_small},
    {.name = "bf16",
     .n_in = 3,
     .in = {{TESS_U8, {1, {9000}}, TESS_FILL_BYTES, 256, true},
            {TESS_I32, {2, {6, TESS_RESIZE_PLACE}}, TESS_FILL_INDEX, 1, true},
            {TESS_I32, {1, {6000}}, TESS_FILL_INDEX, 1, true}},
     .build = build_bf16,
     .reduction = 4,
     .set = set_large},
};

const tess_op tess__op_resize_patches = {
    .name = "resize_patches",
    .n_in_min = 3,
    .n_in_max = 3,
    .n_out = 1,
    .attrs_bytes = sizeof(tess_resize_patches_options),
    .infer = infer,
    .prepare = prepare,
    .cpu = cpu,
    .ref = ref,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
