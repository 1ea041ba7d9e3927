/* SPDX-License-Identifier: Apache-2.0 */
/* Limited-memory BFGS (Nocedal & Wright 2006, algorithms 7.4 and 7.5) with ten pairs.
 *
 * The step is found by halving from 1 until f falls enough (Armijo's condition).  That does not
 * ensure the curvature condition, as a Wolfe search would; a pair that breaks it is not kept, which
 * for a strictly convex function costs a step now and then and saves gradients everywhere else. */
#include "train/lbfgs.h"

#include <math.h>
#include <string.h>

#define PAIRS     10
#define HALVINGS  40
#define ARMIJO    1e-4
#define CURVATURE 0.9
#define ROUNDING  1e-7

typedef struct minimizer {
    int64_t n, n_pairs, newest;
    double *x, *gradient;         /* where it stands */
    double *next, *next_gradient; /* where it may go */
    double *direction;
    double *steps[PAIRS], *changes[PAIRS]; /* s and y, a ring */
    double rho[PAIRS];
    double value;
} minimizer;

static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

static void add_scaled(double *y, double a, const double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        y[i] += a * x[i];
    }
}

static double largest(const double *x, int64_t n)
{
    double max = 0;
    for (int64_t i = 0; i < n; i++) {
        max = fmax(max, fabs(x[i]));
    }
    return max;
}

/* direction = -H gradient by the two loops over the pairs. */
static void find_direction(minimizer *m)
{
    double alpha[PAIRS];
    double *d = m->direction;
    memcpy(d, m->gradient, (size_t)m->n * sizeof *d);
    for (int64_t i = 0; i < m->n_pairs; i++) {
        int64_t k = (m->newest - i + PAIRS) % PAIRS;
        alpha[k] = m->rho[k] * dot(m->steps[k], d, m->n);
        add_scaled(d, -alpha[k], m->changes[k], m->n);
    }
    double scale = 1;
    if (m->n_pairs > 0) {
        const double *y = m->changes[m->newest];
        scale = 1 / (m->rho[m->newest] * dot(y, y, m->n));
    } else {
        scale = 1 / fmax(1, sqrt(dot(d, d, m->n)));
    }
    for (int64_t i = 0; i < m->n; i++) {
        d[i] *= scale;
    }
    for (int64_t i = m->n_pairs - 1; i >= 0; i--) {
        int64_t k = (m->newest - i + PAIRS) % PAIRS;
        add_scaled(d, alpha[k] - m->rho[k] * dot(m->changes[k], d, m->n), m->steps[k], m->n);
    }
    for (int64_t i = 0; i < m->n; i++) {
        d[i] = -d[i];
    }
}

static void keep_pair(minimizer *m)
{
    int64_t k = m->n_pairs > 0 ? (m->newest + 1) % PAIRS : 0;
    double *s = m->steps[k], *y = m->changes[k];
    for (int64_t i = 0; i < m->n; i++) {
        s[i] = m->next[i] - m->x[i];
        y[i] = m->next_gradient[i] - m->gradient[i];
    }
    double curvature = dot(s, y, m->n);
    if (curvature > 1e-10 * dot(y, y, m->n)) {
        m->rho[k] = 1 / curvature;
        m->newest = k;
        m->n_pairs += m->n_pairs < PAIRS;
    } else if (m->n_pairs == PAIRS) {
        m->n_pairs--; /* the oldest one's memory is overwritten */
    }
}

/* Near the minimum the fall of f drowns in its rounding errors long before the gradient does; there
 * the slope along the direction decides (Hager & Zhang 2005, the approximate Wolfe conditions). */
static bool is_enough(const minimizer *m, double value, double step, double slope)
{
    if (value < m->value && value <= m->value + ARMIJO * step * slope) {
        return true;
    }
    double next = dot(m->direction, m->next_gradient, m->n);
    return value <= m->value + ROUNDING * fabs(m->value) && next >= CURVATURE * slope &&
           next <= (2 * ARMIJO - 1) * slope;
}

/* *out_moved false: no step makes f smaller. */
static tess_status move(minimizer *m, tess__function *f, void *ctx, tess__lbfgs_result *r,
                        bool *out_moved)
{
    double slope = dot(m->direction, m->gradient, m->n), step = 1, value;
    *out_moved = false;
    for (int i = 0; slope < 0 && i < HALVINGS; i++, step /= 2) {
        memcpy(m->next, m->x, (size_t)m->n * sizeof *m->next);
        add_scaled(m->next, step, m->direction, m->n);
        TESS_TRY(f(ctx, m->next, &value, m->next_gradient));
        r->n_calls++;
        if (is_enough(m, value, step, slope)) {
            keep_pair(m);
            memcpy(m->x, m->next, (size_t)m->n * sizeof *m->x);
            memcpy(m->gradient, m->next_gradient, (size_t)m->n * sizeof *m->gradient);
            m->value = value;
            *out_moved = true;
            break;
        }
    }
    return TESS_OK;
}

static tess_status allocate(minimizer *m, tess_arena *a)
{
    double **const arrays[] = {&m->gradient, &m->next, &m->next_gradient, &m->direction};
    bool all = true;
    for (int64_t i = 0; i < TESS_COUNT(arrays) + 2 * PAIRS; i++) {
        int64_t k = i - TESS_COUNT(arrays);
        double **p = k < 0 ? arrays[i] : k < PAIRS ? &m->steps[k] : &m->changes[k - PAIRS];
        *p = tess_arena_alloc(a, (size_t)m->n * sizeof **p);
        all = all && *p;
    }
    return all ? TESS_OK : TESS_NOMEM;
}

static tess_status run(minimizer *m, tess__function *f, void *ctx, const tess__lbfgs_options *o,
                       tess__lbfgs_result *r)
{
    TESS_TRY(f(ctx, m->x, &m->value, m->gradient));
    r->n_calls = 1;
    while (r->n_iterations < o->max_iterations && largest(m->gradient, m->n) > o->tolerance) {
        bool moved;
        find_direction(m);
        TESS_TRY(move(m, f, ctx, r, &moved));
        if (!moved && m->n_pairs == 0) {
            break;
        }
        if (!moved) {
            m->n_pairs = 0; /* once more along the gradient itself */
        }
        r->n_iterations++;
    }
    r->value = m->value;
    r->gradient = largest(m->gradient, m->n);
    return TESS_OK;
}

tess_status tess__lbfgs(tess__function *f, void *ctx, int64_t n, double *x,
                        const tess__lbfgs_options *o, tess__lbfgs_result *out)
{
    minimizer m = {.n = n, .x = x};
    tess_arena a = {0};
    *out = (tess__lbfgs_result){0};
    tess_status st = allocate(&m, &a);
    st = st ? st : run(&m, f, ctx, o, out);
    tess_arena_deinit(&a);
    return st;
}
