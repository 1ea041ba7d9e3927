/* SPDX-License-Identifier: Apache-2.0 */
/* Without PMIx's headers: what ranks that were started one by one hear. */
#include "tensor/job.h"

#include <string.h>

void tess__job_keep(const tess_job_place *place, const tess_job_row *table, int host)
{
    static const char why[] = "processes that were started one by one need a program that was "
                              "built with PMIx (libpmix-dev): start them with mpirun";
    tess_job_hello hello = {.is_keeper = true, .rank = host, .size = place->size};
    tess_job_wire hub = {0};
    (void)table;
    if (tess__job_connect(place, &hello, &hub) == TESS_OK &&
        tess__job_send(&hub, TESS_JOB_END, why, strlen(why), tess_seconds() + 10) == TESS_OK) {
        const char *data;
        size_t n_bytes;
        int kind;
        const tess_status st = tess__job_wait(&hub, tess_seconds() + 10, &kind, &data, &n_bytes);
        (void)st; /* it closes */
    }
    tess__job_close(&hub);
}
