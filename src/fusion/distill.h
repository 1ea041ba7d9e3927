/* SPDX-License-Identifier: Apache-2.0 */
/* The objectives of distillation; their contract is with tess_distill in tessera/fusion.h. */
#ifndef TESSERA_FUSION_DISTILL_H
#define TESSERA_FUSION_DISTILL_H

#include "tessera/fusion.h"

/* text (K*B,Z) and teacher (K*B,Z) f32 unit rows, the teacher's K times the same B -> () f32. */
tess_value tess__distill_loss(tess_graph *g, tess_distill kind, tess_value text, tess_value teacher,
                              int64_t b, tess_value logit_scale);

#endif
