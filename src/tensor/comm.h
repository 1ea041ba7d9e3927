/* SPDX-License-Identifier: Apache-2.0 */
/* What carries a job's collectives (comm.c): MPI between processes, nothing for one alone. */
#ifndef TESSERA_TENSOR_COMM_H
#define TESSERA_TENSOR_COMM_H

#include "tensor/remote.h"
#include "tessera/tensor.h"

typedef enum tess_collective {
    TESS_BARRIER,
    TESS_BROADCAST,
    TESS_ALL_REDUCE,
    TESS_REDUCE_SCATTER,
    TESS_ALL_GATHER,
    TESS_AGREE,
    TESS_EXCHANGE, /* a part of a sum: each rank has a piece for each other */
    TESS_COLLECTIVE_COUNT,
} tess_collective;

typedef struct tess_span {
    void *data;
    int64_t n_bytes;
} tess_span;

/* A collective, as it is compared across ranks and handed to a carrier. */
typedef struct tess_call {
    tess_collective kind;
    int root;
    int64_t n;             /* bytes, or numbers for sums; of all parts together */
    tess_dtype dtype;      /* of sums */
    const int64_t *counts; /* (R) of parts, or NULL */
    const void *from;
    void *to;
    const tess_span *sends, *receives; /* (R) of an exchange; a rank's own are not used */
} tess_call;

/* All begin something and return; `poll` says whether it is done.  One call is under way at a time,
 * and one of control beside it.  Sums are made of exchanges and all_gathers: see comm_sum.c. */
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
    bool (*serves_threads)(void *self);
    void (*close)(void *self, bool together);
    void (*abort)(void *self, int code);
} tess_carrier;
enum { TESS_NOTE_BYTES = 512, TESS_HOST_BYTES = 64 };

/* Where a rank is; gathered when the job begins. */
typedef struct tess_rank_place {
    char host[TESS_HOST_BYTES];
    int64_t pid;
} tess_rank_place;

struct tess_comm {
    const tess_carrier *carrier; /* NULL: alone */
    void *self;
    int rank, size;
    double seconds;
    int64_t n_calls, wire_bytes;
    tess_rank_place *places; /* (R) */
    struct tess_job *job;    /* NULL: mpirun or srun keeps it */
    uint8_t *scratch;        /* of sums */
    size_t cap_scratch;
    bool failed;
    bool threads;                /* the carrier may be called by another thread, one at a time */
    struct tess_comm_lane *lane; /* NULL: none was needed yet */
};
typedef struct tess_comm_lane tess_comm_lane;

/* Hands a call to the carrier and waits; TESS_OK with *out_done false: the time is up. */
tess_status tess__comm_carry(tess_comm *c, const tess_call *call, bool *out_done);
/* The same for TESS_ALL_REDUCE and TESS_REDUCE_SCATTER: comm_sum.c. */
tess_status tess__comm_sum(tess_comm *c, const tess_call *call, bool *out_done);

/* A collective from its meeting to its end.  Alone it copies what is the rank's own. */
tess_status tess__comm_run(tess_comm *c, const tess_call *call);

/* comm_lane.c.  A TESS_ALL_GATHER or TESS_REDUCE_SCATTER beside the caller's work; all but counts
 * stays untouched until it is finished.  Where no thread may, it is done at once. */
tess_status tess__comm_later(tess_comm *c, const tess_call *call, int64_t *out_ticket);
tess_status tess__comm_finish(tess_comm *c, int64_t ticket);
/* All that was given; before a collective of the caller's own. */
tess_status tess__comm_drain(tess_comm *c);
void tess__comm_end_lane(tess_comm *c);

/* Before a call that another carrier does: all ranks are about to do it.  *out_what names it. */
tess_status tess__comm_meet(tess_comm *c, const tess_call *call, char *out_what, size_t n_bytes);
/* The error of what began and did not end, with who may be why. */
tess_status tess__comm_fail_within(tess_comm *c, const char *what);

/* comm_nccl.c: sums between cards.  *out NULL: ranks share cards, or one has no NCCL
 * (libnccl.so.2), and all send by way of the host; comm_nccl_none.c where nccl.h was not found. */
typedef struct tess_cards tess_cards;
TESS_MUST_USE tess_status tess__cards_open(tess_comm *c, const tess_remote *r, tess_cards **out);
/* x (n) f32 of the card's memory = the sum of all ranks' x, for what the working lane is given
 * next; waits for the one before, not for this. */
TESS_MUST_USE tess_status tess__cards_all_reduce(tess_cards *k, float *x, int64_t n);
/* Waits for the sum that is under way: before anything that waits for the card without a limit. */
TESS_MUST_USE tess_status tess__cards_settle(tess_cards *k);
void tess__cards_close(tess_cards *k);

/* comm_mpi.c: what mpirun or srun started.  TESS_COMM with what to install; comm_none.c where the
 * program was built without mpi.h. */
tess_status tess__comm_mpi(void **out_self, const tess_carrier **out, int *out_rank, int *out_size);

#endif
