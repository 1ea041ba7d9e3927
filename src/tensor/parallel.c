/* SPDX-License-Identifier: Apache-2.0 */
/* Loops over chunks that several operators share. */
#include "tensor/parallel.h"

#include <pthread.h>
#include <string.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int n_cpus;

static void count_cpus(void)
{
    n_cpus = tess_cpu_count();
}

int tess__slots_max(void)
{
    pthread_once(&once, count_cpus);
    return n_cpus;
}

void tess__convert(tess_dtype to, void *out, tess_dtype from, const void *in, int64_t n)
{
    const tess_kernels *k = tess__kernels();
    const tess_chunks c = tess__chunks(n, 1);
#pragma omp parallel for schedule(static) if (c.n > 1)
    for (int64_t i = 0; i < c.n; i++) {
        const tess_range r = tess__chunk(&c, i);
        k->convert(to, tess__at_mut(out, to, r.begin), from, tess__at(in, from, r.begin), r.n);
    }
}

void tess__zero(float *x, int64_t n)
{
    memset(x, 0, (size_t)n * sizeof(float));
}

void tess__sum_partials(float *sum, const float *partial, int64_t n, int64_t width)
{
    const tess_kernels *k = tess__kernels();
    tess__zero(sum, width);
    k->column_sum(TESS_F32, sum, partial, n, width);
}
