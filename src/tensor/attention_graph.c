/* SPDX-License-Identifier: Apache-2.0 */
/* The graphs of attention_graph.h.
 *
 * Forward without a mask is one operation.  cuDNN's has no causal mask before version 9.21, and its
 * gradient is refused by 9.19 (whose headers were read) when the graph is finalized, and has
 * engines on Blackwell alone later; so these two are composed.  dQ is the result of a product, not
 * a sum in f32 to which many blocks add: that is the gradient that repeats bit for bit. */
#include "tensor/attention_graph.h"

#include <string.h>

#define PRODUCT(y, x, b)                                                                           \
    {                                                                                              \
        AT_PRODUCT, AT_##y, AT_##x, AT_##b                                                         \
    }
#define RESHAPE(y, x)                                                                              \
    {                                                                                              \
        AT_RESHAPE, AT_##y, AT_##x                                                                 \
    }
#define REDUCTION(y, how, x)                                                                       \
    {                                                                                              \
        AT_REDUCTION, AT_##y, AT_##x, .mode = AT_##how                                             \
    }
#define ONE_BY_ONE(y, how, x, b)                                                                   \
    {                                                                                              \
        AT_POINTWISE, AT_##y, AT_##x, AT_##b, .mode = AT_##how                                     \
    }
#define MASK(y, how, x, b, t, at)                                                                  \
    {                                                                                              \
        AT_POINTWISE, AT_##y, AT_##x, AT_##b, AT_##t, AT_##how, at, true                           \
    }

#define MASKED_SCORES                                                                              \
    PRODUCT(DOTS, Q, KT), ONE_BY_ONE(SCALED, MULTIPLY, DOTS, SCALE),                               \
        MASK(ROW, INDEX, SCALED, NONE, NONE, 2), MASK(COLUMN, INDEX, SCALED, NONE, NONE, 3),       \
        MASK(SEEN, NOT_LESS, ROW, COLUMN, NONE, 0), MASK(MASKED, SELECT, SCALED, LOWEST, SEEN, 0)

static const attention_op forward[] = {{AT_ATTENTION}};

static const attention_op forward_masked[] = {
    MASKED_SCORES,
    REDUCTION(TOP, LARGEST, MASKED),
    ONE_BY_ONE(BELOW, SUBTRACT, MASKED, TOP),
    ONE_BY_ONE(EXP, EXPONENTIAL, BELOW, NONE),
    REDUCTION(SUM, ADD, EXP),
    ONE_BY_ONE(LOG, LOGARITHM, SUM, NONE),
    ONE_BY_ONE(LSE, ADD, TOP, LOG),
    ONE_BY_ONE(P, DIVIDE, EXP, SUM),
    PRODUCT(Y, P, V),
};

/* docs/attention_backward.md, with delta = the sum of dy y. */
static const attention_op backward[] = {
    ONE_BY_ONE(DY_Y, MULTIPLY, DY, Y),
    REDUCTION(DY_Y_SUM, ADD, DY_Y),
    ONE_BY_ONE(DELTA, MULTIPLY, DY_Y_SUM, ONE),
    MASKED_SCORES,
    ONE_BY_ONE(BELOW, SUBTRACT, MASKED, LSE),
    ONE_BY_ONE(EXP, EXPONENTIAL, BELOW, NONE),
    RESHAPE(PT, EXP),
    PRODUCT(DV, PT, DY),
    PRODUCT(DP, DY, VT),
    ONE_BY_ONE(DP_LESS, SUBTRACT, DP, DELTA),
    ONE_BY_ONE(DS, MULTIPLY, DP_LESS, EXP),
    ONE_BY_ONE(DS_SCALED, MULTIPLY, DS, SCALE),
    RESHAPE(DST, DS_SCALED),
    PRODUCT(DK, DST, Q),
    RESHAPE(K_AGAIN, KT),
    PRODUCT(DQ, DS_SCALED, K_AGAIN),
};

bool tess__attention_same(const tess_attention_spec *a, const tess_attention_spec *b)
{
    return a->n_segments == b->n_segments && a->heads == b->heads && a->n_q == b->n_q &&
           a->n_k == b->n_k && a->head_dim == b->head_dim && a->q_row == b->q_row &&
           a->kv_row == b->kv_row && a->y_row == b->y_row && a->causal == b->causal &&
           a->grad == b->grad;
}

const attention_op *tess__attention_graph(const tess_attention_spec *s, int64_t *n)
{
    *n = s->grad     ? TESS_COUNT(backward)
         : s->causal ? TESS_COUNT(forward_masked)
                     : TESS_COUNT(forward);
    return s->grad ? backward : s->causal ? forward_masked : forward;
}

attention_tensor tess__attention_tensor(const tess_attention_spec *s, attention_tensor t)
{
    return t == AT_MASKED && !s->causal ? AT_SCALED : t;
}

attention_tensor_info tess__attention_info(const tess_attention_spec *s, attention_tensor t)
{
    static const struct {
        attention_layout layout;
        attention_type type;
        bool between;
    } tensors[AT_N_TENSORS] = {
#define X(name, where, what, never) [AT_##name] = {AT_##where, AT_##what, never},
        TESS_ATTENTION_TENSORS(X)
#undef X
    };
    const int64_t b = s->n_segments, h = s->heads, q = s->n_q, k = s->n_k, d = s->head_dim;
    const struct {
        int64_t dim[TESS_ATTENTION_RANK], stride[TESS_ATTENTION_RANK];
    } places[] = {
        [AT_QUERIES] = {{b, h, q, d}, {q * s->q_row, d, s->q_row, 1}},
        [AT_KEYS] = {{b, h, k, d}, {k * s->kv_row, d, s->kv_row, 1}},
        [AT_KEYS_T] = {{b, h, d, k}, {k * s->kv_row, d, 1, s->kv_row}},
        [AT_RESULTS] = {{b, h, q, d}, {q * s->y_row, d, s->y_row, 1}},
        [AT_STATISTICS] = {{b, h, q, 1}, {q, b * q, 1, 1}},
        [AT_SCALAR] = {{1, 1, 1, 1}, {1, 1, 1, 1}},
        [AT_SCORES] = {{b, h, q, k}, {h * q * k, q * k, k, 1}},
        [AT_SCORES_T] = {{b, h, k, q}, {h * q * k, q * k, 1, k}},
        [AT_PER_QUERY] = {{b, h, q, 1}, {h * q, q, 1, 1}},
        [AT_PER_RESULT] = {{b, h, q, d}, {h * q * d, q * d, d, 1}},
    };
    const attention_layout l = tensors[t].layout;
    attention_tensor_info i = {
        .type = tensors[t].type, .scalar = l == AT_SCALAR, .between = tensors[t].between};
    memcpy(i.dim, places[l].dim, sizeof i.dim);
    memcpy(i.stride, places[l].stride, sizeof i.stride);
    return i;
}
