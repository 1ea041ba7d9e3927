/* SPDX-License-Identifier: Apache-2.0 */
/* A plan of training, as a table and as JSON. */
#include "cli/plan_print.h"

#include <math.h>

/* ---- for people ----------------------------------------------------------------------------- */

/* "  1.23 GB" in eight columns; "." for none. */
static void add_bytes(tess_buf *out, double bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    int unit = 0;
    while (bytes >= 999.5 && unit + 1 < (int)TESS_COUNT(units)) {
        bytes *= 1e-3;
        unit++;
    }
    if (bytes == 0) {
        tess_buf_adds(out, "        .");
    } else {
        tess_buf_addf(out, " %5.*f %2s", bytes < 10 ? 2 : bytes < 100 ? 1 : 0, bytes, units[unit]);
    }
}

static void add_seconds(tess_buf *out, double s)
{
    const bool small = s < 0.9995;
    s = small ? s * 1e3 : s;
    tess_buf_addf(out, " %6.*f %s", s < 10 ? 2 : s < 100 ? 1 : 0, s, small ? "ms" : "s ");
}

static double rate_of(const tess_planning_options *o, const tess_planned *row)
{
    const int64_t micro = o->accumulate ? o->accumulate : 1;
    return (double)(o->batch * o->cluster->ranks * micro) / row->step_seconds;
}

static void add_head(const tess_planning_options *o, const tess_planning *p, tess_buf *out)
{
    const tess_cluster *c = o->cluster;
    const int64_t micro = o->accumulate ? o->accumulate : 1;
    tess_buf_addf(out, "%s: %.1f M parameters, %s\n", o->model.path, (double)p->n_params * 1e-6,
                  tess_dtype_name(p->dtype));
    tess_buf_addf(out, "%s: %lld rank%s, %lld to a host, ", c->name, (long long)c->ranks,
                  c->ranks > 1 ? "s" : "", (long long)c->ranks_per_host);
    tess_buf_addf(out, "%.4g GB each\nbatch: %lld x %lld = %lld pictures", c->memory * 1e-9,
                  (long long)(o->batch * micro), (long long)c->ranks,
                  (long long)(o->batch * micro * c->ranks));
    tess_buf_addf(out, ", %lld caption%s of %.4g tokens each\n\n", (long long)p->captions_per_image,
                  p->captions_per_image > 1 ? "s" : "", p->tokens);
}

static void add_row(const tess_planning_options *o, const tess_planned *row, bool best,
                    tess_buf *out)
{
    tess_buf_addf(out, "%c %4d %9s",
                  best        ? '*'
                  : row->fits ? ' '
                              : '-',
                  row->stage, tess_recompute_name(row->recompute));
    for (int k = 0; k < TESS_PLANNED_KINDS; k++) {
        add_bytes(out, row->bytes[k]);
    }
    add_bytes(out, row->total);
    add_bytes(out, row->wire);
    add_seconds(out, row->step_seconds);
    tess_buf_addf(out, " %8.4g  %s\n", rate_of(o, row), tess_bound_name(row->bound));
}

void cli_plan_print(const tess_planning_options *o, const tess_planning *p, tess_buf *out)
{
    add_head(o, p, out);
    tess_buf_adds(out, "  ZeRO recompute");
    for (int k = 0; k < TESS_PLANNED_KINDS; k++) {
        const bool buffers = k == TESS_PLANNED_WIRE;
        tess_buf_addf(out, " %8s", buffers ? "buffers" : tess_planned_kind_name(k));
    }
    tess_buf_addf(out, " %8s %8s %9s %8s  bound by\n", "total", "on wire", "a step", "img/s");
    for (int64_t i = 0; i < p->n_rows; i++) {
        add_row(o, &p->row[i], i == p->best, out);
    }
    tess_buf_adds(out, "\n*: the fastest that fits; -: does not fit");
    tess_buf_adds(out, o->offload ? "; masters and moments are in files\n" : "\n");
}

/* ---- for programs --------------------------------------------------------------------------- */

static void add_real(tess_json_writer *w, const char *key, double x)
{
    tess_json_key(w, key);
    tess_json_add_real(w, x);
}

static void add_int(tess_json_writer *w, const char *key, int64_t x)
{
    tess_json_key(w, key);
    tess_json_add_int(w, x);
}

static void add_bool(tess_json_writer *w, const char *key, bool x)
{
    tess_json_key(w, key);
    tess_json_add_bool(w, x);
}

static void write_row(const tess_planning_options *o, const tess_planned *row, tess_json_writer *w)
{
    tess_json_begin_object(w);
    add_int(w, "zero", row->stage);
    tess_json_key(w, "recompute");
    tess_json_add_string(w, tess_recompute_name(row->recompute));
    add_bool(w, "offload", row->offload);
    add_bool(w, "fits", row->fits);
    tess_json_key(w, "bytes");
    tess_json_begin_object(w);
    for (int k = 0; k < TESS_PLANNED_KINDS; k++) {
        add_int(w, tess_planned_kind_name(k), llround(row->bytes[k]));
    }
    add_int(w, "total", llround(row->total));
    tess_json_end_object(w);
    add_int(w, "wire_bytes", llround(row->wire));
    add_int(w, "disk_bytes", llround(row->disk));
    add_real(w, "flops", row->flops);
    tess_json_key(w, "seconds");
    tess_json_begin_object(w);
    for (int b = 0; b < TESS_BOUNDS; b++) {
        add_real(w, tess_bound_name(b), row->seconds[b]);
    }
    add_real(w, "update", row->update_seconds);
    add_real(w, "step", row->step_seconds);
    tess_json_end_object(w);
    add_real(w, "pictures_per_second", rate_of(o, row));
    tess_json_key(w, "bound");
    tess_json_add_string(w, tess_bound_name(row->bound));
    tess_json_end_object(w);
}

void cli_plan_write(const tess_planning_options *o, const tess_planning *p, tess_buf *out)
{
    tess_json_writer w = {.buf = out};
    tess_json_begin_object(&w);
    tess_json_key(&w, "model");
    tess_json_add_string(&w, o->model.path);
    add_int(&w, "parameters", p->n_params);
    tess_json_key(&w, "dtype");
    tess_json_add_string(&w, tess_dtype_name(p->dtype));
    tess_json_key(&w, "cluster");
    tess_json_add_string(&w, o->cluster->name);
    add_int(&w, "ranks", o->cluster->ranks);
    add_int(&w, "ranks_per_host", o->cluster->ranks_per_host);
    add_int(&w, "memory_per_rank", llround(o->cluster->memory));
    add_int(&w, "batch_size", o->batch);
    add_int(&w, "accum_freq", o->accumulate ? o->accumulate : 1);
    add_int(&w, "captions_per_image", p->captions_per_image);
    add_real(&w, "tokens", p->tokens);
    tess_json_key(&w, "plans");
    tess_json_begin_array(&w);
    for (int64_t i = 0; i < p->n_rows; i++) {
        write_row(o, &p->row[i], &w);
    }
    tess_json_end_array(&w);
    tess_json_key(&w, "best");
    if (p->best >= 0) {
        tess_json_add_int(&w, p->best);
    } else {
        tess_json_add_null(&w);
    }
    tess_json_end_object(&w);
    tess_buf_adds(out, "\n");
}

/* ---- what would fit ------------------------------------------------------------------------- */

void cli_plan_advise(const tess_planning_options *o, const tess_planning_advice *a, tess_buf *out)
{
    tess_buf_addf(out, "nothing fits %.4g GB a rank: it would with %.4g GB",
                  o->cluster->memory * 1e-9, ceil(a->memory * 1e-6) * 1e-3);
    if (a->batch > 0) {
        tess_buf_addf(out, ", with --batch-size %lld", (long long)a->batch);
    }
    if (a->ranks > 0) {
        tess_buf_addf(out, ", on %lld ranks", (long long)a->ranks);
    }
    if (a->offload) {
        tess_buf_adds(out, ", with --offload");
    }
}
