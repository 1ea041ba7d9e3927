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
    uint8_t *panels;
    float *scale;
    int32_t *sum;
} packing;

static float weight(const packing *p, int64_t i, int64_t j)
{
    return i < p->n && j < p->k ? p->w[i * p->row + j * p->col] : 0.0f;
}

/* The largest magnitude of row i; NaN or infinity when it holds one. */
static float magnitude(const packing *p, int64_t i)
{
    float top = 0.0f;
    for (int64_t j = 0; j < p->k; j++) {
        const float v = fabsf(weight(p, i, j));
        top = v <= top ? top : v;
        if (!isfinite(v)) {
            return v;
        }
    }
    return top;
}

static int32_t to_byte(float w, float inverse)
{
    const float q = rintf(w * inverse);
    return (int32_t)(q > 127.0f ? 127.0f : q < -127.0f ? -127.0f : q);
}

static void pack_bytes(const packing *p, int64_t row, int64_t at, int8_t *out, float top)
{
    const int64_t k = tess__packed_groups(TESS_I8, p->k) * 4;
    const float inverse = top > 0.0f ? 127.0f / top : 0.0f;
    int32_t sum = 0;
    for (int64_t j = 0; j < k; j++) {
        const int32_t q = to_byte(weight(p, row, j), inverse);
        out[(j / 4 * TESS_PANEL + at) * 4 + j % 4] = (int8_t)q;
        sum += q;
    }
    p->scale[row] = top / 127.0f;
    p->sum[row] = sum;
}

static void pack_floats(const packing *p, int64_t row, int64_t at, uint8_t *out)
{
    const int64_t per = per_group(p->kind), k = tess__packed_groups(p->kind, p->k) * per;
    for (int64_t j = 0; j < k; j++) {
        const float w = weight(p, row, j);
        const int64_t to = (j / per * TESS_PANEL + at) * per + j % per;
        if (p->kind == TESS_F32) {
            ((float *)out)[to] = w;
        } else {
            ((uint16_t *)out)[to] = tess_bf16_from_f32(w);
        }
    }
}

/* False when a weight is not finite. */
static bool pack_panel(const packing *p, int64_t panel)
{
    uint8_t *out = p->panels + (size_t)panel * one_panel_bytes(p->kind, p->k);
    for (int64_t at = 0; at < TESS_PANEL; at++) {
        const int64_t row = panel * TESS_PANEL + at;
        const float top = row < p->n ? magnitude(p, row) : 0.0f;
        if (!isfinite(top)) {
            return false;
        }
        if (p->kind == TESS_I8) {
            pack_bytes(p, row, at, (int8_t *)out, top);
        } else {
            pack_floats(p, row, at, out);
        }
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
    p.panels = tess_alloc(bytes + extra);
    if (!p.panels) {
        return TESS_NOMEM;
    }
    if (kind == TESS_I8) {
        p.scale = (float *)(p.panels + bytes);
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
