/* SPDX-License-Identifier: Apache-2.0 */
/* A few worker threads and a short queue.
 *
 * A connection's own thread waits while a worker computes.  So the number of clients says nothing
 * about the number of cores in use, OpenMP's teams belong to threads that stay, and a full queue is
 * an honest 503 instead of a server that slows down for everyone.
 */
#include "serve/worker_pool.h"

#include <pthread.h>

typedef struct job {
    tess__job_fn *fn;
    void *ctx;
    bool done;
    struct job *next;
} job;

struct tess__pool {
    pthread_mutex_t lock;
    pthread_cond_t arrived, finished;
    job *first, **last; /* waiting, oldest first */
    int n_waiting, max_waiting;
    bool stopping;
    int n_threads;
    pthread_t *threads;
};

static job *take(tess__pool *pool)
{
    while (!pool->first && !pool->stopping) {
        pthread_cond_wait(&pool->arrived, &pool->lock);
    }
    job *j = pool->first;
    if (j) {
        pool->first = j->next;
        pool->last = pool->first ? pool->last : &pool->first;
        pool->n_waiting--;
    }
    return j;
}

static void *work(void *ctx)
{
    tess__pool *pool = ctx;
    pthread_mutex_lock(&pool->lock);
    for (job *j = take(pool); j; j = take(pool)) {
        pthread_mutex_unlock(&pool->lock);
        j->fn(j->ctx);
        pthread_mutex_lock(&pool->lock);
        j->done = true;
        pthread_cond_broadcast(&pool->finished);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static tess_status start_threads(tess__pool *pool, int n)
{
    pool->threads = tess_alloc_array((size_t)n, sizeof(*pool->threads));
    if (!pool->threads) {
        return TESS_NOMEM;
    }
    for (; pool->n_threads < n; pool->n_threads++) {
        if (pthread_create(&pool->threads[pool->n_threads], NULL, work, pool) != 0) {
            return TESS_FAIL(TESS_NOMEM, "cannot start worker thread %d of %d", pool->n_threads + 1,
                             n);
        }
    }
    return TESS_OK;
}

tess_status tess__pool_new(int n_workers, int max_waiting, tess__pool **out)
{
    tess__pool *pool = tess_alloc(sizeof(*pool));
    if (!pool) {
        return TESS_NOMEM;
    }
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->arrived, NULL);
    pthread_cond_init(&pool->finished, NULL);
    pool->last = &pool->first;
    pool->max_waiting = max_waiting;
    tess_status st = start_threads(pool, n_workers);
    if (st != TESS_OK) {
        tess__pool_free(pool);
        return st;
    }
    *out = pool;
    return TESS_OK;
}

bool tess__pool_run(tess__pool *pool, tess__job_fn *fn, void *ctx)
{
    job j = {.fn = fn, .ctx = ctx};
    pthread_mutex_lock(&pool->lock);
    bool accepted = pool->n_waiting < pool->max_waiting && !pool->stopping;
    if (accepted) {
        *pool->last = &j;
        pool->last = &j.next;
        pool->n_waiting++;
        pthread_cond_signal(&pool->arrived);
        while (!j.done) {
            pthread_cond_wait(&pool->finished, &pool->lock);
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return accepted;
}

void tess__pool_free(tess__pool *pool)
{
    if (!pool) {
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->arrived);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->n_threads; i++) {
        pthread_join(pool->threads[i], NULL);
    }
    pthread_cond_destroy(&pool->finished);
    pthread_cond_destroy(&pool->arrived);
    pthread_mutex_destroy(&pool->lock);
    tess_free(pool->threads);
    tess_free(pool);
}
