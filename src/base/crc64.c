/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-64/NVME, the sum of files that many write together: that of a whole is made of its parts'.
 *
 * Sixteen bytes a step by carry-less products where the processor has them (Gopal et al., "Fast CRC
 * computation for generic polynomials using PCLMULQDQ", Intel 2009), four such streams at a time;
 * else eight bytes a step through eight tables.  What the products leave is 128 bits that are
 * congruent to the message, which the tables reduce.  Bits are reflected throughout: bit 63 of a
 * number is the coefficient of x^0.
 *
 * Joining multiplies by powers of x, as zlib's crc32_combine does. */
#include "tessera/base.h"

#include <pthread.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define POLYNOMIAL 0x9a6c9329ac4bc9b5u
#define ONE        ((uint64_t)1 << 63) /* x^0 */

enum { LANES = 4, FOLD_BYTES = 16 * LANES };

static uint64_t tables[8][256]; /* [k][b]: byte b followed by k zero bytes */
static uint64_t powers[64];     /* [k]: x^(2^k) */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static uint64_t times_x(uint64_t a)
{
    return a >> 1 ^ (POLYNOMIAL & (0 - (a & 1)));
}

static uint64_t multiply(uint64_t a, uint64_t b)
{
    uint64_t product = 0;
    for (uint64_t bit = ONE; bit != 0; bit >>= 1) {
        product ^= a & bit ? b : 0;
        b = times_x(b);
    }
    return product;
}

static void build_tables(void)
{
    for (uint64_t b = 0; b < 256; b++) {
        uint64_t crc = b;
        for (int bit = 0; bit < 8; bit++) {
            crc = times_x(crc);
        }
        tables[0][b] = crc;
    }
    for (int k = 1; k < 8; k++) {
        for (int b = 0; b < 256; b++) {
            uint64_t below = tables[k - 1][b];
            tables[k][b] = below >> 8 ^ tables[0][below & 255];
        }
    }
    powers[0] = ONE >> 1;
    for (int k = 1; k < 64; k++) {
        powers[k] = multiply(powers[k - 1], powers[k - 1]);
    }
}

static uint64_t power_of_x(uint64_t n)
{
    uint64_t power = ONE;
    for (int k = 0; n != 0; k++, n >>= 1) {
        power = n & 1 ? multiply(power, powers[k]) : power;
    }
    return power;
}

static uint64_t crc_portable(uint64_t crc, const uint8_t *p, size_t n)
{
    for (; n >= 8; n -= 8, p += 8) {
        for (int i = 0; i < 8; i++) {
            crc ^= (uint64_t)p[i] << (8 * i);
        }
        uint64_t next = 0;
        for (int i = 0; i < 8; i++) {
            next ^= tables[7 - i][crc >> (8 * i) & 255];
        }
        crc = next;
    }
    for (; n > 0; n--, p++) {
        crc = crc >> 8 ^ tables[0][(crc ^ *p) & 255];
    }
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse2,pclmul"))) static __m128i fold(__m128i x, __m128i by, __m128i next)
{
    const __m128i first = _mm_clmulepi64_si128(x, by, 0x00);
    const __m128i second = _mm_clmulepi64_si128(x, by, 0x11);
    return _mm_xor_si128(_mm_xor_si128(first, second), next);
}

/* By what 128 bits are multiplied to stand `bytes` further left; the product of two reflected
 * numbers is one place further right than theirs, hence the ones. */
__attribute__((target("sse2"))) static __m128i factors(uint64_t bytes)
{
    return _mm_set_epi64x((long long)power_of_x(8 * bytes - 1),
                          (long long)power_of_x(8 * bytes + 63));
}

__attribute__((target("sse2,pclmul"))) static uint64_t crc_pclmul(uint64_t crc, const uint8_t *p,
                                                                  size_t n)
{
    const __m128i far = factors(FOLD_BYTES), near = factors(16);
    __m128i x[LANES];
    for (int i = 0; i < LANES; i++) {
        x[i] = _mm_loadu_si128((const __m128i *)p + i);
    }
    x[0] = _mm_xor_si128(x[0], _mm_set_epi64x(0, (long long)crc));
    for (p += FOLD_BYTES, n -= FOLD_BYTES; n >= FOLD_BYTES; p += FOLD_BYTES, n -= FOLD_BYTES) {
        for (int i = 0; i < LANES; i++) {
            x[i] = fold(x[i], far, _mm_loadu_si128((const __m128i *)p + i));
        }
    }
    for (int i = 1; i < LANES; i++) {
        x[0] = fold(x[0], near, x[i]);
    }
    uint8_t left[16];
    memcpy(left, &x[0], sizeof left);
    return crc_portable(crc_portable(0, left, sizeof left), p, n);
}
#endif

uint64_t tess_crc64(uint64_t crc, const void *data, size_t n_bytes)
{
    pthread_once(&once, build_tables);
#if defined(__x86_64__)
    /* The cap at base tests the tables. */
    if (n_bytes >= 4096 && tess_isa_get() >= TESS_ISA_AVX2 && __builtin_cpu_supports("pclmul")) {
        return ~crc_pclmul(~crc, data, n_bytes);
    }
#endif
    return ~crc_portable(~crc, data, n_bytes);
}

uint64_t tess_crc64_join(uint64_t first, uint64_t second, uint64_t second_bytes)
{
    pthread_once(&once, build_tables);
    return multiply(first, power_of_x(8 * second_bytes)) ^ second;
}
