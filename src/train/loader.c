/* SPDX-License-Identifier: Apache-2.0 */
/* loader: threads that make batches ahead, and their delivery in order.
 *
 * One mutex guards the ring of trays; what is done under it is handing out runs of 16 slots and
 * moving states.  A thread always takes from the oldest batch that still has slots, so the next
 * batch to be read is the next to be complete.  Memory is what the trays, the threads' scratch and
 * the caches' limits say, however slow the reader is.
 *
 * Counting what is bad happens at delivery, in the order of slots, so reports do not depend on
 * which thread was first either.
 */
#include "train/loader.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RUN_SLOTS        16
#define RATE_AFTER       256
#define DEFAULT_RATE     0.1
#define POLL_NANOSECONDS 50000000

/* ---- work --------------------------------------------------------------------------------- */

/* Under the lock: a run of slots of the oldest batch that has some. */
static bool take(tess_loader *l, tess__tray **out, int64_t *first, int64_t *last)
{
    tess__tray *t = &l->trays[l->make_step % l->n_trays];
    if (l->is_paused || l->make_step >= l->end_step) {
        return false;
    }
    if (t->state == TESS__TRAY_IDLE) {
        tess__tray_start(t, l, l->make_step);
    } else if (t->state != TESS__TRAY_FILLING || t->step != l->make_step) {
        return false;
    }
    *out = t;
    *first = t->next_slot;
    *last = *first + RUN_SLOTS < t->n_slots ? *first + RUN_SLOTS : t->n_slots;
    t->next_slot = *last;
    l->make_step += *last == t->n_slots;
    l->n_busy++;
    return true;
}

/* Fills a run; the lock is held on entry and exit, not between. */
static void work(tess__worker *w, tess__tray *t, int64_t first, int64_t last)
{
    tess_loader *l = w->loader;
    bool is_failed = t->status != TESS_OK;
    pthread_mutex_unlock(&l->lock);
    tess_status st = is_failed ? TESS_OK : tess__loader_fill(w, t, first, last);
    char *error = st != TESS_OK ? tess_strdup(tess_error()) : NULL;
    pthread_mutex_lock(&l->lock);
    if (st != TESS_OK && t->status == TESS_OK) {
        t->status = st;
        t->error = error;
        error = NULL;
    }
    tess_free(error);
    t->n_left -= last - first;
    if (t->n_left == 0) {
        bool is_good = t->status == TESS_OK;
        pthread_mutex_unlock(&l->lock);
        if (is_good) {
            tess__tray_pack(t, l);
        }
        pthread_mutex_lock(&l->lock);
        t->state = TESS__TRAY_READY;
    }
    l->n_busy--;
    pthread_cond_broadcast(&l->done);
}

static void *run(void *argument)
{
    tess__worker *w = argument;
    tess_loader *l = w->loader;
    tess__tray *t;
    int64_t first, last;
    pthread_mutex_lock(&l->lock);
    while (!l->is_stopping) {
        if (take(l, &t, &first, &last)) {
            work(w, t, first, last);
        } else {
            pthread_cond_wait(&l->work, &l->lock);
        }
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* ---- opening and closing ------------------------------------------------------------------ */

static tess_status check_options(const tess_loader_options *o, int64_t n_samples)
{
    const struct {
        const char *name;
        int64_t value, min, max;
    } ranges[] = {
        {"batch", o->batch, 1, 1 << 24},
        {"picture size", o->size, !o->captions_only, 1 << 13},
        {"captions per image", o->captions_per_image, 0, 4096},
        {"tokens per caption", o->max_tokens, o->captions_per_image > 0, 1 << 20},
        {"workers", o->workers, 0, 1024},
        {"prefetch", o->prefetch, 1, 1024},
        {"cache size", o->cache_size, 0, 1 << 13},
        {"ranks", o->n_ranks, 1, 1 << 20},
        {"rank", o->rank, 0, o->n_ranks - 1},
    };
    for (int64_t i = 0; i < TESS_COUNT(ranges); i++) {
        if (ranges[i].value < ranges[i].min || ranges[i].value > ranges[i].max) {
            return TESS_FAIL(TESS_INVALID, "loader: %s is %lld, expected %lld to %lld",
                             ranges[i].name, (long long)ranges[i].value, (long long)ranges[i].min,
                             (long long)ranges[i].max);
        }
    }
    if (o->batch % o->n_ranks != 0) {
        return TESS_FAIL(TESS_INVALID, "a batch of %lld cannot be shared evenly by %lld ranks",
                         (long long)o->batch, (long long)o->n_ranks);
    }
    if (!o->evaluation && n_samples < o->batch) {
        return TESS_FAIL(TESS_INVALID,
                         "a batch of %lld needs as many samples, the data set has %lld: use a "
                         "smaller --batch-size",
                         (long long)o->batch, (long long)n_samples);
    }
    const bool pictures = o->hooks.decode && o->hooks.resize && (!o->raw || o->hooks.raw);
    if ((!pictures && !o->captions_only) || (o->captions_per_image > 0 && !o->hooks.tokenize)) {
        return TESS_FAIL(TESS_INVALID, "loader: decode, resize and tokenize hooks are required");
    }
    return TESS_OK;
}

static void set_defaults(tess_loader_options *o)
{
    o->temperature = o->temperature == 0 ? 1 : o->temperature;
    o->prefetch = o->prefetch == 0 ? 2 : o->prefetch;
    o->n_ranks = o->n_ranks == 0 ? 1 : o->n_ranks;
    o->cache_bytes = o->cache_bytes == 0 ? (size_t)1 << 30 : o->cache_bytes;
    o->max_bad_rate = o->max_bad_rate == 0 ? DEFAULT_RATE : o->max_bad_rate;
    if (o->source_language) {
        o->token_cache_bytes = 0; /* texts are wanted, not tokens alone */
    }
}

static tess_status find_source_language(const tess_dataset *ds, const char *name, int64_t *out)
{
    *out = name ? tess_dataset_find_language(ds, name) : -1;
    if (!name || *out >= 0) {
        return TESS_OK;
    }
    tess_buf have = {0};
    const int64_t n = tess_dataset_n_languages(ds);
    for (int64_t i = 0; i < n && i < 20; i++) {
        tess_buf_addf(&have, "%s%s", i > 0 ? ", " : "", tess_dataset_language(ds, i));
    }
    tess_status st =
        TESS_FAIL(TESS_INVALID, "the data has no captions in \"%s\"; it has %s%s (und: none named)",
                  name, have.data ? have.data : "none", n > 20 ? ", ..." : "");
    tess_buf_deinit(&have);
    return st;
}

static tess_status init_worker(tess__worker *w, tess_loader *l)
{
    const tess_loader_options *o = &l->options;
    w->loader = l;
    w->small = tess_alloc_array((size_t)o->cache_size, (size_t)o->cache_size * 3);
    if (!w->small) {
        return TESS_NOMEM;
    }
    if (o->captions_per_image > 0) {
        TESS_TRY(tess_caption_draw_new(l->ds, o->temperature, &w->draw));
    }
    return o->hooks.scratch_new ? o->hooks.scratch_new(o->hooks.ctx, &w->scratch) : TESS_OK;
}

static void deinit_worker(tess__worker *w)
{
    if (w->loader && w->loader->options.hooks.scratch_free) {
        w->loader->options.hooks.scratch_free(w->scratch);
    }
    tess_sample_deinit(&w->sample);
    tess_picture_deinit(&w->picture);
    tess_caption_draw_free(w->draw);
    tess_free(w->small);
    tess_free(w->languages);
    tess_free(w->ids);
}

/* Signals are the main thread's: these must not take its Ctrl-C. */
static tess_status start_threads(tess_loader *l)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = 0;
    for (int i = 0; i < l->options.workers && error == 0; i++) {
        error = pthread_create(&l->workers[i].thread, NULL, run, &l->workers[i]);
        l->workers[i].is_running = error == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return error == 0 ? TESS_OK : tess__fail_errno("cannot start a thread", "loader");
}

static tess_status init_lock(tess_loader *l)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->work, NULL);
    pthread_cond_init(&l->done, &monotonic);
    pthread_condattr_destroy(&monotonic);
    l->has_lock = true;
    return TESS_OK;
}

static tess_status init(tess_loader *l)
{
    const tess_loader_options *o = &l->options;
    l->n_local = o->batch / o->n_ranks;
    l->first_slot = o->rank * l->n_local;
    TESS_TRY(find_source_language(l->ds, o->source_language, &l->source_language));
    l->order = (tess_order){.seed = o->seed, .n = tess_dataset_size(l->ds), .batch = o->batch};
    l->end_step = o->evaluation ? (l->order.n + o->batch - 1) / o->batch : INT64_MAX;
    TESS_TRY(init_lock(l));
    TESS_TRY(tess__cache_init(&l->cache, l->order.n, o));
    l->is_counted = tess_alloc_array((size_t)l->order.n / 4 + 1, 1);
    l->n_trays = o->workers > 0 ? o->prefetch + 1 : 1;
    l->trays = tess_alloc_array((size_t)l->n_trays, sizeof *l->trays);
    l->n_workers = o->workers > 0 ? o->workers : 1;
    l->workers = tess_alloc_array((size_t)l->n_workers, sizeof *l->workers);
    if (!l->is_counted || !l->trays || !l->workers) {
        return TESS_NOMEM;
    }
    for (int64_t i = 0; i < l->n_trays; i++) {
        TESS_TRY(tess__tray_init(&l->trays[i], l));
    }
    for (int64_t i = 0; i < l->n_workers; i++) {
        TESS_TRY(init_worker(&l->workers[i], l));
    }
    return start_threads(l);
}

tess_status tess_loader_new(const tess_dataset *ds, const tess_loader_options *options,
                            tess_loader **out)
{
    tess_loader_options o = *options;
    *out = NULL;
    set_defaults(&o);
    TESS_TRY(check_options(&o, tess_dataset_size(ds)));
    tess_loader *l = tess_alloc(sizeof *l);
    if (!l) {
        return TESS_NOMEM;
    }
    l->ds = ds;
    l->options = o;
    tess_status st = init(l);
    if (st != TESS_OK) {
        tess_loader_free(l);
        return st;
    }
    *out = l;
    return TESS_OK;
}

static void stop_threads(tess_loader *l)
{
    pthread_mutex_lock(&l->lock);
    l->is_stopping = true;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    for (int64_t i = 0; i < l->n_workers && l->workers; i++) {
        if (l->workers[i].is_running) {
            pthread_join(l->workers[i].thread, NULL);
        }
    }
}

void tess_loader_free(tess_loader *l)
{
    if (!l) {
        return;
    }
    if (l->has_lock) {
        stop_threads(l);
        pthread_cond_destroy(&l->work);
        pthread_cond_destroy(&l->done);
        pthread_mutex_destroy(&l->lock);
    }
    for (int64_t i = 0; i < l->n_workers && l->workers; i++) {
        deinit_worker(&l->workers[i]);
    }
    for (int64_t i = 0; i < l->n_trays && l->trays; i++) {
        tess__tray_deinit(&l->trays[i]);
    }
    tess__cache_deinit(&l->cache);
    tess_bad_list_deinit(&l->bad);
    tess_free(l->workers);
    tess_free(l->trays);
    tess_free(l->is_counted);
    tess_free(l->error);
    tess_free(l);
}

/* ---- delivery ----------------------------------------------------------------------------- */

static int compare_events(const void *a, const void *b)
{
    const tess__event *x = a, *y = b;
    int64_t d = x->slot != y->slot ? x->slot - y->slot : x->attempt - y->attempt;
    return (d > 0) - (d < 0);
}

/* Sets one of the sample's two marks; false when it was set. */
static bool mark(tess_loader *l, int64_t sample, int which)
{
    uint8_t bit = (uint8_t)(1 << (2 * (sample % 4) + which));
    bool is_new = !(l->is_counted[sample / 4] & bit);
    l->is_counted[sample / 4] |= bit;
    return is_new;
}

static tess_status place(const tess_loader *l, int64_t sample, const char *detail, char *out,
                         size_t n)
{
    tess_sample s = {0};
    tess_status st = tess_dataset_read(l->ds, sample, 0, &s);
    if (st == TESS_OK) {
        snprintf(out, n, "%s%s%s", s.key ? s.key : "", detail ? ": " : "", detail ? detail : "");
    }
    tess_sample_deinit(&s);
    return st;
}

static tess_status count_event(tess_loader *l, const tess__event *e)
{
    char name[768];
    int64_t n_dropped = 0;
    for (int i = 0; i < TESS__N_CAPTION_REASONS; i++) {
        n_dropped += e->n_dropped[i];
    }
    l->stats.n_replaced += e->bad != TESS_BAD_NONE;
    if (e->bad != TESS_BAD_NONE && mark(l, e->sample, 0)) {
        TESS_TRY(place(l, e->sample, e->detail, name, sizeof name));
        TESS_TRY(tess_bad_list_add(&l->bad, e->bad, 1, name));
    }
    if (n_dropped > 0 && mark(l, e->sample, 1)) {
        TESS_TRY(place(l, e->sample, NULL, name, sizeof name));
        for (int i = 0; i < TESS__N_CAPTION_REASONS; i++) {
            TESS_TRY(tess_bad_list_add(&l->bad, (tess_bad)(TESS_BAD_CAPTION_UTF8 + i),
                                       e->n_dropped[i], name));
        }
    }
    return TESS_OK;
}

/* Fails with `what` and the list of what is bad. */
static tess_status fail_with_list(tess_loader *l, tess_status code, const char *what)
{
    tess_buf list = {0};
    tess_bad_list_write(&l->bad, &list);
    tess_status st = TESS_FAIL(code, "%s; left out: %s", what, list.data ? list.data : "nothing");
    tess_buf_deinit(&list);
    return st;
}

static tess_status account(tess_loader *l, tess__tray *t)
{
    char what[160];
    if (t->n_events > 1) {
        qsort(t->events, t->n_events, sizeof *t->events, compare_events);
    }
    for (size_t i = 0; i < t->n_events; i++) {
        TESS_TRY(count_event(l, &t->events[i]));
    }
    l->stats.n_batches++;
    l->stats.n_slots += t->n_slots;
    if (t->status != TESS_OK) {
        const char *error = t->error ? t->error : "out of memory";
        return t->status == TESS_FORMAT ? fail_with_list(l, t->status, error)
                                        : TESS_FAIL(t->status, "%s", error);
    }
    int64_t n_bad = l->stats.n_replaced;
    int64_t n_tried = l->stats.n_slots + (l->options.evaluation ? 0 : n_bad);
    double rate = l->options.max_bad_rate;
    if (rate < 1 && n_tried >= RATE_AFTER && (double)n_bad > rate * (double)n_tried) {
        snprintf(what, sizeof what,
                 "%lld of %lld samples were bad, more than the %g allowed; mend the data or raise "
                 "the limit",
                 (long long)n_bad, (long long)n_tried, rate);
        return fail_with_list(l, TESS_FORMAT, what);
    }
    return TESS_OK;
}

static void add_nanoseconds(struct timespec *t, long n)
{
    t->tv_nsec += n;
    t->tv_sec += t->tv_nsec / 1000000000;
    t->tv_nsec %= 1000000000;
}

/* Under the lock: waits until the tray of the step to be read is complete. */
static tess_status wait_ready(tess_loader *l, tess__tray *t)
{
    tess__tray *mine;
    int64_t first, last;
    while (t->state != TESS__TRAY_READY || t->step != l->read_step) {
        struct timespec until;
        if (tess_cancelled && !l->options.patient) {
            return TESS_FAIL(TESS_CANCELLED, "stopped while waiting for data");
        }
        if (l->options.workers == 0 && take(l, &mine, &first, &last)) {
            work(&l->workers[0], mine, first, last);
            continue;
        }
        clock_gettime(CLOCK_MONOTONIC, &until);
        add_nanoseconds(&until, POLL_NANOSECONDS);
        pthread_cond_timedwait(&l->done, &l->lock, &until);
    }
    return TESS_OK;
}

static void release_held(tess_loader *l)
{
    if (l->held) {
        l->held->state = TESS__TRAY_IDLE;
        l->held = NULL;
        pthread_cond_broadcast(&l->work);
    }
}

tess_status tess_loader_read(tess_loader *l, const tess_batch **out)
{
    *out = NULL;
    if (l->failed != TESS_OK) {
        return TESS_FAIL(l->failed, "%s", l->error ? l->error : "the loader has stopped");
    }
    double start = tess_seconds();
    pthread_mutex_lock(&l->lock);
    release_held(l);
    if (l->read_step >= l->end_step) {
        pthread_mutex_unlock(&l->lock);
        return TESS_OK;
    }
    tess__tray *t = &l->trays[l->read_step % l->n_trays];
    tess_status st = wait_ready(l, t);
    l->stats.wait_seconds += tess_seconds() - start;
    if (st == TESS_OK) {
        l->held = t;
    }
    pthread_mutex_unlock(&l->lock);
    TESS_TRY(st);
    l->failed = account(l, t);
    if (l->failed != TESS_OK) {
        tess_free(l->error);
        l->error = tess_strdup(tess_error());
        return l->failed;
    }
    l->read_step++;
    *out = &t->batch;
    return TESS_OK;
}

tess_status tess_loader_seek(tess_loader *l, int64_t counter)
{
    if (counter < 0 || counter % l->options.batch != 0) {
        return TESS_FAIL(TESS_INVALID,
                         "cannot go to sample %lld: not a multiple of the batch size, %lld",
                         (long long)counter, (long long)l->options.batch);
    }
    pthread_mutex_lock(&l->lock);
    l->is_paused = true;
    while (l->n_busy > 0) {
        pthread_cond_wait(&l->done, &l->lock);
    }
    for (int64_t i = 0; i < l->n_trays; i++) {
        l->trays[i].state = TESS__TRAY_IDLE;
    }
    l->held = NULL;
    l->failed = TESS_OK;
    l->make_step = l->read_step = counter / l->options.batch;
    l->is_paused = false;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    return TESS_OK;
}

/* Samples that were bad are marked when their batch is delivered. */
void tess_loader_find(const tess_loader *l, int64_t counter, int64_t *samples)
{
    for (int64_t i = 0; i < l->n_local; i++) {
        int64_t attempt = 0;
        do {
            samples[i] = tess_order_get(&l->order, counter, l->first_slot + i, attempt++);
        } while (samples[i] >= 0 && l->is_counted[samples[i] / 4] >> 2 * (samples[i] % 4) & 1);
    }
}

int64_t tess_loader_batches_per_epoch(const tess_loader *l)
{
    return l->options.evaluation ? l->end_step : l->order.n / l->options.batch;
}

const tess_bad_list *tess_loader_bad(const tess_loader *l)
{
    return &l->bad;
}

tess_loader_stats tess_loader_stats_get(tess_loader *l)
{
    tess_loader_stats stats = l->stats;
    stats.cached_bytes = atomic_load(&l->cache.picture_bytes);
    stats.cached_token_bytes = atomic_load(&l->cache.token_bytes);
    return stats;
}
