/* SPDX-License-Identifier: Apache-2.0 */
/* Initial parameters, after CLIP (Radford et al. 2021): normal with deviations that shrink with the
 * width and, for what feeds the residual stream, with the depth.  Each parameter draws from its own
 * stream, named by its key, so its values depend on nothing but (seed, key, shape). */
#include "fusion/model.h"

#include <math.h>
#include <string.h>

typedef enum init_rule {
    INIT_CONSTANT, /* value */
    INIT_NORMAL,   /* deviation value */
    INIT_WIDTH,    /* width^-1/2 */
    INIT_HIDDEN,   /* (2 width)^-1/2 */
    INIT_RESIDUAL, /* width^-1/2 (2 layers)^-1/2 */
    INIT_FAN_IN,   /* (fan in)^-1/2 */
    INIT_LOGIT_SCALE,
    INIT_LOGIT_BIAS,
} init_rule;

/* The first suffix that fits decides. */
static const struct {
    const char *suffix;
    init_rule rule;
    double value;
} rules[] = {
    {"logit_scale", INIT_LOGIT_SCALE, 0},
    {"logit_scale_text", INIT_LOGIT_SCALE, 0},
    {"logit_bias", INIT_LOGIT_BIAS, 0},
    {"token_embedding.weight", INIT_NORMAL, 0.02},
    {"token_type_embedding", INIT_NORMAL, 0.02},
    {"dense.weight", INIT_FAN_IN, 0},
    {"class_embedding", INIT_WIDTH, 0},
    {"visual.positional_embedding", INIT_WIDTH, 0},
    {"positional_embedding", INIT_NORMAL, 0.01},
    {"conv1.weight", INIT_FAN_IN, 0},
    {"query", INIT_WIDTH, 0},
    {"in_proj_weight", INIT_WIDTH, 0},
    {"q_proj_weight", INIT_WIDTH, 0},
    {"kv_proj_weight", INIT_WIDTH, 0},
    {"out_proj.weight", INIT_RESIDUAL, 0},
    {"c_fc.weight", INIT_HIDDEN, 0},
    {"c_proj.weight", INIT_RESIDUAL, 0},
    {"proj", INIT_WIDTH, 0},
    {"text_projection", INIT_WIDTH, 0},
    {"text_projection.weight", INIT_FAN_IN, 0},
    {"bias", INIT_CONSTANT, 0},
    {"in_proj_bias", INIT_CONSTANT, 0},
    {"weight", INIT_CONSTANT, 1}, /* of a layernorm: all matrices are named above */
};

static bool ends_with(const char *name, const char *suffix)
{
    size_t n = strlen(name), k = strlen(suffix);
    return k <= n && strcmp(name + n - k, suffix) == 0;
}

static void fill_normal(float *x, int64_t n, double deviation, uint64_t seed, const char *name)
{
    tess_rng r = tess_rng_at(seed, tess_hash64(name, strlen(name), 0));
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)(deviation * tess_rng_normal(&r));
    }
}

static double deviation_of(init_rule rule, double value, const tess_model_config *c, bool visual,
                           const tess_shape *shape)
{
    double width = (double)(visual ? c->vision.width : c->text.width);
    double layers = (double)(visual ? c->vision.layers : c->text.layers);
    int64_t fan_in = tess_shape_count(shape) / (shape->rank > 0 ? shape->dim[0] : 1);
    switch (rule) {
    case INIT_WIDTH:
        return 1 / sqrt(width);
    case INIT_HIDDEN:
        return 1 / sqrt(2 * width);
    case INIT_RESIDUAL:
        return 1 / sqrt(width * 2 * (layers > 0 ? layers : 1));
    case INIT_FAN_IN:
        return 1 / sqrt((double)fan_in);
    default:
        return value;
    }
}

static void fill_constant(float *x, int64_t n, double value)
{
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)value;
    }
}

static void init_entry(const tess_model_config *c, const char *name, float *x, tess_shape shape,
                       uint64_t seed)
{
    int64_t n = tess_shape_count(&shape);
    for (int64_t i = 0; i < TESS_COUNT(rules); i++) {
        if (!ends_with(name, rules[i].suffix)) {
            continue;
        }
        bool visual = strncmp(name, "visual.", 7) == 0;
        if (rules[i].rule == INIT_LOGIT_SCALE) {
            fill_constant(x, n, c->init_logit_scale);
        } else if (rules[i].rule == INIT_LOGIT_BIAS) {
            fill_constant(x, n, c->init_logit_bias);
        } else if (rules[i].rule == INIT_CONSTANT) {
            fill_constant(x, n, rules[i].value);
        } else {
            fill_normal(x, n, deviation_of(rules[i].rule, rules[i].value, c, visual, &shape), seed,
                        name);
        }
        return;
    }
}

tess_status tess__model_init_params(tess_model *m, uint64_t seed)
{
    float *data;
    tess_shape shape;
    int64_t n = tess_store_n_entries(m->store, "param");
    for (int64_t i = 0; i < n; i++) {
        const char *name = tess_store_entry(m->store, "param", i, &data, &shape);
        TESS_TRY(tess_store_gather(m->store, "param", name));
        init_entry(&m->config, name, data, shape, seed);
        tess_store_release(m->store, "param", name, true);
    }
    return TESS_OK;
}
