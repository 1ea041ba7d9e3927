/* SPDX-License-Identifier: Apache-2.0 */
/* adamw: the decoupled-decay Adam of Loshchilov & Hutter 2019 over flat memory, an effect.
 *
 *   states param, grad, m, v (n) f32; hyper (4) f32: lr, c1 = 1/(1-beta1^t), c2 = 1/(1-beta2^t),
 *   grad_scale; sumsq (1) f32 of grad.
 *   d = grad * grad_scale * min(1, clip / (sqrt(sumsq) * grad_scale))   (clip 0: no limit)
 *   m = beta1 m + (1-beta1) d;  v = beta2 v + (1-beta2) d^2
 *   param = param (1 - lr decay) - lr m c1 / (sqrt(v c2) + eps);  grad = 0
 *   Decay applies to the first n_decayed elements; the first `begin` are another optimizer's and
 *   stay as they are.  A sumsq that is not finite leaves all but grad
 *   as it was.  Deterministic; one pass. */
#include "tensor/optimizer.h"
#include "tensor/parallel.h"

enum { PARAM, GRAD, M, V, HYPER, SUMSQ };

void tess_adamw(tess_graph *g, tess_value param, tess_value grad, tess_value m, tess_value v,
                tess_value hyper, tess_value sumsq, tess_adamw_options o)
{
    TESS_NODE(g, &tess__op_adamw, &o, param, grad, m, v, hyper, sumsq);
}

static tess_status infer(tess_infer *c)
{
    const tess_operand hyper = {.dtype = TESS_F32, .shape = TESS_SHAPE_OF(4)};
    const tess_operand sumsq = {.dtype = TESS_F32, .shape = TESS_SHAPE_OF(1)};
    TESS_TRY(tess__expect("param", &c->in[PARAM], TESS_F32, 1));
    TESS_TRY(tess__expect_like("grad", &c->in[GRAD], &c->in[PARAM]));
    TESS_TRY(tess__expect_like("m", &c->in[M], &c->in[PARAM]));
    TESS_TRY(tess__expect_like("v", &c->in[V], &c->in[PARAM]));
    TESS_TRY(tess__expect_like("hyper", &c->in[HYPER], &hyper));
    TESS_TRY(tess__expect_like("sumsq", &c->in[SUMSQ], &sumsq));
    const tess_adamw_options *o = c->attrs;
    return o->begin >= 0 && o->begin <= c->in[PARAM].shape.dim[0]
               ? TESS_OK
               : TESS_FAIL(TESS_INVALID, "adamw: begin %lld lies beyond param",
                           (long long)o->begin);
}

static float grad_factor(const tess_exec *e)
{
    const tess_adamw_options *o = e->attrs;
    return tess__grad_factor(e->in[HYPER].data, *(const float *)e->in[SUMSQ].data, o->clip);
}

/* One run of elements with one decay. */
static void update(const tess_exec *e, int64_t begin, int64_t n, float decay)
{
    const tess_adamw_options *o = e->attrs;
    const float *h = e->in[HYPER].data;
    tess__kernels()->adamw((float *)e->in[PARAM].data + begin, (float *)e->in[GRAD].data + begin,
                           (float *)e->in[M].data + begin, (float *)e->in[V].data + begin, n, h[0],
                           o->beta1, o->beta2, o->eps, decay, h[1], h[2], grad_factor(e));
}

static tess_status cpu(const tess_exec *e)
{
    const tess_adamw_options *o = e->attrs;
    const tess_chunks c = tess__chunks(e->in[PARAM].shape.dim[0] - o->begin, 1);
    const bool finite = isfinite(*(const float *)e->in[SUMSQ].data);
#pragma omp parallel for schedule(static) if (c.n > 1)
    for (int64_t i = 0; i < c.n; i++) {
        tess_range r = tess__chunk(&c, i);
        r.begin += o->begin;
        if (!finite) {
            tess__zero((float *)e->in[GRAD].data + r.begin, r.n);
            continue;
        }
        int64_t decayed = o->n_decayed - r.begin;
        decayed = decayed < 0 ? 0 : decayed > r.n ? r.n : decayed;
        update(e, r.begin, decayed, o->weight_decay);
        update(e, r.begin + decayed, r.n - decayed, 0.0f);
    }
    return TESS_OK;
}

static tess_status ref(const tess_exec *e)
{
    const tess_adamw_options *o = e->attrs;
    const float *h = e->in[HYPER].data;
    float *p = e->in[PARAM].data, *g = e->in[GRAD].data, *m = e->in[M].data, *v = e->in[V].data;
    const bool finite = isfinite(*(const float *)e->in[SUMSQ].data);
    for (int64_t i = o->begin; i < e->in[PARAM].shape.dim[0]; i++) {
        if (finite) {
            const double d = (double)g[i] * (double)grad_factor(e);
            const double b1 = (double)o->beta1, b2 = (double)o->beta2, lr = (double)h[0];
            const double decay = i < o->n_decayed ? (double)o->weight_decay : 0;
            const double first = b1 * (double)m[i] + (1 - b1) * d;
            const double second = b2 * (double)v[i] + (1 - b2) * d * d;
            p[i] =
                (float)((double)p[i] * (1 - lr * decay) -
                        lr * first * (double)h[1] / (sqrt(second * (double)h[2]) + (double)o->eps));
            m[i] = (float)first;
            v[i] = (float)second;
        }
        g[i] = 0;
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
}

static tess_value build(tess_graph *g, const tess_value *in)
{
    tess_adamw(g, in[0], in[1], in[2], in[3], in[4], in[5],
               (tess_adamw_options){.beta1 = 0.9f,
                                    .beta2 = 0.98f,
                                    .eps = 1e-6f,
                                    .weight_decay = 0.2f,
                                    .clip = 0.5f,
                                    .n_decayed = 100});
    return 0;
}

static tess_value build_free(tess_graph *g, const tess_value *in)
{
    tess_adamw(g, in[0], in[1], in[2], in[3], in[4], in[5],
               (tess_adamw_options){.beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f});
    return 0;
}

static tess_value build_rest(tess_graph *g, const tess_value *in)
{
    tess_adamw(g, in[0], in[1], in[2], in[3], in[4], in[5],
               (tess_adamw_options){.beta1 = 0.9f,
                                    .beta2 = 0.98f,
                                    .eps = 1e-6f,
                                    .weight_decay = 0.2f,
                                    .begin = 20000,
                                    .n_decayed = 30000});
    return 0;
}

#define CASE(label, n, f)                                                                          \
    {                                                                                              \
        .name = (label), .n_in = 6,                                                                \
        .in = {{TESS_F32, {1, {n}}, .no_grad = true},                                              \
               {TESS_F32, {1, {n}}, .no_grad = true},                                              \
               {TESS_F32, {1, {n}}, .no_grad = true},                                              \
               {TESS_F32, {1, {n}}, TESS_FILL_POSITIVE, .no_grad = true},                          \
               {TESS_F32, {1, {4}}, TESS_FILL_POSITIVE, .no_grad = true},                          \
               {TESS_F32, {1, {1}}, TESS_FILL_POSITIVE, .no_grad = true}},                         \
        .build = (f), .reduction = 4                                                               \
    }
static const tess_case cases[] = {
    CASE("clipped", 333, build),
    CASE("free", 40001, build_free),
    CASE("rest", 40001, build_rest),
};

const tess_op tess__op_adamw = {
    .name = "adamw",
    .n_in_min = 6,
    .n_in_max = 6,
    .attrs_bytes = sizeof(tess_adamw_options),
    .flags = TESS_OP_EFFECT,
    .state_mask = 15,
    .infer = infer,
    .cpu = cpu,
    .ref = ref,
    .print = print,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
