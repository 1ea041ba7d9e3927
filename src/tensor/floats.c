/* SPDX-License-Identifier: Apache-2.0 */
/* Conversions between the files' float types and f32.
 *
 * f32 holds every bf16 and f16, so a checkpoint that was widened for training is written back with
 * the same bytes.  Whether all numbers are finite is asked in the same pass: the bits of the
 * exponent, all ones, are the same question for any type once it is f32. */
#include "tensor/floats.h"

#include <string.h>

#define CHUNK 4096 /* numbers of one piece of work: its f32 stay in the first cache */

static uint32_t bits_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static float f32_from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ff;
    if (exponent == 0) { /* zero and subnormals: mantissa * 2^-24 */
        float f = (float)mantissa * 5.9604644775390625e-08f;
        return sign ? -f : f;
    }
    return float_of(sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) |
                    mantissa << 13);
}

static uint16_t f16_from_f32(float x)
{
    uint32_t u = bits_of(x), sign = u >> 16 & 0x8000, rest = u & 0x7fffffff;
    if (rest >= 0x7f800000) { /* infinite, or NaN, which stays one */
        return (uint16_t)(sign | 0x7c00 | (rest > 0x7f800000 ? 0x200 | (rest >> 13 & 0x3ff) : 0));
    }
    if (rest >= 0x47800000) { /* 65536 and more */
        return (uint16_t)(sign | 0x7c00);
    }
    if (rest < 0x38800000) { /* below 2^-14: the unit of a subnormal is 2^-24 */
        float steps = float_of(rest) * 16777216.0f + 8388608.0f; /* its last bits: the rounding */
        return (uint16_t)(sign | (bits_of(steps) & 0x7fffff));
    }
    uint32_t odd = rest >> 13 & 1;
    return (uint16_t)(sign | ((rest + 0xfff + odd - 0x38000000) >> 13));
}

/* ---- one piece ----------------------------------------------------------------------------- */

static void read_f32(const void *from, float *out, int64_t n)
{
    memcpy(out, from, (size_t)n * sizeof *out);
}

static void write_f32(const float *from, void *out, int64_t n)
{
    memcpy(out, from, (size_t)n * sizeof *from);
}

#define HALVES(name)                                                                               \
    static void read_##name(const void *from, float *out, int64_t n)                               \
    {                                                                                              \
        for (int64_t i = 0; i < n; i++) {                                                          \
            uint16_t half;                                                                         \
            memcpy(&half, (const char *)from + 2 * i, 2);                                          \
            out[i] = NAME_TO_F32(name)(half);                                                      \
        }                                                                                          \
    }                                                                                              \
    static void write_##name(const float *from, void *out, int64_t n)                              \
    {                                                                                              \
        for (int64_t i = 0; i < n; i++) {                                                          \
            uint16_t half = NAME_FROM_F32(name)(from[i]);                                          \
            memcpy((char *)out + 2 * i, &half, 2);                                                 \
        }                                                                                          \
    }
#define NAME_TO_F32(name)   to_f32_##name
#define NAME_FROM_F32(name) from_f32_##name
#define to_f32_bf16         tess_f32_from_bf16
#define to_f32_f16          f32_from_f16
#define from_f32_bf16       tess_bf16_from_f32
#define from_f32_f16        f16_from_f32
HALVES(bf16)
HALVES(f16)

static const struct float_type {
    const char *word;
    size_t bytes;
    void (*read)(const void *from, float *out, int64_t n);
    void (*write)(const float *from, void *out, int64_t n);
} types[] = {
    {"F32", 4, read_f32, write_f32},
    {"BF16", 2, read_bf16, write_bf16},
    {"F16", 2, read_f16, write_f16},
};

static const struct float_type *find(const char *word)
{
    for (int64_t i = 0; i < TESS_COUNT(types); i++) {
        if (strcmp(types[i].word, word) == 0) {
            return &types[i];
        }
    }
    return NULL;
}

const char *tess__floats_dtype(const char *word)
{
    const struct float_type *t = find(word);
    return t ? t->word : NULL;
}

size_t tess__floats_bytes(const char *dtype)
{
    const struct float_type *t = find(dtype);
    return t ? t->bytes : 0;
}

static bool all_finite(const float *x, int64_t n)
{
    uint32_t bad = 0;
    for (int64_t i = 0; i < n; i++) {
        bad |= (bits_of(x[i]) & 0x7f800000) == 0x7f800000;
    }
    return bad == 0;
}

bool tess__floats_read(const char *dtype, const void *from, float *out, int64_t n)
{
    const struct float_type *t = find(dtype);
    int64_t n_bad = 0;
#pragma omp parallel for schedule(static) reduction(+ : n_bad) if (n > 16 * CHUNK)
    for (int64_t at = 0; at < n; at += CHUNK) {
        int64_t k = n - at < CHUNK ? n - at : CHUNK;
        t->read((const char *)from + (size_t)at * t->bytes, out + at, k);
        n_bad += !all_finite(out + at, k);
    }
    return n_bad == 0;
}

void tess__floats_write(const char *dtype, const float *from, void *out, int64_t n)
{
    const struct float_type *t = find(dtype);
#pragma omp parallel for schedule(static) if (n > 16 * CHUNK)
    for (int64_t at = 0; at < n; at += CHUNK) {
        int64_t k = n - at < CHUNK ? n - at : CHUNK;
        t->write(from + at, (char *)out + (size_t)at * t->bytes, k);
    }
}
