/* SPDX-License-Identifier: Apache-2.0 */
/* Element types and shapes. */
#include "tensor/fp8.h"
#include "tensor/op.h"

#include <string.h>

static const struct {
    const char *name;
    size_t bytes;
} dtypes[TESS_DTYPE_COUNT] = {
    [TESS_F32] = {"f32", 4},       [TESS_BF16] = {"bf16", 2},     [TESS_F16] = {"f16", 2},
    [TESS_I32] = {"i32", 4},       [TESS_U8] = {"u8", 1},         [TESS_I8] = {"i8", 1},
    [TESS_F8E4M3] = {"f8e4m3", 1}, [TESS_F8E5M2] = {"f8e5m2", 1},
};

size_t tess_dtype_bytes(tess_dtype t)
{
    return dtypes[t].bytes;
}

const char *tess_dtype_name(tess_dtype t)
{
    return dtypes[t].name;
}

tess_shape tess_shape_make(int rank, const int64_t *dims)
{
    tess_shape s = {.rank = rank};
    for (int i = 0; i < rank && i < TESS_MAX_RANK; i++) {
        s.dim[i] = dims[i];
    }
    return s;
}

int64_t tess_shape_count(const tess_shape *s)
{
    int64_t n = 1;
    for (int i = 0; i < s->rank; i++) {
        n *= s->dim[i];
    }
    return n;
}

bool tess_shape_equal(const tess_shape *a, const tess_shape *b)
{
    if (a->rank != b->rank) {
        return false;
    }
    for (int i = 0; i < a->rank; i++) {
        if (a->dim[i] != b->dim[i]) {
            return false;
        }
    }
    return true;
}

void tess_shape_print(const tess_shape *s, tess_buf *out)
{
    tess_buf_adds(out, "(");
    for (int i = 0; i < s->rank; i++) {
        tess_buf_addf(out, "%s%lld", i ? "," : "", (long long)s->dim[i]);
    }
    tess_buf_adds(out, ")");
}

int64_t tess__rows(const tess_shape *s)
{
    int64_t n = 1;
    for (int i = 0; i + 1 < s->rank; i++) {
        n *= s->dim[i];
    }
    return n;
}

int64_t tess__last(const tess_shape *s)
{
    return s->rank > 0 ? s->dim[s->rank - 1] : 1;
}

uint16_t tess_bf16_from_f32(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    if ((u & 0x7fffffff) > 0x7f800000) {
        return (uint16_t)((u >> 16) | 0x40);
    }
    return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

float tess_f32_from_bf16(uint16_t x)
{
    uint32_t u = (uint32_t)x << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

uint8_t tess_f8_from_f32(tess_dtype t, float x)
{
    return tess__f8_round(x, t == TESS_F8E4M3 ? 3 : 2);
}

float tess_f32_from_f8(tess_dtype t, uint8_t x)
{
    const unsigned bits = t == TESS_F8E4M3 ? 3 : 2, bias = t == TESS_F8E4M3 ? 7 : 15;
    const unsigned exponent = (x & 0x7fu) >> bits, mantissa = x & ((1u << bits) - 1);
    const bool top = exponent == (0x7fu >> bits);
    const uint32_t sign = (x & 0x80u) << 24;
    if (t == TESS_F8E4M3 ? (x & 0x7f) == 0x7f : top) { /* E4M3 spends one pattern on NaN */
        return tess__f32_of(sign | 0x7f800000u | (mantissa && top ? 0x400000u : 0));
    }
    if (exponent == 0) { /* mantissa * 2^(1 - bias - bits) */
        const float f = (float)mantissa * tess__f32_of((128 - bias - bits) << 23);
        return sign ? -f : f;
    }
    return tess__f32_of(sign | (exponent + 127 - bias) << 23 | mantissa << (23 - bits));
}

static void describe(const tess_operand *x, tess_buf *out)
{
    if (x->shape.rank < 0) {
        tess_buf_adds(out, "nothing");
        return;
    }
    tess_buf_addf(out, "%s ", tess_dtype_name(x->dtype));
    tess_shape_print(&x->shape, out);
}

tess_status tess__expect_like(const char *what, const tess_operand *x, const tess_operand *like)
{
    if (x->dtype == like->dtype && tess_shape_equal(&x->shape, &like->shape)) {
        return TESS_OK;
    }
    tess_buf want = {0}, got = {0};
    describe(like, &want);
    describe(x, &got);
    tess_status st = TESS_FAIL(TESS_INVALID, "%s: expected %s, found %s", what,
                               want.data ? want.data : "?", got.data ? got.data : "?");
    tess_buf_deinit(&want);
    tess_buf_deinit(&got);
    return st;
}

tess_status tess__expect(const char *what, const tess_operand *x, tess_dtype dtype, int rank)
{
    if (x->dtype == dtype && x->shape.rank == rank) {
        return TESS_OK;
    }
    tess_buf got = {0};
    describe(x, &got);
    tess_status st = TESS_FAIL(TESS_INVALID, "%s: expected %s of rank %d, found %s", what,
                               tess_dtype_name(dtype), rank, got.data ? got.data : "?");
    tess_buf_deinit(&got);
    return st;
}
