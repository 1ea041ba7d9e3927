/* SPDX-License-Identifier: Apache-2.0 */
/* Augmentation: random resized crop, flip, shift, brightness and contrast.
 *
 * The random numbers are a function of (seed, sample) alone, so it does not matter which worker or
 * rank draws them, nor in what order.  The crop is torchvision's RandomResizedCrop.get_params: up
 * to ten tries for an area and an aspect ratio that fit, then the largest crop in the middle whose
 * ratio is allowed.  Differences: jittered values are rounded, where Pillow truncates, and contrast
 * always follows brightness.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "vision/augment.h"
#include "vision/resize.h"

/* Keeps these draws apart from others that a caller makes for the same seed and sample. */
static const uint64_t use_key = 0x6175676d656e7431u;

static double uniform(tess_rng *r, double low, double high)
{
    return low + (high - low) * tess_rng_unit(r);
}

tess_status tess_augment_check(const tess_augment *a)
{
    if (!(a->scale_min >= 0 && a->scale_min <= a->scale_max && a->scale_max <= 1)) {
        return TESS_FAIL(TESS_INVALID, "crop scale: expected 0 <= min <= max <= 1, found %g, %g",
                         a->scale_min, a->scale_max);
    }
    bool default_ratio = a->ratio_min == 0 && a->ratio_max == 0;
    if (!default_ratio &&
        !(a->ratio_min > 0 && a->ratio_min <= a->ratio_max && a->ratio_max <= 1000)) {
        return TESS_FAIL(TESS_INVALID, "crop ratio: expected 0 < min <= max <= 1000, found %g, %g",
                         a->ratio_min, a->ratio_max);
    }
    if (a->shift < 0 || !(a->brightness >= 0 && a->brightness <= 100) ||
        !(a->contrast >= 0 && a->contrast <= 100)) {
        return TESS_FAIL(TESS_INVALID,
                         "shift, brightness, contrast: expected 0 or more, found %d, %g, %g",
                         a->shift, a->brightness, a->contrast);
    }
    return TESS_OK;
}

/* ---- random resized crop ------------------------------------------------------------------ */

static tess__crop middle_crop(double ratio_min, double ratio_max, int32_t width, int32_t height)
{
    double ratio = (double)width / height;
    tess__crop c = {.width = width, .height = height};
    if (ratio < ratio_min) {
        c.height = (int32_t)nearbyint(width / ratio_min);
    } else if (ratio > ratio_max) {
        c.width = (int32_t)nearbyint(height * ratio_max);
    }
    c.width = c.width < 1 ? 1 : c.width > width ? width : c.width;
    c.height = c.height < 1 ? 1 : c.height > height ? height : c.height;
    c.x = (width - c.width) / 2;
    c.y = (height - c.height) / 2;
    return c;
}

tess__crop tess__crop_draw(const tess_augment *a, tess_rng *r, int32_t width, int32_t height)
{
    enum { TRIES = 10 };
    bool given = a->ratio_max > 0;
    double ratio_min = given ? a->ratio_min : 3.0 / 4, ratio_max = given ? a->ratio_max : 4.0 / 3;
    for (int i = 0; i < TRIES; i++) {
        double area = (double)width * height * uniform(r, a->scale_min, a->scale_max);
        double ratio = exp(uniform(r, log(ratio_min), log(ratio_max)));
        double w = nearbyint(sqrt(area * ratio)), h = nearbyint(sqrt(area / ratio));
        if (w >= 1 && w <= width && h >= 1 && h <= height) {
            tess__crop c = {.width = (int32_t)w, .height = (int32_t)h};
            c.y = (int32_t)tess_rng_below(r, (uint32_t)(height - c.height) + 1);
            c.x = (int32_t)tess_rng_below(r, (uint32_t)(width - c.width) + 1);
            return c;
        }
    }
    return middle_crop(ratio_min, ratio_max, width, height);
}

/* Crops first, then resizes, so that no pixel outside the crop bleeds in. */
static tess_status crop_and_resize(tess_resizer *resizer, const tess_preprocess *p, tess__crop c,
                                   const tess_picture *in, uint8_t *out)
{
    tess__view view = tess__view_of(in);
    view.rgb += (size_t)c.y * view.stride + 3 * (size_t)c.x;
    view.width = c.width;
    view.height = c.height;
    tess__window all = {p->width, p->height, 0, 0, p->width, p->height};
    return tess__resize_window(resizer, view, p->interpolation, all, out, 3 * (size_t)p->width);
}

/* ---- in place, on the result -------------------------------------------------------------- */

static void flip(uint8_t *rgb, size_t width, size_t height)
{
    for (size_t y = 0; y < height; y++, rgb += 3 * width) {
        uint8_t *a = rgb, *b = rgb + 3 * (width - 1), pixel[3];
        for (; a < b; a += 3, b -= 3) {
            memcpy(pixel, a, 3);
            memcpy(a, b, 3);
            memcpy(b, pixel, 3);
        }
    }
}

static void fill_pixels(uint8_t *rgb, int64_t n, const uint8_t color[3])
{
    for (int64_t i = 0; i < n; i++) {
        memcpy(rgb + 3 * i, color, 3);
    }
}

/* Moves the picture right by dx and down by dy. */
static void move(const tess_preprocess *p, int64_t dx, int64_t dy, uint8_t *rgb)
{
    int64_t w = p->width, h = p->height, n = w - llabs(dx);
    for (int64_t i = 0; i < h; i++) {
        int64_t y = dy > 0 ? h - 1 - i : i,
                from = y - dy; /* so that no row is read after writing */
        uint8_t *row = rgb + 3 * w * y;
        if (from < 0 || from >= h) {
            fill_pixels(row, w, p->fill);
            continue;
        }
        const uint8_t *source = rgb + 3 * w * from;
        memmove(row + 3 * (dx > 0 ? dx : 0), source + 3 * (dx < 0 ? -dx : 0), (size_t)(3 * n));
        fill_pixels(row + (dx > 0 ? 0 : 3 * n), w - n, p->fill);
    }
}

/* v -> pivot + factor (v - pivot), rounded. */
static void blend(uint8_t *rgb, size_t n_bytes, double factor, double pivot)
{
    uint8_t table[256];
    for (int v = 0; v < 256; v++) {
        double x = nearbyint(pivot + factor * (v - pivot));
        table[v] = (uint8_t)(x < 0 ? 0 : x > 255 ? 255 : x);
    }
    for (size_t i = 0; i < n_bytes; i++) {
        rgb[i] = table[rgb[i]];
    }
}

/* The mean of ITU-R 601 luma. */
static double mean_luma(const uint8_t *rgb, size_t n_pixels)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n_pixels; i++, rgb += 3) {
        sum += 299u * rgb[0] + 587u * rgb[1] + 114u * rgb[2];
    }
    return nearbyint((double)sum / 1000 / (double)n_pixels);
}

static double draw_factor(tess_rng *r, double spread)
{
    return uniform(r, fmax(0, 1 - spread), 1 + spread);
}

/* ---- all of it ---------------------------------------------------------------------------- */

/* From -most to most, where most leaves something of the picture to be seen. */
static int32_t draw_shift(tess_rng *r, int32_t shift, int32_t size)
{
    int32_t most = shift < size ? shift : size - 1;
    return (int32_t)tess_rng_below(r, 2 * (uint32_t)most + 1) - most;
}

tess__draws tess__augment_draw(const tess_preprocess *p, const tess_augment *a, uint64_t seed,
                               uint64_t sample, int32_t width, int32_t height)
{
    tess_rng r = tess_rng_at(seed ^ use_key, sample);
    tess__draws d = {.brightness = 1, .contrast = 1};
    if (a->scale_max > 0) {
        d.crop = tess__crop_draw(a, &r, width, height);
    }
    d.flip = a->flip && tess_rng_below(&r, 2);
    if (a->shift > 0) {
        d.dx = draw_shift(&r, a->shift, p->width);
        d.dy = draw_shift(&r, a->shift, p->height);
    }
    if (a->brightness > 0) {
        d.brightness = draw_factor(&r, a->brightness);
    }
    if (a->contrast > 0) {
        d.contrast = draw_factor(&r, a->contrast);
    }
    return d;
}

bool tess_augment_is_geometric(const tess_augment *a)
{
    return a->brightness == 0 && a->contrast == 0;
}

tess_status tess_augment_apply(tess_resizer *resizer, const tess_preprocess *p,
                               const tess_augment *a, uint64_t seed, uint64_t sample,
                               const tess_picture *in, uint8_t *out)
{
    size_t w = (size_t)p->width, h = (size_t)p->height;
    if (in->width < 1 || in->height < 1) {
        return TESS_FAIL(TESS_INVALID, "expected a picture, found an empty one");
    }
    const tess__draws d = tess__augment_draw(p, a, seed, sample, in->width, in->height);
    TESS_TRY(d.crop.width > 0 ? crop_and_resize(resizer, p, d.crop, in, out)
                              : tess_transform_apply(resizer, p, in, out));
    if (d.flip) {
        flip(out, w, h);
    }
    if (a->shift > 0) {
        move(p, d.dx, d.dy, out);
    }
    if (a->brightness > 0) {
        blend(out, 3 * w * h, d.brightness, 0);
    }
    if (a->contrast > 0) {
        blend(out, 3 * w * h, d.contrast, mean_luma(out, w * h));
    }
    return TESS_OK;
}
