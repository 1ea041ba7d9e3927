/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8 by the standard's table of well-formed sequences (Unicode 15, table 3-7): what surrogates,
 * overlongs and values past U+10FFFF have in common is the range of the second byte.
 */
#include "base/utf8.h"

typedef struct lead {
    uint8_t first, last;          /* of the lead byte */
    uint8_t n_tail;               /* bytes that follow */
    uint8_t second_lo, second_hi; /* range of the first of them; the others are 80..BF */
} lead;

static const lead leads[] = {
    {0x00, 0x7F, 0, 0x00, 0x00}, {0xC2, 0xDF, 1, 0x80, 0xBF}, {0xE0, 0xE0, 2, 0xA0, 0xBF},
    {0xE1, 0xEC, 2, 0x80, 0xBF}, {0xED, 0xED, 2, 0x80, 0x9F}, {0xEE, 0xEF, 2, 0x80, 0xBF},
    {0xF0, 0xF0, 3, 0x90, 0xBF}, {0xF1, 0xF3, 3, 0x80, 0xBF}, {0xF4, 0xF4, 3, 0x80, 0x8F},
};

static const lead *find_lead(uint8_t byte)
{
    for (int64_t i = 0; i < TESS_COUNT(leads); i++) {
        if (byte >= leads[i].first && byte <= leads[i].last) {
            return &leads[i];
        }
    }
    return NULL;
}

size_t tess__utf8_step(const uint8_t *s, size_t n_bytes, bool *out_valid)
{
    const lead *l = find_lead(s[0]);
    *out_valid = false;
    if (l == NULL) {
        return 1;
    }
    for (size_t i = 1; i <= l->n_tail; i++) {
        uint8_t lo = i == 1 ? l->second_lo : 0x80, hi = i == 1 ? l->second_hi : 0xBF;
        if (i >= n_bytes || s[i] < lo || s[i] > hi) {
            return i;
        }
    }
    *out_valid = true;
    return 1 + (size_t)l->n_tail;
}

bool tess_utf8_valid(const char *s, size_t n_bytes, bool no_nul)
{
    const uint8_t *p = (const uint8_t *)s;
    for (size_t i = 0; i < n_bytes;) {
        bool valid = p[i] < 0x80;
        i += valid ? 1 : tess__utf8_step(p + i, n_bytes - i, &valid);
        if (!valid || (no_nul && p[i - 1] == 0)) {
            return false;
        }
    }
    return true;
}
