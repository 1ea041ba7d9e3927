/* SPDX-License-Identifier: Apache-2.0 */
/* The operator table, expanded from ops.def. */
#include "tensor/op.h"

const tess_op *const tess__ops[] = {
#define TESS_OP(name) &tess__op_##name,
#include "tensor/ops.def"
#undef TESS_OP
};
const int tess__n_ops = (int)TESS_COUNT(tess__ops);
