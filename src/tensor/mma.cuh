/* SPDX-License-Identifier: Apache-2.0 */
/* A warp's products on the tensor cores: tiles of bf16 in shared memory, fragments in registers,
 * sums in f32; and copies to shared memory that go on while a warp computes.
 *
 * Fragments are laid out as the PTX ISA says for mma.m16n8k16: with group = lane / 4 and pair =
 * lane % 4, a lane holds of
 *   a (16,16): rows group, group + 8, columns 2 pair, 2 pair + 1 and those + 8;
 *   b (16,8):  rows 2 pair, 2 pair + 1 and those + 8, column group;
 *   c (16,8):  rows group (x[0], x[1]) and group + 8 (x[2], x[3]), columns 2 pair, 2 pair + 1.
 * Two neighbouring c are thus an a, once rounded: a product's result multiplies the next one
 * without a way through memory.
 *
 * Every lane of a warp calls these together.  Rows of a tile start at multiples of 16 bytes; where
 * their distance is an odd multiple of 16 bytes, no two of eight rows share a bank. */
#ifndef TESSERA_TENSOR_MMA_CUH
#define TESSERA_TENSOR_MMA_CUH

#include "tensor/kernel.cuh"

struct a_tile {
    uint32_t x[4];
};
struct b_tile {
    uint32_t x[2];
};
struct c_tile {
    float x[4];
};

#if defined __CUDACC__

#define TESS_UNROLL _Pragma("unroll")
/* A kernel's dynamic shared memory is 48 KB unless it asks for more. */
#define TESS_ALLOW_SHARED(kernel, bytes)                                                           \
    cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),                                   \
                         cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes))

__device__ __forceinline__ unsigned shared_address(const void *p)
{
    return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

/* Four tiles of 8 x 8 bf16: lane i gives the address of row i % 8 of tile i / 8, and gets of each
 * tile row group, columns 2 pair and 2 pair + 1. */
__device__ __forceinline__ void load_four(uint32_t *x, const bf16 *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/* The same of the transposed tiles: rows 2 pair and 2 pair + 1, column group. */
__device__ __forceinline__ void load_four_transposed(uint32_t *x, const bf16 *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/* c += a b */
__device__ __forceinline__ void multiply(c_tile *c, const a_tile &a, const b_tile &b)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c->x[0]), "+f"(c->x[1]), "+f"(c->x[2]), "+f"(c->x[3])
                 : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "r"(b.x[0]), "r"(b.x[1]));
}

/* Two bf16, the first in the lower half. */
__device__ __forceinline__ uint32_t pack_two(float first, float second)
{
    uint32_t both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
    return both;
}

/* 2^x within 2^-22 of it; 0 for minus infinity. */
__device__ __forceinline__ float power_of_two(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* 16 bytes to shared memory, of which the first `bytes` are from `from` and the rest 0; they are
 * there after copies_wait and a barrier. */
__device__ __forceinline__ void copy_16(void *to, const void *from, int bytes)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(shared_address(to)), "l"(from), "r"(bytes)
                 : "memory");
}

/* Closes a group of copies. */
__device__ __forceinline__ void copies_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Until all groups but the last N are there. */
template <int N> __device__ __forceinline__ void copies_wait()
{
    asm volatile("cp.async.wait_group %0;" : : "n"(N) : "memory");
}

#else
#include "emulate_mma.h"
#endif

__device__ __forceinline__ int lane_group()
{
    return static_cast<int>(threadIdx.x) % 32 / 4;
}

__device__ __forceinline__ int lane_pair()
{
    return static_cast<int>(threadIdx.x) % 4;
}

/* ---- tiles in shared memory, `row` elements from row to row ------------------------------------
 */

__device__ __forceinline__ const bf16 *lane_row(const bf16 *tile, int row, bool down_first)
{
    const int lane = static_cast<int>(threadIdx.x) % 32, first = lane / 8 % 2, second = lane / 16;
    const int down = down_first ? first : second, right = down_first ? second : first;
    return tile + (lane % 8 + 8 * down) * row + 8 * right;
}

/* a = tile (16,16) */
__device__ __forceinline__ a_tile load_a(const bf16 *tile, int row)
{
    a_tile a;
    load_four(a.x, lane_row(tile, row, true));
    return a;
}

/* a = tile^T */
__device__ __forceinline__ a_tile load_a_transposed(const bf16 *tile, int row)
{
    a_tile a;
    load_four_transposed(a.x, lane_row(tile, row, false));
    return a;
}

/* [b[0] b[1]] = tile (16,16) */
__device__ __forceinline__ void load_b(b_tile *b, const bf16 *tile, int row)
{
    uint32_t x[4];
    load_four_transposed(x, lane_row(tile, row, true));
    b[0].x[0] = x[0];
    b[0].x[1] = x[1];
    b[1].x[0] = x[2];
    b[1].x[1] = x[3];
}

/* [b[0] b[1]] = tile^T */
__device__ __forceinline__ void load_b_transposed(b_tile *b, const bf16 *tile, int row)
{
    uint32_t x[4];
    load_four(x, lane_row(tile, row, false));
    b[0].x[0] = x[0];
    b[0].x[1] = x[1];
    b[1].x[0] = x[2];
    b[1].x[1] = x[3];
}

/* a = [left right], rounded */
__device__ __forceinline__ a_tile round_to_a(const c_tile &left, const c_tile &right)
{
    a_tile a;
    a.x[0] = pack_two(left.x[0], left.x[1]);
    a.x[1] = pack_two(left.x[2], left.x[3]);
    a.x[2] = pack_two(right.x[0], right.x[1]);
    a.x[3] = pack_two(right.x[2], right.x[3]);
    return a;
}

/* The sum, or the largest, over the four lanes that share the rows of a c. */
__device__ __forceinline__ float row_sum(float x)
{
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

__device__ __forceinline__ float row_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

#endif
