/* SPDX-License-Identifier: Apache-2.0 */
/* A text tower learns another's vectors.
 *
 * The paper takes the mean of squared differences over the elements of raw vectors; here the
 * vectors are of unit length, since search compares directions, and a row's squares are summed, so
 * that the loss is 2 - 2 cos whatever the width.  The sum of squares is the product of the
 * differences with themselves, as one row: its gradient comes from both sides. */
#include "fusion/distill.h"

static tess_value squared_distance(tess_graph *g, tess_value a, tess_value b)
{
    const tess_shape s = tess_value_shape(g, a);
    const tess_value d = tess_reshape(g, tess_add(g, a, tess_scale(g, b, -1.0f)),
                                      TESS_SHAPE_OF(1, tess_shape_count(&s)));
    const float mean = s.rank > 0 && s.dim[0] > 0 ? 1.0f / (float)s.dim[0] : 0;
    const tess_value sum =
        tess_reshape(g, tess_linear(g, d, d, (tess_linear_options){0}), tess_shape_make(0, NULL));
    return tess_scale(g, sum, mean);
}

tess_value tess__distill_loss(tess_graph *g, tess_distill kind, tess_value text, tess_value teacher,
                              int64_t b, tess_value logit_scale)
{
    return kind == TESS_DISTILL_MSE
               ? squared_distance(g, text, teacher)
               : tess_contrast_softmax(g, tess_slice_rows(g, teacher, 0, b), text, logit_scale);
}
