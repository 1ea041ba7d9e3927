/* SPDX-License-Identifier: Apache-2.0 */
/* clamp: state = min(max(state, least), most), an effect without outputs.
 *
 *   state f32 of any shape; NaN stays.  Not differentiable.  Deterministic; one pass, on one
 * thread: it is for a scale or two. */
#include "tensor/ops/clamp.h"
#include "tensor/op.h"

#include <math.h>

void tess_clamp(tess_graph *g, tess_value state, float least, float most)
{
    const clamp_attrs a = {.least = least, .most = most};
    TESS_NODE(g, &tess__op_clamp, &a, state);
}

static tess_status infer(tess_infer *c)
{
    return c->in[0].dtype == TESS_F32 ? TESS_OK
                                      : TESS_FAIL(TESS_INVALID, "clamp: expected f32, found %s",
                                                  tess_dtype_name(c->in[0].dtype));
}

static tess_status cpu(const tess_exec *e)
{
    const clamp_attrs *a = e->attrs;
    float *s = e->in[0].data;
    for (int64_t i = 0; i < tess_shape_count(&e->in[0].shape); i++) {
        s[i] = s[i] < a->least ? a->least : s[i] > a->most ? a->most : s[i];
    }
    return TESS_OK;
}

static tess_status ref(const tess_exec *e)
{
    const clamp_attrs *a = e->attrs;
    float *s = e->in[0].data;
    for (int64_t i = 0; i < tess_shape_count(&e->in[0].shape); i++) {
        s[i] = (float)fmin(fmax((double)s[i], (double)a->least), (double)a->most);
    }
    return TESS_OK;
}

static void print(const void *attrs, tess_buf *out)
{
    const clamp_attrs *a = attrs;
    tess_buf_addf(out, "%g..%g", (double)a->least, (double)a->most);
}

static tess_value build(tess_graph *g, const tess_value *in)
{
    tess_clamp(g, in[0], -0.5f, 0.75f);
    return 0;
}

static const tess_case cases[] = {
    {.name = "scalar", .n_in = 1, .in = {{TESS_F32, {0}, .no_grad = true}}, .build = build},
    {.name = "run", .n_in = 1, .in = {{TESS_F32, {1, {300}}, .no_grad = true}}, .build = build},
};

const tess_op tess__op_clamp = {
    .name = "clamp",
    .n_in_min = 1,
    .n_in_max = 1,
    .attrs_bytes = sizeof(clamp_attrs),
    .flags = TESS_OP_EFFECT,
    .state_mask = 1,
    .infer = infer,
    .cpu = cpu,
    .ref = ref,
    .print = print,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
