/* SPDX-License-Identifier: Apache-2.0 */
/* A job of processes that were started one by one, with the variables of torchrun (RANK,
 * WORLD_SIZE, MASTER_ADDR, MASTER_PORT), made into one that MPI knows.
 *
 * What mpirun does between its daemons is done by two kinds of child processes: a hub, of rank 0,
 * which listens at MASTER_ADDR:MASTER_PORT, and a keeper on each host, of its least rank, which is
 * the PMIx server that the host's ranks start MPI with, as slurmd is under srun.  The hub brings
 * keepers' pieces of start-up data together and notices the end of a rank by the end of its
 * connection; keepers then end their host's ranks.  Tensors never pass here: they are MPI's. */
#ifndef TESSERA_TENSOR_JOB_H
#define TESSERA_TENSOR_JOB_H

#include "tessera/base.h"

enum {
    TESS_JOB_NAME_BYTES = 64,
    TESS_JOB_MOST_RANKS = 65536,
    TESS_JOB_MOST_BYTES = 1 << 28, /* of a frame */
    TESS_JOB_MOST_HELLO = 256,     /* of a frame from somebody unknown */
};

/* ---- job_wire.c: frames with a tag that only the job's key can make -------------------------- */

typedef enum tess_job_kind {
    TESS_JOB_HELLO,    /* rank or keeper to hub: tess_job_hello */
    TESS_JOB_TABLE,    /* hub to all: tess_job_row (R) */
    TESS_JOB_SETTINGS, /* keeper to hub, hub to the host's ranks: lines NAME=value */
    TESS_JOB_PIECE,    /* keeper to hub: its part of a fence; hub to keepers: all parts, by host */
    TESS_JOB_END,      /* anyone to hub, hub to anyone: a sentence that says why it ends */
    TESS_JOB_BYE,      /* rank to hub: it leaves in order */
} tess_job_kind;

/* One connection; zeroed it is closed. */
typedef struct tess_job_wire {
    bool open, hub, greeted, handed; /* handed: `in` holds a frame that was read */
    int fd;
    uint64_t number[2]; /* this side's */
    uint64_t key[2];    /* the job's; once greeted, this connection's */
    uint64_t n_sent, n_read;
    size_t most; /* bytes of a frame that is read */
    tess_buf in;
} tess_job_wire;

/* SipHash-2-4 (Aumasson and Bernstein 2012) of n_bytes. */
uint64_t tess__siphash(const uint64_t key[2], const void *data, size_t n_bytes);
/* The key of a job: of TESSERA_JOB_KEY and TORCHELASTIC_RUN_ID. */
TESS_MUST_USE tess_status tess__job_key(uint64_t out_key[2]);

/* Says this side's random number.  Frames can be sent when the other's has been read: by reading,
 * or by waiting for it until `deadline` (tess_seconds).  Closes nothing. */
TESS_MUST_USE tess_status tess__job_open(tess_job_wire *w, int fd, const uint64_t job_key[2],
                                         bool hub);
TESS_MUST_USE tess_status tess__job_greet(tess_job_wire *w, double deadline);
TESS_MUST_USE tess_status tess__job_send(tess_job_wire *w, tess_job_kind kind, const void *data,
                                         size_t n_bytes, double deadline);
/* What has arrived, without waiting: *out_kind -1 while there is no whole frame.  *out_data is
 * borrowed until the next call.  TESS_COMM: closed, or not a frame of this job. */
TESS_MUST_USE tess_status tess__job_read(tess_job_wire *w, int *out_kind, const char **out_data,
                                         size_t *out_bytes);
/* Waits for a frame; *out_kind -1 when the time is up. */
TESS_MUST_USE tess_status tess__job_wait(tess_job_wire *w, double deadline, int *out_kind,
                                         const char **out_data, size_t *out_bytes);
void tess__job_close(tess_job_wire *w);
/* A host that is gone without a word is noticed within 30 s. */
void tess__job_tune(int fd);

/* ---- what is said ---------------------------------------------------------------------------- */

typedef struct tess_job_hello {
    int32_t is_keeper, rank, size, pid; /* a keeper's rank is its host's place in the table */
    uint64_t host_id;                   /* equal where memory can be shared */
    char host[TESS_JOB_NAME_BYTES];
} tess_job_hello;

typedef struct tess_job_row {
    int32_t host, pid; /* hosts are counted by their least rank */
    char name[TESS_JOB_NAME_BYTES];
} tess_job_row;

/* How a job is found: from the environment. */
typedef struct tess_job_place {
    int rank, size;
    char address[256], port[8];
    uint64_t key[2];
    double seconds; /* limit of coming together */
} tess_job_place;

/* ---- processes ------------------------------------------------------------------------------- */

/* job_hub.c: until all ranks have left.  `listener` listens. */
void tess__job_hub(const tess_job_place *p, int listener);
/* job_pmix.c: until the hub closes.  job_pmix_none.c where pmix_server.h was not found. */
void tess__job_keep(const tess_job_place *p, const tess_job_row *table, int host);

/* job_join.c.  The hub's connection that a keeper or rank opens. */
TESS_MUST_USE tess_status tess__job_connect(const tess_job_place *p, const tess_job_hello *hello,
                                            tess_job_wire *out);
typedef struct tess_job tess_job;
/* Whether the environment has what torchrun gives and no MPI launcher's. */
bool tess__job_wanted(void);
/* Comes together with the other processes, and leaves in the environment what MPI starts with. */
TESS_MUST_USE tess_status tess__job_join(double seconds, tess_job **out);
/* After MPI_Finalize when `together`; waits for the job's helpers to end, 5 s at most. */
void tess__job_leave(tess_job *j, bool together);

#endif
