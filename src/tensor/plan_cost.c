/* SPDX-License-Identifier: Apache-2.0 */
/* What a plan's steps cost: operations and bytes of memory, for predictions of its time; and the
 * seconds that they took where the plan was profiled, for the rates that predictions rest on. */
#include "tensor/plan.h"

#include <string.h>

static double operand_bytes(const tess_operand *x)
{
    return x->shape.rank < 0
               ? 0
               : (double)tess_shape_count(&x->shape) * (double)tess_dtype_bytes(x->dtype);
}

/* Operators that read as much of their first input as they write. */
static bool reads_part(const tess_op *op)
{
    static const char *const names[] = {"slice_rows", "gather_rows", "embedding"};
    for (int64_t i = 0; i < TESS_COUNT(names); i++) {
        if (strcmp(op->name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

static double bytes_of(const tess_step *st)
{
    double out = 0, in = 0;
    for (int k = 0; k < st->op->n_out; k++) {
        out += operand_bytes(&st->out[k]);
    }
    for (int k = 0; k < st->n_in; k++) {
        const double x = operand_bytes(&st->in[k]);
        const bool part = k == 0 && reads_part(st->op);
        in += part ? (x < out ? x : out) : st->op->state_mask >> k & 1 ? 2 * x : x;
    }
    return in + out;
}

static tess_dtype dtype_of(const tess_step *st)
{
    for (int k = 0; k < st->n_in; k++) {
        if (st->in[k].shape.rank >= 0 &&
            (st->in[k].dtype == TESS_BF16 || st->in[k].dtype == TESS_F16)) {
            return st->in[k].dtype;
        }
    }
    return TESS_F32;
}

static bool is_like(const tess_op_cost *a, const tess_op_cost *b)
{
    return strcmp(a->op, b->op) == 0 && a->dtype == b->dtype && a->flops == b->flops &&
           a->bytes == b->bytes;
}

tess_status tess_plan_costs(const tess_plan *p, tess_op_cost **out, int64_t *out_n)
{
    int64_t n = 0;
    tess_op_cost *costs = *out = tess_alloc_array((size_t)p->n_steps + 1, sizeof *costs);
    *out_n = 0;
    if (!costs) {
        return TESS_NOMEM;
    }
    const double runs = p->n_runs > 0 ? (double)p->n_runs : 1;
    for (int64_t s = 0; s < p->n_steps; s++) {
        const tess_step *st = &p->steps[s];
        if (st->op->flags & TESS_OP_VIEW) {
            continue;
        }
        const tess_op_cost x = {
            .op = st->op->name, .dtype = dtype_of(st), .flops = st->flops, .bytes = bytes_of(st)};
        int64_t i = 0;
        while (i < n && !is_like(&costs[i], &x)) {
            i++;
        }
        if (i == n) {
            costs[n++] = x;
        }
        costs[i].n++;
        costs[i].seconds += st->seconds / runs;
    }
    for (int64_t i = 0; i < n; i++) {
        costs[i].seconds /= (double)costs[i].n;
    }
    *out_n = n;
    return TESS_OK;
}
