/* SPDX-License-Identifier: Apache-2.0 */
/* accumulate: state += x, an effect without outputs.
 *
 *   state f32, x f32 or bf16 with as many elements.  Not differentiable.  Deterministic; one pass.
 */
#include "tensor/parallel.h"

void tess_accumulate(tess_graph *g, tess_value state, tess_value x)
{
    TESS_NODE(g, &tess__op_accumulate, NULL, state, x);
}

static tess_status infer(tess_infer *c)
{
    const tess_operand *s = &c->in[0], *x = &c->in[1];
    if (s->dtype != TESS_F32 || (x->dtype != TESS_F32 && x->dtype != TESS_BF16) ||
        tess_shape_count(&s->shape) != tess_shape_count(&x->shape)) {
        return TESS_FAIL(TESS_INVALID, "accumulate: expected %lld elements, found %lld of %s",
                         (long long)tess_shape_count(&s->shape),
                         (long long)tess_shape_count(&x->shape), tess_dtype_name(x->dtype));
    }
    return TESS_OK;
}

static tess_status cpu(const tess_exec *e)
{
    const tess_kernels *k = tess__kernels();
    const tess_dtype t = e->in[1].dtype;
    const tess_chunks c = tess__chunks(tess_shape_count(&e->in[0].shape), 1);
#pragma omp parallel for schedule(static) if (c.n > 1)
    for (int64_t i = 0; i < c.n; i++) {
        const tess_range r = tess__chunk(&c, i);
        k->axpy(t, (float *)e->in[0].data + r.begin, tess__at(e->in[1].data, t, r.begin), 1.0f,
                r.n);
    }
    return TESS_OK;
}

static tess_status ref(const tess_exec *e)
{
    float *s = e->in[0].data;
    for (int64_t i = 0; i < tess_shape_count(&e->in[0].shape); i++) {
        s[i] += ((const float *)e->in[1].data)[i];
    }
    return TESS_OK;
}

static tess_value build(tess_graph *g, const tess_value *in)
{
    tess_accumulate(g, in[0], in[1]);
    return 0;
}

static const tess_case cases[] = {
    {.name = "f32",
     .n_in = 2,
     .in = {{TESS_F32, {2, {30, 7}}, .no_grad = true}, {TESS_F32, {2, {30, 7}}, .no_grad = true}},
     .build = build},
    {.name = "bf16",
     .n_in = 2,
     .in = {{TESS_F32, {1, {40000}}, .no_grad = true}, {TESS_BF16, {1, {40000}}, .no_grad = true}},
     .build = build},
};

const tess_op tess__op_accumulate = {
    .name = "accumulate",
    .n_in_min = 2,
    .n_in_max = 2,
    .flags = TESS_OP_EFFECT,
    .state_mask = 1,
    .infer = infer,
    .cpu = cpu,
    .ref = ref,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
