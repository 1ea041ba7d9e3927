/* SPDX-License-Identifier: Apache-2.0 */
/* What carries a job's collectives (comm.c): MPI between processes, nothing for one alone. */
#ifndef TESSERA_TENSOR_COMM_H
#define TESSERA_TENSOR_COMM_H

#include "tessera/tensor.h"

/* Counts of ranks; a rank's place in a shared run of parts. */
typedef struct tess_parts {
    const int64_t *n;
    int64_t total;
} tess_parts;

typedef enum tess_collective {
    TESS_BARRIER,
    TESS_BROADCAST,
    TESS_ALL_REDUCE,
    TESS_REDUCE_SCATTER,
    TESS_ALL_GATHER,
    TESS_AGREE,
    TESS_COLLECTIVE_COUNT,
} tess_collective;

/* A collective, as it is compared across ranks and handed to a carrier. */
typedef struct tess_call {
    tess_collective kind;
    int root;
    int64_t n;             /* bytes, or f32 numbers for sums; of all parts together */
    const int64_t *counts; /* (R) of parts, or NULL */
    const void *from;
    void *to;
} tess_call;

/* All begin something and return; `poll` says whether it is done.  One call is under way at a time,
 * and one of control beside it. */
typedef struct tess_carrier {
    tess_status (*begin)(void *self, const tess_call *call);
    tess_status (*poll)(void *self, bool *out_done);
    /* Control: least and greatest of two numbers over all ranks, in place. */
    tess_status (*begin_range)(void *self, uint64_t range[2]);
    tess_status (*poll_range)(void *self, bool *out_done);
    /* Control: a note to one rank, of at most TESS_NOTE_BYTES, which does not wait for it; and the
     * next note from any rank, out_from -1 while there is none. */
    tess_status (*send_note)(void *self, int to, const char *note);
    tess_status (*find_note)(void *self, int *out_from, char *out_note);
    void (*close)(void *self, bool together);
    void (*abort)(void *self, int code);
} tess_carrier;
enum { TESS_NOTE_BYTES = 512, TESS_HOST_BYTES = 64 };

/* Where a rank is; gathered when the job begins. */
typedef struct tess_place {
    char host[TESS_HOST_BYTES];
    int64_t pid;
} tess_place;

/* comm_mpi.c: what mpirun or srun started.  TESS_COMM with what to install; comm_none.c where the
 * program was built without mpi.h. */
tess_status tess__comm_mpi(void **out_self, const tess_carrier **out, int *out_rank, int *out_size);

#endif
