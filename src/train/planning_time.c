/* SPDX-License-Identifier: Apache-2.0 */
/* How long a step takes: every operator of the plans at the rate measured for its like, or else the
 * longer of its operations at the cluster's rate and its bytes at memory's; then the wire and the
 * disk. */
#include "train/planning.h"

#include <math.h>
#include <string.h>

/* ---- operators ------------------------------------------------------------------------------ */

static bool is_attention(const char *op)
{
    return strncmp(op, "sdpa", 4) == 0;
}

/* Seconds by the figures of the cluster; *out_compute whether operations decide. */
static double by_figures(const tess_cluster *c, const tess_op_cost *x, bool *out_compute)
{
    const bool half = x->dtype != TESS_F32;
    const double rate = is_attention(x->op) && c->attention > 0 ? c->attention : c->flops[half];
    const double compute = x->flops / rate, memory = x->bytes / c->bandwidth;
    *out_compute = compute >= memory;
    return compute > memory ? compute : memory;
}

static double apart(double a, double b)
{
    return a > 0 && b > 0 ? fabs(log(a / b)) : a == b ? 0 : 100;
}

/* The measured rate of the operator most like x; NULL: none of its name and type. */
static const tess_rate *nearest(const tess_cluster *c, const tess_op_cost *x)
{
    const tess_rate *best = NULL;
    double least = INFINITY;
    for (int64_t i = 0; i < c->n_rates; i++) {
        const tess_rate *r = &c->rates[i];
        const double d = apart(r->flops, x->flops) + apart(r->bytes, x->bytes);
        if (d < least && strcmp(r->op, x->op) == 0 &&
            strcmp(r->dtype, tess_dtype_name(x->dtype)) == 0) {
            best = r;
            least = d;
        }
    }
    return best;
}

static double seconds_of(const tess_cluster *c, const tess_op_cost *x, bool *out_compute)
{
    const double figures = by_figures(c, x, out_compute);
    const tess_rate *r = nearest(c, x);
    if (!r) {
        return figures;
    }
    const bool by_flops = r->flops > 0 && x->flops > 0;
    return r->seconds * (by_flops ? x->flops / r->flops : x->bytes / r->bytes);
}

/* Bring features to all ranks, and their gradients back. */
static bool moves_features(const char *op)
{
    return strncmp(op, "all_gather", 10) == 0;
}

/* Whose time is the wire's: these, and what moves weights and gradients within a step. */
static bool is_collective(const char *op)
{
    return moves_features(op) || strncmp(op, "shard_", 6) == 0;
}

/* ---- wire ----------------------------------------------------------------------------------- */

static double features_bytes(const tess__timing *t)
{
    const double n = (double)t->cluster->ranks;
    double sum = 0;
    for (int64_t i = 0; i < t->account->n_step; i++) {
        const tess_op_cost *x = &t->account->step[i];
        /* One operand is all ranks' rows, the other 1/N of them. */
        sum += moves_features(x->op) ? (double)x->n * x->bytes / (1 + 1 / n) * (n - 1) / n : 0;
    }
    return sum;
}

double tess__wire_bytes(const tess__timing *t, int stage)
{
    const double n = (double)t->cluster->ranks, a = (double)t->accumulate;
    const double g = t->whole.gradients, w = t->whole.weights;
    const double states[TESS_ZERO_STAGES] = {
        2 * g,          /* summed and handed to all: an all_reduce */
        g + w,          /* summed to its owner, whose new weights go to all */
        a * g + w,      /* the same in every micro-step */
        a * (g + 2 * w) /* and weights come for the forward and again for the backward pass */
    };
    return states[stage] * (n - 1) / n + a * features_bytes(t);
}

/* Collectives of a step that wait for each other. */
static double n_collectives(const tess__timing *t, int stage)
{
    const double a = (double)t->accumulate;
    double features = 0;
    for (int64_t i = 0; i < t->account->n_step; i++) {
        features += moves_features(t->account->step[i].op) ? (double)t->account->step[i].n : 0;
    }
    return a * features + (stage == 3 ? 3 * a : 2);
}

static double wire_seconds(const tess__timing *t, const tess_planned *p)
{
    const tess_cluster *c = t->cluster;
    if (c->ranks == 1) {
        return 0;
    }
    const bool far = c->ranks > c->ranks_per_host, near = c->ranks_per_host > 1;
    double rate = near ? c->link : c->net;
    rate = far && c->net < rate ? c->net : rate;
    return p->wire / rate + n_collectives(t, p->stage) * (far ? c->net_s : c->link_s);
}

/* ---- a step --------------------------------------------------------------------------------- */

static void add_costs(const tess_cluster *c, const tess_op_cost *x, int64_t n, double times,
                      tess_planned *out)
{
    for (int64_t i = 0; i < n; i++) {
        if (is_collective(x[i].op)) {
            continue;
        }
        bool compute;
        const double seconds = times * (double)x[i].n * seconds_of(c, &x[i], &compute);
        out->seconds[compute ? TESS_BOUND_COMPUTE : TESS_BOUND_MEMORY] += seconds;
        out->flops += times * (double)x[i].n * x[i].flops;
    }
}

static void find_bound(tess_planned *out)
{
    for (int b = 0; b < TESS_BOUNDS; b++) {
        out->step_seconds += out->seconds[b];
        out->bound = out->seconds[b] > out->seconds[out->bound] ? (tess_bound)b : out->bound;
    }
}

void tess__plan_times(const tess__timing *t, tess_planned *out)
{
    const tess_cluster *c = t->cluster;
    const double part = out->stage > 0 ? 1 / (double)c->ranks : 1;
    add_costs(c, t->own->step, t->own->n_step, (double)t->accumulate, out);
    const double computing = out->seconds[TESS_BOUND_COMPUTE] + out->seconds[TESS_BOUND_MEMORY];
    add_costs(c, t->account->update, t->account->n_update, part, out);
    out->update_seconds =
        out->seconds[TESS_BOUND_COMPUTE] + out->seconds[TESS_BOUND_MEMORY] - computing;
    out->wire = tess__wire_bytes(t, out->stage);
    const double exposed = wire_seconds(t, out) - c->overlap * computing;
    out->seconds[TESS_BOUND_WIRE] = exposed > 0 ? exposed : 0;
    if (out->offload) {
        const double moved = (t->whole.masters + t->whole.moments) * part;
        out->disk = 2 * moved;
        out->seconds[TESS_BOUND_DISK] = moved / c->disk_read + moved / c->disk_write;
    }
    find_bound(out);
}
