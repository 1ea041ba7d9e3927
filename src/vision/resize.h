/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the resizer: windows of a resized picture, filter tables, kernels. */
#ifndef VISION_RESIZE_H
#define VISION_RESIZE_H

#include "tessera/vision.h"

/* A rectangle of a picture, or all of it. */
typedef struct tess__view {
    const uint8_t *rgb;
    size_t stride; /* bytes from row to row */
    int32_t width, height;
} tess__view;

tess__view tess__view_of(const tess_picture *picture);

/* The part of a resized picture that is wanted: of the whole (full_width,full_height), the columns
 * x .. x + width - 1 and the rows y .. y + height - 1. */
typedef struct tess__window {
    int32_t full_width, full_height, x, y, width, height;
} tess__window;

/* Writes the window to rows of `out_stride` bytes; what lies outside it is not computed. */
tess_status tess__resize_window(tess_resizer *resizer, tess__view in,
                                tess_interpolation interpolation, tess__window window, uint8_t *out,
                                size_t out_stride);

/* ---- kernels ------------------------------------------------------------------------------ */

enum {
    TESS__TAP_BITS = 22
}; /* fraction bits of a coefficient: 32 less 8 of pixel, 2 of overshoot */

/* Along one axis: output i is the sum of k[i][t] * pixel[first[i] + t] for t < count[i]. */
typedef struct tess__taps {
    int32_t in_size, out_size, out_first, n_out; /* with interpolation: what the table is for */
    tess_interpolation interpolation;
    int32_t stride; /* coefficients per output, a multiple of 4; the unused are 0 */
    int32_t *first, *count;
    int32_t *k;      /* (n_out,stride) */
    int16_t *packed; /* (n_out,stride/4,8): of 4 coefficients the low 15 bits, then the rest */
    size_t cap_first, cap_count, cap_k, cap_packed;
} tess__taps;

/* The tables of both axes for that window, until the resizer's next call; NULL: the axis keeps its
 * size, and the window's part of it is copied. */
TESS_MUST_USE tess_status tess__resize_taps(tess_resizer *resizer, int32_t in_width,
                                            int32_t in_height, tess_interpolation interpolation,
                                            tess__window window, const tess__taps **out_x,
                                            const tess__taps **out_y);

enum { TESS__ROWS_AT_ONCE = 4, TESS__ROW_SLACK = 16 };

/* Resizes n_rows (1..4) along x.  A row may be read TESS__ROW_SLACK bytes beyond its last pixel and
 * written 1 byte beyond. */
typedef void tess__resize_rows_fn(const tess__taps *taps, const uint8_t *const *in,
                                  uint8_t *const *out, int32_t n_rows);
/* One output row of n_bytes: the sum of k[t] * in[t * stride + x], t < n_taps. */
typedef void tess__resize_column_fn(const int32_t *k, int32_t n_taps, const uint8_t *in,
                                    size_t stride, size_t n_bytes, uint8_t *out);

typedef struct tess__resize_kernels {
    tess__resize_rows_fn *rows;
    tess__resize_column_fn *column;
} tess__resize_kernels;

extern const tess__resize_kernels tess__resize_base, tess__resize_avx2;

#endif
