/* SPDX-License-Identifier: Apache-2.0 */
/* muon: momentum made orthogonal (Jordan 2024), for one matrix, an effect.
 *
 *   states param, grad, m (R,C) f32; hyper (4), sumsq (1) f32 as in adamw.
 *   d = grad * factor, as in adamw;  m = momentum m + d;  u = d + momentum m   (Nesterov)
 *   each of n_blocks blocks of rows by itself (q, k and v of a packed projection):
 *     X = u / (|u| + 1e-7), five times X = a X + b (X X^T) X + c (X X^T)^2 X, with
 *     (a, b, c) = (3.4445, -4.7750, 2.0315), which brings all singular values near 1
 *   param = param (1 - lr decay) - lr 0.2 sqrt(max(rows, columns of a block)) X;  grad = 0
 *   where lr is hyper's times lr_factor.  The scale is that of Liu et al. 2025, "Muon is scalable
 *   for LLM training": an element changes as much as under AdamW, so one rate serves both.
 *   A sumsq that is not finite leaves all but grad as it was.
 *
 * With the square completed and Y = c^(1/4) X a step is Y = ((Y Y^T - beta)^2 + kappa) Y, beta =
 * -b / (2 sqrt(c)), kappa = a - b^2 / (4 c): three products, and between them only diagonals to
 * change.  Blocks of more rows than columns use Y^T Y from the right, so nothing is transposed.
 * Products have operands of `dtype`; everything else is f32.  Repeatable as matmul.h says. */
#include "tensor/matmul.h"
#include "tensor/optimizer.h"
#include "tensor/parallel.h"

#include <string.h>

enum { PARAM, GRAD, M, HYPER, SUMSQ };

#define N_ITERATIONS 5
#define EPS          1e-7
static const double coef_a = 3.4445, coef_b = -4.7750, coef_c = 2.0315;

void tess_muon(tess_graph *g, tess_value param, tess_value grad, tess_value m, tess_value hyper,
               tess_value sumsq, tess_muon_options o)
{
    TESS_NODE(g, &tess__op_muon, &o, param, grad, m, hyper, sumsq);
}

static tess_status infer(tess_infer *c)
{
    const tess_muon_options *o = c->attrs;
    const tess_operand hyper = {.dtype = TESS_F32, .shape = TESS_SHAPE_OF(TESS_HYPER_COUNT)};
    const tess_operand sumsq = {.dtype = TESS_F32, .shape = TESS_SHAPE_OF(1)};
    TESS_TRY(tess__expect("param", &c->in[PARAM], TESS_F32, 2));
    TESS_TRY(tess__expect_like("grad", &c->in[GRAD], &c->in[PARAM]));
    TESS_TRY(tess__expect_like("m", &c->in[M], &c->in[PARAM]));
    TESS_TRY(tess__expect_like("hyper", &c->in[HYPER], &hyper));
    TESS_TRY(tess__expect_like("sumsq", &c->in[SUMSQ], &sumsq));
    if (o->n_blocks < 1 || c->in[PARAM].shape.dim[0] % o->n_blocks) {
        return TESS_FAIL(TESS_INVALID, "muon: %lld rows do not make %lld blocks",
                         (long long)c->in[PARAM].shape.dim[0], (long long)o->n_blocks);
    }
    return o->dtype == TESS_F32 || o->dtype == TESS_BF16
               ? TESS_OK
               : TESS_FAIL(TESS_INVALID, "muon: products are f32 or bf16");
}

/* ---- the products of one block ------------------------------------------------------------- */

typedef struct products {
    tess_matmul *gram, *square, *apply;
    tess_dtype dtype;
    int64_t rows, cols, side; /* of a block; its shorter side */
    bool tall;                /* more rows than columns */
    size_t scratch;           /* of the products */
} products;

static void unprepare(void *prepared)
{
    products *p = prepared;
    if (p) {
        tess__matmul_free(p->gram);
        tess__matmul_free(p->square);
        tess__matmul_free(p->apply);
        tess_free(p);
    }
}

static tess_status add_product(products *p, tess_matmul_spec spec, tess_matmul **out)
{
    spec.in = spec.out = p->dtype;
    TESS_TRY(tess__matmul_new(&spec, out));
    const size_t bytes = tess__matmul_scratch(*out);
    p->scratch = bytes > p->scratch ? bytes : p->scratch;
    return TESS_OK;
}

static tess_status add_products(products *p)
{
    const int64_t s = p->side, l = p->tall ? p->rows : p->cols;
    TESS_TRY(add_product(
        p, (tess_matmul_spec){.m = s, .n = s, .k = l, .a_trans = p->tall, .b_trans = !p->tall},
        &p->gram));
    TESS_TRY(add_product(p, (tess_matmul_spec){.m = s, .n = s, .k = s}, &p->square));
    return add_product(p, (tess_matmul_spec){.m = p->rows, .n = p->cols, .k = s}, &p->apply);
}

/* Where things lie in the scratch. */
typedef struct workbench {
    double *partial;
    float *u;
    void *y, *next; /* (rows,cols) dtype */
    void *f, *b;    /* (side,side) dtype */
    char *products;
    size_t n_bytes;
} workbench;

static void *carve(char *base, size_t *at, size_t bytes)
{
    void *p = base ? base + *at : NULL;
    *at += (bytes + 63) / 64 * 64;
    return p;
}

static workbench set_up(const products *p, char *base)
{
    workbench w = {0};
    const size_t n = (size_t)(p->rows * p->cols), n_square = (size_t)(p->side * p->side);
    const size_t item = tess_dtype_bytes(p->dtype);
    w.partial = carve(base, &w.n_bytes, TESS_CHUNKS_MAX * sizeof(double));
    w.u = carve(base, &w.n_bytes, n * sizeof(float));
    w.y = carve(base, &w.n_bytes, n * item);
    w.next = carve(base, &w.n_bytes, n * item);
    w.f = carve(base, &w.n_bytes, n_square * item);
    w.b = carve(base, &w.n_bytes, n_square * item);
    w.products = carve(base, &w.n_bytes, p->scratch);
    return w;
}

static tess_status prepare(tess_prepare *c)
{
    const tess_muon_options *o = c->attrs;
    const tess_shape *s = &c->in[PARAM].shape;
    products *p = tess_alloc(sizeof *p);
    if (!p) {
        return TESS_NOMEM;
    }
    p->dtype = o->dtype;
    p->rows = s->dim[0] / o->n_blocks;
    p->cols = s->dim[1];
    p->tall = p->rows > p->cols;
    p->side = p->tall ? p->cols : p->rows;
    tess_status st = add_products(p);
    if (st) {
        unprepare(p);
        return st;
    }
    c->prepared = p;
    c->scratch_bytes = set_up(p, NULL).n_bytes;
    return TESS_OK;
}

/* ---- one block ----------------------------------------------------------------------------- */

/* m = momentum m + d, u = d + momentum m, grad = 0; returns |u|. */
static double take_momentum(const tess_exec *e, const workbench *w, int64_t begin, int64_t n)
{
    const tess_muon_options *o = e->attrs;
    const tess_kernels *k = tess__kernels();
    const tess_chunks c = tess__chunks(n, 1);
    const float factor =
        tess__grad_factor(e->in[HYPER].data, *(const float *)e->in[SUMSQ].data, o->clip);
    float *grad = (float *)e->in[GRAD].data + begin, *m = (float *)e->in[M].data + begin;
    double sum = 0;
#pragma omp parallel for schedule(static) if (c.n > 1)
    for (int64_t i = 0; i < c.n; i++) {
        const tess_range r = tess__chunk(&c, i);
        float *g = grad + r.begin, *mi = m + r.begin, *u = w->u + r.begin;
        k->scale(TESS_F32, mi, mi, o->momentum, r.n);
        k->axpy(TESS_F32, mi, g, factor, r.n);
        k->scale(TESS_F32, u, mi, o->momentum, r.n);
        k->axpy(TESS_F32, u, g, factor, r.n);
        tess__zero(g, r.n);
        w->partial[i] = k->sumsq(u, r.n);
    }
    for (int64_t i = 0; i < c.n; i++) {
        sum += w->partial[i];
    }
    return sqrt(sum);
}

/* y = factor u */
static void scale_down(const products *p, const workbench *w, float factor)
{
    const tess_kernels *k = tess__kernels();
    const tess_chunks c = tess__chunks(p->rows * p->cols, 1);
#pragma omp parallel for schedule(static) if (c.n > 1)
    for (int64_t i = 0; i < c.n; i++) {
        const tess_range r = tess__chunk(&c, i);
        float *u = w->u + r.begin;
        k->scale(TESS_F32, u, u, factor, r.n);
        k->convert(p->dtype, tess__at_mut(w->y, p->dtype, r.begin), TESS_F32, u, r.n);
    }
}

static void add_to_diagonal(const products *p, void *x, double value)
{
    for (int64_t i = 0; i < p->side; i++) {
        void *d = tess__at_mut(x, p->dtype, i * p->side + i);
        if (p->dtype == TESS_F32) {
            *(float *)d += (float)value;
        } else {
            const uint16_t old = *(const uint16_t *)d;
            *(uint16_t *)d = tess_bf16_from_f32(tess_f32_from_bf16(old) + (float)value);
        }
    }
}

static tess_status product(tess_matmul *m, const workbench *w, const void *a, const void *b,
                           void *c)
{
    return tess__matmul_run(m, &(tess_matmul_args){.a = a, .b = b, .c = c, .scratch = w->products});
}

static tess_status orthogonalise(const products *p, workbench *w)
{
    const double beta = -coef_b / (2 * sqrt(coef_c)), kappa = coef_a - beta * beta;
    for (int i = 0; i < N_ITERATIONS; i++) {
        TESS_TRY(product(p->gram, w, w->y, w->y, w->f));
        add_to_diagonal(p, w->f, -beta);
        TESS_TRY(product(p->square, w, w->f, w->f, w->b));
        add_to_diagonal(p, w->b, kappa);
        TESS_TRY(product(p->apply, w, p->tall ? w->y : w->b, p->tall ? w->b : w->y, w->next));
        void *y = w->y;
        w->y = w->next;
        w->next = y;
    }
    return TESS_OK;
}

/* param = keep param - step y */
static void apply(const tess_exec *e, const workbench *w, int64_t begin, float keep, float step)
{
    const products *p = e->prepared;
    const tess_kernels *k = tess__kernels();
    const tess_chunks c = tess__chunks(p->rows * p->cols, 1);
    float *param = (float *)e->in[PARAM].data + begin;
#pragma omp parallel for schedule(static) if (c.n > 1)
    for (int64_t i = 0; i < c.n; i++) {
        const tess_range r = tess__chunk(&c, i);
        float *x = param + r.begin;
        k->scale(TESS_F32, x, x, keep, r.n);
        k->axpy(p->dtype, x, tess__at(w->y, p->dtype, r.begin), -step, r.n);
    }
}

static double rms_scale(int64_t rows, int64_t cols)
{
    return 0.2 * sqrt((double)(rows > cols ? rows : cols));
}

static double rate(const tess_exec *e)
{
    const tess_muon_options *o = e->attrs;
    return (double)((const float *)e->in[HYPER].data)[TESS_HYPER_LR] * (double)o->lr_factor;
}

static tess_status update_block(const tess_exec *e, int64_t begin)
{
    const tess_muon_options *o = e->attrs;
    const products *p = e->prepared;
    workbench w = set_up(p, e->scratch);
    const double stretch = sqrt(sqrt(coef_c)), lr = rate(e); /* Y = stretch X */
    const double norm = take_momentum(e, &w, begin, p->rows * p->cols);
    scale_down(p, &w, (float)(stretch / (norm + EPS)));
    TESS_TRY(orthogonalise(p, &w));
    apply(e, &w, begin, (float)(1 - lr * (double)o->weight_decay),
          (float)(lr * rms_scale(p->rows, p->cols) / stretch));
    return TESS_OK;
}

static tess_status cpu(const tess_exec *e)
{
    const tess_muon_options *o = e->attrs;
    const int64_t n = tess_shape_count(&e->in[PARAM].shape);
    if (!isfinite(*(const float *)e->in[SUMSQ].data)) {
        tess__zero(e->in[GRAD].data, n);
        return TESS_OK;
    }
    for (int64_t i = 0; i < o->n_blocks; i++) {
        TESS_TRY(update_block(e, i * (n / o->n_blocks)));
    }
    return TESS_OK;
}

/* ---- reference ----------------------------------------------------------------------------- */

/* out (m,n) = sum_k a(i,k) b(k,j), where the strides say how a and b lie. */
static void multiply(double *out, const double *a, const double *b, int64_t m, int64_t n, int64_t k,
                     int64_t b_row, int64_t b_col)
{
    for (int64_t i = 0; i < m * n; i++) {
        double sum = 0;
        for (int64_t j = 0; j < k; j++) {
            sum += a[i / n * k + j] * b[j * b_row + i % n * b_col];
        }
        out[i] = sum;
    }
}

/* x (s,l), s <= l, made orthogonal as the equation says; work has 2 s s + s l items. */
static void ref_orthogonalise(double *x, int64_t s, int64_t l, double *work)
{
    double *gram = work, *square = work + s * s, *y = square + s * s;
    for (int it = 0; it < N_ITERATIONS; it++) {
        multiply(gram, x, x, s, s, l, 1, l);
        multiply(square, gram, gram, s, s, s, s, 1);
        for (int64_t i = 0; i < s * s; i++) {
            gram[i] = coef_b * gram[i] + coef_c * square[i];
        }
        multiply(y, gram, x, s, l, s, l, 1);
        for (int64_t i = 0; i < s * l; i++) {
            x[i] = coef_a * x[i] + y[i];
        }
    }
}

static void ref_block(const tess_exec *e, int64_t begin, int64_t rows, int64_t cols, double *work)
{
    const tess_muon_options *o = e->attrs;
    const bool tall = rows > cols;
    const int64_t s = tall ? cols : rows, l = tall ? rows : cols;
    const double factor = (double)tess__grad_factor(e->in[HYPER].data,
                                                    *(const float *)e->in[SUMSQ].data, o->clip),
                 mu = (double)o->momentum;
    float *p = (float *)e->in[PARAM].data + begin, *g = (float *)e->in[GRAD].data + begin;
    float *m = (float *)e->in[M].data + begin;
    double *x = work, sum = 0;
    for (int64_t i = 0; i < rows * cols; i++) {
        const int64_t at = tall ? i % cols * rows + i / cols : i;
        const double d = (double)g[i] * factor, fresh = mu * (double)m[i] + d;
        x[at] = d + mu * fresh;
        sum += x[at] * x[at];
        m[i] = (float)fresh;
    }
    for (int64_t i = 0; i < rows * cols; i++) {
        x[i] /= sqrt(sum) + EPS;
    }
    ref_orthogonalise(x, s, l, work + rows * cols);
    for (int64_t i = 0; i < rows * cols; i++) {
        const int64_t at = tall ? i % cols * rows + i / cols : i;
        p[i] = (float)((double)p[i] * (1 - rate(e) * (double)o->weight_decay) -
                       rate(e) * rms_scale(rows, cols) * x[at]);
    }
}

static tess_status ref(const tess_exec *e)
{
    const tess_muon_options *o = e->attrs;
    const int64_t rows = e->in[PARAM].shape.dim[0] / o->n_blocks, cols = e->in[PARAM].shape.dim[1];
    const int64_t s = rows < cols ? rows : cols;
    double *work = tess_alloc_array((size_t)(2 * rows * cols + 2 * s * s), sizeof *work);
    if (!work) {
        return TESS_NOMEM;
    }
    const bool finite = isfinite(*(const float *)e->in[SUMSQ].data);
    for (int64_t i = 0; finite && i < o->n_blocks; i++) {
        ref_block(e, i * rows * cols, rows, cols, work);
    }
    tess_free(work);
    tess__zero(e->in[GRAD].data, tess_shape_count(&e->in[PARAM].shape));
    return TESS_OK;
}

/* ---- table --------------------------------------------------------------------------------- */

static double flops(const tess_operand *in, const tess_operand *out, const void *attrs)
{
    (void)out;
    const tess_muon_options *o = attrs;
    const int64_t rows = in[PARAM].shape.dim[0] / o->n_blocks, cols = in[PARAM].shape.dim[1];
    const double s = (double)(rows < cols ? rows : cols), n = (double)(rows * cols);
    return (double)o->n_blocks * N_ITERATIONS * 2 * s * (2 * n + s * s);
}

static void print(const void *attrs, tess_buf *out)
{
    const tess_muon_options *o = attrs;
    tess_buf_addf(out, "momentum=%g lr=%g decay=%g clip=%g blocks=%lld %s", (double)o->momentum,
                  (double)o->lr_factor, (double)o->weight_decay, (double)o->clip,
                  (long long)o->n_blocks, tess_dtype_name(o->dtype));
}

static tess_value build(tess_graph *g, const tess_value *in)
{
    tess_muon(g, in[0], in[1], in[2], in[3], in[4],
              (tess_muon_options){.momentum = 0.95f,
                                  .weight_decay = 0.2f,
                                  .lr_factor = 0.5f,
                                  .clip = 0.5f,
                                  .n_blocks = 1,
                                  .dtype = TESS_F32});
    return 0;
}

static tess_value build_blocks(tess_graph *g, const tess_value *in)
{
    tess_muon(
        g, in[0], in[1], in[2], in[3], in[4],
        (tess_muon_options){.momentum = 0.9f, .lr_factor = 1, .n_blocks = 3, .dtype = TESS_F32});
    return 0;
}

/* A rate so low that the error of bf16 products lies within what is allowed to an f32 parameter,
 * which a wrong product still exceeds many times over. */
static tess_value build_bf16(tess_graph *g, const tess_value *in)
{
    tess_muon(g, in[0], in[1], in[2], in[3], in[4],
              (tess_muon_options){.momentum = 0.95f,
                                  .weight_decay = 0.1f,
                                  .lr_factor = 0x1p-10f,
                                  .n_blocks = 1,
                                  .dtype = TESS_BF16});
    return 0;
}

#define CASE(label, rows, cols, f, longest)                                                        \
    {                                                                                              \
        .name = (label), .n_in = 5,                                                                \
        .in = {{TESS_F32, {2, {rows, cols}}, .no_grad = true},                                     \
               {TESS_F32, {2, {rows, cols}}, .no_grad = true},                                     \
               {TESS_F32, {2, {rows, cols}}, .no_grad = true},                                     \
               {TESS_F32, {1, {4}}, TESS_FILL_POSITIVE, .no_grad = true},                          \
               {TESS_F32, {1, {1}}, TESS_FILL_POSITIVE, .no_grad = true}},                         \
        .build = (f), .reduction = (longest)                                                       \
    }
/* The longest sum is that of all products after one another. */
static const tess_case cases[] = {
    CASE("wide", 12, 33, build, 5 * (33 + 12 + 12)),
    CASE("tall", 40, 16, build, 5 * (40 + 16 + 16)),
    CASE("blocks", 60, 20, build_blocks, 5 * 3 * 20),
    CASE("bf16", 64, 96, build_bf16, 5 * (96 + 64 + 64)),
    CASE("bf16 tall", 96, 32, build_bf16, 5 * (96 + 32 + 32)),
};

const tess_op tess__op_muon = {
    .name = "muon",
    .n_in_min = 5,
    .n_in_max = 5,
    .attrs_bytes = sizeof(tess_muon_options),
    .flags = TESS_OP_EFFECT,
    .state_mask = 7,
    .infer = infer,
    .prepare = prepare,
    .unprepare = unprepare,
    .cpu = cpu,
    .ref = ref,
    .flops = flops,
    .print = print,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
