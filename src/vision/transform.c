/* SPDX-License-Identifier: Apache-2.0 */
/* From a picture of any size to the tower's input: resize, crop or fill, normalise.
 *
 * Each axis is planned alone: how large the whole resized picture would be, which part of it shows,
 * and where that part lands.  The resizer then computes that part only.  The roundings are those of
 * torchvision (Resize, CenterCrop) and of OpenCLIP's ResizeKeepRatio and CenterCropOrPad; Python's
 * round() is to even, as nearbyint is.
 */
#include <math.h>
#include <string.h>

#include "vision/transform.h"

typedef struct axis {
    double full;           /* size of the whole resized picture */
    int32_t first, n, dst; /* the part that shows, and where it lands */
} axis;

/* torchvision's Resize(int): truncates the longer side. */
static void size_by_shortest(double w, double h, double size, axis *x, axis *y)
{
    x->full = w <= h ? size : trunc(size * w / h);
    y->full = w <= h ? trunc(size * h / w) : size;
}

/* OpenCLIP's ResizeKeepRatio: rounds both. */
static void size_by_ratio(double w, double h, double ratio, axis *x, axis *y)
{
    x->full = fmax(nearbyint(w / ratio), 1);
    y->full = fmax(nearbyint(h / ratio), 1);
}

static void size_shortest(const tess_preprocess *p, double w, double h, axis *x, axis *y)
{
    if (p->width == p->height) {
        size_by_shortest(w, h, p->width, x, y);
    } else {
        size_by_ratio(w, h, fmin(h / p->height, w / p->width), x, y);
    }
}

static void size_longest(const tess_preprocess *p, double w, double h, axis *x, axis *y)
{
    size_by_ratio(w, h, fmax(h / p->height, w / p->width), x, y);
}

static void size_squash(const tess_preprocess *p, double w, double h, axis *x, axis *y)
{
    (void)w, (void)h;
    x->full = p->width;
    y->full = p->height;
}

typedef void size_fn(const tess_preprocess *p, double w, double h, axis *x, axis *y);
static size_fn *const size_fns[TESS_RESIZE_MODES] = {
    [TESS_RESIZE_SHORTEST] = size_shortest,
    [TESS_RESIZE_LONGEST] = size_longest,
    [TESS_RESIZE_SQUASH] = size_squash,
};

static void place(axis *a, int32_t size)
{
    int32_t full = (int32_t)a->full;
    a->n = full < size ? full : size;
    a->first = full > size ? (int32_t)nearbyint((full - size) / 2.0) : 0;
    a->dst = full < size ? (size - full) / 2 : 0;
}

static void fill(uint8_t *out, size_t n_pixels, const uint8_t color[3])
{
    for (size_t i = 0; i < n_pixels; i++, out += 3) {
        memcpy(out, color, 3);
    }
}

tess_status tess__transform_place(const tess_preprocess *p, int32_t width, int32_t height,
                                  tess__placement *out)
{
    const double max_side = 1 << 30;
    axis x = {0}, y = {0};
    if (width < 1 || height < 1) {
        return TESS_FAIL(TESS_INVALID, "expected a picture, found an empty one");
    }
    size_fns[p->resize_mode](p, width, height, &x, &y);
    if (x.full > max_side || y.full > max_side) {
        return TESS_FAIL(TESS_FORMAT, "a picture of %d x %d pixels is too narrow to resize to %d",
                         width, height, p->width);
    }
    place(&x, p->width);
    place(&y, p->height);
    *out = (tess__placement){
        .window = {(int32_t)x.full, (int32_t)y.full, x.first, y.first, x.n, y.n},
        .x = x.dst,
        .y = y.dst,
    };
    return TESS_OK;
}

tess_status tess_transform_apply(tess_resizer *resizer, const tess_preprocess *p,
                                 const tess_picture *in, uint8_t *out)
{
    tess__placement to;
    TESS_TRY(tess__transform_place(p, in->width, in->height, &to));
    size_t stride = 3 * (size_t)p->width;
    if (to.window.width < p->width || to.window.height < p->height) {
        fill(out, (size_t)p->width * (size_t)p->height, p->fill);
    }
    return tess__resize_window(resizer, tess__view_of(in), p->interpolation, to.window,
                               out + (size_t)to.y * stride + 3 * (size_t)to.x, stride);
}

/* 256 values for each channel: the divisions are done 768 times, not 150,000. */
void tess_transform_normalize(const tess_preprocess *p, const uint8_t *in, float *out)
{
    float table[3][256];
    size_t n = (size_t)p->width * (size_t)p->height;
    for (int c = 0; c < 3; c++) {
        float mean = (float)p->mean[c], std = (float)p->std[c];
        for (int v = 0; v < 256; v++) {
            float unit = (float)v / 255.0f, centred = unit - mean;
            table[c][v] = centred / std;
        }
    }
    for (size_t i = 0; i < n; i++, in += 3) {
        out[i] = table[0][in[0]];
        out[n + i] = table[1][in[1]];
        out[2 * n + i] = table[2][in[2]];
    }
}
