/* SPDX-License-Identifier: Apache-2.0 */
/* accumulate: state += x, an effect without outputs.
 *
 *   state and x f32 or bf16, of as many elements; a bf16 state is added to in f32 and rounded.  Not
 *   differentiable.  Deterministic; one pass. */
#include "tensor/parallel.h"

void tess_accumulate(tess_graph *g, tess_value state, tess_value x)
{
    TESS_NODE(g, &tess__op_accumulate, NULL, state, x);
}

enum { BLOCK = 4096 }; /* elements that are widened while they lie in L1 */

static bool is_float(tess_dtype t)
{
    return t == TESS_F32 || t == TESS_BF16;
}

static tess_status infer(tess_infer *c)
{
    const tess_operand *s = &c->in[0], *x = &c->in[1];
    if (!is_float(s->dtype) || !is_float(x->dtype) ||
        tess_shape_count(&s->shape) != tess_shape_count(&x->shape)) {
        return TESS_FAIL(TESS_INVALID, "accumulate: expected %lld elements, found %lld of %s",
                         (long long)tess_shape_count(&s->shape),
                         (long long)tess_shape_count(&x->shape), tess_dtype_name(x->dtype));
    }
    return TESS_OK;
}

static void add_narrow(uint16_t *s, tess_dtype t, const void *x, int64_t n)
{
    const tess_kernels *k = tess__kernels();
    float wide[BLOCK];
    for (int64_t i = 0; i < n; i += BLOCK) {
        const int64_t some = n - i < BLOCK ? n - i : BLOCK;
        k->convert(TESS_F32, wide, TESS_BF16, s + i, some);
        k->axpy(t, wide, tess__at(x, t, i), 1.0f, some);
        k->convert(TESS_BF16, s + i, TESS_F32, wide, some);
    }
}

static tess_status cpu(const tess_exec *e)
{
    const tess_kernels *k = tess__kernels();
    const tess_dtype t = e->in[1].dtype;
    const bool narrow = e->in[0].dtype == TESS_BF16;
    const tess_chunks c = tess__chunks(tess_shape_count(&e->in[0].shape), 1);
#pragma omp parallel for schedule(static) if (c.n > 1)
    for (int64_t i = 0; i < c.n; i++) {
        const tess_range r = tess__chunk(&c, i);
        const void *x = tess__at(e->in[1].data, t, r.begin);
        if (narrow) {
            add_narrow((uint16_t *)e->in[0].data + r.begin, t, x, r.n);
        } else {
            k->axpy(t, (float *)e->in[0].data + r.begin, x, 1.0f, r.n);
        }
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
    {.name = "bf16_state",
     .n_in = 2,
     .in = {{TESS_BF16, {1, {40001}}, .no_grad = true}, {TESS_F32, {1, {40001}}, .no_grad = true}},
     .build = build,
     .on_processors = true},
    {.name = "bf16_both",
     .n_in = 2,
     .in = {{TESS_BF16, {1, {77}}, .no_grad = true}, {TESS_BF16, {1, {77}}, .no_grad = true}},
     .build = build,
     .on_processors = true},
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
