/* SPDX-License-Identifier: Apache-2.0 */
/* cuBLASLt on the emulated card: products by plain loops, and a library that is as strict as its
 * documentation, so that what the real one may refuse is refused here.
 *
 * It is this program itself that libcublasLt.so.13 names; emulate_library says what it can do. */
#include <cublasLt.h>
#include <dlfcn.h>

#include <cstdlib>

#include "emulate.h"
#include "emulate_control.h"

extern "C" {
#include "tessera/base.h"
#include "tessera/tensor.h"
}

emulate_library emulate_lt = {};

namespace
{

constexpr uint64_t SEAL = 0x7e55e2a1;
constexpr int N_ATTRIBUTES = 40;

struct layout {
    cudaDataType type;
    int64_t rows, cols, stride;
};

struct operation {
    uint64_t value[N_ATTRIBUTES];
    bool set[N_ATTRIBUTES];
};

struct wish_list {
    uint64_t value[16];
};

struct problem {
    operation op;
    layout a, b, d;
};

template <class T, class U> T *as(U *opaque)
{
    return reinterpret_cast<T *>(opaque);
}

/* What an attribute's value is long, 0: not known here. */
size_t attribute_bytes(int what)
{
    switch (what) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
    case CUBLASLT_MATMUL_DESC_TRANSB:
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        return 4;
    case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER:
    case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER:
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
        return 8;
    default:
        return 0;
    }
}

/* ---- what is supported ------------------------------------------------------------------------
 */

bool is_trans(const operation &op, int which)
{
    return op.value[which] == CUBLAS_OP_T;
}

struct extent {
    int64_t m, n, k; /* D is m by n */
};

extent extent_of(const problem &p)
{
    const bool ta = is_trans(p.op, CUBLASLT_MATMUL_DESC_TRANSA);
    return {p.d.rows, p.d.cols, ta ? p.a.rows : p.a.cols};
}

bool shapes_agree(const problem &p)
{
    const bool ta = is_trans(p.op, CUBLASLT_MATMUL_DESC_TRANSA);
    const bool tb = is_trans(p.op, CUBLASLT_MATMUL_DESC_TRANSB);
    const extent e = extent_of(p);
    return (ta ? p.a.cols : p.a.rows) == e.m && (tb ? p.b.cols : p.b.rows) == e.k &&
           (tb ? p.b.rows : p.b.cols) == e.n && p.a.stride >= p.a.rows && p.b.stride >= p.b.rows &&
           p.d.stride >= p.d.rows;
}

uint64_t value_of(const operation &op, int what, uint64_t otherwise)
{
    return op.set[what] ? op.value[what] : otherwise;
}

uint64_t epilogue_of(const operation &op)
{
    return value_of(op, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_DEFAULT);
}

uint64_t bias_type_of(const problem &p)
{
    return value_of(p.op, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<uint64_t>(p.d.type));
}

bool has_bias(uint64_t epilogue)
{
    return epilogue & CUBLASLT_EPILOGUE_BIAS;
}

bool is_gelu(uint64_t epilogue)
{
    return epilogue & CUBLASLT_EPILOGUE_GELU || epilogue == CUBLASLT_EPILOGUE_DGELU;
}

bool has_aux(uint64_t epilogue)
{
    return epilogue & 128;
}

bool bias_agrees(const problem &p)
{
    const uint64_t type = bias_type_of(p);
    return p.op.value[CUBLASLT_MATMUL_DESC_BIAS_POINTER] != 0 &&
           (type == p.d.type || (emulate_lt.wide_bias && type == CUDA_R_32F));
}

bool aux_agrees(const problem &p)
{
    const uint64_t stride = p.op.value[CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD];
    const uint64_t pointer = p.op.value[CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER];
    return pointer != 0 && pointer % 16 == 0 && stride % 8 == 0 &&
           stride >= static_cast<uint64_t>(p.d.rows);
}

bool is_fp8(uint64_t type)
{
    return type == CUDA_R_8F_E4M3 || type == CUDA_R_8F_E5M2;
}

/* The documentation's table of types for FP8 before Blackwell: the first operand transposed, the
 * second not, not both E5M2, sides in packs of 16 bytes, bias of bf16 and none beside f32. */
bool fp8_agrees(const problem &p)
{
    const uint64_t epilogue = epilogue_of(p.op);
    const extent e = extent_of(p);
    const bool plain = epilogue == CUBLASLT_EPILOGUE_DEFAULT ||
                       (epilogue == CUBLASLT_EPILOGUE_BIAS && p.d.type == CUDA_R_16BF &&
                        bias_type_of(p) == CUDA_R_16BF);
    return !emulate_lt.no_fp8 && is_fp8(p.a.type) && is_fp8(p.b.type) &&
           !(p.a.type == CUDA_R_8F_E5M2 && p.b.type == CUDA_R_8F_E5M2) && plain &&
           is_trans(p.op, CUBLASLT_MATMUL_DESC_TRANSA) &&
           !is_trans(p.op, CUBLASLT_MATMUL_DESC_TRANSB) && e.k % 16 == 0 && e.m % 16 == 0 &&
           p.a.stride % 16 == 0 && p.b.stride % 16 == 0 && p.d.stride % 16 == 0 &&
           (p.d.type == CUDA_R_16BF || p.d.type == CUDA_R_32F);
}

bool has_scale(const operation &op)
{
    return op.value[CUBLASLT_MATMUL_DESC_A_SCALE_POINTER] ||
           op.value[CUBLASLT_MATMUL_DESC_B_SCALE_POINTER];
}

cublasStatus_t check(const problem &p)
{
    const uint64_t epilogue = epilogue_of(p.op);
    const bool bias = has_bias(epilogue) || epilogue == CUBLASLT_EPILOGUE_BGRADB;
    const bool fp8 = is_fp8(p.a.type) || is_fp8(p.b.type);
    const bool types = fp8 ? fp8_agrees(p)
                           : p.a.type == p.b.type && !has_scale(p.op) &&
                                 (p.d.type == p.a.type || p.d.type == CUDA_R_32F);
    if (!shapes_agree(p)) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    const bool refused =
        (bias && (emulate_lt.no_bias || !bias_agrees(p))) ||
        (has_aux(epilogue) && !aux_agrees(p)) ||
        (is_gelu(epilogue) && p.d.type != CUDA_R_16BF && !emulate_lt.wide_gelu) ||
        ((is_gelu(epilogue) || epilogue == CUBLASLT_EPILOGUE_BGRADB) && emulate_lt.plain);
    return types && !refused ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

/* ---- algorithms -------------------------------------------------------------------------------
 */

/* What an algorithm is for; pointers are no part of it. */
uint64_t fingerprint(const problem &p)
{
    const extent e = extent_of(p);
    const uint64_t words[] = {static_cast<uint64_t>(e.m),
                              static_cast<uint64_t>(e.n),
                              static_cast<uint64_t>(e.k),
                              epilogue_of(p.op),
                              p.op.value[CUBLASLT_MATMUL_DESC_TRANSA],
                              p.op.value[CUBLASLT_MATMUL_DESC_TRANSB],
                              static_cast<uint64_t>(p.a.type),
                              static_cast<uint64_t>(p.b.type),
                              static_cast<uint64_t>(p.d.type)};
    return tess_hash64(words, sizeof words, SEAL);
}

cublasLtMatmulAlgo_t algorithm(const problem &p, uint64_t which)
{
    cublasLtMatmulAlgo_t algo = {};
    algo.data[0] = SEAL;
    algo.data[1] = fingerprint(p);
    algo.data[2] = which;
    algo.data[7] = tess_hash64(algo.data, 3 * sizeof algo.data[0], SEAL);
    return algo;
}

bool is_algorithm(const problem &p, const cublasLtMatmulAlgo_t &algo)
{
    const cublasLtMatmulAlgo_t right = algorithm(p, algo.data[2]);
    return memcmp(&right, &algo, sizeof algo) == 0 && algo.data[2] < EMULATE_ALGORITHMS;
}

problem gather_problem(cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                       cublasLtMatrixLayout_t d)
{
    return {*as<operation>(op), *as<layout>(a), *as<layout>(b), *as<layout>(d)};
}

/* ---- the product ------------------------------------------------------------------------------
 */

double at(const void *x, uint64_t type, int64_t i)
{
    if (is_fp8(type)) {
        return static_cast<double>(
            tess_f32_from_f8(type == CUDA_R_8F_E4M3 ? TESS_F8E4M3 : TESS_F8E5M2,
                             static_cast<const uint8_t *>(x)[i]));
    }
    return type == CUDA_R_16BF
               ? static_cast<double>(tess_f32_from_bf16(static_cast<const uint16_t *>(x)[i]))
               : static_cast<double>(static_cast<const float *>(x)[i]);
}

void put(void *x, uint64_t type, int64_t i, double v)
{
    if (type == CUDA_R_16BF) {
        static_cast<uint16_t *>(x)[i] = tess_bf16_from_f32(static_cast<float>(v));
    } else {
        static_cast<float *>(x)[i] = static_cast<float>(v);
    }
}

double gelu(double x)
{
    return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

double gelu_slope(double x)
{
    const double t = tanh(0.7978845608028654 * (x + 0.044715 * x * x * x));
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * 0.7978845608028654 * (1 + 3 * 0.044715 * x * x);
}

struct work {
    problem p;
    const void *a, *b, *c;
    void *d;
    float alpha, beta;
};

/* A scale, read when the product runs. */
double scale(const work &w, int which)
{
    const float *at = reinterpret_cast<const float *>(w.p.op.value[which]);
    return at ? static_cast<double>(*at) : 1;
}

double element(const work &w, int64_t i, int64_t j)
{
    const bool ta = is_trans(w.p.op, CUBLASLT_MATMUL_DESC_TRANSA);
    const bool tb = is_trans(w.p.op, CUBLASLT_MATMUL_DESC_TRANSB);
    const int64_t k = extent_of(w.p).k, lda = w.p.a.stride, ldb = w.p.b.stride;
    double sum = 0;
    for (int64_t l = 0; l < k; l++) {
        sum += at(w.a, w.p.a.type, ta ? l + i * lda : i + l * lda) *
               at(w.b, w.p.b.type, tb ? j + l * ldb : l + j * ldb);
    }
    return static_cast<double>(w.alpha) * scale(w, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER) *
           scale(w, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER) * sum;
}

double finish(const work &w, int64_t i, int64_t j, double v)
{
    const operation &op = w.p.op;
    const uint64_t epilogue = epilogue_of(op), type = w.p.d.type;
    void *aux = reinterpret_cast<void *>(op.value[CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER]);
    const int64_t in_aux =
        i + j * static_cast<int64_t>(op.value[CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD]);
    if (w.beta != 0) {
        v += static_cast<double>(w.beta) * at(w.c, type, i + j * w.p.d.stride);
    }
    if (has_bias(epilogue)) {
        v += at(reinterpret_cast<void *>(op.value[CUBLASLT_MATMUL_DESC_BIAS_POINTER]),
                bias_type_of(w.p), i);
    }
    if (epilogue == CUBLASLT_EPILOGUE_DGELU) {
        return v * gelu_slope(at(aux, type, in_aux));
    }
    if (has_aux(epilogue)) {
        put(aux, type, in_aux, v);
    }
    return epilogue & CUBLASLT_EPILOGUE_GELU            ? gelu(v)
           : epilogue & CUBLASLT_EPILOGUE_RELU && v < 0 ? 0
                                                        : v;
}

/* Sums over k of the second operand's columns. */
void sum_second(const work &w)
{
    const bool tb = is_trans(w.p.op, CUBLASLT_MATMUL_DESC_TRANSB);
    const extent e = extent_of(w.p);
    for (int64_t j = 0; j < e.n; j++) {
        double sum = 0;
        for (int64_t l = 0; l < e.k; l++) {
            sum += at(w.b, w.p.b.type, tb ? j + l * w.p.b.stride : l + j * w.p.b.stride);
        }
        put(reinterpret_cast<void *>(w.p.op.value[CUBLASLT_MATMUL_DESC_BIAS_POINTER]), w.p.d.type,
            j, sum);
    }
}

void compute(const work &w)
{
    const extent e = extent_of(w.p);
    for (int64_t j = 0; j < e.n; j++) {
        for (int64_t i = 0; i < e.m; i++) {
            put(w.d, w.p.d.type, i + j * w.p.d.stride, finish(w, i, j, element(w, i, j)));
        }
    }
    if (epilogue_of(w.p.op) == CUBLASLT_EPILOGUE_BGRADB) {
        sum_second(w);
    }
}

} // namespace

/* A test that wants its choices on disk says where. */
__attribute__((constructor)) static void keep_nothing()
{
    setenv("TESSERA_CACHE", "", 0);
}

/* ---- the library's functions ------------------------------------------------------------------
 */

extern "C" void *__real_dlopen(const char *name, int flags);
extern "C" const char *emulate_cudnn_file(void);
extern "C" void *__wrap_dlopen(const char *name, int flags)
{
    if (name && strcmp(name, "libcudnn.so.9") == 0) {
        return __real_dlopen(emulate_cudnn_file(), flags);
    }
    const bool ours = name && strcmp(name, "libcublasLt.so.13") == 0;
    return __real_dlopen(!ours                ? name
                         : emulate_lt.missing ? "libcublasLt.so.none"
                                              : nullptr,
                         flags);
}

size_t cublasLtGetVersion(void)
{
    return 130100;
}

const char *cublasLtGetStatusString(cublasStatus_t s)
{
    return s == CUBLAS_STATUS_SUCCESS ? "success" : "an emulated refusal";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    *handle = reinterpret_cast<cublasLtHandle_t>(&emulate_lt);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *op, cublasComputeType_t compute_type,
                                        cudaDataType_t scale)
{
    *op = reinterpret_cast<cublasLtMatmulDesc_t>(calloc(1, sizeof(operation)));
    return compute_type == CUBLAS_COMPUTE_32F && scale == CUDA_R_32F ? CUBLAS_STATUS_SUCCESS
                                                                     : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t op)
{
    free(op);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t op,
                                              cublasLtMatmulDescAttributes_t what,
                                              const void *value, size_t n_bytes)
{
    operation *o = as<operation>(op);
    if (n_bytes == 0 || n_bytes != attribute_bytes(what)) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    o->value[what] = 0;
    memcpy(&o->value[what], value, n_bytes);
    o->set[what] = true;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *wish)
{
    *wish = reinterpret_cast<cublasLtMatmulPreference_t>(calloc(1, sizeof(wish_list)));
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t wish)
{
    free(wish);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t wish,
                                                    cublasLtMatmulPreferenceAttributes_t what,
                                                    const void *value, size_t n_bytes)
{
    const size_t expected = what == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES ? 8 : 4;
    if (n_bytes != expected) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    memcpy(&as<wish_list>(wish)->value[what], value, n_bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t stride)
{
    layout *l = static_cast<layout *>(calloc(1, sizeof(layout)));
    *l = {type, static_cast<int64_t>(rows), static_cast<int64_t>(cols), stride};
    *out = reinterpret_cast<cublasLtMatrixLayout_t>(l);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l)
{
    free(l);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t op,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t wish, int most,
                                              cublasLtMatmulHeuristicResult_t found[], int *n)
{
    const problem p = gather_problem(op, a, b, d);
    const uint64_t *w = as<wish_list>(wish)->value;
    const int n_algorithms = emulate_lt.n_algorithms ? emulate_lt.n_algorithms : 1;
    const cublasStatus_t s = check(p);
    emulate_lt.n_heuristics++;
    /* Partial sums of the result's type, and operands at multiples of 256, were not promised. */
    if (w[CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK] != CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE ||
        w[CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES] > 16 ||
        w[CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES] > 16) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    for (*n = 0; s == CUBLAS_STATUS_SUCCESS && *n < n_algorithms && *n < most; ++*n) {
        found[*n] = {};
        found[*n].algo = algorithm(p, static_cast<uint64_t>(*n));
        found[*n].state =
            emulate_lt.ms[*n] < 0 ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
    }
    return s;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t op,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algo,
                                       cublasLtMatmulHeuristicResult_t *result)
{
    const problem p = gather_problem(op, a, b, d);
    *result = {};
    result->workspaceSize = emulate_lt.workspace_bytes;
    return !is_algorithm(p, *algo) ? CUBLAS_STATUS_INVALID_VALUE : check(p);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t op, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t, void *d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t *algo, void *, size_t, cudaStream_t stream)
{
    const problem p = gather_problem(op, a_layout, b_layout, d_layout);
    const work w = {
        p, a, b, c, d, *static_cast<const float *>(alpha), *static_cast<const float *>(beta)};
    cublasStatus_t s = is_algorithm(p, *algo) ? check(p) : CUBLAS_STATUS_INVALID_VALUE;
    const bool aligned = !((reinterpret_cast<uintptr_t>(a) | reinterpret_cast<uintptr_t>(b) |
                            reinterpret_cast<uintptr_t>(d)) %
                           16);
    if (is_fp8(p.a.type) && !aligned) {
        s = CUBLAS_STATUS_NOT_SUPPORTED;
    }
    if (s == CUBLAS_STATUS_SUCCESS) {
        const uint64_t e = epilogue_of(p.op);
        const bool rare = is_gelu(e) || e == CUBLASLT_EPILOGUE_BGRADB;
        emulate_lt.n_products++;
        emulate_lt.last = static_cast<int>(algo->data[2]);
        emulate_lt.last_epilogue = static_cast<int>(e);
        emulate::spend(static_cast<double>(emulate_lt.ms[algo->data[2]]) +
                       (rare ? static_cast<double>(emulate_lt.rare_ms) : 0));
        emulate::run({"matmul", dim3(), dim3(), 0, [w] { compute(w); }}, stream);
    }
    return s;
}
