/* SPDX-License-Identifier: Apache-2.0 */
/* The resizer's kernels in portable C: the reference for the vector ones, and what runs where those
 * do not.  Sums are 32-bit and wrap, as the vector kernels' do; with weights that add up to 1 the
 * total always fits. */
#include "vision/resize.h"

static uint8_t round_sum(uint32_t sum)
{
    int32_t v = (int32_t)sum >> TESS__TAP_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

static void resize_row(const tess__taps *t, const uint8_t *in, uint8_t *out)
{
    for (int32_t i = 0; i < t->n_out; i++, out += 3) {
        const int32_t *k = t->k + (size_t)i * (size_t)t->stride;
        const uint8_t *p = in + 3 * (size_t)t->first[i];
        uint32_t r = 1u << (TESS__TAP_BITS - 1), g = r, b = r;
        for (int32_t n = t->count[i]; n > 0; n--, k++, p += 3) {
            uint32_t w = (uint32_t)*k;
            r += w * p[0];
            g += w * p[1];
            b += w * p[2];
        }
        out[0] = round_sum(r);
        out[1] = round_sum(g);
        out[2] = round_sum(b);
    }
}

static void resize_rows(const tess__taps *taps, const uint8_t *const *in, uint8_t *const *out,
                        int32_t n_rows)
{
    for (int32_t i = 0; i < n_rows; i++) {
        resize_row(taps, in[i], out[i]);
    }
}

/* By blocks that stay in the first cache, so that the inner loop runs along memory. */
static void resize_column(const int32_t *k, int32_t n_taps, const uint8_t *in, size_t stride,
                          size_t n_bytes, uint8_t *out)
{
    enum { BLOCK = 256 };
    uint32_t sums[BLOCK];
    for (size_t x = 0; x < n_bytes; x += BLOCK) {
        size_t n = n_bytes - x < BLOCK ? n_bytes - x : BLOCK;
        for (size_t i = 0; i < n; i++) {
            sums[i] = 1u << (TESS__TAP_BITS - 1);
        }
        for (int32_t t = 0; t < n_taps; t++) {
            const uint8_t *p = in + (size_t)t * stride + x;
            uint32_t w = (uint32_t)k[t];
            for (size_t i = 0; i < n; i++) {
                sums[i] += w * p[i];
            }
        }
        for (size_t i = 0; i < n; i++) {
            out[x + i] = round_sum(sums[i]);
        }
    }
}

const tess__resize_kernels tess__resize_base = {resize_rows, resize_column};
