/* SPDX-License-Identifier: Apache-2.0 */
/* A few worker threads and a short queue: where everything that costs processor time happens. */
#ifndef TESSERA_SERVE_WORKER_POOL_H
#define TESSERA_SERVE_WORKER_POOL_H

#include "tessera/base.h"

typedef struct tess__pool tess__pool;
typedef void tess__job_fn(void *ctx);

TESS_MUST_USE tess_status tess__pool_new(int n_workers, int max_waiting, tess__pool **out);
/* Runs fn(ctx) on a worker and returns when it is done; false, at once, when too many wait. */
TESS_MUST_USE bool tess__pool_run(tess__pool *pool, tess__job_fn *fn, void *ctx);
/* Ends the threads; nobody may be in tess__pool_run. */
void tess__pool_free(tess__pool *pool);

#endif
