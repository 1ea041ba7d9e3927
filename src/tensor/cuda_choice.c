/* SPDX-License-Identifier: Apache-2.0 */
/* The way to a product and the algorithm for it: all that the library proposes are timed, once, on
 * the operands themselves, and the fastest is kept on disk (cuda_cache.h).  With the same file the
 * same algorithms run, so that two runs give the same bytes; where runs have to give them without
 * one, the first that runs is taken, and the file is left alone.
 *
 * A result of bf16 has its parts added in f32: algorithms that keep partial sums in the result's
 * type are not asked for. */
#include "tensor/cuda_cache.h"
#include "tensor/cuda_lt.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PROPOSALS 8
#define TIMED_RUNS    3
#define ALIGNMENT     16 /* of every operand */

typedef struct proposals {
    cublasLtMatmulHeuristicResult_t found[MAX_PROPOSALS];
    int n;
} proposals;

/* ---- what the library proposes ----------------------------------------------------------------
 */

static cublasStatus_t set_wish(cublasLtMatmulPreference_t wish)
{
    const uint64_t workspace_bytes = TESS_LT_WORKSPACE_BYTES;
    const uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, alignment = ALIGNMENT;
    static const cublasLtMatmulPreferenceAttributes_t aligned[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    cublasStatus_t s = tess__lt.cublasLtMatmulPreferenceSetAttribute(
        wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes, sizeof workspace_bytes);
    s = s ? s
          : tess__lt.cublasLtMatmulPreferenceSetAttribute(
                wish, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes);
    for (int64_t i = 0; i < TESS_COUNT(aligned) && !s; i++) {
        s = tess__lt.cublasLtMatmulPreferenceSetAttribute(wish, aligned[i], &alignment,
                                                          sizeof alignment);
    }
    return s;
}

/* None where the library does not do this: for it says so in several ways. */
static tess_status propose(const tess_lt_product *p, proposals *out)
{
    cublasLtMatmulPreference_t wish;
    TESS_TRY(tess__lt_check(tess__lt.cublasLtMatmulPreferenceCreate(&wish), "cuBLASLt"));
    const tess_status st = tess__lt_check(set_wish(wish), "cuBLASLt");
    const cublasStatus_t s = tess__lt.cublasLtMatmulAlgoGetHeuristic(
        tess__lt.handle, p->op, p->a, p->b, p->c, p->c, wish, MAX_PROPOSALS, out->found, &out->n);
    tess__lt.cublasLtMatmulPreferenceDestroy(wish);
    out->n = s == CUBLAS_STATUS_SUCCESS ? out->n : 0;
    return st;
}

/* ---- timing -----------------------------------------------------------------------------------
 */

typedef struct stopwatch {
    cudaEvent_t begin, end;
    void *own; /* a result that nobody reads, where C is also read */
} stopwatch;

typedef struct measured {
    tess_lt_way way;
    cublasLtMatmulAlgo_t algo;
    float ms; /* negative: nothing has run yet */
} measured;

static tess_status begin(stopwatch *t, const tess_matmul_spec *s)
{
    const size_t n_bytes = (size_t)(s->m * s->n) * tess_dtype_bytes(s->out);
    TESS_TRY(tess__lt_check_cuda(cudaEventCreate(&t->begin), "timing products"));
    TESS_TRY(tess__lt_check_cuda(cudaEventCreate(&t->end), "timing products"));
    return s->accumulate ? tess__lt_check_cuda(cudaMalloc(&t->own, n_bytes), "timing products")
                         : TESS_OK;
}

static void end(stopwatch *t)
{
    if (t->begin) {
        cudaEventDestroy(t->begin);
    }
    if (t->end) {
        cudaEventDestroy(t->end);
    }
    cudaFree(t->own); /* CUDA's */
}

/* Milliseconds of the fastest run; a negative number when it does not run. */
static float time_algorithm(tess_lt_product *p, const cublasLtMatmulAlgo_t *algo,
                            const tess_cuda_args *x, const stopwatch *t, void *stream)
{
    float best = -1;
    for (int i = 0; i < TIMED_RUNS; i++) {
        float ms = 0;
        cudaEventRecord(t->begin, stream);
        if (tess__lt_run(p, algo, x, t->own ? t->own : x->matmul.c, stream) != TESS_OK ||
            cudaEventRecord(t->end, stream) != cudaSuccess ||
            cudaEventSynchronize(t->end) != cudaSuccess ||
            cudaEventElapsedTime(&ms, t->begin, t->end) != cudaSuccess) {
            return -1;
        }
        best = best < 0 || ms < best ? ms : best;
    }
    return best;
}

/* Times one way; *runs: an algorithm of it does. */
static tess_status measure_way(const tess_cuda_product *spec, tess_lt_way way,
                               const tess_cuda_args *x, const stopwatch *t, void *stream,
                               measured *best, bool *runs)
{
    tess_lt_product p = {.spec = *spec, .way = way};
    proposals all = {.n = 0};
    tess_status st = tess__lt_describe(&p, x);
    st = st ? st : propose(&p, &all);
    for (int i = 0; i < all.n && !st; i++) {
        const bool ready = all.found[i].state == CUBLAS_STATUS_SUCCESS;
        const float ms = ready ? time_algorithm(&p, &all.found[i].algo, x, t, stream) : -1;
        *runs |= ms >= 0;
        const bool faster = ms < best->ms && !tess__is_deterministic();
        if (ms >= 0 && (best->ms < 0 || faster)) {
            *best = (measured){.way = way, .algo = all.found[i].algo, .ms = ms};
        }
    }
    tess__lt_product_free(&p);
    return st;
}

/* With and without the library's epilogue; of the forms of a bias the first that there is. */
static tess_status measure(const tess_cuda_product *spec, const tess_cuda_args *x, void *stream,
                           measured *best)
{
    stopwatch t = {0};
    tess_status st = begin(&t, &spec->matmul);
    for (int fused = 1; fused >= 0; fused--) {
        bool runs = false;
        for (int form = 0; form < TESS_LT_BIAS_FORMS && !runs && !st; form++) {
            const tess_lt_way way = {.fused = fused, .bias = (tess_lt_bias)form};
            if (tess__lt_way_exists(spec, way)) {
                st = measure_way(spec, way, x, &t, stream, best, &runs);
            }
        }
    }
    end(&t);
    return st;
}

/* ---- keeping ----------------------------------------------------------------------------------
 */

static tess_cache cache;

static tess_status open_cache(void)
{
    tess_buf place = {0};
    if (cache.place) {
        return TESS_OK;
    }
    tess_status st = tess__lt_place(&place);
    st = st ? st : tess__cache_open(&cache, place.data);
    tess_buf_deinit(&place);
    return st;
}

static void print_spec(const tess_cuda_product *p, tess_buf *out)
{
    const tess_matmul_spec *s = &p->matmul;
    tess_buf_addf(out, "%" PRId64 "x%" PRId64 "x%" PRId64 " %s %s%s%s%s%s%s%s", s->m, s->n, s->k,
                  tess_dtype_name(s->in), tess_dtype_name(s->out), s->a_trans ? " at" : "",
                  s->b_trans ? " bt" : "", s->bias ? " bias" : "", s->relu ? " relu" : "",
                  s->residual ? " residual" : "", s->accumulate ? " accumulate" : "");
    tess_buf_addf(out, " epilogue %d%s%s", (int)p->epilogue, p->aux ? " aux" : "",
                  p->a_e5m2 ? " e5m2" : "");
}

static void print_choice(const measured *m, tess_buf *out)
{
    tess_buf_addf(out, "%d %d", m->way.fused, (int)m->way.bias);
    for (int64_t i = 0; i < TESS_COUNT(m->algo.data); i++) {
        tess_buf_addf(out, " %" PRIx64, m->algo.data[i]);
    }
}

static bool read_choice(const char *text, measured *out)
{
    char *at;
    const unsigned long fused = strtoul(text, &at, 10), form = strtoul(at, &at, 10);
    out->way = (tess_lt_way){.fused = fused == 1, .bias = (tess_lt_bias)form};
    for (int64_t i = 0; i < TESS_COUNT(out->algo.data); i++) {
        if (*at != ' ') {
            return false;
        }
        out->algo.data[i] = strtoull(at, &at, 16);
    }
    return *at == '\0' && fused <= 1 && form < TESS_LT_BIAS_FORMS;
}

/* Whether the library runs this here, within our workspace. */
static bool is_sound(const tess_lt_product *p)
{
    cublasLtMatmulHeuristicResult_t r;
    memset(&r, 0, sizeof r);
    return tess__lt.cublasLtMatmulAlgoCheck(tess__lt.handle, p->op, p->a, p->b, p->c, p->c,
                                            &p->algo, &r) == CUBLAS_STATUS_SUCCESS &&
           r.workspaceSize <= TESS_LT_WORKSPACE_BYTES;
}

static tess_status set_up(tess_lt_product *p, const measured *m, const tess_cuda_args *x)
{
    p->way = m->way;
    p->algo = m->algo;
    return tess__lt_describe(p, x);
}

/* An earlier choice, if there is one that holds. */
static tess_status recall(tess_lt_product *p, const char *key, const tess_cuda_args *x, bool *found)
{
    measured m;
    const char *kept = tess__cache_find(&cache, key);
    *found = kept && read_choice(kept, &m) && tess__lt_way_exists(&p->spec, m.way);
    if (!*found) {
        return TESS_OK;
    }
    TESS_TRY(set_up(p, &m, x));
    *found = is_sound(p);
    if (!*found) {
        tess__lt_product_free(p);
    }
    return TESS_OK;
}

static tess_status measure_and_keep(tess_lt_product *p, const char *key, const tess_cuda_args *x,
                                    void *stream)
{
    measured best = {.ms = -1};
    tess_buf choice = {0};
    TESS_TRY(measure(&p->spec, x, stream, &best));
    if (best.ms < 0) {
        return TESS_FAIL(TESS_DEVICE, "cuBLASLt has no algorithm that runs for a product of %s%s",
                         key,
                         p->spec.matmul.in == TESS_F8E4M3
                             ? ": FP8 takes a card of compute capability 8.9 or more (Ada, "
                               "Hopper); use --precision bf16"
                             : "");
    }
    TESS_TRY(set_up(p, &best, x));
    print_choice(&best, &choice);
    tess_status st = tess_buf_check(&choice);
    st = st || tess__is_deterministic() ? st : tess__cache_keep(&cache, key, choice.data);
    tess_buf_deinit(&choice);
    return st;
}

tess_status tess__lt_choose(tess_lt_product *p, const tess_cuda_args *x, void *stream)
{
    bool found = false;
    tess_buf key = {0};
    TESS_TRY(open_cache());
    print_spec(&p->spec, &key);
    tess_status st = tess_buf_check(&key);
    st = st || tess__is_deterministic() ? st : recall(p, key.data, x, &found);
    st = st || found ? st : measure_and_keep(p, key.data, x, stream);
    tess_buf_deinit(&key);
    return st;
}
