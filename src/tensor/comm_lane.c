/* SPDX-License-Identifier: Apache-2.0 */
/* Collectives beside the caller's work: one thread of a rank's own does them, one after another, in
 * the order in which they were given.
 *
 * The order of collectives stays the program's, which is the same on all ranks: one that the caller
 * waits for comes behind all that were given before it.  MPI is called by one thread at a time.  A
 * waiting thread sleeps rather than spins, since the step's own threads want the processor. */
#include "tensor/comm.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct later {
    struct later *next;
    tess_call call;
    int64_t counts[]; /* (R): the caller's own are gone by then */
} later;

struct tess_comm_lane {
    tess_comm *comm;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    later *first, *last;
    int64_t n_given, n_done;
    bool over;
    tess_status status; /* of the first that failed; none after it is begun */
    char message[1024];
};

static void run_first(tess_comm_lane *l)
{
    later *job = l->first;
    const bool may = l->status == TESS_OK;
    pthread_mutex_unlock(&l->lock);
    const tess_status st = may ? tess__comm_run(l->comm, &job->call) : TESS_OK;
    pthread_mutex_lock(&l->lock);
    if (st) {
        l->status = st;
        snprintf(l->message, sizeof l->message, "%s", tess_error());
    }
    l->first = job->next;
    l->last = l->first ? l->last : NULL;
    l->n_done++;
    tess_free(job);
    pthread_cond_broadcast(&l->changed);
}

static void *work(void *ctx)
{
    tess_comm_lane *l = ctx;
    pthread_mutex_lock(&l->lock);
    while (l->first || !l->over) {
        if (l->first) {
            run_first(l);
        } else {
            pthread_cond_wait(&l->changed, &l->lock);
        }
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static tess_status open_lane(tess_comm *c)
{
    tess_comm_lane *l = tess_alloc(sizeof *l);
    if (!l) {
        return TESS_NOMEM;
    }
    l->comm = c;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, NULL);
    if (pthread_create(&l->thread, NULL, work, l) != 0) {
        pthread_cond_destroy(&l->changed);
        pthread_mutex_destroy(&l->lock);
        tess_free(l);
        return TESS_FAIL(TESS_NOMEM, "no thread is to be had for what ranks send beside a step");
    }
    c->lane = l;
    return TESS_OK;
}

static tess_status give(tess_comm_lane *l, const tess_call *call, int64_t *out_ticket)
{
    const size_t n = (size_t)l->comm->size;
    later *job = tess_alloc(sizeof *job + n * sizeof *job->counts);
    if (!job) {
        return TESS_NOMEM;
    }
    job->call = *call;
    memcpy(job->counts, call->counts, n * sizeof *job->counts);
    job->call.counts = job->counts;
    pthread_mutex_lock(&l->lock);
    *(l->last ? &l->last->next : &l->first) = job;
    l->last = job;
    *out_ticket = ++l->n_given;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    return TESS_OK;
}

tess_status tess__comm_later(tess_comm *c, const tess_call *call, int64_t *out_ticket)
{
    *out_ticket = 0;
    if (!c->carrier || !c->threads) {
        return tess__comm_run(c, call);
    }
    TESS_TRY(c->lane ? TESS_OK : open_lane(c));
    return give(c->lane, call, out_ticket);
}

tess_status tess__comm_finish(tess_comm *c, int64_t ticket)
{
    tess_comm_lane *l = c->lane;
    if (!l) {
        return TESS_OK;
    }
    pthread_mutex_lock(&l->lock);
    while (l->n_done < ticket) {
        pthread_cond_wait(&l->changed, &l->lock);
    }
    const tess_status st = l->status;
    pthread_mutex_unlock(&l->lock);
    return st ? TESS_FAIL(st, "%s", l->message) : TESS_OK;
}

tess_status tess__comm_drain(tess_comm *c)
{
    return c->lane ? tess__comm_finish(c, c->lane->n_given) : TESS_OK;
}

void tess__comm_end_lane(tess_comm *c)
{
    tess_comm_lane *l = c->lane;
    if (!l) {
        return;
    }
    pthread_mutex_lock(&l->lock);
    l->over = true;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->lock);
    tess_free(l);
    c->lane = NULL;
}
