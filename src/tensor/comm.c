/* SPDX-License-Identifier: Apache-2.0 */
/* Collectives that end: by being done, or by an error that says who is missing or differs.
 *
 * Before a collective begins, its number and hash are brought together by a control message of two
 * numbers (the least and the greatest over all ranks).  Where they differ, ranks exchange what they
 * are about to do and each says the same sentence.  A rank that waits longer than the limit tells
 * rank 0 that it is there; rank 0, which waits as well, finds who has not said so, and tells the
 * others.  A rank within a collective that began cannot be found so, only suspected: then the
 * system is asked which of this host's processes are stopped or gone. */
#include "tensor/comm.h"
#include "tensor/job.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_SECONDS 600.0
#define GRACE_SECONDS   2.0 /* for notes, once the limit has passed; twice that for their answer */

static const char *const names[TESS_COLLECTIVE_COUNT] = {
    "barrier", "broadcast", "all_reduce", "reduce_scatter", "all_gather", "agree", "exchange"};

static bool is_sum(const tess_call *call)
{
    return call->kind == TESS_ALL_REDUCE || call->kind == TESS_REDUCE_SCATTER;
}

/* ---- words --------------------------------------------------------------------------------- */

/* "all_reduce of 4096 f32 (#17)", "broadcast of 8 bytes from rank 1 (#18)", "all_gather of 96 bytes
 * in parts 1f0c6e3a (#19)": whatever is compared can be told apart. */
static void print_call(const tess_comm *c, const tess_call *call, char *out, size_t n_bytes)
{
    char more[40] = "";
    if (call->kind == TESS_BARRIER) {
        snprintf(out, n_bytes, "barrier (#%lld)", (long long)c->n_calls);
        return;
    }
    if (call->kind == TESS_BROADCAST) {
        snprintf(more, sizeof more, " from rank %d", call->root);
    } else if (call->counts) {
        const uint64_t hash = tess_hash64(call->counts, (size_t)c->size * sizeof *call->counts, 0);
        snprintf(more, sizeof more, " in parts %08x", (unsigned)hash);
    }
    snprintf(out, n_bytes, "%s of %lld %s%s (#%lld)", names[call->kind], (long long)call->n,
             is_sum(call) ? tess_dtype_name(call->dtype) : "bytes", more, (long long)c->n_calls);
}

/* "rank 2 (host, process 123)" */
static void add_rank(const tess_comm *c, int rank, tess_buf *out)
{
    tess_buf_addf(out, "rank %d", rank);
    if (c->places) {
        tess_buf_addf(out, " (%s, process %lld)", c->places[rank].host,
                      (long long)c->places[rank].pid);
    }
}

/* Sets the message from text that was built, which it frees. */
static tess_status fail_with(tess_comm *c, tess_buf *text)
{
    c->failed = true;
    const tess_status st = tess_buf_check(text) ? TESS_FAIL(TESS_COMM, "a rank failed")
                                                : TESS_FAIL(TESS_COMM, "%s", text->data);
    tess_buf_deinit(text);
    return st;
}

/* ---- waiting ------------------------------------------------------------------------------- */

typedef tess_status (*poll_fn)(void *self, bool *out_done);

/* A process that yields comes back behind all others of a busy machine; one that slept, before. */
static void pause_for(double waited)
{
    if (waited < 1e-4) {
        sched_yield();
    } else {
        nanosleep(&(struct timespec){.tv_nsec = waited < 1 ? 20000 : 1000000}, NULL);
    }
}

/* TESS_OK with *out_done false: the time is up. */
static tess_status wait_for(tess_comm *c, poll_fn poll, double seconds, bool *out_done)
{
    const double begin = tess_seconds();
    for (;;) {
        TESS_TRY(poll(c->self, out_done));
        const double waited = tess_seconds() - begin;
        if (*out_done || waited > seconds) {
            return TESS_OK;
        }
        pause_for(waited);
    }
}

/* ---- who is missing ------------------------------------------------------------------------ */

/* The letter of /proc/PID/stat of a process of this host: 'T' stopped, 'Z' and 0 gone. */
static char process_state(int64_t pid)
{
    char path[64], text[512] = "";
    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    FILE *f = fopen(path, "re");
    const size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f) {
        fclose(f);
    }
    const char *end = n > 0 ? strrchr(text, ')') : NULL;
    return end && end[1] == ' ' ? end[2] : 0;
}

/* Ranks of this host that cannot be working. */
static void add_suspects(const tess_comm *c, tess_buf *out)
{
    const char *between = "; ";
    for (int r = 0; r < c->size; r++) {
        const bool here = strcmp(c->places[r].host, c->places[c->rank].host) == 0;
        const char state = here && r != c->rank ? process_state(c->places[r].pid) : 'R';
        if (state == 'T' || state == 'Z' || state == 0) {
            tess_buf_adds(out, between);
            add_rank(c, r, out);
            tess_buf_adds(out, state == 'T' ? " is stopped" : " is gone");
            between = ", ";
        }
    }
}

/* On rank 0: who has told that it waits, within the grace. */
static tess_status collect_notes(tess_comm *c, bool *here)
{
    char note[TESS_NOTE_BYTES];
    const double begin = tess_seconds();
    for (double waited = 0; waited < GRACE_SECONDS; waited = tess_seconds() - begin) {
        int from = -1;
        TESS_TRY(c->carrier->find_note(c->self, &from, note));
        if (from >= 0) {
            here[from] = true;
        } else {
            pause_for(waited);
        }
    }
    return TESS_OK;
}

static void add_missing(const tess_comm *c, const char *what, const char *how, const bool *here,
                        tess_buf *out)
{
    int n = 0;
    tess_buf_addf(out, "%s: ", what);
    for (int r = 1; r < c->size; r++) {
        if (!here[r]) {
            tess_buf_adds(out, n++ ? ", " : "");
            add_rank(c, r, out);
        }
    }
    if (n > 0) {
        tess_buf_adds(out, how);
    } else {
        tess_buf_addf(out, "after %g s all ranks wait and answer: messages were lost", c->seconds);
    }
    add_suspects(c, out);
}

static tess_status find_missing(tess_comm *c, const char *what, const char *how, tess_buf *out)
{
    bool *here = tess_alloc_array((size_t)c->size, sizeof *here);
    tess_status st = here ? collect_notes(c, here) : TESS_NOMEM;
    if (st == TESS_OK) {
        add_missing(c, what, how, here, out);
        st = tess_buf_check(out);
    }
    for (int r = 1; st == TESS_OK && r < c->size; r++) {
        if (here[r]) {
            st = c->carrier->send_note(c->self, r, out->data);
        }
    }
    tess_free(here);
    return st;
}

/* On another rank: what rank 0 found, or that it is itself who is missing. */
static tess_status ask_root(tess_comm *c, const char *what, const char *how, tess_buf *out)
{
    char note[TESS_NOTE_BYTES] = "";
    TESS_TRY(c->carrier->send_note(c->self, 0, what));
    const double begin = tess_seconds();
    for (double waited = 0; waited < 2 * GRACE_SECONDS; waited = tess_seconds() - begin) {
        int from = -1;
        TESS_TRY(c->carrier->find_note(c->self, &from, note));
        if (from == 0) {
            tess_buf_adds(out, note);
            return tess_buf_check(out);
        }
        pause_for(waited);
    }
    tess_buf_addf(out, "%s: ", what);
    add_rank(c, 0, out);
    tess_buf_adds(out, how);
    add_suspects(c, out);
    return tess_buf_check(out);
}

/* `how`: what is said of a rank that does not tell that it waits. */
static tess_status fail_waiting(tess_comm *c, const char *what, const char *how)
{
    tess_buf text = {0};
    c->failed = true;
    tess_status st =
        c->rank == 0 ? find_missing(c, what, how, &text) : ask_root(c, what, how, &text);
    if (st) {
        tess_buf_deinit(&text);
        return st;
    }
    return fail_with(c, &text);
}

static tess_status fail_late(tess_comm *c, const char *what)
{
    char how[64];
    snprintf(how, sizeof how, " did not come within %g s", c->seconds);
    return fail_waiting(c, what, how);
}

/* A collective that began does not end: some rank is stopped, gone or cut off within it. */
tess_status tess__comm_fail_within(tess_comm *c, const char *what)
{
    char began[TESS_NOTE_BYTES];
    snprintf(began, sizeof began, "%.400s began on all ranks and did not end within %g s", what,
             c->seconds);
    return fail_waiting(c, began, " does not answer");
}

/* ---- who differs --------------------------------------------------------------------------- */

static uint64_t hash_call(const tess_comm *c, const tess_call *call)
{
    const int64_t words[] = {c->n_calls, (int64_t)call->kind, call->root, call->n,
                             (int64_t)call->dtype};
    const uint64_t hash = tess_hash64(words, sizeof words, 0);
    return call->counts ? tess_hash64(call->counts, (size_t)c->size * sizeof *call->counts, hash)
                        : hash;
}

/* All ranks' notes (R,TESS_NOTE_BYTES); ranks that differ all come here. */
static tess_status exchange(tess_comm *c, const char *what, char *all)
{
    bool done = false;
    int64_t *counts = tess_alloc_array((size_t)c->size, sizeof *counts);
    if (!counts) {
        return TESS_NOMEM;
    }
    for (int r = 0; r < c->size; r++) {
        counts[r] = TESS_NOTE_BYTES;
    }
    char *mine = all + (size_t)c->rank * TESS_NOTE_BYTES;
    snprintf(mine, TESS_NOTE_BYTES, "%s", what);
    const tess_call call = {.kind = TESS_ALL_GATHER,
                            .n = (int64_t)c->size * TESS_NOTE_BYTES,
                            .counts = counts,
                            .from = mine,
                            .to = all};
    tess_status st = c->carrier->begin(c->self, &call);
    st = st ? st : wait_for(c, c->carrier->poll, c->seconds, &done);
    tess_free(counts);
    return st || done ? st : tess__comm_fail_within(c, "comparing what ranks do");
}

/* "ranks disagree: rank 0 (..) barrier (#3), rank 1 (..) all_reduce of 4 f32 (#3)"; ranks that do
 * as rank 0 does are not listed. */
static tess_status fail_apart(tess_comm *c, const char *what)
{
    tess_buf text = {0};
    char *all = tess_alloc_array((size_t)c->size, TESS_NOTE_BYTES);
    c->failed = true;
    tess_status st = all ? exchange(c, what, all) : TESS_NOMEM;
    if (st) {
        tess_free(all);
        return st;
    }
    tess_buf_adds(&text, "ranks disagree: ");
    for (int r = 0; r < c->size; r++) {
        const char *note = all + (size_t)r * TESS_NOTE_BYTES;
        if (r == 0 || strncmp(note, all, TESS_NOTE_BYTES) != 0) {
            tess_buf_adds(&text, r ? "; " : "");
            add_rank(c, r, &text);
            tess_buf_addf(&text, ": %.*s", TESS_NOTE_BYTES, note);
        }
    }
    tess_free(all);
    return fail_with(c, &text);
}

/* ---- one collective ------------------------------------------------------------------------ */

/* All ranks are here and about to do the same. */
static tess_status meet(tess_comm *c, uint64_t hash, const char *what)
{
    bool done = false;
    uint64_t range[2] = {hash, hash};
    TESS_TRY(c->carrier->begin_range(c->self, range));
    TESS_TRY(wait_for(c, c->carrier->poll_range, c->seconds, &done));
    if (!done) {
        return fail_late(c, what);
    }
    return range[0] == range[1] ? TESS_OK : fail_apart(c, what);
}

static tess_status begin_call(tess_comm *c, const tess_call *call, char *out_what, size_t n_bytes)
{
    if (c->failed) {
        return TESS_FAIL(TESS_COMM, "%s after a rank failed", names[call->kind]);
    }
    c->n_calls++;
    print_call(c, call, out_what, n_bytes);
    return meet(c, hash_call(c, call), out_what);
}

static int64_t wire(const tess_comm *c, const tess_call *call)
{
    const int64_t width = is_sum(call) ? (int64_t)tess_dtype_bytes(call->dtype) : 1;
    const int64_t n_bytes = call->n * width;
    const int64_t mine = call->counts ? call->counts[c->rank] * width : 0;
    switch (call->kind) {
    case TESS_ALL_REDUCE:
        return 2 * n_bytes * (c->size - 1) / c->size;
    case TESS_REDUCE_SCATTER:
        return n_bytes - mine;
    case TESS_ALL_GATHER:
        return mine * (c->size - 1);
    case TESS_BROADCAST:
        return c->rank == call->root ? n_bytes : 0;
    default:
        return 0;
    }
}

tess_status tess__comm_carry(tess_comm *c, const tess_call *call, bool *out_done)
{
    TESS_TRY(c->carrier->begin(c->self, call));
    return wait_for(c, c->carrier->poll, c->seconds, out_done);
}

/* What a rank has of a collective with itself. */
static tess_status run_alone(const tess_call *call)
{
    const size_t width = is_sum(call) ? tess_dtype_bytes(call->dtype) : 1;
    if (call->counts && call->counts[0] > 0 && call->to != call->from) {
        memmove(call->to, call->from, (size_t)call->counts[0] * width);
    }
    return TESS_OK;
}

tess_status tess__comm_run(tess_comm *c, const tess_call *call)
{
    char what[TESS_NOTE_BYTES];
    bool done = false;
    if (!c->carrier) {
        return run_alone(call);
    }
    tess_status st = begin_call(c, call, what, sizeof what);
    if (st == TESS_OK && call->kind != TESS_BARRIER) {
        st = is_sum(call) ? tess__comm_sum(c, call, &done) : tess__comm_carry(c, call, &done);
        st = st || done ? st : tess__comm_fail_within(c, what);
    }
    c->failed = c->failed || st != TESS_OK;
    c->wire_bytes += st ? 0 : wire(c, call);
    return st;
}

static tess_status run_call(tess_comm *c, const tess_call *call)
{
    TESS_TRY(tess__comm_drain(c));
    return tess__comm_run(c, call);
}

tess_status tess__comm_meet(tess_comm *c, const tess_call *call, char *out_what, size_t n_bytes)
{
    TESS_TRY(tess__comm_drain(c));
    const tess_status st = begin_call(c, call, out_what, n_bytes);
    c->failed = c->failed || st != TESS_OK;
    c->wire_bytes += st ? 0 : wire(c, call);
    return st;
}

tess_status tess_comm_barrier(tess_comm *c)
{
    return c->carrier ? run_call(c, &(tess_call){.kind = TESS_BARRIER}) : TESS_OK;
}

tess_status tess_comm_broadcast(tess_comm *c, void *data, size_t n_bytes, int root)
{
    const tess_call call = {
        .kind = TESS_BROADCAST, .root = root, .n = (int64_t)n_bytes, .to = data};
    return c->carrier ? run_call(c, &call) : TESS_OK;
}

static tess_status check_sum(tess_dtype dtype)
{
    return dtype == TESS_F32 || dtype == TESS_BF16
               ? TESS_OK
               : TESS_FAIL(TESS_INVALID, "a sum over ranks: expected f32 or bf16, found %s",
                           tess_dtype_name(dtype));
}

tess_status tess_comm_all_reduce(tess_comm *c, void *x, tess_dtype dtype, int64_t n)
{
    TESS_TRY(check_sum(dtype));
    const tess_call call = {.kind = TESS_ALL_REDUCE, .n = n, .dtype = dtype, .to = x};
    return c->carrier ? run_call(c, &call) : TESS_OK;
}

static int64_t sum_of(const tess_comm *c, const int64_t *counts)
{
    int64_t sum = 0;
    for (int r = 0; r < c->size; r++) {
        sum += counts[r];
    }
    return sum;
}

tess_status tess_comm_reduce_scatter(tess_comm *c, const void *x, tess_dtype dtype,
                                     const int64_t *counts, void *mine)
{
    TESS_TRY(check_sum(dtype));
    return run_call(c, &(tess_call){.kind = TESS_REDUCE_SCATTER,
                                    .n = sum_of(c, counts),
                                    .dtype = dtype,
                                    .counts = counts,
                                    .from = x,
                                    .to = mine});
}

tess_status tess_comm_all_gather(tess_comm *c, const void *mine, const int64_t *n_bytes, void *all)
{
    return run_call(c, &(tess_call){.kind = TESS_ALL_GATHER,
                                    .n = sum_of(c, n_bytes),
                                    .counts = n_bytes,
                                    .from = mine,
                                    .to = all});
}

tess_status tess_comm_agree(tess_comm *c, const char *what, uint64_t hash)
{
    char note[TESS_NOTE_BYTES];
    if (!c->carrier) {
        return TESS_OK;
    }
    TESS_TRY(tess__comm_drain(c));
    if (c->failed) {
        return TESS_FAIL(TESS_COMM, "%s compared after a rank failed", what);
    }
    c->n_calls++;
    snprintf(note, sizeof note, "%.400s %016llx", what, (unsigned long long)hash);
    const tess_status st = meet(c, tess_hash64(note, strlen(note), (uint64_t)c->n_calls), note);
    c->failed = st != TESS_OK;
    return st;
}

/* ---- life ---------------------------------------------------------------------------------- */

/* The number of processes, by what launchers say. */
static int n_launched(void)
{
    static const char *const variables[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE",
                                            "SLURM_STEP_NUM_TASKS", "WORLD_SIZE"};
    /* Torchrun may itself be a task of srun. */
    for (int64_t i = tess__job_wanted() ? 3 : 0; i < TESS_COUNT(variables); i++) {
        const char *size = getenv(variables[i]);
        if (size) {
            return atoi(size);
        }
    }
    return 1;
}

/* MPI alone knows how many there are: a launcher that is not its own leaves each by itself. */
static tess_status open_mpi(tess_comm *c, int n)
{
    if (tess__job_wanted()) {
        TESS_TRY(tess__job_join(c->seconds, &c->job));
    }
    TESS_TRY(tess__comm_mpi(&c->self, &c->carrier, &c->rank, &c->size));
    if (c->size != n) {
        return TESS_FAIL(TESS_COMM,
                         "%d processes were started, and MPI sees %d: start them with Open MPI's "
                         "mpirun, with srun --mpi=pmix, or with torchrun's variables (RANK, "
                         "WORLD_SIZE, MASTER_ADDR, MASTER_PORT)",
                         n, c->size);
    }
    return TESS_OK;
}

static tess_status gather_places(tess_comm *c)
{
    c->places = tess_alloc_array((size_t)c->size, sizeof *c->places);
    int64_t *counts = tess_alloc_array((size_t)c->size, sizeof *counts);
    tess_status st = c->places && counts ? TESS_OK : TESS_NOMEM;
    if (st == TESS_OK) {
        tess_rank_place here = {.pid = getpid()};
        gethostname(here.host, sizeof here.host - 1);
        for (int r = 0; r < c->size; r++) {
            counts[r] = (int64_t)sizeof here;
        }
        st = tess_comm_all_gather(c, &here, counts, c->places);
    }
    tess_free(counts);
    return st;
}

tess_status tess_comm_open(const tess_comm_options *o, tess_comm **out)
{
    *out = NULL;
    tess_comm *c = tess_alloc(sizeof *c);
    if (!c) {
        return TESS_NOMEM;
    }
    c->size = 1;
    c->seconds = o && o->seconds > 0 ? o->seconds : DEFAULT_SECONDS;
    const int n = n_launched();
    tess_status st = n > 1 ? open_mpi(c, n) : TESS_OK;
    c->threads = st == TESS_OK && c->carrier && c->carrier->serves_threads(c->self);
    if (st == TESS_OK && c->carrier) {
        st = gather_places(c);
        c->wire_bytes = 0;
    }
    if (st) {
        c->failed = true;
        tess_comm_close(c);
        return st;
    }
    *out = c;
    return TESS_OK;
}

tess_status tess_comm_describe(int ranks, tess_comm **out)
{
    tess_comm *c = *out = tess_alloc(sizeof *c);
    if (!c) {
        return TESS_NOMEM;
    }
    c->size = ranks;
    c->seconds = DEFAULT_SECONDS;
    return TESS_OK;
}

void tess_comm_close(tess_comm *c)
{
    if (!c) {
        return;
    }
    bool together = false;
    tess__comm_end_lane(c);
    if (c->carrier) {
        together = !c->failed && tess_comm_barrier(c) == TESS_OK;
        c->carrier->close(c->self, together);
    }
    tess__job_leave(c->job, together);
    tess_free(c->places);
    tess_free(c->scratch);
    tess_free(c);
}

void tess_comm_abort(tess_comm *c, int code)
{
    if (c && c->carrier) {
        c->carrier->abort(c->self, code);
    }
}

int tess_comm_rank(const tess_comm *c)
{
    return c->rank;
}

int tess_comm_size(const tess_comm *c)
{
    return c->size;
}

int tess_comm_local_size(const tess_comm *c)
{
    int n = 0;
    for (int r = 0; c->places && r < c->size; r++) {
        n += strcmp(c->places[r].host, c->places[c->rank].host) == 0;
    }
    return n > 0 ? n : 1;
}

int64_t tess_comm_wire_bytes(const tess_comm *c)
{
    return c->wire_bytes;
}
