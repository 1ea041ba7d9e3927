/* SPDX-License-Identifier: Apache-2.0 */
/* How operators split work among threads: chunks whose number and size depend on the shape only, so
 * that sums over chunks come out the same for any number of threads. */
#ifndef TESSERA_TENSOR_PARALLEL_H
#define TESSERA_TENSOR_PARALLEL_H

#include <omp.h>

#include "tensor/kernels.h"
#include "tensor/op.h"

typedef struct tess_chunks {
    int64_t rows, rows_per, n;
} tess_chunks;

enum {
    TESS_CHUNK_ITEMS = 16384, /* at least: 64 KB, well above the cost of handing out a chunk */
    TESS_CHUNKS_MAX = 64,     /* so that partial sums stay small */
};

static inline tess_chunks tess__chunks(int64_t rows, int64_t width)
{
    const int64_t least = (TESS_CHUNK_ITEMS + width - 1) / (width > 0 ? width : 1);
    const int64_t even = (rows + TESS_CHUNKS_MAX - 1) / TESS_CHUNKS_MAX;
    const int64_t per = least > even ? least : even;
    return (tess_chunks){.rows = rows, .rows_per = per, .n = per > 0 ? (rows + per - 1) / per : 0};
}

typedef struct tess_range {
    int64_t begin, n;
} tess_range;

static inline tess_range tess__chunk(const tess_chunks *c, int64_t i)
{
    const int64_t begin = i * c->rows_per, left = c->rows - begin;
    return (tess_range){begin, left < c->rows_per ? left : c->rows_per};
}

/* Scratch that belongs to a thread is allotted for this many; loops that use it ask OpenMP for no
 * more.  The process's processors, counted once: the count reads files of the control group. */
int tess__slots_max(void);
static inline int tess__slots(void)
{
    const int n = omp_get_max_threads(), cpus = tess__slots_max();
    return n < cpus ? n : cpus;
}

/* Address of element i. */
static inline const void *tess__at(const void *x, tess_dtype t, int64_t i)
{
    return (const char *)x + i * (int64_t)tess_dtype_bytes(t);
}
static inline void *tess__at_mut(void *x, tess_dtype t, int64_t i)
{
    return (char *)x + i * (int64_t)tess_dtype_bytes(t);
}

void tess__zero(float *x, int64_t n);
/* The convert kernel over all threads. */
void tess__convert(tess_dtype to, void *out, tess_dtype from, const void *in, int64_t n);
/* The sum of squares of x (n) f32 or bf16 by one thread; ops/sumsq.c. */
double tess__sumsq(tess_dtype t, const void *x, int64_t n);
/* Pieces of one run, over all threads. */
typedef struct tess_sum_piece {
    int64_t offset, n; /* elements of the run */
    int group;         /* which sum it is a part of */
} tess_sum_piece;
void tess__sumsq_pieces(tess_dtype t, const void *x, const tess_sum_piece *pieces, int64_t n,
                        double *out);
/* sum (width) = the partial sums (n,width) added in order. */
void tess__sum_partials(float *sum, const float *partial, int64_t n, int64_t width);

#endif
