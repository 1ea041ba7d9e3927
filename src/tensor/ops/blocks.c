/* SPDX-License-Identifier: Apache-2.0 */
/* blocks: a matrix inside some of its blocks, scaled; zeros elsewhere.
 *
 *   w (M,R) f32 -> y (M,R): y = scale * w inside the blocks, 0 outside.
 *   Gradient: the same of dy, so what lies outside never moves.
 *   No aliasing.  Deterministic; one pass.  For the B of low-rank adapters whose parts act on rows
 *   of one stacked weight: small, so one thread does it. */
#include "tensor/op.h"

#include <string.h>

tess_value tess_blocks(tess_graph *g, tess_value w, const tess_blocks_options *o)
{
    return TESS_NODE(g, &tess__op_blocks, o, w);
}

static bool inside(int64_t begin, int64_t n, int64_t end)
{
    return begin >= 0 && n >= 0 && begin <= end - n;
}

static tess_status infer(tess_infer *c)
{
    const tess_blocks_options *o = c->attrs;
    TESS_TRY(tess__expect("w", &c->in[0], TESS_F32, 2));
    const int64_t *dim = c->in[0].shape.dim;
    if (o->n_blocks < 0 || o->n_blocks > TESS_BLOCKS) {
        return TESS_FAIL(TESS_INVALID, "blocks: expected 0 to %d, found %lld", TESS_BLOCKS,
                         (long long)o->n_blocks);
    }
    for (int64_t i = 0; i < o->n_blocks; i++) {
        if (!inside(o->block[i].row, o->block[i].n_rows, dim[0]) ||
            !inside(o->block[i].col, o->block[i].n_cols, dim[1])) {
            return TESS_FAIL(TESS_INVALID, "blocks: block %lld does not lie inside (%lld,%lld)",
                             (long long)i, (long long)dim[0], (long long)dim[1]);
        }
    }
    c->out[0] = c->in[0];
    return TESS_OK;
}

static void vjp(tess_vjp *c)
{
    c->din[0] = tess_blocks(c->g, c->dout[0], c->attrs);
}

static tess_status cpu(const tess_exec *e)
{
    const tess_blocks_options *o = e->attrs;
    const float *w = e->in[0].data;
    float *y = e->out[0].data;
    const int64_t width = e->in[0].shape.dim[1];
    memset(y, 0, (size_t)tess_shape_count(&e->in[0].shape) * sizeof *y);
    for (int64_t i = 0; i < o->n_blocks; i++) {
        for (int64_t r = 0; r < o->block[i].n_rows; r++) {
            const int64_t first = (o->block[i].row + r) * width + o->block[i].col;
            for (int64_t k = first; k < first + o->block[i].n_cols; k++) {
                y[k] = o->scale * w[k];
            }
        }
    }
    return TESS_OK;
}

static tess_status ref(const tess_exec *e)
{
    const tess_blocks_options *o = e->attrs;
    const int64_t rows = e->in[0].shape.dim[0], width = e->in[0].shape.dim[1];
    for (int64_t i = 0; i < rows * width; i++) {
        float factor = 0;
        for (int64_t b = 0; b < o->n_blocks; b++) {
            const int64_t r = i / width - o->block[b].row, k = i % width - o->block[b].col;
            if (r >= 0 && r < o->block[b].n_rows && k >= 0 && k < o->block[b].n_cols) {
                factor = o->scale;
            }
        }
        ((float *)e->out[0].data)[i] = factor == 0 ? 0 : factor * ((const float *)e->in[0].data)[i];
    }
    return TESS_OK;
}

static void print(const void *attrs, tess_buf *out)
{
    const tess_blocks_options *o = attrs;
    tess_buf_addf(out, "%g", (double)o->scale);
    for (int64_t i = 0; i < o->n_blocks; i++) {
        tess_buf_addf(out, " %lld+%lldx%lld+%lld", (long long)o->block[i].row,
                      (long long)o->block[i].n_rows, (long long)o->block[i].col,
                      (long long)o->block[i].n_cols);
    }
}

static tess_value build_two(tess_graph *g, const tess_value *in)
{
    return tess_blocks(g, in[0],
                       &(tess_blocks_options){
                           .scale = 0.75f, .n_blocks = 2, .block = {{0, 5, 0, 3}, {9, 4, 3, 2}}});
}

static tess_value build_whole(tess_graph *g, const tess_value *in)
{
    return tess_blocks(
        g, in[0], &(tess_blocks_options){.scale = -2, .n_blocks = 1, .block = {{0, 300, 0, 8}}});
}

static const tess_case cases[] = {
    {.name = "two", .n_in = 1, .in = {{TESS_F32, {2, {14, 5}}}}, .build = build_two},
    {.name = "whole", .n_in = 1, .in = {{TESS_F32, {2, {300, 8}}}}, .build = build_whole},
};

const tess_op tess__op_blocks = {
    .name = "blocks",
    .n_in_min = 1,
    .n_in_max = 1,
    .n_out = 1,
    .attrs_bytes = sizeof(tess_blocks_options),
    .infer = infer,
    .vjp = vjp,
    .cpu = cpu,
    .ref = ref,
    .print = print,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
