/* SPDX-License-Identifier: Apache-2.0 */
/* Hashes: XXH3 for identity, CRC-32C for damage.  The only file that includes xxhash.
 *
 * CRC-32C runs eight bytes a step through eight tables (Kounavis and Berry's slicing), or through
 * the processor's own instruction where the ISA cap allows it.
 */
#include "tessera/base.h"

#include <pthread.h>
#include <string.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

struct tess_hash128_state {
    XXH3_state_t xxh; /* tess_alloc gives the 64-byte alignment that it needs */
};

uint64_t tess_hash64(const void *data, size_t n_bytes, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, n_bytes, seed);
}

tess_hash128_state *tess_hash128_new(void)
{
    tess_hash128_state *s = tess_alloc(sizeof *s);
    if (s != NULL) {
        XXH3_128bits_reset(&s->xxh);
    }
    return s;
}

void tess_hash128_add(tess_hash128_state *s, const void *data, size_t n_bytes)
{
    if (n_bytes > 0) {
        XXH3_128bits_update(&s->xxh, data, n_bytes);
    }
}

void tess_hash128_finish(tess_hash128_state *s, char out_hex[33])
{
    XXH128_hash_t h = XXH3_128bits_digest(&s->xxh);
    snprintf(out_hex, 33, "%016llx%016llx", (unsigned long long)h.high64,
             (unsigned long long)h.low64);
    tess_free(s);
}

/* ---- CRC-32C ---- */

static uint32_t tables[8][256]; /* [k][b]: byte b followed by k zero bytes */
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void build_tables(void)
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = b;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (0x82F63B78u & (0u - (crc & 1u)));
        }
        tables[0][b] = crc;
    }
    for (int k = 1; k < 8; k++) {
        for (int b = 0; b < 256; b++) {
            uint32_t below = tables[k - 1][b];
            tables[k][b] = below >> 8 ^ tables[0][below & 255];
        }
    }
}

static uint32_t crc_portable(uint32_t crc, const uint8_t *p, size_t n)
{
    pthread_once(&tables_once, build_tables);
    for (; n >= 8; n -= 8, p += 8) {
        uint32_t lo = crc ^ ((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
                             (uint32_t)p[3] << 24);
        crc = tables[7][lo & 255] ^ tables[6][lo >> 8 & 255] ^ tables[5][lo >> 16 & 255] ^
              tables[4][lo >> 24] ^ tables[3][p[4]] ^ tables[2][p[5]] ^ tables[1][p[6]] ^
              tables[0][p[7]];
    }
    for (; n > 0; n--, p++) {
        crc = crc >> 8 ^ tables[0][(crc ^ *p) & 255];
    }
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc_sse42(uint32_t crc, const uint8_t *p,
                                                            size_t n)
{
    uint64_t wide = crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t word = 0;
        memcpy(&word, p, sizeof word);
        wide = _mm_crc32_u64(wide, word);
    }
    crc = (uint32_t)wide;
    for (; n > 0; n--, p++) {
        crc = _mm_crc32_u8(crc, *p);
    }
    return crc;
}
#endif

uint32_t tess_crc32c(uint32_t crc, const void *data, size_t n_bytes)
{
#if defined(__x86_64__)
    /* Every processor with AVX2 has SSE4.2; the cap at base tests the tables. */
    if (tess_isa_get() >= TESS_ISA_AVX2) {
        return ~crc_sse42(~crc, data, n_bytes);
    }
#endif
    return ~crc_portable(~crc, data, n_bytes);
}
