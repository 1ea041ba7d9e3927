/* SPDX-License-Identifier: Apache-2.0 */
/* What a training run saves: checkpoints, written while it goes on, and its results at the end. */
#include "train/train.h"

#include <string.h>

/* ---- saving -------------------------------------------------------------------------------- */

/* After saving `dir`, or having been resumed from it, the state has not changed under that name.
 * The files are written while training goes on, where states are in memory. */
static tess_status save_as(tess_run *r, char *dir, const char *name)
{
    if (r->last_checkpoint && strcmp(r->last_checkpoint, dir) == 0) {
        tess_free(dir);
        return TESS_OK;
    }
    const char *previous = r->o.delete_previous_checkpoint ? r->last_checkpoint : NULL;
    tess_status st = tess_trainer_shards(r->trainer)
                         ? tess__checkpoint_save_together(r->o.comm, r->model, &r->state,
                                                          r->checkpoints_dir, name, previous)
                         : tess__checkpoint_start(r->saver, r->model, &r->state, r->checkpoints_dir,
                                                  name, previous);
    /* The room for states that come and go is the writers' now. */
    st = st || !r->pager ? st : tess__saver_end(r->saver, true);
    if (st) {
        tess_free(dir);
        return st;
    }
    tess_free(r->last_checkpoint);
    r->last_checkpoint = dir;
    return TESS_OK;
}

tess_status tess__run_save(tess_run *r, const char *name)
{
    TESS_TRY(tess__run_take_results(r, true));
    if (r->rank > 0 && !tess_trainer_shards(r->trainer)) {
        return TESS_OK;
    }
    r->state.elapsed = r->o.seconds > 0 ? r->elapsed_before + tess_seconds() - r->started : 0;
    TESS_TRY(r->rank == 0 ? tess_metrics_sync(r->metrics) : TESS_OK);
    TESS_TRY(tess__run_fetch_recent(r));
    char *dir = tess_format("%s/%s", r->checkpoints_dir, name);
    return dir ? save_as(r, dir, name) : TESS_NOMEM;
}

tess_status tess__run_save_step(tess_run *r)
{
    char name[32];
    snprintf(name, sizeof name, "step_%08lld", (long long)r->state.step);
    return tess__run_save(r, name);
}

/* On a device its own copies change instead; what they became is fetched only by the next save,
 * which waits for this one. */
tess_status tess__run_let_change(tess_run *r)
{
    const bool here = !r->o.device || r->o.device == tess_device_cpu();
    if (r->saver && here) {
        tess__saver_settle(r->saver);
    }
    return r->saver ? tess__saver_end(r->saver, false) : TESS_OK;
}

/* ---- what ranks hold in parts, whole ------------------------------------------------------- */

static tess_status evaluate_saved(tess_run *r, const char *dir)
{
    tess_model *part = r->model, *whole = NULL;
    TESS_TRY(tess_model_open(dir, r->o.precision, &whole));
    r->model = whole;
    const tess_status st = tess__run_evaluate(r);
    r->model = part;
    tess_model_free(whole);
    return st;
}

tess_status tess__run_evaluate_together(tess_run *r, bool due)
{
    char name[40], *dir = NULL;
    uint8_t all = due;
    TESS_TRY(tess_comm_broadcast(r->o.comm, &all, 1, 0));
    if (!all) {
        return TESS_OK;
    }
    /* A leftover of a killed run is swept with those of saves. */
    snprintf(name, sizeof name, "step_%08lld.tmp.eval", (long long)r->state.step);
    TESS_TRY(tess__checkpoint_save_together(r->o.comm, r->model, &r->state, r->checkpoints_dir,
                                            name, NULL));
    if (r->rank > 0) {
        return TESS_OK;
    }
    dir = tess_format("%s/%s", r->checkpoints_dir, name);
    tess_status st = dir ? evaluate_saved(r, dir) : TESS_NOMEM;
    st = st ? st : tess_dir_remove(dir);
    tess_free(dir);
    return st;
}

tess_status tess__run_take_whole(tess_run *r)
{
    tess_trainer_free(r->trainer);
    r->trainer = NULL;
    tess_model_free(r->model);
    r->model = NULL;
    return tess_model_open(r->last_checkpoint, r->o.precision, &r->model);
}

/* ---- the end ------------------------------------------------------------------------------- */

tess_status tess__run_stop_early(tess_run *r, tess_status why)
{
    char *message = tess_strdup(tess_error());
    tess_status st = tess__run_save_step(r);
    st = st || !r->saver ? st : tess__saver_end(r->saver, true);
    if (st == TESS_OK) {
        st = TESS_FAIL(why, "%s; saved, go on with --resume latest", message ? message : "stopped");
    }
    tess_free(message);
    return st;
}

/* The base from its directory, in f32, with the adapter merged; training needs no memory then. */
static tess_status save_merged(tess_run *r, const char *adapter, const char *dir)
{
    tess_model *m = NULL;
    tess_trainer_free(r->trainer);
    r->trainer = NULL;
    tess_status st = tess_model_open(r->o.model, TESS_PRECISION_F32, &m);
    st = st ? st : tess_model_adapt(m, &adapter, 1);
    st = st ? st : tess_model_merge_adapters(m);
    st = st ? st : tess_model_save(m, dir);
    tess_model_free(m);
    return st;
}

tess_status tess__run_save_results(tess_run *r)
{
    char *dir = tess_format("%s/model", r->o.run_dir);
    char *adapter = tess_format("%s/adapter", r->o.run_dir);
    tess_status st = dir && adapter ? TESS_OK : TESS_NOMEM;
    if (st == TESS_OK && tess_model_has_adapters(r->model)) {
        st = tess_model_save_adapter(r->model, adapter);
        st = st ? st : save_merged(r, adapter, dir);
    } else if (st == TESS_OK) {
        st = tess_model_save(r->model, dir);
    }
    tess_free(dir);
    tess_free(adapter);
    return st;
}
