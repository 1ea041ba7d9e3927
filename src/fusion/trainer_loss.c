/* SPDX-License-Identifier: Apache-2.0 */
/* What a trainer's features are worth: the weighted sum of its objectives, or of a distillation. */
#include "fusion/distill.h"
#include "fusion/model.h"
#include "fusion/trainer.h"
#include "tensor/op.h"

/* Of a, all ranks' rows, and this rank's b; without comm, of a and b. */
static tess_value objective(tess_graph *g, const tess_trainer *t, tess_objective o, tess_comm *comm,
                            tess_value a, tess_value b, const char *scale_name)
{
    tess_shape scalar = tess_shape_make(0, NULL);
    tess_value scale = tess_state(g, "param", scale_name, TESS_F32, scalar);
    if (o.kind == TESS_OBJECTIVE_SOFTMAX) {
        return tess_contrast_softmax_over(g, comm, a, b, scale);
    }
    tess_value bias = t->model->config.has_logit_bias
                          ? tess_state(g, "param", "logit_bias", TESS_F32, scalar)
                          : tess__fill(g, TESS_F32, scalar, 0.0f);
    return tess_contrast_sigmoid_over(g, comm, a, b, scale, bias);
}

static tess_value distill_loss(tess_graph *g, const tess_trainer *t, tess_value text)
{
    const int64_t b = t->o.batch, n = t->o.captions_per_image * b;
    const tess_value teacher =
        tess_input(g, "teacher", TESS_F32, TESS_SHAPE_OF(n, t->model->config.embed_dim));
    const tess_value scale =
        t->o.distill == TESS_DISTILL_CONTRASTIVE
            ? tess_state(g, "param", "logit_scale", TESS_F32, tess_shape_make(0, NULL))
            : 0;
    const tess_value loss = tess__distill_loss(g, t->o.distill, text, teacher, b, scale);
    const float weight = 1.0f / tess__trainer_parts(t);
    return tess_weighted_sum(g, &loss, &weight, 1);
}

/* Pictures, and the captions that the others are contrasted with, go to all ranks; each then has
 * the columns of its own captions.  A card, whose kernels know no ranks, has all captions as well
 * and makes all columns. */
static tess_value total_loss(tess_graph *g, const tess_trainer *t, tess_value image,
                             tess_value text)
{
    const tess_objectives *o = &t->model->config.objectives;
    const double parts = (double)tess__trainer_parts(t);
    const int64_t whole = tess__trainer_whole(t), k = t->o.captions_per_image;
    const int64_t b = tess_value_shape(g, text).dim[0] / k * whole;
    tess_comm *comm = t->o.comm, *over = whole > 1 ? NULL : comm;
    tess_value losses[2];
    float weights[2];
    int n = 0;
    text = whole > 1 ? tess_all_gather(g, comm, text, k) : text;
    if (tess__trainer_sees(t)) {
        image = tess_all_gather(g, comm, image, 1);
        losses[n] = objective(g, t, o->image_text, over, image, text, "logit_scale");
        weights[n++] = (float)(o->image_text.weight / parts);
    }
    if (o->text_text.weight > 0) {
        tess_value first = tess_all_gather(g, over, tess_slice_rows(g, text, 0, b), 1);
        tess_value others = tess_slice_rows(g, text, b, (k - 1) * b);
        losses[n] = objective(g, t, o->text_text, over, first, others, "logit_scale_text");
        weights[n++] = (float)(o->text_text.weight / parts);
    }
    return tess_weighted_sum(g, losses, weights, n);
}

tess_value tess__trainer_loss(tess_graph *g, const tess_trainer *t, tess_value image,
                              tess_value text)
{
    return t->o.distill ? distill_loss(g, t, text) : total_loss(g, t, image, text);
}
