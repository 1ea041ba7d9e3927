/* SPDX-License-Identifier: Apache-2.0 */
/* The one door to cuBLASLt.
 *
 * The library is opened when the first product runs, so that the program starts, and runs on
 * processors, where it is not installed.  A product is set up once for its shapes: descriptors and
 * the fastest of the algorithms that the library proposes, timed on the operands themselves with
 * the result going to memory of its own.
 *
 * cuBLASLt stores columns; a row-major C (m,n) is a C^T (n,m) of columns, so every product is asked
 * for as C^T = B^T A^T, and a bias over our columns is one over its rows, which its epilogues add.
 */
#include "tensor/cuda_matmul.h"

#include <cublasLt.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#define WORKSPACE_BYTES (32 << 20) /* what NVIDIA advises for Hopper */
#define MAX_PROPOSALS   8
#define TIMED_RUNS      3

/* ---- the library ---------------------------------------------------------------------------- */

#define FUNCTIONS(X)                                                                               \
    X(cublasLtCreate)                                                                              \
    X(cublasLtMatmul)                                                                              \
    X(cublasLtMatmulDescCreate)                                                                    \
    X(cublasLtMatmulDescDestroy)                                                                   \
    X(cublasLtMatmulDescSetAttribute)                                                              \
    X(cublasLtMatrixLayoutCreate)                                                                  \
    X(cublasLtMatrixLayoutDestroy)                                                                 \
    X(cublasLtMatmulPreferenceCreate)                                                              \
    X(cublasLtMatmulPreferenceDestroy)                                                             \
    X(cublasLtMatmulPreferenceSetAttribute)                                                        \
    X(cublasLtMatmulAlgoGetHeuristic)                                                              \
    X(cublasLtGetStatusString)

static struct {
#define X(name) __typeof__(&name) name;
    FUNCTIONS(X)
#undef X
    cublasLtHandle_t handle;
    void *workspace;
} lt;

static tess_status check(cublasStatus_t s, const char *what)
{
    return s == CUBLAS_STATUS_SUCCESS
               ? TESS_OK
               : TESS_FAIL(TESS_DEVICE, "%s: %s", what, lt.cublasLtGetStatusString(s));
}

static tess_status check_cuda(cudaError_t e, const char *what)
{
    return e == cudaSuccess ? TESS_OK
                            : TESS_FAIL(TESS_DEVICE, "%s: %s", what, cudaGetErrorString(e));
}

static tess_status open_library(void)
{
    static const struct {
        const char *name;
        size_t at;
    } functions[] = {
#define X(name) {#name, offsetof(__typeof__(lt), name)},
        FUNCTIONS(X)
#undef X
    };
    void *library = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        return TESS_FAIL(TESS_DEVICE,
                         "cuBLASLt does not open (%s): install CUDA 13's libcublas, or use "
                         "--device cpu",
                         dlerror());
    }
    for (int64_t i = 0; i < TESS_COUNT(functions); i++) {
        void *found = dlsym(library, functions[i].name);
        if (!found) {
            return TESS_FAIL(TESS_DEVICE, "cuBLASLt has no %s: install CUDA 13's libcublas",
                             functions[i].name);
        }
        memcpy((char *)&lt + functions[i].at, &found, sizeof found);
    }
    TESS_TRY(check(lt.cublasLtCreate(&lt.handle), "cuBLASLt"));
    return check_cuda(cudaMalloc(&lt.workspace, WORKSPACE_BYTES), "cuBLASLt's workspace");
}

/* ---- a product, set up ----------------------------------------------------------------------- */

typedef struct product {
    tess_matmul_spec spec;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, c; /* the library's: a is our B, b our A */
    cublasLtMatmulAlgo_t algo;
    bool chosen;
} product;

static product *products;
static size_t n_products, cap_products;

static cudaDataType_t type_of(tess_dtype t)
{
    return t == TESS_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

static tess_status set_op(product *p, cublasLtMatmulDescAttributes_t what, const void *value,
                          size_t n_bytes)
{
    return check(lt.cublasLtMatmulDescSetAttribute(p->op, what, value, n_bytes), "cuBLASLt");
}

static tess_status describe(product *p)
{
    const tess_matmul_spec *s = &p->spec;
    const cublasOperation_t ours_b = s->b_trans ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t ours_a = s->a_trans ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasLtEpilogue_t epilogue =
        s->relu   ? (s->bias ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_RELU)
        : s->bias ? CUBLASLT_EPILOGUE_BIAS
                  : CUBLASLT_EPILOGUE_DEFAULT;
    const cudaDataType_t f32 = CUDA_R_32F;
    TESS_TRY(
        check(lt.cublasLtMatmulDescCreate(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cuBLASLt"));
    TESS_TRY(set_op(p, CUBLASLT_MATMUL_DESC_TRANSA, &ours_b, sizeof ours_b));
    TESS_TRY(set_op(p, CUBLASLT_MATMUL_DESC_TRANSB, &ours_a, sizeof ours_a));
    TESS_TRY(set_op(p, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
    if (s->bias) {
        TESS_TRY(set_op(p, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &f32, sizeof f32));
    }
    const uint64_t n = (uint64_t)s->n, m = (uint64_t)s->m, k = (uint64_t)s->k;
    TESS_TRY(check(lt.cublasLtMatrixLayoutCreate(&p->a, type_of(s->in), s->b_trans ? k : n,
                                                 s->b_trans ? n : k, (int64_t)(s->b_trans ? k : n)),
                   "cuBLASLt"));
    TESS_TRY(check(lt.cublasLtMatrixLayoutCreate(&p->b, type_of(s->in), s->a_trans ? m : k,
                                                 s->a_trans ? k : m, (int64_t)(s->a_trans ? m : k)),
                   "cuBLASLt"));
    return check(lt.cublasLtMatrixLayoutCreate(&p->c, type_of(s->out), n, m, (int64_t)n),
                 "cuBLASLt");
}

static void free_product(product *p)
{
    if (p->op) {
        lt.cublasLtMatmulDescDestroy(p->op);
    }
    cublasLtMatrixLayout_t layouts[] = {p->a, p->b, p->c};
    for (int64_t i = 0; i < TESS_COUNT(layouts); i++) {
        if (layouts[i]) {
            lt.cublasLtMatrixLayoutDestroy(layouts[i]);
        }
    }
}

static cublasStatus_t multiply(const product *p, const cublasLtMatmulAlgo_t *algo,
                               const tess_matmul_args *x, void *to, void *stream)
{
    const float one = 1, zero = 0;
    const bool adds = p->spec.residual || p->spec.accumulate;
    const void *c = p->spec.accumulate ? x->c : p->spec.residual ? x->residual : to;
    return lt.cublasLtMatmul(lt.handle, p->op, &one, x->b, p->a, x->a, p->b, adds ? &one : &zero, c,
                             p->c, to, p->c, algo, lt.workspace, WORKSPACE_BYTES, stream);
}

/* ---- choosing an algorithm --------------------------------------------------------------------
 */

typedef struct timing {
    cudaEvent_t begin, end;
    void *to; /* a result that nobody reads */
} timing;

/* Milliseconds of the fastest run; a negative number when it does not run. */
static float time_algorithm(const product *p, const cublasLtMatmulAlgo_t *algo,
                            const tess_matmul_args *x, const timing *t, void *stream)
{
    float best = -1;
    for (int i = 0; i < TIMED_RUNS; i++) {
        float ms = 0;
        cudaEventRecord(t->begin, stream);
        if (multiply(p, algo, x, t->to, stream) != CUBLAS_STATUS_SUCCESS ||
            cudaEventRecord(t->end, stream) != cudaSuccess ||
            cudaEventSynchronize(t->end) != cudaSuccess ||
            cudaEventElapsedTime(&ms, t->begin, t->end) != cudaSuccess) {
            return -1;
        }
        best = best < 0 || ms < best ? ms : best;
    }
    return best;
}

static tess_status choose_fastest(product *p, const cublasLtMatmulHeuristicResult_t *found, int n,
                                  const tess_matmul_args *x, const timing *t, void *stream)
{
    float best = -1;
    for (int i = 0; i < n; i++) {
        const float ms = time_algorithm(p, &found[i].algo, x, t, stream);
        if (ms >= 0 && (best < 0 || ms < best)) {
            best = ms;
            p->algo = found[i].algo;
            p->chosen = true;
        }
    }
    return p->chosen ? TESS_OK
                     : TESS_FAIL(TESS_DEVICE, "cuBLASLt: none of its %d algorithms runs", n);
}

static tess_status propose(const product *p, cublasLtMatmulHeuristicResult_t *found, int *n)
{
    const uint64_t workspace_bytes = WORKSPACE_BYTES;
    cublasLtMatmulPreference_t wish;
    TESS_TRY(check(lt.cublasLtMatmulPreferenceCreate(&wish), "cuBLASLt"));
    tess_status st = check(
        lt.cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                &workspace_bytes, sizeof workspace_bytes),
        "cuBLASLt");
    st = st ? st
            : check(lt.cublasLtMatmulAlgoGetHeuristic(lt.handle, p->op, p->a, p->b, p->c, p->c,
                                                      wish, MAX_PROPOSALS, found, n),
                    "cuBLASLt's choice of algorithms");
    lt.cublasLtMatmulPreferenceDestroy(wish);
    return st;
}

static tess_status choose(product *p, const tess_matmul_args *x, void *stream)
{
    cublasLtMatmulHeuristicResult_t found[MAX_PROPOSALS];
    int n = 0;
    timing t = {0};
    const size_t n_bytes = (size_t)(p->spec.m * p->spec.n) * tess_dtype_bytes(p->spec.out);
    TESS_TRY(propose(p, found, &n));
    tess_status st = check_cuda(cudaMalloc(&t.to, n_bytes), "timing products");
    st = st ? st : check_cuda(cudaEventCreate(&t.begin), "timing products");
    st = st ? st : check_cuda(cudaEventCreate(&t.end), "timing products");
    st = st ? st : choose_fastest(p, found, n, x, &t, stream);
    if (t.begin) {
        cudaEventDestroy(t.begin);
    }
    if (t.end) {
        cudaEventDestroy(t.end);
    }
    cudaFree(t.to);
    return st;
}

/* ---- running ----------------------------------------------------------------------------------
 */

/* With the bias where the epilogue reads it, which is part of the descriptor. */
static tess_status point(product *p, const tess_matmul_args *x)
{
    return p->spec.bias ? set_op(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &x->bias, sizeof x->bias)
                        : TESS_OK;
}

static tess_status add_product(const tess_matmul_spec *spec, const tess_matmul_args *x,
                               void *stream, product **out)
{
    TESS_TRY(tess_grow(&products, &cap_products, n_products + 1, sizeof *products));
    product *p = &products[n_products];
    *p = (product){.spec = *spec};
    tess_status st = describe(p);
    st = st ? st : point(p, x);
    st = st ? st : choose(p, x, stream);
    if (st) {
        free_product(p);
        return st;
    }
    n_products++;
    *out = p;
    return TESS_OK;
}

static bool same(const tess_matmul_spec *a, const tess_matmul_spec *b)
{
    return a->m == b->m && a->n == b->n && a->k == b->k && a->in == b->in && a->out == b->out &&
           a->a_trans == b->a_trans && a->b_trans == b->b_trans && a->bias == b->bias &&
           a->relu == b->relu && a->residual == b->residual && a->accumulate == b->accumulate;
}

tess_status tess__cuda_matmul(const tess_matmul_spec *spec, const tess_matmul_args *x, void *stream)
{
    product *p = NULL;
    if (!lt.workspace) {
        TESS_TRY(open_library());
    }
    for (size_t i = 0; i < n_products && !p; i++) {
        p = same(&products[i].spec, spec) ? &products[i] : NULL;
    }
    if (!p) {
        TESS_TRY(add_product(spec, x, stream, &p));
    }
    TESS_TRY(point(p, x));
    return check(multiply(p, &p->algo, x, x->c, stream), "matrix product on the card");
}
