/* SPDX-License-Identifier: Apache-2.0 */
/* What the GPU benches' programs share.  Each is a side that waits: it reads lines "CASE N", does
 * that N times, and answers with one line of JSON, as the rivals (bench/rival/gpu.py) do. */
#ifndef TESSERA_BENCH_GPU_SIDE_H
#define TESSERA_BENCH_GPU_SIDE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tessera/fusion.h"

/* A precision by its name.  TESS_UNSUPPORTED (exit status 3): this build has none of that name. */
TESS_MUST_USE static inline tess_status side_precision(const char *name, tess_precision *out)
{
    static const struct {
        const char *name;
        tess_precision precision;
    } known[] = {{"f32", TESS_PRECISION_F32}, {"bf16", TESS_PRECISION_BF16}};
    for (int i = 0; i < TESS_COUNT(known); i++) {
        if (strcmp(name, known[i].name) == 0) {
            *out = known[i].precision;
            return TESS_OK;
        }
    }
    return TESS_FAIL(TESS_UNSUPPORTED, "this build trains in f32 and bf16, not in \"%.20s\"", name);
}

/* DIR/NAME mapped, which must hold n_bytes at least. */
TESS_MUST_USE static inline tess_status side_map(const char *dir, const char *name, size_t n_bytes,
                                                 const void **out)
{
    tess_bytes found;
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    TESS_TRY(tess_file_map(path, &found));
    if (found.n_bytes < n_bytes) {
        return TESS_FAIL(TESS_FORMAT, "%s: expected %zu bytes at least, found %zu", path, n_bytes,
                         found.n_bytes);
    }
    *out = found.data;
    return TESS_OK;
}

/* A number of an argument, 1 or more; 0: it is none. */
static inline int64_t side_count(const char *text)
{
    char *end;
    const long long n = strtoll(text, &end, 10);
    return *text && !*end && n > 0 ? n : 0;
}

/* Answers lines until there are no more. */
TESS_MUST_USE static inline tess_status
side_serve(void *ctx, tess_status (*answer)(void *ctx, const char *name, int64_t n))
{
    char name[32];
    int n;
    while (scanf("%31s %d", name, &n) == 2) {
        TESS_TRY(answer(ctx, name, n < 1 ? 1 : n));
        printf("\n");
        fflush(stdout);
    }
    return TESS_OK;
}

/* The exit status: 0, 3 for what this build has not, 1. */
static inline int side_end(const char *program, tess_status st)
{
    if (st) {
        fprintf(stderr, "%s: %s\n", program, tess_error());
    }
    return st == TESS_OK ? 0 : st == TESS_UNSUPPORTED ? 3 : 1;
}

#endif
