/* SPDX-License-Identifier: Apache-2.0 */
/* sumsq: the sum of squares of a flat run, for the norm of a gradient.
 *
 *   x (n) f32 or bf16 -> y (1) f32; summed in double per chunk and over chunks in order.  Not
 *   differentiable.  Deterministic; one pass. */
#include "tensor/pager.h"
#include "tensor/parallel.h"

tess_value tess_sumsq(tess_graph *g, tess_value x)
{
    return TESS_NODE(g, &tess__op_sumsq, NULL, x);
}

static tess_status infer(tess_infer *c)
{
    if (c->in[0].dtype != TESS_F32 && c->in[0].dtype != TESS_BF16) {
        return TESS_FAIL(TESS_INVALID, "sumsq: expected f32 or bf16, found %s",
                         tess_dtype_name(c->in[0].dtype));
    }
    c->out[0] = (tess_operand){.dtype = TESS_F32, .shape = TESS_SHAPE_OF(1)};
    return TESS_OK;
}

static tess_status prepare(tess_prepare *c)
{
    const tess_chunks k = tess__chunks(tess_shape_count(&c->in[0].shape), 1);
    c->scratch_bytes = (size_t)k.n * sizeof(double);
    return TESS_OK;
}

double tess__sumsq(tess_dtype t, const void *x, int64_t n)
{
    const tess_kernels *k = tess__kernels();
    float wide[4096];
    double sum = 0;
    if (t == TESS_F32) {
        return k->sumsq(x, n);
    }
    for (int64_t i = 0; i < n; i += TESS_COUNT(wide)) {
        const int64_t some = n - i < TESS_COUNT(wide) ? n - i : TESS_COUNT(wide);
        k->convert(TESS_F32, wide, t, tess__at(x, t, i), some);
        sum += k->sumsq(wide, some);
    }
    return sum;
}

void tess__sumsq_pieces(tess_dtype t, const void *x, const tess_sum_piece *pieces, int64_t n,
                        double *out)
{
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        out[i] = tess__sumsq(t, tess__at(x, t, pieces[i].offset), pieces[i].n);
    }
}

/* Chunks are summed a few at a time where x is paged. */
typedef struct pass {
    tess_dtype dtype;
    const void *x;
    double *partial;
    tess_chunks c;
    int64_t chunks; /* of a piece */
} pass;

static int64_t last_of(const pass *p, int64_t piece)
{
    const int64_t end = (piece + 1) * p->chunks;
    return end < p->c.n ? end : p->c.n;
}

static int pages(const void *ctx, int64_t piece, tess_pages *out)
{
    const pass *p = ctx;
    const tess_range first = tess__chunk(&p->c, piece * p->chunks);
    const tess_range last = tess__chunk(&p->c, last_of(p, piece) - 1);
    out[0] = (tess_pages){.at = tess__at(p->x, p->dtype, first.begin),
                          .n_bytes = (size_t)(last.begin + last.n - first.begin) *
                                     tess_dtype_bytes(p->dtype)};
    return 1;
}

static void sum_piece(const void *ctx, int64_t piece)
{
    const pass *p = ctx;
    const int64_t begin = piece * p->chunks, end = last_of(p, piece);
#pragma omp parallel for schedule(static) if (end - begin > 1)
    for (int64_t i = begin; i < end; i++) {
        const tess_range r = tess__chunk(&p->c, i);
        p->partial[i] = tess__sumsq(p->dtype, tess__at(p->x, p->dtype, r.begin), r.n);
    }
}

static tess_status cpu(const tess_exec *e)
{
    pass p = {.dtype = e->in[0].dtype,
              .x = e->in[0].data,
              .partial = e->scratch,
              .c = tess__chunks(tess_shape_count(&e->in[0].shape), 1)};
    p.chunks = p.c.n > 0 ? p.c.n : 1;
    if (tess__pager_has(e->pager, p.x)) {
        const int64_t room = (int64_t)tess__pager_block(e->pager) * tess__pager_piece(e->pager, 1);
        p.chunks = room / (p.c.rows_per * (int64_t)tess_dtype_bytes(p.dtype));
        p.chunks = p.chunks > 0 ? p.chunks : 1;
    }
    TESS_TRY(tess__pager_pass(e->pager, &(tess_pass){.n = (p.c.n + p.chunks - 1) / p.chunks,
                                                     .pages = pages,
                                                     .run = sum_piece,
                                                     .ctx = &p}));
    double sum = 0;
    for (int64_t i = 0; i < p.c.n; i++) {
        sum += p.partial[i];
    }
    *(float *)e->out[0].data = (float)sum;
    return TESS_OK;
}

static tess_status ref(const tess_exec *e)
{
    double sum = 0;
    for (int64_t i = 0; i < tess_shape_count(&e->in[0].shape); i++) {
        const double x = (double)((const float *)e->in[0].data)[i];
        sum += x * x;
    }
    *(float *)e->out[0].data = (float)sum;
    return TESS_OK;
}

static tess_value build(tess_graph *g, const tess_value *in)
{
    return tess_sumsq(g, in[0]);
}

static const tess_case cases[] = {
    {.name = "one",
     .n_in = 1,
     .in = {{TESS_F32, {1, {1}}, .no_grad = true}},
     .build = build,
     .reduction = 1},
    {.name = "chunks",
     .n_in = 1,
     .in = {{TESS_F32, {1, {100003}}, .no_grad = true}},
     .build = build,
     .reduction = 4},
    {.name = "bf16",
     .n_in = 1,
     .in = {{TESS_BF16, {1, {100003}}, .no_grad = true}},
     .build = build,
     .reduction = 4,
     .on_processors = true},
};

const tess_op tess__op_sumsq = {
    .name = "sumsq",
    .n_in_min = 1,
    .n_in_max = 1,
    .n_out = 1,
    .flags = TESS_OP_PAGES,
    .infer = infer,
    .prepare = prepare,
    .cpu = cpu,
    .ref = ref,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
