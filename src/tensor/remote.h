/* SPDX-License-Identifier: Apache-2.0 */
/* A device whose memory is not the host's: what it must do, copies of host memory that live there,
 * and how a plan runs on it.
 *
 * Work is put on a lane and done in its order.  A plan runs step by step the first time, which lets
 * libraries choose their algorithms; the second run is recorded, and from then on a run is its
 * inputs' copy and one replay, for neither of which the host waits. */
#ifndef TESSERA_TENSOR_REMOTE_H
#define TESSERA_TENSOR_REMOTE_H

#include "tensor/cuda.h"

/* Queues that a device works on at the same time. */
typedef enum tess_lane { TESS_LANE_WORK, TESS_LANE_COPY, TESS_LANE_COMM, TESS_N_LANES } tess_lane;

typedef struct tess_remote {
    tess_status (*alloc)(size_t n_bytes, void **out); /* 256-byte aligned; TESS_NOMEM */
    void (*free)(void *p);                            /* waits */
    /* Of the host's memory, pinned: what the device copies from and to by itself. */
    tess_status (*alloc_host)(size_t n_bytes, void **out);
    void (*free_host)(void *p);
    /* The working lane, from and to any memory of the host. */
    tess_status (*upload)(void *to, const void *from, size_t n_bytes); /* `from` may change then */
    tess_status (*download)(void *to, const void *from, size_t n_bytes); /* waits */
    tess_status (*fill)(void *to, int byte, size_t n_bytes);             /* queued */
    tess_status (*wait)(void);
    /* Queued, between pinned memory and the device's or within it. */
    tess_status (*copy)(tess_lane lane, void *to, const void *from, size_t n_bytes);
    /* An event is a point of a lane's order: marked there, followed by what another lane does from
     * then on, reached when all before it is done.  One that was never marked is reached. */
    tess_status (*new_event)(void **out);
    void (*free_event)(void *event);
    tess_status (*mark)(void *event, tess_lane lane);
    tess_status (*follow)(tess_lane lane, void *event);
    tess_status (*reached)(void *event, bool wait, bool *out);
    /* Between record and recorded, launches are kept in place of done. */
    tess_status (*record)(void);
    tess_status (*recorded)(void **out);
    tess_status (*replay)(void *recording);
    void (*forget)(void *recording);
    void *(*stream)(void);
    /* For carriers between cards: a lane's handle, sum (width) = the rows of x (n,width) in their
     * order, f32, queued, and what this card alone is called on this host. */
    void *(*lane)(tess_lane lane);
    tess_status (*sum_rows)(tess_lane lane, float *sum, const float *x, int64_t n, int64_t width);
    tess_status (*name_card)(char *out, size_t n_bytes);
} tess_remote;

/* Copies on one device of runs of host memory. */
typedef struct tess_shadow {
    const uint8_t *host;
    size_t n_bytes;
    uint8_t *data;
} tess_shadow;
typedef struct tess_shadows {
    const tess_remote *remote; /* NULL until the first */
    tess_shadow *items;
    size_t n, cap;
} tess_shadows;

/* The device's address for `host`, which lies in the run (base, n_bytes); a run that is not there
 * yet is allocated and uploaded. */
tess_status tess__shadow_find(tess_shadows *s, const tess_remote *remote, const void *host,
                              const void *base, size_t n_bytes, void **out);
/* What the copies hold of the host's (base, n_bytes): to the device, or back from it. */
tess_status tess__shadows_upload(const tess_shadows *s, const void *base, size_t n_bytes);
tess_status tess__shadows_download(const tess_shadows *s, void *base, size_t n_bytes);
void tess__shadows_deinit(tess_shadows *s);

/* The store's copy of the state at `host` on this device. */
struct tess_store;
tess_status tess__store_shadow(struct tess_store *s, const tess_remote *remote, const char *group,
                               const void *host, size_t n_bytes, void **out);

/* Of this group only the entries that plans read are copied, each by itself, in place of the run.
 */
void tess__store_scatter(struct tess_store *s, const char *group);
/* How inputs reach a device while it still works on what came before: the host fills pinned memory,
 * two batches in turn; the copy lane takes it to `staged`, and the working lane from there into
 * place, which frees `staged` for the next.  Up to TESS_FEED_SCALARS bytes take no such road: a few
 * numbers are copied in the working lane's order, behind no batch. */
#define TESS_FEED_SCALARS 256
typedef struct tess_slots {
    uint8_t *pinned;
    size_t n_bytes; /* of one */
    int n;
    int64_t n_taken;
    void *copied[8]; /* by slot: it may be filled again */
} tess_slots;
typedef struct tess_feed {
    const tess_remote *remote; /* NULL until the first */
    tess_slots batches, scalars;
    uint8_t *staged;
    void *placed; /* staged may be filled again */
} tess_feed;
/* Room for inputs of so many bytes; waits and moves where there was less. */
tess_status tess__feed_reserve(tess_feed *f, const tess_remote *remote, size_t n_bytes);
/* Memory to fill; waits where the copy of two batches ago is not done. */
tess_status tess__feed_begin(tess_feed *f, size_t n_bytes, uint8_t **out);
/* Pieces of the n_bytes that were begun, which have been filled, go to the same places of the
 * device's `to` before what the working lane is given next. */
typedef struct tess_piece {
    size_t offset, n_bytes;
} tess_piece;
tess_status tess__feed_send(tess_feed *f, void *to, const tess_piece *pieces, int64_t n_pieces,
                            size_t n_bytes);
void tess__feed_deinit(tess_feed *f);

/* What a plan needs beyond a host plan's; plan.h. */
struct tess_plan;
struct tess_graph;
tess_status tess__remote_build(struct tess_plan *p, struct tess_store *store,
                               const struct tess_graph *g);
tess_status tess__remote_run(struct tess_plan *p);
tess_status tess__remote_run_debug(struct tess_plan *p);
/* The buffer's bytes in the host's memory, until the next call; NULL (with the message set). */
const void *tess__remote_output(const struct tess_plan *p, int32_t buffer);
void tess__remote_free(struct tess_plan *p);

#endif
