/* SPDX-License-Identifier: Apache-2.0 */
/* The operator table, expanded from ops.def. */
#include "tensor/op.h"

const tess_op *const tess__ops[] = {
#define TESS_OP(name) &tess__op_##name,
#include "tensor/ops.def"
#undef TESS_OP
};
const int tess__n_ops = (int)TESS_COUNT(tess__ops);

_Static_assert(TESS_OP_EFFECT + TESS_OP_VIEW + TESS_OP_LEAF + TESS_OP_ROUNDS + TESS_OP_CHEAP +
                       TESS_OP_MEETS + TESS_OP_AGAIN + TESS_OP_PAGES ==
                   255,
               "every flag of an operator is a bit of its own");
