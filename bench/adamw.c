/* SPDX-License-Identifier: Apache-2.0 */
/* The update on processors, AdamW over flat memory, beside what this memory can carry.
 *
 *     bench/adamw MILLIONS ROUNDS
 *
 * In turn, ROUNDS times each: the update in f32, the update that also writes the bf16 copy, and two
 * yardsticks that move bytes in the same mix and do next to nothing: four streams read and written
 * in place (16 bytes read and 16 written an element: weight, gradient, two moments), and the same
 * with a fifth that is only written, 2 bytes an element.  A yardstick runs in two ways, plain and
 * with the fifth stream past the caches; the faster counts, which does not flatter the update.  All
 * memory is a store's, so it has the same pages.  One JSON line: seconds of every round, and bytes
 * an element. */
#include "tensor/parallel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

enum { MAX_ROUNDS = 1000, BLOCK = 1 << 16, LINE = 16, AHEAD = 256 };

typedef struct side {
    tess_store *store;
    int64_t n;
    float hyper[5], sumsq;
    tess_workspace *workspace;
    tess_plan *plan[2]; /* f32; with the bf16 copy */
} side;

static tess_status add_group(tess_store *s, const char *name, tess_dtype dtype, int64_t n)
{
    TESS_TRY(tess_store_add(s, name, "x", TESS_SHAPE_OF(n / 1024, 1024)));
    TESS_TRY(tess_store_set_dtype(s, name, dtype));
    return tess_store_allocate(s);
}

static tess_value flat(tess_graph *g, const char *group, tess_dtype dtype, int64_t n)
{
    return tess_state(g, group, "", dtype, TESS_SHAPE_OF(n));
}

static tess_status build(side *s, bool narrow, tess_plan **out)
{
    tess_graph *g = tess_graph_new();
    if (!g) {
        return TESS_NOMEM;
    }
    const tess_value hyper = tess_input(g, "hyper", TESS_F32, TESS_SHAPE_OF(5));
    const tess_value sumsq = tess_input(g, "sumsq", TESS_F32, TESS_SHAPE_OF(1));
    tess_adamw(g, flat(g, "param", TESS_F32, s->n), flat(g, "grad", TESS_F32, s->n),
               flat(g, "m", TESS_F32, s->n), flat(g, "v", TESS_F32, s->n), hyper, sumsq,
               (tess_adamw_options){.beta1 = 0.9f,
                                    .beta2 = 0.98f,
                                    .eps = 1e-6f,
                                    .weight_decay = 0.2f,
                                    .clip = 1,
                                    .n_decayed = s->n,
                                    .narrow = narrow ? flat(g, "half", TESS_BF16, s->n) : 0});
    tess_status st = tess_plan_build(g, NULL, 0, tess_device_cpu(), s->store, s->workspace, out);
    st = st ? st : tess_plan_bind(*out, "hyper", s->hyper);
    st = st ? st : tess_plan_bind(*out, "sumsq", &s->sumsq);
    tess_graph_free(g);
    return st;
}

static void fill(const side *s, const char *group)
{
    int64_t n;
    float *x = tess_store_group(s->store, group, &n);
#pragma omp parallel for
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)(i * 2654435761 % 4096) * 0x1p-12f;
    }
}

static tess_status open(side *s, int64_t n)
{
    *s = (side){.n = n,
                .hyper = {1e-3f, 10, 50, 1, 1},
                .sumsq = 1,
                .store = tess_store_new(),
                .workspace = tess_workspace_new()};
    if (!s->store || !s->workspace) {
        return TESS_NOMEM;
    }
    TESS_TRY(add_group(s->store, "param", TESS_F32, n));
    TESS_TRY(add_group(s->store, "grad", TESS_F32, n));
    TESS_TRY(add_group(s->store, "m", TESS_F32, n));
    TESS_TRY(add_group(s->store, "v", TESS_F32, n));
    TESS_TRY(add_group(s->store, "half", TESS_BF16, n));
    fill(s, "param");
    fill(s, "m");
    fill(s, "v");
    TESS_TRY(build(s, false, &s->plan[0]));
    return build(s, true, &s->plan[1]);
}

/* ---- yardsticks ---------------------------------------------------------------------------- */

/* No bits, which the compiler does not know: what is turned over stays a number of normal size. */
static volatile uint32_t no_bits;

/* n floats, a multiple of a line's, of four streams in place, fetched AHEAD. */
static void turn(uint32_t *const x[4], int64_t i, int64_t n)
{
    const uint32_t bits = no_bits;
    for (int64_t line = i; line < i + n; line += LINE) {
        for (int k = 0; k < 4; k++) {
            uint32_t *y = x[k] + line;
            __builtin_prefetch(y + AHEAD, 1);
            for (int64_t j = 0; j < LINE; j++) {
                y[j] ^= bits;
            }
        }
    }
}

/* The upper halves of x, past the caches where `past`. */
static void halve(uint16_t *y, const uint32_t *x, int64_t n, bool past)
{
#if defined(__SSE2__)
    for (int64_t j = 0; past && j < n; j += 8) {
        const __m128i a = _mm_srai_epi32(_mm_load_si128((const __m128i *)(x + j)), 16);
        const __m128i b = _mm_srai_epi32(_mm_load_si128((const __m128i *)(x + j + 4)), 16);
        _mm_stream_si128((__m128i *)(y + j), _mm_packs_epi32(a, b));
    }
#endif
    for (int64_t j = 0; !past && j < n; j++) {
        y[j] = (uint16_t)(x[j] >> 16);
    }
}

enum { TURN, TURN_HALVE, TURN_HALVE_PAST };

static void yardstick(const side *s, int way)
{
    static const char *const groups[] = {"param", "grad", "m", "v"};
    uint32_t *x[4];
    int64_t n;
    for (int k = 0; k < 4; k++) {
        x[k] = (uint32_t *)tess_store_group(s->store, groups[k], &n);
    }
    uint16_t *half = (uint16_t *)tess_store_group(s->store, "half", &n);
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < n; b += BLOCK) {
        for (int64_t i = b; i < n && i < b + BLOCK; i += 1024) {
            turn(x, i, 1024);
            if (way != TURN) {
                halve(half + i, x[0] + i, 1024, way == TURN_HALVE_PAST);
            }
        }
    }
}

/* ---- rounds -------------------------------------------------------------------------------- */

enum { UPDATE, UPDATE_HALF, YARD, YARD_HALF, YARD_PAST, N_WAYS };

static tess_status round_once(side *s, double seconds[N_WAYS])
{
    for (int way = 0; way < N_WAYS; way++) {
        fill(s, "grad"); /* an update leaves zeros */
        const double start = tess_seconds();
        if (way <= UPDATE_HALF) {
            TESS_TRY(tess_plan_run(s->plan[way]));
        } else {
            yardstick(s, way - YARD);
        }
        seconds[way] = tess_seconds() - start;
    }
    return TESS_OK;
}

static void print_seconds(const char *name, double (*all)[N_WAYS], int64_t rounds, int way,
                          int way2)
{
    printf(", \"%s\": [", name);
    for (int64_t i = 0; i < rounds; i++) {
        const double a = all[i][way], b = all[i][way2];
        printf("%s%.6f", i ? ", " : "", a < b ? a : b);
    }
    printf("]");
}

int main(int argc, char **argv)
{
    static double all[MAX_ROUNDS][N_WAYS];
    const int64_t n = argc == 3 ? atoll(argv[1]) * 1000000 / 65536 * 65536 : 0;
    const int64_t rounds = argc == 3 ? atoll(argv[2]) : 0;
    side s;
    if (n < 1 || rounds < 1 || rounds > MAX_ROUNDS) {
        fprintf(stderr, "usage: adamw MILLIONS ROUNDS\n");
        return 2;
    }
    tess_status st = open(&s, n);
    st = st ? st : round_once(&s, all[0]); /* pages and clocks */
    for (int64_t i = 0; st == TESS_OK && i < rounds; i++) {
        st = round_once(&s, all[i]);
    }
    if (st) {
        fprintf(stderr, "adamw: %s\n", tess_error());
        return 1;
    }
    printf("{\"parameters\": %lld, \"threads\": %d, \"isa\": \"%s\", \"bytes\": 32, "
           "\"bytes_with_bf16\": 34",
           (long long)n, omp_get_max_threads(), tess_isa_name(tess_isa_get()));
    print_seconds("update", all, rounds, UPDATE, UPDATE);
    print_seconds("update_bf16", all, rounds, UPDATE_HALF, UPDATE_HALF);
    print_seconds("yardstick", all, rounds, YARD, YARD);
    print_seconds("yardstick_bf16", all, rounds, YARD_HALF, YARD_PAST);
    printf("}\n");
    tess_plan_free(s.plan[0]);
    tess_plan_free(s.plan[1]);
    tess_workspace_free(s.workspace);
    tess_store_free(s.store);
    return 0;
}
