/* SPDX-License-Identifier: Apache-2.0 */
/* adamw: the decoupled-decay Adam of Loshchilov & Hutter 2019 over flat memory, an effect.
 *
 *   states param (N), m, v (n) f32, grad (n) f32 or bf16; hyper (5) f32: lr, c1, c2, grad_scale, t;
 *   sumsq (1) f32 of grad; state narrow (N) bf16 or absent.
 *
 *   c1 = 1/(1-beta1^t);  c2 = 1/(1-beta2^t)
 *   d = grad * grad_scale * min(1, clip / (sqrt(sumsq) * grad_scale))   (clip 0: no limit)
 *   m = beta1 m + (1-beta1) d;  v = beta2 v + (1-beta2) d^2
 *   param = param (1 - lr decay) - lr m c1 / (sqrt(v c2) + eps);  grad = 0;  narrow = bf16(param)
 *
 *   Element i of grad, m, v is element i of param, or where the options have parts, that of its
 *   part.  Where they have ranges, the five runs are laid out each in its own way, and a range says
 *   where in each of them its elements lie; all else stays as it is.  Decay applies to the first
 *   n_decayed elements; the first `begin` are another optimizer's and stay as they are.  A sumsq
 *   that is not finite leaves all but grad as it was.
 *   Deterministic; one pass. */
#include "tensor/optimizer.h"
#include "tensor/pager.h"
#include "tensor/parallel.h"

#include <string.h>

enum { PARAM, GRAD, M, V, HYPER, SUMSQ, NARROW };
enum { BLOCK = 4096 }; /* elements that are widened or rounded while they lie in L1 */

void tess_adamw(tess_graph *g, tess_value param, tess_value grad, tess_value m, tess_value v,
                tess_value hyper, tess_value sumsq, tess_adamw_options o)
{
    const tess_value in[] = {param, grad, m, v, hyper, sumsq, o.narrow};
    const int n_in = TESS_COUNT(in) - !o.narrow;
    o.narrow = 0; /* an input, to which passes may give another number */
    tess__node_add(g, &tess__op_adamw, &o, in, n_in);
}

static tess_status check_ranges(const tess_adamw_options *o, const tess_infer *c)
{
    const int64_t n[] = {c->in[PARAM].shape.dim[0], c->in[GRAD].shape.dim[0], c->in[M].shape.dim[0],
                         c->n_in > NARROW ? c->in[NARROW].shape.dim[0] : INT64_MAX};
    for (int64_t k = 0; k < o->n_ranges; k++) {
        const tess_adamw_range *r = &o->ranges[k];
        const int64_t at[] = {r->param, r->grad, r->moment, r->narrow};
        for (int i = 0; i < 4; i++) {
            if (at[i] < 0 || r->n < 0 || at[i] > n[i] - r->n) {
                return TESS_FAIL(TESS_INVALID, "adamw: range %lld lies beyond its states",
                                 (long long)k);
            }
        }
    }
    return o->begin == 0 && o->n_parts == 0
               ? TESS_OK
               : TESS_FAIL(TESS_INVALID, "adamw: ranges stand in place of begin and parts");
}

/* Parts are in order, and lie in param. */
static tess_status check_parts(const tess_adamw_options *o, int64_t n, int64_t n_param)
{
    if (o->n_parts < 0 || o->n_parts > TESS_ADAMW_PARTS) {
        return TESS_FAIL(TESS_INVALID, "adamw: expected at most %d parts, found %lld",
                         TESS_ADAMW_PARTS, (long long)o->n_parts);
    }
    for (int64_t k = 0; k < o->n_parts; k++) {
        const tess_adamw_part *p = &o->part[k];
        const int64_t end = k + 1 < o->n_parts ? p[1].grad : n;
        if ((k == 0 && p->grad != 0) || end < p->grad || end > n || p->param < 0 ||
            p->param + end - p->grad > n_param) {
            return TESS_FAIL(TESS_INVALID, "adamw: part %lld lies beyond its states", (long long)k);
        }
    }
    return TESS_OK;
}

/* Without ranges m and v are like grad, narrow like param, and without parts all are. */
static tess_status check_alike(const tess_adamw_options *o, const tess_infer *c)
{
    const tess_operand wide = {.dtype = TESS_F32, .shape = c->in[GRAD].shape};
    TESS_TRY(o->n_parts ? TESS_OK : tess__expect_like("param", &c->in[PARAM], &wide));
    TESS_TRY(tess__expect_like("m", &c->in[M], &wide));
    if (c->n_in > NARROW) {
        const tess_operand narrow = {.dtype = TESS_BF16, .shape = c->in[PARAM].shape};
        TESS_TRY(tess__expect_like("narrow", &c->in[NARROW], &narrow));
    }
    const int64_t n = c->in[GRAD].shape.dim[0];
    TESS_TRY(check_parts(o, n, c->in[PARAM].shape.dim[0]));
    return o->begin >= 0 && o->begin <= n
               ? TESS_OK
               : TESS_FAIL(TESS_INVALID, "adamw: begin %lld lies beyond grad", (long long)o->begin);
}

static tess_status infer(tess_infer *c)
{
    const tess_operand hyper = {.dtype = TESS_F32, .shape = TESS_SHAPE_OF(TESS_HYPER_COUNT)};
    const tess_operand sumsq = {.dtype = TESS_F32, .shape = TESS_SHAPE_OF(1)};
    const tess_adamw_options *o = c->attrs;
    const tess_dtype grad = c->in[GRAD].dtype == TESS_BF16 ? TESS_BF16 : TESS_F32;
    TESS_TRY(tess__expect("param", &c->in[PARAM], TESS_F32, 1));
    TESS_TRY(tess__expect("grad", &c->in[GRAD], grad, 1));
    TESS_TRY(tess__expect("m", &c->in[M], TESS_F32, 1));
    TESS_TRY(tess__expect_like("v", &c->in[V], &c->in[M]));
    TESS_TRY(tess__expect_like("hyper", &c->in[HYPER], &hyper));
    TESS_TRY(tess__expect_like("sumsq", &c->in[SUMSQ], &sumsq));
    if (c->n_in > NARROW) {
        TESS_TRY(tess__expect("narrow", &c->in[NARROW], TESS_BF16, 1));
    }
    return o->n_ranges ? check_ranges(o, c) : check_alike(o, c);
}

static float grad_factor(const tess_exec *e)
{
    const tess_adamw_options *o = e->attrs;
    return tess__grad_factor(e->in[HYPER].data, *(const float *)e->in[SUMSQ].data, o->clip);
}

/* At most BLOCK elements where grad or narrow is bf16. */
static void update(const tess_exec *e, const tess_adamw_range *r)
{
    const tess_kernels *k = tess__kernels();
    const tess_adamw_options *o = e->attrs;
    const float *h = e->in[HYPER].data;
    const tess_dtype t = e->in[GRAD].dtype;
    float *param = (float *)e->in[PARAM].data + r->param, wide[BLOCK];
    void *grad = tess__at_mut(e->in[GRAD].data, t, r->grad);
    if (t == TESS_BF16) {
        k->convert(TESS_F32, wide, t, grad, r->n);
    }
    k->adamw(param, t == TESS_BF16 ? wide : grad, (float *)e->in[M].data + r->moment,
             (float *)e->in[V].data + r->moment, r->n, h[TESS_HYPER_LR], o->beta1, o->beta2, o->eps,
             r->decayed ? o->weight_decay : 0.0f, h[TESS_HYPER_FIX1], h[TESS_HYPER_FIX2],
             grad_factor(e));
    if (t == TESS_BF16) {
        memset(grad, 0, (size_t)r->n * sizeof(uint16_t));
    }
    if (!e->in[NARROW].data) {
        return;
    }
    uint16_t *narrow = (uint16_t *)e->in[NARROW].data + r->narrow;
    if (o->stochastic) {
        k->round_stochastic(narrow, param, r->n, r->element, o->seed, (uint64_t)h[TESS_HYPER_STEP]);
    } else {
        k->convert(TESS_BF16, narrow, TESS_F32, param, r->n);
    }
}

static bool in_blocks(const tess_exec *e)
{
    return e->in[NARROW].data || e->in[GRAD].dtype == TESS_BF16;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Elements i to end: as many at a time as have one decay, one part, and a block's length. */
static void update_range(const tess_exec *e, int64_t i, int64_t end)
{
    const tess_adamw_options *o = e->attrs;
    int64_t part = 0;
    while (i < end) {
        while (part + 1 < o->n_parts && o->part[part + 1].grad <= i) {
            part++;
        }
        const bool decayed = i < o->n_decayed;
        int64_t n = least(end - i, in_blocks(e) ? BLOCK : end);
        n = least(n, decayed ? o->n_decayed - i : n);
        n = least(n, part + 1 < o->n_parts ? o->part[part + 1].grad - i : n);
        const int64_t shift = o->n_parts ? o->part[part].param - o->part[part].grad : 0;
        update(e, &(tess_adamw_range){.param = i + shift,
                                      .grad = i,
                                      .moment = i,
                                      .narrow = i + shift,
                                      .element = i + shift,
                                      .n = n,
                                      .decayed = decayed});
        i += n;
    }
}

static void zero_grad(const tess_exec *e, int64_t begin, int64_t n)
{
    const tess_dtype t = e->in[GRAD].dtype;
    memset(tess__at_mut(e->in[GRAD].data, t, begin), 0, (size_t)n * tess_dtype_bytes(t));
}

static void update_blocks(const tess_exec *e, const tess_adamw_range *all)
{
    for (int64_t i = 0; i < all->n; i += BLOCK) {
        tess_adamw_range r = *all;
        r.param += i;
        r.grad += i;
        r.moment += i;
        r.narrow += i;
        r.element += i;
        r.n = least(all->n - i, BLOCK);
        update(e, &r);
    }
}

static tess_status update_ranges(const tess_exec *e, bool finite)
{
    const tess_adamw_options *o = e->attrs;
#pragma omp parallel for schedule(dynamic)
    for (int64_t k = 0; k < o->n_ranges; k++) {
        if (finite) {
            update_blocks(e, &o->ranges[k]);
        } else {
            zero_grad(e, o->ranges[k].grad, o->ranges[k].n);
        }
    }
    return TESS_OK;
}

/* Elements begin to end at once, all from o->begin on where nothing is paged. */
typedef struct pass {
    const tess_exec *e;
    int64_t begin, n, piece;
    bool finite;
} pass;

static tess_range piece_of(const pass *p, int64_t k)
{
    const int64_t begin = k * p->piece;
    return (tess_range){p->begin + begin, least(p->piece, p->n - begin)};
}

/* Of param, and of its bf16 copy, where elements i to end of grad are. */
static int param_pages(const tess_exec *e, int64_t i, int64_t end, tess_pages *out)
{
    const tess_adamw_options *o = e->attrs;
    int n = 0;
    for (int64_t k = 0; k < o->n_parts || k < 1; k++) {
        const int64_t from = o->n_parts ? o->part[k].grad : 0;
        const int64_t to = k + 1 < o->n_parts ? o->part[k + 1].grad : end;
        const int64_t first = from > i ? from : i, last = least(to, end);
        const int64_t at = first + (o->n_parts ? o->part[k].param - from : 0);
        for (int x = 0; x < 2 && first < last; x++) {
            const int in = x == 0 ? PARAM : NARROW;
            if (e->in[in].data) {
                out[n++] = (tess_pages){.at = tess__at(e->in[in].data, e->in[in].dtype, at),
                                        .n_bytes = (size_t)(last - first) *
                                                   tess_dtype_bytes(e->in[in].dtype),
                                        .how = TESS_PAGED_WRITTEN};
            }
        }
    }
    return n;
}

static int pages(const void *ctx, int64_t k, tess_pages *out)
{
    const pass *p = ctx;
    const tess_range r = piece_of(p, k);
    int n = 0;
    for (int in = GRAD; in <= (p->finite ? V : GRAD); in++) {
        const tess_dtype t = p->e->in[in].dtype;
        out[n++] = (tess_pages){.at = tess__at(p->e->in[in].data, t, r.begin),
                                .n_bytes = (size_t)r.n * tess_dtype_bytes(t),
                                .how = in == GRAD ? TESS_PAGED_ZEROED : TESS_PAGED_WRITTEN};
    }
    return p->finite ? n + param_pages(p->e, r.begin, r.begin + r.n, out + n) : n;
}

static void run_piece(const void *ctx, int64_t k)
{
    const pass *p = ctx;
    const tess_range piece = piece_of(p, k);
    const tess_chunks c = tess__chunks(piece.n, 1);
#pragma omp parallel for schedule(static) if (c.n > 1)
    for (int64_t i = 0; i < c.n; i++) {
        const tess_range r = tess__chunk(&c, i);
        const int64_t begin = piece.begin + r.begin;
        if (p->finite) {
            update_range(p->e, begin, begin + r.n);
        } else {
            zero_grad(p->e, begin, r.n);
        }
    }
}

static tess_status cpu(const tess_exec *e)
{
    const tess_adamw_options *o = e->attrs;
    pass p = {.e = e,
              .begin = o->begin,
              .n = e->in[GRAD].shape.dim[0] - o->begin,
              .finite = isfinite(*(const float *)e->in[SUMSQ].data)};
    if (o->n_ranges > 0) {
        return update_ranges(e, p.finite);
    }
    p.piece = p.n > 0 ? p.n : 1;
    if (e->pager) {
        const int64_t blocks = tess__pager_piece(e->pager, NARROW);
        p.piece = blocks * (int64_t)(tess__pager_block(e->pager) / sizeof(float));
    }
    return tess__pager_pass(e->pager, &(tess_pass){.n = (p.n + p.piece - 1) / p.piece,
                                                   .pages = pages,
                                                   .run = run_piece,
                                                   .ctx = &p});
}

/* ---- reference ----------------------------------------------------------------------------- */

static int64_t place(const tess_adamw_options *o, int64_t i)
{
    int64_t shift = 0;
    for (int64_t k = 0; k < o->n_parts && o->part[k].grad <= i; k++) {
        shift = o->part[k].param - o->part[k].grad;
    }
    return i + shift;
}

/* narrow[i], rounded by chance; in f32, as all that references have. */
static float rounded(const tess_exec *e, float x, int64_t i)
{
    const tess_adamw_options *o = e->attrs;
    const uint64_t step = (uint64_t)((const float *)e->in[HYPER].data)[TESS_HYPER_STEP];
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    u += tess_philox(o->seed, step, (uint64_t)i / 4).v[i % 4] >> 16;
    u &= 0xffff0000u;
    memcpy(&x, &u, sizeof x);
    return x;
}

static void ref_element(const tess_exec *e, const tess_adamw_range *r)
{
    const tess_adamw_options *o = e->attrs;
    const float *h = e->in[HYPER].data;
    float *p = (float *)e->in[PARAM].data + r->param, *m = (float *)e->in[M].data + r->moment;
    float *v = (float *)e->in[V].data + r->moment;
    const double d = (double)((float *)e->in[GRAD].data)[r->grad] * (double)grad_factor(e);
    const double b1 = (double)o->beta1, b2 = (double)o->beta2, lr = (double)h[TESS_HYPER_LR];
    const double decay = r->decayed ? (double)o->weight_decay : 0;
    const double first = b1 * (double)*m + (1 - b1) * d;
    const double second = b2 * (double)*v + (1 - b2) * d * d;
    *p = (float)((double)*p * (1 - lr * decay) -
                 lr * first * (double)h[TESS_HYPER_FIX1] /
                     (sqrt(second * (double)h[TESS_HYPER_FIX2]) + (double)o->eps));
    *m = (float)first;
    *v = (float)second;
    if (e->in[NARROW].data) {
        ((float *)e->in[NARROW].data)[r->narrow] = o->stochastic ? rounded(e, *p, r->element) : *p;
    }
}

/* Where element i of grad belongs; n 0: nowhere. */
static tess_adamw_range ref_place(const tess_adamw_options *o, int64_t i)
{
    const int64_t at = o->n_ranges ? 0 : place(o, i);
    tess_adamw_range one = {.param = at,
                            .grad = i,
                            .moment = i,
                            .narrow = at,
                            .element = at,
                            .n = i >= o->begin,
                            .decayed = i < o->n_decayed};
    for (int64_t k = 0; k < o->n_ranges; k++) {
        const tess_adamw_range *r = &o->ranges[k];
        const int64_t j = i - r->grad;
        one.n = k == 0 ? 0 : one.n;
        if (j >= 0 && j < r->n) {
            one = (tess_adamw_range){.param = r->param + j,
                                     .grad = i,
                                     .moment = r->moment + j,
                                     .narrow = r->narrow + j,
                                     .element = r->element + j,
                                     .n = 1,
                                     .decayed = r->decayed};
        }
    }
    return one;
}

static tess_status ref(const tess_exec *e)
{
    const bool finite = isfinite(*(const float *)e->in[SUMSQ].data);
    for (int64_t i = 0; i < e->in[GRAD].shape.dim[0]; i++) {
        const tess_adamw_range r = ref_place(e->attrs, i);
        if (r.n > 0) {
            if (finite) {
                ref_element(e, &r);
            }
            ((float *)e->in[GRAD].data)[i] = 0;
        }
    }
    return TESS_OK;
}

static void print(const void *attrs, tess_buf *out)
{
    const tess_adamw_options *o = attrs;
    tess_buf_addf(out, "beta=%g,%g eps=%g decay=%g/%lld clip=%g", (double)o->beta1,
                  (double)o->beta2, (double)o->eps, (double)o->weight_decay,
                  (long long)o->n_decayed, (double)o->clip);
    if (o->begin > 0) {
        tess_buf_addf(out, " begin=%lld", (long long)o->begin);
    }
    for (int64_t k = 0; k < o->n_parts; k++) {
        tess_buf_addf(out, " %lld:%lld", (long long)o->part[k].grad, (long long)o->part[k].param);
    }
    if (o->n_ranges > 0) {
        tess_buf_addf(out, " %lld ranges", (long long)o->n_ranges);
    }
    if (o->stochastic) {
        tess_buf_addf(out, " stochastic=%llu", (unsigned long long)o->seed);
    }
}

/* ---- cases --------------------------------------------------------------------------------- */

static const tess_adamw_options clipped = {.beta1 = 0.9f,
                                           .beta2 = 0.98f,
                                           .eps = 1e-6f,
                                           .weight_decay = 0.2f,
                                           .clip = 0.5f,
                                           .n_decayed = 100};

static tess_value build_with(tess_graph *g, const tess_value *in, tess_adamw_options o)
{
    tess_adamw(g, in[0], in[1], in[2], in[3], in[4], in[5], o);
    return 0;
}

static tess_value build(tess_graph *g, const tess_value *in)
{
    return build_with(g, in, clipped);
}

static tess_value build_free(tess_graph *g, const tess_value *in)
{
    return build_with(g, in, (tess_adamw_options){.beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f});
}

static tess_value build_rest(tess_graph *g, const tess_value *in)
{
    return build_with(g, in,
                      (tess_adamw_options){.beta1 = 0.9f,
                                           .beta2 = 0.98f,
                                           .eps = 1e-6f,
                                           .weight_decay = 0.2f,
                                           .begin = 20000,
                                           .n_decayed = 30000});
}

/* Three parts of a param with frozen gaps; where decay ends, and where the second part lies, no
 * run of four is whole. */
static tess_value build_parts(tess_graph *g, const tess_value *in)
{
    tess_adamw_options o = clipped;
    o.n_decayed = 20003;
    o.n_parts = 3;
    o.part[0] = (tess_adamw_part){0, 16};
    o.part[1] = (tess_adamw_part){9999, 12002};
    o.part[2] = (tess_adamw_part){32000, 40000};
    o.narrow = in[6];
    return build_with(g, in, o);
}

static tess_value build_narrow(tess_graph *g, const tess_value *in)
{
    tess_adamw_options o = clipped;
    o.narrow = in[6];
    o.begin = 7;
    return build_with(g, in, o);
}

static tess_value build_stochastic(tess_graph *g, const tess_value *in)
{
    tess_adamw_options o = clipped;
    o.narrow = in[6];
    o.stochastic = true;
    o.seed = 0x123456789abcdefull;
    return build_with(g, in, o);
}

/* Each run is laid out in its own way; one range is empty, and rounding goes by the element. */
static const tess_adamw_range ranges[] = {
    {.param = 0, .grad = 16, .moment = 32, .narrow = 64, .element = 96, .n = 16, .decayed = true},
    {.param = 48, .grad = 48, .moment = 48, .narrow = 48, .element = 48, .n = 0},
    {.param = 20000, .grad = 9000, .moment = 12000, .narrow = 30000, .element = 400, .n = 9777},
};

static tess_value build_ranges(tess_graph *g, const tess_value *in)
{
    tess_adamw_options o = clipped;
    o.narrow = in[6];
    o.stochastic = true;
    o.seed = 5;
    o.ranges = ranges;
    o.n_ranges = TESS_COUNT(ranges);
    return build_with(g, in, o);
}

#define CASE_OF(label, n_inputs, n_param, n, grad_dtype, processors, f)                            \
    {                                                                                              \
        .name = (label), .n_in = (n_inputs),                                                       \
        .in = {{TESS_F32, {1, {n_param}}, .no_grad = true},                                        \
               {(grad_dtype), {1, {n}}, .no_grad = true},                                          \
               {TESS_F32, {1, {n}}, .no_grad = true},                                              \
               {TESS_F32, {1, {n}}, TESS_FILL_POSITIVE, .no_grad = true},                          \
               {TESS_F32, {1, {TESS_HYPER_COUNT}}, TESS_FILL_POSITIVE, .no_grad = true},           \
               {TESS_F32, {1, {1}}, TESS_FILL_POSITIVE, .no_grad = true},                          \
               {TESS_BF16, {1, {n_param}}, .no_grad = true}},                                      \
        .build = (f), .reduction = 4, .on_processors = (processors)                                \
    }
#define CASE(label, n_inputs, n_param, n, f)                                                       \
    CASE_OF(label, n_inputs, n_param, n, TESS_F32, false, f)
static const tess_case cases[] = {
    CASE_OF("ranges", 7, 60000, 40001, TESS_F32, true, build_ranges),
    CASE_OF("bf16_grad", 6, 40001, 40001, TESS_BF16, true, build_free),
    CASE_OF("bf16_ranges", 7, 60000, 40001, TESS_BF16, true, build_ranges),
    CASE("clipped", 6, 333, 333, build),
    CASE("free", 6, 40001, 40001, build_free),
    CASE("rest", 6, 40001, 40001, build_rest),
    CASE("parts", 7, 60000, 40001, build_parts),
    CASE("narrow", 7, 333, 333, build_narrow),
    CASE("stochastic", 7, 333, 333, build_stochastic),
};

const tess_op tess__op_adamw = {
    .name = "adamw",
    .n_in_min = 6,
    .n_in_max = 7,
    .attrs_bytes = sizeof(tess_adamw_options),
    .flags = TESS_OP_EFFECT | TESS_OP_PAGES,
    .state_mask = 15 | 1u << NARROW,
    .infer = infer,
    .cpu = cpu,
    .ref = ref,
    .print = print,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
