/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper of a host's ranks, and the one door to PMIx: the server that Open MPI in each of them
 * asks who is where, and hands what the others must know.
 *
 * It answers what a direct launch asks (rte_init of Open MPI 4.1's ess/pmi): sizes, local ranks,
 * the map of hosts.  A fence over several hosts goes through the hub: every host's piece, one
 * behind the other, is what the library wants back. */
#include "tensor/job.h"

#include <dlfcn.h>
#include <pmix.h>
#include <pmix_server.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SEND_SECONDS  60.0
#define TERM_SECONDS  3 /* between SIGTERM and SIGKILL */
#define SETUP_SECONDS 30.0
enum { PER_JOB = 8, PER_RANK = 5 };

#define FUNCTIONS(X)                                                                               \
    X(server_init)                                                                                 \
    X(server_finalize)                                                                             \
    X(generate_ppn)                                                                                \
    X(server_register_nspace)                                                                      \
    X(server_register_client)                                                                      \
    X(server_setup_fork)                                                                           \
    X(Error_string)

static struct {
#define MEMBER(name) __typeof__(&PMIx_##name) name;
    FUNCTIONS(MEMBER)
#undef MEMBER
} pmix;

/* The library calls back from a thread of its own, and without a pointer of ours. */
static struct {
    pthread_mutex_t lock; /* of the hub's wire, and of what is under way */
    tess_job_wire hub;
    const tess_job_row *table;
    int size, host, first; /* its least rank */
    pmix_nspace_t space;
    char folder[512];
    pmix_modex_cbfunc_t on_pieces;
    void *of_pieces;
    int *ends; /* (local ranks) handles of their processes */
    int n_local;
} keeper = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- opening ------------------------------------------------------------------------------- */

static tess_status check(pmix_status_t code, const char *what)
{
    return code == PMIX_SUCCESS || code == PMIX_OPERATION_SUCCEEDED
               ? TESS_OK
               : TESS_FAIL(TESS_COMM, "PMIx: %s: %s", what, pmix.Error_string(code));
}

static tess_status open_library(void)
{
    static const struct {
        const char *name;
        size_t at;
    } symbols[] = {
#define ROW(name) {"PMIx_" #name, offsetof(__typeof__(pmix), name)},
        FUNCTIONS(ROW)
#undef ROW
    };
    void *library = dlopen("libpmix.so.2", RTLD_NOW | RTLD_GLOBAL);
    if (!library) {
        return TESS_FAIL(TESS_COMM,
                         "PMIx does not open (%s): install openmpi-bin, or start with its "
                         "mpirun",
                         dlerror());
    }
    for (int64_t i = 0; i < TESS_COUNT(symbols); i++) {
        void *found = dlsym(library, symbols[i].name);
        if (!found) {
            return TESS_FAIL(TESS_COMM, "libpmix.so.2 has no %s", symbols[i].name);
        }
        memcpy((char *)&pmix + symbols[i].at, &found, sizeof found);
    }
    return TESS_OK;
}

/* ---- what ranks ask ------------------------------------------------------------------------ */

static pmix_status_t say_done(pmix_op_cbfunc_t done, void *ctx)
{
    if (done) {
        done(PMIX_SUCCESS, ctx);
    }
    return PMIX_SUCCESS;
}

static pmix_status_t on_connected(const pmix_proc_t *p, void *object, pmix_op_cbfunc_t done,
                                  void *ctx)
{
    (void)p, (void)object;
    return say_done(done, ctx);
}

static pmix_status_t on_events(pmix_status_t *codes, size_t n, const pmix_info_t info[],
                               size_t n_info, pmix_op_cbfunc_t done, void *ctx)
{
    (void)codes, (void)n, (void)info, (void)n_info;
    return say_done(done, ctx);
}

static pmix_status_t off_events(pmix_status_t *codes, size_t n, pmix_op_cbfunc_t done, void *ctx)
{
    (void)codes, (void)n;
    return say_done(done, ctx);
}

static tess_status tell_hub(tess_job_kind kind, const void *data, size_t n_bytes)
{
    return tess__job_send(&keeper.hub, kind, data, n_bytes, tess_seconds() + SEND_SECONDS);
}

/* All ranks of this host have come to a fence.  Only the whole job's are known here. */
static pmix_status_t on_fence(const pmix_proc_t procs[], size_t n, const pmix_info_t info[],
                              size_t n_info, char *data, size_t n_bytes, pmix_modex_cbfunc_t done,
                              void *ctx)
{
    (void)info, (void)n_info;
    if ((n != 1 || procs[0].rank != PMIX_RANK_WILDCARD) && n != (size_t)keeper.size) {
        return PMIX_ERR_NOT_SUPPORTED;
    }
    pthread_mutex_lock(&keeper.lock);
    keeper.on_pieces = done;
    keeper.of_pieces = ctx;
    const tess_status st = tell_hub(TESS_JOB_PIECE, data ? data : "", data ? n_bytes : 0);
    pthread_mutex_unlock(&keeper.lock);
    return st ? PMIX_ERROR : PMIX_SUCCESS;
}

/* What others must know came with the fence: the rest is not known. */
static pmix_status_t on_question(const pmix_proc_t *p, const pmix_info_t info[], size_t n_info,
                                 pmix_modex_cbfunc_t done, void *ctx)
{
    (void)p, (void)info, (void)n_info, (void)done, (void)ctx;
    return PMIX_ERR_NOT_FOUND;
}

static pmix_status_t on_abort(const pmix_proc_t *p, void *object, int code, const char text[],
                              pmix_proc_t procs[], size_t n, pmix_op_cbfunc_t done, void *ctx)
{
    char why[128];
    (void)object, (void)text, (void)procs, (void)n;
    snprintf(why, sizeof why, "rank %u ended the job with code %d", p->rank, code);
    pthread_mutex_lock(&keeper.lock);
    const tess_status st = tell_hub(TESS_JOB_END, why, strlen(why));
    pthread_mutex_unlock(&keeper.lock);
    (void)st; /* the hub's end is heard by reading */
    return say_done(done, ctx);
}

static pmix_server_module_t module = {
    .client_connected = on_connected,
    .client_finalized = on_connected,
    .abort = on_abort,
    .fence_nb = on_fence,
    .direct_modex = on_question,
    .register_events = on_events,
    .deregister_events = off_events,
};

/* ---- what they are told -------------------------------------------------------------------- */

static pmix_info_t *add_info(pmix_info_t *at, const char *key, pmix_data_type_t type)
{
    snprintf(at->key, sizeof at->key, "%s", key);
    at->value.type = type;
    return at;
}

static void add_u32(pmix_info_t *at, const char *key, uint32_t x)
{
    add_info(at, key, PMIX_UINT32)->value.data.uint32 = x;
}

static void add_text(pmix_info_t *at, const char *key, char *text)
{
    add_info(at, key, PMIX_STRING)->value.data.string = text;
}

/* Hosts of one name are told apart by their number. */
static void add_name(int host, tess_buf *out)
{
    int same = 0, at = 0;
    while (keeper.table[at].host != host) {
        at++;
    }
    const char *name = keeper.table[at].name;
    for (int r = 0; r < at; r++) {
        same += strcmp(keeper.table[r].name, name) == 0 && keeper.table[r].host != host;
    }
    for (; *name; name++) {
        const bool plain = (*name >= 'a' && *name <= 'z') || (*name >= 'A' && *name <= 'Z') ||
                           (*name >= '0' && *name <= '9') || *name == '.';
        tess_buf_add(out, plain ? name : "-", 1);
    }
    if (same) {
        tess_buf_addf(out, "-%d", host);
    }
}

/* "0,2;1,3": the ranks of hosts `from` to `to`. */
static void add_ranks(int from, int to, tess_buf *out)
{
    for (int h = from; h < to; h++) {
        const char *between = h > from ? ";" : "";
        for (int r = 0; r < keeper.size; r++) {
            if (keeper.table[r].host == h) {
                tess_buf_addf(out, "%s%d", between, r);
                between = ",";
            }
        }
    }
}

static int count_hosts(void)
{
    int n = 0;
    for (int r = 0; r < keeper.size; r++) {
        n = keeper.table[r].host >= n ? keeper.table[r].host + 1 : n;
    }
    return n;
}

static void add_rank_info(pmix_info_t *at, pmix_data_array_t *array, pmix_info_t *rows, int rank)
{
    uint16_t local = 0;
    for (int r = 0; r < rank; r++) {
        local += keeper.table[r].host == keeper.table[rank].host;
    }
    add_info(&rows[0], PMIX_RANK, PMIX_PROC_RANK)->value.data.rank = (pmix_rank_t)rank;
    add_info(&rows[1], PMIX_LOCAL_RANK, PMIX_UINT16)->value.data.uint16 = local;
    add_info(&rows[2], PMIX_NODE_RANK, PMIX_UINT16)->value.data.uint16 = local;
    add_u32(&rows[3], PMIX_NODEID, (uint32_t)keeper.table[rank].host);
    add_u32(&rows[4], PMIX_APPNUM, 0);
    *array = (pmix_data_array_t){.type = PMIX_INFO, .size = PER_RANK, .array = rows};
    add_info(at, PMIX_PROC_DATA, PMIX_DATA_ARRAY)->value.data.darray = array;
}

typedef struct waiter {
    volatile bool done;
    volatile pmix_status_t code;
} waiter;

static void on_done(pmix_status_t code, void *ctx)
{
    waiter *w = ctx;
    w->code = code;
    __atomic_store_n(&w->done, true, __ATOMIC_RELEASE);
}

static tess_status finish(pmix_status_t code, waiter *w, const char *what)
{
    const double end = tess_seconds() + SETUP_SECONDS;
    if (code == PMIX_OPERATION_SUCCEEDED) {
        return TESS_OK;
    }
    TESS_TRY(check(code, what));
    while (!__atomic_load_n(&w->done, __ATOMIC_ACQUIRE)) {
        if (tess_seconds() > end) {
            return TESS_FAIL(TESS_COMM, "PMIx: %s did not end", what);
        }
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    return check(w->code, what);
}

/* The library may keep what it is given: it lives as long as this process. */
static tess_status register_job(void)
{
    static waiter w;
    const size_t n = PER_JOB + (size_t)keeper.size;
    pmix_info_t *info = tess_alloc_array(n, sizeof *info);
    pmix_info_t *rows = tess_alloc_array((size_t)keeper.size * PER_RANK, sizeof *rows);
    pmix_data_array_t *arrays = tess_alloc_array((size_t)keeper.size, sizeof *arrays);
    tess_buf names = {0}, ranks = {0}, peers = {0};
    char *map = NULL;
    const int n_hosts = count_hosts();
    tess_buf_adds(&names, "raw:");
    for (int h = 0; h < n_hosts; h++) {
        tess_buf_adds(&names, h ? "," : "");
        add_name(h, &names);
    }
    add_ranks(0, n_hosts, &ranks);
    add_ranks(keeper.host, keeper.host + 1, &peers);
    if (!info || !rows || !arrays || tess_buf_check(&names) || tess_buf_check(&ranks) ||
        tess_buf_check(&peers)) {
        return TESS_NOMEM;
    }
    TESS_TRY(check(pmix.generate_ppn(ranks.data, &map), "PMIx_generate_ppn"));
    add_text(&info[0], PMIX_NODE_MAP, names.data);
    pmix_info_t *places = add_info(&info[1], PMIX_PROC_MAP, PMIX_REGEX);
    places->value.data.bo = (pmix_byte_object_t){.bytes = map, .size = strlen(map) + 1};
    add_u32(&info[2], PMIX_JOB_SIZE, (uint32_t)keeper.size);
    add_u32(&info[3], PMIX_UNIV_SIZE, (uint32_t)keeper.size);
    add_u32(&info[4], PMIX_LOCAL_SIZE, (uint32_t)keeper.n_local);
    add_text(&info[5], PMIX_LOCAL_PEERS, peers.data);
    add_info(&info[6], PMIX_LOCALLDR, PMIX_PROC_RANK)->value.data.rank = (pmix_rank_t)keeper.first;
    add_u32(&info[7], PMIX_MAX_PROCS, (uint32_t)keeper.size);
    for (int r = 0; r < keeper.size; r++) {
        add_rank_info(&info[PER_JOB + r], &arrays[r], &rows[r * PER_RANK], r);
    }
    return finish(pmix.server_register_nspace(keeper.space, keeper.n_local, info, n, on_done, &w),
                  &w, "PMIx_server_register_nspace");
}

static tess_status register_rank(int rank)
{
    static waiter w;
    pmix_proc_t p = {.rank = (pmix_rank_t)rank};
    snprintf(p.nspace, sizeof p.nspace, "%s", keeper.space);
    w.done = false;
    return finish(pmix.server_register_client(&p, getuid(), getgid(), NULL, on_done, &w), &w,
                  "PMIx_server_register_client");
}

static tess_status start_server(void)
{
    static pmix_info_t info[3];
    static tess_buf name;
    const char *base = getenv("TMPDIR");
    snprintf(keeper.folder, sizeof keeper.folder, "%.400s/tessera_job.XXXXXX",
             base ? base : "/tmp");
    if (!mkdtemp(keeper.folder)) {
        return TESS_FAIL(TESS_IO, "%s: a folder for PMIx cannot be made", keeper.folder);
    }
    add_name(keeper.host, &name);
    TESS_TRY(tess_buf_check(&name));
    add_text(&info[0], PMIX_HOSTNAME, name.data);
    add_text(&info[1], PMIX_SERVER_TMPDIR, keeper.folder);
    add_text(&info[2], PMIX_SYSTEM_TMPDIR, keeper.folder);
    setenv("PMIX_MCA_gds", "hash", 1); /* in memory, not in files */
    return check(pmix.server_init(&module, info, 3), "PMIx_server_init");
}

/* ---- settings and ends --------------------------------------------------------------------- */

static tess_status send_settings(void)
{
    pmix_proc_t p = {.rank = (pmix_rank_t)keeper.first};
    char **lines = NULL;
    tess_buf out = {0};
    snprintf(p.nspace, sizeof p.nspace, "%s", keeper.space);
    TESS_TRY(check(pmix.server_setup_fork(&p, &lines), "PMIx_server_setup_fork"));
    for (char **line = lines; line && *line; line++) {
        tess_buf_addf(&out, "%s\n", *line);
    }
    TESS_TRY(tess_buf_check(&out));
    pthread_mutex_lock(&keeper.lock);
    const tess_status st = tell_hub(TESS_JOB_SETTINGS, out.data ? out.data : "", out.n_bytes);
    pthread_mutex_unlock(&keeper.lock);
    tess_buf_deinit(&out);
    return st;
}

/* Handles, so that a number that was given away again is not mistaken for a rank. */
static tess_status find_ranks(void)
{
    keeper.ends = tess_alloc_array((size_t)keeper.size, sizeof *keeper.ends);
    if (!keeper.ends) {
        return TESS_NOMEM;
    }
    keeper.first = -1;
    for (int r = 0; r < keeper.size; r++) {
        if (keeper.table[r].host == keeper.host) {
            keeper.first = keeper.first < 0 ? r : keeper.first;
            keeper.ends[keeper.n_local++] = (int)syscall(SYS_pidfd_open, keeper.table[r].pid, 0);
        }
    }
    return TESS_OK;
}

static void signal_ranks(int number)
{
    for (int i = 0; i < keeper.n_local; i++) {
        if (keeper.ends[i] >= 0) {
            (void)syscall(SYS_pidfd_send_signal, keeper.ends[i], number, NULL, 0);
        }
    }
}

static void end_ranks(void)
{
    const double end = tess_seconds() + TERM_SECONDS;
    signal_ranks(SIGTERM);
    signal_ranks(SIGCONT);
    for (int i = 0; i < keeper.n_local; i++) {
        struct pollfd p = {.fd = keeper.ends[i], .events = POLLIN};
        const double left = end - tess_seconds();
        (void)poll(&p, 1, left > 0 ? (int)(left * 1e3) : 0);
    }
    signal_ranks(SIGKILL);
}

static void release(void *data)
{
    tess_free(data);
}

static void hand_out(const char *data, size_t n_bytes)
{
    char *copy = tess_alloc(n_bytes + 1);
    pthread_mutex_lock(&keeper.lock);
    const pmix_modex_cbfunc_t done = keeper.on_pieces;
    keeper.on_pieces = NULL;
    pthread_mutex_unlock(&keeper.lock);
    if (copy) {
        memcpy(copy, data, n_bytes);
    }
    if (done) {
        done(copy ? PMIX_SUCCESS : PMIX_ERR_NOMEM, copy, copy ? n_bytes : 0, keeper.of_pieces,
             release, copy);
    }
}

/* Until the hub says that all have left; anything else ends this host's ranks. */
static void serve(void)
{
    int kind = 0;
    while (kind != TESS_JOB_BYE) {
        struct pollfd p = {.fd = keeper.hub.fd, .events = POLLIN};
        const char *data = NULL;
        size_t n_bytes = 0;
        (void)poll(&p, 1, 1000);
        pthread_mutex_lock(&keeper.lock);
        const tess_status st = tess__job_read(&keeper.hub, &kind, &data, &n_bytes);
        pthread_mutex_unlock(&keeper.lock);
        if (st || kind == TESS_JOB_END) {
            end_ranks();
            return;
        }
        if (kind == TESS_JOB_PIECE) {
            hand_out(data, n_bytes);
        }
    }
}

static tess_status begin(const tess_job_place *place)
{
    TESS_TRY(find_ranks());
    TESS_TRY(open_library());
    TESS_TRY(start_server());
    snprintf(keeper.space, sizeof keeper.space, "tessera-%s-%d", place->port, keeper.table[0].pid);
    TESS_TRY(register_job());
    for (int r = 0; r < keeper.size; r++) {
        TESS_TRY(keeper.table[r].host == keeper.host ? register_rank(r) : TESS_OK);
    }
    return send_settings();
}

void tess__job_keep(const tess_job_place *place, const tess_job_row *table, int host)
{
    tess_job_hello hello = {.is_keeper = true, .rank = host, .size = place->size, .pid = getpid()};
    gethostname(hello.host, sizeof hello.host - 1);
    keeper.table = table;
    keeper.size = place->size;
    keeper.host = host;
    if (tess__job_connect(place, &hello, &keeper.hub)) {
        return;
    }
    if (begin(place)) {
        const tess_status st = tell_hub(TESS_JOB_END, tess_error(), strlen(tess_error()));
        (void)st; /* its end says the same with fewer words */
    }
    serve();
    if (keeper.on_pieces == NULL && pmix.server_finalize) {
        pmix.server_finalize();
    }
    const tess_status removed = keeper.folder[0] ? tess_dir_remove(keeper.folder) : TESS_OK;
    (void)removed; /* a temporary folder */
}
