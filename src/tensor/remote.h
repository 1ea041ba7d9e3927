/* SPDX-License-Identifier: Apache-2.0 */
/* A device whose memory is not the host's: what it must do, copies of host memory that live there,
 * and how a plan runs on it.
 *
 * Work is put on one queue and done in its order.  A plan runs step by step the first time, which
 * lets libraries choose their algorithms; the second run is recorded, and from then on a run is the
 * copies of its inputs and one replay. */
#ifndef TESSERA_TENSOR_REMOTE_H
#define TESSERA_TENSOR_REMOTE_H

#include "tensor/cuda.h"

typedef struct tess_remote {
    tess_status (*alloc)(size_t n_bytes, void **out); /* 256-byte aligned; TESS_NOMEM */
    void (*free)(void *p);
    /* Queued; `from` may be changed on return. */
    tess_status (*upload)(void *to, const void *from, size_t n_bytes);
    tess_status (*download)(void *to, const void *from, size_t n_bytes); /* waits */
    tess_status (*fill)(void *to, int byte, size_t n_bytes);             /* queued */
    tess_status (*wait)(void);
    /* Between record and recorded, launches are kept in place of done. */
    tess_status (*record)(void);
    tess_status (*recorded)(void **out);
    tess_status (*replay)(void *recording);
    void (*forget)(void *recording);
    void *(*stream)(void);
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
