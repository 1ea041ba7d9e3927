/* SPDX-License-Identifier: Apache-2.0 */
/* linear_fp8: y = s_x s_w Q(x / s_x) Q(w / s_w)^T + bias + residual, Q rounding to E4M3, after
 * Micikevicius et al. 2022, "FP8 formats for deep learning", with current scaling (fp8.h).
 *
 *   x (...,K) bf16, w (M,K) bf16, bias (M) f32 or absent, residual (...,M) bf16 or absent
 *   -> y (...,M) bf16, scales (2) f32 of x and of w.  f32 accumulation, y rounded once.
 *   Gradient, as of a product without Q (linear_fp8_grad): with e = s_e Q5(dy / s_e), Q5 rounding
 * to E5M2, dx = e Q(w) bf16 and dw = e^T Q(x) f32, each with its scales; dbias: bias_grad.
 *   NaN and infinity in an operand leave no finite result behind.
 *   No aliasing.  Deterministic.  2 N M K FLOPs, and three passes over each operand, forwards and
 * backwards.
 *
 * The processor has no FP8 products: it multiplies the rounded numbers, which bf16 holds exactly,
 * so this is for tests and slower than bf16. */
#include "tensor/ops/linear_fp8.h"

#include "tensor/adapter.h"
#include "tensor/fp8.h"
#include "tensor/graph.h"
#include "tensor/parallel.h"
#include "tensor/products.h"

static const tess_op grad_op;

void tess_graph_fp8(tess_graph *g, int64_t width)
{
    g->fp8_width = width;
}

/* Products of cards take sides in multiples of 16 bytes. */
static bool fits(const tess_graph *g, int64_t side)
{
    return side >= g->fp8_width && side % 16 == 0;
}

bool tess__linear_is_fp8(const tess_graph *g, tess_value x, tess_value w)
{
    if (g->fp8_width <= 0 || g->in_backward || g->status || !strstr(g->scope, "resblocks.")) {
        return false;
    }
    const tess_shape s = tess_value_shape(g, w);
    return tess_value_dtype(g, x) == TESS_BF16 && s.rank == 2 && fits(g, s.dim[0]) &&
           fits(g, s.dim[1]);
}

tess_value tess__linear_fp8(tess_graph *g, tess_value x, tess_value w, tess_value bias,
                            tess_value residual)
{
    return TESS_NODE(g, &tess__op_linear_fp8, NULL, x, w, bias, residual);
}

static tess_status infer(tess_infer *c)
{
    const tess_operand *x = &c->in[0], *w = &c->in[1];
    TESS_TRY(tess__expect("w", w, TESS_BF16, 2));
    if (x->dtype != TESS_BF16 || x->shape.rank < 1 || tess__last(&x->shape) != w->shape.dim[1] ||
        w->shape.dim[0] % 16 || w->shape.dim[1] % 16) {
        return TESS_FAIL(TESS_INVALID,
                         "linear_fp8: expected bf16 with sides in multiples of 16, found w of %lld "
                         "by %lld and rows of %lld",
                         (long long)w->shape.dim[0], (long long)w->shape.dim[1],
                         (long long)tess__last(&x->shape));
    }
    tess_operand y = *x;
    y.shape.dim[y.shape.rank - 1] = w->shape.dim[0];
    if (c->in[2].shape.rank >= 0) {
        const tess_operand bias = {.dtype = TESS_F32, .shape = TESS_SHAPE_OF(w->shape.dim[0])};
        TESS_TRY(tess__expect_like("bias", &c->in[2], &bias));
    }
    if (c->in[3].shape.rank >= 0) {
        TESS_TRY(tess__expect_like("residual", &c->in[3], &y));
    }
    c->out[0] = y;
    c->out[1] = (tess_operand){.dtype = TESS_F32, .shape = TESS_SHAPE_OF(2)};
    return TESS_OK;
}

static void vjp(tess_vjp *c)
{
    const linear_fp8_grad_attrs a = {.dx = c->need[0], .dw = c->need[1]};
    if (a.dx || a.dw) {
        const tess_value w = a.dw ? c->in[1] : tess__cast_again(c->g, c->in[1]);
        const tess_value dx = TESS_NODE(c->g, &grad_op, &a, c->in[0], w, c->dout[0], c->out[1]);
        c->din[0] = a.dx ? dx : 0;
        c->din[1] = a.dw && dx ? dx + 1 : 0;
    }
    c->din[2] = c->need[2] ? tess__bias_grad(c->g, c->dout[0]) : 0;
    c->din[3] = c->dout[0];
}

/* ---- rounding ------------------------------------------------------------------------------ */

/* The largest absolute value but for NaN, which stays in the codes. */
static float amax_of(const void *x, tess_dtype t, int64_t n)
{
    float most = 0;
#pragma omp parallel for schedule(static) reduction(max : most)
    for (int64_t i = 0; i < n; i++) {
        const float v = fabsf(t == TESS_F32 ? ((const float *)x)[i]
                                            : tess_f32_from_bf16(((const uint16_t *)x)[i]));
        most = v > most ? v : most;
    }
    return most;
}

static float scale_of(const tess_operand *x, tess_dtype to)
{
    return tess__f8_scale(amax_of(x->data, x->dtype, tess_shape_count(&x->shape)),
                          to == TESS_F8E4M3 ? 3 : 2);
}

static float rounded(float x, float scale, tess_dtype to)
{
    return tess_f32_from_f8(to, tess_f8_from_f32(to, x * (1 / scale)));
}

/* The codes' values, which bf16 has all of; returns what follows them. */
static uint16_t *round_to_bf16(uint16_t *out, const tess_operand *x, float scale, tess_dtype to)
{
    const int64_t n = tess_shape_count(&x->shape);
    const uint16_t *from = x->data;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        out[i] = tess_bf16_from_f32(rounded(tess_f32_from_bf16(from[i]), scale, to));
    }
    return out + (n + 31) / 32 * 32;
}

static size_t rounded_bytes(const tess_operand *x)
{
    return (size_t)((tess_shape_count(&x->shape) + 31) / 32 * 32) * sizeof(uint16_t);
}

static size_t whole(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* ---- the processor's products -------------------------------------------------------------- */

typedef struct products {
    tess_matmul *y, *dx, *dw; /* NULL: not made here */
    size_t scratch_bytes;     /* of the largest */
} products;

void tess__linear_fp8_free(void *prepared)
{
    products *p = prepared;
    if (p) {
        tess__matmul_free(p->y);
        tess__matmul_free(p->dx);
        tess__matmul_free(p->dw);
        tess_free(p);
    }
}

static tess_status add_product(products *p, tess_matmul **m, tess_matmul_spec spec)
{
    spec.in = TESS_BF16;
    spec.out = TESS_F32;
    TESS_TRY(tess__matmul_new(&spec, m));
    const size_t bytes = tess__matmul_scratch(*m);
    p->scratch_bytes = bytes > p->scratch_bytes ? bytes : p->scratch_bytes;
    return TESS_OK;
}

static tess_status prepare(tess_prepare *c)
{
    products *p = c->prepared = tess_alloc(sizeof *p);
    const tess_matmul_spec spec = {.m = tess__rows(&c->in[0].shape),
                                   .n = c->in[1].shape.dim[0],
                                   .k = c->in[1].shape.dim[1],
                                   .b_trans = true};
    const tess_status st = p ? add_product(p, &p->y, spec) : TESS_NOMEM;
    if (st) {
        tess__linear_fp8_free(p);
        return st;
    }
    c->scratch_bytes = rounded_bytes(&c->in[0]) + rounded_bytes(&c->in[1]) +
                       whole((size_t)(spec.m * spec.n) * sizeof(float)) + p->scratch_bytes;
    return TESS_OK;
}

static tess_status cpu(const tess_exec *e)
{
    const products *p = e->prepared;
    const int64_t n = tess_shape_count(&e->out[0].shape), width = tess__last(&e->out[0].shape);
    const float *bias = e->in[2].data;
    const uint16_t *residual = e->in[3].data;
    float *scales = e->out[1].data;
    uint16_t *x = e->scratch, *w, *y = e->out[0].data;
    for (int i = 0; i < 2; i++) {
        scales[i] = scale_of(&e->in[i], TESS_F8E4M3);
    }
    w = round_to_bf16(x, &e->in[0], scales[0], TESS_F8E4M3);
    float *sums = (float *)round_to_bf16(w, &e->in[1], scales[1], TESS_F8E4M3);
    TESS_TRY(tess__matmul_run(
        p->y, &(tess_matmul_args){.a = x,
                                  .b = w,
                                  .c = sums,
                                  .scratch = (char *)sums + whole((size_t)n * sizeof(float))}));
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const float v = sums[i] * scales[0] * scales[1] + (bias ? bias[i % width] : 0);
        y[i] = tess_bf16_from_f32(v + (residual ? tess_f32_from_bf16(residual[i]) : 0));
    }
    return TESS_OK;
}

/* c (m,n) = scale a b, a stored (k,m) where a_trans and b stored (n,k) where b_trans; both f32, of
 * which the rounded values count. */
typedef struct naive {
    const tess_operand *a, *b;
    float a_scale, b_scale;
    tess_dtype a_type;
    bool a_trans, b_trans;
    int64_t m, n, k;
} naive;

static double element(const naive *p, int64_t i, int64_t j)
{
    const float *a = p->a->data, *b = p->b->data;
    double sum = 0;
    for (int64_t l = 0; l < p->k; l++) {
        const float x = a[p->a_trans ? l * p->m + i : i * p->k + l];
        const float y = b[p->b_trans ? j * p->k + l : l * p->n + j];
        sum +=
            (double)rounded(x, p->a_scale, p->a_type) * (double)rounded(y, p->b_scale, TESS_F8E4M3);
    }
    return sum * (double)p->a_scale * (double)p->b_scale;
}

static tess_status ref(const tess_exec *e)
{
    float *scales = e->out[1].data, *y = e->out[0].data;
    const float *bias = e->in[2].data, *residual = e->in[3].data;
    for (int i = 0; i < 2; i++) {
        scales[i] = scale_of(&e->in[i], TESS_F8E4M3);
    }
    const naive p = {.a = &e->in[0],
                     .b = &e->in[1],
                     .a_scale = scales[0],
                     .b_scale = scales[1],
                     .a_type = TESS_F8E4M3,
                     .b_trans = true,
                     .m = tess__rows(&e->in[0].shape),
                     .n = e->in[1].shape.dim[0],
                     .k = e->in[1].shape.dim[1]};
    for (int64_t i = 0; i < p.m * p.n; i++) {
        const double z = element(&p, i / p.n, i % p.n) + (bias ? (double)bias[i % p.n] : 0);
        y[i] = (float)(z + (residual ? (double)residual[i] : 0));
    }
    return TESS_OK;
}

static double flops(const tess_operand *in, const tess_operand *out, const void *attrs)
{
    (void)attrs;
    return 2.0 * (double)tess_shape_count(&out[0].shape) * (double)tess__last(&in[0].shape);
}

/* ---- linear_fp8_grad: x, w, dy, scales -> dx like x, dw (M,K) f32, or empty ------------------ */

static tess_status grad_infer(tess_infer *c)
{
    const linear_fp8_grad_attrs *a = c->attrs;
    const tess_shape none = TESS_SHAPE_OF(0);
    tess_operand dy = c->in[0];
    TESS_TRY(tess__expect("w", &c->in[1], TESS_BF16, 2));
    dy.shape.dim[dy.shape.rank - 1] = c->in[1].shape.dim[0];
    TESS_TRY(tess__expect_like("dy", &c->in[2], &dy));
    TESS_TRY(tess__expect("scales", &c->in[3], TESS_F32, 1));
    c->out[0] = (tess_operand){.dtype = TESS_BF16, .shape = a->dx ? c->in[0].shape : none};
    c->out[1] = (tess_operand){.dtype = TESS_F32, .shape = a->dw ? c->in[1].shape : none};
    return TESS_OK;
}

static tess_status grad_prepare(tess_prepare *c)
{
    const linear_fp8_grad_attrs *a = c->attrs;
    products *p = c->prepared = tess_alloc(sizeof *p);
    const int64_t rows = tess__rows(&c->in[0].shape), m = c->in[1].shape.dim[0],
                  k = c->in[1].shape.dim[1];
    tess_status st = p ? TESS_OK : TESS_NOMEM;
    if (!st && a->dx) {
        st = add_product(p, &p->dx, (tess_matmul_spec){.m = rows, .n = k, .k = m});
    }
    if (!st && a->dw) {
        st = add_product(p, &p->dw, (tess_matmul_spec){.m = m, .n = k, .k = rows, .a_trans = true});
    }
    if (st) {
        tess__linear_fp8_free(p);
        return st;
    }
    c->scratch_bytes = rounded_bytes(&c->in[0]) + rounded_bytes(&c->in[1]) +
                       rounded_bytes(&c->in[2]) +
                       (a->dx ? whole((size_t)(rows * k) * sizeof(float)) : 0) + p->scratch_bytes;
    return TESS_OK;
}

static tess_status grad_dx(const tess_exec *e, const uint16_t *dy, const uint16_t *w,
                           float dy_scale, void *scratch)
{
    const products *p = e->prepared;
    const int64_t n = tess_shape_count(&e->out[0].shape);
    float *sums = scratch;
    uint16_t *dx = e->out[0].data;
    const float w_scale = ((const float *)e->in[3].data)[1];
    TESS_TRY(tess__matmul_run(
        p->dx, &(tess_matmul_args){.a = dy,
                                   .b = w,
                                   .c = sums,
                                   .scratch = (char *)sums + whole((size_t)n * sizeof(float))}));
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        dx[i] = tess_bf16_from_f32(sums[i] * dy_scale * w_scale);
    }
    return TESS_OK;
}

static tess_status grad_cpu(const tess_exec *e)
{
    const linear_fp8_grad_attrs *a = e->attrs;
    const products *p = e->prepared;
    const float *scales = e->in[3].data, dy_scale = scale_of(&e->in[2], TESS_F8E5M2);
    uint16_t *dy = e->scratch, *w = round_to_bf16(dy, &e->in[2], dy_scale, TESS_F8E5M2);
    uint16_t *x = round_to_bf16(w, &e->in[1], scales[1], TESS_F8E4M3);
    uint16_t *rest = round_to_bf16(x, &e->in[0], scales[0], TESS_F8E4M3);
    float *dw = e->out[1].data;
    if (a->dx) {
        TESS_TRY(grad_dx(e, dy, w, dy_scale, rest));
    }
    if (a->dw) {
        TESS_TRY(tess__matmul_run(p->dw,
                                  &(tess_matmul_args){.a = dy, .b = x, .c = dw, .scratch = rest}));
        for (int64_t i = 0; i < tess_shape_count(&e->out[1].shape); i++) {
            dw[i] = dw[i] * dy_scale * scales[0];
        }
    }
    return TESS_OK;
}

static tess_status grad_ref(const tess_exec *e)
{
    const linear_fp8_grad_attrs *a = e->attrs;
    const float *scales = e->in[3].data;
    const int64_t rows = tess__rows(&e->in[0].shape), m = e->in[1].shape.dim[0],
                  k = e->in[1].shape.dim[1];
    naive p = {.a = &e->in[2],
               .b = &e->in[1],
               .a_scale = scale_of(&e->in[2], TESS_F8E5M2),
               .b_scale = scales[1],
               .a_type = TESS_F8E5M2,
               .m = rows,
               .n = k,
               .k = m};
    for (int64_t i = 0; a->dx && i < rows * k; i++) {
        ((float *)e->out[0].data)[i] = (float)element(&p, i / k, i % k);
    }
    p.b = &e->in[0];
    p.b_scale = scales[0];
    p.a_trans = true;
    p.m = m;
    p.k = rows;
    for (int64_t i = 0; a->dw && i < m * k; i++) {
        ((float *)e->out[1].data)[i] = (float)element(&p, i / k, i % k);
    }
    return TESS_OK;
}

static double grad_flops(const tess_operand *in, const tess_operand *out, const void *attrs)
{
    const linear_fp8_grad_attrs *a = attrs;
    (void)out;
    return 2.0 * (a->dx + a->dw) * (double)tess_shape_count(&in[2].shape) *
           (double)tess__last(&in[0].shape);
}

static void grad_print(const void *attrs, tess_buf *out)
{
    const linear_fp8_grad_attrs *a = attrs;
    tess_buf_adds(out, a->dx && a->dw ? "dx dw" : a->dx ? "dx" : "dw");
}

/* ---- cases: rounding has no numeric gradient, so the gradient's operator is a case of its own -
 */

static tess_value build(tess_graph *g, const tess_value *in)
{
    return tess__linear_fp8(g, in[0], in[1], 0, 0);
}

static tess_value build_full(tess_graph *g, const tess_value *in)
{
    return tess__linear_fp8(g, in[0], in[1], in[2], in[3]);
}

static tess_value build_grad(tess_graph *g, const tess_value *in, linear_fp8_grad_attrs a)
{
    const tess_value y = tess__linear_fp8(g, in[0], in[1], 0, 0);
    return y ? TESS_NODE(g, &grad_op, &a, in[0], in[1], in[2], y + 1) : 0;
}

static tess_value build_both(tess_graph *g, const tess_value *in)
{
    return build_grad(g, in, (linear_fp8_grad_attrs){.dx = true, .dw = true});
}

static tess_value build_dx(tess_graph *g, const tess_value *in)
{
    return build_grad(g, in, (linear_fp8_grad_attrs){.dx = true});
}

static tess_value build_dw(tess_graph *g, const tess_value *in)
{
    return build_grad(g, in, (linear_fp8_grad_attrs){.dw = true});
}

/* Zero but for two numbers so far apart that the scale leaves but little of the small one. */
static void set_far_apart(const tess_operand *in)
{
    uint16_t *x = in[0].data;
    const int64_t n = tess_shape_count(&in[0].shape);
    memset(x, 0, (size_t)n * sizeof *x);
    x[0] = tess_bf16_from_f32(-3e30f);
    x[n / 2] = tess_bf16_from_f32(2e26f);
}

static void set_zero(const tess_operand *in)
{
    memset(in[0].data, 0, (size_t)tess_shape_count(&in[0].shape) * sizeof(uint16_t));
}

#define BF16(...)                                                                                  \
    {                                                                                              \
        TESS_BF16, {__VA_ARGS__}, .no_grad = true                                                  \
    }

static const tess_case cases[] = {
    {.name = "plain",
     .n_in = 2,
     .in = {BF16(2, {37, 48}), BF16(2, {32, 48})},
     .build = build,
     .reduction = 48},
    {.name = "full",
     .n_in = 4,
     .in = {BF16(3, {3, 27, 80}),
            BF16(2, {64, 80}),
            {TESS_F32, {1, {64}}, .no_grad = true},
            BF16(3, {3, 27, 64})},
     .build = build_full,
     .reduction = 80},
    {.name = "zero",
     .n_in = 2,
     .in = {BF16(2, {5, 16}), BF16(2, {16, 16})},
     .build = build,
     .reduction = 16,
     .set = set_zero},
    {.name = "far_apart",
     .n_in = 2,
     .in = {BF16(2, {2, 16}), BF16(2, {16, 16})},
     .build = build,
     .reduction = 16,
     .set = set_far_apart},
    {.name = "grad",
     .n_in = 3,
     .in = {BF16(3, {5, 15, 96}), BF16(2, {48, 96}), BF16(3, {5, 15, 48})},
     .build = build_both,
     .reduction = 96},
    {.name = "grad_dx",
     .n_in = 3,
     .in = {BF16(2, {64, 32}), BF16(2, {80, 32}), BF16(2, {64, 80})},
     .build = build_dx,
     .reduction = 80},
    {.name = "grad_dw",
     .n_in = 3,
     .in = {BF16(2, {130, 32}), BF16(2, {16, 32}), BF16(2, {130, 16})},
     .build = build_dw,
     .reduction = 130},
};

static const tess_op grad_op = {
    .name = "linear_fp8_grad",
    .n_in_min = 4,
    .n_in_max = 4,
    .n_out = 2,
    .attrs_bytes = sizeof(linear_fp8_grad_attrs),
    .infer = grad_infer,
    .prepare = grad_prepare,
    .unprepare = tess__linear_fp8_free,
    .cpu = grad_cpu,
    .ref = grad_ref,
    .flops = grad_flops,
    .print = grad_print,
};
static const tess_op *const extra[] = {&grad_op, NULL};

const tess_op tess__op_linear_fp8 = {
    .name = "linear_fp8",
    .n_in_min = 2,
    .n_in_max = 4,
    .n_out = 2,
    .infer = infer,
    .vjp = vjp,
    .prepare = prepare,
    .unprepare = tess__linear_fp8_free,
    .cpu = cpu,
    .ref = ref,
    .flops = flops,
    .extra = extra,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
