/* SPDX-License-Identifier: Apache-2.0 */
/* embedding: rows of a table.
 *
 *   table (V,C) f32 or bf16, ids (...) i32 -> y (...,C) f32 or bf16; an id outside 0..V-1 gives
 * zeros and no gradient.  Gradient: a dense (V,C) f32 sum of the rows of dy. No aliasing.
 * Deterministic: a thread owns a band of columns and adds the rows of dy to it in their order, so
 * frequent ids neither race nor unbalance.  Cost: |y| forward; V C + |dy| backward. */
#include "tensor/onnx.h"
#include "tensor/parallel.h"

#include <string.h>

typedef struct embedding_attrs {
    tess_dtype dtype;
} embedding_attrs;

typedef struct grad_attrs {
    int64_t rows; /* V */
} grad_attrs;

enum { BAND = 32 }; /* columns: two cache lines of f32 */
static const tess_op grad_op;

tess_value tess_embedding(tess_graph *g, tess_value table, tess_value ids, tess_dtype dtype)
{
    const embedding_attrs a = {.dtype = dtype};
    return TESS_NODE(g, &tess__op_embedding, &a, table, ids);
}

static tess_status infer(tess_infer *c)
{
    const embedding_attrs *a = c->attrs;
    const tess_operand *ids = &c->in[1];
    TESS_TRY(
        tess__expect("table", &c->in[0], c->in[0].dtype == TESS_BF16 ? TESS_BF16 : TESS_F32, 2));
    if (ids->dtype != TESS_I32 || ids->shape.rank >= TESS_MAX_RANK) {
        return TESS_FAIL(TESS_INVALID, "embedding: expected ids i32, found %s",
                         tess_dtype_name(ids->dtype));
    }
    if (a->dtype != TESS_F32 && a->dtype != TESS_BF16) {
        return TESS_FAIL(TESS_INVALID, "embedding: expected to make f32 or bf16, found %s",
                         tess_dtype_name(a->dtype));
    }
    c->out[0] = (tess_operand){.dtype = a->dtype, .shape = ids->shape};
    c->out[0].shape.dim[c->out[0].shape.rank++] = c->in[0].shape.dim[1];
    return TESS_OK;
}

static void vjp(tess_vjp *c)
{
    const grad_attrs a = {.rows = tess_value_shape(c->g, c->in[0]).dim[0]};
    c->din[0] = TESS_NODE(c->g, &grad_op, &a, c->in[1], c->dout[0]);
}

static tess_status grad_infer(tess_infer *c)
{
    const grad_attrs *a = c->attrs;
    c->out[0] = (tess_operand){.dtype = TESS_F32,
                               .shape = TESS_SHAPE_OF(a->rows, tess__last(&c->in[1].shape))};
    return TESS_OK;
}

static tess_status cpu(const tess_exec *e)
{
    const tess_kernels *k = tess__kernels();
    const int64_t n_rows = e->in[0].shape.dim[0], width = e->in[0].shape.dim[1];
    const int32_t *ids = e->in[1].data;
    const tess_dtype t = e->out[0].dtype, from = e->in[0].dtype;
    const tess_chunks c = tess__chunks(tess_shape_count(&e->in[1].shape), width);
#pragma omp parallel for schedule(static) if (c.n > 1)
    for (int64_t i = 0; i < c.n; i++) {
        const tess_range r = tess__chunk(&c, i);
        for (int64_t j = r.begin; j < r.begin + r.n; j++) {
            void *y = tess__at_mut(e->out[0].data, t, j * width);
            if (ids[j] < 0 || ids[j] >= n_rows) {
                memset(y, 0, (size_t)width * tess_dtype_bytes(t));
            } else {
                k->convert(t, y, from, tess__at(e->in[0].data, from, ids[j] * width), width);
            }
        }
    }
    return TESS_OK;
}

static tess_status grad_cpu(const tess_exec *e)
{
    const tess_kernels *k = tess__kernels();
    const int64_t n_rows = e->out[0].shape.dim[0], width = e->out[0].shape.dim[1];
    const int64_t n = tess_shape_count(&e->in[0].shape);
    const int32_t *ids = e->in[0].data;
    const tess_dtype t = e->in[1].dtype;
    float *dtable = e->out[0].data;
    const tess_chunks c = tess__chunks(n_rows, width);
#pragma omp parallel for schedule(static) if (c.n > 1)
    for (int64_t i = 0; i < c.n; i++) {
        const tess_range r = tess__chunk(&c, i);
        tess__zero(dtable + r.begin * width, r.n * width);
    }
#pragma omp parallel for schedule(static)
    for (int64_t j0 = 0; j0 < width; j0 += BAND) {
        const int64_t band = width - j0 < BAND ? width - j0 : BAND;
        for (int64_t i = 0; i < n; i++) {
            if (ids[i] >= 0 && ids[i] < n_rows) {
                k->axpy(t, dtable + ids[i] * width + j0, tess__at(e->in[1].data, t, i * width + j0),
                        1.0f, band);
            }
        }
    }
    return TESS_OK;
}

static tess_status ref(const tess_exec *e)
{
    const int64_t n_rows = e->in[0].shape.dim[0], width = e->in[0].shape.dim[1];
    const int32_t *ids = e->in[1].data;
    for (int64_t i = 0; i < tess_shape_count(&e->out[0].shape); i++) {
        const int64_t id = ids[i / width];
        ((float *)e->out[0].data)[i] =
            id < 0 || id >= n_rows ? 0 : ((const float *)e->in[0].data)[id * width + i % width];
    }
    return TESS_OK;
}

static tess_status grad_ref(const tess_exec *e)
{
    const int64_t n_rows = e->out[0].shape.dim[0], width = e->out[0].shape.dim[1];
    const int64_t n = tess_shape_count(&e->in[0].shape);
    const float *dy = e->in[1].data;
    for (int64_t i = 0; i < n_rows * width; i++) {
        double sum = 0;
        for (int64_t j = 0; j < n; j++) {
            const bool hit = ((const int32_t *)e->in[0].data)[j] == i / width;
            sum += hit ? (double)dy[j * width + i % width] : 0;
        }
        ((float *)e->out[0].data)[i] = (float)sum;
    }
    return TESS_OK;
}

/* An id outside the table is an error of the consumer's Gather, not a row of zeros. */
static const char *onnx(const tess_onnx_emit *c)
{
    return TESS_ONNX(c->to, "Gather", tess__onnx_in(c, 0), tess__onnx_in(c, 1));
}

static tess_value build_f32(tess_graph *g, const tess_value *in)
{
    return tess_embedding(g, in[0], in[1], TESS_F32);
}

static tess_value build_bf16(tess_graph *g, const tess_value *in)
{
    return tess_embedding(g, in[0], in[1], TESS_BF16);
}

/* `limit` above V: ids beyond the table. */
static const tess_case cases[] = {
    {.name = "f32",
     .n_in = 2,
     .in = {{TESS_F32, {2, {11, 45}}}, {TESS_I32, {1, {70}}, TESS_FILL_INDEX, 11, true}},
     .build = build_f32,
     .reduction = 20},
    {.name = "beyond",
     .n_in = 2,
     .in = {{TESS_F32, {2, {5, 7}}}, {TESS_I32, {2, {3, 6}}, TESS_FILL_INDEX, 9, true}},
     .build = build_f32,
     .reduction = 18},
    {.name = "bf16",
     .n_in = 2,
     .in = {{TESS_F32, {2, {300, 100}}}, {TESS_I32, {1, {400}}, TESS_FILL_INDEX, 300, true}},
     .build = build_bf16,
     .reduction = 10},
    {.name = "bf16_table",
     .n_in = 2,
     .in = {{TESS_BF16, {2, {30, 19}}, .no_grad = true},
            {TESS_I32, {1, {40}}, TESS_FILL_INDEX, 31, true}},
     .build = build_bf16,
     .reduction = 1,
     .on_processors = true},
};

static const tess_op grad_op = {
    .name = "embedding_grad",
    .n_in_min = 2,
    .n_in_max = 2,
    .n_out = 1,
    .attrs_bytes = sizeof(grad_attrs),
    .infer = grad_infer,
    .cpu = grad_cpu,
    .ref = grad_ref,
};
static const tess_op *const extra[] = {&grad_op, NULL};

const tess_op tess__op_embedding = {
    .name = "embedding",
    .n_in_min = 2,
    .n_in_max = 2,
    .n_out = 1,
    .attrs_bytes = sizeof(embedding_attrs),
    .infer = infer,
    .vjp = vjp,
    .cpu = cpu,
    .ref = ref,
    .onnx = onnx,
    .extra = extra,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
