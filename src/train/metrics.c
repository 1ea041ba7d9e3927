/* SPDX-License-Identifier: Apache-2.0 */
/* The files of a run directory.  Each record is one write, so a kill between two records leaves
 * whole lines; a torn tail after a power cut is cut off when the run goes on.  out.log is not cut
 * back: it says what happened, a killed stretch included.
 */
#include "tessera/metrics.h"

#include "train/metrics_read.h"
#include "train/tfevents.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TRAIN_SCALARS = 7 };

struct tess_metrics {
    char *dir;
    tess_appender *train, *results, *events, *log; /* events: NULL when switched off */
    tess_buf line;
};

/* ---- opening ------------------------------------------------------------------------------ */

static tess_status refuse_used(const char *path)
{
    return TESS_FAIL(TESS_INVALID,
                     "%s: this run directory holds metrics of another run; choose another --name, "
                     "or go on with it by --resume latest",
                     path);
}

static tess_status open_jsonl(const tess_metrics_options *o, const char *name, tess_appender **out)
{
    char *path = tess_format("%s/%s", o->dir, name);
    int64_t keep = 0;
    tess_status st = path == NULL ? TESS_NOMEM : TESS_OK;
    if (st == TESS_OK && o->resume) {
        st = tess__metrics_keep_bytes(path, o->resume_step, &keep);
    } else if (st == TESS_OK && tess_path_exists(path)) {
        st = refuse_used(path);
    }
    if (st == TESS_OK) {
        st = tess_appender_open(path, keep, out);
    }
    tess_free(path);
    return st;
}

static tess_status open_sub(const char *dir, const char *name, bool make, char **out)
{
    *out = tess_format("%s/%s", dir, name);
    if (*out == NULL) {
        return TESS_NOMEM;
    }
    return make ? tess_dir_make(*out) : TESS_OK;
}

static tess_status open_log(tess_metrics *m)
{
    char *path;
    tess_status st = open_sub(m->dir, "out.log", false, &path);
    if (st == TESS_OK) {
        st = tess_appender_open(path, -1, &m->log);
    }
    tess_free(path);
    return st;
}

static tess_status open_events(tess_metrics *m, const tess_metrics_options *o)
{
    char *path;
    tess_status st = open_sub(m->dir, "tensorboard", false, &path);
    if (st == TESS_OK) {
        st = tess__tfevents_open(path, o->resume, o->resume_step, &m->events);
    }
    tess_free(path);
    return st;
}

static tess_status open_all(tess_metrics *m, const tess_metrics_options *o)
{
    char *checkpoints = NULL;
    m->dir = tess_strdup(o->dir);
    if (m->dir == NULL) {
        return TESS_NOMEM;
    }
    tess_status st = open_sub(o->dir, "checkpoints", true, &checkpoints);
    tess_free(checkpoints);
    TESS_TRY(st);
    TESS_TRY(open_jsonl(o, "metrics.jsonl", &m->train));
    TESS_TRY(open_jsonl(o, "checkpoints/results.jsonl", &m->results));
    TESS_TRY(open_log(m));
    return o->no_tensorboard ? TESS_OK : open_events(m, o);
}

tess_status tess_metrics_open(const tess_metrics_options *options, tess_metrics **out)
{
    *out = NULL;
    tess_metrics *m = tess_alloc(sizeof(*m));
    if (m == NULL) {
        return TESS_NOMEM;
    }
    tess_status st = open_all(m, options);
    if (st != TESS_OK) {
        tess_metrics_close(m);
        return st;
    }
    *out = m;
    return TESS_OK;
}

void tess_metrics_close(tess_metrics *m)
{
    if (m == NULL) {
        return;
    }
    tess_appender_close(m->train);
    tess_appender_close(m->results);
    tess_appender_close(m->events);
    tess_appender_close(m->log);
    tess_buf_deinit(&m->line);
    tess_free(m->dir);
    tess_free(m);
}

tess_status tess_metrics_sync(tess_metrics *m)
{
    TESS_TRY(tess_appender_sync(m->train));
    TESS_TRY(tess_appender_sync(m->results));
    TESS_TRY(tess_appender_sync(m->log));
    return m->events != NULL ? tess_appender_sync(m->events) : TESS_OK;
}

/* ---- records ------------------------------------------------------------------------------ */

static tess_status append_line(tess_metrics *m, tess_appender *a)
{
    TESS_TRY(tess_buf_check(&m->line));
    return tess_appender_write(a, m->line.data, m->line.n_bytes);
}

static tess_status append_record(tess_metrics *m, tess_appender *a, int64_t step, int64_t epoch,
                                 double wall_s, const tess_scalar *scalars, size_t n)
{
    tess_json_writer w = {.buf = &m->line};
    tess_buf_clear(&m->line);
    tess_json_begin_object(&w);
    tess_json_key(&w, "step");
    tess_json_add_int(&w, step);
    tess_json_key(&w, "epoch");
    tess_json_add_int(&w, epoch);
    tess_json_key(&w, "time");
    tess_json_add_real(&w, round(wall_s * 1000) / 1000);
    for (size_t i = 0; i < n; i++) {
        tess_json_key(&w, scalars[i].name);
        tess_json_add_real(&w, scalars[i].value);
    }
    tess_json_end_object(&w);
    tess_buf_adds(&m->line, "\n");
    return append_line(m, a);
}

static tess_status append_event(tess_metrics *m, int64_t step, double wall_s,
                                const tess_scalar *scalars, size_t n)
{
    if (m->events == NULL) {
        return TESS_OK;
    }
    tess_buf_clear(&m->line);
    tess__tfevents_add_scalars(&m->line, wall_s, step, scalars, n);
    return append_line(m, m->events);
}

static tess_status add_record(tess_metrics *m, tess_appender *a, int64_t step, int64_t epoch,
                              const tess_scalar *scalars, size_t n)
{
    double wall_s = tess_wall_seconds();
    TESS_TRY(append_record(m, a, step, epoch, wall_s, scalars, n));
    return append_event(m, step, wall_s, scalars, n);
}

tess_status tess_metrics_add_result(tess_metrics *m, int64_t step, int64_t epoch,
                                    const tess_scalar *scalars, size_t n)
{
    return add_record(m, m->results, step, epoch, scalars, n);
}

/* ---- out.log ------------------------------------------------------------------------------ */

static tess_status append_log(tess_metrics *m, tess_log_level level, const char *text)
{
    static const char *const names[] = {"ERROR", "WARNING", "INFO", "DEBUG"};
    time_t now = (time_t)tess_wall_seconds();
    struct tm local;
    char stamp[64] = "";
    if (localtime_r(&now, &local) != NULL) {
        (void)strftime(stamp, sizeof(stamp), "%Y-%m-%d,%H:%M:%S", &local);
    }
    tess_buf_clear(&m->line);
    tess_buf_addf(&m->line, "%s | %s | %s\n", stamp, names[level], text);
    return append_line(m, m->log);
}

tess_status tess_metrics_log(tess_metrics *m, tess_log_level level, const char *fmt, ...)
{
    char text[2048];
    va_list va;
    va_start(va, fmt);
    vsnprintf(text, sizeof(text), fmt, va);
    va_end(va);
    tess_log(level, "%s", text);
    return append_log(m, level, text);
}

static tess_status log_train(tess_metrics *m, const tess_train_point *p, double per_device)
{
    char text[512], digits[32];
    double percent =
        p->samples_per_epoch > 0 ? 100.0 * (double)p->n_samples / (double)p->samples_per_epoch : 0;
    int width = snprintf(digits, sizeof(digits), "%lld", (long long)p->samples_per_epoch);
    snprintf(text, sizeof(text),
             "Train Epoch: %lld [%*lld/%lld (%.0f%%)] Data (t): %.3f Batch (t): %.3f, %#g/s, "
             "%#g/s/gpu LR: %f Logit Scale: %.3f Loss: %#.5g (%#.5g)",
             (long long)p->epoch, width, (long long)p->n_samples, (long long)p->samples_per_epoch,
             percent, p->data_time, p->batch_time, p->samples_per_second, per_device, p->lr,
             p->logit_scale, p->loss, p->mean_loss);
    tess_log(TESS_LOG_DEBUG, "%s", text);
    return append_log(m, TESS_LOG_INFO, text);
}

tess_status tess_metrics_add_train(tess_metrics *m, const tess_train_point *p,
                                   const tess_scalar *more, size_t n_more)
{
    double per_device = p->samples_per_second / (p->n_devices > 0 ? p->n_devices : 1);
    const tess_scalar own[TRAIN_SCALARS] = {
        {"train/loss", p->loss},
        {"train/lr", p->lr},
        {"train/logit_scale", p->logit_scale},
        {"train/data_time", p->data_time},
        {"train/batch_time", p->batch_time},
        {"train/samples_per_second", p->samples_per_second},
        {"train/samples_per_second_per_gpu", per_device},
    };
    tess_scalar *all = tess_alloc_array(TRAIN_SCALARS + n_more, sizeof(*all));
    if (all == NULL) {
        return TESS_NOMEM;
    }
    memcpy(all, own, sizeof(own));
    for (size_t i = 0; i < n_more; i++) {
        all[TRAIN_SCALARS + i] = more[i];
    }
    tess_status st = add_record(m, m->train, p->step, p->epoch, all, TRAIN_SCALARS + n_more);
    tess_free(all);
    return st == TESS_OK ? log_train(m, p, per_device) : st;
}

/* ---- params.txt --------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static tess_status add_param(tess_names *lines, const char *key, const tess_json *value)
{
    tess_buf line = {0};
    tess_json_writer w = {.buf = &line};
    tess_buf_addf(&line, "%s: ", key);
    if (tess_json_kind_of(value) == TESS_JSON_STRING) {
        tess_buf_adds(&line, tess_json_string(value, ""));
    } else {
        tess_json_add_value(&w, value);
    }
    tess_status st = tess_buf_check(&line);
    if (st == TESS_OK) {
        st = tess_names_add(lines, line.data);
    }
    tess_buf_deinit(&line);
    return st;
}

static tess_status write_params(tess_metrics *m, const tess_json *params, tess_names *lines)
{
    for (size_t i = 0; i < tess_json_count(params); i++) {
        const char *key;
        const tess_json *value = tess_json_member(params, i, &key);
        TESS_TRY(add_param(lines, key, value));
    }
    if (lines->n_names > 1) {
        qsort(lines->names, lines->n_names, sizeof(lines->names[0]), by_text);
    }
    tess_buf_clear(&m->line);
    for (size_t i = 0; i < lines->n_names; i++) {
        tess_buf_addf(&m->line, "%s\n", lines->names[i]);
    }
    return tess_buf_check(&m->line);
}

tess_status tess_metrics_write_params(tess_metrics *m, const tess_json *params)
{
    tess_names lines = {0};
    tess_status st = write_params(m, params, &lines);
    char *path = tess_format("%s/params.txt", m->dir);
    if (st == TESS_OK) {
        st = path != NULL ? tess_file_write(path, m->line.data, m->line.n_bytes) : TESS_NOMEM;
    }
    tess_free(path);
    tess_names_deinit(&lines);
    return st;
}
