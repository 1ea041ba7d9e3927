/* SPDX-License-Identifier: Apache-2.0 */
/* Attention over dense segments as graphs of small operations, for a library that fuses them. */
#ifndef TESSERA_TENSOR_ATTENTION_GRAPH_H
#define TESSERA_TENSOR_ATTENTION_GRAPH_H

#include "tessera/tensor.h"

enum { TESS_ATTENTION_RANK = 4 };

typedef struct tess_attention_spec {
    int64_t n_segments, heads, n_q, n_k, head_dim; /* n_q, n_k: a segment's */
    int64_t q_row, kv_row, y_row;                  /* elements between rows */
    bool causal, grad;
} tess_attention_spec;

bool tess__attention_same(const tess_attention_spec *a, const tess_attention_spec *b);

/* B segments, H heads, Q queries, K keys, D the head's dimension. */
typedef enum attention_layout {
    AT_QUERIES,    /* (B,H,Q,D) in rows of q */
    AT_KEYS,       /* (B,H,K,D) in rows of k */
    AT_KEYS_T,     /* (B,H,D,K): the same memory */
    AT_RESULTS,    /* (B,H,Q,D) in rows of y */
    AT_STATISTICS, /* (B,H,Q,1) in (H,B Q) */
    AT_SCALAR,     /* (1,1,1,1), in the host's memory */
    AT_SCORES,     /* (B,H,Q,K), dense, as all below */
    AT_SCORES_T,   /* (B,H,K,Q): the same memory */
    AT_PER_QUERY,  /* (B,H,Q,1) */
    AT_PER_RESULT, /* (B,H,Q,D) */
} attention_layout;

typedef enum attention_type { AT_BF16, AT_F32, AT_BOOL } attention_type;

/* Name, layout, type, and whether it is a step between, never in memory. */
#define TESS_ATTENTION_TENSORS(X)                                                                  \
    X(Q, QUERIES, BF16, false)                                                                     \
    X(K, KEYS, BF16, false)                                                                        \
    X(KT, KEYS_T, BF16, false)                                                                     \
    X(V, KEYS, BF16, false)                                                                        \
    X(VT, KEYS_T, BF16, false)                                                                     \
    X(Y, RESULTS, BF16, false)                                                                     \
    X(LSE, STATISTICS, F32, false)                                                                 \
    X(DY, RESULTS, BF16, false)                                                                    \
    X(DQ, QUERIES, BF16, false)                                                                    \
    X(DK, KEYS, BF16, false)                                                                       \
    X(DV, KEYS, BF16, false)                                                                       \
    X(DELTA, STATISTICS, F32, false)                                                               \
    X(SCALE, SCALAR, F32, false)                                                                   \
    X(LOWEST, SCALAR, F32, false)                                                                  \
    X(ONE, SCALAR, F32, false)                                                                     \
    X(DOTS, SCORES, F32, true)                                                                     \
    X(SCALED, SCORES, F32, true)                                                                   \
    X(ROW, SCORES, F32, true)                                                                      \
    X(COLUMN, SCORES, F32, true)                                                                   \
    X(SEEN, SCORES, BOOL, true)                                                                    \
    X(MASKED, SCORES, F32, true)                                                                   \
    X(TOP, PER_QUERY, F32, true)                                                                   \
    X(BELOW, SCORES, F32, true)                                                                    \
    X(EXP, SCORES, F32, true)                                                                      \
    X(SUM, PER_QUERY, F32, true)                                                                   \
    X(LOG, PER_QUERY, F32, true)                                                                   \
    X(P, SCORES, BF16, true)                                                                       \
    X(PT, SCORES_T, BF16, true)                                                                    \
    X(DY_Y, PER_RESULT, F32, true)                                                                 \
    X(DY_Y_SUM, PER_QUERY, F32, true)                                                              \
    X(DP, SCORES, F32, true)                                                                       \
    X(DP_LESS, SCORES, F32, true)                                                                  \
    X(DS, SCORES, F32, true)                                                                       \
    X(DS_SCALED, SCORES, F32, true)                                                                \
    X(DST, SCORES_T, BF16, true)                                                                   \
    X(K_AGAIN, KEYS, BF16, true)

typedef enum attention_tensor {
    AT_NONE,
#define X(name, ...) AT_##name,
    TESS_ATTENTION_TENSORS(X)
#undef X
        AT_N_TENSORS,
} attention_tensor;

typedef enum attention_kind {
    AT_ATTENTION, /* y, lse = attention of q, k, v, whole */
    AT_PRODUCT,   /* y = x b */
    AT_REDUCTION, /* y = the sum or the largest of x, over what y has one of */
    AT_RESHAPE,   /* y = x under other strides */
    AT_POINTWISE, /* y = x op b, element by element or broadcast */
} attention_kind;

/* INDEX: the number of the row, or of the column.  SELECT: x where t, else b. */
typedef enum attention_mode {
    AT_ADD,
    AT_SUBTRACT,
    AT_MULTIPLY,
    AT_DIVIDE,
    AT_EXPONENTIAL,
    AT_LOGARITHM,
    AT_LARGEST,
    AT_INDEX,
    AT_NOT_LESS,
    AT_SELECT,
    AT_N_MODES,
} attention_mode;

typedef struct attention_op {
    attention_kind kind;
    attention_tensor y, x, b, t;
    attention_mode mode;
    int64_t axis; /* of an index */
    bool masks;   /* only under a causal mask */
} attention_op;

typedef struct attention_tensor_info {
    attention_type type;
    bool scalar, between;
    int64_t dim[TESS_ATTENTION_RANK], stride[TESS_ATTENTION_RANK];
} attention_tensor_info;

/* The graph's operations, in order; those that mask are to be left out without a mask, where
 * tess__attention_tensor stands AT_SCALED for AT_MASKED. */
const attention_op *tess__attention_graph(const tess_attention_spec *s, int64_t *n);
attention_tensor tess__attention_tensor(const tess_attention_spec *s, attention_tensor t);
attention_tensor_info tess__attention_info(const tess_attention_spec *s, attention_tensor t);

#endif
