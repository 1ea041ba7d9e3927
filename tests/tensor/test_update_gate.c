/* SPDX-License-Identifier: Apache-2.0 */
/* Which steps are skipped: a series of losses and norms with planted ones, step by step against the
 * rule written out in double; what comes after an outlier and after a change for good. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "tessera/tensor.h"

enum { STEPS = 400, LAST = 128, FROM = 32 };

typedef struct gate {
    tess_graph *g;
    tess_store *store;
    tess_workspace *w;
    tess_plan *p;
    tess_value gated, why, loss;
    float sumsq;
} gate;

static void ok(tess_status st)
{
    if (st) {
        fail_msg("%s", tess_error());
    }
}

static void gate_start(gate *t, float deviations)
{
    t->g = tess_graph_new();
    t->store = tess_store_new();
    t->w = tess_workspace_new();
    ok(tess_store_add(t->store, "loss", "sum", TESS_SHAPE_OF(1)));
    ok(tess_store_add(t->store, "recent", "steps", TESS_SHAPE_OF(TESS_RECENT_SIZE)));
    ok(tess_store_allocate(t->store));
    const tess_value loss = tess_state(t->g, "loss", "sum", TESS_F32, TESS_SHAPE_OF(1));
    const tess_value sumsq = tess_input(t->g, "sumsq", TESS_F32, TESS_SHAPE_OF(1));
    const tess_value recent = deviations > 0 ? tess_state(t->g, "recent", "steps", TESS_F32,
                                                          TESS_SHAPE_OF(TESS_RECENT_SIZE))
                                             : 0;
    t->gated = tess_update_gate(t->g, sumsq, loss, recent, deviations, &t->why, &t->loss);
    tess_update_note(t->g, sumsq, loss, recent);
    const tess_value outputs[] = {t->gated, t->why, t->loss};
    ok(tess_plan_build(t->g, outputs, 3, tess_device_cpu(), t->store, t->w, &t->p));
    ok(tess_plan_bind(t->p, "sumsq", &t->sumsq));
}

static void gate_stop(gate *t)
{
    tess_plan_free(t->p);
    tess_graph_free(t->g);
    tess_workspace_free(t->w);
    tess_store_free(t->store);
}

/* A step of this loss and norm: why it is skipped, by what its optimizer would read. */
static tess_skip take(gate *t, float loss, float norm)
{
    float *sum = tess_store_find(t->store, "loss", "sum", NULL);
    assert_true(*sum == 0.0f);
    *sum = loss;
    t->sumsq = norm * norm;
    ok(tess_plan_run(t->p));
    const float gated = *(const float *)tess_plan_output(t->p, t->gated);
    const tess_skip why = (tess_skip) * (const float *)tess_plan_output(t->p, t->why);
    const float seen = *(const float *)tess_plan_output(t->p, t->loss);
    assert_true(why ? isnan(gated) : gated == t->sumsq);
    assert_true(seen == loss || (isnan(seen) && isnan(loss)));
    return why;
}

/* ---- the rule, written out ----------------------------------------------------------------- */

typedef struct series {
    double x[STEPS];
    int n;
} series;

static int ascending(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, ascending);
    return x[(n - 1) / 2];
}

static double limit_of(const series *s, double deviations)
{
    double x[LAST];
    const int n = s->n < LAST ? s->n : LAST;
    const double *last = s->x + s->n - n;
    for (int i = 0; i < n; i++) {
        x[i] = last[i];
    }
    const double middle = median(x, n);
    for (int i = 0; i < n; i++) {
        x[i] = fabs(last[i] - middle);
    }
    return middle + deviations * fmax(1.4826 * median(x, n), 0.01 * fabs(middle));
}

static tess_skip expected(series *losses, series *norms, double loss, double norm, double k)
{
    tess_skip why = !isfinite(norm) ? TESS_SKIP_GRADIENT : !isfinite(loss) ? TESS_SKIP_LOSS : 0;
    if (why) {
        return why;
    }
    if (losses->n >= FROM) {
        why = loss > limit_of(losses, k)  ? TESS_SKIP_HIGH_LOSS
              : norm > limit_of(norms, k) ? TESS_SKIP_HIGH_NORM
                                          : TESS_SKIP_NOT;
    }
    losses->x[losses->n++] = loss;
    norms->x[norms->n++] = norm;
    return why;
}

/* ---- tests --------------------------------------------------------------------------------- */

static float noise(tess_rng *r)
{
    return (float)tess_rng_unit(r);
}

static void test_planted(void **state)
{
    (void)state;
    static const float planted[][2] = {{NAN, 1},   {1, INFINITY}, {INFINITY, 1},  {1e30f, 1},
                                       {1, 1e15f}, {NAN, NAN},    {-1e30f, 0.5f}, {3, 4}};
    tess_rng rng = tess_rng_at(5, 5);
    series losses = {0}, norms = {0};
    int n_by_reason[5] = {0};
    gate t = {0};
    gate_start(&t, 6);
    for (int i = 0; i < STEPS; i++) {
        float loss = 2 - (float)i / STEPS + 0.1f * noise(&rng), norm = 0.5f + 0.1f * noise(&rng);
        if (i % 7 == 3) {
            loss = planted[i / 7 % 8][0];
            norm = planted[i / 7 % 8][1];
        }
        const tess_skip why = take(&t, loss, norm);
        const double seen = (double)sqrtf(norm * norm);
        assert_int_equal(why, expected(&losses, &norms, (double)loss, seen, 6));
        n_by_reason[why]++;
    }
    for (int i = 0; i < 5; i++) {
        assert_true(n_by_reason[i] > 0);
    }
    gate_stop(&t);
}

/* One outlier changes nothing for the next step; half a window of them is how things are. */
static void test_after(void **state)
{
    (void)state;
    gate t = {0};
    gate_start(&t, 6);
    for (int i = 0; i < FROM; i++) {
        assert_int_equal(take(&t, i == 9 ? 1e30f : 1, 2), TESS_SKIP_NOT); /* too few to tell */
    }
    assert_int_equal(take(&t, 1.05f, 2), TESS_SKIP_NOT); /* 5 % : the least deviation is 1 % */
    assert_int_equal(take(&t, 1.07f, 2), TESS_SKIP_HIGH_LOSS);
    assert_int_equal(take(&t, 1, 2.2f), TESS_SKIP_HIGH_NORM);
    for (int i = 0; i < LAST; i++) {
        assert_int_equal(take(&t, 1, 2), TESS_SKIP_NOT);
    }
    for (int i = 0; i < LAST; i++) {
        assert_int_equal(take(&t, i % 2 ? NAN : INFINITY, 2), TESS_SKIP_LOSS); /* not kept */
    }
    assert_int_equal(take(&t, 1, 2), TESS_SKIP_NOT);
    assert_int_equal(take(&t, 1.07f, 2), TESS_SKIP_HIGH_LOSS);
    int n = 0;
    while (take(&t, 5, 2) != TESS_SKIP_NOT) {
        n++;
        assert_true(n <= LAST / 2 + 1);
    }
    assert_true(n >= LAST / 2 - 1);
    assert_int_equal(take(&t, 5, 2), TESS_SKIP_NOT);
    gate_stop(&t);
}

static void test_without(void **state)
{
    (void)state;
    gate t = {0};
    gate_start(&t, 0);
    for (int i = 0; i < LAST; i++) {
        assert_int_equal(take(&t, 1, 1), TESS_SKIP_NOT);
    }
    assert_int_equal(take(&t, 1e30f, 1e15f), TESS_SKIP_NOT);
    assert_int_equal(take(&t, NAN, 1), TESS_SKIP_LOSS);
    assert_int_equal(take(&t, 1, NAN), TESS_SKIP_GRADIENT);
    gate_stop(&t);
}

static void test_what_was_read(void **state)
{
    (void)state;
    float recent[TESS_RECENT_SIZE] = {0};
    assert_true(tess_recent_is_valid(recent));
    recent[0] = LAST, recent[1] = LAST - 1;
    assert_true(tess_recent_is_valid(recent));
    recent[1] = LAST;
    assert_false(tess_recent_is_valid(recent));
    recent[0] = -1, recent[1] = 0;
    assert_false(tess_recent_is_valid(recent));
    recent[0] = NAN;
    assert_false(tess_recent_is_valid(recent));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_planted),
        cmocka_unit_test(test_after),
        cmocka_unit_test(test_without),
        cmocka_unit_test(test_what_was_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
