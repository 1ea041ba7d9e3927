/* SPDX-License-Identifier: Apache-2.0 */
/* Conversions, sums, column sums and the cut of pictures into patches. */
#include "tensor/kernels/vec.h"

static void convert(tess_dtype to, void *out, tess_dtype from, const void *in, int64_t n)
{
    if (to == from) {
        memcpy(out, in, (size_t)n * (to == TESS_BF16 ? 2 : 4));
    } else if (to == TESS_BF16) {
        const float *x = in;
        uint16_t *y = out;
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            y[i] = bf16_of(x[i]);
        }
    } else {
        const uint16_t *x = in;
        float *y = out;
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            y[i] = float_of((uint32_t)x[i] << 16);
        }
    }
}

INLINE void add_body(void *out, const void *a, const void *b, int64_t n, bool bf16)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        store1(out, i, load1(a, i, bf16) + load1(b, i, bf16), bf16);
    }
}

static void add(tess_dtype t, void *out, const void *a, const void *b, int64_t n)
{
    BY_DTYPE(t, add_body, out, a, b, n);
}

INLINE void add_f32_body(void *out, const void *x, const float *b, int64_t n, bool bf16)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        store1(out, i, load1(x, i, bf16) + b[i], bf16);
    }
}

static void add_f32(tess_dtype t, void *out, const void *x, const float *b, int64_t n)
{
    BY_DTYPE(t, add_f32_body, out, x, b, n);
}

INLINE void axpy_body(float *y, const void *x, float a, int64_t n, bool bf16)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        y[i] += a * load1(x, i, bf16);
    }
}

static void axpy(tess_dtype t, float *y, const void *x, float a, int64_t n)
{
    BY_DTYPE(t, axpy_body, y, x, a, n);
}

INLINE void scale_body(void *out, const void *x, float a, int64_t n, bool bf16)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        store1(out, i, load1(x, i, bf16) * a, bf16);
    }
}

static void scale(tess_dtype t, void *out, const void *x, float a, int64_t n)
{
    BY_DTYPE(t, scale_body, out, x, a, n);
}

/* Four rows at a time: sum is loaded and stored once for four elements. */
INLINE void column_sum_body(float *sum, const void *x, int64_t rows, int64_t width, bool bf16)
{
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4) {
        const void *a = at(x, r * width, bf16), *b = at(x, (r + 1) * width, bf16);
        const void *c = at(x, (r + 2) * width, bf16), *d = at(x, (r + 3) * width, bf16);
#pragma omp simd
        for (int64_t j = 0; j < width; j++) {
            sum[j] +=
                (load1(a, j, bf16) + load1(b, j, bf16)) + (load1(c, j, bf16) + load1(d, j, bf16));
        }
    }
    for (; r < rows; r++) {
        axpy_body(sum, at(x, r * width, bf16), 1.0f, width, bf16);
    }
}

static void column_sum(tess_dtype t, float *sum, const void *x, int64_t rows, int64_t width)
{
    BY_DTYPE(t, column_sum_body, sum, x, rows, width);
}

INLINE void relu_grad_body(void *dx, float *sum, const void *y, const void *dy, int64_t rows,
                           int64_t width, bool bf16)
{
    for (int64_t r = 0; r < rows; r++) {
        const void *yr = at(y, r * width, bf16), *gr = at(dy, r * width, bf16);
        void *dr = at_mut(dx, r * width, bf16);
#pragma omp simd
        for (int64_t j = 0; j < width; j++) {
            const float g = load1(yr, j, bf16) > 0.0f ? load1(gr, j, bf16) : 0.0f;
            store1(dr, j, g, bf16);
            sum[j] += g;
        }
    }
}

static void relu_grad(tess_dtype t, void *dx, float *sum, const void *y, const void *dy,
                      int64_t rows, int64_t width)
{
    BY_DTYPE(t, relu_grad_body, dx, sum, y, dy, rows, width);
}

/* One row of one patch of one channel is `patch` bytes, three apart, which vectors do not load
 * well: a table of the 256 results is read one by one (three times as fast as multiply-adds). */
INLINE void patchify_body(void *out, const uint8_t *picture, int64_t size, int64_t patch,
                          const float mean[3], const float std[3], bool bf16)
{
    const int64_t side = size / patch, width = 3 * patch * patch;
    for (int64_t c = 0; c < 3; c++) {
        union {
            float wide[256];
            uint16_t narrow[256];
        } table;
        for (int v = 0; v < 256; v++) {
            store1(&table, v, ((float)v / 255.0f - mean[c]) / std[c], bf16);
        }
        for (int64_t y = 0; y < side * patch; y++) {
            const uint8_t *line = picture + y * size * 3 + c;
            for (int64_t px = 0; px < side; px++) {
                const int64_t row = y / patch * side + px;
                void *to = at_mut(out, row * width + (c * patch + y % patch) * patch, bf16);
                for (int64_t i = 0; i < patch; i++) {
                    const uint8_t v = line[(px * patch + i) * 3];
                    if (bf16) {
                        ((uint16_t *)to)[i] = table.narrow[v];
                    } else {
                        ((float *)to)[i] = table.wide[v];
                    }
                }
            }
        }
    }
}

static void patchify(tess_dtype t, void *out, const uint8_t *picture, int64_t size, int64_t patch,
                     const float mean[3], const float std[3])
{
    BY_DTYPE(t, patchify_body, out, picture, size, patch, mean, std);
}

void TESS_K(fill_pointwise)(tess_kernels *k)
{
    k->convert = convert;
    k->add = add;
    k->add_f32 = add_f32;
    k->axpy = axpy;
    k->scale = scale;
    k->column_sum = column_sum;
    k->relu_grad = relu_grad;
    k->patchify = patchify;
}
