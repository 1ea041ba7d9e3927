/* SPDX-License-Identifier: Apache-2.0 */
/* The one door to MPI: collectives by Open MPI's own, begun and polled, never waited for within.
 *
 * The library is opened by name when a launcher started more than one process, so that the program
 * starts where it is not installed, and alone does not pay for it.  Its handles are addresses of
 * objects that it exports.  Runs of more than 2^28 numbers go in several collectives. */
#include "tensor/comm.h"

#include <dlfcn.h>
#include <mpi.h>
#include <string.h>

#define NOTE_TAG     7
#define EXCHANGE_TAG 8
#define MOST_AT_ONCE ((int64_t)1 << 28) /* a count is an int */

#define FUNCTIONS(X)                                                                               \
    X(Abort)                                                                                       \
    X(Comm_dup)                                                                                    \
    X(Comm_rank)                                                                                   \
    X(Comm_set_errhandler)                                                                         \
    X(Comm_size)                                                                                   \
    X(Error_string)                                                                                \
    X(Finalize)                                                                                    \
    X(Iallgatherv)                                                                                 \
    X(Iallreduce)                                                                                  \
    X(Ibcast)                                                                                      \
    X(Init_thread)                                                                                 \
    X(Iprobe)                                                                                      \
    X(Irecv)                                                                                       \
    X(Isend)                                                                                       \
    X(Recv)                                                                                        \
    X(Test)                                                                                        \
    X(Testall)
#define HANDLES(X)                                                                                 \
    X(MPI_Comm, ompi_mpi_comm_world)                                                               \
    X(MPI_Datatype, ompi_mpi_byte)                                                                 \
    X(MPI_Datatype, ompi_mpi_uint64_t)                                                             \
    X(MPI_Op, ompi_mpi_op_min)                                                                     \
    X(MPI_Errhandler, ompi_mpi_errors_return)                                                      \
    X(MPI_Request, ompi_request_null)

static struct {
#define MEMBER(name) __typeof__(&MPI_##name) name;
    FUNCTIONS(MEMBER)
#undef MEMBER
#define MEMBER(type, name) type name;
    HANDLES(MEMBER)
#undef MEMBER
} mpi;

/* A note on its way; freed with the job. */
typedef struct note {
    struct note *next;
    MPI_Request request;
    char text[TESS_NOTE_BYTES];
} note;

typedef struct job {
    MPI_Comm data, control;
    int rank, size;
    bool threads;
    MPI_Request call, range;
    tess_call what;
    int64_t at; /* how much of a call is done, counted over all parts */
    int *counts, *places;
    MPI_Request *pieces; /* (2R) of an exchange */
    uint64_t *to_range, sent[2], met[2];
    note *notes;
} job;

static tess_status check(int code, const char *what)
{
    char text[MPI_MAX_ERROR_STRING + 1] = "unknown error";
    int n = 0;
    if (code == MPI_SUCCESS) {
        return TESS_OK;
    }
    mpi.Error_string(code, text, &n);
    return TESS_FAIL(TESS_COMM, "MPI: %s: %s", what, text);
}

/* ---- opening ------------------------------------------------------------------------------- */

static tess_status find_symbols(void *library)
{
    static const struct {
        const char *name;
        size_t at;
    } symbols[] = {
#define ROW(name) {"MPI_" #name, offsetof(__typeof__(mpi), name)},
        FUNCTIONS(ROW)
#undef ROW
#define ROW(type, name) {#name, offsetof(__typeof__(mpi), name)},
            HANDLES(ROW)
#undef ROW
    };
    for (int64_t i = 0; i < TESS_COUNT(symbols); i++) {
        void *found = dlsym(library, symbols[i].name);
        if (!found) {
            return TESS_FAIL(TESS_COMM, "libmpi.so.40 has no %s: install Open MPI 4 (openmpi-bin)",
                             symbols[i].name);
        }
        memcpy((char *)&mpi + symbols[i].at, &found, sizeof found);
    }
    return TESS_OK;
}

static tess_status open_library(void)
{
    /* Its own plugins look for its symbols among the global ones. */
    void *library = dlopen("libmpi.so.40", RTLD_NOW | RTLD_GLOBAL);
    if (!library) {
        return TESS_FAIL(TESS_COMM,
                         "several ranks were started, and Open MPI does not open (%s): install "
                         "openmpi-bin and start them with its mpirun",
                         dlerror());
    }
    return find_symbols(library);
}

static tess_status set_up(job *j)
{
    int provided = 0;
    TESS_TRY(
        check(mpi.Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread"));
    j->threads = provided >= MPI_THREAD_SERIALIZED;
    TESS_TRY(check(mpi.Comm_dup(mpi.ompi_mpi_comm_world, &j->data), "MPI_Comm_dup"));
    TESS_TRY(check(mpi.Comm_dup(mpi.ompi_mpi_comm_world, &j->control), "MPI_Comm_dup"));
    mpi.Comm_set_errhandler(j->data, mpi.ompi_mpi_errors_return);
    mpi.Comm_set_errhandler(j->control, mpi.ompi_mpi_errors_return);
    TESS_TRY(check(mpi.Comm_rank(j->data, &j->rank), "MPI_Comm_rank"));
    TESS_TRY(check(mpi.Comm_size(j->data, &j->size), "MPI_Comm_size"));
    j->counts = tess_alloc_array((size_t)j->size, sizeof *j->counts);
    j->places = tess_alloc_array((size_t)j->size, sizeof *j->places);
    j->pieces = tess_alloc_array((size_t)j->size * 2, sizeof *j->pieces);
    j->call = j->range = mpi.ompi_request_null;
    return j->counts && j->places && j->pieces ? TESS_OK : TESS_NOMEM;
}

/* ---- a collective, piece by piece ---------------------------------------------------------- */

/* What of the parts lies in total elements at .. at + n: how much, and where from `at` on. */
static void cut(job *j, int64_t at, int64_t n)
{
    int64_t begin = 0;
    for (int r = 0; r < j->size; r++) {
        const int64_t end = begin + j->what.counts[r];
        const int64_t from = begin > at ? begin : at, to = end < at + n ? end : at + n;
        j->counts[r] = (int)(to > from ? to - from : 0);
        j->places[r] = (int)(to > from ? from - at : 0);
        begin = end;
    }
}

static int64_t offset_of(const int64_t *counts, int rank)
{
    int64_t begin = 0;
    for (int r = 0; r < rank; r++) {
        begin += counts[r];
    }
    return begin;
}

static int begin_piece(job *j, int64_t n)
{
    const tess_call *c = &j->what;
    switch (c->kind) {
    case TESS_BROADCAST:
        return mpi.Ibcast((char *)c->to + j->at, (int)n, mpi.ompi_mpi_byte, c->root, j->data,
                          &j->call);
    default: /* parts are in their places, see begin */
        cut(j, j->at, n);
        return mpi.Iallgatherv(MPI_IN_PLACE, 0, mpi.ompi_mpi_byte, (char *)c->to + j->at, j->counts,
                               j->places, mpi.ompi_mpi_byte, j->data, &j->call);
    }
}

static tess_status next_piece(job *j)
{
    const int64_t left = j->what.n - j->at, n = left < MOST_AT_ONCE ? left : MOST_AT_ONCE;
    TESS_TRY(check(begin_piece(j, n), "beginning a collective"));
    j->at += n;
    return TESS_OK;
}

/* Pieces are shorter than MOST_AT_ONCE. */
static tess_status begin_exchange(job *j)
{
    for (int r = 0; r < j->size; r++) {
        const tess_span *out = &j->what.sends[r], *in = &j->what.receives[r];
        MPI_Request *request = &j->pieces[2 * r];
        request[0] = request[1] = mpi.ompi_request_null;
        if (r != j->rank && in->n_bytes > 0) {
            TESS_TRY(check(mpi.Irecv(in->data, (int)in->n_bytes, mpi.ompi_mpi_byte, r, EXCHANGE_TAG,
                                     j->data, &request[0]),
                           "receiving a piece"));
        }
        if (r != j->rank && out->n_bytes > 0) {
            TESS_TRY(check(mpi.Isend(out->data, (int)out->n_bytes, mpi.ompi_mpi_byte, r,
                                     EXCHANGE_TAG, j->data, &request[1]),
                           "sending a piece"));
        }
    }
    return TESS_OK;
}

static tess_status begin(void *self, const tess_call *call)
{
    job *j = self;
    j->what = *call;
    j->at = 0;
    if (call->kind == TESS_EXCHANGE) {
        return begin_exchange(j);
    }
    if (call->kind == TESS_ALL_GATHER && call->counts[j->rank] > 0) {
        char *place = (char *)call->to + offset_of(call->counts, j->rank);
        memmove(place, call->from, (size_t)call->counts[j->rank]);
    }
    return call->n > 0 ? next_piece(j) : TESS_OK;
}

static tess_status test(MPI_Request *request, bool *out_done)
{
    int done = 0;
    TESS_TRY(check(mpi.Test(request, &done, MPI_STATUS_IGNORE), "in a collective"));
    *out_done = done != 0;
    return TESS_OK;
}

static tess_status poll_exchange(job *j, bool *out_done)
{
    int done = 0;
    TESS_TRY(check(mpi.Testall(2 * j->size, j->pieces, &done, MPI_STATUSES_IGNORE),
                   "exchanging pieces"));
    *out_done = done != 0;
    return TESS_OK;
}

static tess_status poll(void *self, bool *out_done)
{
    job *j = self;
    if (j->what.kind == TESS_EXCHANGE) {
        return poll_exchange(j, out_done);
    }
    TESS_TRY(test(&j->call, out_done));
    if (*out_done && j->at < j->what.n) {
        *out_done = false;
        return next_piece(j);
    }
    return TESS_OK;
}

/* ---- control ------------------------------------------------------------------------------- */

/* The greatest is the complement of the least complement. */
static tess_status begin_range(void *self, uint64_t range[2])
{
    job *j = self;
    j->to_range = range;
    j->sent[0] = range[0];
    j->sent[1] = ~range[1];
    return check(mpi.Iallreduce(j->sent, j->met, 2, mpi.ompi_mpi_uint64_t, mpi.ompi_mpi_op_min,
                                j->control, &j->range),
                 "comparing");
}

static tess_status poll_range(void *self, bool *out_done)
{
    job *j = self;
    TESS_TRY(test(&j->range, out_done));
    if (*out_done) {
        j->to_range[0] = j->met[0];
        j->to_range[1] = ~j->met[1];
    }
    return TESS_OK;
}

static tess_status send_note(void *self, int to, const char *text)
{
    job *j = self;
    note *n = tess_alloc(sizeof *n);
    if (!n) {
        return TESS_NOMEM;
    }
    snprintf(n->text, sizeof n->text, "%s", text);
    n->next = j->notes;
    j->notes = n;
    return check(mpi.Isend(n->text, TESS_NOTE_BYTES, mpi.ompi_mpi_byte, to, NOTE_TAG, j->control,
                           &n->request),
                 "sending a note");
}

static tess_status find_note(void *self, int *out_from, char *out_note)
{
    job *j = self;
    int found = 0;
    MPI_Status status;
    *out_from = -1;
    TESS_TRY(check(mpi.Iprobe(MPI_ANY_SOURCE, NOTE_TAG, j->control, &found, &status),
                   "looking for notes"));
    if (!found) {
        return TESS_OK;
    }
    *out_from = status.MPI_SOURCE;
    const tess_status st = check(mpi.Recv(out_note, TESS_NOTE_BYTES, mpi.ompi_mpi_byte, *out_from,
                                          NOTE_TAG, j->control, MPI_STATUS_IGNORE),
                                 "reading a note");
    out_note[TESS_NOTE_BYTES - 1] = '\0';
    return st;
}

/* ---- life ---------------------------------------------------------------------------------- */

static bool serves_threads(void *self)
{
    const job *j = self;
    return j->threads;
}

static void close_job(void *self, bool together)
{
    job *j = self;
    if (together) {
        mpi.Finalize();
    }
    while (j->notes) {
        note *next = j->notes->next;
        /* MPI may still read what was not finalized. */
        if (together) {
            tess_free(j->notes);
        }
        j->notes = next;
    }
    if (together) {
        tess_free(j->counts);
        tess_free(j->places);
        tess_free(j->pieces);
        tess_free(j);
    }
}

static void abort_job(void *self, int code)
{
    (void)self;
    mpi.Abort(mpi.ompi_mpi_comm_world, code);
}

static const tess_carrier carrier = {
    .begin = begin,
    .poll = poll,
    .begin_range = begin_range,
    .poll_range = poll_range,
    .send_note = send_note,
    .find_note = find_note,
    .serves_threads = serves_threads,
    .close = close_job,
    .abort = abort_job,
};

tess_status tess__comm_mpi(void **out_self, const tess_carrier **out, int *out_rank, int *out_size)
{
    job *j = tess_alloc(sizeof *j);
    tess_status st = j ? open_library() : TESS_NOMEM;
    st = st ? st : set_up(j);
    if (st) {
        tess_free(j ? j->counts : NULL);
        tess_free(j ? j->places : NULL);
        tess_free(j ? j->pieces : NULL);
        tess_free(j);
        return st;
    }
    *out_self = j;
    *out = &carrier;
    *out_rank = j->rank;
    *out_size = j->size;
    return TESS_OK;
}
