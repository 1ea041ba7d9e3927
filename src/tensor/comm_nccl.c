/* SPDX-License-Identifier: Apache-2.0 */
/* The one door to NCCL: sums between cards, where every rank has a card of its own.
 *
 * What is to be done is agreed on as ever, by control messages over MPI; NCCL carries the numbers.
 * A sum is comm_sum.c's: pieces are exchanged (grouped sends and receives), added by the card in
 * the order of ranks, and the parts sent to all, so that it has the same bits in every run and
 * travels as a ring would have it.  All of it is queued on a lane of its own, behind what the
 * working lane has been given and before what it is given next, so that the host does not wait; one
 * sum is under way at a time, and the next call, or tess__cards_settle, waits for it within the
 * limit. Communicators do not block: what begins is polled, errors come by ncclCommGetAsyncError,
 * and the end of one that does not end is ncclCommAbort and an error that says who is missing. */
#include "tensor/comm.h"

#include <dlfcn.h>
#include <nccl.h>
#include <sched.h>
#include <string.h>

#define FUNCTIONS(X)                                                                               \
    X(CommAbort)                                                                                   \
    X(CommDestroy)                                                                                 \
    X(CommFinalize)                                                                                \
    X(CommGetAsyncError)                                                                           \
    X(CommInitRankConfig)                                                                          \
    X(GetErrorString)                                                                              \
    X(GetUniqueId)                                                                                 \
    X(GroupEnd)                                                                                    \
    X(GroupStart)                                                                                  \
    X(Recv)                                                                                        \
    X(Send)

static struct {
#define MEMBER(name) __typeof__(&nccl##name) name;
    FUNCTIONS(MEMBER)
#undef MEMBER
} nccl;

struct tess_cards {
    tess_comm *comm;
    const tess_remote *remote;
    ncclComm_t ring;
    void *before, *after; /* points of the lanes: a sum may begin, is done */
    void *arrived;        /* (R, part) of the card's memory */
    size_t cap_arrived;
    bool pending;
    char what[128]; /* of the pending sum */
};

/* ---- opening ------------------------------------------------------------------------------- */

static bool open_library(void)
{
    static const struct {
        const char *name;
        size_t at;
    } symbols[] = {
#define ROW(name) {"nccl" #name, offsetof(__typeof__(nccl), name)},
        FUNCTIONS(ROW)
#undef ROW
    };
    void *library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    for (int64_t i = 0; library && i < TESS_COUNT(symbols); i++) {
        void *found = dlsym(library, symbols[i].name);
        memcpy((char *)&nccl + symbols[i].at, &found, sizeof found);
        library = found ? library : NULL;
    }
    return library != NULL;
}

static tess_status check(ncclResult_t code, const char *what)
{
    return code == ncclSuccess || code == ncclInProgress
               ? TESS_OK
               : TESS_FAIL(TESS_COMM, "NCCL: %s: %s", what, nccl.GetErrorString(code));
}

/* Ends everything; what is under way on the card as well. */
static tess_status give_up(tess_cards *k, tess_status why)
{
    k->comm->failed = true;
    k->pending = false;
    if (k->ring) {
        nccl.CommAbort(k->ring);
        k->ring = NULL;
    }
    return why;
}

/* Until the communicator has taken what it was given. */
static tess_status settle_ring(tess_cards *k, const char *what)
{
    const double begin = tess_seconds();
    for (;;) {
        ncclResult_t now = ncclSuccess;
        tess_status st = check(nccl.CommGetAsyncError(k->ring, &now), what);
        st = st ? st : check(now, what);
        if (st) {
            return give_up(k, st);
        }
        if (now == ncclSuccess) {
            return TESS_OK;
        }
        if (tess_seconds() - begin > k->comm->seconds) {
            return give_up(k, tess__comm_fail_within(k->comm, what));
        }
        sched_yield();
    }
}

static tess_status open_ring(tess_cards *k)
{
    ncclUniqueId id = {0};
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    tess_status st = k->comm->rank == 0 ? check(nccl.GetUniqueId(&id), "ncclGetUniqueId") : TESS_OK;
    /* A rank 0 that failed sends zeros, and says why itself. */
    TESS_TRY(tess_comm_broadcast(k->comm, &id, sizeof id, 0));
    TESS_TRY(st);
    st = check(nccl.CommInitRankConfig(&k->ring, k->comm->size, id, k->comm->rank, &config),
               "ncclCommInitRankConfig");
    return st ? give_up(k, st) : settle_ring(k, "opening NCCL");
}

typedef struct identity {
    char host[TESS_HOST_BYTES], card[TESS_HOST_BYTES];
    bool has_nccl;
} identity;

/* Whether all have NCCL, and a card that is nobody else's. */
static tess_status have_own_cards(tess_comm *c, const tess_remote *r, bool *out)
{
    identity *all = tess_alloc_array((size_t)c->size, sizeof *all);
    int64_t *counts = tess_alloc_array((size_t)c->size, sizeof *counts);
    identity mine = {.has_nccl = open_library()};
    tess_status st = all && counts ? r->name_card(mine.card, sizeof mine.card) : TESS_NOMEM;
    memcpy(mine.host, c->places[c->rank].host, sizeof mine.host);
    for (int i = 0; st == TESS_OK && i < c->size; i++) {
        counts[i] = (int64_t)sizeof mine;
    }
    st = st ? st : tess_comm_all_gather(c, &mine, counts, all);
    *out = st == TESS_OK;
    for (int i = 0; *out && i < c->size; i++) {
        *out = all[i].has_nccl;
        for (int j = 0; *out && j < i; j++) {
            *out = strcmp(all[i].host, all[j].host) != 0 || strcmp(all[i].card, all[j].card) != 0;
        }
    }
    tess_free(all);
    tess_free(counts);
    return st;
}

tess_status tess__cards_open(tess_comm *c, const tess_remote *r, tess_cards **out)
{
    bool own = false;
    *out = NULL;
    if (!c || !c->carrier || !r) {
        return TESS_OK;
    }
    TESS_TRY(have_own_cards(c, r, &own));
    if (!own) {
        return TESS_OK;
    }
    tess_cards *k = tess_alloc(sizeof *k);
    if (!k) {
        return TESS_NOMEM;
    }
    *k = (tess_cards){.comm = c, .remote = r};
    tess_status st = r->new_event(&k->before);
    st = st ? st : r->new_event(&k->after);
    st = st ? st : open_ring(k);
    if (st) {
        tess__cards_close(k);
        return st;
    }
    *out = k;
    return TESS_OK;
}

/* ---- a sum --------------------------------------------------------------------------------- */

tess_status tess__cards_settle(tess_cards *k)
{
    const double begin = tess_seconds();
    while (k && k->pending) {
        ncclResult_t now = ncclSuccess;
        bool done = false;
        tess_status st = check(nccl.CommGetAsyncError(k->ring, &now), k->what);
        st = st ? st : check(now, k->what);
        st = st ? st : k->remote->reached(k->after, false, &done);
        if (st) {
            return give_up(k, st);
        }
        k->pending = !done;
        if (!done && tess_seconds() - begin > k->comm->seconds) {
            return give_up(k, tess__comm_fail_within(k->comm, k->what));
        }
        sched_yield();
    }
    return TESS_OK;
}

static int64_t part_begin(const tess_comm *c, int rank, int64_t n)
{
    return n / c->size * rank + n % c->size * rank / c->size;
}

/* Each rank's part of x goes to it (to_owner), or this rank's part of x to all. */
static tess_status exchange(tess_cards *k, float *x, int64_t n, bool to_owner)
{
    const tess_comm *c = k->comm;
    const int64_t mine = part_begin(c, c->rank, n), my_n = part_begin(c, c->rank + 1, n) - mine;
    cudaStream_t lane = k->remote->lane(TESS_LANE_COMM);
    tess_status st = check(nccl.GroupStart(), "ncclGroupStart");
    for (int r = 0; st == TESS_OK && r < c->size; r++) {
        const int64_t its = part_begin(c, r, n), its_n = part_begin(c, r + 1, n) - its;
        const float *send = to_owner ? x + its : x + mine;
        float *receive = to_owner ? (float *)k->arrived + r * my_n : x + its;
        const size_t n_send = (size_t)(to_owner ? its_n : my_n);
        const size_t n_receive = (size_t)(to_owner ? my_n : its_n);
        if (r == c->rank) {
            continue;
        }
        st =
            n_send ? check(nccl.Send(send, n_send, ncclFloat, r, k->ring, lane), k->what) : TESS_OK;
        st = st || !n_receive
                 ? st
                 : check(nccl.Recv(receive, n_receive, ncclFloat, r, k->ring, lane), k->what);
    }
    const tess_status ended = check(nccl.GroupEnd(), k->what);
    st = st ? st : ended;
    return st ? give_up(k, st) : settle_ring(k, k->what);
}

static tess_status sum_parts(tess_cards *k, float *x, int64_t n)
{
    const tess_comm *c = k->comm;
    const tess_remote *r = k->remote;
    const int64_t mine = part_begin(c, c->rank, n), my_n = part_begin(c, c->rank + 1, n) - mine;
    float *own = (float *)k->arrived + c->rank * my_n;
    TESS_TRY(r->mark(k->before, TESS_LANE_WORK));
    TESS_TRY(r->follow(TESS_LANE_COMM, k->before));
    TESS_TRY(exchange(k, x, n, true));
    if (my_n > 0) {
        TESS_TRY(r->copy(TESS_LANE_COMM, own, x + mine, (size_t)my_n * sizeof *x));
        TESS_TRY(r->sum_rows(TESS_LANE_COMM, x + mine, k->arrived, c->size, my_n));
    }
    TESS_TRY(exchange(k, x, n, false));
    TESS_TRY(r->mark(k->after, TESS_LANE_COMM));
    return r->follow(TESS_LANE_WORK, k->after);
}

tess_status tess__cards_all_reduce(tess_cards *k, float *x, int64_t n)
{
    const tess_comm *c = k->comm;
    const size_t n_bytes = (size_t)(n / c->size + 1) * (size_t)c->size * sizeof *x;
    TESS_TRY(tess__cards_settle(k));
    if (n_bytes > k->cap_arrived) {
        k->remote->free(k->arrived);
        k->arrived = NULL;
        k->cap_arrived = 0;
        TESS_TRY(k->remote->alloc(n_bytes, &k->arrived));
        k->cap_arrived = n_bytes;
    }
    const tess_call call = {.kind = TESS_ALL_REDUCE, .n = n, .dtype = TESS_F32};
    TESS_TRY(tess__comm_meet(k->comm, &call, k->what, sizeof k->what));
    const tess_status st = sum_parts(k, x, n);
    k->pending = st == TESS_OK;
    return st && k->ring ? give_up(k, st) : st;
}

void tess__cards_close(tess_cards *k)
{
    if (!k) {
        return;
    }
    if (k->ring && (k->comm->failed || tess__cards_settle(k) != TESS_OK)) {
        (void)give_up(k, TESS_COMM);
    }
    if (k->ring && nccl.CommFinalize(k->ring) <= ncclInProgress &&
        settle_ring(k, "closing NCCL") == TESS_OK) {
        nccl.CommDestroy(k->ring);
    }
    if (k->arrived) {
        k->remote->free(k->arrived);
    }
    k->remote->free_event(k->before);
    k->remote->free_event(k->after);
    tess_free(k);
}
