/* SPDX-License-Identifier: Apache-2.0 */
/* muon: momentum made orthogonal (Jordan 2024), for matrices in flat memory, an effect.
 *
 *   states param, grad, m (n) f32; hyper (5), sumsq (1) f32 as in adamw.  For each matrix:
 *   d = grad * factor, as in adamw;  m = momentum m + d;  u = d + momentum m   (Nesterov)
 *   X = u / (|u| + 1e-7), five times X = a X + b (X X^T) X + c (X X^T)^2 X, with
 *   (a, b, c) = (3.4445, -4.7750, 2.0315), which brings all singular values near 1
 *   param = param (1 - lr decay) - lr 0.2 sqrt(max(rows, cols)) X;  grad = 0
 *   where lr is hyper's times lr_factor.  The scale is that of Liu et al. 2025, "Muon is scalable
 *   for LLM training": an element changes as much as under AdamW, so one rate serves both.
 *   A sumsq that is not finite leaves all but grad as it was.
 *
 * With the square completed and Y = c^(1/4) X a step is Y = ((Y Y^T - beta)^2 + kappa) Y, beta =
 * -b / (2 sqrt(c)), kappa = a - b^2 / (4 c): three products, and between them only diagonals to
 * change.  Matrices of more rows than columns use Y^T Y from the right, so nothing is transposed.
 * Products have operands of `dtype`, everything else is f32.
 *
 * Each thread has matrices of its own, with products that run on it alone: for a width of 192 that
 * is 390-450 GF/s on two Zen 4 cores, against 270-415 with both in one product.  Results do not
 * depend on the number of threads. */
#include "tensor/matmul.h"
#include "tensor/optimizer.h"
#include "tensor/parallel.h"

#include <string.h>

enum { PARAM, GRAD, M, HYPER, SUMSQ };

#define N_ITERATIONS 5
#define EPS          1e-7
static const double coef_a = 3.4445, coef_b = -4.7750, coef_c = 2.0315;

void tess_muon(tess_graph *g, tess_value param, tess_value grad, tess_value m, tess_value hyper,
               tess_value sumsq, const tess_muon_options *o)
{
    TESS_NODE(g, &tess__op_muon, o, param, grad, m, hyper, sumsq);
}

static tess_status check_matrices(const tess_muon_options *o, int64_t n)
{
    if (o->n_matrices < 1 || o->n_matrices > TESS_MUON_MATRICES) {
        return TESS_FAIL(TESS_INVALID, "muon: expected 1 to %d matrices, found %lld",
                         TESS_MUON_MATRICES, (long long)o->n_matrices);
    }
    for (int64_t i = 0; i < o->n_matrices; i++) {
        const int64_t begin = o->matrix[i].begin, rows = o->matrix[i].rows;
        const int64_t cols = o->matrix[i].cols;
        if (begin < 0 || begin > n || rows < 1 || cols < 1 || cols > (n - begin) / rows) {
            return TESS_FAIL(TESS_INVALID, "muon: matrix %lld (%lld,%lld) at %lld is not in (%lld)",
                             (long long)i, (long long)rows, (long long)cols, (long long)begin,
                             (long long)n);
        }
    }
    return TESS_OK;
}

static tess_status infer(tess_infer *c)
{
    const tess_muon_options *o = c->attrs;
    const tess_operand hyper = {.dtype = TESS_F32, .shape = TESS_SHAPE_OF(TESS_HYPER_COUNT)};
    const tess_operand sumsq = {.dtype = TESS_F32, .shape = TESS_SHAPE_OF(1)};
    TESS_TRY(tess__expect("param", &c->in[PARAM], TESS_F32, 1));
    TESS_TRY(tess__expect_like("grad", &c->in[GRAD], &c->in[PARAM]));
    TESS_TRY(tess__expect_like("m", &c->in[M], &c->in[PARAM]));
    TESS_TRY(tess__expect_like("hyper", &c->in[HYPER], &hyper));
    TESS_TRY(tess__expect_like("sumsq", &c->in[SUMSQ], &sumsq));
    if (o->dtype != TESS_F32 && o->dtype != TESS_BF16) {
        return TESS_FAIL(TESS_INVALID, "muon: products are f32 or bf16, not %s",
                         tess_dtype_name(o->dtype));
    }
    return check_matrices(o, c->in[PARAM].shape.dim[0]);
}

/* ---- the products for matrices of one shape ------------------------------------------------ */

typedef struct products {
    tess_matmul *gram, *square, *apply;
    tess_dtype dtype;
    int64_t rows, cols, side; /* side: the shorter one */
    bool tall;                /* more rows than columns */
    size_t scratch;
} products;

static void free_products(products *p)
{
    tess__matmul_free(p->gram);
    tess__matmul_free(p->square);
    tess__matmul_free(p->apply);
}

static tess_status add_product(products *p, tess_matmul_spec spec, tess_matmul **out)
{
    spec.in = spec.out = p->dtype;
    spec.single = true;
    TESS_TRY(tess__matmul_new(&spec, out));
    const size_t bytes = tess__matmul_scratch(*out);
    p->scratch = bytes > p->scratch ? bytes : p->scratch;
    return TESS_OK;
}

static tess_status set_up(products *p, int64_t rows, int64_t cols, tess_dtype dtype)
{
    const bool tall = rows > cols;
    const int64_t s = tall ? cols : rows, l = tall ? rows : cols;
    *p = (products){.dtype = dtype, .rows = rows, .cols = cols, .side = s, .tall = tall};
    tess_matmul_spec gram = {.m = s, .n = s, .k = l, .a_trans = tall, .b_trans = !tall};
    TESS_TRY(add_product(p, gram, &p->gram));
    TESS_TRY(add_product(p, (tess_matmul_spec){.m = s, .n = s, .k = s}, &p->square));
    return add_product(p, (tess_matmul_spec){.m = rows, .n = cols, .k = s}, &p->apply);
}

/* What one matrix is worked on with, in its thread's scratch. */
typedef struct workbench {
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

static workbench lay_out(const products *p, char *base)
{
    workbench w = {0};
    const size_t n = (size_t)(p->rows * p->cols), n_square = (size_t)(p->side * p->side);
    const size_t item = tess_dtype_bytes(p->dtype);
    w.u = carve(base, &w.n_bytes, n * sizeof(float));
    w.y = carve(base, &w.n_bytes, n * item);
    w.next = carve(base, &w.n_bytes, n * item);
    w.f = carve(base, &w.n_bytes, n_square * item);
    w.b = carve(base, &w.n_bytes, n_square * item);
    w.products = carve(base, &w.n_bytes, p->scratch);
    return w;
}

/* ---- preparing ----------------------------------------------------------------------------- */

typedef struct prepared {
    int64_t n_shapes, n_slots;
    int64_t shape_of[TESS_MUON_MATRICES];
    products *products; /* (n_slots, n_shapes): a product must not run twice at a time */
    size_t bench_bytes;
} prepared;

static void unprepare(void *p)
{
    prepared *all = p;
    for (int64_t i = 0; all && all->products && i < all->n_slots * all->n_shapes; i++) {
        free_products(&all->products[i]);
    }
    if (all) {
        tess_free(all->products);
        tess_free(all);
    }
}

static void find_shapes(const tess_muon_options *o, prepared *p, int64_t *first)
{
    for (int64_t i = 0; i < o->n_matrices; i++) {
        int64_t k = 0;
        while (k < p->n_shapes && (o->matrix[first[k]].rows != o->matrix[i].rows ||
                                   o->matrix[first[k]].cols != o->matrix[i].cols)) {
            k++;
        }
        p->shape_of[i] = k;
        if (k == p->n_shapes) {
            first[p->n_shapes++] = i;
        }
    }
}

static tess_status set_up_all(const tess_muon_options *o, prepared *p)
{
    int64_t first[TESS_MUON_MATRICES];
    find_shapes(o, p, first);
    p->n_slots = tess__slots_max();
    p->products = tess_alloc_array((size_t)(p->n_slots * p->n_shapes), sizeof *p->products);
    if (!p->products) {
        return TESS_NOMEM;
    }
    for (int64_t i = 0; i < p->n_slots * p->n_shapes; i++) {
        const int64_t k = first[i % p->n_shapes];
        TESS_TRY(set_up(&p->products[i], o->matrix[k].rows, o->matrix[k].cols, o->dtype));
        const size_t bytes = lay_out(&p->products[i], NULL).n_bytes;
        p->bench_bytes = bytes > p->bench_bytes ? bytes : p->bench_bytes;
    }
    return TESS_OK;
}

static tess_status prepare(tess_prepare *c)
{
    prepared *p = tess_alloc(sizeof *p);
    if (!p) {
        return TESS_NOMEM;
    }
    tess_status st = set_up_all(c->attrs, p);
    if (st) {
        unprepare(p);
        return st;
    }
    c->prepared = p;
    c->scratch_bytes = p->bench_bytes * (size_t)p->n_slots;
    return TESS_OK;
}

/* ---- one matrix, on one thread ------------------------------------------------------------- */

/* m = momentum m + d, u = d + momentum m, grad = 0; returns |u|. */
static double take_momentum(const tess_exec *e, float *u, int64_t begin, int64_t n)
{
    const tess_kernels *k = tess__kernels();
    const tess_chunks c = tess__chunks(n, 1);
    const float mu = ((const tess_muon_options *)e->attrs)->momentum;
    const float factor = tess__grad_factor(e->in[HYPER].data, *(const float *)e->in[SUMSQ].data,
                                           ((const tess_muon_options *)e->attrs)->clip);
    double sum = 0;
    for (int64_t i = 0; i < c.n; i++) {
        const tess_range r = tess__chunk(&c, i);
        float *g = (float *)e->in[GRAD].data + begin + r.begin;
        float *m = (float *)e->in[M].data + begin + r.begin;
        k->scale(TESS_F32, m, m, mu, r.n);
        k->axpy(TESS_F32, m, g, factor, r.n);
        k->scale(TESS_F32, u + r.begin, m, mu, r.n);
        k->axpy(TESS_F32, u + r.begin, g, factor, r.n);
        memset(g, 0, (size_t)r.n * sizeof *g);
        sum += k->sumsq(u + r.begin, r.n);
    }
    return sqrt(sum);
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

static tess_status run(tess_matmul *m, const workbench *w, const void *a, const void *b, void *c)
{
    return tess__matmul_run(m, &(tess_matmul_args){.a = a, .b = b, .c = c, .scratch = w->products});
}

static tess_status orthogonalise(const products *p, workbench *w)
{
    const double beta = -coef_b / (2 * sqrt(coef_c)), kappa = coef_a - beta * beta;
    for (int i = 0; i < N_ITERATIONS; i++) {
        TESS_TRY(run(p->gram, w, w->y, w->y, w->f));
        add_to_diagonal(p, w->f, -beta);
        TESS_TRY(run(p->square, w, w->f, w->f, w->b));
        add_to_diagonal(p, w->b, kappa);
        TESS_TRY(run(p->apply, w, p->tall ? w->y : w->b, p->tall ? w->b : w->y, w->next));
        void *y = w->y;
        w->y = w->next;
        w->next = y;
    }
    return TESS_OK;
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

static tess_status update(const tess_exec *e, const products *p, int64_t begin, char *bench)
{
    const tess_muon_options *o = e->attrs;
    const tess_kernels *k = tess__kernels();
    const int64_t n = p->rows * p->cols;
    const double stretch = sqrt(sqrt(coef_c)), lr = rate(e); /* Y = stretch X */
    workbench w = lay_out(p, bench);
    const double norm = take_momentum(e, w.u, begin, n);
    k->scale(TESS_F32, w.u, w.u, (float)(stretch / (norm + EPS)), n);
    k->convert(p->dtype, w.y, TESS_F32, w.u, n);
    TESS_TRY(orthogonalise(p, &w));
    float *param = (float *)e->in[PARAM].data + begin;
    k->scale(TESS_F32, param, param, (float)(1 - lr * (double)o->weight_decay), n);
    k->axpy(p->dtype, param, w.y, (float)(-lr * rms_scale(p->rows, p->cols) / stretch), n);
    return TESS_OK;
}

static void zero_gradients(const tess_exec *e)
{
    const tess_muon_options *o = e->attrs;
    for (int64_t i = 0; i < o->n_matrices; i++) {
        tess__zero((float *)e->in[GRAD].data + o->matrix[i].begin,
                   o->matrix[i].rows * o->matrix[i].cols);
    }
}

static tess_status cpu(const tess_exec *e)
{
    const tess_muon_options *o = e->attrs;
    const prepared *p = e->prepared;
    if (!isfinite(*(const float *)e->in[SUMSQ].data)) {
        zero_gradients(e);
        return TESS_OK;
    }
    int worst = TESS_OK;
#pragma omp parallel for schedule(dynamic) num_threads(tess__slots()) reduction(min : worst)
    for (int64_t i = 0; i < o->n_matrices; i++) {
        const int64_t slot = omp_get_thread_num();
        const int st =
            (int)update(e, &p->products[slot * p->n_shapes + p->shape_of[i]], o->matrix[i].begin,
                        (char *)e->scratch + (size_t)slot * p->bench_bytes);
        worst = st < worst ? st : worst;
    }
    return worst ? TESS_FAIL((tess_status)worst, "muon: a matrix product failed") : TESS_OK;
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

static tess_status ref_matrix(const tess_exec *e, int64_t begin, int64_t rows, int64_t cols)
{
    const tess_muon_options *o = e->attrs;
    const bool tall = rows > cols;
    const int64_t s = tall ? cols : rows, l = tall ? rows : cols, n = s * l;
    const double mu = (double)o->momentum;
    const double factor =
        (double)tess__grad_factor(e->in[HYPER].data, *(const float *)e->in[SUMSQ].data, o->clip);
    float *p = (float *)e->in[PARAM].data + begin, *m = (float *)e->in[M].data + begin;
    const float *g = (const float *)e->in[GRAD].data + begin;
    double *x = tess_alloc_array((size_t)(2 * n + 2 * s * s), sizeof *x), sum = 0;
    if (!x) {
        return TESS_NOMEM;
    }
    for (int64_t i = 0; i < n; i++) {
        const double d = (double)g[i] * factor, fresh = mu * (double)m[i] + d, u = d + mu * fresh;
        x[tall ? i % cols * rows + i / cols : i] = u;
        sum += u * u;
        m[i] = (float)fresh;
    }
    for (int64_t i = 0; i < n; i++) {
        x[i] /= sqrt(sum) + EPS;
    }
    ref_orthogonalise(x, s, l, x + n);
    for (int64_t i = 0; i < n; i++) {
        p[i] = (float)((double)p[i] * (1 - rate(e) * (double)o->weight_decay) -
                       rate(e) * rms_scale(rows, cols) * x[tall ? i % cols * rows + i / cols : i]);
    }
    tess_free(x);
    return TESS_OK;
}

static tess_status ref(const tess_exec *e)
{
    const tess_muon_options *o = e->attrs;
    const bool finite = isfinite(*(const float *)e->in[SUMSQ].data);
    for (int64_t i = 0; finite && i < o->n_matrices; i++) {
        TESS_TRY(ref_matrix(e, o->matrix[i].begin, o->matrix[i].rows, o->matrix[i].cols));
    }
    zero_gradients(e);
    return TESS_OK;
}

/* ---- table --------------------------------------------------------------------------------- */

static double flops(const tess_operand *in, const tess_operand *out, const void *attrs)
{
    (void)in, (void)out;
    const tess_muon_options *o = attrs;
    double sum = 0;
    for (int64_t i = 0; i < o->n_matrices; i++) {
        const double rows = (double)o->matrix[i].rows, cols = (double)o->matrix[i].cols;
        const double s = rows < cols ? rows : cols;
        sum += N_ITERATIONS * 2 * s * (2 * rows * cols + s * s);
    }
    return sum;
}

static void print(const void *attrs, tess_buf *out)
{
    const tess_muon_options *o = attrs;
    tess_buf_addf(out, "momentum=%g lr=%g decay=%g clip=%g matrices=%lld %s", (double)o->momentum,
                  (double)o->lr_factor, (double)o->weight_decay, (double)o->clip,
                  (long long)o->n_matrices, tess_dtype_name(o->dtype));
}

static tess_value build(tess_graph *g, const tess_value *in)
{
    const tess_muon_options o = {
        .momentum = 0.95f,
        .weight_decay = 0.2f,
        .lr_factor = 0.5f,
        .clip = 0.5f,
        .dtype = TESS_F32,
        .n_matrices = 4,
        .matrix = {{16, 12, 33}, {416, 20, 20}, {816, 40, 16}, {1500, 20, 20}}};
    tess_muon(g, in[0], in[1], in[2], in[3], in[4], &o);
    return 0;
}

/* A rate so low that the error of bf16 products lies within what is allowed to an f32 parameter,
 * which a wrong product still exceeds many times over. */
static tess_value build_bf16(tess_graph *g, const tess_value *in)
{
    const tess_muon_options o = {.momentum = 0.9f,
                                 .weight_decay = 0.1f,
                                 .lr_factor = 0x1p-10f,
                                 .dtype = TESS_BF16,
                                 .n_matrices = 2,
                                 .matrix = {{0, 64, 96}, {6144, 96, 32}}};
    tess_muon(g, in[0], in[1], in[2], in[3], in[4], &o);
    return 0;
}

#define CASE(label, n, f, longest)                                                                 \
    {                                                                                              \
        .name = (label), .n_in = 5,                                                                \
        .in = {{TESS_F32, {1, {n}}, .no_grad = true},                                              \
               {TESS_F32, {1, {n}}, .no_grad = true},                                              \
               {TESS_F32, {1, {n}}, .no_grad = true},                                              \
               {TESS_F32, {1, {TESS_HYPER_COUNT}}, TESS_FILL_POSITIVE, .no_grad = true},           \
               {TESS_F32, {1, {1}}, TESS_FILL_POSITIVE, .no_grad = true}},                         \
        .build = (f), .reduction = (longest)                                                       \
    }
/* The longest sum is that of all products after one another. */
static const tess_case cases[] = {
    CASE("shapes", 1916, build, 5 * (40 + 16 + 16)),
    CASE("bf16", 9216, build_bf16, 5 * (96 + 64 + 64)),
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
