/* SPDX-License-Identifier: Apache-2.0 */
/* What the ranks of a run do together beside the training itself: begin only from the same options,
 * state, data and weights; stop when one of them was told to; go by one clock. */
#include "train/source.h"
#include "train/train.h"

#include <string.h>

#define WHOLE_SAMPLES 64 /* of each data set that are compared byte by byte */

/* ---- what they begin with ------------------------------------------------------------------ */

static tess_status add_sample(tess_hash128_state *h, const tess_dataset *ds, int64_t index)
{
    tess_sample s = {0};
    tess_status st = tess_dataset_read(ds, index, TESS_READ_ALL, &s);
    if (st == TESS_OK) {
        tess_hash128_add(h, s.picture.data, s.picture.n_bytes);
        for (int64_t i = 0; i < s.n_captions; i++) {
            tess_hash128_add(h, s.captions[i].text, s.captions[i].n_bytes + 1);
        }
    }
    tess_sample_deinit(&s);
    return st;
}

/* Where every sample lies and how long it is, and all bytes of some of them, evenly spread. */
static tess_status hash_data(const tess_dataset *ds, char out[33])
{
    const int64_t n = tess_dataset_size(ds), step = n > WHOLE_SAMPLES ? n / WHOLE_SAMPLES : 1;
    tess_hash128_state *h = tess_hash128_new();
    if (!h) {
        return TESS_NOMEM;
    }
    for (int64_t i = 0; i < n; i++) {
        const tess__record *r = &ds->records[i];
        const uint64_t place[] = {r->begin,         r->id,      r->file,       r->picture_at,
                                  r->picture_bytes, r->text_at, r->text_bytes, r->json_at,
                                  r->json_bytes};
        tess_hash128_add(h, place, sizeof place);
    }
    tess_status st = TESS_OK;
    for (int64_t i = 0; st == TESS_OK && i < n; i += step) {
        st = add_sample(h, ds, i);
    }
    tess_hash128_finish(h, out);
    return st;
}

/* Of what ranks hold in parts no two have the same. */
static tess_status hash_weights(const tess_model *m, char out[33])
{
    static const char *const groups[] = {"param", "lora"};
    const tess_store *s = tess_model_store(m);
    tess_hash128_state *h = tess_hash128_new();
    if (!h) {
        return TESS_NOMEM;
    }
    for (int64_t k = 0; k < TESS_COUNT(groups); k++) {
        for (int64_t i = 0; i < tess_store_n_entries(s, groups[k]); i++) {
            float *x;
            tess_shape shape;
            const char *name = tess_store_entry(s, groups[k], i, &x, &shape);
            if (x && !tess_store_held(s, groups[k], name).split) {
                tess_hash128_add(h, x, (size_t)tess_shape_count(&shape) * sizeof *x);
            }
        }
    }
    tess_hash128_finish(h, out);
    return TESS_OK;
}

/* Who differs is named with what it has: hosts whose files are not the same show here. */
static tess_status compare(const tess_run *r)
{
    char what[256], data[33], weights[33];
    TESS_TRY(hash_data(r->data, data));
    TESS_TRY(hash_weights(r->model, weights));
    snprintf(what, sizeof what,
             "step %lld, options and model %.32s, ZeRO %d, data %.16s, weights %.16s",
             (long long)r->state.step, r->state.settings, r->o.zero, data, weights);
    return tess_comm_agree(r->o.comm, what, (uint64_t)r->state.step);
}

/* A rank that was interrupted while it opened takes the others along. */
tess_status tess__run_begin_together(const tess_run *r, tess_status opened)
{
    float stop = (float)(opened == TESS_CANCELLED);
    if (r->n_ranks == 1 || (opened && opened != TESS_CANCELLED)) {
        return opened;
    }
    TESS_TRY(tess_comm_all_reduce(r->o.comm, &stop, TESS_F32, 1));
    return stop > 0 ? TESS_FAIL(TESS_CANCELLED, "stopped before the first update") : compare(r);
}

/* ---- on the way ---------------------------------------------------------------------------- */

tess_status tess__run_share_clock(tess_run *r, bool *out_stop)
{
    float x[2] = {(float)(tess_cancelled != 0),
                  r->rank == 0 ? (float)(tess_seconds() - r->started) : 0.0f};
    TESS_TRY(r->n_ranks > 1 ? tess_comm_all_reduce(r->o.comm, x, TESS_F32, 2) : TESS_OK);
    r->elapsed = r->n_ranks > 1 ? (double)x[1] : tess_seconds() - r->started;
    *out_stop = x[0] > 0;
    return TESS_OK;
}

static tess_status gather_sizes(tess_comm *c, int64_t mine, int64_t *sizes)
{
    const int n = tess_comm_size(c);
    int64_t *each = tess_alloc_array((size_t)n, sizeof *each);
    for (int i = 0; each && i < n; i++) {
        each[i] = (int64_t)sizeof mine;
    }
    const tess_status st = each ? tess_comm_all_gather(c, &mine, each, sizes) : TESS_NOMEM;
    tess_free(each);
    return st;
}

tess_status tess__run_gather(const tess_run *r, tess_buf *text)
{
    TESS_TRY(tess_buf_check(text));
    if (r->n_ranks == 1) {
        return TESS_OK;
    }
    int64_t total = 0;
    int64_t *sizes = tess_alloc_array((size_t)r->n_ranks, sizeof *sizes);
    tess_status st = sizes ? gather_sizes(r->o.comm, (int64_t)text->n_bytes, sizes) : TESS_NOMEM;
    for (int i = 0; st == TESS_OK && i < r->n_ranks; i++) {
        total += sizes[i];
    }
    char *all = st ? NULL : tess_alloc((size_t)total + 1);
    st = st ? st : all ? tess_comm_all_gather(r->o.comm, text->data, sizes, all) : TESS_NOMEM;
    if (st == TESS_OK) {
        tess_buf_clear(text);
        tess_buf_add(text, all, (size_t)total);
        st = tess_buf_check(text);
    }
    tess_free(sizes);
    tess_free(all);
    return st;
}

/* ---- at the end ---------------------------------------------------------------------------- */

static tess_status log_lines(tess_run *r, char *text)
{
    for (char *line = text, *end; line && (end = strchr(line, '\n')) != NULL; line = end + 1) {
        *end = '\0';
        TESS_TRY(tess_metrics_log(r->metrics, TESS_LOG_WARN, "%s", line));
    }
    return TESS_OK;
}

tess_status tess__run_log_bad(tess_run *r)
{
    tess_buf text = {0};
    if (tess_bad_list_total(tess_loader_bad(r->loader)) > 0) {
        if (r->n_ranks > 1) {
            tess_buf_addf(&text, "rank %d: ", r->rank);
        }
        tess_buf_adds(&text, "left out: ");
        tess_bad_list_write(tess_loader_bad(r->loader), &text);
        tess_buf_adds(&text, "\n");
    }
    tess_status st = tess__run_gather(r, &text);
    st = st || r->rank > 0 ? st : log_lines(r, text.data);
    tess_buf_deinit(&text);
    return st;
}
