/* SPDX-License-Identifier: Apache-2.0 */
/* What a trainer's features are worth: the weighted sum of its objectives, or of a distillation. */
#include "fusion/distill.h"
#include "fusion/model.h"
#include "fusion/trainer.h"
#include "tensor/op.h"

static tess_value objective(tess_graph *g, const tess_model *m, tess_objective o, tess_value a,
                            tess_value b, const char *scale_name)
{
    tess_shape scalar = tess_shape_make(0, NULL);
    tess_value scale = tess_state(g, "param", scale_name, TESS_F32, scalar);
    if (o.kind == TESS_OBJECTIVE_SOFTMAX) {
        return tess_contrast_softmax(g, a, b, scale);
    }
    tess_value bias = m->config.has_logit_bias
                          ? tess_state(g, "param", "logit_bias", TESS_F32, scalar)
                          : tess__fill(g, TESS_F32, scalar, 0.0f);
    return tess_contrast_sigmoid(g, a, b, scale, bias);
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

/* Every rank computes the whole loss, of all ranks' features. */
static tess_value total_loss(tess_graph *g, const tess_trainer *t, tess_value image,
                             tess_value text)
{
    const tess_objectives *o = &t->model->config.objectives;
    const double parts = (double)tess__trainer_parts(t);
    const int64_t b = t->o.batch * tess__trainer_ranks(t), k = t->o.captions_per_image;
    tess_value losses[2];
    float weights[2];
    int n = 0;
    text = tess_all_gather(g, t->o.comm, text, k);
    if (tess__trainer_sees(t)) {
        image = tess_all_gather(g, t->o.comm, image, 1);
        losses[n] = objective(g, t->model, o->image_text, image, text, "logit_scale");
        weights[n++] = (float)(o->image_text.weight / parts);
    }
    if (o->text_text.weight > 0) {
        tess_value first = tess_slice_rows(g, text, 0, b);
        tess_value others = tess_slice_rows(g, text, b, (k - 1) * b);
        losses[n] = objective(g, t->model, o->text_text, first, others, "logit_scale_text");
        weights[n++] = (float)(o->text_text.weight / parts);
    }
    return tess_weighted_sum(g, losses, weights, n);
}

tess_value tess__trainer_loss(tess_graph *g, const tess_trainer *t, tess_value image,
                              tess_value text)
{
    return t->o.distill ? distill_loss(g, t, text) : total_loss(g, t, image, text);
}
