/* SPDX-License-Identifier: Apache-2.0 */
/* Antialiased resizing, equal to Pillow's 8-bit result bit for bit.
 *
 * Two passes, along x then along y, with 8-bit pixels between them.  Each output is a weighted sum
 * whose weights are computed in double, normalised, and rounded to 22 fraction bits; so the order
 * of the integer additions is free, and vector kernels are exact by construction.
 *
 * Where we differ from the obvious: only a window of the resized picture is computed.  An output
 * pixel depends on its own filter support and nothing else, so cropping after resizing needs
 * neither the other columns nor the rows that only they would read.  A pass whose size does not
 * change is an identity and is skipped.
 */
#include "vision/resize.h"

#include <math.h>
#include <string.h>

struct tess_resizer {
    tess__taps x, y;
    double *weights; /* of one output, before rounding */
    size_t cap_weights;
    uint8_t *rows; /* between the passes */
    size_t cap_rows;
    uint8_t *padded; /* copies of rows too near the end of memory to be read in vectors */
    size_t cap_padded;
};

tess_resizer *tess_resizer_new(void)
{
    return tess_alloc(sizeof(tess_resizer));
}

static void taps_deinit(tess__taps *t)
{
    tess_free(t->first);
    tess_free(t->count);
    tess_free(t->k);
    tess_free(t->packed);
}

void tess_resizer_free(tess_resizer *resizer)
{
    if (resizer) {
        taps_deinit(&resizer->x);
        taps_deinit(&resizer->y);
        tess_free(resizer->weights);
        tess_free(resizer->rows);
        tess_free(resizer->padded);
        tess_free(resizer);
    }
}

tess__view tess__view_of(const tess_picture *p)
{
    return (tess__view){p->rgb, 3 * (size_t)p->width, p->width, p->height};
}

/* ---- filters ------------------------------------------------------------------------------ */

static double bilinear(double x)
{
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

/* Keys' cubic convolution with a = -1/2 (IEEE Trans. ASSP 29, 1981). */
static double bicubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0) {
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    }
    return x < 2.0 ? (((x - 5) * x + 8) * x - 4) * a : 0.0;
}

static const struct filter {
    double (*at)(double x);
    double support;
} filters[TESS_INTERPOLATIONS] = {
    [TESS_BICUBIC] = {bicubic, 2.0},
    [TESS_BILINEAR] = {bilinear, 1.0},
};

static int32_t round_weight(double w)
{
    return (int32_t)((w < 0 ? -0.5 : 0.5) + w * (1 << TESS__TAP_BITS));
}

/* The weights of output `i` of the whole axis, to row `row` of the table. */
static void build_output(tess__taps *t, int32_t row, double *weights)
{
    const struct filter *f = &filters[t->interpolation];
    double scale = (double)t->in_size / t->out_size, stretch = scale < 1.0 ? 1.0 : scale;
    double support = f->support * stretch, inverse = 1.0 / stretch, sum = 0.0;
    double center = (t->out_first + row + 0.5) * scale;
    int32_t first = (int32_t)(center - support + 0.5), end = (int32_t)(center + support + 0.5);
    first = first < 0 ? 0 : first;
    end = end > t->in_size ? t->in_size : end;
    int32_t n = end - first, *k = t->k + (size_t)row * (size_t)t->stride;
    for (int32_t i = 0; i < n; i++) {
        weights[i] = f->at((i + first - center + 0.5) * inverse);
        sum += weights[i];
    }
    for (int32_t i = 0; i < n; i++) {
        k[i] = round_weight(sum != 0.0 ? weights[i] / sum : weights[i]);
    }
    for (int32_t i = n; i < t->stride; i++) {
        k[i] = 0;
    }
    t->first[row] = first;
    t->count[row] = n;
}

static void pack(tess__taps *t)
{
    size_t n_groups = (size_t)t->n_out * (size_t)t->stride / 4;
    for (size_t g = 0; g < n_groups; g++) {
        for (size_t i = 0; i < 4; i++) {
            int32_t k = t->k[4 * g + i];
            t->packed[8 * g + i] = (int16_t)(k & 0x7fff);
            t->packed[8 * g + 4 + i] = (int16_t)(k >> 15);
        }
    }
}

static tess_status taps_reserve(tess_resizer *r, tess__taps *t, int32_t stride)
{
    size_t n = (size_t)t->n_out, n_k;
    if (tess_mul_overflows(n, (size_t)stride, &n_k)) {
        return TESS_FAIL(TESS_INVALID, "a filter table of %zu x %d is too large", n, stride);
    }
    TESS_TRY(tess_grow(&r->weights, &r->cap_weights, (size_t)stride, sizeof *r->weights));
    TESS_TRY(tess_grow(&t->first, &t->cap_first, n, sizeof *t->first));
    TESS_TRY(tess_grow(&t->count, &t->cap_count, n, sizeof *t->count));
    TESS_TRY(tess_grow(&t->k, &t->cap_k, n_k, sizeof *t->k));
    return tess_grow(&t->packed, &t->cap_packed, 2 * n_k, sizeof *t->packed);
}

/* Makes the table for outputs out_first .. out_first + n_out - 1 of in_size -> out_size, unless it
 * is the one that is there. */
static tess_status taps_build(tess_resizer *r, tess__taps *t, int32_t in_size, int32_t out_size,
                              int32_t out_first, int32_t n_out, tess_interpolation interpolation)
{
    if (t->in_size == in_size && t->out_size == out_size && t->out_first == out_first &&
        t->n_out == n_out && t->interpolation == interpolation) {
        return TESS_OK;
    }
    double scale = (double)in_size / out_size;
    double support = filters[interpolation].support * (scale < 1.0 ? 1.0 : scale);
    int32_t most = (int32_t)fmin(ceil(support) * 2 + 1, in_size);
    t->in_size = 0; /* no table, until it is whole */
    t->n_out = n_out;
    TESS_TRY(taps_reserve(r, t, (most + 3) / 4 * 4));
    t->stride = (most + 3) / 4 * 4;
    t->out_size = out_size;
    t->out_first = out_first;
    t->interpolation = interpolation;
    t->in_size = in_size;
    for (int32_t i = 0; i < n_out; i++) {
        build_output(t, i, r->weights);
    }
    pack(t);
    return TESS_OK;
}

/* ---- passes ------------------------------------------------------------------------------- */

static const tess__resize_kernels *pick_kernels(void)
{
    tess_isa isa = tess_isa_get();
#if defined(__x86_64__)
    if (isa >= TESS_ISA_AVX2) {
        return &tess__resize_avx2;
    }
#endif
    (void)isa;
    return &tess__resize_base;
}

/* Rows first .. first + n_rows - 1 of the view, resized along x, to r->rows of `stride` bytes. */
static tess_status pass_x(tess_resizer *r, tess__view in, int32_t first, int32_t n_rows,
                          size_t stride)
{
    const tess__resize_kernels *kernels = pick_kernels();
    size_t row_bytes = 3 * (size_t)in.width, padded_bytes = row_bytes + TESS__ROW_SLACK;
    size_t n_bytes;
    if (tess_mul_overflows(stride, (size_t)n_rows, &n_bytes)) {
        return TESS_FAIL(TESS_INVALID, "%d rows of %zu bytes are too large", n_rows, stride);
    }
    TESS_TRY(tess_grow(&r->rows, &r->cap_rows, n_bytes, 1));
    TESS_TRY(tess_grow(&r->padded, &r->cap_padded, TESS__ROWS_AT_ONCE * padded_bytes, 1));
    for (int32_t done = 0; done < n_rows; done += TESS__ROWS_AT_ONCE) {
        const uint8_t *from[TESS__ROWS_AT_ONCE];
        uint8_t *to[TESS__ROWS_AT_ONCE];
        int32_t n = n_rows - done < TESS__ROWS_AT_ONCE ? n_rows - done : TESS__ROWS_AT_ONCE;
        for (int32_t i = 0; i < n; i++) {
            int32_t y = first + done + i;
            from[i] = in.rgb + (size_t)y * in.stride;
            to[i] = r->rows + (size_t)(done + i) * stride;
            if ((size_t)(in.height - 1 - y) * in.stride < TESS__ROW_SLACK) {
                uint8_t *copy = r->padded + (size_t)i * padded_bytes;
                memcpy(copy, from[i], row_bytes);
                from[i] = copy;
            }
        }
        kernels->rows(&r->x, from, to, n);
    }
    return TESS_OK;
}

static void pass_y(const tess__taps *t, tess__view in, int32_t in_first, uint8_t *out,
                   size_t out_stride)
{
    const tess__resize_kernels *kernels = pick_kernels();
    for (int32_t y = 0; y < t->n_out; y++) {
        const uint8_t *top = in.rgb + (size_t)(t->first[y] - in_first) * in.stride;
        kernels->column(t->k + (size_t)y * (size_t)t->stride, t->count[y], top, in.stride,
                        3 * (size_t)in.width, out + (size_t)y * out_stride);
    }
}

static void copy_rows(tess__view in, uint8_t *out, size_t out_stride)
{
    for (int32_t y = 0; y < in.height; y++) {
        memcpy(out + (size_t)y * out_stride, in.rgb + (size_t)y * in.stride, 3 * (size_t)in.width);
    }
}

tess_status tess__resize_taps(tess_resizer *r, int32_t in_width, int32_t in_height,
                              tess_interpolation interpolation, tess__window w,
                              const tess__taps **out_x, const tess__taps **out_y)
{
    *out_x = *out_y = NULL;
    if (in_width != w.full_width) {
        TESS_TRY(taps_build(r, &r->x, in_width, w.full_width, w.x, w.width, interpolation));
        *out_x = &r->x;
    }
    if (in_height != w.full_height) {
        TESS_TRY(taps_build(r, &r->y, in_height, w.full_height, w.y, w.height, interpolation));
        *out_y = &r->y;
    }
    return TESS_OK;
}

tess_status tess__resize_window(tess_resizer *r, tess__view in, tess_interpolation interpolation,
                                tess__window w, uint8_t *out, size_t out_stride)
{
    const tess__taps *along_x, *along_y;
    int32_t first = w.y, n_rows = w.height;
    TESS_TRY(tess__resize_taps(r, in.width, in.height, interpolation, w, &along_x, &along_y));
    if (along_y) {
        first = along_y->first[0];
        n_rows = along_y->first[w.height - 1] + along_y->count[w.height - 1] - first;
    }
    tess__view mid = {in.rgb + (size_t)first * in.stride + 3 * (size_t)w.x, in.stride, w.width,
                      n_rows};
    if (along_x) {
        size_t stride = (3 * (size_t)w.width + 1 + 63) / 64 * 64;
        TESS_TRY(pass_x(r, in, first, n_rows, stride));
        mid.rgb = r->rows;
        mid.stride = stride;
    }
    if (along_y) {
        pass_y(along_y, mid, first, out, out_stride);
    } else {
        copy_rows(mid, out, out_stride);
    }
    return TESS_OK;
}

tess_status tess_picture_resize(tess_resizer *resizer, const tess_picture *in,
                                tess_interpolation interpolation, int32_t width, int32_t height,
                                uint8_t *out)
{
    enum { MAX_SIDE = 1 << 24 }; /* half pixels stay exact, row sizes stay small */
    if (width < 1 || height < 1 || width > MAX_SIDE || height > MAX_SIDE || in->width < 1 ||
        in->height < 1) {
        return TESS_FAIL(TESS_INVALID, "cannot resize %d x %d pixels to %d x %d", in->width,
                         in->height, width, height);
    }
    tess__window all = {
        .full_width = width, .full_height = height, .width = width, .height = height};
    return tess__resize_window(resizer, tess__view_of(in), interpolation, all, out,
                               3 * (size_t)width);
}
