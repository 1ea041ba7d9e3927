/* SPDX-License-Identifier: Apache-2.0 */
/* The graph's insides, for passes. */
#ifndef TESSERA_TENSOR_GRAPH_H
#define TESSERA_TENSOR_GRAPH_H

#include "tensor/op.h"

typedef struct tess_node {
    const tess_op *op;
    const void *attrs;
    const char *scope;          /* module path, "" at the root */
    tess_value in[TESS_MAX_IN]; /* 0: absent optional input */
    int n_in;
    tess_value out;    /* first output; 0 for effects without outputs */
    bool backward;     /* made by tess_graph_grad */
    int32_t recompute; /* the outermost recompute scope it was built in, from 1; 0: none */
} tess_node;

typedef struct tess_value_info {
    int64_t node;
    int slot;
    tess_dtype dtype;
    tess_shape shape;
} tess_value_info;

/* Attributes of the two leaves. */
typedef struct tess_leaf_attrs {
    const char *group; /* NULL for inputs */
    const char *name;  /* full path */
} tess_leaf_attrs;
extern const tess_op tess__op_input, tess__op_state;

/* How ranks hold matrices.  Tables are then read as matrices are: in bf16, where those are. */
typedef struct tess__sharding {
    tess_comm *comm; /* NULL: alone */
    bool (*splits)(const char *name, const tess_shape *shape);
    bool scatters;   /* gradients of what `splits` is true for are this rank's range */
    bool gathers;    /* and so are their leaves */
    tess_dtype wire; /* of gradients */
} tess__sharding;

struct tess_graph {
    tess_arena arena;
    tess_node *nodes;
    size_t n_nodes, cap_nodes;
    tess_value_info *values; /* [0] is unused */
    size_t n_values, cap_values;
    const char *scope;   /* current */
    const char **scopes; /* enclosing ones */
    bool *scope_recompute;
    size_t n_scopes, cap_scopes, cap_recompute;
    int n_recompute;             /* enclosing recompute scopes */
    int32_t recompute_scope;     /* the outermost of them, or the last there was */
    bool in_backward;            /* nodes added now belong to a gradient */
    const tess_adapted *adapted; /* see tess_graph_adapt */
    int64_t n_adapted;
    bool narrow; /* see tess_graph_narrow */
    tess__sharding sharding;
    int64_t fp8_width; /* see tess_graph_fp8; 0: no FP8 */
    tess_status status;
    char *message;
};

static inline const tess_node *tess__value_node(const tess_graph *g, tess_value v)
{
    return &g->nodes[g->values[v].node];
}
/* Adds a node under a given scope and flags, for passes that copy. */
tess_value tess__node_copy(tess_graph *g, const tess_node *like, const tess_value *in);
/* The operand (no data) that describes v; rank -1 for 0. */
tess_operand tess__operand(const tess_graph *g, tess_value v);

#endif
