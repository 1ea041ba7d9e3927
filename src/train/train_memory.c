/* SPDX-License-Identifier: Apache-2.0 */
/* A limit to the memory of a run.
 *
 * What the process has when model, data and loader are open, the arena of the largest batch, and
 * what the loader still takes are fixed; the rest of the limit belongs to states.  A part of it is
 * the room in which they come and go; in what is left they stay, in the order of how often a step
 * wants them: weights forwards and backwards, gradients twice, moments once.  So optimizer states
 * are the first to lie in files, and with a large limit nothing does. */
#include "train/train.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    LEAST_BLOCK = 64 << 10,
    MOST_BLOCK = 2 << 20,
    BLOCKS_OF_LIMIT = 256,
    OPEN_PART = 2,     /* of the limit, for states while a model is opened */
    CACHE_PART = 64,   /* for each of the loader's caches */
    MARGIN = 16 << 20, /* libraries' buffers, threads' stacks, what malloc keeps */
    TRAYS = 4,
};

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

tess_status tess__memory_begin(tess_run *r)
{
    if (r->o.memory_limit == 0) {
        return TESS_OK;
    }
    size_t block = LEAST_BLOCK;
    while (block < MOST_BLOCK && 2 * block * BLOCKS_OF_LIMIT <= r->o.memory_limit) {
        block *= 2;
    }
    const char *slash = strrchr(r->o.run_dir, '/');
    char *dir = r->o.offload_dir ? tess_strdup(r->o.offload_dir)
                : slash          ? tess_strndup(r->o.run_dir, (size_t)(slash - r->o.run_dir) + 1)
                                 : tess_strdup(".");
    const tess_status st =
        dir ? tess_pager_new(&(tess_pager_options){.dir = dir, .block_bytes = block}, &r->pager)
            : TESS_NOMEM;
    tess_free(dir);
    TESS_TRY(st);
    tess_pager_set_budget(r->pager, r->o.memory_limit / OPEN_PART);
    /* Caches change nothing but the time. */
    r->o.cache_bytes = smaller(r->o.cache_bytes, r->o.memory_limit / CACHE_PART);
    return TESS_OK;
}

/* Bytes of this process in memory. */
static size_t resident(void)
{
    long pages = 0, all = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f) {
        (void)!fscanf(f, "%ld %ld", &all, &pages);
        fclose(f);
    }
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* What is not taken yet: pictures of the batches that the loader makes ahead and of those that an
 * update holds, and caches. */
static size_t loader_bytes(const tess_run *r)
{
    const tess_train_options *o = &r->o;
    const size_t side = o->distill_text ? 0 : (size_t)tess_model_image_size(r->model);
    const size_t batches = TRAYS + (o->accum_freq > 1 ? (size_t)o->accum_freq : 0);
    const size_t pictures = (size_t)o->batch_size * side * side * 3 * batches;
    return pictures + (o->cache_size > 0 ? 2 : 1) * o->cache_bytes;
}

typedef struct division {
    size_t fixed, workspace, room, kept, least;
} division;

static tess_status divide(tess_run *r, division *d)
{
    tess_trainer_need need;
    const int64_t n = r->o.batch_size * r->o.captions_per_image;
    TESS_TRY(tess_trainer_prepare(r->trainer, n * tess_model_context_length(r->model), &need));
    const size_t there = tess_pager_get_stats(r->pager).there_bytes, now = resident();
    d->workspace = need.workspace_bytes;
    d->fixed = (now > there ? now - there : 0) + loader_bytes(r) + MARGIN;
    d->least = d->fixed + d->workspace + need.paged_bytes;
    if (d->least <= r->o.memory_limit) {
        const size_t left = r->o.memory_limit - d->fixed - d->workspace;
        d->room = smaller(left, need.paged_bytes + need.paged_bytes / 2);
        d->kept = left - d->room;
    }
    return TESS_OK;
}

static double mib(size_t n_bytes)
{
    return (double)n_bytes / (1 << 20);
}

static tess_status refuse(const tess_run *r, const division *d)
{
    return TESS_FAIL(
        TESS_NOMEM,
        "a memory limit of %.0f MiB does not hold this run: %.0f MiB is the least, with "
        "%.0f MiB for program and data, %.0f MiB for computing and %.0f MiB for states "
        "in use; raise --memory-limit, or lower --batch-size",
        mib(r->o.memory_limit), mib(d->least) + 1, mib(d->fixed), mib(d->workspace),
        mib(d->least - d->fixed - d->workspace));
}

/* Groups keep what is left in this order; a line says how much of each. */
static tess_status keep(tess_run *r, const division *d, tess_buf *note)
{
    static const char *const groups[] = {"half", "param", "grad", "m", "v"};
    tess_store *s = tess_model_store(r->model);
    size_t left = d->kept;
    const char *between = "";
    for (int64_t i = 0; i < TESS_COUNT(groups); i++) {
        int64_t n;
        const size_t before = left;
        if (!tess_store_group(s, groups[i], &n)) {
            continue;
        }
        TESS_TRY(tess_store_keep(s, groups[i], &left));
        tess_buf_addf(note, "%s%s %.0f of %.0f", between, groups[i], mib(before - left),
                      mib((size_t)n * tess_dtype_bytes(tess_store_dtype(s, groups[i]))));
        between = ", ";
    }
    return TESS_OK;
}

/* Computing less again comes first: it is the faster. */
static tess_status fit(tess_run *r, division *d, tess_recompute *recompute)
{
    TESS_TRY(divide(r, d));
    while (d->least > r->o.memory_limit && *recompute != TESS_RECOMPUTE_FULL) {
        *recompute =
            *recompute == TESS_RECOMPUTE_OFF ? TESS_RECOMPUTE_SELECTIVE : TESS_RECOMPUTE_FULL;
        TESS_TRY(tess__run_open_trainer(r, *recompute));
        TESS_TRY(tess_trainer_sync(r->trainer, r->state.step - r->state.n_skipped));
        TESS_TRY(divide(r, d));
    }
    return d->least > r->o.memory_limit ? refuse(r, d) : TESS_OK;
}

static const char *recompute_name(tess_recompute r)
{
    return r == TESS_RECOMPUTE_FULL        ? " (blocks again in the backward pass)"
           : r == TESS_RECOMPUTE_SELECTIVE ? " (LayerNorms and activations again)"
                                           : "";
}

tess_status tess__memory_divide(tess_run *r)
{
    division d = {0};
    tess_recompute recompute = tess__run_recompute(&r->o);
    if (!r->pager) {
        return TESS_OK;
    }
    TESS_TRY(fit(r, &d, &recompute));
    tess_pager_set_budget(r->pager, d.room);
    tess_buf note = {0};
    tess_buf_addf(&note,
                  "memory limit %.0f MiB: program and data %.0f, computing %.0f%s, states in use "
                  "%.0f; in memory stay, in MiB: ",
                  mib(r->o.memory_limit), mib(d.fixed), mib(d.workspace), recompute_name(recompute),
                  mib(d.room));
    tess_status st = keep(r, &d, &note);
    st = st ? st : tess_buf_check(&note);
    r->memory_note = st ? NULL : tess_strdup(note.data);
    tess_buf_deinit(&note);
    return st ? st : r->memory_note ? TESS_OK : TESS_NOMEM;
}
