/* SPDX-License-Identifier: Apache-2.0 */
/* Products by cuBLASLt: descriptors, and our own kernels where the library's epilogues do not do.
 *
 * A product is set up once for its specification and kept for the life of the process.
 *
 * cuBLASLt stores columns; a row-major C (m,n) is a C^T (n,m) of columns, so every product is asked
 * for as C^T = B^T A^T, and a bias over our columns is one over its rows, which its epilogues add.
 * Sums over our A's rows are then those of its second operand (BGRADB). */
#include "tensor/cuda_matmul.h"

#include "tensor/cuda_lt.h"
#include "tensor/ops/unary.h"

/* ---- descriptors ------------------------------------------------------------------------------
 */

static cudaDataType_t type_of(tess_dtype t)
{
    return t == TESS_F8E4M3   ? CUDA_R_8F_E4M3
           : t == TESS_F8E5M2 ? CUDA_R_8F_E5M2
           : t == TESS_BF16   ? CUDA_R_16BF
                              : CUDA_R_32F;
}

bool tess__lt_way_exists(const tess_cuda_product *spec, tess_lt_way way)
{
    const tess_matmul_spec *s = &spec->matmul;
    const bool narrow = s->out == TESS_BF16, sums = spec->epilogue == TESS_EPILOGUE_SUMS;
    /* The library wants rows of z in whole packs of 16 bytes. */
    const bool fusible = spec->epilogue != TESS_EPILOGUE_NONE &&
                         (sums ? s->in == TESS_BF16 : narrow && s->n % 8 == 0);
    const bool some_bias =
        s->bias ? way.bias != TESS_LT_BIAS_BF16 || narrow : way.bias == TESS_LT_BIAS_F32;
    return some_bias && (!way.fused || (fusible && way.bias != TESS_LT_BIAS_OWN));
}

/* Whether the library adds the bias. */
static bool lends_bias(const tess_lt_product *p)
{
    return p->spec.matmul.bias && p->way.bias != TESS_LT_BIAS_OWN;
}

static cublasLtEpilogue_t fused_epilogue(const tess_cuda_product *spec)
{
    switch (spec->epilogue) {
    case TESS_EPILOGUE_GELU:
        return spec->matmul.bias
                   ? (spec->aux ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_BIAS)
                   : (spec->aux ? CUBLASLT_EPILOGUE_GELU_AUX : CUBLASLT_EPILOGUE_GELU);
    case TESS_EPILOGUE_GELU_GRAD:
        return CUBLASLT_EPILOGUE_DGELU;
    case TESS_EPILOGUE_SUMS:
        return CUBLASLT_EPILOGUE_BGRADB;
    case TESS_EPILOGUE_NONE:
        break;
    }
    return CUBLASLT_EPILOGUE_DEFAULT;
}

static cublasLtEpilogue_t epilogue_of(const tess_lt_product *p)
{
    const bool relu = p->spec.matmul.relu && p->way.bias != TESS_LT_BIAS_OWN;
    if (p->way.fused) {
        return fused_epilogue(&p->spec);
    }
    return lends_bias(p) ? (relu ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_BIAS)
           : relu        ? CUBLASLT_EPILOGUE_RELU
                         : CUBLASLT_EPILOGUE_DEFAULT;
}

static tess_status set_op(tess_lt_product *p, cublasLtMatmulDescAttributes_t what,
                          const void *value, size_t n_bytes)
{
    return tess__lt_check(tess__lt.cublasLtMatmulDescSetAttribute(p->op, what, value, n_bytes),
                          "cuBLASLt");
}

/* Where the epilogue reads and writes is part of the descriptor. */
static tess_status point(tess_lt_product *p, const tess_cuda_args *x)
{
    const bool sums = p->way.fused && p->spec.epilogue == TESS_EPILOGUE_SUMS;
    const void *bias = sums                               ? x->sums
                       : p->way.bias == TESS_LT_BIAS_BF16 ? p->narrow_bias
                                                          : x->matmul.bias;
    if (p->spec.matmul.in == TESS_F8E4M3) {
        TESS_TRY(set_op(p, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &x->b_scale, sizeof x->b_scale));
        TESS_TRY(set_op(p, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &x->a_scale, sizeof x->a_scale));
    }
    if (sums || lends_bias(p)) {
        TESS_TRY(set_op(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
    }
    return p->way.fused && x->aux
               ? set_op(p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &x->aux, sizeof x->aux)
               : TESS_OK;
}

static tess_status describe_epilogue(tess_lt_product *p, const tess_cuda_args *x)
{
    const cublasLtEpilogue_t epilogue = epilogue_of(p);
    const int32_t bias_type =
        p->way.bias == TESS_LT_BIAS_BF16 && lends_bias(p) ? CUDA_R_16BF : CUDA_R_32F;
    const int64_t aux_stride = p->spec.matmul.n;
    TESS_TRY(set_op(p, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
    if (lends_bias(p) || epilogue == CUBLASLT_EPILOGUE_BGRADB) {
        TESS_TRY(set_op(p, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias_type, sizeof bias_type));
    }
    if (p->way.fused && x->aux) {
        TESS_TRY(set_op(p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &aux_stride, sizeof aux_stride));
    }
    if (lends_bias(p) && p->way.bias == TESS_LT_BIAS_BF16) {
        TESS_TRY(tess__lt_check_cuda(
            cudaMalloc(&p->narrow_bias, (size_t)p->spec.matmul.n * sizeof(uint16_t)),
            "a product's bias"));
    }
    return point(p, x);
}

/* A matrix of `rows` by `cols` that is stored by columns, or transposed. */
static tess_status lay_out(cublasLtMatrixLayout_t *out, tess_dtype t, int64_t rows, int64_t cols,
                           bool trans)
{
    return tess__lt_check(
        tess__lt.cublasLtMatrixLayoutCreate(out, type_of(t), (uint64_t)(trans ? cols : rows),
                                            (uint64_t)(trans ? rows : cols), trans ? cols : rows),
        "cuBLASLt");
}

tess_status tess__lt_describe(tess_lt_product *p, const tess_cuda_args *x)
{
    const tess_matmul_spec *s = &p->spec.matmul;
    const cublasOperation_t ours_b = s->b_trans ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t ours_a = s->a_trans ? CUBLAS_OP_T : CUBLAS_OP_N;
    TESS_TRY(tess__lt_check(
        tess__lt.cublasLtMatmulDescCreate(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cuBLASLt"));
    TESS_TRY(set_op(p, CUBLASLT_MATMUL_DESC_TRANSA, &ours_b, sizeof ours_b));
    TESS_TRY(set_op(p, CUBLASLT_MATMUL_DESC_TRANSB, &ours_a, sizeof ours_a));
    TESS_TRY(describe_epilogue(p, x));
    TESS_TRY(lay_out(&p->a, s->in, s->n, s->k, s->b_trans));
    TESS_TRY(lay_out(&p->b, p->spec.a_e5m2 ? TESS_F8E5M2 : s->in, s->k, s->m, s->a_trans));
    return lay_out(&p->c, s->out, s->n, s->m, false);
}

void tess__lt_product_free(tess_lt_product *p)
{
    if (p->op) {
        tess__lt.cublasLtMatmulDescDestroy(p->op);
    }
    cublasLtMatrixLayout_t layouts[] = {p->a, p->b, p->c};
    for (int64_t i = 0; i < TESS_COUNT(layouts); i++) {
        if (layouts[i]) {
            tess__lt.cublasLtMatrixLayoutDestroy(layouts[i]);
        }
    }
    cudaFree(p->narrow_bias); /* CUDA's */
    p->op = NULL;
    p->a = p->b = p->c = NULL;
    p->narrow_bias = NULL;
}

/* ---- our own kernels, as operators ------------------------------------------------------------
 */

static tess_operand matrix(const tess_lt_product *p, void *data)
{
    const tess_matmul_spec *s = &p->spec.matmul;
    return (tess_operand){data, s->out, TESS_SHAPE_OF(s->m, 1, s->n)};
}

static tess_operand vector(const tess_lt_product *p, tess_dtype t, const void *data)
{
    return (tess_operand){(void *)(uintptr_t)data, t, TESS_SHAPE_OF(1, p->spec.matmul.n)};
}

static tess_status narrow_bias(const tess_lt_product *p, const tess_cuda_args *x, void *stream)
{
    const tess_operand from = vector(p, TESS_F32, x->matmul.bias);
    const tess_operand to = vector(p, TESS_BF16, p->narrow_bias);
    return tess__cuda_cast(&(tess_exec){.in = &from, .out = &to, .n_in = 1, .stream = stream});
}

static tess_status add_bias(const tess_lt_product *p, const tess_cuda_args *x, void *to,
                            void *stream)
{
    const tess_operand in[] = {matrix(p, to), vector(p, TESS_F32, x->matmul.bias)};
    const unary_attrs relu = {.kind = TESS_RELU};
    tess_exec e = {.in = in, .out = in, .n_in = 2, .attrs = &relu, .stream = stream};
    TESS_TRY(tess__cuda_add_rows(&e));
    return p->spec.matmul.relu ? tess__cuda_unary(&e) : TESS_OK;
}

static tess_status activate(const tess_lt_product *p, const tess_cuda_args *x, void *to,
                            void *stream)
{
    const bool backward = p->spec.epilogue == TESS_EPILOGUE_GELU_GRAD;
    const tess_operand c = matrix(p, to), aux = matrix(p, x->aux ? x->aux : to);
    const tess_operand in[] = {aux, c};
    const unary_attrs gelu = {.kind = TESS_GELU_TANH};
    const tess_exec e = {.in = in, .out = &c, .n_in = 2, .attrs = &gelu, .stream = stream};
    return backward ? tess__cuda_unary_grad(&e) : tess__cuda_unary(&e);
}

/* The workspace holds slices' sums, before the product has it. */
static tess_status sum_rows(const tess_lt_product *p, const tess_cuda_args *x, void *stream)
{
    const tess_matmul_spec *s = &p->spec.matmul;
    if (tess__cuda_column_sum_scratch(s->k, s->m) > TESS_LT_WORKSPACE_BYTES) {
        return TESS_FAIL(TESS_UNSUPPORTED, "sums of %lld columns", (long long)s->m);
    }
    tess__cuda_column_sum(x->sums, s->in, x->matmul.a, s->k, s->m, s->m, tess__lt.workspace,
                          stream);
    return tess__cuda_launched("sums of rows");
}

/* ---- running ----------------------------------------------------------------------------------
 */

static tess_status multiply(const tess_lt_product *p, const cublasLtMatmulAlgo_t *algo,
                            const tess_cuda_args *x, void *to, void *stream)
{
    const float one = 1, zero = 0;
    const tess_matmul_spec *s = &p->spec.matmul;
    const bool adds = s->residual || s->accumulate;
    const void *c = s->accumulate ? x->matmul.c : s->residual ? x->matmul.residual : to;
    return tess__lt_check(tess__lt.cublasLtMatmul(tess__lt.handle, p->op, &one, x->matmul.b, p->a,
                                                  x->matmul.a, p->b, adds ? &one : &zero, c, p->c,
                                                  to, p->c, algo, tess__lt.workspace,
                                                  TESS_LT_WORKSPACE_BYTES, stream),
                          "matrix product on the card");
}

tess_status tess__lt_run(tess_lt_product *p, const cublasLtMatmulAlgo_t *algo,
                         const tess_cuda_args *x, void *to, void *stream)
{
    const tess_epilogue own = p->way.fused ? TESS_EPILOGUE_NONE : p->spec.epilogue;
    void *z = own == TESS_EPILOGUE_GELU && x->aux ? x->aux : to;
    TESS_TRY(point(p, x));
    if (p->narrow_bias) {
        TESS_TRY(narrow_bias(p, x, stream));
    }
    if (own == TESS_EPILOGUE_SUMS) {
        TESS_TRY(sum_rows(p, x, stream));
    }
    TESS_TRY(multiply(p, algo, x, z, stream));
    if (p->spec.matmul.bias && p->way.bias == TESS_LT_BIAS_OWN) {
        TESS_TRY(add_bias(p, x, z, stream));
    }
    return own == TESS_EPILOGUE_GELU || own == TESS_EPILOGUE_GELU_GRAD ? activate(p, x, to, stream)
                                                                       : TESS_OK;
}

/* ---- all products of the process --------------------------------------------------------------
 */

static tess_lt_product *products;
static size_t n_products, cap_products;

static bool same(const tess_cuda_product *p, const tess_cuda_product *q)
{
    const tess_matmul_spec *a = &p->matmul, *b = &q->matmul;
    return a->m == b->m && a->n == b->n && a->k == b->k && a->in == b->in && a->out == b->out &&
           a->a_trans == b->a_trans && a->b_trans == b->b_trans && a->bias == b->bias &&
           a->relu == b->relu && a->residual == b->residual && a->accumulate == b->accumulate &&
           p->epilogue == q->epilogue && p->aux == q->aux && p->a_e5m2 == q->a_e5m2;
}

tess_status tess__cuda_product(const tess_cuda_product *spec, const tess_cuda_args *x, void *stream)
{
    TESS_TRY(tess__lt_open());
    for (size_t i = 0; i < n_products; i++) {
        if (same(&products[i].spec, spec)) {
            return tess__lt_run(&products[i], &products[i].algo, x, x->matmul.c, stream);
        }
    }
    TESS_TRY(tess_grow(&products, &cap_products, n_products + 1, sizeof *products));
    tess_lt_product p = {.spec = *spec};
    tess_status st = tess__lt_choose(&p, x, stream);
    st = st ? st : tess__lt_run(&p, &p.algo, x, x->matmul.c, stream);
    if (st) {
        tess__lt_product_free(&p);
        return st;
    }
    products[n_products++] = p;
    return TESS_OK;
}

tess_status tess__cuda_matmul(const tess_matmul_spec *spec, const tess_matmul_args *args,
                              void *stream)
{
    const tess_cuda_product p = {.matmul = *spec};
    const tess_cuda_args x = {.matmul = *args};
    return tess__cuda_product(&p, &x, stream);
}
