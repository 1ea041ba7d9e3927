/* SPDX-License-Identifier: Apache-2.0 */
/* Multinomial logistic regression by L-BFGS.
 *
 * CLIP's paper (appendix A.3) fits the probe to its optimum by L-BFGS; CLIP_benchmark takes AdamW
 * for ten epochs in its stead.  Here it is the optimum again: it is one, needs no learning rate,
 * and any solver gives the same figures.  Rows go through in blocks, so of the logits no more than
 * 512 x C are held. */
#include "train/probe.h"

#include "tensor/matmul.h"
#include "train/lbfgs.h"
#include "train/ranking.h"

#include <math.h>
#include <string.h>

#define ROWS           512
#define MAX_ITERATIONS 1000
#define TOLERANCE      1e-6
#define DECAYS         97
#define FIRST_STEP     16 /* 7 of 97 */
/* Weights below which a product takes less time than waking another thread for it. */
#define SINGLE_MAX     16384

typedef struct fit {
    const tess__features *data;
    int64_t wide, n_classes; /* Z+1, C */
    double weight_decay;
    float *x, *weights, *logits, *gradient; /* (ROWS,Z+1) (C,Z+1) (ROWS,C) (C,Z+1) */
    tess_matmul *forward, *backward;
    void *scratch;
    size_t scratch_bytes;
} fit;

static tess_status add_product(fit *f, const tess_matmul_spec *spec, tess_matmul **out)
{
    TESS_TRY(tess__matmul_new(spec, out));
    size_t n = tess__matmul_scratch(*out);
    f->scratch_bytes = n > f->scratch_bytes ? n : f->scratch_bytes;
    return TESS_OK;
}

static tess_status fit_init(fit *f)
{
    size_t wide = (size_t)f->wide, c = (size_t)f->n_classes;
    f->x = tess_alloc_array(ROWS, wide * sizeof *f->x);
    f->weights = tess_alloc_array(c, wide * sizeof *f->weights);
    f->gradient = tess_alloc_array(c, wide * sizeof *f->gradient);
    f->logits = tess_alloc_array(ROWS, c * sizeof *f->logits);
    if (!f->x || !f->weights || !f->gradient || !f->logits) {
        return TESS_NOMEM;
    }
    bool small = f->n_classes * f->wide < SINGLE_MAX;
    tess_matmul_spec forward = {.m = ROWS,
                                .n = f->n_classes,
                                .k = f->wide,
                                .in = TESS_F32,
                                .out = TESS_F32,
                                .b_trans = true,
                                .single = small};
    tess_matmul_spec backward = {.m = f->n_classes,
                                 .n = f->wide,
                                 .k = ROWS,
                                 .in = TESS_F32,
                                 .out = TESS_F32,
                                 .a_trans = true,
                                 .single = small};
    TESS_TRY(add_product(f, &forward, &f->forward));
    TESS_TRY(add_product(f, &backward, &f->backward));
    f->scratch = tess_alloc(f->scratch_bytes);
    return f->scratch ? TESS_OK : TESS_NOMEM;
}

static void fit_deinit(fit *f)
{
    tess__matmul_free(f->forward);
    tess__matmul_free(f->backward);
    void *const arrays[] = {f->x, f->weights, f->gradient, f->logits, f->scratch};
    for (int64_t i = 0; i < TESS_COUNT(arrays); i++) {
        tess_free(arrays[i]);
    }
}

/* Logits of one row to softmax minus one-hot; gives the row's loss. */
static double differentiate(float *z, int64_t n, int64_t label)
{
    double max = -INFINITY, sum = 0, own = (double)z[label];
    for (int64_t c = 0; c < n; c++) {
        max = fmax(max, (double)z[c]);
    }
    for (int64_t c = 0; c < n; c++) {
        sum += exp((double)z[c] - max);
    }
    for (int64_t c = 0; c < n; c++) {
        z[c] = (float)(exp((double)z[c] - max) / sum - (c == label));
    }
    return log(sum) + max - own;
}

/* Adds a block's loss and gradient. */
static tess_status add_block(fit *f, int64_t begin, double *loss, double *out_gradient)
{
    int64_t left = f->data->n - begin, n = left < ROWS ? left : ROWS;
    memcpy(f->x, f->data->x + begin * f->wide, (size_t)(n * f->wide) * sizeof *f->x);
    TESS_TRY(tess__matmul_run(
        f->forward,
        &(tess_matmul_args){.a = f->x, .b = f->weights, .c = f->logits, .scratch = f->scratch}));
    for (int64_t i = 0; i < n; i++) {
        *loss +=
            differentiate(f->logits + i * f->n_classes, f->n_classes, f->data->labels[begin + i]);
    }
    memset(f->logits + n * f->n_classes, 0,
           (size_t)((ROWS - n) * f->n_classes) * sizeof *f->logits);
    TESS_TRY(tess__matmul_run(
        f->backward,
        &(tess_matmul_args){.a = f->logits, .b = f->x, .c = f->gradient, .scratch = f->scratch}));
    for (int64_t i = 0; i < f->n_classes * f->wide; i++) {
        out_gradient[i] += (double)f->gradient[i];
    }
    return TESS_OK;
}

static tess_status evaluate(void *ctx, const double *x, double *out_value, double *out_gradient)
{
    fit *f = ctx;
    int64_t n = f->n_classes * f->wide;
    double loss = 0, square = 0;
    if (tess_cancelled) {
        return TESS_FAIL(TESS_CANCELLED, "stopped while fitting the linear probe");
    }
    for (int64_t i = 0; i < n; i++) {
        f->weights[i] = (float)x[i];
        out_gradient[i] = 0;
    }
    for (int64_t begin = 0; begin < f->data->n; begin += ROWS) {
        TESS_TRY(add_block(f, begin, &loss, out_gradient));
    }
    for (int64_t i = 0; i < n; i++) {
        bool is_bias = i % f->wide == f->wide - 1;
        double decay = is_bias ? 0 : f->weight_decay;
        out_gradient[i] = out_gradient[i] / (double)f->data->n + decay * x[i];
        square += decay * x[i] * x[i];
    }
    *out_value = loss / (double)f->data->n + square / 2;
    return TESS_OK;
}

tess_status tess__probe_fit(tess__probe *p, const tess__features *train, double weight_decay)
{
    fit f = {
        .data = train, .wide = p->dim + 1, .n_classes = p->n_classes, .weight_decay = weight_decay};
    int64_t n = f.wide * f.n_classes;
    tess__lbfgs_options o = {.max_iterations = MAX_ITERATIONS, .tolerance = TOLERANCE};
    tess__lbfgs_result r;
    double *x = tess_alloc_array((size_t)n, sizeof *x);
    tess_free(p->weights);
    p->weights = tess_alloc_array((size_t)n, sizeof *p->weights);
    tess_status st = x && p->weights ? fit_init(&f) : TESS_NOMEM;
    st = st ? st : tess__lbfgs(evaluate, &f, n, x, &o, &r);
    for (int64_t i = 0; st == TESS_OK && i < n; i++) {
        p->weights[i] = (float)x[i];
    }
    if (st == TESS_OK) {
        p->n_iterations = r.n_iterations;
        p->n_calls = r.n_calls;
        p->loss = r.value;
        p->gradient = r.gradient;
    }
    fit_deinit(&f);
    tess_free(x);
    return st;
}

void tess__probe_deinit(tess__probe *p)
{
    tess_free(p->weights);
    p->weights = NULL;
}

tess_status tess__probe_rank(const tess__probe *p, const tess__features *f, int64_t *out_ranks)
{
    tess__pairs pairs = {.questions = f->x,
                         .answers = p->weights,
                         .right = f->labels,
                         .n_questions = f->n,
                         .n_answers = p->n_classes,
                         .dim = p->dim + 1};
    return tess__rank_pairs(&pairs, out_ranks, NULL);
}

/* ---- search -------------------------------------------------------------------------------- */

typedef struct search {
    tess__probe *probe;
    const tess__features *train, *val;
    int64_t *ranks;
    double accuracy[DECAYS]; /* NaN: not tried */
    int best;
} search;

static double decay_of(int i)
{
    return pow(10, -6 + 8.0 * i / (DECAYS - 1));
}

static tess_status try_decay(search *s, int i)
{
    if (isnan(s->accuracy[i])) {
        TESS_TRY(tess__probe_fit(s->probe, s->train, decay_of(i)));
        TESS_TRY(tess__probe_rank(s->probe, s->val, s->ranks));
        s->accuracy[i] = tess__recall_at(s->ranks, s->val->n, 1);
        tess_log(TESS_LOG_DEBUG,
                 "linear probe: weight decay %.3g: %.4f of the validation rows; %lld iterations, "
                 "%lld calls, gradient %.2g",
                 decay_of(i), s->accuracy[i], (long long)s->probe->n_iterations,
                 (long long)s->probe->n_calls, s->probe->gradient);
    }
    if (s->best < 0 || s->accuracy[i] > s->accuracy[s->best]) {
        s->best = i;
    }
    return TESS_OK;
}

static tess_status search_all(search *s)
{
    for (int i = 0; i < DECAYS; i++) {
        s->accuracy[i] = NAN;
    }
    for (int i = 0; i < DECAYS; i += FIRST_STEP) {
        TESS_TRY(try_decay(s, i));
    }
    for (int step = FIRST_STEP / 2; step > 0; step /= 2) {
        int peak = s->best;
        const int around[] = {peak - step < 0 ? 0 : peak - step, peak,
                              peak + step >= DECAYS ? DECAYS - 1 : peak + step};
        s->best = -1; /* the smaller of equals wins, as among the first */
        for (int64_t k = 0; k < TESS_COUNT(around); k++) {
            TESS_TRY(try_decay(s, around[k]));
        }
    }
    return TESS_OK;
}

tess_status tess__probe_search(tess__probe *p, const tess__features *train,
                               const tess__features *val, double *out_weight_decay)
{
    search s = {.probe = p, .train = train, .val = val, .best = -1};
    s.ranks = tess_alloc_array((size_t)val->n, sizeof *s.ranks);
    tess_status st = s.ranks ? search_all(&s) : TESS_NOMEM;
    *out_weight_decay = st ? 0 : decay_of(s.best);
    tess_free(s.ranks);
    tess__probe_deinit(p);
    return st;
}
