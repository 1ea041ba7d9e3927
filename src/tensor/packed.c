/* SPDX-License-Identifier: Apache-2.0 */
/* Packing weights into panels (packed.h), over all threads. */
#include "tensor/packed.h"

#include <math.h>
#include <string.h>

#include "tensor/parallel.h"

int64_t tess__packed_n_panels(int64_t n)
{
    return (n + TESS_PANEL - 1) / TESS_PANEL;
}

static int64_t per_group(tess_dtype kind)
{
    return (int64_t)(sizeof(uint32_t) / tess_dtype_bytes(kind));
}

int64_t tess__packed_groups(tess_dtype kind, int64_t k)
{
    return (k + per_group(kind) - 1) / per_group(kind);
}

static size_t one_panel_bytes(tess_dtype kind, int64_t k)
{
    return (size_t)tess__packed_groups(kind, k) * TESS_PANEL * sizeof(uint32_t);
}

size_t tess__packed_panel_bytes(tess_dtype kind, int64_t n, int64_t k)
{
    return (size_t)tess__packed_n_panels(n) * one_panel_bytes(kind, k);
}

typedef struct packing {
    tess_dtype kind;
    const float *w;
    int64_t n, k, row, col; /* w[i,j] is at i * row + j * col */
    uint32_t *panels;
    float *scale;
    int32_t *sum;
} packing;

/* Groups that are laid out at a time: 64 rows of them stay in L1. */
enum { BLOCK = 64, BLOCK_ITEMS = BLOCK * 4 };

static uint32_t magnitude_bits(float w)
{
    uint32_t u;
    memcpy(&u, &w, sizeof u);
    return u & 0x7fffffffu;
}

/* The largest magnitude of row i; NaN or infinity when it holds one: as bits, whose order is the
 * numbers'. */
static float magnitude(const packing *p, int64_t i)
{
    const float *w = p->w + i * p->row;
    int32_t bits = 0;
    if (p->col == 1) {
#pragma omp simd reduction(max : bits)
        for (int64_t j = 0; j < p->k; j++) {
            const int32_t b = (int32_t)magnitude_bits(w[j]);
            bits = b > bits ? b : bits;
        }
    } else {
        for (int64_t j = 0; j < p->k; j++) {
            const int32_t b = (int32_t)magnitude_bits(w[j * p->col]);
            bits = b > bits ? b : bits;
        }
    }
    float top;
    memcpy(&top, &bits, sizeof top);
    return top;
}

/* Row i from column j on, n numbers, zeros behind the end: where they lie, or in tmp. */
static const float *row_part(const packing *p, int64_t i, int64_t j, int64_t n, float *tmp)
{
    if (p->col == 1 && i < p->n && j + n <= p->k) {
        return p->w + i * p->row + j;
    }
    for (int64_t l = 0; l < n; l++) {
        tmp[l] = i < p->n && j + l < p->k ? p->w[i * p->row + (j + l) * p->col] : 0.0f;
    }
    return tmp;
}

/* Multiples of 1 / inverse, to the nearest, ties to even (1.5 * 2^23 leaves no fraction); their
 * sum. */
static int32_t to_bytes(int8_t *out, const float *w, int64_t n, float inverse)
{
    int32_t sum = 0;
    for (int64_t l = 0; l < n; l++) {
        const float x = w[l] * inverse, top = x > 127.0f ? 127.0f : x < -127.0f ? -127.0f : x;
        const int32_t q = (int32_t)(top + 12582912.0f - 12582912.0f);
        out[l] = (int8_t)q;
        sum += q;
    }
    return sum;
}

/* Groups g .. g + n - 1 of a row at place `at` of its panel; the sum of its bytes. */
static int32_t pack_part(const packing *p, int64_t i, int64_t g, int64_t n, uint32_t *out,
                         float inverse)
{
    float tmp[BLOCK_ITEMS];
    uint32_t groups[BLOCK];
    const int64_t per = per_group(p->kind);
    const float *w = row_part(p, i, g * per, n * per, tmp);
    int32_t sum = 0;
    if (p->kind == TESS_I8) {
        sum = to_bytes((int8_t *)groups, w, n * per, inverse);
    } else {
        tess__kernels()->convert(p->kind, groups, TESS_F32, w, n * per);
    }
    for (int64_t l = 0; l < n; l++) {
        out[(g + l) * TESS_PANEL] = groups[l];
    }
    return sum;
}

/* False when a weight is not finite. */
static bool pack_panel(const packing *p, int64_t panel)
{
    const int64_t n_groups = tess__packed_groups(p->kind, p->k), first = panel * TESS_PANEL;
    uint32_t *out = p->panels + panel * n_groups * TESS_PANEL;
    float top[TESS_PANEL] = {0};
    int32_t sum[TESS_PANEL] = {0};
    for (int64_t at = 0; at < TESS_PANEL && first + at < p->n; at++) {
        top[at] = magnitude(p, first + at);
        if (!isfinite(top[at])) {
            return false;
        }
    }
    for (int64_t g = 0; g < n_groups; g += BLOCK) {
        const int64_t n = n_groups - g < BLOCK ? n_groups - g : BLOCK;
        for (int64_t at = 0; at < TESS_PANEL; at++) {
            /* Of a smaller top, which is nothing in any sum, the inverse would be infinite. */
            const float inverse = top[at] > 1e-30f ? 127.0f / top[at] : 0.0f;
            sum[at] += pack_part(p, first + at, g, n, out + at, inverse);
        }
    }
    for (int64_t at = 0; p->kind == TESS_I8 && at < TESS_PANEL; at++) {
        p->scale[first + at] = top[at] / 127.0f;
        p->sum[first + at] = sum[at];
    }
    return true;
}

tess_status tess__packed_make(tess_dtype kind, const float *w, int64_t n, int64_t k,
                              bool transposed, tess_packed *out)
{
    const size_t bytes = tess__packed_panel_bytes(kind, n, k);
    const size_t n_padded = (size_t)tess__packed_n_panels(n) * TESS_PANEL;
    const size_t extra = kind == TESS_I8 ? n_padded * (sizeof(float) + sizeof(int32_t)) : 0;
    packing p = {
        .kind = kind, .w = w, .n = n, .k = k, .row = transposed ? 1 : k, .col = transposed ? n : 1};
    *out = (tess_packed){0};
    p.panels = tess_alloc_unset(bytes + extra);
    if (!p.panels) {
        return TESS_NOMEM;
    }
    if (kind == TESS_I8) {
        p.scale = (float *)((char *)p.panels + bytes);
        p.sum = (int32_t *)(p.scale + n_padded);
    }
    bool finite = true;
#pragma omp parallel for schedule(static) reduction(&& : finite)
    for (int64_t i = 0; i < tess__packed_n_panels(n); i++) {
        finite = pack_panel(&p, i) && finite;
    }
    if (!finite) {
        tess_free(p.panels);
        return TESS_FAIL(TESS_FORMAT, "a weight is NaN or infinite");
    }
    *out = (tess_packed){.kind = kind,
                         .n = n,
                         .k = k,
                         .panels = p.panels,
                         .scale = p.scale,
                         .sum = p.sum,
                         .owned = p.panels};
    return TESS_OK;
}

void tess__packed_deinit(tess_packed *p)
{
    tess_free(p->owned);
    *p = (tess_packed){0};
}
