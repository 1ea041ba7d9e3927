/* SPDX-License-Identifier: Apache-2.0 */
/* gather_rows: chosen rows of each entry.
 *
 *   x (B,P,C), ids (B,K) i32 -> y (B,K,C): y[b][k] = x[b][ids[b][k]]; an id outside 0..P-1 gives
 *   zeros and no gradient.  Gradient: dx (B,P,C), each row the sum of the rows of dy that were
 * taken from it, in their order, zeros where none was. f32 or bf16; no aliasing.  Deterministic: a
 * row of dx is written by one thread, which looks through its entry's ids.  Cost: 2 |y| forward;
 * |dy| + |dx| and B P K comparisons backward. */
#include "tensor/parallel.h"

#include <string.h>

static const tess_op grad_op;

typedef struct grad_attrs {
    int64_t n_rows; /* P */
} grad_attrs;

tess_value tess_gather_rows(tess_graph *g, tess_value x, tess_value ids)
{
    return TESS_NODE(g, &tess__op_gather_rows, NULL, x, ids);
}

static tess_status infer(tess_infer *c)
{
    const tess_operand *x = &c->in[0], *ids = &c->in[1];
    TESS_TRY(tess__expect("ids", ids, TESS_I32, 2));
    if (x->shape.rank != 3 || (x->dtype != TESS_F32 && x->dtype != TESS_BF16) ||
        x->shape.dim[0] != ids->shape.dim[0]) {
        return TESS_FAIL(TESS_INVALID,
                         "expected x (%lld,P,C) f32 or bf16, found rank %d, %lld entries, %s",
                         (long long)ids->shape.dim[0], x->shape.rank, (long long)x->shape.dim[0],
                         tess_dtype_name(x->dtype));
    }
    c->out[0] =
        (tess_operand){.dtype = x->dtype,
                       .shape = TESS_SHAPE_OF(x->shape.dim[0], ids->shape.dim[1], x->shape.dim[2])};
    return TESS_OK;
}

static void vjp(tess_vjp *c)
{
    const grad_attrs a = {.n_rows = tess_value_shape(c->g, c->in[0]).dim[1]};
    c->din[0] = TESS_NODE(c->g, &grad_op, &a, c->in[1], c->dout[0]);
}

static tess_status cpu(const tess_exec *e)
{
    const int64_t n_rows = e->in[0].shape.dim[1], k = e->in[1].shape.dim[1];
    const size_t row = (size_t)tess__last(&e->in[0].shape) * tess_dtype_bytes(e->in[0].dtype);
    const int32_t *ids = e->in[1].data;
    const tess_chunks c = tess__chunks(tess_shape_count(&e->in[1].shape), (int64_t)row);
#pragma omp parallel for schedule(static) if (c.n > 1)
    for (int64_t i = 0; i < c.n; i++) {
        const tess_range r = tess__chunk(&c, i);
        for (int64_t j = r.begin; j < r.begin + r.n; j++) {
            uint8_t *y = (uint8_t *)e->out[0].data + (size_t)j * row;
            const uint8_t *x = e->in[0].data;
            if (ids[j] < 0 || ids[j] >= n_rows) {
                memset(y, 0, row);
            } else {
                memcpy(y, x + (size_t)(j / k * n_rows + ids[j]) * row, row);
            }
        }
    }
    return TESS_OK;
}

static tess_status grad_infer(tess_infer *c)
{
    const grad_attrs *a = c->attrs;
    const tess_operand *dy = &c->in[1];
    c->out[0] = (tess_operand){
        .dtype = dy->dtype, .shape = TESS_SHAPE_OF(dy->shape.dim[0], a->n_rows, dy->shape.dim[2])};
    return TESS_OK;
}

/* The sum of the rows of dy (K,C) whose id is `id`; several are added in f32. */
static void sum_taken(const int32_t *ids, int64_t k, int64_t id, tess_dtype t, const void *dy,
                      int64_t width, void *dx)
{
    int64_t n = 0, first = 0;
    for (int64_t j = k - 1; j >= 0; j--) {
        n += ids[j] == id;
        first = ids[j] == id ? j : first;
    }
    if (n == 0) {
        memset(dx, 0, (size_t)width * tess_dtype_bytes(t));
    } else if (n == 1) {
        memcpy(dx, tess__at(dy, t, first * width), (size_t)width * tess_dtype_bytes(t));
    } else {
        enum { BAND = 64 };
        for (int64_t c = 0; c < width; c += BAND) {
            const int64_t band = width - c < BAND ? width - c : BAND;
            float sum[BAND] = {0};
            for (int64_t j = first; j < k; j++) {
                if (ids[j] == id) {
                    tess__kernels()->axpy(t, sum, tess__at(dy, t, j * width + c), 1.0f, band);
                }
            }
            tess__kernels()->convert(t, tess__at_mut(dx, t, c), TESS_F32, sum, band);
        }
    }
}

static tess_status grad_cpu(const tess_exec *e)
{
    const int64_t k = e->in[0].shape.dim[1], n_rows = e->out[0].shape.dim[1];
    const int64_t width = tess__last(&e->out[0].shape);
    const tess_dtype t = e->out[0].dtype;
    const int32_t *ids = e->in[0].data;
    const tess_chunks c = tess__chunks(e->out[0].shape.dim[0] * n_rows, width);
#pragma omp parallel for schedule(static) if (c.n > 1)
    for (int64_t i = 0; i < c.n; i++) {
        const tess_range r = tess__chunk(&c, i);
        for (int64_t j = r.begin; j < r.begin + r.n; j++) {
            const int64_t b = j / n_rows;
            sum_taken(ids + b * k, k, j % n_rows, t, tess__at(e->in[1].data, t, b * k * width),
                      width, tess__at_mut(e->out[0].data, t, j * width));
        }
    }
    return TESS_OK;
}

static tess_status ref(const tess_exec *e)
{
    const int64_t n_rows = e->in[0].shape.dim[1], width = e->in[0].shape.dim[2];
    const int64_t k = e->in[1].shape.dim[1];
    const float *x = e->in[0].data;
    for (int64_t i = 0; i < tess_shape_count(&e->out[0].shape); i++) {
        const int64_t id = ((const int32_t *)e->in[1].data)[i / width], b = i / width / k;
        ((float *)e->out[0].data)[i] =
            id < 0 || id >= n_rows ? 0 : x[(b * n_rows + id) * width + i % width];
    }
    return TESS_OK;
}

static tess_status grad_ref(const tess_exec *e)
{
    const int64_t k = e->in[0].shape.dim[1], n_rows = e->out[0].shape.dim[1];
    const int64_t width = e->out[0].shape.dim[2];
    const float *dy = e->in[1].data;
    for (int64_t i = 0; i < tess_shape_count(&e->out[0].shape); i++) {
        const int64_t b = i / width / n_rows, p = i / width % n_rows;
        double sum = 0;
        for (int64_t j = b * k; j < (b + 1) * k; j++) {
            const bool hit = ((const int32_t *)e->in[0].data)[j] == p;
            sum += hit ? (double)dy[j * width + i % width] : 0;
        }
        ((float *)e->out[0].data)[i] = (float)sum;
    }
    return TESS_OK;
}

static tess_value build(tess_graph *g, const tess_value *in)
{
    return tess_gather_rows(g, in[0], in[1]);
}

/* Ids repeat; `limit` above P: ids beyond the rows. */
static const tess_case cases[] = {
    {.name = "f32",
     .n_in = 2,
     .in = {{TESS_F32, {3, {3, 9, 20}}}, {TESS_I32, {2, {3, 5}}, TESS_FILL_INDEX, 9, true}},
     .build = build,
     .reduction = 5},
    {.name = "beyond",
     .n_in = 2,
     .in = {{TESS_F32, {3, {2, 4, 7}}}, {TESS_I32, {2, {2, 6}}, TESS_FILL_INDEX, 6, true}},
     .build = build,
     .reduction = 6},
    {.name = "bf16",
     .n_in = 2,
     .in = {{TESS_BF16, {3, {2, 70, 96}}}, {TESS_I32, {2, {2, 40}}, TESS_FILL_INDEX, 70, true}},
     .build = build,
     .reduction = 6},
};

static const tess_op grad_op = {
    .name = "gather_rows_grad",
    .n_in_min = 2,
    .n_in_max = 2,
    .n_out = 1,
    .attrs_bytes = sizeof(grad_attrs),
    .infer = grad_infer,
    .cpu = grad_cpu,
    .ref = grad_ref,
};
static const tess_op *const extra[] = {&grad_op, NULL};

const tess_op tess__op_gather_rows = {
    .name = "gather_rows",
    .n_in_min = 2,
    .n_in_max = 2,
    .n_out = 1,
    .infer = infer,
    .vjp = vjp,
    .cpu = cpu,
    .ref = ref,
    .extra = extra,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
