/* SPDX-License-Identifier: Apache-2.0 */
/* Loading a run's JSONL files into series, and thinning a series to what a chart can show. */
#include "train/report_data.h"

#include "train/metrics_read.h"

#include <math.h>
#include <string.h>

const char *tess__series_language(const char *name)
{
    const char *slash = strchr(name, '/');
    const char *second = slash != NULL ? strchr(slash + 1, '/') : NULL;
    return second != NULL && second[1] != '\0' ? second + 1 : NULL;
}

/* Beyond this the extent of an axis could overflow. */
#define DRAWN_MAX 1e300

/* ---- loading ------------------------------------------------------------------------------ */

/* Records repeat their keys in one order, so the next name is nearly always the next series. */
static tess__series *find(tess__run *run, const char *name)
{
    for (size_t i = 0; i < run->n_series; i++) {
        size_t at = (run->next + i) % run->n_series;
        if (strcmp(run->series[at].name, name) == 0) {
            run->next = (at + 1) % run->n_series;
            return &run->series[at];
        }
    }
    return NULL;
}

static tess_status find_or_add(tess__run *run, const char *name, tess__series **out)
{
    *out = find(run, name);
    if (*out != NULL) {
        return TESS_OK;
    }
    TESS_TRY(tess_grow(&run->series, &run->cap, run->n_series + 1, sizeof(run->series[0])));
    const char *copy = tess_arena_strndup(&run->arena, name, strlen(name));
    if (copy == NULL) {
        return TESS_NOMEM;
    }
    *out = &run->series[run->n_series++];
    (*out)->name = copy;
    return TESS_OK;
}

static tess_status add_member(tess__run *run, const char *key, const tess_json *v, int64_t step)
{
    static const char *const not_scalars[] = {"step", "epoch", "time"};
    tess_json_kind kind = tess_json_kind_of(v);
    bool scalar = kind == TESS_JSON_INT || kind == TESS_JSON_REAL || kind == TESS_JSON_NULL;
    for (int64_t i = 0; i < TESS_COUNT(not_scalars); i++) {
        scalar = scalar && strcmp(key, not_scalars[i]) != 0;
    }
    if (!scalar) {
        return TESS_OK;
    }
    tess__series *s;
    TESS_TRY(find_or_add(run, key, &s));
    TESS_TRY(tess_grow(&s->points, &s->cap, s->n_points + 1, sizeof(s->points[0])));
    double value = tess_json_real(v, NAN);
    value = fabs(value) < DRAWN_MAX ? value : NAN;
    s->points[s->n_points++] = (tess__point){(double)step, value};
    return TESS_OK;
}

typedef struct loading {
    tess__run *run;
    tess_status status;
} loading;

static bool add_record(void *ctx, const tess_json *record, int64_t step, int64_t offset)
{
    loading *l = ctx;
    (void)offset;
    double time = tess_json_real(tess_json_get(record, "time"), 0);
    l->run->first_s = l->run->first_s > 0 ? l->run->first_s : time;
    l->run->last_s = time > l->run->last_s ? time : l->run->last_s;
    l->run->last_step = step > l->run->last_step ? step : l->run->last_step;
    for (size_t i = 0; i < tess_json_count(record) && l->status == TESS_OK; i++) {
        const char *key;
        const tess_json *v = tess_json_member(record, i, &key);
        l->status = add_member(l->run, key, v, step);
    }
    return l->status == TESS_OK;
}

static tess_status load_file(tess__run *run, const char *dir, const char *name, int64_t *n_records)
{
    loading l = {.run = run};
    tess__metrics_walk walk = {0};
    char *path = tess_format("%s/%s", dir, name);
    tess_status st = path == NULL ? TESS_NOMEM : tess__metrics_read(path, add_record, &l, &walk);
    run->n_bad += walk.n_bad;
    *n_records = walk.n_records;
    tess_free(path);
    return st != TESS_OK ? st : l.status;
}

tess_status tess__run_load(const char *dir, tess__run *out)
{
    int64_t n_results;
    *out = (tess__run){0};
    TESS_TRY(load_file(out, dir, "metrics.jsonl", &out->n_train));
    return load_file(out, dir, "checkpoints/results.jsonl", &n_results);
}

void tess__run_deinit(tess__run *run)
{
    for (size_t i = 0; i < run->n_series; i++) {
        tess_free(run->series[i].points);
    }
    tess_free(run->series);
    tess_arena_deinit(&run->arena);
    *run = (tess__run){0};
}

/* ---- questions ---------------------------------------------------------------------------- */

const tess__series *tess__run_find(const tess__run *run, const char *name)
{
    for (size_t i = 0; i < run->n_series; i++) {
        if (strcmp(run->series[i].name, name) == 0) {
            return &run->series[i];
        }
    }
    return NULL;
}

double tess__series_last(const tess__series *s)
{
    for (size_t i = s != NULL ? s->n_points : 0; i-- > 0;) {
        if (isfinite(s->points[i].value)) {
            return s->points[i].value;
        }
    }
    return NAN;
}

static void add_to_bucket(tess__bucket *b, size_t *n, const tess__point *p)
{
    double k = (double)++*n;
    if (*n == 1) {
        *b = (tess__bucket){p->step, p->value, p->value, p->value};
        return;
    }
    b->step += (p->step - b->step) / k;
    b->mean += (p->value - b->mean) / k;
    b->low = fmin(b->low, p->value);
    b->high = fmax(b->high, p->value);
}

size_t tess__series_decimate(const tess__series *s, size_t n_buckets, tess__bucket *out)
{
    size_t n_out = 0, in_bucket = 0, last = 0;
    if (s->n_points == 0) {
        return 0;
    }
    double first = s->points[0].step, span = s->points[s->n_points - 1].step - first;
    for (size_t i = 0; i < s->n_points; i++) {
        const tess__point *p = &s->points[i];
        size_t at = i;
        if (s->n_points > n_buckets) {
            double part = span > 0 ? (p->step - first) / span : 0;
            at = (size_t)(fmin(fmax(part, 0), 1) * (double)(n_buckets - 1));
        }
        if (!isfinite(p->value)) {
            continue;
        }
        if (in_bucket > 0 && at <= last) {
            add_to_bucket(&out[n_out - 1], &in_bucket, p);
            continue;
        }
        last = at;
        in_bucket = 0;
        add_to_bucket(&out[n_out++], &in_bucket, p);
    }
    return n_out;
}
