/* SPDX-License-Identifier: Apache-2.0 */
/* oneDNN's matrix product rate on this machine: what training's rate is held against.
 *
 *     bench/matmul [SECONDS [N]]
 *
 * C (N,N) = A (N,N) B (N,N), N 2048, on random numbers (zeros run faster than work does), with bf16
 * operands and with f32.  Each is set up in four ways (B as it lies or packed in each run, stored
 * or transposed), and the fastest stands: a yardstick must not flatter what is measured with it.
 * Prints one line of JSON with GFLOP/s, 2 N^3 floating-point operations a product, the median over
 * the runs of SECONDS.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tensor/matmul.h"
#include "tessera/base.h"

enum { MAX_RUNS = 4096, N_WAYS = 4 };

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Numbers in [-1, 1), from a linear congruence: only their spread matters. */
static void fill(void *out, tess_dtype dtype, int64_t n)
{
    uint32_t state = 1;
    for (int64_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        union {
            float f;
            uint32_t bits;
        } x = {.f = (float)(int32_t)state * 0x1p-31f};
        if (dtype == TESS_F32) {
            ((float *)out)[i] = x.f;
        } else {
            ((uint16_t *)out)[i] = (uint16_t)(x.bits >> 16);
        }
    }
}

/* The median seconds of one product, set up in one way. */
static tess_status measure(const tess_matmul_spec *spec, const tess_matmul_args *args,
                           double seconds, double *out)
{
    static double runs[MAX_RUNS];
    tess_matmul *m = NULL;
    TESS_TRY(tess__matmul_new(spec, &m));
    tess_matmul_args a = *args;
    a.scratch = tess_alloc(tess__matmul_scratch(m));
    tess_status st = a.scratch ? tess__matmul_run(m, &a) : TESS_NOMEM;
    int64_t n = 0;
    double start = tess_seconds(), last = start;
    while (st == TESS_OK && n < MAX_RUNS && (n < 3 || last - start < seconds)) {
        st = tess__matmul_run(m, &a);
        double now = tess_seconds();
        runs[n++] = now - last;
        last = now;
    }
    if (st == TESS_OK) {
        qsort(runs, (size_t)n, sizeof *runs, by_value);
        *out = runs[n / 2];
    }
    tess_free(a.scratch);
    tess__matmul_free(m);
    return st;
}

static tess_status best_rate(tess_dtype dtype, int64_t n, double seconds, double *out)
{
    size_t bytes = (size_t)(n * n) * sizeof(float);
    void *a = tess_alloc(bytes), *b = tess_alloc(bytes), *c = tess_alloc(bytes);
    tess_status st = a && b && c ? TESS_OK : TESS_NOMEM;
    double best = 0;
    if (st == TESS_OK) {
        fill(a, dtype, n * n);
        fill(b, dtype, n * n);
    }
    for (int way = 0; st == TESS_OK && way < N_WAYS; way++) {
        tess_matmul_spec spec = {
            .m = n, .n = n, .k = n, .in = dtype, .out = dtype, .b_trans = way & 1, .pack = way & 2};
        double t = 0;
        st = measure(&spec, &(tess_matmul_args){.a = a, .b = b, .c = c}, seconds / N_WAYS, &t);
        best = st == TESS_OK && (best <= 0 || t < best) ? t : best;
    }
    *out = st == TESS_OK ? 2e-9 * (double)n * (double)n * (double)n / best : 0;
    tess_free(a);
    tess_free(b);
    tess_free(c);
    return st;
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 2, bf16 = 0, f32 = 0;
    int64_t n = argc > 2 ? atoll(argv[2]) : 2048;
    if (seconds <= 0 || n < 1 || n > 16384) {
        fprintf(stderr, "usage: matmul [SECONDS [N]]\n");
        return 2;
    }
    if (best_rate(TESS_BF16, n, seconds, &bf16) || best_rate(TESS_F32, n, seconds, &f32)) {
        fprintf(stderr, "matmul: %s\n", tess_error());
        return 1;
    }
    printf("{\"what\": \"matmul\", \"onednn\": \"%s\", \"isa\": \"%s\", \"n\": %lld, "
           "\"bf16_gflops\": %.1f, \"f32_gflops\": %.1f}\n",
           tess__matmul_version(), tess_isa_name(tess_isa_get()), (long long)n, bf16, f32);
    return 0;
}
