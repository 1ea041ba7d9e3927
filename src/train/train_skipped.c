/* SPDX-License-Identifier: Apache-2.0 */
/* Updates that were skipped: counted, warned of, and written to skipped.jsonl, a line for each rank
 * with the samples of its batches.
 *
 * On a card a step's result comes when later steps have begun, and not at the same moment on every
 * rank; so skipped steps wait in a list until a place where all ranks have waited for all results,
 * and only there do they gather their lines, step by step.  Which samples a step had is computed
 * from its place in the run. */
#include "train/metrics_read.h"
#include "train/train.h"

#include <math.h>
#include <string.h>

static const char *const reasons[] = {
    [TESS_SKIP_GRADIENT] = "the gradient is not finite",
    [TESS_SKIP_LOSS] = "the loss is not finite",
    [TESS_SKIP_HIGH_LOSS] = "the loss is far above that of the last steps",
    [TESS_SKIP_HIGH_NORM] = "the gradient's norm is far above that of the last steps",
};

/* ---- noticing ------------------------------------------------------------------------------ */

tess_status tess__run_account(tess_run *r, const tess_step_result *s)
{
    const int64_t step = s->step + r->skipped_before;
    r->loss = s->loss;
    r->norm = s->norm;
    if (s->why == TESS_SKIP_NOT) {
        r->state.loss_sum += (double)s->loss;
        r->state.n_loss++;
        return TESS_OK;
    }
    r->state.n_skipped++;
    TESS_TRY(tess_grow(&r->skipped, &r->cap_skipped, r->n_skipped + 1, sizeof *r->skipped));
    r->skipped[r->n_skipped] = *s;
    r->skipped[r->n_skipped++].step = step;
    if (r->rank > 0) {
        return TESS_OK;
    }
    return tess_metrics_log(r->metrics, TESS_LOG_WARN,
                            "step %lld: %s (loss %g, norm %g); update skipped (%lld so far)",
                            (long long)step, reasons[s->why], (double)s->loss, (double)s->norm,
                            (long long)r->state.n_skipped);
}

/* ---- skipped.jsonl ------------------------------------------------------------------------- */

static tess_status open_file(tess_run *r, int64_t keep)
{
    char *path = tess_format("%s/skipped.jsonl", r->o.run_dir);
    tess_status st = path ? tess_appender_open(path, keep, &r->skipped_file) : TESS_NOMEM;
    tess_free(path);
    return st;
}

tess_status tess__run_open_skipped(tess_run *r)
{
    int64_t keep = 0;
    char *path = tess_format("%s/skipped.jsonl", r->o.run_dir);
    const bool exists = path && tess_path_exists(path);
    tess_status st = path ? TESS_OK : TESS_NOMEM;
    st = exists && st == TESS_OK ? tess__metrics_keep_bytes(path, r->state.step, &keep) : st;
    tess_free(path);
    return exists && st == TESS_OK ? open_file(r, keep) : st;
}

static tess_status add_key(const tess_dataset *ds, int64_t sample, tess_json_writer *w)
{
    tess_sample s = {0};
    tess_status st = tess_dataset_read(ds, sample, 0, &s);
    if (st == TESS_OK) {
        tess_json_add_string(w, s.key ? s.key : "");
    }
    tess_sample_deinit(&s);
    return st;
}

/* The keys of this rank's samples in the batches of an update. */
static tess_status add_samples(const tess_run *r, int64_t step, tess_json_writer *w)
{
    const int64_t n = r->o.batch_size / r->n_ranks, size = r->o.batch_size * r->o.accum_freq;
    int64_t *samples = tess_alloc_array((size_t)n, sizeof *samples);
    tess_status st = samples ? TESS_OK : TESS_NOMEM;
    tess_json_begin_array(w);
    for (int64_t k = 0; st == TESS_OK && k < r->o.accum_freq; k++) {
        tess_loader_find(r->loader, (step - 1) * size + k * r->o.batch_size, samples);
        for (int64_t i = 0; st == TESS_OK && i < n; i++) {
            st = samples[i] >= 0 ? add_key(r->data, samples[i], w) : TESS_OK;
        }
    }
    tess_json_end_array(w);
    tess_free(samples);
    return st;
}

static tess_status write_line(const tess_run *r, const tess_step_result *s, tess_buf *out)
{
    tess_json_writer w = {.buf = out};
    tess_json_begin_object(&w);
    tess_json_key(&w, "step");
    tess_json_add_int(&w, s->step);
    tess_json_key(&w, "why");
    tess_json_add_string(&w, reasons[s->why]);
    tess_json_key(&w, "loss");
    tess_json_add_real(&w, (double)s->loss);
    tess_json_key(&w, "norm");
    tess_json_add_real(&w, (double)s->norm);
    tess_json_key(&w, "rank");
    tess_json_add_int(&w, r->rank);
    tess_json_key(&w, "samples");
    TESS_TRY(add_samples(r, s->step, &w));
    tess_json_end_object(&w);
    tess_buf_adds(out, "\n");
    return tess_buf_check(out);
}

static tess_status append(tess_run *r, const char *lines, int64_t n_bytes)
{
    TESS_TRY(r->skipped_file ? TESS_OK : open_file(r, 0));
    return tess_appender_write(r->skipped_file, lines, (size_t)n_bytes);
}

static tess_status log_one(tess_run *r, const tess_step_result *s)
{
    tess_buf lines = {0};
    tess_status st = write_line(r, s, &lines);
    st = st ? st : tess__run_gather(r, &lines);
    st = st || r->rank > 0 ? st : append(r, lines.data, (int64_t)lines.n_bytes);
    tess_buf_deinit(&lines);
    return st;
}

tess_status tess__run_log_skipped(tess_run *r)
{
    for (size_t i = 0; i < r->n_skipped; i++) {
        TESS_TRY(log_one(r, &r->skipped[i]));
    }
    const bool any = r->n_skipped > 0 && r->skipped_file;
    r->n_skipped = 0;
    return any ? tess_appender_sync(r->skipped_file) : TESS_OK;
}

void tess__run_close_skipped(tess_run *r)
{
    tess_appender_close(r->skipped_file);
    tess_free(r->skipped);
}

/* ---- what outliers are told by, in a checkpoint -------------------------------------------- */

tess_status tess__run_fetch_recent(tess_run *r)
{
    int64_t n;
    tess_store *s = tess_model_store(r->model);
    const float *recent = tess_store_group(s, "recent", &n);
    if (r->o.skip_outliers <= 0) {
        return TESS_OK;
    }
    TESS_TRY(tess_store_download(s, "recent", ""));
    for (int64_t i = 0; i < TESS_RECENT_SIZE; i++) {
        uint32_t bits;
        memcpy(&bits, &recent[i], sizeof bits);
        snprintf(r->state.recent + 8 * i, 9, "%08x", (unsigned)bits);
    }
    return TESS_OK;
}

static bool read_bits(const char *text, float *out)
{
    unsigned bits = 0;
    const int n = sscanf(text, "%8x", &bits);
    memcpy(out, &bits, sizeof *out);
    return n == 1 && isfinite(*out);
}

tess_status tess__run_send_recent(tess_run *r, const char *checkpoint)
{
    int64_t n;
    tess_store *s = tess_model_store(r->model);
    float *recent = tess_store_group(s, "recent", &n);
    if (r->o.skip_outliers <= 0) {
        return TESS_OK;
    }
    bool whole = strlen(r->state.recent) == 8 * TESS_RECENT_SIZE;
    for (int64_t i = 0; whole && i < TESS_RECENT_SIZE; i++) {
        whole = read_bits(r->state.recent + 8 * i, &recent[i]);
    }
    if (!whole || !tess_recent_is_valid(recent)) {
        return TESS_FAIL(TESS_FORMAT,
                         "checkpoint %s: state.json: \"recent\", the losses and norms of the last "
                         "steps, is missing or damaged",
                         checkpoint);
    }
    return tess_store_upload(s, "recent", "");
}
