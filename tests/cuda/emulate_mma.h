/* SPDX-License-Identifier: Apache-2.0 */
/* The tensor core instructions of tensor/mma.cuh for the emulated card: the same fragments in the
 * same lanes, gathered over the warp, multiplied in f32.  A copy to shared memory is done at once;
 * that of 16 bytes to a misaligned place is a fault on a card, and here. */
#ifndef TESSERA_TESTS_EMULATE_MMA_H
#define TESSERA_TESTS_EMULATE_MMA_H

#include <cstdlib>

#define TESS_UNROLL
#define TESS_ALLOW_SHARED(kernel, bytes) static_cast<void>(bytes)

static inline void check_aligned(const void *p)
{
    if (reinterpret_cast<uintptr_t>(p) % 16 != 0) {
        abort();
    }
}

static inline void load_four(uint32_t *x, const bf16 *row)
{
    const bf16 *rows[32];
    check_aligned(row);
    emulate::gather(&row, sizeof row, rows);
    const int group = lane_of_thread() / 4, pair = lane_of_thread() % 4;
    for (int i = 0; i < 4; i++) {
        memcpy(&x[i], rows[8 * i + group] + 2 * pair, sizeof x[i]);
    }
}

static inline void load_four_transposed(uint32_t *x, const bf16 *row)
{
    const bf16 *rows[32];
    check_aligned(row);
    emulate::gather(&row, sizeof row, rows);
    const int group = lane_of_thread() / 4, pair = lane_of_thread() % 4;
    for (int i = 0; i < 4; i++) {
        const uint32_t low = rows[8 * i + 2 * pair][group].bits;
        const uint32_t high = rows[8 * i + 2 * pair + 1][group].bits;
        x[i] = low | high << 16;
    }
}

static inline float half_of(uint32_t both, int which)
{
    return __uint_as_float(which ? both & 0xffff0000u : both << 16);
}

static inline void multiply(c_tile *c, const a_tile &a, const b_tile &b)
{
    struct {
        a_tile a;
        b_tile b;
    } mine = {a, b}, all[32];
    emulate::gather(&mine, sizeof mine, all);
    const int group = lane_of_thread() / 4, pair = lane_of_thread() % 4;
    for (int i = 0; i < 4; i++) {
        const int column = 2 * pair + i % 2;
        for (int k = 0; k < 16; k++) { /* a register holds columns k, k + 1 of a; k + 8: the next */
            const int lane = k % 8 / 2;
            const float x = half_of(all[4 * group + lane].a.x[i / 2 + 2 * (k / 8)], k % 2);
            const float y = half_of(all[4 * column + lane].b.x[k / 8], k % 2);
            c->x[i] = fmaf(x, y, c->x[i]);
        }
    }
}

static inline uint32_t pack_two(float first, float second)
{
    bf16 low, high;
    from_float(first, &low);
    from_float(second, &high);
    return low.bits | static_cast<uint32_t>(high.bits) << 16;
}

static inline float power_of_two(float x)
{
    return exp2f(x);
}

static inline void copy_16(void *to, const void *from, int bytes)
{
    check_aligned(to);
    if (bytes > 0) {
        check_aligned(from);
        memcpy(to, from, static_cast<size_t>(bytes));
    }
    memset(static_cast<char *>(to) + bytes, 0, static_cast<size_t>(16 - bytes));
}

static inline void copies_commit()
{
}

template <int N> static inline void copies_wait()
{
}

#endif
